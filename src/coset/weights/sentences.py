"""Sentences with labels, in tables of their own: what text adapters and merged text models are trained on."""

from __future__ import annotations

from pathlib import Path

from coset.core.data_files import data_file
from coset.core.errors import CosetError
from coset.core.outside import read_text

TEXTS = {"sst2": 2, "trec": 6, "subj": 2, "mpqa": 2, "cr": 2, "mr": 2}
"""Tasks and their number of classes."""


def sentence_file(name: str, folder: Path | None = None) -> Path:
    """``<name>.tsv.gz`` or ``<name>_train.tsv.gz`` of a folder, by default of ``text/`` in the places of data files.

    Raises:
        CosetError: Neither is there.
    """
    try:
        return data_file(f"text/{name}.tsv.gz", folder)
    except CosetError:
        try:
            return data_file(f"text/{name}_train.tsv.gz", folder)
        except CosetError as error:
            raise CosetError(f"no texts of {name}: there is no {name}.tsv.gz, and {error}") from error


def read_sentences(file: Path) -> tuple[list[str], list[int]]:
    """Columns text and label of a table whose first line names them."""
    rows = [line.split("\t", 1) for line in read_text(file).split("\n")][1:]
    rows = [row for row in rows if row != [""]]
    for number, row in enumerate(rows, start=2):
        if len(row) != 2 or not row[0].isascii() or not row[0].isdigit():
            raise CosetError(f"{file}, line {number}: a label and a text with a tab between them were expected")
    return [text for _, text in rows], [int(label) for label, _ in rows]
