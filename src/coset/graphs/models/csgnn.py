r"""CS-GNN: a subgraph network with as many subgraphs as one can afford, on the product of a coarsened graph with it.

Bar-Shalom, Eitan, Frasca, Maron, "A Flexible, Equivariant Framework for Subgraph GNNs via Graph Products and Graph
Coarsening", NeurIPS 2024. Group: S_n permutes the nodes, sigma (S, v) = (sigma(S), sigma(v)). Features X(S, v) live on
the pairs of a node set S and a node v; T sets cost T n rows, between message passing (one set) and GNN-SSWL+ (n
singletons). One layer:

    X' = ReLU(BN( sum over g of MLP_g((1 + eps_g) X + M_g) ))

==========  ================================================================================================
internal    M(S, v) = sum over v' ~ v of ReLU(X(S, v') + e), e = ReLU of the bond's vector
external    M(S, v) = sum over the bonds that cross from S' to S of ReLU(X(S', v) + e)
point       M(S, v) = sum over S' with v in S' of kappa(X(S', v) + b[orbit of (S, v; S', v)])
==========  ================================================================================================

The point term is a part of the equivariant maps between tensors on sets and nodes
(:mod:`coset.symmetry.set_node_orbits`); ``updates="full"`` takes all of them for partitions
(:mod:`coset.graphs.models.partition_linear`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int, Num
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform, Compose

from coset.core.errors import CosetError, check_choice
from coset.graphs.encodings.coarsening import COARSENINGS
from coset.graphs.models import sum_block
from coset.graphs.models.bags import LARGEST_SIZE, ORBIT_SIZES, BagGraph, SetReordering
from coset.graphs.models.options import GRAPH_MODELS, OF_RUNS, Features, GraphModel, Level, Variant
from coset.graphs.models.pair_layers import PairAttention, PairSum, SumOfTerms
from coset.graphs.models.partition_linear import PartitionEquivariantLinear
from coset.graphs.models.readouts import LEVELS, encode_nodes, head_of, node_encoder
from coset.graphs.transforms import Coarsen, ShortestPathDistances
from coset.nn import MLP, norm_relu_linear
from coset.relations import broadcast, marginalise, pool, propagate
from coset.relations.structure import settle
from coset.symmetry import Action, Claim, NodePermutation, NodeRowPermutation, TrivialAction

MARKINGS = ("simple", "size", "minimum", "learned")
UPDATES = ("point", "full", "none")
COUPLINGS = ("mlp", "relu", "identity")
CROSSINGS = ("bonds", "once")
STARTS = ("scaled", "unit", "published")
COUPLING_WIDTH = 48
SET_ATTRIBUTES = ("set_sizes", "num_sets")


class BagEncoder(nn.Module):
    """X(S, v) = encode(f_v) + mark(S, v), with one of four marks.

    ============  ===========================================================================
    ``simple``    whether v is in S
    ``size``      that, and how many nodes S has
    ``minimum``   the smallest distance of v from a node of S
    ``learned``   sum of table entries over the distances from the nodes of S, ``nearest`` smallest
                  ones; where there are fewer the last entry stands in for each that is missing
    ============  ===========================================================================

    The first three see the same in the end, the last one sees more; for single nodes all four agree.

    Args:
        node_features: Table sizes of categorical node features, number of real ones, or ``None`` for bare graphs.
        width: Columns out.
        marking: One of the above.
        max_distance: Longer distances are marked alike; "unreachable" has an entry of its own.
        nearest: Distances that ``learned`` adds up.
        start: ``scaled``: entries begin as small as those of the tables of atoms do, that of missing distances at zero.
            ``unit``: the same at N(0, 1), as GNN-SSWL+ begins: better where every set is one node. ``published``: all
            at N(0, 1), as in the published code. There ``nearest`` - |S| copies of the last entry, the same for all
            pairs, drown the atoms until a long training has unlearnt them.
    """

    def __init__(
        self,
        node_features: Sequence[int] | int | None,
        width: int,
        *,
        marking: str = "learned",
        max_distance: int = 5,
        nearest: int = 10,
        start: str = "scaled",
    ):
        super().__init__()
        check_choice("marking", marking, MARKINGS)
        check_choice("start", start, STARTS)
        self.marking, self.nearest = marking, nearest
        self.nodes = node_encoder(node_features, width)
        self.far = max_distance + 1  # entry of unreachable nodes
        rows = {"simple": 2, "size": 2, "minimum": self.far + 1, "learned": self.far + 2}[marking]
        self.marks = nn.Embedding(rows, width)
        self.sizes = nn.Embedding(LARGEST_SIZE + 1, width) if marking == "size" else None
        if start != "published":
            self._start(small=start == "scaled")

    @torch.no_grad()
    def _start(self, small: bool) -> None:
        for table in (self.marks, self.sizes):
            if small and table is not None:
                nn.init.xavier_uniform_(table.weight)
        if self.marking == "learned":
            self.marks.weight[-1] = 0

    def settle(self, graph: BagGraph) -> None:
        """Work out what it asks of the pairs (:mod:`coset.relations.structure`)."""
        graph.pairs.settle(), graph.node_pairs.settle()
        _ = graph.inside, graph.set_sizes
        if self.marking in ("learned", "minimum"):
            graph.seen_from.settle()

    def forward(self, data: Batch | Data, graph: BagGraph) -> Float[Tensor, "pairs width"]:
        x = broadcast(encode_nodes(self.nodes, data, graph.nodes.total), graph.pairs, along=0)
        if self.marking == "learned":
            return x + self.histogram(data, graph).to(x.dtype) @ self.marks.weight
        if self.marking == "minimum":
            return x + self.marks(self._nearest(data, graph))
        x = x + self.marks(graph.inside.long())
        if self.sizes is not None:
            x = x + broadcast(self.sizes(graph.set_sizes.clamp(max=LARGEST_SIZE)), graph.pairs, along=1)
        return x

    def histogram(self, data: Batch | Data, graph: BagGraph) -> Int[Tensor, "pairs entries"]:
        """How often each entry of the table counts for a pair; every row adds up to ``nearest``."""
        row, distance = self._distances(data, graph)
        entries = self.far + 2
        ones = torch.ones_like(row)
        counts = ones.new_zeros(graph.pairs.total * entries).index_add(0, row * entries + distance, ones)
        seen = counts.view(-1, entries)[:, :-1].cumsum(1).clamp(max=self.nearest)
        ends = F.pad(seen, (1, 1))
        ends[:, -1] = self.nearest
        return ends.diff(dim=1)

    def _nearest(self, data: Batch | Data, graph: BagGraph) -> Int[Tensor, " pairs"]:
        row, distance = self._distances(data, graph)
        far = torch.full((graph.pairs.total,), self.far, device=row.device)
        return far.scatter_reduce(0, row, distance, "amin")

    def _distances(self, data: Batch | Data, graph: BagGraph) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
        """Row of (S, v) and distance d(u, v), for every u in S and every v."""
        if "pair_distance" not in data:
            raise ValueError("pair_distance is missing: apply coset.graphs.transforms.ShortestPathDistances first")
        squares = graph.node_pairs
        if data.pair_distance.numel() != squares.total:
            raise ValueError(
                f"pair_distance has {data.pair_distance.numel()} entries, but the graphs have {squares.total} "
                "node pairs"
            )
        member, node = graph.seen_from.coordinates
        distance = data.pair_distance[squares.rows(graph.member_node[member], node)].long()
        return graph.pairs.rows(graph.member_set[member], node), distance.clamp(max=self.far)


class SetSum(PairSum):
    """MLP((1 + eps) X + sum over neighbours of ReLU(x_j + e_ij)) with categories of bonds in e = ReLU(table[bond]).

    The published code has this inner ReLU, that of GNN-SSWL+ (:class:`coset.graphs.subgraphormer.PairSum`) has not.
    """

    def encode_edges(self, features: Num[Tensor, "edges k"]) -> Float[Tensor, "edges width"]:
        assert self.edge_encoder is not None
        encoded = super().encode_edges(features)
        return encoded.relu() if self.edge_encoder.categorical else encoded


class SetPoint(nn.Module):
    """MLP((1 + eps) X(S, v) + sum over S' with v in S' of kappa(X(S', v) + b[orbit])): the symmetry-based update.

    An orbit of (S, v; S', v) is told by |S|, |S'|, |S n S'| and whether v is in S. Its vector b is a sum of six table
    entries, as published: 1[i != i'], |S| - 1, |S'| - 1, |S n S'|, and in which of the two sets each index lies. Sizes
    are told apart from 1 to 11 (or more), shared nodes from 0 to 10 (or more).

    Args:
        width: Columns in and out.
        coupling: kappa: ``mlp`` (Linear - BN - ReLU - Linear with 48 hidden units), ``relu`` or ``identity``.
    """

    TABLES = (2, ORBIT_SIZES, ORBIT_SIZES, ORBIT_SIZES, 4, 4)

    def __init__(self, width: int, coupling: str = "mlp"):
        super().__init__()
        check_choice("coupling", coupling, COUPLINGS)
        self.eps = nn.Parameter(torch.zeros(1))
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in self.TABLES)
        for table in self.tables.parameters():
            nn.init.xavier_uniform_(table)
        self.coupling = MLP(width, width, COUPLING_WIDTH) if coupling == "mlp" else None
        self.rectify = coupling == "relu"
        self.mlp = MLP(width, width)

    def settle(self, graph: BagGraph) -> None:
        """Work out what it asks of the pairs (:mod:`coset.relations.structure`)."""
        graph.views.settle()
        _ = graph.orbits, graph.own_rows
        if not graph.is_partition:
            graph.arrival.settle(graph.views, 1)

    def orbit_vectors(self, orbits: Int[Tensor, "orbits 4"]) -> Float[Tensor, "orbits width"]:
        """b of every orbit (|S|, |S'|, |S n S'|, 1[v in S])."""
        size, other, shared, inside = orbits.t()
        # Where (i in S, i' in S') and (i in S', i' in S) lie among (yes, yes), (yes, no), (no, yes), (no, no).
        columns = (torch.zeros_like(size), size - 1, other - 1, shared, 2 * (1 - inside), 1 - inside)
        return torch.stack([table(column) for table, column in zip(self.tables, columns)]).sum(0)

    def gather(self, x: Float[Tensor, "pairs width"], graph: BagGraph) -> Float[Tensor, "pairs width"]:
        """M(S, v). The first linear map of kappa acts on the few different terms, before they are repeated."""
        orbits, orbit_of = graph.orbits
        seen, vectors = x.index_select(0, graph.own_rows), self.orbit_vectors(orbits)
        first = None if self.coupling is None else self.coupling.first
        if first is not None:
            seen, vectors = first(seen), vectors @ first.weight.t()
        message = broadcast(seen, graph.views, along=0) + vectors.index_select(0, orbit_of)
        if self.coupling is not None:
            message = norm_relu_linear(message, self.coupling.norm, self.coupling.second)
        elif self.rectify:
            message = message.relu()
        return message if graph.is_partition else propagate(message, graph.arrival, product=graph.views, along=1)

    def branch(self, x: Tensor, graph: BagGraph) -> sum_block.Clusters | None:
        if self.coupling is None or not isinstance(self.coupling.norm, nn.BatchNorm1d) or not graph.is_partition:
            return None
        inner, outer, weight = self.coupling.first, self.coupling.second, self.mlp.first.weight
        vectors = torch.addmm(inner.bias, self.orbit_vectors(graph.orbits[0]), inner.weight.t())
        tensors = (
            (1 + self.eps) * weight, weight @ outer.weight, inner.weight, vectors,
            self.coupling.norm.weight, self.coupling.norm.bias,
        )  # fmt: skip
        bias = self.mlp.first.bias + weight @ outer.bias
        return sum_block.Clusters(self.mlp, self.coupling, graph, bias, tensors)

    def forward(self, x: Float[Tensor, "pairs width"], graph: BagGraph) -> Float[Tensor, "pairs width"]:
        if graph.own_rows.numel() == 0:
            return self.mlp((1 + self.eps) * x)
        return self.mlp(torch.addcmul(self.gather(x, graph), x, 1 + self.eps))


class SetLinear(nn.Module):
    """MLP((1 + eps) X + L X), with L all eighteen equivariant maps of a partition."""

    def __init__(self, width: int):
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.linear = PartitionEquivariantLinear(width, width)
        self.mlp = MLP(width, width)

    def forward(self, x: Float[Tensor, "pairs width"], graph: BagGraph) -> Float[Tensor, "pairs width"]:
        return self.mlp(torch.addcmul(self.linear(x, graph), x, 1 + self.eps))


class BagBlock(SumOfTerms):
    """One layer of CS-GNN; arguments as for :class:`CSGNN`."""

    def __init__(
        self,
        width: int,
        edge_features: Sequence[int] | int | None = None,
        *,
        updates: str = "point",
        coupling: str = "mlp",
        crossing: str = "bonds",
        attention: str | None = None,
        heads: int = 4,
        residual: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(width, residual, dropout)
        check_choice("updates", updates, UPDATES)
        outside = edge_features if crossing == "bonds" else None
        for name, axis, features in (("internal", 1, edge_features), ("external", 0, outside)):
            if attention is None:
                self.gather[name] = SetSum(width, axis, features)
            else:
                self.gather[name] = PairAttention(width, width, heads, axis, attention, features)  # type: ignore[arg-type]
        if updates != "none":
            self.gather[updates] = SetPoint(width, coupling) if updates == "point" else SetLinear(width)


class CSGNN(nn.Module):
    """Coarsening-based subgraph network (Bar-Shalom, Eitan, Frasca, Maron 2024).

    Args:
        outputs: Number of predicted values a graph (or a node).
        node_features: Table sizes of categorical node features, number of real ones, or ``None``.
        edge_features: The same for edges; ``None`` ignores them.
        width: Columns of X(S, v).
        layers: Number of layers.
        marking: ``simple``, ``size``, ``minimum`` or ``learned`` (:class:`BagEncoder`).
        max_distance: Largest distance of the marking.
        nearest: Distances that the learned marking adds up.
        start: ``scaled``, ``unit`` or ``published``: where the marks begin (:class:`BagEncoder`).
        updates: ``point`` (:class:`SetPoint`), ``full`` (:class:`SetLinear`, partitions only) or ``none``.
        coupling: kappa of the point term.
        crossing: External edges: one for each of the ``bonds`` that cross (published code), or ``once`` for each pair
            of sets (the definition; then without edge features).
        attention: ``gat``, ``gatv2`` or ``transformer`` instead of sums for the internal and external terms.
        heads: Attention heads; they must divide the width.
        readout: ``sum`` or ``mean`` over the nodes; always the mean over the sets.
        residual: Residual connections.
        dropout: Probability.
        level: ``graph``, ``node``, ``edge`` or ``link``: one row of output a graph, a node, or a pair of
            ``edge_label_index``, predicted from both nodes.

    Shape:
        PyG batch with the attributes of :class:`coset.graphs.models.bags.BagGraph` -> ``[graphs, outputs]``.
    """

    def __init__(
        self,
        outputs: int = 1,
        node_features: list[int] | int | None = None,
        edge_features: list[int] | int | None = None,
        *,
        width: int = 96,
        layers: int = 6,
        marking: str = "learned",
        max_distance: int = 5,
        nearest: int = 10,
        start: str = "scaled",
        updates: str = "point",
        coupling: str = "mlp",
        crossing: str = "bonds",
        attention: str | None = None,
        heads: int = 4,
        readout: str = "sum",
        residual: bool = False,
        dropout: float = 0.0,
        level: str = "graph",
    ):
        super().__init__()
        check_choice("readout", readout, ("sum", "mean"))
        check_choice("level", level, LEVELS)
        check_choice("crossing", crossing, CROSSINGS)
        if attention is not None and width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}")
        self.encoder = BagEncoder(
            node_features, width, marking=marking, max_distance=max_distance, nearest=nearest, start=start
        )
        self.layers = nn.ModuleList(
            BagBlock(
                width, edge_features, updates=updates, coupling=coupling, crossing=crossing, attention=attention,
                heads=heads, residual=residual, dropout=dropout,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.head = head_of(level, width, outputs, edge_features)
        self.crossing, self.readout, self.level = crossing, readout, level

    def structure(self, data: Batch | Data) -> BagGraph:
        """What the layers need to know of a batch (:mod:`coset.relations.structure`)."""
        return settle(self, BagGraph.from_batch(data, self.crossing))

    def pair_features(self, data: Batch | Data) -> tuple[Float[Tensor, "pairs width"], BagGraph]:
        """X(S, v) after the last layer, and the pairs it lives on."""
        graph = BagGraph.of(data, self.crossing)
        x = self.encoder(data, graph)
        for layer in self.layers:
            x = layer(x, graph)
        return x, graph

    def node_features(self, data: Batch | Data) -> Float[Tensor, "nodes width"]:
        """The mean of X(S, v) over the sets S: one row a node."""
        x, graph = self.pair_features(data)
        return marginalise(x, graph.pairs, along=0) / _at_least_one(graph.sets.sizes[graph.nodes.batch])

    def set_features(self, data: Batch | Data) -> Float[Tensor, "sets width"]:
        """The mean of X(S, v) over the nodes v: one row a set."""
        x, graph = self.pair_features(data)
        return marginalise(x, graph.pairs, along=1) / _at_least_one(graph.nodes.sizes[graph.sets.batch])

    def forward(self, data: Batch | Data) -> Float[Tensor, "rows outputs"]:
        if self.level == "node":
            return self.head(self.node_features(data))
        if self.level != "graph":
            return self.head(self.node_features(data), data)
        x, graph = self.pair_features(data)
        pooled = pool(x, graph.pairs) / _at_least_one(graph.sets.sizes)
        return self.head(pooled if self.readout == "sum" else pooled / _at_least_one(graph.nodes.sizes))

    def symmetry(self) -> tuple[Claim, ...]:
        rows: Action = NodeRowPermutation() if self.level == "node" else TrivialAction()
        effect = "renumbers the rows" if self.level == "node" else "changes no prediction"
        nodes = NodePermutation(fixed=SET_ATTRIBUTES)
        return (
            Claim(nodes, rows, f"renumbering the nodes, and with them the members of the sets, {effect}"),
            Claim(SetReordering(), TrivialAction(), "listing the sets in another order changes nothing"),
        )


def _at_least_one(counts: Tensor) -> Tensor:
    return counts.clamp(min=1).unsqueeze(1)


@GRAPH_MODELS.add
class CSGNNOptions(GraphModel):
    """Options of :class:`CSGNN`, and of the node sets that it runs on."""

    bound: ClassVar[str | None] = "uL,vL,vv"
    levels: ClassVar[tuple[Level, ...]] = ("graph", "node", "edge", "link")
    variants: ClassVar[dict[str, Variant]] = {"csgnn edges": Variant({"coarsening": "edges"}, "sets: edges")}

    whole: ClassVar[str] = "it has features of every pair of a node set and a node"
    squares: ClassVar[bool] = True

    name: Literal["csgnn"] = "csgnn"
    residual: bool = False
    root_fraction: Literal[1] = Field(1, description="choose bag=... instead")
    votes: Literal[1] = Field(1, description="predictions have no randomness to average over")
    bag: int | Literal["full"] = Field("full", description="number of node sets; full: a set a node")
    coarsening: str = Field("spectral", description="how the sets are chosen")
    coarsening_seed: int = Field(0, ge=0, description="seed of the sets")
    dimensions: int = Field(2, ge=1, description="Laplacian eigenvectors of coarsening=spectral")
    radius: int = Field(1, ge=1, description="of coarsening=balls")
    marking: Literal["learned", "minimum", "size", "simple"] = "learned"
    max_distance: int = Field(5, ge=1, le=250, description="largest distance of the marking")
    nearest: int = Field(10, ge=1, description="distances that the learned marking adds up")
    start: Literal["auto", "scaled", "unit", "published"] = Field(
        "auto", description="of the marks: unit where every set is one node, else scaled"
    )
    updates: Literal["point", "full", "none"] = Field("point", description="symmetry-based updates")
    coupling: Literal["mlp", "relu", "identity"] = Field("mlp", description="map inside the point updates")
    crossing: Literal["bonds", "once"] = Field("bonds", description="edges between two sets: one a bond, or one")
    attention: Literal["gat", "gatv2", "transformer"] | None = Field(None, description="instead of sums along edges")
    heads: int = Field(4, ge=1)
    readout: Literal["sum", "mean"] = "sum"

    @field_validator("bag", mode="before")
    @classmethod
    def _number_or_full(cls, value: Any) -> Any:
        if value != "full" and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError("a number of node sets, or full")
        return value

    @field_validator("coarsening")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            COARSENINGS[value]
        except CosetError as error:
            raise ValueError(str(error)) from error
        return value

    def transform(self) -> BaseTransform:
        sized = COARSENINGS[self.coarsening].sized
        method = "singletons" if sized and self.bag == "full" else self.coarsening
        size = self.bag if isinstance(self.bag, int) else None
        options = {"seed": self.coarsening_seed, "dimensions": self.dimensions, "radius": self.radius}
        return Compose([ShortestPathDistances(self.max_distance), Coarsen(method, size, **options)])

    def build(
        self, outputs: int, node_features: Features, edge_features: Features, level: Level = "graph"
    ) -> nn.Module:
        way = COARSENINGS[self.coarsening]
        if isinstance(self.bag, int) and (self.bag < 1 or not way.sized):
            what = (
                "at least 1, or full" if way.sized else f"coarsening={self.coarsening} finds their number; set bag=full"
            )
            raise ValueError(f"bag={self.bag}: {what}")
        if self.updates == "full" and not (way.partition or (self.bag == "full" and way.sized)):
            raise ValueError(f"updates=full: coarsening={self.coarsening} is no partition; choose updates=point")
        sets = {"bag", "coarsening", "coarsening_seed", "dimensions", "radius"}
        options = self.model_dump(exclude=OF_RUNS | sets)
        if self.start == "auto":
            single = self.coarsening == "singletons" or (self.bag == "full" and way.sized)
            options["start"] = "unit" if single else "scaled"
        return CSGNN(outputs, node_features, edge_features, level=level, **options)
