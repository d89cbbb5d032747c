r"""Closed surfaces as triangulations: of any genus, at random, simpler, and named.

Every closed connected surface is a sphere with g handles (orientable, Euler characteristic 2 - 2 g) or with k
cross-caps (2 - k). Both are built as connected sums of the 7-vertex torus and the 6-vertex projective plane, the
smallest triangulations there are, and changed by moves that provably keep the surface:

=============  ======================================================================  ==============================
move           what happens                                                            allowed if
=============  ======================================================================  ==============================
(1, 3) flip    a triangle is divided by a new vertex inside                            always
(3, 1) flip    the inverse: a vertex of three triangles goes                           its neighbours are no triangle
(2, 2) flip    the common edge of two triangles becomes the other diagonal             that is no edge yet
contraction    an edge shrinks to a vertex, its two triangles go                       link condition
=============  ======================================================================  ==============================

The first three are the bistellar (Pachner) flips in dimension 2; two triangulations are of the same surface if and only
if flips lead from one to the other (Pachner, "P.L. homeomorphic manifolds are equivalent by elementary shellings",
1991). Contracting uv keeps the surface if and only if u and v have no common neighbours but the two opposite uv, and
the surface has more than four vertices (Dey, Edelsbrunner, Guha, Nekhayev, "Topology preserving edge contraction",
1999).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import dist

import numpy as np
from jaxtyping import Float, Int

from coset.core.errors import CosetError
from coset.topology.data.cells import Array
from coset.topology.data.complexes import Complex, from_simplices
from coset.topology.invariants import dual_edges, part_of_each, unbalanced

SPHERE = np.array([(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)])
"""The boundary of the tetrahedron."""

TORUS = np.array([((i, i + 1, i + 3), (i, i + 2, i + 3)) for i in range(7)]).reshape(-1, 3) % 7
"""Moebius' torus: 7 vertices, all 21 edges, 14 triangles."""

PROJECTIVE_PLANE = np.array(
    [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5), (0, 1, 5), (1, 2, 4), (2, 3, 5), (1, 3, 4), (2, 4, 5), (1, 3, 5)]
)
"""The hemi-icosahedron: 6 vertices, all 15 edges, 10 triangles."""


@dataclass(frozen=True)
class Surface:
    """What a connected surface is, up to homeomorphism.

    Attributes:
        orientable: Whether it has two sides.
        genus: Handles if it is orientable, cross-caps if not.
        boundaries: Circles that bound it.
    """

    orientable: bool
    genus: int
    boundaries: int = 0

    @property
    def euler(self) -> int:
        """Euler characteristic."""
        return 2 - self.genus * (2 if self.orientable else 1) - self.boundaries

    def __str__(self) -> str:
        closed = {(True, 0): "sphere", (True, 1): "torus", (False, 1): "projective plane", (False, 2): "Klein bottle"}
        bounded = {(True, 0, 1): "disc", (True, 0, 2): "cylinder", (False, 1, 1): "Möbius strip"}
        if (self.orientable, self.genus, self.boundaries) in bounded:
            return bounded[self.orientable, self.genus, self.boundaries]
        kind = "orientable" if self.orientable else "non-orientable"
        name = closed.get((self.orientable, self.genus), f"{kind} surface of genus {self.genus}")
        return name if not self.boundaries else f"{name} with {self.boundaries} hole{'s' * (self.boundaries > 1)}"


def surface_triangles(genus: int, orientable: bool = True) -> Int[Array, "triangles 3"]:
    """A closed surface with few vertices: 4 (sphere), 4 g + 3 (g handles), 3 k + 3 (k cross-caps).

    Raises:
        CosetError: A genus below 0, or below 1 if the surface is not orientable.
    """
    if genus < (0 if orientable else 1):
        raise CosetError(f"genus={genus}: at least {0 if orientable else 1} for {_kind(orientable)} surfaces")
    if not genus:
        return SPHERE.copy()
    part = TORUS if orientable else PROJECTIVE_PLANE
    result = part
    for _ in range(genus - 1):
        result = connected_sum(result, part)
    return result.copy()


def connected_sum(first: Int[Array, "m 3"], second: Int[Array, "n 3"]) -> Int[Array, "m+n-2 3"]:
    """Take the last triangle of one and the first of the other away, and glue along their sides."""
    names = np.full(int(second.max()) + 1, -1)
    names[second[0]] = first[-1]
    new = np.flatnonzero(names < 0)
    names[new] = int(first.max()) + 1 + np.arange(len(new))
    return np.concatenate([first[:-1], names[second[1:]]])


def closed_surface(
    genus: int,
    orientable: bool = True,
    vertices: int | None = None,
    flips: int = 0,
    generator: np.random.Generator | None = None,
) -> Complex:
    """A triangulation of the surface with so many handles (or cross-caps), changed at random by bistellar flips.

    Args:
        genus: Handles, or cross-caps if not orientable.
        orientable: Which of the two.
        vertices: How many; as few as :func:`surface_triangles` by default.
        flips: Edge flips done after every new vertex has found its place, and as many between them.
        generator: Source of randomness.

    Raises:
        CosetError: Fewer vertices than the connected sum has.
    """
    start = Triangulation(surface_triangles(genus, orientable))
    wanted = start.vertices if vertices is None else vertices
    if wanted < start.vertices:
        raise CosetError(f"vertices={wanted}: this surface starts with {start.vertices}")
    rng = generator or np.random.default_rng(0)
    grown = wanted - start.vertices
    for i in range(grown):
        start.divide(rng)
        start.flip_edges(flips * (i + 1) // grown - flips * i // grown, rng)
    start.flip_edges(flips, rng)
    return start.complex()


class Triangulation:
    """A closed triangulated surface that moves change in place.

    Args:
        triangles: Every edge must lie in two of them.

    Raises:
        CosetError: An edge lies in one triangle, or in three.
    """

    def __init__(self, triangles: Int[Array, "triangles 3"]):
        # Everything is in this: the two vertices opposite each edge. A triangle is an edge and one of those.
        self.across: dict[tuple[int, int], list[int]] = {}
        self.around: dict[int, set[int]] = {}
        for a, b, c in np.asarray(triangles).tolist():
            for u, v, w in ((a, b, c), (b, c, a), (c, a, b)):
                self.across.setdefault(_edge(u, v), []).append(w)
                self.around.setdefault(u, set()).update((v, w))
        for edge, opposite in self.across.items():
            if len(opposite) != 2:
                raise CosetError(f"edge {edge} lies in {len(opposite)} triangles: not a closed surface")
        self._edges = list(self.across)
        self._place = {edge: i for i, edge in enumerate(self._edges)}
        self._next = max(self.around, default=-1) + 1

    @property
    def vertices(self) -> int:
        """How many vertices there are."""
        return len(self.around)

    def complex(self) -> Complex:
        """The triangulation as a simplicial complex; vertices are numbered anew in their order."""
        rows = np.array(sorted(self.triangles()))
        return from_simplices(np.unique(rows, return_inverse=True)[1].reshape(-1, 3))

    def triangles(self) -> set[tuple[int, int, int]]:
        """Each as its vertices in growing order."""
        return {tuple(sorted((*edge, w))) for edge, opposite in self.across.items() for w in opposite}  # type: ignore[misc]

    def divide(self, rng: np.random.Generator) -> None:
        """(1, 3) flip of a random triangle."""
        u, v = self._edges[rng.integers(len(self._edges))]
        w = self.across[u, v][rng.integers(2)]
        new, self._next = self._next, self._next + 1
        self.around[new] = set()
        for a, b, c in ((u, v, w), (v, w, u), (u, w, v)):
            self._replace(_edge(a, b), c, new)
        for a, b, c in ((u, v, w), (v, w, u), (w, u, v)):
            self._add(new, a, b, c)

    def remove(self, vertex: int) -> bool:
        """(3, 1) flip of a vertex; False where it is not allowed."""
        if len(self.around[vertex]) != 3:
            return False
        a, b, c = self.around[vertex]
        if c in self.across[_edge(a, b)]:
            return False
        for u, v, w in ((a, b, c), (b, c, a), (a, c, b)):
            self._replace(_edge(u, v), vertex, w)
        for u in (a, b, c):
            self._drop(vertex, u)
        del self.around[vertex]
        return True

    def flip(self, u: int, v: int) -> bool:
        """(2, 2) flip of an edge; False where it is not allowed."""
        a, b = self.across[_edge(u, v)]
        if b in self.around[a]:
            return False
        for s, old in ((u, v), (v, u)):
            self._replace(_edge(s, a), old, b)
            self._replace(_edge(s, b), old, a)
        self._drop(u, v)
        self._add(a, b, u, v)
        return True

    def flip_edges(self, count: int, rng: np.random.Generator) -> int:
        """Flip random edges until so many flips are done, or 20 times as many were tried; returns how many."""
        done = 0
        for _ in range(20 * count):
            if done == count:
                break
            done += self.flip(*self._edges[rng.integers(len(self._edges))])
        return done

    def contract(self, u: int, v: int) -> bool:
        """Move u onto v along their edge; False where the link condition forbids it."""
        a, b = self.across[_edge(u, v)]
        if self.around[u] & self.around[v] != {a, b} or len(self.around[u]) == len(self.around[v]) == 3:
            return False
        for s in (a, b):
            beyond = next(w for w in self.across[_edge(u, s)] if w != v)
            self._replace(_edge(v, s), u, beyond)
        moved = self.around[u] - {v, a, b}
        for x in self.around[u] - {v}:
            # Sides of the triangles around u that do not touch v now face v.
            for y in self.across[_edge(u, x)]:
                if x < y != v:
                    self._replace(_edge(x, y), u, v)
        kept = {x: list(self.across[_edge(u, x)]) for x in moved}
        for x in list(self.around[u]):
            self._drop(u, x)
        for x, opposite in kept.items():
            self._add(v, x, *opposite)
        del self.around[u]
        return True

    def _replace(self, edge: tuple[int, int], old: int, new: int) -> None:
        opposite = self.across[edge]
        opposite[opposite.index(old)] = new

    def _add(self, u: int, v: int, *opposite: int) -> None:
        edge = _edge(u, v)
        self.across[edge] = list(opposite)
        self._place[edge] = len(self._edges)
        self._edges.append(edge)
        self.around[u].add(v)
        self.around[v].add(u)

    def _drop(self, u: int, v: int) -> None:
        edge = _edge(u, v)
        del self.across[edge]
        place, last = self._place.pop(edge), self._edges.pop()
        if last != edge:
            self._edges[place], self._place[last] = last, place
        self.around[u].discard(v)
        self.around[v].discard(u)


def simplify(
    triangles: Int[Array, "triangles 3"], positions: Float[Array, "vertices 3"], vertices: int
) -> tuple[Complex, Float[Array, "left 3"]]:
    """Contract the shortest edge that may be contracted until so many vertices are left, or none may be.

    Returns:
        The simpler surface, the same up to homeomorphism, and where its vertices are.
    """
    surface = Triangulation(triangles)
    place = dict(enumerate(np.asarray(positions, dtype=float).tolist()))

    def length(edge: tuple[int, int]) -> float:
        return dist(place[edge[0]], place[edge[1]])

    waiting = [(length(edge), edge) for edge in surface.across]
    heapq.heapify(waiting)
    while surface.vertices > vertices and waiting:
        before, (u, v) = heapq.heappop(waiting)
        if (u, v) not in surface.across or before != length((u, v)):
            continue  # gone, or in the heap once more with the length that it has now
        if surface.contract(u, v):
            place[v] = [(p + q) / 2 for p, q in zip(place[u], place[v])]
            for x in surface.around[v]:
                heapq.heappush(waiting, (length(_edge(v, x)), _edge(v, x)))
    return surface.complex(), np.array([place[v] for v in sorted(surface.around)])


def classify_surfaces(complex_: Complex) -> list[Surface]:
    """What each connected component of a surface is, by least vertex.

    Raises:
        CosetError: It is no surface: an edge in no face or in three, a vertex in no face, or one at which sheets touch.
    """
    if complex_.top != 2:
        raise CosetError(f"a surface has cells of ranks 0 to 2; this complex has ranks 0 to {complex_.top}")
    n = complex_.counts[0]
    face, cell, _ = complex_.boundary(2)
    meeting = np.bincount(face, minlength=complex_.counts[1])
    first, second, agree = dual_edges(complex_)
    _check_manifold(complex_, meeting, face, cell)
    edges = complex_.cells[1].members.reshape(-1, 2)
    parts, part = part_of_each(n, edges[:, 0], edges[:, 1])
    of_edge, of_face = part[edges[:, 0]], part[complex_.cells[2].members[complex_.cells[2].ptr[:-1]]]
    euler = _tally(part, parts) - _tally(of_edge, parts) + _tally(of_face, parts)
    rim = edges[meeting == 1]
    rims, rim_part = part_of_each(n, rim[:, 0], rim[:, 1])
    boundaries = _tally(part[np.unique(rim_part, return_index=True)[1][_tally(rim_part, rims) > 1]], parts)
    twisted = _tally(of_face[unbalanced(complex_.counts[2], first, second, agree)], parts) > 0
    closed = 2 - euler - boundaries
    return [Surface(not t, int(c) // (1 if t else 2), int(b)) for t, c, b in zip(twisted, closed, boundaries)]


def _check_manifold(complex_: Complex, meeting: Array, face: Array, cell: Array) -> None:
    n, cells = complex_.counts[0], complex_.cells[2]
    bare = np.flatnonzero(meeting == 0)
    if bare.size:
        raise CosetError(f"edge {complex_.cells[1][bare[0]]} lies in no face: not a surface")
    alone = np.flatnonzero(np.bincount(cells.members, minlength=n) == 0)
    if alone.size:
        raise CosetError(f"vertex {alone[0]} lies in no face: not a surface")
    # Corners (face, vertex), joined where two faces share an edge at the vertex: one piece around every vertex.
    keys = cells.owners * n + cells.members
    order = np.argsort(keys)
    by_edge = np.argsort(face, kind="stable")
    shared = np.flatnonzero(face[by_edge][1:] == face[by_edge][:-1])
    one, other = by_edge[shared], by_edge[shared + 1]
    ends = complex_.cells[1].members.reshape(-1, 2)[face[one]]
    a, b = (order[np.searchsorted(keys[order], cell[side, None] * n + ends)].reshape(-1) for side in (one, other))
    _, piece = part_of_each(len(keys), a, b)
    pieces = np.unique(np.stack([cells.members, piece]), axis=1)[0]
    pinched = np.flatnonzero(np.bincount(pieces, minlength=n) > 1)
    if pinched.size:
        raise CosetError(f"at vertex {pinched[0]} several sheets touch: not a surface")


def _tally(labels: Array, count: int) -> Int[Array, " labels"]:
    return np.bincount(labels, minlength=count)


def _edge(u: int, v: int) -> tuple[int, int]:
    return (u, v) if u < v else (v, u)


def _kind(orientable: bool) -> str:
    return "orientable" if orientable else "non-orientable"
