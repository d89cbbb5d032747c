"""Sparse relations between the index sets of a batch."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coset.relations import gpu
from coset.relations.gpu.gathering import Gathering
from coset.relations.index_sets import IndexSet, Product
from coset.relations.structure import Structure


class Rows(NamedTuple):
    """A relation as compressed sparse rows: the sources of target ``i`` are entries ``ptr[i]`` to ``ptr[i + 1]``."""

    ptr: Int[Tensor, " targets+1"]
    source: Int[Tensor, " edges"]  # number of the source within its graph
    edge: Int[Tensor, " edges"]  # its column in Relation.index
    longest: int  # entries of the longest row


class Relation(Structure):
    """A sparse map between two index sets: target ``i`` receives from source ``k`` for every column (k, i)
    of ``index``.

    Args:
        source: Set that messages come from.
        target: Set that messages go to.
        index: Global numbers (source, target) of every edge, in any order; parallel edges count separately.

    Raises:
        ValueError: An edge joins two graphs, or names an element that does not exist.
    """

    def __init__(self, source: IndexSet, target: IndexSet, index: Int[Tensor, "2 edges"]):
        if index.dim() != 2 or index.size(0) != 2:
            raise ValueError(f"index must have shape [2, edges]; got {tuple(index.shape)}")
        if source.graphs != target.graphs:
            raise ValueError(f"both sets must belong to one batch; got {source.graphs} and {target.graphs} graphs")
        self.source, self.target, self.index = source, target, index
        self._layouts: dict[tuple[Product | None, int], Tensor] = {}
        self._gatherings: dict[tuple[Product | None, int], Gathering] = {}
        self._expansions: dict[tuple[Product, int], tuple[Tensor, Tensor, Tensor]] = {}
        if index.size(1):
            self._check()

    def _check(self) -> None:
        low, high = self.index.amin(1).tolist(), self.index.amax(1).tolist()
        for name, index_set, lowest, highest in zip(("source", "target"), (self.source, self.target), low, high):
            if lowest < 0 or highest >= index_set.total:
                wrong = lowest if lowest < 0 else highest
                raise ValueError(f"an edge names {name} {wrong}, but the elements are 0 to {index_set.total - 1}")
        crossing = self.source.batch[self.index[0]] != self.target.batch[self.index[1]]
        if bool(crossing.any()):
            edge = int(crossing.nonzero()[0])
            raise ValueError(f"edge {self.index[:, edge].tolist()} joins two graphs of the batch")

    @property
    def edges(self) -> int:
        return self.index.size(1)

    @cached_property
    def rows(self) -> Rows:
        """Edges grouped by target, in the order given (stable)."""
        source, target = self.index
        order = torch.argsort(target, stable=True)
        degree = torch.bincount(target, minlength=self.target.total)
        ptr = torch.nn.functional.pad(degree.cumsum(0), (1, 0))
        longest = int(degree.max()) if degree.numel() else 0
        return Rows(ptr, self.source.local[source[order]], order, longest)

    @cached_property
    def degree(self) -> Int[Tensor, " targets"]:
        """Number of edges that arrive at each target."""
        return torch.bincount(self.index[1], minlength=self.target.total)

    @cached_property
    def with_self_loops(self) -> Relation:
        """This relation and one loop per element, after the other edges; needs one set on both sides."""
        if self.source is not self.target:
            raise ValueError("self-loops need a relation of a set with itself")
        loops = torch.arange(self.target.total, device=self.index.device).expand(2, -1)
        return Relation(self.source, self.target, torch.cat([self.index, loops], dim=1))

    def loop_means(self, attribute: Float[Tensor, "edges channels"]) -> Float[Tensor, "loops_too channels"]:
        """Edge attributes for :attr:`with_self_loops`: a loop's is its node's incoming mean (0 without)."""
        index = self.index[1].unsqueeze(1).expand_as(attribute)
        total = attribute.new_zeros(self.target.total, attribute.size(1)).scatter_add(0, index, attribute)
        return torch.cat([attribute, total / self.degree.clamp(min=1).unsqueeze(1)])

    @cached_property
    def transpose(self) -> Relation:
        """The same edges, the other way round."""
        return Relation(self.target, self.source, self.index.flip(0))

    def restrict(self, kept: Int[Tensor, " kept"], subset: IndexSet) -> tuple[Relation, Int[Tensor, " edges"]]:
        """The relation induced on a subset of one set, and the numbers of the edges that remain.

        Args:
            kept: Global numbers of the kept elements, ascending.
            subset: The kept elements as an index set of their own.
        """
        number = self.index.new_full((self.target.total,), -1)
        number[kept] = torch.arange(kept.numel(), device=kept.device)
        renamed = number[self.index]
        edges = (renamed >= 0).all(0).nonzero().squeeze(1)
        return Relation(subset, subset, renamed[:, edges]), edges

    def settle(self, product: Product | None = None, along: int = 1) -> Relation:
        """Work out what verbs ask of it away from the CPU (:mod:`coset.relations.structure`)."""
        self.source.settle(), self.target.settle()
        if product is not None:
            product.settle(), product.replace(along, self.target).settle()
        _ = self.degree, self.gathering(product, along) if gpu.available() else self.expand(product, along)
        return self

    def layout(self, product: Product | None, along: int) -> Int[Tensor, "5 {self.source.graphs}+1"]:
        """Where the rows of every graph lie: offsets of the other axis, sources, targets, input rows, output rows."""
        key = product, along
        if key not in self._layouts:
            if product is None:
                other = torch.arange(self.source.graphs + 1, device=self.index.device)
                rows_in, rows_out = self.source.ptr, self.target.ptr
            else:
                other = product.axis(1 - along).ptr
                rows_in, rows_out = product.ptr, product.replace(along, self.target).ptr
            self._layouts[key] = torch.stack([other, self.source.ptr, self.target.ptr, rows_in, rows_out])
        return self._layouts[key]

    def gathering(self, product: Product | None, along: int) -> Gathering:
        """What kernels on a GPU read; worked out once."""
        key = product, along
        if key not in self._gatherings:
            inputs = self.source if product is None else product
            outputs = self.target if product is None else product.replace(along, self.target)
            into, back = self.rows, self.transpose.rows
            self._gatherings[key] = Gathering(
                self.layout(product, along), outputs.batch, into.ptr, into.source, into.edge, inputs.batch, back.ptr,
                back.source, back.edge, self.index.contiguous(), self.source.batch[self.index[0]],
            )  # fmt: skip
        return self._gatherings[key]

    def expand(self, product: Product | None, along: int) -> tuple[Tensor, Tensor, Tensor]:
        """Input row, output row and edge of every edge of the product: what the fast path never builds.

        Memory is O(edges * size of the other axis), once for all layers; only the reference implementation calls this.
        """
        if product is None:
            source, target = self.index
            return source, target, torch.arange(self.edges, device=source.device)
        key = product, along
        if key not in self._expansions:
            self._expansions[key] = self._expand(product, along)
        return self._expansions[key]

    def _expand(self, product: Product, along: int) -> tuple[Tensor, Tensor, Tensor]:
        source, target = self.index
        graph = self.source.batch[source]
        copies = product.axis(1 - along).sizes[graph]
        edge = torch.repeat_interleave(torch.arange(self.edges, device=source.device), copies)
        first = torch.nn.functional.pad(copies.cumsum(0), (1, 0))[:-1]
        partner = torch.arange(edge.numel(), device=source.device) - first[edge]  # its number within the graph
        rows = []
        for pairs, end in (
            (product, self.source.local[source]),
            (product.replace(along, self.target), self.target.local[target]),
        ):
            width = pairs.right.sizes[graph]
            start = pairs.ptr[graph] + (end if along else end * width)
            rows.append(start[edge] + (partner * width[edge] if along else partner))
        return rows[0], rows[1], edge

    def __repr__(self) -> str:
        return f"Relation({self.source.total} -> {self.target.total}, edges={self.edges})"
