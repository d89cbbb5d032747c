"""Properties of molecules from SMILES, with the BERT of rxnfp: what chemical adapters are made of.

The encoder (12 layers, width 256, pretrained on reactions by Schwaller et al. 2021) comes with the package ``rxnfp``;
tasks are binary properties of MoleculeNet, as many molecules of one class as of the other.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from pydantic import Field, field_validator
from torch import Tensor

from coset.core.data_files import data_file
from coset.core.errors import CosetError
from coset.core.outside import read_numbers, read_text
from coset.weights.lora.finetuning.finetune import AdaptableBert, EncoderSource, TokenisedTask, quiet_transformers
from coset.weights.lora.finetuning.sources import ADAPTER_SOURCES, check_known


@dataclass(frozen=True)
class Property:
    """A column of a table of molecules: labels 0 and 1, or numbers that are cut at their median."""

    file: str
    column: str
    numbers: bool = False


PROPERTIES: Mapping[str, Property] = {
    "esol": Property("molecules/esol.csv", "measured log solubility in mols per litre", numbers=True),
    "bace": Property("molecules/bace.csv", "class"),
    "ahr": Property("molecules/tox21.csv.gz", "NR-AhR"),
    "mmp": Property("molecules/tox21.csv.gz", "SR-MMP"),
    "are": Property("molecules/tox21.csv.gz", "SR-ARE"),
    "hiv": Property("molecules/hiv.csv.gz", "HIV_active"),
}
"""Solubility; inhibition of BACE-1; three assays of Tox21; inhibition of HIV replication."""
_TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|%\d\d|>>|.")


def rxnfp_bert(
    tasks: Sequence[str], molecules: str | None = None, *, layers: int = 2, training: int = 384, testing: int = 128,
    tokens: int = 64, path: str | None = None, seed: int = 0,
) -> AdaptableBert:  # fmt: skip
    """The encoder with its tasks.

    Args:
        tasks: Names among :data:`PROPERTIES`.
        molecules: Folder of the tables; looked for where data files are by default.
        layers: How many of the last layers are adapted.
        training: Molecules of each task to train on.
        testing: Molecules of each task to measure accuracy on.
        tokens: Longer SMILES are cut.
        path: Folder of the model (``config.json``, weights, ``vocab.txt``); the pretrained one of rxnfp by default.
        seed: Chooses the molecules.

    Raises:
        CosetError: The model or a table is not there, or a property has too few molecules.
    """
    folder = Path(path) if path else _installed()
    vocabulary = _vocabulary(folder / "vocab.txt")
    read = []
    for name in tasks:
        smiles, labels = _balanced(name, molecules, training + testing, seed)
        read.append(TokenisedTask(name, *tokenise(smiles, vocabulary, tokens), labels, 2))
    transformers = quiet_transformers()
    model = transformers.BertModel.from_pretrained(
        str(folder), attn_implementation="eager", add_pooling_layer=False, trust_remote_code=False
    )
    return AdaptableBert(model, "rxnfp/bert_pretrained", read, layers=layers, training=training)


def tokenise(
    smiles: Sequence[str], vocabulary: Mapping[str, int], length: int
) -> tuple[Int[Tensor, "molecules tokens"], Bool[Tensor, "molecules tokens"]]:
    """Atoms, bonds, rings and branches as numbers between [CLS] and [SEP], padded to ``length``; and where they are."""
    ids = torch.full((len(smiles), length), vocabulary["[PAD]"])
    mask = torch.zeros(len(smiles), length, dtype=torch.bool)
    for row, text in enumerate(smiles):
        parts = ["[CLS]", *_TOKEN.findall(text.strip())[: length - 2], "[SEP]"]
        ids[row, : len(parts)] = torch.tensor([vocabulary.get(part, vocabulary["[UNK]"]) for part in parts])
        mask[row, : len(parts)] = True
    return ids, mask


@ADAPTER_SOURCES.add
class SmilesSource(EncoderSource):
    """The BERT of rxnfp finetuned on mixtures of properties of molecules."""

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
        return check_known("property", value, PROPERTIES)

    def encoder(self, seed: int) -> AdaptableBert:
        return rxnfp_bert(
            self.properties, self.molecules, layers=self.layers, training=self.training_molecules,
            testing=self.test_molecules, tokens=self.tokens, path=self.model, seed=seed,
        )  # fmt: skip


def _balanced(name: str, folder: str | None, count: int, seed: int) -> tuple[list[str], Tensor]:
    """Random molecules in random order, half of them of each class."""
    wanted = PROPERTIES[name]
    file = data_file(wanted.file, folder)
    read = read_numbers(file, ["smiles", wanted.column], texts=["smiles"])
    table = read[["smiles", wanted.column]].dropna().drop_duplicates("smiles")
    values = table[wanted.column].to_numpy()
    labels = values > np.median(values) if wanted.numbers else values == 1
    generator = np.random.default_rng(seed)
    half = count // 2
    sides = [generator.permutation(np.flatnonzero(labels == side)) for side in (False, True)]
    if min(map(len, sides)) < count - half:
        few = " and ".join(f"{len(side)}" for side in sides)
        raise CosetError(f"{file}: {few} molecules of the two classes of {name}; {count} in all were asked for")
    chosen = generator.permutation(np.concatenate([sides[0][: count - half], sides[1][:half]]))
    return table["smiles"].iloc[chosen].tolist(), torch.from_numpy(labels[chosen].astype(np.int64))


def _vocabulary(file: Path) -> dict[str, int]:
    if not file.is_file():
        raise CosetError(f"{file} does not exist: source.model must be the folder of a BERT for SMILES with vocab.txt")
    vocabulary = {token: i for i, token in enumerate(read_text(file).split("\n")) if token}
    missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
    if missing:
        raise CosetError(f"{file} lacks {', '.join(missing)}: it is no vocabulary of a BERT")
    return vocabulary


def _installed() -> Path:
    found = importlib.util.find_spec("rxnfp")
    if found is None or not found.submodule_search_locations:
        raise CosetError(
            "the BERT of rxnfp is not here: pip install --no-deps rxnfp==0.1.0, or give source.model=FOLDER"
        )
    return Path(found.submodule_search_locations[0]) / "models" / "transformers" / "bert_pretrained"
