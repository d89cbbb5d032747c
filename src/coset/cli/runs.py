"""Run recipes, sweep over them, look at what they left."""

import json as json_module
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from coset.core.errors import CosetError
from coset.core.files import claimed_output, named_after, unused
from coset.core.machine import keep_freed_memory
from coset.runs.terminal import console, print_notes, print_table, problems, tell


def recipes_like(incomplete: str) -> list[str]:
    """Names of recipes that begin so, for the shell."""
    from coset.runs.listing import files

    return [name for name in files() if name.startswith(incomplete)]


def run(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or a YAML file.", autocompletion=recipes_like)
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. training.epochs=20")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; a new one under runs/ by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    engine: Annotated[str, typer.Option(help="local; torchrun, ray: several processes, one model.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Processes of --engine torchrun or ray.")] = 2,
    retries: Annotated[int, typer.Option(min=0, help="Starts more from the last checkpoint if one of them dies.")] = 2,
    restart: Annotated[bool, typer.Option("--restart", help="Remove what is in the folder and begin anew.")] = False,
    live: Annotated[bool, typer.Option("--live", help="A page to watch in the browser while it trains.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Run a recipe, or go on with a run that was stopped: the same command given again goes on, too.

    Example: coset run subgraphormer/freesolv training.epochs=20 --seed 1

    Example: coset run --resume runs/subgraphormer-freesolv-20250131-120000

    Example: coset run subgraphormer/freesolv --live

    Example: coset run subgraphormer/freesolv --engine torchrun --workers 2
    """
    from coset.runs.folder import RunFolder
    from coset.runs.launch import processes
    from coset.runs.recipes import load, load_run
    from coset.runs.run import execute

    processes.follow_launcher()
    if processes.mistake_was_made():
        return
    changes = [change for change in overrides or [] if not change.startswith("engine=")]
    engine = next((c.partition("=")[2] for c in overrides or [] if c.startswith("engine=")), engine)
    if engine not in ("local", "torchrun", "ray"):
        raise CosetError(f"--engine {engine}: choose local, torchrun or ray")
    if live and engine != "local":
        raise CosetError(f"--live follows runs of this process; leave out --engine {engine}")
    if resume is not None:
        if recipe is not None or output is not None or seed is not None or restart:
            raise CosetError("--resume takes recipe, seed and folder from the run: give it alone")
        RunFolder(resume).check_holds_run()
        checked, folder, again = load_run(resume), resume, ["run", "--resume", str(resume)]
    else:
        if recipe is None:
            raise CosetError("name a recipe (coset list), or continue a run with --resume DIR")
        checked = load(recipe, changes + ([] if seed is None else [f"seed={seed}"]))
        folder = output or _folder_for(checked)
        again = ["run", recipe, *changes, f"seed={checked.seed}", "--output", str(folder)]
    if engine == "local":
        keep_freed_memory()
        metrics = execute(checked, folder, restart=restart, quiet=quiet, live=live)
    else:
        metrics = _run_together(checked, folder, again, engine, workers, retries, quiet)
    if processes.is_first() and metrics:
        _print_run(checked, folder, metrics)


def _folder_for(recipe: Any) -> Path:
    """A new folder under ``runs/``; or the last one of this recipe, if its run was stopped and can go on."""
    from coset.runs.folder import RunFolder
    from coset.runs.recipes import load_run

    name, runs = recipe.name.replace("/", "-"), Path("runs")
    earlier = [RunFolder(path) for path in sorted(runs.glob(f"{name}-*"), reverse=True) if path.is_dir()]
    for folder in earlier:
        if folder.resumable() and not folder.in_use() and load_run(folder.path) == recipe:
            at = folder.status().get("at")
            problems.print(f"going on in {folder}" + (f", at {at}" if at else ""), highlight=False)
            return folder.path
    return unused(runs / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")


def sweep(
    recipes: Annotated[list[str], typer.Argument(help="Recipes, then key=value; key=a,b,c varies a setting.")],
    output: Annotated[Path | None, typer.Option(help="Folder; given again, what is missing is run.")] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which: 0,1,2.")] = "3",
    engine: Annotated[str, typer.Option(help="local (processes) or ray.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Starts more for a trial whose process dies.")] = 2,
    metric: Annotated[str | None, typer.Option(help="Place in metrics.json, e.g. test.rmse.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Draw so many settings; the whole grid without.")] = None,
    search: Annotated[
        str, typer.Option(help="How: random, or tpe, which learns from those before (Optuna).")
    ] = "random",
    better: Annotated[str | None, typer.Option(help="lower or higher, for tpe where the metric does not say.")] = None,
    asha: Annotated[bool, typer.Option("--asha", help="Stop early what is worse than the rest (Optuna).")] = False,
    grace: Annotated[int, typer.Option(min=1, help="Epochs that --asha leaves every trial.")] = 4,
    reduction: Annotated[int, typer.Option(min=2, help="Of so many trials --asha lets one go on.")] = 3,
    restart: Annotated[bool, typer.Option("--restart", help="Remove what is in the folder and begin anew.")] = False,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Run recipes over settings and seeds: a table of mean and deviation. Exit code 1 if a trial failed.

    Example: coset sweep gin/esol subgraphormer/esol data.split=random,scaffold --seeds 5 --workers 2

    Example: coset sweep gin/esol model.width=16,32,64 "training.learning_rate=loguniform(1e-4,1e-2)" --seeds 1
    --search tpe --samples 30 --asha
    """
    from coset.runs.recipes import check, refuse
    from coset.runs.run import execute
    from coset.runs.sweep.spaces import Space, seeds_of

    names, changes = [r for r in recipes if "=" not in r], [r for r in recipes if "=" in r]
    if not names:
        raise CosetError("name a recipe to sweep (coset list)")
    example = Space.read(changes).example()
    for name in names:  # before PyTorch is imported
        refuse(name, example)
    wanted = check(
        {
            "kind": "search", "recipes": names, "changes": changes, "seeds": seeds_of(seeds), "samples": samples,
            "search": search, "metric": metric, "better": better,
            "asha": {"grace": grace, "reduction": reduction} if asha else None,
            "launch": {"engine": engine, "workers": workers, "retries": retries},
        },
        "sweep",
    )  # fmt: skip
    folder = output or _folder_for(wanted)
    metrics = execute(wanted, folder, restart=restart, quiet=quiet)
    _print_run(wanted, folder, metrics)


def predict(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a sweep over seeds: an ensemble.")],
    data: Annotated[Path, typer.Argument(help="CSV with a column of SMILES, own graphs; an adapter, or a folder.")],
    output: Annotated[Path | None, typer.Option(help="CSV to write; new.csv: new-predictions.csv here.")] = None,
    smiles: Annotated[str | None, typer.Option(help="Column of SMILES; by default as in training.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows that cannot be parsed.")] = False,
    lossy: Annotated[bool, typer.Option("--lossy", help="Take adapters without what cannot be carried.")] = False,
    draws: Annotated[int | None, typer.Option(min=1, help="Draws of noise or roots to take the mean over.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of these draws.")] = None,
    interval: Annotated[float | None, typer.Option(help="Share of truths inside, e.g. 0.9: adds low and high.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Predict for new molecules (their CSV again, with predictions beside them), own graphs, or LoRA adapters.

    Example: coset predict runs/mine new.csv

    Example: coset predict runs/mine new.csv --output predictions.csv --interval 0.9
    """
    from coset.runs.folder import run_folders
    from coset.runs.recipes import load_run

    output = output or named_after(data, "predictions.csv")
    if output.exists() and data.exists() and output.samefile(data):
        raise CosetError(f"{output} is what is predicted for; give predictions another name by --output")
    first, *others = run_folders(run_folder)
    recipe = load_run(first)
    given: dict[str, Any] = {"smiles": smiles, "skip_bad_rows": skip_bad_rows or None, "draws": draws, "seed": seed}
    given |= {"interval": interval, "others": others or None, "lossy": lossy or None}
    options = {name: value for name, value in given.items() if value is not None}
    with claimed_output(output):
        count, notes = recipe.predict(recipe.folder(first), data, output, quiet=quiet, **options)
    print_notes(notes)
    of = f" of {1 + len(others)} runs" if others else ""
    tell(predictions=count, runs=1 + len(others), output=str(output))
    console.print(f"{count} predictions{of} written to {output}", highlight=False, soft_wrap=True)


def verify(
    target: Annotated[str, typer.Argument(help="A recipe, or the folder of a run.", autocompletion=recipes_like)],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the symmetry that a model claims; exit code 1 if it is broken.

    Example: coset verify subgraphormer/freesolv
    """
    from coset.runs.recipes import verify as measure

    reports = measure(target, progress=not json)
    if json:
        typer.echo(json_module.dumps([report.to_dict() for report in reports], indent=2))
    else:
        for report in reports:
            console.print(str(report), highlight=False, soft_wrap=True)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are compared.")],
    output: Annotated[Path | None, typer.Option(help="Page that compares several runs; comparison.html here.")] = None,
) -> None:
    """Write the HTML report of a run, or a comparison of several.

    Example: coset report runs/a runs/b --output comparison.html
    """
    from coset.runs.comparison import write_comparison
    from coset.runs.folder import REPORT
    from coset.runs.recipes import load_run

    recipes = [load_run(folder) for folder in runs]
    if len(runs) == 1:
        folder = recipes[0].folder(runs[0])
        with claimed_output(folder / REPORT):
            page = recipes[0].page(folder, folder.metrics())
    else:
        output = output or unused(Path("comparison.html"))
        with claimed_output(output):
            page = write_comparison(runs, output)
    tell(page=str(page))
    console.print(f"{page}", highlight=False)


def bench(
    name: Annotated[str | None, typer.Argument(help="Name of a bench; without one they are listed.")] = None,
    options: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. category=cfi networks=none")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a benchmark.

    Example: coset bench expressivity category=basic networks=none
    """
    import importlib
    import inspect

    from coset.core.domains import domains, merged

    benches = merged("bench", (domain.benches for domain in domains()))
    if name is None:
        if json:
            typer.echo(json_module.dumps(dict(sorted(benches.items())), indent=2))
            return
        print_table(["bench", "where"], [[key, place] for key, place in sorted(benches.items())])
        return
    if name not in benches:
        raise CosetError(f"no bench {name!r}; choose from {', '.join(sorted(benches))}")
    module, attribute = benches[name].split(":")
    function = getattr(importlib.import_module(module), attribute)
    known = [key for key in inspect.signature(function).parameters if key != "json"]
    chosen: dict[str, Any] = {}
    for option in options or []:
        key, _, value = option.partition("=")
        if key not in known or not value:
            raise CosetError(f"bench {name}: option {option!r} must read key=value with key one of {', '.join(known)}")
        chosen[key] = int(value) if value.isdigit() else value
    function(json=json, **chosen)


def _run_together(
    checked: Any, folder: Path, again: list[str], engine: str, workers: int, retries: int, quiet: bool
) -> dict[str, Any]:
    """Several processes train one model: a command of ours under torchrun, or a function on Ray."""
    from coset.runs.launch import ray_train, torchrun
    from coset.runs.recipes import execute_part

    if not checked.shares_processes:
        raise CosetError(f"{checked.name} is of kind {checked.kind}, whose runs several processes cannot share")
    if engine == "torchrun":
        torchrun.launch([*again, *["--quiet"] * quiet], workers, retries)
        return {}
    arguments = (checked.to_yaml(), checked.name, str(folder.absolute()))
    ray_train.launch(execute_part, arguments, folder, workers, retries)
    return checked.folder(folder).metrics()


def _print_run(checked: Any, folder: Path, metrics: dict[str, Any]) -> None:
    from coset.runs.folder import REPORT

    tell(recipe=checked.name, folder=str(folder), metrics=metrics)
    print_table(*checked.summary(metrics))
    for line in checked.remarks(metrics):
        console.print(line, highlight=False, soft_wrap=True)
    size = f"{metrics['params']:,} parameters, " if "params" in metrics else ""
    console.print(f"{size}{metrics['seconds']} s; everything is in {folder}", highlight=False, soft_wrap=True)
    if (page := checked.folder(folder) / REPORT).is_file():
        console.print(f"look at {page}", highlight=False, soft_wrap=True)
    for name, reason in metrics.get("failed", {}).items():
        problems.print(f"failed: {name}: {reason}", highlight=False, soft_wrap=True)
    if metrics.get("failed"):
        raise typer.Exit(1)
