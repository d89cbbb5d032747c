"""Data sets downloaded: checked against their checksums, converted, and written whole."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from coset.core.data_sets import DataSet, Download
from coset.core.errors import CosetError
from coset.core.files import claimed_folder, make_folder, reason, write_bytes

CHUNK = 1 << 20
LONGEST = 30.0
"""Seconds that a server may say nothing."""
LARGEST = 2 << 30
"""Bytes of a file; the largest that is known has a tenth of it."""


def download(
    wanted: DataSet,
    folder: Path,
    mirror: str | None = None,
    unverified: bool = False,
    each: Callable[[int], None] = lambda received: None,
) -> list[Path]:
    """The files of a data set, downloaded into a folder.

    Args:
        wanted: It.
        folder: Of data; made if missing. Files have the names under it that recipes look for.
        mirror: A folder or a URL that holds the downloads under the last parts of their own URLs.
        unverified: Keep files whose checksum is not the expected one.
        each: Is told how many bytes have come, piece by piece.

    Raises:
        CosetError: It is not had by downloading, a file cannot be had, is not the one expected, or cannot be written.
    """
    if wanted.fetch:
        _function(wanted.fetch)(Path(wanted.folder))
        return [Path(wanted.folder)]
    if not wanted.downloads:
        raise CosetError(f"{wanted.name} is not downloaded: {wanted.how}")
    make_folder(folder)
    with claimed_folder(folder / ".downloads"), tempfile.TemporaryDirectory(dir=folder / ".downloads") as room:
        received = [_receive(part, Path(room), number, mirror, unverified, each)
                    for number, part in enumerate(wanted.downloads)]  # fmt: skip
        written = []
        for name, content in _made(wanted, received):
            make_folder((folder / name).parent)
            write_bytes(folder / name, content)
            written.append(folder / name)
    shutil.rmtree(folder / ".downloads", ignore_errors=True)
    return written


def _made(wanted: DataSet, received: Sequence[Path]) -> Iterable[tuple[str, bytes]]:
    """Names and contents of the files: as they came, packed where the name says so, or converted."""
    if wanted.make:
        found: Iterable[tuple[str, bytes]] = _function(wanted.make)(received)
        yield from found
        return
    for name, path in zip(wanted.files, received, strict=True):
        content = path.read_bytes()
        yield name, gzip.compress(content, mtime=0) if name.endswith(".gz") and path.suffix != ".gz" else content


def _receive(
    part: Download, room: Path, number: int, mirror: str | None, unverified: bool, each: Callable[[int], None]
) -> Path:
    """One file, into a folder of its own: its name is the last part of its URL."""
    name = Path(urllib.parse.urlparse(part.url).path).name
    url = part.url if mirror is None else _mirrored(mirror, name)
    path = room / str(number) / name
    path.parent.mkdir()
    kind, _, expected = part.checksum.partition(":")
    state = hashlib.new(kind or "sha256", usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=LONGEST) as answer, path.open("wb") as file:
            size = 0
            while piece := answer.read(CHUNK):
                size += len(piece)
                if size > LARGEST:
                    raise CosetError(f"{url} has more than {LARGEST >> 30} GiB: it is not the file expected")
                state.update(piece)
                file.write(piece)
                each(len(piece))
    except (OSError, ValueError) as error:
        raise CosetError(f"{url} cannot be had: {_why(error)}; coset data get --mirror takes the file from a folder "
                         "or another address") from error  # fmt: skip
    if expected and state.hexdigest() != expected and not unverified:
        raise CosetError(
            f"{url} has the {kind} checksum {state.hexdigest()}, not {expected}: it is damaged, or has been changed "
            "since (--unverified keeps it)"
        )
    return path


def _mirrored(mirror: str, name: str) -> str:
    is_url = urllib.parse.urlparse(mirror).scheme in ("http", "https", "file")
    return f"{mirror.rstrip('/')}/{name}" if is_url else (Path(mirror).expanduser().absolute() / name).as_uri()


def _why(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"the server answers {error.code}"
    return reason(inner) if isinstance(inner, OSError) else str(inner)


def _function(place: str) -> Callable[..., Iterable[tuple[str, bytes]]]:
    module, _, name = place.partition(":")
    function: Callable[..., Iterable[tuple[str, bytes]]] = getattr(importlib.import_module(module), name)
    return function
