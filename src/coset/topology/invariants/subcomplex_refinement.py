r"""Exact colour refinement of complexes: what HOMP and SMCN can tell apart at all, whatever their weights.

HOMP: a cell sees its own colour and, for every natural neighbourhood, the multiset of its neighbours' colours, each
with the colour of the cell between them. SCL on pairs (x, s): chi(x, s) sees the multiset over A_{r1,b} of
(chi(x', s), h_z), and the multiset of chi(x, t) over the marked cells t that hold x (Eitan et al., ICLR 2025).

Equal colours mean equal signatures, compared entry by entry; nothing rests on a hash. A batch is refined at once, so
colours are comparable between its complexes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from torch_geometric.data import Batch

from coset.core.errors import check_choice
from coset.topology.data.batches import CellBatch, ComplexData
from coset.topology.data.complexes import Complex
from coset.topology.invariants import refinement_kernels as kernels
from coset.topology.liftings.marking import pair_distances

Colours = Int[np.ndarray, " _cells"]
TERMS = ("low", "incidence", "high")
TRIES = 12
"""Pairs of vertices that are told apart in the search for a renaming."""
LONG = 24
"""Entries of a multiset from which on it is looked up whole."""


@dataclass(frozen=True)
class SubcomplexRefinement:
    """Which subcomplex layers to bound.

    Attributes:
        ranks: (r1, r2): features live on pairs of a cell of rank r1 and a marked cell of rank r2.
        marking: ``distance`` or ``binary``.
        terms: Any of ``low``, ``incidence``, ``high``.
        bridge: Rank of the cells that low messages run through; r1 + 1 by default.
        high_bridge: The same for high messages; r2 - 1 by default (r2 + 1 if r2 is 0).
    """

    ranks: tuple[int, int] = (0, 2)
    marking: str = "distance"
    terms: Sequence[str] = ("low", "incidence")
    bridge: int | None = None
    high_bridge: int | None = None

    def __post_init__(self) -> None:
        unknown = [term for term in self.terms if term not in TERMS]
        if unknown:
            raise ValueError(f"term {unknown[0]!r}: choose from {', '.join(TERMS)}")
        check_choice("marking", self.marking, ("distance", "binary"))

    @property
    def name(self) -> str:
        return f"SCL({self.ranks[0]},{self.ranks[1]}) {self.marking}"


@dataclass(frozen=True)
class StableColours:
    """Complexes of a batch, and what all higher-order message passing can make of their cells.

    Attributes:
        batch: Of the complexes.
        cells: Stable colours of the cells of each rank under all natural neighbourhoods.
        classes: Numbers of the complexes; those with one number no such network tells apart.
    """

    batch: CellBatch
    cells: list[Colours]
    classes: Int[np.ndarray, " complexes"]

    @classmethod
    def of(cls, complexes: Sequence[ComplexData]) -> StableColours:
        batch = CellBatch(Batch.from_data_list(list(complexes)))
        cells = _homp(batch)
        return cls(batch, cells, _classes(batch, cells))


def homp_colours(complexes: Sequence[ComplexData]) -> list[Colours]:
    """Stable colours of the cells of each rank under all natural neighbourhoods, for the batch of these complexes."""
    return StableColours.of(complexes).cells


def homp_classes(complexes: Sequence[ComplexData]) -> Int[np.ndarray, " complexes"]:
    """Number the classes of complexes that no higher-order message passing tells apart."""
    return StableColours.of(complexes).classes


def subcomplex_classes(
    complexes: Sequence[ComplexData] | StableColours, rule: SubcomplexRefinement, max_layers: int | None = None
) -> Iterator[Int[np.ndarray, " complexes"]]:
    """Classes after 0, 1, 2, ... subcomplex layers on top of stable HOMP colours, until nothing changes.

    Two complexes are apart once the multiset, over x, of the multisets {chi(x, s)}, or the same over s, differs.
    """
    stable = complexes if isinstance(complexes, StableColours) else StableColours.of(complexes)
    batch, (first, second) = stable.batch, rule.ranks
    product = batch.pairs(first, second)
    x, s = (axis.numpy() for axis in product.coordinates)
    mark = pair_distances(batch, first, second, rule.bridge).numpy().astype(np.int32)
    if rule.marking == "binary":
        mark = (mark == 0).astype(np.int32)
    colours = _number(stable.cells[first][x], stable.cells[second][s], mark)
    done = 0
    while True:
        pooled = [_multisets(colours, axis, index.total) for axis, index in zip((x, s), (product.left, product.right))]
        yield _number(
            stable.classes,
            _multisets(pooled[0], product.left.batch.numpy(), product.graphs),
            _multisets(pooled[1], product.right.batch.numpy(), product.graphs),
        )
        if done == max_layers:
            return
        refined = _number(colours, *(_messages(stable, rule, term, colours) for term in rule.terms))
        if _count(refined) == _count(colours):
            return
        colours, done = refined, done + 1


def separates(first: Complex, second: Complex, rule: SubcomplexRefinement | None = None) -> bool:
    """Whether HOMP (no rule) or the subcomplex layers of a rule can tell two complexes apart."""
    from coset.topology.data.batches import to_data

    ranks = max(first.top, second.top) + 1
    pair = [to_data(c, ranks=ranks) for c in (first, second)]
    if rule is None:
        classes = homp_classes(pair)
    else:
        *_, classes = subcomplex_classes(pair, rule)
    return bool(classes[0] != classes[1])


def renaming(first: ComplexData, second: ComplexData) -> Int[np.ndarray, " vertices"] | None:
    """Vertices of the second complex in the place of those of the first, so that cells become cells; one such renaming.

    Vertices that refinement leaves equal are told apart one by one, in each complex one, until none are left. Meshes
    and molecules need a few; where many ways would have to be tried it is given up.

    Returns:
        ``None`` if none was found, which does not say that there is none.
    """
    if not np.array_equal(first.num_cells.numpy(), second.num_cells.numpy()):
        return None
    batch = CellBatch(Batch.from_data_list([first, second]))
    return _renamed(batch, _homp(batch), np.split(np.arange(batch.cells[0].total), 2), [TRIES])


def _renamed(
    batch: CellBatch, colours: list[Colours], vertices: list[np.ndarray], left: list[int]
) -> Int[np.ndarray, " vertices"] | None:
    own, other = (colours[0][part] for part in vertices)
    classes = _classes(batch, colours)
    if classes[0] != classes[1]:
        return None
    sizes = np.bincount(own)[own]
    if sizes.max() == 1:
        order = np.argsort(other)[np.argsort(np.argsort(own))]
        return order if _keeps_cells(batch, vertices, order) else None
    one = int(np.flatnonzero(sizes == sizes[sizes > 1].min())[0])
    for two in np.flatnonzero(other == own[one]):
        if left[0] == 0:
            return None
        left[0] -= 1
        marked = [colour.copy() for colour in colours]
        marked[0][[vertices[0][one], vertices[1][two]]] = _count(colours[0])
        found = _renamed(batch, _homp(batch, marked), vertices, left)
        if found is not None:
            return found
    return None


def _keeps_cells(batch: CellBatch, vertices: list[np.ndarray], found: np.ndarray) -> bool:
    """Whether the sets of vertices of all cells of the first become those of the second, with their features."""
    start = _given(batch)
    place = np.empty(batch.cells[0].total, dtype=np.int64)  # the vertex of the second that each vertex stands for
    place[vertices[0]], place[vertices[1]] = vertices[1][found], vertices[1]
    if not np.array_equal(start[0][vertices[0]], start[0][place[vertices[0]]]):
        return False
    for rank in range(1, len(batch.cells)):
        inside, cell = batch.incident(source=0, target=rank).relation.index.numpy()
        sets = _number(_multisets(place[inside], cell, batch.cells[rank].total), start[rank])
        half = len(sets) // 2
        if not np.array_equal(np.sort(sets[:half]), np.sort(sets[half:])):
            return False
    return True


def _given(batch: CellBatch) -> list[Colours]:
    """What refinement begins with: features that are whole numbers."""
    colours = [np.zeros(index.total, dtype=np.int64) for index in batch.cells]
    for rank, index in enumerate(batch.cells):
        key = "x" if rank == 0 else f"x_{rank}"
        if key in batch.data and batch.data[key] is not None and not batch.data[key].is_floating_point():
            colours[rank] = _number(*batch.data[key].reshape(index.total, -1).numpy().T)
    return colours


def _homp(batch: CellBatch, colours: list[Colours] | None = None) -> list[Colours]:
    """Stable colours; from these on, if some are given."""
    colours = _given(batch) if colours is None else colours
    while True:
        refined = []
        for rank, index in enumerate(batch.cells):
            blocks = []
            for other in range(len(batch.cells)):
                if other == rank:
                    continue
                incident = batch.incident(source=other, target=rank).relation.index.numpy()
                blocks.append(_multisets(colours[other][incident[0]], incident[1], index.total))
                relation, bridge = batch.neighbours(rank, other)
                assert bridge is not None
                source, target = relation.index.numpy()
                message = _number(colours[rank][source], colours[other][bridge.numpy()])
                blocks.append(_multisets(message, target, index.total))
            refined.append(_number(colours[rank], *blocks))
        if all(_count(new) == _count(old) for new, old in zip(refined, colours)):
            return colours
        colours = refined


def _messages(stable: StableColours, rule: SubcomplexRefinement, term: str, colours: Colours) -> Colours:
    """What one term of a subcomplex layer tells each pair."""
    batch, (first, second) = stable.batch, rule.ranks
    product = batch.pairs(first, second)
    if term == "incidence":
        x, s = batch.incidence(first, second).index
        holders = _multisets(colours[product.rows(x, s).numpy()], x.numpy(), product.left.total)
        return holders[product.coordinates[0].numpy()]
    rank, along = (first, 0) if term == "low" else (second, 1)
    default = first + 1 if term == "low" else (second - 1 if second else 1)
    chosen = rule.bridge if term == "low" else rule.high_bridge
    between = default if chosen is None else chosen
    relation, bridge = batch.neighbours(rank, between)
    assert bridge is not None
    passed = stable.cells[between][bridge.numpy()[relation.rows.edge.numpy()]]
    shape = product.ptr, product.right.sizes, product.left.sizes
    places = product.axis(along).batch, product.axis(along).local
    return kernels.neighbour_multisets(
        colours, *(part.numpy() for part in shape), along, *(part.numpy() for part in places),
        relation.rows.ptr.numpy(), relation.rows.source.numpy(), passed, _count(passed) or 1
    )  # fmt: skip


def _classes(batch: CellBatch, colours: list[Colours]) -> Int[np.ndarray, " complexes"]:
    return _number(*(_multisets(own, index.batch.numpy(), index.graphs) for own, index in zip(colours, batch.cells)))


def _number(*columns: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """Equal numbers for equal rows, from 0 on, in the order of the rows."""
    codes, count = _dense(columns[0])
    for column in columns[1:]:
        own, kinds = _dense(column)
        both, found = kernels.paired(codes, own, count, kinds)
        if found < 0:
            both, found = _ranked(codes.astype(np.int64) * kinds + own)
        codes, count = both, found
    return codes


def _dense(values: Int[np.ndarray, " rows"]) -> tuple[Int[np.ndarray, " rows"], int]:
    """Numbers from 0 on, in the order of the values, and how many there are."""
    codes, count = kernels.dense(values)
    return (codes, count) if count >= 0 else _ranked(values)


def _ranked(values: Int[np.ndarray, " rows"]) -> tuple[Int[np.ndarray, " rows"], int]:
    known, codes = np.unique(values, return_inverse=True)
    return codes.reshape(-1).astype(np.int32), len(known)


def _count(colours: Colours) -> int:
    return int(colours.max()) + 1 if colours.size else 0


def _multisets(values: Int[np.ndarray, " n"], target: Int[np.ndarray, " n"], targets: int) -> Colours:
    """Equal numbers for targets that hold equal multisets of values."""
    values, kinds = _dense(values)
    kinds = kinds or 1
    if targets * kinds <= values.size:  # fewer counts than entries: how often each value occurs
        counts = np.bincount(target.astype(np.int64) * kinds + values, minlength=targets * kinds)
        return _rows(counts.reshape(targets, kinds))
    narrow = np.int32 if targets * kinds < 2**31 else np.int64  # which is sorted in half of the time
    target, values = np.divmod(np.sort((target.astype(np.int64) * kinds + values).astype(narrow)), narrow(kinds))
    size = np.bincount(target, minlength=targets)
    begin = np.cumsum(size) - size
    codes, taken = np.zeros(targets, dtype=np.int64), 0
    for each in np.unique(size):
        rows = np.flatnonzero(size == each)
        sets = values[begin[rows][:, None] + np.arange(each)]
        own = _rows(sets) if each else np.zeros(len(rows), dtype=np.int64)
        codes[rows] = taken + own
        taken += _count(own)
    return codes


def _rows(table: Int[np.ndarray, "rows columns"]) -> Int[np.ndarray, " rows"]:
    """Equal numbers for equal rows: column by column, or row by row where rows are long."""
    if table.shape[1] <= LONG:
        return _number(*table.T)
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(row.tobytes(), len(known)) for row in table], dtype=np.int64)
