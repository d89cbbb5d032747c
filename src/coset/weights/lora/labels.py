"""Tables of labels of adapters: which row is about which adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coset.core.errors import CosetError
from coset.core.outside import read_numbers, read_table

TABLE = "labels.csv"
"""Of the adapters of a folder, beside them: a row an adapter."""
_SUFFIX = ".safetensors"
_SHOWN = 3
"""Adapters that a message names."""


@dataclass(frozen=True)
class Labels:
    """Labels of some adapters of a collection.

    Attributes:
        table: The rows that are about an adapter.
        places: Of these adapters, in the same order.
        notes: Rows without an adapter, and adapters without a row.
    """

    table: pd.DataFrame
    places: list[int]
    notes: list[str]


def read_labels(file: Path, names: Sequence[str], folder: Path) -> Labels:
    """A table with a column ``id``: the path of an adapter below its folder, or the last part of it.

    Args:
        file: The table.
        names: Of the adapters, as paths below ``folder``.
        folder: Where they lie.

    Raises:
        CosetError: It is no table of ids, an id may be one of several adapters or none at all is an adapter, or two
            rows are about the same.
    """
    table = read_numbers(file, ["id"], texts=["id"])
    by_name = {name: place for place, name in enumerate(names)}
    by_part = _by_part(names)
    found = [_place(i, by_name, by_part, names, file, folder) if isinstance(i, str) else None for i in table["id"]]
    known = [row for row, place in enumerate(found) if place is not None]
    if not known:
        raise CosetError(f"no id of {file} is an adapter of {folder} (first id {table['id'].iloc[0]!r})")
    places = [place for place in found if place is not None]
    _check_single(file, dict(zip(known, places, strict=True)), names)
    rest = [str(table["id"].iloc[row]) for row, place in enumerate(found) if place is None]
    used = set(places)
    bare = [name for place, name in enumerate(names) if place not in used]
    notes = [f"rows of {file.name} without an adapter: {_some(list(map(repr, rest)))}"] if rest else []
    notes += [f"adapters without a row in {file.name}, left out: {_some(bare)}"] if bare else []
    return Labels(table.iloc[known].reset_index(drop=True), places, notes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _by_part(names: Sequence[str]) -> dict[str, set[int]]:
    """Adapters by what else they may be called: the last part of the path, and both without the ending of a file."""
    found: dict[str, set[int]] = {}
    for place, name in enumerate(names):
        for other in {name.removesuffix(_SUFFIX), Path(name).name, Path(name).name.removesuffix(_SUFFIX)}:
            found.setdefault(other, set()).add(place)
    return found


def _place(
    called: str, by_name: Mapping[str, int], by_part: Mapping[str, set[int]], names: Sequence[str], file: Path,
    folder: Path,
) -> int | None:  # fmt: skip
    if called in by_name:
        return by_name[called]
    places = sorted(by_part.get(called, ()))
    if len(places) > 1:
        listed = _some([names[place] for place in places])
        raise CosetError(f"{file}: the id {called!r} may be {listed}: give paths below {folder}")
    return places[0] if places else None


def _check_single(file: Path, places: Mapping[int, int], names: Sequence[str]) -> None:
    """Rows twice would lie in the training and in the test set."""
    rows: dict[int, list[int]] = {}
    for row, place in places.items():
        rows.setdefault(place, []).append(row)
    several = {place: held for place, held in rows.items() if len(held) > 1}
    if several:
        numbers = read_table(file).index  # as a spreadsheet counts
        listed = _some(
            [f"{names[p]} in rows {' and '.join(str(numbers[row]) for row in held)}" for p, held in several.items()]
        )
        raise CosetError(f"{file} has several rows for one adapter ({listed}): keep one each")
