"""A page that follows a run: written while it trains, and in the end the report itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coset.reports.live import Progress, write_progress
from coset.runs.folder import REPORT

if TYPE_CHECKING:
    from coset.runs.run import Run

RARELY = 1.0
"""Seconds between two writings of the page, at least."""


class LivePage:
    """``report.html`` of a run that is under way.

    Args:
        run: What is followed.
        since: When it began, on the monotonic clock.
    """

    def __init__(self, run: Run, since: float):
        training: Any = getattr(run.recipe, "training", None)
        self.run, self.since, self._written = run, since, float("-inf")
        self.progress = Progress(
            run.recipe.name,
            epochs=training.epochs if run.recipe.counts_epochs else None,
            monitor=f"val_{training.monitor}" if hasattr(training, "monitor") else "",
        )

    @property
    def address(self) -> str:
        """For the browser."""
        return (self.run.folder / REPORT).absolute().as_uri()

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """An epoch has come to its end."""
        self.progress.history.append(dict(row))
        self.show()

    def show(self, ended: str = "") -> None:
        """Write the page, unless that was done just now; the last one always."""
        now = time.monotonic()
        if not self.run.folder.holds_run() or (not ended and now - self._written < RARELY):
            return
        self._written = now
        self.progress.place, self.progress.seconds = self.run.reached, now - self.since
        write_progress(self.run.folder / REPORT, self.progress, ended)
