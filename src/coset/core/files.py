"""Files written whole or not at all, and JSON without what JSON cannot say."""

import errno
import inspect
import json
import math
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from filelock import FileLock, Timeout

from coset.core.errors import CosetError

if TYPE_CHECKING:
    import numpy as np

LOCK = ".lock"
_HALF = re.compile(r"\..+\.[0-9a-f]{8}", re.DOTALL)


F = TypeVar("F", bound=Callable[..., Any])


def takes_paths(function: F) -> F:
    """A decorator: arguments that are to be a ``Path`` may be given as text.

    >>> @takes_paths
    ... def name_of(path: Path) -> str:
    ...     return path.name
    >>> name_of("runs/mine")
    'mine'
    """
    parameters = inspect.signature(function).parameters
    names, paths = list(parameters), {name for name, each in parameters.items() if _is_path(each.annotation)}

    @wraps(function)
    def taking(*args: Any, **options: Any) -> Any:
        given = [_path(value) if name in paths else value for name, value in zip(names, args, strict=False)]
        named = {name: _path(value) if name in paths else value for name, value in options.items()}
        return function(*given, *args[len(given) :], **named)

    taking.takes_paths = True  # type: ignore[attr-defined]
    return cast(F, taking)


def _is_path(annotation: Any) -> bool:
    return annotation is Path or re.fullmatch(r"(pathlib\.)?Path( \| None)?", str(annotation)) is not None


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name if the body succeeds, and is removed if it fails.

    So no reader ever sees half of a file, and a kill leaves the old one or the new one.

    Raises:
        CosetError: Its folder is missing or cannot be written.
    """
    part, mode = _beside(path)
    try:
        yield part
        part.chmod(mode)  # a library may have put a file of its own in its place
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        # Of a full disk torch.save tells in a message about its own state; the system's is behind it.
        known = error if isinstance(error, OSError) else error.__context__ if isinstance(error, RuntimeError) else None
        if isinstance(known, OSError):
            raise CosetError(f"cannot write {path}: {reason(known)}") from error
        raise


def _beside(path: Path) -> tuple[Path, int]:
    """A new empty file beside a path, and its mode: as the user's umask has it, which not every user may read."""
    while True:
        part = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        try:
            handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            raise CosetError(f"cannot write {path}: {reason(error)}") from error
        try:
            return part, stat.S_IMODE(os.fstat(handle).st_mode)
        finally:
            os.close(handle)


def holds_something(folder: Path) -> bool:
    """Whether a folder holds more than a lock and what a kill has left half-written."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return any(name != LOCK and not _HALF.fullmatch(name) for name in names)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        CosetError: Its folder is missing or cannot be written.
    """
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all.

    Raises:
        CosetError: Its folder is missing or cannot be written.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Strict JSON, indented: numbers that are not finite become null."""
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """Strict JSON in ASCII, without spaces unless indented; numbers that are not finite are null."""
    separators = None if indent else (",", ":")
    return json.dumps(_finite(value), allow_nan=False, indent=indent, separators=separators)


def write_arrays(path: Path, arrays: Mapping[str, "np.ndarray"]) -> None:
    """An NPZ file, whole or not at all.

    Raises:
        CosetError: Its folder is missing or cannot be written.
    """
    import numpy as np  # listing recipes should not import it

    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def unused(path: Path) -> Path:
    """The path, or the first of name-2, name-3, ... (``name-2.csv`` of a file) that does not exist."""
    number, candidate = 2, path
    ending = path.suffix if re.fullmatch(r"\.[a-z]+", path.suffix) else ""
    while candidate.exists():
        candidate = path.with_name(f"{path.name.removesuffix(ending)}-{number}{ending}")
        number += 1
    return candidate


def named_after(source: Path, ending: str, folder: Path = Path()) -> Path:
    """Where a command writes that is not told: a new file or folder that is named after what it reads.

    ``new.csv.gz`` and ``predictions.csv`` give ``new-predictions.csv``, or ``new-predictions-2.csv`` where that is
    there already.

    Args:
        source: What is read.
        ending: Of the name.
        folder: Where the result is to be; the working directory by default.
    """
    name = source.name or source.resolve().name
    return unused(folder / f"{name.partition('.')[0] or name.strip('.') or 'data'}-{ending}")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        CosetError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CosetError(f"cannot make {folder}: {reason(error)}") from error


@contextmanager
def claimed(lock: Path, what: Path) -> Iterator[None]:
    """An output for this process alone while the body runs.

    Args:
        lock: File to lock; it says who holds it.
        what: The output, for messages.

    Raises:
        CosetError: Another process writes it; host and number are named.
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
        while not lock.exists():  # who held it before has just removed it
            held.release()
            held.acquire(timeout=0)
    except Timeout:
        who = lock.read_text(encoding="utf-8", errors="replace")[:200] or "another process"
        raise CosetError(f"{what} is in use by {who}; wait for it, or choose another output") from None
    except OSError as error:
        raise CosetError(f"cannot write {what}: {reason(error)}") from error
    try:
        lock.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        held.release()


@contextmanager
def claimed_output(output: Path) -> Iterator[None]:
    """A file or folder to write for this process alone; its lock lies beside it while the body runs.

    Raises:
        CosetError: The folder that it is to be in is missing or cannot be written, or another process writes it.
    """
    if not output.parent.is_dir():  # the lock would make it
        raise CosetError(f"cannot write {output}: {os.strerror(errno.ENOENT)}")
    with claimed(output.with_name(f".{output.name}.lock"), output):
        yield


@contextmanager
def claimed_folder(folder: Path) -> Iterator[None]:
    """A folder to write, made if missing, for this process alone; one that was made and stays empty is removed.

    Raises:
        CosetError: It cannot be made, or another process writes it.
    """
    fresh = not folder.exists()
    make_folder(folder)
    try:
        with claimed(folder / LOCK, folder):
            yield
    except BaseException:
        if fresh and not any(folder.iterdir()):
            folder.rmdir()
        raise


def reason(error: OSError) -> str:
    """What the system says, without number and path."""
    return os.strerror(error.errno) if error.errno else str(error)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
