r"""SMCN: message passing on cells, and on pairs (cell x of rank r1, marked cell s of rank r2).

Eitan, Gelberg, Bar-Shalom, Frasca, Bronstein, Maron, "Topological Blindspots: Understanding and Extending Topological
Deep Learning Through the Lens of Expressivity", ICLR 2025. Group: independent permutations of the cells of each rank.

    bag    X(x, s) = merge(h_x, h_s, emb(mark(x, s)))
    low    a(x, s) = sum over (x', z), x' in A_{r1,b}(x), of ReLU(W X(x', s) + V h_z + c)       inside the copy of s
    inc    p(x)    = sum over marked t that hold x of X(x, t), the same for all s               the point term
    high   c(x, s) = sum over (s', z), s' a neighbour of s through rank b', of ReLU(W' X(x, s') + V' h_z + c')
    layer  X(x, s) <- head([MLP((1 + e1) X + a) | MLP((1 + e2) X + p) | ...]), or the sum of these
    pool   h_x <- sum or mean over s of X(x, s),  h_s <- the same over x

For r1 = r2 = 0 the copies are those of node marking, the point term is X(x, x), and the layer is GNN-SSWL+. Edges of
the bag, A (x) I, are never written down: every term acts along one axis of the product of the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform, Compose

from coset.core.errors import check_choice
from coset.graphs.models.options import GRAPH_MODELS
from coset.relations import Product, broadcast, marginalise, propagate
from coset.relations.reference import scatter
from coset.symmetry import Claim
from coset.topology.data.batches import CellBatch
from coset.topology.liftings.marking import ENTRIES, MarkPairs, pair_distances
from coset.topology.models import subcomplex_block
from coset.topology.models.homp import (
    CIN,
    CellEncoder,
    Cochains,
    HOMPLayer,
    Norm,
    OwnWeight,
    Reduction,
    cell_claim,
    cell_readout,
    dense,
)
from coset.topology.models.options import ComplexModel

Marking = Literal["distance", "binary"]
Merge = Literal["concat", "sum"]
TERMS = ("low", "inc", "high", "row", "column", "total")


class BagInit(nn.Module):
    """X(x, s) = Linear - norm - ReLU of [h_x | h_s | emb(mark)].

    Args:
        width: Columns of X.
        ranks: (r1, r2).
        marking: ``distance`` (12 entries) or ``binary`` (x in s or not).
        norm: ``batch``, ``layer`` or ``none``.
        use_marked: Whether h_s is among the inputs.
        cell_width: Columns of h; ``width`` by default.
    """

    def __init__(
        self,
        width: int,
        ranks: tuple[int, int],
        marking: Marking = "distance",
        norm: Norm = "layer",
        use_marked: bool = True,
        cell_width: int | None = None,
    ):
        super().__init__()
        self.ranks, self.marking, self.use_marked = ranks, marking, use_marked
        self.marks = mark_table(marking, width)
        cell_width = width if cell_width is None else cell_width
        self.merge = dense((1 + use_marked) * cell_width + width, width, norm)

    def settle(self, cells: CellBatch) -> None:
        """Work out what it asks of the cells (:mod:`coset.relations.structure`)."""
        cells.pairs(*self.ranks).settle()
        pair_marks(cells, self.ranks, self.marking)

    def forward(self, h: Cochains, cells: CellBatch) -> Float[Tensor, "pairs width"]:
        first, second = self.ranks
        product = cells.pairs(first, second)
        parts = [broadcast(h[first], product, along=1)]
        if self.use_marked:
            parts.append(broadcast(h[second], product, along=0))
        parts.append(self.marks(self._marks(cells, product)))
        return self.merge(torch.cat(parts, dim=1))

    def _marks(self, cells: CellBatch, product: Product) -> Tensor:
        return pair_marks(cells, self.ranks, self.marking)


def mark_table(marking: Marking, width: int) -> nn.Embedding:
    """A vector for every mark: 12 of ``distance`` (hops up to 10, unreachable), 2 of ``binary`` (x in s or not)."""
    check_choice("marking", marking, ("distance", "binary"))
    return nn.Embedding(ENTRIES if marking == "distance" else 2, width)


def pair_marks(cells: CellBatch, ranks: tuple[int, int], marking: Marking) -> Int[Tensor, " pairs"]:
    """The mark of every pair: those stored by :class:`coset.topology.MarkPairs`, or worked out once a batch.

    Raises:
        ValueError: What is stored is not as many marks as there are pairs.
    """
    key, product = f"distance_{ranks[0]}_{ranks[1]}", cells.pairs(*ranks)
    if key in cells.data:
        marks = cells.data[key]
    elif key in cells.derived:
        marks = cells.derived[key]
    else:
        marks = cells.derived[key] = pair_distances(cells, *ranks)
    if marks.numel() != product.total:
        raise ValueError(f"{key} has {marks.numel()} entries, but the complexes have {product.total} pairs")
    return marks.long() if marking == "distance" else (marks == 0).long()


class SCL(nn.Module):
    """One subcomplex layer.

    Args:
        width: Columns of X.
        ranks: (r1, r2).
        terms: Any of ``low``, ``inc``, ``high`` (above), and means ``row`` (over s), ``column`` (over x), ``total``.
        bridge: Rank that low messages run through; r1 + 1 by default.
        high_bridge: Rank that high messages run through; r2 - 1 by default (1 if r2 is 0).
        norm: ``batch``, ``layer`` or ``none``.
        reduce: ``sum`` as above, or ``mean``, which keeps magnitudes where copies are many.
        use_bridge: Features of bridge cells enter the messages; without them a message is X(x', s) itself.
        dropout: Of the result.
        merge: ``concat``: Linear - norm - ReLU of the terms side by side; ``sum``: their sum, nothing after it.
        marking: Kind of a mark with a table of this layer's own that is one term more; None for no marks. The published
            network for ZINC has ``merge="sum"`` and ``marking="distance"``, others have neither.
        bridge_width: Columns of the features of bridge cells; ``width`` by default.
    """

    def __init__(
        self,
        width: int,
        ranks: tuple[int, int],
        terms: Sequence[str] = ("low", "inc"),
        bridge: int | None = None,
        high_bridge: int | None = None,
        norm: Norm = "layer",
        reduce: Reduction = "sum",
        use_bridge: bool = True,
        dropout: float = 0.0,
        merge: Merge = "concat",
        marking: Marking | None = None,
        bridge_width: int | None = None,
    ):
        super().__init__()
        check_choice("merge", merge, ("concat", "sum"))
        unknown = [term for term in terms if term not in TERMS]
        if unknown or not terms:
            raise ValueError(f"term {unknown[0] if unknown else None!r}: choose from {', '.join(TERMS)}")
        first, second = ranks
        self.ranks, self.terms, self.reduce = ranks, tuple(terms), reduce
        self.between = {
            "low": (first, first + 1 if bridge is None else bridge, 0),
            "high": (second, (second - 1 if second else 1) if high_bridge is None else high_bridge, 1),
        }
        bridged = [term for term in self.terms if term in self.between and use_bridge]
        self.messages = nn.ModuleDict({term: nn.Linear(width, width, bias=False) for term in bridged})
        bridge_width = width if bridge_width is None else bridge_width
        self.bridges = nn.ModuleDict({term: nn.Linear(bridge_width, width) for term in bridged})
        self.own = nn.ModuleDict({term: OwnWeight() for term in self.terms})
        self.mlps = nn.ModuleDict({term: dense(width, width, norm, layers=2) for term in self.terms})
        self.marking = marking
        self.marks = None if marking is None else mark_table(marking, width)
        merged = len(self.terms) + (marking is not None)
        self.head = dense(merged * width, width, norm) if merge == "concat" else None
        self.dropout = nn.Dropout(dropout)

    def settle(self, cells: CellBatch) -> None:
        """Work out what it asks of the cells (:mod:`coset.relations.structure`)."""
        product = cells.pairs(*self.ranks).settle()
        for term in self.terms:
            if term in self.between:
                rank, between, along = self.between[term]
                cells.neighbours(rank, between).relation.settle(product, along)
            elif term == "inc":
                cells.incidence(*self.ranks).settle()
        if self.marking is not None:
            pair_marks(cells, self.ranks, self.marking)

    def forward(self, x: Float[Tensor, "pairs width"], h: Cochains, cells: CellBatch) -> Float[Tensor, "pairs width"]:
        if subcomplex_block.applies(self, x):
            return self.dropout(subcomplex_block.subcomplex_block(self, x, h, cells))
        product = cells.pairs(*self.ranks)
        brought = [self.mlps[t](self.own[t](x) + self.term(t, x, h, cells, product)) for t in self.terms]
        if self.marks is not None and self.marking is not None:
            brought.append(self.marks(pair_marks(cells, self.ranks, self.marking)))
        merged = torch.stack(brought).sum(0) if self.head is None else self.head(torch.cat(brought, dim=1))
        return self.dropout(merged)

    def term(self, name: str, x: Tensor, h: Cochains, cells: CellBatch, product: Product) -> Tensor:
        """What one of the terms adds to every pair."""
        if name in self.between:
            return self._messages(name, x, h, cells, product)
        if name == "inc":
            relation = cells.incidence(*self.ranks)
            rows = product.rows(*relation.index)
            point = scatter(x.index_select(0, rows), relation.index[0], product.left.total, self.reduce)
            return broadcast(point, product, along=1)
        if name == "total":
            return scatter(x, product.batch, product.graphs, "mean").index_select(0, product.batch)
        axis = 1 if name == "row" else 0
        return broadcast(marginalise(x, product, along=axis, reduce="mean"), product, along=axis)

    def _messages(self, name: str, x: Tensor, h: Cochains, cells: CellBatch, product: Product) -> Tensor:
        rank, between, along = self.between[name]
        relation, bridge = cells.neighbours(rank, between)
        if name not in self.messages:
            return propagate(x, relation, product=product, along=along, reduce=self.reduce)
        edge = self.bridges[name](h[between])[bridge]
        return propagate(
            self.messages[name](x), relation, product=product, along=along, edge=edge, relu=True, reduce=self.reduce
        )


class SMCN(nn.Module):
    """Encoder, HOMP layers, bag, subcomplex layers, pool, HOMP layers, readout.

    Args:
        outputs: Columns out.
        features: Of each rank, as for :class:`coset.topology.CellEncoder`.
        ranks: (r1, r2): what is marked is a modelling choice. (0, 1) sees twists that (0, 2) does not.
        width: Columns of the features of cells.
        pair_width: Columns of the features of pairs; ``width`` by default. Where it differs, what the pool gives a rank
            goes back to ``width`` by Linear - norm - ReLU.
        layers: Subcomplex layers.
        before: HOMP layers before the bag.
        after: HOMP layers after the pool.
        marking: ``distance`` or ``binary``.
        terms: Of the subcomplex layers.
        norm: ``batch``, ``layer`` or ``none``.
        reduce: ``sum`` or ``mean`` inside subcomplex layers and in the pool.
        readout: ``sum`` or ``mean``.
        dropout: After each layer and before the last map.
        use_bridge: Features of the cells between neighbours enter the messages of subcomplex layers.
        use_marked: Features of the marked cell enter the bag.
        merge: ``concat`` or ``sum``: how subcomplex layers bring their terms together (:class:`SCL`).
        fresh_marks: Every subcomplex layer adds marks from a table of its own.
        rank: Predictions are of the cells of this rank; of whole complexes without.
    """

    def __init__(
        self,
        outputs: int,
        features: Sequence[Sequence[int] | int | None] = (None, None, None),
        *,
        ranks: tuple[int, int] = (0, 2),
        width: int = 64,
        pair_width: int | None = None,
        layers: int = 3,
        before: int = 1,
        after: int = 0,
        marking: Marking = "distance",
        terms: Sequence[str] = ("low", "inc"),
        norm: Norm = "layer",
        reduce: Reduction = "sum",
        readout: Reduction = "sum",
        dropout: float = 0.0,
        use_bridge: bool = True,
        use_marked: bool = True,
        merge: Merge = "concat",
        fresh_marks: bool = False,
        rank: int | None = None,
    ):
        super().__init__()
        if max(ranks) >= len(features) or min(ranks) < 0:
            raise ValueError(f"ranks={ranks}: these complexes have ranks 0 to {len(features) - 1}")
        self.ranks, self.reduce = (ranks[0], ranks[1]), reduce
        self.encoder = CellEncoder(features, width)
        self.before = nn.ModuleList(HOMPLayer(width, CIN, norm, dropout=dropout) for _ in range(before))
        inner = width if pair_width is None else pair_width
        self.bag = BagInit(inner, self.ranks, marking, norm, use_marked, width)
        self.layers = nn.ModuleList(
            SCL(
                inner, self.ranks, terms, norm=norm, reduce=reduce, use_bridge=use_bridge, dropout=dropout, merge=merge,
                marking=marking if fresh_marks else None, bridge_width=width,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.widen = nn.ModuleDict({str(r): dense(inner, width, norm) for r in set(self.ranks) if inner != width})
        self.after = nn.ModuleList(HOMPLayer(width, CIN, norm, dropout=dropout) for _ in range(after))
        ranks_read = range(len(features)) if before or after else sorted(set(self.ranks))
        self.readout = cell_readout(width, outputs, ranks_read, readout, dropout, rank)

    def structure(self, data: Batch | Data) -> CellBatch:
        """What the layers need to know of a batch (:mod:`coset.relations.structure`)."""
        return CellBatch.settled(data, self)

    def bag_features(self, data: Batch | Data | CellBatch) -> tuple[Tensor, Cochains, CellBatch]:
        """X(x, s) [pairs, width] after the last subcomplex layer, with the cochains beside it."""
        cells = CellBatch.of(data)
        h = self.encoder(cells)
        for layer in self.before:
            h = layer(h, cells)
        x = self.bag(h, cells)
        for layer in self.layers:
            x = layer(x, h, cells)
        return x, h, cells

    def forward(self, data: Batch | Data | CellBatch) -> Float[Tensor, "rows outputs"]:
        x, h, cells = self.bag_features(data)
        pooled = self._pooled(x, h, cells)
        for layer in self.after:
            pooled = layer(pooled, cells)
        return self.readout(pooled, cells)

    def _pooled(self, x: Float[Tensor, "pairs width"], h: Cochains, cells: CellBatch) -> Cochains:
        """The cochains, with what X gives to the two ranks in place of theirs."""
        product, (first, second) = cells.pairs(*self.ranks), self.ranks
        pools = {first: marginalise(x, product, along=1, reduce=self.reduce)}
        second_pool = marginalise(x, product, along=0, reduce=self.reduce)
        pools[second] = pools[second] + second_pool if first == second else second_pool
        pooled = list(h)
        for rank, features in pools.items():
            pooled[rank] = self.widen[str(rank)](features) if self.widen else features
        return pooled

    def symmetry(self) -> tuple[Claim, ...]:
        return (cell_claim(self.readout),)


@GRAPH_MODELS.add
class SMCNOptions(ComplexModel):
    """Options of :class:`SMCN`."""

    makes: ClassVar[type[nn.Module]] = SMCN

    name: Literal["smcn"] = "smcn"
    pair_width: int | None = Field(None, ge=1, description="columns of the features of pairs; width by default")
    ranks: tuple[Literal[0, 1, 2], Literal[0, 1, 2]] = Field(
        (0, 2), description="rank of the cells, of the marked cells"
    )
    before: int = Field(1, ge=0, description="HOMP layers before the bag")
    after: int = Field(0, ge=0, description="HOMP layers after the pool")
    marking: Literal["distance", "binary"] = "distance"
    terms: list[Literal["low", "inc", "high", "row", "column", "total"]] = Field(["low", "inc"], min_length=1)
    reduce: Literal["sum", "mean"] = "sum"
    use_bridge: bool = Field(True, description="features of cells between neighbours enter the messages")
    use_marked: bool = Field(True, description="features of the marked cell enter the bag")
    merge: Literal["concat", "sum"] = Field("concat", description="how a layer brings its terms together")
    fresh_marks: bool = Field(False, description="every layer adds marks from a table of its own")

    def transform(self) -> BaseTransform:
        return Compose([self.lifting(), MarkPairs(self.ranks)])
