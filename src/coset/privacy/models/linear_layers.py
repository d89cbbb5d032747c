"""Linear layers of a state dict: which bias belongs to which matrix, and which layer follows which.

A file holds tensors by name and not the network. What is no part of linear layers is refused, and so are layers whose
order neither numbers in their names, nor the file, nor their widths tell: another network than the one that was trained
would be audited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from torch import Tensor

from coset.core.errors import CosetError

Layer = tuple[Tensor, Tensor | None]
OTHER_NETWORKS = "other networks: --model FILE.py:NAME, which makes it"
MOST = 2000
"""Beginnings of orders that are looked at before layers count as in no certain order."""


def layers_of(state: dict[str, Tensor], inputs: int, source: Path, *, ordered: bool) -> list[Layer]:
    """Weights [out, in] and biases [out], the first layer first.

    Numbers in names count as numbers (``fc2`` before ``fc10``). Where names have none, the order of the file is that of
    the network if ``ordered``; else only one order may fit by widths.

    Args:
        state: Tensors by name.
        inputs: d.
        source: File, for messages.
        ordered: Whether the tensors stand in the order in which the network was built.

    Raises:
        CosetError: A tensor belongs to no linear layer, layers do not fit together, or do so in several orders.
    """
    weights = {name: value for name, value in state.items() if value.dim() == 2}
    biases, lone = _biases_of(state, weights, source)
    names = _in_order(weights, inputs, source, ordered)
    if lone is not None and names[0] not in biases:
        biases[names[0]] = lone
    elif lone is not None:
        raise CosetError(f"{source}: a bias beside that of {names[0]} belongs to no linear layer ({OTHER_NETWORKS})")
    for name, bias in biases.items():
        if len(bias) != len(weights[name]):
            raise CosetError(f"{source}: the bias of {name} has {len(bias)} numbers for {len(weights[name])} outputs")
    return [(weights[name], biases.get(name)) for name in names]


def _biases_of(
    state: dict[str, Tensor], weights: dict[str, Tensor], source: Path
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Biases by the names of their weights, and one that has none beside it, which can only be the first layer's."""
    modules = {name.rpartition(".")[0] for name in weights} | {""}
    found, lone = {}, []
    for name, value in state.items():
        if name in weights:
            continue
        module, dot, kind = name.rpartition(".")
        if value.dim() == 1 and kind == "bias" and f"{module}{dot}weight" in weights:
            found[f"{module}{dot}weight"] = value
        elif value.dim() == 1 and module in modules and re.fullmatch(r"b(ias)?_?\d*", kind):
            lone.append(value)
        else:
            raise CosetError(
                f"{source}: {name} {tuple(value.shape)} is no weight or bias of a linear layer; read are linear layers "
                f"with ReLUs between them ({OTHER_NETWORKS})"
            )
    if len(lone) > 1:
        raise CosetError(
            f"{source}: {len(lone)} biases have no weight beside them: call both X.weight and X.bias ({OTHER_NETWORKS})"
        )
    return found, lone[0] if lone else None


def _in_order(weights: dict[str, Tensor], inputs: int, source: Path, ordered: bool) -> list[str]:
    before = {name: {other for other in weights if _comes_before(other, name)} for name in weights}
    listed = list(weights)
    grows = all(before[name] <= set(listed[:place]) for place, name in enumerate(listed))
    if ordered and grows and _chained(list(weights.values()), inputs):
        return listed
    tries = list(islice(_orders(weights, inputs, before), MOST))
    found = [names for names in tries if names is not None]
    if not found:
        named = sorted(weights, key=_texts_and_numbers)
        sizes = [weights[named[0]].size(1), *(len(weights[name]) for name in named)] if named else []
        raise CosetError(
            f"{source}: layers {' - '.join(map(str, sizes)) or '(none)'}; expected {inputs} - ... as weights and "
            f"biases of linear layers with ReLUs between them ({OTHER_NETWORKS})"
        )
    if len(found) > 1 or len(tries) == MOST:
        raise CosetError(
            f"{source}: {', '.join(found[0])} fit together in more than one order; number their names, or save a state "
            f"dict with torch.save, which keeps it ({OTHER_NETWORKS})"
        )
    return found[0]


def _orders(weights: dict[str, Tensor], inputs: int, before: dict[str, set[str]]) -> Iterator[list[str] | None]:
    """Orders in which widths fit and numbers in names grow; None of every beginning of one, two orders at most."""
    begun: list[tuple[list[str], int]] = [([], inputs)]
    found = 0
    while begun and found < 2:
        names, width = begun.pop()
        done = set(names)
        left = [name for name in weights if name not in done]
        found += bool(names) and not left
        yield names if names and not left else None
        fit = [name for name in left if weights[name].size(1) == width and before[name] <= done]
        begun += [([*names, name], len(weights[name])) for name in reversed(fit)]


def _chained(weights: Sequence[Tensor], inputs: int) -> bool:
    widths = [inputs, *(len(weight) for weight in weights)]
    return bool(weights) and all(weight.size(1) == width for weight, width in zip(weights, widths, strict=False))


def _comes_before(one: str, other: str) -> bool:
    """Whether two names differ in a number first, and the one has the smaller.

    >>> _comes_before("fc2.weight", "fc10.weight"), _comes_before("hidden.weight", "out.weight")
    (True, False)
    """
    for (text, number), (other_text, other_number) in zip(
        _texts_and_numbers(one), _texts_and_numbers(other), strict=False
    ):
        if text != other_text:
            return False
        if number != other_number:
            return 0 <= number < other_number
    return False


def _texts_and_numbers(name: str) -> list[tuple[str, int]]:
    """
    >>> _texts_and_numbers("layers.10.weight")
    [('layers.', 10), ('.weight', -1)]
    """
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", name) if text or number]
