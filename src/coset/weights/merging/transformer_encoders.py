r"""Transformers of the package ``transformers`` as networks that can be merged: ViT, BERT, CLIP's image tower.

The residual stream is one space: embeddings, W_O and W_2 of every layer write it, each with its own merge map (tables
that are added to one another share one); what follows each LayerNorm reads it, each with its own unmerge map. Queries
and keys write one space of a layer, values another, hidden units a third. LayerNorms act on the merged stream.

Models are read through their modules, not through the names in a file, which change between releases.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.weights.merging.encoders import Encoder, Inputs
from coset.weights.merging.wiring import Norm, Slot, Wiring


class TransformerEncoder(Encoder):
    """A transformer and the feature that its head reads.

    ViT: the class token after the last LayerNorm. BERT: the pooler's output, or the first token if it has no pooler.
    CLIP: the projected image embedding.

    Args:
        model: ``ViTModel``, ``BertModel`` or ``CLIPVisionModelWithProjection``.

    Raises:
        CosetError: Another architecture.
    """

    def __init__(self, model: Any):
        super().__init__()
        family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if family not in _WIRINGS:
            raise CosetError(f"{type(model).__name__} cannot be merged; known are {', '.join(_WIRINGS)}")
        if family == "vit" and getattr(model, "pooler", None) is not None:
            model.pooler = None  # classifiers of ViT read the class token itself
        self.family, self.model = family, model

    @property
    def config(self) -> Any:
        return self.model.config

    def forward(self, inputs: Inputs) -> Float[Tensor, "samples features"]:
        found = self.model(**(inputs if isinstance(inputs, dict) else {"pixel_values": inputs}))
        if self.family == "clip_vision_model":
            return found.image_embeds
        pooled = found.pooler_output if self.family == "bert" else None
        return found.last_hidden_state[:, 0] if pooled is None else pooled

    def wiring(self) -> Wiring:
        made = _WIRINGS[self.family](self.model)
        left = {n for n, _ in self.named_parameters()} - made.names()
        if left:
            raise CosetError(f"{type(self.model).__name__} has {min(left)}, which cannot be merged")
        return made

    def resized(self, width: int | None) -> TransformerEncoder:
        """Heads keep their width: their number follows the width of the stream, as does the MLP's.

        Raises:
            CosetError: The width is not a whole number of heads.
        """
        made = build(self.config_of(width), pooled=getattr(self.model, "pooler", None) is not None)
        return TransformerEncoder(made).to(next(self.parameters()).dtype)

    def shell(self, width: int | None) -> TransformerEncoder:
        """Without memory for its parameters."""
        with torch.device("meta"):
            made = build(self.config_of(width), pooled=getattr(self.model, "pooler", None) is not None)
        for name, buffer in self.model.named_buffers():  # positions, token types: they do not depend on the width
            where, _, last = name.rpartition(".")
            setattr(made.get_submodule(where), last, buffer)
        return TransformerEncoder(made).to(dtype=next(self.parameters()).dtype)

    def config_of(self, width: int | None) -> Any:
        """The configuration at another width."""
        config = copy.deepcopy(self.config)
        size = config.hidden_size // config.num_attention_heads
        if width is not None:
            if width % size:
                raise CosetError(f"width={width} is not a multiple of the width of a head, {size}")
            config.intermediate_size = round(config.intermediate_size * width / config.hidden_size)
            config.hidden_size, config.num_attention_heads = width, width // size
            if getattr(config, "pooler_output_size", None):
                config.pooler_output_size = width
        return config


def build(config: Any, *, pooled: bool = True, seed: int | None = None) -> nn.Module:
    """An untrained model; its weights depend on nothing but the seed.

    Args:
        config: ``ViTConfig``, ``BertConfig`` or ``CLIPVisionConfig``.
        pooled: Whether BERT has its pooler.
        seed: Of the weights; any if None.
    """
    transformers = require("transformers", "weights")
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        if config.model_type == "vit":
            return transformers.ViTModel(config, add_pooling_layer=False)
        if config.model_type == "bert":
            return transformers.BertModel(config, add_pooling_layer=pooled)
        return transformers.CLIPVisionModelWithProjection(config)


def _linear(module: str, merge: str, unmerge: str, writes: str, reads: str, *, bias: bool = True) -> Slot:
    return Slot(f"{module}.weight", f"{module}.bias" if bias else None, merge, unmerge, writes, reads)


def _norm(module: str) -> Norm:
    return Norm(f"{module}.weight", f"{module}.bias", "stream")


def _table(name: str) -> Slot:
    return Slot(name, None, "embed", None, "stream", None, table=True)


def _block(i: int, names: dict[str, str]) -> list[Slot]:
    """Attention and MLP of one layer: six maps of attention, four of the MLP."""
    qk, v, hidden = f"layer{i}.qk", f"layer{i}.v", f"layer{i}.hidden"
    return [
        _linear(names["q"], f"q_{i}", f"attention_{i}", qk, "stream"),
        _linear(names["k"], f"k_{i}", f"attention_{i}", qk, "stream"),
        _linear(names["v"], f"v_{i}", f"attention_{i}", v, "stream"),
        _linear(names["o"], f"o_{i}", f"o_{i}", "stream", v),
        _linear(names["up"], f"up_{i}", f"up_{i}", hidden, "stream"),
        _linear(names["down"], f"down_{i}", f"down_{i}", "stream", hidden),
    ]


def _wiring(config: Any, slots: list[Slot], norms: list[Norm], output: str, **more: int) -> Wiring:
    """The spaces of all layers, and ``more`` of them by width."""
    widths: dict[str, int] = {"stream": config.hidden_size}
    heads: dict[str, int] = {}
    hidden = [f"layer{i}.hidden" for i in range(config.num_hidden_layers)]
    for i in range(config.num_hidden_layers):
        widths |= {f"layer{i}.qk": config.hidden_size, f"layer{i}.v": config.hidden_size}
        widths[hidden[i]] = config.intermediate_size
        heads |= {f"layer{i}.qk": config.num_attention_heads, f"layer{i}.v": config.num_attention_heads}
    return Wiring(tuple(slots), tuple(norms), widths | more, output, "stream", heads, frozenset(hidden))


def _vit(model: Any) -> Wiring:
    config, m = model.config, "model"
    patch = f"{m}.embeddings.patch_embeddings.projection"
    slots = [
        Slot(f"{patch}.weight", f"{patch}.bias", "embed", None, "stream", None),
        _table(f"{m}.embeddings.cls_token"),
        _table(f"{m}.embeddings.position_embeddings"),
    ]
    norms = []
    for i in range(config.num_hidden_layers):
        at = f"{m}.layers.{i}"
        slots += _block(
            i,
            {c: f"{at}.attention.{c}_proj" for c in "qkvo"} | {"up": f"{at}.mlp.fc1", "down": f"{at}.mlp.fc2"},
        )
        norms += [_norm(f"{at}.layernorm_before"), _norm(f"{at}.layernorm_after")]
    norms.append(_norm(f"{m}.layernorm"))
    return _wiring(config, slots, norms, "stream")


def _bert(model: Any) -> Wiring:
    config, m = model.config, "model"
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    slots = [_table(f"{m}.embeddings.{t}.weight") for t in tables]
    norms = [_norm(f"{m}.embeddings.LayerNorm")]
    for i in range(config.num_hidden_layers):
        at = f"{m}.encoder.layer.{i}"
        names = {c[0]: f"{at}.attention.self.{c}" for c in ("query", "key", "value")}
        names |= {"o": f"{at}.attention.output.dense"}
        slots += _block(i, names | {"up": f"{at}.intermediate.dense", "down": f"{at}.output.dense"})
        norms += [_norm(f"{at}.attention.output.LayerNorm"), _norm(f"{at}.output.LayerNorm")]
    if model.pooler is None:
        return _wiring(config, slots, norms, "stream")
    slots.append(_linear(f"{m}.pooler.dense", "pool", "pool", "pooled", "stream"))
    return _wiring(config, slots, norms, "pooled", pooled=config.hidden_size)


def _clip(model: Any) -> Wiring:
    config, m = model.config, "model.vision_model"
    slots = [
        Slot(f"{m}.embeddings.patch_embedding.weight", None, "embed", None, "stream", None),
        _table(f"{m}.embeddings.class_embedding"),
        _table(f"{m}.embeddings.position_embedding.weight"),
    ]
    norms = [_norm(f"{m}.pre_layrnorm")]
    for i in range(config.num_hidden_layers):
        at = f"{m}.encoder.layers.{i}"
        names = {c: f"{at}.self_attn.{c}_proj" for c in "qkv"} | {"o": f"{at}.self_attn.out_proj"}
        slots += _block(i, names | {"up": f"{at}.mlp.fc1", "down": f"{at}.mlp.fc2"})
        norms += [_norm(f"{at}.layer_norm1"), _norm(f"{at}.layer_norm2")]
    norms.append(_norm(f"{m}.post_layernorm"))
    slots.append(_linear("model.visual_projection", "project", "project", "projected", "stream", bias=False))
    return _wiring(config, slots, norms, "projected", projected=config.projection_dim)


_WIRINGS = {"vit": _vit, "bert": _bert, "clip_vision_model": _clip}
