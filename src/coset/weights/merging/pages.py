"""Pages of runs that merge networks."""

from pathlib import Path
from typing import Any

import numpy as np

from coset.reports import (
    Axis,
    Figure,
    Panel,
    Section,
    Table,
    colour_of_many,
    figure,
    line,
    points,
    side_by_side,
    write_sections,
)
from coset.runs.folder import REPORT, RunFolder
from coset.runs.recipe import Recipe


def write_merging_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Accuracy of every method, against the number of samples, parameters, and errors layer by layer."""
    columns, rows = recipe.summary(metrics)
    sections = [
        Section(
            "Accuracy",
            "Per task: with the head of the task. Joint: the arg-max over the classes of all heads, not calibrated "
            "between heads. Mean and standard deviation over seeds, in per cent. Everything that is trained tried the "
            "same learning rates, closed forms as many settings, and took what was nearest to the teachers on held-out "
            "samples. Parameters: of all networks that have to be kept.",
            [Table(columns, rows)],
            [Panel("Against the number of samples", _against_samples(metrics))],
        ),
        Section(
            "Every task",
            f"With {metrics['samples'][-1]} samples of each task; mean over seeds, in per cent.",
            [Table(*_every_task(metrics))],
        ),
        Section("Numbers that were trained", "", panels=[Panel("Accuracy against size", _sizes(metrics))]),
    ]
    sections += _errors(metrics) + _training(metrics)
    worst = max((r["difference"] for r in metrics["rows"] if r["difference"] is not None), default=None)
    facts = {"tasks": ", ".join(metrics["tasks"]), "seeds": str(metrics["seeds"]), "seconds": str(metrics["seconds"])}
    if worst is not None:
        facts["folded network against its SuperNet"] = f"largest relative difference {worst:.1e}"
    for number, said in enumerate(metrics.get("basins", [])):
        facts["basins" if not number else f"basins, pair {number + 1}"] = said
    return write_sections(
        folder / REPORT, recipe.name, sections, lead=recipe.description, facts=facts,
        recipe=recipe.to_yaml(), kind="merge", verdict=_verdict(metrics),
    )  # fmt: skip


def _verdict(metrics: dict[str, Any]) -> str:
    """The best merged network, beside the teachers."""
    samples = metrics["samples"][-1]
    found = {method: cells[str(samples)]["per_task"] for method, cells in metrics["methods"].items()}
    merged = {method: share for method, share in found.items() if method not in ("originals", "ensemble", "multitask")}
    if not merged:
        return f"Nothing was merged; {', '.join(found)} were measured."
    best = max(merged, key=lambda method: merged[method])
    teachers = f"; the teachers have {100 * found['originals']:.1f} %" if "originals" in found else ""
    return f"Best with {samples} samples of each task: {best}, {100 * merged[best]:.1f} % a task{teachers}."


def _errors(metrics: dict[str, Any]) -> list[Section]:
    """Errors of the features of FS-Merge, with most samples and the first seed."""
    rows = [r for r in metrics["rows"] if r["layers"] and r["samples"] == metrics["samples"][-1]]
    if not rows:
        return []
    text = (
        f"|x U_i - f_i|^2 / |f_i|^2 of what each layer of teacher i reads, on the samples of task i; "
        f"{metrics['samples'][-1]} samples, seed {rows[0]['seed']}."
    )
    return [Section("Error layer by layer", text, panels=[Panel("Relative error of features", _layers(rows))])]


def _training(metrics: dict[str, Any]) -> list[Section]:
    """Losses of the methods that are trained, with most samples and the first seed."""
    rows = [r for r in metrics["rows"] if len(r["losses"]) > 1 and r["seed"] == metrics["seed"]]
    rows = [r for r in rows if r["samples"] == metrics["samples"][-1]]
    marks = [line(np.linspace(0, 100, len(r["losses"])), r["losses"], r["method"]) for r in rows]
    drawn = figure(*marks, x="share of the steps, %", y=Axis("loss on the samples", log=True))
    return [Section("Training", panels=[Panel("Loss", drawn)])] if rows else []


def _every_task(metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Accuracy of each method on each task: with the task's head, and among the classes of all."""
    tasks, rows = metrics["tasks"], []
    for method in metrics["methods"]:
        found = [r for r in metrics["rows"] if r["method"] == method and r["samples"] == metrics["samples"][-1]]
        shares = [sum(r[key][t] for r in found) / len(found) for t in tasks for key in ("tasks", "joint_tasks")]
        rows.append([method, *(f"{100 * share:.1f}" for share in shares)])
    return ["method", *(f"{t}{kind}" for t in tasks for kind in ("", ", joint"))], rows


def _against_samples(metrics: dict[str, Any]) -> Figure:
    """Per task and joint beside one another; sixteen methods and more need their legend beside the plots."""
    samples, parts = metrics["samples"], {"per task, %": "per_task", "joint, %": "joint"}
    marks: dict[str, list[Any]] = {title: [] for title in parts}
    for number, (method, cells) in enumerate(metrics["methods"].items()):
        found = [cells[str(n)] for n in samples]
        for title, key in parts.items():
            means, deviations = ([100 * p[name] for p in found] for name in (key, f"{key}_deviation"))
            marks[title].append(
                line(
                    samples, means, method, colour=colour_of_many(number), dots=True, deviation=deviations,
                    group=method, listed=key == "per_task",
                )
            )  # fmt: skip
    return side_by_side(marks, x=Axis("samples of each task", log=True, ticks=samples), legend="beside", height=560)


def _sizes(metrics: dict[str, Any]) -> Figure:
    n = str(metrics["samples"][-1])
    rows = {method: cells[n] for method, cells in metrics["methods"].items() if cells[n]["trained"]}
    marks = [points([cell["trained"]], [100 * cell["per_task"]], method) for method, cell in rows.items()]
    return figure(*marks, x=Axis("trained numbers", log=True), y=f"per task, {n} samples, %")


def _layers(rows: list[dict[str, Any]]) -> Figure:
    shown = [(r["method"], r["layers"]) for r in rows if r["seed"] == rows[0]["seed"]]
    marks = [line(list(errors), list(errors.values()), method, dots=True) for method, errors in shown]
    return figure(*marks, x="what reads the features", y=Axis(log=True))
