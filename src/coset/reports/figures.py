"""What figures are made of: marks (lines, points, bars, boxes, heat maps, contours) on two axes.

>>> loss = figure(line([0, 1, 2], [4.0, 2.0, 1.0], "train"), x="epoch", y=Axis("loss", log=True))
>>> Panel("Loss", loss).title
'Loss'

Only this package knows Plotly. How figures look (fonts, grid, light and dark) is decided once, in the page. Names,
texts and titles are escaped, since Plotly reads tags in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, TypeAlias

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

Figure: TypeAlias = go.Figure
Mark: TypeAlias = Any
"""What a figure shows: made by :func:`line`, :func:`points`, :func:`bars`, ..."""
Values: TypeAlias = Any  # an array, a list or a column of a table; words are categories
Legend: TypeAlias = bool | Literal["beside"] | None

COLOURS = ("#2b83e2", "#e0701f", "#16a085", "#b14fd1", "#c9a20a", "#e2465c", "#6b7fd7", "#7a9a2e", "#8593a8")
GREY = COLOURS[-1]
CLOSE = "%{y:.4~g}"
"""A hover text: the value alone."""


@dataclass(frozen=True)
class Panel:
    """A figure with what a reader, or a screen reader, is told about it."""

    title: str
    figure: Figure
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """One axis of a figure.

    Attributes:
        title: What it measures.
        log: Logarithmic.
        decades: Ticks at powers of ten alone, if the axis is logarithmic and shows two of them or more.
        ticks: Where ticks are, instead of where they look best.
        range: Ends.
        square: As long as the other axis for the same difference, if set for y; no longer than what it shows.
        categories: Values are names, even where they look like numbers.
        reversed: From top to bottom.
        from_zero: Zero is on it.
    """

    title: str = ""
    log: bool = False
    decades: bool = False
    ticks: Sequence[float] | None = None
    range: Sequence[float] | None = None
    square: bool = False
    categories: bool = False
    reversed: bool = False
    from_zero: bool = False

    def layout(self, vertical: bool) -> dict[str, Any]:
        """As Plotly has it."""
        return _given(
            title={"text": escape(self.title)} if self.title else None,
            type="log" if self.log else "category" if self.categories else None,
            dtick=1 if self.decades else None,
            tickvals=self.ticks,
            range=self.range,
            constrain="domain" if self.square else None,
            scaleanchor="x" if self.square and vertical else None,
            autorange="reversed" if self.reversed else None,
            automargin=True if self.reversed else None,
            rangemode="tozero" if self.from_zero else None,
        )


@dataclass(frozen=True)
class Rule:
    """A thin line through the whole figure: across at ``y``, or upright at ``x``."""

    x: float | None = None
    y: float | None = None
    text: str = ""
    dash: str = "dot"
    colour: str | None = None


def figure(
    *marks: Mark,
    x: Axis | str = "",
    y: Axis | str = "",
    rules: Sequence[Rule] = (),
    legend: Legend = None,
    height: int | None = None,
    together: bool = False,
) -> Figure:
    """Marks on two axes.

    Args:
        marks: Drawn in this order.
        x: The axis across, or its title.
        y: The axis upwards, or its title.
        rules: Lines through the whole figure.
        legend: Whether there is one; ``beside`` sets it to the right, for many entries.
        height: In pixels.
        together: Pointing shows the values of all marks there.
    """
    made = go.Figure(list(marks))
    for rule in rules:
        _draw_rule(made, rule)
    made.update_xaxes(**_axis(x).layout(vertical=False))
    made.update_yaxes(**_axis(y).layout(vertical=True))
    for axis, letter in ((_axis(x), "x"), (_axis(y), "y")):
        if axis.decades and _powers_of_ten(made, letter) < 2:
            made.update_layout({f"{letter}axis_dtick": None})  # or the axis would have a single number, or none
    made.update_layout(**_layout(legend, height), **_given(hovermode="x unified" if together else None))
    return made


def side_by_side(
    parts: Mapping[str, Sequence[Mark]], *, x: Axis | str = "", legend: Legend = None, height: int | None = None
) -> Figure:
    """Figures beside one another, by title; they share the axis upwards."""
    made = make_subplots(cols=len(parts), subplot_titles=[escape(title) for title in parts], shared_yaxes=True)
    for column, marks in enumerate(parts.values(), start=1):
        for mark in marks:
            made.add_trace(mark, row=1, col=column)
    made.update_xaxes(**_axis(x).layout(vertical=False))
    made.update_layout(**_layout(legend, height))
    return made


def line(
    x: Values,
    y: Values,
    name: str | None = None,
    *,
    colour: str | None = None,
    width: float | None = None,
    dash: str | None = None,
    dots: bool = False,
    opacity: float | None = None,
    deviation: Sequence[float] | None = None,
    group: str | None = None,
    listed: bool | None = None,
    hover: str | None = None,
) -> Mark:
    """A line through points.

    Args:
        x: Across.
        y: Upwards.
        name: Its entry in the legend.
        colour: One of its own by default.
        width: In pixels.
        dash: ``dot`` or ``dash``.
        dots: Points are marked.
        opacity: From 0 to 1.
        deviation: Half the length of a bar through each point.
        group: Marks of one group are shown and hidden together.
        listed: Whether the legend lists it.
        hover: Plotly's template of what is said when it is pointed at; with ``""`` nothing is.
    """
    return go.Scatter(
        x=_values(x),
        y=_values(y),
        mode="lines+markers" if dots else "lines",
        **_given(line=_given(color=colour, width=width, dash=dash) or None, opacity=opacity, error_y=_bars(deviation)),
        **_named(name, group, listed, hover),
    )


def points(
    x: Values,
    y: Values,
    name: str | None = None,
    *,
    colour: str | Sequence[float] | None = None,
    scale: str | None = None,
    size: float | None = None,
    symbol: str | None = None,
    outline: str | None = None,
    opacity: float | None = None,
    deviation: Sequence[float] | None = None,
    texts: Iterable[Any] | None = None,
    written: bool = False,
    group: str | None = None,
    listed: bool | None = None,
    hover: str | None = None,
) -> Mark:
    """Points; arguments as of :func:`line`, and:

    Args:
        colour: One for all, or a number a point.
        scale: What the numbers of ``colour`` are: the title of their scale.
        symbol: Plotly's name of one.
        outline: Colour of a thin outline.
        texts: One a point, shown when it is pointed at.
        written: The texts stand above the points.
    """
    edge = {"width": 1, "color": outline} if outline else None
    bar = {} if scale is None else {"colorscale": "Viridis", "showscale": True, "colorbar": {"title": escape(scale)}}
    marker = _given(color=colour, size=size, symbol=symbol, line=edge, opacity=opacity) | bar
    return go.Scatter(
        x=_values(x),
        y=_values(y),
        mode="markers+text" if written else "markers",
        **_given(marker=marker or None, error_y=_bars(deviation), text=None if texts is None else _escaped(texts)),
        **_given(textposition="top center" if written else None),
        **_named(name, group, listed, hover),
    )


def bars(
    x: Values,
    y: Values,
    name: str | None = None,
    *,
    colour: str | None = None,
    opacity: float | None = None,
    listed: bool | None = None,
) -> Mark:
    """Bars; those of several marks stand beside one another."""
    marker = None if colour is None else {"color": colour}
    return go.Bar(
        x=_values(x), y=_values(y), **_given(marker=marker, opacity=opacity), **_named(name, None, listed, None)
    )


def box(
    y: Values, name: str, *, every: bool = False, texts: Iterable[Any] | None = None, listed: bool | None = None
) -> Mark:
    """Quartiles and range of a sample; with ``every`` each of its points beside them."""
    shown = _given(boxpoints="all" if every else None, text=None if texts is None else _escaped(texts))
    return go.Box(y=_values(y), **shown, **_named(name, None, listed, None))


def histogram(x: Values, bins: int) -> Mark:
    """How many values fall into each of about so many bins."""
    return go.Histogram(x=_values(x), nbinsx=bins)


def heat_map(
    cells: Values, rows: Sequence[str], columns: Sequence[str], texts: Sequence[Sequence[str]], written: bool = False
) -> Mark:
    """A coloured cell a number; ``None`` is left empty. Each cell has a text that is shown when it is pointed at.

    With ``written`` the texts stand in the cells, too.
    """
    return go.Heatmap(
        z=cells, y=_escaped(rows), x=_escaped(columns), text=[_escaped(row) for row in texts], colorscale="Viridis",
        hovertemplate="%{text}: %{z:.4g}<extra></extra>", hoverongaps=False,
        texttemplate="%{text}" if written else None,
    )  # fmt: skip


def contours(x: Values, y: Values, heights: Values, what: str) -> Mark:
    """Filled contours of ``heights[y][x]``; ``what`` names the heights."""
    return go.Contour(
        x=x, y=y, z=heights, colorscale="Viridis", ncontours=18, contours={"showlines": False},
        colorbar={"title": escape(what)}, hovertemplate=f"{escape(what)} %{{z:.3f}}<extra></extra>",
    )  # fmt: skip


def colour(number: int) -> str:
    """The colour of one of several things, the same in every figure and table of a page."""
    return COLOURS[number % len(COLOURS)]


def colour_of_many(number: int) -> str:
    """As :func:`colour`, of a palette of 24."""
    return qualitative.Dark24[number % len(qualitative.Dark24)]


def _powers_of_ten(made: Figure, letter: str) -> int:
    """How many of them lie within what the marks show along an axis."""
    shown = [np.asarray(mark[letter], dtype=float) for mark in made.data if mark[letter] is not None]
    values = np.concatenate([found[np.isfinite(found) & (found > 0)] for found in shown] or [np.zeros(0)])
    if not len(values):
        return 0
    low, high = np.log10(values.min()), np.log10(values.max())
    return int(np.floor(high) - np.ceil(low)) + 1


def _axis(axis: Axis | str) -> Axis:
    return Axis(axis) if isinstance(axis, str) else axis


def _layout(legend: Legend, height: int | None) -> dict[str, Any]:
    if legend == "beside":
        return _given(legend={"orientation": "v", "x": 1.02, "y": 1}, height=height)
    return _given(showlegend=legend, height=height)


def _draw_rule(made: Figure, rule: Rule) -> None:
    look: dict[str, Any] = {"line": _given(dash=rule.dash, width=1, color=rule.colour)}
    if rule.text:
        look["annotation_text"] = escape(rule.text)
    if rule.x is not None:
        made.add_vline(x=rule.x, **look)
    if rule.y is not None:
        made.add_hline(y=rule.y, **look)


def _named(name: str | None, group: str | None, listed: bool | None, hover: str | None) -> dict[str, Any]:
    said: dict[str, Any] = {"hoverinfo": "skip"} if hover == "" else _given(hovertemplate=hover)
    return said | _given(name=None if name is None else escape(name), legendgroup=group, showlegend=listed)


def _bars(deviation: Sequence[float] | None) -> dict[str, Any] | None:
    return None if deviation is None else {"array": list(deviation), "thickness": 1}


def _values(values: Values) -> Any:
    """Numbers as they are; words, which become categories, escaped."""
    if isinstance(values, list | tuple) and any(isinstance(value, str) for value in values):
        return [escape(value) if isinstance(value, str) else value for value in values]
    return values if isinstance(values, list | np.ndarray) else np.asarray(values)


def _escaped(texts: Iterable[Any]) -> list[str]:
    return [escape(str(text)) for text in texts]


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
