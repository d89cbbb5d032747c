"""Read LoRA adapters: PEFT and mlx-lm folders, diffusers and kohya files, state dicts, PEFT models in memory.

Layers are matched by name, never by position; the scale comes from the adapter's own configuration. Files are opened
with safetensors, or with PyTorch's loader for plain weights, so that reading a stranger's adapter runs no code of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool
from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.core.options import no_answer
from coset.core.outside import read_tree, tensors_with_metadata
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair
from coset.weights.lora.data.keys import Key, parse_key
from coset.weights.lora.data.mlx import as_peft, is_mlx
from coset.weights.lora.data.products import is_product, product
from coset.weights.lora.data.releases import called_in
from coset.weights.lora.data.settings import Settings

FILES = (
    "adapter_model.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
    "adapters.safetensors",
)
CONFIG = "adapter_config.json"
_SAVED = "base_model.model."
"""Of PEFT's tensors those that are no factors: parameters that were trained in full."""
_FACTORS = ("down", "up", "mid", "diagonal", "embedding_", "hada_", "lokr_")
"""Beginnings of parts of a layer that are multiplied with one another."""
_LOADED_BY_NAME = ("unet.", "transformer.", "text_encoder", "diffusion_model.")
"""Beginnings of layers of files whose own loaders take the scale as 1 where they tell none."""
_ABOUT_BASE = ("ss_base_model_version", "modelspec.architecture", "ss_sd_model_name")
"""What kohya's tools write into headers about the model that an adapter belongs to."""


V = TypeVar("V")
_Patterns = Annotated[dict[str, Annotated[V, BeforeValidator(no_answer)]], Field(max_length=10_000)]


class AdapterConfig(BaseModel):
    """What is used of ``adapter_config.json``; the rest is kept as it stands."""

    model_config = ConfigDict(extra="allow")

    peft_type: str = "LORA"
    r: Annotated[int, Field(ge=1, strict=True)] | None = None
    lora_alpha: Annotated[float, Field(allow_inf_nan=False), BeforeValidator(no_answer)] | None = None
    rank_pattern: _Patterns[Annotated[int, Field(ge=0)] | list[bool]] | None = None
    alpha_pattern: _Patterns[Annotated[float, Field(allow_inf_nan=False)]] | None = None
    use_rslora: StrictBool | None = None
    init_lora_weights: bool | str | None = None
    modules_to_save: list[str] | None = None
    target_parameters: list[str] | None = None
    base_model_name_or_path: str | None = None


def load_lora(
    source: str | Path | Mapping[str, Tensor] | nn.Module,
    config: Mapping[str, Any] | None = None,
    adapter: str | None = None,
    name: str | None = None,
    alpha: float | None = None,
) -> LoraAdapter:
    """Read an adapter, whoever wrote it.

    What the file says of the update is in the result, or named in its ``obstacles``.

    Args:
        source: A folder (PEFT, diffusers), a file (safetensors or ``.bin``), a state dict, or a PEFT model.
        config: For a state dict, the entries of ``adapter_config.json``; without them the scale is 1 unless the
            tensors hold alphas, and an obstacle says so.
        adapter: Which adapter, where there are several.
        name: What to call it; the file or folder by default.
        alpha: Of all layers, where nothing tells it.

    Raises:
        CosetError: There is no adapter, or it is damaged, ambiguous or of another kind; one line says which.
    """
    metadata: dict[str, str] = {}
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
    try:
        of_mlx = is_mlx(state)
        if of_mlx:
            state, config = as_peft(state, config or {})
        settings = Settings.of(dict(config or {}), metadata, alpha)
        read = _assemble(state, settings, adapter, name, _metadata_notes(metadata))
        read = replace(read, source_format="mlx") if of_mlx else read
        return replace(read, models=called_in(read.base_model, *(metadata.get(key) for key in _ABOUT_BASE)))
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
        known = path.name.startswith("adapter_model") or path.name.endswith("adapters.safetensors")
        beside = path.with_name("adapter_config.json") if known else None
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
    if len(inside) == 1:
        raise CosetError(f"{folder} is no adapter itself: give {folder / inside[0]}")
    if inside:
        raise CosetError(f"{folder} holds several adapters ({', '.join(inside[:5])}): give the folder of one")
    what = f"{len(several)} safetensors files: give one" if several else "no adapter (adapter_model.safetensors)"
    raise CosetError(f"{folder} holds {what}")


def _config(path: Path) -> dict[str, Any]:
    return read_tree(path, AdapterConfig, 1 << 22).model_dump(exclude_unset=True)


def _metadata_notes(metadata: Mapping[str, str]) -> list[str]:
    base = metadata.get("ss_sd_model_name") or metadata.get("modelspec.title")
    return [f"the file names its base model or title {base!r}"] if base else []


@dataclass
class _Tensors:
    """The tensors of a file, sorted.

    Attributes:
        layers: By layer and part.
        dense: Differences of whole parameters.
        saved: Whole parameters.
        strangers: Names of others.
        conventions: That their names follow.
    """

    layers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    dense: dict[str, Tensor] = field(default_factory=dict)
    saved: dict[str, Tensor] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    conventions: set[str] = field(default_factory=set)


def _assemble(
    state: Mapping[str, Tensor], settings: Settings, adapter: str | None, name: str, notes: list[str]
) -> LoraAdapter:
    found = _group(state, adapter)
    if not found.layers:
        raise CosetError(f"no LoRA among its {len(state)} tensors (first key {next(iter(state), 'none')!r})")
    obstacles, unknown = settings.obstacles(), list[str]()
    pairs: dict[str, LoraPair] = {}
    for layer in sorted(found.layers, key=natural_key):
        for suffix, pair, known in _checked_pairs(layer, found.layers[layer], settings):
            pairs[layer + suffix] = pair
            if not known and not layer.startswith(_LOADED_BY_NAME):
                unknown.append(layer)
    convention = " and ".join(sorted(found.conventions))
    if unknown and convention in ("peft", "state dict"):
        obstacles.append(
            f"no adapter_config.json and no alpha: the scale of {len(unknown)} layers is unknown and taken as 1 "
            f"({unknown[0]}, ...); --alpha says it"
        )
    elif unknown and convention == "kohya":
        some = f"for {len(unknown)} of {len(found.layers)} layers ({unknown[0]}, ...)"
        notes.append(f"no alpha {'anywhere' if len(unknown) == len(found.layers) else some}: scale 1")
    if found.strangers:
        obstacles.append(
            f"{len(found.strangers)} tensors that are no part of a LoRA are ignored ({found.strangers[0]}, ...)"
        )
    _look_over(pairs, found, notes)
    whole = settings.whole
    for key, part in (("use_dora", "magnitude"), ("lora_bias", "bias")):
        if whole.get(key) and not any(part in parts for parts in found.layers.values()):
            obstacles.append(f"{key} is set, but no layer has a {part}: the file is not whole")
    return LoraAdapter(
        pairs, name, whole.get("base_model_name_or_path"), convention, (*obstacles, *notes), found.dense, found.saved,
        tuple(obstacles), whole.get("task_type"), bool(whole.get("fan_in_fan_out")),
    )  # fmt: skip


def _group(state: Mapping[str, Tensor], adapter: str | None) -> _Tensors:
    """Tensors by layer and part; those of one adapter."""
    parsed: list[tuple[str, Key]] = []
    found = _Tensors()
    for key in state:
        meaning = parse_key(key)
        if meaning is not None and meaning.part != "ignored":
            parsed.append((key, meaning))
        elif key.startswith(_SAVED):
            found.saved[key.removeprefix(_SAVED).replace(".base_layer.", ".")] = _plain(state[key], key)
        elif "lora_ranknum" not in key:
            found.strangers.append(key)
    names = {key.adapter for _, key in parsed if key.adapter is not None}
    if adapter is None and len(names) > 1:
        raise CosetError(f"it holds several adapters ({', '.join(sorted(names))}): choose one with adapter=")
    if names and adapter is not None and adapter not in names:
        raise CosetError(f"it has no adapter {adapter!r}; it has {', '.join(sorted(names))}")
    for key, meaning in parsed:
        if meaning.adapter is not None and adapter is not None and meaning.adapter != adapter:
            continue
        parts = found.layers.setdefault(meaning.layer, {})
        if meaning.part in parts:
            raise CosetError(f"{meaning.layer} has two tensors for its {meaning.part} (the second is {key})")
        parts[meaning.part] = _plain(state[key], key)
    _set_differences_apart(found)
    found.conventions = {key.convention for _, key in parsed if key.part != "alpha"}
    return found


def _set_differences_apart(found: _Tensors) -> None:
    """Whole differences are no layers of a LoRA; that of the bias stays where the layer has factors."""
    for layer, parts in list(found.layers.items()):
        factors = set(parts) - {"diff", "diff_b", "alpha"}
        if "diff" in parts:
            if factors:
                raise CosetError(f"{layer} has factors and a whole difference (.diff) at once")
            found.dense[f"{layer}.weight"] = parts["diff"]
        if "diff_b" in parts and not factors:
            found.dense[f"{layer}.bias"] = parts["diff_b"]
        if not factors and len(parts) > ("alpha" in parts):
            del found.layers[layer]


def _plain(tensor: Tensor, key: str) -> Tensor:
    """float32 (float64 stays), finite."""
    if not tensor.is_floating_point():
        if not key.endswith(".alpha"):
            raise CosetError(f"{key} has type {tensor.dtype}: a quantised adapter; save it in floating point")
        tensor = tensor.double()  # some exporters write whole numbers
    tensor = tensor.detach().cpu()
    tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
    if not bool(tensor.isfinite().all()):
        raise CosetError(f"{key} holds {int((~tensor.isfinite()).sum())} values that are NaN or infinite")
    return tensor


def _checked_pairs(layer: str, parts: dict[str, Tensor], settings: Settings) -> list[tuple[str, LoraPair, bool]]:
    """See :func:`_pairs`; tensors that are no factors are refused with their shapes."""
    shapes = ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in parts.items())
    factors = [tensor for part, tensor in parts.items() if part.startswith(_FACTORS)]
    empty = any(0 in tensor.shape for tensor in factors) and not settings.adaptive  # AdaLoRA may leave no rank
    try:
        pairs = [] if empty else _pairs(layer, parts, settings)
    except (RuntimeError, IndexError, ValueError) as error:
        raise CosetError(f"{layer}: its tensors do not fit together: {shapes}") from error
    if empty or any(tensor.dim() < 2 for tensor in factors) or not all(0 not in pair.shape for _, pair, _ in pairs):
        raise CosetError(f"{layer}: a factor is a matrix, or a kernel, of one number at least; here are {shapes}")
    return pairs


def _pairs(layer: str, parts: dict[str, Tensor], settings: Settings) -> list[tuple[str, LoraPair, bool]]:
    """One pair a layer, except where a parameter holds several experts; and whether its scale is known."""
    alpha = parts.get("alpha")
    if is_product(parts):
        u, v, kernel, rank = product(layer, parts)
        scale = settings.scale(layer, alpha, rank)
        return [("", _pair(layer, parts, u, v, kernel, scale), scale is not None)]
    if "embedding_down" in parts or "embedding_up" in parts:
        down, up = _both(layer, parts, "embedding_down", "embedding_up")
        scale = settings.scale(layer, alpha, down.size(0))
        made = replace(_pair(layer, parts, up, down.mT, None, scale), kind="embedding")
        return [("", made, scale is not None)]
    down, up = _both(layer, parts, "down", "up")
    if settings.adaptive and down.size(0) == 0:
        down, up, parts = _of_rank_zero(down, up, parts)
    if "mid" in parts:
        # CP decomposition: mid [r, r, h, w] between down [r, in, 1, 1] and up; contracted, a plain pair is left.
        down = torch.einsum("rshw,si->rihw", parts["mid"], down.flatten(1))
    rank, settled = down.size(0), settings.rank(layer)
    if settings.experts() and down.dim() == 2 and settled and rank != settled and rank % settled == 0:
        scale = settings.scale(layer, alpha, settled)
        return [(s, p, scale is not None) for s, p in _expert_pairs(down, up, rank // settled, scale)]
    if settled is not None and settled != rank:
        raise CosetError(f"{layer} has rank {rank}, but adapter_config.json says {settled}")
    scale = settings.scale(layer, alpha, rank)
    if "diagonal" in parts:
        down = down * parts["diagonal"].reshape(-1, *[1] * (down.dim() - 1))
    kernel = tuple(down.shape[1:]) if down.dim() > 2 else None
    if up.size(1) != rank:
        shapes = f"A is {tuple(down.shape)}, B is {tuple(up.shape)}"
        if down.dim() > 2 and rank % up.size(1) == 0:
            raise CosetError(
                f"{layer} is a convolution of {rank // up.size(1)} groups ({shapes}): its update mixes channels that "
                "its weight keeps apart, so that no weight is the sum of both, and it is not read; PEFT runs it"
            )
        raise CosetError(f"{layer}: the ranks of its factors differ: {shapes}")
    if up.dim() > 2 and math.prod(up.shape[2:]) != 1:
        raise CosetError(f"{layer}: B has a spatial kernel {tuple(up.shape)}; only 1 x 1 is read")
    made = _pair(layer, parts, up.reshape(up.size(0), rank), down.reshape(rank, -1).mT, kernel, scale)
    return [("", made if settings.of_weight(layer) else replace(made, kind="expert"), scale is not None)]


def _of_rank_zero(down: Tensor, up: Tensor, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A layer that AdaLoRA left no rank, as the update of rank 1 that is zero."""
    rest = {part: tensor for part, tensor in parts.items() if part != "diagonal"}
    return down.new_zeros(1, *down.shape[1:]), up.new_zeros(len(up), 1), rest


def _pair(
    layer: str, parts: Mapping[str, Tensor], u: Tensor, v: Tensor, kernel: tuple[int, ...] | None, scale: float | None
) -> LoraPair:
    """A pair with what stands beside its factors."""
    scale = 1.0 if scale is None else scale
    magnitude = _magnitude(layer, parts, len(u), kernel)
    bias = parts["bias"] * scale if "bias" in parts else None
    if "diff_b" in parts:
        bias = parts["diff_b"] if bias is None else bias + parts["diff_b"]
    if bias is not None and bias.shape != u.shape[:1]:
        raise CosetError(f"{layer}: the difference of its bias has shape {tuple(bias.shape)}, not ({len(u)},)")
    return LoraPair(u, v, scale, "linear" if kernel is None else "conv", kernel, magnitude, bias)


def _magnitude(layer: str, parts: Mapping[str, Tensor], rows: int, kernel: tuple[int, ...] | None) -> Tensor | None:
    """DoRA's norms of rows; PEFT lays those of a convolution along its second axis, LyCORIS along the first.

    Raises:
        CosetError: They are norms of something else.
    """
    there = [part for part in ("magnitude", "dora_scale") if part in parts]
    if not there:
        return None
    if len(there) > 1:
        raise CosetError(f"{layer} has two tensors for its magnitude (lora_magnitude_vector and dora_scale)")
    (named,) = there
    shape = tuple(parts[named].shape)
    along = (rows, *[1] * (len(shape) - 1))
    of_peft = (1, rows, *[1] * (len(kernel or ()) - 1))
    if shape == along or (named == "magnitude" and kernel is not None and shape == of_peft):
        return parts[named].flatten()
    if len(shape) > 1 and shape == (1, shape[1], *[1] * (len(shape) - 2)):
        raise CosetError(f"{layer}: DoRA magnitudes of {shape[1]} columns; those of its {rows} rows are read")
    raise CosetError(f"{layer}: DoRA magnitudes of shape {shape}; one for each of its {rows} rows was expected")


def _expert_pairs(down: Tensor, up: Tensor, experts: int, scale: float | None) -> list[tuple[str, LoraPair]]:
    """PEFT stores A as [experts * r, in], experts outermost, and B as [out, r * experts], experts innermost."""
    a = down.reshape(experts, -1, down.size(1))
    b = up.reshape(up.size(0), -1, experts)
    scale = 1.0 if scale is None else scale
    return [(f".expert{e}", LoraPair(b[:, :, e], a[e].mT, scale, "expert")) for e in range(experts)]


def _both(layer: str, parts: dict[str, Tensor], first: str, second: str) -> tuple[Tensor, Tensor]:
    for part, other in ((first, second), (second, first)):
        if part not in parts:
            there = "A (down)" if other.endswith("down") else "B (up)"
            gone = "B (up)" if other.endswith("down") else "A (down)"
            raise CosetError(f"{layer} has {there} but no {gone}" if other in parts else f"{layer} has no factors")
    return parts[first], parts[second]


def _look_over(pairs: dict[str, LoraPair], found: _Tensors, notes: list[str]) -> None:
    dora = sum(pair.magnitude is not None for pair in pairs.values())
    if dora:
        notes.append(f"DoRA: {dora} layers have a magnitude; dW alone is not their update")
    biases = sum(pair.bias is not None for pair in pairs.values())
    if biases:
        notes.append(f"{biases} layers have a difference of their bias, too")
    for what, held in (("differences of whole parameters", found.dense), ("parameters trained in full", found.saved)):
        if held:
            notes.append(f"{len(held)} {what} beside the factors ({next(iter(held))}, ...)")
    products = [pairs[layer].rank for layer, parts in found.layers.items() if is_product(parts)]
    if products:
        notes.append(
            f"{len(products)} products (LoHa, LoKr), read as the LoRAs of rank up to {max(products)} that they are"
        )
    zero = [name for name, pair in pairs.items() if not bool(pair.u.any()) or not bool(pair.v.any())]
    if len(zero) == len(pairs):
        notes.append("every update is zero: the adapter was never trained")
    elif zero:
        notes.append(f"{len(zero)} of {len(pairs)} updates are zero ({zero[0]}, ...)")


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts layer.2 before layer.10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
