"""Adapters of mlx-lm, Apple's trainer, as PEFT would have them.

``adapters.safetensors`` holds ``layer.lora_a`` [in, r] and ``layer.lora_b`` [r, out] of x + scale (x A) B, so that the
update is scale B^T A^T; of an embedding [words, r] and [r, width], scale A B. DoRA's magnitudes are ``layer.m``. The
scale is in ``adapter_config.json`` (``lora_parameters``), whose rank does not divide it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coset.core.errors import CosetError

FACTOR = re.compile(r"^(?P<layer>.+)\.lora_(?P<side>a|b)$")
EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embeddings?)$")


def is_mlx(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are called as mlx-lm calls them."""
    return any(FACTOR.match(key) for key in state)


def as_peft(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings in the words of PEFT, with an alpha a layer if the scale is told.

    What is no factor keeps its name.

    Raises:
        CosetError: Factors are quantised, or of experts that lie in one tensor.
    """
    made: dict[str, Tensor] = {}
    layers = {match["layer"] for key in state if (match := FACTOR.match(key))}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        match = FACTOR.match(key)
        if match is None:
            magnitude = part == "m" and layer in layers
            made[f"{layer}.lora_magnitude_vector.weight" if magnitude else key] = value
            continue
        if f"{key}_scales" in state or not value.is_floating_point():
            raise CosetError(f"{key} is quantised (mlx-lm): save the adapter in floating point")
        if value.dim() != 2:
            raise CosetError(
                f"{key} has shape {tuple(value.shape)}: LoRAs of experts in one tensor (mlx-lm) are not read"
            )
        side = match["side"].upper()
        name = f"lora_embedding_{side}" if EMBEDDING.search(layer) else f"lora_{side}.weight"
        made[f"{layer}.{name}"] = value.T
    scale = (config.get("lora_parameters") or {}).get("scale")
    if isinstance(scale, int | float):
        ranks = {layer: state[f"{layer}.lora_b"].size(0) for layer in layers if f"{layer}.lora_b" in state}
        made |= {
            f"{layer}.alpha": torch.tensor(float(scale) * rank, dtype=torch.float64) for layer, rank in ranks.items()
        }
    return made, {"base_model_name_or_path": config["model"]} if isinstance(config.get("model"), str) else {}
