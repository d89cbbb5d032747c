"""Pages that show what a network gives away: of a run of kind ``reconstruction``, and of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coset.core.outside import read_arrays
from coset.privacy.verdict import SIGNIFICANT
from coset.reports import Axis, Figure, Panel, Picture, Section, Table, figure, line, write_sections
from coset.runs.folder import CURVES, REPORT, RunFolder

if TYPE_CHECKING:
    from coset.privacy.audit import Audit
    from coset.privacy.experiments import ReconstructionRecipe

Rows = list[dict[str, float]]
RECONSTRUCTIONS = "reconstructions.npz"
"""What attacks found, with the truth beside it."""
PRIVATE = "This page shows private data. Keep it where the training data may be, and do not pass it on."
CONTROLS = (
    "The same attack, on networks of the same form trained on inputs that the audited model never saw (canaries). "
    "Where it finds no canaries, finding no training inputs means nothing; what it finds under differential privacy is "
    "chance."
)
RECORDS = (
    "For each training input the correlation with the candidate most like it, up to the group, and what the weights "
    "let an attack without prior knowledge reach at most (ceiling); its multiplier in the sum that makes up the "
    "weights, and the share of held-out inputs with a smaller one."
)
BAND, APART = 10, 4
"""Images side by side; rows of pixels between one such band and the next."""
GRID = "found (above), true (middle), the held-out input most like what was found (below)"


def write(recipe: ReconstructionRecipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Write ``report.html`` of a run; returns its path."""
    text = (
        "For each training input the candidate most like it, up to the group: the mean of their correlations, and "
        "how many are above 0.9. The null is the same number for sets of inputs that the network never saw; a "
        "score that does not clear it shows no leak. The ceiling is what the training inputs keep of themselves "
        "without the changes that no weight shows (undetermined directions): more than that takes knowledge of what "
        "inputs look like. Symmetry is 1 for inputs that no group element changes."
    )
    facts = metrics["network"]
    panels = _panels(recipe, folder.read_json(CURVES))
    pictures = _pictures(folder, facts["picture"], metrics["attacks"]) if facts["picture"] else []
    notes = [*facts["notes"], "Reconstructions are private data: keep this page where the training data may be."]
    table = Table(*recipe.summary(metrics))
    return write_sections(
        folder / REPORT,
        recipe.name,
        [
            Section(
                "What the weights give away", text, [table, *_parts(facts.get("information"))], panels, pictures, notes
            )
        ],
        lead=recipe.description,
        facts={
            name: f"{value:.2g}" if isinstance(value, float) else str(value)
            for name, value in facts.items()
            if name not in ("notes", "picture", "information")
        },
        recipe=recipe.to_yaml(),
        kind="reconstruction",
        verdict=_run_verdict(metrics, recipe.data.count),
    )


def _run_verdict(metrics: dict[str, Any], count: int) -> str:
    """How many inputs the best attack finds, against inputs that the network never saw.

    The best of several attacks is the luckiest, too: probabilities are multiplied with their number (Bonferroni).
    """
    attacks = metrics["attacks"]
    best = max(attacks, key=lambda name: (attacks[name]["recognised"], attacks[name]["correlation"]))
    found, tried = attacks[best], len(attacks)
    said = f"{best} finds {found['recognised']:.0f} of {count} training inputs (mean correlation "
    said += f"{found['correlation']:.2f}, {found['null']:.2f} for inputs that the network never saw)"
    whole = min(1.0, tried * found.get("chance", found["p_value"]))
    if found["recognised"] and whole <= SIGNIFICANT:
        return f"{said}: the weights give them away (by chance with probability {whole:.2g})."
    if min(1.0, tried * found["p_value"]) <= SIGNIFICANT:
        return f"{said}: more than chance, and no more inputs whole than by chance."
    of_several = "" if tried == 1 else f" for the best of {tried} attacks"
    return f"{said}: not told from chance{of_several}, so no leak is shown."


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
    rows = [[name, f"{value:.4g}"] for name, value in audit.numbers().items() if not name.startswith("member")]
    pictures = []
    if picture is not None:
        pictures.append(Picture(_grid(picture, arrays["found"], arrays["truth"], arrays["held_out"]), GRID, 4))
    panels = []
    if _searched(audit.found.trace):
        panels.append(Panel("Residual of the weights", _curves({"search": audit.found.trace}, "residual", log=True)))
    known = None if audit.known is None else audit.known.numbers()
    sections = [
        Section(
            "What the weights give away",
            "",
            [Table(["measured", ""], rows), _membership(audit), *_parts(known)],
            panels,
            pictures,
            audit.warnings,
        ),
        Section("What the attack can find", CONTROLS, [_controls(audit)] if audit.controls else []),
        Section("Record by record", RECORDS, [_records(audit)]),
    ]
    return write_sections(
        folder / REPORT, title, sections, verdict=audit.verdict.text, facts={"verdict": audit.verdict.kind, **facts},
        kind="private audit", footer=PRIVATE,
    )  # fmt: skip


def _membership(audit: Audit) -> Table:
    """Who was trained on, told from held-out inputs by two scores."""
    rows = [
        [name, f"{audit.membership[name]:.3f}", f"{told:.3f}", f"{low:.3f} to {high:.3f}"]
        for name, (told, low, high) in audit.told.items()
    ]
    return Table(["membership by", "AUC", "members told at 1 % false positives", "95 % interval"], rows)


def _controls(audit: Audit) -> Table:
    names = {"canaries": "trained until the equations hold", "private": "trained with differential privacy"}
    rows = []
    for name, control in audit.controls.items():
        one = control.numbers()
        shown = [f"{one[key]:.3g}" if one[key] is not None else "" for key in ("correlation", "ceiling", "residual")]
        bound = "" if control.epsilon is None else f"{control.epsilon:.1f}"
        rows.append([names[name], f"{control.recovered} of {len(control.correlation)}", *shown, bound])
    columns = ["network of the same form", "canaries recovered", "best correlation", "ceiling", "residual", "epsilon"]
    return _filled(columns, rows)


def _records(audit: Audit) -> Table:
    """Every training input, the most exposed first."""
    rows = [
        [
            f"{r['record']:.0f}", f"{r['correlation']:.3f}", "" if r["ceiling"] is None else f"{r['ceiling']:.3f}",
            f"{r['multiplier']:.3g}", f"{r['above held out']:.3f}",
        ]
        for r in sorted(audit.records(), key=lambda r: -(r["correlation"] or 0.0))
    ]  # fmt: skip
    columns = ["record", "best correlation", "ceiling", "multiplier", "above held-out inputs"]
    return _filled(columns, rows)


def _filled(columns: list[str], rows: list[list[str]]) -> Table:
    """A table without the columns that nothing is known of, such as ceilings of inputs that are too large."""
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    return Table([columns[place] for place in kept], [[row[place] for place in kept] for row in rows])


def _parts(known: Mapping[str, Any] | None) -> list[Table]:
    """Energy of weights and data by the parts of the group's action."""
    if not known or not known["weights"] or len(known["weights"]) == 1:
        return []
    rows = [[name, f"{share:.2g}", f"{known['data'][name]:.2g}"] for name, share in known["weights"].items()]
    caption = "A part of the data that has no energy in the weights cannot be recovered from them."
    return [
        Table(["part of the group's action", "share of the first layer", "share of the training inputs"], rows, caption)
    ]


def _panels(recipe: ReconstructionRecipe, curves: dict[str, Any]) -> list[Panel]:
    own = [name for name, options in recipe.attacks.items() if options.of is None]  # priors repeat a search
    searches: dict[str, Rows] = {name: rows for name in own if _searched(rows := curves["attacks"][name])}
    equations = {name: rows for name, rows in searches.items() if recipe.attacks[name].method != "activation"}
    panels = []
    if equations:
        panels.append(Panel("Residual of the weights", _curves(equations, "residual", log=True)))
    if any("symmetry" in rows[0] for rows in searches.values()):
        panels.append(Panel("Drift towards symmetric inputs", _curves(searches, "symmetry")))
    if curves["margin"]:
        grown = {"smallest margin over |weights|^degree": [r for r in curves["margin"] if r["margin"] > 0]}
        panels.append(Panel("Margin in training", _curves(grown, "relative", log=True)))
    return panels


def _searched(trace: Rows) -> bool:
    """Whether there is a way to show: solved at once, or part by part, there are a beginning and an end at most."""
    return len(trace) > 2


def _pictures(folder: RunFolder, shape: Sequence[int], attacks: Mapping[str, Any]) -> list[Picture]:
    arrays = read_arrays(folder / RECONSTRUCTIONS)
    return [
        Picture(_grid(shape, arrays[name], arrays["truth"], arrays[f"{name}, held out"]), f"{name}: {GRID}", 4)
        for name in attacks
    ]


def _grid(shape: Sequence[int], *parts: np.ndarray) -> np.ndarray:
    """A row of images each, the first twenty in bands of ten that a telephone can show, each stretched to its range."""

    def tile(image: np.ndarray) -> np.ndarray:
        image = image.reshape(-1, *shape).mean(0)
        low, high = image.min(), image.max()
        return np.pad(np.uint8(255 * (image - low) / max(high - low, 1e-12)), 1, constant_values=128)

    def band(start: int) -> np.ndarray:
        rows = [np.concatenate([tile(image) for image in part[start : start + BAND]], axis=1) for part in parts]
        return np.concatenate(rows, axis=0)

    bands = [band(start) for start in range(0, min(len(parts[0]), 2 * BAND), BAND)]
    width = bands[0].shape[1]
    apart = [np.pad(one, ((0, APART), (0, width - one.shape[1])), constant_values=128) for one in bands]
    return np.concatenate(apart, axis=0)[:-APART]


def _curves(curves: Mapping[str, Rows], key: str, log: bool = False) -> Figure:
    shown = {name: rows for name, rows in curves.items() if key in rows[0]}
    marks = [line([r["step"] for r in rows], [r[key] for r in rows], name) for name, rows in shown.items()]
    return figure(*marks, x="step", y=Axis(key, log=log), legend=True)
