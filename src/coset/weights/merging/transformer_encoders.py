r"""Transformers of the package ``transformers`` as networks that can be merged; :mod:`families` describes each.

The residual stream is one space: embeddings, W_O and W_2 of every layer write it, each with its own merge map (tables
that are added to one another share one); what follows each norm reads it, each with its own unmerge map. Queries and
keys write one space of a layer, values another, hidden units a third. Norms act on the merged stream.

Models are read through their modules, not through the names in a file, which change between releases. Two are brought
into a form whose maps are Linear: GPT-2's Conv1D, of which one holds queries, keys and values, and the scales of
DINOv2's layers, which go into the maps before them. :func:`restored` brings them back.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.core.errors import CosetError, require
from coset.weights.merging.encoders import Encoder, Inputs
from coset.weights.merging.families import FAMILIES, family_of, wiring_of
from coset.weights.merging.wiring import Wiring


class TransformerEncoder(Encoder):
    """A transformer and the feature that its head reads.

    ViT, DeiT, DINOv2: the class token after the last norm. BERT: the pooler's output, or the first token if it has no
    pooler; RoBERTa and DistilBERT: the first token, through the first map of the head if that is given. CLIP: the
    projected image embedding, or the pooled one. Decoders: the last token that is no padding.

    Args:
        model: Of a family in :data:`~coset.weights.merging.families.FAMILIES`, without a head.
        top: What stands between that feature and the classifier, where the family has such a map.

    Raises:
        CosetError: Another architecture.
    """

    def __init__(self, model: Any, top: nn.Linear | None = None):
        super().__init__()
        self.family = family_of(model)
        if (self.family in ("vit", "deit") or top is not None) and getattr(model, "pooler", None) is not None:
            model.pooler = None  # classifiers read the first token itself
        self.model = plain(model)
        self.top = top

    @property
    def config(self) -> Any:
        return self.model.config

    def forward(self, inputs: Inputs) -> Float[Tensor, "samples features"]:
        family = FAMILIES[self.family]
        given: dict[str, Tensor] = inputs if isinstance(inputs, dict) else {"pixel_values": inputs}
        if family.feature == "last":
            hidden = self.model(**given, use_cache=False).last_hidden_state
            return _last(hidden, given.get("attention_mask"))
        found = self.model(**given)
        if family.feature == "projected":
            return found.image_embeds
        pooled = found.get("pooler_output") if hasattr(found, "get") else None
        feature = found.last_hidden_state[:, 0] if pooled is None else pooled
        if self.top is None or family.top is None:
            return feature
        return family.top[1]()(self.top(feature))

    def wiring(self) -> Wiring:
        made = wiring_of(self.family, self.model, self.top)
        left = {n for n, _ in self.named_parameters()} - made.names()
        if left:
            raise CosetError(f"{type(self.model).__name__} has {min(left)}, which cannot be merged")
        return made

    def resized(self, width: int | None) -> TransformerEncoder:
        """Heads keep their width: their number follows the width of the stream, as does the MLP's.

        Raises:
            CosetError: The width is not a whole number of heads, or the family is made in its own width alone.
        """
        made = build(self.config_of(width), pooled=self._pooled, projected=self._projected)
        return TransformerEncoder(made, self._new_top(made)).to(next(self.parameters()).dtype)

    def shell(self, width: int | None) -> TransformerEncoder:
        """Without memory for its parameters."""
        with torch.device("meta"):
            made = build(self.config_of(width), pooled=self._pooled, projected=self._projected)
            top = self._new_top(made)
            encoder = TransformerEncoder(made, top)
        for name, buffer in self.model.named_buffers():  # positions, token types: they do not depend on the width
            where, _, last = name.rpartition(".")
            setattr(encoder.model.get_submodule(where), last, buffer)
        return encoder.to(dtype=next(self.parameters()).dtype)

    @property
    def _pooled(self) -> bool:
        return getattr(self.model, "pooler", None) is not None

    @property
    def _projected(self) -> bool:
        return hasattr(self.model, "visual_projection")

    def _new_top(self, made: Any) -> nn.Linear | None:
        width = int(made.config.hidden_size)
        return None if self.top is None else nn.Linear(width, width, bias=self.top.bias is not None)

    def config_of(self, width: int | None) -> Any:
        """The configuration at another width."""
        config = copy.deepcopy(self.config)
        if width is None or width == config.hidden_size:
            return config
        family = FAMILIES[self.family]
        stream, hidden, number = family.names
        if family.rotary or not hasattr(config, hidden) or getattr(config, hidden) is None:
            raise CosetError(f"{self.family} is merged in its own width, {config.hidden_size}, alone: width={width}")
        heads = getattr(config, number)
        size = config.hidden_size // heads
        if width % size:
            raise CosetError(f"width={width} is not a multiple of the width of a head, {size}")
        setattr(config, hidden, round(getattr(config, hidden) * width / config.hidden_size))
        setattr(config, stream, width)
        setattr(config, number, width // size)
        if getattr(config, "pooler_output_size", None):
            config.pooler_output_size = width
        return config


def build(config: Any, *, pooled: bool = True, projected: bool = True, seed: int | None = None) -> nn.Module:
    """An untrained model; its weights depend on nothing but the seed.

    Args:
        config: Of a family, e.g. ``ViTConfig``.
        pooled: Whether BERT and RoBERTa have their pooler.
        projected: Whether CLIP has its projection.
        seed: Of the weights; any if None.
    """
    transformers = require("transformers", "weights")
    name = config.model_type
    name = f"{name} without projection" if name == "clip_vision_model" and not projected else name
    family = FAMILIES[name]
    options = {"add_pooling_layer": pooled} if name in ("bert", "roberta") else dict(family.made)
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return getattr(transformers, family.model)(config, **options)


def _last(hidden: Float[Tensor, "samples tokens width"], mask: Tensor | None) -> Float[Tensor, "samples width"]:
    """Of the last token that is no padding."""
    if mask is None:
        return hidden[:, -1]
    places = torch.arange(mask.size(1), device=mask.device)
    return hidden[torch.arange(len(hidden)), (mask.long() * places).argmax(1)]


class _Fused(nn.Module):
    """Queries, keys and values of GPT-2, each a map of its own, side by side."""

    def __init__(self, q: nn.Linear, k: nn.Linear, v: nn.Linear):
        super().__init__()
        self.q, self.k, self.v = q, k, v

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], -1)


def plain(model: Any) -> Any:
    """The same function by Linear maps alone; the model itself where it has no others."""
    if model.config.model_type not in ("gpt2", "dinov2"):
        return model
    model = copy.deepcopy(model)
    if model.config.model_type == "gpt2":
        for block in model.h:
            if isinstance(block.attn.c_attn, _Fused):
                continue
            block.attn.c_attn = _Fused(*_linears(block.attn.c_attn, 3))
            for holder, name in ((block.attn, "c_proj"), (block.mlp, "c_fc"), (block.mlp, "c_proj")):
                setattr(holder, name, _linears(getattr(holder, name), 1)[0])
        return model
    for layer in model.encoder.layer:
        if getattr(model.config, "use_swiglu_ffn", False):
            raise CosetError("DINOv2 with SwiGLU cannot be merged: its first map holds gate and values in one")
        for name, linear in (("layer_scale1", layer.attention.o_proj), ("layer_scale2", layer.mlp.fc2)):
            scale = getattr(layer, name)
            if isinstance(scale, nn.Identity):
                continue
            if not scale.lambda1.is_meta:
                with torch.no_grad():
                    linear.weight.mul_(scale.lambda1[:, None])
                    linear.bias.mul_(scale.lambda1)
            setattr(layer, name, nn.Identity())
    return model


def restored(model: Any) -> Any:
    """A model of :func:`plain` as the package has it, with the same function."""
    if model.config.model_type not in ("gpt2", "dinov2"):
        return model
    with torch.device("meta"):
        made = build(copy.deepcopy(model.config))
    state = dict(model.state_dict())
    if model.config.model_type == "gpt2":
        for i in range(len(model.h)):
            at = f"h.{i}"
            for name, dim in (("weight", 0), ("bias", 0)):
                parts = [state.pop(f"{at}.attn.c_attn.{x}.{name}") for x in "qkv"]
                state[f"{at}.attn.c_attn.{name}"] = torch.cat(parts, dim)
            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                state[f"{at}.{name}.weight"] = state[f"{at}.{name}.weight"].mT.contiguous()
    else:
        like = next(model.parameters())
        for i in range(len(model.encoder.layer)):
            for n in (1, 2):
                state[f"encoder.layer.{i}.layer_scale{n}.lambda1"] = like.new_ones(model.config.hidden_size)
    made.load_state_dict(state, assign=True)
    for name, buffer in model.named_buffers():
        where, _, last = name.rpartition(".")
        setattr(made.get_submodule(where), last, buffer)
    return made


def _linears(module: Any, parts: int) -> list[nn.Linear]:
    """Conv1D holds ``[in, out]``: as Linear maps of equal shares of the rows."""
    made = []
    for weight, bias in zip(module.weight.detach().mT.chunk(parts), module.bias.detach().chunk(parts), strict=True):
        linear = nn.Linear(weight.size(1), weight.size(0), device=weight.device, dtype=weight.dtype)
        linear.weight = nn.Parameter(weight.contiguous())
        linear.bias = nn.Parameter(bias.clone())
        made.append(linear)
    return made
