"""Pages of runs that merge networks."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from coset.reports import Panel, Section, Table, write_sections
from coset.runs.folder import REPORT, RunFolder
from coset.runs.recipe import Recipe


def write_merging_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Accuracy of every method, against the number of samples, parameters, and errors layer by layer."""
    columns, rows = recipe.summary(metrics)
    layers = [r for r in metrics["rows"] if r["layers"] and r["samples"] == metrics["samples"][-1]]
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
    if layers:
        sections.append(
            Section(
                "Error layer by layer",
                f"|x U_i - f_i|^2 / |f_i|^2 of what each layer of teacher i reads, on the samples of task i; "
                f"{metrics['samples'][-1]} samples, seed {layers[0]['seed']}.",
                panels=[Panel("Relative error of features", _layers(layers))],
            )
        )
    losses = [r for r in metrics["rows"] if len(r["losses"]) > 1 and r["seed"] == metrics["seed"]]
    losses = [r for r in losses if r["samples"] == metrics["samples"][-1]]
    if losses:
        figure = go.Figure()
        for row in losses:
            steps = len(row["losses"]) - 1
            figure.add_scatter(
                x=[100 * i / steps for i in range(steps + 1)], y=row["losses"], name=row["method"], mode="lines"
            )
        figure.update_layout(yaxis_type="log", yaxis_title="loss on the samples", xaxis_title="share of the steps, %")
        sections.append(Section("Training", "", panels=[Panel("Loss", figure)]))
    worst = max((r["difference"] for r in metrics["rows"] if r["difference"] is not None), default=None)
    facts = {"tasks": ", ".join(metrics["tasks"]), "seeds": str(metrics["seeds"]), "seconds": str(metrics["seconds"])}
    if worst is not None:
        facts["folded network against its SuperNet"] = f"largest relative difference {worst:.1e}"
    for number, said in enumerate(metrics.get("basins", [])):
        facts["basins" if not number else f"basins, pair {number + 1}"] = said
    return write_sections(
        folder / REPORT, recipe.name, sections, lead=recipe.description, facts=facts,
        recipe=recipe.to_yaml(),
    )  # fmt: skip


def _every_task(metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Accuracy of each method on each task: with the task's head, and among the classes of all."""
    tasks, rows = metrics["tasks"], []
    for method in metrics["methods"]:
        found = [r for r in metrics["rows"] if r["method"] == method and r["samples"] == metrics["samples"][-1]]
        shares = [sum(r[key][t] for r in found) / len(found) for t in tasks for key in ("tasks", "joint_tasks")]
        rows.append([method, *(f"{100 * share:.1f}" for share in shares)])
    return ["method", *(f"{t}{kind}" for t in tasks for kind in ("", ", joint"))], rows


def _against_samples(metrics: dict[str, Any]) -> go.Figure:
    """Per task and joint beside one another; sixteen methods and more need their legend beside the plots."""
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=2, subplot_titles=["per task, %", "joint, %"], shared_yaxes=True)
    for number, (method, cells) in enumerate(metrics["methods"].items()):
        points = [cells[str(n)] for n in metrics["samples"]]
        colour = qualitative.Dark24[number % len(qualitative.Dark24)]
        for column, key in enumerate(("per_task", "joint"), start=1):
            figure.add_scatter(
                x=metrics["samples"], y=[100 * p[key] for p in points], name=method, mode="lines+markers",
                error_y={"array": [100 * p[f"{key}_deviation"] for p in points], "thickness": 1},
                line_color=colour, legendgroup=method, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title="samples of each task", type="log", tickvals=metrics["samples"])
    figure.update_layout(height=560, legend={"orientation": "v", "x": 1.02, "y": 1})
    return figure


def _sizes(metrics: dict[str, Any]) -> go.Figure:
    figure, n = go.Figure(), str(metrics["samples"][-1])
    for method, cells in metrics["methods"].items():
        if cells[n]["trained"]:
            figure.add_scatter(x=[cells[n]["trained"]], y=[100 * cells[n]["per_task"]], name=method, mode="markers")
    figure.update_layout(xaxis_title="trained numbers", xaxis_type="log", yaxis_title=f"per task, {n} samples, %")
    return figure


def _layers(rows: list[dict[str, Any]]) -> go.Figure:
    figure = go.Figure()
    for row in (r for r in rows if r["seed"] == rows[0]["seed"]):
        figure.add_scatter(
            x=list(row["layers"]), y=list(row["layers"].values()), name=row["method"], mode="lines+markers"
        )
    figure.update_layout(yaxis_type="log", xaxis_title="what reads the features")
    return figure
