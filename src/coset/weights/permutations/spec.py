r"""Which entries of which parameters a permutation of neurons moves, and the action on state dicts.

A hidden layer of n neurons carries S_n: permuting the rows that produce them, everything that acts on them one by one
(biases, norms), and the columns that read them, leaves the function alone. A :class:`PermutationSpec` says where these
entries are, whoever found that out: :mod:`~coset.weights.permutations.tracing` by following a module, a
:class:`~coset.weights.merging.wiring.Wiring` because it was written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from coset.symmetry import Action

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


class NeuronPermutation(Action):
    """prod_g S_{n_g} on the state dict of a network: the group under which its function is invariant.

    An element holds, for each group, where every neuron goes.

    Args:
        spec: Of the network.
    """

    def __init__(self, spec: PermutationSpec):
        self.spec = spec
        self.name = "neurons: " + " x ".join(f"S_{g.size}" for g in spec.groups)

    def sample(self, value: State, generator: torch.Generator) -> Orders:
        return {g.name: torch.randperm(g.size, generator=generator) for g in self.spec.groups}

    def apply(self, element: Orders, value: State) -> dict[str, Tensor]:
        return permute(self.spec, value, {name: sigma.argsort() for name, sigma in element.items()})

    def compose(self, g: Orders, h: Orders) -> Orders:
        return {name: g[name][h[name]] for name in g}

    def inverse(self, g: Orders) -> Orders:
        return {name: sigma.argsort() for name, sigma in g.items()}
