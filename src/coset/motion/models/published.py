"""Checkpoints of the authors' code (NVlabs/tracks-to-4d), which users hold, read as networks of ours.

The two networks are one function. What differs in the files: names; the order of the Fourier features (there by
frequency, here by channel); the order of the clouds in the point head (there by axis, here by cloud); no bias after
attention there; two rows of the camera head that nothing reads. Their network looks at the coordinates that a tracker
guesses for points that are not seen (``read_unseen``) and numbers frames by the published wavelengths.

A checkpoint does not say how many attention heads it has (16 in the released code), nor whether the focal length is
corrected (their command decides that). Its weights are licensed CC BY-NC 4.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.outside import read_saved
from coset.motion.models.trackster4d import CAMERA_CHANNELS, TracksTo4D

HEADS = 16
UNREAD = 2  # last rows of their camera head
WINDOW = 50  # frames of the longest clips they train on

OUTER = {
    "embed.0": "transformer_my.to_patch_embedding.0",
    "embed.1": "transformer_my.to_patch_embedding.1",
    "embed.2": "transformer_my.to_patch_embedding.2",
    "camera_head": "conv_final",
    "point_head": "fc1",
}
BLOCK = {
    "before_attention": "layers.0.0.norm",
    "qkv": "layers.0.0.to_qkv",
    "out": "layers.0.0.to_out",
    "before_mlp": "layers.0.1.net.0",
    "mlp.0": "layers.0.1.net.1",
    "mlp.2": "layers.0.1.net.3",
    "after": "norm",
}
"""Our modules and theirs, outside of the blocks and in a block."""


class _Sizes(NamedTuple):
    width: int
    blocks: int
    inner: int  # heads times their width
    hidden: int
    basis: int
    octaves: int
    kernel: int


def read_published(
    path: Path, heads: int = HEADS, predict_focal: bool = False
) -> tuple[TracksTo4D, dict[str, Any]]:  # fmt: skip
    """A checkpoint ``.pt`` of the authors' code as a network in evaluation mode, and what is to be said about it.

    Args:
        path: A dictionary with ``model_state_dict``, as their training writes it, or a bare state dict.
        heads: Attention heads; 16 in the released code.
        predict_focal: Whether focal lengths are corrected, as by their ``--predict_focal_length 1``.

    Raises:
        CosetError: The file is missing, holds more than tensors, numbers and texts, or does not fit.
    """
    content = read_saved(path)
    state = content.get("model_state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CosetError(f"{path} holds no weights; expected a dictionary with model_state_dict")
    try:
        model = from_published(state, heads, predict_focal)
    except ValueError as error:
        raise CosetError(f"{path}: {error}") from error
    about: dict[str, Any] = {"source": "checkpoint of NVlabs/tracks-to-4d", "file": path.name, "window": WINDOW}
    epoch = content.get("epoch")
    return model, about | ({"epoch": epoch} if isinstance(epoch, int) else {})


def from_published(state: Mapping[str, Tensor], heads: int = HEADS, predict_focal: bool = False) -> TracksTo4D:
    """A network of ours with the weights of one of theirs; the same outputs up to rounding, in evaluation mode.

    Args:
        state: Their ``model_state_dict``.
        heads: Attention heads.
        predict_focal: Whether focal lengths are corrected.

    Raises:
        ValueError: The state has other names or shapes, or numbers that are not finite.
    """
    sizes = _sizes(state)
    if heads < 1 or sizes.inner % heads:
        raise ValueError(f"attention is {sizes.inner} wide, which {heads} heads cannot share equally; give its heads")
    model = TracksTo4D(
        width=sizes.width, blocks=sizes.blocks, heads=heads, head_width=sizes.inner // heads, hidden=sizes.hidden,
        basis=sizes.basis, octaves=sizes.octaves, kernel=sizes.kernel, predict_focal=predict_focal, read_unseen=True,
    )  # fmt: skip
    model = model.to(state["fc1.weight"].dtype)
    wanted = model.state_dict()
    found = _in_our_order(state, _names(wanted), sizes)
    missing = [name for name in wanted if name not in found]
    for name in missing:
        found[name] = torch.zeros_like(wanted[name])  # the bias after attention
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            theirs = _names([name]).get(name, name)
            raise ValueError(f"{theirs} has shape {tuple(state[theirs].shape)}, which does not fit the rest")
    model.load_state_dict(found)
    return model.eval()


def fourier_order(octaves: int, channels: int = 3) -> Int[Tensor, " features"]:
    """Where each of our input features stands among theirs.

    Ours: sines by channel, then by octave; cosines; the values; 1. Theirs: the values; for each octave the sines of all
    channels, then the cosines; 1.
    """
    number = channels + torch.arange(2 * channels * octaves).view(
        octaves, 2, channels
    )  # octave, sine or cosine, channel
    values, one = torch.arange(channels), torch.tensor([channels * (2 * octaves + 1)])
    return torch.cat((number.permute(1, 2, 0).flatten(), values, one))


def cloud_order(basis: int) -> Int[Tensor, " rows"]:
    """Where each row of our point head (cloud, then axis; gamma last) stands in theirs (axis, then cloud)."""
    return torch.cat((torch.arange(3 * basis).view(3, basis).T.flatten(), torch.tensor([3 * basis])))


def _names(ours: Mapping[str, Tensor] | list[str]) -> dict[str, str]:
    """Their name of every parameter of ours that they have."""
    named = {}
    for name in ours:
        block = re.fullmatch(r"over_(frames|points)\.(\d+)\.(.+)\.(weight|bias)", name)
        if block is None:
            module, _, kind = name.rpartition(".")
            named[name] = f"{OUTER[module]}.{kind}"
        elif not name.endswith("out.bias"):
            over, number, module, kind = block.groups()
            named[name] = f"transformer_my.transformer_{over}.{number}.{BLOCK[module]}.{kind}"
    return named


def _sizes(state: Mapping[str, Tensor]) -> _Sizes:
    """All sizes that shapes tell.

    Raises:
        ValueError: They fit no network of theirs.
    """
    first = "transformer_my.transformer_frames.0"
    ranks = {"transformer_my.to_patch_embedding.1.weight": 2, "conv_final.weight": 3, "fc1.weight": 2}
    ranks |= {f"{first}.{BLOCK['out']}.weight": 2, f"{first}.{BLOCK['mlp.0']}.weight": 2}
    for name, rank in ranks.items():
        if name not in state:
            raise ValueError(f"no network of TracksTo4D's authors: it lacks {name} and holds {next(iter(state))}, ...")
        if state[name].dim() != rank:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}; expected {rank} axes")
    embed, conv, point, out, mlp = (state[name] for name in ranks)
    width, channels = embed.shape
    octaves, rest = divmod(channels - 4, 6)
    if rest or octaves < 1:
        raise ValueError(
            f"tokens are made of {channels} features; expected 6 per frequency and 4 (x, y, visibility and 1): "
            "networks that were trained without visibility cannot be used"
        )
    basis, rest = divmod(point.size(0) - 1, 3)
    if rest or conv.size(0) != CAMERA_CHANNELS + basis + UNREAD:
        raise ValueError(
            f"conv_final gives {conv.size(0)} numbers a frame and fc1 {point.size(0)} a point; "
            "expected K + 12 and 3 K + 1 with one K"
        )
    blocks = 1 + max(int(n) for n in re.findall(r"transformer_frames\.(\d+)\.", " ".join(state)))
    return _Sizes(width, blocks, out.size(1), mlp.size(0), basis, octaves, conv.size(2))


def _in_our_order(state: Mapping[str, Tensor], names: Mapping[str, str], sizes: _Sizes) -> dict[str, Tensor]:
    """Their tensors under our names, features and rows in our order.

    Raises:
        ValueError: A tensor is missing, one is left over, or one is not finite.
    """
    missing = [name for name in names.values() if name not in state]
    over = [name for name in state if name not in set(names.values())]
    if missing or over:
        what = f"it lacks {missing[0]}" if missing else f"nothing is known of {over[0]}"
        raise ValueError(f"no network of TracksTo4D's authors: {what}")
    features, clouds = fourier_order(sizes.octaves), cloud_order(sizes.basis)
    found = {}
    for ours, theirs in names.items():
        value = state[theirs]
        if not value.isfinite().all():
            raise ValueError(f"{theirs} has numbers that are not finite")
        if ours.startswith("embed.0.") and value.shape == features.shape:
            value = value[features]
        elif ours == "embed.1.weight":
            value = value[:, features]
        elif ours.startswith("camera_head."):
            value = value[:-UNREAD]
        elif ours.startswith("point_head.") and len(value) == len(clouds):
            value = value[clouds]
        found[ours] = value.contiguous()
    return found
