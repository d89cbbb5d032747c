"""Names of metrics and which way is better, by which runs choose epochs and pages rank; and R2, which both compute."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

Task = Literal["regression", "classification", "multiclass", "link"]
"""Numbers; labels 0 and 1, one or several; the number of one of several classes; whether two nodes are joined."""

Direction = Literal["min", "max"]
METRICS: dict[Task, dict[str, Direction]] = {
    "regression": {"rmse": "min", "mae": "min", "r2": "max"},
    "classification": {"auroc": "max", "ap": "max", "accuracy": "max"},
    "link": {"auroc": "max", "ap": "max", "mrr": "max", "hits@10": "max", "hits@50": "max"},
    "multiclass": {"accuracy": "max", "macro_f1": "max", "macro_auroc": "max", "cross_entropy": "min"},
}
"""Metrics of each task, and which way is better."""


def direction(metric: str) -> Direction:
    """Whether a metric is to be made small or large."""
    return {name: way for metrics in METRICS.values() for name, way in metrics.items()}[metric]


def known_direction(metric: str) -> Direction | None:
    """The same, of a metric that may be none of these."""
    return next((metrics[metric] for metrics in METRICS.values() if metric in metrics), None)


def r2(prediction: Float[np.ndarray, " rows"], target: Float[np.ndarray, " rows"]) -> float | None:
    """R2, the coefficient of determination; ``None`` unless the target has two different values.

    In float64 and of deviations from the mean, so that it depends on neither the unit nor the zero of the target.

    >>> r2(np.array([1.0, 2.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    0.5
    """
    prediction, target = prediction.astype(np.float64), target.astype(np.float64)
    if not len(target) or target.min() == target.max():  # whose deviations from the mean need not be exactly zero
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # of predictions of a training that diverges
        spread = float(((target - target.mean()) ** 2).sum())
        return 1 - float(((prediction - target) ** 2).sum()) / spread if spread > 0 else None
