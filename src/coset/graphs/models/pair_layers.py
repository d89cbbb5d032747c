"""Layers on pairs of nodes, along the relations that :mod:`coset.graphs.models.subgraphormer` lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from coset.core.errors import check_choice
from coset.graphs.models import attention_block, linear_attention_block, sum_block
from coset.graphs.models.bags import BagGraph
from coset.graphs.models.product import PairGraph
from coset.nn import MLP, FeatureEncoder, norm_relu_linear
from coset.nn.norm_relu import covers
from coset.relations import Relation, attend, broadcast, marginalise, propagate, reference
from coset.relations.verbs import Score

RELATIONS = ("uL", "vL", "vv", "uG", "vG")
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

    def settle(self, graph: Pairs) -> None:
        """Work out what it asks of the pairs (:mod:`coset.relations.structure`)."""
        relation = graph.internal if self.axis else graph.external
        relation.settle()
        (relation if self.score == "transformer" else relation.with_self_loops).settle(graph.pairs, self.axis)

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

    def settle(self, graph: Pairs) -> None:
        """Work out what it asks of the pairs (:mod:`coset.relations.structure`)."""
        self._relation(graph).settle(graph.pairs, self.axis)

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

    @property
    def takes_bfloat16(self) -> bool:
        """Whether it has an operation on rows of pairs in bfloat16."""
        module = linear_attention_block if self.mlp is None else attention_block
        return attention_block.is_published(self) and module.fits(self)

    def forward(self, x: Float[Tensor, "pairs width"], graph: PairGraph) -> Float[Tensor, "pairs width"]:
        if attention_block.applies(self, x):
            out = attention_block.attention_block(self, x, graph)
        elif linear_attention_block.applies(self, x):
            out = linear_attention_block.linear_attention_block(self, x, graph)
        elif x.dtype == torch.bfloat16:  # norms of several modes, a part being frozen: stored so, but computed apart
            return self(x.float(), graph).to(x.dtype)
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
        if terms is None and x.dtype == torch.bfloat16:  # as in SubgraphAttentionBlock
            return self(x.float(), graph).to(x.dtype)
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

    @property
    def takes_bfloat16(self) -> bool:
        """Whether it has an operation on rows of pairs in bfloat16."""
        return bool(self.gather) and set(self.gather) <= {"uL", "vL", "vv"} and covers(self.norm.num_features)
