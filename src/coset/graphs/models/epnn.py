r"""EPNN: message passing between all pairs of nodes, told apart by everything the spectrum says about a pair.

Zhang, Zhao, Maron, "On the Expressive Power of Spectral Invariant Graph Neural Networks", ICML 2024; Gai, Du, Zhang,
Maron, Wang, "Homomorphism Expressivity of Spectral Invariant Graph Neural Networks", ICLR 2025, Appendix D. Group: S_n
on the nodes, and O(m) on the basis of every m-dimensional eigenspace of the matrix, which leaves everything as it is.

    E(u, v) = sum_lambda phi(lambda) P_lambda(u, v)          phi: R -> R^d learnt, one a layer
    f(u)    = sum over all nodes v of ReLU( h(v) + E(u, v) [+ bond(u, v) if u ~ v] )
    h'      = ReLU( BN( MLP( (1 + eps) h + f ) ) )

It separates graphs exactly as the colour refinement EPWL does (:mod:`coset.graphs.wl`), if wide and deep enough: more
than message passing with shortest-path or resistance distances, less than subgraph networks with a single marked node.
The transformer of the paper, with the same pair features, is :class:`coset.graphs.models.grit.GRIT`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from coset.core.errors import check_choice
from coset.graphs.models.options import GRAPH_MODELS, Features, Level, SpectralModel
from coset.graphs.models.readouts import LEVELS, encode_nodes, head_of, node_encoder, pool_nodes, renumbering_claim
from coset.graphs.models.spectral_encoders import SpectralFunctions
from coset.graphs.models.spectral_filter import SpectralBatch, filtered_messages, filtered_pairs
from coset.graphs.transforms import EigenspaceBases
from coset.nn import MLP, FeatureEncoder, norm_relu_linear
from coset.nn.norms import known_row_norm, row_norm
from coset.symmetry import Claim, TrivialAction


class EPNNLayer(nn.Module):
    """h' = ReLU(BN(MLP((1 + eps) h + f))), f as above.

    Args:
        width: Columns in and out.
        edge_features: Table sizes, number of real columns, or ``None``.
        norm: In both MLPs and after: a name of :func:`coset.nn.norms.row_norm`, or whether batch normalisation.
        residual: Add h.
        dropout: Probability.
    """

    def __init__(
        self,
        width: int,
        edge_features: list[int] | int | None = None,
        *,
        norm: bool | str = True,
        residual: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        kind = row_norm(_norm_name(norm))
        self.phi = SpectralFunctions(width, norm=kind)
        self.edge = None if edge_features is None else FeatureEncoder(edge_features, width)
        self.eps = nn.Parameter(torch.zeros(1))
        self.mlp = MLP(width, width, norm=kind)
        self.norm = kind(width)
        self.residual, self.dropout = residual, dropout

    def forward(
        self, h: Float[Tensor, "nodes width"], batch: SpectralBatch, edge_attr: Tensor | None = None
    ) -> Float[Tensor, "nodes width"]:
        edge = None if self.edge is None else self.edge(edge_attr)
        gathered = filtered_messages(h, self.phi(batch.values), batch, edge)
        out = F.relu(self.norm(self.mlp((1 + self.eps) * h + gathered)))
        out = F.dropout(out, self.dropout, self.training)
        return out + h if self.residual else out


class EPNN(nn.Module):
    """Eigenspace projection network in its message-passing form.

    Args:
        outputs: Number of predicted values a graph (or a node).
        node_features: Table sizes of categorical node features, number of real ones, or ``None`` for bare graphs.
        edge_features: The same for edges; ``None`` ignores them.
        width: Columns of the node features.
        layers: Number of layers.
        readout: ``mean`` (as published) or ``sum`` over the nodes.
        norm: Whether batch normalisation, or the name of another; the published counting experiments go without.
        residual: Residual connections.
        dropout: Probability.
        level: ``graph``, ``node``, ``edge`` or ``link``: one row of output a graph, a node, or a pair of
            ``edge_label_index``; of pairs E(u, v) of one more filter is read, too.

    Shape:
        PyG batch with ``eigenvalues`` and ``pair_eigenvectors`` (:class:`coset.graphs.transforms.Eigenspaces`)
        -> ``[rows, outputs]``.
    """

    def __init__(
        self,
        outputs: int = 1,
        node_features: list[int] | int | None = None,
        edge_features: list[int] | int | None = None,
        *,
        width: int = 96,
        layers: int = 6,
        readout: str = "mean",
        norm: bool | str = True,
        residual: bool = False,
        dropout: float = 0.0,
        level: str = "graph",
    ):
        super().__init__()
        check_choice("readout", readout, ("sum", "mean"))
        check_choice("level", level, LEVELS)
        self.encoder = node_encoder(node_features, width)
        self.edges = edge_features is not None
        self.layers = nn.ModuleList(
            EPNNLayer(width, edge_features, norm=norm, residual=residual, dropout=dropout) for _ in range(layers)
        )
        self.out = nn.Linear(width, width)
        self.out_norm = row_norm(_norm_name(norm))(width)
        self.mix = nn.Linear(width, width)
        of_pairs = level in ("edge", "link")
        self.head = head_of(level, width, outputs, edge_features, pair_width=width)
        self.pair_filter = SpectralFunctions(width, norm=row_norm(_norm_name(norm))) if of_pairs else None
        self.readout, self.level = readout, level

    def structure(self, data: Batch | Data) -> SpectralBatch:
        """What the layers need to know of a batch (:mod:`coset.relations.structure`)."""
        return SpectralBatch.of(data, self.mix.weight.dtype).settle()

    def node_features(self, data: Batch | Data) -> Float[Tensor, "nodes width"]:
        """Features of the nodes after the last layer."""
        return self._nodes(data, SpectralBatch.of(data, self.mix.weight.dtype))

    def forward(self, data: Batch | Data) -> Float[Tensor, "rows outputs"]:
        batch = SpectralBatch.of(data, self.mix.weight.dtype)
        h = self._nodes(data, batch)
        if self.pair_filter is not None:
            return self.head(h, data, filtered_pairs(self.pair_filter(batch.values), batch, data.edge_label_index))
        return self.head(h if self.level == "node" else pool_nodes(h, batch.nodes, self.readout))

    def _nodes(self, data: Batch | Data, batch: SpectralBatch) -> Tensor:
        h = encode_nodes(self.encoder, data, batch.nodes.total)
        if self.edges and "edge_attr" not in data:
            raise ValueError("this model was made with edge features, but the data has no edge_attr")
        for layer in self.layers:
            h = layer(h, batch, data.edge_attr if self.edges else None)
        return norm_relu_linear(self.out(h), self.out_norm, self.mix)

    def symmetry(self) -> tuple[Claim, ...]:
        bases = Claim(EigenspaceBases(), TrivialAction(), "the basis of an eigenspace changes no prediction")
        return renumbering_claim(self.level), bases


def _norm_name(norm: bool | str) -> str:
    return norm if isinstance(norm, str) else "batch" if norm else "identity"


@GRAPH_MODELS.add
class EPNNOptions(SpectralModel):
    """Options of :class:`EPNN`."""

    bound: ClassVar[str | None] = "EPWL-N"
    levels: ClassVar[tuple[Level, ...]] = ("graph", "node", "edge", "link")

    name: Literal["epnn"] = "epnn"
    readout: Literal["sum", "mean"] = "mean"
    norm: bool | Annotated[str, AfterValidator(known_row_norm)] = Field(
        True, description="batch normalisation, or the name of another that reads rows alone"
    )

    def build(
        self, outputs: int, node_features: Features, edge_features: Features, level: Level = "graph"
    ) -> nn.Module:
        return EPNN(outputs, node_features, edge_features, level=level, **self._arguments())
