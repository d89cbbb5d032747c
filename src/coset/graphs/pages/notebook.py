"""What a notebook shows of a trained learner: its metrics and a picture, without scripts."""

from __future__ import annotations

from html import escape
from pathlib import Path

import pandas as pd

from coset.graphs.pages.targets import class_pairs, classes_of, targets_of
from coset.reports.sketches import confusion_sketch, parity_sketch
from coset.runs.results import RunResults


def table_and_picture(model: str, folder: Path) -> str:
    """HTML: a table of the metrics of each split, and predictions against the truth on the last split.

    Args:
        model: Its name.
        folder: Of the finished run.

    Raises:
        CosetError: A file of the run is broken.
    """
    run = RunResults(folder)
    table = pd.DataFrame({split: run.scores(split) for split in run.splits}).to_html(
        float_format=lambda value: f"{value:.4g}"
    )
    head = f"<b>{escape(model)}</b> on {escape(run.name)}, {run.metrics.get('params', 0):,} parameters"
    return f'<div>{head}<div style="display:flex;gap:24px;align-items:start">{table}{_picture(run)}</div></div>'


def _picture(run: RunResults) -> str:
    split = run.splits[-1]
    if run.has_classes:
        true, likeliest = class_pairs(run, split)
        return confusion_sketch(true.tolist(), likeliest.tolist(), classes_of(run))
    targets = targets_of(run)
    return parity_sketch({split: targets[0].pairs(split)}, targets[0].name) if targets else ""
