"""Columns of tables of predictions: what was to be predicted, and what was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

KINDS = ("target", "prediction", "spread")
"""What a column of a target can be in the ``predictions.csv`` of a run; ``coset predict`` adds ``low`` and ``high``."""


def column_name(kind: str, target: str) -> str:
    """``prediction_solubility``: the kind of column, then the target."""
    return f"{kind}_{target}"


def named_columns(columns: Sequence[str], only: str) -> dict[str, str]:
    """New names of columns that Coset 0.1 wrote without the target's name, where there was only one target.

    Args:
        columns: Of a table of predictions.
        only: Name of the one target.
    """
    return {kind: column_name(kind, only) for kind in KINDS if kind in columns}


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
        return {column_name("prediction", name): values[:, at] for at, name in enumerate(names)}
    table = {column_name("prediction", names[0]): np.asarray(classes, dtype=object)[values.argmax(1)]}
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
        return {column_name("spread", names[0]): values[np.arange(len(values)), predictions.argmax(1).numpy()]}
    return {column_name("spread", name): values[:, at] for at, name in enumerate(names)}


def target_columns(
    names: Sequence[str], classes: Sequence[str], targets: Float[Tensor, "rows targets"]
) -> dict[str, np.ndarray]:
    """A column a target, empty where it is missing; of classes their names."""
    values = targets.numpy()
    if not classes:
        return {column_name("target", name): values[:, at] for at, name in enumerate(names)}
    found = np.full(len(values), None, dtype=object)
    known = ~np.isnan(values[:, 0])
    found[known] = np.asarray(classes, dtype=object)[values[known, 0].astype(int)]
    return {column_name("target", names[0]): found}
