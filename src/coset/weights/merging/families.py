r"""Families of transformers, each by a short description of its blocks, and the wiring that follows from it.

What commutes with a block, and so may be done to it without changing its function:

=====================  ==============================================================================================
residual stream        permutations; with RMSNorm also orthogonal maps, once its gains are in what reads it (LayerNorm
                       takes the mean off, with which only maps that fix (1, ..., 1) commute)
hidden units           permutations; of a gated MLP the gate's and the other's rows go together
heads                  whole groups of heads with their key and value head; inside a group its query heads
query, key channels    invertible maps (A, A^-T); with rotary positions only turns and sizes of each pair of channels
value channels         invertible maps of a key and value head, with the columns of all query heads of its group
=====================  ==============================================================================================

Of these the finite ones are used for matching: permutations, and none of query and key channels that turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from coset.core.errors import CosetError
from coset.weights.merging.wiring import Attention, Norm, Slot, Wiring

Feature = Literal["first", "last", "pooled", "projected"]


@dataclass(frozen=True)
class Block:
    """Names of one layer's maps, below it; ``gate`` of a gated MLP alone."""

    q: str
    k: str
    v: str
    o: str
    up: str
    down: str
    norms: tuple[str, ...]
    gate: str | None = None


@dataclass(frozen=True)
class Family:
    """One architecture of ``transformers``.

    Attributes:
        model: Its class without a head.
        tables: Parameters that are added to one another, and to patches, before the first layer.
        layers: The list of layers.
        block: One of them.
        norms: Those before the layers.
        last: Those after them.
        patch: The convolution of an image's patches.
        rms: Whether norms are RMSNorm: without an offset.
        rotary: Whether queries and keys are turned by their positions.
        feature: What a head reads: the first token, the last one that is no padding, or an output of the model's own.
        headed: Its class with a classifier.
        head: Where in that the classifier is.
        top: Map and activation between the feature and the classifier.
        made: Arguments of the class without a head.
        names: Of its configuration, where they are others: width, hidden width, heads.
    """

    model: str
    tables: tuple[str, ...]
    layers: str
    block: Block
    norms: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    patch: str | None = None
    rms: bool = False
    rotary: bool = False
    feature: Feature = "first"
    headed: str | None = None
    head: str = "classifier"
    top: tuple[str, type[nn.Module]] | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, str, str] = ("hidden_size", "intermediate_size", "num_attention_heads")


_BERT = Block(
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "intermediate.dense", "output.dense", ("attention.output.LayerNorm", "output.LayerNorm"),
)  # fmt: skip
_VIT = Block(
    "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2",
    ("layernorm_before", "layernorm_after"),
)  # fmt: skip
_CLIP = Block(
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2",
    ("layer_norm1", "layer_norm2"),
)  # fmt: skip
_LLAMA = Block(
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj",
    ("input_layernorm", "post_attention_layernorm"), gate="mlp.gate_proj",
)  # fmt: skip
_WORDS = tuple(f"embeddings.{t}_embeddings.weight" for t in ("word", "position", "token_type"))
_PATCH = "embeddings.patch_embeddings.projection"
_BARE = {"add_pooling_layer": False}


def _clip(projected: bool) -> Family:
    at = "vision_model." if projected else ""
    return Family(
        "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel",
        (f"{at}embeddings.class_embedding", f"{at}embeddings.position_embedding.weight"), f"{at}encoder.layers", _CLIP,
        (f"{at}pre_layrnorm",), (f"{at}post_layernorm",), patch=f"{at}embeddings.patch_embedding",
        feature="projected" if projected else "pooled",
    )  # fmt: skip


def _llama(name: str) -> Family:
    return Family(
        f"{name}Model", ("embed_tokens.weight",), "layers", _LLAMA, last=("norm",), rms=True, rotary=True,
        feature="last", headed=f"{name}ForSequenceClassification", head="score",
    )  # fmt: skip


FAMILIES: dict[str, Family] = {
    "vit": Family(
        "ViTModel", ("embeddings.cls_token", "embeddings.position_embeddings"), "layers", _VIT, last=("layernorm",),
        patch=_PATCH, headed="ViTForImageClassification", made=_BARE,
    ),
    "deit": Family(
        "DeiTModel", tuple(f"embeddings.{t}" for t in ("cls_token", "distillation_token", "position_embeddings")),
        "layers", _VIT, last=("layernorm",), patch=_PATCH, headed="DeiTForImageClassification", made=_BARE,
    ),
    "dinov2": Family(
        "Dinov2Model", tuple(f"embeddings.{t}" for t in ("cls_token", "mask_token", "position_embeddings")),
        "encoder.layer", Block(_VIT.q, _VIT.k, _VIT.v, _VIT.o, _VIT.up, _VIT.down, ("norm1", "norm2")),
        last=("layernorm",), patch=_PATCH,
    ),
    "bert": Family(
        "BertModel", _WORDS, "encoder.layer", _BERT, ("embeddings.LayerNorm",), feature="pooled",
        headed="BertForSequenceClassification",
    ),
    "roberta": Family(
        "RobertaModel", _WORDS, "encoder.layer", _BERT, ("embeddings.LayerNorm",), made=_BARE,
        headed="RobertaForSequenceClassification", head="classifier.out_proj", top=("classifier.dense", nn.Tanh),
    ),
    "distilbert": Family(
        "DistilBertModel", _WORDS[:2], "transformer.layer",
        Block("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2",
              ("sa_layer_norm", "output_layer_norm")),
        ("embeddings.LayerNorm",), headed="DistilBertForSequenceClassification", top=("pre_classifier", nn.ReLU),
        names=("dim", "hidden_dim", "n_heads"),
    ),
    "clip_vision_model": _clip(projected=True),
    "clip_vision_model without projection": _clip(projected=False),
    "gpt2": Family(
        "GPT2Model", ("wte.weight", "wpe.weight"), "h",
        Block("attn.c_attn.q", "attn.c_attn.k", "attn.c_attn.v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj",
              ("ln_1", "ln_2")),
        last=("ln_f",), feature="last", headed="GPT2ForSequenceClassification", head="score",
        names=("n_embd", "n_inner", "n_head"),
    ),
    "llama": _llama("Llama"), "mistral": _llama("Mistral"), "qwen2": _llama("Qwen2"),
}  # fmt: skip


def family_of(model: nn.Module) -> str:
    """The name of a model's family.

    Raises:
        CosetError: It is none of those described here.
    """
    found = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    if found == "clip_vision_model" and not hasattr(model, "visual_projection"):
        found = "clip_vision_model without projection"
    if found not in FAMILIES:
        raise CosetError(f"{type(model).__name__} cannot be merged; known are {', '.join(FAMILIES)}")
    return found


def wiring_of(name: str, model: nn.Module, top: nn.Linear | None) -> Wiring:
    """Which parameter of an encoder (``model.``, ``top``) reads and writes what."""
    family, config = FAMILIES[name], getattr(model, "config")  # noqa: B009
    slots = [] if family.patch is None else [_slot(model, family.patch, "embed", None, "stream", None)]
    slots += [_table(table) for table in family.tables]
    norms = [_norm(model, name) for name in family.norms]
    widths, attention = {"stream": int(config.hidden_size)}, []
    for i, _ in enumerate(model.get_submodule(family.layers)):  # type: ignore[arg-type]
        made = _layer(model, family, i)
        slots += made[0]
        norms += [_norm(model, f"{family.layers}.{i}.{n}") for n in family.block.norms]
        widths |= made[1]
        attention.append(made[2])
    norms += [_norm(model, name) for name in family.last]
    output = "stream"
    for module, space, key in (("pooler.dense", "pooled", "pool"), ("visual_projection", "projected", "project")):
        if _has(model, module):
            slots.append(_slot(model, module, key, key, space, "stream"))
            widths[space], output = model.get_submodule(module).out_features, space  # type: ignore[assignment]
    if top is not None:
        slots.append(Slot("top.weight", "top.bias", "pool", "pool", "pooled", "stream"))
        widths["pooled"], output = top.out_features, "pooled"
    hidden = frozenset(space for space in widths if space.endswith(".hidden"))
    return Wiring(tuple(slots), tuple(norms), widths, output, "stream", tuple(attention), hidden)


def _layer(model: nn.Module, family: Family, i: int) -> tuple[list[Slot], dict[str, int], Attention]:
    """Attention and MLP of one layer: six maps of attention, four or five of the MLP."""
    block, at = family.block, f"{family.layers}.{i}"
    config: Any = getattr(model, "config")  # noqa: B009
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    plain = heads == groups and not family.rotary
    q, k = (f"layer{i}.qk",) * 2 if plain else (f"layer{i}.q", f"layer{i}.k")
    v, read = (f"layer{i}.v",) * 2 if heads == groups else (f"layer{i}.v", f"layer{i}.read")
    hidden = f"layer{i}.hidden"

    def slot(name: str, key: str, unmerge: str, writes: str, reads: str) -> Slot:
        return _slot(model, f"{at}.{name}", key, unmerge, writes, reads)

    slots = [
        slot(block.q, f"q_{i}", f"attention_{i}", q, "stream"),
        slot(block.k, f"k_{i}", f"attention_{i}", k, "stream"),
        slot(block.v, f"v_{i}", f"attention_{i}", v, "stream"),
        slot(block.o, f"o_{i}", f"o_{i}", "stream", read),
    ]
    if block.gate is not None:
        slots.append(slot(block.gate, f"gate_{i}", f"up_{i}", hidden, "stream"))
    slots += [
        slot(block.up, f"up_{i}", f"up_{i}", hidden, "stream"),
        slot(block.down, f"down_{i}", f"down_{i}", "stream", hidden),
    ]
    widths = {space: _rows(model, f"{at}.{name}") for space, name in ((q, block.q), (k, block.k), (v, block.v))}
    widths |= {read: _rows(model, f"{at}.{block.q}"), hidden: _rows(model, f"{at}.{block.up}")}
    return slots, widths, Attention(q, k, v, read, heads, groups, family.rotary)


def _rows(model: nn.Module, module: str) -> int:
    return int(model.get_submodule(module).weight.shape[0])  # type: ignore[index]


def _has(model: nn.Module, module: str) -> bool:
    try:
        return isinstance(model.get_submodule(module), nn.Linear)
    except AttributeError:
        return False


def _slot(model: nn.Module, module: str, merge: str, unmerge: str | None, writes: str, reads: str | None) -> Slot:
    biased = getattr(model.get_submodule(module), "bias", None) is not None
    return Slot(f"model.{module}.weight", f"model.{module}.bias" if biased else None, merge, unmerge, writes, reads)


def _table(name: str) -> Slot:
    return Slot(f"model.{name}", None, "embed", None, "stream", None, table=True)


def _norm(model: nn.Module, module: str) -> Norm:
    biased = getattr(model.get_submodule(module), "bias", None) is not None
    return Norm(f"model.{module}.weight", f"model.{module}.bias" if biased else None, "stream")
