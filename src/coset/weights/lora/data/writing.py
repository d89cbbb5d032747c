"""Write adapters: as a PEFT folder, or as a file in kohya's naming."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from torch import Tensor

from coset.core.errors import CosetError, require
from coset.core.files import write_bytes, write_json
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair


def save_peft(adapter: LoraAdapter, folder: Path) -> Path:
    """A folder that PEFT loads: the scale is inside the factors, so that alpha equals the rank everywhere.

    Raises:
        CosetError: It holds experts, whose joint tensors PEFT keeps per parameter; or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, pair in adapter.layers.items():
        if pair.kind == "expert":
            raise CosetError(f"{adapter.name}: {name} is one expert of a parameter, which cannot be written for PEFT")
        u, v = pair.factors()
        prefix = f"base_model.model.{name}."
        if pair.kind == "embedding":
            tensors |= {prefix + "lora_embedding_A": v.mT, prefix + "lora_embedding_B": u}
        else:
            down, up = _unfolded(pair, u, v)
            tensors |= {prefix + "lora_A.weight": down, prefix + "lora_B.weight": up}
        if pair.magnitude is not None:
            tensors[prefix + "lora_magnitude_vector"] = pair.magnitude
    ranks = Counter(pair.rank for pair in adapter.layers.values())
    common = ranks.most_common(1)[0][0]
    other = {name: pair.rank for name, pair in adapter.layers.items() if pair.rank != common}
    config = {
        "peft_type": "LORA", "base_model_name_or_path": adapter.base_model, "r": common, "lora_alpha": common,
        "rank_pattern": other, "alpha_pattern": other, "target_modules": list(adapter.layers), "bias": "none",
        "use_dora": any(pair.magnitude is not None for pair in adapter.layers.values()),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    _save(tensors, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", config)
    return folder


def save_kohya(adapter: LoraAdapter, file: Path) -> Path:
    """One safetensors file with ``lora_down``, ``lora_up`` and ``alpha`` for each layer.

    Raises:
        CosetError: Two layers get the same flat name, or the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, pair in adapter.layers.items():
        flat = name.replace(".", "_")
        if f"{flat}.alpha" in tensors:
            raise CosetError(f"{adapter.name}: {name} and another layer are both called {flat} by kohya")
        down, up = _unfolded(pair, pair.u, pair.v)
        alpha = pair.u.new_tensor(pair.scale * pair.rank)
        tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": alpha}
        if pair.magnitude is not None:
            tensors[f"{flat}.dora_scale"] = pair.magnitude
    file.parent.mkdir(parents=True, exist_ok=True)
    _save(tensors, file)
    return file


def _unfolded(pair: LoraPair, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A and B in the shapes of the layer they belong to."""
    if pair.kernel is None:
        return v.mT, u
    ones = [1] * (len(pair.kernel) - 1)
    return v.mT.reshape(pair.rank, *pair.kernel), u.reshape(*u.shape, *ones)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    contiguous = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, require("safetensors.torch", "weights").save(contiguous))
