"""What an audit is told of the data: inputs and labels of training, and others that the model never saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.outside import check_column, read_arrays, read_table

NAMES = ("x_train", "y_train", "x_test", "y_test")
SPLIT = "split"
"""Column of a table that says ``train`` or ``test`` of its rows."""


class Inputs(NamedTuple):
    """Inputs are rows, flattened; labels -1 and 1, or class numbers.

    Attributes:
        train: Inputs [n, d] and labels [n] that the model was trained on.
        held_out: The same of others.
        shape: Of one input before it was flattened.
        columns: Of a table, in the order in which the network takes them.
    """

    train: tuple[Float[Tensor, "n d"], Shaped[Tensor, " n"]]
    held_out: tuple[Float[Tensor, "k d"], Shaped[Tensor, " k"]]
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()


@takes_paths
def load_inputs(path: Path, held_out: Path | None = None, target: str | None = None) -> Inputs:
    """Training and held-out inputs of an NPZ (``x_train``, ``y_train``, ``x_test``, ``y_test``), or of tables.

    Labels -1 and 1, or 0 and 1, become -1 and 1; class numbers up to more than 1 stay integers.

    Args:
        path: NPZ; or a table (CSV, TSV, Parquet) of training records, whose columns are numbers as the network takes
            them.
        held_out: A table of records that the model never saw; without it a column ``split`` says ``train`` or ``test``.
        target: The column of a table that holds the labels.

    Raises:
        CosetError: An array or a column is missing or misshapen, cells are no numbers, or labels are none.
    """
    if path.suffix in (".npz", ".npy"):
        if held_out is not None or target is not None:
            raise CosetError(f"{path} has its labels and held-out inputs inside; leave --held-out and --target out")
        return _checked(read_arrays(path, NAMES), path)
    frames = _tables(path, held_out, target)
    columns = tuple(name for name in frames["train"].columns if name != target)
    if not columns:
        raise CosetError(f"{path} has no column beside {target!r}")
    arrays: dict[str, np.ndarray] = {}
    for kind, frame in frames.items():
        file = path if kind == "train" or held_out is None else held_out
        arrays[f"x_{kind}"] = np.stack([_numbers(frame[name], file) for name in columns], axis=1)
        arrays[f"y_{kind}"] = _numbers(frame[str(target)], file)
    return _checked(arrays, path)._replace(columns=columns)


def _tables(path: Path, held_out: Path | None, target: str | None) -> dict[str, pd.DataFrame]:
    if target is None:
        raise CosetError(f"{path} is a table: --target COLUMN says which of its columns holds the labels")
    frame = read_table(path)
    check_column(list(frame.columns), target, path)
    if held_out is None:
        if SPLIT not in frame:
            raise CosetError(
                f"{path} does not say what the model never saw: give --held-out TABLE, or a column {SPLIT!r} of train "
                "and test"
            )
        said = frame[SPLIT].astype(str).str.strip()
        other = frame.index[~said.isin(["train", "test"])]
        if len(other):
            raise CosetError(f"{path}, row {other[0]}: {SPLIT} is {said[other[0]]!r}; train or test was expected")
        frame = frame.drop(columns=SPLIT)
        return {kind: frame[said == kind] for kind in ("train", "test")}
    others = read_table(held_out)
    lacking = [name for name in frame.columns if name not in others]
    more = [name for name in others.columns if name not in frame]
    if lacking or more:
        file, name, known = (held_out, lacking[0], path) if lacking else (path, more[0], held_out)
        raise CosetError(f"{file} has no column {name!r}, which {known} has")
    return {"train": frame, "test": others[list(frame.columns)]}


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    """The cells as float64, truth values as 0 and 1; a cell that is no number is told by its row in a spreadsheet."""
    found = pd.to_numeric(column.replace({"True": 1, "False": 0}), errors="coerce").astype(np.float64)
    wrong = column.index[~np.isfinite(found)]
    if not len(wrong):
        return found.to_numpy()
    place, said = f"{path}, row {wrong[0]}, column {column.name!r}", column[wrong[0]]
    if pd.isna(said) or np.isinf(found[wrong[0]]):
        raise CosetError(f"{place} is empty or not finite")
    raise CosetError(f"{place}: {said!r} is no number; give columns as the network takes them")


def _checked(arrays: Mapping[str, np.ndarray], path: Path) -> Inputs:
    for name in NAMES:
        if arrays[name].dtype.kind not in "biuf" or not arrays[name].ndim:
            raise CosetError(f"{path}: {name} has type {arrays[name].dtype}; an array of numbers was expected")
        if not np.isfinite(arrays[name]).all():
            raise CosetError(f"{path}: {name} holds numbers that are not finite")
    parts = {name: arrays[name].astype(np.float64) for name in NAMES}
    shape = parts["x_train"].shape[1:]
    several = any((parts[f"y_{kind}"] > 1).any() for kind in ("train", "test"))
    pairs = []
    for kind in ("train", "test"):
        x, y = parts[f"x_{kind}"], parts[f"y_{kind}"].reshape(-1)
        if x.shape[1:] != shape or len(x) != len(y):
            raise CosetError(f"{path}: x_{kind} {x.shape} does not go with y_{kind} {y.shape} and inputs of {shape}")
        if not (y == y.round()).all() or y.min(initial=0) < -1 or (y.min(initial=0) < 0 and not set(y) <= {-1.0, 1.0}):
            raise CosetError(f"{path}: y_{kind} must hold -1 and 1, 0 and 1, or class numbers from 0")
        if not x.size:
            said = "training" if kind == "train" else "held-out"
            raise CosetError(f"{path}: no {said} records (x_{kind} {x.shape}); both kinds are needed")
        labels = y.astype(np.int64) if several else np.where(y > 0, 1.0, -1.0)
        pairs.append((torch.from_numpy(x.reshape(len(x), -1)), torch.from_numpy(labels)))
    return Inputs(pairs[0], pairs[1], shape)
