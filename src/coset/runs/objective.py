"""What supervised learning makes small, and the units of its targets."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coset.core.errors import CosetError
from coset.runs.metrics import Task

Loss = Literal["l1", "mse"]


def summed_loss(
    task: Task, loss: Loss, outputs: Float[Tensor, " known"], targets: Float[Tensor, " known"]
) -> Float[Tensor, ""]:
    """The loss summed over known labels: cross-entropy of logits for a classification, else ``l1`` or ``mse``."""
    if task == "classification":
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")
    return (F.l1_loss if loss == "l1" else F.mse_loss)(outputs, targets, reduction="sum")


def standard(
    targets: Float[Tensor, "rows targets"],
) -> tuple[Float[Tensor, " targets"], Float[Tensor, " targets"]]:
    """Mean and deviation of each target over its known labels, in the targets' type; 0 and 1 where they say nothing."""
    kind, targets = targets.dtype, targets.double()
    mean = targets.nanmean(0).nan_to_num()
    spread = ((targets - mean) ** 2).nanmean(0).sqrt().nan_to_num()
    # A constant target leaves rounding, not spread.
    return mean.to(kind), torch.where(spread > 1e-12 * mean.abs(), spread, torch.ones_like(spread)).to(kind)


def check_labels(targets: Tensor) -> None:
    """Raise a CosetError unless all known labels are 0 or 1."""
    wrong = ~(targets.isnan() | (targets == 0) | (targets == 1))
    if wrong.any():
        value = float(targets[wrong][0])
        raise CosetError(f"a label is {value:g}, but classification needs 0 or 1; use training.task=regression")
