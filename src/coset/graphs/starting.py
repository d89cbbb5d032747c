"""Starting from a trained network: which of its parts another one takes, and which parts stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from coset.core.errors import CosetError
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.fitting.tasks import GraphTask

BODY = "body"
"""In ``training.freeze``: all but the last layer."""


def take_over(task: GraphTask, source: GraphTask, table: GraphTable, described: GraphTable, where: str) -> str:
    """Give a network all tensors of a trained one that have equal names and shapes; returns what was taken, a line.

    The last layer is taken only if both learn the same targets, and then with their scale, so that the first
    predictions are those of the trained network; else it is new, and the first embeddings are those of the trained one.

    Args:
        task: The new network, which is changed.
        source: The trained one.
        table: What the new one learns from.
        described: What the trained one learned from, without its graphs.
        where: Folder of the trained one, for messages.

    Raises:
        CosetError: They share no tensor beside the last layer, or columns of words mean other words.
    """
    _check_words(table.columns, described.columns, where)
    own, theirs, last = task.model.state_dict(), source.model.state_dict(), last_layer(task.model)
    same = (table.target_names, table.classes, table.level, task.task) == (
        described.target_names, described.classes, described.level, source.task,
    )  # fmt: skip
    fits = {name for name, value in theirs.items() if name in own and own[name].shape == value.shape}
    taken = {name for name in fits if same or not name.startswith(f"{last}.")}
    if not any(own[name].dim() > 1 for name in taken - {n for n in own if n.startswith(f"{last}.")}):
        raise CosetError(
            f"model.from={where}: no layer of that network has the shapes of this one; give it the same model"
        )
    task.model.load_state_dict({**own, **{name: theirs[name] for name in taken}})
    if same and fits >= {name for name in own if name.startswith(f"{last}.")}:
        task.mean.copy_(source.mean)
        task.scale.copy_(source.scale)
    new = sorted({name.rpartition(".")[0] for name in own if name not in taken})
    told = f"new: {', '.join(new[:6])}{', ...' if len(new) > 6 else ''}" if new else "none is new"
    return f"started from {where}: {len(taken)} of {len(own)} tensors taken, {told}"


def last_layer(network: nn.Module) -> str:
    """Name of the linear layer that gives the outputs: the last one of the head, or of all."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return next((name for name in reversed(linear) if name.startswith("head.")), linear[-1])


def freeze(network: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Keep parts of a network as they are; returns the modules that are to stay in evaluation mode.

    Args:
        network: Its parameters get no gradients where they are of one of the parts.
        parts: Names such as ``encoder`` or ``mlps.0``, or ``body``: all but the last layer.

    Raises:
        CosetError: There is no such part, or nothing is left to train.
    """
    last = last_layer(network)
    for part in parts:
        chosen = [
            parameter
            for name, parameter in network.named_parameters()
            if (not name.startswith(f"{last}.") if part == BODY else name == part or name.startswith(f"{part}."))
        ]
        if not chosen:
            names = dict.fromkeys(name.partition(".")[0] for name, _ in network.named_parameters())
            raise CosetError(
                f"training.freeze={part}: the network has no such part; it has {', '.join(names)}, or {BODY}"
            )
        for parameter in chosen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise CosetError(f"training.freeze={','.join(parts)}: nothing is left to train")
    return [module for module in network.modules() if _is_frozen(module)]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _check_words(new: dict[str, Any], old: dict[str, Any], where: str) -> None:
    """Words are numbered: the same number must mean the same word."""
    for table, columns in old.items():
        for name, known in columns.items():
            own = new.get(table, {}).get(name, {})
            if "values" in known and "values" in own and own["values"] != known["values"]:
                raise CosetError(
                    f"model.from={where}: the words of column {name!r} of {table} are others than there "
                    f"({', '.join(map(repr, known['values'][:5]))}, ...)"
                )
