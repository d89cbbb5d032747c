"""Files of one's own with a table of labels: their options, and how rows are split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from coset.core.errors import CosetError
from coset.core.options import listed_names
from coset.core.outside import check_column
from coset.graphs.data.sources import THERE, GraphData, absolute, check_shares, fold_of
from coset.graphs.data.splits import Splits, column_split, fold_split, ordered_split, random_split, stratified_split
from coset.graphs.data.targets import check_known, target_values


class Split(NamedTuple):
    """How rows are split.

    Attributes:
        kind: ``random``, ``stratified``, ``column``, ``time`` or ``kfold``.
        column: Of train, val and test, for ``column``; of dates or numbers, for ``time``.
        fractions: Shares of train, val and test.
        seed: Of the order.
        folds: How many, for ``kfold``.
        fold: The one to test on.
    """

    kind: str
    column: str
    fractions: Sequence[float]
    seed: int
    folds: int = 5
    fold: int = 0


class SplitFiles(GraphData):
    """Sources that are files of one's own, with a table of labels and splits of its rows."""

    not_smiles: ClassVar[str] = "which are no molecules in SMILES"

    path: str
    target: list[str]
    labels: str | None = Field(
        None,
        description="table with a row a graph or file; by default labels.csv beside them",
        json_schema_extra=THERE,
    )
    split: Literal["random", "stratified", "column", "time", "kfold"] = "random"
    split_column: str = Field("split", description="of train, val and test (split=column), or of dates (split=time)")
    folds: int = Field(5, ge=3, description="for split=kfold")
    fold: int | None = Field(None, ge=0, description="the one to test on; the run's seed by default")
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, val and test")
    split_seed: int | None = Field(None, ge=0, description="seed of the split; the run's seed by default")

    _shares = field_validator("fractions")(check_shares)
    _from_anywhere = field_validator("path")(absolute)
    _names = field_validator("target", mode="before")(listed_names)

    @field_validator("labels")
    @classmethod
    def _labels_from_anywhere(cls, value: str | None) -> str | None:
        return None if value is None else absolute(value)

    @property
    def title(self) -> str:
        return Path(self.path).name

    def split_for(self, seed: int) -> Split:
        """How rows are split in the run of a seed; folds are the same in every round."""
        fold = fold_of(self.fold, self.folds, seed)
        usual = 0 if self.split == "kfold" else seed
        order = usual if self.split_seed is None else self.split_seed
        return Split(self.split, self.split_column, self.fractions, order, self.folds, fold)


def column_values(
    rows: pd.DataFrame, targets: Sequence[str], name: str, words: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Target cells [rows, targets], NaN where empty, and the names of the classes: see
    :func:`coset.graphs.data.targets.target_values`.

    Raises:
        CosetError: A cell is wrong, or all of a column are empty.
    """
    values, classes = target_values(rows, targets, Path(name), words)
    check_known(values, targets, name)
    return values, classes


def split_rows(
    count: int, rows: pd.DataFrame | None, split: Split, labels: np.ndarray | None, what: str
) -> Splits:  # fmt: skip
    """Rows 0 .. count - 1 by split.

    Args:
        count: How many.
        rows: Their table, for ``split=column``.
        split: How.
        labels: Of the rows, for ``split=stratified``.
        what: The table, in messages.

    Raises:
        CosetError: They cannot be split so.
    """
    if split.kind in ("column", "time"):
        if rows is None:
            raise CosetError(f"{what}: split={split.kind} needs a table with such a column; its graphs may carry masks")
        check_column([str(c) for c in rows.columns], split.column, Path(what))
    if split.kind == "stratified" and labels is None:
        raise CosetError(f"{what}: split=stratified shares out rows with labels of their own; choose split=random")
    try:
        if split.kind == "column":
            assert rows is not None
            return column_split(rows[split.column].tolist(), rows.index.tolist(), split.column)
        if split.kind == "time":
            assert rows is not None
            return ordered_split(rows[split.column].tolist(), split.fractions, split.column)
        if split.kind == "kfold":
            return fold_split([0.0] * count, split.folds, split.fold, split.seed)
        if split.kind == "stratified":
            assert labels is not None
            return stratified_split(labels.tolist(), split.fractions, split.seed)
        return random_split(count, split.fractions, split.seed)
    except (CosetError, ValueError) as error:
        raise CosetError(f"{what}: {error}") from None
