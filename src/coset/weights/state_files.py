"""State dicts in safetensors files: written whole or not at all, read without running any code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.core.files import replacing, takes_paths
from coset.core.outside import read_tensors


@takes_paths
def save_state(model: nn.Module, path: Path) -> Path:
    """Write a network's state dict; fixed entries and gates are in it.

    Raises:
        CosetError: The file cannot be written.
    """
    return save_tensors(model.state_dict(), path)


def save_tensors(state: Mapping[str, Tensor], path: Path) -> Path:
    """Write tensors by name.

    Raises:
        CosetError: The file cannot be written.
    """
    safetensors = require("safetensors.torch", "weights")
    # Copies: the format refuses tensors that share memory.
    state = {name: value.detach().clone().contiguous() for name, value in state.items()}
    with replacing(path) as part:
        safetensors.save_file(state, part)
    return path


@takes_paths
def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: ``.safetensors``, or a ``.pt``/``.pth``/``.bin``/``.ckpt`` of tensors alone.

    Raises:
        CosetError: The file is missing, or holds something else.
    """
    return read_tensors(path)


def check_one_model(single: Path, shards: Iterable[str], index: Path) -> None:
    """That a folder holds one model, of which ``transformers`` reads the single file and others the shards.

    Raises:
        CosetError: It holds both.
    """
    if single.is_file() and single.name not in shards:
        raise CosetError(f"{single.parent} holds {single.name} and shards by {index.name}: two models; remove one")
