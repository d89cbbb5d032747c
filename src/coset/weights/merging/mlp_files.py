"""A plain ``nn.Sequential`` of Linear layers and one activation, as tensors ``0.weight``, ``0.bias``, ``2.weight``."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.weights.merging.encoders import MLPEncoder

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


def places(names: Sequence[str]) -> list[int]:
    """Where Linear layers stand in the sequence.

    Raises:
        CosetError: The tensors are not those of such a sequence.
    """
    for name in names:
        place, _, kind = name.rpartition(".")
        if not place.isdigit() or kind not in ("weight", "bias"):
            raise CosetError(f"{name} is no tensor of a plain nn.Sequential of Linear layers, such as 0.weight")
    found = sorted({int(name.partition(".")[0]) for name in names})
    if len(found) < 2 or any(b - a < 2 for a, b in itertools.pairwise(found)):
        raise CosetError(f"Linear layers at {found}: at least two are needed, with an activation between them")
    return found


def build(tensors: Mapping[str, Tensor], activation: str) -> tuple[MLPEncoder, nn.Linear]:
    """The network before its last layer, and that layer: the head.

    Args:
        tensors: All of them.
        activation: After every layer but the last: one of :data:`ACTIVATIONS`.

    Raises:
        CosetError: Unknown activation, or the tensors do not fit together.
    """
    if activation not in ACTIVATIONS:
        raise CosetError(f"hidden_act={activation!r} must be one of {', '.join(ACTIVATIONS)}")
    *inner, last = places(list(tensors))
    layers: list[nn.Module] = [nn.Identity() for _ in range(last)]
    for place in inner:
        layers[place], layers[place + 1] = _linear(tensors, place), ACTIVATIONS[activation]()
    return MLPEncoder(nn.Sequential(*layers)), _linear(tensors, last)


def tensors_of(encoder: MLPEncoder, head: nn.Linear) -> dict[str, Tensor]:
    """The same as tensors again."""
    whole = nn.Sequential(*encoder.layers, head)
    return {name: value.detach().contiguous() for name, value in whole.state_dict().items()}


def _linear(tensors: Mapping[str, Tensor], place: int) -> nn.Linear:
    weight, bias = tensors[f"{place}.weight"].float(), tensors.get(f"{place}.bias")
    made = nn.Linear(weight.size(1), weight.size(0), bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made.requires_grad_(False)
