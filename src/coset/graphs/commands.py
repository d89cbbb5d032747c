"""Graphs and complexes: large sets of them, what tells them apart, benches."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from coset.core.errors import CosetError
from coset.runs.terminal import console, print_notes, print_table

BENCHES = {
    "bags": "coset.graphs.benches.bags:main",
    "expressivity": "coset.graphs.benches.expressivity:main",
    "counting": "coset.graphs.benches.counting:main",
    "norms": "coset.graphs.benches.norms:main",
    "torus": "coset.topology.benches.blindspots:main",
    "blindspots": "coset.topology.benches.blindspots:gallery",
    "brec": "coset.graphs.benches.brec_protocol:main",
}


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
    print_table(["test", "told apart", "rounds", "a colour of first against second"], rows)


def _compare_complexes(first: str, second: str, lift: Any, longest: int, json: bool) -> None:
    from coset.topology.benches.advice import compare_complexes
    from coset.topology.data.files import read_complex

    found = compare_complexes(read_complex(first, lift, longest), read_complex(second, lift, longest))
    if json:
        typer.echo(json_module.dumps(found.to_dict(), indent=2))
        return
    shown = [[n, *("–" if v is None else str(v) for v in (a, b))] for n, a, b in found.invariants]
    print_table(["", "first", "second", ""], [[*row, "differs" if row[1] != row[2] else ""] for row in shown])
    said = {True: "yes", False: "no", None: "too large"}
    rows = [
        [v.network, said[v.separates], "–" if v.layers is None else str(v.layers), f"{v.pairs:,}"]
        for v in found.verdicts
    ]
    print_table(["network", "told apart", "layers", "pairs"], rows)
    console.print(found.advice, highlight=False, soft_wrap=True)
