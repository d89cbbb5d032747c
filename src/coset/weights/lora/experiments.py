"""Recipes of kind ``lora``: learn from a collection of adapters, with several models side by side."""

import json
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from rich.progress import track
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.files import write_json
from coset.runs import folder as run_directory
from coset.runs.recipe import Options, Recipe
from coset.symmetry import EquivarianceReport
from coset.weights.lora import fitting
from coset.weights.lora.collections import Collection, DigitsData, ZooData, columns_of
from coset.weights.lora.comparison import GAUGED, Fitted, Problem, baseline, fit_and_measure, keep, kept
from coset.weights.lora.data.factors import select
from coset.weights.lora.data.magnitudes import Magnitudes
from coset.weights.lora.prediction import CERTIFIED, Units, certify, load_model, write_history, write_run

FITTED, MARK = "fitted", "last.ckpt"
"""Folder of fitted models while a run lasts, and the file that says that there is one."""


class LoraModelOptions(Options):
    """Sizes that the models share."""

    width: int = Field(16, ge=1, description="k of the GL-nets")
    hidden: int = Field(128, ge=1, description="width of the head")
    dense_hidden: int = Field(32, ge=1, description="width of the head on dense updates")
    token_width: int = Field(64, ge=8, multiple_of=8, description="width of the transformers")
    norm: bool = Field(False, description="GLNorm in the GL-nets")
    head: Literal["full", "mean", "shared", "transformer"] = Field("full", description="of the GL-nets")
    gate: Literal["sign", "bilinear", "bilinear-across"] = Field("sign", description="of GL-nets with two layers")
    dropout: float = Field(0.0, ge=0, lt=1)


class LoraTrainingOptions(Options):
    """How to train each model."""

    task: fitting.Task
    targets: list[str] = Field(description="columns of labels; a trailing * stands for several", min_length=1)
    epochs: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    fractions: tuple[float, float, float] = (0.75, 0.125, 0.125)

    @property
    def headline(self) -> str:
        """The score that decides."""
        return "accuracy" if self.task == "classification" else "r2"

    def splits(self, number: int, seed: int) -> dict[str, Tensor]:
        """Random rows of train, val and test."""
        order = torch.randperm(number, generator=torch.Generator().manual_seed(seed))
        a, b = (round(number * sum(self.fractions[:k])) for k in (1, 2))
        splits = {"train": order[:a], "val": order[a:b], "test": order[b:]}
        if min(map(len, splits.values())) < 2:
            raise CosetError(f"{number} adapters are too few for training.fractions={self.fractions}")
        return splits


class LoraRecipe(Recipe):
    """Train LoL models on one collection and compare them, also on other factors of the same updates."""

    kind: Literal["lora"] = "lora"
    data: Annotated[DigitsData | ZooData, Field(discriminator="name")]
    models: list[str] = Field(list(fitting.MODELS), min_length=1)
    model: LoraModelOptions = Field(default_factory=lambda: LoraModelOptions.model_validate({}))
    training: LoraTrainingOptions

    @field_validator("models")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in fitting.MODELS:
                raise ValueError(f"model {name!r} is unknown; choose from {', '.join(fitting.MODELS)}")
        return value

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """Fit every model; keep the one with the best validation score for predictions.

        A fitted model is written down at once: a run that is resumed does not fit it again.
        """
        if resume and (folder / "metrics.json").is_file():
            return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        started = time.monotonic()
        data = self.data.load(self.seed)
        columns = columns_of(data.table, self.training.targets)
        splits = self.training.splits(len(data.names), self.seed)
        units = Units.of(self.training.task, data.targets(columns)[splits["train"]])
        reference = data.magnitudes.mean(splits["train"]) if data.magnitudes is not None else None
        problem = self._problem(data, columns, splits, units, reference)
        if not resume:
            shutil.rmtree(folder / FITTED, ignore_errors=True)
            run_directory.begin(folder, self.to_yaml())
        fitted = self._fit(problem, folder, quiet)
        results = {name: f.result for name, f in fitted.items()}
        best = max(results, key=lambda n: results[n]["val"][self.training.headline])
        metrics = {
            "models": results, "best": best, "targets": columns, "task": self.training.task, "seed": self.seed,
            "adapters": {name: len(rows) for name, rows in splits.items()}, "recipe": self.name,
            "rank": problem.rank, "layers": len(data.layout.names), "notes": data.notes,
            "baseline": baseline(problem), "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        write_history(folder, {name: f.history for name, f in fitted.items()})
        write_run(folder, best, fitted[best].model, problem, data.layout, units, columns, data.names, reference)
        write_json(folder / "metrics.json", metrics)
        shutil.rmtree(folder / FITTED, ignore_errors=True)
        return metrics

    def _problem(
        self, data: Collection, columns: list[str], splits: dict[str, Tensor], units: Units,
        reference: Magnitudes | None,
    ) -> Problem:  # fmt: skip
        seen = data if reference is None else data.with_magnitudes(reference)
        others = {}
        for rank in self.data.other_ranks:
            other = self.data.load(self.seed, rank)
            others[rank] = (other.factors, units.standardise(other.targets(columns)))
        targets = units.standardise(data.targets(columns))
        return Problem(self.training.task, seen.layout, seen.factors, targets, splits, others, self.seed)

    def _fit(self, problem: Problem, folder: Path, quiet: bool) -> dict[str, Fitted]:
        sizes = self.model.model_dump()
        training = self.training.model_dump(include={"epochs", "batch_size", "learning_rate", "weight_decay"})
        fitted = {}
        for name in self.models if quiet else track(self.models, description="fitting models"):
            found = kept(folder / FITTED, name, problem, sizes)
            if found is None:
                found = fit_and_measure(name, problem, sizes, training)
                keep(folder / FITTED, name, found)
                (folder / MARK).touch()
            fitted[name] = found
        return fitted

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """The trained model of a run; of a recipe, every model that claims a symmetry, untrained."""
        if folder is not None:
            saved = load_model(folder)
            return certify(saved.model, saved.example)
        data = self.data.load(self.seed)
        factors = select(data.factors, slice(0, 32))
        reports = []
        for name in self.models:
            if name != "kernel":
                model = fitting.build(name, data.layout, factors, 3, seed=self.seed, **self.model.model_dump())
                reports += certify(model, select(factors, slice(0, CERTIFIED)))
        return reports

    def report(self, folder: Path) -> Path:
        from coset.weights.lora.pages import write_run_page

        return write_run_page(self, folder)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a model: the headline score on test, and the same after its factors were changed."""
        key = self.training.headline
        extra = [k for k in next(iter(metrics["models"].values()))["test"] if k != key]
        ranks = list(dict.fromkeys(k for r in metrics["models"].values() for k in r if k.startswith("test at rank")))
        rows = []
        for name, r in metrics["models"].items():
            shown = [r["train"][key], r["test"][key], *(r[f"test after {g}"][key] for g, _ in GAUGED)]
            shown += [r[k][key] if k in r else None for k in ranks] + [r["test"].get(k) for k in extra]
            mark = " *" if name == metrics["best"] else ""
            rows.append([name + mark, *("–" if v is None else f"{v:.3f}" for v in shown), f"{r['params']:,}"])
        others = [f"after {g}" for g, _ in GAUGED] + [k.removeprefix("test at ") for k in ranks]
        return ["model", f"train {key}", "test", *others, *(f"test {k}" for k in extra), "parameters"], rows
