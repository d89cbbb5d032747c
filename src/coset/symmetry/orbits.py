r"""Bases of equivariant linear maps between spaces on which a group permutes coordinates.

A map W: R^X -> R^Y commutes with the permutations of X and Y exactly if W[y, x] is constant on the orbits of the
group on Y x X, so the indicators of these orbits are a basis. For S_n on tuples, X = [n]^k and Y = [n]^l, an orbit is
a pattern of equalities among k + l indices, that is a partition of the k + l places into at most n blocks: there are
Bell(k + l) of them (1, 2, 5, 15, 52, ...) once n >= k + l.
Maron, Ben-Hamu, Shamir, Lipman, "Invariant and Equivariant Graph Networks", ICLR 2019.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Partition = tuple[int, ...]
"""Block of each place, numbered in order of first appearance: (0, 1, 0) says that places 0 and 2 are together."""

LARGEST_SYSTEM = 4096


@dataclass(frozen=True, eq=False)
class OrbitBasis:
    """The orbits of a permutation group on Y x X, as a basis of the linear maps R^X -> R^Y that commute with it.

    Attributes:
        labels: The orbit of each pair (y, x), numbered in order of first appearance.
    """

    labels: Int[Tensor, "outputs inputs"]

    @cached_property
    def _sorted(self) -> tuple[Int[Tensor, " pairs"], list[int]]:
        """All pairs, orbit by orbit, and where each orbit starts."""
        flat = self.labels.flatten()
        sizes = torch.bincount(flat)
        return flat.argsort(stable=True), [0, *sizes.cumsum(0).tolist()]

    def __len__(self) -> int:
        return len(self._sorted[1]) - 1

    def sparse(self, orbit: int) -> Int[Tensor, "2 entries"]:
        """Row y and column x of every entry 1 of a basis element; the others are 0."""
        order, starts = self._sorted
        orbit = _checked(orbit, len(self))
        pairs = order[starts[orbit] : starts[orbit + 1]]
        columns = self.labels.size(1)
        return torch.stack([pairs // columns, pairs % columns])

    def dense(self, orbit: int) -> Float[Tensor, "outputs inputs"]:
        """A basis element as a matrix of zeros and ones, float64."""
        return (self.labels == _checked(orbit, len(self))).double()

    def apply(self, orbit: int, x: Num[Tensor, "inputs ..."]) -> Num[Tensor, "outputs ..."]:
        """A basis element applied to x, at the cost of its entries."""
        if x.size(0) != self.labels.size(1):
            raise ValueError(f"x has {x.size(0)} rows, the group acts on {self.labels.size(1)} inputs")
        rows, columns = self.sparse(orbit).to(x.device)
        return x.new_zeros(self.labels.size(0), *x.shape[1:]).index_add(0, rows, x.index_select(0, columns))

    def __repr__(self) -> str:
        return f"OrbitBasis({len(self)} orbits on {self.labels.size(0)} x {self.labels.size(1)})"


@dataclass(frozen=True)
class TupleBasis:
    """Linear maps from tensors on k-tuples to tensors on l-tuples of n things that commute with S_n.

    Element i is 1 at (output indices, input indices) if exactly those of the l + k indices are equal that stand in
    one block of ``partitions[i]``; output places come first.

    Attributes:
        n: Number of things, at least 1.
        k: Axes of an input.
        l: Axes of an output.
    """

    n: int
    k: int
    l: int  # noqa: E741 (the field's letter)

    def __post_init__(self) -> None:
        if self.n < 1 or self.k < 0 or self.l < 0:
            raise ValueError(f"n={self.n}, k={self.k}, l={self.l}: n must be at least 1, k and l at least 0")

    @cached_property
    def partitions(self) -> tuple[Partition, ...]:
        """The patterns, one a basis element."""
        return tuple(set_partitions(self.l + self.k, self.n))

    def __len__(self) -> int:
        return len(self.partitions)

    def sparse(self, element: int) -> Int[Tensor, "places entries"]:
        """The l output and k input indices of every entry 1 of a basis element: n! / (n - blocks)! columns."""
        partition = self.partitions[_checked(element, len(self))]
        blocks = max(partition, default=-1) + 1
        # Different blocks hold different things.
        values = torch.tensor(list(itertools.permutations(range(self.n), blocks)), dtype=torch.long)
        return values.T[torch.tensor(partition, dtype=torch.long)]

    def dense(self, element: int) -> Float[Tensor, "*places"]:
        """A basis element as a tensor [n] * (l + k) of zeros and ones, float64; its output axes come first."""
        full = torch.zeros((self.n,) * (self.l + self.k), dtype=torch.float64)
        full[tuple(self.sparse(element))] = 1.0
        return full

    def apply(self, element: int, x: Num[Tensor, "*inputs"]) -> Num[Tensor, "*outputs"]:
        """A basis element applied to x [n] * k + channels, giving [n] * l + channels, without its n^(k + l) entries.

        "Equal exactly where the pattern says" is, by Möbius inversion on the lattice of partitions, a signed sum of
        "equal at least where a coarser pattern says", and these are diagonals, sums and copies
        (:func:`apply_pattern`).
        """
        partition = self.partitions[_checked(element, len(self))]
        terms = (weight * apply_pattern(coarser, x, self.n, self.k) for coarser, weight in _moebius(partition))
        return sum(terms, start=x.new_zeros(()))

    def __repr__(self) -> str:
        return f"TupleBasis(n={self.n}, k={self.k}, l={self.l}: {len(self)} maps)"


def set_partitions(places: int, blocks: int | None = None) -> Iterator[Partition]:
    """All partitions of some places, into at most ``blocks`` blocks, in lexicographic order.

    >>> list(set_partitions(3))
    [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2)]
    """
    limit = places if blocks is None else blocks

    def extend(prefix: Partition, used: int) -> Iterator[Partition]:
        if len(prefix) == places:
            yield prefix
            return
        for block in range(min(used + 1, limit)):
            yield from extend((*prefix, block), max(used, block + 1))

    return extend((), 0)


def count_partitions(places: int, blocks: int | None = None) -> int:
    """Number of partitions of some places into at most ``blocks`` blocks; Bell numbers if left out."""
    stirling = [1]  # of 0 places into 0 blocks; then S(p, b) = b S(p - 1, b) + S(p - 1, b - 1)
    for _ in range(places):
        shifted = [0, *stirling]
        stirling = [b * s + t for b, (s, t) in enumerate(zip([*stirling, 0], shifted, strict=True))]
    return sum(stirling[: None if blocks is None else blocks + 1])


def apply_pattern(partition: Partition, x: Num[Tensor, "*inputs"], n: int, k: int) -> Num[Tensor, "*outputs"]:
    """y(i) = sum of x(j) over all j such that the indices (i, j) are equal within each block (and maybe across).

    Blocks with input places only are summed over, shared ones carried over, those with output places only filled with
    copies; several places of a block are a diagonal.

    Args:
        partition: Blocks of the output places, then of the k input places.
        x: Tensor [n] * k + channels.
        n: Number of things.
        k: Input places.
    """
    if tuple(x.shape[:k]) != (n,) * k:
        raise ValueError(f"x must begin with {k} axes of length {n}; its shape is {tuple(x.shape)}")
    outputs, inputs = partition[: len(partition) - k], partition[len(partition) - k :]
    blocks = list(dict.fromkeys(outputs))
    carried = [block for block in blocks if block in inputs]
    channels = tuple(x.shape[k:])
    # einsum by numbers: every block is an axis, and the channels together are one more.
    flat = x.reshape((n,) * k + (math.prod(channels),))
    last = len(partition)
    y = torch.einsum(flat, [*inputs, last], [*carried, last])
    y = y.reshape(tuple(n if block in inputs else 1 for block in blocks) + channels)
    y = y.expand((n,) * len(blocks) + channels)
    if len(blocks) == len(outputs):
        return y
    # Onto the diagonals: place p of the output runs along the axis of its block.
    along = [
        torch.arange(n, device=x.device).reshape(-1, *(1,) * (len(blocks) - 1 - axis)) for axis in range(len(blocks))
    ]
    where = tuple(along[blocks.index(block)] for block in outputs)
    return y.new_zeros((n,) * len(outputs) + channels).index_put(where, y)


def orbit_basis(
    generators_out: Sequence[Int[Tensor, " outputs"]], generators_in: Sequence[Int[Tensor, " inputs"]]
) -> OrbitBasis:
    """Orbits on Y x X of the group generated by some permutations, given by how each moves Y and how it moves X.

    Args:
        generators_out: For each generator, the image of every element of Y.
        generators_in: For each generator, in the same order, the image of every element of X.

    Raises:
        ValueError: Not as many of one as of the other, none at all, or something that is not a permutation.
    """
    if len(generators_out) != len(generators_in) or not generators_out:
        raise ValueError(
            f"each generator acts on both sides; got {len(generators_out)} on outputs, {len(generators_in)} on inputs"
        )
    joint = [
        _images(out).unsqueeze(1) * _images(into).numel() + _images(into)
        for out, into in zip(generators_out, generators_in, strict=True)
    ]
    if len({tuple(pairs.shape) for pairs in joint}) > 1:
        raise ValueError("the generators must all act on the same sets; they differ in size")
    return OrbitBasis(orbits([pairs.flatten() for pairs in joint]).reshape(joint[0].shape))


def orbits(generators: Sequence[Int[Tensor, " things"]]) -> Int[Tensor, " things"]:
    """The orbit of each thing under the group generated by some permutations, numbered in order of first appearance."""
    images = np.stack([_images(generator).numpy() for generator in generators])
    count = images.shape[1]
    sources = np.tile(np.arange(count), len(images))
    graph = coo_array((np.ones(sources.size, dtype=np.int8), (sources, images.ravel())), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[inverse.reshape(-1)])


def symmetric_group_generators(n: int) -> list[Int[Tensor, " n"]]:
    """A transposition and an n-cycle, which generate S_n."""
    things = torch.arange(n)
    swap = things.clone()
    swap[:2] = swap[:2].flip(0)
    return [swap, things.roll(-1)]


def on_tuples(sigma: Int[Tensor, " n"], k: int) -> Int[Tensor, " tuples"]:
    """How a permutation of n things moves their k-tuples, numbered in row-major order."""
    images = torch.zeros(1, dtype=torch.long)
    for _ in range(k):
        images = (images.unsqueeze(1) * sigma.numel() + sigma).flatten()
    return images


def on_subsets(sigma: Int[Tensor, " n"]) -> Int[Tensor, " subsets"]:
    """How a permutation of n things moves their 2^n subsets, numbered by sum of 2^i over the members i."""
    members = (torch.arange(2 ** sigma.numel()).unsqueeze(1) >> torch.arange(sigma.numel())) & 1
    return (members << sigma).sum(1)


def on_pairs(left: Int[Tensor, " m"], right: Int[Tensor, " n"]) -> Int[Tensor, " pairs"]:
    """How an element that moves two sets moves their pairs (a, b), numbered by a n + b."""
    return (left.unsqueeze(1) * right.numel() + right).flatten()


def equivariant_null_space(
    generators_in: Sequence[Tensor], generators_out: Sequence[Tensor]
) -> Float[Tensor, "dimension outputs inputs"]:
    """All W with W rho_in(g) = rho_out(g) W for every generator g, found numerically: an orthonormal basis, float64.

    The check on any basis found by thought; it solves a linear system in outputs x inputs unknowns, so for small
    cases only.

    Args:
        generators_in: Each a permutation (the images, whole numbers) or a matrix rho_in(g).
        generators_out: The same elements of the group, acting on outputs.

    Raises:
        ValueError: The lists do not match, or there are more than 4096 unknowns.
    """
    if len(generators_in) != len(generators_out) or not generators_in:
        raise ValueError(f"each generator acts on both sides; got {len(generators_in)} and {len(generators_out)}")
    into, out = ([_matrix(g) for g in side] for side in (generators_in, generators_out))
    inputs, outputs = into[0].size(0), out[0].size(0)
    if inputs * outputs > LARGEST_SYSTEM:
        raise ValueError(f"{outputs} x {inputs} unknowns; at most {LARGEST_SYSTEM} (use orbit_basis for permutations)")
    eye_in, eye_out = torch.eye(inputs, dtype=torch.float64), torch.eye(outputs, dtype=torch.float64)
    # vec(W), row by row: (I kron A^T) vec(W) = vec(W A) and (B kron I) vec(W) = vec(B W).
    system = [torch.kron(eye_out, a.mT.contiguous()) - torch.kron(b, eye_in) for a, b in zip(into, out, strict=True)]
    # The Gram matrix has the same null space at a fraction of the cost; its spectrum has a wide gap for small groups.
    values, vectors = torch.linalg.eigh(sum(block.mT @ block for block in system))
    null = vectors[:, values < 1e-9 * max(1.0, float(values[-1]))]
    return null.mT.reshape(-1, outputs, inputs)


def _moebius(partition: Partition) -> Iterator[tuple[Partition, int]]:
    """Every partition at least as coarse, with mu = product over blocks of (-1)^(m - 1) (m - 1)!, m blocks merged."""
    blocks = max(partition, default=-1) + 1
    for merge in set_partitions(blocks):
        sizes = [merge.count(block) for block in set(merge)]
        weight = math.prod((-1) ** (m - 1) * math.factorial(m - 1) for m in sizes)
        yield tuple(merge[block] for block in partition), weight


def _images(permutation: Tensor) -> Int[Tensor, " things"]:
    permutation = torch.as_tensor(permutation).long().cpu()
    if permutation.dim() != 1 or not torch.equal(permutation.sort().values, torch.arange(permutation.numel())):
        raise ValueError(f"not a permutation of 0..{permutation.numel() - 1}: {permutation.tolist()[:10]}")
    return permutation


def _matrix(g: Tensor) -> Float[Tensor, "d d"]:
    if g.dim() == 2:
        return g.double()
    images = _images(g)
    matrix = torch.zeros(images.numel(), images.numel(), dtype=torch.float64)
    matrix[images, torch.arange(images.numel())] = 1.0
    return matrix


def _checked(element: int, count: int) -> int:
    if not 0 <= element < count:
        raise IndexError(f"basis element {element}: there are {count}, numbered from 0")
    return element
