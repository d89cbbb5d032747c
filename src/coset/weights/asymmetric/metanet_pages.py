"""Pages of runs that predict the accuracy of classifiers from their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coset.reports import Figure, Panel, Section, Table, colour, counted, figure, line, points, write_sections
from coset.runs.folder import CURVES, REPORT, RunFolder
from coset.runs.recipe import Recipe
from coset.weights.asymmetric.pages import ways_figure


def write_metanet_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """How well metanetworks tell accuracies, what the zoos are, and the way from initialisation to minimum."""
    curves: dict[str, Any] = folder.read_json(CURVES)
    text = (
        "tau is Kendall's rank correlation of predicted and true test accuracy on classifiers that were not "
        "trained on; accuracies are spread differently in different zoos, so that R2 should not be compared "
        "between them. flat: all weights that are not fixed; statistics: seven of each parameter; settings: "
        "learning rate, share of wrong labels, steps: not the weights, but what made them."
    )
    columns, rows = recipe.summary(metrics)
    panels = [
        Panel(predictor, _scatter(curves, predictor), "A dot a test network, first run.")
        for predictor in next(iter(curves.values()))["predictions"]
    ]
    zoos = [
        [
            name,
            metrics["networks"],
            r["accuracy"]["mean"],
            r["accuracy"]["std"],
            r["trainable"],
            r["zoo_cpu_seconds"],
        ]
        for name, r in metrics["variants"].items()
    ]
    more = Table(["zoo", "networks", "mean accuracy", "deviation", "trainable", "training, CPU s"], zoos)
    sections = [Section("Accuracy from weights", text, [Table(columns, rows), more], panels)]
    if any("monotonicity" in r for r in metrics["variants"].values()):
        sections.append(_way_section(metrics, curves))
    return write_sections(
        folder / REPORT, recipe.name, sections, lead=recipe.description,
        facts={"data": metrics["data"], "seed": str(metrics["seed"]), "CPU seconds": str(metrics["cpu_seconds"])},
        recipe=recipe.to_yaml(), kind="metanetworks", verdict=_verdict(metrics),
    )  # fmt: skip


def _verdict(metrics: dict[str, Any]) -> str:
    """The best predictor that reads weights in each zoo, beside the settings of training."""
    said = []
    for name, found in metrics["variants"].items():
        tau = {predictor: float(np.mean(scores["tau"])) for predictor, scores in found["predictors"].items()}
        reading = {predictor: value for predictor, value in tau.items() if predictor != "settings"}
        if not reading:
            continue
        best = max(reading, key=lambda predictor: reading[predictor])
        beside = f" ({tau['settings']:.2f} from the settings of training alone)" if "settings" in tau else ""
        said.append(f"{name} {reading[best]:.2f} by {best}{beside}")
    return (
        f"How well weights tell test accuracy (rank correlation tau, 1 is perfect): {'; '.join(said)}."
        if said
        else (f"{counted(metrics['networks'], 'network')} in each of {counted(len(metrics['variants']), 'zoo')}.")
    )


def _way_section(metrics: dict[str, Any], curves: dict[str, Any]) -> Section:
    keys = ("networks", "largest_rise", "largest_rise_std", "monotone", "local_convexity", "global_convexity")
    rows = [[name, *(r["monotonicity"][key] for key in keys)] for name, r in metrics["variants"].items()]
    ways = {name: curve["way"] for name, curve in curves.items()}
    drawn = ways_figure(ways, "from initialisation to the end of training")
    text = (
        "Training loss, on each network's own labels, on the segment between initial and final parameters. Local "
        "convexity: share of second differences that are not negative. Global: share of points on or below the chord."
    )
    columns = ["zoo", "networks", "largest rise", "deviation", "share monotone", "local convexity", "global convexity"]
    return Section(
        "From initialisation to minimum", text, [Table(columns, rows)], [Panel("Training loss on the way", drawn)]
    )


def _scatter(curves: dict[str, Any], predictor: str) -> Figure:
    marks = []
    for number, (name, curve) in enumerate(curves.items()):
        drawn = curve["predictions"][predictor]
        marks.append(points(drawn["truth"], drawn["answer"], name, colour=colour(number), size=5, opacity=0.6))
    right = line([0, 1], [0, 1], dash="dot", width=1, listed=False)
    return figure(*marks, right, x="test accuracy", y="predicted")
