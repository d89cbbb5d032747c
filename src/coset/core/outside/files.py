"""Regular files alone, no more of them than a limit, also after unpacking."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coset.core.errors import CosetError
from coset.core.files import reason

MOST_BYTES = 1 << 28
"""Of a file that is read at once, after unpacking."""
PACKED = (".gz", ".bz2", ".xz", ".zip")
LONGEST_NAME = 200
"""Letters of a file that another one names: file systems have room for 255 bytes."""


@contextmanager
def refusing(path: Path | str, what: str) -> Iterator[None]:
    """Whatever a reader stumbles upon in the body, told in one line that names the file.

    Args:
        path: Of the file.
        what: It should have been, e.g. ``JSON``.

    Raises:
        CosetError: For any exception.
    """
    try:
        yield
    except CosetError:
        raise
    except UnicodeDecodeError as error:
        raise CosetError(f"{path} is not {what} in UTF-8: {_encoding_of(error)}") from error
    except MemoryError as error:
        raise CosetError(f"{path} is no {what} that fits into memory") from error
    except RecursionError as error:
        raise CosetError(f"{path} is no {what} that can be read: it is nested too deep") from error
    except OSError as error:  # pyarrow's have no number, and several lines
        raise CosetError(f"{path} cannot be read: {' '.join(reason(error).split())[:300]}") from error
    except Exception as error:  # each library has errors of its own for a damaged file
        text = " ".join(str(error).split()) or type(error).__name__
        raise CosetError(f"{path} is no {what} that can be read: {text[:300]}") from error


def check_regular(path: Path | str, most: int | None = None) -> Path:
    """The path of a regular file.

    Args:
        path: Of the file.
        most: Bytes that it may have.

    Raises:
        CosetError: It is missing, a folder, a pipe or a device, or has more bytes.
    """
    path = Path(path)
    try:
        found = os.stat(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise CosetError(f"{path}: no such file" if missing else f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:  # a zero byte in the name
        raise CosetError(f"{str(path)!r} is no name of a file") from error
    if stat.S_ISDIR(found.st_mode):
        raise CosetError(f"{path} is a folder; a file was expected")
    if not stat.S_ISREG(found.st_mode):
        raise CosetError(f"{path} is a pipe or a device: only regular files are read; save it as one first")
    if most is not None and found.st_size > most:
        raise CosetError(f"{path} has {found.st_size:,} bytes; at most {most:,} are read")
    return path


def inside(folder: Path, name: Any, named_by: Path | str) -> Path:
    """A file that another one names, which must lie in the folder.

    Args:
        folder: In which it must be.
        name: What the other file says.
        named_by: The other file, for messages.

    Raises:
        CosetError: It is no name, or leads out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise CosetError(f"{named_by} names a file {name!r}: a name was expected")
    if len(name) > LONGEST_NAME:
        raise CosetError(f"{named_by} names a file by {len(name):,} letters; at most {LONGEST_NAME} are read")
    place = Path(os.path.normpath(folder / name))
    if not place.is_relative_to(os.path.normpath(folder)) or place == Path(os.path.normpath(folder)):
        raise CosetError(f"{named_by} names the file {name!r}, which is not in {folder}")
    return place


def read_bytes(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """All of a file; what ends with .gz, .bz2, .xz or .zip (of one file) is unpacked.

    Raises:
        CosetError: It is no regular file, cannot be unpacked, or holds more than the limit.
    """
    path = check_regular(path)
    with refusing(path, "file"), unpacked(path, most) as file:
        return file.read()


def read_text(path: Path | str, most: int = MOST_BYTES, encoding: str = "utf-8") -> str:
    """All of a text file, unpacked; a mark of the encoding at its beginning is taken off.

    Raises:
        CosetError: As :func:`read_bytes`, or it has another encoding; of UTF-16 that is told.
    """
    return decode(read_bytes(path, most), path, encoding)


def decode(content: bytes, path: Path | str, encoding: str = "utf-8") -> str:
    """Text of a file's bytes; see :func:`read_text`."""
    check_no_utf16(content[:4096], path)
    try:
        return content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CosetError(
            f"{path}, line {line}: the byte 0x{content[error.start]:02x} is not {encoding.upper()}; save the file as "
            f"{encoding.upper()}"
        ) from error


def lines_of(path: Path | str, most: int = MOST_BYTES, encoding: str = "utf-8") -> list[str]:
    """The lines of a text file, unpacked, without their ends."""
    return read_text(path, most, encoding).splitlines()


def check_no_utf16(start: bytes, path: Path | str) -> None:
    """Raise a CosetError if a file begins as UTF-16 or UTF-32 does, or holds zero bytes."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise CosetError(f"{path} is in UTF-16 (or UTF-32): save it as UTF-8")
    if b"\0" in start:
        even, odd = start[0::2].count(0), start[1::2].count(0)
        wide = max(even, odd) > len(start) // 4
        raise CosetError(f"{path} " + ("is in UTF-16: save it as UTF-8" if wide else "holds zero bytes: it is no text"))


@contextmanager
def unpacked(path: Path, most: int | None) -> Iterator[io.BufferedReader]:
    """A file to read from, unpacked by its name's end.

    Raises:
        CosetError: While it is read: it holds more bytes than the limit.
    """
    with open(path, "rb") as raw:
        kind = path.suffix.lower()
        if kind == ".zip":
            with zipfile.ZipFile(raw) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
                if len(members) != 1:
                    raise CosetError(f"{path} holds {len(members)} files: pack one alone")
                with archive.open(members[0]) as file:
                    yield _limited(file, path, most)
            return
        opener: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(kind)
        if opener is None:
            yield _limited(raw, path, most)
            return
        with opener(raw, "rb") as file:
            yield _limited(file, path, most)


def _limited(file: Any, path: Path, most: int | None) -> io.BufferedReader:
    return io.BufferedReader(_Limited(file, path, most), 1 << 20)


class _Limited(io.RawIOBase):
    """Counts what is read."""

    def __init__(self, file: Any, path: Path, most: int | None):
        self._file, self._path, self._left = file, path, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        if self._left is not None:
            self._left -= len(content)
            if self._left < 0:
                packed = "unpacked, " if self._path.suffix.lower() in PACKED else ""
                raise CosetError(f"{self._path}: {packed}it holds more bytes than are read at once")
        buffer[: len(content)] = content
        return len(content)


def _encoding_of(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x}"
