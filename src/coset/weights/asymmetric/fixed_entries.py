r"""Fixed entries of weight matrices: which they are, what they hold, and a parametrisation that keeps them so.

Lim, Putterman, Walters, Maron, Jegelka, "The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof",
NeurIPS 2024 (arXiv 2405.20231). A linear map is W' = M * W + (1 - M) * F entrywise, where M in {0, 1} has the same
number of zeros in every row and F holds constants. Rows of M that differ from one another leave no permutation of
neurons that maps the family of networks to itself.

M and F are kept as positions and values of the fixed entries: 12 bytes for each, not two dense matrices. Because W'
is computed from W at every use, the gradient of a fixed entry is exactly zero, and no optimiser can move one.
"""

from __future__ import annotations

import hashlib
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coset.core.errors import CosetError

REDRAWS = 1000


class FixedEntries(nn.Module):
    """The parametrisation W -> W' of a weight, for :func:`torch.nn.utils.parametrize.register_parametrization`.

    Args:
        index: Positions of the fixed entries in the flattened weight.
        values: What they hold.
    """

    fixes_entries = True
    """By this whoever looks for symmetries knows it."""
    index: Tensor
    values: Tensor

    def __init__(self, index: Int[Tensor, " fixed"], values: Float[Tensor, " fixed"]):
        super().__init__()
        self.register_buffer("index", index)
        self.register_buffer("values", values)

    def forward(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return weight.flatten().scatter(0, self.index, self.values.to(weight.dtype)).view_as(weight)

    def right_inverse(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Assigning to the weight of a module sets the trainable entries; the fixed ones stay."""
        return self.forward(weight)

    def extra_repr(self) -> str:
        return f"{self.index.numel()} fixed"


def named_generator(seed: int, name: str) -> torch.Generator:
    """Random numbers that depend on a seed and a name and on nothing else, such as the process or the machine."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def random_subsets(
    rows: int, fan_in: int, n_fix: int, generator: torch.Generator, name: str = "weight"
) -> Int[Tensor, "rows n_fix"]:
    """For each row, ``n_fix`` of ``fan_in`` positions drawn without replacement, no two rows alike.

    Where all positions are taken (``n_fix = fan_in``) rows cannot differ; the values of the entries must tell them
    apart then.

    Raises:
        CosetError: There are fewer subsets than rows, or an impossible number of entries.
    """
    if not 0 < n_fix <= fan_in:
        raise CosetError(f"{name}: n_fix={n_fix} must lie between 1 and the fan-in {fan_in}")
    if n_fix == fan_in:
        return torch.arange(fan_in).repeat(rows, 1)
    if math.comb(fan_in, n_fix) < rows:
        raise CosetError(
            f"{name}: n_fix={n_fix} of {fan_in} entries gives {math.comb(fan_in, n_fix)} different rows, "
            f"fewer than {rows}; fix another number of entries"
        )
    chosen = _draw(rows, fan_in, n_fix, generator)
    for _ in range(REDRAWS):
        _, group = torch.unique(chosen, dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), rows).scatter_reduce(0, group, torch.arange(rows), "amin")
        again = first[group] != torch.arange(rows)
        if not again.any():
            return chosen
        chosen[again] = _draw(int(again.sum()), fan_in, n_fix, generator)
    # Nearly all subsets are needed: list them.
    return _all_subsets(fan_in, n_fix)[torch.randperm(math.comb(fan_in, n_fix), generator=generator)[:rows]]


def densest_subsets(rows: int, fan_in: int) -> list[tuple[int, ...]]:
    """The fewest fixed entries that make rows distinct: none, then each single one, then each pair, and so on.

    Raises:
        CosetError: There are more rows than subsets.
    """
    if rows > 2**fan_in:
        raise CosetError(f"{rows} rows cannot differ by which of {fan_in} entries are fixed")
    found: list[tuple[int, ...]] = []
    for size in range(fan_in + 1):
        if len(found) >= rows:
            break
        found += [tuple(row) for row in _all_subsets(fan_in, size).tolist()]
    return found[:rows]


def fixed_entries(
    weight: Tensor, n_fix: int, kappa: float, seed: int, name: str, whole_filters: bool = False
) -> FixedEntries:
    """Fixed entries for a weight ``[out, in, ...]``: as many in each row, values N(0, kappa^2).

    Args:
        weight: What is to be fixed in part.
        n_fix: Entries of each row, or input channels with ``whole_filters``.
        kappa: Standard deviation of the values.
        seed: Of positions and values.
        name: Of the weight: each has its own random numbers.
        whole_filters: Fix whole kernels of a convolution.
    """
    generator = named_generator(seed, name)
    rows, kernel = weight.size(0), math.prod(weight.shape[2:])
    units, width = (weight.size(1), kernel) if whole_filters else (weight.size(1) * kernel, 1)
    chosen = random_subsets(rows, units, n_fix, generator, name)
    within = (chosen[:, :, None] * width + torch.arange(width)).flatten(1)
    index = (within + torch.arange(rows)[:, None] * units * width).flatten()
    values = kappa * torch.randn(index.numel(), generator=generator)
    return FixedEntries(index, values.to(weight.dtype)).to(weight.device)


def _draw(rows: int, fan_in: int, n_fix: int, generator: torch.Generator) -> Int[Tensor, "rows n_fix"]:
    return torch.rand(rows, fan_in, generator=generator).topk(n_fix, 1).indices.sort(1).values


def _all_subsets(fan_in: int, size: int) -> Tensor:
    return torch.combinations(torch.arange(fan_in), size) if size else torch.empty(1, 0, dtype=torch.long)
