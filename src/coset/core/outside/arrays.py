"""NPZ and NPY: shapes held against the bytes that are there, before memory is asked for."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from coset.core.errors import CosetError
from coset.core.outside.files import check_regular, refusing

MOST_BYTES = 1 << 32
"""Of all arrays together, after unpacking."""
_MAGIC = b"\x93NUMPY"


def read_arrays(
    path: Path | str, required: Sequence[str] = (), most: int = MOST_BYTES, *, mapped: bool = False
) -> dict[str, np.ndarray]:
    """Arrays of an NPZ by name; of an NPY, its one array under the name ``""``.

    Args:
        path: Of the file.
        required: Names that must be there.
        most: Bytes of all arrays together.
        mapped: An NPY is mapped into memory, not read.

    Raises:
        CosetError: It is neither, holds objects, claims more than there is or than the limit, or lacks an array.
    """
    path = check_regular(path)
    with refusing(path, "NPZ or NPY file"), open(path, "rb") as file:
        start = file.read(6)
        if start == _MAGIC:
            file.seek(0)
            _check_header(file, path.stat().st_size, f"{path}", most if not mapped else None)
            found = {"": np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)}
        else:
            found = _archive(file, path, most)
    missing = [name for name in required if name not in found]
    if missing:
        there = "a single array" if list(found) == [""] else f"{', '.join(sorted(found)) or 'nothing'}"
        raise CosetError(f"{path} lacks the array {missing[0]!r}: it holds {there}; needed are {', '.join(required)}")
    return found


def _archive(file: IO[bytes], path: Path, most: int) -> dict[str, np.ndarray]:
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        twice = [name for name in names if names.count(name) > 1] if len(names) < 1000 else []
        if twice or len(names) >= 1000:
            raise CosetError(f"{path} holds " + (f"two arrays {twice[0]!r}" if twice else f"{len(names)} arrays"))
        total = sum(member.file_size for member in members)
        if total > most:
            raise CosetError(f"{path}: unpacked, its arrays have {total:,} bytes; at most {most:,} are read")
        found = {}
        for name, member in zip(names, members):
            with archive.open(member) as packed:
                _check_header(packed, member.file_size, f"{path}, array {name!r}", most)
            with archive.open(member) as packed:
                found[name] = np.lib.format.read_array(packed, allow_pickle=False)
        return found


def _check_header(file: Any, size: int, where: str, most: int | None) -> None:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(file)
    if dtype.hasobject:
        raise CosetError(f"{where} holds Python objects, which are not read: save plain numbers")
    if any(side < 0 for side in shape):
        raise CosetError(f"{where} claims the shape {shape}")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed > there:
        raise CosetError(f"{where} claims the shape {shape}, {claimed:,} bytes; {max(there, 0):,} are there")
    if most is not None and claimed > most:
        raise CosetError(f"{where} has {claimed:,} bytes; at most {most:,} are read")
