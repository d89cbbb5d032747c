r"""A batch of adapters as tensors: layers of equal shape are stacked, ranks are padded with zero columns.

``Factors`` is a tuple with one pair (U ``[batch, layers, n, r]``, V ``[batch, layers, m, r]``) for each shape (n, m).
Zero columns of U and V change no product U V^T, so that adapters of any ranks batch exactly. The group is GL(r) for
each layer of each adapter: (U, V) -> (U R, V R^-T).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from coset.core.errors import CosetError
from coset.symmetry import Action, GeneralLinear
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair

Factors = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the layers that a collection has in common, grouped by shape.

    Attributes:
        layers: For each group its shape (n, m) and the names in it.
    """

    groups: tuple[tuple[tuple[int, int], tuple[str, ...]], ...]

    @classmethod
    def of(cls, shapes: Iterable[tuple[str, tuple[int, int]]]) -> Layout:
        """Group layers by shape, in the order in which they come."""
        groups: dict[tuple[int, int], list[str]] = {}
        for name, (n, m) in shapes:
            groups.setdefault((int(n), int(m)), []).append(name)
        return cls(tuple((shape, tuple(names)) for shape, names in groups.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """All layers in the order of the groups."""
        return tuple(name for _, names in self.groups for name in names)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(n, m) by name."""
        return {name: shape for shape, names in self.groups for name in names}

    def factor_numbers(self, rank: int) -> int:
        """How many numbers the factors of one adapter hold."""
        return sum(len(names) * (n + m) * rank for (n, m), names in self.groups)

    def dense_numbers(self) -> int:
        """How many numbers its updates hold."""
        return sum(len(names) * n * m for (n, m), names in self.groups)

    def check(self, factors: Factors) -> None:
        """Raise ValueError unless the factors have these groups."""
        found = [(u.shape[-2], v.shape[-2], u.shape[-3]) for u, v in factors]
        wanted = [(n, m, len(names)) for (n, m), names in self.groups]
        if found != wanted:
            raise ValueError(f"factors of groups (n, m, layers) {wanted} were expected; got {found}")


def stack(adapters: Sequence[LoraAdapter], layout: Layout, rank: int | None = None) -> Factors:
    """Factors of these adapters with their scale inside; a layer that an adapter lacks is a zero update.

    Args:
        adapters: At least one.
        layout: Which layers, in which groups; others are left out.
        rank: To which ranks are padded; the largest one by default.

    Raises:
        CosetError: A layer has another shape, or a rank is larger than ``rank``.
    """
    if rank is None:
        rank = max(adapter.rank for adapter in adapters)
    groups = []
    for shape, names in layout.groups:
        pairs = [[padded(a, name, shape, rank) for name in names] for a in adapters]
        u, v = (torch.stack([torch.stack([pair[side] for pair in row]) for row in pairs]) for side in (0, 1))
        groups.append((u, v))
    return tuple(groups)


def padded(adapter: LoraAdapter, name: str, shape: tuple[int, int], rank: int) -> tuple[Tensor, Tensor]:
    """The factors of one layer, of exactly this rank."""
    pair = adapter.layers.get(name)
    if pair is None:
        return torch.zeros(shape[0], rank), torch.zeros(shape[1], rank)
    if pair.shape != shape:
        raise CosetError(f"{adapter.name}: {name} is {pair.shape}, elsewhere {shape}: another base model?")
    if pair.rank > rank:
        raise CosetError(f"{adapter.name}: {name} has rank {pair.rank}; at most {rank} was expected")
    u, v = pair.factors()
    return F.pad(u, (0, rank - pair.rank)), F.pad(v, (0, rank - pair.rank))


def unstack(factors: Factors, layout: Layout, names: Sequence[str]) -> list[LoraAdapter]:
    """Adapters again, with these names; the opposite of :func:`stack` up to zero columns."""
    layout.check(factors)
    adapters = []
    for row, called in enumerate(names):
        layers = {
            name: LoraPair(u[row, i], v[row, i])
            for (u, v), (_, group) in zip(factors, layout.groups, strict=True)
            for i, name in enumerate(group)
        }
        adapters.append(LoraAdapter(layers, called))
    return adapters


def select(factors: Factors, rows: Any) -> Factors:
    """Some of the adapters."""
    return tuple((u[rows], v[rows]) for u, v in factors)


def count(factors: Factors) -> int:
    """How many adapters."""
    return factors[0][0].size(0)


def pad_rank(factors: Factors, rank: int) -> Factors:
    """Zero columns added up to this rank."""
    return tuple(tuple(F.pad(t, (0, rank - t.size(-1))) for t in pair) for pair in factors)  # type: ignore[misc]


class LayerwiseGL(Action):
    """GL(r) on every layer of every adapter of a batch, independently.

    Args:
        condition: Largest condition number of an element; 1 draws from O(r).
    """

    def __init__(self, condition: float = 10.0):
        self.each = GeneralLinear(condition)
        self.name = "O(r) on every layer" if condition == 1 else "GL(r) on every layer"

    def sample(self, value: Factors, generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(self.each.sample(pair, generator) for pair in value)

    def apply(self, element: tuple[Tensor, ...], value: Factors) -> Factors:
        return tuple(self.each.apply(g, pair) for g, pair in zip(element, value, strict=True))

    def compose(self, g: tuple[Tensor, ...], h: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.each.compose(a, b) for a, b in zip(g, h, strict=True))

    def inverse(self, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.each.inverse(a) for a in g)


def regauge(factors: Factors, seed: int, condition: float = 10.0) -> Factors:
    """The same updates by other factors, computed in float64."""
    action = LayerwiseGL(condition)
    double: Factors = tuple((u.double(), v.double()) for u, v in factors)
    moved = action.apply(action.sample(double, torch.Generator().manual_seed(seed)), double)
    return tuple((u.to(x.dtype), v.to(y.dtype)) for (u, v), (x, y) in zip(moved, factors, strict=True))
