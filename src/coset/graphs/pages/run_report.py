"""The page of one run: how good, how it got there, where it fails, where it looks, whether it respects its group."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from coset.graphs.pages.molecules import draw
from coset.graphs.pages.targets import Target, is_classification, targets_of
from coset.reports import plots
from coset.reports.page import Figures, render, write_page
from coset.reports.scores import against_baseline, duration, measure, number
from coset.runs.results import RunFolder

TARGETS = 24  # with plots and drawings of their own; all are in the table of targets
WORST = 12
WORST_OF_MANY = 6
TABLE_ROWS = 1000
SCRIPTS = ("page.js", "table.js", "coset.graphs.pages:attention.js", "coset.topology:cells.js")


def write_report(run_dir: Path | str) -> Path:
    """Write ``report.html`` into a run's folder: one file that opens offline.

    Sections whose files are missing are left out. Read are ``recipe.yaml``, ``metrics.json``, ``history.csv``,
    ``predictions.csv``, ``certificate.json``, ``attention.json`` (see :func:`coset.reports.attention_record`) and
    ``cells.json`` (:func:`coset.reports.cell_record`).

    Returns:
        Path of the page.

    Raises:
        CosetError: The folder holds no run, a file of it is broken, or the page cannot be written.
    """
    run = RunFolder.read(Path(run_dir))
    targets = targets_of(run)
    classification = is_classification(run, targets)
    figures = Figures()
    html = render(
        "coset.graphs.pages:run.html.j2",
        SCRIPTS,
        run=run,
        facts=_facts(run),
        cards=_cards(run),
        baseline_name="the prior" if classification else "the mean",
        curves=[figures.add(panel) for panel in plots.training_curves(run.history, run.metrics.get("best_epoch"))],
        targets=[_target_section(run, t, classification, figures, len(targets)) for t in targets[:TARGETS]],
        hidden_targets=max(0, len(targets) - TARGETS),
        per_target=_per_target(targets, classification) if len(targets) > 1 else None,
        table=_table(run, targets[:TARGETS]),
        attention=[_attention(record.to_dict(), targets) for record in run.attention],
        cells=[_attention(record.to_dict(), targets) for record in run.cells],
        weighed=any(record.weights for record in run.cells),
        command=_command(run),
        figures=figures.specifications,
    )
    return write_page(run.path / "report.html", html)


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    """The line under the title: what one wants to know before the numbers."""
    m = run.metrics
    facts = []
    if len(run.predictions):
        counts = run.predictions["split"].value_counts()
        known = [f"{number(int(counts[s]))} {s}" for s in ("train", "val", "test") if s in counts]
        facts.append(("graphs", " · ".join(known) or number(len(run.predictions))))
    if "params" in m:
        facts.append(("parameters", number(m["params"])))
    if "seconds" in m:
        facts.append(("time", duration(float(m["seconds"]))))
    if "epochs" in m:
        best = f", best {number(m['best_epoch'])}" if m.get("best_epoch") is not None else ""
        facts.append(("epochs", f"{number(m['epochs'])}{best}"))
    if run.seed is not None:
        facts.append(("seed", str(run.seed)))
    threads = (m.get("machine") or {}).get("threads")
    if threads is not None:
        facts.append(("threads", str(threads)))
    return facts


def _cards(run: RunFolder) -> list[dict[str, Any]]:
    """Headline metrics of the test split (or the last there is), the one that chose the epoch first."""
    if not run.splits:
        return []
    split = run.splits[-1]
    scores, baseline = run.scores(split), run.baseline(split)
    ordered = sorted(scores, key=lambda name: name != run.monitor)
    return [
        {
            "split": split,
            "metric": name,
            "value": scores[name],
            "baseline": baseline.get(name),
            "verdict": against_baseline(name, scores[name], baseline.get(name)),
        }
        for name in ordered[:4]
    ]


def _target_section(
    run: RunFolder, target: Target, classification: bool, figures: Figures, count: int
) -> dict[str, Any]:
    if classification:
        panels = [plots.roc_curves(target), plots.score_histogram(target)]
    else:
        panels = [plots.predicted_versus_true(target), plots.residual_histogram(target)]
    return {
        "name": target.name,
        "panels": [figures.add(panel) for panel in panels],
        "worst": _worst(run.predictions, target, WORST if count == 1 else WORST_OF_MANY),
    }


def _worst(frame: pd.DataFrame, target: Target, count: int) -> dict[str, Any]:
    """Molecules of the test split (or the last there is) with the largest errors, drawn where they can be."""
    split = "test" if "test" in target.splits else target.splits[-1]
    rows = target.rows(split)
    rows = rows[np.argsort(-np.abs(target.error[rows]), kind="stable")][:count]
    smiles = frame["smiles"] if "smiles" in frame else pd.Series([""] * len(frame))
    molecules = []
    for row in rows:
        text = str(smiles.iloc[row])
        molecules.append(
            {
                "id": target.ids[row],
                "smiles": text,
                "svg": Markup(draw(text) or ""),  # RDKit's own markup, no text of the user's
                "true": target.true[row],
                "predicted": target.predicted[row],
                "error": target.error[row],
            }
        )
    return {"split": split, "molecules": molecules}


def _per_target(targets: list[Target], classification: bool) -> dict[str, Any]:
    """A row a target: numbers of the test split, or the last there is."""
    splits = [split for split in ("train", "val", "test") if any(split in t.splits for t in targets)]
    split = splits[-1] if splits else targets[0].splits[-1]
    rows = []
    for target in targets:
        chosen = target.rows(split)
        scores = measure(target.true[chosen], target.predicted[chosen], classification)
        rows.append({"name": target.name, "count": len(chosen), "scores": scores})
    names = ("auroc", "accuracy") if classification else ("rmse", "mae", "r2")
    return {"split": split, "metrics": names, "rows": rows}


def _table(run: RunFolder, targets: list[Target]) -> dict[str, Any] | None:
    """The rows that the page can search: test molecules first, since they are the ones asked about."""
    frame = run.predictions
    if not len(frame):
        return None
    rank = frame["split"].map({"test": 0, "val": 1, "train": 2}).fillna(3).to_numpy()
    rows = np.argsort(rank, kind="stable")[:TABLE_ROWS]
    smiles = frame["smiles"].to_numpy() if "smiles" in frame else None
    return {
        "total": len(frame),
        "smiles": smiles is not None,
        "targets": [target.name for target in targets],
        "rows": [
            [
                str(frame["id"].iloc[row]),
                "" if smiles is None else str(smiles[row]),
                str(frame["split"].iloc[row]),
                *(_short(value) for t in targets for value in (t.true[row], t.predicted[row])),
            ]
            for row in rows
        ],
    }


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _attention(record: dict[str, Any], targets: list[Target]) -> dict[str, Any]:
    """A record with what its entry in the list of molecules says."""
    note = ""
    if targets:
        found = np.flatnonzero(targets[0].ids == record["id"])
        if len(found) == 1 and targets[0].known[found[0]]:
            row = found[0]
            note = f"true {number(targets[0].true[row])}, predicted {number(targets[0].predicted[row])}"
    return {**record, "note": note}


def _command(run: RunFolder) -> str:
    """What repeats the run: its own resolved recipe, in which seed and overrides are settled."""
    recipe = "recipe.yaml" if run.recipe_text else shlex.quote(run.name)
    seed = f" --seed {run.seed}" if run.seed is not None else ""
    return f"coset run {recipe}{seed}"
