"""Write adapters: as a PEFT folder, as diffusers does, or in the naming of kohya's tools or of ComfyUI.

What a form cannot hold is refused by name. Where a form has one scale for all layers or keeps it apart from tensors,
the scale goes into the factors, so that alpha equals the rank everywhere.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from coset.core.errors import CosetError, require
from coset.core.files import takes_paths, write_bytes, write_json
from coset.core.registry import Registry
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair
from coset.weights.lora.data.naming import Native, canonical, native, native_name, network_of
from coset.weights.lora.data.patterns import matches
from coset.weights.lora.data.settings import HEADER

_FLAT = {"unet": "lora_unet", "transformer": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


def check_whole(adapter: LoraAdapter) -> None:
    """Everything that the file said has to be in the adapter.

    Raises:
        CosetError: Something is missing or unknown; the message names it.
    """
    if adapter.obstacles:
        raise CosetError(f"{adapter.name}: {'; '.join(adapter.obstacles)} (--lossy goes on without)")


@takes_paths
def save_peft(adapter: LoraAdapter, folder: Path) -> Path:
    """A folder that PEFT loads: ``adapter_config.json`` and ``adapter_model.safetensors``, of one network.

    Raises:
        CosetError: It holds what PEFT keeps in another way (experts, differences of whole parameters), layers whose
            modules are not known, several networks; or the folder cannot be written.
    """
    adapter = alone(canonical(adapter))
    if adapter.dense:
        raise CosetError(f"{adapter.name}: PEFT has no place for a whole difference ({next(iter(adapter.dense))})")
    biases = any(pair.bias is not None for pair in adapter.layers.values())
    tensors: dict[str, Tensor] = {}
    for name, pair in adapter.layers.items():
        if pair.kind == "expert":
            raise CosetError(
                f"{adapter.name}: {name} is of an expert, or of no weight, which cannot be written for PEFT"
            )
        tensors |= _peft_layer(f"base_model.model.{name}.", pair, biases)
    for name, value in adapter.saved.items():
        layer, _, last = name.rpartition(".")
        tensors[
            f"base_model.model.{layer}.base_layer.{last}" if layer in adapter.layers else f"base_model.model.{name}"
        ] = value
    _save(tensors, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", _config(adapter, biases))
    return folder


def _peft_layer(prefix: str, pair: LoraPair, biases: bool) -> dict[str, Tensor]:
    u, v = pair.factors()
    if pair.kind == "embedding":
        made = {prefix + "lora_embedding_A": v.mT, prefix + "lora_embedding_B": u}
        return made if pair.magnitude is None else made | {prefix + "lora_magnitude_vector": pair.magnitude}
    down, up = _unfolded(pair, u, v)
    made = {prefix + "lora_A.weight": down, prefix + "lora_B.weight": up}
    if pair.magnitude is not None:
        shape = (1, -1, *[1] * (len(pair.kernel) - 1)) if pair.kernel else (-1,)
        made[prefix + "lora_magnitude_vector"] = pair.magnitude.reshape(shape)
    if biases:
        made[prefix + "lora_B.bias"] = u.new_zeros(len(u)) if pair.bias is None else pair.bias
    return made


def _config(adapter: LoraAdapter, biases: bool) -> dict[str, Any]:
    ranks = Counter(pair.rank for pair in adapter.layers.values())
    common = ranks.most_common(1)[0][0]
    ranks_of = {name: pair.rank for name, pair in adapter.layers.items()}
    other = {_pattern(name, ranks_of): rank for name, rank in ranks_of.items() if rank != common}
    whole = {name.rpartition(".")[0] for name in adapter.saved if not name.endswith(".bias")}
    saved = sorted(whole - set(adapter.layers))
    bare = [name for name in adapter.saved if name.rpartition(".")[0] not in whole]  # biases without their weights
    return {
        "peft_type": "LORA", "task_type": adapter.task_type, "base_model_name_or_path": adapter.base_model, "r": common,
        "lora_alpha": common, "rank_pattern": other, "alpha_pattern": other, "target_modules": list(adapter.layers),
        "bias": "all" if bare else "none", "lora_bias": biases, "modules_to_save": saved or None,
        "fan_in_fan_out": adapter.transposed,
        "use_dora": any(pair.magnitude is not None for pair in adapter.layers.values()),
    }  # fmt: skip


def _pattern(name: str, ranks: Mapping[str, int]) -> str:
    """What PEFT matches to this layer: its name, except where layers of other ranks end so."""
    plain = all(rank == ranks[name] or not matches(name, layer) for layer, rank in ranks.items())
    return name if plain else f"^{re.escape(name)}"


def alone(adapter: LoraAdapter) -> LoraAdapter:
    """The layers of a pipeline's one network, without its name.

    Raises:
        CosetError: There are several.
    """
    networks = {network_of(layer)[0] for layer in adapter.layers}
    if networks == {""}:
        return adapter
    if len(networks) > 1:
        listed = " and ".join(sorted(network or "no network" for network in networks))
        raise CosetError(f"{adapter.name} has layers of {listed}: PEFT keeps one network a folder; choose by --network")
    return only(adapter, networks.pop())


def only(adapter: LoraAdapter, network: str) -> LoraAdapter:
    """The layers of one network of a pipeline, without its name.

    Raises:
        CosetError: It has none.
    """
    mark = f"{network}."
    kept = {name.removeprefix(mark): pair for name, pair in adapter.layers.items() if name.startswith(mark)}
    if not kept:
        found = sorted({name.partition(".")[0] for name in adapter.layers})
        raise CosetError(f"{adapter.name} has no layers of {network}; it has {', '.join(found[:5])}")
    dense = {name.removeprefix(mark): value for name, value in adapter.dense.items() if name.startswith(mark)}
    return replace(adapter, layers=kept, dense=dense)


@takes_paths
def save_diffusers(adapter: LoraAdapter, file: Path) -> Path:
    """One safetensors file that a pipeline's ``load_lora_weights`` reads, with the settings in its header.

    Raises:
        CosetError: A layer is of no pipeline's network, or holds what diffusers has no place for; or the file cannot be
            written.
    """
    adapter = canonical(adapter)
    _refuse_beside_factors(adapter, "diffusers")
    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {}
    for network in dict.fromkeys(network_of(name)[0] for name in adapter.layers):
        if network not in _FLAT:
            first = next(name for name in adapter.layers if network_of(name)[0] == network)
            raise CosetError(f"{adapter.name}: {first} is of no network of a pipeline; diffusers' files are of such")
        own = only(adapter, network)
        for name, pair in own.layers.items():
            tensors |= _peft_layer(f"{network}.{name}.", pair, biases=False)
        config = _config(own, biases=False)
        kept = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora", "lora_bias")
        header |= {f"{network}.{key}": config[key] for key in kept}
    _save(tensors, file, {HEADER: json.dumps(header, indent=2, sort_keys=True)})
    return file


@takes_paths
def save_kohya(adapter: LoraAdapter, file: Path) -> Path:
    """One safetensors file as sd-scripts and musubi write it: ``lora_unet_..._attn1_to_q.lora_down.weight``, ``alpha``.

    Raises:
        CosetError: A layer belongs to no diffusion model, or is in no table; or the file cannot be written.
    """
    found = native(canonical(adapter))
    networks = set(found.networks.values())
    old = "unet" in networks and "text_encoder_2" not in networks and not _numbered(found)
    te = {"text_encoder": "lora_te"} if old else {}

    def flat(layer: str, network: str) -> str:
        return f"{(_FLAT | te)[network]}_{layer.replace('.', '_')}"

    return _save_native(adapter, found, file, flat)


def _numbered(found: Native) -> bool:
    """Whether a U-Net is in the numbering of SDXL, whose first text encoder has a number as well."""
    return any(name.startswith(("input_blocks", "middle_block", "output_blocks")) for name in found.layers)


@takes_paths
def save_comfyui(adapter: LoraAdapter, file: Path) -> Path:
    """One safetensors file in the naming of ComfyUI: ``diffusion_model.blocks.0.self_attn.q.lora_down.weight``.

    Raises:
        CosetError: A layer belongs to no transformer of a pipeline, or is in no table; or the file cannot be written.
    """
    found = native(canonical(adapter), dotted=True)
    other = next((layer for layer, network in found.networks.items() if network != "transformer"), None)
    if other is not None:
        raise CosetError(
            f"{adapter.name}: {other} is a layer of {found.networks[other]}; ComfyUI reads those in kohya's naming"
        )
    return _save_native(adapter, found, file, lambda layer, _: f"diffusion_model.{layer}", dotted=True)


def _save_native(
    adapter: LoraAdapter, found: Native, file: Path, called: Callable[[str, str], str], *, dotted: bool = False
) -> Path:
    if adapter.saved:
        raise CosetError(
            f"{adapter.name}: this naming has no place for a whole parameter ({next(iter(adapter.saved))})"
        )
    tensors = _differences(canonical(adapter), called, dotted)
    for layer, pair in found.layers.items():
        name = called(layer, found.networks[layer])
        if f"{name}.alpha" in tensors:
            raise CosetError(f"{adapter.name}: {layer} and another layer are both called {name}")
        if pair.kind not in ("linear", "conv"):
            raise CosetError(f"{adapter.name}: {layer} is of kind {pair.kind}, which this naming has no place for")
        down, up = _unfolded(pair, pair.u, pair.v)
        alpha = pair.u.new_tensor(pair.scale * pair.rank)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": alpha}
        if pair.magnitude is not None:
            tensors[f"{name}.dora_scale"] = pair.magnitude.reshape(-1, *[1] * (down.dim() - 1))
        if pair.bias is not None:
            tensors[f"{name}.diff_b"] = pair.bias
    _save(tensors, file)
    return file


def _differences(adapter: LoraAdapter, called: Callable[[str, str], str], dotted: bool) -> dict[str, Tensor]:
    """Differences of whole parameters as ``.diff`` (weights) and ``.diff_b`` (biases).

    Raises:
        CosetError: Another parameter, or a layer that is part of a larger one in this naming.
    """
    parts = {"weight": "diff", "bias": "diff_b"}
    tensors: dict[str, Tensor] = {}
    for name, value in adapter.dense.items():
        layer, _, last = name.rpartition(".")
        if last not in parts:
            raise CosetError(f"{adapter.name}: this naming has no place for the difference of {name}")
        try:
            target, network = native_name(layer, adapter, dotted=dotted)
        except CosetError as error:
            raise CosetError(f"{adapter.name}: {error}") from error
        tensors[f"{called(target, network)}.{parts[last]}"] = value
    return tensors


def _refuse_beside_factors(adapter: LoraAdapter, form: str) -> None:
    for what, held in (("a whole difference", adapter.dense), ("a parameter trained in full", adapter.saved)):
        if held:
            raise CosetError(f"{adapter.name}: {form} has no place for {what} ({next(iter(held))})")
    for name, pair in adapter.layers.items():
        if pair.bias is not None:
            raise CosetError(f"{adapter.name}: {form} has no place for the difference of a bias ({name})")
        if pair.kind == "expert":
            raise CosetError(
                f"{adapter.name}: {form} has no place for an expert, or a parameter that is no weight ({name})"
            )


WRITERS: Registry[Callable[[LoraAdapter, Path], Path]] = Registry("form of adapters")
for _name, _writer in {
    "peft": save_peft, "diffusers": save_diffusers, "kohya": save_kohya, "comfyui": save_comfyui,
}.items():  # fmt: skip
    WRITERS.register(_name)(_writer)


def save_lossy(adapter: LoraAdapter, output: Path, form: str) -> Path:
    """In a form of :data:`WRITERS`, without what that has no place for: what stands beside the factors.

    Raises:
        CosetError: The form has no place for the factors either.
    """
    try:
        return WRITERS[form](adapter, output)
    except CosetError:
        bare = {name: replace(pair, bias=None) for name, pair in adapter.layers.items()}
        return WRITERS[form](replace(adapter, layers=bare, dense={}, saved={}), output)


def _unfolded(pair: LoraPair, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A and B in the shapes of the layer they belong to."""
    if pair.kernel is None:
        return v.mT, u
    ones = [1] * (len(pair.kernel) - 1)
    return v.mT.reshape(pair.rank, *pair.kernel), u.reshape(*u.shape, *ones)


def _save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """A file of tensors, and its folder.

    Raises:
        CosetError: A number is NaN or infinite: such a file could not be read again.
    """
    spoilt = next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)
    if spoilt is not None:
        raise CosetError(f"nothing is written: {spoilt} would hold numbers that are NaN or infinite")
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    about = {"format": "pt"} | dict(metadata or {})
    write_bytes(path, require("safetensors.torch", "weights").save(contiguous, about))
