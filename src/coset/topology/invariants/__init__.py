"""Topological invariants, as labels and as checks: Betti numbers, Euler characteristic, orientability, diameters.

Nothing here is dense: a mesh of 20,000 faces is a matter of seconds.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from coset.core.errors import CosetError
from coset.topology import kernels
from coset.topology.data.cells import Array
from coset.topology.data.complexes import Complex

LARGE_PRIME = 2**31 - 1


def betti_numbers(complex_: Complex, field: Literal["rational", 2] = "rational") -> tuple[int, ...]:
    """b_r = n_r - rank(d_r) - rank(d_{r+1}) of each rank, by sparse elimination.

    Ranks over the rationals are taken modulo 2^31 - 1, which gives the same unless the homology has torsion of exactly
    that order.

    Args:
        complex_: A ``cell`` or ``simplicial`` complex.
        field: ``"rational"`` or ``2`` (coefficients modulo 2).

    Raises:
        CosetError: The complex has no boundary, or the field is another.
    """
    if field not in ("rational", 2):
        raise CosetError(f"field={field!r}: choose 'rational' or 2")
    prime = 2 if field == 2 else LARGE_PRIME
    ranks = [0, *(rank_modulo(complex_.boundary_matrix(r), prime) for r in range(1, complex_.top + 1)), 0]
    return tuple(count - ranks[r] - ranks[r + 1] for r, count in enumerate(complex_.counts))


def rank_modulo(matrix: csr_matrix, prime: int) -> int:
    """Rank of a sparse integer matrix over the field of ``prime`` elements.

    Where no row, or no column, has more than two entries, all of them 1 or -1 (the boundary of edges, of surfaces, of
    manifolds of any dimension in the top rank), it is the rank of a signed graph, in linear time. Otherwise columns are
    reduced to distinct pivots.
    """
    columns = matrix.tocsc()
    columns.sum_duplicates()
    columns.eliminate_zeros()
    if columns.nnz and (abs(columns.data) == 1).all():
        for side in (columns, columns.T.tocsc()):
            if np.diff(side.indptr).max() <= 2:
                return _rank_of_signed_graph(side, prime)
    # Columns whose lowest entries lie far up come first: they fill in least.
    filled = np.diff(columns.indptr) > 0
    lowest = np.full(columns.shape[1], -1)
    columns.sort_indices()
    lowest[filled] = columns.indices[columns.indptr[1:][filled] - 1]
    columns = columns[:, np.argsort(lowest, kind="stable")]
    indptr, indices = columns.indptr.astype(np.int64), columns.indices.astype(np.int64)
    return int(kernels.rank_of_columns(indptr, indices, columns.data.astype(np.int64) % prime, matrix.shape[0], prime))


def _rank_of_signed_graph(columns: csc_matrix, prime: int) -> int:
    """Rows are nodes; a column with entries s, t at two rows is an edge of sign -s t, one with one entry a half-edge.

    A component of n nodes has rank n, unless it has no half-edge and no closed walk of negative sign: then n - 1
    (Zaslavsky, "Signed graphs", 1982). Modulo 2 signs do not count.
    """
    n = columns.shape[0]
    size = np.diff(columns.indptr)
    start = columns.indptr[:-1]
    half, two = start[size == 1], start[size == 2]
    a, b = columns.indices[two], columns.indices[two + 1]
    agree = np.ones(len(two), bool) if prime == 2 else columns.data[two] * columns.data[two + 1] < 0
    parts, part = part_of_each(n, a, b)
    loose = unbalanced(n, a, b, agree)
    full = np.zeros(parts, bool)
    full[part[columns.indices[half]]] = True
    full[part[loose]] = True
    return n - parts + int(full.sum())


def part_of_each(n: int, a: Int[Array, " edges"], b: Int[Array, " edges"]) -> tuple[int, Int[Array, " nodes"]]:
    """Number of connected components of n nodes with edges a to b, and the component of every node."""
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    parts, part = connected_components(graph, directed=False)
    return int(parts), part


def unbalanced(n: int, a: Array, b: Array, agree: Array) -> Int[Array, " nodes"]:
    """Nodes of the components that cannot be split in two so that exactly the edges that agree stay on one side.

    Each node stands twice, once for either side; a component is balanced where its two copies stay apart.
    """
    other = np.where(agree, 0, n)
    _, part = part_of_each(2 * n, np.r_[a, a + n], np.r_[b + other, b + n - other])
    return np.flatnonzero(part[:n] == part[n:])


def euler_characteristic(complex_: Complex) -> int:
    """n_0 - n_1 + n_2 - ..."""
    return sum((-1) ** rank * count for rank, count in enumerate(complex_.counts))


def is_orientable(complex_: Complex) -> bool:
    """Whether the cells can be oriented so that two of a rank that meet in a face give it opposite orientations.

    For a surface: every edge of two 2-cells is walked both ways. Where a complex is not pure, that is asked of the
    cells of each rank that are no faces of larger ones: a projective plane beside a solid ball is not orientable.

    Raises:
        CosetError: The complex has no boundary, or a face lies in more than two such cells.
    """
    for rank in range(2, complex_.top + 1):
        outer = np.ones(len(complex_.cells[rank]), bool)
        if rank < complex_.top:
            outer[complex_.boundary(rank + 1).face] = False
        first, second, agree = dual_edges(complex_, rank, outer)
        if unbalanced(len(outer), first, second, agree).size:
            return False
    return True


def dual_edges(
    complex_: Complex, rank: int = 2, among: Bool[Array, " cells"] | None = None
) -> tuple[Array, Array, Array]:
    """Pairs of cells of a rank that share a face, and whether the orientations in which they were given agree there.

    Args:
        complex_: A ``cell`` or ``simplicial`` complex.
        rank: Of the cells.
        among: Which of them count; all by default.

    Raises:
        CosetError: A face lies in more than two cells.
    """
    face, cell, sign = complex_.boundary(rank)
    if among is not None:
        face, cell, sign = (part[among[cell]] for part in (face, cell, sign))
    meeting = np.bincount(face, minlength=len(complex_.cells[rank - 1]))
    if (meeting > 2).any():
        crowded = int(np.flatnonzero(meeting > 2)[0])
        what = "edge" if rank == 2 else f"cell of rank {rank - 1}"
        raise CosetError(
            f"{what} {complex_.cells[rank - 1][crowded]} lies in {meeting[crowded]} cells: not a "
            f"{'surface' if rank == 2 else 'manifold'}"
        )
    order = np.argsort(face, kind="stable")
    shared = np.flatnonzero(face[order][1:] == face[order][:-1])
    one, other = order[shared], order[shared + 1]
    return cell[one], cell[other], sign[one] != sign[other]


def diameter(complex_: Complex) -> int:
    """Largest distance, in hops along the cells of rank 1, of two vertices that a path joins."""
    graph = complex_.skeleton
    return int(kernels.diameter(graph.indptr.astype(np.int64), graph.indices.astype(np.int64)))


def components(complex_: Complex) -> int:
    """Number of connected components of the vertices and edges."""
    return int(connected_components(complex_.skeleton, directed=False)[0])


def cross_diameter(complex_: Complex, low: int = 0, high: int = 2) -> int | None:
    """max over cells x of rank ``low`` and s of rank ``high`` of the least number of hops from x to s.

    Pairs that no path joins do not count; ``None`` if there are no pairs.
    """
    if max(low, high) > complex_.top or not complex_.cells[high] or not complex_.cells[low]:
        return None
    graph, x, s = complex_.skeleton, complex_.cells[low], complex_.cells[high]
    indptr, indices = graph.indptr.astype(np.int64), graph.indices.astype(np.int64)
    farthest = int(kernels.cross_diameter(indptr, indices, x.members, x.ptr, s.members, s.ptr))
    return None if farthest < 0 else farthest
