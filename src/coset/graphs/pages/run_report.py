"""The page of one run: how good, how it got there, where it fails, where it looks, whether it respects its group."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from coset.graphs.pages.molecules import draw
from coset.graphs.pages.targets import Target, class_pairs, classes_of, is_classification, targets_of
from coset.graphs.pages.views import view_sections
from coset.reports import (
    Figures,
    Panel,
    Section,
    Widget,
    certificate_section,
    counted,
    fragment,
    plots,
    sentences,
    standing,
    training_section,
    unfinished,
    write_sections,
)
from coset.reports.calibration import ENOUGH, coverage_panel, reliability_panel, spread_panel
from coset.reports.scores import against_baseline, duration, measure, number
from coset.runs.results import RunResults

TARGETS = 24  # with plots and drawings of their own; all are in the table of targets
CALIBRATED = 4
WORST = 12
WORST_OF_MANY = 6
TABLE_ROWS = 1000
TEMPLATE, STYLE = "coset.graphs.pages:run.html.j2", "coset.graphs.pages:run.css"


def write_report(run_dir: Path | str, metrics: dict[str, Any] | None = None) -> Path:
    """Write ``report.html`` into a run's folder: one file that opens offline.

    Sections whose files are missing are left out. Read are ``recipe.yaml``, ``metrics.json``, ``history.csv``,
    ``predictions.csv``, ``certificate.json`` and the records of views (:mod:`coset.graphs.pages.views`).

    Args:
        run_dir: The folder.
        metrics: What the run measured, where ``metrics.json`` is not yet written.

    Returns:
        Path of the page.

    Raises:
        CosetError: The folder holds no run, a file of it is broken, or the page cannot be written.
    """
    run = RunResults(Path(run_dir), metrics)
    targets = targets_of(run)
    figures = Figures()
    how = "The run left no recipe file; this is its name and seed."
    if run.recipe_text:
        how = Markup(
            "The recipe below is complete, with every override and the seed; it lies beside this page as "
            "<code>recipe.yaml</code>."
        )
    return write_sections(
        run.path / "report.html",
        run.name,
        _sections(run, targets, figures),
        lead=run.recipe.get("description") or "",
        facts=_facts(run),
        command=_command(run),
        recipe=run.recipe_text,
        how=how,
        versions=_versions(run),
        controls=fragment(TEMPLATE, "choice", targets=targets[:TARGETS]),
        figures=figures,
        kind="training run",
        verdict=_verdict(run, targets),
    )


def _verdict(run: RunResults, targets: list[Target]) -> str:
    """How good, against always predicting the mean or the prior; and whether the network respects its group."""
    cards = _cards(run)
    if not cards:
        return ""
    first, kept = cards[0], ""
    if run.certificate:
        kept = f"Its symmetry {'holds' if all(c['passed'] for c in run.certificate) else 'is broken'}."
    said = standing(
        first["metric"], first["value"], first["split"], rows=_rows_of(run, first["split"]),
        baseline=first["baseline"], guess="the prior" if is_classification(run, targets) else "the mean",
    )  # fmt: skip
    return sentences(said, unfinished(run.metrics.get("best_epoch"), run.metrics.get("epochs")), kept)


def _rows_of(run: RunResults, split: str) -> str:
    """How many of what a split has, e.g. ``113 molecules``."""
    frame = run.predictions
    if not len(frame):
        return ""
    what = "molecule" if "smiles" in frame and (frame["smiles"] != "").any() else "graph"
    what = next((name for column, name in (("node", "node"), ("u", "pair"), ("cell", "cell")) if column in frame), what)
    return counted(int((frame["split"] == split).sum()), what)


def _sections(run: RunResults, targets: list[Target], figures: Figures) -> list[Section]:
    """What there is to show, in order."""
    classification = is_classification(run, targets)
    sections = []
    if run.splits:
        baseline = "the prior" if classification else "the mean"
        sections.append(_section("Result", "result", run=run, cards=_cards(run), baseline_name=baseline))
    training = training_section(run.history, run.metrics.get("best_epoch"))
    if training.panels:
        sections.append(training)
    if run.has_classes and targets:
        sections.append(_classes(run))
    if targets:
        shown = [_target(run, t, classification, figures, len(targets)) for t in targets[:TARGETS]]
        table = _per_target(targets, classification) if len(targets) > 1 else None
        hidden = max(0, len(targets) - TARGETS)
        sections.append(_section("Predictions", "predictions", targets=shown, hidden_targets=hidden, per_target=table))
        if panels := _calibration(run, targets, classification):
            sections.append(Section("Calibration", panels=panels, anchor="calibration"))
        sections.append(replace(_section("Worst predictions", "worst", targets=shown), short="Worst"))
    sections += view_sections(run.path, lambda id: _note(id, targets))
    if run.certificate:
        sections.append(certificate_section(run.certificate))
    if len(run.predictions):
        sections.append(_table_section(run, targets[:TARGETS]))
    return sections


def _classes(run: RunResults) -> Section:
    """What rows of each class were taken for, on the test split or the last that there is."""
    split = run.splits[-1]
    true, likeliest = class_pairs(run, split)
    panel = plots.confusion(true.tolist(), likeliest.tolist(), classes_of(run), split)
    return Section("Classes", panels=[panel])


def _section(title: str, macro: str, **shown: Any) -> Section:
    """A section of the template's, with what styles drawings and viewers."""
    return Section(title, widget=Widget(fragment(TEMPLATE, macro, **shown), styles=[STYLE]), anchor=macro)


def _facts(run: RunResults) -> dict[str, str]:
    """The line under the title: what one wants to know before the numbers."""
    m = run.metrics
    facts = {}
    if len(run.predictions):
        counts = run.predictions["split"].value_counts()
        known = [f"{number(int(counts[s]))} {s}" for s in ("train", "val", "test") if s in counts]
        facts["graphs"] = " · ".join(known) or number(len(run.predictions))
    if "params" in m:
        facts["parameters"] = number(m["params"])
    if "seconds" in m:
        facts["time"] = duration(float(m["seconds"]))
    if "epochs" in m:
        best = f", best {number(m['best_epoch'])}" if m.get("best_epoch") is not None else ""
        facts["epochs"] = f"{number(m['epochs'])}{best}"
    if run.seed is not None:
        facts["seed"] = str(run.seed)
    threads = (m.get("machine") or {}).get("threads")
    if threads is not None:
        facts["threads"] = str(threads)
    return facts


def _cards(run: RunResults) -> list[dict[str, Any]]:
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


def _target(run: RunResults, target: Target, classification: bool, figures: Figures, count: int) -> dict[str, Any]:
    samples = {split: target.pairs(split) for split in target.splits}
    if classification:
        split = target.last_split
        panels = [plots.roc(samples, target.name), plots.class_scores(samples[split], split, target.name)]
    else:
        panels = [plots.parity(samples, target.name, "molecules"), plots.residuals(samples, target.name)]
    return {
        "name": target.name,
        "panels": [figures.add(panel) for panel in panels],
        "worst": _worst(run.predictions, target, WORST if count == 1 else WORST_OF_MANY),
    }


def _calibration(run: RunResults, targets: list[Target], classification: bool) -> list[Panel]:
    """Whether intervals and probabilities are as sure as they may be, for the first targets."""
    if run.has_classes:
        return _reliability_of_classes(run)
    panels = []
    for target in targets[:CALIBRATED]:
        split = target.last_split
        pairs, rows = target.pairs(split), target.rows(split)
        if len(rows) < ENOUGH:
            continue
        if classification:
            panels.append(reliability_panel(pairs.predicted, pairs.true, target.name, split))
            continue
        held = np.abs(target.error[target.rows("val")])
        if len(held) >= ENOUGH and split != "val":
            panels.append(coverage_panel(held, np.abs(target.error[rows]), target.name, split))
        if target.spread is not None and np.isfinite(target.spread[rows]).all():
            panels.append(spread_panel(target.spread[rows], target.error[rows], target.name, split))
    return panels


def _reliability_of_classes(run: RunResults) -> list[Panel]:
    """Of the probability of the class that was thought the likeliest."""
    split = run.splits[-1]
    true, likeliest = class_pairs(run, split)
    if len(true) < ENOUGH:
        return []
    confidence = (
        run.predictions.loc[true.index, [f"probability_{name}" for name in classes_of(run)]].to_numpy(float).max(1)
    )
    right = (true == likeliest).to_numpy(float)
    return [reliability_panel(confidence, right, "the likeliest class", split)]


def _worst(frame: pd.DataFrame, target: Target, count: int) -> dict[str, Any]:
    """Molecules of the test split (or the last there is) with the largest errors, drawn where they can be."""
    split = target.last_split
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


def _table_section(run: RunResults, targets: list[Target]) -> Section:
    """The table that the page can search and sort."""
    rows, total = _rows(run.predictions, targets), len(run.predictions)
    note = f"All {number(total)} rows of <code>predictions.csv</code>, test first."
    if len(rows) < total:
        note = (
            f"The first {number(len(rows))} of {number(total)} rows, test before val before train; all are in "
            "<code>predictions.csv</code>."
        )
    smiles = "smiles" in run.predictions
    table = Widget(
        Markup(f'<div id="prediction-table"></div>\n<p class="note">{note}</p>'),
        scripts=["coset.graphs.pages:predictions.js"],
        styles=[STYLE],
        data={"table-data": {"smiles": smiles, "targets": [target.name for target in targets], "rows": rows}},
    )
    return Section("Table of predictions", widget=table, anchor="table", short="Table")


def _rows(frame: pd.DataFrame, targets: list[Target]) -> list[list[Any]]:
    """Test molecules first, since they are the ones asked about: id, SMILES, split, and each target's two numbers."""
    rank = frame["split"].map({"test": 0, "val": 1, "train": 2}).fillna(3).to_numpy()
    rows = np.argsort(rank, kind="stable")[:TABLE_ROWS]
    smiles = frame["smiles"] if "smiles" in frame else pd.Series([""] * len(frame))
    return [
        [
            *(str(column.iloc[row]) for column in (frame["id"], smiles, frame["split"])),
            *(_short(value) for t in targets for value in (t.true[row], t.predicted[row])),
        ]
        for row in rows
    ]


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _note(id: str, targets: list[Target]) -> str:
    """What a view says about a graph: the first target, where it is known."""
    rows = np.flatnonzero(targets[0].ids == id) if targets else np.zeros(0, int)
    if len(rows) != 1 or not targets[0].known[rows[0]]:
        return ""
    return f"true {number(targets[0].true[rows[0]])}, predicted {number(targets[0].predicted[rows[0]])}"


def _command(run: RunResults) -> str:
    """What repeats the run: its own resolved recipe, in which seed and overrides are settled."""
    recipe = "recipe.yaml" if run.recipe_text else shlex.quote(run.name)
    seed = f" --seed {run.seed}" if run.seed is not None else ""
    return f"coset run {recipe}{seed}"


def _versions(run: RunResults) -> dict[str, Any] | None:
    """Of packages, then of the machine."""
    machine = {name.replace("_", " "): value for name, value in (run.metrics.get("machine") or {}).items()}
    versions = run.metrics.get("versions")
    return {**versions, **machine} if versions else None
