"""Counting substructures: random graphs, and how many short cycles pass through each of their nodes.

The benchmark of Zhang et al. (ICLR 2024, homomorphism expressivity): random d-regular graphs on n nodes from which n
edges are deleted, (n, d) in {(10, 6), (15, 6), (20, 5), (30, 5)}, and counts at the nodes as regression targets. Sums
along uL count what message passing cannot; uL and vL together count 5- and 6-cycles. Counts here are exact, by
enumeration.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx
import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit
from torch_geometric.data import Data

from coset.graphs.data.collections import graph_from_adjacency

SIZES_AND_DEGREES = ((10, 6), (15, 6), (20, 5), (30, 5))
"""Nodes and degree of the random graphs of the benchmark."""


def counting_graphs(
    count: int,
    targets: Sequence[str] = ("cycle5",),
    seed: int = 0,
    sizes: Sequence[tuple[int, int]] = SIZES_AND_DEGREES,
) -> list[Data]:
    """Random graphs with counts at their nodes as ``y``, float [n, targets].

    Args:
        count: Number of graphs.
        targets: Any of ``cycle3``, ``cycle4``, ... and ``chordal4`` (4-cycles with a chord).
        seed: Equal seeds give equal graphs.
        sizes: Pairs (nodes, degree) to choose from uniformly.

    Raises:
        ValueError: A target does not exist, or there are no graphs of such size and degree.
    """
    generator = np.random.default_rng(seed)
    graphs = []
    for _ in range(count):
        nodes, degree = sizes[int(generator.integers(len(sizes)))]
        graphs.append(with_counts(thinned_regular_graph(nodes, degree, generator), targets))
    return graphs


def thinned_regular_graph(nodes: int, degree: int, generator: np.random.Generator) -> Data:
    """A random regular graph from which as many edges are deleted as it has nodes, uniformly at random."""
    if nodes * degree % 2 or not 2 <= degree < nodes:
        need = f"nodes times degree even, and a degree from 2 to {nodes - 1}"
        raise ValueError(f"no {degree}-regular graph on {nodes} nodes that can lose {nodes} edges: it takes {need}")
    regular = networkx.random_regular_graph(degree, nodes, seed=int(generator.integers(2**32)))
    # The order of NetworkX's edges depends on the process; sorted, a seed means the same graph everywhere.
    edges = np.array(sorted(tuple(sorted(edge)) for edge in regular.edges))
    kept = edges[generator.permutation(len(edges))[nodes:]]
    adjacency = np.zeros((nodes, nodes), dtype=bool)
    adjacency[kept[:, 0], kept[:, 1]] = adjacency[kept[:, 1], kept[:, 0]] = True
    return graph_from_adjacency(adjacency)


def with_counts(graph: Data, targets: Sequence[str]) -> Data:
    """The graph with counts at its nodes as ``y``; see :func:`counting_graphs`."""
    graph.y = torch.cat([node_counts(graph, target)[:, None] for target in targets], dim=1)
    return graph


def node_counts(graph: Data, target: str) -> Float[torch.Tensor, " nodes"]:
    """How many copies of one substructure contain each node: ``cycle3``, ``cycle4``, ... or ``chordal4``."""
    if target == "chordal4":
        return chordal_squares(graph).float()
    length = target.removeprefix("cycle")
    if not target.startswith("cycle") or not length.isdigit() or int(length) < 3:
        raise ValueError(f"target {target!r}: choose chordal4, cycle3, cycle4, cycle5, ...")
    return cycles_through_nodes(graph, int(length)).float()


def cycles_through_nodes(graph: Data, length: int) -> Int[torch.Tensor, " nodes"]:
    """Number of simple cycles of a length through each node; their sum is ``length`` times that of the whole graph."""
    adjacency = _adjacency(graph)
    pointer = np.concatenate([[0], adjacency.sum(axis=1).cumsum()])
    return torch.from_numpy(_cycles(pointer, np.nonzero(adjacency)[1], length))


def chordal_squares(graph: Data) -> Int[torch.Tensor, " nodes"]:
    """Number of 4-cycles with a marked chord (two triangles on a common edge) that contain each node.

    The ends of an edge with c common neighbours lie in c (c - 1) / 2 of them, and each of the neighbours in c - 1.
    """
    adjacency = _adjacency(graph).astype(np.int64)
    common = adjacency @ adjacency * adjacency
    ends = (common * (common - 1) // 2).sum(axis=1)
    wings = np.einsum("ui,vi,uv->i", adjacency, adjacency, adjacency * np.maximum(common - 1, 0), optimize=True) // 2
    return torch.from_numpy(ends + wings)


def _adjacency(graph: Data) -> np.ndarray:
    nodes = int(graph.num_nodes or 0)
    adjacency = np.zeros((nodes, nodes), dtype=bool)
    source, target = graph.edge_index.cpu().numpy()
    adjacency[source, target] = adjacency[target, source] = True
    np.fill_diagonal(adjacency, False)
    return adjacency


@njit(cache=True, nogil=True)
def _cycles(
    pointer: Int[np.ndarray, " offsets"], neighbour: Int[np.ndarray, " edges"], length: int
) -> Int[np.ndarray, " nodes"]:
    """Walk every simple path that starts at its smallest node; each cycle is met twice, once a direction."""
    nodes = pointer.size - 1
    counts = np.zeros(nodes, dtype=np.int64)
    path = np.empty(length, dtype=np.int64)
    entry = np.empty(length, dtype=np.int64)  # the next edge to try at each step of the path
    used = np.zeros(nodes, dtype=np.bool_)
    for root in range(nodes):
        path[0], entry[0], depth = root, pointer[root], 0
        while depth >= 0:
            here = path[depth]
            if entry[depth] == pointer[here + 1]:
                used[here] = False
                depth -= 1
                continue
            node = neighbour[entry[depth]]
            entry[depth] += 1
            if depth == length - 1:
                if node == root:
                    for step in range(length):
                        counts[path[step]] += 1
            elif node > root and not used[node]:
                depth += 1
                path[depth], entry[depth] = node, pointer[node]
                used[node] = True
    return counts // 2
