"""ZINC-12k: the benchmark of drug-like molecules and their penalised logP, with its features or ours.

Dwivedi et al., "Benchmarking Graph Neural Networks", JMLR 2023: 10,000, 1,000 and 1,000 of the 249,456 molecules of
ZINC-250k, an atom described by one of 28 types and a bond by one of three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data

from coset.core.data_files import data_file
from coset.core.errors import CosetError, require
from coset.core.outside import lines_of
from coset.graphs.data.datasets import csv, parse_rows
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, parse_smiles, zinc_target
from coset.runs.terminal import track

Features = Literal["columns", "types"]

ATOM_TYPES = (
    "C", "O", "N", "F", "C H1", "S", "Cl", "O -", "N H1 +", "Br", "N H3 +", "N H2 +", "N +", "N -", "S -", "I", "P",
    "O H1 +", "N H1 -", "O +", "S +", "P H1", "P H2", "C H2 -", "P +", "S H1 +", "C H1 -", "P H1 +",
)  # fmt: skip
"""The benchmark's: element, hydrogens that SMILES has to write (not those of an aromatic [nH]), charge."""
BOND_TYPES = ("NONE", "SINGLE", "DOUBLE", "TRIPLE")
"""The benchmark's, of a Kekulé structure; no bond has the first."""

TRAINED_ON = 10_000
REST = "molecules/zinc250k_rest.txt.gz"
TARGET = "penalized_logp"


def zinc12k(
    path: str | Path | None = None,
    features: Features = "columns",
    training_set: int | None = None,
    progress: bool = False,
) -> GraphTable:
    """ZINC-12k: penalised logP of drug-like molecules; 10,000 to train on, the benchmark's 1,000 to validate on, and
    its 1,000 to test on where ``zinc12k_test.csv`` lies beside the others.

    Validation and test molecules are those of the benchmark. So are the training molecules of files that ``coset data
    get zinc12k`` made, which have a column ``benchmark``; those of other files are 10,000 others of ZINC-250k. Without
    a test split an error reported here is a validation error, and the epoch should not be chosen by it.

    Args:
        path: Folder with ``zinc12k_train.csv`` and ``zinc12k_val.csv``.
        features: The ``columns`` of the Open Graph Benchmark, or the ``types`` of this one (:func:`with_types`).
        training_set: Train on this one of the sets of 10,000 that are drawn from ``zinc250k_rest.txt.gz``, ZINC-250k
            without the validation and test molecules; 0, 1, ... are independent draws.
        progress: Show a progress bar.

    Raises:
        CosetError: A file is missing or malformed, or a molecule has an atom without a type.
    """
    validation = _file("molecules/zinc12k_val.csv", path)
    train = _file("molecules/zinc12k_train.csv", path) if training_set is None else None
    files = {"train": train, "val": validation, "test": validation.with_name("zinc12k_test.csv")}
    parts = {
        name: csv(file, "smiles", TARGET, split=None, progress=progress)
        for name, file in files.items()
        if file is not None and file.is_file()
    }
    if training_set is not None:
        parts = {"train": _drawn(_file(REST, path), training_set, progress), **parts}
    for part, table in parts.items():
        for data in table.graphs:
            data.id = f"{part}-{data.id}"
    graphs = [data for table in parts.values() for data in table.graphs]
    rows = torch.arange(len(graphs)).split([len(table) for table in parts.values()])
    same = train is not None and "benchmark" in lines_of(train)[0]
    trained = "too" if same else "not" if training_set is None else f"set {training_set} drawn from others of ZINC-250k"
    held = "validation and test molecules" if "test" in parts else "validation molecules"
    note = f"{held} are the benchmark's, training molecules are {trained}"
    note += "" if "test" in parts else "; there is no test split"
    table = replace(parts["train"], graphs=graphs, splits=dict(zip(parts, rows)), name="ZINC-12k", notes=(note,))
    return with_types(table) if features == "types" else table


def with_types(table: GraphTable) -> GraphTable:
    """Molecules with one of :data:`ATOM_TYPES` an atom and one of :data:`BOND_TYPES` a bond, as the benchmark has them.

    Which bonds of a ring are double depends on the order in which its SMILES names the atoms. Tables of reactions and
    of several molecules a row stay as they are.

    Raises:
        CosetError: An atom is of none of the types.
    """
    if table.node_features != ATOM_SIZES:
        return table
    graphs = [_typed(data, table.name) for data in table.graphs]
    return replace(table, graphs=graphs, node_features=[len(ATOM_TYPES)], edge_features=[len(BOND_TYPES)])


def _typed(data: Data, source: str) -> Data:
    mol = parse_smiles(data.smiles)
    words = [_word(atom) for atom in mol.GetAtoms()]
    unknown = next((word for word in words if word not in ATOM_TYPES), None)
    if unknown is not None:
        raise CosetError(
            f"{source}, molecule {data.id or data.smiles}: an atom {unknown!r} is none of the {len(ATOM_TYPES)} types "
            "of ZINC; a network trained with data.features=columns reads any"
        )
    require("rdkit.Chem", "molecules").Kekulize(mol, clearAromaticFlags=True)
    ends = data.edge_index.T.tolist()
    bonds = [BOND_TYPES.index(str(mol.GetBondBetweenAtoms(*pair).GetBondType())) for pair in ends]
    typed = data.clone()
    typed.x = torch.tensor([ATOM_TYPES.index(word) for word in words], dtype=torch.long)[:, None]
    typed.edge_attr = torch.tensor(bonds, dtype=torch.long)[:, None]
    return typed


def _word(atom: Any) -> str:
    """As in :data:`ATOM_TYPES`."""
    charge, hydrogens = atom.GetFormalCharge(), atom.GetNumExplicitHs()
    implied = atom.GetIsAromatic() and not charge  # the H of [nH] goes without saying once double bonds are written
    written = f"H{hydrogens}" if hydrogens and not implied else ""
    return " ".join(filter(None, (atom.GetSymbol(), written, ("+" if charge > 0 else "-") * abs(charge))))


def _drawn(file: Path, number: int, progress: bool) -> GraphTable:
    """One of the training sets: so many lines of a file of SMILES, with their targets."""
    lines = lines_of(file)
    if len(lines) < TRAINED_ON:
        raise CosetError(f"{file} has {len(lines):,} molecules: training sets of {TRAINED_ON:,} are drawn from it")
    chosen = np.random.default_rng(number).permutation(len(lines))[:TRAINED_ON]
    smiles = [lines[row].strip() for row in chosen]
    frame = pd.DataFrame({"smiles": smiles, TARGET: _targets(smiles, progress)}, index=chosen + 1)
    read = parse_rows(frame, file, "smiles", [TARGET], progress=progress)
    return GraphTable(read.graphs, (TARGET,), {}, file.name, list(ATOM_SIZES), list(BOND_SIZES))


def _targets(smiles: Sequence[str], progress: bool) -> list[str]:
    """As text, since tables are read as text."""
    each = track(smiles, "penalised logP", len(smiles), quiet=not progress)
    return [f"{zinc_target(parse_smiles(text)):.6f}" for text in each]


def _file(name: str, path: str | Path | None) -> Path:
    return data_file(name, None if path is None else Path(path) / Path(name).name)
