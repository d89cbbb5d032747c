"""What tools call the layers of one model: from any of the names to that of the module, and back.

The name of a layer here is its path in the model of ``transformers`` or ``diffusers``, behind the name of the network
in its pipeline (``unet``, ``transformer``, ``text_encoder``, ``text_encoder_2``) where there is one: what PEFT and
diffusers write. kohya's tools write underscores for dots (``lora_unet_...``) and Stable Diffusion XL, Flux, Hunyuan and
Wan by the names of their first releases, which ComfyUI keeps with dots (``diffusion_model.``). Flux and Hunyuan hold
queries, keys and values in one matrix there: a LoRA of it is one of each, with the same V, and three of them are one of
rank 3 r.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from coset.core.errors import CosetError
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair
from coset.weights.lora.data.releases import FLUX, HUNYUAN, NAMED, QWEN, candidates, written_as

_WORDS = (
    "down_blocks", "up_blocks", "mid_block", "input_blocks", "middle_block", "output_blocks", "transformer_blocks",
    "single_transformer_blocks", "double_blocks", "single_blocks", "joint_blocks", "time_embed", "time_embedding",
    "linear_1", "linear_2", "label_emb", "add_embedding", "time_emb_proj", "emb_layers", "in_layers", "out_layers",
    "skip_connection", "conv_shortcut", "conv_in", "conv_out", "proj_in", "proj_out", "proj_mlp", "to_q", "to_k",
    "to_v", "to_out", "to_add_out", "add_q_proj", "add_k_proj", "add_v_proj", "ff_context", "norm1_context",
    "text_model", "self_attn", "q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "gate_proj", "up_proj",
    "down_proj", "token_embedding", "position_embedding", "text_projection", "final_layer_norm", "layer_norm1",
    "layer_norm2", "img_attn", "txt_attn", "img_mlp", "txt_mlp", "img_mod", "txt_mod", "img_in", "txt_in", "time_in",
    "vector_in", "guidance_in", "in_layer", "out_layer", "final_layer", "cross_attn", "k_img", "v_img",
    "text_embedding", "time_projection", "patch_embedding", "x_embedder", "context_embedder", "time_text_embed",
    "timestep_embedder", "text_embedder", "guidance_embedder", "norm_out", "lm_head", "embed_tokens", "patchify_proj",
    "adaln_single", "caption_projection", "emb", "embed", "individual_token_refiner", "input_embedder", "t_embedder",
    "c_embedder", "adaLN_modulation", "img_emb",
)  # fmt: skip
"""Words of paths that hold an underscore: everything else between underscores is a word of its own."""
_FLAT_PREFIXES = {
    "lora_unet_": "unet", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2", "lora_te_": "text_encoder",
    "lora_transformer_": "transformer", "lycoris_": "unet",
}  # fmt: skip
_NETWORKS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")

_FLUX: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = (
    ("double_blocks.#.img_attn.qkv", tuple((f"transformer_blocks.#.attn.to_{x}", 1) for x in "qkv")),
    ("double_blocks.#.txt_attn.qkv", tuple((f"transformer_blocks.#.attn.add_{x}_proj", 1) for x in "qkv")),
    ("double_blocks.#.img_attn.proj", (("transformer_blocks.#.attn.to_out.0", 1),)),
    ("double_blocks.#.txt_attn.proj", (("transformer_blocks.#.attn.to_add_out", 1),)),
    ("double_blocks.#.img_mod.lin", (("transformer_blocks.#.norm1.linear", 1),)),
    ("double_blocks.#.txt_mod.lin", (("transformer_blocks.#.norm1_context.linear", 1),)),
    ("double_blocks.#.img_mlp.0", (("transformer_blocks.#.ff.net.0.proj", 1),)),
    ("double_blocks.#.img_mlp.2", (("transformer_blocks.#.ff.net.2", 1),)),
    ("double_blocks.#.txt_mlp.0", (("transformer_blocks.#.ff_context.net.0.proj", 1),)),
    ("double_blocks.#.txt_mlp.2", (("transformer_blocks.#.ff_context.net.2", 1),)),
    ("single_blocks.#.linear1", (*((f"single_transformer_blocks.#.attn.to_{x}", 1) for x in "qkv"),
                                 ("single_transformer_blocks.#.proj_mlp", 4))),
    ("single_blocks.#.linear2", (("single_transformer_blocks.#.proj_out", 1),)),
    ("single_blocks.#.modulation.lin", (("single_transformer_blocks.#.norm.linear", 1),)),
    ("img_in", (("x_embedder", 1),)),
    ("txt_in", (("context_embedder", 1),)),
    ("time_in.in_layer", (("time_text_embed.timestep_embedder.linear_1", 1),)),
    ("time_in.out_layer", (("time_text_embed.timestep_embedder.linear_2", 1),)),
    ("vector_in.in_layer", (("time_text_embed.text_embedder.linear_1", 1),)),
    ("vector_in.out_layer", (("time_text_embed.text_embedder.linear_2", 1),)),
    ("guidance_in.in_layer", (("time_text_embed.guidance_embedder.linear_1", 1),)),
    ("guidance_in.out_layer", (("time_text_embed.guidance_embedder.linear_2", 1),)),
    ("final_layer.linear", (("proj_out", 1),)),
)  # fmt: skip
_WAN: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = (
    *((f"blocks.#.{a}.{x}", ((f"blocks.#.{b}.to_{x}", 1),))
      for a, b in (("self_attn", "attn1"), ("cross_attn", "attn2")) for x in "qkv"),
    ("blocks.#.self_attn.o", (("blocks.#.attn1.to_out.0", 1),)),
    ("blocks.#.cross_attn.o", (("blocks.#.attn2.to_out.0", 1),)),
    ("blocks.#.cross_attn.k_img", (("blocks.#.attn2.add_k_proj", 1),)),
    ("blocks.#.cross_attn.v_img", (("blocks.#.attn2.add_v_proj", 1),)),
    ("blocks.#.ffn.0", (("blocks.#.ffn.net.0.proj", 1),)),
    ("blocks.#.ffn.2", (("blocks.#.ffn.net.2", 1),)),
    ("text_embedding.0", (("condition_embedder.text_embedder.linear_1", 1),)),
    ("text_embedding.2", (("condition_embedder.text_embedder.linear_2", 1),)),
    ("time_embedding.0", (("condition_embedder.time_embedder.linear_1", 1),)),
    ("time_embedding.2", (("condition_embedder.time_embedder.linear_2", 1),)),
    ("time_projection.1", (("condition_embedder.time_proj", 1),)),
    ("img_emb.proj.1", (("condition_embedder.image_embedder.ff.net.0.proj", 1),)),
    ("img_emb.proj.3", (("condition_embedder.image_embedder.ff.net.2", 1),)),
    ("head.head", (("proj_out", 1),)),
)  # fmt: skip
_REFINER = "context_embedder.token_refiner.refiner_blocks.#"
_HUNYUAN: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = (
    *((first.replace("img_attn.", "img_attn_").replace("txt_attn.", "txt_attn_"), modules)
      for first, modules in _FLUX if "_attn." in first),
    *((f"double_blocks.#.{side}_mlp.fc{n}", ((f"transformer_blocks.#.{ff}.net.{layer}", 1),))
      for side, ff in (("img", "ff"), ("txt", "ff_context")) for n, layer in ((1, "0.proj"), (2, "2"))),
    ("double_blocks.#.img_mod.linear", (("transformer_blocks.#.norm1.linear", 1),)),
    ("double_blocks.#.txt_mod.linear", (("transformer_blocks.#.norm1_context.linear", 1),)),
    ("single_blocks.#.modulation.linear", (("single_transformer_blocks.#.norm.linear", 1),)),
    ("img_in.proj", (("x_embedder.proj", 1),)),
    *((f"{first}.mlp.{n}", ((f"time_text_embed.{module}.linear_{k}", 1),))
      for first, module in (("time_in", "timestep_embedder"), ("guidance_in", "guidance_embedder"))
      for n, k in ((0, 1), (2, 2))),
    ("txt_in.input_embedder", (("context_embedder.proj_in", 1),)),
    *((f"txt_in.t_embedder.mlp.{n}", ((f"context_embedder.time_text_embed.timestep_embedder.linear_{k}", 1),))
      for n, k in ((0, 1), (2, 2))),
    *((f"txt_in.c_embedder.linear_{k}", ((f"context_embedder.time_text_embed.text_embedder.linear_{k}", 1),))
      for k in (1, 2)),
    *(entry for mark in "._" for entry in (
        (f"txt_in.individual_token_refiner.blocks.#.self_attn{mark}qkv",
         tuple((f"{_REFINER}.attn.to_{x}", 1) for x in "qkv")),
        (f"txt_in.individual_token_refiner.blocks.#.self_attn{mark}proj", ((f"{_REFINER}.attn.to_out.0", 1),)))),
    *((f"txt_in.individual_token_refiner.blocks.#.mlp.fc{n}", ((f"{_REFINER}.ff.net.{layer}", 1),))
      for n, layer in ((1, "0.proj"), (2, "2"))),
    ("txt_in.individual_token_refiner.blocks.#.adaLN_modulation.1", ((f"{_REFINER}.norm_out.linear", 1),)),
)  # fmt: skip
"""As HunyuanVideo is released and musubi names it; ComfyUI names it as Flux."""
_TABLES = (*_FLUX, *_WAN, *_HUNYUAN)
_LAST_MODULATION = "final_layer.adaLN_modulation.1", "norm_out.linear"
"""Its rows are shift and scale in the first releases, scale and shift in diffusers."""
_NATIVE = re.compile(r"(double_blocks|single_blocks|joint_blocks|final_layer|(img|txt|time|vector|guidance)_in)\b")
"""What begins so is a layer of a first release: without a place in the tables nobody knows its module."""
_LANGUAGE_MODELS = re.compile(r"(model|layers|lm_head|encoder|transformer\.h)\b")
_OF_A_LANGUAGE_MODEL = re.compile(
    r"transformer\.(h|layer|encoder|attentions|ffns|wte|wpe|ln_f|norm_f|embedding|word_embeddings\w*|output_layer)\b"
    r"|transformer\.blocks\.\d+\.(attn\.(Wqkv|out_proj)|ffn\.(up|down)_proj|norm_)"
    r"|transformer\.layers\.\d+\.(attn\.(qkv_proj|out_proj)|ffn\.proj_)"
)
"""In GPT-2, Falcon, Bloom, ChatGLM, DistilBERT, MPT and OpenELM: their ``transformer`` is no network of a pipeline."""
_RESNET = {
    "in_layers.2": "conv1", "out_layers.3": "conv2", "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}  # fmt: skip
_FIRST_UNET = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.2": "conv_out",
}  # fmt: skip
_PER_BLOCK = 3
"""Places of a level in the first U-Net's numbering: two layers and what changes the size."""


class Place(NamedTuple):
    """A layer by its network and its path; it is not ``known`` where it is a flat name that no table knows."""

    network: str
    path: str
    known: bool = True

    def __str__(self) -> str:
        return f"{self.network}.{self.path}" if self.network else self.path


def canonical(adapter: LoraAdapter) -> LoraAdapter:
    """The same adapter with each layer under the name of its module in ``transformers`` or ``diffusers``.

    Raises:
        CosetError: A flat name is in no table, or two layers get one name.
    """
    places = {layer: place_of(layer) for layer in adapter.layers}
    for layer, place in places.items():
        if not place.known:
            raise CosetError(
                f"{adapter.name}: {layer} is in none of the tables of names (SD 1.5, SDXL, Flux, Hunyuan, Wan, LLMs)"
            )
    layers: dict[str, LoraPair] = {}
    for layer, pair in adapter.layers.items():
        for name, part in _modules(places[layer], pair):
            if name in layers:
                raise CosetError(f"{adapter.name}: {layer} and another layer are both {name}")
            layers[name] = part
    dense = {_renamed_parameter(name): value for name, value in adapter.dense.items()}
    return replace(adapter, layers=layers, dense=dense, models=_allowed(adapter))


def of_model(adapter: LoraAdapter, model: str | None) -> LoraAdapter:
    """The same adapter, known to belong to a model of :data:`~coset.weights.lora.data.releases.NAMED`.

    Raises:
        CosetError: There is no such model.
    """
    if model is not None and model not in NAMED:
        raise CosetError(f"--model {model!r} is unknown; choose from {', '.join(NAMED)}")
    return adapter if model is None else replace(adapter, models=(model,))


def _allowed(adapter: LoraAdapter) -> tuple[str, ...]:
    """The models that both its file's texts and its names allow, or that the texts do."""
    said, named = adapter.models, written_as(adapter.layers)
    return tuple(model for model in said if model in named) or said or named


def module_name(layer: str) -> str | None:
    """The name of a layer's module where it is one module; None where no table knows it, or it is several."""
    place = place_of(layer)
    if not place.known:
        return None
    found = _renamed(place)
    return str(found[0][0]) if len(found) == 1 else None


def place_of(layer: str) -> Place:
    """Network and path of a layer, under the words that its tool uses."""
    for prefix, network in _FLAT_PREFIXES.items():
        if layer.startswith(prefix) and "." not in layer:
            path = unflattened(layer.removeprefix(prefix))
            return _of_network(network, path) if path is not None else Place(network, layer, known=False)
    if layer.startswith(("lora_", "lycoris_")) and "." not in layer:
        return Place("", layer, known=False)
    path = layer.removeprefix("model.") if layer.startswith("model.diffusion_model.") else layer
    if path.startswith("diffusion_model."):
        return _of_network("unet", path.removeprefix("diffusion_model."))
    first, rest = network_of(path)
    if first:
        return _of_network(first, rest) if first in ("unet", "transformer") else Place(first, _text_layer(rest))
    if re.match(r"(down_blocks|up_blocks|mid_block|input_blocks|middle_block|output_blocks)\.", path):
        return Place("unet", path)
    if re.match(r"((single_)?transformer_blocks|double_blocks|single_blocks)\.", path):
        return _of_network("transformer", path)
    return Place("", path)


def network_of(name: str) -> tuple[str, str]:
    """The network of a pipeline that a layer's name begins with, or an empty text, and the rest of the name."""
    first, _, rest = name.partition(".")
    if first in _NETWORKS and rest and not _OF_A_LANGUAGE_MODEL.match(name):
        return first, rest
    return "", name


def unflattened(name: str) -> str | None:
    """Dots for those of kohya's underscores that stand for them; None if its first word is of no model known."""
    pieces, words, n = name.split("_"), list[str](), 0
    while n < len(pieces):
        length = next(
            k for k in range(min(5, len(pieces) - n), 0, -1) if k == 1 or "_".join(pieces[n : n + k]) in _WORDS
        )
        words.append("_".join(pieces[n : n + length]))
        n += length
    starts = (*_FIRST_WORDS, *(w.split(".")[0] for w in _FIRST_UNET))
    return ".".join(words) if words[0] in starts else None


_FIRST_WORDS = (
    "down_blocks", "up_blocks", "mid_block", "input_blocks", "middle_block", "output_blocks", "time_embedding",
    "add_embedding", "conv_in", "conv_out", "text_model", "text_projection", "double_blocks", "single_blocks",
    "blocks", "transformer_blocks", "single_transformer_blocks", "img_in", "txt_in", "time_in", "vector_in",
    "guidance_in", "final_layer", "text_embedding", "time_projection", "patch_embedding", "x_embedder",
    "context_embedder", "model", "lm_head", "layers", "encoder", "patchify_proj", "adaln_single",
    "caption_projection", "proj_in", "proj_out", "head", "img_emb",
)  # fmt: skip


def _of_network(network: str, path: str) -> Place:
    """A network called ``unet`` by tools that know no other is a transformer where its layers are."""
    if network.startswith("text_encoder"):
        return Place(network, _text_layer(path))
    unet = re.match(r"(down_blocks|up_blocks|mid_block|input_blocks|middle_block|output_blocks)\.", path)
    if unet or path in _FIRST_UNET or path in _FIRST_UNET.values():
        return Place("unet", path)
    if _LANGUAGE_MODELS.match(path):
        return Place("", path)
    known = path == _LAST_MODULATION[0] or not _NATIVE.match(path) or _in_tables(path)
    return Place("transformer", path, known)


def _in_tables(path: str) -> bool:
    return any(_number_in(first, path) is not None for first, _ in _TABLES)


def _text_layer(path: str) -> str:
    """Old files of diffusers call the attention of text encoders as that of the U-Net."""
    return re.sub(r"self_attn\.to_(q|k|v|out)$", r"self_attn.\1_proj", path)


def _renamed(place: Place) -> list[tuple[Place, int]]:
    """The modules of a layer, each with its share of the rows."""
    if place.network == "unet":
        return [(Place("unet", _unet_module(place.path)), 1)]
    if place.network == "transformer":
        if place.path == _LAST_MODULATION[0]:
            return [(Place("transformer", _LAST_MODULATION[1]), 1)]
        for native, modules in _TABLES:
            number = _number_in(native, place.path)
            if number is not None:
                return [(Place("transformer", path.replace("#", number)), share) for path, share in modules]
    return [(place, 1)]


def _number_in(pattern: str, path: str) -> str | None:
    """The number that stands in the place of ``#``; an empty text where there is none, None if the path is another."""
    match = re.fullmatch(re.escape(pattern).replace(r"\#", r"(\d+)"), path)
    return None if match is None else match.group(1) if "#" in pattern else ""


def _unet_module(path: str) -> str:
    """From the numbering of the first U-Net to levels, layers and kinds."""
    if path in _FIRST_UNET:
        return _FIRST_UNET[path]
    match = re.match(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)$", path)
    if match:
        side, number, kind, rest = match[1], int(match[2]), int(match[3]), match[4]
        level, layer = divmod(number - 1 if side == "input_blocks" else number, _PER_BLOCK)
        if rest == "op":
            return f"down_blocks.{level}.downsamplers.0.conv"
        block = "down_blocks" if side == "input_blocks" else "up_blocks"
        if rest == "conv":
            return f"{block}.{level}.upsamplers.0.conv"
        if kind > 1:
            return path
        return f"{block}.{level}.{('resnets', 'attentions')[kind]}.{layer}.{_RESNET.get(rest, rest)}"
    match = re.match(r"middle_block\.([012])\.(.+)$", path)
    if match:
        part = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}[match[1]]
        return f"mid_block.{part}.{_RESNET.get(match[2], match[2])}"
    return re.sub(r"(attn[12]\.to_out)$", r"\1.0", path)  # as files say whose processors held the factors


def _first_unet(path: str) -> str | None:
    """The way back; None where the first U-Net has no such layer."""
    back = {module: first for first, module in _FIRST_UNET.items()}
    if path in back:
        return back[path]
    resnet = {module: first for first, module in _RESNET.items()}
    if match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv$", path):
        return f"input_blocks.{_PER_BLOCK * int(match[1]) + _PER_BLOCK}.0.op"
    if match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv$", path):
        return f"output_blocks.{_PER_BLOCK * int(match[1]) + 2}.2.conv"  # after the attention that SDXL has there
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)$", path):
        number = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{number}.{resnet.get(match[3], match[3])}"
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d)\.(.+)$", path):
        number = _PER_BLOCK * int(match[2]) + int(match[4]) + (match[1] == "down")
        side, kind = ("input", "output")[match[1] == "up"], int(match[3] == "attentions")
        return f"{side}_blocks.{number}.{kind}.{resnet.get(match[5], match[5])}"
    return None


def _modules(place: Place, pair: LoraPair) -> list[tuple[str, LoraPair]]:
    """A layer as the modules that it is."""
    found = _renamed(place)
    if len(found) == 1:
        turned = place.network == "transformer" and place.path == _LAST_MODULATION[0]
        return [(str(found[0][0]), _halves_exchanged(pair) if turned else pair)]
    shares, rows = [share for _, share in found], pair.shape[0]
    if rows % sum(shares):
        raise CosetError(f"{place} has {rows} rows, which {sum(shares)} parts of equal size cannot be")
    sizes = [rows // sum(shares) * share for share in shares]
    blocks = zip(*(_cut(x, sizes) for x in (pair.u, pair.magnitude, pair.bias)), strict=True)
    return [
        (str(module), replace(pair, u=u, magnitude=m, bias=b))
        for (module, _), (u, m, b) in zip(found, blocks, strict=True)
    ]


def _halves_exchanged(pair: LoraPair) -> LoraPair:
    """The second half of the rows before the first."""

    def turned(value: Tensor) -> Tensor:
        return torch.cat(value.chunk(2)[::-1])

    return replace(
        pair, u=turned(pair.u), magnitude=None if pair.magnitude is None else turned(pair.magnitude),
        bias=None if pair.bias is None else turned(pair.bias),
    )  # fmt: skip


def _cut(value: Tensor | None, sizes: Sequence[int]) -> Sequence[Tensor | None]:
    return [None] * len(sizes) if value is None else value.split(list(sizes))


def _renamed_parameter(name: str) -> str:
    layer, _, last = name.rpartition(".")
    found = module_name(layer)
    return name if found is None else f"{found}.{last}"


@dataclass(frozen=True)
class Native:
    """Layers under the names of a model's first release.

    Attributes:
        layers: By name, without the network.
        networks: Of each.
    """

    layers: Mapping[str, LoraPair]
    networks: Mapping[str, str]


def native(adapter: LoraAdapter, *, dotted: bool = False) -> Native:
    """Layers of a canonical adapter as kohya's tools and ComfyUI call them, with q, k, v joined where these are one.

    Args:
        adapter: It.
        dotted: Whether they are for ComfyUI.

    Raises:
        CosetError: A layer belongs to no network of a diffusion model, or is in no table.
    """
    places = {layer: place_of(layer) for layer in adapter.layers}
    older, table = _scheme(adapter, dotted=dotted)
    layers: dict[str, LoraPair] = {}
    networks: dict[str, str] = {}
    joined: dict[str, dict[str, LoraPair]] = {}
    for layer, place in places.items():
        if not place.network:
            raise CosetError(f"{adapter.name}: {layer} is a layer of no diffusion model, which this naming is for")
        target = _native_path(place, older, table)
        if target is None:
            raise CosetError(
                f"{adapter.name}: {layer} is in none of the tables of names (SD 1.5, SDXL, Flux, Hunyuan, Wan)"
            )
        networks[target] = place.network
        if target == _LAST_MODULATION[0]:
            layers[target] = _halves_exchanged(adapter.layers[layer])
        elif _modules_of(target):
            joined.setdefault(target, {})[place.path] = adapter.layers[layer]
        else:
            layers[target] = adapter.layers[layer]
    return Native(layers | {name: _joined(name, parts) for name, parts in joined.items()}, networks)


_Table = Sequence[tuple[str, Sequence[tuple[str, int]]]]


def _scheme(adapter: LoraAdapter, beside: Iterable[str] = (), *, dotted: bool = False) -> tuple[bool, _Table]:
    """Whether a U-Net is numbered as in its first release (SDXL), and the table of a transformer, told by all layers.

    Raises:
        CosetError: They are layers that several models have alike, and call otherwise in their first releases.
    """
    shapes = {layer: pair.shape for layer, pair in adapter.layers.items()} | dict.fromkeys(beside, (0, 0))
    places = {place_of(layer): shape for layer, shape in shapes.items()}
    unet = [p for p in places if p.network in ("unet", "text_encoder_2")]
    older = any(p.network == "text_encoder_2" or re.search(r"transformer_blocks\.[1-9]", p.path) for p in unet)
    own = {p.path: shape for p, shape in places.items() if p.network == "transformer"}
    if any(re.match(r"blocks\.\d", path) for path in own):
        return older, _WAN
    attention = {path.split(".")[2] for path in own if re.match(r"transformer_blocks\.\d+\.attn", path)}
    if "attn1" in attention or ("attn2" in attention and "attn" not in attention):
        return older, ()  # LTX keeps its names
    return older, _of_release(adapter, own, dotted) if own else _FLUX


def _of_release(adapter: LoraAdapter, shapes: Mapping[str, tuple[int, int]], dotted: bool) -> _Table:
    """The table of Flux, of HunyuanVideo, or of both where all layers have one name in them.

    Raises:
        CosetError: Neither can be told from the layers, or they are of a model without a table.
    """
    first, possible = next(iter(shapes)), candidates(shapes, adapter.models)
    if not adapter.models and all(re.match(r"transformer_blocks\.\d+\.ff\.", path) for path in shapes):
        raise CosetError(
            f"{adapter.name}: {first} is a layer of Flux and of LTX, which have two names for it: other layers tell "
            "which"
        )
    if possible and set(possible) <= {QWEN}:
        return ()  # Qwen-Image keeps its names
    if not set(possible) & set(NAMED):
        wanted = ", ".join(possible or adapter.models) or "one with other widths or more blocks"
        raise CosetError(
            f"{adapter.name}: its layers ({first}, ...) are not those of Flux or HunyuanVideo, but of {wanted}, whose "
            "first names are not known"
        )
    if len(possible) == 1:
        return _TABLE_OF[possible[0]]
    differing = next((path for path in shapes if len({_flat_name(path, t) for t in _TABLE_OF.values()}) > 1), None)
    if set(possible) <= set(NAMED) and (dotted or differing is None):
        return _FLUX  # with dots ComfyUI has the names of Flux for both
    raise CosetError(
        f"{adapter.name}: {differing or first} is a layer of {' and of '.join(possible)}, which have two names for it; "
        f"--model {FLUX} or --model {HUNYUAN} says which it is"
    )


_TABLE_OF: dict[str, _Table] = {FLUX: _FLUX, HUNYUAN: (*_HUNYUAN, *_FLUX)}


def _flat_name(path: str, table: _Table) -> str:
    return str(_native_path(Place("transformer", path), False, table)).replace(".", "_")


def native_name(layer: str, adapter: LoraAdapter, *, dotted: bool = False) -> tuple[str, str]:
    """What kohya's tools and ComfyUI call a layer that is beside others in an adapter, and its network.

    Raises:
        CosetError: It is in no table, or part of a larger matrix there.
    """
    place = place_of(layer)
    target = place.path if _in_tables(place.path) else _native_path(place, *_scheme(adapter, [layer], dotted=dotted))
    if not place.network or target is None:
        raise CosetError(f"{layer} is in none of the tables of names (SD 1.5, SDXL, Flux, Hunyuan, Wan)")
    if target != place.path and _modules_of(target):
        raise CosetError(f"{layer} is part of a larger parameter in this naming ({target})")
    return target, place.network


def _native_path(place: Place, older: bool, table: _Table) -> str | None:
    """``older``: whether the U-Net is numbered as in its first release (SDXL); SD 1.5 is not."""
    if place.network == "unet":
        return _first_unet(place.path) if older else place.path
    if place.network != "transformer":
        return place.path
    if place.path == _LAST_MODULATION[1]:
        return None if table is _WAN else _LAST_MODULATION[0]
    for first, modules in table:
        for path, _ in modules:
            number = _number_in(path, place.path)
            if number is not None:
                return first.replace("#", number)
    return None if table else place.path


def _modules_of(native_path: str) -> list[tuple[str, int]]:
    """Those that are one matrix there; none if it is one."""
    for first, modules in _TABLES:
        number = _number_in(first, native_path)
        if number is not None and len(modules) > 1:
            return [(path.replace("#", number), share) for path, share in modules]
    return []


def _joined(name: str, parts: Mapping[str, LoraPair]) -> LoraPair:
    """One pair of several that stand below one another; those that are missing are zero.

    Raises:
        CosetError: They have other inputs, or only some have what stands beside factors.
    """
    modules, first = _modules_of(name), next(iter(parts.values()))
    unit = {parts[p].shape[0] // share for p, share in modules if p in parts}
    if len(unit) > 1 or len({pair.shape[1] for pair in parts.values()}) > 1:
        raise CosetError(f"{name}: its parts {', '.join(parts)} do not fit below one another")
    (size,) = unit
    if any(pair.magnitude is not None for pair in parts.values()) and len(parts) < len(modules):
        raise CosetError(
            f"{name}: all of its parts need DoRA magnitudes, where one has them; there is {', '.join(parts)}"
        )
    same = all(torch.equal(p.v, first.v) and p.scale == first.scale for p in parts.values()) and len(parts) == len(
        modules
    )
    rank, place = first.rank if same else sum(p.rank for p in parts.values()), 0
    blocks, magnitudes, biases = [], list[Tensor](), list[Tensor]()
    for path, share in modules:
        pair, block = parts.get(path), first.u.new_zeros(share * size, rank)
        if pair is not None:
            u = pair.u if same else pair.factors()[0]
            block[:, place : place + u.size(1)] = u
            place += 0 if same else pair.rank
            magnitudes += [] if pair.magnitude is None else [pair.magnitude]
        bias = None if pair is None else pair.bias
        biases.append(first.u.new_zeros(share * size) if bias is None else bias)
        blocks.append(block)
    v = first.v if same else torch.cat([parts[p].factors()[1] for p, _ in modules if p in parts], 1)
    if magnitudes and len(magnitudes) < len(modules):
        raise CosetError(f"{name}: some of its parts have DoRA magnitudes and some have not")
    bias = torch.cat(biases) if any(p.bias is not None for p in parts.values()) else None
    magnitude = torch.cat(magnitudes) if magnitudes else None
    return LoraPair(torch.cat(blocks), v, first.scale if same else 1.0, magnitude=magnitude, bias=bias)
