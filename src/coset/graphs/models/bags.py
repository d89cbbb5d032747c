"""The product of a coarsened graph with the graph: pairs (S, v) of a node set and a node, and what joins them.

A batch carries a family of sets for each graph (:class:`coset.graphs.transforms.Coarsen`); without one, every node is
a set of its own. Three relations, none of them written down on the pairs:

==========  ====================================  =================================================================
internal    (S, v') -> (S, v), v' ~ v             edges of G along axis 1
external    (S', v) -> (S, v), S' ~ S             edges between sets along axis 0, one for every bond that crosses
point       (S', v) -> (S, v), v in S'            told apart by the orbit of (S, v; S', v) under S_n
==========  ====================================  =================================================================
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int, Num
from torch import Tensor
from torch_geometric.data import Batch, Data

from coset.graphs.models.product import node_counts
from coset.relations import IndexSet, Product, Relation
from coset.relations.structure import KEY, Structure
from coset.symmetry import Action

LARGEST_SIZE = 10  # sizes of sets are told apart up to here
ORBIT_SIZES = 11  # and in the orbits of the point relation up to here, as published: 11 stands for 11 or more


@dataclass
class BagGraph(Structure):
    """A batch of graphs, seen as pairs (S, v) of a set and a node.

    ``internal``, ``external``, ``edge_features``, ``external_edges`` and ``pairs`` are those of
    :class:`coset.graphs.PairGraph`, so the layers that gather along one axis run on both.

    Attributes:
        sets: Sets of each graph.
        nodes: Nodes of each graph.
        member_set: Global number of the set of every membership; memberships are sorted by node.
        member_node: Global number of its node.
        internal: Edges of the graphs.
        edge_features: Features of those edges, if any.
        crossing: ``bonds``: an external edge for every edge of the graph that leads from S' to S. ``once``: one edge,
            whatever their number.
    """

    sets: IndexSet
    nodes: IndexSet
    member_set: Int[Tensor, " memberships"]
    member_node: Int[Tensor, " memberships"]
    internal: Relation
    edge_features: Num[Tensor, "edges k"] | None
    crossing: str = "bonds"

    @classmethod
    def from_batch(cls, data: Batch | Data, crossing: str = "bonds") -> BagGraph:
        """Read a PyG batch (or one graph).

        Attributes used: ``edge_index`` (both directions of every edge), ``edge_attr``, and ``set_sizes``,
        ``set_member_index``, ``num_sets`` if there are sets.

        Raises:
            ValueError: The sets do not fit together, or roots were sampled.
        """
        if "root_index" in data:
            raise ValueError("this graph has sampled roots: choose node sets instead (Coarsen('sample', size=...))")
        nodes = IndexSet(node_counts(data))
        internal = Relation(nodes, nodes, data.edge_index)
        features = data.edge_attr if "edge_attr" in data else None
        sets, sizes, members = read_sets(data, nodes)
        owner = torch.repeat_interleave(torch.arange(sets.total, device=sizes.device), sizes)
        order = torch.argsort(members, stable=True)
        return cls(sets, nodes, owner[order], members[order], internal, features, crossing)

    @classmethod
    def of(cls, data: Batch | Data, crossing: str = "bonds") -> BagGraph:
        """What the loader has settled of a batch, or what is read from it now."""
        return data[KEY] if KEY in data else cls.from_batch(data, crossing)

    @cached_property
    def pairs(self) -> Product:
        return Product(self.sets, self.nodes)

    @cached_property
    def node_pairs(self) -> Product:
        """Pairs (u, v) of nodes."""
        return Product(self.nodes, self.nodes)

    @cached_property
    def set_pairs(self) -> Product:
        """Pairs (S, S') of sets."""
        return Product(self.sets, self.sets)

    @cached_property
    def seen_from(self) -> Product:
        """Pairs of a membership (u in S) and a node v: from where v is seen."""
        return Product(self.memberships, self.nodes)

    @cached_property
    def is_partition(self) -> bool:
        """Whether every node lies in exactly one set."""
        return bool((self.set_count == 1).all())

    @cached_property
    def set_count(self) -> Int[Tensor, " nodes"]:
        """In how many sets each node lies."""
        return torch.bincount(self.member_node, minlength=self.nodes.total)

    @cached_property
    def set_sizes(self) -> Int[Tensor, " sets"]:
        return torch.bincount(self.member_set, minlength=self.sets.total)

    @cached_property
    def memberships(self) -> IndexSet:
        """The pairs (v in S) of each graph, sorted by v."""
        return IndexSet(torch.bincount(self.nodes.batch[self.member_node], minlength=self.nodes.graphs))

    @cached_property
    def own_rows(self) -> Int[Tensor, " memberships"]:
        """Row of the pair (S, v) for every membership v in S."""
        return self.pairs.rows(self.member_set, self.member_node)

    @cached_property
    def inside(self) -> Bool[Tensor, " pairs"]:
        """Whether v is in S."""
        flags = torch.zeros(self.pairs.total, dtype=torch.bool, device=self.member_node.device)
        return flags.index_fill(0, self.own_rows, True)

    @cached_property
    def sides(self) -> tuple[Int[Tensor, " outside"], Int[Tensor, " inside"]]:
        """Rows of the pairs with v outside S, and of those with v in S."""
        return (~self.inside).nonzero().squeeze(1), self.inside.nonzero().squeeze(1)

    @cached_property
    def _crossings(self) -> tuple[Relation, Int[Tensor, " crossings"]]:
        """Edges between different sets, and the edge of the graph behind each."""
        source, target = self.internal.index
        edge, first, second = self._membership_pairs(source, target)
        ends = torch.stack([self.member_set[first], self.member_set[second]])
        apart = (ends[0] != ends[1]).nonzero().squeeze(1)
        ends, edge = ends[:, apart], edge[apart]
        if self.crossing == "once":
            ends = torch.unique(ends, dim=1)
        return Relation(self.sets, self.sets, ends), edge

    @property
    def external(self) -> Relation:
        return self._crossings[0]

    @property
    def external_edges(self) -> Int[Tensor, " crossings"]:
        """Which edge of the graph each external edge is, for ``crossing="bonds"``."""
        return self._crossings[1]

    def _membership_pairs(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For every pair of nodes, all pairs of memberships of the one and the other: number of the pair, and both."""
        count = self.set_count
        start = count.cumsum(0) - count
        ways = count[source] * count[target]
        pair = torch.repeat_interleave(torch.arange(ways.numel(), device=ways.device), ways)
        way = torch.arange(pair.numel(), device=ways.device) - (ways.cumsum(0) - ways)[pair]
        source, target = source[pair], target[pair]
        return pair, start[source] + way // count[target], start[target] + way % count[target]

    @cached_property
    def views(self) -> Product:
        """What (S, v) can see point-wise: all pairs of S and a membership (v in S')."""
        return self.pairs if self.is_partition else Product(self.sets, self.memberships)

    @cached_property
    def arrival(self) -> Relation:
        """From a membership (v in S') to its node v."""
        index = torch.stack([torch.arange(self.member_node.numel(), device=self.member_node.device), self.member_node])
        return Relation(self.memberships, self.nodes, index)

    @cached_property
    def orbits(self) -> tuple[Int[Tensor, "orbits 4"], Int[Tensor, " views"]]:
        """Orbits of the point relation, and the orbit of every view.

        An orbit of (S, v; S', v) with v in S' is told by |S|, |S'|, |S n S'| and whether v is in S
        (:func:`coset.symmetry.set_node_orbits`). Sizes from 11 on are one, and so are shared nodes from 10 on.
        """
        left, member = self.views.coordinates
        squares = self.set_pairs
        everyone = torch.arange(self.nodes.total, device=left.device)
        _, first, second = self._membership_pairs(everyone, everyone)
        together = squares.rows(self.member_set[first], self.member_set[second])
        shared = torch.bincount(together, minlength=squares.total)
        other = self.member_set[member]
        values = (
            self.set_sizes[left].clamp(max=ORBIT_SIZES),
            self.set_sizes[other].clamp(max=ORBIT_SIZES),
            shared[squares.rows(left, other)].clamp(max=ORBIT_SIZES - 1),
            self.inside[self.pairs.rows(left, self.member_node[member])].long(),
        )
        base = ORBIT_SIZES + 1
        code = torch.zeros_like(left)
        for value in values:
            code = code * base + value
        present = torch.bincount(code, minlength=base**4) > 0
        codes = present.nonzero().squeeze(1)
        table = torch.stack([codes // base**power % base for power in (3, 2, 1, 0)], dim=1)
        return table, (present.cumsum(0) - 1)[code]


def read_sets(data: Batch | Data, nodes: IndexSet) -> tuple[IndexSet, Int[Tensor, " sets"], Int[Tensor, " members"]]:
    """Sets of each graph, size of each set, and their members set by set; singletons if the data has none.

    Raises:
        ValueError: Sizes and members do not fit together.
    """
    if "set_sizes" not in data:
        everyone = torch.arange(nodes.total, device=nodes.sizes.device)
        return nodes, torch.ones_like(everyone), everyone
    counts = torch.as_tensor(data.num_sets, device=nodes.sizes.device).reshape(-1)
    sets = IndexSet(counts)
    sizes, members = data.set_sizes, data.set_member_index
    if sizes.numel() != sets.total or int(sizes.sum()) != members.numel():
        raise ValueError(
            f"{sets.total} sets with {sizes.numel()} sizes that add up to {int(sizes.sum())}, but {members.numel()} "
            "members: write them with coset.graphs.transforms.Coarsen or set_nodes"
        )
    owner = torch.repeat_interleave(sets.batch, sizes)
    if not torch.equal(owner, nodes.batch[members]):
        raise ValueError("a set holds nodes of another graph of the batch")
    return sets, sizes, members


class SetReordering(Action):
    """S_T on the sets of every graph: they are listed in another order."""

    name = "S_T on sets"

    def sample(self, value: Data, generator: torch.Generator) -> tuple[Tensor, ...]:
        sets, _, _ = read_sets(value, IndexSet(node_counts(value)))
        return tuple(torch.randperm(int(size), generator=generator) for size in sets.sizes)

    def apply(self, element: tuple[Tensor, ...], value: Data) -> Data:
        sets, sizes, members = read_sets(value, IndexSet(node_counts(value)))
        starts = sets.ptr[:-1].tolist()
        parts = [images.argsort() + start for images, start in zip(element, starts, strict=True)]
        order = torch.cat(parts) if parts else sizes.new_zeros(0)
        lists = members.split(sizes.tolist())
        moved = copy.copy(value)
        moved.set_sizes, moved.num_sets = sizes[order], sets.sizes
        moved.set_member_index = torch.cat([lists[k] for k in order.tolist()] or [members])
        return moved

    def compose(self, g: tuple[Tensor, ...], h: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(a[b] for a, b in zip(g, h, strict=True))

    def inverse(self, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(images.argsort() for images in g)
