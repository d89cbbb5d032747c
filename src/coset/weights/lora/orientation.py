"""Which square matrices of a base model are stored as ``[in, out]``.

PEFT says so for a whole adapter (``fan_in_fan_out``), and that of the layer it adapted last: of an adapter of BERT and
GPT-2 together it is wrong for one of them. A layer's neighbours that are not square tell by their shapes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from coset.core.errors import CosetError

Shape = tuple[int, ...]


def turned_squares(
    squares: Collection[str], shapes: Mapping[str, Shape], updates: Mapping[str, Shape], flag: bool
) -> frozenset[str]:
    """Of square weights those that are stored as ``[in, out]``.

    Args:
        squares: Their names.
        shapes: Of all parameters of the base.
        updates: ``[out, in]`` of the weights that an adapter changes.
        flag: What the adapter says; it holds where the base has no layer that tells.

    Raises:
        CosetError: The layers nearest to one are stored in both ways.
    """
    known = _known(shapes, updates) if squares else {}
    return frozenset(name for name in squares if (_is_turned(name, shapes, known) if known else flag))


def _known(shapes: Mapping[str, Shape], updates: Mapping[str, Shape]) -> dict[str, bool]:
    """Of weights that are not square whether they are ``[in, out]``: a bias, or an update, has the length of out."""
    known = {}
    for name, shape in shapes.items():
        if len(shape) != 2 or shape[0] == shape[1] or not name.endswith(".weight"):
            continue
        out = updates[name][0] if name in updates else next(iter(shapes.get(_bias(name), ())), None)
        if out in shape:
            known[name] = out == shape[1]
    return known


def _is_turned(name: str, shapes: Mapping[str, Shape], known: Mapping[str, bool]) -> bool:
    if _bias(name) not in shapes:
        return False  # Conv1D has one always
    parts = name.split(".")
    shared = {other: _in_common(parts, other.split(".")) for other in known}
    nearest = [other for other, count in shared.items() if count == max(shared.values())]
    alike = [other for other in nearest if other.split(".")[-2:] == parts[-2:]]
    found = {known[other] for other in alike or nearest}
    if len(found) > 1:
        raise CosetError(
            f"{name} is square, and the layers nearest to it are stored as [in, out] and as [out, in] "
            f"({', '.join(nearest[:3])}): which it is nothing tells; merge with PEFT"
        )
    return found.pop()


def _in_common(parts: list[str], others: list[str]) -> int:
    """How many parts two names begin with in common."""
    count = 0
    while count < min(len(parts), len(others)) and parts[count] == others[count]:
        count += 1
    return count


def _bias(weight: str) -> str:
    return f"{weight.removesuffix('weight')}bias"
