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

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_matrix

from coset.errors import CosetError

Kind = Literal["combinatorial", "cell", "simplicial"]
Cell = tuple[int, ...]


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

    def __init__(self, vertices: int, cells: Mapping[int, Iterable[Sequence[int]]], kind: Kind = "combinatorial"):
        if kind not in ("combinatorial", "cell", "simplicial"):
            raise CosetError(f"kind={kind!r}: choose combinatorial, cell or simplicial")
        if vertices < 1:
            raise CosetError(f"a complex needs at least one vertex; got {vertices}")
        wrong = [rank for rank in cells if rank < 1]
        if wrong:
            raise CosetError(f"cells of rank {wrong[0]}: ranks start at 1, vertices are given by their number")
        self.kind: Kind = kind
        self.top = max(cells, default=0)
        self.cells: dict[int, list[Cell]] = {0: [(v,) for v in range(vertices)]}
        for rank in range(1, self.top + 1):
            self.cells[rank] = [tuple(int(v) for v in cell) for cell in cells.get(rank, ())]
        self._check_cells()
        if kind == "combinatorial":
            self._check_ranks()
        else:
            for rank in range(1, self.top + 1):
                self.signed_faces(rank)  # raises where a face is missing

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of cells of each rank."""
        return tuple(len(self.cells[rank]) for rank in range(self.top + 1))

    def _check_cells(self) -> None:
        vertices = len(self.cells[0])
        for rank in range(1, self.top + 1):
            seen: set[object] = set()
            for cell in self.cells[rank]:
                if not cell:
                    raise CosetError(f"a cell of rank {rank} has no vertices")
                outside = [v for v in cell if not 0 <= v < vertices]
                if outside:
                    raise CosetError(
                        f"cell {cell} of rank {rank} names vertex {outside[0]}, but vertices are 0 to {vertices - 1}"
                    )
                if len(set(cell)) < len(cell):
                    raise CosetError(f"cell {cell} of rank {rank} lists a vertex twice")
                self._check_size(rank, cell)
                key = self._key(rank, cell)
                if key in seen:
                    raise CosetError(f"cell {cell} of rank {rank} is given twice; keep one of them")
                seen.add(key)

    def _check_size(self, rank: int, cell: Cell) -> None:
        if self.kind == "simplicial" and len(cell) != rank + 1:
            raise CosetError(f"simplex {cell} of rank {rank} has {len(cell)} vertices; it should have {rank + 1}")
        if self.kind == "cell":
            if rank > 2:
                raise CosetError(f"a cell complex holds ranks up to 2; got {rank} (use kind='combinatorial')")
            if (rank == 1 and len(cell) != 2) or (rank == 2 and len(cell) < 3):
                raise CosetError(f"cell {cell} of rank {rank}: edges have 2 vertices, polygons at least 3")

    def _key(self, rank: int, cell: Cell) -> object:
        """What makes two cells the same: their vertices, and for polygons their walk."""
        return frozenset(_walk(cell)) if self.kind == "cell" and rank == 2 else frozenset(cell)

    def _check_ranks(self) -> None:
        """x < y implies rk(x) <= rk(y): no cell may hold one of higher rank, nor equal one."""
        ranked: dict[frozenset[int], int] = {}
        for rank in range(self.top + 1):
            for cell in self.cells[rank]:
                other = ranked.setdefault(frozenset(cell), rank)
                # A single vertex may also be listed as a cell of higher rank (a closed ball of an isolated vertex).
                if other != rank and len(cell) > 1:
                    raise CosetError(f"cell {cell} is given with ranks {other} and {rank}; it has one rank only")
        for low, high in combinations(range(1, self.top + 1), 2):
            for outer, inner in _inclusions(self.cells[low], self.cells[high]):
                x, y = self.cells[high][inner], self.cells[low][outer]
                if len(x) < len(y):
                    raise CosetError(f"cell {x} of rank {high} lies inside {y} of rank {low}: ranks must not fall")

    def signed_faces(self, rank: int) -> list[list[tuple[int, int]]]:
        """Faces of each cell of a rank, as (number of the face, orientation +1 or -1).

        Raises:
            CosetError: A face is missing, or the complex is combinatorial and so has no orientation.
        """
        if self.kind == "combinatorial":
            raise CosetError("a combinatorial complex has no boundary: give kind='cell' or kind='simplicial'")
        faces = {frozenset(cell): (i, cell) for i, cell in enumerate(self.cells[rank - 1])}
        found = []
        for cell in self.cells[rank]:
            row = []
            for face, sign in _faces(self.kind, rank, cell):
                if frozenset(face) not in faces:
                    raise CosetError(f"cell {cell} of rank {rank} needs the face {face}, which is not among the cells")
                number, given = faces[frozenset(face)]
                row.append((number, sign * _parity(face, given)))
            found.append(row)
        return found

    def boundary_matrix(self, rank: int) -> csr_matrix:
        """Signed boundary [cells of rank - 1, cells of rank]; its product with the next one is zero."""
        shape = (len(self.cells[rank - 1]), len(self.cells[rank]))
        entries = [(i, j, s) for j, row in enumerate(self.signed_faces(rank)) for i, s in row]
        rows, columns, signs = np.array(entries, dtype=np.int64).reshape(-1, 3).T
        return csr_matrix((signs, (rows, columns)), shape=shape, dtype=np.int64)

    def incidence(self, low: int, high: int) -> Int[np.ndarray, "2 entries"]:
        """Cells x of rank ``low`` inside cells y of rank ``high``, as vertex sets: numbers (x, y), sorted by y."""
        pairs = _inclusions(self.cells[high], self.cells[low])
        return np.array([(x, y) for y, x in pairs], dtype=np.int64).reshape(-1, 2).T

    def boundary_incidence(self, rank: int) -> Int[np.ndarray, "2 entries"]:
        """Faces only: numbers (face, cell). A polygon is not incident to its chords."""
        pairs = [(face, cell) for cell, row in enumerate(self.signed_faces(rank)) for face, _ in row]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2).T

    @cached_property
    def skeleton(self) -> csr_matrix:
        """Adjacency of the vertices by cells of rank 1, zeros and ones."""
        n = len(self.cells[0])
        pairs = [pair for cell in self.cells.get(1, []) for pair in combinations(cell, 2)]
        i, j = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        adjacency = csr_matrix((np.ones(2 * len(i)), (np.r_[i, j], np.r_[j, i])), shape=(n, n))
        adjacency.data[:] = 1
        return adjacency

    def relabelled(self, images: Sequence[int]) -> Complex:
        """The same complex with vertex v called images[v]."""
        if sorted(images) != list(range(len(self.cells[0]))):
            raise CosetError(f"images must be a permutation of 0 to {len(self.cells[0]) - 1}")
        cells = {rank: [tuple(images[v] for v in cell) for cell in self.cells[rank]] for rank in self.cells if rank}
        return Complex(len(self.cells[0]), cells, self.kind)

    def __repr__(self) -> str:
        return f"Complex({self.kind}, cells by rank {self.counts})"


def disjoint_union(*parts: Complex) -> Complex:
    """The complexes side by side, all of one kind."""
    if len({part.kind for part in parts}) != 1:
        raise CosetError("a union needs complexes of one kind")
    cells: dict[int, list[Cell]] = defaultdict(list)
    offset = 0
    for part in parts:
        for rank in range(1, part.top + 1):
            cells[rank] += [tuple(v + offset for v in cell) for cell in part.cells[rank]]
        offset += len(part.cells[0])
    return Complex(offset, cells, parts[0].kind)


def from_faces(faces: Iterable[Sequence[int]], vertices: int | None = None) -> Complex:
    """A surface from its triangles, quadrilaterals or other polygons; edges are theirs, in order of appearance.

    Args:
        faces: Vertices of every face in cyclic order.
        vertices: Their number; the largest named plus one by default.
    """
    polygons = [tuple(int(v) for v in face) for face in faces]
    edges: dict[frozenset[int], Cell] = {}
    for polygon in polygons:
        for edge in _walk(polygon):
            edges.setdefault(edge, (min(edge), max(edge)))
    count = max((max(p) for p in polygons), default=-1) + 1 if vertices is None else vertices
    return Complex(count, {1: edges.values(), 2: polygons}, "cell")


def _walk(cell: Cell) -> list[frozenset[int]]:
    return [frozenset((cell[i - 1], cell[i])) for i in range(len(cell))]


def _faces(kind: Kind, rank: int, cell: Cell) -> list[tuple[Cell, int]]:
    """Faces with the orientation that the cell gives them."""
    if rank == 1:
        return [((cell[1],), 1), ((cell[0],), -1)]
    if kind == "cell":
        return [((cell[i - 1], cell[i]), 1) for i in range(len(cell))]
    return [(cell[:i] + cell[i + 1 :], (-1) ** i) for i in range(len(cell))]


def _parity(face: Cell, given: Cell) -> int:
    """+1 if two orders of the same vertices differ by an even permutation, else -1."""
    order = [given.index(v) for v in face]
    swaps = sum(order[i] > order[j] for i in range(len(order)) for j in range(i + 1, len(order)))
    return -1 if swaps % 2 else 1


def _inclusions(outer: Sequence[Cell], inner: Sequence[Cell]) -> list[tuple[int, int]]:
    """(y, x) for every cell x of ``inner`` inside a cell y of ``outer``, sorted; through vertices, not all pairs."""
    holding: dict[int, list[int]] = defaultdict(list)
    for number, cell in enumerate(inner):
        holding[min(cell)].append(number)
    members = [frozenset(cell) for cell in inner]
    found = []
    for y, cell in enumerate(outer):
        around = frozenset(cell)
        found += [(y, x) for x in sorted({x for v in cell for x in holding[v]}) if members[x] <= around]
    return found
