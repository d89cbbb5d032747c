"""Columns of tables of predictions: what was to be predicted, and what was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor


def column_name(kind: str, name: str, names: Sequence[str]) -> str:
    """``target`` or ``prediction`` where there is one, ``target_<name>`` where there are several."""
    return kind if len(names) == 1 else f"{kind}_{name}"


def prediction_columns(
    names: Sequence[str], classes: Sequence[str], predictions: Float[Tensor, "rows columns"]
) -> dict[str, np.ndarray]:
    """A column a target; of classes the likeliest, then the probability of each.

    Args:
        names: Of the targets.
        classes: Of the one target, if it is one of several classes.
        predictions: A column a target, or the probability of each class.
    """
    values = predictions.numpy()
    if not classes:
        return {column_name("prediction", name, names): values[:, at] for at, name in enumerate(names)}
    table = {"prediction": np.asarray(classes, dtype=object)[values.argmax(1)]}
    return table | {f"probability_{name}": values[:, at] for at, name in enumerate(classes)}


def spread_columns(
    names: Sequence[str],
    classes: Sequence[str],
    spread: Float[Tensor, "rows columns"],
    predictions: Float[Tensor, "rows columns"],
) -> dict[str, np.ndarray]:
    """Deviations of predictions: a column a target; of classes that of the probability of the likeliest.

    Args:
        names: Of the targets.
        classes: As of :func:`prediction_columns`.
        spread: Of each number.
        predictions: The numbers.
    """
    values = spread.numpy()
    if classes:
        return {"spread": values[np.arange(len(values)), predictions.argmax(1).numpy()]}
    return {column_name("spread", name, names): values[:, at] for at, name in enumerate(names)}


def target_columns(
    names: Sequence[str], classes: Sequence[str], targets: Float[Tensor, "rows targets"]
) -> dict[str, np.ndarray]:
    """A column a target, empty where it is missing; of classes their names."""
    values = targets.numpy()
    if not classes:
        return {column_name("target", name, names): values[:, at] for at, name in enumerate(names)}
    found = np.full(len(values), None, dtype=object)
    known = ~np.isnan(values[:, 0])
    found[known] = np.asarray(classes, dtype=object)[values[known, 0].astype(int)]
    return {"target": found}
