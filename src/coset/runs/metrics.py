"""How good predictions are: the metrics of a task, averaged over targets, missing labels left out."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_f1_score,
)
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error

from coset.core.metrics import METRICS, Direction, Task, direction, known_direction, r2

__all__ = ["METRICS", "Direction", "Task", "best", "direction", "known_direction", "metrics_of", "ranking"]


def best(metric: str, values: Iterable[float]) -> float | None:
    """The best of some values; of a metric that is not known the least, and what is no number is left out."""
    choose = max if known_direction(metric) == "max" else min
    return choose((value for value in values if value == value), default=None)


def metrics_of(
    task: Task, prediction: Float[Tensor, "rows columns"], target: Float[Tensor, "rows targets"]
) -> dict[str, float]:
    """Metrics averaged over targets; NaN is left out, and targets that a metric cannot judge are skipped.

    Regression: rmse, mae, r2 in the units of the target; r2 needs two different values.
    Classification (predictions are probabilities): auroc, ap, accuracy; the first two need both labels.
    Multiclass (a column of probabilities a class, one column of class numbers): accuracy, macro_f1 and macro_auroc
    (each class against the rest, the mean over classes that occur), cross_entropy in nats.
    Link (one column of probabilities): auroc, ap, and those of :func:`ranking`.
    """
    if task == "multiclass":
        return _multiclass(prediction, target.squeeze(1))
    if task == "link":
        found = _classification(prediction[:, 0], target[:, 0]) | ranking(prediction[:, 0], target[:, 0])
        return {name: found[name] for name in METRICS["link"] if name in found}
    collected: dict[str, list[float]] = {}
    for p, t in zip(prediction.T, target.T):
        known = ~t.isnan()
        p, t = p[known], t[known]
        for name, value in (_regression(p, t) if task == "regression" else _classification(p, t)).items():
            collected.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in collected.items()}


def ranking(prediction: Float[Tensor, " rows"], target: Float[Tensor, " rows"]) -> dict[str, float]:
    """How far above pairs that are not joined (0) each pair that is (1) comes; all pairs are ranked together.

    ``mrr``: the mean of 1 / rank among the former, ties counting half. ``hits@k``: the share above the k-th best of the
    former (Hu et al., "Open Graph Benchmark", NeurIPS 2020); where there are fewer than k, it is left out.

    >>> ranking(torch.tensor([0.9, 0.2, 0.5, 0.1]), torch.tensor([1.0, 1.0, 0.0, 0.0]))["mrr"]
    0.75
    """
    positive, negative = prediction[target == 1].double(), prediction[target == 0].double().sort().values
    if not len(positive) or not len(negative):
        return {}
    below = torch.searchsorted(negative, positive)
    upto = torch.searchsorted(negative, positive, right=True)
    rank = 1 + (len(negative) - upto) + 0.5 * (upto - below)
    found = {"mrr": float((1 / rank).mean())}
    for k in (10, 50):
        if len(negative) >= k:
            found[f"hits@{k}"] = float((positive > negative[-k]).double().mean())
    return found


def _regression(p: Tensor, t: Tensor) -> dict[str, float]:
    if not len(t):
        return {}
    p, t = p.double(), t.double()
    result = {"rmse": float(mean_squared_error(p, t, squared=False)), "mae": float(mean_absolute_error(p, t))}
    explained = r2(p.detach().cpu().numpy(), t.cpu().numpy())
    return result if explained is None else result | {"r2": explained}


def _classification(p: Tensor, t: Tensor) -> dict[str, float]:
    if not len(t):
        return {}
    result = {"accuracy": float(((p > 0.5) == (t > 0.5)).double().mean())}
    if 0 < float(t.sum()) < len(t):
        result |= {"auroc": float(binary_auroc(p, t.long())), "ap": float(binary_average_precision(p, t.long()))}
    return result


def _multiclass(p: Tensor, t: Tensor) -> dict[str, float]:
    known = ~t.isnan()
    p, t = p[known].double(), t[known].long()
    if not len(t):
        return {}
    classes, own = p.size(1), p.gather(1, t.unsqueeze(1))
    result = {
        "accuracy": float((p.argmax(1) == t).double().mean()),
        "macro_f1": float(multiclass_f1_score(p, t, classes, average="macro")),
        "cross_entropy": float(-own.clamp(min=1e-12).log().mean()),
    }
    present = t.unique().tolist()
    if len(present) > 1:
        areas = [float(binary_auroc(p[:, label], (t == label).long())) for label in present]
        result["macro_auroc"] = sum(areas) / len(areas)
    return result
