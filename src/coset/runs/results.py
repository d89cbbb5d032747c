"""What a run left behind, as pages read it: every file is optional, a broken one is an error that names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from coset.core.errors import CosetError
from coset.core.outside import parse_tree, read_table, read_text
from coset.runs.folder import CERTIFICATE, HISTORY, METRICS, PREDICTIONS, RECIPE
from coset.runs.predictions import column_name, named_columns

SPLITS = ("train", "val", "test")
EXPECTED = (METRICS, HISTORY, PREDICTIONS, RECIPE)
R = TypeVar("R")


class RunResults:
    """The results of a run; each file is read when it is first asked for.

    Args:
        path: Folder of the run.
        metrics: What it measured, where ``metrics.json`` is not yet written.

    Raises:
        CosetError: The folder is missing or holds no file of a run; of the attributes: a file cannot be read.
    """

    def __init__(self, path: Path, metrics: dict[str, Any] | None = None):
        if not any((path / name).is_file() for name in EXPECTED):
            raise CosetError(f"{path} holds no run: expected {', '.join(EXPECTED[:-1])} or {EXPECTED[-1]}")
        self.path = path
        if metrics is not None:
            self.metrics = metrics

    @cached_property
    def recipe_text(self) -> str:
        """``recipe.yaml`` as it stands; empty if missing."""
        return _text(self.path / RECIPE)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The same, parsed."""
        return _yaml(self.path / RECIPE, self.recipe_text)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json``."""
        return _json(self.path / METRICS, dict)

    @cached_property
    def history(self) -> pd.DataFrame:
        """``history.csv``: numbers, one row an epoch."""
        return _table(self.path / HISTORY, (), lambda column: True)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """``predictions.csv``: targets, predictions or probabilities, and spreads are numbers, all else is text."""
        numbers = ("probability_", "spread") if self.has_classes else ("target", "prediction", "spread")
        table = _table(self.path / PREDICTIONS, ("id", "split"), lambda name: name.startswith(numbers))
        return table.rename(columns=named_columns([str(name) for name in table], self._only_target))

    @property
    def target_names(self) -> list[str]:
        """Targets that ``predictions.csv`` has true values of, in its order."""
        return [str(name).removeprefix("target_") for name in self.predictions if str(name).startswith("target_")]

    def values(self, kind: str, target: str) -> pd.Series:
        """A column of ``predictions.csv``; of the only target by whatever name."""
        own = self.target_names
        return self.predictions[column_name(kind, own[0] if len(own) == 1 else target)]

    @property
    def _only_target(self) -> str:
        names = self.recipe.get("data", {}).get("target") or []
        names = [names] if isinstance(names, str) else names
        return str(names[0]) if len(names) == 1 else "target"

    @property
    def has_classes(self) -> bool:
        """Whether one of several classes was to be predicted."""
        return self.recipe.get("training", {}).get("task") == "multiclass"

    @cached_property
    def certificate(self) -> list[dict[str, Any]]:
        """``certificate.json``, one entry a claim."""
        return _json(self.path / CERTIFICATE, list)

    @property
    def name(self) -> str:
        """The recipe's name, or else the folder's."""
        return str(self.metrics.get("recipe") or self.recipe.get("name") or self.path.resolve().name)

    @property
    def seed(self) -> int | None:
        seed = self.metrics.get("seed", self.recipe.get("seed"))
        return None if seed is None else int(seed)

    @property
    def monitor(self) -> str:
        """The metric that chose the best epoch: the headline of the report; empty if there are no metrics."""
        chosen = self.recipe.get("training", {}).get("monitor", "")
        named = [name for split in ("test", "val", "train") for name in self.scores(split)]
        return chosen if chosen in named else next(iter(named), chosen)

    @property
    def splits(self) -> list[str]:
        """Splits with metrics, train first."""
        return [split for split in SPLITS if self.scores(split)]

    def scores(self, split: str) -> dict[str, float]:
        """Metrics of the model on a split; empty if there are none."""
        return _numbers(self.metrics.get(split))

    def baseline(self, split: str) -> dict[str, float]:
        """Metrics of always predicting the training mean (or the prior); a bare number is the headline metric's."""
        value = self.metrics.get("baseline", {}).get(split)
        return {self.monitor: float(value)} if isinstance(value, int | float) else _numbers(value)


def read_records(path: Path, parse: Callable[[dict[str, Any]], R], what: str) -> list[R]:
    """Records of a JSON list; none if there is no file.

    Args:
        path: The file.
        parse: A record of its dictionary; raises :class:`KeyError`, :class:`TypeError` or :class:`ValueError`.
        what: One of them is, in messages.

    Raises:
        CosetError: The file is broken, or an entry is no record.
    """
    records = []
    for row, value in enumerate(_json(path, list)):
        try:
            records.append(parse(value))
        except (KeyError, TypeError, ValueError) as error:
            raise CosetError(f"{path}: record {row} is no {what}: {error}") from error
    return records


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    return {
        str(k): float(v) for k, v in value.items() if isinstance(v, int | float) and not isinstance(v, bool) and v == v
    }


def _text(path: Path) -> str:
    return read_text(path) if path.is_file() else ""


def _yaml(path: Path, text: str) -> dict[str, Any]:
    value: Any = parse_tree(text, path, Any, "YAML") if text.strip() else {}
    if not isinstance(value, dict):
        raise CosetError(f"{path} must hold keys and values, not a {type(value).__name__}")
    return value


def _json(path: Path, kind: type) -> Any:
    text = _text(path)
    value: Any = parse_tree(text, path) if text.strip() else kind()
    if not isinstance(value, kind):
        raise CosetError(f"{path} must hold a JSON {kind.__name__}, not a {type(value).__name__}")
    return value


def _table(path: Path, required: tuple[str, ...], numeric: Callable[[str], bool]) -> pd.DataFrame:
    if not path.is_file() or path.stat().st_size == 0:
        return pd.DataFrame()
    # Rows may be called "NA", "nan" or "007"; in columns of numbers only numbers count.
    frame = read_table(path, required, missing=frozenset()).reset_index(drop=True)
    for name in filter(numeric, map(str, frame.columns)):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame
