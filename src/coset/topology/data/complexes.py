r"""Combinatorial complexes: vertices, and cells of rank 1, 2, ... as sets of vertices.

A combinatorial complex is (S, X, rk) with cells X of the vertices S and a rank such that x < y implies rk(x) <= rk(y)
(Hajij et al., "Topological Deep Learning: Going Beyond Graph Data", 2023). Graphs, hypergraphs, simplicial complexes
and polygonal cell complexes are special cases; three kinds differ in what is demanded and in what a boundary is:

=================  ========================================  =====================================================
``kind``           a cell of rank r                          faces of rank r - 1
=================  ========================================  =====================================================
``combinatorial``  any set of vertices, rank-monotone        every cell of rank r - 1 inside it; no signed boundary
``cell``           rank 2: a closed walk through vertices    the edges of the walk
``simplicial``     r + 1 vertices                            the r + 1 subsets without one vertex
=================  ========================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_matrix

from coset.core.errors import CosetError
from coset.topology.data.cells import Array, Cells, GivenCells, canonical_walks, find_rows, number_rows, parities
from coset.topology.kernels import inclusions

Kind = Literal["combinatorial", "cell", "simplicial"]


class Boundary(NamedTuple):
    """The signed boundary of the cells of a rank, entry by entry: ``face`` is in ``cell`` with ``sign`` +1 or -1."""

    face: Int[Array, " entries"]
    cell: Int[Array, " entries"]
    sign: Int[Array, " entries"]


class Complex:
    """One complex, checked. Cells keep the order in which they were given; vertices are cells of rank 0 in order.

    Args:
        vertices: Number of vertices.
        cells: Vertex tuples of each rank from 1 on; in a ``cell`` complex those of rank 2 in cyclic order.
        kind: What the cells are held to (see the module).

    Raises:
        CosetError: A vertex out of range, a repeated cell, a cell without vertices or of the wrong size, a missing
            face, or ranks that contradict inclusion; the message names the cells.
    """

    def __init__(
        self,
        vertices: int,
        cells: Mapping[int, GivenCells],
        kind: Kind = "combinatorial",
    ):
        if kind not in ("combinatorial", "cell", "simplicial"):
            raise CosetError(f"kind={kind!r}: choose combinatorial, cell or simplicial")
        if vertices < 1:
            raise CosetError(f"a complex needs at least one vertex; got {vertices}")
        wrong = [rank for rank in cells if rank < 1]
        if wrong:
            raise CosetError(f"cells of rank {wrong[0]}: ranks start at 1, vertices are given by their number")
        self.kind: Kind = kind
        self.cells: dict[int, Cells] = {0: _points(vertices)}
        for rank in range(1, max(cells, default=0) + 1):
            self.cells[rank] = _read(cells.get(rank, ()), f"cells of rank {rank}")
            _check_cells(self, rank)
        if kind == "combinatorial":
            _check_ranks(self)
        else:
            for rank in range(1, self.top + 1):
                self.boundary(rank)  # raises where a face is missing

    @classmethod
    def known(cls, vertices: int, cells: Mapping[int, Cells], kind: Kind) -> Complex:
        """A complex that is right by construction: nothing is checked. Ranks must be 1, 2, ... without gaps."""
        made = cls.__new__(cls)
        made.kind = kind
        made.cells = {0: _points(vertices), **cells}
        return made

    @property
    def top(self) -> int:
        """The highest rank."""
        return len(self.cells) - 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of cells of each rank."""
        return tuple(map(len, self.cells.values()))

    def boundary(self, rank: int) -> Boundary:
        """Faces of the cells of a rank with the orientation that each cell gives them, cell by cell.

        Raises:
            CosetError: A face is missing, or the complex is combinatorial and so has no orientation.
        """
        if self.kind == "combinatorial":
            raise CosetError("a combinatorial complex has no boundary: give kind='cell' or kind='simplicial'")
        cell, faces, sign = _faces(self.kind, rank, self.cells[rank])
        given = self.cells[rank - 1].members.reshape(-1, faces.shape[1])
        face = find_rows(np.sort(faces, axis=1), np.sort(given, axis=1))
        if (face < 0).any():
            missing = int(np.flatnonzero(face < 0)[0])
            raise CosetError(
                f"cell {self.cells[rank][cell[missing]]} of rank {rank} needs the face "
                f"{tuple(faces[missing].tolist())}, which is not among the cells"
            )
        return Boundary(face, cell, sign * parities(faces) * parities(given)[face])

    def boundary_matrix(self, rank: int) -> csr_matrix:
        """Signed boundary [cells of rank - 1, cells of rank]; its product with the next one is zero."""
        shape = (len(self.cells[rank - 1]), len(self.cells[rank]))
        face, cell, sign = self.boundary(rank)
        return csr_matrix((sign, (face, cell)), shape=shape, dtype=np.int64)

    def incidence(self, low: int, high: int) -> Int[Array, "2 entries"]:
        """Cells x of rank ``low`` inside cells y of rank ``high``, as vertex sets: numbers (x, y), sorted by y."""
        outer, inner = self.cells[high], self.cells[low]
        return inclusions(outer.members, outer.ptr, inner.members, inner.ptr, len(self.cells[0]))

    def boundary_incidence(self, rank: int) -> Int[Array, "2 entries"]:
        """Faces only: numbers (face, cell). A polygon is not incident to its chords."""
        face, cell, _ = self.boundary(rank)
        return np.stack([face, cell])

    @cached_property
    def skeleton(self) -> csr_matrix:
        """Adjacency of the vertices by cells of rank 1, zeros and ones."""
        n = len(self.cells[0])
        rows = self.cells[1] if self.top else Cells.of([])
        pairs = [np.zeros((0, 2), dtype=np.int64)]
        for size in np.unique(rows.sizes):
            members = rows.of_size(size)[1]
            pairs += [members[:, [a, b]] for a, b in combinations(range(size), 2)]
        i, j = np.concatenate(pairs).T
        adjacency = csr_matrix((np.ones(2 * len(i)), (np.r_[i, j], np.r_[j, i])), shape=(n, n))
        adjacency.data[:] = 1
        return adjacency

    def relabelled(self, images: Sequence[int]) -> Complex:
        """The same complex with vertex v called images[v]."""
        new = np.asarray(images)
        if not np.array_equal(np.sort(new), np.arange(len(self.cells[0]))):
            raise CosetError(f"images must be a permutation of 0 to {len(self.cells[0]) - 1}")
        cells = {rank: Cells(new[own.members], own.ptr) for rank, own in self.cells.items() if rank}
        return Complex.known(len(self.cells[0]), cells, self.kind)

    def __repr__(self) -> str:
        return f"Complex({self.kind}, cells by rank {self.counts})"


def disjoint_union(*parts: Complex) -> Complex:
    """The complexes side by side, all of one kind."""
    if len({part.kind for part in parts}) != 1:
        raise CosetError("a union needs complexes of one kind")
    offsets = np.cumsum([0, *(len(part.cells[0]) for part in parts)])
    cells: dict[int, Cells] = {}
    for rank in range(1, max(part.top for part in parts) + 1):
        own = [(part.cells[rank], offset) for part, offset in zip(parts, offsets) if rank <= part.top]
        sizes = np.concatenate([c.sizes for c, _ in own])
        cells[rank] = Cells(np.concatenate([c.members + offset for c, offset in own]), np.cumsum(np.r_[0, sizes]))
    return Complex.known(int(offsets[-1]), cells, parts[0].kind)


def from_faces(faces: GivenCells, vertices: int | None = None) -> Complex:
    """A surface from its triangles, quadrilaterals or other polygons; edges are theirs, in order of appearance.

    Args:
        faces: Vertices of every face in cyclic order.
        vertices: Their number; the largest named plus one by default.
    """
    polygons = _read(faces, "faces")
    edges = np.sort(_faces("cell", 2, polygons)[1], axis=1)
    first = np.sort(np.unique(number_rows(np.maximum(edges, 0)), return_index=True)[1])
    count = int(polygons.members.max(initial=-1)) + 1 if vertices is None else vertices
    return Complex(count, {1: Cells.rows(edges[first]), 2: polygons}, "cell")


def from_simplices(simplices: GivenCells, vertices: int | None = None) -> Complex:
    """The simplicial complex of these simplices and all their faces, each rank in growing order.

    Args:
        simplices: Vertices of each; sizes may differ, and one may be a face of another.
        vertices: Their number; the largest named plus one by default.
    """
    given = _read(simplices, "simplices")
    count = int(given.members.max(initial=-1)) + 1 if vertices is None else vertices
    found: dict[int, Cells] = {}
    above = np.zeros((0, 0), dtype=np.int64)
    for size in range(int(given.sizes.max(initial=1)), 1, -1):
        # Faces of what is above, and what was given with this size.
        faces = [np.delete(above, i, axis=1) for i in range(size + 1)] if len(above) else []
        rows = np.sort(np.concatenate([*faces, given.of_size(size)[1]]), axis=1)
        above = rows[np.unique(number_rows(np.maximum(rows, 0)), return_index=True)[1]]
        found[size - 1] = Cells.rows(above)
    return Complex(count, dict(sorted(found.items())), "simplicial")


def _read(cells: GivenCells, what: str) -> Cells:
    try:
        return Cells.of(cells)
    except TypeError as error:
        raise CosetError(f"{what} are rows of whole numbers of vertices; got {error}") from error


def _points(vertices: int) -> Cells:
    return Cells(np.arange(vertices), np.arange(vertices + 1))


def _faces(kind: Kind, rank: int, cells: Cells) -> tuple[Array, Int[Array, "faces size"], Array]:
    """Owner, vertices and sign of the faces of cells, cell by cell."""
    if kind == "cell" and rank == 2:
        return cells.owners, np.stack([_before(cells), cells.members], axis=1), np.ones(len(cells.members), np.int64)
    size = rank + 1
    rows = cells.members.reshape(-1, size)
    faces = np.stack([np.delete(rows, i, axis=1) for i in range(size)], axis=1)
    sign = np.tile((-1) ** np.arange(size), len(rows))
    return np.repeat(np.arange(len(rows)), size), faces.reshape(-1, size - 1), sign


def _before(cells: Cells) -> Int[Array, " entries"]:
    """For each vertex of a closed walk the one before it."""
    before = np.arange(len(cells.members)) - 1
    filled = cells.sizes > 0
    before[cells.ptr[:-1][filled]] = cells.ptr[1:][filled] - 1
    return cells.members[before]


def _check_cells(complex_: Complex, rank: int) -> None:
    """Every cell by itself: it has vertices, known and different ones, as many as its kind asks for, and no twin."""
    cells, vertices = complex_.cells[rank], len(complex_.cells[0])
    members, sizes = cells.members, cells.sizes
    if not sizes.all():
        raise CosetError(f"a cell of rank {rank} has no vertices")
    outside = np.flatnonzero((members < 0) | (members >= vertices))
    if outside.size:
        raise CosetError(
            f"cell {cells[cells.owners[outside[0]]]} of rank {rank} names vertex {members[outside[0]]}, "
            f"but vertices are 0 to {vertices - 1}"
        )
    ordered, owners = cells.sorted_members(), cells.owners
    twice = np.flatnonzero((ordered[1:] == ordered[:-1]) & (owners[1:] == owners[:-1]))
    if twice.size:
        raise CosetError(f"cell {cells[owners[twice[0]]]} of rank {rank} lists a vertex twice")
    _check_sizes(complex_.kind, rank, cells)
    for size in np.unique(sizes):
        number, rows = cells.of_size(size)
        # Polygons are the same if their walks are, other cells if their vertices are.
        rows = canonical_walks(rows) if complex_.kind == "cell" and rank == 2 else np.sort(rows, axis=1)
        codes = number_rows(rows)
        order = np.argsort(codes, kind="stable")
        again = np.flatnonzero(codes[order][1:] == codes[order][:-1])
        if again.size:
            repeated = number[order[again + 1].min()]
            raise CosetError(f"cell {cells[repeated]} of rank {rank} is given twice; keep one of them")


def _check_sizes(kind: Kind, rank: int, cells: Cells) -> None:
    if kind == "simplicial":
        wrong = np.flatnonzero(cells.sizes != rank + 1)
        if wrong.size:
            cell = cells[wrong[0]]
            raise CosetError(f"simplex {cell} of rank {rank} has {len(cell)} vertices; it should have {rank + 1}")
    if kind == "cell" and len(cells):
        if rank > 2:
            raise CosetError(f"a cell complex holds ranks up to 2; got {rank} (use kind='combinatorial')")
        wrong = np.flatnonzero(cells.sizes != 2 if rank == 1 else cells.sizes < 3)
        if wrong.size:
            raise CosetError(f"cell {cells[wrong[0]]} of rank {rank}: edges have 2 vertices, polygons at least 3")


def _check_ranks(complex_: Complex) -> None:
    """x < y implies rk(x) <= rk(y): no cell may hold one of higher rank, nor equal one."""
    for low, high in combinations(range(1, complex_.top + 1), 2):
        inner, outer = complex_.incidence(high, low)  # cells of the higher rank inside those of the lower
        for x, y in zip(inner, outer):
            inside, around = complex_.cells[high][x], complex_.cells[low][y]
            # A single vertex may also be listed as a cell of higher rank (a closed ball of an isolated vertex).
            if len(inside) == len(around) > 1:
                raise CosetError(f"cell {inside} is given with ranks {low} and {high}; it has one rank only")
            if len(inside) < len(around):
                raise CosetError(
                    f"cell {inside} of rank {high} lies inside {around} of rank {low}: ranks must not fall"
                )
