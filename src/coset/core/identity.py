"""The identity of data: one short hash of their content, by which a run knows them again."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from typing import Any

LENGTH = 16  # hexadecimal digits: two of a million data sets share them with a chance of 3e-8


def digest(*parts: Any) -> str:
    """A hash of numbers, texts, arrays, tensors, and of lists, tuples and dictionaries of them.

    Equal content gives equal hashes, on any machine: arrays count with their type and shape, dictionaries in any order.

    >>> digest([1, 2.0], {"a": "x"}) == digest((1, 2.0), {"a": "x"})
    True
    >>> digest("ab", "c") == digest("a", "bc")
    False

    Raises:
        TypeError: A part is something else.
    """
    state = hashlib.sha256()
    _add(state, parts)
    return state.hexdigest()[:LENGTH]


def _add(state: Any, part: Any) -> None:
    if part is None or isinstance(part, bool | int | str | bytes):
        content = part if isinstance(part, bytes) else str(part).encode()
        _block(state, type(part).__name__, content)
    elif isinstance(part, float):
        _block(state, "float", struct.pack("<d", part))
    elif isinstance(part, Mapping):
        items = sorted(part.items(), key=lambda item: str(item[0]))
        _all(state, "mapping", (entry for item in items for entry in item), 2 * len(items))
    elif isinstance(part, list | tuple):
        _all(state, "sequence", part, len(part))
    elif hasattr(part, "detach"):
        _add(state, part.detach().cpu().numpy())
    elif hasattr(part, "dtype") and hasattr(part, "tobytes") and part.dtype.kind != "O":
        _block(state, f"array {part.dtype.str.lstrip('<=|')} {part.shape}", part.tobytes())
    else:
        raise TypeError(f"a {type(part).__name__} has no identity: give numbers, texts, arrays or tensors")


def _all(state: Any, kind: str, entries: Iterable[Any], count: int) -> None:
    _block(state, kind, str(count).encode())
    for entry in entries:
        _add(state, entry)


def _block(state: Any, kind: str, content: bytes) -> None:
    state.update(f"{kind} {len(content)}\n".encode())
    state.update(content)
