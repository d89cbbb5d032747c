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
        verdict=_verdict(metrics),
    )  # fmt: skip


def _verdict(metrics: dict[str, Any]) -> str:
    """The best variant at each end of the depths."""
    said = []
    for depth in dict.fromkeys((metrics["depths"][0], metrics["depths"][-1])):
        means = {name: float(np.mean(r[str(depth)]["accuracy"])) for name, r in metrics["variants"].items()}
        best = max(means, key=lambda name: means[name])
        others = ", ".join(f"{name} {100 * mean:.1f} %" for name, mean in means.items() if name != best)
        beside = f" ({others})" if others else ""
        said.append(f"at depth {depth} {best}, {100 * means[best]:.1f} %{beside}")
    return f"Best test accuracy {'; '.join(said)}."


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
