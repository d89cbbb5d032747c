"""Recipes of kind ``bayesian-depth``: variational training of standard and W-asymmetric networks over depth."""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator
from rich.progress import track
from torch import nn

from coset.core.errors import CosetError
from coset.core.files import write_json
from coset.reports import Figure, Panel, Section, Table, colour, figure, line, points, write_sections
from coset.runs import folder as run_directory
from coset.runs.recipe import Options, Recipe
from coset.symmetry import EquivarianceReport
from coset.weights.asymmetric.bayesian import VariationalTraining, predict, train_variational, variational
from coset.weights.asymmetric.classification_data import Classification
from coset.weights.asymmetric.experiments import DigitsData, ImageData, VariantOptions, invariance, spread
from coset.weights.asymmetric.networks import mlp, seeded
from coset.weights.asymmetric.pages import ways_figure

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
    data: Annotated[DigitsData | ImageData, Field(discriminator="name")]
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

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """Train all networks, score them on the test set, and write the folder.

        Raises:
            CosetError: The data is missing, a layer cannot be treated, or training diverges.
        """
        if resume:
            raise CosetError("a run of kind bayesian-depth is not resumed: start it again")
        started, cpu = time.monotonic(), time.process_time()
        data = self.data.load(self.seed)
        if data.train[0].dim() != 2:
            raise CosetError(f"data.name={self.data.name}: networks here take vectors; choose digits or mnist")
        for name in self.variants:  # mistakes show before any training
            self.build(name, min(self.depths), 0, data)
        run_directory.begin(folder, self.to_yaml())
        plan = [(name, depth, i) for depth in self.depths for name in self.variants for i in range(self.runs)]
        results: dict[str, dict[str, dict[str, list[float]]]] = {
            name: {str(depth): {key: [] for key in (*SCORES, "train_loss")} for depth in self.depths}
            for name in self.variants
        }
        history: dict[str, dict[str, list[list[float]]]] = {name: {} for name in self.variants}
        for name, depth, i in plan if quiet else track(plan, description="variational training"):
            score, losses = self._one(name, depth, i, data)
            for key, value in score.items():
                results[name][str(depth)][key].append(value)
            history[name].setdefault(str(depth), []).append(losses)
        metrics = {
            "variants": results, "depths": self.depths, "recipe": self.name, "seed": self.seed, "data": data.name,
            "rows": {"train": len(data.train[1]), "test": len(data.test[1])}, "notes": list(data.notes),
            "seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
        }  # fmt: skip
        write_json(folder / "curves.json", history)
        write_json(folder / "certificate.json", [r.to_dict() for r in self.verify()])
        write_json(folder / "metrics.json", metrics)
        return metrics

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
        data = self.data.load(self.seed)
        sizes = [int(data.train[0][0].numel()), *[self.width] * min(self.depths), data.classes]
        model = seeded(lambda: mlp(sizes, activation=nn.ReLU), self.seed)
        return [invariance(model, data.test[0][:8], "standard, at the mean")]

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a depth and variant."""
        rows = [
            [str(depth), name, *(spread(r[str(depth)][key]) for key in (*SCORES, "train_loss"))]
            for depth in metrics["depths"]
            for name, r in metrics["variants"].items()
        ]
        return ["depth", "variant", "test accuracy", "test loss", "calibration error", "training loss"], rows

    def report(self, folder: Path) -> Path:
        metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        history: dict[str, Any] = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
        text = (
            f"A Gaussian over the weights of each layer, its diagonal fixed and {self.rank} more directions learned; "
            f"class probabilities are averaged over {self.training.samples} samples. Mean and standard deviation over "
            f"{self.runs} runs. Training loss: cross-entropy in the last tenth of the steps."
        )
        panels = [Panel("Test accuracy over depth", over_depth(metrics, "accuracy"), "A dot a run.")]
        panels += [Panel(f"Training, depth {d}", losses(history, str(d))) for d in metrics["depths"]]
        facts = {
            "data": f"{metrics['data']}, {metrics['rows']['train']:,} + {metrics['rows']['test']:,}",
            "seed": str(metrics["seed"]), "CPU seconds": str(metrics["cpu_seconds"]),
        }  # fmt: skip
        columns, rows = self.summary(metrics)
        return write_sections(
            folder / "report.html", self.name, [Section("Depth", text, [Table(columns, rows)], panels)],
            lead=self.description, facts=facts, recipe=self.to_yaml(),
        )  # fmt: skip


def over_depth(metrics: dict[str, Any], score: str) -> Figure:
    """A line a variant through its means, a dot a run."""
    marks, depths = [], metrics["depths"]
    for number, (name, r) in enumerate(metrics["variants"].items()):
        tint, means = colour(number), [float(np.mean(r[str(d)][score])) for d in depths]
        marks.append(line(depths, means, name, colour=tint))
        x, y = zip(*((d, value) for d in depths for value in r[str(d)][score]))
        marks.append(points(list(x), list(y), colour=tint, size=6, listed=False, hover="%{y:.4~g}"))
    return figure(*marks, x="hidden layers", y=f"test {score}")


def losses(history: dict[str, Any], depth: str) -> Figure:
    """Cross-entropy while training, a line a run."""
    return ways_figure({name: runs.get(depth, []) for name, runs in history.items()}, "share of the steps", width=1.2)
