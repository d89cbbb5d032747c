"""A complex in space, and what a subcomplex network attends to in it, as a small record that a page can draw.

The network keeps features on pairs (x, s), x a cell of rank r1 in the copy of the complex in which the cell s of rank
r2 is marked. A record holds one weight a pair: what it counts for in the prediction. Summed over x that is the weight
of a copy; in one copy, the weights say where it looks.

Nothing here knows of HTML or of any model. ``cells.json`` in a run's folder is a list of ``to_dict()``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from coset.core.files import write_text

SCALE = 1000
"""Weights are stored as integers in these parts of the largest."""


@dataclass(frozen=True)
class CellRecord:
    """One complex, its drawing, and the weights of its pairs; build it with :func:`cell_record`.

    Attributes:
        id: Name, as in ``predictions.csv``.
        positions: ``[x, y, z]`` a vertex.
        edges: Vertices of every cell of rank 1; empty where it is not drawn.
        faces: Vertices of every cell of rank 2, in cyclic order.
        ranks: ``[r1, r2]``: of the cells that are looked at, and of the marked ones.
        weights: A row a cell of rank r1, a column a marked cell, in parts of :data:`SCALE`; empty without a model.
        symbols: Label a vertex, or empty.
    """

    id: str
    positions: list[list[float]]
    edges: list[list[int]]
    faces: list[list[int]]
    ranks: list[int]
    weights: list[list[int]]
    symbols: list[str]

    def __post_init__(self) -> None:
        vertices = len(self.positions)
        for cell in (*self.edges, *self.faces):
            outside = [v for v in cell if not 0 <= v < vertices]
            if outside:
                raise ValueError(f"cell {cell} leaves the {vertices} vertices")
        if self.symbols and len(self.symbols) != vertices:
            raise ValueError(f"symbols has {len(self.symbols)} entries for {vertices} vertices")
        if self.weights:
            counts = (vertices, len(self.edges), len(self.faces))
            if len(self.ranks) != 2 or not all(0 <= rank <= 2 for rank in self.ranks):
                raise ValueError(f"ranks={self.ranks}: two of 0, 1 and 2 are drawn")
            rows, columns = (counts[rank] for rank in self.ranks)
            if len(self.weights) != rows or any(len(row) != columns for row in self.weights):
                raise ValueError(f"weights must be {rows} rows of {columns}")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> CellRecord:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: The value is no record.
        """
        return cls(
            id=str(value["id"]),
            positions=[[float(x) for x in place] for place in value["positions"]],
            edges=[[int(v) for v in edge] for edge in value["edges"]],
            faces=[[int(v) for v in face] for face in value["faces"]],
            ranks=[int(rank) for rank in value.get("ranks") or []],
            weights=[[int(w) for w in row] for row in value.get("weights") or []],
            symbols=[str(symbol) for symbol in value.get("symbols") or []],
        )


def cell_record(
    *,
    id: str,
    positions: Float[np.ndarray, "vertices 3"],
    edges: Sequence[Sequence[int]],
    faces: Sequence[Sequence[int]],
    ranks: Sequence[int] = (),
    weights: Float[np.ndarray, "x s"] | None = None,
    symbols: Sequence[str] = (),
) -> CellRecord:
    """Pack plain arrays into a record; weights are divided by the largest.

    Raises:
        ValueError: Sizes disagree, or weights are negative or not finite; the message names the argument.
    """
    place = np.asarray(positions, dtype=float)
    if place.ndim != 2 or place.shape[1] != 3 or not np.isfinite(place).all():
        raise ValueError(f"positions has shape {list(place.shape)}; expected finite [vertices, 3]")
    shares: list[list[int]] = []
    if weights is not None:
        given = np.asarray(weights, dtype=float)
        if given.ndim != 2 or not np.isfinite(given).all() or (given < 0).any():
            raise ValueError("weights must be a matrix of finite numbers from 0 on")
        shares = np.rint(given / (given.max(initial=0) or 1) * SCALE).astype(int).tolist()
    return CellRecord(
        id=str(id), positions=np.round(place, 4).tolist(), edges=[list(map(int, e)) for e in edges],
        faces=[list(map(int, f)) for f in faces], ranks=list(map(int, ranks)), weights=shares, symbols=list(symbols),
    )  # fmt: skip


def write_cells(run_dir: Path, records: Sequence[CellRecord]) -> Path:
    """Write ``cells.json`` into a run's folder, where :func:`coset.reports.write_report` looks for it."""
    path = Path(run_dir) / "cells.json"
    write_text(path, json.dumps([record.to_dict() for record in records], separators=(",", ":")) + "\n")
    return path
