r"""Subgraphormer, GNN-SSWL+ and their ancestors: message passing and attention on the product of a graph with itself.

Bar-Shalom, Bevilacqua, Maron, "Subgraphormer: Unifying Subgraph GNNs and Graph Transformers via Graph Products",
ICML 2024; Zhang, Feng, Du, He, Wang, "A Complete Expressiveness Hierarchy for Subgraph GNNs via Subgraph
Weisfeiler-Lehman Tests", ICML 2023. Group: S_n permutes the nodes, and so both indices of X(s, v) at once.

One layer gathers along some of these relations, each with its own weights, and combines what they bring:

==========  =======================================  ====================================================
name        (s, v) receives from                     as an operator on pairs
==========  =======================================  ====================================================
``uL``      (s, v') with v' ~ v                      I (x) A: inside the copy rooted at s ("internal")
``vL``      (s', v) with s' ~ s                      A (x) I: across copies of neighbouring roots ("external")
``vv``      (v, v)                                   what v looks like where it is the root ("point")
``uG``      all (s, v')                              sum over the copy
``vG``      all (s', v)                              sum over the copies
==========  =======================================  ====================================================

Subgraphormer, with h a third of the width (rounded to the heads) and P(s, v) = psi((1 + eps) X(s, v) + X(v, v)):

    X' = ReLU(BN(rho([Attention_uL(X) | Attention_vL(X) | P])))

GNN-SSWL+, with one MLP a relation g:

    X' = ReLU(BN(sum_g MLP_g((1 + eps_g) X + Agg_g(X)))),   Agg_uL, Agg_vL = sum of ReLU(x_j + e_ij)

Its ancestors are the same with fewer relations: ``uL`` DS-GNN, ``uL, vv`` PSWL, ``uL, vG`` DSS-GNN, ``uL, vL`` SSWL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from coset.core.errors import check_choice
from coset.graphs.models import readouts
from coset.graphs.models.options import GRAPH_MODELS, Features, Level, PairModel, Variant
from coset.graphs.models.pair_layers import PairAttention, PairSumBlock, SubgraphAttentionBlock
from coset.graphs.models.product import PairEncoder, PairGraph
from coset.graphs.models.readouts import head_of, renumbering_claim
from coset.nn import MLP, norm_of_repeated
from coset.relations import marginalise, pool
from coset.relations.operators import arithmetic
from coset.relations.structure import settle
from coset.relations.verbs import Score
from coset.symmetry import Claim, NodePermutation, PairRowPermutation

LEVELS = (*readouts.LEVELS, "pair")


class _PairModel(nn.Module):
    """What Subgraphormer and GNN-SSWL+ share: encode pairs, run the layers, pool, predict.

    Attributes:
        stored: What rows of pairs are kept as in training; ``None`` for the precision of the weights.
    """

    encoder: PairEncoder
    layers: nn.ModuleList
    head: nn.Module
    level: str
    stored: torch.dtype | None = None

    def store_in_bfloat16(self) -> None:
        """Keep rows of pairs in bfloat16 while training on a CPU: activations, their gradients, products of matrices.

        Weights, statistics of norms, softmax and sums stay float32, and so does all of evaluation.

        Raises:
            ValueError: A layer has no operation on rows that are stored so.
        """
        for layer in self.layers:
            if not layer.takes_bfloat16:
                raise ValueError("its layers have no operation on rows of pairs in bfloat16")
        self.stored = torch.bfloat16

    def structure(self, data: Batch | Data) -> PairGraph:
        """What the layers need to know of a batch (:mod:`coset.relations.structure`)."""
        return settle(self, PairGraph.from_batch(data))

    def pair_features(self, data: Batch | Data) -> tuple[Float[Tensor, "pairs width"], PairGraph]:
        """X(s, v) after the last layer, and the pairs it lives on."""
        graph = PairGraph.of(data)
        x = self.encoder(data, graph, self.stored if self.training else None)
        for layer in self.layers:
            x = layer(x, graph)
        return x.to(arithmetic(x.dtype)), graph

    def node_features(self, data: Batch | Data) -> Float[Tensor, "nodes width"]:
        """The mean of X(s, v) over the roots s: one row a node."""
        return self._of_nodes(*self.pair_features(data))

    def _of_nodes(self, x: Tensor, graph: PairGraph) -> Tensor:
        return marginalise(x, graph.pairs, along=0) / graph.roots.sizes[graph.nodes.batch].unsqueeze(1)

    def _of_edges(self, data: Batch | Data) -> Float[Tensor, "rows outputs"]:
        """Predictions for the pairs of ``edge_label_index``, from both nodes and X(u, v) + X(v, u)."""
        x, graph = self.pair_features(data)
        u, v = data.edge_label_index
        return self.head(self._of_nodes(x, graph), data, x[graph.pairs.rows(u, v)] + x[graph.pairs.rows(v, u)])

    def symmetry(self) -> tuple[Claim, ...]:
        if self.level != "pair":
            return (renumbering_claim(self.level),)
        return (Claim(NodePermutation(), PairRowPermutation(), "renumbering the nodes renumbers rows on both axes"),)

    def _readout(self, x: Tensor, graph: PairGraph, how: str) -> Tensor:
        """Mean over roots of the sum (or mean) over nodes; under sampling the mean is over the roots that were kept."""
        roots = graph.roots.sizes.clamp(min=1).unsqueeze(1)
        pooled = pool(x, graph.pairs) / roots
        return pooled if how == "sum" else pooled / graph.nodes.sizes.clamp(min=1).unsqueeze(1)


class Subgraphormer(_PairModel):
    """Attention on the product of a graph with itself (Bar-Shalom, Bevilacqua, Maron 2024).

    Args:
        outputs: Number of predicted values a graph (or a node).
        node_features: Table sizes of categorical node features, number of real ones, or ``None``.
        edge_features: The same for edges; ``None`` ignores them.
        width: Columns of X(s, v).
        layers: Number of layers.
        heads: Attention heads.
        attention: ``gat``, ``gatv2`` or ``transformer``.
        relations: Relations to gather along (module docstring).
        positional_encoding: Number of product eigenvectors appended to the input (0 for none).
        scale_encoding: Product eigenvectors at the scale of the marks (:class:`PairEncoder`).
        flip_signs: Signs of eigenvectors drawn anew in training.
        max_distance: Largest distance of the marking.
        marking: ``distance``, ``root`` or ``none``.
        readout: ``sum`` or ``mean`` over the nodes; always the mean over roots.
        linear: Single linear maps psi and rho.
        residual: Residual connections.
        dropout: Probability.
        level: ``graph``, ``node``, ``edge``, ``link`` or ``pair``: one row of output a graph, a node, a pair of
            ``edge_label_index`` (the same in both orders), or every pair (root, node).

    Shape:
        PyG batch with the attributes of :class:`PairGraph` and :class:`PairEncoder` -> ``[graphs, outputs]``.
    """

    def __init__(
        self,
        outputs: int = 1,
        node_features: list[int] | int | None = None,
        edge_features: list[int] | int | None = None,
        *,
        width: int = 96,
        layers: int = 6,
        heads: int = 4,
        attention: Score = "gat",
        relations: Sequence[str] = ("uL", "vL", "vv"),
        positional_encoding: int = 0,
        scale_encoding: bool = False,
        flip_signs: bool = False,
        max_distance: int = 5,
        marking: str = "distance",
        readout: str = "sum",
        linear: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
        level: str = "graph",
    ):
        super().__init__()
        check_choice("readout", readout, ("sum", "mean"))
        check_choice("level", level, LEVELS)
        self.encoder = PairEncoder(
            node_features, width, max_distance=max_distance, positional_encoding=positional_encoding, marking=marking,
            scale_encoding=scale_encoding, flip_signs=flip_signs,
        )  # fmt: skip
        block = (width, relations, heads, attention, edge_features, linear, residual, dropout)
        self.layers = nn.ModuleList(SubgraphAttentionBlock(*block) for _ in range(layers))
        self.head = head_of(level, width, outputs, edge_features, pair_width=width)
        self.readout, self.level = readout, level

    @torch.no_grad()
    def attention(self, data: Data) -> dict[str, Float[Tensor, "layers others edges"]]:
        """Where every pair of one graph looks: softmax weights averaged over heads, self-loops after the edges.

        ``internal[l, s, e]`` with e = (v', v) is how much (s, v) looks at (s, v') in layer l, ``external[l, v, e]``
        with e = (s', s) how much (s, v) looks at (s', v). A relation that the model lacks is left out. Call it in
        evaluation mode.
        """
        graph = PairGraph.from_batch(data)
        x = self.encoder(data, graph)
        found: dict[str, list[Tensor]] = {"internal": [], "external": []}
        for layer in self.layers:
            assert isinstance(layer, SubgraphAttentionBlock)
            for name, kind in (("uL", "internal"), ("vL", "external")):
                if name in layer.gather:
                    gather = layer.gather[name]
                    assert isinstance(gather, PairAttention)
                    found[kind].append(gather.weights(x, graph))
            x = layer(x, graph)
        return {kind: torch.stack(weights) for kind, weights in found.items() if weights}

    def forward(self, data: Batch | Data) -> Float[Tensor, "rows outputs"]:
        if self.level == "node":
            return self.head(self.node_features(data))
        if self.level in ("edge", "link"):
            return self._of_edges(data)
        x, graph = self.pair_features(data)
        return self.head(x if self.level == "pair" else self._readout(x, graph, self.readout))


class GNNSSWLPlus(_PairModel):
    """GNN-SSWL+ and its ancestors: sums instead of attention (Zhang et al. 2023).

    After the last layer every copy is summed over its nodes and passed through one more block,
    ReLU(BN(MLP((1 + eps) sum_w X(s, w)))), and the mean over pairs is predicted from.

    Arguments are those of :class:`Subgraphormer`, but for attention; there are no product eigenvectors by default.
    """

    def __init__(
        self,
        outputs: int = 1,
        node_features: list[int] | int | None = None,
        edge_features: list[int] | int | None = None,
        *,
        width: int = 96,
        layers: int = 6,
        relations: Sequence[str] = ("uL", "vL", "vv"),
        positional_encoding: int = 0,
        scale_encoding: bool = False,
        flip_signs: bool = False,
        max_distance: int = 5,
        marking: str = "distance",
        residual: bool = False,
        dropout: float = 0.0,
        level: str = "graph",
    ):
        super().__init__()
        check_choice("level", level, LEVELS)
        self.encoder = PairEncoder(
            node_features,
            width,
            max_distance=max_distance,
            positional_encoding=positional_encoding,
            marking=marking,
            scale_encoding=scale_encoding,
            flip_signs=flip_signs,
            unreachable=False,
        )
        self.layers = nn.ModuleList(
            PairSumBlock(width, relations, edge_features, residual, dropout) for _ in range(layers)
        )
        self.eps = nn.Parameter(torch.zeros(1))
        self.copy_mlp = MLP(width, width)
        self.copy_norm = nn.BatchNorm1d(width)
        self.head = head_of(level, width, outputs, edge_features, pair_width=width)
        self.level = level

    def forward(self, data: Batch | Data) -> Float[Tensor, "rows outputs"]:
        if self.level == "node":
            return self.head(self.node_features(data))
        if self.level in ("edge", "link"):
            return self._of_edges(data)
        x, graph = self.pair_features(data)
        if self.level == "pair":
            return self.head(x)
        copies = (1 + self.eps) * marginalise(x, graph.pairs, along=1)
        times = graph.nodes.sizes[graph.roots.batch]  # the published form has this row for every node of the copy
        inner = self.copy_mlp.norm
        assert isinstance(inner, nn.BatchNorm1d)
        hidden = F.relu(norm_of_repeated(inner, self.copy_mlp.first(copies), times, graph.pairs.total))
        rows = F.relu(norm_of_repeated(self.copy_norm, self.copy_mlp.second(hidden), times, graph.pairs.total))
        return self.head(pool(rows, graph.roots, "mean"))


@GRAPH_MODELS.add
class SubgraphormerOptions(PairModel):
    """Options of :class:`Subgraphormer`."""

    bound: ClassVar[str | None] = "uL,vL,vv"
    levels: ClassVar[tuple[Level, ...]] = ("graph", "node", "edge", "link")
    variants: ClassVar[dict[str, Variant]] = {"unmarked": Variant({"marking": "none"}, "unmarked uL,vL,vv")}

    name: Literal["subgraphormer"] = "subgraphormer"
    heads: int = Field(4, ge=1)
    attention: Literal["gat", "gatv2", "transformer"] = "gat"
    readout: Literal["sum", "mean"] = "sum"
    linear: bool = Field(False, description="single linear maps instead of two-layer perceptrons")

    def build(
        self, outputs: int, node_features: Features, edge_features: Features, level: Level = "graph"
    ) -> nn.Module:
        return Subgraphormer(outputs, node_features, edge_features, level=level, **self._arguments())


@GRAPH_MODELS.add
class GNNSSWLPlusOptions(PairModel):
    """Options of :class:`GNNSSWLPlus`."""

    bound: ClassVar[str | None] = "uL,vL,vv"
    levels: ClassVar[tuple[Level, ...]] = ("graph", "node", "edge", "link")
    label: ClassVar[str] = "gnn-sswl+"
    variants: ClassVar[dict[str, Variant]] = {
        "uL": Variant({"relations": ["uL"]}, "uL"),
        "uL+vv": Variant({"relations": ["uL", "vv"]}, "uL,vv"),
        "uL+vG": Variant({"relations": ["uL", "vG"]}, "uL,vG"),
        "uL+vL": Variant({"relations": ["uL", "vL"]}, "uL,vL"),
    }

    name: Literal["gnn-sswl-plus"] = "gnn-sswl-plus"

    def build(
        self, outputs: int, node_features: Features, edge_features: Features, level: Level = "graph"
    ) -> nn.Module:
        return GNNSSWLPlus(outputs, node_features, edge_features, level=level, **self._arguments())
