"""How good predictions are: the metrics of a task, averaged over targets, missing labels left out."""

from collections.abc import Iterable
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error, r2_score

Task = Literal["regression", "classification"]
Direction = Literal["min", "max"]
METRICS: dict[Task, dict[str, Direction]] = {
    "regression": {"rmse": "min", "mae": "min", "r2": "max"},
    "classification": {"auroc": "max", "ap": "max", "accuracy": "max"},
}
"""Metrics of each task, and which way is better."""


def direction(metric: str) -> Direction:
    """Whether a metric is to be made small or large."""
    return {name: way for metrics in METRICS.values() for name, way in metrics.items()}[metric]


def known_direction(metric: str) -> Direction | None:
    """The same, of a metric that may be none of these."""
    return next((metrics[metric] for metrics in METRICS.values() if metric in metrics), None)


def best(metric: str, values: Iterable[float]) -> float | None:
    """The best of some values; of a metric that is not known the least, and what is no number is left out."""
    choose = max if known_direction(metric) == "max" else min
    return choose((value for value in values if value == value), default=None)


def metrics_of(
    task: Task, prediction: Float[Tensor, "graphs targets"], target: Float[Tensor, "graphs targets"]
) -> dict[str, float]:
    """Metrics averaged over targets; NaN is left out, and targets that a metric cannot judge are skipped.

    Regression: rmse, mae, r2 in the units of the target; r2 needs two different values.
    Classification (predictions are probabilities): auroc, ap, accuracy; the first two need both labels.
    """
    collected: dict[str, list[float]] = {}
    for p, t in zip(prediction.T, target.T):
        known = ~t.isnan()
        p, t = p[known], t[known]
        for name, value in (_regression(p, t) if task == "regression" else _classification(p, t)).items():
            collected.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in collected.items()}


def _regression(p: Tensor, t: Tensor) -> dict[str, float]:
    if not len(t):
        return {}
    p, t = p.double(), t.double()
    result = {"rmse": float(mean_squared_error(p, t, squared=False)), "mae": float(mean_absolute_error(p, t))}
    if len(t) > 1 and float(t.var()) > 0:
        result["r2"] = float(r2_score(p, t))
    return result


def _classification(p: Tensor, t: Tensor) -> dict[str, float]:
    if not len(t):
        return {}
    result = {"accuracy": float(((p > 0.5) == (t > 0.5)).double().mean())}
    if 0 < float(t.sum()) < len(t):
        result |= {"auroc": float(binary_auroc(p, t.long())), "ap": float(binary_average_precision(p, t.long()))}
    return result
