"""Pages of runs that train variational networks over depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coset.reports import Figure, Panel, Section, Table, colour, figure, line, points, write_sections
from coset.runs.folder import CURVES, REPORT, RunFolder
from coset.runs.recipe import Recipe
from coset.weights.asymmetric.pages import ways_figure


def write_depth_page(
    recipe: Recipe, folder: RunFolder, metrics: dict[str, Any], *, rank: int, samples: int, runs: int
) -> Path:  # fmt: skip
    """Scores over depth, and how training went: of Gaussians of this rank, from so many samples and runs."""
    history: dict[str, Any] = folder.read_json(CURVES)
    text = (
        f"A Gaussian over the weights of each layer, its diagonal fixed and {rank} more directions learned; "
        f"class probabilities are averaged over {samples} samples. Mean and standard deviation over "
        f"{runs} runs. Training loss: cross-entropy in the last tenth of the steps."
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
        lead=recipe.description, facts=facts, recipe=recipe.to_yaml(), kind="Bayesian training",
    )  # fmt: skip


def over_depth(metrics: dict[str, Any], score: str) -> Figure:
    """A line a variant through its means, a dot a run."""
    marks, depths = [], metrics["depths"]
    for number, (name, r) in enumerate(metrics["variants"].items()):
        tint, means = colour(number), [float(np.mean(r[str(d)][score])) for d in depths]
        marks.append(line(depths, means, name, colour=tint))
        x, y = zip(*((d, value) for d in depths for value in r[str(d)][score]))
        marks.append(points(list(x), list(y), colour=tint, size=6, listed=False, hover="%{y:.4~g}"))
    return figure(*marks, x="hidden layers", y=f"test {score}")


def losses(history: dict[str, Any], depth: str) -> Figure:
    """Cross-entropy while training, a line a run."""
    return ways_figure({name: runs.get(depth, []) for name, runs in history.items()}, "share of the steps", width=1.2)
