"""Structure of a batch that is worked out once, where its data are loaded, and moved to a device as a whole.

How many pairs a batch has, or which rows an edge joins, is asked with sizes that depend on the data. On a GPU each such
question waits for all that was asked before. So what a model needs to know of a batch is settled on the CPU (the
``structure`` of a model, in the loader), and goes to the device with the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

S = TypeVar("S", bound="Structure")
KEY = "structure"
"""The attribute of a batch under which the loader leaves what a model's ``structure`` gave."""


class Structure:
    """Sets, products and relations of a batch, with all that was derived from them."""

    def to(self: S, device: torch.device | str | None = None, non_blocking: bool = False) -> S:
        """A copy on another device; what two parts shared they share there, too."""
        return self.apply(lambda tensor: tensor.to(device=device, non_blocking=non_blocking))

    def pin_memory(self: S, device: torch.device | str = "cuda") -> S:
        """A copy in memory that a GPU can read from while the CPU goes on."""
        return self.apply(lambda tensor: tensor.pin_memory())

    def apply(self: S, function: Callable[[Tensor], Tensor]) -> S:
        """A copy with ``function`` of each tensor in its place."""
        return _mapped(self, function, {})


def settle(model: nn.Module, structure: S) -> S:
    """Let each part of a model that has a ``settle`` work out what it will ask of the structure."""
    for part in model.modules():
        if (own := getattr(part, "settle", None)) is not None:
            own(structure)
    return structure


def _mapped(value: Any, function: Callable[[Tensor], Tensor], done: dict[int, Any]) -> Any:
    """A copy of ``value`` with ``function`` of each tensor; ``done`` has the copies by the identity of the original."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, Tensor):
        done[id(value)] = function(value)
    elif isinstance(value, Structure):
        done[id(value)] = copy = object.__new__(type(value))
        copy.__dict__.update({name: _mapped(part, function, done) for name, part in vars(value).items()})
    elif isinstance(value, tuple):
        parts = [_mapped(part, function, done) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    elif isinstance(value, list):
        return [_mapped(part, function, done) for part in value]
    elif isinstance(value, dict):
        return {_mapped(key, function, done): _mapped(part, function, done) for key, part in value.items()}
    return done.get(id(value), value)
