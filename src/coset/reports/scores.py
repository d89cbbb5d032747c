"""Metrics as a reader sees them: their names, which way is better, and what they say against a baseline."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from coset.core.metrics import known_direction, r2

LABELS = {
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "auroc": "AUROC",
    "ap": "Average precision",
    "accuracy": "Accuracy",
    "loss": "Loss",
    "lr": "Learning rate",
}
CLASSIFICATION = ("auroc", "ap", "accuracy")
Vector = Float[np.ndarray, " rows"]


def label(metric: str) -> str:
    """What a metric is called in text."""
    return LABELS.get(metric, metric.replace("_", " "))


def higher_is_better(metric: str) -> bool:
    """Whether a metric is a score, which 1 bounds, rather than an error or a loss, or something of a run's own."""
    return known_direction(metric) == "max"


def number(value: Any, digits: int = 4) -> str:
    """A number for reading: ``digits`` significant figures, thousands apart, a dash for what is missing."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return "–"
    value = float(value)
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", " ").replace("-", "−")
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.2e}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, digits)}f}".replace("-", "−")


def score(value: Any, metric: str) -> str:
    """A metric for reading: three decimals where the scale is fixed, significant figures where it is the target's."""
    if higher_is_better(metric) and isinstance(value, float) and math.isfinite(value):
        return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")
    return number(value)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def against_baseline(metric: str, value: float, baseline: float | None) -> tuple[str, bool] | None:
    """How a metric compares with the baseline's: a phrase, and whether the model is better.

    Errors are compared as a ratio; bounded scores, whose ratio means nothing, as a difference.
    """
    if baseline is None or not math.isfinite(value) or not math.isfinite(baseline):
        return None
    if higher_is_better(metric):
        gain = value - baseline
        return f"{'+' if gain >= 0 else '−'}{abs(gain):.3f}", gain > 0
    if baseline <= 0:
        return None
    change = 1 - value / baseline
    return f"{abs(change):.0%} {'lower' if change >= 0 else 'higher'}", change > 0


def roc_curve(
    target: Vector, score: Vector
) -> tuple[Float[np.ndarray, " thresholds"], Float[np.ndarray, " thresholds"]]:
    """False and true positive rates at every threshold, ties taken together, from (0, 0) to (1, 1)."""
    order = np.argsort(-score, kind="stable")
    positive = target[order] > 0.5
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    true = np.append(0, np.cumsum(positive)[last_of_tie])
    false = np.append(0, np.cumsum(~positive)[last_of_tie])
    return false / max(false[-1], 1), true / max(true[-1], 1)


def measure(target: Vector, prediction: Vector, classification: bool) -> dict[str, float]:
    """The few numbers that the page derives itself, a target and a split at a time; empty without rows."""
    if not len(target):
        return {}
    if classification:
        result = {"accuracy": float(((prediction > 0.5) == (target > 0.5)).mean())}
        if 0 < (target > 0.5).sum() < len(target):
            result = {"auroc": float(np.trapezoid(*roc_curve(target, prediction)[::-1]))} | result
        return result
    residual = prediction - target
    result = {"rmse": float(np.sqrt(np.mean(residual**2))), "mae": float(np.abs(residual).mean())}
    explained = r2(prediction, target)
    return result if explained is None else result | {"r2": explained}
