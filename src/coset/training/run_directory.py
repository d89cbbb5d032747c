"""The folder that a run leaves behind, written file by file, each whole or not at all."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from coset.errors import CosetError


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that no reader ever sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def create(path: Path) -> Path:
    """Make an empty folder for a run.

    Raises:
        CosetError: It holds files already, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / ".writable", "")
        (path / ".writable").unlink()
    except OSError as error:
        raise CosetError(
            f"cannot write to {path}: {error.strerror or error}; choose another folder with --output"
        ) from error
    if any(path.iterdir()):
        raise CosetError(f"{path} is not empty; choose another --output, or continue its run with --resume {path}")
    return path


def existing(path: Path) -> Path:
    """A folder that holds a run.

    Raises:
        CosetError: It does not.
    """
    if not (path / "recipe.yaml").is_file():
        raise CosetError(f"{path} holds no run: recipe.yaml is missing")
    return path
