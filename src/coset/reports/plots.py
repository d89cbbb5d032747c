"""Plotly figures of runs: what is drawn. How it looks (fonts, grid, light and dark) is decided once, in the page.

All text of the user passes :func:`html.escape`, since Plotly reads tags in labels and hover texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from coset.graphs.pages.targets import Target
from coset.reports.scores import label, number, roc_curve, score

SPLIT_COLOURS = {"train": "#8593a8", "val": "#2b83e2", "test": "#e0701f"}
RUN_COLOURS = ("#2b83e2", "#e0701f", "#16a085", "#b14fd1", "#c9a20a", "#e2465c", "#6b7fd7", "#7a9a2e", "#8593a8")
POINTS = 2000  # of a split and target; beyond it a browser gets slow and points hide one another
BINS = 40
TALL = 400  # pixels, for figures that stand in pairs, one of them square


@dataclass(frozen=True)
class Panel:
    """A figure with what a reader, or a screen reader, is told about it."""

    title: str
    figure: go.Figure
    note: str = ""


def training_curves(history: pd.DataFrame, best_epoch: int | None = None) -> list[Panel]:
    """One panel a quantity (loss, then each metric, then learning rate), train and val together."""
    panels = []
    for quantity in _quantities(history):
        figure = go.Figure()
        for split in ("train", "val"):
            column = quantity if quantity == "lr" else f"{split}_{quantity}"
            if column in history and not (quantity == "lr" and split == "val"):
                _curve(figure, history, column, "" if quantity == "lr" else split, _split_colour(split))
        if best_epoch is not None and quantity != "lr":
            figure.add_vline(x=best_epoch, line={"dash": "dot", "width": 1, "color": SPLIT_COLOURS["val"]})
        figure.update_layout(xaxis_title="epoch", showlegend=len(figure.data) > 1, hovermode="x unified")
        _log_if_wide(figure)
        panels.append(Panel(label(quantity), figure))
    return panels


def predicted_versus_true(target: Target) -> Panel:
    """A point a molecule, a colour a split, and the line on which predictions are right."""
    figure = go.Figure()
    drawn, known = 0, 0
    for split, rows in target.each_split():
        chosen = _at_most(rows, POINTS)
        drawn, known = drawn + len(chosen), known + len(rows)
        figure.add_scatter(
            x=target.true[chosen],
            y=target.predicted[chosen],
            text=[escape(str(name)) for name in target.ids[chosen]],
            name=escape(split),
            mode="markers",
            marker={"color": _split_colour(split), "size": 6, "opacity": 0.45 if split == "train" else 0.85},
            hovertemplate="<b>%{text}</b><br>true %{x:.4~g}<br>predicted %{y:.4~g}<extra>%{fullData.name}</extra>",
        )
    span = _span(np.concatenate([target.true[target.known], target.predicted[target.known]]))
    identity = {"color": "#8593a8", "width": 1, "dash": "dash"}
    figure.add_scatter(x=span, y=span, mode="lines", line=identity, name="identity", hoverinfo="skip")
    figure.update_xaxes(title=f"true {escape(target.name)}", range=span, constrain="domain")
    figure.update_yaxes(title="predicted", range=span, scaleanchor="x", constrain="domain")
    figure.update_layout(height=TALL)
    note = f"{number(drawn)} of {number(known)} molecules are drawn, a fixed sample." if drawn < known else ""
    return Panel(f"Predicted versus true {target.name}", figure, note)


def residual_histogram(target: Target) -> Panel:
    """Distribution of prediction minus truth, a colour a split; each split's bars add up to one."""
    figure = go.Figure()
    residuals = {split: target.error[rows] for split, rows in target.each_split()}
    _histograms(figure, residuals, {split: _split_colour(split) for split in residuals})
    figure.add_vline(x=0, line={"dash": "dash", "width": 1, "color": "#8593a8"})
    figure.update_layout(xaxis_title=f"predicted − true {escape(target.name)}", height=TALL)
    return Panel("Residuals", figure)


def roc_curves(target: Target) -> Panel:
    """True positives against false positives, a curve a split."""
    figure = go.Figure()
    for split, rows in target.each_split():
        positives = int((target.true[rows] > 0.5).sum())
        if 0 < positives < len(rows):
            false, true = roc_curve(target.true[rows], target.predicted[rows])
            figure.add_scatter(
                x=false,
                y=true,
                mode="lines",
                line={"color": _split_colour(split), "width": 2},
                name=f"{escape(split)} {np.trapezoid(true, false):.3f}",
                hovertemplate="false positives %{x:.3f}<br>true positives %{y:.3f}<extra></extra>",
            )
    chance = {"color": "#8593a8", "width": 1, "dash": "dash"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=chance, name="chance", hoverinfo="skip")
    figure.update_xaxes(title="false positive rate", range=[-0.01, 1.01], constrain="domain")
    figure.update_yaxes(title="true positive rate", range=[-0.01, 1.01], scaleanchor="x", constrain="domain")
    figure.update_layout(height=TALL)
    return Panel(f"ROC of {target.name}", figure, "The legend gives the area under each curve.")


def score_histogram(target: Target) -> Panel:
    """Predicted probabilities of the last split that has labels (test, if there is one), a colour a class."""
    split = "test" if "test" in target.splits else target.splits[-1]
    rows = target.rows(split)
    figure = go.Figure()
    classes = {f"true {c}": target.predicted[rows][(target.true[rows] > 0.5) == bool(c)] for c in (0, 1)}
    _histograms(figure, classes, {"true 0": SPLIT_COLOURS["val"], "true 1": SPLIT_COLOURS["test"]}, span=[0, 1])
    figure.update_layout(xaxis_title=f"predicted probability of {escape(target.name)}", height=TALL)
    return Panel(f"Predicted probability, {split}", figure)


def overlaid_curves(runs: Sequence[tuple[str, int, pd.DataFrame]]) -> list[Panel]:
    """One panel a quantity: runs as (name, group number, history), a colour a group; the page has the legend."""
    quantities = dict.fromkeys(q for _, _, history in runs for q in _quantities(history) if q != "lr")
    panels = []
    for quantity in quantities:
        figure = go.Figure()
        for name, group, history in runs:
            column = next((c for c in (f"val_{quantity}", f"train_{quantity}") if c in history), None)
            if column is None:
                continue
            _curve(figure, history, column, name, run_colour(group))
            figure.data[-1].update(opacity=0.8)
        figure.update_layout(xaxis_title="epoch", showlegend=False)
        _log_if_wide(figure)
        validated = any(f"val_{quantity}" in history for _, _, history in runs)
        panels.append(Panel(f"{label(quantity)}, {'validation' if validated else 'training'}", figure))
    return panels


def seed_dots(
    metric: str, split: str, groups: Sequence[tuple[str, int, Sequence[float]]], baseline: float | None = None
) -> Panel:
    """One row a recipe, given as (name, group number, values): a dot a run, a bar for mean and deviation."""
    figure = go.Figure()
    for row, (name, group, values) in enumerate(groups):
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        colour, extra = run_colour(group), f"<extra>{escape(name)}</extra>"
        # Names stand above their rows: beside them they would leave a narrow screen no room.
        where = {"x": 0, "xref": "paper", "xanchor": "left", "y": row - 0.2, "yanchor": "bottom"}
        figure.add_annotation(text=escape(name), showarrow=False, **where)
        dots = {"color": colour, "size": 8, "opacity": 0.6}
        figure.add_scatter(
            x=list(values), y=[row] * len(values), mode="markers", marker=dots, hovertemplate="%{x:.4~g}" + extra
        )
        figure.add_scatter(
            x=[mean],
            y=[row],
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 16, "line": {"width": 3}, "color": colour},
            error_x={"array": [deviation], "thickness": 1.5, "width": 5, "color": colour},
            hovertemplate=f"mean {mean:.4g} ± {deviation:.2g}{extra}",
        )
    figure.update_yaxes(range=[len(groups) - 0.5, -0.7], visible=False)
    figure.update_layout(xaxis_title=label(metric), showlegend=False, height=90 + 58 * max(1, len(groups)))
    note = "" if baseline is None else f"Always predicting the mean or the prior gives {score(baseline, metric)}."
    return Panel(f"{label(metric)}, {split}", figure, note)


def run_colour(group: int) -> str:
    """The colour of a group of runs, the same in every figure and table."""
    return RUN_COLOURS[group % len(RUN_COLOURS)]


def _split_colour(split: str) -> str:
    return SPLIT_COLOURS.get(split, "#b14fd1")


def _quantities(history: pd.DataFrame) -> list[str]:
    """Loss first, then the metrics in the order of the columns, the learning rate last."""
    found = [c.split("_", 1)[1] for c in map(str, history.columns) if c.startswith(("train_", "val_"))]
    with_data = [q for q in dict.fromkeys(found) if history.filter([f"train_{q}", f"val_{q}"]).notna().any(axis=None)]
    ordered = sorted(with_data, key=lambda quantity: quantity != "loss")
    return ordered + (["lr"] if "lr" in history and history["lr"].nunique() > 1 else [])


def _curve(figure: go.Figure, history: pd.DataFrame, column: str, name: str, colour: str) -> None:
    value = history[column]
    rows = value.notna()
    epoch = history["epoch"] if "epoch" in history else pd.Series(range(len(history)), index=history.index)
    figure.add_scatter(
        x=epoch[rows].to_numpy(),
        y=value[rows].to_numpy(),
        mode="lines+markers" if rows.sum() == 1 else "lines",
        line={"color": colour, "width": 1.8},
        name=escape(name),
        hovertemplate="%{y:.4~g}" + ("" if name else "<extra></extra>"),
    )


def _log_if_wide(figure: go.Figure) -> None:
    """A logarithmic axis where positive values span more than a factor of 50."""
    values = np.concatenate([np.asarray(trace.y, dtype=float) for trace in figure.data] or [np.array([1.0])])
    if len(values) and values.min() > 0 and values.max() > 50 * values.min():
        figure.update_yaxes(type="log", dtick=1)


def _at_most(rows: np.ndarray, limit: int) -> np.ndarray:
    if len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))


def _span(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or max(1.0, abs(low) * 0.1)
    return [low - margin, high + margin]


def _histograms(
    figure: go.Figure, samples: dict[str, np.ndarray], colours: dict[str, str], span: Iterable[float] | None = None
) -> None:
    """Bars of one set of bins for all samples, so that they compare; counted here, so that no data travels."""
    everything: Any = np.concatenate(list(samples.values()) or [np.zeros(0)])
    if not len(everything):
        return
    low, high = span if span is not None else _span(everything)
    bins = min(BINS, max(8, math.ceil(math.sqrt(len(everything)) * 1.5)))
    edges = np.linspace(low, high, bins + 1)
    for name, values in samples.items():
        counts, _ = np.histogram(values, edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts / max(1, len(values)),
            customdata=counts,
            width=edges[1] - edges[0],
            marker={"color": colours[name], "line": {"width": 0}},
            opacity=0.55,
            name=f"{escape(name)} ({len(values)})",
            hovertemplate="%{customdata} at %{x:.3~g}<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0, yaxis_title="share", yaxis_tickformat=".0%")
