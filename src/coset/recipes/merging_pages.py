"""Pages of runs that merge networks."""

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from coset.recipes.recipe import Recipe
from coset.reports import Panel, Section, Table, write_sections


def write_merging_page(recipe: Recipe, folder: Path) -> Path:
    """Accuracy of every method, against the number of samples, parameters, and errors layer by layer."""
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    columns, rows = recipe.summary(metrics)
    layers = [r for r in metrics["rows"] if r["layers"] and r["samples"] == metrics["samples"][-1]]
    sections = [
        Section(
            "Accuracy",
            "Per task: with the head of the task. Joint: the arg-max over the classes of all heads, not calibrated "
            "between heads. Mean and standard deviation over seeds, in per cent. Everything that is trained tried the "
            "same learning rates and took the one with the smallest reconstruction loss on held-out samples.",
            [Table(columns, rows)],
            [
                Panel("Per task, against samples", _against_samples(metrics, "per_task")),
                Panel("Joint, against samples", _against_samples(metrics, "joint")),
            ],
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
            figure.add_scatter(y=row["losses"], name=row["method"], mode="lines")
        figure.update_layout(yaxis_type="log", yaxis_title="loss on the samples", xaxis_title="share of the steps, %")
        sections.append(Section("Training", "", panels=[Panel("Loss", figure)]))
    worst = max((r["difference"] for r in metrics["rows"] if r["difference"] is not None), default=None)
    facts = {"tasks": ", ".join(metrics["tasks"]), "seeds": str(metrics["seeds"]), "seconds": str(metrics["seconds"])}
    if worst is not None:
        facts["folded network against its SuperNet"] = f"largest relative difference {worst:.1e}"
    return write_sections(
        folder / "report.html", recipe.name, sections, lead=recipe.description, facts=facts,
        command=f"coset run {recipe.name} --seed {recipe.seed}", recipe=recipe.to_yaml(),
    )  # fmt: skip


def _against_samples(metrics: dict[str, Any], key: str) -> go.Figure:
    figure = go.Figure()
    for method, cells in metrics["methods"].items():
        points = [cells[str(n)] for n in metrics["samples"]]
        figure.add_scatter(
            x=metrics["samples"], y=[100 * p[key] for p in points], name=method, mode="lines+markers",
            error_y={"array": [100 * p[f"{key}_deviation"] for p in points]},
        )  # fmt: skip
    figure.update_layout(xaxis_title="samples of each task", xaxis_type="log", yaxis_title="accuracy, %")
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
