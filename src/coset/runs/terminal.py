"""Where commands print, and how long work shows how far it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

console, problems = Console(), Console(stderr=True)


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None)
    for place, column in enumerate(columns):
        # Whole names: those of models on one line, those of layers on two where one is too narrow.
        longest = max((len(row[place]) for row in rows), default=0)
        table.add_column(column, overflow="fold", min_width=min(longest, 24) if place == 0 else None)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_notes(notes: Any) -> None:
    for note in notes:
        problems.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(text: str, total: int, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error; gives a function to call after each step."""
    from rich.progress import Progress

    with Progress(console=problems, transient=True, disable=quiet) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)
