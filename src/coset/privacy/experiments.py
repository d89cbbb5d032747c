"""Recipes of kind ``reconstruction``: train a classifier to a stationary point, look for its training inputs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import write_json
from coset.privacy.attribution import attribute
from coset.privacy.audit import audit, load_inputs, load_network
from coset.privacy.data.images import Images, cifar10_vehicles_animals, digits, point_clouds
from coset.privacy.groups import FiniteGroup, group_of
from coset.privacy.models.classifiers import (
    CircularConvolution,
    InvariantClassifier,
    PointSetNetwork,
    ReLUNetwork,
    SoftplusFeatures,
)
from coset.privacy.models.modules import load_module
from coset.privacy.reconstruction import METHODS, Attack, Reconstruction, reconstruct
from coset.privacy.scores import Scores, nearest, score
from coset.privacy.stationarity import (
    distinct_neurons,
    first_layer,
    multipliers,
    stationarity_residual,
    train_to_margin,
    train_to_stationarity,
)
from coset.reports import Axis, Figure, Panel, Picture, Section, Table, figure, line, write_sections
from coset.runs import folder as run_directory
from coset.runs.recipe import Options, Recipe
from coset.symmetry import EquivarianceReport, verify_claims

NULL_SETS = 20
GRID = "found (above), true (middle), the held-out input most like what was found (below)"


class ImageOptions(Options):
    """Training inputs, and held-out ones to judge by."""

    name: Literal["digits", "cifar10-vehicles-animals", "point-clouds"] = "digits"
    count: int = Field(10, ge=2, description="training inputs, half of each label")
    path: str | None = Field(None, description="file of the images, or its folder; for CIFAR-10")

    def load(self, seed: int) -> Images:
        held_out = NULL_SETS * self.count
        if self.name == "digits":
            return digits(self.count, held_out, seed)
        if self.name == "point-clouds":
            return point_clouds(self.count, held_out, seed)
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
    """To a stationary point of loss and weight decay (L-BFGS), or without decay to the largest margin (descent)."""

    method: Literal["decay", "margin"] = "decay"
    loss: Literal["mse", "logistic"] = Field("mse", description="of decay; margin has the logistic one")
    weight_decay: float = Field(1e-3, gt=0)
    tolerance: float = Field(1e-7, gt=0, description="of decay: the relative gradient to end at")
    steps: int = Field(6000, ge=1, description="of margin")
    learning_rate: float = Field(0.01, gt=0, description="of margin")

    def train(self, model: nn.Module, images: Images, progress: Callable[[], object]) -> list[dict[str, float]]:
        """Margins along the way, if that is what training looks for."""
        if self.method == "margin":
            options: dict[str, Any] = {"steps": self.steps, "learning_rate": self.learning_rate}
            return train_to_margin(model, images.train, images.labels, progress=progress, **options)
        train_to_stationarity(
            model, images.train, images.labels, loss=self.loss, weight_decay=self.weight_decay, tolerance=self.tolerance
        )
        return []

    def total(self, model: nn.Module, images: Images) -> float:
        """The sum of the multipliers: the owner of the data knows it; signs and shares are to be found."""
        if self.method == "margin":
            return float(attribute(model, images.train, images.labels).multipliers.sum())
        with torch.no_grad():
            return float(multipliers(self.loss, model(images.train), images.labels, self.weight_decay).abs().sum())

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
    part: int | None = Field(None, ge=1, description="candidates at a time, to bound memory")
    prune: float = Field(1.0, gt=0, le=1, description="share of the steps after which half of the restarts is given up")
    oracle: float | None = Field(
        None, gt=0, description="start from the truth plus noise of this deviation, as a control"
    )

    @model_validator(mode="after")
    def _known(self) -> AttackOptions:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r}: choose {' or '.join(METHODS)}")
        return self

    def attack(self, count: int, seed: int, box: tuple[float, float]) -> Attack:
        options = self.model_dump(exclude={"candidates", "oracle"})
        candidates = 2 * max(1, round(self.candidates * count / 2))
        return Attack(candidates=candidates, seed=seed, box=box, **options)


class ReconstructionRecipe(Recipe):
    """Train, attack in several ways, score."""

    kind: Literal["reconstruction"] = "reconstruction"
    data: ImageOptions = Field(default_factory=lambda: ImageOptions.model_validate({}))
    network: NetworkOptions = Field(default_factory=lambda: NetworkOptions.model_validate({}))
    training: TrainingOptions = Field(default_factory=lambda: TrainingOptions.model_validate({}))
    attacks: dict[str, AttackOptions] = Field(min_length=1, description="by name")

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """Train the classifier, run every attack, write scores, reconstructions and drift.

        Raises:
            CosetError: The data are missing, or do not go with the group.
        """
        if resume:
            raise CosetError("a reconstruction cannot be resumed; start it again")
        started = time.monotonic()
        images = self.data.load(self.seed)
        group = group_of(self.network.group, images.shape)
        model = self.network.build(images.shape, group, self.seed)
        run_directory.begin(folder, self.to_yaml())
        results, curves, found = {}, {}, {}
        with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
            task = bar.add_task("training", total=101 if self.training.method == "margin" else None)
            margin = self.training.train(model, images, lambda: bar.advance(task))
            bar.remove_task(task)
            task = bar.add_task("attacks", total=101 * len(self.attacks))
            for name, options in self.attacks.items():
                before = time.process_time()
                outcome = self._attack(model, images, group, options, lambda: bar.advance(task))
                scores = score(outcome.candidates[outcome.best], images.train, images.held_out, group, images.picture)
                results[name] = {
                    **scores.summary(), "residual": float(outcome.residual.min()),
                    "cpu_seconds": round(time.process_time() - before, 2),
                }  # fmt: skip
                curves[name] = outcome.trace
                found[name] = _aligned(outcome, scores, group)
                found[f"{name}, held out"] = nearest(found[name], images.held_out, group)
        metrics = {
            "attacks": results, "network": self._facts(model, images), "recipe": self.name, "seed": self.seed,
            "params": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        arrays: dict[str, Any] = {name: part.numpy() for name, part in found.items()}
        np.savez_compressed(folder / "reconstructions.npz", truth=images.train.numpy(), **arrays)
        write_json(folder / "curves.json", {"attacks": curves, "margin": margin})
        write_json(folder / "metrics.json", metrics)
        return metrics

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row an attack."""
        columns = ["attack", "best correlation", "above 0.9", "null (largest)", "p", "SSIM", "symmetry", "of data"]
        rows = [
            [
                name, f"{r['correlation']:.3f}", f"{r['recognised']:.0f} of {self.data.count}",
                f"{r['null']:.3f} ({r['null_largest']:.3f})", f"{r['p_value']:.2f}", _number(r["ssim"]),
                _number(r["symmetry"]), _number(r["data_symmetry"]),
            ]
            for name, r in metrics["attacks"].items()
        ]  # fmt: skip
        return columns, rows

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """Invariance of the classifier under its group."""
        images = self.data.load(self.seed)
        group = group_of(self.network.group, images.shape)
        return verify_claims(self.network.build(images.shape, group, self.seed), images.train)

    def report(self, folder: Path) -> Path:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        curves = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
        facts = metrics["network"]
        text = (
            "For each training input the candidate most like it, up to the group: the mean of their correlations, and "
            "how many are above 0.9. The null is the same number for sets of inputs that the network never saw; a "
            "score that does not clear it shows no leak. Symmetry is 1 for inputs that no group element changes."
        )
        searches = curves["attacks"]
        equations = {name: rows for name, rows in searches.items() if self.attacks[name].method == "kkt"}
        panels = []
        if equations:
            panels.append(Panel("Residual of the weights", _curves(equations, "residual", "step", log=True)))
        if any("symmetry" in rows[0] for rows in searches.values()):
            panels.append(Panel("Drift towards symmetric inputs", _curves(searches, "symmetry", "step")))
        if curves["margin"]:
            grown = {"smallest margin over |weights|^degree": [r for r in curves["margin"] if r["margin"] > 0]}
            panels.append(Panel("Margin in training", _curves(grown, "relative", "step", log=True)))
        pictures = []
        if facts["picture"]:
            with np.load(folder / "reconstructions.npz") as arrays:
                for name in metrics["attacks"]:
                    grid = _grid(facts["picture"], arrays[name], arrays["truth"], arrays[f"{name}, held out"])
                    pictures.append(Picture(grid, f"{name}: {GRID}", 4))
        notes = list(facts["notes"]) + [
            "Reconstructions are private data: keep this page where the training data may be."
        ]
        return write_sections(
            folder / "report.html", self.name,
            [Section("What the weights give away", text, [Table(*self.summary(metrics))], panels, pictures, notes)],
            lead=self.description, facts={
                k: f"{v:.2g}" if isinstance(v, float) else str(v)
                for k, v in facts.items() if k not in ("notes", "picture")
            },
            recipe=self.to_yaml(),
        )  # fmt: skip

    def _attack(
        self, model: InvariantClassifier, images: Images, group: FiniteGroup, options: AttackOptions, progress: Any
    ) -> Reconstruction:
        attack = options.attack(len(images.train), self.seed, images.box)
        scale = self.training.total(model, images) / attack.candidates
        start = None
        if options.oracle is not None:
            generator = torch.Generator().manual_seed(self.seed)
            order = images.labels.argsort(stable=True)
            noise = torch.randn(attack.restarts, *images.train.shape, generator=generator, dtype=torch.float64)
            if attack.candidates != len(images.train):
                raise CosetError("attacks with oracle need candidates=1: one for each training input")
            start = images.train[order] + options.oracle * noise
        return reconstruct(
            model, images.train.size(1), attack, group=group, scale=scale, start=start, progress=progress
        )

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
        return {
            "group": model.group.name, "order": len(model.group), "training inputs": len(images.train),
            "residual of the truth": self.training.residual(model, images), "distinct neurons": neurons,
            "picture": images.picture, "notes": notes,
        }  # fmt: skip


def audit_files(
    weights: Path, data: Path, output: Path, group: str, loss: str, weight_decay: float | None, steps: int,
    restarts: int, seed: int, model: str | None = None, part: int | None = None, quiet: bool = False,
) -> tuple[dict[str, float], list[str]]:  # fmt: skip
    """``coset audit``: read, measure, write ``metrics.json``, ``reconstructions.npz`` and ``report.html``.

    Args:
        weights: safetensors.
        data: NPZ of training and held-out inputs with labels.
        output: Folder.
        group: Under which the network is invariant; averaged over unless ``model`` is given, and checked.
        loss: ``mse`` or ``logistic``.
        weight_decay: Of training, if known.
        steps: Of the search.
        restarts: Side by side.
        seed: Of their starts.
        model: ``FILE.py:NAME`` that makes the network; a ReLU network of linear layers if left out.
        part: Candidates at a time.
        quiet: No progress bar.

    Returns:
        The main numbers, and warnings.

    Raises:
        CosetError: A file or the model cannot be used; nothing is written then.
    """
    train, held_out, shape = load_inputs(data)
    network: nn.Module
    if model is None:
        network, table = load_network(weights, group, shape)
    else:
        network, table = load_module(model, weights, shape), group_of(group, shape)
    if network(train[0][:1]).dim() == 2:  # two outputs read labels 0 and 1 as class numbers
        train, held_out = ((x, (y > 0).long() if y.is_floating_point() else y) for x, y in (train, held_out))
        loss = "ce"
    count = len(train[0])
    attack = Attack(candidates=2 * count, steps=steps, restarts=restarts, least=0.1, part=part, seed=seed)
    drawn = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    picture = (drawn[0], drawn[1]) if len(drawn) == 2 and group != "sets" else None
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("looking for training inputs", total=101)
        result = audit(
            network, train, held_out, group=table, loss=loss, weight_decay=weight_decay, attack=attack, picture=picture,
            progress=lambda: bar.advance(task),
        )  # fmt: skip
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CosetError(f"cannot write to {output}: {error.strerror}") from error
    found = _aligned(result.found, result.scores, table).numpy()
    others = nearest(torch.from_numpy(found), held_out[0], table).numpy()
    np.savez_compressed(output / "reconstructions.npz", found=found, truth=train[0].numpy(), held_out=others)
    write_json(output / "metrics.json", result.to_dict())
    numbers = {
        "training inputs recognised (correlation above 0.9)": float(result.scores.recognised()),
        "mean best correlation": result.scores.mean, "the same, of held-out inputs": float(result.scores.null.mean()),
        "p-value": result.scores.p_value, "weights explained by the training inputs": result.explained["train"],
        "by as many held-out inputs": result.explained["held_out"],
        "by training inputs with shuffled labels (largest of 20)": result.explained["shuffled"],
        "membership AUC, multipliers": result.membership["multipliers"],
        "membership AUC, loss": result.membership["loss"],
    }  # fmt: skip
    rows = [[name, f"{value:.4g}"] for name, value in numbers.items()]
    pictures = []
    if picture is not None:
        pictures.append(Picture(_grid(list(picture), found, train[0].numpy(), others), GRID, 4))
    panels = [Panel("Residual of the weights", _curves({"search": result.found.trace}, "residual", "step", log=True))]
    notes = [*result.warnings, "This page shows private data: keep it where the training data may be."]
    write_sections(
        output / "report.html", f"Audit of {weights.name}",
        [Section("What the weights give away", "", [Table(["measured", ""], rows)], panels, pictures, notes)],
        facts={"group": table.name, "training inputs": str(len(train[0])), "held out": str(len(held_out[0]))},
    )  # fmt: skip
    return numbers, result.warnings


def _aligned(outcome: Reconstruction, scores: Scores, group: FiniteGroup) -> Tensor:
    """The best candidate of each training input, moved onto it."""
    candidates = outcome.candidates[outcome.best]
    pairs = zip(scores.candidate.tolist(), scores.element.tolist(), strict=True)
    return torch.stack([group.apply(g, candidates[j]) for j, g in pairs])


def _grid(shape: list[int], *parts: np.ndarray) -> np.ndarray:
    """A row of images each, the first twenty, each stretched to its own range."""

    def tile(image: np.ndarray) -> np.ndarray:
        image = image.reshape(-1, *shape).mean(0)
        low, high = image.min(), image.max()
        return np.pad(np.uint8(255 * (image - low) / max(high - low, 1e-12)), 1, constant_values=128)

    rows = [np.concatenate([tile(image) for image in part[:20]], axis=1) for part in parts]
    return np.concatenate(rows, axis=0)


def _curves(curves: dict[str, list[dict[str, float]]], key: str, over: str, log: bool = False) -> Figure:
    shown = {name: rows for name, rows in curves.items() if key in rows[0]}
    marks = [line([r[over] for r in rows], [r[key] for r in rows], name) for name, rows in shown.items()]
    return figure(*marks, x=over, y=Axis(key, log=log), legend=True)


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3f}"
