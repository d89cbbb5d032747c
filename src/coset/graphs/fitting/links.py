"""Training and judging links: no edge is asked for while messages run on it.

A network that sees whether u and v are joined would learn to read that, and nothing else. So each epoch hides another
share of the training edges and asks for these, and for as many pairs without an edge, drawn anew. To judge the
training edges they are hidden share by share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch_geometric.data import Data

from coset.graphs.data.graph_table import GraphTable
from coset.graphs.data.links import asked_of, hidden_in, pairs_without_edge, without_edges
from coset.graphs.data.splits import NAMES

SHARE = 0.2  # of the training edges that one epoch asks for


class LinkView:
    """A graph to train on, with some of its training edges hidden and asked for; others are returned as they are.

    Args:
        encode: Adds what the model needs, from the edges that are left.
    """

    def __init__(self, encode: Callable[[list[Data]], Sequence[Data]]):
        self.encode = encode

    def __call__(self, graph: Data, seed: int) -> Data:
        if "edge_label_part" not in graph:  # of a validation set, which is always the same
            return graph
        generator = torch.Generator().manual_seed(seed)
        edges = graph.edge_label_index[:, graph.y[:, 0] == 1]
        count = math.ceil(SHARE * edges.size(1))
        asked = edges[:, torch.randperm(edges.size(1), generator=generator)[:count]]
        drawn = pairs_without_edge(int(graph.num_nodes or 0), edges, count, generator)
        view = without_edges(graph, asked)
        view.edge_label_index = torch.cat([asked, drawn], dim=1)
        view.y = torch.cat([torch.ones(count, 1), torch.zeros(drawn.size(1), 1)])
        del view.edge_label_part
        return self.encode([view])[0]


def training_graphs(table: GraphTable) -> list[Data]:
    """What :class:`LinkView` draws from: graphs with the training edges alone."""
    graphs = []
    for graph in table.graphs:
        train = graph.edge_label_part == 0
        if not bool((train & (graph.y[:, 0] == 1)).any()):
            continue
        known = asked_of(graph, train, hidden_in(graph, "train"))
        known.edge_label_part = torch.zeros(len(known.y), dtype=torch.long)
        graphs.append(known)
    return graphs


def judged(table: GraphTable) -> Iterator[tuple[list[Data], Int[Tensor, " rows"]]]:
    """All pairs of all splits, with the graphs to predict them on, and their rows in the table."""
    for split in table.splits:
        folds = math.ceil(1 / SHARE) if split == "train" else 1
        for fold in range(folds):
            graphs, rows, before = [], [], 0
            for graph in table.graphs:
                own = _fold_of(graph, split, folds, fold)
                if bool(own.any()):
                    hidden = hidden_in(graph, split) | own
                    graphs.append(asked_of(graph, own, hidden))
                    rows.append(before + own.nonzero().squeeze(1))
                before += len(graph.y)
            if graphs:
                yield graphs, torch.cat(rows)


def _fold_of(graph: Data, split: str, folds: int, fold: int) -> Tensor:
    """Which rows of a split are of a fold; edges and other pairs are dealt out apart."""
    own = graph.edge_label_part == NAMES.index(split)
    dealt = torch.zeros(len(own), dtype=torch.long)
    for label in (0, 1):
        rows = (own & (graph.y[:, 0] == label)).nonzero().squeeze(1)
        dealt[rows] = torch.arange(len(rows)) % folds
    return own & (dealt == fold)
