"""Large sets of graphs."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from coset.core.commands import COMMANDS
from coset.runs.terminal import console, print_notes, print_table, tell


@COMMANDS.register("embed")
def embed(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run on graphs.")],
    data: Annotated[Path, typer.Argument(help="Graphs of the form that the run was trained on, or a CSV of SMILES.")],
    output: Annotated[Path | None, typer.Option(help="CSV to write; new.csv: new-embeddings.csv here.")] = None,
    smiles: Annotated[str | None, typer.Option(help="Column of SMILES; by default as in training.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows that cannot be parsed.")] = False,
) -> None:
    """Write what the last layer of a trained network reads: vectors to search, cluster or draw.

    Example: coset embed runs/mine new.csv --output embeddings.csv
    """
    import pandas as pd

    from coset.core.files import claimed_output, named_after, write_text
    from coset.graphs.experiments import load_task
    from coset.graphs.prediction import embeddings, graphs_to_predict, row_names, unfinished

    output = named_after(data, "embeddings.csv") if output is None else output
    recipe, task, described = load_task(run_folder)
    notes = unfinished(recipe, run_folder)
    with claimed_output(output):
        table = graphs_to_predict(recipe, described, data, smiles, skip_bad_rows)
        found = embeddings(recipe, task, table).numpy()
        columns = pd.DataFrame(found, columns=[f"e{column}" for column in range(found.shape[1])])
        write_text(output, pd.concat([row_names(table), columns], axis=1).to_csv(index=False))
    print_notes([*notes, *table.notes])
    tell(rows=len(found), numbers=found.shape[1], output=str(output))
    console.print(f"{len(found)} rows of {found.shape[1]} numbers written to {output}", highlight=False, soft_wrap=True)


@COMMANDS.register("export")
def export(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run on graphs, molecules or complexes.")],
    folder: Annotated[Path | None, typer.Argument(help="A new folder; of runs/mine mine-exported here.")] = None,
) -> None:
    """Write a trained network for use elsewhere: safetensors, config.json, and a model card; no data, no pickles.

    Example: coset export runs/mine solubility
    """
    from coset.core.files import named_after
    from coset.graphs.exported import export as write

    where = write(run_folder, folder or named_after(run_folder, "exported"))
    console.print(f"{where}: model.safetensors, config.json, README.md", highlight=False, soft_wrap=True)


@COMMANDS.register("models")
def models(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the networks on graphs and complexes, and what each can predict for.

    Example: coset models
    """
    from coset.graphs.models.options import what_models_do

    found = what_models_do()
    if json:
        typer.echo(json_module.dumps(found, indent=2))
        return
    rows = [[name, *("yes" if does else "no" for does in can.values())] for name, can in found.items()]
    print_table(["model", *next(iter(found.values()))], rows)


@COMMANDS.register("data check")
def check(
    path: Annotated[Path, typer.Argument(help="A CSV of SMILES, or graphs: a folder, .g6, .graphml, .json, .pt.")],
    target: Annotated[str | None, typer.Option(help="Column to learn, or several: a,b.")] = None,
    smiles: Annotated[str, typer.Option(help="Column of SMILES.")] = "smiles",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is understood of a file of graphs: sizes, features, targets, doubles, splits, and what looks wrong.

    Example: coset data check mine.csv --target solubility
    """
    from coset.graphs.data.checking import described_file

    facts, warnings = described_file(path, target, smiles)
    if json:
        typer.echo(json_module.dumps({"facts": facts, "warnings": warnings}, indent=2))
        return
    print_table(["what", "found"], [[name, str(value)] for name, value in facts.items()])
    print_notes(warnings)


@COMMANDS.register("preprocess")
def preprocess(
    files: Annotated[list[Path], typer.Argument(help="Tables of molecules (.csv, .tsv, .gz), of equal columns.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder; given again, what is missing is made. zinc.csv: zinc-shards here.")
    ] = None,
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

    Example: coset preprocess zinc.csv.gz --output shards --target logP --workers 8; coset run csv data.name=shards
    data.path=shards
    """
    from coset.graphs.data.sharding import Sharding, preprocess
    from coset.graphs.preprocessing import transform_of

    output = output or Path(f"{files[0].name.partition('.')[0] or 'data'}-shards")
    sharding = Sharding(tuple(files), transform_of(recipe, change or ()), smiles, target or (), id, shard_rows)
    how: dict[str, Any] = {"engine": engine, "workers": workers, "retries": retries}
    made = preprocess(sharding, output, skip_bad_rows=skip_bad_rows, quiet=quiet, **how)
    print_notes(made["notes"])
    tell(**made, output=str(output))
    console.print(
        f"{made['graphs']:,} graphs in {made['shards']} shards ({made['made']} made now, {made['cpu_seconds']} CPU s), "
        f"{made['bytes'] / max(1, made['graphs']):,.0f} bytes each, {made['seconds']} s; in {output}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
