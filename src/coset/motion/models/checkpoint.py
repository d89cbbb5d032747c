"""Networks in files: safetensors, the sizes of the network beside the weights; and the one in the package."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coset.core.errors import CosetError, require
from coset.core.files import takes_paths, write_bytes
from coset.core.outside import parse_tree, tensors_with_metadata
from coset.motion.models.trackster4d import TracksTo4D

PRETRAINED = {"package": "trackster4d-films.safetensors", "package-small": "trackster4d-small.safetensors"}
"""The two networks of the package, as recipes call them: that of ``trackster4d/films`` and the one before it."""
BEFORE_ENCODINGS = {"encoding": "vaswani"}
"""Files that do not say how frames are encoded, the package's small one among them: there was only this way."""


@takes_paths
def save_model(model: TracksTo4D, path: Path, about: dict[str, Any] | None = None) -> None:
    """Write weights, sizes and ``about`` (how it was trained), whole or not at all.

    Weights whose values are those of bfloat16, as training with it leaves them, take two bytes each.

    Raises:
        CosetError: The file cannot be written.
    """
    torch_files = require("safetensors.torch", "motion")
    metadata = {"model": json.dumps(model.options), "about": json.dumps(about or {})}
    content = torch_files.save({k: _short(v).contiguous() for k, v in model.state_dict().items()}, metadata=metadata)
    write_bytes(path, _ordered(content))


def _short(weights: Tensor) -> Tensor:
    """In bfloat16 if nothing is lost by it."""
    short = weights.bfloat16()
    return short if torch.equal(short.to(weights.dtype), weights) else weights


def _ordered(content: bytes) -> bytes:
    """The same safetensors with its header in one order: what the library writes changes from time to time."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


@takes_paths
def load_model(path: Path) -> tuple[TracksTo4D, dict[str, Any]]:
    """A network in evaluation mode, and what is said about it.

    Raises:
        CosetError: The file is missing or holds no TracksTo4D network.
    """
    if path.suffix in (".pt", ".pth"):
        raise CosetError(f"{path}: a checkpoint of the authors' code is converted first, by coset motion convert")
    require("safetensors", "motion")
    state, metadata = tensors_with_metadata(path)
    about = parse_tree(metadata.get("about", "{}"), path, dict[str, Any])
    try:
        said = parse_tree(metadata["model"], path, dict[str, int | float | bool | str | None])
        wanted = sum(tensor.numel() for tensor in state.values())
        with torch.device("meta"):  # a size that the file does not hold would fill memory
            asked = TracksTo4D(**{**BEFORE_ENCODINGS, **said})  # type: ignore[arg-type]
        if sum(tensor.numel() for tensor in asked.state_dict().values()) > wanted:
            raise ValueError(f"its sizes {said} need more numbers than the {wanted:,} that it holds")
        model = TracksTo4D(**{**BEFORE_ENCODINGS, **said})  # type: ignore[arg-type]
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise CosetError(f"{path} holds no TracksTo4D network: {text[:200]}") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise CosetError(f"{path} holds weights that are not finite")
    return model.eval(), about


def pretrained(name: str = "package") -> tuple[TracksTo4D, dict[str, Any]]:
    """A network that comes with the package: ``package`` or the smaller ``package-small``."""
    with resources.as_file(resources.files("coset.motion").joinpath("pretrained", PRETRAINED[name])) as path:
        return load_model(path)
