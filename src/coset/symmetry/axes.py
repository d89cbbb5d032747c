"""Finite groups that move the entries of a dense tensor along its axes: permutations, shifts, reversals, turns.

Every action here permutes entries, so it is exact in any dtype. A permutation is stored by its images: sigma[i] is
where entry i goes, (sigma x)[sigma[i]] = x[i].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from coset.symmetry.actions import Action

Permutations = tuple[Int[Tensor, " _n"], ...]


class AxisPermutation(Action):
    """S_n on axes of a tensor: (sigma x)(sigma i, sigma j, ...) = x(i, j, ...).

    Jointly, one permutation moves all the axes (nodes of a graph in a pair tensor [n, n, C]); separately, each axis
    has its own (points and frames). On an output that has only some of the separately moved axes, ``None`` stands for
    an absent one: with inputs under ``AxisPermutation((0, 1), joint=False)``, their sums over the first axis are
    under ``AxisPermutation((None, 0), joint=False)``.

    Args:
        axes: The axes; negative ones count from the end.
        joint: Whether one permutation moves them all.
        name: For reports.
    """

    def __init__(self, axes: Sequence[int | None] = (0,), *, joint: bool = True, name: str | None = None):
        if joint and None in axes:
            raise ValueError(f"axes={tuple(axes)!r}: None marks an absent factor, which needs joint=False")
        self.axes, self.joint = tuple(axes), joint
        together = "jointly" if joint else "separately"
        plural = f"axes {self.axes} {together}" if len(self.axes) > 1 else f"axis {self.axes[0]}"
        self.name = name or f"S_n on {plural}"

    def _sizes(self, value: Tensor) -> list[int]:
        sizes = [value.size(axis) for axis in self.axes if axis is not None]
        if len(sizes) < len(self.axes):
            raise ValueError(f"{self.name}: an absent factor cannot be drawn; draw from the action on the inputs")
        if not self.joint:
            return sizes
        if len(set(sizes)) > 1:
            raise ValueError(f"{self.name}: axes moved jointly must be equally long; got {sizes}")
        return sizes[:1]

    def sample(self, value: Shaped[Tensor, "*shape"], generator: torch.Generator) -> Permutations:
        return tuple(torch.randperm(size, generator=generator) for size in self._sizes(value))

    def apply(self, element: Permutations, value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        if len(element) != (1 if self.joint else len(self.axes)):
            raise ValueError(f"{self.name}: cannot apply an element of {len(element)} permutations")
        factors = element * len(self.axes) if self.joint else element
        for axis, sigma in zip(self.axes, factors, strict=True):
            if axis is None:
                continue
            if value.size(axis) != sigma.numel():
                raise ValueError(
                    f"{self.name}: axis {axis} has {value.size(axis)} entries, the permutation {sigma.numel()}"
                )
            value = value.index_select(axis, sigma.argsort().to(value.device))
        return value

    def compose(self, g: Permutations, h: Permutations) -> Permutations:
        return tuple(a[b] for a, b in zip(g, h, strict=True))

    def inverse(self, g: Permutations) -> Permutations:
        return tuple(sigma.argsort() for sigma in g)

    def order(self, value: Tensor) -> int:
        return math.prod(math.factorial(size) for size in self._sizes(value))

    def elements(self, value: Tensor) -> Iterator[Permutations]:
        return itertools.product(*(all_permutations(size) for size in self._sizes(value)))


class PointPermutation(AxisPermutation):
    """Renumbering the points of a tensor, by default on its first axis: tracks [P, N, ...], clouds [P, 3]."""

    def __init__(self, axis: int = 0):
        super().__init__((axis,), name="S_P on points")


class FramePermutation(AxisPermutation):
    """Renumbering the frames of a tensor, by default on its second axis: tracks [P, N, ...]."""

    def __init__(self, axis: int = 1):
        super().__init__((axis,), name="S_N on frames")


class CyclicShift(Action):
    """Z_N on each of some axes: shifts that wrap round. By default the translations of an image [..., H, W]."""

    def __init__(self, axes: Sequence[int] = (-2, -1), name: str | None = None):
        self.axes = tuple(axes)
        self.name = name or f"cyclic shifts of axes {self.axes}"

    def sample(self, value: Shaped[Tensor, "*shape"], generator: torch.Generator) -> tuple[int, ...]:
        return tuple(int(torch.randint(max(value.size(axis), 1), (), generator=generator)) for axis in self.axes)

    def apply(self, element: tuple[int, ...], value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        return value.roll(element, self.axes)

    def compose(self, g: tuple[int, ...], h: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(a + b for a, b in zip(g, h, strict=True))

    def inverse(self, g: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(-shift for shift in g)

    def order(self, value: Tensor) -> int:
        return math.prod(value.size(axis) for axis in self.axes)

    def elements(self, value: Tensor) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(value.size(axis)) for axis in self.axes))


class Reversal(Action):
    """Z_2 on each of some axes: running through it backwards. Mirror images, time reversal."""

    def __init__(self, axes: Sequence[int] = (-1,), name: str | None = None):
        self.axes = tuple(axes)
        self.name = name or f"reversal of axes {self.axes}"

    def sample(self, value: Shaped[Tensor, "*shape"], generator: torch.Generator) -> tuple[bool, ...]:
        return tuple(bool(torch.randint(2, (), generator=generator)) for _ in self.axes)

    def apply(self, element: tuple[bool, ...], value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        return value.flip([axis for axis, reverse in zip(self.axes, element, strict=True) if reverse])

    def compose(self, g: tuple[bool, ...], h: tuple[bool, ...]) -> tuple[bool, ...]:
        return tuple(a != b for a, b in zip(g, h, strict=True))

    def inverse(self, g: tuple[bool, ...]) -> tuple[bool, ...]:
        return g

    def order(self, value: Tensor) -> int:
        return 2 ** len(self.axes)

    def elements(self, value: Tensor) -> Iterator[tuple[bool, ...]]:
        return itertools.product((False, True), repeat=len(self.axes))


class DihedralImage(Action):
    """D_4 on square images [..., H, W]: quarter turns and mirror images.

    The element (k, f) mirrors left and right if f = 1, then makes k quarter turns counter-clockwise.
    """

    name = "D_4 on images"
    flips: tuple[int, ...] = (0, 1)

    def _check(self, value: Tensor) -> None:
        if value.dim() < 2 or value.size(-1) != value.size(-2):
            raise ValueError(f"{self.name}: quarter turns need square images [..., H, H]; got {tuple(value.shape)}")

    def sample(self, value: Shaped[Tensor, "... h h"], generator: torch.Generator) -> tuple[int, int]:
        self._check(value)
        turns = torch.randint(4, (), generator=generator)
        flip = torch.randint(len(self.flips), (), generator=generator)
        return int(turns), int(flip)

    def apply(self, element: tuple[int, int], value: Shaped[Tensor, "... h h"]) -> Shaped[Tensor, "... h h"]:
        self._check(value)
        turns, flip = element
        return torch.rot90(value.flip(-1) if flip else value, turns, dims=(-2, -1))

    def compose(self, g: tuple[int, int], h: tuple[int, int]) -> tuple[int, int]:
        # A mirror image turns the other way: flip r^k = r^-k flip.
        turns = g[0] - h[0] if g[1] else g[0] + h[0]
        return turns % 4, (g[1] + h[1]) % 2

    def inverse(self, g: tuple[int, int]) -> tuple[int, int]:
        return g if g[1] else (-g[0] % 4, 0)

    def order(self, value: Tensor) -> int:
        return 4 * len(self.flips)

    def elements(self, value: Tensor) -> Iterator[tuple[int, int]]:
        self._check(value)
        return itertools.product(range(4), self.flips)


class CyclicImage(DihedralImage):
    """C_4 on square images [..., H, W]: quarter turns."""

    name = "C_4 on images"
    flips = (0,)


def all_permutations(size: int) -> Iterator[Int[Tensor, " n"]]:
    """All size! permutations, the identity first."""
    return (torch.tensor(images, dtype=torch.long) for images in itertools.permutations(range(size)))
