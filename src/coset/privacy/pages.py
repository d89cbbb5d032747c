"""Pages that show what a network gives away: of a run of kind ``reconstruction``, and of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coset.core.outside import read_arrays
from coset.reports import Axis, Figure, Panel, Picture, Section, Table, figure, line, write_sections
from coset.runs.folder import CURVES, REPORT, RunFolder

if TYPE_CHECKING:
    from coset.privacy.audit import Audit
    from coset.privacy.experiments import ReconstructionRecipe

Rows = list[dict[str, float]]
RECONSTRUCTIONS = "reconstructions.npz"
"""What attacks found, with the truth beside it."""
GRID = "found (above), true (middle), the held-out input most like what was found (below)"


def write(recipe: ReconstructionRecipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Write ``report.html`` of a run; returns its path."""
    text = (
        "For each training input the candidate most like it, up to the group: the mean of their correlations, and "
        "how many are above 0.9. The null is the same number for sets of inputs that the network never saw; a "
        "score that does not clear it shows no leak. Symmetry is 1 for inputs that no group element changes."
    )
    facts = metrics["network"]
    panels = _panels(recipe, folder.read_json(CURVES))
    pictures = _pictures(folder, facts["picture"], metrics["attacks"]) if facts["picture"] else []
    notes = [*facts["notes"], "Reconstructions are private data: keep this page where the training data may be."]
    table = Table(*recipe.summary(metrics))
    return write_sections(
        folder / REPORT,
        recipe.name,
        [Section("What the weights give away", text, [table], panels, pictures, notes)],
        lead=recipe.description,
        facts={
            name: f"{value:.2g}" if isinstance(value, float) else str(value)
            for name, value in facts.items()
            if name not in ("notes", "picture")
        },
        recipe=recipe.to_yaml(),
        kind="reconstruction",
    )


def write_audit(folder: Path, title: str, audit: Audit, arrays: Mapping[str, np.ndarray], facts: dict[str, str],
                picture: Sequence[int] | None) -> Path:  # fmt: skip
    """Write ``report.html`` of an audit; returns its path.

    Args:
        folder: Of the audit.
        title: Of the page.
        audit: What was found.
        arrays: ``found``, ``truth`` and ``held_out``, each [n, d].
        facts: Shown at the top.
        picture: Shape of an input that can be looked at.
    """
    rows = [[name, f"{value:.4g}"] for name, value in audit.numbers().items()]
    pictures = []
    if picture is not None:
        pictures.append(Picture(_grid(picture, arrays["found"], arrays["truth"], arrays["held_out"]), GRID, 4))
    panels = [Panel("Residual of the weights", _curves({"search": audit.found.trace}, "residual", log=True))]
    notes = [*audit.warnings, "This page shows private data: keep it where the training data may be."]
    section = Section("What the weights give away", "", [Table(["measured", ""], rows)], panels, pictures, notes)
    return write_sections(folder / REPORT, title, [section], facts=facts, kind="audit")


def _panels(recipe: ReconstructionRecipe, curves: dict[str, Any]) -> list[Panel]:
    searches: dict[str, Rows] = curves["attacks"]
    equations = {name: rows for name, rows in searches.items() if recipe.attacks[name].method == "kkt"}
    panels = []
    if equations:
        panels.append(Panel("Residual of the weights", _curves(equations, "residual", log=True)))
    if any("symmetry" in rows[0] for rows in searches.values()):
        panels.append(Panel("Drift towards symmetric inputs", _curves(searches, "symmetry")))
    if curves["margin"]:
        grown = {"smallest margin over |weights|^degree": [r for r in curves["margin"] if r["margin"] > 0]}
        panels.append(Panel("Margin in training", _curves(grown, "relative", log=True)))
    return panels


def _pictures(folder: RunFolder, shape: Sequence[int], attacks: Mapping[str, Any]) -> list[Picture]:
    arrays = read_arrays(folder / RECONSTRUCTIONS)
    return [
        Picture(_grid(shape, arrays[name], arrays["truth"], arrays[f"{name}, held out"]), f"{name}: {GRID}", 4)
        for name in attacks
    ]


def _grid(shape: Sequence[int], *parts: np.ndarray) -> np.ndarray:
    """A row of images each, the first twenty, each stretched to its own range."""

    def tile(image: np.ndarray) -> np.ndarray:
        image = image.reshape(-1, *shape).mean(0)
        low, high = image.min(), image.max()
        return np.pad(np.uint8(255 * (image - low) / max(high - low, 1e-12)), 1, constant_values=128)

    rows = [np.concatenate([tile(image) for image in part[:20]], axis=1) for part in parts]
    return np.concatenate(rows, axis=0)


def _curves(curves: Mapping[str, Rows], key: str, log: bool = False) -> Figure:
    shown = {name: rows for name, rows in curves.items() if key in rows[0]}
    marks = [line([r["step"] for r in rows], [r[key] for r in rows], name) for name, rows in shown.items()]
    return figure(*marks, x="step", y=Axis(key, log=log), legend=True)
