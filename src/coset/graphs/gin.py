"""GIN and GINE: message passing on the graph itself, the baseline that everything here has to beat.

Xu, Hu, Leskovec, Jegelka, "How Powerful are Graph Neural Networks?", ICLR 2019; edge features as in Hu et al.,
"Strategies for Pre-training Graph Neural Networks", ICLR 2020. Group: S_n on the nodes. x'_i = MLP((1 + eps) x_i +
sum_j ReLU(x_j + e_ij)); the normalisation after each layer can be chosen, GRANOLA among them.
"""

from copy import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from coset.errors import check_choice
from coset.graphs.granola import GranolaNorm
from coset.graphs.norms import make_norm
from coset.graphs.product import node_counts
from coset.graphs.readouts import encode_nodes, node_encoder, pool_nodes, prediction_head, renumbering_claim
from coset.nn import MLP, FeatureEncoder
from coset.relations import IndexSet, Relation, propagate
from coset.symmetry import Claim


class GIN(nn.Module):
    """Graph isomorphism network, with edge features if there are any.

    Args:
        outputs: Number of predicted values a graph.
        node_features: Table sizes of categorical node features, number of real ones, or ``None`` for bare graphs.
        edge_features: The same for edges; ``None`` ignores them.
        width: Columns of the node features.
        layers: Number of layers.
        readout: ``sum`` or ``mean`` over the nodes.
        residual: Residual connections.
        dropout: Probability.
        norm: Normalisation after the MLP of each layer, a name of :mod:`coset.graphs.norms`. With any but ``batch``
            there is none inside the MLP.
        granola: Options of :class:`coset.graphs.granola.GranolaNorm`, for ``norm="granola"``.
        draws: Passes with different noise that a prediction is the mean of, for ``norm="granola"``.
        level: ``graph`` or ``node``: one row of output a graph or a node.

    Shape:
        PyG batch -> ``[graphs, outputs]``, or ``[nodes, outputs]``.
    """

    def __init__(
        self,
        outputs: int = 1,
        node_features: list[int] | int | None = None,
        edge_features: list[int] | int | None = None,
        *,
        width: int = 96,
        layers: int = 6,
        readout: str = "sum",
        residual: bool = False,
        dropout: float = 0.0,
        norm: str = "batch",
        granola: dict[str, Any] | None = None,
        draws: int = 1,
        level: str = "graph",
    ):
        super().__init__()
        check_choice("level", level, ("graph", "node"))
        check_choice("readout", readout, ("sum", "mean"))
        self.encoder = node_encoder(node_features, width)
        self.edge_encoders = nn.ModuleList(
            FeatureEncoder(edge_features, width) for _ in range(layers) if edge_features is not None
        )
        self.eps = nn.Parameter(torch.zeros(layers))
        inner = nn.BatchNorm1d if norm == "batch" else nn.Identity
        self.mlps = nn.ModuleList(MLP(width, width, norm=inner) for _ in range(layers))
        edge_width = None if edge_features is None else width
        self.norms = nn.ModuleList(make_norm(norm, width, edge_width, **(granola or {})) for _ in range(layers))
        self.noisy, self.draws = norm == "granola", draws
        self.head = prediction_head(width, outputs)
        self.readout, self.residual, self.dropout, self.level = readout, residual, dropout, level

    def forward(self, data: Batch | Data) -> Float[Tensor, "rows outputs"]:
        if not self.noisy or self.training or self.draws == 1 or "noise" in data:
            return self._pass(data, data.noise if self.noisy and "noise" in data else None)
        generator = torch.Generator().manual_seed(0)
        return torch.stack([self._pass(data, self._noise(data, generator)) for _ in range(self.draws)]).mean(0)

    def with_noise(self, data: Batch | Data, seed: int = 0) -> Batch | Data:
        """A copy whose ``noise`` [nodes, layers * K] the forward pass uses: renumbering nodes then moves it along."""
        data = copy(data)
        if self.noisy:
            data.noise = self._noise(data, torch.Generator().manual_seed(seed))
        return data

    def _noise(self, data: Batch | Data, generator: torch.Generator) -> Tensor:
        columns = sum(part.noise_channels for part in self.modules() if isinstance(part, GranolaNorm))
        rows = int(node_counts(data).sum())
        return torch.randn(rows, columns, generator=generator).to(data.edge_index.device)

    def _pass(self, data: Batch | Data, noise: Tensor | None) -> Tensor:
        nodes = IndexSet(node_counts(data))
        relation = Relation(nodes, nodes, data.edge_index)
        x = encode_nodes(self.encoder, data, nodes.total)
        for layer, (mlp, norm) in enumerate(zip(self.mlps, self.norms)):
            edge = self.edge_encoders[layer](data.edge_attr) if self.edge_encoders else None
            gathered = propagate(x, relation, edge=edge, relu=edge is not None)
            out = mlp(gathered + (1 + self.eps[layer]) * x)
            here = None if noise is None else noise.chunk(len(self.norms), dim=1)[layer]
            out = F.relu(norm(out, relation, nodes.batch, edge_attr=edge, noise=here))
            out = F.dropout(out, self.dropout, self.training)
            x = out + x if self.residual else out
        if self.level == "node":
            return self.head(x)
        return self.head(pool_nodes(x, nodes, self.readout))

    def symmetry(self) -> tuple[Claim, ...]:
        return (renumbering_claim(self.level),)
