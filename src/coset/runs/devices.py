"""Where a network is trained: ``device=auto``, ``cpu``, ``cuda`` or ``mps``."""

from __future__ import annotations

from typing import Any

import torch

from coset.core.errors import CosetError

ALL = ("auto", "cpu", "cuda", "mps")


def device_of(name: str) -> torch.device:
    """The device of a recipe's ``device``; ``auto`` is a CUDA device where there is one, else the CPU.

    Raises:
        CosetError: This machine, or this PyTorch, has none of that name.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[name]:
        found = ", ".join(each for each, is_there in there.items() if is_there)
        raise CosetError(f"device={name}: this machine, or this build of PyTorch, has none; there is {found}")
    return torch.device(name)


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, what has a method ``to``, and lists, tuples and dictionaries of such, on a device."""
    if isinstance(value, dict):
        return {key: moved(each, device) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(each, device) for each in value)
    return value.to(device) if hasattr(value, "to") else value
