"""One model of a comparison: fitted, measured, and measured again on other factors of the same updates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.weights.lora import fitting
from coset.weights.lora.data.factors import Factors, Layout, pad_rank, regauge, select

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

    task: fitting.Task
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

    def part(self, split: str) -> tuple[Factors, Tensor]:
        """Factors and targets of a split."""
        rows = self.splits[split]
        return select(self.factors, rows), self.targets[rows]


@dataclass(frozen=True)
class Units:
    """How targets were standardised: y = (target - centre) / spread, with 0 and 1 for labels."""

    task: fitting.Task
    centre: Tensor
    spread: Tensor

    @classmethod
    def of(cls, task: fitting.Task, training: Tensor) -> Units:
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
        # The kernel regresses on labels -1 and 1; the others give logits.
        return ((output + 1) / 2).clamp(0, 1) if model == "kernel" else torch.sigmoid(output)


def fit_and_measure(
    name: str, problem: Problem, sizes: Mapping[str, Any], training: Mapping[str, Any]
) -> dict[str, Any]:
    """Fit a model of :data:`~coset.weights.lora.fitting.MODELS` and score it on all splits.

    Args:
        name: Of the model.
        problem: Data and targets.
        sizes: Keyword arguments of :func:`~coset.weights.lora.fitting.build`.
        training: Keyword arguments of :func:`~coset.weights.lora.fitting.fit`.

    Returns:
        The fitted ``state`` (:func:`rebuilt` makes the model again), the ``result``, and the ``history`` of losses.
    """
    parts = {split: problem.part(split) for split in problem.splits}
    started, history = time.process_time(), []
    model: nn.Module
    if name == "kernel":
        model = fitting.fit_kernel(problem.task, parts["train"], parts["val"])
    else:
        outputs = problem.targets.size(1)
        model = fitting.build(name, problem.layout, parts["train"][0], outputs, seed=problem.seed, **sizes)
        history = fitting.fit(model, problem.task, parts["train"], parts["val"], seed=problem.seed, **training)
    fitted = time.process_time() - started
    result: dict[str, Any] = {
        s: fitting.score(problem.task, fitting.predict(model, x), y) for s, (x, y) in parts.items()
    }
    result |= _on_other_factors(model, problem, *parts["test"]) | _on_other_ranks(name, model, problem)
    result["params"] = sum(p.numel() for p in model.parameters())
    result["fit_cpu_seconds"] = round(fitted, 2)
    return {"state": model.state_dict(), "result": result, "history": history}


def _on_other_factors(model: nn.Module, problem: Problem, factors: Factors, targets: Tensor) -> dict[str, Any]:
    started = time.process_time()
    plain = fitting.predict(model, factors)
    result: dict[str, Any] = {"seconds_per_adapter": (time.process_time() - started) / len(plain)}
    for group, condition in GAUGED:
        moved = fitting.predict(model, regauge(factors, problem.seed + 1, condition))
        result[f"test after {group}"] = fitting.score(problem.task, moved, targets)
        result[f"change under {group}"] = float((moved - plain).abs().max() / plain.abs().max().clamp(min=1e-12))
    return result


def _on_other_ranks(name: str, model: nn.Module, problem: Problem) -> dict[str, Any]:
    result = {}
    for rank, (factors, targets) in problem.others.items():
        # What depends on the rank can only take smaller ones, filled up with zero columns.
        if rank <= problem.rank or name in fitting.ANY_RANK:
            padded = pad_rank(factors, max(problem.rank, rank))
            result[f"test at rank {rank}"] = fitting.score(problem.task, fitting.predict(model, padded), targets)
    return result


def baseline(problem: Problem) -> dict[str, float]:
    """Always predicting the mean of the training set, or the more frequent label."""
    mean = problem.targets[problem.splits["train"]].mean(0)
    guess = (mean > 0.5).float() * 2 - 1 if problem.task == "classification" else mean
    wanted = problem.targets[problem.splits["test"]]
    found = fitting.score(problem.task, guess.expand_as(wanted), wanted)
    return {key: found[key] for key in ("accuracy", "r2", "rmse") if key in found}


def rebuilt(
    name: str, state: Mapping[str, Tensor], layout: Layout, training: Factors, outputs: int, seed: int,
    sizes: Mapping[str, Any],
) -> nn.Module:  # fmt: skip
    """A fitted model from its saved state."""
    two: Factors = select(training, [0, 0])
    if name == "kernel":
        shells: Factors = tuple((state[f"u_{i}"], state[f"v_{i}"]) for i in range(len(training)))
        start = (two, torch.zeros(2, outputs))
        model: nn.Module = fitting.KernelRidge(select(shells, slice(0, 2)), torch.zeros(2, outputs), start)
        for key, value in state.items():
            model.register_buffer(key, value)
    else:
        model = fitting.build(name, layout, two, outputs, seed=seed, **sizes)
        model.load_state_dict(state)
    return model.eval()
