r"""Bringing the features of several networks into one order before they are merged.

A network's function does not change when the features of a space are permuted and everything that reads them follows:
W_l -> P W_l, W_{l+1} -> W_{l+1} P^T. Activation matching pairs features of teacher i with those of teacher 1 that
correlate best over the samples. In attention, whole heads are paired first, then the channels inside each pair;
query and key channels move together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coset.weights.merging.encoders import Encoder, Inputs, count_samples, take
from coset.weights.merging.wiring import Attention, Wiring
from coset.weights.permutations.matching import assign
from coset.weights.permutations.spec import Orders, permute


def activations(
    encoder: Encoder, inputs: Inputs, *, by_layer: bool = False, batch: int = 256
) -> dict[str, Float[Tensor, "rows width"]]:
    """Features of every space over all samples and positions: what the layers that read it are given.

    Spaces that no linear map reads (queries and keys, features for the heads) are taken where they are written.

    Args:
        encoder: Put into eval mode.
        inputs: Samples.
        by_layer: Not by space, but by the name of the unmerge map that reads them; the last is ``output``.
        batch: Samples at a time.
    """
    wiring = encoder.wiring()
    inward, outward = _watched(wiring, by_layer)
    found: dict[str, list[Tensor]] = {}

    def keep(space: str, value: Tensor) -> None:
        found.setdefault(space, []).append(value.detach().flatten(0, -2))

    def before(space: str) -> Any:
        return lambda _module, args: keep(space, args[0])

    handles = [encoder.get_submodule(n).register_forward_pre_hook(before(s)) for n, s in inward.items()]
    handles += [
        encoder.get_submodule(n).register_forward_hook(lambda _m, _a, out, s=s: keep(s, out))
        for n, s in outward.items()
    ]
    encoder.eval()
    try:
        with torch.no_grad():
            for i in range(0, count_samples(inputs), batch):
                keep("output" if by_layer else wiring.output, encoder(take(inputs, slice(i, i + batch))))
    finally:
        for handle in handles:
            handle.remove()
    return {space: torch.cat(values) for space, values in found.items()}


def _watched(wiring: Wiring, by_layer: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Modules whose inputs, and those whose outputs are features, each with the name of these."""
    first = {s.unmerge: s for s in reversed(wiring.slots) if s.unmerge}  # queries, keys and values read the same
    if by_layer:
        return {s.module: str(s.unmerge) for s in first.values()}, {}
    read = {s.reads for s in wiring.slots}
    written = {s.module: s.writes for s in wiring.slots if s.writes not in read and s.writes != wiring.output}
    return {s.module: str(s.reads) for s in first.values()}, written


def match(wiring: Wiring, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Orders:
    """Orders of the second network's features, by space, that correlate best with the first's.

    Args:
        wiring: Of both.
        first: Features by space, :func:`activations`.
        second: The same of the other network on the same samples.
    """
    orders = wiring.features().identity()
    similarity = {s: correlation(first[s], second[s]) for s in orders if s in first}
    for space in similarity.keys() - wiring.heads.keys():
        orders[space] = assign(similarity[space])
    for layer in wiring.attention:
        orders |= assign_heads(layer, similarity)
    return orders


def correlation(a: Float[Tensor, "rows n"], b: Float[Tensor, "rows m"]) -> Float[Tensor, "n m"]:
    """Of every feature of one with every feature of the other; 0 for features that do not vary."""
    a, b = (_standard(x.double()) for x in (a, b))
    return a.mT @ b / len(a)


def align(teachers: Sequence[Encoder], inputs: Inputs) -> tuple[list[dict[str, Tensor]], list[Int[Tensor, " width"]]]:
    """Parameters of all teachers in the order of the first, by matching activations.

    Args:
        teachers: Of equal widths.
        inputs: Samples of all tasks.

    Returns:
        State dicts, and the new order of each teacher's last features (its head must follow).
    """
    wiring = teachers[0].wiring()
    spec = wiring.features()
    found = [activations(teacher, inputs) for teacher in teachers]
    states, outputs = [], []
    for teacher, own in zip(teachers, found, strict=True):
        orders = match(wiring, found[0], own) if own is not found[0] else spec.identity()
        states.append(permute(spec, teacher.state_dict(), orders))
        outputs.append(orders[wiring.output])
    return states, outputs


def _standard(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x / x.square().mean(0).sqrt().clamp(min=1e-12)


def _assign(similarity: Tensor) -> tuple[Tensor, float]:
    order = assign(similarity)
    return order, float(similarity[torch.arange(len(order)), order].sum())


def assign_heads(a: Attention, similarity: Mapping[str, Tensor]) -> Orders:
    """Pairs of groups of heads, of heads inside them, and of channels inside these, for all spaces of a layer."""
    per = a.heads // a.groups
    together = a.queries == a.keys
    cells = [[_pair_of_groups(a, similarity, g, h, per, together) for h in range(a.groups)] for g in range(a.groups)]
    chosen = assign(torch.tensor([[score for score, _ in row] for row in cells])).tolist()
    found = [cells[g][h][1] for g, h in enumerate(chosen)]
    return {space: torch.cat([orders[space] for orders in found]) for space in a.spaces}


def _pair_of_groups(
    a: Attention, similarity: Mapping[str, Tensor], g: int, h: int, per: int, together: bool
) -> tuple[float, Orders]:
    """How alike group g of the first and group h of the second are at best, and the orders of the second's channels."""

    def cell(space: str, i: int, j: int, count: int) -> Tensor:
        size = len(similarity[space]) // count
        return similarity[space][i * size :, j * size :][:size, :size]

    values, score = _assign(cell(a.values, g, h, a.groups))
    width, orders = len(values), {a.values: values + h * len(values)}
    if together:
        keys, more = _assign(cell(a.keys, g, h, a.groups))
        return score + more, orders | {a.keys: keys + h * len(keys)}
    # Query and key channels that turn with positions stay; of a group's query heads any may be paired.
    of_keys = cell(a.keys, g, h, a.groups)
    between = torch.stack([
        torch.stack([cell(a.queries, g * per + i, h * per + j, a.heads).diagonal().sum() for j in range(per)])
        for i in range(per)
    ])  # fmt: skip
    heads, more = _assign(between)
    size = len(of_keys)
    orders[a.keys] = torch.arange(size) + h * size
    orders[a.queries] = torch.cat([torch.arange(size) + (h * per + int(j)) * size for j in heads])
    if a.read != a.values:
        orders[a.read] = torch.cat([values + (h * per + int(j)) * width for j in heads])
    return score + more + float(of_keys.diagonal().sum()), orders
