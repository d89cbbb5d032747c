"""Transforms that work on many graphs of one size at a time, and the pass that sorts a whole data set into such groups.

Dense n x n algebra on one small molecule costs more in calls than in arithmetic. So a transform here is written once,
for a stack of graphs with the same number of nodes; applied to a single graph it is that stack of one, and
:func:`precompute` sends it whole buckets.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from rich.progress import Progress
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Compose

from coset.errors import CosetError

MAX_CELLS = 1 << 17  # cells of a stack [graphs, n, n]: a float64 work array is 1 MB and stays in cache


class GraphStack:
    """Graphs with equally many nodes n, and what several transforms need of them, computed once.

    Raises:
        CosetError: An edge has no reverse, or names a node that is not there.
    """

    def __init__(self, graphs: Sequence[Data]):
        self.graphs = graphs
        self.n = int(graphs[0].num_nodes or 0)
        edges = [data.edge_index for data in graphs]
        graph = torch.arange(len(graphs)).repeat_interleave(torch.tensor([edge.size(1) for edge in edges]))
        source, target = torch.cat(edges, dim=1).cpu()
        ends = torch.cat([source, target])
        if ends.numel() and (int(ends.min()) < 0 or int(ends.max()) >= self.n):
            outside = (source < 0) | (target < 0) | (source >= self.n) | (target >= self.n)
            raise CosetError(f"{self._name(graph[outside][0])}: edge_index names a node outside 0 to {self.n - 1}")
        self._tails, self._heads = graph * self.n + source, target

    @cached_property
    def adjacency(self) -> Bool[Tensor, "graphs n n"]:
        """Without self-loops; multiple edges count once."""
        adjacency = torch.zeros(len(self.graphs) * self.n * self.n, dtype=torch.bool)
        adjacency[self._tails * self.n + self._heads] = True
        adjacency = adjacency.view(len(self.graphs), self.n, self.n)
        adjacency.diagonal(dim1=1, dim2=2).fill_(False)
        if not torch.equal(adjacency, adjacency.mT):
            where, source, target = (adjacency & ~adjacency.mT).nonzero()[0]
            raise CosetError(
                f"{self._name(where)}: edge {int(source)} -> {int(target)} has no reverse; graphs are undirected, "
                "list every edge in both directions (torch_geometric.transforms.ToUndirected)"
            )
        return adjacency

    @cached_property
    def components(self) -> Int[Tensor, "graphs n"]:
        """A number for every node, the same within a component and different between components (and graphs)."""
        total = len(self.graphs) * self.n
        tails = self._tails.numpy()
        heads = self._heads.numpy() + tails // max(1, self.n) * self.n
        union = coo_array((np.ones(len(tails), dtype=np.int8), (tails, heads)), shape=(total, total))
        _, labels = connected_components(union, directed=False)
        return torch.from_numpy(labels).long().view(len(self.graphs), self.n)

    def _name(self, row: Tensor) -> str:
        data = self.graphs[int(row)]
        return f"graph {data.id!r}" if "id" in data else f"graph {int(row)}"


class EqualSizeTransform(BaseTransform):
    """A PyG transform written for a stack of graphs that have equally many nodes."""

    @abstractmethod
    def forward_stack(self, stack: GraphStack) -> None:
        """Add this transform's attributes to every graph, in place."""

    def forward(self, data: Data) -> Data:
        self.forward_stack(GraphStack([data]))
        return data


def precompute(graphs: Sequence[Data], *transforms: Any, progress: bool = False) -> list[Data]:
    """The graphs with transforms applied, in their order: the same as one by one, much faster.

    Args:
        graphs: Any number of graphs; they are not changed.
        transforms: PyG transforms in the order of their application, ``T.Compose`` included. Those of this package
            get all graphs of one size at once, others one graph after another.
        progress: Show a progress bar.

    Raises:
        CosetError: A graph has a directed edge, or a node id out of range; the message says which.
    """
    steps = [step for transform in transforms for step in _steps(transform)]
    done = [copy(data) for data in graphs]
    with Progress(transient=True, disable=not progress) as bar:
        task = bar.add_task("encoding graphs", total=len(done))
        for rows in _equal_sizes([int(data.num_nodes or 0) for data in done]):
            for row, data in zip(rows, _apply(steps, [done[row] for row in rows])):
                done[row] = data
            bar.advance(task, len(rows))
    return done


def _apply(steps: Sequence[Any], graphs: list[Data]) -> list[Data]:
    stack: GraphStack | None = None
    for step in steps:
        if isinstance(step, EqualSizeTransform):
            stack = stack or GraphStack(graphs)
            step.forward_stack(stack)
        else:
            graphs, stack = [step(data) for data in graphs], None  # it may have changed edges
    return graphs


def _steps(transform: Any) -> list[Any]:
    if not isinstance(transform, Compose):
        return [transform]
    return [step for inner in transform.transforms for step in _steps(inner)]


def _equal_sizes(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Rows of equally large graphs, in stacks of a bounded number of cells."""
    buckets: dict[int, list[int]] = {}
    for row, size in enumerate(sizes):
        buckets.setdefault(size, []).append(row)
    for size, rows in sorted(buckets.items()):
        most = max(1, MAX_CELLS // max(1, size * size))
        for start in range(0, len(rows), most):
            yield rows[start : start + most]
