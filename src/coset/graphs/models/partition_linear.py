r"""All linear maps between tensors X(S, i) on a partition and the nodes that respect S_n: eighteen of them.

Bar-Shalom, Eitan, Frasca, Maron, "A Flexible, Equivariant Framework for Subgraph GNNs via Graph Products and Graph
Coarsening", NeurIPS 2024. Restricted to the clusters of a partition, and set sizes aside, the orbits of (S, i; S', i')
(:mod:`coset.symmetry.set_node_orbits`) are 7 with i in S and 11 with i outside: each sums X over the (S', i') of its
orbit. With c(i) the cluster of i and

    tot(S) = sum_i X(S, i)        blk(S', S) = sum_{i in S} X(S', i)      in(S) = blk(S, S)      IN = sum_S in(S)
    col(i) = sum_S X(S, i)        dia(i) = X(c(i), i)                     rest(S', S) = tot(S') - in(S') - blk(S', S)
    BLK(S) = sum_{S' != S} blk(S', S)                                     REST(S) = sum_{S' != S} rest(S', S)

all of them cost O(T n + T^2) channels instead of the O(T^2 n^2) of their dense tensors (:data:`MAPS`).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.graphs.models.bags import LARGEST_SIZE, BagGraph
from coset.relations import broadcast, marginalise, pool

MAPS: tuple[tuple[bool, dict[str, int]], ...] = (
    # whether i is in S, and the map as a sum of the quantities above
    (True, {"x": 1}),
    (True, {"in": 1, "x": -1}),
    (True, {"tot": 1, "in": -1}),
    (True, {"col": 1, "x": -1}),
    (True, {"BLK": 1, "col": -1, "x": 1}),
    (True, {"IN": 1, "in": -1}),
    (True, {"REST": 1}),
    (False, {"in": 1}),
    (False, {"x": 1}),
    (False, {"tot": 1, "in": -1, "x": -1}),
    (False, {"dia": 1}),
    (False, {"in c": 1, "dia": -1}),
    (False, {"blk c": 1}),
    (False, {"rest c": 1}),
    (False, {"col": 1, "x": -1, "dia": -1}),
    (False, {"BLK": 1, "blk c": -1}),
    (False, {"IN": 1, "in": -1, "in c": -1}),
    (False, {"REST": 1, "rest c": -1, "col": -1, "x": 1, "dia": 1}),
)
"""The basis; ``in c``, ``blk c`` and ``rest c`` are in(c(i)), blk(c(i), S) and rest(c(i), S)."""

LEVELS = {
    "pair": ("x",),
    "set": ("in", "tot", "BLK", "REST"),
    "node": ("col", "dia", "in c"),
    "square": ("blk c", "rest c"),
    "graph": ("IN",),
}
"""What a quantity is indexed by; weights act there, before anything is repeated over the pairs."""


class PartitionEquivariantLinear(nn.Module):
    """Y(S, i) = sum_k W_k (L_k X)(S, i) + b, with one weight matrix for each of the eighteen maps.

    Args:
        inputs: Columns in.
        outputs: Columns out.
        bias: The invariant orbits: one vector for every size of S up to 10 (larger ones share the last) and for i
            inside and outside.

    Shape:
        X ``[pairs, inputs]`` on the pairs of a :class:`coset.graphs.models.bags.BagGraph` -> ``[pairs, outputs]``.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(len(MAPS), outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(2, LARGEST_SIZE + 1, outputs)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform with the bound of one linear map that sees all maps of a pair at once."""
        bound = 1 / math.sqrt(self.weight.size(2) * len(MAPS) / 2)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def settle(self, graph: BagGraph) -> None:
        """Work out what it asks of the pairs (:mod:`coset.relations.structure`)."""
        graph.pairs.settle(), graph.set_pairs.settle()
        _ = graph.is_partition, graph.own_rows, graph.sides, graph.set_sizes

    def forward(self, x: Float[Tensor, "pairs inputs"], graph: BagGraph) -> Float[Tensor, "pairs outputs"]:
        if not graph.is_partition:
            raise ValueError("the eighteen maps are those of a partition: every node must lie in exactly one set")
        found = quantities(x, graph)
        squares = graph.set_pairs
        out = x.new_zeros(graph.pairs.total, self.weight.size(1))
        for side in (True, False):
            rows = graph.sides[side]
            left, right = (c[rows] for c in graph.pairs.coordinates)
            where = {
                "pair": rows,
                "set": left,
                "node": right,
                "square": squares.rows(graph.member_set[right], left),
                "graph": graph.sets.batch[left],
            }
            total: Tensor | None = None
            for level, names in LEVELS.items():
                weights = self._weights(side, names)
                if not weights:
                    continue
                rows_of = torch.cat([found[name] for name in weights], dim=1)
                joined = torch.cat(list(weights.values()), dim=1)
                if level == "pair":
                    term = rows_of.index_select(0, rows) @ joined.t()
                else:
                    term = (rows_of @ joined.t()).index_select(0, where[level])
                total = term if total is None else total + term
            assert total is not None
            if self.bias is not None:
                total = total + self.bias[int(side)][graph.set_sizes[left].clamp(max=LARGEST_SIZE)]
            out = out.index_add(0, rows, total)
        return out

    def _weights(self, side: bool, names: tuple[str, ...]) -> dict[str, Tensor]:
        """The weight of each quantity on one side: the signed sum of those of the maps it occurs in."""
        found: dict[str, Tensor] = {}
        for weight, (inside, terms) in zip(self.weight, MAPS, strict=True):
            for name in names:
                if inside == side and name in terms:
                    part = terms[name] * weight
                    found[name] = found[name] + part if name in found else part
        return found


def quantities(x: Float[Tensor, "pairs channels"], graph: BagGraph) -> dict[str, Tensor]:
    """The sums that all maps are made of, each with a row for what it is indexed by (:data:`LEVELS`)."""
    pairs, sets = graph.pairs, graph.sets
    squares = graph.set_pairs
    left, right = pairs.coordinates
    cluster = graph.member_set
    diagonal = x.index_select(0, graph.own_rows)
    total, column = marginalise(x, pairs, along=1), marginalise(x, pairs, along=0)
    inner = x.new_zeros(sets.total, x.size(1)).index_add(0, cluster, diagonal)
    # block[S', S] sums row S' over the nodes of S
    block = x.new_zeros(squares.total, x.size(1)).index_add(0, squares.rows(left, cluster[right]), x)
    rest = broadcast(total - inner, squares, along=1) - block
    own = squares.rows(*[torch.arange(sets.total, device=x.device)] * 2)
    return {
        "x": x,
        "tot": total,
        "in": inner,
        "col": column,
        "dia": diagonal,
        "in c": inner.index_select(0, cluster),
        "blk c": block,
        "rest c": rest,
        "BLK": marginalise(block, squares, along=0) - inner,
        "REST": marginalise(rest, squares, along=0) - rest.index_select(0, own),
        "IN": pool(inner, sets),
    }
