"""Merged after a matching of features, by their activations or by weights alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coset.weights.merging.alignment import align
from coset.weights.merging.averages import average
from coset.weights.merging.encoders import Inputs, join
from coset.weights.merging.methods import merge_method
from coset.weights.merging.teachers import (
    Merged,
    Teacher,
    check_teachers,
    rebuilt,
)
from coset.weights.permutations.matching import weight_matching
from coset.weights.permutations.spec import permute


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
    """The same by weights alone: streams, hidden units and whole heads, then the channels inside heads."""
    wiring = check_teachers(teachers)
    first = {n: p.detach() for n, p in teachers[0].encoder.named_parameters()}
    made = [teachers[0]]
    for teacher in teachers[1:]:
        state: dict[str, Tensor] = {n: p.detach() for n, p in teacher.encoder.named_parameters()}
        order = torch.arange(wiring.widths[wiring.output])
        for spec in wiring.permutations():
            orders = weight_matching(spec, first, state, seed=seed)
            state = permute(spec, state, orders)
            order = order[orders.get(wiring.output, torch.arange(len(order)))]
        made.append(rebuilt(teacher, state, order))
    return made
