"""The page of ``coset connect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coset.reports import Panel, Section, Table, write_sections
from coset.runs.folder import REPORT
from coset.weights.asymmetric.comparison import spread
from coset.weights.asymmetric.pages import between_figure, planes_section


def table_of(metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A row a form of the networks: columns and rows."""
    rows = []
    for name, r in metrics["forms"].items():
        numbers = [spread(r[key]) for key in ("barrier", "highest", "midpoint_accuracy", "end_accuracy", "distance")]
        rows.append([name, *numbers, f"{r['averages']['average_accuracy']:.3f}"])
    return ["networks", "barrier", "highest", "midpoint", "ends", "distance", "average"], rows


def write_page(
    output: Path, metrics: dict[str, Any], curves: dict[str, Any], table: tuple[list[str], list[list[str]]]
) -> None:
    """Each network alone, and what lies between them."""
    own = [[str(i + 1), n["file"], n["loss"], n["accuracy"]] for i, n in enumerate(metrics["networks"])]
    pairs = [
        [f"{i + 1} and {j + 1}", name, *(r[key][k] for key in ("barrier", "highest", "midpoint_accuracy", "distance"))]
        for name, r in metrics["forms"].items()
        for k, (i, j) in enumerate(metrics["pairs"])
    ]
    sections = [
        Section("Networks", "Each alone.", [Table(["", "file", "loss", "accuracy"], own)]),
        Section(
            "Between them",
            "The barrier is the loss at the midpoint above the mean of both ends; highest is the largest height above "
            "the chord; mean and standard deviation over pairs. Matched networks have their neurons in the order that "
            "brings them closest to network 1. Average: accuracy of the averaged weights of all.",
            [Table(*table), Table(["pair", "networks", "barrier", "highest", "midpoint", "distance"], pairs)],
            [
                Panel("Loss between two networks", between_figure(curves, "loss")),
                Panel("Accuracy between two networks", between_figure(curves, "accuracy")),
            ],
            notes=metrics["notes"],
        ),
    ]
    sections += planes_section(curves, "Loss on the plane through the first three networks")
    write_sections(
        output / REPORT, "Between networks", sections,
        facts={"model": metrics["model"], "data": f"{metrics['data']}, {metrics['rows']:,} rows",
               "parameters": f"{metrics['params']:,}"},
        command=metrics["command"], kind="loss between checkpoints", verdict=_verdict(metrics),
    )  # fmt: skip


def _verdict(metrics: dict[str, Any]) -> str:
    """Mean barriers of all forms."""
    means = {name: sum(r["barrier"]) / len(r["barrier"]) for name, r in metrics["forms"].items()}
    said = [f"{name} {f'it rises by {mean:.3g}' if mean > 0 else f'it does not rise ({mean:.3g})'}"
            for name, mean in means.items()]  # fmt: skip
    return f"The loss between the networks: {'; '.join(said)}."
