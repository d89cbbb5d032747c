"""Where commands print."""

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
