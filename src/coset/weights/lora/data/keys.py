"""The names that tools give to the tensors of a LoRA: which layer and which part of it a key stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from coset.core.errors import CosetError


@dataclass(frozen=True)
class Key:
    """What a key says.

    Attributes:
        layer: Dotted path of the module, or the flat name that kohya gives it.
        part: down (A), up (B), mid, alpha, magnitude (PEFT's), dora_scale (LyCORIS's), bias, diagonal (AdaLoRA's E),
            embedding_down, embedding_up, a factor of LoHa or LoKr as it is called (``hada_w1_a``, ``lokr_w2``), diff
            and diff_b (differences of weight and bias), or ignored.
        adapter: Name of the adapter, in state dicts of PEFT models in memory.
        convention: peft, diffusers, kohya (flat names), comfyui (dotted ones), lycoris or indexed.
    """

    layer: str
    part: str
    adapter: str | None = None
    convention: str = "peft"


_PEFT_PARTS = {"lora_A": "down", "lora_B": "up", "lora_E": "diagonal", "lora_magnitude_vector": "magnitude"}
_EMBEDDING = {"lora_embedding_A": "embedding_down", "lora_embedding_B": "embedding_up"}
_OTHER_PARTS = {"w_norm": "diff", "b_norm": "diff_b"}
"""LyCORIS calls the differences of a norm otherwise than those of other layers."""
_SIDES = {"down": "down", "up": "up", "mid": "mid"}
_PEFT = re.compile(
    r"^(?:base_model\.model\.)?(?P<layer>.+)\.(?P<field>lora_(?:A|B|E|magnitude_vector))"
    r"(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?(?:\.(?P<tail>weight|bias))?$"
)
_PEFT_EMBEDDING = re.compile(
    r"^(?:base_model\.model\.)?(?P<layer>.+)\.(?P<field>lora_embedding_[AB])(?:\.(?P<adapter>[^.]+))?$"
)
_KOHYA = re.compile(
    r"^(?P<layer>.+)\.(?:lora_(?P<side>down|up|mid)\.weight|(?P<other>alpha|dora_scale|diff|diff_b|w_norm|b_norm))$"
)
_PRODUCT = re.compile(
    r"^(?:base_model\.model\.)?(?P<layer>.+?)\.(?P<part>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))"
    r"(?:\.(?P<adapter>[^.]+))?$"
)
_OLD_ATTENTION = re.compile(r"^(?P<layer>.+\.)(?P<name>to_(?:q|k|v|out))_lora\.(?P<side>down|up)\.weight$")
_DIFFUSERS = re.compile(r"^(?P<layer>.+)\.(?:lora|lora_linear_layer)\.(?P<side>down|up|mid)\.weight$")
_OLD_ALPHA = re.compile(r"^(?P<layer>.+?)(?:_lora|\.lora|\.lora_linear_layer)\.alpha$")
_INDEXED = re.compile(r"^(?P<layer>[^:]+:\d+):(?P<side>down|up)$")
_IGNORED = re.compile(r"lora_ranknum|lora_dropout|num_updates|^<.*>$|modules_to_save|original_module")
_OTHER_TUNERS = {
    "vera_": "VeRA", "ia3_l": "IA3", "boft_": "BOFT", "oft_": "OFT", "hra_": "HRA",
    "fourierft_": "FourierFT", "vblora_": "VB-LoRA", "prompt_encoder": "prompt tuning", "prompt_embeddings": "prompts",
}  # fmt: skip


@lru_cache(maxsize=1 << 16)  # adapters of one collection have the same keys
def parse_key(key: str) -> Key | None:
    """What a key stands for; None for a weight that belongs to no LoRA.

    Raises:
        CosetError: The key belongs to another kind of adapter.
    """
    for mark, name in _OTHER_TUNERS.items():
        if re.search(rf"(^|[._]){re.escape(mark)}", key):
            raise CosetError(f"unsupported tuner {name} (key {key}): LoRA, DoRA, AdaLoRA, LoHa and LoKr are read")
    if _IGNORED.search(key):
        return Key(key, "ignored")
    for reader in (_peft, _product, _diffusers, _kohya, _indexed):
        found = reader(key)
        if found is not None:
            return found
    return None


def _peft(key: str) -> Key | None:
    match = _PEFT_EMBEDDING.match(key)
    if match:
        return Key(match["layer"], _EMBEDDING[match["field"]], match["adapter"], _peft_or_diffusers(match["layer"]))
    match = _PEFT.match(key)
    if not match:
        return None
    part = "bias" if match["tail"] == "bias" else _PEFT_PARTS[match["field"]]
    return Key(match["layer"], part, match["adapter"], _peft_or_diffusers(match["layer"]))


def _peft_or_diffusers(layer: str) -> str:
    return "diffusers" if re.match(r"(unet|transformer|text_encoder(_\d)?)\.", layer) else "peft"


def _kohya(key: str) -> Key | None:
    match = _KOHYA.match(key)
    if not match:
        return None
    part = match["side"] or _OTHER_PARTS.get(match["other"], match["other"])
    layer = match["layer"].replace(".processor.", ".") if part == "alpha" else match["layer"]
    return Key(layer, part, convention="comfyui" if "." in layer else "kohya")


def _product(key: str) -> Key | None:
    match = _PRODUCT.match(key)
    if not match:
        return None
    convention = "peft" if key.startswith("base_model.model.") or match["adapter"] else "lycoris"
    return Key(match["layer"], match["part"], match["adapter"], convention)


def _diffusers(key: str) -> Key | None:
    match = _OLD_ATTENTION.match(key)
    if match:
        layer = match["layer"].replace(".processor.", ".") + match["name"]
        return Key(layer, _SIDES[match["side"]], convention="diffusers")
    match = _DIFFUSERS.match(key)
    if match:
        return Key(match["layer"], _SIDES[match["side"]], convention="diffusers")
    match = _OLD_ALPHA.match(key)
    if match:
        return Key(match["layer"].replace(".processor.", "."), "alpha", convention="diffusers")
    return None


def _indexed(key: str) -> Key | None:
    match = _INDEXED.match(key)
    return Key(match["layer"], _SIDES[match["side"]], convention="indexed") if match else None
