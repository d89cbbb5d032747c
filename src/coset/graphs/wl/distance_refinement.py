r"""Exact colour refinement over all pairs of nodes: GD-WL for a distance, EPWL for everything the spectrum says.

    chi_{t+1}(u) = number of ( chi_t(u), {{ (chi_t(v), code(u, v)) : all nodes v }} )

Zhang, Luo, Wang, He, ICLR 2023 (GD-WL); Zhang, Zhao, Maron, ICML 2024 (EPWL: ``code`` is lambda -> P_lambda(u, v)).
For EPWL no eigenvalue is computed. One generic function of the matrix carries all of its projections (Gai et al.,
ICLR 2025, Lemma 3.17), so the code is an entry of the resolvent at a random t, in the integers modulo two primes:

    (I - t A)^-1(u, v),   (I - t L)^-1(u, v),   R(u, v) R(v, u) with R = (I - t D^-1 A)^-1

The last one is the square of an entry of the normalised matrix's resolvent, which is not rational itself; its first
non-zero coefficient in t counts walks and is positive, so nothing is lost. Resistances come from the inverse of L + J
on each component (J all ones) the same way.

Codes are functions of the graph alone, so graphs told apart are different without any doubt. Graphs not told apart are
equivalent unless unequal codes met by chance, with probability about (2 n / 2^31)^2 a pair of codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numba import njit
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from coset.core.errors import CosetError
from coset.graphs.wl.colour_refinement import NONE, Colours, Neighbourhoods, Rows

PRIMES = (2147483629, 2147483587)
POINTS = ((1305872389, 1831906047), (915244791, 1402386573), (2020304871, 611953087))
"""Where resolvents are evaluated, one number a prime; the later ones serve where 1/t is an eigenvalue."""

KINDS = ("shortest-path", "resistance", "adjacency", "laplacian", "normalized")


@dataclass(frozen=True)
class DistanceRefinement:
    """Nodes see all nodes, each with a code of the pair.

    Args:
        kind: ``shortest-path`` (SPD-WL), ``resistance`` (RD-WL), or the matrix of EPWL: ``adjacency``, ``laplacian``,
            ``normalized``.
    """

    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: choose {', '.join(KINDS)}")

    @property
    def name(self) -> str:
        return {"shortest-path": "SPD-WL", "resistance": "RD-WL"}.get(self.kind, f"EPWL ({self.kind})")

    def start(self, graph: Neighbourhoods) -> Rows:
        return graph.types

    def gather(self, graph: Neighbourhoods, colours: Colours, count: int) -> list[Rows]:
        """Two blocks that together are the multiset of pairs: the sorted codes, and the colours in that order."""
        if self.kind not in graph.memory:
            codes = pair_codes(graph, self.kind)
            ranks = np.unique(codes, return_inverse=True)[1].reshape(codes.shape)
            graph.memory[self.kind] = np.sort(codes, axis=1), ranks
        ordered, ranks = graph.memory[self.kind]
        keys = ranks * np.int64(count) + colours
        keys.sort(axis=1)
        return [ordered, keys % np.int64(max(1, count))]


def pair_codes(graph: Neighbourhoods, kind: str) -> Int[np.ndarray, "n n"]:
    """What a refinement of this kind sees of every pair (u, v): equal numbers for equal pairs, in any graph."""
    if kind == "shortest-path":
        return graph.distances
    if kind == "resistance":
        return _resistances(graph)
    first, second = (_resolvent(graph, kind, prime) for prime in range(len(PRIMES)))
    return first * PRIMES[1] + second


def _resolvent(graph: Neighbourhoods, kind: str, which: int) -> Int[np.ndarray, "n n"]:
    """Entries of the resolvent modulo a prime, at the first point where it exists.

    Where it does not, 1/t is an eigenvalue modulo the prime. Graphs read at different points have different spectra
    then, so their codes may well differ.
    """
    prime = PRIMES[which]
    adjacency = graph.adjacency.astype(np.int64)
    degree = adjacency.sum(axis=1)
    matrix = np.diag(degree) - adjacency if kind == "laplacian" else adjacency
    if kind == "normalized":
        matrix = matrix * np.array([pow(int(d), -1, prime) if d else 0 for d in degree], dtype=np.int64)[:, None]
    for points in POINTS:
        system = (np.eye(graph.nodes, dtype=np.int64) - points[which] * (matrix % prime)) % prime
        if _INVERSES[which](system):
            return system * system.T % prime if kind == "normalized" else system
    raise CosetError(f"the resolvent of a graph with {graph.nodes} nodes is singular at all {len(POINTS)} points tried")


def _resistances(graph: Neighbourhoods) -> Int[np.ndarray, "n n"]:
    """Resistances as residues; -1 across components."""
    adjacency = graph.adjacency.astype(np.int64)
    labels = connected_components(csr_matrix(adjacency), directed=False)[1]
    together = labels[:, None] == labels
    codes = np.zeros_like(adjacency)
    for prime, inverse in zip(PRIMES, _INVERSES):
        system = (np.diag(adjacency.sum(axis=1)) - adjacency + together) % prime
        if not inverse(system):
            raise CosetError(
                f"the number of spanning trees of a graph is divisible by {prime}: resistances need another"
            )
        own = np.diagonal(system)
        codes = codes * prime + (own[:, None] + own - 2 * system) % prime
    return np.where(together, codes, NONE)


def _inverter(prime: int) -> Callable[[Int[np.ndarray, "n n"]], bool]:
    """Gauss-Jordan inversion in place modulo a prime that the compiler knows, which makes remainders cheap."""

    @njit(cache=True, nogil=True)
    def invert(a: Int[np.ndarray, "n n"]) -> bool:
        n = a.shape[0]
        swapped = np.empty(n, dtype=np.int64)
        for k in range(n):
            pivot = k
            while pivot < n and a[pivot, k] == 0:
                pivot += 1
            if pivot == n:
                return False
            swapped[k] = pivot
            if pivot != k:
                for j in range(n):
                    a[k, j], a[pivot, j] = a[pivot, j], a[k, j]
            scale, base, power = 1, a[k, k], prime - 2  # the inverse by Fermat
            while power:
                if power & 1:
                    scale = scale * base % prime
                base = base * base % prime
                power >>= 1
            a[k, k] = 1
            for j in range(n):
                a[k, j] = a[k, j] * scale % prime
            for i in range(n):
                factor = a[i, k]
                if i == k or factor == 0:
                    continue
                factor = prime - factor
                a[i, k] = 0
                for j in range(n):
                    a[i, j] = (a[i, j] + factor * a[k, j]) % prime
        for k in range(n - 1, -1, -1):
            if swapped[k] != k:
                for i in range(n):
                    a[i, k], a[i, swapped[k]] = a[i, swapped[k]], a[i, k]
        return True

    return invert


_INVERSES = tuple(_inverter(prime) for prime in PRIMES)
