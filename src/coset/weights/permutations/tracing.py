"""Following the channels of every value through a network, to find which neurons can be permuted together.

A value carries its channel axis (1 behind a convolution, else the last) and segments of it, each a group of neurons
with some consecutive entries for each. Groups are the classes of a union-find: entrywise operations on two values join
their groups, and so does a parameter that is used twice; what is not understood pins them. A value of which nothing is
known never changes when neurons are permuted. See :mod:`coset.weights.permutations.groups`.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from coset.core.errors import CosetError
from coset.weights.permutations.channels import Channels, Groups, names_by_tensor, segments_of
from coset.weights.permutations.layers import handler
from coset.weights.permutations.spec import Neurons, Use

Shapes = Mapping[fx.Node, torch.Size]


class _Tracer(fx.Tracer):
    """Enters a user's modules, and stops at those that are known."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            return False
        path = type(m).__module__
        # A parametrized module's class is made on the fly: its base tells what it is.
        return path.startswith(("torch.", "torch_geometric.")) or handler(m) is not None


def trace_channels(model: nn.Module, example: tuple[Any, ...] | None = None) -> tuple[Neurons, ...]:
    """The groups of neurons of a module that are neither inputs nor outputs.

    Args:
        model: The module.
        example: Inputs of it, which tell how many axes every value has. Without them convolutions are taken to read
            batches, and BatchNorm behind a Linear layer ``[batch, channels]``.

    Raises:
        CosetError: The module's forward cannot be traced.
    """
    if handler(model) is not None:
        raise CosetError(f"{type(model).__name__} is a single layer: it has no hidden neurons")
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever a user's forward raises on symbolic inputs
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CosetError(f"the forward of {type(model).__name__} cannot be traced by torch.fx: {reason}") from error
    groups = Groups(names_by_tensor(model))
    reader = Reader(model, groups, {} if example is None else _shapes(model, graph, example))
    for node in graph.nodes:
        reader.values[node] = reader.read(node)
    return groups.found()


def _shapes(model: nn.Module, graph: fx.Graph, example: tuple[Any, ...]) -> Shapes:
    """The shape of every tensor on the way from inputs to outputs."""
    shapes: dict[fx.Node, torch.Size] = {}

    class Runner(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                shapes[n] = value.shape
            return value

    with torch.no_grad():
        Runner(deepcopy(model).eval(), graph=graph).run(*example)
    return shapes


class Reader:
    """Reads the nodes of a traced graph in order, and writes down groups and uses."""

    def __init__(self, model: nn.Module, groups: Groups, shapes: Shapes):
        self.model, self.groups, self.shapes = model, groups, shapes
        self.values: dict[fx.Node, Any] = {}

    def read(self, node: fx.Node) -> Any:
        arguments, keywords = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        if node.op == "output":
            self.groups.pin(arguments)
        if node.op == "get_attr":
            return self._attribute(node)
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            return self._seen(node, self.module(str(node.target), module, *arguments, **keywords))
        if node.op in ("call_function", "call_method"):
            return self._seen(node, self._function(node, arguments, dict(keywords)))
        return None

    def module(self, name: str, module: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        """What a layer makes of its inputs."""
        reading = handler(module)
        if reading is None:
            return self.opaque(name, module, arguments, keywords)
        try:
            bound = inspect.signature(module.forward).bind(*arguments, **keywords)
        except TypeError:  # and so would the call fail
            return self.opaque(name, module, arguments, keywords)
        return reading(self, name, module, *bound.args, **bound.kwargs)

    # Values

    def unknown(self, *values: Any) -> Any:
        """Whatever goes through an operation that is not understood stays where it is."""
        self.groups.pin(values)
        return None

    def activated(self, name: str, activation: Any, value: Any) -> Any:
        """An activation that is a module, or a function."""
        if isinstance(activation, nn.Module):
            return self.module(name, activation, value)
        return value if function_name(activation) in ENTRYWISE else self.unknown(value)

    def opaque(self, name: str, module: nn.Module, *values: Any) -> Any:
        """A layer that is not understood: neither its inputs nor its parameters move."""
        for own, parameter in module.named_parameters():
            for axis, size in enumerate(parameter.shape):
                self.groups.freeze(f"{name}.{own}", axis, size)
        return self.unknown(values)

    def _seen(self, node: fx.Node, value: Any) -> Any:
        """A value with as many axes as the example shows; one that has another form than it should is pinned."""
        shape = self.shapes.get(node)
        if shape is None or not isinstance(value, Channels):
            return value
        spread = any(repeat == 0 for _, repeat in value.segments)
        if value.rank not in (None, len(shape)) or (not spread and shape[value.axis] != self.size(value)):
            return self.unknown(value)
        return replace(value, rank=len(shape))

    def _attribute(self, node: fx.Node) -> Channels | None:
        """A parameter that forward uses by itself, such as a class token: its last axis holds channels."""
        name, value = str(node.target), self.model
        for part in name.split("."):
            value = getattr(value, part)
        if not isinstance(value, nn.Parameter) or value.dim() == 0 or all(map(_asks_form, node.users)):
            return None
        *others, last = value.shape
        for axis, size in enumerate(others):
            self.groups.freeze(name, axis, size)
        if last == 1:
            return None
        group = self.groups.new(last, name)
        self.groups.claim(group, Use(name, value.dim() - 1))
        return Channels(((group, 1),), rank=value.dim())

    def size(self, value: Channels) -> int:
        return sum(self.groups.size[group] * repeat for group, repeat in value.segments)

    def fitting(self, value: Any, size: int, on: int) -> Channels | None:
        """The value if it surely has so many channels on that axis; else it is pinned."""
        if not isinstance(value, Channels) or value.axis != on:
            return self.unknown(value)
        if any(repeat == 0 for _, repeat in value.segments):
            channels = sum(self.groups.size[group] for group, _ in value.segments)
            if len(value.segments) == 1 and size % channels == 0:
                value = replace(value, segments=((value.segments[0][0], size // channels),))
        return value if self.size(value) == size else self.unknown(value)

    def use(self, value: Any, parameter: str, axis: int, size: int, on: int = -1) -> Channels | None:
        """A layer reads ``size`` channels, the axis ``on`` of a value, on an axis of its parameter."""
        value = self.fitting(value, size, on)
        if value is None:  # the parameter may be used elsewhere, too
            self.groups.freeze(parameter, axis, size)
            return None
        start = 0
        for group, repeat in value.segments:
            self.groups.claim(group, Use(parameter, axis, start, repeat))
            start += self.groups.size[group] * repeat
        return value

    def make(
        self, name: str, size: int, uses: list[tuple[str, int]], axis: int = -1, *, module: bool = True,
        rank: int | None = None,
    ) -> Channels:  # fmt: skip
        """A layer makes new neurons."""
        group = self.groups.new(size, name)
        if module:
            self.groups.modules[group].append(name)
        for parameter, where in uses:
            self.groups.claim(group, Use(parameter, where))
        return Channels(((group, 1),), axis, rank)

    def join(self, a: Any, b: Any) -> Any:
        """Entrywise operation on two values; a number goes with anything, an unknown tensor pins."""
        if not (isinstance(a, Channels) and isinstance(b, Channels)):
            known, other = (a, b) if isinstance(a, Channels) else (b, a)
            return known if isinstance(other, int | float) else self.unknown(a, b)
        sizes = [[(self.groups.size[g], repeat) for g, repeat in value.segments] for value in (a, b)]
        # Axes are aligned from the last: that of channels need not be, in values of different rank.
        if sizes[0] != sizes[1] or a.axis != b.axis or (a.axis == 1 and a.rank != b.rank):
            return self.unknown(a, b)
        for (first, _), (second, _) in zip(a.segments, b.segments, strict=True):
            self.groups.join(first, second)
        return replace(a, rank=None if a.rank is None or b.rank is None else max(a.rank, b.rank))

    def flatten(self, value: Any) -> Any:
        """All axes behind the batch in one."""
        if isinstance(value, Channels) and value.rank == 2:
            return value
        if not isinstance(value, Channels) or value.axis == -1 or len(value.segments) > 1:
            return self.unknown(value)
        return Channels(((value.segments[0][0], 0),), -1, 2)

    def pool(self, value: Any, dimensions: int) -> Any:
        """Each channel by itself, over axes behind that of the channels: of others the channels would be pooled."""
        fits = isinstance(value, Channels) and value.axis == 1 and value.rank == dimensions + 2
        return value if fits else self.unknown(value)

    # Functions

    def _function(self, node: fx.Node, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        called = function_name(node.target)
        for name in ("input", "tensors", "other"):
            if name in keywords and len(arguments) == (name == "other"):
                arguments = (*arguments, keywords.pop(name))
        if not arguments or segments_of([arguments[2:], keywords]):
            return self.unknown(arguments, keywords)
        first, rest = arguments[0], arguments[1:]
        if _asks_form(node):
            return None
        if called in JOINING and rest:
            return self.join(first, rest[0])
        if called in JOINING or segments_of(rest):
            return self.unknown(arguments)
        if called in ENTRYWISE:
            return first
        if called in POOLING:
            return self.pool(first, POOLING[called])
        if called in SHAPING:
            return SHAPING[called](self, node, first, rest, keywords)
        if called == "getitem" and isinstance(first, tuple) and isinstance(rest[0], int):
            return first[rest[0]]
        return self.unknown(arguments)


def _flatten(reader: Reader, _: fx.Node, first: Any, rest: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    start, end = _where(rest, keywords, 0, "start_dim", 0), _where(rest, keywords, 1, "end_dim", -1)
    return reader.flatten(first) if (start, end) == (1, -1) else reader.unknown(first)


def _view(reader: Reader, node: fx.Node, first: Any, rest: tuple[Any, ...], _: dict[str, Any]) -> Any:
    """``x.view(x.size(0), -1)``."""
    flat = len(rest) == 2 and rest[1] == -1 and _is_batch_size(reader, node.args[1])
    return reader.flatten(first) if flat else reader.unknown(first)


def _is_batch_size(reader: Reader, number: Any) -> bool:
    """Whether it is ``x.size(0)`` or ``x.shape[0]``, of an input or of something behind a convolution."""
    if not isinstance(number, fx.Node) or number.args[1:] != (0,):
        return False
    source: Any = number.args[0]
    if function_name(number.target) == "getitem" and _asks_form(source):
        source = source.args[0]
    elif number.target != "size":
        return False
    value = reader.values[source]
    return source.op == "placeholder" or (isinstance(value, Channels) and value.axis == 1)


def _mean(reader: Reader, _: fx.Node, first: Any, rest: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Over axes behind that of the channels."""
    dims, keepdim = _where(rest, keywords, 0, "dim", None), _where(rest, keywords, 1, "keepdim", False)
    dims = [dims] if isinstance(dims, int) else dims
    if not isinstance(first, Channels) or first.axis != 1 or first.rank is None or not dims:
        return reader.unknown(first)
    rank = first.rank
    over = {d % rank if isinstance(d, int) else 0 for d in dims}
    if not over <= set(range(2, rank)):
        return reader.unknown(first)
    left = rank if keepdim else rank - len(over)
    return replace(first, axis=1 if left > 2 else -1, rank=left)


def _cat(reader: Reader, _: fx.Node, first: Any, rest: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Along the channels."""
    parts = list(first) if isinstance(first, tuple | list) else []
    dim = _where(rest, keywords, 0, "dim", 0)
    if not parts or not all(isinstance(part, Channels) and part.axis == parts[0].axis for part in parts):
        return reader.unknown(first)
    axis, rank = parts[0].axis, next((part.rank for part in parts if part.rank is not None), None)
    if dim != axis and (rank is None or not isinstance(dim, int) or dim % rank != axis % rank):
        return reader.unknown(first)
    return Channels(tuple(s for part in parts for s in part.segments), axis, rank)


def _where(rest: tuple[Any, ...], keywords: dict[str, Any], place: int, name: str, default: Any) -> Any:
    return keywords.get(name, rest[place] if len(rest) > place else default)


def _asks_form(node: fx.Node) -> bool:
    """Whether it asks for a shape, a type or a device, which no permutation changes."""
    called = function_name(node.target)
    return called in ("size", "dim", "numel") or (called == "getattr" and node.args[1] in FORM)


def function_name(function: Any) -> str:
    """The name of a method, or of a function of PyTorch or Python; empty for others, which may do anything."""
    if isinstance(function, str):
        return function
    home = (getattr(function, "__module__", None) or "").partition(".")[0]
    return getattr(function, "__name__", "") if home in ("torch", "_operator", operator.__name__, "builtins") else ""


ENTRYWISE = {
    "relu", "relu_", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "mish", "dropout",
    "contiguous", "clone", "detach", "neg", "to", "float",
}  # fmt: skip
JOINING = {
    "add", "iadd", "add_", "sub", "isub", "mul", "imul", "mul_", "truediv", "itruediv", "div", "div_",
}  # fmt: skip
POOLING = {
    f"{name}_pool{n}d": n for n in (1, 2, 3) for name in ("max", "avg", "adaptive_avg", "adaptive_max")
}  # fmt: skip
SHAPING = {
    "flatten": _flatten, "view": _view, "reshape": _view, "mean": _mean, "cat": _cat, "concat": _cat,
    "concatenate": _cat,
}  # fmt: skip
FORM = {"shape", "dtype", "device", "ndim", "layout", "requires_grad"}
