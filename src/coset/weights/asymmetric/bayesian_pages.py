"""Pages of runs that train variational networks over depth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import torch

from coset.reports import Panel, Section, Table, write_sections
from coset.reports.plots import run_colour
from coset.runs.folder import CURVES, REPORT, RunFolder

if TYPE_CHECKING:
    from coset.weights.asymmetric.bayesian_experiment import BayesianDepthRecipe


def write_depth_page(recipe: BayesianDepthRecipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Scores over depth, and how training went."""
    history: dict[str, Any] = folder.read_json(CURVES)
    text = (
        f"A Gaussian over the weights of each layer, its diagonal fixed and {recipe.rank} more directions learned; "
        f"class probabilities are averaged over {recipe.training.samples} samples. Mean and standard deviation over "
        f"{recipe.runs} runs. Training loss: cross-entropy in the last tenth of the steps."
    )
    panels = [Panel("Test accuracy over depth", over_depth(metrics, "accuracy"), "A dot a run.")]
    panels += [Panel(f"Training, depth {d}", losses(history, str(d))) for d in metrics["depths"]]
    facts = {
        "data": f"{metrics['data']}, {metrics['rows']['train']:,} + {metrics['rows']['test']:,}",
        "seed": str(metrics["seed"]), "CPU seconds": str(metrics["cpu_seconds"]),
    }  # fmt: skip
    columns, rows = recipe.summary(metrics)
    return write_sections(
        folder / REPORT, recipe.name, [Section("Depth", text, [Table(columns, rows)], panels)],
        lead=recipe.description, facts=facts, recipe=recipe.to_yaml(),
    )  # fmt: skip


def over_depth(metrics: dict[str, Any], score: str) -> go.Figure:
    """A line a variant through its means, a dot a run."""
    figure = go.Figure()
    for number, (name, r) in enumerate(metrics["variants"].items()):
        colour = run_colour(number)
        figure.add_scatter(
            x=metrics["depths"], y=[float(np.mean(r[str(d)][score])) for d in metrics["depths"]], name=name,
            mode="lines", line={"color": colour},
        )  # fmt: skip
        figure.add_scatter(
            x=[d for d in metrics["depths"] for _ in r[str(d)][score]],
            y=[value for d in metrics["depths"] for value in r[str(d)][score]],
            mode="markers", marker={"color": colour, "size": 6}, showlegend=False, hovertemplate="%{y:.4~g}",
        )  # fmt: skip
    figure.update_layout(xaxis_title="hidden layers", yaxis_title=f"test {score}")
    return figure


def losses(history: dict[str, Any], depth: str) -> go.Figure:
    """Cross-entropy while training, a line a run."""
    figure = go.Figure()
    for number, (name, found) in enumerate(history.items()):
        for i, values in enumerate(found.get(depth, [])):
            figure.add_scatter(
                x=torch.linspace(0, 1, len(values)).tolist(), y=values, mode="lines", name=name, legendgroup=name,
                showlegend=i == 0, line={"color": run_colour(number), "width": 1.2},
            )  # fmt: skip
    figure.update_layout(xaxis_title="share of the steps", yaxis_title="training loss")
    return figure
