"""Adapters in a folder and below, each of them once: links are followed, and two ways to one adapter are told."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coset.core.errors import CosetError
from coset.weights.lora.data.reading import CONFIG, FILES, natural_key

_SHOWN = 5
"""Links that a note names."""


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        paths: Of the adapters, folders or files, in natural order.
        notes: Links that are left out, since they lead to an adapter that has another path, too, or nowhere.
    """

    paths: list[Path]
    notes: list[str]


def adapters_below(folder: Path) -> Found:
    """Adapters in a folder, in those below it, and in those that links lead to; each once, without its links if it can.

    Adapters are the same if their factors are read from the same file. What is hidden, whose name or that of a folder
    above it below this one begins with a dot, is left out.

    Raises:
        CosetError: It is no folder, or holds none.
    """
    if not folder.is_dir():
        raise CosetError(f"{folder} is not a folder of adapters")
    candidates, again, dangling = _walked(folder)
    if not candidates:
        raise CosetError(f"{folder} holds no adapters (adapter_model.safetensors, *.safetensors)")
    real = Path(os.path.realpath(folder))

    def order(path: Path) -> tuple[bool, list[tuple[int, int | str]]]:
        weights = _weights(path)
        return os.path.realpath(weights) != str(real / weights.relative_to(folder)), natural_key(str(path))

    ways: dict[str, Path] = {}
    for path in sorted(candidates, key=order):
        first = ways.setdefault(os.path.realpath(_weights(path)), path)
        if first != path:
            again[path] = first
    links = [f"{way.relative_to(folder)} (is {first.relative_to(folder)})" for way, first in again.items()]
    notes = [f"links to what has another path, too, are left out: {_some(links)}"] if links else []
    notes += [f"links that lead nowhere: {_some(str(way.relative_to(folder)) for way in dangling)}"] if dangling else []
    return Found(sorted(ways.values(), key=lambda path: natural_key(str(path))), notes)


def _walked(folder: Path) -> tuple[set[Path], dict[Path, Path], list[Path]]:
    """What may be adapters; further ways to folders, each with the first; links that lead nowhere.

    A folder is entered once, by way of links only after all that need none, so that circles of links end.
    """
    found, again, dangling = set[Path](), dict[Path, Path](), list[Path]()
    entered: dict[str, Path] = {}
    waiting = deque([folder])
    while waiting:
        for place, folders, files in os.walk(waiting.popleft()):
            here = Path(place)
            first = entered.setdefault(os.path.realpath(here), here)
            if first != here:
                again[here] = first
                folders.clear()
                continue
            folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
            waiting.extend(here / name for name in folders if (here / name).is_symlink())
            for name in files:
                if name.startswith("."):
                    continue
                if name in (CONFIG, *FILES):
                    found.add(here)
                elif name.endswith(".safetensors"):
                    found.add(here / name)
                elif not (here / name).exists():
                    dangling.append(here / name)
    return found, again, dangling


def _weights(path: Path) -> Path:
    """The file that an adapter's factors are read from."""
    return next((path / name for name in FILES if (path / name).is_file()), path)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
