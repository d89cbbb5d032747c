"""One network as it is, with heads fitted to the features of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from coset.weights.merging.encoders import Encoder, Inputs, features
from coset.weights.merging.methods import merge_method
from coset.weights.merging.teachers import (
    Merged,
    Teacher,
    fold_heads,
)


def fitted_heads(encoder: Encoder, teachers: Sequence[Teacher], inputs: Sequence[Inputs], ridge: float) -> Merged:
    """One frozen network with a head for each task: the teacher's, after a map fitted to its features.

    f_i(x) is regressed on F(x) over the samples of task i, with an offset and a penalty of ``ridge`` times the mean
    variance of F.

    Args:
        encoder: F, left as it is.
        teachers: Of all tasks.
        inputs: Unlabelled samples of each.
        ridge: Of the regression.
    """
    heads = {}
    for teacher, own in zip(teachers, inputs, strict=True):
        x, y = features(encoder, own).double(), features(teacher.encoder, own).double()
        centred = x - x.mean(0)
        gram = centred.mT @ centred
        penalty = ridge * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), dtype=gram.dtype)
        projection = torch.linalg.solve(gram + penalty, centred.mT @ (y - y.mean(0))).mT
        head = fold_heads([teacher], [projection])[teacher.name]
        offset = (y.mean(0) - projection @ x.mean(0)).to(head.weight)
        with torch.no_grad():
            moved = teacher.head.weight @ offset + (0 if teacher.head.bias is None else teacher.head.bias)
        head.bias = nn.Parameter(moved)
        heads[teacher.name] = head
    return Merged(encoder, heads)


@merge_method("heads_first", ridge=(0.01, 0.1, 1.0))
def heads_on_the_first(teachers: Sequence[Teacher], inputs: Sequence[Inputs], ridge: float = 0.1) -> Merged:
    """The first network for all tasks."""
    return fitted_heads(teachers[0].encoder, teachers, inputs, ridge)
