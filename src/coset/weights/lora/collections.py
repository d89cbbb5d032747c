"""Collections of adapters as recipes name them: the digits, made on the spot, or a folder with a table of labels."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import TypedDict

from coset.core.choices import OptionsRegistry
from coset.core.errors import CosetError
from coset.core.files import takes_paths, write_json
from coset.core.options import Options
from coset.core.outside import read_tree
from coset.weights.checksums import checksum
from coset.weights.lora.data.factors import Factors, Layout
from coset.weights.lora.data.finding import adapters_below
from coset.weights.lora.data.magnitudes import Magnitudes
from coset.weights.lora.data.survey import DIFFERENT
from coset.weights.lora.data.zoo import INDEX, LoraZoo, build_zoo, open_zoo
from coset.weights.lora.finetuning.digits import LAYOUT, make_digits_zoo
from coset.weights.lora.finetuning.sources import BASE
from coset.weights.lora.labels import TABLE, read_labels

SOURCES = "sources.json"
"""Which files a collection beside adapters was made of."""


@dataclass(frozen=True)
class Collection:
    """Adapters with a table of labels.

    Attributes:
        layout: Their layers.
        factors: Of all of them.
        names: The rows.
        table: Of labels, in the same order.
        notes: What a reader should know.
        magnitudes: DoRA's, where models are to see them.
        renamed: Whether layers go by the names of their modules, since several tools wrote the adapters.
    """

    layout: Layout
    factors: Factors
    names: list[str]
    table: pd.DataFrame
    notes: list[str]
    magnitudes: Magnitudes | None = None
    renamed: bool = False

    def targets(self, columns: list[str]) -> Tensor:
        """Labels as ``[adapters, columns]``."""
        return torch.tensor(self.table[columns].to_numpy(dtype=np.float64), dtype=torch.float32)

    def with_magnitudes(self, reference: Magnitudes) -> "Collection":
        """Magnitudes less the reference as further layers."""
        assert self.magnitudes is not None
        layout, factors = self.magnitudes.join(self.layout, self.factors, reference)
        return replace(self, layout=layout, factors=factors)


ADAPTER_DATA = OptionsRegistry("data of adapters")


class AdapterData(Options):
    """Where adapters with labels come from.

    Attributes:
        other_ranks: Models are tested on adapters of these ranks, too.
    """

    name: str
    other_ranks: list[int] = []

    def load(self, seed: int, rank: int | None = None) -> Collection:
        """All adapters; with a rank of ``other_ranks``, those to test on.

        Raises:
            CosetError: They are not there, or cannot be used.
        """
        raise NotImplementedError


@ADAPTER_DATA.add
class DigitsData(AdapterData):
    """The collection of digits, made on the spot in seconds."""

    name: Literal["digits"]
    adapters: int = Field(1200, ge=20)
    rank: int = Field(4, ge=1, le=64)
    shared_init: bool = False
    other_ranks: list[int] = Field([], description="test also on adapters of these ranks, never trained on")

    def load(self, seed: int, rank: int | None = None) -> Collection:
        """All adapters, or a test collection of another rank."""
        rank = rank or self.rank
        number = self.adapters if rank == self.rank else max(20, self.adapters // 8)
        zoo = make_digits_zoo(
            number, rank, shared_init=self.shared_init, seed=seed + (0 if rank == self.rank else 10_000 + rank)
        )
        table = pd.DataFrame({f"trained_on_{c}": zoo.members[:, c].numpy() for c in range(10)})
        table["accuracy"] = zoo.accuracy.numpy()
        return Collection(LAYOUT, zoo.factors, [f"digits-{i}" for i in range(number)], table, [])


@ADAPTER_DATA.add
class ZooData(AdapterData):
    """A folder: a collection built by ``coset lora collect``, or one of adapters."""

    name: Literal["zoo"]
    path: str = Field(description="folder of the collection or of adapters")
    labels: str | None = Field(None, description="CSV with the column id; labels.csv in the folder by default")
    layers: Literal["same", "intersection", "union"] = "same"
    skip_bad: bool = False
    magnitudes: bool = Field(False, description="models see DoRA's magnitudes too")
    other_ranks: list[int] = Field([], max_length=0)

    @field_validator("path")
    @classmethod
    def _from_anywhere(cls, value: str) -> str:
        return str(Path(value).expanduser().absolute())

    def load(self, seed: int, rank: int | None = None) -> Collection:
        """Adapters that have a row of labels."""
        folder = Path(self.path)
        labels = Path(self.labels) if self.labels else folder / TABLE
        if not labels.is_file():
            raise CosetError(f"no table of labels {labels} (data.labels=FILE, a CSV with a column id)")
        zoo = opened(folder, self.layers, self.skip_bad)
        found = read_labels(labels, zoo.names, folder)
        notes = [*zoo.notes, *(f"{name} skipped: {reason}" for name, reason in zoo.skipped), *found.notes]
        magnitudes = self._magnitudes(zoo, found.places) if self.magnitudes else None
        return Collection(
            zoo.layout, zoo.factors(found.places), list(found.table["id"]), found.table, notes, magnitudes,
            zoo.renamed,
        )  # fmt: skip

    def _magnitudes(self, zoo: LoraZoo, chosen: list[int]) -> Magnitudes:
        if not zoo.magnitude_groups:
            raise CosetError(f"data.magnitudes: not all adapters of {self.path} have DoRA magnitudes")
        return zoo.magnitudes(chosen)


class Sources(TypedDict):
    """What is in ``sources.json``."""

    layers: str
    skip_bad: bool
    files: dict[str, tuple[int, int, int, str]]


@takes_paths
def opened(folder: Path, layers: str = "same", skip_bad: bool = False) -> LoraZoo:
    """A built collection, or one built beside the adapters (in ``<folder>/.zoo``), renewed when their content changes.

    Raises:
        CosetError: An adapter cannot be used, or nothing can be written there.
    """
    if (folder / INDEX).is_file():
        return open_zoo(folder)
    found = adapters_below(folder)
    sources = found.paths
    if (folder / "adapters").is_dir():  # beside what ``coset lora zoo`` makes lies the model that was finetuned
        sources = [path for path in sources if folder / BASE not in (path, *path.parents)]
    zoo = _beside(folder, sources, layers, skip_bad)
    return replace(zoo, notes=(*found.notes, *zoo.notes))


def _beside(folder: Path, sources: Sequence[Path], layers: str, skip_bad: bool) -> LoraZoo:
    """The collection of these adapters that lies in their folder, built if it does not, or is of others."""
    built, mark = folder / ".zoo", folder / ".zoo" / SOURCES
    kept = read_tree(mark, Sources) if (built / INDEX).is_file() and mark.is_file() else None
    before = kept["files"] if kept is not None else {}
    seen: Sources = {"layers": layers, "skip_bad": skip_bad, "files": _files_of(folder, sources, before)}
    if kept is not None and _content(kept) == _content(seen):
        zoo = open_zoo(built)
        alike = not any(note.startswith(DIFFERENT) for note in zoo.notes)
        if kept["layers"] == layers or alike:
            if kept["files"] != seen["files"] and os.access(built, os.W_OK):
                write_json(mark, seen)  # only times have changed
            return zoo
    if not os.access(folder, os.W_OK):
        raise CosetError(
            f"cannot write to {folder} itself: coset lora collect {folder} ZOO makes a collection elsewhere"
        )
    mark.unlink(missing_ok=True)
    zoo = build_zoo(sources, built, root=folder, layers=layers, skip_bad=skip_bad, lossy=True)
    write_json(mark, seen)
    return zoo


def _files_of(
    folder: Path, sources: Sequence[Path], before: Mapping[str, Sequence[int | str]]
) -> dict[str, tuple[int, int, int, str]]:
    """Of each file of the adapters size, times and hash; the hash is taken again where the others have changed.

    Among the times is that of the last change of the file itself, which goes on when an older time of writing is put
    back.
    """
    files = [file for path in sources for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    found: dict[str, tuple[int, int, int, str]] = {}
    for file in files:
        if not file.is_file():
            continue
        facts = file.stat()
        key, marks = str(file.relative_to(folder)), (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        known = before.get(key)
        same = known is not None and tuple(known[:3]) == marks
        found[key] = (*marks, str(known[3]) if known is not None and same else checksum(file))
    return found


def _content(sources: Sources) -> tuple[bool, dict[str, str]]:
    return sources["skip_bad"], {name: facts[3] for name, facts in sources["files"].items()}


def columns_of(table: pd.DataFrame, wanted: list[str]) -> list[str]:
    """Columns of labels; ``name*`` stands for all that begin so.

    Raises:
        CosetError: There is no such column, labels are missing in it, or one is no finite number.
    """
    found: list[str] = []
    for name in wanted:
        matching = [c for c in table.columns if (c.startswith(name[:-1]) if name.endswith("*") else c == name)]
        if not matching:
            raise CosetError(f"no label {name!r}; the table has {', '.join(map(str, table.columns))}")
        found += matching
    if table[found].isna().any(axis=None):
        raise CosetError(f"labels are missing in {', '.join(c for c in found if table[c].isna().any())}")
    for name in found:
        bad = next((row for row, label in enumerate(table[name]) if not _is_finite(label)), None)
        if bad is not None:
            whose = table["id"].iloc[bad] if "id" in table else f"row {bad}"
            raise CosetError(f"label {name} of {whose} is {str(table[name].iloc[bad])!r}: a finite number was expected")
    return found


def _is_finite(label: Any) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False
