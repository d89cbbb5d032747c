"""Where graph networks begin and end: node features in, pooled features and predictions out."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from coset.nn import FeatureEncoder
from coset.relations import IndexSet, pool
from coset.symmetry import Claim, NodePermutation, NodeRowPermutation, TrivialAction


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


class RowBatchNorm(nn.BatchNorm1d):
    """A batch norm of graphs. One graph by itself (a last batch) has no statistics: it gets the running ones."""

    def forward(self, x: Float[Tensor, "graphs columns"]) -> Float[Tensor, "graphs columns"]:
        if x.size(0) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def renumbering_claim(level: str) -> Claim:
    """What renumbering the nodes does to a prediction for each ``graph``, or for each ``node``."""
    if level == "node":
        return Claim(NodePermutation(), NodeRowPermutation(), "renumbering the nodes renumbers the rows")
    return Claim(NodePermutation(), TrivialAction(), "renumbering the nodes changes no prediction")
