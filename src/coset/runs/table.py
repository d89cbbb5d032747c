"""All runs below a folder as rows: what each was, how far it came, what it measured."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from coset.core.errors import CosetError
from coset.core.outside import read_tree
from coset.core.registry import nearest
from coset.runs.folder import METRICS, RECIPE, RunFolder

Row = dict[str, Any]
"""A run: ``run``, ``recipe``, ``kind``, ``state``, ``when``, ``seconds``, ``params``, ``seed``, then numbers of its
metrics (``test.rmse``) and settings of its recipe (``model.width``) under dotted names."""
FIRST = ("run", "recipe", "state", "seed", "when", "seconds")
MOST = 4
"""Measured numbers that a table shows unless columns are named."""
SKIPPED = ("versions", "machine", "notes", "baseline", "failed")
"""Parts of metrics that are no results."""
CONDITION = re.compile(r"([\w.\- ]+?)\s*(<=|>=|!=|=|<|>)\s*(.*)")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


def runs_below(folder: Path) -> list[Row]:
    """A row a run, in the order of their folders' names; those of sweeps too.

    Raises:
        CosetError: The folder does not exist.
    """
    if not folder.is_dir():
        raise CosetError(f"{folder} is no folder: give the one that holds runs, e.g. runs")
    return [_row(Path(place), folder) for place in sorted(_places(folder))]


def chosen(rows: Sequence[Row], conditions: Iterable[str], sort: str | None = None) -> list[Row]:
    """Rows that meet all conditions, sorted.

    Args:
        rows: Of :func:`runs_below`.
        conditions: ``key=value``, ``key<number`` and the like; a word alone is looked for in run and recipe.
        sort: A column; with ``-`` before it the largest come first. Rows without it come last.

    Raises:
        CosetError: No run has such a column.
    """
    kept = [row for row in rows if all(_meets(row, condition, rows) for condition in conditions)]
    if sort is None:
        return kept
    key, down = sort.removeprefix("-"), sort.startswith("-")
    _check(key, rows)
    has, lacks = [r for r in kept if r.get(key) is not None], [r for r in kept if r.get(key) is None]
    return sorted(has, key=lambda row: _comparable(row[key]), reverse=down) + lacks


def columns_of(rows: Sequence[Row], named: Sequence[str] = ()) -> list[str]:
    """The columns that were asked for; otherwise the first ones, and numbers on test data that most runs have.

    Raises:
        CosetError: No run has such a column.
    """
    for name in named:
        _check(name, rows)
    if named:
        return ["run", *(name for name in named if name != "run")]
    counts: dict[str, int] = {}
    for row in rows:
        for key in row:
            if key.startswith("test.") and key.count(".") == 1:
                counts[key] = counts.get(key, 0) + 1
    return [*FIRST, *sorted(counts, key=lambda key: -counts[key])[:MOST]]


def _places(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if RECIPE in files:
            yield place


def _row(place: Path, below: Path) -> Row:
    folder = RunFolder(place)
    row: Row = {"run": str(place.relative_to(below)) if place != below else place.name}
    try:
        recipe, status = read_tree(folder / RECIPE), folder.status()
        metrics = folder.read_json(METRICS) if folder.finished() else {}
    except CosetError as error:
        return row | {"state": f"damaged: {error}"}
    row |= {
        "recipe": recipe.get("name"), "kind": recipe.get("kind"), "seed": metrics.get("seed", recipe.get("seed")),
        "state": status.get("state") or ("done" if folder.finished() else "unknown"),
        "when": f"{datetime.fromtimestamp((folder / RECIPE).stat().st_mtime):%Y-%m-%d %H:%M}",
        "seconds": metrics.get("seconds"), "params": metrics.get("params"),
    }  # fmt: skip
    results = {key: value for key, value in metrics.items() if key not in SKIPPED}
    numbers = {key: value for key, value in _flat(results) if isinstance(value, int | float)}
    return {**dict(_flat(recipe)), **numbers, **row}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield f"{prefix}{key}", value


def _meets(row: Row, condition: str, rows: Sequence[Row]) -> bool:
    found = CONDITION.fullmatch(condition)
    if found is None:
        return condition.lower() in f"{row['run']} {row.get('recipe')}".lower()
    key, sign, value = found.groups()
    _check(key, rows)
    own = row.get(key)
    if sign in ("=", "!="):
        return COMPARE[sign](str(own).lower(), value.lower())
    try:
        return isinstance(own, int | float) and COMPARE[sign](own, float(value))
    except ValueError:
        raise CosetError(f"{condition!r}: {value!r} is no number") from None


def _check(key: str, rows: Sequence[Row]) -> None:
    known = {name for row in rows for name in row}
    if known and key not in known:
        near = nearest(key, known)
        raise CosetError(f"no run has {key!r}" + (f"; did you mean {near!r}?" if near else ""))


def _comparable(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, int | float) else (1, str(value))
