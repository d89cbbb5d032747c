"""Read LoRA adapters: PEFT folders, diffusers and kohya files, state dicts, PEFT models in memory.

Layers are matched by name, never by position; the scale comes from the adapter's own configuration. Files are opened
with safetensors, or with PyTorch's loader for plain weights, so that reading a stranger's adapter runs no code of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.core.outside import read_tree, tensors_with_metadata
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair
from coset.weights.lora.data.keys import Key, parse_key
from coset.weights.lora.data.patterns import matches

FILES = (
    "adapter_model.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
)
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "eva_pissa")


V = TypeVar("V")
_Patterns = Annotated[dict[str, V], Field(max_length=10_000)]


class AdapterConfig(BaseModel):
    """What is used of ``adapter_config.json``; the rest is kept as it stands."""

    model_config = ConfigDict(extra="allow")

    peft_type: str = "LORA"
    r: Annotated[int, Field(ge=1)] | None = None
    lora_alpha: Annotated[float, Field(allow_inf_nan=False)] | None = None
    rank_pattern: _Patterns[Annotated[int, Field(ge=0)] | list[bool]] | None = None
    alpha_pattern: _Patterns[Annotated[float, Field(allow_inf_nan=False)]] | None = None
    use_rslora: bool | None = None
    init_lora_weights: bool | str | None = None
    modules_to_save: list[str] | None = None
    target_parameters: list[str] | None = None
    base_model_name_or_path: str | None = None


def load_lora(
    source: str | Path | Mapping[str, Tensor] | nn.Module,
    config: Mapping[str, Any] | None = None,
    adapter: str | None = None,
    name: str | None = None,
) -> LoraAdapter:
    """Read an adapter, whoever wrote it.

    Args:
        source: A folder (PEFT, diffusers), a file (safetensors or ``.bin``), a state dict, or a PEFT model.
        config: For a state dict, the entries of ``adapter_config.json``; without them the scale is 1 unless the
            tensors hold alphas.
        adapter: Which adapter, where there are several.
        name: What to call it; the file or folder by default.

    Raises:
        CosetError: There is no adapter, or it is damaged, ambiguous or of another kind; one line says which.
    """
    notes: list[str] = []
    state: Mapping[str, Tensor]
    if isinstance(source, nn.Module):
        state, config = _from_model(source, adapter)
        name = name or adapter or "adapter"
    elif isinstance(source, Mapping):
        state, name = source, name or adapter or "adapter"
    else:
        file, found = _locate(Path(source), adapter)
        state, metadata = tensors_with_metadata(file)
        config = config or found
        name = name or str(source)
        notes += _metadata_notes(metadata)
    try:
        return _assemble(state, dict(config or {}), adapter, name, notes)
    except CosetError as error:
        raise CosetError(f"{name}: {error}") from error


def _from_model(model: nn.Module, adapter: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    configs = getattr(model, "peft_config", None)
    if not configs:
        raise CosetError(f"{type(model).__name__} has no PEFT adapter")
    if adapter is None and len(configs) > 1:
        raise CosetError(f"the model has the adapters {', '.join(configs)}: choose one with adapter=")
    chosen = adapter or next(iter(configs))
    if chosen not in configs:
        raise CosetError(f"the model has no adapter {chosen!r}; it has {', '.join(configs)}")
    peft = require("peft", "weights")
    state = peft.get_peft_model_state_dict(model, adapter_name=chosen, save_embedding_layers=False)
    return state, configs[chosen].to_dict()


def _locate(path: Path, adapter: str | None) -> tuple[Path, dict[str, Any]]:
    """The file of weights, and the configuration beside it."""
    if path.is_file():
        beside = path.with_name("adapter_config.json") if path.name.startswith("adapter_model") else None
        return path, _config(beside) if beside is not None and beside.is_file() else {}
    if not path.is_dir():
        raise CosetError(f"{path} does not exist")
    folder = path / adapter if adapter and (path / adapter).is_dir() else path
    config = folder / "adapter_config.json"
    for file in FILES:
        if (folder / file).is_file():
            return folder / file, _config(config) if config.is_file() else {}
    if list(folder.glob("*.index.json")):
        raise CosetError(f"{folder} is sharded (*.index.json): save the adapter as one file")
    if config.is_file():
        raise CosetError(f"{folder} has adapter_config.json but no adapter_model.safetensors: the upload is incomplete")
    several = sorted(folder.glob("*.safetensors"))
    if len(several) == 1:
        return several[0], {}
    inside = sorted(p.parent.name for p in folder.glob("*/adapter_config.json"))
    if inside:
        raise CosetError(f"{folder} holds several adapters ({', '.join(inside[:5])}): give the folder of one")
    what = f"{len(several)} safetensors files: give one" if several else "no adapter (adapter_model.safetensors)"
    raise CosetError(f"{folder} holds {what}")


def _config(path: Path) -> dict[str, Any]:
    return read_tree(path, AdapterConfig, 1 << 22).model_dump(exclude_unset=True)


def _metadata_notes(metadata: Mapping[str, str]) -> list[str]:
    base = metadata.get("ss_sd_model_name") or metadata.get("modelspec.title")
    return [f"the file names its base model or title {base!r}"] if base else []


def _assemble(
    state: Mapping[str, Tensor], config: dict[str, Any], adapter: str | None, name: str, notes: list[str]
) -> LoraAdapter:
    _check_kind(config, notes)
    layers, conventions = _group(state, adapter, notes)
    if not layers:
        raise CosetError(f"no LoRA among its {len(state)} tensors (first key {next(iter(state), 'none')!r})")
    experts = bool(config.get("target_parameters"))
    pairs: dict[str, LoraPair] = {}
    for layer in sorted(layers, key=natural_key):
        for suffix, pair in _pairs(layer, layers[layer], config, experts):
            pairs[layer + suffix] = pair
    _look_over(pairs, layers, notes)
    base = config.get("base_model_name_or_path")
    convention = next(iter(conventions)) if len(conventions) == 1 else " and ".join(sorted(conventions))
    if convention != "peft" and not config and not any("alpha" in parts for parts in layers.values()):
        notes.append("no alpha anywhere: scale 1")
    elif convention == "peft" and not config:
        notes.append("no adapter_config.json: the scale is unknown and taken as 1")
    return LoraAdapter(pairs, name, base, convention, tuple(notes))


def _check_kind(config: dict[str, Any], notes: list[str]) -> None:
    kind = str(config.get("peft_type", "LORA")).rsplit(".", 1)[-1].upper()
    if kind not in ("LORA", "ADALORA"):
        raise CosetError(f"unsupported tuner {kind}: only LoRA, DoRA and AdaLoRA are read")
    start = str(config.get("init_lora_weights", "")).lower()
    if any(start.startswith(mark) for mark in _CHANGED_BASE):
        notes.append(f"initialised with {start}, which changed the base weights: B A is not all of it; convert it")
    if config.get("modules_to_save"):
        notes.append(f"modules trained in full are ignored: {', '.join(config['modules_to_save'])}")


def _group(
    state: Mapping[str, Tensor], adapter: str | None, notes: list[str]
) -> tuple[dict[str, dict[str, Tensor]], set[str]]:
    """Tensors by layer and part."""
    parsed: list[tuple[str, Key]] = []
    strangers: list[str] = []
    for key in state:
        found = parse_key(key)
        if found is None or found.part == "ignored":
            strangers.append(key)
        else:
            parsed.append((key, found))
    names = {key.adapter for _, key in parsed if key.adapter is not None}
    if adapter is None and len(names) > 1:
        raise CosetError(f"it holds several adapters ({', '.join(sorted(names))}): choose one with adapter=")
    if names and adapter is not None and adapter not in names:
        raise CosetError(f"it has no adapter {adapter!r}; it has {', '.join(sorted(names))}")
    layers: dict[str, dict[str, Tensor]] = {}
    for key, found in parsed:
        if found.adapter is not None and adapter is not None and found.adapter != adapter:
            continue
        parts = layers.setdefault(found.layer, {})
        if found.part in parts:
            raise CosetError(f"{found.layer} has two tensors for its {found.part} (the second is {key})")
        parts[found.part] = _plain(state[key], key)
    ignored = [key for key in strangers if "lora_ranknum" not in key]
    if ignored:
        notes.append(f"{len(ignored)} tensors that are no part of a LoRA are ignored ({ignored[0]}, ...)")
    return layers, {key.convention for _, key in parsed}


def _plain(tensor: Tensor, key: str) -> Tensor:
    """float32 (float64 stays), finite."""
    if not tensor.is_floating_point():
        raise CosetError(f"{key} has type {tensor.dtype}: a quantised adapter; save it in floating point")
    tensor = tensor.detach().cpu()
    tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
    if not bool(tensor.isfinite().all()):
        raise CosetError(f"{key} holds {int((~tensor.isfinite()).sum())} values that are NaN or infinite")
    return tensor


def _pairs(layer: str, parts: dict[str, Tensor], config: dict[str, Any], experts: bool) -> list[tuple[str, LoraPair]]:
    """One pair a layer, except where a parameter holds several experts."""
    if "embedding_down" in parts or "embedding_up" in parts:
        down, up = _both(layer, parts, "embedding_down", "embedding_up")
        pair = LoraPair(up, down.mT, _scale(layer, parts, down.size(0), config), "embedding")
        return [("", pair)]
    down, up = _both(layer, parts, "down", "up")
    if "mid" in parts:
        # CP decomposition: mid [r, r, h, w] between down [r, in, 1, 1] and up; contracted, a plain pair is left.
        down = torch.einsum("rshw,si->rihw", parts["mid"], down.flatten(1))
    rank = down.size(0)
    settled = _setting(layer, config, "r", "rank_pattern")
    if experts and down.dim() == 2 and settled and rank != settled and rank % settled == 0:
        return _expert_pairs(down, up, rank // settled, _scale(layer, parts, settled, config))
    if settled is not None and settled != rank and not _adaptive(config):
        raise CosetError(f"{layer} has rank {rank}, but adapter_config.json says {settled}")
    scale = _scale(layer, parts, rank, config)
    if "diagonal" in parts:
        down = down * parts["diagonal"].reshape(-1, *[1] * (down.dim() - 1))
    kernel = tuple(down.shape[1:]) if down.dim() > 2 else None
    if up.size(1) != rank:
        shapes = f"A is {tuple(down.shape)}, B is {tuple(up.shape)}"
        raise CosetError(f"{layer}: the ranks of its factors differ: {shapes}")
    if up.dim() > 2 and math.prod(up.shape[2:]) != 1:
        raise CosetError(f"{layer}: B has a spatial kernel {tuple(up.shape)}; only 1 x 1 is read")
    magnitude = parts["magnitude"].flatten() if "magnitude" in parts else None
    pair = LoraPair(
        up.reshape(up.size(0), rank), down.reshape(rank, -1).mT, scale, "linear" if kernel is None else "conv", kernel,
        magnitude,
    )  # fmt: skip
    return [("", pair)]


def _expert_pairs(down: Tensor, up: Tensor, experts: int, scale: float) -> list[tuple[str, LoraPair]]:
    """PEFT stores A as [experts * r, in], experts outermost, and B as [out, r * experts], experts innermost."""
    a = down.reshape(experts, -1, down.size(1))
    b = up.reshape(up.size(0), -1, experts)
    return [(f".expert{e}", LoraPair(b[:, :, e], a[e].mT, scale, "expert")) for e in range(experts)]


def _both(layer: str, parts: dict[str, Tensor], first: str, second: str) -> tuple[Tensor, Tensor]:
    for part, other in ((first, second), (second, first)):
        if part not in parts:
            there = "A (down)" if other.endswith("down") else "B (up)"
            gone = "B (up)" if other.endswith("down") else "A (down)"
            raise CosetError(f"{layer} has {there} but no {gone}" if other in parts else f"{layer} has no factors")
    return parts[first], parts[second]


def _setting(layer: str, config: dict[str, Any], key: str, pattern: str) -> Any:
    """A value of the configuration for a layer: the first pattern that matches it, or the general one."""
    for expression, value in (config.get(pattern) or {}).items():
        if matches(expression, layer):
            return value
    return config.get(key)


def _scale(layer: str, parts: dict[str, Tensor], rank: int, config: dict[str, Any]) -> float:
    if "alpha" in parts:
        return float(parts["alpha"]) / rank
    alpha = _setting(layer, config, "lora_alpha", "alpha_pattern")
    if alpha is None:
        return 1.0
    if _adaptive(config):
        return (float(alpha) if alpha > 0 else float(rank)) / (rank + 1e-5)  # as PEFT computes it
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _adaptive(config: dict[str, Any]) -> bool:
    return str(config.get("peft_type", "LORA")).rsplit(".", 1)[-1].upper() == "ADALORA"


def _look_over(pairs: dict[str, LoraPair], layers: dict[str, dict[str, Tensor]], notes: list[str]) -> None:
    dora = sum(pair.magnitude is not None for pair in pairs.values())
    if dora:
        notes.append(f"DoRA: {dora} layers have a magnitude; dW alone is not their update")
    if any("bias" in parts for parts in layers.values()):
        notes.append("biases of lora_B are ignored")
    zero = [name for name, pair in pairs.items() if not bool(pair.u.any()) or not bool(pair.v.any())]
    if len(zero) == len(pairs):
        notes.append("every update is zero: the adapter was never trained")
    elif zero:
        notes.append(f"{len(zero)} of {len(pairs)} updates are zero ({zero[0]}, ...)")


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts layer.2 before layer.10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
