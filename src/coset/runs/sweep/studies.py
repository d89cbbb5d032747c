"""Recipes of kind ``sweep``: one recipe of kind ``graphs`` run again and again, with one setting varied.

Each run keeps its own folder below ``runs/``; what is finished there is not run again when a sweep is repeated into the
same folder.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import track

from coset.core.errors import CosetError
from coset.core.files import write_json, write_text
from coset.graphs.data.datasets import GraphTable
from coset.graphs.experiments import GraphRecipe
from coset.reports import Axis, Figure, Panel, Rule, Section, Table, figure, line, points, write_sections
from coset.runs import folder as run_directory
from coset.runs.folder import LAST
from coset.runs.recipe import Options, Recipe
from coset.runs.recipes import load
from coset.symmetry import EquivarianceReport


class Cell(NamedTuple):
    """One run of a sweep."""

    series: str
    value: str
    recipe: GraphRecipe


class Series(Options):
    """One curve."""

    changes: list[str] = Field([], description="changes to the base, e.g. model.coarsening=random")
    values: list[int | float | str] | None = Field(None, description="values of the setting; by default all")


class SweepRecipe(Recipe):
    """Error and time of a model against one of its settings, beside other models."""

    kind: Literal["sweep"] = "sweep"
    base: str = Field(description="recipe of kind graphs that is varied")
    overrides: list[str] = Field([], description="changes to every run, e.g. training.epochs=20")
    setting: str = Field(description="what is varied, e.g. model.bag")
    values: list[int | float | str] = Field(min_length=1, description="its values")
    series: dict[str, Series] = Field({"": Series.model_validate({})}, description="curves, by name", min_length=1)
    references: dict[str, str] = Field({}, description="other recipes to set beside: a name, and a recipe")
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    fewer_seeds: dict[int | str, list[int]] = Field(
        {}, description="seeds of single values or references that cost much"
    )
    metric: str = Field("rmse", description="test metric that is shown")

    @model_validator(mode="after")
    def _runs_are_possible(self) -> "SweepRecipe":
        """Every run is checked before the first one starts."""
        known = {str(value) for curve in self.series.values() for value in curve.values or self.values}
        for name, seeds in self.fewer_seeds.items():
            if str(name) not in known | set(self.references) or not set(seeds) <= set(self.seeds):
                raise ValueError(f"fewer_seeds.{name}={seeds}: name a value or a reference, and some of {self.seeds}")
        try:
            cells = list(self.cells())
        except CosetError as error:
            raise ValueError(str(error)) from error
        places = [place(cell) for cell in cells]
        if len(set(places)) < len(places):
            raise ValueError("two runs of this sweep would share a folder: repeated values, seeds or similar names")
        return self

    def cells(self) -> Iterator[Cell]:
        """All runs, setting by setting within a seed: what is cut off has been everywhere."""
        fewer = {str(name): seeds for name, seeds in self.fewer_seeds.items()}
        for seed in self.seeds:
            for name, curve in self.series.items():
                for value in self.values if curve.values is None else curve.values:
                    if seed in fewer.get(str(value), self.seeds):
                        changes = [*curve.changes, f"{self.setting}={value}"]
                        yield Cell(name, str(value), self._part(self.base, *changes, seed=seed))
            for name, recipe in self.references.items():
                if seed in fewer.get(name, self.seeds):
                    yield Cell(name, "", self._part(recipe, seed=seed))

    def _part(self, name: str, *changes: str, seed: int) -> GraphRecipe:
        recipe = load(name, [*self.overrides, *changes, f"seed={seed}"])
        if not isinstance(recipe, GraphRecipe):
            raise CosetError(f"{name} is of kind {recipe.kind}; a sweep varies recipes of kind graphs")
        return recipe

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        if resume:
            raise CosetError("a sweep goes on when it is run again into the same folder: coset run ... --output")
        started = time.monotonic()
        run_directory.begin(folder, self.to_yaml())
        rows = []
        cells = list(self.cells())
        console = Console(stderr=True)
        read = Tables()
        for cell in track(cells, "runs of the sweep", console=console, disable=quiet):
            part = folder / "runs" / place(cell)
            rows.append(self._row(cell, run_part(cell, part, read), training_seconds(part)))
            write_text(folder / "sweep.csv", pd.DataFrame(rows).to_csv(index=False))
        metrics = {
            "cells": summarise(pd.DataFrame(rows)), "metric": self.metric, "recipe": self.name, "seeds": self.seeds,
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        write_json(folder / "metrics.json", metrics)
        return metrics

    def _row(self, cell: Cell, found: dict[str, Any], cpu_seconds: float) -> dict[str, Any]:
        split = "test" if "test" in found else "val"
        if self.metric not in found[split]:
            raise CosetError(f"metric={self.metric}: the runs have {', '.join(found[split])}")
        return {
            "series": cell.series, "value": cell.value, "seed": cell.recipe.seed, "split": split,
            "error": found[split][self.metric],
            "cpu_seconds_per_epoch": cpu_seconds / found["epochs"],
            "seconds": found["seconds"], "epochs": found["epochs"], "params": found["params"],
        }  # fmt: skip

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        short = self.setting.rpartition(".")[2]
        rows = [
            [
                " ".join(filter(None, [cell["series"], f"{short}={cell['value']}" if cell["value"] else ""])),
                f"{cell['mean']:.4f} ± {cell['std']:.4f}",
                str(cell["runs"]),
                f"{cell['cpu_seconds_per_epoch']:.2f}",
                f"{cell['params']:,}",
            ]
            for cell in metrics["cells"]
        ]
        return ["", f"{metrics['cells'][0]['split']} {self.metric}", "runs", "CPU s per epoch", "parameters"], rows

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        return next(self.cells()).recipe.verify(None, progress)

    def report(self, folder: Path) -> Path:
        metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        columns, rows = self.summary(metrics)
        text = (
            f"{self.metric} on the {metrics['cells'][0]['split']} split, mean and standard deviation over as many runs "
            "as the table says; CPU seconds are those of training and validation, without reading and encoding."
        )
        short = self.setting.rpartition(".")[2]
        panels = [
            Panel(f"{self.metric} against {short}", against_values(metrics["cells"], short, self.metric)),
            Panel(f"{self.metric} against time", against_time(metrics["cells"], self.metric)),
        ]
        facts = {"base": self.base, "seeds": ", ".join(map(str, self.seeds)), "seconds": str(metrics["seconds"])}
        return write_sections(
            folder / "report.html", self.name, [Section("Runs", text, [Table(columns, rows)], panels)],
            lead=self.description, facts=facts, recipe=self.to_yaml(),
        )  # fmt: skip


def place(cell: Cell) -> str:
    """Name of the folder of a run."""
    parts = [cell.series or "base", cell.value, f"seed{cell.recipe.seed}"]
    return "-".join(re.sub(r"[^A-Za-z0-9.+_]+", "_", part) for part in parts if part)


class Tables:
    """The data of the last run, which the next one mostly shares; graphs are never changed."""

    def __init__(self) -> None:
        self._last: tuple[str, GraphTable] | None = None

    def of(self, recipe: GraphRecipe) -> GraphTable:
        key = f"{recipe.seed} {recipe.data.model_dump_json()}"
        if self._last is None or self._last[0] != key:
            self._last = None  # two tables need not fit into memory
            self._last = key, recipe.load()
        return self._last[1]


def run_part(cell: Cell, folder: Path, tables: Tables) -> dict[str, Any]:
    """The metrics of one run: read if it is there and finished, gone on with if it was cut off, run otherwise."""
    file, written = folder / "metrics.json", folder / "recipe.yaml"
    known = written.is_file() and written.read_text(encoding="utf-8") == cell.recipe.to_yaml()
    if known and file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    begun = known and (folder / LAST).is_file()
    metrics = cell.recipe.run(folder, quiet=True, table=tables.of(cell.recipe), resume=begun)
    cell.recipe.report(folder)
    return metrics


def training_seconds(folder: Path) -> float:
    """CPU seconds of training and validation; not a number for a run of a version that did not count them."""
    history = pd.read_csv(folder / "history.csv")
    return float(history["cpu_seconds"].iloc[-1]) if "cpu_seconds" in history else math.nan


def summarise(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean and deviation over seeds, in the order of the runs."""
    cells = []
    for (series, value), group in rows.groupby(["series", "value"], sort=False):
        cells.append(
            {
                "series": series, "value": value, "split": group["split"].iloc[0], "runs": len(group),
                "mean": float(group["error"].mean()),
                "std": float(group["error"].std(ddof=1)) if len(group) > 1 else 0.0,
                "cpu_seconds_per_epoch": float(group["cpu_seconds_per_epoch"].mean()),
                "params": int(group["params"].iloc[0]),
            }
        )  # fmt: skip
    return cells


def against_values(cells: list[dict[str, Any]], setting: str, metric: str) -> Figure:
    """A curve a series; references, which have no value of the setting, as lines across."""
    marks = []
    for name in dict.fromkeys(cell["series"] for cell in cells if cell["value"]):
        curve = [cell for cell in cells if cell["series"] == name and cell["value"]]
        marks.append(
            line(
                [cell["value"] for cell in curve], [cell["mean"] for cell in curve], name or setting, dots=True,
                deviation=[cell["std"] for cell in curve],
            )
        )  # fmt: skip
    references = [Rule(y=cell["mean"], text=cell["series"]) for cell in cells if not cell["value"]]
    return figure(*marks, x=Axis(setting, categories=True), y=metric, rules=references, legend=True)


def against_time(cells: list[dict[str, Any]], metric: str) -> Figure:
    """A point a setting."""
    marks = []
    for name in dict.fromkeys(cell["series"] for cell in cells):
        curve = [cell for cell in cells if cell["series"] == name]
        marks.append(
            points(
                [cell["cpu_seconds_per_epoch"] for cell in curve], [cell["mean"] for cell in curve], name or "base",
                texts=[cell["value"] or name for cell in curve], written=True,
                deviation=[cell["std"] for cell in curve],
            )
        )  # fmt: skip
    times = [cell["cpu_seconds_per_epoch"] for cell in cells]
    x = Axis("CPU seconds per epoch", log=max(times) > 5 * max(min(times), math.ulp(1)))
    return figure(*marks, x=x, y=metric, legend=True)
