"""The command line: parse, call one function, print. Nothing heavy is imported before a command needs it."""

import json as json_module
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from coset import CosetError, __version__

# Before PyTorch is imported: its OpenMP threads sleep between operations instead of spinning, which leaves the cores to
# the fused kernels that run in between (a third of their time on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console, problems = Console(), Console(stderr=True)
BENCHES = {
    "bags": "coset.graphs.bag_bench:main",
    "expressivity": "coset.graphs.expressivity:main",
    "counting": "coset.graphs.counting_bench:main",
    "norms": "coset.graphs.norm_bench:main",
    "torus": "coset.topology.blindspots:main",
    "blindspots": "coset.topology.blindspots:gallery",
    "brec": "coset.graphs.brec_protocol:main",
}
lora = typer.Typer(no_args_is_help=True, help="LoRA adapters: look into them, collect, search, map.")
app.add_typer(lora, name="lora")


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"coset {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Deep learning on data and networks with symmetry."""


@app.command("list")
def list_recipes() -> None:
    """List the recipes.

    Example: coset list
    """
    from coset.recipes import names

    table = Table("recipe", "what it runs", box=None)
    for name, description in names().items():
        table.add_row(name, description)
    console.print(table)


@app.command()
def show(recipe: str) -> None:
    """Print a recipe, ready to be copied and changed.

    Example: coset show subgraphormer/freesolv > mine.yaml; coset run mine.yaml
    """
    from coset.recipes import show as text

    typer.echo(text(recipe))


@app.command()
def run(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe, or a YAML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. training.epochs=20")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; a new one under runs/ by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    engine: Annotated[str, typer.Option(help="local; torchrun, ray: several processes, one model.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Processes of --engine torchrun or ray.")] = 2,
    retries: Annotated[int, typer.Option(min=0, help="Starts more from the last checkpoint if one of them dies.")] = 2,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Run a recipe, or go on with a run that was stopped.

    Example: coset run subgraphormer/freesolv training.epochs=20 --seed 1

    Example: coset run --resume runs/subgraphormer-freesolv-20250131-120000

    Example: coset run subgraphormer/freesolv --engine torchrun --workers 2
    """
    from coset.recipes import load, load_run
    from coset.training import processes, run_directory

    processes.follow_launcher()
    if processes.mistake_was_made():
        return None
    changes = [change for change in overrides or [] if not change.startswith("engine=")]
    engine = next((c.partition("=")[2] for c in overrides or [] if c.startswith("engine=")), engine)
    if engine not in ("local", "torchrun", "ray"):
        raise CosetError(f"--engine {engine}: choose local, torchrun or ray")
    together: dict[str, Any] = {"engine": engine, "workers": workers, "retries": retries, "quiet": quiet}
    if resume is not None:
        if recipe is not None or output is not None or seed is not None:
            raise CosetError("--resume takes recipe, seed and folder from the run: give it alone")
        folder = run_directory.existing(resume)
        if not (folder / "last.ckpt").is_file():
            raise CosetError(f"{folder} was stopped before its first epoch ended: start it again with --output")
        checked = load_run(folder)
        if engine != "local":
            return _run_together(checked, folder, ["run", "--resume", str(folder)], resume=True, **together)
        metrics = checked.run(folder, resume=True, quiet=quiet or not processes.is_first())
    else:
        if recipe is None:
            raise CosetError("name a recipe (coset list), or continue a run with --resume DIR")
        checked = load(recipe, changes + ([] if seed is None else [f"seed={seed}"]))
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = output or run_directory.unused(Path("runs") / f"{checked.name.replace('/', '-')}-{stamp}")
        if engine != "local":
            again = ["run", recipe, *changes, f"seed={checked.seed}", "--output", str(folder)]
            return _run_together(checked, folder, again, resume=False, **together)
        stopped = processes.was_stopped(folder / "last.ckpt")
        if not processes.is_first():
            _need_graphs(checked)
            checked.run(folder, resume=stopped, quiet=True)
            return None
        with run_directory.claimed(folder, checked.to_yaml()):
            metrics = checked.run(folder, resume=stopped, quiet=quiet)
    if not processes.is_first():
        return None
    return _print_run(checked, folder, metrics)


def _run_together(
    checked: Any, folder: Path, again: list[str], *, resume: bool, engine: str, workers: int, retries: int, quiet: bool
) -> None:
    """Several processes train one model: a command of ours under torchrun, or a function on Ray."""
    from contextlib import nullcontext

    from coset.training import ray_train, run_directory, torchrun

    _need_graphs(checked)
    if engine == "torchrun":
        return torchrun.launch([*again, *["--quiet"] * quiet], workers, retries)
    from coset.recipes.graphs import run_together

    with nullcontext() if resume else run_directory.claimed(folder, checked.to_yaml()):
        arguments = (checked.to_yaml(), checked.name, str(folder.absolute()), resume)
        ray_train.launch(run_together, arguments, folder, workers, retries)
    return _print_run(checked, folder, json_module.loads((folder / "metrics.json").read_text(encoding="utf-8")))


def _print_run(checked: Any, folder: Path, metrics: dict[str, Any]) -> None:
    checked.report(folder)
    _print_summary(*checked.summary(metrics))
    size = f"{metrics['params']:,} parameters, " if "params" in metrics else ""
    console.print(f"{size}{metrics['seconds']} s; everything is in {folder}", highlight=False)


def _need_graphs(recipe: Any) -> None:
    if recipe.kind != "graphs":
        raise CosetError(f"{recipe.name} is of kind {recipe.kind}; several processes train recipes of kind graphs only")


@app.command()
def sweep(
    recipes: Annotated[list[str], typer.Argument(help="Recipes, then key=value; key=a,b,c varies a setting.")],
    output: Annotated[Path | None, typer.Option(help="Folder; given again, what is missing is run.")] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which: 0,1,2.")] = "3",
    engine: Annotated[str, typer.Option(help="local (processes) or ray.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Starts more for a trial whose process dies.")] = 2,
    metric: Annotated[str | None, typer.Option(help="Place in metrics.json, e.g. test.rmse.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Draw so many settings; the whole grid without.")] = None,
    asha: Annotated[bool, typer.Option("--asha", help="Stop early what is worse than the rest (Ray Tune).")] = False,
    grace: Annotated[int, typer.Option(min=1, help="Epochs that --asha leaves every trial.")] = 4,
    reduction: Annotated[int, typer.Option(min=2, help="Of so many trials --asha lets one go on.")] = 3,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Run recipes over settings and seeds: a table of mean and deviation. Exit code 1 if a trial failed.

    Example: coset sweep gin/esol subgraphormer/esol data.split=random,scaffold --seeds 5 --workers 2

    Example: coset sweep gin/esol model.width=16,32,64 "training.learning_rate=loguniform(1e-4,1e-2)" --samples 12
    --seeds 1 --engine ray --asha
    """
    from pydantic import ValidationError

    from coset.recipes.halving import Halving
    from coset.recipes.trials import Sweep, run_sweep, seeds_of, table_of
    from coset.training import run_directory

    names, changes = [r for r in recipes if "=" not in r], [r for r in recipes if "=" in r]
    if not names:
        raise CosetError("name a recipe to sweep (coset list)")
    try:
        wanted = Sweep(recipes=names, changes=changes, seeds=seeds_of(seeds), samples=samples)
    except ValidationError as error:
        raise CosetError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = output or run_directory.unused(Path("runs") / f"sweep-{stamp}")
    how: dict[str, Any] = {"engine": engine, "workers": workers, "retries": retries}
    halving = Halving(grace, reduction) if asha else None
    metrics = run_sweep(wanted, folder, metric=metric, halving=halving, quiet=quiet, **how)
    _print_summary(*table_of(metrics["rows"]))
    if halving is not None:
        best = metrics["ranking"][0]
        console.print(
            f"best on validation: {best['label']} seed={best['seed']} in runs/{best['folder']}; "
            f"{metrics['epochs']} of {metrics['all_epochs']} epochs run", highlight=False, soft_wrap=True,
        )  # fmt: skip
    for name, reason in metrics["failed"].items():
        problems.print(f"failed: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{metrics['trials']} trials, {metrics['seconds']} s; look at {folder / 'report.html'}", highlight=False
    )
    if metrics["failed"]:
        raise typer.Exit(1)


@app.command()
def preprocess(
    files: Annotated[list[Path], typer.Argument(help="Tables of molecules (.csv, .tsv, .gz), of equal columns.")],
    output: Annotated[Path, typer.Option(help="Folder; given again, what is missing is made.")],
    smiles: Annotated[str, typer.Option(help="Column of SMILES.")] = "smiles",
    target: Annotated[str | None, typer.Option(help="Column to predict, or several: a,b.")] = None,
    id: Annotated[str | None, typer.Option(help="Column of names; row numbers otherwise.")] = None,
    recipe: Annotated[str, typer.Option(help="Whose model says what is added to a graph.")] = "csv",
    change: Annotated[list[str] | None, typer.Option(help="model.key=value, e.g. model.max_distance=8")] = None,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows of a shard: memory grows with it.")] = 5000,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows that cannot be parsed.")] = False,
    engine: Annotated[str, typer.Option(help="local (processes) or ray (Ray Data).")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Shards at a time.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Starts more for work whose process dies.")] = 2,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Millions of molecules to shards on disk, with the structure that a model needs, in bounded memory.

    Example: coset preprocess zinc.csv.gz --output shards --target logP --workers 8

    Example: coset run csv data.name=shards data.path=shards
    """
    from coset.graphs.sharding import Sharding, preprocess
    from coset.recipes.preprocessing import transform_of

    sharding = Sharding(tuple(files), transform_of(recipe, change or ()), smiles, target or (), id, shard_rows)
    how: dict[str, Any] = {"engine": engine, "workers": workers, "retries": retries}
    made = preprocess(sharding, output, skip_bad_rows=skip_bad_rows, quiet=quiet, **how)
    _print_notes(made["notes"])
    console.print(
        f"{made['graphs']:,} graphs in {made['shards']} shards ({made['made']} made now, {made['cpu_seconds']} CPU s), "
        f"{made['bytes'] / max(1, made['graphs']):,.0f} bytes each, {made['seconds']} s; in {output}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _print_summary(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None)
    for place, column in enumerate(columns):
        # Whole names: those of models on one line, those of layers on two where one is too narrow.
        longest = max((len(row[place]) for row in rows), default=0)
        table.add_column(column, overflow="fold", min_width=min(longest, 24) if place == 0 else None)
    for row in rows:
        table.add_row(*row)
    console.print(table)


@app.command()
def predict(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Annotated[Path, typer.Argument(help="CSV with a column of SMILES; for LoRAs an adapter, or a folder.")],
    output: Annotated[Path, typer.Option(help="CSV to write.")],
    smiles: Annotated[str | None, typer.Option(help="Column of SMILES; by default as in training.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows that cannot be parsed.")] = False,
    draws: Annotated[int | None, typer.Option(min=1, help="Draws of noise or roots to take the mean over.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of these draws.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Predict for new molecules (their CSV again, with predictions beside them), or for LoRA adapters.

    Example: coset predict runs/mine new.csv --output predictions.csv
    """
    from coset.recipes import load_run

    if load_run(run_folder).kind == "lora":
        from coset.recipes.lora_runs import predict_adapters

        if draws is not None or seed is not None:
            raise CosetError(f"--draws and --seed: the model of {run_folder} reads LoRA adapters and draws nothing")
        count, notes = predict_adapters(run_folder, data, output, skip_bad_rows)
    else:
        from coset.recipes.prediction import predict_csv

        how: dict[str, Any] = {"progress": not quiet, "draws": draws, "seed": seed}
        count, notes = predict_csv(run_folder, data, output, smiles, skip_bad_rows, **how)
    for note in notes:
        problems.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{count} predictions written to {output}", highlight=False, soft_wrap=True)


@app.command()
def verify(
    target: Annotated[str, typer.Argument(help="A recipe, or the folder of a run.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the symmetry that a model claims; exit code 1 if it is broken.

    Example: coset verify subgraphormer/freesolv
    """
    from coset.recipes import verify as measure

    reports = measure(target, progress=not json)
    if json:
        typer.echo(json_module.dumps([report.to_dict() for report in reports], indent=2))
    else:
        for report in reports:
            console.print(str(report), highlight=False, markup=False, soft_wrap=True)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are compared.")],
    output: Annotated[Path, typer.Option(help="Page that compares several runs.")] = Path("comparison.html"),
) -> None:
    """Write the HTML report of a run, or a comparison of several.

    Example: coset report runs/a runs/b --output comparison.html
    """
    from coset.recipes import load_run
    from coset.reports import write_comparison

    recipes = [load_run(folder) for folder in runs]
    page = recipes[0].report(runs[0]) if len(runs) == 1 else write_comparison(runs, output)
    console.print(f"{page}", highlight=False)


@app.command()
def track(
    video: Annotated[Path, typer.Argument(help="Video file.")],
    output: Annotated[Path, typer.Option(help="NPZ to write; of several shots the others get -2, -3, ...")] = Path(
        "tracks.npz"
    ),
    preview: Annotated[Path | None, typer.Option(help="PNG of a frame with its tracks drawn.")] = None,
    intrinsics: Annotated[str | None, typer.Option(help="f,cx,cy or fx,fy,cx,cy in pixels, or a file.")] = None,
    points: Annotated[int, typer.Option(min=20, help="Most tracks to keep.")] = 600,
    max_frames: Annotated[int | None, typer.Option(min=3, help="Read no more frames.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Take every so many frames.")] = 1,
    shot: Annotated[int | None, typer.Option(min=1, help="Only this shot of a video with cuts.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Follow points through a video: tracks as CoTracker writes them.

    Example: coset track video.mp4 --output tracks.npz --preview tracks.png
    """
    from coset.motion.pipeline import Input, track_video

    source = Input(video, intrinsics, points, max_frames, stride, shot)
    for line in track_video(source, output, preview, progress=not quiet):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def reconstruct(
    source: Annotated[Path, typer.Argument(help="Video, or NPZ of tracks.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    refine: Annotated[str, typer.Option(help="none, bundle or finetune.")] = "bundle",
    model: Annotated[
        Path | None, typer.Option(help="model.safetensors of a run; the package's own by default.")
    ] = None,
    intrinsics: Annotated[str | None, typer.Option(help="f,cx,cy or fx,fy,cx,cy in pixels, or a file.")] = None,
    points: Annotated[int, typer.Option(min=20, help="Most tracks to follow in a video.")] = 600,
    max_frames: Annotated[int | None, typer.Option(min=3, help="Read no more frames of a video.")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Take every so many frames of a video.")] = 1,
    shot: Annotated[
        int | None, typer.Option(min=1, help="Which shot of a video with cuts; the longest by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Updates of --refine finetune.")] = 300,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Cameras and moving 3D of a video: a page to look at, COLMAP, PLY and glTF files, metrics.

    Example: coset reconstruct video.mp4 --output scene
    """
    from coset.motion.pipeline import Input, reconstruct_file
    from coset.motion.reconstruct import Options

    if refine not in ("none", "bundle", "finetune"):
        raise CosetError(f"--refine {refine}: choose none, bundle or finetune")
    inputs = Input(source, intrinsics, points, max_frames, stride, shot)
    options = Options(refine=refine, steps=steps)  # type: ignore[arg-type]
    result, notes = reconstruct_file(inputs, output, options, model, progress=not quiet)
    for note in notes:
        problems.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    _print_summary(
        ["measured", ""], [[k, f"{v:.4g}" if isinstance(v, float) else str(v)] for k, v in result.metrics().items()]
    )
    console.print(f"look at {output / 'index.html'}", highlight=False, soft_wrap=True)


@app.command()
def audit(
    weights: Annotated[Path, typer.Argument(help="safetensors of a ReLU network with one output, or one a class.")],
    data: Annotated[
        Path, typer.Option(help="NPZ: x_train, y_train, x_test, y_test; labels -1 and 1, 0 and 1, or class numbers.")
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; it will hold private data.")],
    group: Annotated[str, typer.Option(help="plain, flips, c4, d4, shifts or sets.")] = "plain",
    loss: Annotated[str, typer.Option(help="mse or logistic; with several outputs always ce.")] = "logistic",
    weight_decay: Annotated[float | None, typer.Option(help="Of training, if there was any.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the search.")] = 3000,
    restarts: Annotated[int, typer.Option(min=1, help="Independent starts, side by side.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the starts.")] = 0,
    model: Annotated[str | None, typer.Option(help="FILE.py:NAME that makes another network of yours.")] = None,
    part: Annotated[int | None, typer.Option(min=1, help="Candidates at a time, to bound memory.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """How much of its training data a model of your own gives away.

    Example: coset audit model.safetensors --data data.npz --output audit --group d4 --weight-decay 1e-3

    Example: coset audit cnn.safetensors --model cnn.py:make --data data.npz --output audit --group shifts
    """
    from coset.recipes.reconstruction import audit_files

    results, warnings = audit_files(
        weights, data, output, group, loss, weight_decay, steps, restarts, seed, model, part, quiet
    )
    for warning in warnings:
        problems.print(f"note: {warning}", highlight=False, markup=False, soft_wrap=True)
    _print_summary(["measured", ""], [[k, f"{v:.4g}"] for k, v in results.items()])
    console.print(f"look at {output / 'report.html'}", highlight=False, soft_wrap=True)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help=f"Name of a bench: {', '.join(BENCHES)}.")],
    options: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. category=cfi networks=none")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a benchmark.

    Example: coset bench expressivity category=basic networks=none
    """
    import importlib
    import inspect

    if name not in BENCHES:
        raise CosetError(f"no bench {name!r}; choose from {', '.join(BENCHES)}")
    module, attribute = BENCHES[name].split(":")
    function = getattr(importlib.import_module(module), attribute)
    known = [key for key in inspect.signature(function).parameters if key != "json"]
    chosen: dict[str, Any] = {}
    for option in options or []:
        key, _, value = option.partition("=")
        if key not in known or not value:
            raise CosetError(f"bench {name}: option {option!r} must read key=value with key one of {', '.join(known)}")
        chosen[key] = int(value) if value.isdigit() else value
    function(json=json, **chosen)


@app.command()
def connect(
    networks: Annotated[list[Path], typer.Argument(help="Two or more state dicts: .safetensors, or .pt of tensors.")],
    model: Annotated[str, typer.Option(help="file.py:function, package.module:function, or RUN:variant.")],
    data: Annotated[
        str | None, typer.Option(help="digits, mnist, cifar10-small, or an .npz of inputs and targets.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("connection"),
    match: Annotated[str | None, typer.Option(help="none, weights, activations; by default both if possible.")] = None,
    points: Annotated[int, typer.Option(help="Of each curve, odd.")] = 25,
    rows: Annotated[int | None, typer.Option(min=1, help="Measure on the first so many rows.")] = None,
    seed: Annotated[int, typer.Option(help="Of weight matching.")] = 0,
) -> None:
    """Loss barriers between trained networks, as they are and with their neurons matched.

    Example: coset connect a.safetensors b.safetensors --model nets.py:build --data test.npz
    """
    from coset.recipes.connect import connect as measure

    with console.status("measuring"):
        columns, table, notes = measure(
            networks, model, data, output, match=match, points=points, rows=rows, seed=seed
        )  # fmt: skip
    _print_summary(columns, table)
    _print_notes(notes)
    console.print(f"look at {output / 'report.html'}", highlight=False, soft_wrap=True)


@app.command("wl")
def wl(
    first: Annotated[str, typer.Argument(help="graph6 file with one graph, or a graph6 string.")],
    second: Annotated[str, typer.Argument(help="The other graph.")],
    tests: Annotated[str | None, typer.Option(help="Comma-separated, e.g. 1-WL,EPWL-A; all by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    complexes: Annotated[bool, typer.Option("--complex", help="Compare complexes: JSON, atom lists, meshes.")] = False,
    lift: Annotated[str, typer.Option(help="For graphs as complexes: ring, clique, ball, mapper or none.")] = "ring",
    longest: Annotated[int, typer.Option(min=3, help="Nodes of the longest ring that becomes a cell.")] = 6,
) -> None:
    """Say which tests of expressive power tell two graphs apart, after how many rounds, and by which nodes.

    With --complex: how two complexes differ, and which rank pair of SMCN sees it.

    Example: coset wl EhEG EJaG --tests 1-WL,EPWL-A; coset wl --complex bunny.off torus.json
    """
    if complexes:
        return _compare_complexes(first, second, lift, longest, json)
    from coset.graphs.wl import read_one_graph, wl_compare

    chosen = None if tests is None else [name.strip() for name in tests.split(",")]
    verdicts = wl_compare(read_one_graph(first), read_one_graph(second), chosen)
    if json:
        typer.echo(json_module.dumps([verdict.to_dict() for verdict in verdicts], indent=2))
        return
    rows = [[v.test, "yes" if v.separated else "no", str(v.rounds), str(v.witness or "")] for v in verdicts]
    _print_summary(["test", "told apart", "rounds", "a colour of first against second"], rows)


def _compare_complexes(first: str, second: str, lift: Any, longest: int, json: bool) -> None:
    from coset.topology.advice import compare_complexes
    from coset.topology.files import read_complex

    found = compare_complexes(read_complex(first, lift, longest), read_complex(second, lift, longest))
    if json:
        typer.echo(json_module.dumps(found.to_dict(), indent=2))
        return
    shown = [[n, *("–" if v is None else str(v) for v in (a, b))] for n, a, b in found.invariants]
    _print_summary(["", "first", "second", ""], [[*row, "differs" if row[1] != row[2] else ""] for row in shown])
    said = {True: "yes", False: "no", None: "too large"}
    rows = [
        [v.network, said[v.separates], "–" if v.layers is None else str(v.layers), f"{v.pairs:,}"]
        for v in found.verdicts
    ]
    _print_summary(["network", "told apart", "layers", "pairs"], rows)
    console.print(found.advice, highlight=False, soft_wrap=True)


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="YAML: merge_method, models, parameters, output.")],
    check: Annotated[bool, typer.Option("--check", help="Only say whether and how it can be done.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder to write; by default the file's.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bar.")] = False,
) -> None:
    """Merge checkpoints of transformers into one that from_pretrained loads.

    Example: coset merge two-tasks.yaml --check; coset merge two-tasks.yaml --output merged
    """
    from rich.progress import Progress

    from coset.recipes import merge_file, merge_results

    wanted = merge_file.load(recipe)
    if output is not None:
        wanted = wanted.model_copy(update={"output": str(output)})
    if check:
        for line in merge_file.check(wanted):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    with Progress(console=problems, disable=quiet) as bar:
        work = bar.add_task(wanted.merge_method, total=None)
        facts = merge_file.run(wanted, progress=lambda done, of: bar.update(work, completed=done, total=of))
    _print_notes(facts["notes"])
    if facts.get("scores"):
        _print_summary(*merge_results.summary(facts))
    console.print(f"{facts['seconds']} s; written to {wanted.output}", highlight=False, soft_wrap=True)


@lora.command("inspect")
def lora_inspect(
    path: Annotated[Path, typer.Argument(help="PEFT or diffusers folder, or a file of weights.")],
    adapter: Annotated[str | None, typer.Option(help="Which adapter, where there are several.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Layers, ranks, scales, norms and effective ranks of an adapter.

    Example: coset lora inspect my-adapter
    """
    from coset.weights.lora import inspect, load_lora

    facts = inspect(load_lora(path, adapter=adapter))
    if json:
        typer.echo(json_module.dumps(facts.to_dict(), indent=2))
        return
    rows = [
        [f.name, f.kind, f"{f.n} x {f.m}", str(f.rank), f"{f.scale:g}", f"{f.norm:.4g}", f"{f.effective_rank:.2f}"]
        for f in facts.layers
    ]
    _print_summary(["layer", "kind", "shape", "rank", "scale", "norm", "effective rank"], rows)
    base = f", base model {facts.base_model}" if facts.base_model else ""
    console.print(
        f"{facts.name} ({facts.source_format}{base}): {len(rows)} layers, {facts.parameters:,} numbers for "
        f"{facts.dense_parameters:,} of the updates, norm {facts.norm:.4g}",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    _print_notes(facts.notes)


@lora.command("convert")
def lora_convert(
    path: Annotated[Path, typer.Argument(help="Any adapter that can be read.")],
    output: Annotated[Path, typer.Argument(help="PEFT folder, or a .safetensors file in kohya's naming.")],
    rank: Annotated[int | None, typer.Option(help="Best approximation of this rank.")] = None,
) -> None:
    """Write an adapter in another form.

    Example: coset lora convert style.safetensors style-peft
    """
    from coset.weights.lora import load_lora, save_kohya, save_peft

    adapter = load_lora(path)
    adapter = adapter if rank is None else adapter.truncate(rank)
    written = (save_kohya if output.suffix == ".safetensors" else save_peft)(adapter, output)
    _print_notes(adapter.notes)
    console.print(f"{len(adapter.layers)} layers written to {written}", highlight=False, soft_wrap=True)


@lora.command("collect")
def lora_collect(
    folder: Annotated[Path, typer.Argument(help="Folder of adapters, at any depth.")],
    output: Annotated[Path, typer.Argument(help="Folder of the collection.")],
    layers: Annotated[str, typer.Option(help="same, intersection or union, where layers differ.")] = "same",
    skip_bad: Annotated[bool, typer.Option(help="Leave out adapters that cannot be read.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Read many adapters into one collection of memory-mapped arrays.

    Example: coset lora collect adapters zoo --skip-bad
    """
    from rich.progress import track

    from coset.weights.lora.zoo import build_zoo, find_adapters

    def bar(items: Any, what: str) -> Any:
        return items if quiet else track(items, description=what, console=problems)

    sources = find_adapters(folder)
    zoo = build_zoo(sources, output, root=folder, layers=layers, skip_bad=skip_bad, dtype=dtype, progress=bar)
    _print_notes((*zoo.notes, *(f"skipped {name}: {reason}" for name, reason in zoo.skipped)))
    console.print(f"{len(zoo)} adapters, rank {zoo.rank}, in {output}", highlight=False, soft_wrap=True)


@lora.command("zoo")
def lora_zoo(
    recipe: Annotated[str, typer.Argument(help="Recipe of kind lora-zoo, e.g. lol/minilm-zoo.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. adapters=50")] = None,
    output: Annotated[Path, typer.Option(help="Folder; one that was interrupted is completed.")] = Path("runs/zoo"),
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    engine: Annotated[str, typer.Option(help="local (processes) or ray.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Finetunes at a time.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Starts more for a worker that dies.")] = 2,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Make a collection: finetune many adapters and label them.

    Example: coset lora zoo lol/minilm-zoo --output runs/minilm-zoo --workers 4
    """
    from coset.recipes import load
    from coset.recipes.lora_zoo import LoraZooRecipe

    checked = load(recipe, list(overrides or []) + ([] if seed is None else [f"seed={seed}"]))
    if not isinstance(checked, LoraZooRecipe):
        raise CosetError(f"{recipe} is of kind {checked.kind}; coset lora zoo takes lora-zoo, e.g. lol/minilm-zoo")
    metrics = checked.make(output, engine=engine, workers=workers, retries=retries, quiet=quiet)
    _print_summary(*checked.summary(metrics))
    console.print(f"{metrics['seconds']} s; everything is in {output}", highlight=False)


@lora.command("search")
def lora_search(
    adapter: Annotated[Path, typer.Argument(help="An adapter.")],
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    top: Annotated[int, typer.Option(help="How many.")] = 10,
) -> None:
    """The adapters of a collection that are most like this one, however they are factorised.

    Example: coset lora search mine zoo
    """
    from coset.recipes.lora_runs import search_folder

    _print_summary(
        ["adapter", "cosine"], [[n.name, f"{n.cosine:.4f}"] for n in search_folder(adapter, collection, top)]
    )


@lora.command("duplicates")
def lora_duplicates(
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    threshold: Annotated[float, typer.Option(help="Smallest cosine that counts.")] = 0.99,
) -> None:
    """Pairs of adapters with nearly the same update.

    Example: coset lora duplicates zoo --threshold 0.95
    """
    from coset.recipes.lora_data import opened
    from coset.weights.lora.neighbours import duplicates

    zoo = opened(collection)
    found = duplicates(zoo.factors(), zoo.names, threshold)
    _print_summary(["adapter", "and", "cosine"], [[a, b, f"{c:.4f}"] for a, b, c in found])
    console.print(f"{len(found)} pairs among {len(zoo)} adapters", highlight=False)


@lora.command("map")
def lora_map(
    collection: Annotated[Path, typer.Argument(help="A collection, or a folder of adapters.")],
    output: Annotated[Path, typer.Option(help="The page.")] = Path("map.html"),
    labels: Annotated[Path | None, typer.Option(help="CSV with a column id; labels.csv by default.")] = None,
    colour: Annotated[str | None, typer.Option(help="Column of it that colours the points.")] = None,
) -> None:
    """A page with every adapter as a point, near those that are like it.

    Example: coset lora map runs/minilm-zoo --colour accuracy
    """
    from coset.recipes.lora_runs import map_folder

    console.print(f"{map_folder(collection, output, labels, colour)}", highlight=False, soft_wrap=True)


def _print_notes(notes: Any) -> None:
    for note in notes:
        problems.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point: one line and exit code 1 for a mistake, 2 for a mistyped command; a traceback with ``--debug``."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        sys.exit(app(arguments, prog_name="coset", standalone_mode=False))
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped", 130)
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # Typer's own: a missing argument, an unknown option
            context = getattr(error, "ctx", None)
            _fail(f"{error.format_message()} ({context.command_path if context else 'coset'} --help)", 2)
        if isinstance(error, CosetError) and "COSET_MISTAKE" in os.environ:
            from coset.training.processes import note_mistake

            note_mistake(str(error))  # whoever launched this process tells it, once for all of them
            sys.exit(1)
        known = isinstance(error, CosetError | ValueError | OSError)
        _fail(str(error) if known else f"{type(error).__name__}: {error} (--debug shows where)", 1)


def _fail(text: str, code: int) -> NoReturn:
    problems.print(f"error: {' '.join(text.split())}", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
