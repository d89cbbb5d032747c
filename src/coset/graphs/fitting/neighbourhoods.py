"""Large graphs by neighbourhoods: batches of nodes, each with what its prediction depends on, or a sample of it.

Hamilton, Ying, Leskovec, "Inductive Representation Learning on Large Graphs", NeurIPS 2017: of the neighbours of a
node at most k are drawn, of theirs at most k', and so on, a number a layer. Networks that sum over neighbours then see
too few; each sum is scaled by degree / drawn, which makes it right on average. Without limits the neighbourhood is
whole, and predictions are those of the whole graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data

from coset.runs.seeds import derived_seed

Limits = Sequence[int | None]
"""How many neighbours are drawn at each hop, nearest first; ``None``: all."""


class Neighbourhood(NamedTuple):
    """Nodes around some seeds, and the edges that lead to them.

    Attributes:
        nodes: Global numbers; the seeds first, then hop by hop.
        edges: Columns of ``edge_index`` that are kept.
        ends: Source and target of these, as places in ``nodes``.
        scale: Of each node, incoming edges that it has over those that are kept; 1 where none are looked at.
    """

    nodes: Int[np.ndarray, " nodes"]
    edges: Int[np.ndarray, " edges"]
    ends: Int[np.ndarray, "2 edges"]
    scale: Float[np.ndarray, " nodes"]


class IncomingEdges:
    """The edges of a graph by target, to look neighbourhoods up in.

    Args:
        edge_index: [2, edges].
        nodes: How many there are.
    """

    def __init__(self, edge_index: Int[np.ndarray, "2 edges"], nodes: int):
        self.order = np.argsort(edge_index[1], kind="stable")
        self.source = edge_index[0][self.order]
        self.first = np.concatenate([[0], np.cumsum(np.bincount(edge_index[1], minlength=nodes))])
        self._place = np.full(nodes, -1)

    def around(self, seeds: Int[np.ndarray, " seeds"], limits: Limits, rng: np.random.Generator) -> Neighbourhood:
        """The neighbourhood of some different nodes.

        Args:
            seeds: Their numbers.
            limits: One a hop.
            rng: Draws without replacement.
        """
        place, nodes, frontier = self._place, [seeds], seeds
        place[seeds] = np.arange(len(seeds))
        kept, targets, scales, reached = [], [], [], len(seeds)
        for limit in limits:
            rows, owner, scale = self._drawn(frontier, limit, rng)
            kept.append(rows)
            targets.append(place[frontier][owner])
            scales.append(scale)
            sources = self.source[rows]
            frontier = np.unique(sources[place[sources] < 0])
            place[frontier] = reached + np.arange(len(frontier))
            reached += len(frontier)
            nodes.append(frontier)
        every, rows = np.concatenate(nodes), np.concatenate(kept)
        ends = np.stack([place[self.source[rows]], np.concatenate(targets)])
        place[every] = -1
        return Neighbourhood(every, self.order[rows], ends, np.concatenate([*scales, np.ones(len(frontier))]))

    def _drawn(
        self, nodes: np.ndarray, limit: int | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Edges into nodes (places in ``source``), which of the nodes each leads to, and the scale of each node."""
        counts = self.first[nodes + 1] - self.first[nodes]
        before = np.cumsum(counts) - counts
        owner = np.repeat(np.arange(len(nodes)), counts)
        rows = np.arange(len(owner)) + (self.first[nodes] - before)[owner]
        if limit is None or not len(counts) or counts.max() <= limit:
            return rows, owner, np.ones(len(nodes))
        order = np.lexsort((rng.random(len(rows)), owner))
        taken = np.sort(order[np.arange(len(rows)) - before[owner] < limit])
        return rows[taken], owner[taken], counts / np.clip(counts, 1, limit)


class NodeBatches(Dataset):
    """Some nodes of one graph with a row of targets each; a batch of rows is a neighbourhood of their nodes.

    Args:
        graph: With everything that the model needs, and ``y`` [nodes, targets] if there are targets.
        rows: Numbers of the nodes.
        limits: One a layer of the model.
        seed: Of the draws.
    """

    def __init__(self, graph: Data, rows: Int[Tensor, " rows"], limits: Limits, seed: int = 0):
        self.graph, self.rows, self.limits, self.seed = graph, rows.numpy(), tuple(limits), seed
        self.incoming = IncomingEdges(graph.edge_index.numpy(), int(graph.num_nodes or 0))
        self.targets = graph.y[rows] if "y" in graph else torch.empty(len(rows), 0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, keys: list[tuple[int, int]]) -> list[Data]:
        """One graph for keys (row, draw): ``seed_index`` are the rows' nodes, ``y`` their targets."""
        places = np.array([row for row, _ in keys])
        seeds, which = np.unique(self.rows[places], return_inverse=True)
        rng = np.random.default_rng(derived_seed(self.seed, keys[0][1], int(places[0])))
        around = self.incoming.around(seeds, self.limits, rng)
        nodes, edges = torch.from_numpy(around.nodes), torch.from_numpy(around.edges)
        part = Data(edge_index=torch.from_numpy(around.ends), num_nodes=len(nodes), y=self.targets[places])
        part.seed_index = torch.from_numpy(which.reshape(-1))
        part.neighbour_scale = torch.from_numpy(around.scale).float()
        for key, chosen in (("x", nodes), ("edge_attr", edges)):
            if key in self.graph:
                part[key] = self.graph[key][chosen]
        return [part]
