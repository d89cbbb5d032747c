"""Sampling roots: keep some of the n copies of a graph, so that pairs cost k n instead of n^2.

The stochastic variant of Subgraphormer keeps k = max(1, round(p n)) roots, drawn without replacement, anew at every
access in training. Everything that is defined on nodes stays as it is; what is defined on pairs keeps the rows of the
kept roots.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from coset.core.errors import CosetError


class SampleRoots(BaseTransform):
    """Adds ``root_index`` long [k], sorted, and ``num_roots`` = k; ``pair_distance`` keeps the rows of these roots.

    Batching adds node offsets to ``root_index``, as to every ``*index``. Works before or after
    :class:`ShortestPathDistances`.

    Args:
        fraction: Share p of nodes to keep, above 0 and at most 1.
        count: Number of nodes to keep, all of them in smaller graphs. Give one of the two.
        seed: Of an own random stream, which goes on from graph to graph; without it PyTorch's global stream is used.
    """

    def __init__(self, fraction: float | None = None, count: int | None = None, seed: int | None = None):
        if (fraction is None) == (count is None):
            raise ValueError("SampleRoots needs either fraction= or count=")
        if fraction is not None and not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction}: choose a share above 0, at most 1")
        if count is not None and count < 1:
            raise ValueError(f"count={count}: keep at least one root")
        self.fraction, self.count, self.seed = fraction, count, seed
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def forward(self, data: Data) -> Data:
        nodes = int(data.num_nodes or 0)
        if nodes == 0:
            raise CosetError("a graph needs at least one node to be its root")
        return keep_roots(data, torch.randperm(nodes, generator=self.generator)[: self.number(nodes)])

    def number(self, nodes: int) -> int:
        """How many roots a graph with so many nodes keeps."""
        if self.count is not None:
            return min(self.count, nodes)
        assert self.fraction is not None
        return max(1, round(self.fraction * nodes))

    def __repr__(self) -> str:
        how = f"fraction={self.fraction}" if self.count is None else f"count={self.count}"
        return f"{type(self).__name__}({how}{'' if self.seed is None else f', seed={self.seed}'})"


def keep_roots(data: Data, roots: Int[Tensor, " k"]) -> Data:
    """The graph with these nodes as its only roots, sorted; ``data`` itself is changed.

    Raises:
        CosetError: The roots of this graph were chosen already, or a root is no node or is named twice.
    """
    nodes = int(data.num_nodes or 0)
    if "root_index" in data:
        raise CosetError("roots were chosen already: sample from the graph with all its roots")
    roots = roots.sort().values
    if roots.numel() == 0 or int(roots[0]) < 0 or int(roots[-1]) >= nodes or bool((roots.diff() == 0).any()):
        raise CosetError(f"roots {roots.tolist()} must be distinct nodes of 0 to {nodes - 1}, at least one")
    if "pair_distance" in data:
        data.pair_distance = data.pair_distance.view(nodes, nodes)[roots].flatten()
    data.root_index, data.num_roots = roots, roots.numel()
    return data
