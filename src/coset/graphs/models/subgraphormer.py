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
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from coset.core.errors import check_choice
from coset.graphs.models import attention_block, readouts, sum_block
from coset.graphs.models.bags import BagGraph
from coset.graphs.models.options import GRAPH_MODELS, Features, Level, PairModel, Variant
from coset.graphs.models.product import PairEncoder, PairGraph
from coset.graphs.models.readouts import head_of, renumbering_claim
from coset.nn import MLP, FeatureEncoder, norm_of_repeated, norm_relu_linear
from coset.relations import Relation, attend, broadcast, marginalise, pool, propagate, reference
from coset.relations.verbs import Score
from coset.symmetry import Claim, NodePermutation, PairRowPermutation

RELATIONS = ("uL", "vL", "vv", "uG", "vG")
LEVELS = (*readouts.LEVELS, "pair")
AXIS = {"uL": 1, "vL": 0, "uG": 1, "vG": 0}

Pairs = PairGraph | BagGraph
"""What a layer that gathers along one axis runs on."""


def _check_relation(relation: str) -> None:
    if relation not in RELATIONS:
        raise ValueError(f"relation {relation!r} is unknown: choose from {', '.join(RELATIONS)}")


class PairAttention(nn.Module):
    """Softmax attention along the edges of one axis: ``uL`` or ``vL``.

    ``gat`` and ``gatv2`` let every pair also look at itself, with the mean of its incoming edge features on that
    loop; bond features move the logits only. ``transformer`` has no loop, a linear root term, and edge features in
    keys and values.

    Args:
        width: Columns in.
        outputs: Columns out, all heads together.
        heads: Number of heads.
        axis: 1 for ``uL``, 0 for ``vL``.
        score: Kind of attention.
        edge_features: As for :class:`coset.nn.FeatureEncoder`; ``None`` ignores edge features.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        heads: int,
        axis: int,
        score: Score = "gat",
        edge_features: Sequence[int] | int | None = None,
    ):
        super().__init__()
        check_choice("attention", score, ("gat", "gatv2", "transformer"))
        self.heads, self.axis, self.score = heads, axis, score
        self.value = nn.Linear(width, outputs, bias=score != "gat")
        others: dict[str, tuple[str, ...]] = {"gat": (), "gatv2": ("target",), "transformer": ("key", "query", "root")}
        self.maps = nn.ModuleDict({name: nn.Linear(width, outputs) for name in others[score]})
        sides: dict[str, tuple[str, ...]] = {"gat": ("source", "target"), "gatv2": ("both",), "transformer": ()}
        if score == "gat" and edge_features is not None:
            sides["gat"] += ("edge",)
        channels = outputs // heads
        self.vectors = nn.ParameterDict({name: nn.Parameter(torch.empty(heads, channels)) for name in sides[score]})
        self.bias = None if score == "transformer" else nn.Parameter(torch.zeros(outputs))
        self.edge_encoder = None if edge_features is None else FeatureEncoder(edge_features, width)
        self.edge = None if edge_features is None else nn.Linear(width, outputs, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot weights and zero biases."""
        for name, parameter in self.named_parameters():
            if name.startswith("edge_encoder"):
                continue
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def _logit_weight(self, weight: Tensor, att: Tensor) -> Tensor:
        """att_h . (W x)_h as a linear map of x: [heads, inputs]."""
        return torch.einsum("hc,hci->hi", att, weight.view(self.heads, -1, weight.size(1)))

    def _edge_terms(self, graph: Pairs, loops: bool) -> Tensor | None:
        """What each edge of the base graph adds to logits (or keys and values), the loops' after them."""
        if self.edge_encoder is None:
            return None
        if graph.edge_features is None:
            raise ValueError("this model was made with edge features, but the data has no edge_attr")
        encoded = self.edge_encoder(graph.edge_features)
        encoded = encoded.relu() if self.edge_encoder.categorical else encoded
        assert self.edge is not None
        if self.score == "gat":
            term = F.linear(encoded, self._logit_weight(self.edge.weight, self.vectors["edge"]))
        else:
            term = self.edge(encoded)
        if self.axis == 0 and graph.external_edges is not None:
            term = term[graph.external_edges]
        relation = graph.internal if self.axis else graph.external
        return relation.loop_means(term) if loops else term

    def _terms(self, x: Tensor, graph: Pairs) -> tuple[Tensor, Tensor, Tensor, Relation, Tensor | None]:
        """Values, source and target terms of the logits, and the relation with its edge terms."""
        relation = graph.internal if self.axis else graph.external
        if self.score == "transformer":
            edge = self._edge_terms(graph, loops=False)
            return self.value(x), self.maps["key"](x), self.maps["query"](x), relation, edge
        edge = self._edge_terms(graph, loops=True)
        if self.score == "gatv2":
            value = self.value(x)
            return value, value, self.maps["target"](x), relation.with_self_loops, edge
        logits = [self._logit_weight(self.value.weight, self.vectors[side]) for side in ("source", "target")]
        projected = F.linear(x, torch.cat([self.value.weight, *logits]))
        value, source, target = projected.split([self.value.out_features, self.heads, self.heads], dim=1)
        return value, source, target, relation.with_self_loops, edge

    @property
    def _vector(self) -> Tensor | None:
        return self.vectors["both"] if self.score == "gatv2" else None

    def forward(self, x: Float[Tensor, "pairs width"], graph: Pairs) -> Float[Tensor, "pairs outputs"]:
        value, source, target, relation, edge = self._terms(x, graph)
        out = attend(
            value, source, target, relation, heads=self.heads, score=self.score, edge=edge, vector=self._vector,
            product=graph.pairs, along=self.axis,
        )  # fmt: skip
        return out + (self.maps["root"](x) if self.bias is None else self.bias)

    def weights(self, x: Float[Tensor, "pairs width"], graph: Pairs) -> Float[Tensor, "others edges"]:
        """Softmax weights, averaged over heads: row s (for ``uL``) or v (``vL``), a column an edge, loops last.

        Memory is that of the product's edges: meant for looking at a few graphs.
        """
        _, source, target, relation, edge = self._terms(x, graph)
        edges = relation.expand(graph.pairs, self.axis)
        weight = reference.attention_weights(
            source, target, edges, graph.pairs.total, self.heads, self.score, edge, self._vector, 0.2
        ).mean(1)
        other = graph.pairs.coordinates[1 - self.axis][edges[1]]
        table = weight.new_zeros(graph.pairs.axis(1 - self.axis).total, relation.edges)
        return table.index_put((other, edges[2]), weight)


class PairSum(nn.Module):
    """MLP((1 + eps) X + sum over neighbours along one axis of ReLU(x_j + e_ij)): ``uL`` or ``vL``, as in GINE."""

    def __init__(self, width: int, axis: int, edge_features: Sequence[int] | int | None = None):
        super().__init__()
        self.axis = axis
        self.eps = nn.Parameter(torch.zeros(1))
        self.edge_encoder = None if edge_features is None else FeatureEncoder(edge_features, width)
        self.mlp = MLP(width, width)

    def _edge_terms(self, graph: Pairs) -> Tensor | None:
        if self.edge_encoder is None:
            return None
        if graph.edge_features is None:
            raise ValueError("this model was made with edge features, but the data has no edge_attr")
        edge = self.encode_edges(graph.edge_features)
        return edge[graph.external_edges] if self.axis == 0 and graph.external_edges is not None else edge

    def encode_edges(self, features: Num[Tensor, "edges k"]) -> Float[Tensor, "edges width"]:
        """e_ij of the edges of the graph."""
        assert self.edge_encoder is not None
        return self.edge_encoder(features)

    def _relation(self, graph: Pairs) -> Relation:
        return graph.internal if self.axis else graph.external

    def branch(self, x: Tensor, graph: Pairs) -> sum_block.Sums:
        tensors = (1 + self.eps, self._edge_terms(graph), self.mlp.first.weight)
        return sum_block.Sums(self.mlp, self._relation(graph), graph.pairs, self.axis, tensors)

    def forward(self, x: Float[Tensor, "pairs width"], graph: Pairs) -> Float[Tensor, "pairs width"]:
        edge = self._edge_terms(graph)
        gathered = propagate(x, self._relation(graph), product=graph.pairs, along=self.axis, edge=edge, relu=True)
        return self.mlp(torch.addcmul(gathered, x, 1 + self.eps))


class PairTerm(nn.Module):
    """psi((1 + eps) X(s, v) + t) with t = X(v, v) for ``vv``, the sum over the copy for ``uG``, over copies for ``vG``.

    The first linear map of psi acts on the few rows of t before they are repeated.

    Args:
        relation: ``vv``, ``uG`` or ``vG``.
        width: Columns in.
        outputs: Columns out.
        linear: psi is one linear map instead of Linear - BN - ReLU - Linear.
    """

    def __init__(self, relation: str, width: int, outputs: int, linear: bool = False):
        super().__init__()
        self.relation = relation
        self.eps = nn.Parameter(torch.zeros(1))
        self.linear = nn.Linear(width, outputs) if linear else None
        self.mlp = None if linear else MLP(width, outputs)

    def _first(self, x: Tensor, graph: PairGraph, first: nn.Linear) -> Tensor:
        if self.relation == "vv":
            term, along = graph.at_own_root(x), 0
        else:
            along = AXIS[self.relation]
            term = marginalise(x, graph.pairs, along=along)
        repeated = broadcast(first(term), graph.pairs, along=along)
        return torch.addmm(repeated, x, ((1 + self.eps) * first.weight).t())

    def branch(self, x: Tensor, graph: PairGraph) -> sum_block.OwnRoot | None:
        if self.relation != "vv" or self.mlp is None:
            return None
        weight = self.mlp.first.weight
        return sum_block.OwnRoot(self.mlp, graph, ((1 + self.eps) * weight, weight))

    def forward(self, x: Float[Tensor, "pairs width"], graph: PairGraph) -> Float[Tensor, "pairs outputs"]:
        if self.linear is not None:
            return self._first(x, graph, self.linear)
        assert self.mlp is not None
        return norm_relu_linear(self._first(x, graph, self.mlp.first), self.mlp.norm, self.mlp.second)


class SubgraphAttentionBlock(nn.Module):
    """One layer of Subgraphormer: ReLU(BN(rho([Attention_uL | Attention_vL | point]))), then dropout and a residual.

    Args:
        width: Columns in and out.
        relations: Which relations to gather along; each gets a third of the width (whatever their number).
        heads: Attention heads; each relation's share is rounded down to a multiple of it.
        attention: ``gat``, ``gatv2`` or ``transformer``.
        edge_features: As for :class:`coset.nn.FeatureEncoder`.
        linear: psi and rho are single linear maps.
        residual: Add the input after the dropout.
        dropout: Probability.
    """

    def __init__(
        self,
        width: int,
        relations: Sequence[str] = ("uL", "vL", "vv"),
        heads: int = 4,
        attention: Score = "gat",
        edge_features: Sequence[int] | int | None = None,
        linear: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        share = width // 3 // heads * heads
        if share < heads:
            raise ValueError(f"width={width} gives each relation {width // 3} columns, fewer than {heads} heads")
        self.gather = nn.ModuleDict()
        for relation in relations:
            _check_relation(relation)
            if relation in ("uL", "vL"):
                self.gather[relation] = PairAttention(width, share, heads, AXIS[relation], attention, edge_features)
            else:
                self.gather[relation] = PairTerm(relation, width, share, linear)
        joined = share * len(relations)
        self.linear = nn.Linear(joined, width) if linear else None
        self.mlp = None if linear else MLP(joined, width)
        self.norm = nn.BatchNorm1d(width)
        self.residual, self.dropout = residual, dropout

    def forward(self, x: Float[Tensor, "pairs width"], graph: PairGraph) -> Float[Tensor, "pairs width"]:
        if attention_block.applies(self, x):
            out = attention_block.attention_block(self, x, graph)
        else:
            joined = torch.cat([module(x, graph) for module in self.gather.values()], dim=1)
            combine = self.linear if self.linear is not None else self.mlp
            assert combine is not None
            out = F.relu(self.norm(combine(joined)), inplace=True)
        if self.dropout:
            out = F.dropout(out, self.dropout, self.training)
        return out + x if self.residual else out


class SumOfTerms(nn.Module):
    """ReLU(BN(sum of the terms in ``gather``)), a term being a module of the pairs and the graph they live on.

    Args:
        width: Columns of X.
        residual: Add X.
        dropout: Probability.
    """

    def __init__(self, width: int, residual: bool = False, dropout: float = 0.0):
        super().__init__()
        self.gather = nn.ModuleDict()
        self.norm = nn.BatchNorm1d(width)
        self.residual, self.dropout = residual, dropout

    def forward(self, x: Float[Tensor, "pairs width"], graph: Any) -> Float[Tensor, "pairs width"]:
        terms = sum_block.branches(self, x, graph)
        if terms is None:
            total = sum(module(x, graph) for module in self.gather.values())
            out = F.relu(self.norm(total), inplace=True)
        else:
            out = sum_block.sum_block(terms, self.norm, x)
        if self.dropout:
            out = F.dropout(out, self.dropout, self.training)
        return out + x if self.residual else out


class PairSumBlock(SumOfTerms):
    """One layer of GNN-SSWL+ and of its ancestors: ReLU(BN(sum over relations of MLP_g((1 + eps_g) X + Agg_g(X))))."""

    def __init__(
        self,
        width: int,
        relations: Sequence[str] = ("uL", "vL", "vv"),
        edge_features: Sequence[int] | int | None = None,
        residual: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(width, residual, dropout)
        for relation in relations:
            _check_relation(relation)
            if relation in ("uL", "vL"):
                self.gather[relation] = PairSum(width, AXIS[relation], edge_features)
            else:
                self.gather[relation] = PairTerm(relation, width, width)


class _PairModel(nn.Module):
    """What Subgraphormer and GNN-SSWL+ share: encode pairs, run the layers, pool, predict."""

    encoder: PairEncoder
    layers: nn.ModuleList
    head: nn.Module
    level: str

    def pair_features(self, data: Batch | Data) -> tuple[Float[Tensor, "pairs width"], PairGraph]:
        """X(s, v) after the last layer, and the pairs it lives on."""
        graph = PairGraph.from_batch(data)
        x = self.encoder(data, graph)
        for layer in self.layers:
            x = layer(x, graph)
        return x, graph

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
        hidden = F.relu(norm_of_repeated(inner, self.copy_mlp.first(copies), times))
        rows = F.relu(norm_of_repeated(self.copy_norm, self.copy_mlp.second(hidden), times))
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
