"""Small drawings without scripts, for notebooks and places where nothing runs: SVG in the text itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from coset.reports.plots import Pairs, split_colour
from coset.reports.scores import number

SIZE, MARGIN = 260, 34
POINTS = 400  # of a split


def parity_sketch(samples: Mapping[str, Pairs], what: str) -> str:
    """Predicted against true values, a colour a split, with the line on which predictions are right; as SVG.

    Args:
        samples: By split, drawn in this order.
        what: Was predicted.
    """
    values = np.concatenate([part for pairs in samples.values() for part in pairs[:2]])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return MARGIN + (SIZE - 2 * MARGIN) * (value - low) / span

    marks = [f'<line x1="{MARGIN}" y1="{SIZE - MARGIN}" x2="{SIZE - MARGIN}" y2="{MARGIN}" stroke="#999"/>']
    for split, pairs in samples.items():
        rows = np.linspace(0, len(pairs.true) - 1, min(POINTS, len(pairs.true))).astype(int)
        marks += [
            f'<circle cx="{place(pairs.true[row]):.1f}" cy="{SIZE - place(pairs.predicted[row]):.1f}" r="2.5" '
            f'fill="{split_colour(split)}" fill-opacity=".6"><title>{escape(str(pairs.names[row]))}</title></circle>'
            for row in rows.tolist()
        ]
    ends = [(MARGIN, number(low), "start"), (SIZE - MARGIN, number(high), "end")]
    marks += [_text(x, SIZE - MARGIN + 14, text, anchor) for x, text, anchor in ends]
    marks.append(_text(SIZE / 2, SIZE - 4, f"true {what}", "middle"))
    marks.append(f'<g transform="rotate(-90 12 {SIZE / 2})">{_text(12, SIZE / 2, "predicted", "middle")}</g>')
    return _svg(SIZE, SIZE, marks)


def confusion_sketch(true: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> str:
    """What rows of each class were taken for: a row a true class, darker with its share; as SVG.

    Args:
        true: Of each row.
        predicted: Of each row.
        classes: In their order.
    """
    at = {name: place for place, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for t, p in zip(true, predicted, strict=True):
        counts[at[t], at[p]] += 1
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    cell, left = max(14.0, min(40.0, 220 / max(1, len(classes)))), 90
    marks = []
    for row, name in enumerate(classes):
        marks.append(_text(left - 6, cell * (row + 0.65), str(name)[:14], "end"))
        for column in range(len(classes)):
            x, y, share = left + cell * column, cell * row, shares[row, column]
            marks.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" fill="#2b83e2" '
                f'fill-opacity="{share:.2f}" stroke="#ccc"><title>{escape(str(name))} taken for '
                f"{escape(str(classes[column]))}: {counts[row, column]}</title></rect>"
            )
            if counts[row, column]:
                marks.append(_text(x + cell / 2, y + cell * 0.65, str(counts[row, column]), "middle"))
    return _svg(left + cell * len(classes) + 4, cell * len(classes) + 4, marks)


def curve_sketch(curves: Mapping[str, tuple[str, Sequence[float]]], first: int = 0) -> str:
    """Curves over epochs, with the ends of both axes written; as SVG.

    Args:
        curves: By name the colour, and a value an epoch; what is not finite leaves a gap.
        first: Number of the first epoch.
    """
    width, height, left, foot = 420, 220, 62, 34
    every = np.array([value for _, values in curves.values() for value in values], dtype=float)
    known = every[np.isfinite(every)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    span, last = (high - low) or 1.0, max((len(values) for _, values in curves.values()), default=1) - 1
    marks = [f'<path d="M{left} 8V{height - foot}H{width - 8}" fill="none" stroke="#999"/>']
    for place, (name, (colour, values)) in enumerate(curves.items()):
        ends = [
            (left + (width - left - 12) * epoch / max(1, last), 12 + (height - foot - 16) * (high - value) / span)
            for epoch, value in enumerate(values)
            if np.isfinite(value)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in ends)
        marks.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in ends[-1:]]
        marks.append(
            f'<rect x="{left + 12 + 105 * place}" y="{height - 10}" width="10" height="3" fill="{colour}"/>'
            + _text(left + 26 + 105 * place, height - 4, name, "start")
        )
    marks += [_text(left - 6, y, number(value), "end") for y, value in ((18, high), (height - foot, low))]
    marks += [_text(left, height - foot + 14, str(first), "middle")]
    marks += [_text(width - 12, height - foot + 14, str(first + last), "end")]
    return _svg(width, height, marks)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" font-family="sans-serif" fill="currentColor" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, marks: Sequence[str]) -> str:
    inner = "".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">{inner}</svg>'
    )
