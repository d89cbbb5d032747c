r"""Aligning the neurons of two networks: weight matching and activation matching.

Ainsworth, Hayase, Srinivasa, "Git Re-Basin: Merging Models modulo Permutation Symmetries", ICLR 2023. Weight matching
maximises sum_k <w_a^k, P(w_b^k)> over permutations of the neurons of b by coordinate ascent: with all other groups
held, the best order of one is a linear assignment. Activation matching solves one assignment for each group on inner
products of activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.weights.permutations.groups import entries, permute
from coset.weights.permutations.spec import Neurons, Orders, PermutationSpec, State, Use

SWEEPS = 100
PROGRESS = 1e-12


def weight_matching(spec: PermutationSpec, first: State, second: State, *, seed: int = 0) -> Orders:
    """Orders of the second network's neurons that bring its weights closest to the first's.

    Args:
        spec: Of both networks.
        first: State dict of the one to match.
        second: State dict of the one to permute: ``permute(spec, second, orders)``.
        seed: Of the order in which groups are visited.

    Raises:
        CosetError: The networks do not have the parameters of the spec.
    """
    a, b = _numbers(spec, first), _numbers(spec, second)
    orders, generator = spec.identity(), torch.Generator().manual_seed(seed)
    for _ in range(SWEEPS):
        improved = False
        for number in torch.randperm(len(spec), generator=generator).tolist():
            group = spec.groups[number]
            others = {name: order for name, order in orders.items() if name != group.name}
            scores = affinity(spec, group, a, permute(spec, b, others))
            old = float(scores.gather(1, orders[group.name][:, None]).sum())
            order = assign(scores)
            new = float(scores.gather(1, order[:, None]).sum())
            if new > old + PROGRESS * max(1.0, abs(old)):
                before = objective(spec, a, permute(spec, b, orders)) if _both_axes(spec, group) else None
                trial = {**orders, group.name: order}
                if before is None or objective(spec, a, permute(spec, b, trial)) > before:
                    orders, improved = trial, True
        if not improved:
            break
    return orders


def objective(spec: PermutationSpec, first: State, second: State) -> float:
    """sum_k <w_a^k, w_b^k> over all parameters that the spec touches; running statistics do not count."""
    return float(sum((first[name].double() * second[name].double()).sum() for name in spec.axes() if _counts(name)))


def activation_matching(spec: PermutationSpec, model: nn.Module, first: State, second: State, inputs: Any) -> Orders:
    """Orders of the second network's neurons that bring its activations closest to the first's.

    For each group, the outputs of the layers that make it (before norms), uncentred, over all inputs and positions, of
    every call; groups without such layers (channels inside attention) keep their order.

    Args:
        spec: Of both networks.
        model: Their architecture.
        first: State dict of the one to match.
        second: State dict of the one to permute.
        inputs: One positional input, or a tuple of them.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    a, b = (_activations(spec, model, state, arguments) for state in (first, second))
    orders = spec.identity()
    for group in spec.groups:
        pairs = [(a[name], b[name]) for name in group.modules if name in a]
        if pairs:
            orders[group.name] = assign(sum(x.T @ y for x, y in pairs))  # type: ignore[arg-type]
    return orders


def _activations(
    spec: PermutationSpec, model: nn.Module, state: State, arguments: tuple[Any, ...]
) -> dict[str, Float[Tensor, "samples channels"]]:
    sizes = {name: group.size for group in spec.groups for name in group.modules}
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            axis = 1 if isinstance(module, nn.modules.conv._ConvNd) else -1
            rows = output.movedim(axis, -1).reshape(-1, sizes[name]).double()
            found[name] = torch.cat([found[name], rows]) if name in found else rows

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in sizes]
    try:
        with torch.no_grad():
            torch.func.functional_call(model.eval(), dict(state), arguments, tie_weights=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _numbers(spec: PermutationSpec, state: State) -> dict[str, Tensor]:
    missing = [name for name in spec.axes() if name not in state]
    if missing:
        raise CosetError(f"the network lacks {missing[0]}: match plain networks of one architecture")
    return {name: state[name].detach().double() for name in spec.axes() if _counts(name)} | {
        name: state[name] for name in spec.axes() if not _counts(name)
    }


def affinity(
    spec: PermutationSpec, group: Neurons, a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> Float[Tensor, "n n"]:
    """Of each neuron of one network and each of another: the inner product of all that belongs to them."""
    total = torch.zeros(group.size, group.size, dtype=torch.float64)
    for use in group.uses:
        if _counts(use.parameter):
            total += _rows(a, group, use) @ _rows(b, group, use).T
    return total


def _rows(state: Mapping[str, Tensor], group: Neurons, use: Use) -> Float[Tensor, "n entries"]:
    stretch = entries(group.size, use, torch.arange(group.size))
    return state[use.parameter].index_select(use.axis, stretch).movedim(use.axis, 0).reshape(group.size, -1)


def assign(affinity: Float[Tensor, "n n"]) -> Int[Tensor, " n"]:
    """For each row the column, each once, so that the sum is largest."""
    _, columns = linear_sum_assignment(affinity.cpu().numpy(), maximize=True)
    return torch.from_numpy(np.ascontiguousarray(columns))


def _both_axes(spec: PermutationSpec, group: Neurons) -> bool:
    """Whether some matrix has the group on two axes: then its assignment problem is only an approximation."""
    parameters = [use.parameter for use in group.uses]
    return len(set(parameters)) < len(parameters)


def _counts(parameter: str) -> bool:
    return not parameter.endswith(("running_mean", "running_var"))
