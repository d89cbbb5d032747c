"""What a map takes or gives, seen as a tree of tensors: a tensor, PyG data, or tuples, lists and dicts of these."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[..., Tensor], value: Any, *others: Any) -> Any:
    """The same tree with ``function`` applied to every tensor; anything else (strings, numbers, None) stays.

    With ``others``, trees of the same form, the function takes the tensors that stand at the same place in each.
    """
    if isinstance(value, Tensor):
        return function(value, *others)
    if _is_graph(value):
        return copy.copy(value).apply(function)
    if isinstance(value, dict):
        return {key: map_tensors(function, part, *(other[key] for other in others)) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [map_tensors(function, *beside) for beside in zip(value, *others, strict=True)]
        named = hasattr(value, "_fields")  # a namedtuple takes its fields one by one
        return type(value)(*parts) if named else type(value)(parts)
    return value


def tensors(value: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the tree with its place in it, e.g. ``("points[0]", ...)``; dicts in the order of their keys."""
    if isinstance(value, Tensor):
        yield where, value
    elif _is_graph(value):
        yield from tensors(value.to_dict(), where)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from tensors(value[key], f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for position, part in enumerate(value):
            yield from tensors(part, f"{where}[{position}]")


def cast(value: Any, dtype: torch.dtype) -> Any:
    """A copy that shares no memory with ``value``, its real floating-point tensors in ``dtype``."""
    return map_tensors(lambda t: t.detach().to(dtype if t.is_floating_point() else t.dtype, copy=True), value)


def _is_graph(value: Any) -> bool:
    """PyG data. There is none before PyG is imported, which takes twice as long as all else that weights need."""
    module = sys.modules.get("torch_geometric.data.data")
    return module is not None and isinstance(value, module.BaseData)
