"""Where commands print, and how long work shows how far it is; besides the command line, Rich is known here alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from rich import console as rich_console
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from coset.core.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "Console",
    "Table",
    "bars",
    "console",
    "dense_table",
    "json_answer",
    "print_notes",
    "print_table",
    "problems",
    "progress",
    "tell",
    "track",
]  # fmt: skip
T = TypeVar("T")


class Console(rich_console.Console):
    """Prints names from files as they are: nothing in them is markup, or obeyed by a terminal.

    Args:
        stderr: Print on standard error.
    """

    def __init__(self, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """What Rich prints of a string, a cell of a table or a heading."""
        return super().render_str(printable(text), **options)


console, problems = Console(), Console(stderr=True)
_ANSWER: ContextVar[dict[str, Any] | None] = ContextVar("answer", default=None)


@contextmanager
def json_answer() -> Iterator[None]:
    """While the body runs, what commands print is kept, and printed at its end as one JSON object.

    Its keys are those of :func:`tell`; ``tables``, a list of rows each (:func:`print_table`); ``notes``; and ``said``,
    the lines of everything else.
    """
    from coset.core.files import json_text

    answer: dict[str, Any] = {}
    token = _ANSWER.set(answer)
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            yield
    except BaseException as stop:
        if hasattr(stop, "exit_code"):  # an exit with a code has an answer; an error has none
            _print_answer(answer, said.getvalue(), json_text)
        raise
    else:
        _print_answer(answer, said.getvalue(), json_text)
    finally:
        _ANSWER.reset(token)


def _print_answer(answer: dict[str, Any], said: str, as_text: Callable[..., str]) -> None:
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    given = answer | ({"said": lines} if lines else {})
    # What a command has printed as JSON itself is the whole answer.
    whole = said.strip()
    if not answer and whole.startswith(("{", "[")) and _is_json(whole):
        print(whole)
    else:
        print(as_text(given, indent=2))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def tell(**facts: Any) -> None:
    """Results of a command by name, for ``--json``; printed nowhere else."""
    answer = _ANSWER.get()
    if answer is not None:
        answer |= facts


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table without lines on standard output; of ``--json``, a row an object.

    Where it is too wide for the terminal, what groups of rows have in common in their first column becomes a row above
    them.
    """
    answer = _ANSWER.get()
    if answer is not None:
        answer.setdefault("tables", []).append([dict(zip(columns, row, strict=False)) for row in rows])
        return
    if sum(map(_widths(columns, rows), range(len(columns)))) > console.width:
        columns, rows = _under_groups(columns, rows)
    width = _widths(columns, rows)
    # Whole names: those of models on one line, those of layers on two where one is too narrow, if numbers leave room.
    left = console.width - sum(map(width, range(1, len(columns))))
    first = min(width(0) - 2, 24, max(left - 2, 12))
    table = Table(box=None)
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", min_width=first if place == 0 else None)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _widths(columns: list[str], rows: list[list[str]]) -> Callable[[int], int]:
    """Of a column, with a space on both sides."""
    return lambda place: 2 + max(len(row[place]) for row in [columns, *rows] if place < len(row))


def _under_groups(columns: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the first column if rows that follow each other share what it says, which stands above them then."""
    groups = [(name, list(group)) for name, group in groupby(rows, key=lambda row: row[0])]
    if len(columns) < 3 or len(groups) == len(rows):
        return columns, rows
    return columns[1:], [row for name, group in groups for row in ([name], *(["  " + r[1], *r[2:]] for r in group))]


def dense_table() -> Table:
    """An empty table with a line under its head and nothing between its columns."""
    return Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)


def print_notes(notes: Any) -> None:
    """Notes on standard error, a line each."""
    notes = list(notes)
    answer = _ANSWER.get()
    if answer is not None and notes:
        answer.setdefault("notes", []).extend(notes)
    for note in notes:
        problems.print(f"note: {note}", highlight=False, soft_wrap=True)


def bars(quiet: bool = False, counted: bool = False) -> Progress:
    """Progress bars on standard error that vanish when they are done.

    Args:
        quiet: Show none.
        counted: Show how many of how many, and the time that has passed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
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
