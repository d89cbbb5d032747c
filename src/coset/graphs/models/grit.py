r"""GRIT with eigenspace projections: a graph transformer whose attention reads, and updates, features of pairs.

Zhang, Zhao, Maron, ICML 2024, on the layers of Ma et al., "Graph Inductive Biases in Transformers without Message
Passing", ICML 2023. Group: S_n on the nodes; bases of eigenspaces act trivially.

    e(u, v)  = W [(D^-1 A)^0, ..., (D^-1 A)^(K-1)](u, v) + bond(u, v) + W' encoder(u, v)
    s(u, v)  = ReLU( ssqrt((k_u + q_v) * E_w e) + E_b e ),   ssqrt(x) = sign(x) sqrt(|x|)
    a(u, v)  = softmax over u of clamp(<s(u, v), a_head>, -5, 5)
    h_v      = sum_u a(u, v) (v_u + W_ev s(u, v));   h <- h * c_0 + log(1 + deg) h * c_1
    x <- BN(x + O_h h);   e <- BN(e + O_e s);   x <- BN(x + FFN(x))

Pairs are rows of a ragged product, so nothing is padded.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from coset.core.errors import check_choice
from coset.graphs.models.options import GRAPH_MODELS, Features, Level, SpectralModel
from coset.graphs.models.readouts import LEVELS, PairHead, encode_nodes, node_encoder, pool_nodes, renumbering_claim
from coset.graphs.models.spectral_encoders import ImplicitEncoder, ProductEncoder
from coset.graphs.models.spectral_filter import SpectralBatch, spectral_filter
from coset.graphs.transforms import EigenspaceBases
from coset.nn import FeatureEncoder
from coset.relations import broadcast, marginalise
from coset.symmetry import Claim, TrivialAction

CLAMP = 5.0
_SMALL = 1e-10  # below it the square root is flat: its slope at 0 is infinite


class PairBiasAttention(nn.Module):
    """GRIT's attention: logits and values from features of pairs, which it returns renewed.

    Args:
        width: Columns of nodes and pairs.
        heads: Number of heads; divides the width.
        dropout: Probability that an attention weight is dropped.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} must be a multiple of heads={heads}")
        self.heads, self.channels, self.dropout = heads, width // heads, dropout
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.value, self.pair = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width)
        self.logit = nn.Parameter(torch.empty(heads, self.channels))
        self.pair_value = nn.Parameter(torch.empty(heads, self.channels, self.channels))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)

    def forward(
        self, x: Float[Tensor, "nodes width"], e: Float[Tensor, "pairs width"], batch: SpectralBatch
    ) -> tuple[Float[Tensor, "nodes width"], Float[Tensor, "pairs width"]]:
        pairs = batch.pairs
        scale, shift = self.pair(e).chunk(2, dim=1)
        both = broadcast(self.key(x), pairs, along=1) + broadcast(self.query(x), pairs, along=0)
        s = F.relu(_signed_sqrt(both * scale) + shift)
        split = s.unflatten(1, (self.heads, self.channels))
        weight = torch.einsum("phc,hc->ph", split, self.logit).clamp(-CLAMP, CLAMP).exp()
        weight = weight / broadcast(marginalise(weight, pairs, along=0), pairs, along=0)
        weight = F.dropout(weight, self.dropout, self.training).unsqueeze(-1)
        values = broadcast(self.value(x), pairs, along=1).view(split.shape)
        carried = marginalise((weight * values).flatten(1), pairs, along=0)
        seen = marginalise((weight * split).flatten(1), pairs, along=0).view(-1, self.heads, self.channels)
        return carried + torch.einsum("nhc,hcd->nhd", seen, self.pair_value).flatten(1), s


class GRITLayer(nn.Module):
    """Attention, degree scaling and a feed-forward block.

    Args:
        width, heads: As for :class:`PairBiasAttention`.
        dropout: Probability for nodes and pairs.
        attention_dropout: Probability for attention weights.
        renews_pairs: Whether the pairs change too; needless in the last layer.
    """

    def __init__(
        self, width: int, heads: int, dropout: float = 0.0, attention_dropout: float = 0.0, renews_pairs: bool = True
    ):
        super().__init__()
        self.attention = PairBiasAttention(width, heads, attention_dropout)
        self.degree = nn.Parameter(torch.zeros(2, width))
        nn.init.xavier_normal_(self.degree)
        self.out = nn.Linear(width, width)
        self.norm, self.norm_after = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
        self.pair_out = nn.Linear(width, width) if renews_pairs else None
        self.pair_norm = nn.BatchNorm1d(width) if renews_pairs else None
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.dropout = dropout

    def forward(
        self, x: Tensor, e: Tensor, batch: SpectralBatch, log_degree: Float[Tensor, "nodes 1"]
    ) -> tuple[Float[Tensor, "nodes width"], Float[Tensor, "pairs width"]]:
        h, s = self.attention(x, e, batch)
        h = F.dropout(h, self.dropout, self.training)
        h = h * self.degree[0] + log_degree * h * self.degree[1]
        x = self.norm(x + self.out(h))
        if self.pair_out is not None and self.pair_norm is not None:
            e = self.pair_norm(e + self.pair_out(F.dropout(s, self.dropout, self.training)))
        return self.norm_after(x + self.feed_forward(x)), e


class GRIT(nn.Module):
    """Graph transformer with random-walk and spectral features of pairs.

    Args:
        outputs: Number of predicted values a graph (or a node, or a pair).
        node_features: Table sizes of categorical node features, number of real ones, or ``None`` for bare graphs.
        edge_features: The same for edges; ``None`` ignores them.
        width: Columns of nodes and pairs.
        layers: Number of layers.
        heads: Attention heads.
        walk_steps: Powers of D^-1 A that pairs carry, from 0 on; needs the eigenpairs of the normalised matrix.
        encoder: ``implicit`` (spectral filter), ``product`` (grouped, as published), or ``none``: GRIT itself.
        channels: Columns of the encoder.
        readout: ``sum`` or ``mean`` over the nodes.
        dropout: Probability that an entry is set to zero.
        attention_dropout: The same of attention weights.
        level: ``graph``, ``node``, ``edge`` or ``link``: one row of output a graph, a node, or a pair of
            ``edge_label_index``; of pairs the features e that the last layer reads are read, too.

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
        width: int = 64,
        layers: int = 4,
        heads: int = 8,
        walk_steps: int = 16,
        encoder: str = "implicit",
        channels: int = 64,
        readout: str = "sum",
        dropout: float = 0.0,
        attention_dropout: float = 0.2,
        level: str = "graph",
    ):
        super().__init__()
        check_choice("level", level, LEVELS)
        check_choice("encoder", encoder, ("implicit", "product", "none"))
        check_choice("readout", readout, ("sum", "mean"))
        if encoder == "none" and walk_steps == 0:
            raise ValueError("encoder=none with walk_steps=0 leaves nothing to tell pairs apart by")
        self.nodes = node_encoder(node_features, width)
        self.edges = None if edge_features is None else FeatureEncoder(edge_features, width)
        self.walk_steps, self.readout, self.level = walk_steps, readout, level
        self.own_walks = nn.Linear(walk_steps, width, bias=False) if walk_steps else None
        self.walks = nn.Linear(walk_steps, width, bias=False) if walk_steps else None
        kinds = {"implicit": ImplicitEncoder, "product": ProductEncoder}
        self.encoder = kinds[encoder](channels) if encoder in kinds else None
        self.spectral = nn.Linear(channels, width) if encoder in kinds else None
        self.layers = nn.ModuleList(
            GRITLayer(width, heads, dropout, attention_dropout, layer + 1 < layers) for layer in range(layers)
        )
        self.head: nn.Module
        if level in ("edge", "link"):
            self.head = PairHead(width, outputs, width, edge_features if level == "edge" else None)
        else:
            narrow = max(1, width // 2), max(1, width // 4)
            self.head = nn.Sequential(
                nn.Linear(width, narrow[0]), nn.ReLU(), nn.Linear(narrow[0], narrow[1]), nn.ReLU(),
                nn.Linear(narrow[1], outputs),
            )  # fmt: skip

    def structure(self, data: Batch | Data) -> SpectralBatch:
        """What the layers need to know of a batch (:mod:`coset.relations.structure`)."""
        return SpectralBatch.of(data, next(self.head.parameters()).dtype).settle()

    def forward(self, data: Batch | Data) -> Float[Tensor, "rows outputs"]:
        dtype = next(self.head.parameters()).dtype
        batch = SpectralBatch.of(data, dtype)
        target = data.edge_index[1]
        ones = torch.ones(len(target), dtype=dtype, device=target.device)
        degree = ones.new_zeros(batch.nodes.total).index_add(0, target, ones)
        x, e = self._encode(data, batch, degree)
        log_degree = degree.log1p().unsqueeze(1)
        for layer in self.layers:
            x, e = layer(x, e, batch, log_degree)
        if self.level in ("edge", "link"):
            u, v = data.edge_label_index
            return self.head(x, data, e[batch.pairs.rows(u, v)] + e[batch.pairs.rows(v, u)])
        return self.head(x if self.level == "node" else pool_nodes(x, batch.nodes, self.readout))

    def _encode(self, data: Batch | Data, batch: SpectralBatch, degree: Tensor) -> tuple[Tensor, Tensor]:
        x = encode_nodes(self.nodes, data, batch.nodes.total)
        e = x.new_zeros(batch.pairs.total, x.size(1))
        if self.encoder is not None and self.spectral is not None:
            e = self.spectral(self.encoder(batch))
        if self.walks is not None and self.own_walks is not None:
            walks = random_walk_features(batch, degree, self.walk_steps)
            every = torch.arange(batch.nodes.total, device=walks.device)
            x = x + self.own_walks(walks[batch.pairs.rows(every, every)])
            e = e + self.walks(walks)
        if self.edges is not None:
            source, target = data.edge_index
            e = e.index_add(0, batch.pairs.rows(source, target), self.edges(data.edge_attr).to(e.dtype))
        return x, e

    def symmetry(self) -> tuple[Claim, ...]:
        return (
            renumbering_claim(self.level),
            Claim(EigenspaceBases(), TrivialAction(), "the basis of an eigenspace changes no prediction"),
        )


def random_walk_features(
    batch: SpectralBatch, degree: Float[Tensor, " nodes"], steps: int
) -> Float[Tensor, "pairs steps"]:
    """(D^-1 A)^k(u, v) for k = 0 to steps - 1, from the eigenpairs of D^(-1/2) A D^(-1/2)."""
    values = batch.values.to(batch.vectors[0].dtype if batch.vectors else batch.values.dtype)
    powers = values.unsqueeze(1) ** torch.arange(steps, device=values.device)
    root = degree.clamp(min=1).sqrt().unsqueeze(1)
    ratio = broadcast(1 / root, batch.pairs, along=1) * broadcast(root, batch.pairs, along=0)
    return spectral_filter(powers, batch) * ratio


def _signed_sqrt(x: Tensor) -> Tensor:
    return x.sign() * x.abs().clamp(min=_SMALL).sqrt()


@GRAPH_MODELS.add
class GRITOptions(SpectralModel):
    """Options of :class:`GRIT`."""

    bound: ClassVar[str | None] = "EPWL-N"
    levels: ClassVar[tuple[Level, ...]] = ("graph", "node", "edge", "link")

    name: Literal["grit"] = "grit"
    width: int = Field(64, ge=1, description="columns of nodes and pairs")
    layers: int = Field(4, ge=1, le=64)
    residual: Literal[True] = Field(True, description="this model has no other form")
    heads: int = Field(8, ge=1)
    walk_steps: int = Field(16, ge=0, description="powers of the random walk that pairs carry")
    encoder: Literal["implicit", "product", "none"] = Field("implicit", description="of eigenspaces; none: plain GRIT")
    channels: int = Field(64, ge=1, description="columns of the encoder")
    readout: Literal["sum", "mean"] = "sum"
    attention_dropout: float = Field(0.2, ge=0, lt=1)

    def build(
        self, outputs: int, node_features: Features, edge_features: Features, level: Level = "graph"
    ) -> nn.Module:
        if self.walk_steps and self.matrix != "normalized":
            raise ValueError(f"matrix={self.matrix}: random walks need normalized; or set walk_steps=0")
        arguments = self._arguments()
        del arguments["residual"]
        return GRIT(outputs, node_features, edge_features, level=level, **arguments)
