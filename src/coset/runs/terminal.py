"""Where commands print, and how long work shows how far it is; besides the command line, Rich is known here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Console", "Table", "bars", "console", "dense_table", "print_notes", "print_table", "problems", "progress",
           "track"]  # fmt: skip
T = TypeVar("T")
console, problems = Console(), Console(stderr=True)


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table without lines on standard output."""
    table = Table(box=None)
    for place, column in enumerate(columns):
        # Whole names: those of models on one line, those of layers on two where one is too narrow.
        longest = max((len(row[place]) for row in rows), default=0)
        table.add_column(column, overflow="fold", min_width=min(longest, 24) if place == 0 else None)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def dense_table() -> Table:
    """An empty table with a line under its head and nothing between its columns."""
    return Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)


def print_notes(notes: Any) -> None:
    """Notes on standard error, a line each."""
    for note in notes:
        problems.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def bars(quiet: bool = False, counted: bool = False) -> Progress:
    """Progress bars on standard error that vanish when they are done.

    Args:
        quiet: Show none.
        counted: Show how many of how many, and the time that has passed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns if counted else (), console=Console(stderr=True), transient=True, disable=quiet)


def track(items: Iterable[T], text: str, total: int | None = None, quiet: bool = False) -> Iterator[T]:
    """The items, with a bar that counts them."""
    with bars(quiet) as bar:
        yield from bar.track(items, total=total, description=text)


@contextmanager
def progress(text: str, total: int, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A bar; gives a function to call after each step."""
    with bars(quiet) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)
