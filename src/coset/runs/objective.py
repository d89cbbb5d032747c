"""What supervised learning makes small, and the units of its targets."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from coset.core.errors import CosetError
from coset.runs.metrics import Task

Loss = Literal["l1", "mse"]


def summed_loss(
    task: Task,
    loss: Loss,
    outputs: Float[Tensor, "rows columns"],
    targets: Float[Tensor, "rows targets"],
    weights: Float[Tensor, " labels"] | None = None,
) -> Float[Tensor, ""]:
    """The loss summed over known labels: cross-entropy of logits for classes, else ``l1`` or ``mse``.

    Args:
        task: Of the targets.
        loss: Of a regression.
        outputs: A column a target, or a class.
        targets: NaN where missing.
        weights: Of the labels of a classification (one target: 0 and 1) or multiclass task; all 1 without.
    """
    known: Bool[Tensor, "rows targets"] = ~targets.isnan()
    if task == "multiclass":
        rows = known.squeeze(1)
        return F.cross_entropy(outputs[rows], targets[rows].squeeze(1).long(), weight=weights, reduction="sum")
    outputs, targets = outputs[known], targets[known]
    if task in ("classification", "link"):
        each = None if weights is None else weights[targets.long()]
        return F.binary_cross_entropy_with_logits(outputs, targets, weight=each, reduction="sum")
    return (F.l1_loss if loss == "l1" else F.mse_loss)(outputs, targets, reduction="sum")


def check_outputs(network: nn.Module, outputs: Tensor, rows: int, columns: int) -> None:
    """Raise a CosetError unless a network gave what a loss compares with targets: others are broadcast, or cut.

    Args:
        network: Named in the message.
        outputs: What it gave.
        rows: Of the batch: graphs, nodes, edges, pairs, ...
        columns: A target each, or a class.
    """
    if outputs.shape != (rows, columns):
        raise CosetError(
            f"{type(network).__name__} gives {list(outputs.shape)} for a batch of {rows} with {columns} to predict; "
            f"its output should be [{rows}, {columns}], a row each and a column a target or class"
        )


def standard(
    targets: Float[Tensor, "rows targets"],
) -> tuple[Float[Tensor, " targets"], Float[Tensor, " targets"]]:
    """Mean and deviation of each target over its known labels, in the targets' type; 0 and 1 where they say nothing."""
    kind, targets = targets.dtype, targets.double()
    mean = targets.nanmean(0).nan_to_num()
    spread = ((targets - mean) ** 2).nanmean(0).sqrt().nan_to_num()
    # A constant target leaves rounding, not spread.
    return mean.to(kind), torch.where(spread > 1e-12 * mean.abs(), spread, torch.ones_like(spread)).to(kind)


def balanced_weights(targets: Float[Tensor, "rows 1"], labels: int) -> Float[Tensor, " labels"]:
    """Weights of labels 0, 1, ... that give each as much to say: rows / (labels x rows of the label); mean 1 over rows.

    >>> balanced_weights(torch.tensor([[0.0], [0.0], [0.0], [1.0]]), 2)
    tensor([0.6667, 2.0000])
    """
    known = targets[~targets.isnan()].long()
    counts = torch.bincount(known, minlength=labels)
    return len(known) / (int((counts > 0).sum()) * counts.clamp(min=1)).float() * (counts > 0)


def check_task(task: Task, targets: Float[Tensor, "rows targets"], classes: Sequence[str] = ()) -> None:
    """Raise a CosetError unless these targets are such as the task learns.

    Args:
        task: Of the recipe.
        targets: NaN where missing.
        classes: Names of the classes whose numbers the targets are; none where targets are numbers.
    """
    if task == "multiclass":
        if targets.size(1) != 1:
            raise CosetError(f"training.task=multiclass learns one target; there are {targets.size(1)}")
        if len(classes) < 2:
            some = f"one class, {classes[0]!r};" if classes else "no class;"
            raise CosetError(f"training.task=multiclass: the target has {some} at least 2 are needed")
    elif classes:
        some = ", ".join(map(repr, classes[:3]))
        raise CosetError(f"the target has classes ({some}, ...): use training.task=multiclass")
    elif task in ("classification", "link"):
        check_labels(targets)


def check_labels(targets: Tensor) -> None:
    """Raise a CosetError unless all known labels are 0 or 1."""
    wrong = ~(targets.isnan() | (targets == 0) | (targets == 1))
    if wrong.any():
        value = float(targets[wrong][0])
        raise CosetError(
            f"a label is {value:g}, but classification needs 0 or 1; use training.task=multiclass for "
            "several classes, training.task=regression for numbers"
        )
