"""Transforms that work on many graphs of one size at a time, and the pass that sorts a whole data set into such groups.

Dense n x n algebra on one small molecule costs more in calls than in arithmetic. So a transform here is written once,
for a stack of graphs with the same number of nodes; applied to a single graph it is that stack of one, and
:func:`precompute` sends it whole buckets.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Compose

from coset.core.errors import CosetError
from coset.relations.kernels.threads import pytorch_threads, thread_count
from coset.runs.terminal import bars

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
        """The number, within the stack, of the first node of each node's component."""
        heads = self._tails - self._tails % max(1, self.n) + self._heads
        labels = torch.arange(len(self.graphs) * self.n)
        while True:  # labels flow along edges, then jump to the label of their label: about log2 of the diameter rounds
            lower = labels.scatter_reduce(0, heads, labels[self._tails], "amin")
            lower = lower[lower]
            if torch.equal(lower, labels):
                return labels.view(len(self.graphs), self.n)
            labels = lower

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

    Stacks of graphs are shared among as many threads as kernels have (``torch.set_num_threads``).

    Args:
        graphs: Any number of graphs; they are not changed.
        transforms: PyG transforms in the order of their application, ``T.Compose`` included. Those of this package
            get all graphs of one size at once, others one graph after another, in the order of the graphs.
        progress: Show a progress bar.

    Raises:
        CosetError: A graph has a directed edge, or a node id out of range; the message says which.
    """
    steps = [step for transform in transforms for step in _steps(transform)]
    done = [copy(data) for data in graphs]
    runs = [(stacked, list(run)) for stacked, run in groupby(steps, lambda step: isinstance(step, EqualSizeTransform))]
    with bars(quiet=not progress) as bar:
        task = bar.add_task("encoding graphs", total=len(done) * len(runs))
        for stacked, run in runs:
            if stacked:
                for count in _in_stacks(run, done):
                    bar.advance(task, count)
                continue
            for row, data in enumerate(done):
                for step in run:
                    data = step(data)
                done[row] = data
                bar.advance(task)
    return done


def _in_stacks(steps: Sequence[EqualSizeTransform], graphs: list[Data]) -> Iterator[int]:
    """Apply steps to all graphs, in place; yields how many graphs each stack had as it is done."""

    def work(rows: list[int]) -> int:
        stack = GraphStack([graphs[row] for row in rows])
        for step in steps:
            step.forward_stack(stack)
        return len(rows)

    threads = thread_count()
    with pytorch_threads(1):  # a thread a stack: the operations inside one are too small to share
        if threads == 1:
            yield from map(work, _equal_sizes(graphs))
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, _equal_sizes(graphs))


def _steps(transform: Any) -> list[Any]:
    if not isinstance(transform, Compose):
        return [transform]
    return [step for inner in transform.transforms for step in _steps(inner)]


def _equal_sizes(graphs: Sequence[Data]) -> Iterator[list[int]]:
    """Rows of equally large graphs, in stacks of a bounded number of cells."""
    buckets: dict[int, list[int]] = {}
    for row, data in enumerate(graphs):
        buckets.setdefault(int(data.num_nodes or 0), []).append(row)
    for size, rows in sorted(buckets.items()):
        most = max(1, MAX_CELLS // max(1, size * size))
        for start in range(0, len(rows), most):
            yield rows[start : start + most]
