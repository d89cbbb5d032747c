"""Layers of models one above the other: slices of a merge file that repeat, drop or move layers.

Layer n of the result is made of layer n - first + source.first of each source of its slice; what comes before all
layers is of the first slice's models, what comes after them of the last's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from coset.core.errors import CosetError
from coset.weights.merging.checkpoints import Checkpoint
from coset.weights.merging.merge_values import LAYER, Slice, layer_of, slice_of

DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def depth(checkpoint: Checkpoint) -> int:
    """Layers of a model: by its configuration, or else by the names of its tensors."""
    told = next((checkpoint.config[key] for key in DEPTHS if key in checkpoint.config), None)
    return int(told) if told is not None else 1 + max((layer_of(name) or 0 for name in checkpoint.files), default=0)


def moves(slices: Sequence[Slice], opened: Sequence[Checkpoint]) -> bool:
    """Whether the result has other layers than its models, or in another order."""
    if not slices:
        return False
    return slices[-1].last != depth(opened[0]) or any(s.moves(len(opened)) for s in slices)


@dataclass(frozen=True)
class Layers:
    """The tensors of a checkpoint, whose layers are called as those of the result are."""

    checkpoint: Checkpoint
    moved: int

    def name(self, name: str) -> str:
        """What the checkpoint calls a tensor of the result."""
        return LAYER.sub(lambda number: str(int(number.group()) + self.moved), name, count=1)

    def __getitem__(self, name: str) -> Tensor:
        return self.checkpoint[self.name(name)]


class Stack:
    """What a merge whose slices move layers is made of.

    Args:
        opened: The models.
        slices: One above the other.

    Raises:
        CosetError: A model has too few layers, several stacks of them, or a head.
    """

    def __init__(self, opened: Sequence[Checkpoint], slices: Sequence[Slice]):
        self.opened, self.slices = opened, slices
        for one in slices:
            for source in one.sources:
                self._check(opened[source.model], source.first + one.last - one.first)

    def _check(self, checkpoint: Checkpoint, last: int) -> None:
        there = depth(checkpoint)
        if last > there:
            raise CosetError(f"slices: layer_range ends at {last}, {checkpoint.folder} has {there} layers")
        stacks = {name[: number.start()] for name in checkpoint.files if (number := LAYER.search(name))}
        if len(stacks) != 1:
            found = ", ".join(sorted(stack.rstrip(".") for stack in stacks)) or "none"
            raise CosetError(f"slices that move layers need one list of layers; {checkpoint.folder} has {found}")
        if checkpoint.classes:
            raise CosetError(
                f"slices that move layers are for models without a head of classes, which {checkpoint.folder} has"
            )

    def sources(self, one: Slice) -> list[Layers]:
        """Of a slice, each with the layers that it gives."""
        return [Layers(self.opened[s.model], s.first - one.first) for s in one.sources]

    @cached_property
    def names(self) -> list[str]:
        """Of all tensors of the result."""
        found = []
        for one in self.slices:
            begin = self.sources(one)[0]
            for name in begin.checkpoint.files:
                number = layer_of(name)
                if number is None:
                    found += [name] if slice_of(name, self.slices) is one else []
                elif one.first <= number - begin.moved < one.last:
                    found.append(Layers(begin.checkpoint, -begin.moved).name(name))
        return found

    def first(self, name: str) -> Layers:
        """The first source of a tensor."""
        return self.sources(slice_of(name, self.slices))[0]

    def config(self) -> dict[str, Any]:
        """The first model's, with as many layers; lists with an entry a layer follow them."""
        config = dict(self.opened[0].config)
        before, picked = depth(self.opened[0]), []
        for one in self.slices:
            source = one.sources[0]
            own = self.opened[source.model].config
            picked += [(own, source.first + n) for n in range(one.last - one.first)]
        for key, value in config.items():
            if isinstance(value, list) and len(value) == before and re.search("layer", key):
                config[key] = [own[key][n] for own, n in picked]
        return config | {key: len(picked) for key in DEPTHS if key in config}
