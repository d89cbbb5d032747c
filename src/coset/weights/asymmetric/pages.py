"""Pages of runs about mode connectivity: curves between minima, planes through them, the way from initialisation."""

from pathlib import Path
from typing import Any

import numpy as np

from coset.reports import (
    Axis,
    Figure,
    Panel,
    Section,
    Table,
    bars,
    colour,
    contours,
    figure,
    line,
    points,
    write_sections,
)
from coset.runs.folder import CURVES, REPORT, RunFolder
from coset.runs.recipe import Recipe

FEW = 3  # networks of a variant whose way from initialisation is drawn


def write_connectivity_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Barriers first, then averages, planes, and the way from initialisation to minimum."""
    curves: dict[str, Any] = folder.read_json(CURVES)
    results = metrics["variants"]
    columns, rows = recipe.summary(metrics)
    ways = ways_figure({name: c.get("way", [])[:FEW] for name, c in curves.items()}, "from initialisation to minimum")
    sections = [
        Section(
            "Between independently trained networks",
            "The barrier is the test loss at the midpoint of the segment between two networks, above the mean of its "
            "ends; highest is the largest height above the chord; mean and standard deviation over pairs. A negative "
            "barrier means that the midpoint is better than its ends. Midpoint, ends and average are test accuracies, "
            "the last of the averaged weights of four networks.",
            [Table(columns, rows), Table(*_more(results))],
            _between(results, curves),
            notes=metrics["notes"],
        ),
        Section(
            "Averages of several networks",
            "The plain average of the weights, and the worst of 40 random mixtures above the same mixture of losses.",
            [_averages(results)],
        ),
        Section(
            "From initialisation to minimum",
            "Training loss on the segment between initial and final parameters. Local convexity: share of second "
            "differences that are not negative. Global: share of points on or below the chord.",
            [_monotonicity(results)],
            [Panel("Training loss on the way", ways, f"At most {FEW} networks of each variant.")],
        ),
    ]
    sections += planes_section(curves, "Test loss on the plane through three networks")
    facts = {
        "data": f"{metrics['data']}, {metrics['rows']['train']:,} + {metrics['rows']['test']:,}",
        "parameters": f"{metrics['params']:,}", "seed": str(metrics["seed"]),
        "CPU seconds": str(metrics["cpu_seconds"]),
    }  # fmt: skip
    return write_sections(
        folder / REPORT, recipe.name, sections, lead=recipe.description, facts=facts,
        recipe=recipe.to_yaml(), kind="mode connectivity", verdict=_verdict(results),
    )  # fmt: skip


def _verdict(results: dict[str, Any]) -> str:
    """The lowest barrier, beside that of the first variant."""
    means = {name: float(np.mean(found["barrier"])) for name, found in results.items()}
    first, best = next(iter(means)), min(means, key=lambda name: means[name])
    beside = "" if first == best else f"; {means[first]:.3g} for {first}"
    return f"The lowest mean barrier between networks is {means[best]:.3g}, for {best}{beside}."


def planes_section(curves: dict[str, Any], what: str) -> list[Section]:
    """A figure for each form of the networks of which there are three; nothing if there is none."""
    planes = [Panel(name, plane_figure(c["plane"])) for name, c in curves.items() if c.get("plane")]
    text = f"{what} (crosses); both axes are lengths in parameter space."
    return [Section("Planes through three networks", text, panels=planes)] if planes else []


def _between(results: dict[str, Any], curves: dict[str, Any]) -> list[Panel]:
    test = {name: c["test"] for name, c in curves.items()}
    return [
        Panel("Test loss between two networks", between_figure(test, "loss")),
        Panel("Test accuracy between two networks", between_figure(test, "accuracy")),
        Panel("Barriers", _barriers(results), "A dot a pair."),
        Panel("Distance and barrier", _distances(results), "Distance of trainable parameters."),
    ]


def between_figure(curves: dict[str, Any], quantity: str) -> Figure:
    """A bold curve a variant, the mean over pairs, and a faint one a pair."""
    marks = []
    for number, (name, curve) in enumerate(curves.items()):
        t, values, tint = curve["t"], np.array(curve[quantity]), colour(number)
        if len(values) > 1:
            marks += [
                line(t, pair, colour=tint, width=0.8, opacity=0.35, group=name, listed=False, hover="")
                for pair in values
            ]
        marks.append(line(t, values.mean(0), name, colour=tint, width=2.4, group=name, hover="%{y:.4~g}"))
    log = quantity == "loss"
    return figure(
        *marks, x="t, from one network to the other", y=Axis(quantity, log=log, decades=log), together=True
    )  # fmt: skip


def _more(results: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    mean = lambda values: float(np.mean(values))  # noqa: E731
    rows = [
        [name, mean(r["train_barrier"]), mean(r["error_barrier"]), mean(r["end_loss"]), mean(r["train_end_accuracy"]),
         mean(r["distance"]), r["train_cpu_seconds"], r["fingerprint"] or None]
        for name, r in results.items()
    ]  # fmt: skip
    return [
        "variant", "train barrier", "test error barrier", "test loss at ends", "train accuracy at ends", "distance",
        "training, CPU s", "fingerprint",
    ], rows  # fmt: skip


def _barriers(results: dict[str, Any]) -> Figure:
    marks = []
    for number, (name, r) in enumerate(results.items()):
        tint, pairs = colour(number), r["barrier"]
        marks.append(bars([name], [np.mean(pairs)], colour=tint, opacity=0.6, listed=False))
        marks.append(points([name] * len(pairs), pairs, colour=tint, size=7, listed=False, hover="%{y:.4~g}"))
    return figure(*marks, y="test barrier")


def _distances(results: dict[str, Any]) -> Figure:
    marks = [
        points(r["distance"], r["barrier"], name, colour=colour(number), size=8, hover="%{x:.4~g}, %{y:.4~g}")
        for number, (name, r) in enumerate(results.items())
    ]
    # Colours are those of the other figures; a legend of ten rows would leave no room for the points.
    return figure(*marks, x="distance", y="test barrier", legend=False)


def _averages(results: dict[str, Any]) -> Table:
    rows = [
        [name, a["networks"], a["single_accuracy"], a["average_accuracy"], a["average_loss"], a["worst_height"]]
        for name, r in results.items()
        if (a := r.get("averages"))
    ]
    return Table(
        ["variant", "networks", "accuracy of one", "accuracy of the average", "loss of the average", "worst mixture"],
        rows,
    )


def _monotonicity(results: dict[str, Any]) -> Table:
    rows = [
        [name, float(np.mean(m["largest_rise"])), m["monotone"], m["local_convexity"], m["global_convexity"]]
        for name, r in results.items()
        if (m := r.get("monotonicity"))
    ]
    return Table(["variant", "largest rise", "share monotone", "local convexity", "global convexity"], rows)


def ways_figure(curves: dict[str, list[Any]], x: str, width: float | None = None) -> Figure:
    """Training losses over the share of a way, a colour and an entry of the legend a variant."""
    marks = [
        line(np.linspace(0, 1, len(losses)), losses, name, colour=colour(number), width=width, group=name, listed=not i)
        for number, (name, runs) in enumerate(curves.items())
        for i, losses in enumerate(runs)
    ]
    return figure(*marks, x=x, y="training loss")


def plane_figure(plane: dict[str, Any]) -> Figure:
    """Contours of the loss on a plane through three networks."""
    loss = np.log10(np.maximum(np.array(plane["loss"]), 1e-6))
    corners = np.array(plane["corners"])
    crosses = points(
        corners[:, 0], corners[:, 1], symbol="x", size=11, colour="white", outline="black", listed=False, hover=""
    )
    return figure(contours(plane["x"], plane["y"], loss, "log10 loss"), crosses, y=Axis(square=True))
