"""Networks to merge and networks merged: features, with a linear head for each task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.weights.merging.encoders import Encoder, Inputs, features
from coset.weights.merging.wiring import Wiring, check_alike


class HasHead(Protocol):
    """What is needed of a teacher once its features are known."""

    @property
    def name(self) -> str: ...
    @property
    def head(self) -> nn.Linear: ...


@dataclass(frozen=True)
class Teacher:
    """A network to merge.

    Attributes:
        name: Of its task.
        encoder: Its features.
        head: Linear classifier on them.
    """

    name: str
    encoder: Encoder
    head: nn.Linear


@dataclass(frozen=True)
class Merged:
    """One network for all tasks.

    Attributes:
        encoder: An ordinary one.
        heads: A classifier for each task, what leads from merged features to the teacher's folded in.
    """

    encoder: Encoder
    heads: dict[str, nn.Linear]

    def networks(self) -> list[nn.Module]:
        return [self.encoder, *self.heads.values()]

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> dict[str, Float[Tensor, "samples classes"]]:
        """Of every head."""
        found = features(self.encoder, inputs)
        return {name: head(found) for name, head in self.heads.items()}


@dataclass(frozen=True)
class FeatureEnsemble:
    """All teachers at once: the mean of their features, each divided by its mean size; then every head."""

    teachers: Sequence[Teacher]

    def networks(self) -> list[nn.Module]:
        return [part for t in self.teachers for part in (t.encoder, t.head)]

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> dict[str, Float[Tensor, "samples classes"]]:
        found = [features(t.encoder, inputs) for t in self.teachers]
        mean = torch.stack([f / f.abs().mean() for f in found]).mean(0)
        # Back to the size that the head was trained on; its bias would otherwise weigh too much.
        return {t.name: t.head(mean * f.abs().mean()) for t, f in zip(self.teachers, found, strict=True)}


@dataclass(frozen=True)
class Originals:
    """The teachers themselves, each with its own features: the ceiling of per-task accuracy."""

    teachers: Sequence[Teacher]

    def networks(self) -> list[nn.Module]:
        return [part for t in self.teachers for part in (t.encoder, t.head)]

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> dict[str, Float[Tensor, "samples classes"]]:
        return {t.name: t.head(features(t.encoder, inputs)) for t in self.teachers}


def fold_heads(teachers: Sequence[HasHead], projections: Sequence[Float[Tensor, "_d_i width"]]) -> dict[str, nn.Linear]:
    """W_head,i <- W_head,i U_i^T, where the teacher's features are F U_i, U_i^T given as ``[d_i, width]``."""
    heads = {}
    for teacher, projection in zip(teachers, projections, strict=True):
        weight = teacher.head.weight.detach() @ projection.to(teacher.head.weight)
        head = nn.Linear(weight.size(1), weight.size(0), bias=teacher.head.bias is not None).to(weight)
        with torch.no_grad():
            head.weight.copy_(weight)
            if teacher.head.bias is not None:
                head.bias.copy_(teacher.head.bias)
        heads[teacher.name] = head
    return heads


def states_of(teachers: Sequence[Teacher]) -> list[dict[str, Tensor]]:
    return [{n: p.detach() for n, p in t.encoder.named_parameters()} for t in teachers]


def check_teachers(teachers: Sequence[Teacher]) -> Wiring:
    wirings = [t.encoder.wiring() for t in teachers]
    check_alike([t.name for t in teachers], wirings, widths=True)
    return wirings[0]


def in_same_basis(
    teachers: Sequence[Teacher], mix: Callable[[Wiring, Sequence[Mapping[str, Tensor]]], dict[str, Tensor]]
) -> Merged:
    wiring = check_teachers(teachers)
    states = states_of(teachers)
    encoder = teachers[0].encoder.resized(None)
    encoder.load_state_dict(mix(wiring, states))
    eye = torch.eye(wiring.widths[wiring.output])
    return Merged(encoder.eval(), fold_heads(teachers, [eye] * len(teachers)))


def rebuilt(teacher: Teacher, state: Mapping[str, Tensor], order: Tensor) -> Teacher:
    encoder = teacher.encoder.resized(None)
    encoder.load_state_dict(state)
    head = copy.deepcopy(teacher.head)
    with torch.no_grad():
        head.weight.copy_(teacher.head.weight[:, order])
    return Teacher(teacher.name, encoder.eval(), head)
