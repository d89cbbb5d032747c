"""The page of a motion run: how each method does on held-out scenes, how training went, what the symmetry measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from coset.core.outside import read_numbers
from coset.reports import Axis, Panel, Section, Table, box, counted, figure, line, write_sections
from coset.runs.folder import CERTIFICATE, HISTORY, PREDICTIONS, REPORT, RunFolder

SHOWN = {
    "reprojection": "reprojection, % of width", "rotation": "rotation, degrees", "camera_path": "camera path",
    "points": "points", "moving_points": "moving points", "phantom_motion": "phantom motion",
    "motion_cosine": "cosine of motion", "motion_size": "size of motion", "abs_rel": "depth abs-rel",
    "dynamic_abs_rel": "moving depth abs-rel", "auroc": "motion AUROC", "seconds": "CPU seconds",
}  # fmt: skip
"""Metrics of a scene that tables show, and what they are called."""
BRIEF = {
    "rotation": "rotation", "points": "points", "moving_points": "moving", "phantom_motion": "phantom",
    "motion_cosine": "cosine", "abs_rel": "depth", "seconds": "seconds",
}  # fmt: skip
"""Those for which a terminal has room."""
MARKS = ("feed-forward, B_k = 0", "truth, moving points frozen")
"""Rows that are no methods."""


def write(folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Write ``report.html`` of a run; returns its path."""
    sections = [
        _results(metrics),
        _scenes(read_numbers(folder / PREDICTIONS)),
        *([_training(read_numbers(folder / HISTORY))] if metrics["steps"] else []),
        _symmetry(folder.read_json(CERTIFICATE)),
    ]
    facts = {"parameters": f"{metrics['params']:,}", "seed": str(metrics["seed"]), "seconds": str(metrics["seconds"])}
    return write_sections(
        folder / REPORT,
        metrics["recipe"],
        sections,
        lead="Camera and moving 3D from point tracks, on synthetic scenes with exact truth.",
        facts=facts,
        recipe=folder.recipe(),
        kind="3D from tracks",
        verdict=_verdict(metrics),
    )


def _verdict(metrics: dict) -> str:
    """The method with the smallest error of points in the first group of scenes that has a truth."""
    for group, methods in metrics["test"].items():
        known = {name: values for name, values in methods.items() if "points" in values and name not in MARKS}
        if known:
            best = min(known, key=lambda name: known[name]["points"])
            error, turned = known[best]["points"], known[best].get("rotation")
            rotation = "" if turned is None else f", cameras by {turned:.2g}°"
            return f"Best on {group}: {best}, points off by {100 * error:.2g} % of the scene{rotation}."
    return f"{counted(len(metrics['test']), 'group')} of scenes measured."


def _results(metrics: dict) -> Section:
    tables = [
        Table(["method", *SHOWN.values()], [[m, *(_round(v.get(n)) for n in SHOWN)] for m, v in methods.items()], group)
        for group, methods in metrics["test"].items()
    ]
    text = (
        "Medians over scenes. Points and camera path are errors after the best similarity, over the scene's own size. "
        "Phantom motion is how far points that stand still are moved, over the same size; cosine and size compare the "
        "motion of moving points with the true one (1 is right). Depths are scaled by the median over all visible "
        "points of a frame. Motion AUROC is the chance that a moving point has the larger motion level. The last two "
        "rows are no methods but marks: what the network finds with B_2 to B_K set to 0, so that nothing moves, and "
        "the truth with every moving point frozen at its mean place."
    )
    return Section("Held-out scenes", text, tables)


def _scenes(rows: pd.DataFrame) -> Section:
    boxes = [
        box(part["rotation"].clip(lower=1e-3), str(method), every=True, texts=part["body"])
        for method, part in rows.groupby("method", sort=False)
    ]
    drawn = figure(*boxes, y=Axis("rotation error, degrees", log=True), legend=False, height=420)
    return Section("Scene by scene", panels=[Panel("Camera rotation error of every scene", drawn)])


def _training(history: pd.DataFrame) -> Section:
    names = [c for c in history.columns if c not in ("step", "share")]
    drawn = {name: figure(line(history["step"], history[name]), x="update") for name in names}
    return Section("Training", panels=[Panel(name, curve) for name, curve in drawn.items()])


def _symmetry(certificate: list[dict]) -> Section:
    rows = [
        [r["statement"], "holds" if r["passed"] else "BROKEN", f"{r['max_relative_error'] or 0:.1e}", r["dtype"]]
        for r in certificate
    ]
    return Section("Symmetry", tables=[Table(["claim", "verdict", "relative error", "type"], rows)])


def _round(value: float | None) -> float | None:
    """Three digits; what rounding left of nothing is nothing."""
    return None if value is None else 0.0 if abs(value) < 1e-9 else float(f"{value:.3g}")
