"""Merged by zipping: the most correlated features, within or across networks, become one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.weights.merging.alignment import activations, correlation, match
from coset.weights.merging.encoders import Inputs, join
from coset.weights.merging.methods import merge_method
from coset.weights.merging.teachers import (
    Merged,
    Teacher,
    check_teachers,
    fold_heads,
    rebuilt,
    states_of,
)
from coset.weights.merging.wiring import Blocks, combine, identities
from coset.weights.permutations.spec import permute


@merge_method("zipit")
def zipit(teachers: Sequence[Teacher], inputs: Sequence[Inputs]) -> Merged:
    """Greedy zipping: the two most correlated features, within or across networks, become one until d are left.

    Stoica et al., "ZipIt! Merging Models from Different Tasks without Training", ICLR 2024, without its partial zip:
    M averages the features of a group, U copies the group to its members. Channels of attention are paired across
    networks head by head instead, since zipping them within a network would tear heads apart.
    """
    ordered, merges, unmerges = zip_maps(teachers, inputs)
    wiring = teachers[0].encoder.wiring()
    encoder = teachers[0].encoder.resized(None)
    encoder.load_state_dict(combine(wiring, states_of(ordered), merges, unmerges))
    return Merged(encoder.eval(), fold_heads(ordered, list(unmerges[wiring.output])))


def zip_maps(
    teachers: Sequence[Teacher], inputs: Sequence[Inputs]
) -> tuple[list[Teacher], dict[str, Blocks], dict[str, Blocks]]:
    """Teachers with attention channels in the order of the first, and M and U^T of every space."""
    wiring, everything = check_teachers(teachers), join(inputs)
    found = [activations(t.encoder, everything) for t in teachers]
    merges, unmerges = identities(wiring, [1 / len(teachers)] * len(teachers))
    for space, width in wiring.widths.items():
        if space not in wiring.heads:
            merges[space], unmerges[space] = _zip(torch.cat([f[space] for f in found], 1), width)
    if not wiring.heads:
        return list(teachers), merges, unmerges
    ordered = [teachers[0]]
    for teacher, own, state in zip(teachers[1:], found[1:], states_of(teachers)[1:], strict=True):
        orders = match(wiring, found[0], own)
        moved = permute(wiring.features(), state, {s: orders[s] for s in wiring.heads})
        ordered.append(rebuilt(teacher, moved, torch.arange(wiring.widths[wiring.output])))
    return ordered, merges, unmerges


def _zip(rows: Float[Tensor, "rows features"], width: int) -> tuple[Blocks, Blocks]:
    """M and U^T, by teacher, of greedily merged features."""
    members = rows.size(1)
    similarity = correlation(rows, rows)
    still = rows.double().std(0) < 1e-9
    similarity[still[:, None] & still] = 1.0  # units that are never active are all alike
    similarity.fill_diagonal_(-torch.inf)
    sizes = torch.ones(members, dtype=torch.float64)
    group = torch.arange(members)
    for _ in range(members - width):
        a, b = divmod(int(similarity.argmax()), members)
        # The correlation of a group with another feature is taken as the mean over its members.
        joined = (similarity[a] * sizes[a] + similarity[b] * sizes[b]) / (sizes[a] + sizes[b])
        sizes[a] += sizes[b]
        similarity[a], similarity[:, a] = joined, joined
        similarity[a, a] = -torch.inf
        similarity[b], similarity[:, b] = -torch.inf, -torch.inf
        group[group == b] = a
    copied = nn.functional.one_hot(group.unique(return_inverse=True)[1], width).to(rows)
    merge = copied / copied.sum(0)
    return tuple(merge.split(width)), tuple(copied.split(width))
