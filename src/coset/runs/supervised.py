"""A kind of run for any domain: examples with targets, a network, and everything between them.

A domain gives the examples and the network; loss, schedule, best epoch, resume, metrics, predictions, certificate and
page are here::

    class PointsRecipe(SupervisedRecipe):
        kind: Literal["points"] = "points"
        path: str

        def examples(self, path=None):
            return read_points(path or self.path)

        def network(self, examples):
            return DeepSets(examples.inputs[0].size(-1), examples.outputs)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.core.identity import digest
from coset.core.options import Options
from coset.core.outside import read_numbers
from coset.reports import (
    Section,
    Table,
    certificate_section,
    sentences,
    standing,
    training_section,
    unfinished,
    write_sections,
)
from coset.runs.checkpoints import read_checkpoint
from coset.runs.devices import ALL, device_of, moved
from coset.runs.fit import Loop, best_epoch, fit
from coset.runs.folder import BEST, CERTIFICATE, HISTORY, LAST, PREDICTIONS, REPORT, RunFolder
from coset.runs.metrics import metrics_of
from coset.runs.objective import check_outputs, check_task, standard, summed_loss
from coset.runs.optimiser import adam
from coset.runs.predictions import prediction_columns, target_columns
from coset.runs.recipe import Recipe
from coset.runs.run import Run, write_certificate
from coset.runs.seeds import derived_seed
from coset.runs.training import TrainingOptions
from coset.symmetry import EquivarianceReport, verify_claims

CERTIFIED = 8  # examples that a symmetry is measured on


@dataclass(frozen=True)
class Examples:
    """What is learned from, or predicted for.

    Attributes:
        inputs: One entry an example: a tensor, or whatever :meth:`SupervisedRecipe.batch` makes batches of.
        targets: NaN where missing; without columns where there is only something to predict for.
        target_names: Of the columns.
        ids: Names of the examples.
        classes: Names of the classes, where the one target is the number of a class (``training.task=multiclass``).
    """

    inputs: Sequence[Any]
    targets: Float[Tensor, "examples targets"]
    target_names: tuple[str, ...]
    ids: tuple[str, ...]
    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Columns that a network gives: one a target, or one a class."""
        return len(self.classes) or len(self.target_names)


class SplitOptions(Options):
    """Which examples are for what."""

    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, val and test")
    seed: int | None = Field(None, ge=0, description="of the split; the run's seed by default")


@dataclass
class Learner:
    """A network with the scale of its targets.

    Attributes:
        network: Batch -> ``[examples, targets]``.
        mean: Of the targets in the training set.
        scale: Their deviation.
    """

    network: nn.Module
    mean: Float[Tensor, " targets"]
    scale: Float[Tensor, " targets"]


class SupervisedRecipe(Recipe):
    """Learn targets of examples; a kind gives :meth:`examples` and :meth:`network`."""

    counts_epochs: ClassVar[bool] = True
    may_change: ClassVar[frozenset[str]] = frozenset(
        ["device", *(f"training.{key}" for key in ("epochs", "early_stopping", "max_minutes", "workers"))]
    )
    devices: ClassVar[tuple[str, ...]] = ALL

    training: TrainingOptions = Field(default_factory=lambda: TrainingOptions.model_validate({}))
    split: SplitOptions = Field(default_factory=lambda: SplitOptions.model_validate({}))

    @model_validator(mode="after")
    def _loads_in_one_process(self) -> SupervisedRecipe:
        if self.training.workers:
            raise ValueError(f"training.workers={self.training.workers}: runs of kind {self.kind} load in one process")
        if self.training.freeze:
            raise ValueError(f"training.freeze: runs of kind {self.kind} train all of their network")
        return self

    @abstractmethod
    def examples(self, path: str | None = None) -> Examples:
        """The examples of the recipe, or those of a file to predict for.

        Raises:
            CosetError: They are missing or malformed.
        """

    @abstractmethod
    def network(self, examples: Examples) -> nn.Module:
        """The untrained network for such examples: batch -> ``[examples, targets]``."""

    def batch(self, inputs: Sequence[Any]) -> Any:
        """Several inputs as the network takes them; by default stacked."""
        return torch.stack(list(inputs))

    def prepare(self, run: Run) -> Examples:
        device_of(self.device)
        found = self.examples()
        if not found.target_names:
            raise CosetError(f"{self.name}: the examples have no targets to learn")
        check_task(self.training.task, found.targets, found.classes)
        return found

    def identity(self, prepared: Examples) -> str:
        return digest(list(prepared.inputs), prepared.targets, prepared.target_names)

    def work(self, run: Run, prepared: Examples) -> dict[str, Any]:
        t, splits = self.training, self._splits(len(prepared.ids))
        learner = self._untrained(prepared, splits["train"])
        learner.network.to(device_of(self.device))
        validated = splits["val"] if len(splits["val"]) else splits["train"]

        def after(row: dict[str, float]) -> None:
            run.at(f"epoch {int(row['epoch']) + 1} of {t.epochs}")
            if run.on_epoch is not None:
                run.on_epoch(row)

        loop = Loop(
            learner.network, self._optimiser(learner.network), lambda rows: self._loss(learner, prepared, rows),
            lambda epoch: self._batches(splits["train"], epoch), t.epochs, self.seed, t.factor, t.gradient_clip,
            judge=lambda: self._judged(learner, prepared, validated), monitor=f"val_{t.monitor}", better=t.better,
            early_stopping=t.early_stopping, max_minutes=t.max_minutes,
        )  # fmt: skip
        rows = fit(loop, run.folder / LAST, after)
        run.folder.write_text(HISTORY, pd.DataFrame(rows).to_csv(index=False))
        self._save(learner, prepared, run.folder)
        predictions = self._predicted(learner, prepared.inputs)
        self._write_predictions(run.folder / PREDICTIONS, prepared, predictions, splits)
        write_certificate(run.folder, self._certificate(learner.network.cpu(), prepared))
        scores = {s: metrics_of(t.task, predictions[r], prepared.targets[r]) for s, r in splits.items() if len(r)}
        best = best_epoch(rows, f"val_{t.monitor}", t.better)
        params = sum(p.numel() for p in learner.network.parameters())
        return {**scores, "params": params, "best_epoch": best, "epochs": len(rows)}

    def verify(self, folder: Path | None = None, progress: bool = False) -> Sequence[EquivarianceReport]:
        """The claims of the network's ``symmetry()``, of the trained one of a run or of an untrained one."""
        examples = self.examples()
        network = self._untrained(examples, torch.arange(len(examples.ids))).network
        if folder is not None:
            network = self._trained(self.folder(folder)).network
        return self._certificate(network, examples)

    def predict(
        self, folder: RunFolder, data: Path, output: Path, *, quiet: bool = False, **options: Any
    ) -> tuple[int, Sequence[str]]:
        if options:
            raise CosetError(f"runs of kind {self.kind} take no --{next(iter(options)).replace('_', '-')}")
        examples, saved = self.examples(str(data)), read_checkpoint(folder / BEST)
        predictions = self._predicted(self._trained(folder), examples.inputs)
        table = pd.DataFrame({"id": examples.ids})
        for name, values in prediction_columns(saved["targets"], saved.get("classes", ()), predictions).items():
            table[name] = values
        write_text(output, table.to_csv(index=False))
        return len(table), ()

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        columns, rows = self.summary(metrics)
        sections = [
            Section("Result", tables=[Table(columns, rows)]),
            training_section(read_numbers(folder / HISTORY), metrics["best_epoch"]),
            certificate_section(folder.read_json(CERTIFICATE)),
        ]
        facts = {key: str(metrics[key]) for key in ("params", "epochs", "seed", "seconds")}
        return write_sections(
            folder / REPORT, self.name, sections, lead=self.description, facts=facts, recipe=folder.recipe(),
            kind="training run", verdict=self._verdict(metrics),
        )  # fmt: skip

    def _verdict(self, metrics: dict[str, Any]) -> str:
        split = next(name for name in ("test", "val", "train") if name in metrics)
        metric = self.training.monitor if self.training.monitor in metrics[split] else next(iter(metrics[split]))
        said = standing(metric, metrics[split][metric], split)
        return sentences(said, unfinished(metrics["best_epoch"], metrics["epochs"]))

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a metric, a column a split."""
        splits = [name for name in ("train", "val", "test") if name in metrics]
        rows = [[name, *(f"{metrics[s][name]:.4f}" if name in metrics[s] else "–" for s in splits)]
                for name in metrics[splits[-1]]]  # fmt: skip
        return ["metric", *splits], rows

    def _splits(self, count: int) -> dict[str, Tensor]:
        seed = self.seed if self.split.seed is None else self.split.seed
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        first, second = (round(count * sum(self.split.fractions[:k])) for k in (1, 2))
        splits = {"train": order[:first], "val": order[first:second], "test": order[second:]}
        if len(splits["train"]) < 2:
            raise CosetError(f"{count} examples, of which {len(splits['train'])} to train on: at least 2 are needed")
        return splits

    def _untrained(self, examples: Examples, train: Tensor) -> Learner:
        torch.manual_seed(self.seed)
        columns = examples.targets.size(1)
        scale = (torch.zeros(columns), torch.ones(columns))
        if self.training.task == "regression" and columns:
            scale = standard(examples.targets[train])
        return Learner(self.network(examples), *scale)

    def _optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        return adam(network.parameters(), self.training.learning_rate, self.training.weight_decay)

    def _batches(self, rows: Tensor, epoch: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch))
        order = rows[torch.randperm(len(rows), generator=generator)]
        yield from order.tensor_split(-(-len(rows) // self.training.batch_size))

    def _loss(self, learner: Learner, examples: Examples, rows: Tensor) -> Tensor:
        outputs = _applied(learner.network, self.batch([examples.inputs[row] for row in rows.tolist()]))
        check_outputs(learner.network, outputs, len(rows), examples.outputs)
        targets = (examples.targets[rows] - learner.mean) / learner.scale
        total = summed_loss(self.training.task, self.training.loss, outputs, targets)
        return total / (~targets.isnan()).sum().clamp(min=1)

    def _judged(self, learner: Learner, examples: Examples, rows: Tensor) -> dict[str, float]:
        inputs = [examples.inputs[row] for row in rows.tolist()]
        found = metrics_of(self.training.task, self._predicted(learner, inputs), examples.targets[rows])
        if self.training.monitor not in found:
            raise CosetError(
                f"training.monitor={self.training.monitor} cannot judge the {len(rows)} examples of validation; choose "
                "another metric or another split"
            )
        return {f"val_{name}": value for name, value in found.items()}

    @torch.inference_mode()
    def _predicted(self, learner: Learner, inputs: Sequence[Any]) -> Float[Tensor, "examples targets"]:
        learner.network.eval()
        size = 4 * self.training.batch_size
        parts = [_applied(learner.network, self.batch(inputs[i : i + size])) for i in range(0, len(inputs), size)]
        outputs = torch.cat(parts).float()
        if self.training.task == "regression":
            return outputs * learner.scale + learner.mean
        return outputs.softmax(1) if self.training.task == "multiclass" else outputs.sigmoid()

    def _certificate(self, network: nn.Module, examples: Examples) -> Sequence[EquivarianceReport]:
        return verify_claims(network, self.batch(list(examples.inputs[:CERTIFIED])))

    def _save(self, learner: Learner, examples: Examples, folder: RunFolder) -> None:
        state = {"network": learner.network.state_dict(), "mean": learner.mean, "scale": learner.scale}
        folder.save(BEST, {**state, "targets": list(examples.target_names), "classes": list(examples.classes)})

    def _trained(self, folder: RunFolder) -> Learner:
        saved, examples = read_checkpoint(folder / BEST), self.examples()
        network = self.network(examples)
        network.load_state_dict(saved["network"])
        return Learner(network, saved["mean"], saved["scale"])

    def _write_predictions(
        self, path: Path, examples: Examples, predictions: Tensor, splits: dict[str, Tensor]
    ) -> None:
        table = pd.DataFrame({"id": examples.ids, "split": ""})
        for name, rows in splits.items():
            table.loc[rows.numpy(), "split"] = name
        for name, values in target_columns(examples.target_names, examples.classes, examples.targets).items():
            table[name] = values
        for name, values in prediction_columns(examples.target_names, examples.classes, predictions).items():
            table[name] = values
        write_text(path, table.to_csv(index=False))


def _applied(network: nn.Module, batch: Any) -> Tensor:
    """Outputs on the CPU of a network that is wherever it is."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    return network(moved(batch, device)).cpu()
