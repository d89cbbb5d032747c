"""Transforms that work on many graphs of one size at a time, and the pass that sorts a whole data set into such groups.

Dense n x n algebra on one small molecule costs more in calls than in arithmetic. So a transform here is written once,
for a stack of graphs with the same number of nodes; applied to a single graph it is that stack of one, and
:func:`precompute` sends it whole buckets.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import torch
from jaxtyping import Bool
from rich.progress import Progress
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Compose

from coset.errors import CosetError

MAX_CELLS = 1 << 20  # cells of a stack [graphs, n, n]: float64 work arrays of 8 MB


class EqualSizeTransform(BaseTransform):
    """A PyG transform written for a list of graphs that have equally many nodes."""

    @abstractmethod
    def forward_stack(self, graphs: Sequence[Data], adjacency: Bool[Tensor, "graphs n n"]) -> None:
        """Add this transform's attributes to every graph, in place."""

    def forward(self, data: Data) -> Data:
        self.forward_stack([data], stack_adjacency([data]))
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
        for rows in _stacks([int(data.num_nodes or 0) for data in done]):
            stack = [done[row] for row in rows]
            for step, adjacency in _with_adjacency(steps, stack):
                if adjacency is None:
                    stack = [step(data) for data in stack]
                else:
                    step.forward_stack(stack, adjacency)
            for row, data in zip(rows, stack):
                done[row] = data
            bar.advance(task, len(rows))
    return done


def stack_adjacency(graphs: Sequence[Data]) -> Bool[Tensor, "graphs n n"]:
    """Adjacency matrices of graphs with equally many nodes; self-loops are left out, multiple edges count once.

    Raises:
        CosetError: An edge has no reverse, or names a node that is not there.
    """
    n = int(graphs[0].num_nodes or 0)
    edges = [data.edge_index for data in graphs]
    counts = torch.tensor([edge.size(1) for edge in edges])
    graph = torch.arange(len(graphs)).repeat_interleave(counts)
    source, target = torch.cat(edges, dim=1).cpu()
    if (
        source.numel()
        and not 0 <= int(torch.min(source.min(), target.min())) <= int(torch.max(source.max(), target.max())) < n
    ):
        outside = (source < 0) | (target < 0) | (source >= n) | (target >= n)
        raise CosetError(f"{_name(graphs, graph[outside][0])}: edge_index names a node outside 0 to {n - 1}")
    adjacency = torch.zeros(len(graphs) * n * n, dtype=torch.bool)
    adjacency[(graph * n + source) * n + target] = True
    adjacency = adjacency.view(len(graphs), n, n)
    adjacency.diagonal(dim1=1, dim2=2).fill_(False)
    if not torch.equal(adjacency, adjacency.mT):
        where, source, target = (adjacency & ~adjacency.mT).nonzero()[0]
        raise CosetError(
            f"{_name(graphs, where)}: edge {int(source)} -> {int(target)} has no reverse; graphs are undirected, "
            "list every edge in both directions (torch_geometric.transforms.ToUndirected)"
        )
    return adjacency


def _name(graphs: Sequence[Data], row: Tensor) -> str:
    data = graphs[int(row)]
    return f"graph {data.id!r}" if "id" in data else f"graph {int(row)}"


def _steps(transform: Any) -> list[Any]:
    return (
        [step for inner in transform.transforms for step in _steps(inner)]
        if isinstance(transform, Compose)
        else [transform]
    )


def _stacks(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Rows of equally large graphs, in stacks of a bounded number of cells."""
    buckets: dict[int, list[int]] = {}
    for row, size in enumerate(sizes):
        buckets.setdefault(size, []).append(row)
    for size, rows in sorted(buckets.items()):
        most = max(1, MAX_CELLS // max(1, size * size))
        for start in range(0, len(rows), most):
            yield rows[start : start + most]


def _with_adjacency(steps: Sequence[Any], stack: Sequence[Data]) -> Iterator[tuple[Any, Tensor | None]]:
    """Each step with the adjacency it needs, built again only after a foreign transform, which may change edges."""
    adjacency = None
    for step in steps:
        if not isinstance(step, EqualSizeTransform):
            yield step, None
            adjacency = None
            continue
        adjacency = stack_adjacency(stack) if adjacency is None else adjacency
        yield step, adjacency
