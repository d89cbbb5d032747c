"""Complexes to and from TopoNetX."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np

from coset.core.errors import CosetError, require
from coset.topology.data.cells import Cell
from coset.topology.data.complexes import Complex


def from_toponetx(source: Any) -> tuple[Complex, list[Hashable]]:
    """A TopoNetX ``CellComplex``, ``SimplicialComplex`` or ``CombinatorialComplex``, and the names of its vertices.

    Vertex i of the result is ``names[i]``; they keep TopoNetX's order.

    Raises:
        CosetError: Another class, or cells that are no complex.
    """
    tnx = require("toponetx", "topology")
    if isinstance(source, tnx.CellComplex):
        names = list(source.nodes)
        cells: dict[int, list[Any]] = {1: list(source.edges), 2: [tuple(cell.elements) for cell in source.cells]}
        kind = "cell"
    elif isinstance(source, tnx.SimplicialComplex):
        kind = "simplicial"
        names = [next(iter(simplex)) for simplex in source.skeleton(0)]
        cells = {rank: [tuple(s) for s in source.skeleton(rank)] for rank in range(1, source.dim + 1)}
    elif isinstance(source, tnx.CombinatorialComplex):
        kind = "combinatorial"
        names = [next(iter(cell)) for cell in source.skeleton(0)]
        cells = {rank: [tuple(cell) for cell in source.skeleton(rank)] for rank in range(1, source.dim + 1)}
    else:
        raise CosetError(
            f"{type(source).__name__} is no TopoNetX CellComplex, SimplicialComplex or CombinatorialComplex"
        )
    number = {name: i for i, name in enumerate(names)}
    numbered: dict[int, list[Cell]] = {
        r: [tuple(number[v] for v in cell) for cell in cs] for r, cs in cells.items() if cs
    }
    return Complex(len(names), numbered, kind), names  # type: ignore[arg-type]


def toponetx_features(source: Any) -> dict[int, tuple[list[str], np.ndarray]]:
    """Numbers that all cells of a rank carry as attributes: by rank their names and rows, in the order of
    :func:`from_toponetx`. Others (words, or numbers that only some cells have) are no features.

    Raises:
        CosetError: As :func:`from_toponetx`.
    """
    complex_, names = from_toponetx(source)
    features = {}
    for rank, cells in complex_.cells.items():
        given = [_attributes(source, tuple(names[v] for v in cell), rank) for cell in cells]
        shared = sorted({key for attributes in given[:1] for key in attributes} if given else ())
        chosen = [key for key in shared if all(_is_number(attributes.get(key)) for attributes in given)]
        if chosen:
            features[rank] = (chosen, np.array([[float(row[key]) for key in chosen] for row in given]))
    return features


def _attributes(source: Any, cell: tuple[Hashable, ...], rank: int) -> dict[str, Any]:
    of_graph = {0: "nodes", 1: "edges"} if hasattr(source, "edges") else {}  # of a CellComplex; others have simplices
    if rank in of_graph:
        found = getattr(source, of_graph[rank])[cell if rank else cell[0]]
    else:
        found = source[cell]
    return {str(key): value for key, value in dict(found).items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def to_toponetx(complex_: Complex) -> Any:
    """The same complex in TopoNetX: the class follows from its kind."""
    tnx = require("toponetx", "topology")
    if complex_.kind == "cell":
        result = tnx.CellComplex()
        for (vertex,) in complex_.cells[0]:
            result.add_node(vertex)
        for edge in complex_.cells.get(1, []):
            result.add_edge(*edge)
        for cell in complex_.cells.get(2, []):
            result.add_cell(list(cell), rank=2)
        return result
    if complex_.kind == "simplicial":
        return tnx.SimplicialComplex([cell for rank in complex_.cells for cell in complex_.cells[rank]])
    result = tnx.CombinatorialComplex()
    for rank, cells in complex_.cells.items():
        for cell in cells:
            result.add_cell(list(cell), rank=rank)
    return result
