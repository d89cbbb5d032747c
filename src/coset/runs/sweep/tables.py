"""What a sweep found, as tables: a row a trial, a row a setting, trials from the best to the worst."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from coset.runs.folder import RUNS, RunFolder
from coset.runs.launch.jobs import Outcome
from coset.runs.sweep.outcomes import curve_of, numbers, state_of, training_seconds
from coset.runs.sweep.trials import Trial
from coset.runs.sweep.tuning import Objective

Ended = Mapping[str, tuple[Trial, Outcome]]
"""By the trial's place, in the order of the sweep."""


def trial_table(ended: Ended) -> pd.DataFrame:
    """``sweep.csv``: a row a trial, with all its numbers."""
    return pd.DataFrame(
        {
            **trial.labels, "seed": trial.recipe.seed, "folder": place, "error": outcome.error,
            **numbers(outcome.result or {}), "wall": outcome.seconds,
        }
        for place, (trial, outcome) in ended.items()
    )  # fmt: skip


def summarise(ended: Ended, metric: str, folder: RunFolder) -> list[dict[str, Any]]:
    """Mean and deviation over seeds, a row a setting, in the order of the sweep.

    Where a data set has no test split its validation split stands in, and the row says so.
    """
    groups: dict[str, list[tuple[Trial, Outcome]]] = {}
    for trial, outcome in ended.values():
        groups.setdefault(trial.label, []).append((trial, outcome))
    rows = []
    for label, group in groups.items():
        tables = [numbers(outcome.result) for _, outcome in group if outcome.result is not None]
        name = metric
        if not any(metric in table for table in tables) and metric.startswith("test."):
            name = f"val.{metric.removeprefix('test.')}"
        values = [table[name] for table in tables if name in table]
        rows.append({
            "label": label, "labels": dict(group[0][0].labels), "metric": name, "values": values,
            "failed": len(group) - len(tables), "mean": _mean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else None,
            "seconds": _mean([(outcome.result or {}).get("seconds", outcome.seconds) for _, outcome in group]),
            "cpu_seconds_per_epoch": _mean([s for trial, _ in group for s in _seconds_per_epoch(trial, folder)]),
            "params": next((int(table["params"]) for table in tables if "params" in table), None),
        })  # fmt: skip
    return rows


def ranked(ended: Ended, objective: Objective, folder: RunFolder) -> dict[str, Any]:
    """Trials from the best to the worst by the objective, and how much was run of what could have been."""
    sign = -1 if objective.better == "higher" else 1
    rows: list[dict[str, Any]] = []
    for place, (trial, outcome) in ended.items():
        run = trial.recipe.folder(folder / RUNS / place)
        told = numbers(outcome.result or {})
        rows.append({
            "label": trial.label, "settings": dict(trial.labels), "seed": trial.recipe.seed, "folder": place,
            "epochs": len(curve_of(trial.recipe.monitor, run)), "val": objective.of(trial, outcome, folder),
            "test": told.get(trial.recipe.judged_by), "cpu_seconds": training_seconds(run),
            "error": outcome.error, "state": state_of(outcome),
        })  # fmt: skip
    rows.sort(key=lambda row: (row["val"] is None, sign * (row["val"] or 0)))
    counted = [trial.recipe.most_epochs for trial, _ in ended.values() if trial.recipe.counts_epochs]
    return {
        "ranking": rows, "objective": objective.name,
        "monitor": objective.metric if objective.on_validation else None,
        "epochs": sum(row["epochs"] for row in rows),
        "all_epochs": sum(counted),
        "trial_cpu_seconds": round(sum(row["cpu_seconds"] or 0.0 for row in rows), 1),
    }  # fmt: skip


def table_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The rows of :func:`summarise` as text; columns that no row fills are left out."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    columns = ["", metrics[0] if len(metrics) == 1 else "result", "runs", "failed", "CPU s per epoch", "parameters"]
    cells = [
        [
            row["label"], spread(row), str(len(row["values"])), str(row["failed"] or ""),
            short(row["cpu_seconds_per_epoch"], ""), "" if row["params"] is None else f"{row['params']:,}",
        ]
        for row in rows
    ]  # fmt: skip
    kept = [i for i in range(len(columns)) if i < 4 or any(line[i] for line in cells)]
    return [columns[i] for i in kept], [[line[i] for i in kept] for line in cells]


def spread(row: Mapping[str, Any]) -> str:
    """Mean and deviation as text."""
    if row["mean"] is None:
        return "no result"
    return f"{row['mean']:.4g}" + ("" if row["deviation"] is None else f" ± {row['deviation']:.2g}")


def short(value: float | None, missing: str = "–") -> str:
    """A number to four digits."""
    return missing if value is None else f"{value:.4g}"


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _seconds_per_epoch(trial: Trial, folder: RunFolder) -> list[float]:
    run = trial.recipe.folder(folder / RUNS / trial.place)
    seconds, epochs = training_seconds(run), len(curve_of(trial.recipe.monitor, run))
    return [seconds / epochs] if seconds is not None and epochs else []
