"""Recipes of kind ``reconstruction``: train a classifier to a stationary point, look for its training inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import write_arrays
from coset.core.identity import digest
from coset.core.options import Options
from coset.privacy.attribution import attribute
from coset.privacy.data.images import Images, cifar10_vehicles_animals, digits, mnist, point_clouds
from coset.privacy.denoising import denoised, train_denoiser
from coset.privacy.descent import train_by_descent
from coset.privacy.groups import FiniteGroup, group_of
from coset.privacy.hidden_layer import hidden_layer_of
from coset.privacy.information import information_of
from coset.privacy.models.classifiers import (
    CircularConvolution,
    InvariantClassifier,
    PointSetNetwork,
    ReLUNetwork,
    SoftplusFeatures,
)
from coset.privacy.pages import RECONSTRUCTIONS, write
from coset.privacy.priors import deep, mixture, smooth
from coset.privacy.reconstruction import METHODS, Attack, Reconstruction, reconstruct
from coset.privacy.scores import aligned, nearest, score
from coset.privacy.stationarity import (
    distinct_neurons,
    first_layer,
    multipliers,
    stationarity_residual,
    train_to_margin,
    train_to_stationarity,
)
from coset.runs.folder import CURVES, RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import Run, write_certificate
from coset.runs.terminal import progress
from coset.symmetry import EquivarianceReport, verify_claims

NULL_SETS = 20
OTHERS = 800
"""Inputs that neither train nor judge: what a prior may know."""


class ImageOptions(Options):
    """Training inputs, and held-out ones to judge by."""

    name: Literal["digits", "mnist", "cifar10-vehicles-animals", "point-clouds"] = "digits"
    count: int = Field(10, ge=2, description="training inputs, half of each label")
    path: str | None = Field(None, description="file of the images, or its folder; for MNIST and CIFAR-10")

    def load(self, seed: int, more: int = 0) -> Images:
        """Training inputs and held-out ones, and ``more`` after these."""
        held_out = NULL_SETS * self.count + more
        if self.name == "digits":
            return digits(self.count, held_out, seed)
        if self.name == "point-clouds":
            return point_clouds(self.count, held_out, seed)
        if self.name == "mnist":
            return mnist(self.count, held_out, self.path, seed)
        return cifar10_vehicles_animals(self.count, held_out, self.path, seed)


class NetworkOptions(Options):
    """The classifier, averaged over the group."""

    name: Literal["softplus", "relu", "deepsets", "convolution"] = "softplus"
    hidden: list[int] = Field(
        [100], min_length=1, description="of softplus and convolution one layer, of the others any number"
    )
    scale: float = Field(0.1, gt=0, description="of the output weights of softplus, which are not trained")
    first: float | None = Field(None, gt=0, description="deviation of the first layer of relu at the start")
    group: Literal["plain", "flips", "c4", "d4", "shifts", "sets"] = "plain"

    @model_validator(mode="after")
    def _one_layer(self) -> NetworkOptions:
        if self.name in ("softplus", "convolution") and len(self.hidden) > 1:
            raise ValueError(f"network.hidden: {self.name} has one hidden layer")
        own = {"deepsets": "sets", "convolution": "shifts"}.get(self.name)
        if own is not None and self.group != own:
            raise ValueError(f"network.group={self.group!r}: {self.name} is invariant under {own!r}")
        return self

    def build(self, shape: tuple[int, ...], group: FiniteGroup, seed: int) -> InvariantClassifier:
        generator = torch.Generator().manual_seed(seed)
        options: dict[str, Any] = {"first": self.first, "generator": generator}
        if self.name in ("deepsets", "convolution") and len(shape) != 2:
            raise CosetError(f"{self.name} needs inputs of two axes, got {shape}")
        if self.name == "deepsets":
            network = PointSetNetwork(shape[0], shape[1], self.hidden, **options)
            return InvariantClassifier(network, group, average=False)
        if self.name == "convolution":
            size = (shape[0], shape[1])
            return InvariantClassifier(CircularConvolution(size, self.hidden[0], **options), group, average=False)
        inputs = math.prod(shape)
        if self.name == "relu":
            sizes = [inputs, *self.hidden, 1]
            return InvariantClassifier(ReLUNetwork(sizes, first=self.first, generator=generator), group)
        return InvariantClassifier(
            SoftplusFeatures(inputs, self.hidden[0], scale=self.scale, generator=generator), group
        )


class TrainingOptions(Options):
    """To a stationary point of loss and weight decay (L-BFGS; descent for ReLUs, which end at kinks), or without decay
    to the largest margin."""

    method: Literal["decay", "descent", "margin"] = "decay"
    loss: Literal["mse", "logistic"] = Field("mse", description="of decay and descent; margin has the logistic one")
    weight_decay: float = Field(1e-3, gt=0)
    tolerance: float = Field(1e-7, gt=0, description="of decay: the relative gradient to end at")
    steps: int = Field(6000, ge=1, description="of descent and margin")
    learning_rate: float = Field(0.01, gt=0, description="of the first step of descent and margin")

    def train(self, model: nn.Module, images: Images, progress: Callable[[], object]) -> list[dict[str, float]]:
        """Margins along the way, if that is what training looks for."""
        options: dict[str, Any] = {"steps": self.steps, "learning_rate": self.learning_rate}
        if self.method == "margin":
            return train_to_margin(model, images.train, images.labels, progress=progress, **options)
        if self.method == "descent":
            options |= {"loss": self.loss, "weight_decay": self.weight_decay}
            return train_by_descent(model, images.train, images.labels, progress=progress, **options)
        train_to_stationarity(
            model, images.train, images.labels, loss=self.loss, weight_decay=self.weight_decay, tolerance=self.tolerance
        )
        return []

    def multipliers(self, model: nn.Module, images: Images) -> Tensor:
        """c_i of the training inputs: the owner of the data can know them."""
        if self.method == "margin":
            return images.labels * attribute(model, images.train, images.labels).multipliers
        with torch.no_grad():
            return multipliers(self.loss, model(images.train), images.labels, self.weight_decay)

    def total(self, model: nn.Module, images: Images) -> float:
        """The sum of the multipliers' sizes: the owner of the data knows it; signs and shares are to be found."""
        return float(self.multipliers(model, images).abs().sum())

    def residual(self, model: nn.Module, images: Images) -> float:
        """What the training inputs leave unexplained of the weights, as a share."""
        if self.method == "margin":
            return 1 - attribute(model, images.train, images.labels).explained
        return stationarity_residual(model, images.train, images.labels, loss=self.loss, weight_decay=self.weight_decay)


class AttackOptions(Options):
    """One way of looking; see :class:`coset.privacy.Attack`."""

    method: str = "kkt"
    candidates: float = Field(1.0, gt=0, description="as a multiple of the number of training inputs")
    restarts: int = Field(1, ge=1)
    steps: int = Field(3000, ge=1)
    learning_rate: float = Field(0.02, gt=0)
    start: float = Field(0.01, ge=0)
    isotypic: float = Field(1.0, gt=0)
    memory: float = Field(0.0, ge=0)
    generator: bool = False
    alpha: float = Field(50.0, gt=0)
    least: float | None = None
    precision: Literal["float64", "float32"] = "float64"
    part: int | None = Field(None, ge=1, description="candidates at a time, to bound memory")
    prune: float = Field(1.0, gt=0, le=1, description="share of the steps after which half of the restarts is given up")
    prior: Literal["none", "smooth", "deep", "mixture", "denoiser"] = Field(
        "none",
        description="what fills in what the weights do not see: total variation, a deep image prior, a mixture of "
        "other inputs, or a denoiser trained on these",
    )
    of: str | None = Field(None, description="an attack before this one, whose candidates a prior is to fill in")
    oracle: float | None = Field(
        None, gt=0, description="start from the truth plus noise of this deviation, as a control"
    )

    @model_validator(mode="after")
    def _known(self) -> AttackOptions:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r}: choose {', '.join(METHODS)}")
        return self

    def attack(self, count: int, seed: int, box: tuple[float, float]) -> Attack:
        options = self.model_dump(exclude={"candidates", "oracle", "prior", "of"})
        candidates = 2 * max(1, round(self.candidates * count / 2))
        return Attack(candidates=candidates, seed=seed, box=box, **options)


class ReconstructionRecipe(Recipe):
    """Train, attack in several ways, score."""

    leaves: ClassVar[tuple[str, ...]] = (RECONSTRUCTIONS,)

    kind: Literal["reconstruction"] = "reconstruction"
    data: ImageOptions = Field(default_factory=lambda: ImageOptions.model_validate({}))
    network: NetworkOptions = Field(default_factory=lambda: NetworkOptions.model_validate({}))
    training: TrainingOptions = Field(default_factory=lambda: TrainingOptions.model_validate({}))
    attacks: dict[str, AttackOptions] = Field(min_length=1, description="by name")

    @model_validator(mode="after")
    def _in_order(self) -> ReconstructionRecipe:
        names = list(self.attacks)
        for place, (name, options) in enumerate(self.attacks.items()):
            if options.of is not None and options.of not in names[:place]:
                raise ValueError(f"attacks.{name}.of={options.of!r}: name an attack before it, of {names[:place]}")
        return self

    def prepare(self, run: Run) -> Images:
        """Training and held-out inputs.

        Raises:
            CosetError: The data are missing, or do not go with the group, the network or an attack.
        """
        images = self.data.load(self.seed)
        self._untrained(images)
        for options in self.attacks.values():
            attack = options.attack(len(images.train), self.seed, images.box)
            if options.oracle is not None and attack.candidates != len(images.train):
                raise CosetError("attacks with oracle need candidates=1: one for each training input")
        return images

    def identity(self, prepared: Images) -> str:
        """A hash of training and held-out inputs."""
        return digest(prepared.train, prepared.labels, prepared.held_out)

    def work(self, run: Run, prepared: Images) -> dict[str, Any]:
        """Train the classifier, run every attack, write scores, reconstructions and drift.

        Raises:
            CosetError: Training did not learn its inputs.
        """
        model = self._untrained(prepared)
        trained = run.part("training", partial(self._train, model, prepared, run))
        model.load_state_dict(trained["state"])
        with progress("attacks", 101 * len(self.attacks), run.quiet) as each:
            found: dict[str, dict[str, Any]] = {}
            for name, options in self.attacks.items():
                before = None if options.of is None else found[options.of]["outcome"]
                found[name] = run.part(f"attack {name}", partial(self._measure, model, prepared, options, each, before))
        write_certificate(run.folder, verify_claims(model, prepared.train))
        arrays = {name: one["found"].numpy() for name, one in found.items()}
        arrays |= {f"{name}, held out": one["held_out"].numpy() for name, one in found.items()}
        write_arrays(run.folder / RECONSTRUCTIONS, {"truth": prepared.train.numpy(), **arrays})
        traces = {name: one["trace"] for name, one in found.items()}
        run.folder.write_json(CURVES, {"attacks": traces, "margin": trained["margin"]})
        return {
            "attacks": {name: one["scores"] for name, one in found.items()},
            "network": self._facts(model, prepared),
            "params": sum(p.numel() for p in model.parameters() if p.requires_grad),
        }

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        return write(self, folder, metrics)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row an attack; beside it what an attack without a prior could reach, and what stays undetermined."""
        columns = [
            "attack", "best correlation", "ceiling", "above 0.9 (0.99)", "undetermined (at the truth)", "null "
            "(largest)", "p",
            "SSIM", "symmetry", "of data",
        ]  # fmt: skip
        known = metrics["network"].get("information")
        rows = [
            [
                name, f"{r['correlation']:.3f}", _number(known and known["ceiling"]),
                f"{r['recognised']:.0f} ({r.get('exact', 0):.0f}) of {self.data.count}", _undetermined(r, known),
                f"{r['null']:.3f} ({r['null_largest']:.3f})", f"{r['p_value']:.2f}", _number(r["ssim"]),
                _number(r["symmetry"]), _number(r["data_symmetry"]),
            ]
            for name, r in metrics["attacks"].items()
        ]  # fmt: skip
        return columns, rows

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """Invariance of the classifier under its group; of the trained one of a run in its ``certificate.json``."""
        images = self.data.load(self.seed)
        return verify_claims(self._untrained(images), images.train)

    def _untrained(self, images: Images) -> InvariantClassifier:
        return self.network.build(images.shape, group_of(self.network.group, images.shape), self.seed)

    def _train(self, model: InvariantClassifier, images: Images, run: Run) -> dict[str, Any]:
        with progress("training", 101, run.quiet) as each:
            margin = self.training.train(model, images, each)
        return {"state": model.state_dict(), "margin": margin}

    def _measure(
        self, model: InvariantClassifier, images: Images, options: AttackOptions, each: Callable[[], object],
        earlier: dict[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """One attack: its scores, its trace, what it found, and the held-out inputs most like that."""
        before = time.process_time()
        outcome = self._attack(model, images, options, each) if earlier is None else Reconstruction(**earlier)
        best = self._filled(model, images, options.prior, outcome.candidates[outcome.best])
        scores = score(best, images.train, images.held_out, model.group, images.picture)
        found = aligned(best, scores, model.group)
        residual, known = float(outcome.residual.min()), None
        if options.method != "activation":
            c = outcome.multipliers[outcome.best]
            known = information_of(model, best, c, model.group, residual=residual)
        return {
            "scores": {
                **scores.summary(), "residual": residual, "candidates": len(best),
                "undetermined": None if known is None else known.undetermined,
                "cpu_seconds": round(time.process_time() - before, 2),
            },
            "trace": outcome.trace, "found": found, "outcome": vars(outcome),
            "held_out": nearest(found, images.held_out, model.group),
        }  # fmt: skip

    def _attack(
        self, model: InvariantClassifier, images: Images, options: AttackOptions, each: Callable[[], object]
    ) -> Reconstruction:
        attack = options.attack(len(images.train), self.seed, images.box)
        scale = self.training.total(model, images) / attack.candidates
        start: Tensor | None = None
        if options.oracle is not None:
            generator = torch.Generator().manual_seed(self.seed)
            order = images.labels.argsort(stable=True)
            noise = torch.randn(attack.restarts, *images.train.shape, generator=generator, dtype=torch.float64)
            start = images.train[order] + options.oracle * noise
        return reconstruct(
            model, images.train.size(1), attack, group=model.group, scale=scale, start=start, progress=each
        )

    def _filled(self, model: InvariantClassifier, images: Images, prior: str, x: Tensor) -> Tensor:
        """Candidates with what the weights do not see filled in by a prior."""
        if prior == "none":
            return x
        layer = hidden_layer_of(model, x.size(1))
        if layer is None or images.picture is None:
            raise CosetError(f"prior={prior}: for images out of networks of one hidden layer")
        visible = layer.visible()
        if prior == "smooth":
            return smooth(x, visible, images.picture)
        if prior == "deep":
            return deep(x, visible, images.picture, images.box)
        others = self.data.load(self.seed, OTHERS).held_out[len(images.held_out) :]
        if prior == "denoiser":
            return denoised(x, visible, train_denoiser(others, seed=self.seed), model.group, seed=self.seed)
        return mixture(x, visible, others, model.group)

    def _facts(self, model: InvariantClassifier, images: Images) -> dict[str, Any]:
        first = first_layer(model)
        neurons = distinct_neurons(first)
        equations, unknowns = neurons * first.size(1), images.train.numel() + len(images.train)
        notes = list(images.notes)
        if equations < unknowns:
            notes.append(
                f"{neurons} distinct neurons give about {equations} equations for {unknowns} unknowns: a small "
                "residual does not mean that the inputs found are the true ones"
            )
        truth = self.training.residual(model, images)
        c = self.training.multipliers(model, images)
        known = information_of(model, images.train, c, model.group, residual=truth)
        return {
            "group": model.group.name, "order": len(model.group), "training inputs": len(images.train),
            "residual of the truth": truth, "distinct neurons": neurons, "picture": images.picture, "notes": notes,
            "information": None if known is None else known.numbers(),
        }  # fmt: skip


def _undetermined(row: dict[str, Any], known: dict[str, Any] | None) -> str:
    found, truth = row.get("undetermined"), known and known["undetermined"]
    return " ".join(part for part in (str(found) if found is not None else "", f"({truth})" if known else "") if part)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
