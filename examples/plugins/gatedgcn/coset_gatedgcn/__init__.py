"""GatedGCN (Bresson, Laurent 2017, arXiv 1711.07553), as a model that Coset's recipes can name."""

from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch
from torch_geometric.nn import ResGatedGraphConv

from coset.graphs.models.options import GRAPH_MODELS, Features, GraphModel
from coset.graphs.models.readouts import encode_nodes, node_encoder, pool_nodes, prediction_head, renumbering_claim
from coset.relations import IndexSet
from coset.symmetry import Claim


class GatedGCN(nn.Module):
    """h_v <- relu(A h_v + sum over u of sigmoid(B h_v + C h_u) * D h_u); a sum over the nodes, and a head."""

    def __init__(self, outputs: int, node_features: Features, width: int, layers: int):
        super().__init__()
        self.encoder = node_encoder(node_features, width)
        self.layers = nn.ModuleList(ResGatedGraphConv(width, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))
        self.head = prediction_head(width, outputs)

    def forward(self, data: Batch) -> Tensor:
        nodes = IndexSet.from_batch(data.batch, data.num_graphs)
        x = encode_nodes(self.encoder, data, nodes.total)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + F.relu(norm(layer(x, data.edge_index)))
        return self.head(pool_nodes(x, nodes, "sum"))

    def symmetry(self) -> tuple[Claim, ...]:
        return (renumbering_claim("graph"),)


@GRAPH_MODELS.add
class GatedGCNOptions(GraphModel):
    """Options of :class:`GatedGCN`."""

    bound: ClassVar[str | None] = "1-WL"

    name: Literal["gatedgcn"] = "gatedgcn"
    width: int = 32
    layers: int = 3

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        return GatedGCN(outputs, node_features, self.width, self.layers)
