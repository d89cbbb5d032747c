"""Make a collection by finetuning a real transformer: rank-r LoRAs of the last layers of a BERT on mixtures of tasks.

Each adapter is trained with PEFT on a random non-empty subset of the tasks (classification of sequences), with a random
learning rate, number of steps and initialisation. The classifiers on top are linear probes of the untouched encoder,
the same for all adapters, so that whatever is learned is in the adapter. Layers below the adapted ones are frozen:
their outputs are computed once for all adapters.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coset.core.errors import require
from coset.runs.fit import descend
from coset.weights.lora.finetuning.sources import AdapterSource, Maker

TARGETS = ("query", "value")


@dataclass(frozen=True)
class TokenisedTask:
    """Tokenised examples of one task.

    Attributes:
        tokens: ``[examples, tokens]``, padded.
        mask: True at tokens that are not padding.
        labels: A class an example.
        classes: How many there are.
    """

    name: str
    tokens: Int[Tensor, "examples tokens"]
    mask: Bool[Tensor, "examples tokens"]
    labels: Int[Tensor, " examples"]
    classes: int


@dataclass(frozen=True)
class Probed:
    """A task as the adapted layers see it.

    Attributes:
        hidden: ``[examples, tokens, width]``, states below the adapted layers.
        mask: True at tokens.
        labels: One an example.
        probe: Linear map from pooled embeddings to classes, fitted on the untouched encoder.
    """

    name: str
    hidden: Float[Tensor, "examples tokens width"]
    mask: Bool[Tensor, "examples tokens"]
    labels: Int[Tensor, " examples"]
    probe: nn.Linear


@dataclass(frozen=True)
class Draw:
    """The random choices behind one adapter."""

    members: tuple[bool, ...]
    learning_rate: float
    steps: int
    seed: int


def draw(sources: int, seed: int, rates: tuple[float, float], steps: tuple[int, int]) -> Draw:
    """A non-empty subset, each source with probability 1/2; learning rate log-uniform; steps uniform."""
    generator = np.random.default_rng(seed)
    members = generator.random(sources) < 0.5
    while not members.any():
        members = generator.random(sources) < 0.5
    rate = math.exp(generator.uniform(math.log(rates[0]), math.log(rates[1])))
    count = int(generator.integers(steps[0], steps[1] + 1))
    return Draw(tuple(map(bool, members)), rate, count, int(generator.integers(2**31)))


def quiet_transformers() -> Any:
    """The library without its bars and its table of weights that a headless encoder does not use; never online."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = require("transformers", "weights")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


class AdaptableBert:
    """A BERT with its lower layers run once, embeddings averaged over tokens and of length 1.

    Args:
        model: A BERT of ``transformers`` without head (eager attention); its weights are never changed.
        base_name: What adapters are said to belong to.
        tasks: What to train on.
        layers: How many of the last layers are adapted.
        training: Examples of each task to train on, the first ones; the rest measures accuracy.
    """

    def __init__(self, model: Any, base_name: str, tasks: Sequence[TokenisedTask], *, layers: int, training: int):
        self.model, self.base_name = model.eval().requires_grad_(False), base_name
        self.adapted, self.training = layers, training
        self.tasks = []
        for task in tasks:
            hidden = self._below(task.tokens, task.mask)
            pooled = self._pooled(self.model, hidden, task.mask)[:training]
            probe = _probe(pooled, task.labels[:training], task.classes)
            self.tasks.append(Probed(task.name, hidden, task.mask, task.labels, probe))

    @property
    def layer_indices(self) -> list[int]:
        """Which layers are adapted."""
        count = len(self.model.encoder.layer)
        return list(range(count - self.adapted, count))

    def _below(self, tokens: Tensor, mask: Tensor) -> Tensor:
        parts = []
        with torch.no_grad():
            for ids, m in zip(tokens.split(64), mask.split(64), strict=True):
                hidden = self.model.embeddings(input_ids=ids)
                for layer in self.model.encoder.layer[: -self.adapted]:
                    hidden = _run(layer, hidden, m)
                parts.append(hidden)
        return torch.cat(parts)

    def _above(self, model: Any, hidden: Tensor, mask: Tensor) -> Tensor:
        for layer in model.encoder.layer[-self.adapted :]:
            hidden = _run(layer, hidden, mask)
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)

    def _pooled(self, model: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            parts = zip(hidden.split(64), mask.split(64), strict=True)
            return torch.cat([self._above(model, h, m) for h, m in parts])

    def accuracies(self, model: nn.Module | None = None) -> list[float]:
        """Test accuracy on each task, of the untouched encoder if no other is given."""
        result = []
        for task in self.tasks:
            test = slice(self.training, None)
            pooled = self._pooled(model or self.model, task.hidden[test], task.mask[test])
            result.append(float((task.probe(pooled).argmax(1) == task.labels[test]).double().mean()))
        return result

    def finetune(
        self, drawn: Draw, folder: Path, *, rank: int = 4, alpha: int = 8, batch: int = 16, dora: bool = False
    ) -> dict[str, Any]:
        """Train one adapter, save it as a PEFT folder, and tell what it was made of and how good it is.

        Returns:
            Membership (0 or 1) by task, learning rate, steps, accuracy by task and on average, seconds of training and
            of evaluation.
        """
        peft = require("peft", "weights")
        torch.manual_seed(drawn.seed)
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=list(TARGETS), layers_to_transform=self.layer_indices,
            use_dora=dora,
        )  # fmt: skip
        started = time.process_time()
        wrapped = peft.get_peft_model(self.model, config)
        wrapped.peft_config["default"].base_model_name_or_path = self.base_name
        try:
            self._train([p for p in wrapped.parameters() if p.requires_grad], drawn, batch)
            trained = time.process_time()
            accuracy = self.accuracies(self.model)
            evaluated = time.process_time()
            wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        finally:
            self.model = wrapped.unload().requires_grad_(False).eval()
            if hasattr(self.model, "peft_config"):
                del self.model.peft_config
        members = {f"trained_on_{t.name}": int(m) for t, m in zip(self.tasks, drawn.members, strict=True)}
        by_task = {f"accuracy_{t.name}": a for t, a in zip(self.tasks, accuracy, strict=True)}
        return {
            **members, **by_task, "accuracy": float(np.mean(accuracy)), "steps": drawn.steps,
            "log10_learning_rate": math.log10(drawn.learning_rate), "rank": rank, "seed": drawn.seed,
            "training_seconds": round(trained - started, 3), "evaluation_seconds": round(evaluated - trained, 3),
        }  # fmt: skip

    def _train(self, parameters: list[nn.Parameter], drawn: Draw, batch: int) -> None:
        optimizer = torch.optim.AdamW(parameters, lr=drawn.learning_rate, weight_decay=0.0)
        generator = torch.Generator().manual_seed(drawn.seed)
        chosen = [task for task, member in zip(self.tasks, drawn.members, strict=True) if member]

        def loss(step: int) -> Tensor:
            task = chosen[step % len(chosen)]
            rows = torch.randint(self.training, (batch,), generator=generator)
            logits = task.probe(self._above(self.model, task.hidden[rows], task.mask[rows]))
            return F.cross_entropy(logits, task.labels[rows])

        descend(optimizer, loss, range(drawn.steps))


class EncoderSource(AdapterSource):
    """What all sources that finetune a BERT have in common."""

    model: str | None = Field(None, description="folder of the encoder; that of the installed package by default")
    layers: int = Field(2, ge=1, le=12)
    rank: int = Field(4, ge=1)
    dora: bool = Field(False, description="train DoRA's magnitudes too")
    steps: tuple[int, int] = (20, 60)
    learning_rates: tuple[float, float] = (5e-4, 2e-2)
    batch_size: int = Field(16, ge=1)

    def open(self, folder: Path, seed: int) -> Maker:
        return _Finetuned(self, self.encoder(seed), seed)

    def encoder(self, seed: int) -> AdaptableBert:
        """The base with its tasks."""
        raise NotImplementedError


class _Finetuned:
    def __init__(self, source: EncoderSource, encoder: AdaptableBert, seed: int):
        self.source, self.encoder, self.seed = source, encoder, seed

    @property
    def base(self) -> dict[str, float]:
        return dict(zip((t.name for t in self.encoder.tasks), self.encoder.accuracies(), strict=True))

    def make(self, number: int, place: Path) -> dict[str, Any]:
        s = self.source
        drawn = draw(len(self.encoder.tasks), self.seed * 1_000_003 + number, s.learning_rates, s.steps)
        return self.encoder.finetune(
            drawn, place, rank=s.rank, alpha=2 * s.rank, batch=s.batch_size, dora=s.dora
        )  # fmt: skip


def _run(layer: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    minimum = torch.finfo(hidden.dtype).min
    bias = torch.where(mask[:, None, None, :], 0.0, minimum).to(hidden.dtype)
    output = layer(hidden, bias)
    return output[0] if isinstance(output, tuple) else output


def _probe(pooled: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """Logistic regression by full-batch L-BFGS; it starts from zero, so nothing is drawn."""
    probe = nn.Linear(pooled.size(1), classes)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), lr=0.5, max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(pooled), labels) + 1e-4 * probe.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return probe.requires_grad_(False)
