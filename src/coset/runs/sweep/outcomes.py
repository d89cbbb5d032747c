"""What became of a trial, read from the folder of its run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from coset.core.errors import CosetError
from coset.core.outside import read_numbers
from coset.runs.folder import HISTORY, RunFolder
from coset.runs.launch.jobs import Outcome
from coset.runs.recipe import Recipe

WORSE = "worse than the other trials of its sweep"
"""Why a trial was given up, in its ``status.json``."""


def was_given_up(folder: RunFolder) -> bool:
    """Whether a trial was stopped because others are better."""
    return folder.status().get("why") == WORSE


def stopped_at(recipe: Recipe, folder: RunFolder) -> dict[str, Any]:
    """The result of a trial that was given up: after how many epochs, and its best validation until then."""
    from coset.runs.metrics import best

    values = curve_of(recipe.monitor, folder)
    return {"stopped": len(values), "val": {str(recipe.monitor): best(str(recipe.monitor), values)}}


def state_of(outcome: Outcome) -> str:
    """finished, stopped or failed."""
    return "failed" if outcome.error else "stopped" if "stopped" in (outcome.result or {}) else "finished"


def curve_of(monitor: str | None, folder: RunFolder) -> list[float]:
    """Validation after each epoch; empty for kinds that do not count them, or before the first."""
    return _column(folder, f"val_{monitor}")


def training_seconds(folder: RunFolder) -> float | None:
    """CPU seconds of training and validation, where a run counts them."""
    return next(iter(_column(folder, "cpu_seconds")[-1:]), None)


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of nested metrics, by dotted names.

    >>> numbers({"test": {"rmse": 1.5, "by": {"a": 2}}, "name": "x"})
    {'test.rmse': 1.5, 'test.by.a': 2.0}
    """
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = float(value)
    return found


def _column(folder: RunFolder, name: str) -> list[float]:
    with suppress(CosetError, KeyError, ValueError):
        return [float(value) for value in read_numbers(folder / HISTORY)[name]]
    return []
