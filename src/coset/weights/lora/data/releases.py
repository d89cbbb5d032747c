"""Which diffusion model layers belong to, where several share the names of modules and not those of first releases.

Flux and HunyuanVideo have blocks of one naming in diffusers, and SD 3 and Qwen-Image have parts of it; in their first
releases they are called otherwise. What tells them apart: what the file says of its base, modules that one of them has
alone, the width of its layers, numbers of blocks (a number that is too large, or all of one model and none more).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

FLUX, HUNYUAN, QWEN = "flux", "hunyuan", "qwen-image"
NAMED = (FLUX, HUNYUAN)
"""Those whose first release has other names, which are known; that of Qwen-Image has the same."""
_LEAST_WHOLE = 8
"""Blocks from which on an adapter that has all of a model's is taken to be of that model."""


@dataclass(frozen=True)
class Release:
    """A model.

    Attributes:
        double: Blocks of two streams.
        single: Blocks of one.
        widths: Of its streams.
        own: Modules that it has alone.
        lacking: Modules that it has not, though others have.
        called: What a text has to hold to mean it.
    """

    double: tuple[int, ...]
    single: int
    widths: tuple[int, ...]
    own: str
    lacking: str
    called: str


_RELEASES = {
    FLUX: Release((19,), 38, (3072,), r"x_embedder$", r"context_embedder\.|x_embedder\.|attn2\.", r"flux"),
    HUNYUAN: Release((20,), 40, (3072,), r"context_embedder\.|x_embedder\.", r"(x|context)_embedder$|attn2\.",
                     r"hunyuan"),
    "sd3": Release((24, 38), 0, (1536, 2432), r"transformer_blocks\.\d+\.attn2\.|pos_embed\.", r"single_|x_embedder",
                   r"stable-diffusion-3|\bsd-?3"),
    QWEN: Release((60,), 0, (3072,), r"transformer_blocks\.\d+\.(img|txt)_(mlp|mod)\.",
                  r"single_|\.ff(_context)?\.|\.norm1(_context)?\.|embedder", r"qwen-?image"),
}  # fmt: skip


def called_in(*texts: str | None) -> tuple[str, ...]:
    """The models that texts about a base model name."""
    said = " ".join(text for text in texts if text).lower()
    return tuple(name for name, release in _RELEASES.items() if re.search(release.called, said))


def written_as(layers: Iterable[str]) -> tuple[str, ...]:
    """The models whose first release layers are named after; none if they are named in another way."""
    layers = list(layers)
    if any(re.search(_HUNYUANS, name) for name in layers):
        return (HUNYUAN,)
    if any(re.match(r"lora_unet_.*((img|txt)_mlp_[02]|(mod|modulation)_lin)$", name) for name in layers):
        return (FLUX,)  # with dots ComfyUI calls Hunyuan's so as well
    return NAMED if any(re.search(r"(^|[._])(double|single)_blocks[._]\d|final_layer[._]", n) for n in layers) else ()


_HUNYUANS = r"(img|txt)_mlp[._]fc[12]$|(mod|modulation)[._]linear$|individual_token_refiner"


def candidates(shapes: Mapping[str, tuple[int, int]], among: Collection[str] = ()) -> list[str]:
    """The models that layers can be of.

    Args:
        shapes: Rows and columns, by path below the transformer.
        among: Those that the file allows; all if there are none.
    """
    left = [name for name in _RELEASES if not among or name in among]
    left = [name for name in left if any(re.match(_RELEASES[name].own, path) for path in shapes)] or left
    left = [name for name in left if not any(re.search(_RELEASES[name].lacking, path) for path in shapes)]
    double, single = (_numbers(shapes, mark) for mark in ("transformer_blocks", "single_transformer_blocks"))
    left = [
        name for name in left
        if max(double, default=-1) < max(_RELEASES[name].double) and max(single, default=-1) < _RELEASES[name].single
    ]  # fmt: skip
    width = {m for path, (_, m) in shapes.items() if re.search(r"\.attn\.(to_[qkv]|add_[qkv]_proj)$", path)}
    if len(width) == 1 and width <= {w for release in _RELEASES.values() for w in release.widths}:
        left = [name for name in left if width <= set(_RELEASES[name].widths)]
    whole = [
        name for name in left if _whole(double, _RELEASES[name].double) or _whole(single, (_RELEASES[name].single,))
    ]
    return whole or left


def _whole(found: set[int], counts: tuple[int, ...]) -> bool:
    return any(count >= _LEAST_WHOLE and found == set(range(count)) for count in counts)


def _numbers(paths: Iterable[str], mark: str) -> set[int]:
    return {int(match[1]) for path in paths if (match := re.match(rf"{mark}\.(\d+)\.", path))}
