"""Finite groups that permute the entries of an input, as index tables: orbits, their centres, distances between orbits.

A group acts on flattened inputs x [d] by (g x)[i] = x[table[g, i]]. The entries may be pixels, points of a set or steps
of a signal; every action of :mod:`coset.symmetry` that lists its elements and permutes entries makes a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coset.core.errors import CosetError
from coset.symmetry import Action, AxisPermutation, CyclicImage, CyclicShift, DihedralImage, Reversal, TrivialAction

MAX_ORDER = 1000
ACTIONS: dict[str, type[Action] | Any] = {
    "plain": TrivialAction,
    "flips": lambda: Reversal((-2, -1)),
    "c4": CyclicImage,
    "d4": DihedralImage,
    "shifts": CyclicShift,
    "sets": lambda: AxisPermutation((-2,)),
}
"""Groups by name: nothing, mirror images, quarter turns, both, translations that wrap round, orders of rows."""


class FiniteGroup(Action):
    """A finite group of permutations of d entries.

    Args:
        table: Row g says where each entry of g x comes from; the first row is the identity.
        name: As it stands in reports.
    """

    def __init__(self, table: Int[Tensor, "order d"], name: str):
        self.table, self.name = table, name
        if not torch.equal(table.sort(1).values, torch.arange(table.size(1)).expand_as(table)):
            raise CosetError(f"{name}: every row of a group's table must be a permutation of 0 to {table.size(1) - 1}")

    def __len__(self) -> int:
        return len(self.table)

    def orbit(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch order d"]:
        """All g x."""
        return x[..., self.table.to(x.device)]

    def back(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch order d"]:
        """All g^-1 x, in the order of g."""
        return x[..., self.table.argsort(1).to(x.device)]

    def folded(self, parts: Float[Tensor, "*batch order d"]) -> Float[Tensor, "*batch d"]:
        """sum_g g^-1 x_g of as many parts as there are elements: the adjoint of :meth:`orbit`."""
        inverse = self.table.argsort(1).to(parts.device)
        return parts.gather(-1, inverse.expand(parts.shape)).sum(-2)

    def matrices(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "order d d"]:
        """g x as a product of a matrix and x."""
        return torch.eye(self.table.size(1), dtype=dtype)[self.table]

    def on(self, basis: Float[Tensor, "d r"]) -> LinearGroup:
        """The action on coordinates in an orthonormal basis of a subspace that the group leaves as it is."""
        return LinearGroup(basis.T @ self.orbit(basis.T).permute(1, 2, 0), self.name)

    def centre(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The barycentre of the orbit, P x = 1/|G| sum_g g x: the part of x that every group element leaves."""
        return self.orbit(x).mean(-2)

    def projector(self) -> Float[Tensor, "d d"]:
        """P as a matrix, float64."""
        return self.centre(torch.eye(self.table.size(1), dtype=torch.float64))

    def symmetry_index(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """|P x|^2 / |x|^2, from 0 to 1: 1 for an input that every group element leaves as it is."""
        return self.centre(x).square().sum(-1) / x.square().sum(-1).clamp(min=torch.finfo(x.dtype).tiny)

    def self_similarity(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Largest correlation of x with a g x, g not the identity: 1 if any of them leaves x as it is."""
        if len(self) == 1:
            return torch.zeros(x.shape[:-1], dtype=x.dtype)
        z = standardise(x)
        return (self.orbit(z)[..., 1:, :] * z.unsqueeze(-2)).mean(-1).amax(-1)

    def correlation(
        self, x: Float[Tensor, "m d"], y: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "m n"], Int[Tensor, "m n"]]:
        """max_g corr(g x, y) of all pairs, and the element that reaches it; 0 where one is constant."""
        every = torch.einsum("mgd,nd->mng", self.orbit(standardise(x)), standardise(y)) / x.size(-1)
        best = every.max(-1)
        return best.values, best.indices

    def distance(self, x: Float[Tensor, "m d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "m n"]:
        """min_g |g x - y| of all pairs."""
        return torch.stack([torch.cdist(orbit, y) for orbit in self.orbit(x).unbind(1)]).amin(0)

    def sample(self, value: Any, generator: torch.Generator) -> int:
        return int(torch.randint(len(self), (), generator=generator))

    def apply(self, element: int, value: Tensor) -> Tensor:
        return value[..., self.table[element].to(value.device)]

    def compose(self, g: int, h: int) -> int:
        return self._number(self.table[h][self.table[g]])

    def inverse(self, g: int) -> int:
        return self._number(self.table[g].argsort())

    def order(self, value: Any) -> int:
        return len(self)

    def elements(self, value: Any) -> Iterator[int]:
        return iter(range(len(self)))

    def _number(self, permutation: Int[Tensor, " d"]) -> int:
        return int((self.table == permutation).all(1).nonzero()[0])


class LinearGroup:
    """A finite group of orthogonal matrices: what a :class:`FiniteGroup` is on a subspace.

    Args:
        table: Matrices, the identity first.
        name: As it stands in reports.
    """

    def __init__(self, table: Float[Tensor, "order r r"], name: str):
        self.table, self.name = table, name

    def __len__(self) -> int:
        return len(self.table)

    def orbit(self, x: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch order r"]:
        """All g x."""
        return torch.einsum("gab,...b->...ga", self.table.to(x), x)

    def back(self, x: Float[Tensor, "*batch r"]) -> Float[Tensor, "*batch order r"]:
        """All g^-1 x, in the order of g."""
        return torch.einsum("gab,...a->...gb", self.table.to(x), x)

    def folded(self, parts: Float[Tensor, "*batch order r"]) -> Float[Tensor, "*batch r"]:
        """sum_g g^-1 x_g."""
        return torch.einsum("gab,...ga->...b", self.table.to(parts), parts)

    def matrices(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "order r r"]:
        """The matrices."""
        return self.table.to(dtype)


def group_of(action: Action | str, shape: Sequence[int]) -> FiniteGroup:
    """The table of an action on inputs of one shape.

    Args:
        action: An action that permutes entries, or a key of :data:`ACTIONS`.
        shape: Of one input, e.g. ``(8, 8)``.

    Raises:
        CosetError: An unknown name, a group too large to list, or an action that does not permute entries.
    """
    if isinstance(action, str):
        if action not in ACTIONS:
            raise CosetError(f"group {action!r}: choose {', '.join(ACTIONS)}")
        action = ACTIONS[action]()
    assert isinstance(action, Action)
    entries = torch.arange(math.prod(shape)).view(*shape)
    try:
        order = action.order(entries)
        if order is None or order > MAX_ORDER:
            raise CosetError(f"{action.name} on inputs of shape {tuple(shape)}: more than {MAX_ORDER} elements to list")
        rows = [torch.as_tensor(action.apply(g, entries)).reshape(-1) for g in action.elements(entries)]
    except ValueError as error:
        raise CosetError(f"{action.name} on inputs of shape {tuple(shape)}: {error}") from error
    rows.sort(key=lambda row: not torch.equal(row, entries.view(-1)))
    return FiniteGroup(torch.stack(rows), action.name)


def standardise(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Mean 0 and deviation 1 over the entries; zeros for constant inputs."""
    centred = x - x.mean(-1, keepdim=True)
    deviation = centred.square().mean(-1, keepdim=True).sqrt()
    small = deviation <= 1e-12 * (1 + x.abs().amax(-1, keepdim=True))
    return torch.where(small, torch.zeros_like(x), centred / deviation.clamp(min=torch.finfo(x.dtype).tiny))
