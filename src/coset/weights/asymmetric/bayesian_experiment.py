"""Recipes of kind ``bayesian-depth``: variational training of standard and W-asymmetric networks over depth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator
from torch import nn

from coset.core.identity import digest
from coset.core.options import Options
from coset.runs.folder import CURVES, RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import Run, write_certificate
from coset.runs.terminal import progress
from coset.symmetry import EquivarianceReport
from coset.weights.asymmetric.bayesian import VariationalTraining, predict, train_variational, variational
from coset.weights.asymmetric.classification_data import CLASSIFICATION_DATA, Classification, ClassificationData
from coset.weights.asymmetric.comparison import spread
from coset.weights.asymmetric.networks import mlp, seeded
from coset.weights.asymmetric.variants import VariantOptions, invariance

SCORES = ("accuracy", "loss", "calibration")


class BayesianVariant(VariantOptions):
    """An architecture, and the posterior over its weights."""

    rank: int | None = Field(None, ge=0, description="columns of V; 0 for a diagonal Gaussian; by default the recipe's")
    log_variance: float | None = Field(None, description="of the diagonal; by default the recipe's")
    own_masks: bool = Field(False, description="other fixed entries in every run")

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("standard", "w"):
            raise ValueError("variational training knows standard and w")
        return value


class BayesianTraining(Options):
    """How every network is trained."""

    steps: int = Field(300, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    multiplier: float = Field(8.0, gt=0, description="the divergence is divided by so many times the training rows")
    samples: int = Field(25, ge=1, description="whose class probabilities are averaged")


class BayesianDepthRecipe(Recipe):
    """Fit a Gaussian over the weights of networks of several depths."""

    kind: Literal["bayesian-depth"] = "bayesian-depth"
    data: Annotated[ClassificationData, CLASSIFICATION_DATA.choice]
    width: int = Field(64, ge=2)
    depths: list[int] = Field([4, 8, 16], min_length=1, description="hidden layers")
    rank: int = Field(2, ge=0)
    log_variance: float = -10.0
    precision: float = Field(0.01, gt=0, description="the prior variance is 1 / (precision * outputs)")
    training: BayesianTraining = Field(default_factory=lambda: BayesianTraining.model_validate({}))
    variants: dict[str, BayesianVariant] = Field(min_length=1)
    runs: int = Field(3, ge=1, description="of each variant and depth")

    @field_validator("depths")
    @classmethod
    def _positive(cls, value: list[int]) -> list[int]:
        if min(value) < 1 or len(set(value)) < len(value):
            raise ValueError("must be different whole numbers from 1")
        return value

    @model_validator(mode="after")
    def _vectors(self) -> BayesianDepthRecipe:
        if self.data.form != "vectors":
            raise ValueError(f"data.name={self.data.name} gives {self.data.form}: networks here read vectors")
        return self

    def build(self, name: str, depth: int, run: int, data: Classification) -> nn.Module:
        """The network of a variant, with the parameters that run number ``run`` starts from."""
        options, seed = self.variants[name], 1000 * self.seed + run
        sizes = [int(data.train[0][0].numel()), *[self.width] * depth, data.classes]
        masks = seed + 1 if options.own_masks else self.seed

        def made() -> nn.Module:
            network = options.apply(mlp(sizes, activation=nn.ReLU), data.train[0][:2], masks)
            return variational(
                network,
                rank=self.rank if options.rank is None else options.rank,
                log_variance=self.log_variance if options.log_variance is None else options.log_variance,
                precision=self.precision,
            )

        return seeded(made, seed)

    def prepare(self, run: Run) -> Classification:
        """The data.

        Raises:
            CosetError: It is missing, or a layer cannot be treated.
        """
        data = self.data.load(self.seed)
        for name in self.variants:
            self.build(name, min(self.depths), 0, data)
        return data

    def identity(self, prepared: Classification) -> str:
        return digest(prepared)

    def work(self, run: Run, prepared: Classification) -> dict[str, Any]:
        """Train all networks, and score them on the test set.

        Raises:
            CosetError: Training diverges.
        """
        plan = [(name, depth, i) for depth in self.depths for name in self.variants for i in range(self.runs)]
        results: dict[str, dict[str, dict[str, list[float]]]] = {
            name: {str(depth): {key: [] for key in (*SCORES, "train_loss")} for depth in self.depths}
            for name in self.variants
        }
        history: dict[str, dict[str, list[list[float]]]] = {name: {} for name in self.variants}
        with progress("variational training", len(plan), run.quiet) as each:
            for name, depth, i in plan:
                one = partial(self._one, name, depth, i, prepared)
                score, losses = run.part(f"{name}, depth {depth}, run {i}", one)
                for key, value in score.items():
                    results[name][str(depth)][key].append(value)
                history[name].setdefault(str(depth), []).append(losses)
                each()
        run.folder.write_json(CURVES, history)
        write_certificate(run.folder, self._certificate(prepared))
        return {
            "variants": results, "depths": self.depths, "data": prepared.name, "notes": list(prepared.notes),
            "rows": {"train": len(prepared.train[1]), "test": len(prepared.test[1])},
        }  # fmt: skip

    def _one(self, name: str, depth: int, run: int, data: Classification) -> tuple[dict[str, float], list[float]]:
        t, model = self.training, self.build(name, depth, run, data)
        how = VariationalTraining(t.steps, t.batch_size, t.learning_rate, t.multiplier)
        losses = train_variational(model, *data.train, how, seed=1000 * self.seed + run)
        found = predict(model, *data.test, samples=t.samples, seed=self.seed)
        score = {key: getattr(found, key) for key in SCORES}
        last = losses[-max(1, len(losses) // 10) :]
        every = max(1, len(losses) // 60)  # few enough points to draw
        means = [float(np.mean(losses[i : i + every])) for i in range(0, len(losses), every)]
        return score | {"train_loss": float(np.mean(last))}, means

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """The standard network at the mean of its posterior does not change when its neurons are permuted."""
        return self._certificate(self.data.load(self.seed))

    def _certificate(self, data: Classification) -> list[EquivarianceReport]:
        sizes = [int(data.train[0][0].numel()), *[self.width] * min(self.depths), data.classes]
        model = seeded(lambda: mlp(sizes, activation=nn.ReLU), self.seed)
        return [invariance(model, data.test[0][:8], "standard, at the mean")]

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        from coset.weights.asymmetric.bayesian_pages import write_depth_page

        samples = self.training.samples
        return write_depth_page(self, folder, metrics, rank=self.rank, samples=samples, runs=self.runs)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a depth and variant."""
        rows = [
            [str(depth), name, *(spread(r[str(depth)][key]) for key in (*SCORES, "train_loss"))]
            for depth in metrics["depths"]
            for name, r in metrics["variants"].items()
        ]
        return ["depth", "variant", "test accuracy", "test loss", "calibration error", "training loss"], rows
