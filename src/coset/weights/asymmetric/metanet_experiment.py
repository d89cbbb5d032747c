"""Recipes of kind ``metanet``: predict from the weights of classifiers how accurate they are."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from coset.core.identity import digest
from coset.core.options import Options
from coset.runs.folder import CURVES, RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import Run, write_certificate
from coset.runs.terminal import track
from coset.symmetry import EquivarianceReport, check_equivariance
from coset.weights.asymmetric.asymmetrize import trainable_parameters
from coset.weights.asymmetric.classification_data import CLASSIFICATION_DATA, Classification, ClassificationData
from coset.weights.asymmetric.classifier_zoo import (
    Ranges,
    Zoo,
    flat_features,
    make_zoo,
    on_the_way_of_zoo,
    statistics_features,
)
from coset.weights.asymmetric.comparison import spread
from coset.weights.asymmetric.metanets import DeepSets, fit_metanet, flat_mlp, statistics_mlp
from coset.weights.asymmetric.networks import CLASSIFIERS, ClassifierOptions, check_fit, seeded
from coset.weights.asymmetric.variants import VariantOptions
from coset.weights.permutations.groups import NeuronPermutation, permutation_spec

Predictor = Literal["flat", "statistics", "deepsets", "settings"]
FEW = 3  # ways from initialisation that are kept to be drawn


class ZooOptions(Options):
    """How the networks of a zoo differ."""

    networks: int = Field(1000, ge=40)
    batch_size: int = Field(64, ge=1)
    rate: tuple[float, float] = Field((1.7, 3.7), description="exponents e of learning rates 10^-e")
    wrong: tuple[float, float] = Field((0.0, 0.6), description="share of training labels replaced by random ones")
    steps: tuple[int, int] = Field((40, 250), description="of training")

    @model_validator(mode="after")
    def _ordered(self) -> ZooOptions:
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
    data: Annotated[ClassificationData, CLASSIFICATION_DATA.choice]
    network: Annotated[ClassifierOptions, CLASSIFIERS.choice]
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

    @model_validator(mode="after")
    def _vectors(self) -> MetanetRecipe:
        check_fit(self.network, self.data)
        if self.data.form != "vectors":
            raise ValueError(f"data.name={self.data.name} gives {self.data.form}: zoos here are of networks on vectors")
        return self

    def variant(self, name: str, data: Classification) -> nn.Module:
        """The architecture of a variant."""
        return self.variants[name].apply(
            seeded(lambda: self.network.build(data), self.seed), data.train[0][:2], self.seed
        )

    def prepare(self, run: Run) -> tuple[Classification, dict[str, nn.Module]]:
        """The data, and the architecture of every variant.

        Raises:
            CosetError: A layer cannot be treated.
        """
        data = self.data.load(self.seed)
        return data, {name: self.variant(name, data) for name in self.variants}

    def identity(self, prepared: tuple[Classification, dict[str, nn.Module]]) -> str:
        return digest(prepared[0])

    def work(self, run: Run, prepared: tuple[Classification, dict[str, nn.Module]]) -> dict[str, Any]:
        """Train zoos, and metanetworks on each.

        Raises:
            CosetError: Training diverges.
        """
        data, models = prepared
        results: dict[str, Any] = {}
        curves: dict[str, Any] = {}
        for name, model in models.items():
            made = run.part(f"{name} zoo", partial(self._zoo, name, model, data, run.quiet))
            zoo = Zoo.restored(model, made["zoo"])
            fitted = {
                predictor: run.part(f"{name} {predictor}", partial(self._metanet, predictor, zoo))
                for predictor in self.predictors
            }
            curves[name] = {
                "predictions": {predictor: found["predictions"] for predictor, found in fitted.items()},
                "accuracy": zoo.accuracy.tolist(),
            }
            results[name] = {
                "accuracy": {"mean": float(zoo.accuracy.mean()), "std": float(zoo.accuracy.std())},
                "trainable": trainable_parameters(model), "zoo_cpu_seconds": made["seconds"],
                "predictors": {predictor: found["scores"] for predictor, found in fitted.items()},
            }  # fmt: skip
            if self.ways:
                ways = run.part(f"{name} ways", partial(self._ways, zoo, data))
                results[name]["monotonicity"], curves[name]["way"] = ways
        run.folder.write_json(CURVES, curves)
        write_certificate(run.folder, self._certificate(data))
        return {
            "variants": results, "networks": self.zoo.networks, "data": data.name, "notes": list(data.notes),
        }  # fmt: skip

    def _zoo(self, name: str, model: nn.Module, data: Classification, quiet: bool) -> dict[str, Any]:
        def bar(epochs: Iterable[int]) -> Iterable[int]:
            return epochs if quiet else track(list(epochs), f"{name}: {self.zoo.networks} networks")

        began = time.process_time()
        ranges = Ranges(self.zoo.rate, self.zoo.wrong, self.variants[name].steps or self.zoo.steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zoo = make_zoo(
                model, lambda: self.network.build(data), data, self.zoo.networks, ranges,
                batch_size=self.zoo.batch_size, seed=self.seed, progress=bar,
            )  # fmt: skip
        return {"zoo": zoo.content(), "seconds": round(time.process_time() - began, 1)}

    def _metanet(self, predictor: Predictor, zoo: Zoo) -> dict[str, Any]:
        """Scores of a metanetwork over several splits, and what it says of the test networks of the first."""
        t = self.training
        x, build = features_of(predictor, zoo)
        found, answer, truth = [], torch.zeros(0), torch.zeros(0)
        for i in range(t.runs):
            score, model, test = fit_metanet(
                build, x, zoo.accuracy, rates=t.rates, epochs=t.epochs, batch_size=t.batch_size, seed=self.seed + i
            )
            found.append(score)
            if i == 0:
                with torch.no_grad():
                    answer, truth = model(x[test].float()).squeeze(1), zoo.accuracy[test]
        return {
            "scores": {key: [getattr(s, key) for s in found] for key in ("r2", "tau", "rate")},
            "predictions": {"truth": truth.tolist(), "answer": answer.tolist()},
        }

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
        return self._certificate(self.data.load(self.seed))

    def _certificate(self, data: Classification) -> list[EquivarianceReport]:
        model = seeded(lambda: self.network.build(data), self.seed).double()
        return [
            check_equivariance(
                lambda state: statistics_features(model, {name: value[None] for name, value in state.items()}),
                dict(model.state_dict()),
                NeuronPermutation(permutation_spec(model)),
                statement="statistics of weights do not change when neurons are permuted",
            )
        ]

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        from coset.weights.asymmetric.metanet_pages import write_metanet_page

        return write_metanet_page(self, folder, metrics)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a variant and predictor."""
        rows = [
            [name, predictor, spread(s["tau"]), spread(s["r2"]), f"{r['accuracy']['mean']:.3f}"]
            for name, r in metrics["variants"].items()
            for predictor, s in r["predictors"].items()
        ]
        return ["zoo", "sees", "test tau", "test R2", "mean accuracy"], rows


def features_of(predictor: Predictor, zoo: Zoo) -> tuple[Tensor, Callable[[int], nn.Module]]:
    """What a metanetwork sees, and what it is."""
    model, state = zoo.ensemble.model, zoo.ensemble.state
    if predictor == "statistics":
        return statistics_features(model, state), statistics_mlp
    if predictor == "settings":
        return torch.stack([zoo.rate.log(), zoo.wrong, zoo.steps.to(zoo.rate)], 1), statistics_mlp
    return flat_features(model, state), flat_mlp if predictor == "flat" else DeepSets
