"""Topological invariants, as labels and as checks: Betti numbers, Euler characteristic, orientability, diameters."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, shortest_path

from coset.errors import CosetError
from coset.topology.complexes import Complex

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
    """Rank of a sparse integer matrix over the field of ``prime`` elements, by reducing columns to distinct pivots."""
    columns = matrix.tocsc()
    pivots: dict[int, dict[int, int]] = {}
    for j in range(columns.shape[1]):
        part = slice(columns.indptr[j], columns.indptr[j + 1])
        column = {int(i): int(v) % prime for i, v in zip(columns.indices[part], columns.data[part]) if v % prime}
        while column:
            low = max(column)
            if low not in pivots:
                inverse = pow(column[low], -1, prime)
                pivots[low] = {i: v * inverse % prime for i, v in column.items()}
                break
            factor = column[low]
            for i, v in pivots[low].items():
                value = (column.get(i, 0) - factor * v) % prime
                if value:
                    column[i] = value
                else:
                    column.pop(i, None)
    return len(pivots)


def euler_characteristic(complex_: Complex) -> int:
    """n_0 - n_1 + n_2 - ..."""
    return sum((-1) ** rank * count for rank, count in enumerate(complex_.counts))


def is_orientable(complex_: Complex) -> bool:
    """Whether the 2-cells of a surface can be oriented so that every edge of two of them is walked both ways.

    Raises:
        CosetError: The complex has no boundary, or an edge lies in more than two 2-cells.
    """
    if complex_.top < 2:
        return True
    meeting: dict[int, list[tuple[int, int]]] = {}
    for cell, faces in enumerate(complex_.signed_faces(2)):
        for edge, sign in faces:
            meeting.setdefault(edge, []).append((cell, sign))
    links: list[list[tuple[int, int]]] = [[] for _ in complex_.cells[2]]
    for edge, around in meeting.items():
        if len(around) > 2:
            raise CosetError(f"edge {complex_.cells[1][edge]} lies in {len(around)} cells: not a surface")
        if len(around) == 2:
            (a, s), (b, t) = around
            links[a].append((b, -s * t))
            links[b].append((a, -s * t))
    orientation: dict[int, int] = {}
    for start in range(len(links)):
        waiting = [] if start in orientation else [start]
        orientation.setdefault(start, 1)
        while waiting:
            cell = waiting.pop()
            for other, relative in links[cell]:
                if other not in orientation:
                    orientation[other] = orientation[cell] * relative
                    waiting.append(other)
                elif orientation[other] != orientation[cell] * relative:
                    return False
    return True


def hop_distances(complex_: Complex) -> Float[np.ndarray, "vertices vertices"]:
    """Hops between vertices along the cells of rank 1; infinite where there is no path."""
    return shortest_path(complex_.skeleton, unweighted=True, directed=False)


def diameter(complex_: Complex) -> int:
    """Largest distance of two vertices that a path joins."""
    hops = hop_distances(complex_)
    return int(hops[np.isfinite(hops)].max())


def components(complex_: Complex) -> int:
    """Number of connected components of the vertices and edges."""
    return int(connected_components(complex_.skeleton, directed=False)[0])


def cross_diameter(complex_: Complex, low: int = 0, high: int = 2) -> int | None:
    """max over cells x of rank ``low`` and s of rank ``high`` of the least number of hops from x to s.

    Pairs that no path joins do not count; ``None`` if there are no pairs.
    """
    if high > complex_.top or not complex_.cells[high]:
        return None
    hops = hop_distances(complex_)
    nearest = _to_cells(hops, complex_.cells[low], complex_.cells[high])
    return int(nearest[np.isfinite(nearest)].max())


def _to_cells(hops: np.ndarray, low: list[tuple[int, ...]], high: list[tuple[int, ...]]) -> Int[np.ndarray, "low high"]:
    to_high = np.stack([hops[:, list(cell)].min(1) for cell in high], axis=1)
    return np.stack([to_high[list(cell)].min(0) for cell in low])
