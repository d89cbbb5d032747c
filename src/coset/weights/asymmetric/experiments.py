"""Recipes of kind ``mode-connectivity``: train variants of a network, and measure what lies between minima."""

import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import make_folder
from coset.core.identity import digest
from coset.core.options import Options
from coset.runs.folder import CURVES, RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import Run, write_certificate
from coset.runs.terminal import track
from coset.symmetry import EquivarianceReport
from coset.weights.asymmetric.asymmetrize import asymmetries, fingerprint, trainable_parameters
from coset.weights.asymmetric.classification_data import (
    CLASSIFICATION_DATA,
    IGNORED,
    Classification,
    ClassificationData,
    shift_and_flip,
)
from coset.weights.asymmetric.comparison import (
    Matching,
    Pairs,
    averages,
    between,
    matched,
    on_the_way,
    pairs_of,
    spread,
)
from coset.weights.asymmetric.connectivity import has_batch_norm, plane
from coset.weights.asymmetric.ensembles import Ensemble, Training, initialise, train
from coset.weights.asymmetric.networks import CLASSIFIERS, ClassifierOptions, check_fit, parameter_count, seeded
from coset.weights.asymmetric.variants import VariantOptions, invariance
from coset.weights.state_files import load_state, save_state

NETWORKS = "networks"
MEASURED_ROWS = 5000  # of training data, on which curves are measured


class ConnectivityTraining(Options):
    """How every network is trained."""

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(64, ge=0, description="0 for all rows at once")
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    augment: bool = Field(False, description="shift and flip images")


class ConnectivityRecipe(Recipe):
    """Train several networks of each variant, and compare what lies between them."""

    leaves: ClassVar[tuple[str, ...]] = (NETWORKS,)

    kind: Literal["mode-connectivity"] = "mode-connectivity"
    data: Annotated[ClassificationData, CLASSIFICATION_DATA.choice]
    network: Annotated[ClassifierOptions, CLASSIFIERS.choice]
    training: ConnectivityTraining = Field(default_factory=lambda: ConnectivityTraining.model_validate({}))
    variants: dict[str, VariantOptions] = Field(min_length=1)
    networks: int = Field(6, ge=2, description="of each variant")
    all_pairs: bool = Field(False, description="measure every pair of networks, not disjoint ones")
    points: int = Field(25, ge=3, description="of each curve; odd")
    matching: list[Matching] = Field(["weights", "activations"], description="how to match standard networks")
    plane: int = Field(17, ge=0, description="points along a side of the plane through three networks; 0 for none")

    @field_validator("points")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the midpoint is one of them")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "ConnectivityRecipe":
        check_fit(self.network, self.data)
        if self.training.augment and self.data.form != "images":
            raise ValueError(f"training.augment=true needs images: data.name={self.data.name} gives {self.data.form}")
        return self

    def build(self, data: Classification) -> Callable[[], nn.Module]:
        """Makes a standard network."""
        return lambda: self.network.build(data)

    def variant(self, name: str, data: Classification) -> nn.Module:
        """The architecture of a variant. Masks and gates follow from the seed."""
        if name not in self.variants:
            raise CosetError(f"no variant {name!r}; the recipe has {', '.join(self.variants)}")
        return self.variants[name].apply(seeded(self.build(data), self.seed), data.train[0][: self._example], self.seed)

    @property
    def _example(self) -> int | None:
        return None if self.data.form == "graph" else 2

    def prepare(self, run: Run) -> tuple[Classification, dict[str, nn.Module]]:
        """The data, and the architecture of every variant.

        Raises:
            CosetError: The data is missing, or a layer cannot be treated.
        """
        data = self.data.load(self.seed)
        return data, {name: self.variant(name, data) for name in self.variants}

    def identity(self, prepared: tuple[Classification, dict[str, nn.Module]]) -> str:
        return digest(prepared[0])

    def work(self, run: Run, prepared: tuple[Classification, dict[str, nn.Module]]) -> dict[str, Any]:
        """Train all variants, measure, and write down networks and curves.

        Raises:
            CosetError: Training diverges.
        """
        data, models = prepared
        make_folder(run.folder / NETWORKS)
        results: dict[str, Any] = {}
        curves: dict[str, Any] = {}
        for name, model in models.items():
            trained = run.part(f"{name} trained", partial(self._train, name, model, data, run.quiet))
            ensemble = Ensemble(model.eval(), trained["state"], trained["initial"], trained["history"])
            for i in range(len(ensemble)):
                save_state(ensemble.network(i), network_file(run.folder.path, name, i))
            found, drawn = run.part(f"{name} measured", partial(self._measure, name, ensemble, data))
            for key in found:
                found[key] |= {"train_cpu_seconds": trained["seconds"], "fingerprint": fingerprint(model)}
            results |= found
            curves |= drawn
        run.folder.write_json(CURVES, curves)
        write_certificate(run.folder, self._certificate(data, run.folder.path))
        return {
            "variants": results, "networks": self.networks, "params": parameter_count(next(iter(models.values()))),
            "data": data.name, "notes": list(data.notes),
            "rows": {"train": _counted(data.train), "test": _counted(data.test)},
        }  # fmt: skip

    def _train(self, name: str, model: nn.Module, data: Classification, quiet: bool) -> dict[str, Any]:
        """Networks of one variant; in seed i all variants see the same rows in the same order."""
        options, t = self.variants[name], self.training
        number = options.networks or self.networks
        seeds = [1000 * self.seed + i for i in range(number)]
        how = Training(
            t.epochs, t.batch_size, options.learning_rate or t.learning_rate, t.weight_decay, t.warmup,
            t.label_smoothing,
        )  # fmt: skip
        inputs, targets = data.train
        started = time.process_time()
        state = initialise(self.build(data), model, seeds)
        ensemble = train(
            model, state, inputs, targets, how, seeds=seeds, augment=shift_and_flip if t.augment else None,
            progress=None if quiet else _progress(f"{name}: training {number} networks"),
        )  # fmt: skip
        seconds = round(time.process_time() - started, 1)
        return {
            "state": ensemble.state,
            "initial": ensemble.initial,
            "history": ensemble.history,
            "seconds": seconds,
        }

    def _measure(
        self, name: str, ensemble: Ensemble, data: Classification
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Numbers and curves of a variant, and of its matched pairs if it is a standard one."""
        pairs = pairs_of(len(ensemble), self.all_pairs)
        statistics = data.train[0] if has_batch_norm(ensemble.model) else None
        rows = slice(None) if data.edge_index is not None else slice(MEASURED_ROWS)
        part = (data.train[0][rows], data.train[1][rows])

        def measured(some: Ensemble, which: list[tuple[int, int]]) -> Pairs:
            return between(some, which, data.test, part, points=self.points, statistics=statistics)

        plain = measured(ensemble, pairs)
        way, monotone = on_the_way(ensemble, part, points=self.points, statistics=statistics)
        results = {
            name: plain.summary()
            | {
                "trainable": trainable_parameters(ensemble.model),
                "layers": len(asymmetries(ensemble.model)),
                "averages": averages(ensemble, data.test, statistics=statistics),
                "monotonicity": {
                    "largest_rise": [m.largest_rise for m in monotone],
                    "monotone": float(np.mean([m.monotone for m in monotone])),
                    "local_convexity": float(np.mean([m.local_convexity for m in monotone])),
                    "global_convexity": float(np.mean([m.global_convexity for m in monotone])),
                },
            }
        }
        curves: dict[str, Any] = {name: _curves(plain) | {"way": way}}
        if self.plane and len(ensemble) >= 3:
            drawn = plane(ensemble, data.test, resolution=self.plane, statistics=statistics)
            curves[name]["plane"] = {key: getattr(drawn, key).tolist() for key in ("x", "y", "loss", "corners")}
        if self.variants[name].method == "standard":
            for how in self.matching:
                aligned = matched(ensemble, pairs, how, part[0], self.seed)
                found = measured(aligned, pairs_of(len(aligned)))
                results[f"{name}, {how} matched"] = found.summary() | {"trainable": results[name]["trainable"]}
                curves[f"{name}, {how} matched"] = _curves(found)
        return results, curves

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """The function of every standard variant does not change when its neurons are permuted."""
        return self._certificate(self.data.load(self.seed), folder)

    def _certificate(self, data: Classification, folder: Path | None) -> list[EquivarianceReport]:
        reports = []
        for name, options in self.variants.items():
            if options.method != "standard":
                continue
            model = self.variant(name, data)
            if folder is not None and (file := network_file(folder, name, 0)).is_file():
                model.load_state_dict(load_state(file))
            reports.append(invariance(model, data.test[0][: 8 if self._example else None], name))
        return reports

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        from coset.weights.asymmetric.pages import write_connectivity_page

        return write_connectivity_page(self, folder, metrics)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a variant: barrier, midpoint and endpoint accuracy, average of several networks."""
        rows = []
        for name, r in metrics["variants"].items():
            average = f"{r['averages']['average_accuracy']:.3f}" if "averages" in r else ""
            numbers = [spread(r[key]) for key in ("barrier", "highest", "midpoint_accuracy", "end_accuracy")]
            rows.append([name, *numbers, average, str(r["trainable"])])
        return ["variant", "test barrier", "highest", "midpoint", "ends", "average", "trainable"], rows


def network_file(folder: Path, variant: str, number: int) -> Path:
    """Where a run keeps a trained network."""
    return folder / NETWORKS / f"{re.sub(r'[^A-Za-z0-9.]+', '-', variant).strip('-')}-{number}.safetensors"


def _curves(pairs: Pairs) -> dict[str, Any]:
    return {
        part: {"t": found[0].t.tolist(), **{k: [getattr(c, k).tolist() for c in found] for k in ("loss", "accuracy")}}
        for part, found in (("test", pairs.test), ("train", pairs.train))
    }


def _counted(data: tuple[Tensor, Tensor]) -> int:
    return int((data[1] != IGNORED).sum())


def _progress(what: str) -> Callable[[Iterable[int]], Iterable[int]]:
    return lambda epochs: track(list(epochs), what)
