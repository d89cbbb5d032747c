"""Large sets of graphs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from coset.core.commands import COMMANDS
from coset.runs.terminal import console, print_notes


@COMMANDS.register("preprocess")
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
    from coset.graphs.data.sharding import Sharding, preprocess
    from coset.graphs.preprocessing import transform_of

    sharding = Sharding(tuple(files), transform_of(recipe, change or ()), smiles, target or (), id, shard_rows)
    how: dict[str, Any] = {"engine": engine, "workers": workers, "retries": retries}
    made = preprocess(sharding, output, skip_bad_rows=skip_bad_rows, quiet=quiet, **how)
    print_notes(made["notes"])
    console.print(
        f"{made['graphs']:,} graphs in {made['shards']} shards ({made['made']} made now, {made['cpu_seconds']} CPU s), "
        f"{made['bytes'] / max(1, made['graphs']):,.0f} bytes each, {made['seconds']} s; in {output}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
