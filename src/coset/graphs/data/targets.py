"""Targets as files hold them: which columns they are, numbers or names of classes, and how exactly they are kept."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.options import listed_names
from coset.graphs.data.graph_table import class_name

RESOLUTION = 1e-5
"""Of targets in float32, against their spread: what is coarser stays in float64."""
LARGEST = 1e100
"""Of targets: squares of anything larger leave float64."""


def target_columns(targets: str | Sequence[str], columns: Sequence[str]) -> list[str]:
    """The names of the targets: ``"a,b"`` means two, unless there is a column of that name; so does a list of ``a`` and
    ``b``, which is what options make of it."""
    if not isinstance(targets, str):
        whole = next((column for column in columns if listed_names(column) == list(targets)), None)
        return list(targets) if whole is None or set(targets) <= set(columns) else [whole]
    if targets in columns:
        return [targets]
    return [name.strip() for name in targets.split(",") if name.strip()]


def target_values(
    frame: pd.DataFrame, names: Sequence[str], file: Path, words: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Target cells [rows, targets], NaN where empty; and the names of the classes, if the one column is of words.

    Args:
        frame: Cells as text.
        names: Of the columns.
        file: For messages.
        words: Classes are asked for: cells are their names, be they numbers or not (2D, <5, 20240101).

    Raises:
        CosetError: A cell is no finite number though others of its column are, or one of several columns is of words;
            or classes are one number written in two ways.
    """
    if len(names) == 1:
        cells = frame[names[0]].str.strip()
        cells = cells.where(cells != "")
        known = cells.dropna()
        numbers = pd.to_numeric(known, errors="coerce")
        # What begins with no letter is a number written in another way (0,5 or <5 or 1.5 kcal), or a dash for none: no
        # class unless they are asked for, but an error; + and - without a digit anywhere are two.
        plain = known.str.match(r"[^\W\d_]").all() or (known.nunique() > 1 and not known.str.contains(r"\d").any())
        if words and not numbers.isna().any():
            _numbers(frame, names, file)
            return _numbered_classes(cells, file)
        if numbers.isna().any() and (words or (numbers.isna().all() and plain)):
            classes = sorted(known.unique())
            codes = cells.map({name: float(code) for code, name in enumerate(classes)})
            return codes.to_numpy(dtype=float, copy=True)[:, None], tuple(classes)
    return _numbers(frame, names, file), ()


def _numbered_classes(cells: pd.Series, file: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes [rows, 1] of classes that are numbers, in their order, and their names, to the last digit."""
    named = {cell: class_name(cell) for cell in cells.dropna().unique()}
    classes = sorted(dict.fromkeys(named.values()), key=Decimal)
    for one, other in pairwise(classes):
        if Decimal(one) == Decimal(other):
            row = cells.index[int((cells.map(named) == other).argmax())]
            place = f"{file}, row {row}, column {cells.name!r}"
            raise CosetError(f"{place}: classes {one!r} and {other!r} are the same number; write a class in one way")
    codes = cells.map(named).map({name: float(code) for code, name in enumerate(classes)})
    return codes.to_numpy(dtype=float, copy=True)[:, None], tuple(classes)


def check_known(values: np.ndarray, names: Sequence[str], what: str) -> None:
    """That every target [rows, targets] has a value somewhere: nothing would be learned of it, though its predictions
    look like those of others.

    Raises:
        CosetError: One has none.
    """
    if (unknown := np.isnan(values).all(axis=0)).any():
        raise CosetError(f"{what}: column {names[int(unknown.argmax())]!r} is empty in all rows; leave that target out")


def _numbers(frame: pd.DataFrame, names: Sequence[str], file: Path) -> np.ndarray:
    """Target cells as float64 [rows, targets]; NaN where empty."""
    values = np.empty((len(frame), len(names)))
    for column, name in enumerate(names):
        cells = frame[name]
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=float)
        wrong = (np.isnan(numbers) & cells.notna().to_numpy()) | np.isinf(numbers)
        if wrong.any():
            position = int(wrong.argmax())
            cell = cells.iloc[position]
            hint = "; write 1.5 for 1,5" if re.fullmatch(r"[+-]?\d+,\d+", cell.strip()) else ""
            if not hint and len(names) == 1 and not np.isinf(numbers[position]):
                hint = "; if these are classes: training.task=multiclass"
            raise CosetError(
                f"{file}, row {frame.index[position]}, column {name!r}: {cell!r} is not a finite number{hint}"
            )
        if len(numbers) and (beyond := np.abs(numbers) > LARGEST).any():
            position = int(beyond.argmax())
            raise CosetError(
                f"{file}, row {frame.index[position]}, column {name!r}: {cells.iloc[position]} is beyond {LARGEST:g}; "
                "give the target in another unit"
            )
        values[:, column] = numbers
    return values


def as_targets(values: Float[np.ndarray, "rows targets"]) -> Float[Tensor, "rows targets"]:
    """Targets in float32 where that keeps them apart, else in float64 until they are standardised.

    Total energies of -1000000.123 and -1000000.124 are one number in float32, and 1e39 is infinite. Whole numbers,
    which may be names of classes, are kept to the last digit.
    """
    exact = torch.from_numpy(values)
    rounded = exact.float()
    off = (rounded.double() - exact).abs().nan_to_num(posinf=math.inf)
    spread = ((exact - exact.nanmean(0)) ** 2).nanmean(0).sqrt().nan_to_num()
    whole = ((exact == exact.round()) | exact.isnan()).all(0)
    fine = torch.where(whole, off == 0, off <= RESOLUTION * spread)
    return rounded if bool(fine.all()) or bool((off == 0).all()) else exact


def settle_precision(graphs: Sequence[Data]) -> None:
    """Targets of all graphs become float32 where that keeps what tells them apart: see :func:`as_targets`."""
    known = [data.y for data in graphs if "y" in data and data.y is not None]
    if known:
        same = len({y.size(1) for y in known}) == 1
        precision = as_targets(torch.cat(known).numpy()).dtype if same else torch.float32
        for data in graphs:
            if "y" in data and data.y is not None:
                data.y = data.y.to(precision)
