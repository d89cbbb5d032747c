"""Tables of molecules as chemists keep them: CSV, TSV, Parquet, and SDF, whose properties become columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from coset.core.errors import CosetError, require
from coset.core.outside import MISSING, lines_of, read_table

SMILES, NAME = "smiles", "name"
"""Columns that an SDF gives beside its properties: the structure, and the first line of each record."""
MOST_BYTES = 1 << 31


ENDINGS = (".csv", ".tsv", ".sdf", ".parquet", ".smi", ".smiles")
PACKED = (".gz", ".bz2", ".xz", ".zip")


def is_table_of_molecules(path: Path) -> bool:
    """Whether a file is one by its name; so is an archive that says nothing of what it holds."""
    name = path.name.lower()
    inner = next((name.removesuffix(ending) for ending in PACKED if name.endswith(ending)), name)
    return inner.endswith(ENDINGS) or (name.endswith(".zip") and "." not in inner)


class MoleculeTable(NamedTuple):
    """Rows of text.

    Attributes:
        frame: As of :func:`coset.core.outside.read_table`; of an SDF the index numbers its records from 1.
        skipped: Records whose structure could not be read.
    """

    frame: pd.DataFrame
    skipped: list[int]


def read_molecules(path: Path, skip_bad_rows: bool = False, missing: frozenset[str] = MISSING) -> MoleculeTable:
    """The table of a file; of an SDF (also .sdf.gz) a row a record.

    Args:
        path: Of the file.
        skip_bad_rows: Leave out records of an SDF that RDKit cannot read; an error otherwise.
        missing: Cells that count as missing.

    Raises:
        CosetError: The file is missing or malformed; the record or row is named.
    """
    if ".sdf" not in [suffix.lower() for suffix in path.suffixes[-2:]]:
        return MoleculeTable(read_table(path, missing=missing), [])
    chem = require("rdkit.Chem", "molecules")
    rows, numbers, skipped = list[dict[str, str | None]](), list[int](), list[int]()
    with require("rdkit.rdBase", "molecules").BlockLogs():
        for number, lines in enumerate(_records(path), start=1):
            end = next((at for at, line in enumerate(lines) if line.startswith("M  END")), None)
            mol = None if end is None else chem.MolFromMolBlock("\n".join(lines[: end + 1]) + "\n")
            if mol is None or not mol.GetNumAtoms():
                if not skip_bad_rows:
                    why = "has no line 'M  END'" if end is None else "is no molecule that RDKit can read"
                    raise CosetError(f"{path}, record {number} {why} (skip such rows with skip_bad_rows=true)")
                skipped.append(number)
                continue
            title = {NAME: lines[0].strip()} if lines[0].strip() else {}
            rows.append(title | _properties(lines[end + 1 :]) | {SMILES: chem.MolToSmiles(mol)})  # type: ignore[operator]
            numbers.append(number)
    if not rows:
        raise CosetError(f"{path} holds no molecules")
    frame = pd.DataFrame(rows, index=numbers, dtype="str")
    first = [SMILES, *([NAME] if NAME in frame else [])]
    return MoleculeTable(frame[[*first, *(column for column in frame.columns if column not in first)]], skipped)


def _records(path: Path) -> Iterator[list[str]]:
    record: list[str] = []
    for line in lines_of(path, most=MOST_BYTES):
        if line.startswith("$$$$"):
            yield record
            record = []
        else:
            record.append(line)
    if any(line.strip() for line in record):
        yield record


def _properties(lines: list[str]) -> dict[str, str | None]:
    """``> <NAME>``, then lines of a value to the next blank one."""
    found: dict[str, str | None] = {}
    name: str | None = None
    for line in lines:
        if line.startswith(">") and "<" in line and ">" in line[line.index("<") :]:
            name = line[line.index("<") + 1 : line.rindex(">")].strip()
            found[name] = None
        elif not line.strip():
            name = None
        elif name is not None:
            found[name] = line if found[name] is None else f"{found[name]}\n{line}"
    return {name: value for name, value in found.items() if name and name != SMILES}
