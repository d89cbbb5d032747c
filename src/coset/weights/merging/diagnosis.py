"""Before merging: do the networks lie in one basin, and what does that mean for the choice of a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coset.weights.merging.averages import ByName, average
from coset.weights.merging.encoders import Inputs, features
from coset.weights.merging.teachers import Teacher

NEAR = 0.7
"""Weights whose cosine is larger come from one start: independent ones have a cosine near 0."""


@dataclass(frozen=True)
class Diagnosis:
    """Of one pair of networks.

    Attributes:
        pair: Their names.
        cosine: Of all matrices, taken as one vector; means are not removed.
        midpoint: Relative squared error of the average's features against the teachers', on their samples; None if
            there are no samples.
    """

    pair: tuple[str, str]
    cosine: float
    midpoint: float | None = None

    @property
    def same_basin(self) -> bool:
        return self.cosine > NEAR and (self.midpoint is None or self.midpoint < 1)

    @property
    def identical(self) -> bool:
        return self.cosine > 1 - 1e-6

    def __str__(self) -> str:
        where = f"{self.pair[0]} and {self.pair[1]}: cosine of weights {self.cosine:.3f}"
        if self.midpoint is not None:
            where += f", error of the average {self.midpoint:.2f}"
        if self.identical:
            return f"{where}: the same network twice"
        if self.same_basin:
            return f"{where}: same basin; try average, slerp or regmean first, they cost nothing"
        return f"{where}: different basins; averages will fail, use fs_merge, distillation, zipit or regmean"


def weight_cosine(names: Sequence[str], first: ByName, second: ByName) -> float:
    """Cosine of all tensors of two or more axes, read one by one."""
    product, norms = 0.0, [0.0, 0.0]
    for name in names:
        a, b = first[name], second[name]
        if a.dim() >= 2 and a.shape == b.shape:
            a, b = a.flatten().double(), b.flatten().double()
            product += float(a @ b)
            norms = [norms[0] + float(a @ a), norms[1] + float(b @ b)]
    return product / max((norms[0] * norms[1]) ** 0.5, 1e-30)


@torch.no_grad()
def diagnose(teachers: Sequence[Teacher], inputs: Sequence[Inputs] | None = None) -> list[Diagnosis]:
    """All pairs of networks of equal widths; with samples, also how far the average's features are off."""
    states: list[Mapping[str, Tensor]] = [dict(t.encoder.named_parameters()) for t in teachers]
    found = []
    for i in range(len(teachers)):
        for j in range(i + 1, len(teachers)):
            cosine = weight_cosine(list(states[i]), states[i], states[j])
            midpoint = None
            if inputs is not None:
                pair = [teachers[i], teachers[j]]
                middle = average(pair).encoder
                errors = []
                for teacher, own in zip(pair, (inputs[i], inputs[j]), strict=True):
                    wanted = features(teacher.encoder, own)
                    spread = (wanted - wanted.mean(0)).square().sum().clamp(min=1e-12)
                    errors.append(float((features(middle, own) - wanted).square().sum() / spread))
                midpoint = sum(errors) / 2
            found.append(Diagnosis((teachers[i].name, teachers[j].name), cosine, midpoint))
    return found
