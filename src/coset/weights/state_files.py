"""State dicts in safetensors files: written whole or not at all, read without running any code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.core.files import replacing


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


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: ``.safetensors``, or a ``.pt``/``.pth``/``.bin``/``.ckpt`` of tensors alone.

    Raises:
        CosetError: The file is missing, or holds something else.
    """
    if not path.is_file():
        raise CosetError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return require("safetensors.torch", "weights").load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CosetError:
        raise
    except Exception as error:  # a broken or dangerous file, whatever the reader calls it
        raise CosetError(f"{path} holds no state dict that can be read safely: {str(error).splitlines()[0]}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()) or not state:
        raise CosetError(f"{path} holds no state dict: a dictionary of tensors is needed")
    return state
