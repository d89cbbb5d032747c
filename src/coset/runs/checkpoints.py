"""Checkpoints: written whole or not at all, and sure of which recipe they belong to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coset.core.errors import CosetError
from coset.core.outside import read_saved


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents; nothing in it is executed.

    Raises:
        CosetError: It is missing, or no checkpoint.
    """
    if not path.is_file():
        raise CosetError(f"{path} is missing: the run has not finished an epoch")
    found = read_saved(path)
    if not isinstance(found, dict):
        raise CosetError(f"{path} is no checkpoint: it holds a {type(found).__name__}")
    return found


def check_belongs(path: Path, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare what a checkpoint was made with against what it is wanted for.

    Raises:
        CosetError: They differ; the message names the first key that does.
    """
    found, wanted = _flat(stored), _flat(expected)
    for key in wanted:
        if found.get(key) != wanted[key]:
            raise CosetError(
                f"{path} belongs to another recipe: its {key} is {found.get(key)!r}, the recipe's is {wanted[key]!r}"
            )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, Mapping) else {f"{prefix}{key}": entry}
    return flat
