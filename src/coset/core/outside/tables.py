"""CSV and TSV: all cells as text, as many in each row as the header has."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coset.core.errors import CosetError, require
from coset.core.outside.files import check_no_utf16, check_regular, refusing, unpacked
from coset.core.registry import nearest

MOST_BYTES = 1 << 31
"""Of a table that is read at once, after unpacking; :func:`table_chunks` reads any size."""
MISSING = frozenset(
    {
        "", " ", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
        "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
    }
)  # fmt: skip
"""What cells say that hold nothing."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)", re.IGNORECASE)


def read_numbers(path: Path | str, required: Sequence[str] = (), *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """A table whose columns are numbers, or truth values, where all of their cells are; the index counts from 0.

    Args:
        path: Of the file.
        required: Columns that must be there.
        texts: Columns that stay text, e.g. names such as 007.

    Raises:
        CosetError: As :func:`read_table`.
    """
    frame = read_table(path, required).reset_index(drop=True)
    for name in frame.columns:
        if name not in texts:
            frame[name] = _typed(frame[name])
    return frame


def _typed(column: pd.Series) -> pd.Series:
    known = [cell for cell in column if isinstance(cell, str)]
    if known and set(known) <= {"True", "False"} and len(known) == len(column):
        return column == "True"
    if not all(_NUMBER.fullmatch(cell.strip()) for cell in known):
        return column
    if len(known) == len(column) and all(cell.strip().lstrip("+-").isdigit() for cell in known):
        numbers = [int(cell) for cell in known]
        if max(map(abs, numbers)) < 1 << 63:
            return pd.Series(numbers, column.index, dtype="int64")
    cells = [float(cell) if isinstance(cell, str) else math.nan for cell in column]
    return pd.Series(cells, column.index, dtype="float64")


def read_table(
    path: Path | str, required: Sequence[str] = (), *, missing: frozenset[str] = MISSING, bare: bool = False
) -> pd.DataFrame:
    """All cells as text, missing ones as NaN; the index counts rows as a spreadsheet does (the header is row 1), and
    wholly blank rows are gone. ``.tsv`` is tab-separated; ``.gz``, ``.bz2``, ``.xz``, ``.zip`` are unpacked; Parquet is
    read, too.

    Args:
        path: Of the file.
        required: Columns that must be there.
        missing: Cells that count as missing.
        bare: Whether there may be no rows below the header.

    Raises:
        CosetError: The file is no table in UTF-8, empty, larger than the limit, a row has other cells than the header,
            or two columns have one name; file and row are named.
    """
    parquet = Path(path).suffix == ".parquet"
    frame = _parquet(Path(path), bare) if parquet else next(table_chunks(path, None, missing=missing, bare=bare))
    lacking = [name for name in required if name not in frame]
    if lacking:
        raise CosetError(f"{path} has no column {lacking[0]!r}; it has {', '.join(map(str, frame.columns))}")
    return frame


def read_header(path: Path | str) -> list[str]:
    """Names of the columns of a table, without its other rows.

    Raises:
        CosetError: As :func:`read_table`, of the first rows.
    """
    if Path(path).suffix == ".parquet":
        with refusing(check_regular(path), "Parquet file"):
            return [str(name).strip() for name in require("pyarrow.parquet", "shards").read_schema(path).names]
    return list(next(table_chunks(path, 1)).columns)


def spelled(column: str, columns: Sequence[str]) -> str:
    """The column of this name, or the only one that differs from it in capitals alone; else the name as it is."""
    alike = [name for name in columns if name.lower() == column.lower()]
    return alike[0] if column not in columns and len(alike) == 1 else column


def row_named(label: object) -> str:
    """A row in a message: ``row 3``, or its name where it has one, as what stands in no table."""
    return label if isinstance(label, str) else f"row {label}"


def check_column(columns: Sequence[str], column: str, file: Path) -> None:
    """Raise a CosetError that names the nearest column unless the file has this one."""
    if column in columns:
        return
    names = [str(name) for name in columns]
    near = nearest(column, names)
    hint = f"; did you mean {near!r}?" if near else ""
    whole = next((name for name in names if column in [part.strip() for part in name.split(",")]), None)
    if whole is not None:  # options take a comma for the end of a name
        hint = f'; a name with a comma is written ["{whole}"]'
    raise CosetError(f"{file} has no column {column!r}: its columns are {', '.join(map(repr, names))}{hint}")


def _parquet(path: Path, bare: bool) -> pd.DataFrame:
    path = check_regular(path, MOST_BYTES)
    parquet = require("pyarrow.parquet", "shards")
    with refusing(path, "Parquet file"):
        held = parquet.ParquetFile(path)
        claimed = sum(held.metadata.row_group(at).total_byte_size for at in range(held.metadata.num_row_groups))
        if claimed > MOST_BYTES:
            raise CosetError(f"{path} unpacks to {claimed:,} bytes; at most {MOST_BYTES:,} are read")
        frame = held.read().to_pandas()
    if frame.empty and not bare:
        raise CosetError(f"{path} has no rows")
    frame.columns = [str(column).strip() for column in frame.columns]
    if (double := frame.columns.duplicated()).any():
        raise CosetError(f"{path} has two columns {frame.columns[int(double.argmax())]!r}")
    frame.index = pd.RangeIndex(2, 2 + len(frame))
    return frame.map(_as_text).astype(object)


def _as_text(cell: Any) -> str | None:
    """A cell of Parquet as text; lists, which come as arrays, as Python writes them."""
    if isinstance(cell, np.ndarray):
        return str(cell.tolist())
    if isinstance(cell, list | dict):
        return str(cell)
    return None if cell is None or cell is pd.NA or cell != cell else str(cell)


def table_chunks(
    path: Path | str, rows: int | None, *, missing: frozenset[str] = MISSING, bare: bool = False
) -> Generator[pd.DataFrame, None, None]:
    """The same in chunks of so many rows, of which only one is in memory; all at once with ``None``."""
    path = check_regular(path)
    with refusing(path, "table"), unpacked(path, MOST_BYTES if rows is None else None) as file:
        start = file.peek(4096)[:4096]
        _check_kind(start, path)
        check_no_utf16(start, path)
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        yield from _frames(path, text, rows, missing, bare)


def _check_kind(start: bytes, path: Path) -> None:
    """Refuse what is often taken for a table with commas: workbooks, Arrow, JSON, no header, semicolons, tabs.

    Raises:
        CosetError: It is one of these; the message says how to save it.
    """
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise CosetError(f"{path} is a workbook or an archive, no text; save the sheet as CSV in UTF-8")
    if start.startswith((b"ARROW1", b"FEA1")):
        raise CosetError(f"{path} is a file of Arrow or Feather, no text; save the table as Parquet or as CSV in UTF-8")
    header = start.partition(b"\n")[0]
    if start.lstrip().startswith((b"{", b"[{")) and b":" in header:
        raise CosetError(f"{path} is JSON, no table; save it as CSV in UTF-8")
    if path.suffix.lower() in (".smi", ".smiles"):
        raise CosetError(f"{path} has no row with the names of its columns; make it a CSV: smiles,TARGET and so on")
    if b"," in header or _delimiter(path) != ",":
        return
    if b";" in header:
        raise CosetError(f"{path} has semicolons between its cells; save it with commas, and numbers as in 1.5")
    if b"\t" in header:
        raise CosetError(f"{path} has tabs between its cells; call it {path.name.partition('.')[0]}.tsv")


def _delimiter(path: Path) -> str:
    return "\t" if ".tsv" in [suffix.lower() for suffix in path.suffixes] else ","


def _frames(
    path: Path, text: io.TextIOWrapper, rows: int | None, missing: frozenset[str], bare: bool
) -> Generator[pd.DataFrame, None, None]:
    delimiter = _delimiter(path)
    records = _records(path, text, delimiter)
    header = _header(path, next(records, (1, []))[1])
    cells: list[list[Any]] = []
    numbers: list[int] = []
    some = False
    for number, record in records:
        record = _fitted(record, header, path, number, delimiter)
        if not record:
            continue
        cells.append([None if cell in missing else cell for cell in record])
        numbers.append(number)
        if len(cells) == rows:
            some = True
            yield _frame(cells, numbers, header)
            cells, numbers = [], []
    if cells or (bare and not some):
        yield _frame(cells, numbers, header)
    elif not some:
        raise CosetError(f"{path} has no rows below its header ({', '.join(header)})")


def _records(path: Path, text: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of cells, numbered from 1."""
    reader, number = csv.reader(text, delimiter=delimiter, strict=True), 0
    while True:
        number += 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CosetError(f"{path}, row {number}: {error}") from error
        except UnicodeDecodeError as error:
            raise CosetError(
                f"{path}, near row {number}: the byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as "
                "UTF-8"
            ) from error
        yield number, record


def _header(path: Path, record: list[str]) -> list[str]:
    if not any(cell.strip() for cell in record):
        raise CosetError(f"{path} is empty: the first row must name the columns")
    while record and not record[-1].strip():  # commas at the end of each row
        record = record[:-1]
    names = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(record)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise CosetError(f"{path}: two columns are called {twice[0]!r}; give each a name of its own")
    return names


def _fitted(record: list[str], header: list[str], path: Path, number: int, delimiter: str) -> list[str]:
    """As many cells as the header has; empty for a blank row.

    Raises:
        CosetError: There are more, or fewer.
    """
    if not any(cell.strip() for cell in record):
        return []
    if len(record) > len(header) and not any(cell.strip() for cell in record[len(header) :]):
        record = record[: len(header)]
    if len(record) != len(header):
        why = ""
        if len(record) > len(header) and delimiter == ",":
            why = "; a decimal comma? write 1.5, or put cells with commas into quotes"
        raise CosetError(f"{path}, row {number} has {len(record)} cells, the header {len(header)}{why}")
    return record


def _frame(cells: list[list[Any]], numbers: list[int], header: list[str]) -> pd.DataFrame:
    return pd.DataFrame(cells, columns=header, index=numbers, dtype="str")


def escaped(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before texts that a spreadsheet would run as formulas; numbers stay.

    SMILES such as ``-C`` or ``=O`` do not occur: an atom comes first.
    """

    def cell(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value.strip()):
            return f"'{value}"
        return value

    return frame.rename(columns=cell).map(cell)
