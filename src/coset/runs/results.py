"""Read a run's folder: every file is optional, a broken one is an error that names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from coset.core.errors import CosetError
from coset.graphs.pages.attention import AttentionRecord
from coset.topology.pages import CellRecord

SPLITS = ("train", "val", "test")
TEXT = ("id", "smiles", "split")
FILES = ("metrics.json", "history.csv", "predictions.csv", "recipe.yaml")


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind.

    Attributes:
        path: The folder.
        recipe_text: ``recipe.yaml`` as it stands; empty if missing.
        recipe: The same, parsed.
        metrics: ``metrics.json``.
        history: ``history.csv``, one row an epoch.
        predictions: ``predictions.csv``.
        certificate: ``certificate.json``, one entry a claim.
        attention: ``attention.json``, one record a molecule.
        cells: ``cells.json``, one record a complex.
    """

    path: Path
    recipe_text: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    certificate: list[dict[str, Any]] = field(default_factory=list)
    attention: list[AttentionRecord] = field(default_factory=list)
    cells: list[CellRecord] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """Read what is there.

        Raises:
            CosetError: The folder is missing or holds no file of a run, or a file cannot be read.
        """
        if not any((path / name).is_file() for name in FILES):
            raise CosetError(f"{path} holds no run: expected {', '.join(FILES[:-1])} or {FILES[-1]}")
        text = _text(path / "recipe.yaml")
        return cls(
            path=path,
            recipe_text=text,
            recipe=_yaml(path / "recipe.yaml", text),
            metrics=_json(path / "metrics.json", dict),
            history=_table(path / "history.csv", ()),
            predictions=_table(path / "predictions.csv", ("id", "split")),
            certificate=_json(path / "certificate.json", list),
            attention=_records(path / "attention.json", AttentionRecord, "attention record"),
            cells=_records(path / "cells.json", CellRecord, "complex"),
        )

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
        found = [name for split in ("test", "val", "train") for name in self.scores(split)]
        return chosen if chosen in found else next(iter(found), chosen)

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


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    return {
        str(k): float(v) for k, v in value.items() if isinstance(v, int | float) and not isinstance(v, bool) and v == v
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise CosetError(f"{path} cannot be read: {error}") from error


def _yaml(path: Path, text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise CosetError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise CosetError(f"{path} must hold keys and values, not a {type(value).__name__}")
    return value


def _json(path: Path, kind: type) -> Any:
    text = _text(path)
    try:
        value = json.loads(text) if text.strip() else kind()
    except json.JSONDecodeError as error:
        raise CosetError(f"{path} is not valid JSON: line {error.lineno}, {error.msg}") from error
    if not isinstance(value, kind):
        raise CosetError(f"{path} must hold a JSON {kind.__name__}, not a {type(value).__name__}")
    return value


def _table(path: Path, required: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file() or path.stat().st_size == 0:
        return pd.DataFrame()
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise CosetError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    missing = [name for name in required if name not in frame]
    if missing:
        raise CosetError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(map(str, frame.columns))}")
    # Molecules may be called "NA", "nan" or "007"; in other columns only numbers count.
    for name in frame.columns.difference(list(TEXT)):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame


def _records(path: Path, kind: Any, what: str) -> list[Any]:
    records = []
    for row, value in enumerate(_json(path, list)):
        try:
            records.append(kind.from_dict(value))
        except (KeyError, TypeError, ValueError) as error:
            raise CosetError(f"{path}: record {row} is no {what}: {error}") from error
    return records
