"""The page of a run that is under way: a small file without scripts that the browser reads again by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path

from coset.core.files import write_text
from coset.reports.page import head
from coset.reports.plots import split_colour
from coset.reports.scores import duration, higher_is_better, label, number
from coset.reports.sketches import curve_sketch

EVERY = 2
"""Seconds between two readings by the browser."""
SKIPPED = ("epoch", "lr", "seconds", "step")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
{again}<link rel="icon" href="data:,">
<title>{title}: {kind} · Coset</title>
<style>
{style}
.drawn {{ display: flex; flex-wrap: wrap; gap: 1.2rem; margin-block: 1.2rem; }}
.drawn figure {{ margin: 0; max-width: 100%; }}
.drawn figcaption {{ font-weight: 600; }}
.drawn svg {{ max-width: 100%; height: auto; }}
progress {{ width: 100%; height: .8rem; }}
</style>
</head>
<body>
{top}
<main class="column">
{bar}
<div class="drawn">
{figures}
</div>
<p class="note">{note}</p>
</main>
</body>
</html>
"""


@dataclass
class Progress:
    """What is known of a run that is under way.

    Attributes:
        title: Of the page.
        place: Where the run is, e.g. ``epoch 3 of 20``.
        seconds: Since it began.
        epochs: That are to be trained; None where they are not counted.
        monitor: Column of ``history`` that chooses the best epoch; empty if there is none.
        history: Rows of ``history.csv`` so far.
    """

    title: str
    place: str = ""
    seconds: float = 0.0
    epochs: int | None = None
    monitor: str = ""
    history: list[Mapping[str, float]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Epochs that are behind the run; it may have begun with those of an earlier start."""
        return int(self.history[-1].get("epoch", len(self.history) - 1)) + 1 if self.history else 0

    def verdict(self) -> str:
        """Where the run is, how long it may take, and the best epoch so far."""
        parts = [f"{self.place[:1].upper()}{self.place[1:]}" if self.place else "Under way"]
        if self.epochs and self.history and self.done < self.epochs:
            left = self.seconds / len(self.history) * (self.epochs - self.done)
            parts.append(f"about {duration(left)} to go")
        values = [row[self.monitor] for row in self.history if math.isfinite(row.get(self.monitor, math.nan))]
        if values:
            metric = self.monitor.removeprefix("val_")
            best = max(values) if higher_is_better(metric) else min(values)
            parts.append(f"validation {label(metric)} {number(values[-1])}, best {number(best)}")
        return f"{'; '.join(parts)}."


def write_progress(path: Path, progress: Progress, ended: str = "") -> None:
    """Write the page, whole or not at all.

    Args:
        path: The file.
        progress: What it shows.
        ended: Why the run came to an end before it was whole; the browser then reads no more.

    Raises:
        CosetError: It cannot be written.
    """
    done, bar = progress.done, ""
    if progress.epochs:
        bar = f'<progress max="{progress.epochs}" value="{done}" aria-label="epochs">{done}</progress>'
    again = "" if ended else f'<meta http-equiv="refresh" content="{EVERY}">\n'
    note = ended or f"This page reads itself again every {EVERY} seconds, and turns into the report at the end."
    kind = "run that was stopped" if ended else "training now"
    style, top = head(progress.title, kind, progress.verdict())
    html = PAGE.format(
        again=again, title=escape(progress.title), kind=kind, style=style, top=top, bar=bar,
        figures="\n".join(_figures(progress.history)), note=escape(note),
    )  # fmt: skip
    write_text(path, html)


def _figures(history: Sequence[Mapping[str, float]]) -> list[str]:
    """A figure a quantity, a curve a split."""
    names = sorted(
        {str(name) for row in history for name in row if name not in SKIPPED}, key=lambda name: (_quantity(name), name)
    )
    drawn, first = [], int(history[0].get("epoch", 0)) if history else 0
    for quantity, group in groupby(names, _quantity):
        curves = {
            name: (split_colour(name.partition("_")[0]), [row.get(name, math.nan) for row in history]) for name in group
        }
        drawn.append(
            f"<figure><figcaption>{escape(label(quantity))}</figcaption>{curve_sketch(curves, first)}</figure>"
        )
    return drawn


def _quantity(name: str) -> str:
    return name.removeprefix("train_").removeprefix("val_")
