"""Merged after a matching of features, by their activations or by weights alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coset.weights.merging.alignment import align, reorder
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
from coset.weights.permutations.matching import weight_matching
from coset.weights.permutations.spec import Neurons, PermutationSpec, Use


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
        for spec in matching_specs(wiring):
            if not len(spec):
                continue
            orders = weight_matching(spec, first, state, seed=seed)
            full = _space_orders(wiring, spec, orders)
            state = reorder(wiring, state, full)
            order = order[full[wiring.output]]
        made.append(rebuilt(teacher, state, order))
    return made


def matching_specs(wiring: Wiring) -> tuple[PermutationSpec, PermutationSpec]:
    """What may be permuted: first features and whole heads, then channels inside each head."""
    outer, inner = [], []
    for space, width in wiring.widths.items():
        heads = wiring.heads.get(space)
        if heads is None:
            outer.append(Neurons(space, width, tuple(_uses(wiring, {space}))))
            continue
        size = width // heads
        for h in range(heads):
            uses = tuple(Use(u.parameter, u.axis, h * size) for u in _uses(wiring, {space}))
            inner.append(Neurons(f"{space}:{h}", size, uses))
    # Query-key and value channels of one layer belong to the same heads.
    for spaces in wiring.layers_of_heads():
        heads, width = wiring.heads[spaces[0]], wiring.widths[spaces[0]]
        uses = tuple(Use(u.parameter, u.axis, 0, width // heads) for u in _uses(wiring, set(spaces)))
        outer.append(Neurons(f"{spaces[0].rpartition('.')[0]}:heads", heads, uses))
    return PermutationSpec(tuple(outer)), PermutationSpec(tuple(inner))


def _uses(wiring: Wiring, spaces: set[str]) -> list[Use]:
    uses = []
    for slot in wiring.slots:
        if slot.writes in spaces:
            uses.append(Use(slot.weight, -1 if slot.table else 0))
            if slot.bias:
                uses.append(Use(slot.bias, 0))
        if slot.reads in spaces:
            uses.append(Use(slot.weight, 1))
    for norm in wiring.norms:
        if norm.space in spaces:
            uses += [Use(norm.weight, 0), Use(norm.bias, 0)]
    return uses


def _space_orders(wiring: Wiring, spec: PermutationSpec, orders: Mapping[str, Tensor]) -> dict[str, Tensor]:
    full = {space: torch.arange(width) for space, width in wiring.widths.items()}
    for group in spec.groups:
        name, _, part = group.name.partition(":")
        order = orders[group.name]
        if part == "heads":
            for space in (s for s in wiring.heads if s.rpartition(".")[0] == name):
                size = wiring.widths[space] // wiring.heads[space]
                full[space] = (order[:, None] * size + torch.arange(size)).flatten()
        elif part:
            start = int(part) * group.size
            full[name][start : start + group.size] = start + order
        else:
            full[name] = order
    return full
