"""Learning rates as functions of the epoch and of what validation has said so far.

A schedule without memory of its own needs no state in a checkpoint: a resumed run computes the rate that an
uninterrupted one has. Each function returns the factor by which the base rate is multiplied.
"""

import math
from collections.abc import Sequence

from coset.runs.metrics import Direction

THRESHOLD = 1e-4  # of the best value: a smaller gain counts as none, as in PyTorch's ReduceLROnPlateau
SMALLEST = 1e-3


def factor(
    schedule: str, epoch: int, watched: Sequence[float], epochs: int, warmup: int, better: Direction, patience: int
) -> float:
    """By what the base rate is multiplied in an epoch: 1 for ``constant``, else as the schedule of that name says.

    Args:
        schedule: ``constant``, ``cosine`` or ``plateau``.
        epoch: From 0.
        watched: The monitored metric after each epoch before.
        epochs: Length of the cosine.
        warmup: Epochs of its climb.
        better: Which way the monitored metric is better.
        patience: Epochs without progress before the plateau halves the rate.
    """
    if schedule == "cosine":
        return cosine(epoch, epochs, warmup)
    return plateau(watched, better, patience) if schedule == "plateau" else 1.0


def cosine(epoch: int, epochs: int, warmup: int = 0) -> float:
    """A linear climb over the first ``warmup`` epochs, then half a cosine that would reach 0 after ``epochs``."""
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    progress = (epoch - warmup) / max(1, epochs - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def plateau(values: Sequence[float], better: Direction, patience: int, factor: float = 0.5) -> float:
    """Multiplied by ``factor`` whenever more than ``patience`` epochs in a row brought no new best value."""
    rate, best, waited = 1.0, math.inf, 0
    for value in values:
        value = value if better == "min" else -value
        if value < best - THRESHOLD * abs(best) if math.isfinite(best) else value < best:
            best, waited = value, 0
        else:
            waited += 1
        if waited > patience:
            rate, waited = max(rate * factor, SMALLEST), 0
    return rate
