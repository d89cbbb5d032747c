"""Recipes of kind ``lora``: learn from a collection of adapters, with several models side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.identity import digest
from coset.core.options import Options
from coset.runs.folder import RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import Run
from coset.runs.terminal import progress
from coset.symmetry import EquivarianceReport
from coset.weights.lora.collections import ADAPTER_DATA, AdapterData, Collection, columns_of
from coset.weights.lora.comparison import GAUGED, Problem, Units, baseline, fit_and_measure
from coset.weights.lora.data.factors import select
from coset.weights.lora.data.magnitudes import Magnitudes
from coset.weights.lora.models.fitting import Task
from coset.weights.lora.models.registry import LORA_MODELS, ModelSizes, Setting
from coset.weights.lora.prediction import (
    CERTIFIED,
    SavedRun,
    certify,
    load_best,
    predict_adapters,
    write_best,
    write_history,
)


class LoraTrainingOptions(Options):
    """How to train each model."""

    task: Task
    targets: list[str] = Field(description="columns of labels; a trailing * stands for several", min_length=1)
    epochs: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    fractions: tuple[float, float, float] = (0.75, 0.125, 0.125)

    @field_validator("fractions")
    @classmethod
    def _shares(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) <= 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError("give three shares above 0 (train, val, test) that sum to 1, e.g. [0.75, 0.125, 0.125]")
        return value

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


@dataclass(frozen=True)
class Prepared:
    """A collection with what models are fitted to.

    Attributes:
        data: The adapters and all their labels.
        columns: The labels that are targets.
        units: Of these.
        problem: What models see.
        reference: What is taken off magnitudes, where models see them.
    """

    data: Collection
    columns: list[str]
    units: Units
    problem: Problem
    reference: Magnitudes | None


class LoraRecipe(Recipe):
    """Train LoL models on one collection and compare them, also on other factors of the same updates."""

    kind: Literal["lora"] = "lora"
    data: Annotated[AdapterData, ADAPTER_DATA.choice]
    models: list[str] = Field(default_factory=LORA_MODELS.names, min_length=1)
    model: ModelSizes = Field(default_factory=lambda: ModelSizes.model_validate({}))
    training: LoraTrainingOptions

    @field_validator("models")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in LORA_MODELS:
                raise ValueError(f"model {name!r} is unknown; choose from {', '.join(LORA_MODELS)}")
        return value

    def prepare(self, run: Run) -> Prepared:
        """Read or make the collection, split it, and standardise targets.

        Raises:
            CosetError: The collection cannot be used, a label is missing, or there are too few adapters.
        """
        data = self.data.load(self.seed)
        columns = columns_of(data.table, self.training.targets)
        splits = self.training.splits(len(data.names), self.seed)
        training = data.targets(columns)[splits["train"]]
        if self.training.task == "regression":
            _check_varying(training, columns)
        units = Units.of(self.training.task, training)
        reference = data.magnitudes.mean(splits["train"]) if data.magnitudes is not None else None
        problem = self._problem(data, columns, splits, units, reference)
        return Prepared(data, columns, units, problem, reference)

    def identity(self, prepared: Prepared) -> str:
        problem = prepared.problem
        return digest(problem.layout, problem.factors, problem.targets, problem.others, prepared.data.names)

    def work(self, run: Run, prepared: Prepared) -> dict[str, Any]:
        """Fit every model; keep the one with the best validation score for predictions."""
        data, problem = prepared.data, prepared.problem
        training = self.training.model_dump(include={"epochs", "batch_size", "learning_rate", "weight_decay"})
        fitted = {}
        with progress("fitting models", len(self.models), run.quiet) as each:
            for name in self.models:
                fitted[name] = run.part(name, partial(fit_and_measure, name, problem, self.model, training))
                each()
        results = {name: found["result"] for name, found in fitted.items()}
        best = max(results, key=lambda n: results[n]["val"][self.training.headline])
        model = LORA_MODELS[best].restored(problem.setting(self.model), fitted[best]["state"])
        write_history(run.folder, {name: found["history"] for name, found in fitted.items()})
        write_best(run.folder, best, model, problem, data, prepared.units, prepared.columns, prepared.reference)
        return {
            "models": results, "best": best, "targets": prepared.columns, "task": self.training.task,
            "adapters": {name: len(rows) for name, rows in problem.splits.items()}, "rank": problem.rank,
            "layers": len(data.layout.names), "notes": data.notes, "baseline": baseline(problem),
        }  # fmt: skip

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

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """The trained model of a run; of a recipe, every model that claims a symmetry, untrained."""
        if folder is not None:
            saved = self.best_model(self.folder(folder))
            return certify(saved.model, saved.example)
        data = self.data.load(self.seed)
        factors = select(data.factors, slice(0, 32))
        reports = []
        for name in self.models:
            if (kind := LORA_MODELS[name]).built_untrained:
                model = kind.build(Setting(data.layout, factors, 3, self.model, self.seed))
                reports += certify(model, select(factors, slice(0, CERTIFIED)))
        return reports

    def best_model(self, folder: RunFolder) -> SavedRun:
        """The model of a finished run that was best on validation.

        Raises:
            CosetError: The run is not finished.
        """
        return load_best(folder, task=self.training.task, sizes=self.model, seed=self.seed)

    def predict(
        self, folder: RunFolder, data: Path, output: Path, *, quiet: bool = False, skip_bad_rows: bool = False,
        lossy: bool = False, **options: Any,
    ) -> tuple[int, Sequence[str]]:  # fmt: skip
        """Predictions for every adapter of a folder, as CSV.

        Raises:
            CosetError: The run cannot be used, or an adapter does not fit it or is more than its factors.
        """
        for option in options:
            raise CosetError(f"--{option}: the model of {folder} reads LoRA adapters, which know nothing of it")
        return predict_adapters(self.best_model(folder), data, output, skip_bad_rows, lossy)

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        from coset.weights.lora.pages import write_run_page

        return write_run_page(self, folder, metrics)

    def remarks(self, metrics: dict[str, Any]) -> Sequence[str]:
        """What a reader should know of the collection."""
        return [f"note: {note}" for note in metrics["notes"]]

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


def _check_varying(training: Tensor, columns: Sequence[str]) -> None:
    for name, values in zip(columns, training.T, strict=True):
        if bool((values == values[0]).all()):
            raise CosetError(f"label {name} is {values[0]:g} of all {len(values)} training adapters: nothing to learn")
