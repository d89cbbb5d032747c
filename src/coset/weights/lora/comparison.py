"""One model of a comparison: fitted, measured, and measured again on other factors of the same updates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.weights.lora.data.factors import Factors, Layout, pad_rank, regauge, select
from coset.weights.lora.models.fitting import Task, predict, score
from coset.weights.lora.models.registry import LORA_MODELS, ModelSizes, Setting

GAUGED = (("O(r)", 1.0), ("GL(r)", 10.0))


@dataclass(frozen=True)
class Problem:
    """What all models of a run are fitted to.

    Attributes:
        task: classification or regression.
        layout: Layers of the adapters.
        factors: Of all adapters.
        targets: ``[adapters, outputs]``: 0 or 1, or standardised numbers.
        splits: Rows of train, val and test.
        others: By rank, adapters never trained on, with their targets.
        seed: Of weights, batches and changes of basis.
    """

    task: Task
    layout: Layout
    factors: Factors
    targets: Tensor
    splits: Mapping[str, Tensor]
    others: Mapping[int, tuple[Factors, Tensor]]
    seed: int

    @property
    def rank(self) -> int:
        """To which the factors are padded."""
        return self.factors[0][0].size(-1)

    def setting(self, sizes: ModelSizes) -> Setting:
        """What a model is built for."""
        return Setting(self.layout, self.part("train")[0], self.targets.size(1), sizes, self.seed)

    def part(self, split: str) -> tuple[Factors, Tensor]:
        """Factors and targets of a split."""
        rows = self.splits[split]
        return select(self.factors, rows), self.targets[rows]


@dataclass(frozen=True)
class Units:
    """How targets were standardised: y = (target - centre) / spread, with 0 and 1 for labels."""

    task: Task
    centre: Tensor
    spread: Tensor

    @classmethod
    def of(cls, task: Task, training: Tensor) -> Units:
        """From the targets of the training set.

        Raises:
            CosetError: Labels of a classification are not 0 and 1.
        """
        if task == "classification":
            if not bool(((training == 0) | (training == 1)).all()):
                raise CosetError(
                    "training.task=classification needs labels 0 and 1; for numbers take task=regression"
                )  # fmt: skip
            return cls(task, torch.zeros(training.size(1)), torch.ones(training.size(1)))
        return cls(task, training.mean(0), training.std(0).clamp(min=1e-8))

    def standardise(self, targets: Tensor) -> Tensor:
        """What models are fitted to."""
        return (targets - self.centre) / self.spread

    def restore(self, model: str, output: Tensor) -> Tensor:
        """Outputs of a model as shares between 0 and 1, or in the units of the target."""
        if self.task == "regression":
            return output * self.spread + self.centre
        return LORA_MODELS[model].share(output)


def fit_and_measure(name: str, problem: Problem, sizes: ModelSizes, training: Mapping[str, Any]) -> dict[str, Any]:
    """Fit a model of :data:`~coset.weights.lora.models.registry.LORA_MODELS` and score it on all splits.

    Args:
        name: Of the model.
        problem: Data and targets.
        sizes: Of the model.
        training: Keyword arguments of :func:`~coset.weights.lora.models.fitting.fit`.

    Returns:
        The fitted ``state`` (what ``restored`` of the model takes), the ``result``, and the ``history`` of losses.
    """
    parts = {split: problem.part(split) for split in problem.splits}
    started, kind, setting = time.process_time(), LORA_MODELS[name], problem.setting(sizes)
    model, history = kind.fit(setting, problem.task, parts["train"], parts["val"], **training)
    fitted = time.process_time() - started
    result: dict[str, Any] = {s: score(problem.task, predict(model, x), y) for s, (x, y) in parts.items()}
    result |= _on_other_factors(model, problem, *parts["test"]) | _on_other_ranks(kind.any_rank, model, problem)
    result["params"] = sum(p.numel() for p in model.parameters())
    result["fit_cpu_seconds"] = round(fitted, 2)
    return {"state": model.state_dict(), "result": result, "history": history}


def _on_other_factors(model: nn.Module, problem: Problem, factors: Factors, targets: Tensor) -> dict[str, Any]:
    started = time.process_time()
    plain = predict(model, factors)
    result: dict[str, Any] = {"seconds_per_adapter": (time.process_time() - started) / len(plain)}
    for group, condition in GAUGED:
        moved = predict(model, regauge(factors, problem.seed + 1, condition))
        result[f"test after {group}"] = score(problem.task, moved, targets)
        result[f"change under {group}"] = float((moved - plain).abs().max() / plain.abs().max().clamp(min=1e-12))
    return result


def _on_other_ranks(any_rank: bool, model: nn.Module, problem: Problem) -> dict[str, Any]:
    result = {}
    for rank, (factors, targets) in problem.others.items():
        # What depends on the rank can only take smaller ones, filled up with zero columns.
        if rank <= problem.rank or any_rank:
            padded = pad_rank(factors, max(problem.rank, rank))
            result[f"test at rank {rank}"] = score(problem.task, predict(model, padded), targets)
    return result


def baseline(problem: Problem) -> dict[str, float]:
    """Always predicting the mean of the training set, or the more frequent label."""
    mean = problem.targets[problem.splits["train"]].mean(0)
    guess = (mean > 0.5).float() * 2 - 1 if problem.task == "classification" else mean
    wanted = problem.targets[problem.splits["test"]]
    found = score(problem.task, guess.expand_as(wanted), wanted)
    return {key: found[key] for key in ("accuracy", "r2", "rmse") if key in found}
