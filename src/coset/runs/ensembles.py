"""Several runs that differ in the seed alone, as one ensemble: how good their mean is, and what their spread says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coset.core.identity import digest
from coset.reports import Panel, Section, Table
from coset.reports.calibration import ENOUGH, coverage_panel, spread_panel
from coset.reports.scores import number
from coset.runs.predictions import column_name
from coset.runs.results import RunResults

SEEDS = ("seed", "name", "description")


def ensemble_section(folders: Sequence[Path]) -> Section | None:
    """Ensembles among finished runs of numbers: runs of one recipe but for the seed, tested on the same rows.

    Args:
        folders: Of the runs; others are left out.
    """
    groups: dict[str, list[RunResults]] = {}
    for folder in folders:
        run = RunResults(folder)
        settings = {key: value for key, value in run.recipe.items() if key not in SEEDS}
        if run.recipe.get("training", {}).get("task") == "regression" and len(run.target_names) == 1:
            groups.setdefault(digest(settings, _rows(run)), []).append(run)
    whole = [runs for runs in groups.values() if len(runs) > 1]
    if not whole:
        return None
    rows, panels = [], list[Panel]()
    for runs in whole:
        row, drawn = _ensemble(runs)
        rows.append(row)
        panels += drawn if len(whole) == 1 else []
    text = "The mean of runs that differ in the seed alone: what coset predict gives for this folder."
    return Section("Ensemble", text, [Table(["runs", "RMSE of one", "RMSE of the mean", "rows"], rows)], panels)


def _rows(run: RunResults) -> list[str]:
    frame = run.predictions
    return (frame["id"].astype(str) + " " + frame["split"].astype(str)).tolist()


def _ensemble(runs: Sequence[RunResults]) -> tuple[list[Any], list[Panel]]:
    frame, split = runs[0].predictions, runs[0].splits[-1]
    name = runs[0].target_names[0]
    truth = frame[column_name("target", name)].to_numpy(float)
    each = np.stack([run.predictions[column_name("prediction", name)].to_numpy(float) for run in runs])
    error, spread = each.mean(0) - truth, each.std(0, ddof=1)
    known = np.isfinite(error) & np.isfinite(spread)
    shown, held = (known & (frame["split"] == part).to_numpy() for part in (split, "val"))
    alone = [_rms(own - truth, shown) for own in each]
    row = [len(runs), number(float(np.mean(alone))), number(_rms(error, shown)), int(shown.sum())]
    panels = list[Panel]()
    if shown.sum() >= ENOUGH:
        panels.append(spread_panel(spread[shown], error[shown], name, split))
        if held.sum() >= ENOUGH and split != "val":
            panels.insert(0, coverage_panel(np.abs(error[held]), np.abs(error[shown]), name, split))
    return row, panels


def _rms(errors: np.ndarray, rows: np.ndarray) -> float:
    return float(np.sqrt((errors[rows] ** 2).mean())) if rows.any() else float("nan")
