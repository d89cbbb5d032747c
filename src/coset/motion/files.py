"""Files written whole or not at all, and JSON without what JSON cannot say."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from coset.errors import CosetError


def write_bytes(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename.

    Raises:
        CosetError: The file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise CosetError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CosetError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        CosetError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CosetError(f"cannot make {folder}: {error.strerror or error}") from error


def json_text(value: Any, indent: int | None = None) -> str:
    """Strict JSON in ASCII; numbers that are not finite are null."""
    separators = None if indent else (",", ":")
    return json.dumps(_finite(value), allow_nan=False, indent=indent, separators=separators)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
