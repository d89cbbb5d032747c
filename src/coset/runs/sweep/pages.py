"""The page of a sweep: its ranking if there is one, its table, its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coset.core.metrics import known_direction
from coset.reports import (
    Axis,
    Figure,
    Panel,
    Rule,
    Section,
    Table,
    counted,
    figure,
    line,
    points,
    sentences,
    write_sections,
)
from coset.reports.scores import higher_is_better, label
from coset.reports.verdicts import named
from coset.runs.ensembles import ensemble_section
from coset.runs.folder import PREDICTIONS, REPORT, RUNS, RunFolder
from coset.runs.sweep.outcomes import curve_of
from coset.runs.sweep.tables import short, table_of

if TYPE_CHECKING:
    from coset.runs.sweep.base import SweepBase
    from coset.runs.sweep.tuning import Better

Rows = Sequence[Mapping[str, Any]]


def write(sweep: SweepBase, folder: RunFolder, metrics: Mapping[str, Any]) -> Path:
    """Write ``report.html``; returns its path."""
    rows, seeds = metrics["rows"], ", ".join(map(str, sweep.seeds))
    text = f"{metrics['metric']}: mean and standard deviation over seeds {seeds}."
    if any(row["cpu_seconds_per_epoch"] is not None for row in rows):
        text += " CPU seconds are those of training and validation, without reading and encoding."
    notes = [*metrics["notes"], *(f"{name} failed: {reason}" for name, reason in metrics["failed"].items())]
    sections = [Section("Trials", text, [Table(*table_of(rows))], sweep.panels(rows), notes=notes)]
    if "ranking" in metrics:
        sections.insert(0, _ranking(metrics, folder))
    done = [folder / RUNS / place for place, state in metrics["states"].items() if state == "finished"]
    if (ensembles := ensemble_section([path for path in done if (path / PREDICTIONS).is_file()])) is not None:
        sections.append(ensembles)
    facts = {"trials": str(metrics["trials"]), "seeds": seeds, "seconds": str(metrics["seconds"])}
    return write_sections(
        folder / REPORT,
        sweep.name.capitalize() if sweep.command else sweep.name,
        sections,
        lead=sweep.description,
        facts=facts,
        command=sweep.command or "",
        recipe=sweep.to_yaml(),
        kind="sweep",
        verdict=_verdict(metrics, getattr(sweep, "better", None)),
    )


def _verdict(metrics: Mapping[str, Any], better: Better | None = None) -> str:
    """The best setting by its mean over seeds, the next one, and what failed.

    Args:
        metrics: Of the sweep.
        better: Which way the metric is, if it does not say itself; the lowest come first if nothing does.
    """
    rows = [row for row in metrics["rows"] if row["mean"] is not None]
    failed = f"{counted(len(metrics['failed']), 'trial')} failed." if metrics["failed"] else ""
    if not rows:
        return sentences(f"None of {counted(metrics['trials'], 'trial')} gave {metrics['metric']}.", failed)
    metric, split = metrics["metric"].rpartition(".")[2], metrics["metric"].rpartition(".")[0]
    known = known_direction(metric) is not None
    higher = higher_is_better(metric) if known else better == "higher"
    order = sorted(rows, key=lambda row: row["mean"], reverse=higher)
    told = [f"{row['label']} with {_mean(row)}" for row in order[:2]]
    on = f" on {split}" if split else ""
    most = "Best" if known or better else "Lowest"
    first = f"{most} {named(metric)}{on}: {told[0]}" if len(rows) > 1 else f"{label(metric)}{on}: {told[0]}"
    return sentences(first + (f"; next {told[1]}." if len(told) > 1 else "."), failed)


def _mean(row: Mapping[str, Any]) -> str:
    return short(row["mean"]) + (f" ± {short(row['deviation'])}" if row["deviation"] is not None else "")


def dots(rows: Rows) -> Figure:
    """Every trial a dot, a row a setting."""
    marks = [points(row["values"], [row["label"]] * len(row["values"]), row["label"]) for row in rows]
    return figure(*marks, y=Axis(reversed=True), legend=False)


def against_values(rows: Rows, setting: str) -> Figure:
    """A curve a series; references, which have no value of the setting, as lines across."""
    valued = [row for row in rows if row["labels"]["value"]]
    marks = [
        line(
            [row["labels"]["value"] for row in curve], [row["mean"] for row in curve], name or setting, dots=True,
            deviation=[row["deviation"] or 0.0 for row in curve],
        )
        for name, curve in _by_series(valued).items()
    ]  # fmt: skip
    references = [Rule(y=row["mean"], text=row["labels"]["series"]) for row in rows if not row["labels"]["value"]]
    axis = Axis(setting, categories=True)
    return figure(*marks, x=axis, y=rows[0]["metric"], rules=references, legend=True)


def against_time(rows: Rows) -> Figure:
    """A point a setting."""
    marks = [
        points(
            [row["cpu_seconds_per_epoch"] for row in curve], [row["mean"] for row in curve], name or "base",
            texts=[row["labels"]["value"] or name for row in curve], written=True,
            deviation=[row["deviation"] or 0.0 for row in curve],
        )
        for name, curve in _by_series(rows).items()
    ]  # fmt: skip
    times = [row["cpu_seconds_per_epoch"] for row in rows]
    axis = Axis("CPU seconds per epoch", log=max(times) > 5 * max(min(times), math.ulp(1)))
    return figure(*marks, x=axis, y=rows[0]["metric"], legend=True)


def _by_series(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    series: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        series.setdefault(row["labels"]["series"], []).append(row)
    return series


def _ranking(metrics: Mapping[str, Any], folder: RunFolder) -> Section:
    """The ranking, the curves, and the objective against each setting that was varied."""
    rows, objective = metrics["ranking"], metrics["objective"]
    keys = [key for key in dict.fromkeys(key for row in rows for key in row["settings"]) if _varies(rows, key)]
    columns = ["", *keys, "seed", "epochs", objective, "test", "CPU s", "state"]
    cells = [
        [str(place + 1), *(row["settings"].get(key) for key in keys), row["seed"], row["epochs"], short(row["val"]),
         short(row["test"]), short(row["cpu_seconds"]), row["state"]] for place, row in enumerate(rows)
    ]  # fmt: skip
    text = f"Best first, by the best {objective}."
    if any(row["state"] == "stopped" for row in rows):
        text += (
            f" {metrics['epochs']} of {metrics['all_epochs']} epochs were run: trials that were worse than the rest "
            "were stopped (ASHA), and have not been tested."
        )
    panels = (
        [Panel(f"{objective} against epochs", _curves(rows, metrics["monitor"], folder))] if metrics["monitor"] else []
    )
    panels += [Panel(f"{objective} against {key}", _against(rows, key, objective)) for key in keys]
    return Section("Ranking", text, [Table(columns, cells)], panels)


def _varies(rows: Rows, key: str) -> bool:
    return key != "recipe" or len({row["settings"].get(key) for row in rows}) > 1


def _curves(rows: Rows, monitor: str, folder: RunFolder) -> Figure:
    marks = []
    for row in rows:
        curve = curve_of(monitor, RunFolder(folder / RUNS / row["folder"]))
        epochs, width = list(range(1, len(curve) + 1)), 2.5 if row is rows[0] else 1
        marks.append(line(epochs, curve, f"{row['label']} seed={row['seed']}", width=width))
    return figure(*marks, x="epochs", y=f"val {monitor}", legend=False)


def _against(rows: Rows, key: str, objective: str) -> Figure:
    shown = [row for row in rows if row["val"] is not None and key in row["settings"]]
    values: list[Any] = [row["settings"][key] for row in shown]
    with suppress(ValueError):
        values = [float(value) for value in values]
    numbers = [value for value in values if isinstance(value, float)]
    trials = points(
        values, [row["val"] for row in shown], texts=[row["label"] for row in shown],
        colour=[row["epochs"] for row in shown], scale="epochs",
    )  # fmt: skip
    log = bool(numbers) and min(numbers) > 0 and max(numbers) > 20 * min(numbers)
    return figure(trials, x=Axis(key, log=log), y=objective)
