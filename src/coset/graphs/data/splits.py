"""Splits of a data set into train, val and test: at random, by scaffold, or as a column says.

A scaffold split (Bemis and Murcko 1996; as in MoleculeNet, Wu et al. 2018) keeps molecules of one ring skeleton
together: groups go, largest first, to the training set until it is full, then to validation, and the rest to the test
set. It is deterministic.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.outside import row_named

Splits = dict[str, Int[Tensor, " rows"]]
NAMES = ("train", "val", "test")
_SPELLINGS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
_SPELLINGS |= {"test": "test", "testing": "test"}


def random_split(count: int, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Splits:
    """Rows 0 .. count - 1 in random order, cut at the fractions of train, val and test.

    Raises:
        CosetError: The fractions are no shares of a whole, or there are too few rows to give every share one.
    """
    sizes = split_sizes(count, fractions)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return {name: rows.sort().values for name, rows in zip(NAMES, order.split(sizes))}


def stratified_split(labels: Sequence[float], fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Splits:
    """As :func:`random_split`, with about equal shares of every label in each part.

    Raises:
        CosetError: As :func:`random_split`.
    """
    sizes = split_sizes(len(labels), fractions)
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor(list(labels), dtype=torch.float64)
    shuffled = torch.randperm(len(values), generator=generator)
    order = shuffled[values[shuffled].argsort(stable=True)]  # label by label
    parts: list[list[int]] = [[], [], []]
    for at, row in enumerate(order.tolist(), start=1):  # each row goes to the part that is most behind its share
        behind = [size * at / len(labels) - len(part) for size, part in zip(sizes, parts, strict=True)]
        parts[behind.index(max(behind))].append(row)
    return {name: torch.tensor(sorted(part), dtype=torch.long) for name, part in zip(NAMES, parts, strict=True)}


def scaffold_split(groups: Sequence[Hashable], fractions: Sequence[float] = (0.8, 0.1, 0.1)) -> Splits:
    """Rows of one group (a molecule's scaffold) stay together; largest groups first, train before val before test.

    Groups of equal size are taken in the order of their first rows, last first, as DeepChem does.

    Raises:
        CosetError: As :func:`random_split`, or a share stays empty because too few groups remain for it.
    """
    sizes = split_sizes(len(groups), fractions)
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for rows in sorted(members.values(), key=lambda rows: (len(rows), rows[0]), reverse=True):
        if len(train) + len(rows) <= sizes[0]:
            train += rows
        elif len(train) + len(val) + len(rows) <= sizes[0] + sizes[1]:
            val += rows
        else:
            test += rows
    for name, rows, size in zip(NAMES, (train, val, test), sizes):
        if size and not rows:
            raise CosetError(
                f"scaffold split leaves {name} empty: {len(members)} scaffolds for {len(groups)} molecules, "
                f"the largest with {max(map(len, members.values()))} of them; use split=random"
            )
    return {name: torch.tensor(rows, dtype=torch.long) for name, rows in zip(NAMES, (train, val, test))}


def column_split(values: Sequence[object], rows: Sequence[int | str] | None = None, column: str = "split") -> Splits:
    """Rows as a column of words says: train, val (or valid, validation, dev) and test, in any case.

    Args:
        values: One word a row.
        rows: Row numbers to name in errors, or names; 0 .. without.
        column: Name of the column, for errors.

    Raises:
        CosetError: A word is none of these, or no row is in train.
    """
    members: dict[str, list[int]] = {name: [] for name in NAMES}
    for index, value in enumerate(values):
        name = _SPELLINGS.get(str(value).strip().lower())
        if name is None:
            row = index if rows is None else rows[index]
            blank = value is None or value != value or not str(value).strip()
            what = "the cell is empty" if blank else f"{value!r} is no split"
            raise CosetError(f"{row_named(row)}, column {column!r}: {what}; use train, val or test")
        members[name].append(index)
    if not members["train"]:
        raise CosetError(f"column {column!r} puts no row in train")
    return {name: torch.tensor(chosen, dtype=torch.long) for name, chosen in members.items()}


def fold_split(labels: Sequence[float], folds: int = 10, fold: int = 0, seed: int = 0) -> Splits:
    """Rows of one round of stratified cross-validation: ``test`` is fold k, ``val`` fold k + 1, ``train`` the rest.

    Args:
        labels: A label a row, whose shares all folds have; all equal for folds at random.
        folds: How many.
        fold: The one to test on.
        seed: Of the shuffle before the rows are dealt out; one seed means the same folds in every round.

    Raises:
        ValueError: Fewer than three folds, no such fold, or more folds than rows of a class.
    """
    if folds < 3 or not 0 <= fold < folds:
        raise ValueError(f"fold={fold} of {folds}: at least 3 folds, numbered from 0")
    if len(labels) and (smallest := min(np.unique(labels, return_counts=True)[1])) < folds:
        raise ValueError(f"folds={folds}: the smallest class has {smallest} graphs, so a fold would have none of it")
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(np.asarray(labels)[order], kind="stable")]  # class by class, dealt out one by one
    places = np.empty(len(labels), dtype=np.int64)
    places[order] = np.arange(len(labels)) % folds
    held = {"val": places == (fold + 1) % folds, "test": places == fold}
    parts = {"train": ~(held["val"] | held["test"])} | held
    return {name: torch.from_numpy(np.flatnonzero(rows)) for name, rows in parts.items()}


def ordered_split(
    values: Sequence[object], fractions: Sequence[float] = (0.8, 0.1, 0.1), column: str = "date"
) -> Splits:
    """The earliest rows for training, the latest for the test: numbers or dates by size, ties in the order of the rows.

    Raises:
        CosetError: A value is missing, or neither numbers nor dates (as in 2024-03-31) all through.
    """
    cells = pd.Series([None if value is None or value != value else str(value).strip() for value in values])
    if cells.isna().any():
        raise CosetError(f"column {column!r} is empty in some rows; split=time needs a value in each")
    keys = pd.to_numeric(cells, errors="coerce")
    if keys.isna().any():
        keys = pd.to_datetime(cells, errors="coerce", format="ISO8601")
    if keys.isna().any():
        wrong = cells[keys.isna()].iloc[0]
        raise CosetError(f"column {column!r}: {wrong!r} is neither a number nor a date such as 2024-03-31")
    order = torch.from_numpy(np.argsort(keys.to_numpy(), kind="stable"))
    sizes = split_sizes(len(cells), fractions)
    return {name: rows.sort().values for name, rows in zip(NAMES, order.split(sizes), strict=True)}


def split_sizes(count: int, fractions: Sequence[float]) -> list[int]:
    """How many of ``count`` rows go to train, val and test; every share above 0 gets at least one.

    Raises:
        CosetError: Not three shares of at least 0 that sum to 1, or fewer rows than shares.
    """
    shares = [float(fraction) for fraction in fractions]
    if len(shares) != 3 or not all(share >= 0 for share in shares) or abs(sum(shares) - 1) > 1e-6 or not shares[0]:
        raise CosetError(
            f"fractions={list(fractions)}: give three shares (train, val, test) that sum to 1, e.g. 0.8 0.1 0.1"
        )
    wanted = sum(share > 0 for share in shares)
    if count < wanted:
        rows = "1 row" if count == 1 else f"{count} rows"
        raise CosetError(f"{rows} cannot be split into {wanted} parts: at least {wanted} are needed")
    held = [max(1, round(share * count)) if share else 0 for share in shares[1:]]
    while count - sum(held) < 1:
        held[held.index(max(held))] -= 1
    return [count - sum(held), *held]
