"""Where graph networks begin and end: node features in, predictions of graphs, nodes or pairs of nodes out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from coset.nn import FeatureEncoder
from coset.relations import IndexSet, pool
from coset.symmetry import Claim, NodePermutation, NodeRowPermutation, TrivialAction

LEVELS = ("graph", "node", "edge", "link")
"""Of what a network's outputs are rows: graphs, nodes, edges, pairs of nodes that may or may not be joined."""


def node_encoder(features: Sequence[int] | int | None, width: int) -> nn.Module:
    """Encoder of node features: table sizes, a number of real columns, or ``None`` for one row that all nodes share."""
    return nn.Embedding(1, width) if features is None else FeatureEncoder(features, width)


def encode_nodes(encoder: nn.Module, data: Batch | Data, nodes: int) -> Float[Tensor, "nodes width"]:
    """Rows of an encoder made by :func:`node_encoder`; bare graphs need no ``x``."""
    return encoder(data.edge_index.new_zeros(nodes) if isinstance(encoder, nn.Embedding) else data.x)


def pool_nodes(x: Float[Tensor, "nodes width"], nodes: IndexSet, readout: str) -> Float[Tensor, "graphs width"]:
    """``sum`` or ``mean`` over the nodes of each graph."""
    return pool(x, nodes, "sum" if readout == "sum" else "mean")


def prediction_head(width: int, outputs: int, norm: bool = False) -> nn.Sequential:
    """Linear, ReLU, Linear, twice as wide inside; with ``norm`` a batch norm ahead of the ReLU."""
    between = [RowBatchNorm(2 * width), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(nn.Linear(width, 2 * width), *between, nn.Linear(2 * width, outputs))


class PairHead(nn.Module):
    r"""Predictions for pairs {u, v} of nodes, the same for (v, u): MLP([h(u) + h(v) | h(u) * h(v) | p | e]).

    p is X(u, v) + X(v, u) of networks that have features X of pairs; e are the encoded features of the edge, where
    pairs are edges.

    Args:
        width: Columns of h.
        outputs: Columns of a prediction.
        pair_width: Columns of p; 0 without.
        edge_features: As for :class:`coset.nn.FeatureEncoder`; ``None`` where the pairs have none.
    """

    def __init__(self, width: int, outputs: int, pair_width: int = 0, edge_features: Sequence[int] | int | None = None):
        super().__init__()
        self.edges = None if edge_features is None else FeatureEncoder(edge_features, width)
        columns = 2 * width + pair_width + (width if self.edges is not None else 0)
        self.layers = nn.Sequential(nn.Linear(columns, 2 * width), nn.ReLU(), nn.Linear(2 * width, outputs))

    def forward(
        self,
        h: Float[Tensor, "nodes width"],
        data: Batch | Data,
        pairs: Float[Tensor, "rows pair_width"] | None = None,
    ) -> Float[Tensor, "rows outputs"]:
        """Rows of ``data.edge_label_index`` [2, rows]; ``data.edge_label_attr`` are the features of these edges."""
        u, v = (h.index_select(0, end) for end in data.edge_label_index)
        parts = [u + v, u * v, *([] if pairs is None else [pairs])]
        if self.edges is not None:
            parts.append(self.edges(data.edge_label_attr))
        return self.layers(torch.cat(parts, dim=1))


def head_of(
    level: str,
    width: int,
    outputs: int,
    edge_features: Sequence[int] | int | None = None,
    *,
    pair_width: int = 0,
    norm: bool = False,
) -> nn.Module:
    """The head for outputs of a level: :func:`prediction_head`, or a :class:`PairHead` for edges and links.

    ``pair_width`` and ``edge_features`` matter for pairs alone, ``norm`` for the others.
    """
    if level in ("edge", "link"):
        return PairHead(width, outputs, pair_width, edge_features if level == "edge" else None)
    return prediction_head(width, outputs, norm)


class RowBatchNorm(nn.BatchNorm1d):
    """A batch norm of graphs. One graph by itself (a last batch) has no statistics: it gets the running ones."""

    def forward(self, x: Float[Tensor, "graphs columns"]) -> Float[Tensor, "graphs columns"]:
        if x.size(0) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def renumbering_claim(level: str) -> Claim:
    """What renumbering the nodes does to a prediction for each ``graph``, ``node``, ``edge`` or ``link``."""
    if level == "node":
        return Claim(NodePermutation(), NodeRowPermutation(), "renumbering the nodes renumbers the rows")
    of = {"edge": " of an edge", "link": " of a link"}.get(level, "")
    return Claim(NodePermutation(), TrivialAction(), f"renumbering the nodes changes no prediction{of}")
