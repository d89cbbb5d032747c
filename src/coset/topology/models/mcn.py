r"""MCN: all equivariant linear maps between features on tuples of cells. For small complexes.

Eitan et al., ICLR 2025. A multi-cellular cochain space C^k has features on tuples with k_r cells of rank r. The group
prod_r S_{n_r} permutes the cells of each rank, so the equivariant maps C^k -> C^l are products over r of the maps
between tuples of cells of rank r, and their number is prod_r Bell(k_r + l_r):

    L x = sum over products of partitions of the l_r + k_r places of w * (diagonals, means and copies)

Means take the place of sums over indices, so that features keep their size on larger complexes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product as choices
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.symmetry import set_partitions

Space = tuple[int, ...]
"""k: how many cells of each rank a tuple holds; axes come rank by rank."""

LARGEST = 6


class MCNLinear(nn.Module):
    """The linear maps C^k -> C^l, with biases.

    Args:
        inputs: k.
        outputs: l, of as many ranks.
        channels_in: Columns in.
        channels_out: Columns out.
        bias: Add the equivariant constants, prod_r Bell(l_r) of them.

    Raises:
        ValueError: The multi-indices do not match or are too large.
    """

    def __init__(self, inputs: Space, outputs: Space, channels_in: int, channels_out: int, bias: bool = True):
        super().__init__()
        if len(inputs) != len(outputs):
            raise ValueError(f"k={inputs} and l={outputs} must count cells of the same ranks")
        if sum(inputs) + sum(outputs) > LARGEST:
            raise ValueError(f"k={inputs}, l={outputs}: more than {LARGEST} places together are too many maps")
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.patterns = _patterns(outputs, inputs)
        self.constants = _patterns(outputs, (0,) * len(outputs)) if bias else []
        self.weight = nn.Parameter(torch.empty(len(self.patterns), channels_in, channels_out))
        self.bias = nn.Parameter(torch.zeros(len(self.constants), channels_out)) if bias else None
        nn.init.normal_(self.weight, std=(len(self.patterns) * channels_in) ** -0.5)

    def forward(
        self, x: Float[Tensor, "*inputs channels"], sizes: Sequence[int]
    ) -> Float[Tensor, "*outputs channels_out"]:
        """Apply to one complex.

        Args:
            x: Axes of cells, rank by rank, then channels.
            sizes: Cells of each rank.
        """
        expected = [n for n, k in zip(sizes, self.inputs, strict=True) for _ in range(k)]
        if list(x.shape[:-1]) != expected:
            raise ValueError(f"x must have axes {expected} and channels; its shape is {tuple(x.shape)}")
        shape = [n for n, k in zip(sizes, self.outputs) for _ in range(k)]
        result = x.new_zeros(*shape, self.weight.size(2))
        for pattern, weight in zip(self.patterns, self.weight):
            result = result + _apply(pattern, self.outputs, self.inputs, x, sizes) @ weight
        if self.bias is not None:
            one, none = x.new_ones(1), (0,) * len(self.outputs)
            for pattern, bias in zip(self.constants, self.bias):
                result = result + _apply(pattern, self.outputs, none, one, sizes) * bias
        return result


class MCNLayer(nn.Module):
    """sigma(sum over input spaces k of L_{k -> l} H_k) for every output space l.

    Args:
        inputs: Channels of every input space.
        outputs: Channels of every output space.
    """

    def __init__(self, inputs: Mapping[Space, int], outputs: Mapping[Space, int]):
        super().__init__()
        self.outputs = dict(outputs)
        self.maps = nn.ModuleDict(
            {
                _name(source, target): MCNLinear(source, target, inputs[source], outputs[target], bias=i == 0)
                for target in outputs
                for i, source in enumerate(inputs)
            }
        )

    def forward(self, h: Mapping[Space, Tensor], sizes: Sequence[int]) -> dict[Space, Tensor]:
        return {
            target: sum((self.maps[_name(k, target)](x, sizes) for k, x in h.items()), start=torch.zeros(())).relu()
            for target in self.outputs
        }


def equivariant_maps(inputs: Space, outputs: Space) -> int:
    """Dimension of the equivariant linear maps C^k -> C^l on large enough complexes: prod_r Bell(k_r + l_r)."""
    return len(_patterns(outputs, inputs))


def structure(sizes: Sequence[int], incidence: Mapping[tuple[int, int], Tensor]) -> dict[Space, Tensor]:
    """The incidence matrices of a complex as cochains of C^{e_low + e_high}, one channel."""
    ranks = range(len(sizes))
    found = {}
    for (low, high), index in incidence.items():
        matrix = torch.zeros(sizes[low], sizes[high], 1)
        matrix[index[0], index[1]] = 1
        found[tuple(int(rank in (low, high)) for rank in ranks)] = matrix
    return found


def _name(source: Space, target: Space) -> str:
    return "_".join(map(str, source)) + "__" + "_".join(map(str, target))


def _patterns(outputs: Space, inputs: Space) -> list[tuple[tuple[int, ...], ...]]:
    """One partition of the output and input places of every rank, in all ways."""
    return list(choices(*(list(set_partitions(out + into)) for out, into in zip(outputs, inputs))))


def _apply(
    pattern: tuple[tuple[int, ...], ...], outputs: Space, inputs: Space, x: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Diagonals and means over input places, copies and diagonals over output places."""
    letters, given, wanted = 0, [], []
    length: dict[int, int] = {}
    for partition, leading, n in zip(pattern, outputs, sizes):
        names = {block: letters + i for i, block in enumerate(dict.fromkeys(partition))}
        letters += len(names)
        length |= dict.fromkeys(names.values(), n)
        wanted += [names[block] for block in partition[:leading]]
        given += [names[block] for block in partition[leading:]]
    kept = [name for name in dict.fromkeys(wanted) if name in given]
    y = torch.einsum(x, [*given, letters], [*kept, letters])
    y = y / max(prod(length[name] for name in set(given) - set(kept)), 1)
    blocks = list(dict.fromkeys(wanted))
    y = y.reshape([length[b] if b in kept else 1 for b in blocks] + [-1])
    y = y.expand([length[b] for b in blocks] + [-1])
    if len(blocks) == len(wanted):
        return y
    grids = torch.meshgrid(*(torch.arange(length[b], device=x.device) for b in blocks), indexing="ij")
    where = tuple(grids[blocks.index(name)] for name in wanted)
    return y.new_zeros([length[name] for name in wanted] + [y.size(-1)]).index_put(where, y)
