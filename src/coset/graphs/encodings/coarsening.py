"""Coarsenings: which sets of nodes become the super-nodes of a graph.

Bar-Shalom, Eitan, Frasca, Maron, "A Flexible, Equivariant Framework for Subgraph GNNs via Graph Products and Graph
Coarsening", NeurIPS 2024. A coarsening is a family of node sets, often a partition into T clusters. Here a family is a
mask [sets, nodes]; no set is empty.

A family that is a function of the graph alone, whatever the numbers of its nodes, makes the whole pipeline invariant:
singletons, balls, edges, components. Spectral clusters, random sets and anything that breaks ties by node numbers are
not; a network on top is then invariant for a given family, and predictions vary with the clustering.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import networkx
import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from coset.core.registry import Registry

Adjacency = Bool[np.ndarray, "n n"]
Family = Bool[np.ndarray, "sets n"]
Labels = Int[np.ndarray, " n"]
Build = TypeVar("Build", bound=Callable[..., Family])

_TIE = 1e-6  # eigenvector entries this close in magnitude count as equally large when a sign is chosen
_DIGITS = 6  # of logarithms of centralities
_GAIN = 1e-9  # a restart of k-means must be better by this share to replace an earlier one


@dataclass(frozen=True)
class Settings:
    """What a coarsening may depend on besides the graph.

    Attributes:
        size: Number T of sets wanted.
        dimensions: Laplacian eigenvectors that spectral clustering uses.
        radius: Of balls.
        restarts: Of k-means.
        seed: Of everything random.
    """

    size: int = 1
    dimensions: int = 2
    radius: int = 1
    restarts: int = 10
    seed: int = 0

    def generator(self, adjacency: Adjacency) -> np.random.Generator:
        """Random numbers that depend on the seed and the graph, not on the graphs seen before it."""
        return np.random.default_rng([self.seed, zlib.crc32(np.packbits(adjacency).tobytes()), len(adjacency)])


@dataclass(frozen=True)
class Coarsening:
    """One way to choose the sets.

    Attributes:
        build: From the adjacency (symmetric, without loops) and the settings to the family.
        sized: Whether it makes exactly ``min(size, nodes)`` sets.
        partition: Whether every node lies in exactly one set.
        invariant: Whether renumbering the nodes renumbers the sets and does nothing else.
    """

    build: Callable[[Adjacency, Settings], Family]
    sized: bool
    partition: bool
    invariant: bool


COARSENINGS: Registry[Coarsening] = Registry("coarsening")


def coarsening(name: str, *, sized: bool, partition: bool, invariant: bool) -> Callable[[Build], Build]:
    """A decorator that registers a function as a :class:`Coarsening`."""

    def add(build: Build) -> Build:
        COARSENINGS.register(name)(Coarsening(build, sized, partition, invariant))
        return build

    return add


def coarsen(adjacency: Adjacency, method: str, settings: Settings | None = None) -> Family:
    """The sets of one graph, in the order of their smallest node where they are clusters.

    With as many sets as nodes or more, the sized partitions are the singletons, exactly.

    Args:
        adjacency: Symmetric, without loops, at least one node.
        method: A key of :data:`COARSENINGS`.
        settings: Size, seed and the like.

    Raises:
        ValueError: The method does not exist, or a setting is out of range.
    """
    settings = settings or Settings()
    if method not in COARSENINGS:
        raise ValueError(f"coarsening={method!r}: choose {', '.join(COARSENINGS)}")
    for name in ("size", "dimensions", "radius", "restarts"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}={getattr(settings, name)}: at least 1")
    way = COARSENINGS[method]
    if way.sized and settings.size >= len(adjacency):
        return singletons(adjacency)
    family = way.build(adjacency, settings)
    return family if len(family) else np.zeros((0, len(adjacency)), dtype=bool)


@coarsening("singletons", sized=False, partition=True, invariant=True)
def singletons(adjacency: Adjacency, settings: Settings | None = None) -> Family:
    """One set a node."""
    return np.eye(len(adjacency), dtype=bool)


@coarsening("whole", sized=False, partition=True, invariant=True)
def whole(adjacency: Adjacency, settings: Settings | None = None) -> Family:
    """All nodes together."""
    return np.ones((1, len(adjacency)), dtype=bool)


@coarsening("components", sized=False, partition=True, invariant=True)
def components(adjacency: Adjacency, settings: Settings | None = None) -> Family:
    """Connected components."""
    return masks(connected_components(csr_matrix(adjacency), directed=False)[1])


@coarsening("rings", sized=False, partition=True, invariant=True)
def bridgeless(adjacency: Adjacency, settings: Settings | None = None) -> Family:
    """What hangs together when all bridges are cut: in a molecule its ring systems, and every other atom alone."""
    cut = adjacency.copy()
    for u, v in networkx.bridges(networkx.from_numpy_array(adjacency)):
        cut[u, v] = cut[v, u] = False
    return components(cut)


@coarsening("balls", sized=False, partition=False, invariant=True)
def balls(adjacency: Adjacency, settings: Settings) -> Family:
    """Around every node, the nodes within ``radius`` steps; equal balls count once."""
    step = (adjacency | np.eye(len(adjacency), dtype=bool)).astype(float)
    reached = step
    for _ in range(settings.radius - 1):
        reached = (reached @ step > 0).astype(float)
    _, first = np.unique(reached, axis=0, return_index=True)
    return reached[np.sort(first)] > 0


@coarsening("edges", sized=False, partition=False, invariant=True)
def edges(adjacency: Adjacency, settings: Settings | None = None) -> Family:
    """The two ends of every edge; none in a graph without edges."""
    return _doubles(np.argwhere(np.triu(adjacency)), len(adjacency))


@coarsening("pairs", sized=False, partition=False, invariant=True)
def pairs(adjacency: Adjacency, settings: Settings | None = None) -> Family:
    """Any two nodes."""
    return _doubles(np.argwhere(np.triu(np.ones_like(adjacency), 1)), len(adjacency))


@coarsening("sample", sized=True, partition=False, invariant=False)
def sampled_nodes(adjacency: Adjacency, settings: Settings) -> Family:
    """Singletons of ``size`` nodes drawn at random: the bag of subgraph networks that sample their roots."""
    order = settings.generator(adjacency).permutation(len(adjacency))[: settings.size]
    return np.eye(len(adjacency), dtype=bool)[np.sort(order)]


@coarsening("centrality", sized=True, partition=False, invariant=False)
def central_nodes(adjacency: Adjacency, settings: Settings) -> Family:
    """Singletons of the ``size`` nodes with most closed walks through them; of equal ones the first.

    Subgraph centrality, the diagonal of exp(A) (Estrada, Rodríguez-Velázquez 2005), as Southern et al., "Balancing
    Efficiency and Expressiveness: Subgraph GNNs with Walk-Based Centrality", ICML 2025, choose roots (HyMN).
    """
    values, vectors = np.linalg.eigh(adjacency.astype(float))
    # Over exp of the largest eigenvalue, so that dense graphs do not overflow; rounded, so that equal nodes are equal.
    closed_walks = np.maximum(vectors**2 @ np.exp(values - values[-1]), np.finfo(float).tiny)
    order = np.argsort(-np.log(closed_walks).round(_DIGITS), kind="stable")[: settings.size]
    return np.eye(len(adjacency), dtype=bool)[np.sort(order)]


@coarsening("random", sized=True, partition=True, invariant=False)
def random_partition(adjacency: Adjacency, settings: Settings) -> Family:
    """Every node in one of ``size`` sets at random, none of them empty."""
    generator, n = settings.generator(adjacency), len(adjacency)
    labels = np.empty(n, dtype=np.int64)
    order = generator.permutation(n)
    labels[order[: settings.size]] = np.arange(settings.size)
    labels[order[settings.size :]] = generator.integers(settings.size, size=n - settings.size)
    return masks(labels)


@coarsening("merge", sized=True, partition=True, invariant=False)
def merged_neighbours(adjacency: Adjacency, settings: Settings) -> Family:
    """The smallest cluster joins its smallest neighbour until ``size`` remain: connected clusters of similar size.

    Ties go to the cluster with the smallest node; clusters without neighbours join the smallest other one.
    """
    labels = np.arange(len(adjacency))
    touching = adjacency.copy()
    sizes = np.ones(len(adjacency))
    for _ in range(len(adjacency) - settings.size):
        small = int(np.argmin(sizes))
        others = touching[small] if touching[small].any() else np.isfinite(sizes)
        candidates = np.where(others, sizes, np.inf)
        candidates[small] = np.inf
        partner = int(np.argmin(candidates))
        kept, gone = min(small, partner), max(small, partner)
        labels[labels == gone] = kept
        touching[kept] |= touching[gone]
        touching[:, kept] |= touching[:, gone]
        touching[gone] = touching[:, gone] = touching[kept, kept] = False
        sizes[kept] += sizes[gone]
        sizes[gone] = np.inf
    return masks(labels)


@coarsening("modularity", sized=False, partition=True, invariant=False)
def modularity(adjacency: Adjacency, settings: Settings | None = None) -> Family:
    """Communities of greedy modularity (Clauset, Newman, Moore 2004); their number follows from the graph."""
    labels = np.arange(len(adjacency))
    if adjacency.any():
        found = networkx.community.greedy_modularity_communities(networkx.from_numpy_array(adjacency))
        for community in found:
            labels[list(community)] = min(community)
    return masks(labels)


@coarsening("spectral", sized=True, partition=True, invariant=False)
def spectral(adjacency: Adjacency, settings: Settings) -> Family:
    """k-means on the first ``dimensions`` non-trivial eigenvectors of L = D - A, within each connected component.

    Clusters are shared out among the components by size, at least one each; with fewer clusters than components whole
    components are put together. Signs of eigenvectors, draws and ties are settled by the graph as it is numbered, so
    the same input gives the same clusters; renumbering the nodes may not.
    """
    part = connected_components(csr_matrix(adjacency), directed=False)[1]
    members = [np.flatnonzero(part == c) for c in range(part.max() + 1)]
    labels = np.zeros(len(adjacency), dtype=np.int64)
    if settings.size <= len(members):
        load = np.zeros(settings.size)
        for nodes in sorted(members, key=len, reverse=True):
            lightest = int(np.argmin(load))
            labels[nodes] = lightest
            load[lightest] += len(nodes)
        return masks(labels)
    generator, used = settings.generator(adjacency), 0
    for nodes, count in zip(members, _shares([len(nodes) for nodes in members], settings.size)):
        points = _embedding(adjacency[np.ix_(nodes, nodes)], settings.dimensions)
        labels[nodes] = used + k_means(points, count, generator, settings.restarts)
        used += count
    return masks(labels)


def masks(labels: Labels) -> Family:
    """Clusters as sets, by their smallest node."""
    _, first = np.unique(labels, return_index=True)
    return labels[np.sort(first)][:, None] == labels[None]


def k_means(points: Float[np.ndarray, "n d"], count: int, generator: np.random.Generator, restarts: int = 10) -> Labels:
    """The best of several runs of Lloyd's algorithm from k-means++ starts; every cluster holds a point.

    A cluster that runs empty takes the point farthest from its centre; ties go to the first.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"{count} clusters of {len(points)} points: choose 1 to {len(points)}")
    return _k_means(np.ascontiguousarray(points, dtype=np.float64), count, generator.random((restarts, count)))


def _doubles(ends: Int[np.ndarray, "sets 2"], n: int) -> Family:
    family = np.zeros((len(ends), n), dtype=bool)
    np.put_along_axis(family, ends, True, axis=1)
    return family


def _embedding(adjacency: Adjacency, dimensions: int) -> Float[np.ndarray, "n d"]:
    """Eigenvectors 2 to ``dimensions`` + 1 of a connected graph, the first of their largest entries positive."""
    laplacian = np.diag(adjacency.sum(1).astype(float)) - adjacency
    vectors = np.linalg.eigh(laplacian)[1][:, 1 : dimensions + 1]
    if vectors.shape[1] == 0:
        return np.zeros((len(adjacency), 1))
    size = np.abs(vectors)
    largest = (size >= size.max(0) - _TIE).argmax(0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)


def _shares(sizes: list[int], total: int) -> list[int]:
    """Clusters of each component: one, then one more at a time where nodes per cluster are most."""
    shares = [1] * len(sizes)
    for _ in range(total - len(sizes)):
        crowded = max(range(len(sizes)), key=lambda c: (shares[c] < sizes[c], sizes[c] / shares[c]))
        shares[crowded] += 1
    return shares


@njit(cache=True, nogil=True)
def _k_means(
    points: Float[np.ndarray, "points features"], count: int, draws: Float[np.ndarray, "starts clusters"]
) -> Int[np.ndarray, " points"]:
    best, lowest = np.zeros(len(points), dtype=np.int64), np.inf
    for start in draws:
        centres = _plus_plus(points, count, start)
        labels = np.full(len(points), -1)
        for _ in range(100):
            moved = _assign(points, centres, labels)
            _fill_empty(points, centres, labels)
            for c in range(count):
                members = 0
                centres[c] = 0
                for i in range(len(points)):
                    if labels[i] == c:
                        centres[c] += points[i]
                        members += 1
                centres[c] /= members
            if not moved:
                break
        inertia = 0.0
        for i in range(len(points)):
            inertia += ((points[i] - centres[labels[i]]) ** 2).sum()
        if inertia < lowest - _GAIN * lowest or not np.isfinite(lowest):
            best, lowest = labels.copy(), inertia
    return best


@njit(cache=True, nogil=True)
def _plus_plus(
    points: Float[np.ndarray, "points features"], count: int, draws: Float[np.ndarray, " clusters"]
) -> Float[np.ndarray, "clusters features"]:
    """Centres drawn with probability proportional to the squared distance from those drawn before."""
    centres = np.empty((count, points.shape[1]))
    weight = np.ones(len(points))
    for c in range(count):
        chosen = min(np.searchsorted(np.cumsum(weight), draws[c] * weight.sum(), side="right"), len(points) - 1)
        centres[c] = points[chosen]
        for i in range(len(points)):
            distance = ((points[i] - centres[c]) ** 2).sum()
            weight[i] = distance if c == 0 else min(weight[i], distance)
        if weight.sum() == 0:
            weight[:] = 1e-300
    return centres


@njit(cache=True, nogil=True)
def _assign(
    points: Float[np.ndarray, "points features"],
    centres: Float[np.ndarray, "clusters features"],
    labels: Int[np.ndarray, " points"],
) -> bool:
    """Every point to its nearest centre, the first of several; whether any moved."""
    moved = False
    for i in range(len(points)):
        nearest, closest = 0, np.inf
        for c in range(len(centres)):
            distance = ((points[i] - centres[c]) ** 2).sum()
            if distance < closest:
                nearest, closest = c, distance
        if labels[i] != nearest:
            labels[i] = nearest
            moved = True
    return moved


@njit(cache=True, nogil=True)
def _fill_empty(
    points: Float[np.ndarray, "points features"],
    centres: Float[np.ndarray, "clusters features"],
    labels: Int[np.ndarray, " points"],
) -> None:
    sizes = np.bincount(labels, minlength=len(centres))
    for c in range(len(centres)):
        if sizes[c]:
            continue
        farthest, most = -1, -1.0
        for i in range(len(points)):
            distance = ((points[i] - centres[labels[i]]) ** 2).sum()
            if sizes[labels[i]] > 1 and distance > most:
                farthest, most = i, distance
        sizes[labels[farthest]] -= 1
        sizes[c] += 1
        labels[farthest] = c
