"""Whether a model knows how sure it may be: coverage of intervals, errors by spread, reliability of probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from coset.reports.figures import GREY, Axis, Figure, Panel, Rule, figure, line
from coset.reports.plots import TALL, split_colour

LEVELS = np.arange(0.05, 1.0, 0.05)
BINS = 10
ENOUGH = 20  # rows, for a figure that says something
Vector = Float[np.ndarray, " rows"]


def coverages(calibration: Vector, errors: Vector, levels: Sequence[float] | np.ndarray = LEVELS) -> np.ndarray:
    """Shares of errors inside the margins of split conformal prediction, one a nominal level.

    Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005: the margin of level p is the
    ceil((n + 1) p)-th smallest of the n errors that it is chosen by.

    Args:
        calibration: Absolute errors of the rows that margins are chosen by.
        errors: Absolute errors of others.
        levels: Between 0 and 1; NaN where there are too few rows for one.
    """
    ordered = np.sort(calibration)
    ranks = [math.ceil((len(ordered) + 1) * level - 1e-9) for level in levels]
    return np.array([(errors <= ordered[rank - 1]).mean() if rank <= len(ordered) else np.nan for rank in ranks])


def coverage_panel(calibration: Vector, errors: Vector, what: str, split: str) -> Panel:
    """Share of truths inside intervals against the share that should be.

    Args:
        calibration: Absolute errors of the validation rows.
        errors: Absolute errors of the rows that are shown.
        what: Was predicted.
        split: Of these.
    """
    shares = coverages(calibration, errors)
    (at,) = coverages(calibration, errors, [0.9])
    note = (
        f"Margins by split conformal prediction from {len(calibration)} validation rows, which also chose the epoch; "
        f"{len(errors)} rows of {split}."
    )
    if np.isfinite(at):
        note = f"Intervals of 90 % hold {100 * at:.1f} %. " + note
    return Panel(
        f"Coverage of intervals of {what}",
        _against_diagonal(LEVELS, shares, split, "nominal level", "share inside"),
        note,
    )


def spread_panel(spread: Vector, errors: Vector, what: str, split: str) -> Panel:
    """Root mean square errors against root mean square spreads, in bins of equal numbers of rows.

    Args:
        spread: Deviations of the predictions, of draws or of the networks of an ensemble.
        errors: Of the same rows.
        what: Was predicted.
        split: Of these rows.
    """
    groups = np.array_split(np.argsort(spread, kind="stable"), min(BINS, max(1, len(spread) // 5)))
    x, y = (np.array([math.sqrt(float((part[rows] ** 2).mean())) for rows in groups]) for part in (spread, errors))
    together = float(np.corrcoef(_ranks(spread), _ranks(np.abs(errors)))[0, 1]) if np.ptp(spread) > 0 else 0.0
    note = (
        f"Rank correlation of spread and absolute error: {together:.2f}. On the line, errors are as large as spreads."
    )
    drawn = _against_diagonal(x, y, split, "spread (root mean square)", "error (root mean square)", unit=False)
    return Panel(f"Error against spread of {what}", drawn, note)


def reliability(
    probability: Vector, right: Vector, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean probability, share that is right and number of rows of each bin that has some, and the calibration error.

    The expected calibration error (Naeini, Cooper, Hauskrecht, AAAI 2015) is the mean of their differences, weighed by
    numbers of rows.

    Args:
        probability: Predicted.
        right: Whether it was so, 0 or 1.
        bins: Of equal width.
    """
    place = np.minimum((probability * bins).astype(int), bins - 1)
    used = np.unique(place)
    x, y = (np.array([part[place == each].mean() for each in used]) for part in (probability, right))
    counts = np.array([(place == each).sum() for each in used])
    return x, y, counts, float((np.abs(x - y) * counts).sum() / counts.sum())


def reliability_panel(probability: Vector, right: Vector, what: str, split: str) -> Panel:
    """How often predictions of a probability come true, with the expected calibration error."""
    x, y, _, error = reliability(probability, right)
    drawn = _against_diagonal(x, y, split, "predicted probability", "share that is so")
    return Panel(
        f"Reliability of {what}",
        drawn,
        f"Expected calibration error {error:.3f}, {len(x)} bins, {len(right)} rows of {split}.",
    )


def _against_diagonal(x: np.ndarray, y: np.ndarray, split: str, across: str, up: str, unit: bool = True) -> Figure:
    known = np.isfinite(y)
    top = 1.0 if unit else 1.05 * float(max(x.max(), y.max(), 1e-12))
    axes = [Axis(title, range=[0, top], square=unit) for title in (across, up)]
    diagonal = line([0, top], [0, top], "as it should be", colour=GREY, width=1, dash="dash", hover="")
    curve = line(x[known], y[known], split, colour=split_colour(split), width=2, dots=True)
    rules = [Rule(x=0.9)] if across == "nominal level" else []
    return figure(diagonal, curve, x=axes[0], y=axes[1], rules=rules, height=TALL)


def _ranks(values: Vector) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)
