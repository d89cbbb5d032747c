"""Pages of runs about mode connectivity: curves between minima, planes through them, the way from initialisation."""

from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from coset.reports import Panel, Section, Table, write_sections
from coset.reports.plots import run_colour
from coset.runs.folder import CURVES, REPORT, RunFolder
from coset.runs.recipe import Recipe

FEW = 3  # networks of a variant whose way from initialisation is drawn


def write_connectivity_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Barriers first, then averages, planes, and the way from initialisation to minimum."""
    curves: dict[str, Any] = folder.read_json(CURVES)
    results = metrics["variants"]
    columns, rows = recipe.summary(metrics)
    test = {name: c["test"] for name, c in curves.items()}
    sections = [
        Section(
            "Between independently trained networks",
            "The barrier is the test loss at the midpoint of the segment between two networks, above the mean of its "
            "ends; highest is the largest height above the chord; mean and standard deviation over pairs. A negative "
            "barrier means that the midpoint is better than its ends. Midpoint, ends and average are test accuracies, "
            "the last of the averaged weights of four networks.",
            [Table(columns, rows), Table(*_more(results))],
            [
                Panel("Test loss between two networks", between_figure(test, "loss")),
                Panel("Test accuracy between two networks", between_figure(test, "accuracy")),
                Panel("Barriers", _barriers(results), "A dot a pair."),
                Panel("Distance and barrier", _distances(results), "Distance of trainable parameters."),
            ],
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
            [Panel("Training loss on the way", _ways(curves), f"At most {FEW} networks of each variant.")],
        ),
    ]
    planes = [Panel(name, plane_figure(c["plane"])) for name, c in curves.items() if "plane" in c]
    if planes:
        text = "Test loss on the plane through three networks (crosses); both axes are lengths in parameter space."
        sections.append(Section("Planes through three networks", text, panels=planes))
    facts = {
        "data": f"{metrics['data']}, {metrics['rows']['train']:,} + {metrics['rows']['test']:,}",
        "parameters": f"{metrics['params']:,}", "seed": str(metrics["seed"]),
        "CPU seconds": str(metrics["cpu_seconds"]),
    }  # fmt: skip
    return write_sections(
        folder / REPORT, recipe.name, sections, lead=recipe.description, facts=facts,
        recipe=recipe.to_yaml(),
    )  # fmt: skip


def between_figure(curves: dict[str, Any], quantity: str) -> go.Figure:
    """A bold curve a variant, the mean over pairs, and a faint one a pair."""
    figure = go.Figure()
    for number, (name, found) in enumerate(curves.items()):
        colour, values = run_colour(number), np.array(found[quantity])
        for pair in values if len(values) > 1 else []:
            figure.add_scatter(
                x=found["t"], y=pair, mode="lines", line={"color": colour, "width": 0.8}, opacity=0.35,
                legendgroup=name, showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        figure.add_scatter(
            x=found["t"], y=values.mean(0), mode="lines", line={"color": colour, "width": 2.4}, name=name,
            legendgroup=name, hovertemplate="%{y:.4~g}",
        )  # fmt: skip
    figure.update_layout(xaxis_title="t, from one network to the other", yaxis_title=quantity, hovermode="x unified")
    if quantity == "loss":
        figure.update_yaxes(type="log", dtick=1)
    return figure


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


def _barriers(results: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    for number, (name, r) in enumerate(results.items()):
        colour = run_colour(number)
        figure.add_bar(x=[name], y=[np.mean(r["barrier"])], marker={"color": colour}, opacity=0.6, showlegend=False)
        figure.add_scatter(
            x=[name] * len(r["barrier"]), y=r["barrier"], mode="markers", marker={"color": colour, "size": 7},
            showlegend=False, hovertemplate="%{y:.4~g}",
        )  # fmt: skip
    figure.update_layout(yaxis_title="test barrier")
    return figure


def _distances(results: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    for number, (name, r) in enumerate(results.items()):
        figure.add_scatter(
            x=r["distance"],
            y=r["barrier"],
            mode="markers",
            name=name,
            marker={"color": run_colour(number), "size": 8},
            hovertemplate="%{x:.4~g}, %{y:.4~g}",
        )
    # Colours are those of the other figures; a legend of ten rows would leave no room for the points.
    figure.update_layout(xaxis_title="distance", yaxis_title="test barrier", showlegend=False)
    return figure


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


def _ways(curves: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    for number, (name, found) in enumerate(curves.items()):
        for i, losses in enumerate(found.get("way", [])[:FEW]):
            figure.add_scatter(
                x=np.linspace(0, 1, len(losses)), y=losses, mode="lines", line={"color": run_colour(number)}, name=name,
                legendgroup=name, showlegend=i == 0,
            )  # fmt: skip
    figure.update_layout(xaxis_title="from initialisation to minimum", yaxis_title="training loss")
    return figure


def plane_figure(found: dict[str, Any]) -> go.Figure:
    """Contours of the loss on a plane through three networks."""
    figure = go.Figure()
    loss = np.log10(np.maximum(np.array(found["loss"]), 1e-6))
    figure.add_contour(
        x=found["x"], y=found["y"], z=loss, colorscale="Viridis", ncontours=18, contours={"showlines": False},
        colorbar={"title": "log10 loss"}, hovertemplate="log10 loss %{z:.3f}<extra></extra>",
    )  # fmt: skip
    corners = np.array(found["corners"])
    figure.add_scatter(
        x=corners[:, 0], y=corners[:, 1], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"symbol": "x", "size": 11, "color": "white", "line": {"width": 1, "color": "black"}},
    )  # fmt: skip
    figure.update_yaxes(scaleanchor="x", constrain="domain")
    return figure
