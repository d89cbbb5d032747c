"""What tells graphs and complexes apart."""

import json as json_module
import sys
from typing import Annotated, Any

import typer

from coset.core.commands import COMMANDS
from coset.core.errors import CosetError
from coset.runs.terminal import console, print_table

LONGEST_LINE = 1 << 28


@COMMANDS.register("wl")
def wl(
    first: Annotated[
        str, typer.Argument(help="A graph6 file of one graph, a graph6 string, or - for a line of stdin.")
    ],
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

    Example: geng -q 7 | head -2 | coset wl - -
    """
    if complexes:
        return _compare_complexes(first, second, lift, longest, json)
    from coset.graphs.wl import read_one_graph, wl_compare

    first, second = (_from_standard_input() if source == "-" else source for source in (first, second))
    chosen = None if tests is None else [name.strip() for name in tests.split(",")]
    verdicts = wl_compare(read_one_graph(first), read_one_graph(second), chosen)
    if json:
        typer.echo(json_module.dumps([verdict.to_dict() for verdict in verdicts], indent=2))
        return
    rows = [[v.test, "yes" if v.separated else "no", str(v.rounds), str(v.witness or "")] for v in verdicts]
    print_table(["test", "told apart", "rounds", "a colour of first against second"], rows)


def _from_standard_input() -> str:
    """Its next line: graphs of any size, longer than a system takes arguments for."""
    line = sys.stdin.readline(LONGEST_LINE).strip()
    if not line:
        raise CosetError("- stands for a graph6 line of standard input, and there is none left")
    return line


def _compare_complexes(first: str, second: str, lift: Any, longest: int, json: bool) -> None:
    from coset.topology.benches.advice import compare_complexes
    from coset.topology.files import read_complex

    one, other = (read_complex(path, lift, longest) for path in (first, second))
    found = compare_complexes(one, other, quiet=json)
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
