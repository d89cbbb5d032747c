"""What files of adapters say beside tensors: ``adapter_config.json`` of PEFT, the headers of diffusers and kohya."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from coset.core.errors import CosetError
from coset.core.outside import parse_tree
from coset.weights.lora.data.patterns import matches

HEADER = "lora_adapter_metadata"
"""Where diffusers keeps the settings of each network of a pipeline, as JSON in the header of a file of weights."""
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "eva_pissa")
_UNTOLD = (None, "None", "Dynamic")
"""What kohya's header says of alpha where it tells none: of factors resized layer by layer each has its own."""
_KINDS = ("LORA", "ADALORA", "LOHA", "LOKR")
_OTHER_FORWARD = {
    "kasa_config": "KaSA", "use_qalora": "QA-LoRA", "use_bdlora": "block-diagonal LoRA", "arrow_config": "Arrow",
    "monteclora_config": "MonteCLoRA", "velora_config": "VeLoRA",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Settings by network, and the alpha that is given where files tell none.

    Attributes:
        whole: ``adapter_config.json``.
        networks: Of a pipeline's networks, by the first part of their layers' names.
        alpha: Given by whoever reads the file.
        header_alpha: Of the whole file (kohya's ``ss_network_alpha``).
    """

    whole: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alpha: float | None = None
    header_alpha: float | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], metadata: Mapping[str, str], alpha: float | None) -> Settings:
        """Checked.

        Raises:
            CosetError: A value is of no use, or the adapter is of a kind that is not read.
        """
        networks = _networks(metadata)
        for found in (config, *networks.values()):
            _check(found)
        header = metadata.get("ss_network_alpha")
        if alpha is not None and not math.isfinite(alpha):
            raise CosetError(f"alpha={alpha} must be a number")
        return cls(config, networks, alpha, None if header in _UNTOLD else _number("ss_network_alpha", header))

    def about(self, layer: str) -> tuple[Mapping[str, Any], str]:
        """The settings of the network that a layer belongs to, and the layer's name inside it."""
        first, _, rest = layer.partition(".")
        if first in self.networks and rest:
            return self.networks[first], rest
        return self.whole, layer

    def value(self, layer: str, key: str, pattern: str) -> Any:
        """A setting for a layer: the first pattern that matches it, or the general one."""
        config, name = self.about(layer)
        for expression, value in (config.get(pattern) or {}).items():
            if matches(expression, name):
                return value
        return config.get(key)

    def rank(self, layer: str) -> int | None:
        """What they say of a layer's rank."""
        return None if self.adaptive else self.value(layer, "r", "rank_pattern")

    def scale(self, layer: str, alpha: Tensor | None, rank: int | None) -> float | None:
        """What the update of a layer is multiplied with; None where nothing tells alpha. ``alpha``: its own tensor.

        Raises:
            CosetError: It is not finite.
        """
        config, _ = self.about(layer)
        found: Any = float(alpha) if alpha is not None else None
        if found is None:
            key = "alpha" if str(_kind(config)) in ("LOHA", "LOKR") else "lora_alpha"
            found = self.value(layer, key, "alpha_pattern")
            if found is not None and self.adaptive:
                return self._scale_of_adaptive(layer, float(found), rank)
            if found is not None and rank is None:  # LoKr of two whole matrices
                rank = self.value(layer, "r", "rank_pattern")
        found = next((a for a in (found, self.header_alpha, self.alpha) if a is not None), None)
        if found is None:
            return None
        if not math.isfinite(found):
            raise CosetError(f"{layer}: alpha is {found}")
        divisor = 1 if rank is None else math.sqrt(rank) if config.get("use_rslora") else rank
        return float(found) / divisor if rank is not None else 1.0

    def _scale_of_adaptive(self, layer: str, alpha: float, rank: int | None) -> float:
        """As PEFT computes it: by the rank that training began with, also where a layer has been left fewer since.

        Raises:
            CosetError: The configuration does not tell that rank, or less than what the layer has.
        """
        began: int | None = self.whole.get("init_r")
        if began is None or began < (rank or 0):
            raise CosetError(f"{layer} has rank {rank}, AdaLoRA's init_r={began}: the rank that training began with")
        if alpha > 0:
            return alpha / (began + 1e-5)
        if rank != began:
            raise CosetError(f"{layer}: lora_alpha={alpha:g} and pruned: PEFT scales it otherwise once it is loaded")
        return began / (began + 1e-5)

    @property
    def adaptive(self) -> bool:
        """Whether ranks were shared out in training (AdaLoRA)."""
        return _kind(self.whole) == "ADALORA"

    def experts(self) -> bool:
        """Whether whole parameters were adapted, which may hold several experts."""
        return bool(self.whole.get("target_parameters"))

    def of_weight(self, layer: str) -> bool:
        """Whether what was adapted of a module is its weight: ``target_parameters`` may name another parameter."""
        modules = self.whole.get("target_modules")
        if isinstance(modules, list | tuple | set) and any(_ends_so(layer, str(module)) for module in modules):
            return True
        named = [str(target).rpartition(".") for target in self.whole.get("target_parameters") or []]
        return all(last == "weight" for place, _, last in named if not place or _ends_so(layer, place))

    def obstacles(self) -> list[str]:
        """What makes the update something else than what the tensors say."""
        found = []
        for config in (self.whole, *self.networks.values()):
            start = str(config.get("init_lora_weights", "")).lower()
            if any(start.startswith(mark) for mark in _CHANGED_BASE):
                found.append(f"initialised with {start}, which changed the base weights: B A is not all of it")
            if config.get("alora_invocation_tokens"):
                found.append("aLoRA: it works from its invocation tokens on only")
            if config.get("layer_replication"):
                found.append("layer_replication: it belongs to a base model of other depth")
            if config.get("trainable_token_indices"):
                found.append("trainable_token_indices: rows of the embedding were trained, too")
        return found


def _ends_so(layer: str, name: str) -> bool:
    """As PEFT finds modules by a list of names."""
    return layer == name or layer.endswith(f".{name}")


def _networks(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    text = metadata.get(HEADER)
    if text is None:
        return {}
    listed = parse_tree(text, f"{HEADER} in the header", dict[str, Any])
    found: dict[str, dict[str, Any]] = {}
    for name, value in listed.items():
        network, _, key = name.partition(".")
        found.setdefault(network, {})[key] = value
    return found


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("peft_type", "LORA")).rsplit(".", 1)[-1].upper()


def _check(config: Mapping[str, Any]) -> None:
    """Values as PEFT would use them, and no kind of adapter that computes something else."""
    kind = _kind(config)
    if kind not in _KINDS:
        raise CosetError(f"unsupported tuner {kind}: LoRA, DoRA, AdaLoRA, LoHa and LoKr are read")
    for key, name in _OTHER_FORWARD.items():
        if config.get(key):
            raise CosetError(f"unsupported variant {name} ({key} is set): it computes something else than B A")
    for key in ("lora_alpha", "alpha"):
        if config.get(key) is not None:
            _number(key, config[key])
    for key in ("r", "init_r"):
        if config.get(key) is not None and (type(config[key]) is not int or config[key] < 1):
            raise CosetError(f"adapter_config.json: {key}={config[key]!r} must be a whole number of 1 at least")
    for key in ("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias"):
        if config.get(key) is not None and not isinstance(config[key], bool):
            raise CosetError(f"adapter_config.json: {key}={config[key]!r} must be true or false, without quotes")
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, Mapping):
            raise CosetError(f"adapter_config.json: {key} must hold an object")
        for expression, value in patterns.items() if kind != "ADALORA" or key != "rank_pattern" else ():
            _number(f"{key}[{expression!r}]", value)
            matches(expression, "")


def _number(key: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError) as error:
        raise CosetError(f"{key}={value!r} must be a number") from error
    if not math.isfinite(number):
        raise CosetError(f"{key}={value!r} must be finite")
    return number
