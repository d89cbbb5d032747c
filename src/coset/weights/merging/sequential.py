"""Merging many networks one after the other: the SuperNet never holds more than two of them.

Stage s merges the network merged so far with teacher s + 2; the maps to the features of all tasks so far go on from
where the stage before left them, and the loss is over all tasks seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.weights.merging.encoders import Encoder, Inputs, count_samples, features
from coset.weights.merging.fitting import Fit, Targets, fit
from coset.weights.merging.operators import Kind, Start
from coset.weights.merging.supernet import FoldedSuperNet, Student
from coset.weights.merging.teachers import Merged, Teacher, fold_heads


class SequentialStage(Student):
    """A SuperNet of the network merged so far and the next teacher, with a map to every task's features so far.

    Args:
        net: Of these two.
        projections: Of the tasks so far, ``[d_j, width]``; the next teacher's begins at the identity.
    """

    def __init__(self, net: FoldedSuperNet, projections: Sequence[Float[Tensor, "d_j width"]]):
        super().__init__()
        self.net = net
        del net.unmerges["output"]  # the maps below stand in its place
        new = torch.eye(net.output_widths[1], net.wiring.widths[net.wiring.output])
        self.projections = nn.ParameterList(nn.Parameter(p.clone()) for p in (*projections, new.to(projections[0])))

    def forward(self, inputs: Inputs) -> Float[Tensor, "samples width"]:
        return self.net(inputs)

    def project(self, i: int, features: Float[Tensor, "samples width"]) -> Float[Tensor, "samples d_i"]:
        return features @ self.projections[i].mT

    @torch.no_grad()
    def finished(self) -> tuple[Encoder, list[Tensor]]:
        return self.net.encoder(), [p.detach().clone() for p in self.projections]


def merge_in_sequence(
    teachers: Sequence[Callable[[], Teacher]], inputs: Sequence[Inputs], options: Fit, *,
    kind: Kind = "diagonal_and_low_rank", rank: int = 4, init: Start = "first",
) -> tuple[Merged, int]:  # fmt: skip
    """Merge networks that are loaded one at a time; returns the result and how many numbers the last stage trained.

    Args:
        teachers: Each loads one.
        inputs: Unlabelled samples of each task.
        options: Of every stage.
        kind: Of the maps.
        rank: Of the maps.
        init: Of every stage.

    Raises:
        CosetError: Fewer than two teachers, or they do not fit together.
    """
    if len(teachers) < 2 or len(teachers) != len(inputs):
        raise CosetError(f"{len(teachers)} teachers and {len(inputs)} sets of samples: give two or more of each")
    first = teachers[0]()
    encoder, wanted, hulls = first.encoder, [features(first.encoder, inputs[0])], [_Hull(first.name, first.head)]
    wiring = encoder.wiring()
    projections = [torch.eye(wiring.widths[wiring.output]).to(wanted[0])]
    trained = 0
    for stage, load in enumerate(teachers[1:], start=1):
        teacher = load()
        wanted.append(features(teacher.encoder, inputs[stage]))
        hulls.append(_Hull(teacher.name, teacher.head))
        net = FoldedSuperNet([encoder, teacher.encoder], kind=kind, rank=rank, init=init, seed=options.seed + stage)
        student = SequentialStage(net, projections)
        fit(student, _own_features(wanted, inputs[: stage + 1]), replace(options, seed=options.seed + stage))
        trained = sum(p.numel() for p in student.parameters())
        encoder, projections = student.finished()
        encoder.eval().requires_grad_(False)
    return Merged(encoder, fold_heads(hulls, projections)), trained


def _own_features(wanted: Sequence[Tensor], inputs: Sequence[Inputs]) -> Targets:
    """The features of each task on its own samples."""
    seen = range(len(wanted))
    table = tuple(tuple(wanted[t] if i == t else None for i in seen) for t in seen)
    return Targets(tuple(inputs), table, tuple(map(count_samples, inputs)))


class _Hull(NamedTuple):
    """A teacher's name and head; the network itself is let go."""

    name: str
    head: nn.Linear
