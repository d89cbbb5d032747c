"""Shortest-path distances between all nodes: the marking that tells every node how far the root of its copy is.

Subgraphormer marks X(s, v) with an embedding of min(d(s, v), D); D + 1 stands for "not reachable", which is another
thing than "farther than D". Breadth-first search from all nodes at once is a product of matrices: with R_t = 1 where
v is reached from s within t steps, R_t = min(1, R_{t-1} (A + I)), and min(d, D) is the number of t < D with R_t = 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor
from torch_geometric.data import Data

from coset.graphs.transforms.equal_sizes import EqualSizeTransform, GraphStack


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

    def forward_stack(self, stack: GraphStack) -> None:
        distances = shortest_path_distances(stack.adjacency, self.max_distance, stack.components)
        for data, rows in zip(stack.graphs, distances.unbind()):
            # A copy: a view would keep the distances of the whole stack alive, and pickle them.
            attributes = data.stores[0]  # what data.pair_distance = ... would find, after a long search
            rows = rows[attributes["root_index"]] if "root_index" in attributes else rows.clone()
            attributes["pair_distance"] = rows.flatten()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_distance={self.max_distance})"


def shortest_path_distances(
    adjacency: Bool[Tensor, "graphs n n"], max_distance: int, components: Int[Tensor, "graphs n"]
) -> UInt8[Tensor, "graphs n n"]:
    """min(d(s, v), max_distance) as uint8, max_distance + 1 where no path exists.

    Args:
        adjacency: Symmetric, without loops.
        max_distance: At most 254.
        components: Equal numbers for nodes in one component (:attr:`GraphStack.components`).
    """
    n = adjacency.size(-1)
    reached = torch.eye(n).expand(adjacency.shape)
    hops = adjacency.float() + reached
    distances = max_distance - reached
    for step in range(1, max_distance):
        wider = hops if step == 1 else torch.bmm(reached, hops).clamp_(max=1)
        if torch.equal(wider, reached):
            distances.sub_(reached, alpha=max_distance - step)
            break
        reached = wider
        distances.sub_(reached)
    return (distances + (components.unsqueeze(2) != components.unsqueeze(1))).to(torch.uint8)


def distance_matrix(data: Data, max_distance: int = 254) -> UInt8[Tensor, "n n"]:
    """Distances within one graph; ``max_distance + 1`` where no path exists."""
    stack = GraphStack([data])
    return shortest_path_distances(stack.adjacency, max_distance, stack.components)[0]
