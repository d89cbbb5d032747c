"""Complexes as PyG data, and a batch of them as index sets and relations.

:class:`ComplexData` holds, per complex: ``num_cells`` [1, ranks], ``incidence_0_1`` ... [2, entries] with the numbers
(cell of the lower rank, cell of the higher), features ``x`` (vertices), ``x_1``, ``x_2``, ..., and for marked bags
``distance_0_2`` ... with a row a pair. PyG's ``Batch`` and ``DataLoader`` join them as they are.
"""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from coset.core.errors import CosetError
from coset.relations import IndexSet, Product, Relation
from coset.relations.structure import KEY, Structure, settle
from coset.topology.data.complexes import Complex


def incidence_ranks(key: str) -> tuple[int, int] | None:
    """Ranks (low, high) of the attribute ``incidence_{low}_{high}``."""
    return _two_ranks(r"incidence_(\d+)_(\d+)", key)


def marking_ranks(key: str) -> tuple[int, int] | None:
    """Ranks (r1, r2) of the attribute ``distance_{r1}_{r2}``."""
    return _two_ranks(r"distance_(\d+)_(\d+)", key)


def feature_rank(key: str) -> int | None:
    """The rank whose features an attribute holds: 0 for ``x``, r for ``x_r``."""
    match = re.fullmatch(r"x(?:_(\d+))?", key)
    return int(match.group(1) or 0) if match else None


def _two_ranks(pattern: str, key: str) -> tuple[int, int] | None:
    match = re.fullmatch(pattern, key)
    return (int(match.group(1)), int(match.group(2))) if match else None


class ComplexData(Data):
    """A complex as PyG data; make it with :func:`to_data` or a lifting."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        ranks = incidence_ranks(key)
        if ranks is not None:
            return self.num_cells[:, list(ranks)].sum(0).unsqueeze(1)  # a row a complex, if it is a union of several
        return super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 1 if incidence_ranks(key) is not None else super().__cat_dim__(key, value, *args, **kwargs)


def to_data(complex_: Complex, *, boundary: bool = False, ranks: int | None = None, **attributes: Any) -> ComplexData:
    """A complex as PyG data.

    Args:
        complex_: The complex.
        boundary: Incidence of consecutive ranks by boundary (a polygon and the edges of its walk) instead of inclusion
            (a polygon and also its chords).
        ranks: Ranks to write, at least those it has; missing ones are empty. Data of one batch need equal ranks.
        attributes: Features ``x``, ``x_1``, ..., targets ``y``, and whatever else.

    Raises:
        CosetError: Features whose rows are not the cells.
    """
    top = max(complex_.top, (ranks or 1) - 1)
    counts = [len(complex_.cells.get(rank, ())) for rank in range(top + 1)]
    data = ComplexData(num_nodes=counts[0], num_cells=torch.tensor([counts]))
    for low in range(top):
        for high in range(low + 1, top + 1):
            if high > complex_.top:
                index = torch.zeros(2, 0, dtype=torch.long)
            elif boundary and high == low + 1:
                index = torch.from_numpy(complex_.boundary_incidence(high).copy())
            else:
                index = torch.from_numpy(complex_.incidence(low, high).copy())
            data[f"incidence_{low}_{high}"] = index
    for name, value in attributes.items():
        rank = feature_rank(name)
        if rank is not None and (rank > top or value.size(0) != counts[rank]):
            cells = counts[rank] if rank <= top else 0
            raise CosetError(f"{name} has {value.size(0)} rows, but the complex has {cells} cells of rank {rank}")
        data[name] = value
    return data


def disjoint_copies(data: ComplexData, copies: int) -> ComplexData:
    """A complex so many times in a row, as one piece of data with a row of ``num_cells`` a copy."""
    cells = data.num_cells.sum(0)
    repeated = ComplexData(num_nodes=copies * int(cells[0]), num_cells=data.num_cells.repeat(copies, 1))
    for key, value in data.to_dict().items():
        ranks = incidence_ranks(key)
        if ranks is not None:
            first = torch.arange(copies) * cells[list(ranks)].unsqueeze(1)
            repeated[key] = (value.unsqueeze(1) + first.unsqueeze(2)).flatten(1)
        elif marking_ranks(key) is not None or feature_rank(key) is not None:
            repeated[key] = value.repeat(copies, *[1] * (value.dim() - 1))
    return repeated


class Neighbours(NamedTuple):
    """A natural neighbourhood of a batch: who sends to whom, and the cell between them.

    Attributes:
        relation: Edges (sender, receiver).
        bridge: Global number of the cell that each edge runs through; ``None`` for incidence.
    """

    relation: Relation
    bridge: Int[Tensor, " edges"] | None


class CellBatch(Structure):
    """A batch of complexes as index sets by rank, with neighbourhoods derived when first asked for.

    Args:
        data: A batch of :class:`ComplexData`, or one.

    Raises:
        ValueError: The data is not a complex.
    """

    def __init__(self, data: Batch | Data):
        if "num_cells" not in data:
            raise ValueError("num_cells is missing: the data is no complex; lift it first (coset.topology.RingLift)")
        self.data = data
        counts = data.num_cells.reshape(-1, data.num_cells.size(-1))
        self.cells = [IndexSet(counts[:, rank]) for rank in range(counts.size(1))]
        self._neighbours: dict[tuple[int, int, int | None], Neighbours] = {}
        self._pairs: dict[tuple[int, int], Product] = {}
        self.derived: dict[Any, Any] = {}  # what layers have worked out about these complexes

    @classmethod
    def of(cls, data: Batch | Data | CellBatch) -> CellBatch:
        """Read a batch, or take one that was read before with all that was derived from it."""
        if isinstance(data, CellBatch):
            return data
        if KEY not in data:
            return cls(data)
        cells = copy.copy(data[KEY])
        cells.data = data
        return cells

    @classmethod
    def settled(cls, data: Batch | Data, model: nn.Module) -> CellBatch:
        """What a model needs to know of a batch (:mod:`coset.relations.structure`), without the batch itself."""
        cells = settle(model, cls(data))
        for index in cells.cells:
            index.settle()
        cells.data = Data()  # the structure is to go with the batch: holding it would be going round in a circle
        return cells

    @property
    def top(self) -> int:
        return len(self.cells) - 1

    def _rank(self, rank: int) -> int:
        if not 0 <= rank <= self.top:
            raise ValueError(f"rank {rank} is missing: these complexes have ranks 0 to {self.top}")
        return rank

    def incidence(self, low: int, high: int) -> Relation:
        """From cells of rank ``low`` to the cells of rank ``high`` that hold them; equal ranks: each to itself."""
        return self.incident(source=low, target=high).relation

    def incident(self, *, source: int, target: int) -> Neighbours:
        """Cells of rank ``source`` above or below cells of rank ``target``."""
        key = (self._rank(source), self._rank(target), None)
        if key not in self._neighbours:
            low, high = min(source, target), max(source, target)
            if low == high:
                index = torch.arange(self.cells[low].total, device=self.data.num_cells.device).expand(2, -1)
            else:
                index = self.data[f"incidence_{low}_{high}"]
            index = index if source <= target else index.flip(0)
            self._neighbours[key] = Neighbours(Relation(self.cells[source], self.cells[target], index), None)
        return self._neighbours[key]

    def neighbours(self, rank: int, bridge: int) -> Neighbours:
        """A_{rank,bridge} (bridge of higher rank) or coA_{rank,bridge} (lower): ordered pairs of different cells of a
        rank in one edge for every cell of the bridge's rank that both are incident to."""
        if bridge == rank:
            raise ValueError(f"cells of rank {rank} cannot be neighbours through cells of their own rank")
        key = (self._rank(rank), self._rank(rank), self._rank(bridge))
        if key not in self._neighbours:
            index = self.incident(source=rank, target=bridge).relation.index
            pairs, through = _sharing(index, self.cells[bridge].total)
            self._neighbours[key] = Neighbours(Relation(self.cells[rank], self.cells[rank], pairs), through)
        return self._neighbours[key]

    def pairs(self, first: int, second: int) -> Product:
        """Pairs (x, s) of a cell of rank ``first`` and a marked cell of rank ``second``."""
        key = (self._rank(first), self._rank(second))
        if key not in self._pairs:
            self._pairs[key] = Product(self.cells[first], self.cells[second])
        return self._pairs[key]

    def __repr__(self) -> str:
        return f"CellBatch(complexes={self.cells[0].graphs}, cells by rank {tuple(c.total for c in self.cells)})"


def _sharing(index: Int[Tensor, "2 entries"], bridges: int) -> tuple[Int[Tensor, "2 pairs"], Int[Tensor, " pairs"]]:
    """All ordered pairs of different members of every bridge, bridge by bridge, and their bridges."""
    order = torch.argsort(index[1], stable=True)
    member, bridge = index[:, order]
    size = torch.bincount(bridge, minlength=bridges)
    start = size.cumsum(0) - size
    partners = size[bridge]
    total = int(partners.sum())
    entry = torch.repeat_interleave(torch.arange(member.numel(), device=index.device), partners, output_size=total)
    within = torch.arange(total, device=index.device) - (partners.cumsum(0) - partners)[entry]
    partner = start[bridge[entry]] + within
    proper = (partner != entry).nonzero().squeeze(1)
    entry, partner = entry[proper], partner[proper]
    return torch.stack([member[partner], member[entry]]), bridge[entry]
