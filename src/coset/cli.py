"""The command line: parse, call one function, print. Nothing heavy is imported before a command needs it."""

import json as json_module
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coset import CosetError, __version__

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console, problems = Console(), Console(stderr=True)
BENCHES = {"expressivity": "coset.graphs.expressivity:main"}


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
    """List the recipes. Example: coset list"""
    from coset.recipes import names

    table = Table("recipe", "what it runs", box=None)
    for name, description in names().items():
        table.add_row(name, description)
    console.print(table)


@app.command()
def show(recipe: str) -> None:
    """Print a recipe, ready to be copied and changed. Example: coset show subgraphormer/freesolv"""
    from coset.recipes import show as text

    typer.echo(text(recipe))


@app.command()
def run(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe, or a YAML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. training.epochs=20")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; a new one under runs/ by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    quiet: Annotated[bool, typer.Option(help="No progress bars.")] = False,
) -> None:
    """Run a recipe. Example: coset run subgraphormer/freesolv training.epochs=20 --seed 1"""
    from coset.recipes import load
    from coset.training import run_directory

    if resume is not None:
        folder = run_directory.existing(resume)
        checked = load(str(folder / "recipe.yaml"))
        if not (folder / "last.ckpt").is_file():
            raise CosetError(f"{folder} was stopped before its first epoch ended: start it again")
    else:
        if recipe is None:
            raise CosetError("name a recipe (coset list), or continue a run with --resume DIR")
        changes = list(overrides or []) + ([] if seed is None else [f"seed={seed}"])
        checked = load(recipe, changes)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = run_directory.create(output or Path("runs") / f"{checked.name.replace('/', '-')}-{stamp}")
    metrics = checked.run(folder, resume=resume is not None, quiet=quiet)
    _report(folder)
    _print_metrics(metrics, folder)


def _report(folder: Path) -> None:
    from coset.reports import write_report

    write_report(folder)


def _print_metrics(metrics: dict[str, Any], folder: Path) -> None:
    splits = [name for name in ("train", "val", "test") if name in metrics]
    table = Table("metric", *splits, "predicting the mean", box=None)
    last = splits[-1]
    for name in metrics[last]:
        values = [f"{metrics[split].get(name, float('nan')):.4f}" for split in splits]
        table.add_row(name, *values, f"{metrics['baseline'][last].get(name, float('nan')):.4f}")
    console.print(table)
    console.print(
        f"{metrics['params']:,} parameters, {metrics['seconds']} s; everything is in {folder}", highlight=False
    )


@app.command()
def predict(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Annotated[Path, typer.Argument(help="CSV with a column of SMILES.")],
    output: Annotated[Path, typer.Option(help="CSV to write.")],
    smiles: Annotated[str, typer.Option(help="Name of the SMILES column.")] = "smiles",
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows that cannot be parsed.")] = False,
) -> None:
    """Predict for new molecules. Example: coset predict runs/mine new.csv --output predictions.csv"""
    from coset.recipes.prediction import predict_csv

    count = predict_csv(run_folder, data, output, smiles, skip_bad_rows)
    console.print(f"{count} predictions written to {output}", highlight=False)


@app.command()
def verify(
    target: Annotated[str, typer.Argument(help="A recipe, or the folder of a run.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the symmetry that a model claims. Example: coset verify subgraphormer/freesolv"""
    from coset.recipes.prediction import certificate

    reports = certificate(target)
    if json:
        typer.echo(json_module.dumps([report.to_dict() for report in reports], indent=2))
    else:
        for report in reports:
            console.print(str(report), highlight=False)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are compared.")],
    output: Annotated[Path, typer.Option(help="Page that compares several runs.")] = Path("comparison.html"),
) -> None:
    """Write the HTML report of a run, or a comparison of several. Example: coset report runs/a runs/b"""
    from coset.reports import write_comparison, write_report
    from coset.training.run_directory import existing

    folders = [existing(folder) for folder in runs]
    page = write_report(folders[0]) if len(folders) == 1 else write_comparison(folders, output)
    console.print(f"{page}", highlight=False)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Name of a bench: expressivity.")],
    options: Annotated[list[str] | None, typer.Argument(help="key=value, e.g. category=cfi networks=none")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a benchmark. Example: coset bench expressivity category=basic networks=none"""
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


def main() -> None:
    """Entry point: one line and exit code 1 for a mistake of the user's, a traceback only with ``--debug``."""
    try:
        app(standalone_mode=True)
    except (CosetError, ValueError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        problems.print(f"error: {' '.join(str(error).split())}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
