"""What collections of adapters are made from: options of each source, and the maker that they open.

A maker finetunes adapter ``number`` into a folder of its own. What it does follows from seed and number alone, so that
a collection does not depend on who made which part of it, in which order, or after how many interruptions.
"""

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field, field_validator

from coset.core.files import make_folder
from coset.core.options import Options
from coset.weights.lora.data.factors import select, unstack
from coset.weights.lora.data.writing import save_peft
from coset.weights.lora.finetuning.diffusion import CLASSES, BaseSize, DiffusionBase
from coset.weights.lora.finetuning.digits import LAYOUT, DigitsZoo, make_digits_zoo
from coset.weights.lora.finetuning.finetune import Encoder, draw
from coset.weights.lora.finetuning.sentences import minilm
from coset.weights.lora.finetuning.smiles import PROPERTIES, rxnfp_bert
from coset.weights.sentences import TEXTS

BASE = "base"
"""Folder of a collection for what a source trains before all adapters."""


@runtime_checkable
class Maker(Protocol):
    """An opened source."""

    @property
    def base(self) -> dict[str, float]:
        """Scores of the untouched base model."""

    def make(self, number: int, place: Path) -> dict[str, Any]:
        """Finetune one adapter, save it as a PEFT folder, and return its labels."""


class DigitsSource(Options):
    """See :mod:`coset.weights.lora.finetuning.digits`; adapters are trained fifty at a time, and are PEFT folders."""

    name: Literal["digits"]
    rank: int = Field(4, ge=1)
    steps: int = Field(80, ge=1)
    shared_init: bool = False
    together: ClassVar[int] = 50

    def open(self, folder: Path, seed: int) -> Maker:
        return _Digits(self, seed)


class EncoderSource(Options):
    """See :mod:`coset.weights.lora.finetuning.finetune`; what all sources that finetune a BERT have in common."""

    model: str | None = Field(None, description="folder of the encoder; that of the installed package by default")
    layers: int = Field(2, ge=1, le=12)
    rank: int = Field(4, ge=1)
    dora: bool = Field(False, description="train DoRA's magnitudes too")
    steps: tuple[int, int] = (20, 60)
    learning_rates: tuple[float, float] = (5e-4, 2e-2)
    batch_size: int = Field(16, ge=1)
    together: ClassVar[int] = 1

    def open(self, folder: Path, seed: int) -> Maker:
        return _Finetuned(self, self.encoder(seed), seed)

    def encoder(self, seed: int) -> Encoder:
        """The base with its tasks."""
        raise NotImplementedError


class MiniLMSource(EncoderSource):
    """See :mod:`coset.weights.lora.finetuning.sentences`."""

    name: Literal["minilm"]
    texts: Path | None = Field(None, description="folder of <source>.tsv.gz; looked for like all data files by default")
    sources: list[str] = ["sst2", "trec", "subj", "mpqa"]
    training_sentences: int = Field(512, ge=16)
    test_sentences: int = Field(128, ge=16)
    tokens: int = Field(24, ge=4, le=128)

    @field_validator("sources")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return _all_known("source", value, TEXTS)

    def encoder(self, seed: int) -> Encoder:
        return minilm(
            self.sources, self.texts, layers=self.layers, training=self.training_sentences,
            testing=self.test_sentences, tokens=self.tokens, path=self.model, seed=seed,
        )  # fmt: skip


class SmilesSource(EncoderSource):
    """See :mod:`coset.weights.lora.finetuning.smiles`."""

    name: Literal["smiles"]
    molecules: str | None = Field(None, description="folder of the tables; looked for like all data files by default")
    properties: list[str] = ["esol", "bace", "ahr", "mmp", "hiv"]
    training_molecules: int = Field(256, ge=16)
    test_molecules: int = Field(96, ge=16)
    tokens: int = Field(48, ge=4, le=512)
    steps: tuple[int, int] = (20, 50)
    learning_rates: tuple[float, float] = (5e-4, 1e-2)

    @field_validator("properties")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        return _all_known("property", value, PROPERTIES)

    def encoder(self, seed: int) -> Encoder:
        return rxnfp_bert(
            self.properties, self.molecules, layers=self.layers, training=self.training_molecules,
            testing=self.test_molecules, tokens=self.tokens, path=self.model, seed=seed,
        )  # fmt: skip


class DiffusionSource(Options):
    """See :mod:`coset.weights.lora.finetuning.diffusion`; the base is trained first and kept in the collection."""

    name: Literal["diffusion"]
    mnist: str | None = Field(None, description="mnist.npz; looked for where data files are by default")
    blocks: int = Field(3, ge=1)
    width: int = Field(64, ge=16, multiple_of=16)
    base_steps: int = Field(1200, ge=1)
    rank: int = Field(4, ge=1)
    steps: tuple[int, int] = (30, 90)
    learning_rates: tuple[float, float] = (1e-3, 1e-2)
    batch_size: int = Field(16, ge=1)
    sampling_steps: int = Field(10, ge=1)
    images: int = Field(8, ge=1, description="for each class, on which alignment is measured")
    together: ClassVar[int] = 1

    def open(self, folder: Path, seed: int) -> Maker:
        return _Diffusion(self, folder, seed)


class _Digits:
    def __init__(self, source: DigitsSource, seed: int):
        @lru_cache(maxsize=1)
        def block(index: int) -> DigitsZoo:
            own = seed * 1_000_003 + index
            return make_digits_zoo(
                source.together, source.rank, steps=source.steps, shared_init=source.shared_init, seed=own
            )  # fmt: skip

        self._block, self._together = block, source.together

    @property
    def base(self) -> dict[str, float]:
        return {}

    def make(self, number: int, place: Path) -> dict[str, Any]:
        index, row = divmod(number, self._together)
        zoo = self._block(index)
        save_peft(unstack(select(zoo.factors, [row]), LAYOUT, [place.name])[0], place)
        members = {f"trained_on_{c}": int(zoo.members[row, c]) for c in range(10)}
        return {**members, "accuracy": float(zoo.accuracy[row])}


class _Finetuned:
    def __init__(self, source: EncoderSource, encoder: Encoder, seed: int):
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


class _Diffusion:
    def __init__(self, source: DiffusionSource, folder: Path, seed: int):
        self.source, self.seed = source, seed
        make_folder(folder / BASE)
        self.model = DiffusionBase(
            folder / BASE, BaseSize(source.blocks, source.width, source.base_steps), mnist=source.mnist, seed=seed,
            sampling_steps=source.sampling_steps, images=source.images,
        )  # fmt: skip

    @property
    def base(self) -> dict[str, float]:
        return {**self.model.scores(), "classifier_accuracy": self.model.held_out_accuracy}

    def make(self, number: int, place: Path) -> dict[str, Any]:
        s = self.source
        drawn = draw(CLASSES, self.seed * 1_000_003 + number, s.learning_rates, s.steps)
        return self.model.finetune(drawn, place, rank=s.rank, alpha=2 * s.rank, batch=s.batch_size)


def _all_known(what: str, chosen: list[str], known: Collection[str]) -> list[str]:
    for name in chosen:
        if name not in known:
            raise ValueError(f"{what} {name!r} is unknown; choose from {', '.join(known)}")
    return chosen
