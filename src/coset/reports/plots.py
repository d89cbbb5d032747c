"""Plots that several kinds of run have: curves over epochs, predictions against the truth, seeds side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from coset.reports.figures import (
    CLOSE,
    GREY,
    Axis,
    Figure,
    Mark,
    Panel,
    Rule,
    colour,
    figure,
    heat_map,
    line,
    points,
)
from coset.reports.scores import higher_is_better, label, number, roc_curve, score

SPLIT_COLOURS = {"train": GREY, "val": "#2b83e2", "test": "#e0701f"}
POINTS = 2000  # of a split; beyond it a browser gets slow and points hide one another
BINS = 40
TALL = 400  # pixels, for figures that stand in pairs, one of them square
Vector = Float[np.ndarray, " rows"]


class Pairs(NamedTuple):
    """True values, what was predicted, and what the rows are called."""

    true: Vector
    predicted: Vector
    names: Sequence[str]


LONGEST = 16
"""Letters of a name on an axis."""


def training_curves(history: pd.DataFrame, best_epoch: int | None = None) -> list[Panel]:
    """One panel a quantity (loss, then each metric, then learning rate), train and val together."""
    panels = []
    for quantity in _quantities(history):
        columns = {"": "lr"} if quantity == "lr" else {split: f"{split}_{quantity}" for split in ("train", "val")}
        curves = {split: column for split, column in columns.items() if column in history}
        marks = [_curve(history, column, name, split_colour(name or "train")) for name, column in curves.items()]
        best = [] if best_epoch is None or quantity == "lr" else [Rule(x=best_epoch, colour=SPLIT_COLOURS["val"])]
        y = _axis_of(quantity, marks)
        drawn = figure(*marks, x="epoch", y=y, rules=best, legend=len(marks) > 1, together=True)
        panels.append(Panel(label(quantity), drawn))
    return panels


def overlaid_curves(runs: Sequence[tuple[str, int, pd.DataFrame]]) -> list[Panel]:
    """One panel a quantity: runs as (name, group number, history), a colour a group; the page has the legend."""
    quantities = dict.fromkeys(q for _, _, history in runs for q in _quantities(history) if q != "lr")
    panels = []
    for quantity in quantities:
        marks = []
        for name, group, history in runs:
            column = next((c for c in (f"val_{quantity}", f"train_{quantity}") if c in history), None)
            if column is not None:
                marks.append(_curve(history, column, name, colour(group), opacity=0.8))
        validated = any(f"val_{quantity}" in history for _, _, history in runs)
        title = f"{label(quantity)}, {'validation' if validated else 'training'}"
        panels.append(Panel(title, figure(*marks, x="epoch", y=_axis_of(quantity, marks), legend=False)))
    return panels


def parity(samples: Mapping[str, Pairs], what: str, rows: str = "rows") -> Panel:
    """Predicted against true: a point a row, a colour a split, and the line on which predictions are right.

    Args:
        samples: By split.
        what: Was predicted.
        rows: What rows are, in the plural.
    """
    marks, drawn = [], 0
    for split, pairs in samples.items():
        chosen = _at_most(len(pairs.true), POINTS)
        drawn += len(chosen)
        marks.append(
            points(
                pairs.true[chosen], pairs.predicted[chosen], split, texts=[pairs.names[i] for i in chosen],
                colour=split_colour(split), size=6, opacity=0.45 if split == "train" else 0.85,
                hover="<b>%{text}</b><br>true %{x:.4~g}<br>predicted %{y:.4~g}<extra>%{fullData.name}</extra>",
            )
        )  # fmt: skip
    known = sum(len(pairs.true) for pairs in samples.values())
    span = _span(np.concatenate([part for pairs in samples.values() for part in pairs[:2]]))
    axes = [Axis(title, range=span, square=True) for title in (f"true {what}", "predicted")]
    note = f"{number(drawn)} of {number(known)} {rows} are drawn, a fixed sample." if drawn < known else ""
    made = figure(*marks, _reference(span, "identity"), x=axes[0], y=axes[1], height=TALL)
    return Panel(f"Predicted versus true {what}", made, note)


def residuals(samples: Mapping[str, Pairs], what: str) -> Panel:
    """Distribution of prediction minus truth, a colour a split; each split's bars add up to one."""
    errors = {split: pairs.predicted - pairs.true for split, pairs in samples.items()}
    zero = Rule(x=0, dash="dash", colour=GREY)
    colours = {split: split_colour(split) for split in errors}
    return Panel("Residuals", share_histograms(errors, f"predicted − true {what}", colours, rules=[zero]))


def roc(samples: Mapping[str, Pairs], what: str) -> Panel:
    """True positives against false positives, a curve a split; splits of one class alone have none."""
    marks = []
    for split, pairs in samples.items():
        if 0 < (pairs.true > 0.5).sum() < len(pairs.true):
            false, true = roc_curve(pairs.true, pairs.predicted)
            hover = "false positives %{x:.3f}<br>true positives %{y:.3f}<extra></extra>"
            name = f"{split} {np.trapezoid(true, false):.3f}"
            marks.append(line(false, true, name, colour=split_colour(split), width=2, hover=hover))
    x, y = (Axis(f"{kind} positive rate", range=[-0.01, 1.01], square=True) for kind in ("false", "true"))
    drawn = figure(*marks, _reference([0, 1], "chance"), x=x, y=y, height=TALL)
    return Panel(f"ROC of {what}", drawn, "The legend gives the area under each curve.")


def class_scores(pairs: Pairs, split: str, what: str) -> Panel:
    """Predicted probabilities of a split, a colour a class."""
    classes = {f"true {c}": pairs.predicted[(pairs.true > 0.5) == bool(c)] for c in (0, 1)}
    colours = {"true 0": SPLIT_COLOURS["val"], "true 1": SPLIT_COLOURS["test"]}
    title = f"predicted probability of {what}"
    return Panel(f"Predicted probability, {split}", share_histograms(classes, title, colours, span=[0, 1]))


def confusion(true: Sequence[str], predicted: Sequence[str], classes: Sequence[str], split: str) -> Panel:
    """What rows of each class were taken for: a row a true class, in shares of it, with counts."""
    place = {name: at for at, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for t, p in zip(true, predicted, strict=True):
        counts[place[t], place[p]] += 1
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    texts = [[str(count) for count in row] for row in counts]
    x, y = Axis("predicted class", categories=True), Axis("true class", categories=True, reversed=True)
    names = _brief(classes)
    cells = heat_map(shares, names, names, texts, written=len(classes) <= 30)
    made = figure(cells, x=x, y=y, height=max(TALL, 60 + 24 * len(classes)))
    return Panel(f"Classes, {split}", made, "Colours are shares of a true class, numbers are counts.")


def _brief(names: Sequence[str]) -> list[str]:
    """Names for an axis: long ones cut, unless two would be the same."""
    cut = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    return cut if len(set(cut)) == len(cut) else list(names)


def share_histograms(
    samples: Mapping[str, Vector],
    x: str,
    colours: Mapping[str, str],
    *,
    span: Sequence[float] | None = None,
    rules: Sequence[Rule] = (),
) -> Figure:
    """Bars of one set of bins for all samples, so that they compare; counted here, so that no data travels."""
    everything = np.concatenate(list(samples.values()) or [np.zeros(0)])
    if not len(everything):
        return figure(x=x, rules=rules, height=TALL)
    low, high = span if span is not None else _span(everything)
    edges = np.linspace(low, high, min(BINS, max(8, math.ceil(math.sqrt(len(everything)) * 1.5))) + 1)
    drawn = figure(
        *(_share_bars(values, edges, name, colours[name]) for name, values in samples.items()),
        x=x, y="share", rules=rules, height=TALL,
    )  # fmt: skip
    return drawn.update_layout(barmode="overlay", bargap=0, yaxis_tickformat=".0%")


def spread_over_seeds(
    metric: str, split: str, groups: Sequence[tuple[str, int, Sequence[float]]], baseline: float | None = None
) -> Panel:
    """One row a group, given as (name, number, values): a dot a value, a bar for mean and deviation."""
    marks: list[Mark] = []
    drawn = figure(x=label(metric), legend=False, height=90 + 58 * max(1, len(groups)))
    for row, (name, group, values) in enumerate(groups):
        # Names stand above their rows: beside them they would leave a narrow screen no room.
        where = {"x": 0, "xref": "paper", "xanchor": "left", "y": row - 0.2, "yanchor": "bottom"}
        drawn.add_annotation(text=escape(name), showarrow=False, **where)
        extra = f"<extra>{escape(name)}</extra>"
        marks.append(points(
            list(values), [row] * len(values), colour=colour(group), size=8, opacity=0.6, hover="%{x:.4~g}" + extra
        ))  # fmt: skip
        marks.append(_mean_with_deviation(values, row, colour(group), extra))
    drawn.add_traces(marks)
    drawn.update_yaxes(range=[len(groups) - 0.5, -0.7], visible=False)
    note = "" if baseline is None else f"Always predicting the mean or the prior gives {score(baseline, metric)}."
    return Panel(f"{label(metric)}, {split}", drawn, note)


def split_colour(split: str) -> str:
    """The colour of a split, the same in every figure."""
    return SPLIT_COLOURS.get(split, "#b14fd1")


def _quantities(history: pd.DataFrame) -> list[str]:
    """Loss first, then the metrics in the order of the columns, the learning rate last."""
    named = [c.split("_", 1)[1] for c in map(str, history.columns) if c.startswith(("train_", "val_"))]
    with_data = [q for q in dict.fromkeys(named) if history.filter([f"train_{q}", f"val_{q}"]).notna().any(axis=None)]
    ordered = sorted(with_data, key=lambda quantity: quantity != "loss")
    return ordered + (["lr"] if "lr" in history and history["lr"].nunique() > 1 else [])


def _curve(history: pd.DataFrame, column: str, name: str, tint: str, opacity: float | None = None) -> Mark:
    value = history[column]
    rows = value.notna()
    epoch = history["epoch"] if "epoch" in history else pd.Series(range(len(history)), index=history.index)
    hover = CLOSE + ("" if name else "<extra></extra>")
    return line(
        epoch[rows].to_numpy(), value[rows].to_numpy(), name, colour=tint, width=1.8, dots=bool(rows.sum() == 1),
        opacity=opacity, hover=hover,
    )  # fmt: skip


def _axis_of(quantity: str, marks: Sequence[Mark]) -> Axis:
    """A logarithmic axis where positive values span more than a factor of 50; scores, which end at 1, have none."""
    if higher_is_better(quantity):
        return Axis()
    values = np.concatenate([np.asarray(mark.y, dtype=float) for mark in marks] or [np.array([1.0])])
    wide = bool(len(values) and values.min() > 0 and values.max() > 50 * values.min())
    return Axis(log=wide, decades=wide)


def _reference(span: Sequence[float], name: str) -> Mark:
    """The diagonal, to read points and curves against."""
    return line(span, span, name, colour=GREY, width=1, dash="dash", hover="")


def _at_most(rows: int, limit: int) -> np.ndarray:
    if rows <= limit:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))


def _span(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or max(1.0, abs(low) * 0.1)
    return [low - margin, high + margin]


def _share_bars(values: Vector, edges: np.ndarray, name: str, tint: str) -> Mark:
    counts, _ = np.histogram(values, edges)
    return go.Bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts / max(1, len(values)),
        customdata=counts,
        width=edges[1] - edges[0],
        marker={"color": tint, "line": {"width": 0}},
        opacity=0.55,
        name=f"{escape(name)} ({len(values)})",
        hovertemplate="%{customdata} at %{x:.3~g}<extra>%{fullData.name}</extra>",
    )


def _mean_with_deviation(values: Sequence[float], row: int, tint: str, extra: str) -> Mark:
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return go.Scatter(
        x=[mean],
        y=[row],
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 16, "line": {"width": 3}, "color": tint},
        error_x={"array": [deviation], "thickness": 1.5, "width": 5, "color": tint},
        hovertemplate=f"mean {mean:.4g} ± {deviation:.2g}{extra}",
    )
