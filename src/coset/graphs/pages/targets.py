"""The targets of a run: what was to be predicted, what was, and for which molecules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from coset.reports.plots import Pairs
from coset.reports.scores import CLASSIFICATION
from coset.runs.predictions import column_name
from coset.runs.results import SPLITS, RunResults


@dataclass(frozen=True)
class Target:
    """One column to predict.

    Attributes:
        name: Its name in the data.
        true: True values, NaN where missing.
        predicted: Predictions; probabilities for a classification.
        split: Split of every row.
        ids: Name of every row.
        spread: Deviation of every prediction, where draws were made.
    """

    name: str
    true: Float[np.ndarray, " rows"]
    predicted: Float[np.ndarray, " rows"]
    split: np.ndarray
    ids: np.ndarray
    spread: Float[np.ndarray, " rows"] | None = None

    @property
    def known(self) -> Bool[np.ndarray, " rows"]:
        return np.isfinite(self.true) & np.isfinite(self.predicted)

    @property
    def error(self) -> Float[np.ndarray, " rows"]:
        return self.predicted - self.true

    @property
    def splits(self) -> list[str]:
        """Splits that have known rows: train, val, test, then any others."""
        present = dict.fromkeys(self.split[self.known])
        return [name for name in SPLITS if name in present] + [name for name in present if name not in SPLITS]

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split with a true value and a prediction."""
        return np.flatnonzero(self.known & (self.split == split))

    def pairs(self, split: str) -> Pairs:
        """Known rows of a split, to be drawn."""
        rows = self.rows(split)
        return Pairs(self.true[rows], self.predicted[rows], self.ids[rows])

    @property
    def last_split(self) -> str:
        """The test split, or the last that there is."""
        return "test" if "test" in self.splits else self.splits[-1]


def targets_of(run: RunResults) -> list[Target]:
    """Targets in the order of the columns of ``predictions.csv``; empty if there are no true values.

    Each of several classes is a target of its own: whether a row is of it, and its probability.
    """
    frame = run.predictions
    if run.has_classes:
        return [target for target in (_of_class(run, c) for c in classes_of(run)) if target.known.any()]
    found = []
    for name in run.target_names:
        spread = column_name("spread", name)
        if column_name("prediction", name) not in frame:
            continue
        target = Target(
            name=name,
            true=frame[column_name("target", name)].to_numpy(dtype=float),
            predicted=frame[column_name("prediction", name)].to_numpy(dtype=float),
            split=frame["split"].to_numpy(dtype=object),
            ids=frame["id"].to_numpy(dtype=object),
            spread=frame[spread].to_numpy(dtype=float) if spread in frame else None,
        )
        if target.known.any():
            found.append(target)
    return found


def classes_of(run: RunResults) -> list[str]:
    """Names of the classes, as the columns of ``predictions.csv`` say."""
    return [str(c).removeprefix("probability_") for c in run.predictions.columns if str(c).startswith("probability_")]


def class_pairs(run: RunResults, split: str | None = None) -> tuple[pd.Series, pd.Series]:
    """True and likeliest classes: of all rows, or of those of a split whose class is known."""
    frame, name = run.predictions, run.target_names[0]
    truth, likeliest = frame[column_name("target", name)], frame[column_name("prediction", name)]
    if split is None:
        return truth, likeliest
    shown = (frame["split"] == split) & truth.notna() & (truth != "")
    return truth[shown], likeliest[shown]


def _of_class(run: RunResults, name: str) -> Target:
    frame, truth = run.predictions, class_pairs(run)[0]
    missing = truth.isna() | (truth == "")
    return Target(
        name=name,
        true=np.where(missing, np.nan, (truth == name).astype(float)),
        predicted=frame[f"probability_{name}"].to_numpy(dtype=float),
        split=frame["split"].to_numpy(dtype=object),
        ids=frame["id"].to_numpy(dtype=object),
    )


def is_classification(run: RunResults, targets: list[Target]) -> bool:
    """By the recipe, else by the metrics, else because the targets are 0 and 1 and predictions in between."""
    task: Any = run.recipe.get("training", {}).get("task")
    if task is not None:
        return bool(task != "regression")
    metrics = {name for split in SPLITS for name in run.scores(split)}
    if metrics:
        return bool(metrics & set(CLASSIFICATION))
    return bool(targets) and all(
        np.isin(t.true[t.known], (0, 1)).all() and ((t.predicted[t.known] >= 0) & (t.predicted[t.known] <= 1)).all()
        for t in targets
    )
