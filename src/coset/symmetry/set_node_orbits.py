r"""Linear maps on tensors indexed by (set of nodes, node) that commute with S_n: a complete basis.

Bar-Shalom, Eitan, Frasca, Maron, "A Flexible, Equivariant Framework for Subgraph GNNs via Graph Products and Graph
Coarsening", NeurIPS 2024. S_n acts on P([n]) x [n] by sigma (S, i) = (sigma(S), sigma(i)). The orbit of a quadruple
(S, i; S', i') of output and input indices is told by

    |S|,  |S'|,  |S n S'|,  whether i = i',  in which of the regions S n S', S \ S', S' \ S, outside i lies,  and i',

so the indicators of these values are a basis: 2 n (n + 1) (5 n - 2) / 3 maps over all subsets, 15 between singletons
(those of Maron et al. 2019), 35 between sets of two nodes. Invariant functionals are told by |S| and whether i is in S.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from coset.symmetry.orbits import OrbitBasis, on_pairs, on_subsets, orbit_basis, symmetric_group_generators

BOTH, OUTPUT_ONLY, INPUT_ONLY, OUTSIDE = range(4)
"""Regions of the nodes: in S and S', in S only, in S' only, in neither."""


class SetNodeOrbit(NamedTuple):
    """What tells an orbit of quadruples (S, i; S', i'), output indices first.

    Attributes:
        output_size: \\|S\\|.
        input_size: \\|S'\\|.
        shared: Nodes in both.
        same: i = i'.
        output_region: Where i lies.
        input_region: Where i' lies.
    """

    output_size: int
    input_size: int
    shared: int
    same: bool
    output_region: int
    input_region: int

    @property
    def is_point(self) -> bool:
        """Whether it carries X(S', i) to (S, i) with i in S': the maps of the point-wise update."""
        return self.same and self.input_region in (BOTH, INPUT_ONLY)


def set_node_orbit(output_set: Collection[int], i: int, input_set: Collection[int], j: int) -> SetNodeOrbit:
    """The orbit of (S, i; S', j)."""
    shared = len(set(output_set) & set(input_set))

    def region(node: int) -> int:
        return 2 * (node not in output_set) + (node not in input_set)

    return SetNodeOrbit(len(set(output_set)), len(set(input_set)), shared, i == j, region(i), region(j))


def set_node_orbits(n: int) -> Iterator[SetNodeOrbit]:
    """All orbits over the subsets of n nodes, the empty one included."""
    for size in range(n + 1):
        for other in range(n + 1):
            for shared in range(max(0, size + other - n), min(size, other) + 1):
                regions = (shared, size - shared, other - shared, n - size - other + shared)
                filled = [region for region, count in enumerate(regions) if count]
                for i in filled:
                    for j in filled:
                        if i == j:
                            yield SetNodeOrbit(size, other, shared, True, i, j)
                        if i != j or regions[i] > 1:
                            yield SetNodeOrbit(size, other, shared, False, i, j)


def count_set_node_orbits(n: int) -> int:
    """Number of these orbits: 4, 32, 104, 240, 460, 784 for 1 to 6 nodes."""
    return 2 * n * (n + 1) * (5 * n - 2) // 3


def set_node_basis(n: int, output_size: int | None = None, input_size: int | None = None) -> OrbitBasis:
    """The basis found without thought, from generators of S_n: at most some thousands of pairs (S, i) on each side.

    Rows and columns are the pairs (S, i), sets numbered by sum of 2^node over their members
    (:func:`coset.symmetry.on_subsets`), i running fastest.

    Args:
        n: Nodes.
        output_size: Only sets of this size on the output side (in the order of their numbers).
        input_size: The same for the input side.
    """
    sigmas = symmetric_group_generators(n)
    moved = {size: [_moves(sigma, size) for sigma in sigmas] for size in {output_size, input_size}}
    return orbit_basis(moved[output_size], moved[input_size])


def subsets_of_size(n: int, size: int | None = None) -> Int[Tensor, " subsets"]:
    """Numbers of the subsets of n nodes, all of them or those of one size."""
    numbers = torch.arange(2**n)
    if size is None:
        return numbers
    return numbers[((numbers.unsqueeze(1) >> torch.arange(n)) & 1).sum(1) == size]


def _moves(sigma: Int[Tensor, " n"], size: int | None) -> Int[Tensor, " pairs"]:
    kept = subsets_of_size(sigma.numel(), size)
    rank = torch.full((2 ** sigma.numel(),), -1)
    rank[kept] = torch.arange(kept.numel())
    return on_pairs(rank[on_subsets(sigma)[kept]], sigma)
