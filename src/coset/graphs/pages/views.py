"""Views: what the page of a run on graphs shows of what a trained model does inside single graphs.

A view keeps records of a trained model in a file of the run's folder, and draws them in a section of the page. A domain
adds one by registering it in :data:`PAGE_VIEWS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from coset.core.files import write_text
from coset.core.registry import Registry
from coset.reports import Section
from coset.runs.results import read_records

if TYPE_CHECKING:  # a page is written without PyTorch
    from torch import nn

    from coset.graphs.data.graph_table import GraphTable
    from coset.runs.folder import RunFolder


@runtime_checkable
class Record(Protocol):
    """One graph, as plain values; ``from_dict`` is its inverse."""

    @property
    def id(self) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class View:
    """One view.

    Attributes:
        file: Of a run's folder: a JSON list of records.
        what: One of them is, in messages.
        parse: A record of its dictionary; raises :class:`KeyError`, :class:`TypeError` or :class:`ValueError`.
        records: Of a trained model and its data; empty if the model has nothing of the kind to show.
        section: Of the dictionaries of records, each with a ``note`` of what was true and what predicted.
    """

    file: str
    what: str
    parse: Callable[[dict[str, Any]], Record]
    records: Callable[[nn.Module, GraphTable], Sequence[Record]]
    section: Callable[[list[dict[str, Any]]], Section]

    def leave(self, folder: Path | RunFolder, model: nn.Module, table: GraphTable) -> None:
        """Write what a trained model has to show, if it has anything, into the folder of its run."""
        if records := self.records(model, table):
            self.write(folder, records)

    def write(self, folder: Path | RunFolder, records: Iterable[Record]) -> Path:
        """Write records where the page finds them."""
        path = folder / self.file
        write_text(path, json.dumps([record.to_dict() for record in records], separators=(",", ":")) + "\n")
        return path


PAGE_VIEWS: Registry[View] = Registry("page view")
SHOWN = 12
"""Graphs of a view."""


def last_split(table: GraphTable) -> list[int]:
    """Graphs of the last split that has any (or that have nodes or edges in it): the test set, if there is one."""
    split = next(name for name in ("test", "val", "train") if len(table.splits.get(name, ())))
    rows = table.splits[split]
    if table.level != "graph":
        rows = table.graph_of_rows[rows].unique()
    return [int(row) for row in rows]


def view_sections(folder: Path, note: Callable[[str], str]) -> list[Section]:
    """Sections of the views that a run left records for.

    Args:
        folder: Of the run.
        note: What is said about the graph of an id.

    Raises:
        CosetError: A file of records is broken.
    """
    shown = [(view, read_records(folder / view.file, view.parse, view.what)) for _, view in PAGE_VIEWS.items()]
    return [
        view.section([{**record.to_dict(), "note": note(record.id)} for record in records])
        for view, records in shown
        if records
    ]
