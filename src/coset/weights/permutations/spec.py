"""What a description of permutations is: groups of neurons, and the stretches of parameters that they move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
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


def entries(group_size: int, use: Use, order: Int[Tensor, " n"]) -> Int[Tensor, " entries"]:
    """Positions on the axis of a use, in their new order."""
    return (use.start + order[:, None] * use.repeat + torch.arange(use.repeat)).flatten()


def permute(spec: PermutationSpec, state: State, orders: Orders) -> dict[str, Tensor]:
    """The same network with its neurons in another order.

    Args:
        spec: Of the network.
        state: Its state dict; names that the spec does not know are passed on.
        orders: Of some of its groups.
    """
    moved = dict(state)
    for group in spec.groups:
        if group.name not in orders:
            continue
        for use in group.uses:
            value = moved[use.parameter]
            index = torch.arange(value.size(use.axis))
            index[entries(group.size, use, torch.arange(group.size))] = entries(group.size, use, orders[group.name])
            moved[use.parameter] = value.index_select(use.axis, index.to(value.device))
    return moved
