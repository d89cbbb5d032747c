"""A hash of content, by which a run knows its data again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits of the content of some values: equal for equal content, whatever process made it.

    Args:
        parts: Tensors, arrays, texts, bytes, numbers, ``None``, and sequences, mappings and dataclasses of such.

    Mappings count in any order.

    Raises:
        TypeError: Something else is among them.

    >>> digest("abc", [1, 2]) == digest("abc", (1, 2)) != digest("abc", [1], 2)
    True
    """
    state = hashlib.sha256()
    for part in parts:
        _feed(state, part)
    return state.hexdigest()[:16]


def _feed(state: Any, value: Any) -> None:
    if value is None or isinstance(value, bool | int | float | str):
        _tell(state, type(value).__name__, str(value).encode())
    elif isinstance(value, bytes):
        _tell(state, "bytes", value)
    elif hasattr(value, "__array__") and hasattr(value, "dtype"):
        _feed_array(state, value)
    elif dataclasses.is_dataclass(value):
        _feed(state, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, Mapping):
        _tell(state, "mapping", str(len(value)).encode())
        for key, entry in sorted(value.items(), key=lambda item: str(item[0])):
            _feed(state, key)
            _feed(state, entry)
    elif isinstance(value, list | tuple):
        _tell(state, "sequence", str(len(value)).encode())
        for entry in value:
            _feed(state, entry)
    else:
        raise TypeError(f"a {type(value).__name__} has no identity: give numbers, texts, arrays or tensors")


def _feed_array(state: Any, value: Any) -> None:
    """Tensors and arrays of one type, shape and content give the same."""
    import torch

    tensor = value.detach().cpu() if isinstance(value, torch.Tensor) else None
    if tensor is not None and tensor.dtype == torch.bfloat16:  # which NumPy does not know
        tensor = tensor.view(torch.int16)
    array = value if tensor is None else tensor.numpy()
    if array.dtype.hasobject:
        _feed(state, array.tolist())
    else:
        _tell(state, f"{array.dtype.str} {array.shape}", array.tobytes())


def _tell(state: Any, kind: str, content: bytes) -> None:
    state.update(f"{kind} {len(content)}:".encode())
    state.update(content)
