"""NPZ and NPY: shapes held against the bytes that are there, before memory is asked for."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


class ArrayArchive:
    """An open NPZ of which nothing is read but what is asked for; what is not may be large, or objects.

    Attributes:
        path: Of the file.
        names: Of its arrays.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, most: int):
        self.path, self._archive, self._left = path, archive, most
        self._members = dict(zip(_names(archive, path), archive.infolist()))
        self.names = sorted(self._members)

    def shape(self, name: str) -> tuple[int, ...]:
        """That an array claims; the array is not read, and may be of objects."""
        with self._archive.open(self._members[name]) as packed:
            shape = _header(packed)[0]
        if any(side < 0 for side in shape):
            raise CosetError(f"{self.path}, array {name!r} claims the shape {shape}")
        return shape

    def read(self, name: str) -> np.ndarray:
        """An array.

        Raises:
            CosetError: It holds objects, claims more than there is, or with those read before more than the limit.
        """
        member = self._members[name]
        with self._archive.open(member) as packed:
            _check_header(packed, member.file_size, f"{self.path}, array {name!r}", self._left)
        self._left -= member.file_size
        with self._archive.open(member) as packed:
            return np.lib.format.read_array(packed, allow_pickle=False)


@contextmanager
def array_archive(path: Path | str, most: int = MOST_BYTES) -> Iterator[ArrayArchive]:
    """An NPZ, of which nothing is read yet.

    Args:
        path: Of the file.
        most: Bytes of all arrays that are asked for.

    Raises:
        CosetError: It is missing, or no NPZ, also if this shows only while it is read.
    """
    path = check_regular(path)
    with refusing(path, "NPZ or NPY file"), open(path, "rb") as file:
        if file.read(6) == _MAGIC:
            raise CosetError(f"{path} holds a single array; an NPZ was expected")
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            yield ArrayArchive(path, archive, most)


def _names(archive: zipfile.ZipFile, path: Path) -> list[str]:
    names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
    twice = [name for name in names if names.count(name) > 1] if len(names) < 1000 else []
    if twice or len(names) >= 1000:
        raise CosetError(f"{path} holds " + (f"two arrays {twice[0]!r}" if twice else f"{len(names)} arrays"))
    return names


def _archive(file: IO[bytes], path: Path, most: int) -> dict[str, np.ndarray]:
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        members, names = archive.infolist(), _names(archive, path)
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


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type that an NPY claims."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return reader(file)


def _check_header(file: Any, size: int, where: str, most: int | None) -> None:
    shape, _, dtype = _header(file)
    if dtype.hasobject:
        raise CosetError(f"{where} holds Python objects, which are not read: save plain numbers")
    if any(side < 0 for side in shape):
        raise CosetError(f"{where} claims the shape {shape}")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed > there:
        raise CosetError(f"{where} claims the shape {shape}, {claimed:,} bytes; {max(there, 0):,} are there")
    if most is not None and claimed > most:
        raise CosetError(f"{where} has {claimed:,} bytes; at most {most:,} are read")
