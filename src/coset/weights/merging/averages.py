"""Merged by mixing parameters one by one: averages, spherical interpolation, task arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.errors import CosetError
from coset.weights.merging.encoders import Encoder
from coset.weights.merging.methods import merge_method
from coset.weights.merging.teachers import (
    Merged,
    Teacher,
    in_same_basis,
)
from coset.weights.merging.wiring import Wiring, combine, identities


class ByName(Protocol):
    """Parameters of a network, each read when it is asked for."""

    def __getitem__(self, name: str) -> Tensor: ...


def slerp_mix(models: Sequence[ByName], names: Sequence[str], t: float = 0.5) -> Callable[[str], Tensor]:
    """:func:`slerp`, parameter by parameter, after all have been read once."""
    product, norms = 0.0, [0.0, 0.0]
    for name in names:
        a, b = (m[name].double().flatten() for m in models)
        product, norms = product + float(a @ b), [norms[0] + float(a @ a), norms[1] + float(b @ b)]
    x, y = slerp_coefficients(product, norms[0], norms[1], t)
    return lambda name: x * models[0][name].float() + y * models[1][name].float()


@merge_method("average")
def average(teachers: Sequence[Teacher], shares: Sequence[float] | None = None) -> Merged:
    """The weighted mean of all parameters; equal shares by default."""
    shares = shares or [1 / len(teachers)] * len(teachers)
    if len(shares) != len(teachers):
        raise CosetError(f"{len(shares)} weights for {len(teachers)} models: give one a model")
    return in_same_basis(teachers, lambda w, s: combine(w, s, *identities(w, shares)))


@merge_method("slerp_global", models=2, mix=slerp_mix, t=(0.3, 0.5, 0.7))
def slerp(teachers: Sequence[Teacher], t: float = 0.5) -> Merged:
    """Spherical interpolation of the two vectors of all parameters: one angle for the whole network.

    Raises:
        CosetError: There are not two teachers.
    """
    if len(teachers) != 2:
        raise CosetError(f"slerp takes two models, not {len(teachers)}")

    def mix(_: Wiring, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        first, second = (torch.cat([v.flatten() for v in s.values()]) for s in states)
        a, b = slerp_weights(first, second, t)
        return {name: a * states[0][name] + b * states[1][name] for name in states[0]}

    return in_same_basis(teachers, mix)


def slerp_weights(a: Float[Tensor, " n"], b: Float[Tensor, " n"], t: float) -> tuple[float, float]:
    """Coefficients of the two vectors; plain interpolation where they are (anti)parallel."""
    a, b = a.double(), b.double()
    return slerp_coefficients(float(a @ b), float(a @ a), float(b @ b), t)


def slerp_coefficients(product: float, first: float, second: float, t: float) -> tuple[float, float]:
    """The same from the inner product and the two squared norms."""
    cosine = product / max((first * second) ** 0.5, 1e-30)
    angle = torch.acos(torch.tensor(max(-1.0, min(1.0, cosine)), dtype=torch.float64))
    sine = torch.sin(angle)
    if float(sine) < 1e-6:
        return 1 - t, t
    return float(torch.sin((1 - t) * angle) / sine), float(torch.sin(t * angle) / sine)


def task_arithmetic(teachers: Sequence[Teacher], base: Encoder, scale: float = 1.0) -> Merged:
    """base + scale * sum_i (teacher_i - base)."""
    before = {n: p.detach() for n, p in base.named_parameters()}
    return in_same_basis(
        teachers, lambda _, states: {n: b + scale * sum(s[n] - b for s in states) for n, b in before.items()}
    )
