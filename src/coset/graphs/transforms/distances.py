"""Shortest-path distances between all nodes: the marking that tells every node how far the root of its copy is.

Subgraphormer marks X(s, v) with an embedding of min(d(s, v), D); D + 1 stands for "not reachable", which is another
thing than "farther than D". Breadth-first search from all nodes at once is a product of matrices: after t steps, R_t
= [A + I]^t > 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch_geometric.data import Data

from coset.graphs.transforms.equal_sizes import EqualSizeTransform, stack_adjacency


class ShortestPathDistances(EqualSizeTransform):
    """Adds ``pair_distance``, uint8 [roots * n]: entry s * n + v is min(d(s, v), max_distance), or max_distance + 1.

    The last value is for nodes in another component. After :class:`SampleRoots` only the rows of kept roots are stored.

    Args:
        max_distance: Largest distance told apart, 1 to 254.
    """

    def __init__(self, max_distance: int = 5):
        if not 1 <= max_distance <= 254:
            raise ValueError(f"max_distance={max_distance}: choose 1 to 254, one byte holds it and one value more")
        self.max_distance = max_distance

    def forward_stack(self, graphs: Sequence[Data], adjacency: Bool[Tensor, "graphs n n"]) -> None:
        for data, distances in zip(graphs, shortest_path_distances(adjacency, self.max_distance)):
            rows = distances[data.root_index] if "root_index" in data else distances.clone()
            data.pair_distance = rows.flatten()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_distance={self.max_distance})"


def shortest_path_distances(adjacency: Bool[Tensor, "*graphs n n"], max_distance: int) -> Int[Tensor, "*graphs n n"]:
    """min(d(s, v), max_distance) as uint8, max_distance + 1 where no path exists."""
    closed = adjacency | torch.eye(adjacency.size(-1), dtype=torch.bool)
    hops = closed.float()
    reached = closed
    distances = torch.full(closed.shape, max_distance + 1, dtype=torch.uint8)
    distances[adjacency] = 1
    distances.diagonal(dim1=-2, dim2=-1).zero_()
    for distance in range(2, max_distance + 1):
        wider = (reached.float() @ hops) > 0
        fresh = wider & ~reached
        if not fresh.any():
            return distances
        distances[fresh] = distance
        reached = wider
    return distances.masked_fill_(reachable(reached) & ~reached, max_distance)


def reachable(adjacency: Bool[Tensor, "*graphs n n"]) -> Bool[Tensor, "*graphs n n"]:
    """Which nodes are in one component: squares of A + I until nothing is added, log2 of the diameter many."""
    reached = adjacency | torch.eye(adjacency.size(-1), dtype=torch.bool)
    while not reached.all():
        hops = reached.float()
        wider = (hops @ hops) > 0
        if torch.equal(wider, reached):
            break
        reached = wider
    return reached


def distance_matrix(data: Data, max_distance: int = 254) -> Int[Tensor, "n n"]:
    """Distances within one graph; ``max_distance + 1`` where no path exists."""
    return shortest_path_distances(stack_adjacency([data]), max_distance)[0]
