"""Index sets of a batch, and products of two of them."""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from coset.relations.structure import Structure


def _offsets(sizes: Tensor) -> Tensor:
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


class IndexSet(Structure):
    """One finite set per graph of a batch (its nodes, its marked roots, its cells of rank 1, ...).

    Elements of all graphs are numbered through: element ``i`` of graph ``g`` has the global number ``ptr[g] + i``.

    Args:
        sizes: Number of elements of each graph; zeros are allowed.
    """

    def __init__(self, sizes: Int[Tensor, " graphs"]):
        if sizes.dim() != 1 or sizes.is_floating_point():
            raise ValueError(
                f"sizes must be a vector of whole numbers, one a graph; got {sizes.dtype} {tuple(sizes.shape)}"
            )
        self.sizes = sizes.long()

    @classmethod
    def from_batch(cls, batch: Int[Tensor, " elements"], graphs: int | None = None) -> IndexSet:
        """The set whose element ``i`` belongs to graph ``batch[i]`` (sorted, as PyG writes it)."""
        return cls(torch.bincount(batch, minlength=graphs or 0))

    @cached_property
    def ptr(self) -> Int[Tensor, {self.graphs} + 1]:
        """First global number of each graph, and the total."""
        return _offsets(self.sizes)

    @cached_property
    def total(self) -> int:
        return int(self.ptr[-1])

    @property
    def graphs(self) -> int:
        return self.sizes.numel()

    @cached_property
    def batch(self) -> Int[Tensor, " elements"]:
        """The graph of each element."""
        graphs = torch.arange(self.graphs, device=self.sizes.device)
        return torch.repeat_interleave(graphs, self.sizes, output_size=self.total)

    @cached_property
    def local(self) -> Int[Tensor, " elements"]:
        """The number of each element within its own graph."""
        return torch.arange(self.total, device=self.sizes.device) - self.ptr[self.batch]

    def settle(self) -> IndexSet:
        """Work out all that can be asked of it (:mod:`coset.relations.structure`)."""
        _ = self.batch, self.local
        return self

    def __mul__(self, other: IndexSet) -> Product:
        return Product(self, other)

    def __repr__(self) -> str:
        return f"IndexSet(graphs={self.graphs}, total={self.total})"


class Product(Structure):
    """All pairs (s, v) of a graph's elements s of ``left`` and v of ``right``, for every graph of a batch.

    Row ``ptr[g] + s * n_g + v`` holds the features of the pair, with ``n_g`` the size of ``right`` in graph ``g``.
    Axis 0 is ``left``, axis 1 is ``right``.
    """

    def __init__(self, left: IndexSet, right: IndexSet):
        if left.graphs != right.graphs:
            raise ValueError(f"both axes must belong to one batch; got {left.graphs} and {right.graphs} graphs")
        self.left, self.right = left, right
        self._replaced: dict[tuple[int, IndexSet], Product] = {}

    @cached_property
    def sizes(self) -> Int[Tensor, " graphs"]:
        return self.left.sizes * self.right.sizes

    @cached_property
    def ptr(self) -> Int[Tensor, {self.graphs} + 1]:
        return _offsets(self.sizes)

    @cached_property
    def total(self) -> int:
        return int(self.ptr[-1])

    @property
    def graphs(self) -> int:
        return self.left.graphs

    def axis(self, along: int) -> IndexSet:
        """The index set of axis 0 or 1."""
        if along not in (0, 1):
            raise ValueError(f"along={along!r}: a product has the axes 0 (left) and 1 (right)")
        return self.right if along else self.left

    def replace(self, along: int, index_set: IndexSet) -> Product:
        """The product with one axis exchanged for another set."""
        if index_set is self.axis(along):
            return self
        key = along, index_set
        if key not in self._replaced:
            self._replaced[key] = Product(self.left, index_set) if along else Product(index_set, self.right)
        return self._replaced[key]

    @cached_property
    def batch(self) -> Int[Tensor, " pairs"]:
        graphs = torch.arange(self.graphs, device=self.sizes.device)
        return torch.repeat_interleave(graphs, self.sizes, output_size=self.total)

    @cached_property
    def coordinates(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Global numbers of s and of v for every pair."""
        width = self.right.sizes[self.left.batch]
        left = torch.repeat_interleave(
            torch.arange(self.left.total, device=width.device), width, output_size=self.total
        )
        first = self.ptr[self.left.batch] + self.left.local * width
        local = torch.arange(self.total, device=width.device) - first[left]
        return left, local + self.right.ptr[self.left.batch[left]]

    def settle(self) -> Product:
        """Work out all that can be asked of it (:mod:`coset.relations.structure`)."""
        self.left.settle(), self.right.settle()
        _ = self.batch, self.coordinates
        return self

    def rows(self, left: Int[Tensor, " k"], right: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
        """Rows of pairs given by global numbers; both members of a pair must belong to the same graph."""
        graph = self.left.batch[left]
        return self.ptr[graph] + self.left.local[left] * self.right.sizes[graph] + self.right.local[right]

    def __repr__(self) -> str:
        return f"Product(graphs={self.graphs}, total={self.total})"
