"""Merged after a matching of features, by their activations or by weights alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coset.weights.merging.alignment import align, assign_heads
from coset.weights.merging.averages import average
from coset.weights.merging.encoders import Inputs, join
from coset.weights.merging.methods import merge_method
from coset.weights.merging.teachers import (
    Merged,
    Teacher,
    check_teachers,
    rebuilt,
)
from coset.weights.merging.wiring import Wiring
from coset.weights.permutations.matching import affinity, weight_matching
from coset.weights.permutations.spec import Orders, permute


def matched_average(teachers: Sequence[Teacher], inputs: Sequence[Inputs] | None = None, *, seed: int = 0) -> Merged:
    """The mean after a matching: of activations if samples are given, of weights if not (Git Re-Basin)."""
    aligned = align_teachers(teachers, inputs) if inputs is not None else weight_aligned(teachers, seed)
    return average(aligned)


@merge_method("weight_matching")
def average_by_weights(teachers: Sequence[Teacher], seed: int = 0) -> Merged:
    """The mean after a matching of weights (Git Re-Basin)."""
    return matched_average(teachers, seed=seed)


@merge_method("activation_matching")
def average_by_activations(teachers: Sequence[Teacher], inputs: Sequence[Inputs]) -> Merged:
    """The mean after a matching of activations."""
    return matched_average(teachers, inputs)


def align_teachers(teachers: Sequence[Teacher], inputs: Sequence[Inputs]) -> list[Teacher]:
    """The same networks with features in the order of the first, by activations; heads follow."""
    check_teachers(teachers)
    states, outputs = align([t.encoder for t in teachers], join(inputs))
    return [rebuilt(t, s, order) for t, s, order in zip(teachers, states, outputs, strict=True)]


def weight_aligned(teachers: Sequence[Teacher], seed: int = 0) -> list[Teacher]:
    """The same by weights alone: streams, hidden units and whole heads first, then heads again by their best channels.

    As long as channels inside heads are in another order, whole heads say little about one another. So once streams are
    in order, every pair of heads is tried with the channels paired as well as may be; and all of it is done twice.
    """
    wiring = check_teachers(teachers)
    first = {n: p.detach() for n, p in teachers[0].encoder.named_parameters()}
    made = [teachers[0]]
    for teacher in teachers[1:]:
        state: dict[str, Tensor] = {n: p.detach() for n, p in teacher.encoder.named_parameters()}
        order = torch.arange(wiring.widths[wiring.output])
        for _ in range(2 if wiring.attention else 1):
            orders = weight_matching(wiring.permutations()[0], first, state, seed=seed)
            state = permute(wiring.permutations()[0], state, orders)
            order = order[orders.get(wiring.output, torch.arange(len(order)))]
            state = permute(wiring.features(), state, _heads_by_weights(wiring, first, state))
        made.append(rebuilt(teacher, state, order))
    return made


def _heads_by_weights(wiring: Wiring, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Orders:
    spec, orders = wiring.features(), Orders()
    alike = {g.name: affinity(spec, g, first, second) for g in spec.groups if g.name in wiring.heads}
    for layer in wiring.attention:
        orders |= assign_heads(layer, alike)
    return orders
