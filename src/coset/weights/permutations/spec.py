"""What a description of permutations is: groups of neurons, and the stretches of parameters that they move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Orders = dict[str, Tensor]
"""For each group the neurons in their new order: the i-th new one is the ``order[i]``-th old one."""


@dataclass(frozen=True)
class Use:
    """A stretch of an axis that belongs to a group: ``repeat`` consecutive entries a neuron, beginning at ``start``."""

    parameter: str
    axis: int
    start: int = 0
    repeat: int = 1


@dataclass(frozen=True)
class Neurons:
    """Neurons that can be permuted together.

    Attributes:
        name: The layer that first makes them.
        size: How many.
        uses: Where their entries are.
        modules: Modules whose outputs are these neurons, for matching by activations.
    """

    name: str
    size: int
    uses: tuple[Use, ...]
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class PermutationSpec:
    """All groups of neurons of a network."""

    groups: tuple[Neurons, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def __str__(self) -> str:
        return " x ".join(f"S_{g.size} ({g.name})" for g in self.groups) or "no neurons that can be permuted"

    def axes(self) -> dict[str, list[tuple[Neurons, Use]]]:
        """The uses of each parameter."""
        found: dict[str, list[tuple[Neurons, Use]]] = {}
        for group in self.groups:
            for use in group.uses:
                found.setdefault(use.parameter, []).append((group, use))
        return found

    def identity(self) -> Orders:
        return {group.name: torch.arange(group.size) for group in self.groups}
