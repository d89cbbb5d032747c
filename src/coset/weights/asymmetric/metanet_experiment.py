"""Recipes of kind ``metanet``: predict from the weights of classifiers how accurate they are."""

import json
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from rich.progress import track
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import write_json
from coset.reports import Figure, Panel, Section, Table, colour, figure, line, points, write_sections
from coset.runs import folder as run_directory
from coset.runs.recipe import Options, Recipe
from coset.symmetry import EquivarianceReport, check_equivariance
from coset.weights.asymmetric.asymmetrize import trainable_parameters
from coset.weights.asymmetric.classification_data import Classification
from coset.weights.asymmetric.classifier_zoo import (
    Ranges,
    Zoo,
    flat_features,
    make_zoo,
    on_the_way_of_zoo,
    statistics_features,
)
from coset.weights.asymmetric.experiments import DigitsData, MLPOptions, VariantOptions, spread
from coset.weights.asymmetric.metanets import DeepSets, fit_metanet, flat_mlp, statistics_mlp
from coset.weights.asymmetric.networks import seeded
from coset.weights.asymmetric.pages import ways_figure
from coset.weights.permutations.groups import NeuronPermutation, permutation_spec

Predictor = Literal["flat", "statistics", "deepsets", "settings"]
FEW = 3  # ways from initialisation that are drawn


class ZooOptions(Options):
    """How the networks of a zoo differ."""

    networks: int = Field(1000, ge=40)
    batch_size: int = Field(64, ge=1)
    rate: tuple[float, float] = Field((1.7, 3.7), description="exponents e of learning rates 10^-e")
    wrong: tuple[float, float] = Field((0.0, 0.6), description="share of training labels replaced by random ones")
    steps: tuple[int, int] = Field((40, 250), description="of training")

    @model_validator(mode="after")
    def _ordered(self) -> "ZooOptions":
        for name in ("rate", "wrong", "steps"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}=[{low}, {high}]: the first must not be larger")
        if not (self.wrong[0] >= 0 and self.wrong[1] <= 1 and self.steps[0] >= 1):
            raise ValueError("wrong must lie between 0 and 1, steps above 0")
        return self


class ZooVariant(VariantOptions):
    """An architecture, and how long its networks are trained."""

    steps: tuple[int, int] | None = Field(None, description="other numbers of steps than the recipe's")


class MetanetTraining(Options):
    """How metanetworks are trained."""

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(128, ge=1)
    rates: list[float] = Field([1e-4, 1e-3, 1e-2], min_length=1, description="the best on validation is taken")
    runs: int = Field(3, ge=1, description="splits and initialisations")


class MetanetRecipe(Recipe):
    """A zoo of each variant, trained at once; metanetworks on each; the way from initialisation to minimum."""

    kind: Literal["metanet"] = "metanet"
    data: DigitsData
    network: MLPOptions
    zoo: ZooOptions = Field(default_factory=lambda: ZooOptions.model_validate({}))
    training: MetanetTraining = Field(default_factory=lambda: MetanetTraining.model_validate({}))
    variants: dict[str, ZooVariant] = Field(min_length=1)
    predictors: list[Predictor] = Field(["flat", "statistics", "settings"], min_length=1)
    ways: int = Field(300, ge=0, description="networks of which the way from initialisation is measured")

    @field_validator("variants")
    @classmethod
    def _one_method(cls, value: dict[str, ZooVariant]) -> dict[str, ZooVariant]:
        if any(options.method not in ("standard", "w", "sigma") for options in value.values()):
            raise ValueError("method must be standard, w or sigma")
        return value

    def variant(self, name: str, data: Classification) -> nn.Module:
        """The architecture of a variant."""
        return self.variants[name].apply(
            seeded(lambda: self.network.build(data), self.seed), data.train[0][:2], self.seed
        )

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """Train zoos and metanetworks, and write the folder.

        Raises:
            CosetError: A layer cannot be treated, or training diverges.
        """
        if resume:
            raise CosetError("a run of kind metanet is not resumed: start it again")
        started, cpu = time.monotonic(), time.process_time()
        data = self.data.load(self.seed)
        models = {name: self.variant(name, data) for name in self.variants}
        run_directory.begin(folder, self.to_yaml())
        results: dict[str, Any] = {}
        curves: dict[str, Any] = {}
        for name, model in models.items():
            began = time.process_time()
            zoo = self._zoo(name, model, data, quiet)
            seconds = time.process_time() - began
            predictions, scores = self._metanets(name, zoo, quiet)
            curves[name] = {"predictions": predictions, "accuracy": zoo.accuracy.tolist()}
            results[name] = {
                "accuracy": {"mean": float(zoo.accuracy.mean()), "std": float(zoo.accuracy.std())},
                "trainable": trainable_parameters(model), "zoo_cpu_seconds": round(seconds, 1), "predictors": scores,
            }  # fmt: skip
            if self.ways:
                results[name]["monotonicity"], curves[name]["way"] = self._ways(zoo, data)
        metrics = {
            "variants": results, "recipe": self.name, "seed": self.seed, "networks": self.zoo.networks,
            "data": data.name, "notes": list(data.notes),
            "seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
        }  # fmt: skip
        write_json(folder / "curves.json", curves)
        write_json(folder / "certificate.json", [r.to_dict() for r in self.verify()])
        write_json(folder / "metrics.json", metrics)
        return metrics

    def _zoo(self, name: str, model: nn.Module, data: Classification, quiet: bool) -> Zoo:
        def bar(epochs: Iterable[int]) -> Iterable[int]:
            return epochs if quiet else track(list(epochs), description=f"{name}: {self.zoo.networks} networks")

        ranges = Ranges(self.zoo.rate, self.zoo.wrong, self.variants[name].steps or self.zoo.steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make_zoo(
                model, lambda: self.network.build(data), data, self.zoo.networks, ranges,
                batch_size=self.zoo.batch_size, seed=self.seed, progress=bar,
            )  # fmt: skip

    def _metanets(self, name: str, zoo: Zoo, quiet: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        t = self.training
        predictions: dict[str, Any] = {}
        scores: dict[str, Any] = {}
        for predictor in self.predictors if quiet else track(self.predictors, description=f"{name}: metanetworks"):
            x, build = features_of(predictor, zoo)
            found = []
            for i in range(t.runs):
                score, model, test = fit_metanet(
                    build, x, zoo.accuracy, rates=t.rates, epochs=t.epochs, batch_size=t.batch_size, seed=self.seed + i
                )
                found.append(score)
                if i == 0:
                    with torch.no_grad():
                        answer = model(x[test].float()).squeeze(1)
                    predictions[predictor] = {"truth": zoo.accuracy[test].tolist(), "answer": answer.tolist()}
            scores[predictor] = {key: [getattr(s, key) for s in found] for key in ("r2", "tau", "rate")}
        return predictions, scores

    def _ways(self, zoo: Zoo, data: Classification) -> tuple[dict[str, Any], list[list[float]]]:
        ways, found = on_the_way_of_zoo(zoo, data.train[0], self.ways)
        rises = [m.largest_rise for m in found]
        return {
            "networks": len(found), "largest_rise": float(np.mean(rises)), "largest_rise_std": float(np.std(rises)),
            "monotone": float(np.mean([m.monotone for m in found])),
            "local_convexity": float(np.mean([m.local_convexity for m in found])),
            "global_convexity": float(np.mean([m.global_convexity for m in found])),
        }, ways[:FEW]  # fmt: skip

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """Statistics of a standard network do not change when its neurons are permuted."""
        data = self.data.load(self.seed)
        model = seeded(lambda: self.network.build(data), self.seed).double()
        return [
            check_equivariance(
                lambda state: statistics_features(model, {name: value[None] for name, value in state.items()}),
                dict(model.state_dict()),
                NeuronPermutation(permutation_spec(model)),
                statement="statistics of weights do not change when neurons are permuted",
            )
        ]

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a variant and predictor."""
        rows = [
            [name, predictor, spread(s["tau"]), spread(s["r2"]), f"{r['accuracy']['mean']:.3f}"]
            for name, r in metrics["variants"].items()
            for predictor, s in r["predictors"].items()
        ]
        return ["zoo", "sees", "test tau", "test R2", "mean accuracy"], rows

    def report(self, folder: Path) -> Path:
        metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        curves: dict[str, Any] = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
        text = (
            "tau is Kendall's rank correlation of predicted and true test accuracy on classifiers that were not "
            "trained on; accuracies are spread differently in different zoos, so that R2 should not be compared "
            "between them. flat: all weights that are not fixed; statistics: seven of each parameter; settings: "
            "learning rate, share of wrong labels, steps: not the weights, but what made them."
        )
        columns, rows = self.summary(metrics)
        panels = [
            Panel(predictor, _scatter(curves, predictor), "A dot a test network, first run.")
            for predictor in self.predictors
        ]
        zoos = [
            [
                name,
                metrics["networks"],
                r["accuracy"]["mean"],
                r["accuracy"]["std"],
                r["trainable"],
                r["zoo_cpu_seconds"],
            ]
            for name, r in metrics["variants"].items()
        ]
        more = Table(["zoo", "networks", "mean accuracy", "deviation", "trainable", "training, CPU s"], zoos)
        sections = [Section("Accuracy from weights", text, [Table(columns, rows), more], panels)]
        if self.ways:
            sections.append(_way_section(metrics, curves))
        return write_sections(
            folder / "report.html", self.name, sections, lead=self.description,
            facts={"data": metrics["data"], "seed": str(metrics["seed"]), "CPU seconds": str(metrics["cpu_seconds"])},
            recipe=self.to_yaml(),
        )  # fmt: skip


def features_of(predictor: Predictor, zoo: Zoo) -> tuple[Tensor, Callable[[int], nn.Module]]:
    """What a metanetwork sees, and what it is."""
    model, state = zoo.ensemble.model, zoo.ensemble.state
    if predictor == "statistics":
        return statistics_features(model, state), statistics_mlp
    if predictor == "settings":
        return torch.stack([zoo.rate.log(), zoo.wrong, zoo.steps.to(zoo.rate)], 1), statistics_mlp
    return flat_features(model, state), flat_mlp if predictor == "flat" else DeepSets


def _way_section(metrics: dict[str, Any], curves: dict[str, Any]) -> Section:
    keys = ("networks", "largest_rise", "largest_rise_std", "monotone", "local_convexity", "global_convexity")
    rows = [[name, *(r["monotonicity"][key] for key in keys)] for name, r in metrics["variants"].items()]
    ways = {name: curve["way"] for name, curve in curves.items()}
    drawn = ways_figure(ways, "from initialisation to the end of training")
    text = (
        "Training loss, on each network's own labels, on the segment between initial and final parameters. Local "
        "convexity: share of second differences that are not negative. Global: share of points on or below the chord."
    )
    columns = ["zoo", "networks", "largest rise", "deviation", "share monotone", "local convexity", "global convexity"]
    return Section(
        "From initialisation to minimum", text, [Table(columns, rows)], [Panel("Training loss on the way", drawn)]
    )


def _scatter(curves: dict[str, Any], predictor: str) -> Figure:
    marks = []
    for number, (name, curve) in enumerate(curves.items()):
        drawn = curve["predictions"][predictor]
        marks.append(points(drawn["truth"], drawn["answer"], name, colour=colour(number), size=5, opacity=0.6))
    right = line([0, 1], [0, 1], dash="dot", width=1, listed=False)
    return figure(*marks, right, x="test accuracy", y="predicted")
