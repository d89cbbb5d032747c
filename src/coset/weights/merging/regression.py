"""Merged by regression: each linear map is the least-squares fit to what the teachers' maps give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.weights.merging.encoders import Encoder, Inputs, features
from coset.weights.merging.methods import merge_method
from coset.weights.merging.teachers import (
    Merged,
    Teacher,
    check_teachers,
    in_same_basis,
)
from coset.weights.merging.wiring import Slot, Wiring, combine, identities, matrix, shaped


@merge_method("regmean", alpha=(0.5, 0.7, 0.9))
def regmean(teachers: Sequence[Teacher], inputs: Sequence[Inputs], alpha: float = 0.7) -> Merged:
    r"""W* = (sum_i W_i G_i) (sum_i G_i)^-1 with G_i the Gram matrix of what layer i reads; the rest is averaged.

    Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models", ICLR 2023; off-diagonal entries of
    G_i are shrunk by ``alpha``. The first layer is merged so as well.
    """
    wiring = check_teachers(teachers)
    shares = [1 / len(teachers)] * len(teachers)
    grams = [gram_matrices(t.encoder, x) for t, x in zip(teachers, inputs, strict=True)]

    def mix(_: Wiring, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        merged = combine(wiring, states, *identities(wiring, shares))
        for slot in wiring.slots:
            if slot.weight in grams[0]:
                merged[slot.weight] = _regress(slot, states, [g[slot.weight] for g in grams], alpha)
        return merged

    return in_same_basis(teachers, mix)


def _regress(slot: Slot, states: Sequence[Mapping[str, Tensor]], grams: Sequence[Tensor], alpha: float) -> Tensor:
    shrunk = [alpha * g + (1 - alpha) * torch.diag(g.diagonal()) for g in grams]
    left = sum(matrix(slot, s[slot.weight]).double() @ g for s, g in zip(states, shrunk, strict=True))
    total = sum(shrunk)
    assert isinstance(left, Tensor)
    assert isinstance(total, Tensor)
    # Features that are never active have no row: least squares leaves their weights at zero.
    weight = torch.linalg.lstsq(total, left.mT, driver="gelsd").solution.mT
    return shaped(slot, weight.to(states[0][slot.weight]), states[0][slot.weight]).contiguous()


def gram_matrices(encoder: Encoder, inputs: Inputs, batch: int = 256) -> dict[str, Float[Tensor, "in in"]]:
    """X^T X of what every Linear layer reads, in float64, by the name of its weight."""
    found: dict[str, Tensor] = {}
    linear = {s.weight: encoder.get_submodule(s.module) for s in encoder.wiring().slots if not s.table}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().flatten(0, -2).double()
            found[name] = found.get(name, 0) + x.mT @ x

        return add

    handles = [m.register_forward_pre_hook(hook(n)) for n, m in linear.items() if isinstance(m, nn.Linear)]
    try:
        features(encoder, inputs, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found
