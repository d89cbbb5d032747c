"""What CS-GNN sees with which sets and marks, exactly: BREC pairs separated by colour refinement on pairs (S, v).

Families are functions of the graph alone, so the counts hold whatever the numbers of the nodes. Beside them 1-WL on the
sum graph (the graph, its coarsened graph, and edges from sets to their members), which CS-GNN is at least as strong as.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence

from coset.core.errors import CosetError
from coset.graphs.data.collections import GraphPair, read_brec
from coset.graphs.wl.colour_refinement import NodeRefinement, compare
from coset.graphs.wl.set_refinement import FAMILIES, MARKS, SetRefinement, sum_graph
from coset.runs.terminal import Console, dense_table, track

CATEGORIES = "basic,regular,extension"
SUM_GRAPH = "sum graph"


def separated(pairs: Sequence[GraphPair], family: str, marking: str) -> dict[str, int]:
    """Pairs told apart, by category; ``marking`` is one of :data:`MARKS`, or ``"sum graph"``."""
    counts = dict.fromkeys((pair.category for pair in pairs), 0)
    for pair in pairs:
        if marking == SUM_GRAPH:
            first, second = (sum_graph(graph, FAMILIES[family]) for graph in (pair.first, pair.second))
            found = compare(first, second, NodeRefinement())
        else:
            found = compare(pair.first, pair.second, SetRefinement(FAMILIES[family], marking, label=family))
        counts[pair.category] += found.separated
    return counts


def main(json: bool = False, category: str = CATEGORIES, data: str | None = None, families: str = "all") -> None:
    """Print the table.

    Args:
        json: Print JSON instead.
        category: Parts of BREC (comma-separated).
        data: Data directory, or the folder of BREC's files.
        families: Names (comma-separated, ``-`` for a space), or ``all``.

    Raises:
        CosetError: The data is missing, or a name is unknown.
    """
    chosen = list(FAMILIES) if families == "all" else [name.strip().replace("-", " ") for name in families.split(",")]
    for name in chosen:
        if name not in FAMILIES:
            known = ", ".join(family.replace(" ", "-") for family in FAMILIES)
            raise CosetError(f"no family {name!r}: choose from {known}, or all")
    pairs = read_brec(data, [name.strip() for name in category.split(",")])
    columns = (SUM_GRAPH, *MARKS)
    cells = [(family, column) for family in chosen for column in columns]
    counts = {cell: separated(pairs, *cell) for cell in track(cells, "families")}
    if json:
        rows = [{"family": family, "marking": column, **counts[family, column]} for family, column in cells]
        print(json_module.dumps({"collection": "BREC", "separated": rows}, indent=2))
        return
    sizes = dict.fromkeys((pair.category for pair in pairs), 0)
    for pair in pairs:
        sizes[pair.category] += 1
    table = dense_table()
    table.add_column("sets", no_wrap=True)
    for column in columns:
        table.add_column("1-WL on\nsum graph" if column == SUM_GRAPH else f"{column}\nmarks", justify="right")
    for family in chosen:
        table.add_row(family, *("/".join(map(str, counts[family, column].values())) for column in columns))
    out = Console()
    out.width = max(out.width, 80)
    out.print("BREC pairs separated: " + ", ".join(f"{name} of {size}" for name, size in sizes.items()))
    out.print(table)
