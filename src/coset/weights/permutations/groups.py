r"""Which entries of which parameters a permutation of neurons moves, read off a network.

A hidden layer of n neurons carries S_n: permuting the rows that produce them, everything that acts on them one by one
(biases, norms), and the columns that read them, leaves the function alone. :func:`permutation_spec` traces a module
with ``torch.fx`` and follows the channels of every value: additions and other entrywise operations join the groups of
their operands, and so do layers that are called more than once or tied; inputs and outputs are pinned, and so is
whatever passes through an operation that is not known here. Pinning is always safe: it only gives up permutations.
What a graph does not show is how many axes a value has: an example of the inputs tells.

Known: Linear, Conv1d to 3d, MultiheadAttention (query-key and value-output channels of each head),
TransformerEncoderLayer, Embedding, BatchNorm, LayerNorm, GroupNorm(1), InstanceNorm, activations, pooling, dropout,
flattening, concatenation of channels, PyG's SimpleConv, GCNConv, SAGEConv, GraphConv, GINConv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coset.symmetry import Action
from coset.weights.layers.fixed_entries import FixedEntries
from coset.weights.permutations.spec import Neurons, Orders, PermutationSpec, State, Use, entries, permute
from coset.weights.permutations.tracing import trace_channels


def permutation_spec(model: nn.Module, example: tuple[Any, ...] | None = None) -> PermutationSpec:
    """The groups of neurons of a module, by names of its (plain) parameters.

    Args:
        model: The module.
        example: Inputs of it, which are run through it: they tell how many axes every value has. Without them
            convolutions are taken to read batches, and BatchNorm behind a Linear layer ``[batch, channels]``.

    Raises:
        CosetError: The module cannot be traced.
    """
    return PermutationSpec(trace_channels(model, example))


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


def surviving_symmetries(model: nn.Module, spec: PermutationSpec) -> list[str]:
    """Groups of a W-asymmetric network of which the fixed entries do not exclude every permutation.

    A permutation family maps the family of networks to itself iff it maps positions and values of fixed entries to
    themselves. Starting from pinned inputs, a group is excluded where two of its neurons never have the same fixed
    entries towards axes that are settled already. For a standard network all groups survive; an empty answer is a
    proof that there is no permutation symmetry.
    """
    constants = _constants(model)
    settled: set[str] = set()
    axes = spec.axes()
    while True:
        before = len(settled)
        for group in spec.groups:
            if group.name not in settled and any(
                _tells_apart(group, use, constants, axes, settled) for use in group.uses if use.parameter in constants
            ):
                settled.add(group.name)
        if len(settled) == before:
            return [group.name for group in spec.groups if group.name not in settled]


def _constants(model: nn.Module) -> dict[str, Tensor]:
    """For each parametrized weight its fixed entries, NaN where an entry is trained."""
    found = {}
    for name, module in model.named_modules():
        for tensor, chain in getattr(module, "parametrizations", {}).items():
            if isinstance(chain[0], FixedEntries):
                blank = torch.full_like(chain.original.detach(), torch.nan)
                found[f"{name}.{tensor}".lstrip(".")] = chain[0](blank)
    return found


def _tells_apart(
    group: Neurons, use: Use, constants: Mapping[str, Tensor], axes: Mapping[str, Sequence[tuple[Neurons, Use]]],
    settled: set[str],
) -> bool:  # fmt: skip
    """Whether the rows of the neurons differ, read along settled positions of the other axes only."""
    value = constants[use.parameter]
    for other, there in axes[use.parameter]:
        if there.axis != use.axis and other.name not in settled:
            hidden = entries(other.size, there, torch.arange(other.size))
            value = value.index_fill(there.axis, hidden.to(value.device), torch.nan)
    rows = value.movedim(use.axis, 0)[entries(group.size, use, torch.arange(group.size))].reshape(group.size, -1)
    pattern = torch.cat([rows.isnan().double(), rows.nan_to_num().double()], 1)
    return bool(torch.unique(pattern, dim=0).size(0) == group.size)
