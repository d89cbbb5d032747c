r"""The torus benchmark: 223 pairs of complexes that share a cover, which hides them from message passing on cells.

Eitan et al., "Topological Blindspots", ICLR 2025. T(r, R) is the product of two cycles with all unit squares as cells
of rank 2 (r, R >= 3). For every N from 18 to 40 the configurations are the multisets of one to three tori with N
vertices together and at least 9 each; the benchmark is all pairs of different configurations of equal N.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import isqrt

from coset.core.errors import CosetError
from coset.topology.data.complexes import Complex, disjoint_union

Configuration = tuple[tuple[int, int], ...]
"""The tori (r, R) that make up a complex."""

SIZES = range(18, 41)


def torus(r: int, R: int) -> Complex:
    """T(r, R): N = r R vertices a R + b, 2 N edges, N squares."""
    return _quad_grid(r, R, "torus")


def klein_bottle(r: int, R: int) -> Complex:
    """The r x R grid of squares whose second side is closed up after a reflection of the first."""
    return _quad_grid(r, R, "klein")


def strip(squares: int, twisted: bool = False) -> Complex:
    """A closed strip of squares: a cylinder, or a Möbius strip if ``twisted``; 2p vertices, 3p edges, p squares."""
    if squares < 3:
        raise CosetError(f"a strip needs at least 3 squares; got {squares}")

    def vertex(i: int, side: int) -> int:
        around = i // squares
        return 2 * (i % squares) + ((side + around) % 2 if twisted else side)

    rungs = [(2 * i, 2 * i + 1) for i in range(squares)]
    rims = [(vertex(i, side), vertex(i + 1, side)) for i in range(squares) for side in (0, 1)]
    faces = [(vertex(i, 0), vertex(i + 1, 0), vertex(i + 1, 1), vertex(i, 1)) for i in range(squares)]
    return Complex(2 * squares, {1: rungs + rims, 2: faces}, "cell")


def tori(configuration: Configuration) -> Complex:
    """The disjoint union of the tori."""
    return disjoint_union(*(torus(r, R) for r, R in configuration))


def configurations(size: int) -> list[Configuration]:
    """All multisets of one to three tori with ``size`` vertices together."""
    return [
        tuple(chosen) for parts in (1, 2, 3) for sizes in _partitions(size, parts, 9) for chosen in _factored(sizes)
    ]


def torus_pairs() -> list[tuple[Configuration, Configuration]]:
    """The 223 pairs, by growing number of vertices."""
    return [pair for size in SIZES for pair in combinations(configurations(size), 2)]


def _partitions(total: int, parts: int, least: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        if total >= least:
            yield (total,)
        return
    for first in range(least, total // parts + 1):
        for rest in _partitions(total - first, parts - 1, first):
            yield (first, *rest)


def _factored(sizes: tuple[int, ...]) -> Iterator[list[tuple[int, int]]]:
    """Every choice of factors (r, R) of the sizes; equal sizes take factors in order, so that no multiset repeats."""
    if not sizes:
        yield []
        return
    for r in range(3, isqrt(sizes[0]) + 1):
        if sizes[0] % r:
            continue
        for rest in _factored(sizes[1:]):
            if len(sizes) > 1 and sizes[1] == sizes[0] and rest[0][0] < r:
                continue
            yield [(r, sizes[0] // r), *rest]


def _quad_grid(r: int, R: int, surface: str) -> Complex:
    if min(r, R) < 3:
        raise CosetError(f"a grid on a closed surface needs both sides at least 3; got {r} and {R}")

    def vertex(a: int, b: int) -> int:
        if surface == "klein" and b >= R:
            a = -a
        return (a % r) * R + b % R

    places = [(a, b) for a in range(r) for b in range(R)]
    edges = [(vertex(a, b), vertex(a + i, b + 1 - i)) for a, b in places for i in (0, 1)]
    faces = [(vertex(a, b), vertex(a + 1, b), vertex(a + 1, b + 1), vertex(a, b + 1)) for a, b in places]
    return Complex(r * R, {1: edges, 2: faces}, "cell")
