"""What is known of a value inside a network, and the groups of neurons that its channels belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from coset.weights.permutations.spec import Neurons, Use


@dataclass(frozen=True)
class Channels:
    """What is known of a value.

    Attributes:
        segments: (group, repeat) along the axis of its channels. ``repeat`` is 0 where flattening spread the channels
            over a number of entries that only the next layer tells.
        axis: Of the channels: 1 where others follow, else -1.
        rank: How many axes the value has, ``None`` where that is not known; -1 of rank 2 is ``[batch, channels]``.
    """

    segments: tuple[tuple[int, int], ...]
    axis: int = -1
    rank: int | None = None


def segments_of(value: Any) -> list[tuple[int, int]]:
    """The segments of all that is in an argument."""
    if isinstance(value, Channels):
        return list(value.segments)
    if isinstance(value, tuple | list):
        return [segment for part in value for segment in segments_of(part)]
    if isinstance(value, dict):
        return segments_of(list(value.values()))
    if isinstance(value, slice):
        return segments_of([value.start, value.stop, value.step])
    return []


@dataclass(frozen=True)
class _Stretch:
    """A stretch of an axis of a parameter, and the group that moves it."""

    start: int
    stop: int
    repeat: int
    group: int

    def same(self, other: _Stretch) -> bool:
        return (self.start, self.stop, self.repeat) == (other.start, other.stop, other.repeat)

    def overlaps(self, other: _Stretch) -> bool:
        return self.start < other.stop and other.start < self.stop


class Groups:
    """Classes of neurons under union, with sizes, uses, and whether they are pinned.

    Args:
        names: Of a tensor that has several (tied weights) all of them, by each.
    """

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.same_tensor = names
        self.parent: list[int] = []
        self.size: list[int] = []
        self.pinned: list[bool] = []
        self.uses: list[list[Use]] = []
        self.modules: list[list[str]] = []
        self.names: list[str] = []
        self.stretches: dict[tuple[str, int], list[_Stretch]] = {}

    def new(self, size: int, name: str, pinned: bool = False) -> int:
        self.parent.append(len(self.parent))
        self.size.append(size)
        self.pinned.append(pinned)
        self.uses.append([])
        self.modules.append([])
        self.names.append(name)
        return len(self.parent) - 1

    def find(self, group: int) -> int:
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def join(self, a: int, b: int) -> None:
        first, second = sorted((self.find(a), self.find(b)))
        if first != second:
            self.parent[second] = first
            self.pinned[first] |= self.pinned[second]
            self.uses[first] += self.uses[second]
            self.modules[first] += self.modules[second]

    def pin(self, value: Any) -> None:
        for group, _ in segments_of(value):
            self.pinned[self.find(group)] = True

    def claim(self, group: int, use: Use) -> None:
        """A stretch of a parameter moves with a group.

        A layer that is called twice, or is tied to another, has one stretch for two groups: they can only be permuted
        alike. Where two calls divide the axis differently, both stay where they are.
        """
        names = self.same_tensor.get(use.parameter, [use.parameter])
        self.uses[self.find(group)] += [replace(use, parameter=name) for name in names]
        own = _Stretch(use.start, use.start + self.size[group] * use.repeat, use.repeat, group)
        stretches = self.stretches.setdefault((names[0], use.axis), [])
        for other in stretches:
            if own.same(other):
                self.join(group, other.group)
            elif own.overlaps(other):
                self.pin(Channels(((group, 1), (other.group, 1))))
        stretches.append(own)

    def freeze(self, parameter: str, axis: int, size: int) -> None:
        """Nothing on an axis of a parameter moves, whoever else uses it."""
        self.claim(self.new(1, parameter, pinned=True), Use(parameter, axis, 0, size))

    def found(self) -> tuple[Neurons, ...]:
        """What can be permuted."""
        return tuple(
            Neurons(
                self.names[group], self.size[group], tuple(dict.fromkeys(self.uses[group])),
                tuple(dict.fromkeys(self.modules[group])),
            )
            for group in range(len(self.parent))
            if self.find(group) == group and not self.pinned[group] and self.size[group] > 1 and self.uses[group]
        )  # fmt: skip


def names_by_tensor(model: nn.Module) -> dict[str, list[str]]:
    """For each name in a module all names of the same tensor."""
    names: dict[int, list[str]] = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    return {name: some for some in names.values() for name in some}
