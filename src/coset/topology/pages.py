"""Complexes in space, and what a subcomplex network attends to in them: small records, and the view that draws them.

The network keeps features on pairs (x, s), x a cell of rank r1 in the copy of the complex in which the cell s of rank
r2 is marked. A record holds one weight a pair: what it counts for in the prediction. Summed over x that is the weight
of a copy; in one copy, the weights say where it looks.

``cells.json`` in a run's folder is a list of ``to_dict()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from coset.graphs.pages.molecules import skeleton
from coset.graphs.pages.views import PAGE_VIEWS, SHOWN, View, last_split
from coset.reports import Section, Widget

if TYPE_CHECKING:
    from torch import nn

    from coset.graphs.data.graph_table import GraphTable

LARGEST_SHOWN = 80  # vertices of a complex

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
    positions: Float[np.ndarray, "vertices 3"] | Sequence[Sequence[float]],
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
    """Write ``cells.json`` into a run's folder, where its page looks for it."""
    return CELLS.write(run_dir, records)


def cell_records(model: nn.Module, table: GraphTable) -> list[CellRecord]:
    """The first and the last complexes of the last split that are small enough to draw, with what SMCN attends to in
    them; none if the model reads no complexes."""
    from coset.topology.models.homp import HOMP
    from coset.topology.models.mcn import MCN
    from coset.topology.models.smcn import SMCN

    if not isinstance(model, HOMP | MCN | SMCN):
        return []
    small = [i for i in last_split(table) if 2 < table.graphs[i].num_nodes <= LARGEST_SHOWN]
    return [_record_of(model, table, i) for i in (*small[: SHOWN // 2], *small[SHOWN // 2 :][-(SHOWN // 2) :])]


def _record_of(model: Any, table: GraphTable, i: int) -> CellRecord:
    from coset.topology.models.smcn import SMCN
    from coset.topology.pictures import drawing, pair_relevance

    data, smiles = table.graphs[i], table.smiles[i]
    flat = skeleton(smiles) if smiles else {}
    marked = isinstance(model, SMCN)
    return cell_record(
        id=table.ids[i], ranks=model.ranks if marked else (), weights=pair_relevance(model, data) if marked else None,
        symbols=flat.get("symbols", ()), **drawing(data, flat.get("positions"))._asdict(),
    )  # fmt: skip


def _section(records: list[dict[str, Any]]) -> Section:
    text, note = "Drag to turn.", ""
    if any(record["weights"] for record in records):
        text = (
            "The network sees one copy of the complex for each cell of a rank, with that cell marked. Cells are "
            "coloured by what their copies count for in the prediction. Click a diamond, or choose a copy, to see "
            "which cells count in that copy. Drag to turn."
        )
        note = (
            '<p class="note">A weight is the size of features times gradient after the last subcomplex layer: to first '
            "order, how much the prediction would change without that pair.</p>"
        )
    viewer = Widget(
        Markup(note + '\n<div id="cells-viewer"></div>'), scripts=["coset.topology:cells.js"],
        data={"cells-data": records}, plotly=True,
    )  # fmt: skip
    return Section("Cells", text, widget=viewer, anchor="cells")


CELLS = PAGE_VIEWS.register("cells")(View("cells.json", "complex", CellRecord.from_dict, cell_records, _section))
