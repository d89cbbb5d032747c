"""Columns of features in tables of nodes and edges: which are words, which are numbers, how a network reads them.

What was learned of the columns in training (their values, their mean and deviation) goes with a run, so that new graphs
are read in the same way or refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.outside import row_named

Columns = dict[str, dict[str, Any]]
"""By name: ``{"values": [...]}`` of a column of words, ``{"mean": m, "scale": s}`` of a column of numbers."""

LISTS = ("[", "{", "(")
"""What cells begin with that hold several things."""


def learned_columns(table: pd.DataFrame, names: Sequence[str], rows: np.ndarray, what: str) -> Columns:
    """What is known of feature columns.

    Args:
        table: All rows.
        names: Of the columns.
        rows: Which of them are for training: of these the mean and the deviation are taken.
        what: The table, in errors.

    Raises:
        CosetError: A cell is empty or no finite number, or a column holds lists, or both words and numbers.
    """
    columns: Columns = {}
    for name in names:
        cells = table[name]
        numbers = _numbers(cells, what, f", or leave the column out: data.ignore={name}")
        if numbers is None:
            if all(cell.startswith(LISTS) for cell in cells):
                raise CosetError(
                    f"{what}, {row_named(cells.index[0])}, column {name!r}: {cells.iloc[0][:40]!r} is a list; give "
                    f"each of its numbers a column, or leave it out: data.ignore={name}"
                )
            columns[name] = {"values": sorted(set(cells))}
        else:
            chosen = numbers[rows] if rows.any() else numbers
            spread = float(chosen.std()) if len(chosen) else 0.0
            mean = float(chosen.mean()) if len(chosen) else 0.0
            columns[name] = {"mean": mean, "scale": spread if spread > 1e-12 * abs(mean) else 1.0}
    return columns


def blank_columns(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of the columns that have no value in any row."""
    return [name for name in names if _blank(table[name]).all()]


def _blank(cells: pd.Series) -> pd.Series:
    return cells.isna() | (cells.astype(str).str.strip() == "")


def features(columns: Columns) -> list[int] | int | None:
    """As a model is told of them: sizes of categories where all are words, else the number of real columns."""
    if not columns:
        return None
    if all("values" in known for known in columns.values()):
        return [len(known["values"]) for known in columns.values()]
    return sum(len(known["values"]) if "values" in known else 1 for known in columns.values())


def encoded(table: pd.DataFrame, columns: Columns, what: str) -> Tensor | None:
    """Rows as a network reads them: numbers of values (long) where all columns are words; else float, words as a column
    a value that is 0 or 1, numbers standardised.

    Raises:
        CosetError: A column is missing, or a cell is such as training has not seen.
    """
    if not columns:
        return None
    parts: list[np.ndarray] = []
    only_words = all("values" in known for known in columns.values())
    for name, known in columns.items():
        if name not in table:
            raise CosetError(f"{what} has no column {name!r}, which the model was trained with")
        if "values" in known:
            codes = _codes(table[name], known["values"], what)
            parts.append(codes[:, None] if only_words else np.eye(len(known["values"]))[codes])
        else:
            numbers = _numbers(table[name], what)
            if numbers is None:
                raise CosetError(f"{what}, column {name!r}: {table[name].iloc[0]!r} is no number")
            parts.append((numbers[:, None] - known["mean"]) / known["scale"])
    rows = torch.from_numpy(np.concatenate(parts, axis=1))
    return rows.long() if only_words else rows.float()


def _codes(cells: pd.Series, values: Sequence[str], what: str) -> np.ndarray:
    place = {value: code for code, value in enumerate(values)}
    codes = cells.map(place)
    if codes.isna().any():
        row = int(codes.isna().to_numpy().argmax())
        raise CosetError(
            f"{what}, {row_named(cells.index[row])}, column {cells.name!r}: {cells.iloc[row]!r} is none of the values "
            f"of training ({', '.join(map(repr, values[:5]))}{', ...' if len(values) > 5 else ''})"
        )
    return codes.to_numpy(dtype=np.int64)


def _numbers(cells: pd.Series, what: str, way_out: str = "") -> np.ndarray | None:
    """The cells as float64, or ``None`` if they are words; ``way_out`` ends messages."""
    empty = _blank(cells)
    if empty.any():
        place = row_named(cells.index[int(empty.to_numpy().argmax())])
        advice = f"; fill it in{way_out}" if way_out else ""
        raise CosetError(f"{what}, {place}, column {cells.name!r}: the cell is empty{advice}")
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=float)
    wrong = ~np.isfinite(numbers)
    if not wrong.any():
        return numbers
    if wrong.all() and not np.isinf(numbers).any():
        return None
    row = int(wrong.argmax())
    raise CosetError(
        f"{what}, {row_named(cells.index[row])}, column {cells.name!r}: {cells.iloc[row]!r} is no finite number, "
        f"though others of the column are{f'; mend it{way_out}' if way_out else ''}"
    )


def check_words(columns: Mapping[str, Any], most: int, what: str) -> None:
    """Refuse columns of words with more values than can be learned of: names, most likely.

    Raises:
        CosetError: There is one.
    """
    for name, known in columns.items():
        if len(known.get("values", ())) > most:
            raise CosetError(
                f"{what}, column {name!r} has {len(known['values'])} different words, which are names rather than "
                "features; leave it out: data.ignore=[" + name + "]"
            )
