"""Following the channels of every value through a network, to find which neurons can be permuted together.

A value carries its channel axis (1 behind a convolution, else the last) and segments of it, each a group of neurons
with some consecutive entries for each. Groups are the classes of a union-find: entrywise operations on two values join
their groups; what is not understood pins them. See :mod:`coset.weights.permutations.groups`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from coset.core.errors import CosetError
from coset.weights.permutations.layers import ACTIVATIONS, CONVOLUTIONS
from coset.weights.permutations.spec import Neurons, Use


@dataclass(frozen=True)
class Channels:
    """What is known of a value: its segments (group, repeat), their axis, whether it surely is ``[batch, channels]``.

    ``repeat`` is 0 where flattening spread the channels over a number of entries that only the next layer tells.
    """

    segments: tuple[tuple[int, int], ...]
    axis: int = -1
    flat: bool = False


class _Groups:
    """Classes of neurons under union, with sizes, uses, and whether they are pinned."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.size: list[int] = []
        self.pinned: list[bool] = []
        self.uses: list[list[Use]] = []
        self.modules: list[list[str]] = []
        self.names: list[str] = []

    def new(self, size: int, name: str, pinned: bool = False) -> int:
        self.parent.append(len(self.parent))
        self.size.append(size)
        self.pinned.append(pinned)
        self.uses.append([])
        self.modules.append([])
        self.names.append(name)
        return len(self.parent) - 1

    def find(self, group: int) -> int:
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def join(self, a: int, b: int) -> None:
        first, second = sorted((self.find(a), self.find(b)))
        if first != second:
            self.parent[second] = first
            self.pinned[first] |= self.pinned[second]
            self.uses[first] += self.uses[second]
            self.modules[first] += self.modules[second]

    def pin(self, value: Any) -> None:
        for group, _ in _segments(value):
            self.pinned[self.find(group)] = True


def _segments(value: Any) -> list[tuple[int, int]]:
    if isinstance(value, Channels):
        return list(value.segments)
    if isinstance(value, tuple | list):
        return [segment for part in value for segment in _segments(part)]
    if isinstance(value, dict):
        return _segments(list(value.values()))
    return []


class _Tracer(fx.Tracer):
    """Enters a user's modules, and stops at those that are known."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            return False
        path = type(m).__module__
        # A parametrized module's class is made on the fly: its base tells what it is.
        return path.startswith(("torch.", "torch_geometric.")) or _handler(m) is not None


def trace_channels(model: nn.Module) -> tuple[Neurons, ...]:
    """The groups of neurons of a module that are neither inputs nor outputs.

    Raises:
        CosetError: The module's forward cannot be traced.
    """
    if _handler(model) is not None:
        raise CosetError(f"{type(model).__name__} is a single layer: it has no hidden neurons")
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever a user's forward raises on symbolic inputs
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CosetError(f"the forward of {type(model).__name__} cannot be traced by torch.fx: {reason}") from error
    groups = _Groups()
    reader = _Reader(model, groups)
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        values[node] = reader.read(node, values)
    return _collect(groups)


def _collect(groups: _Groups) -> tuple[Neurons, ...]:
    found = []
    for group in range(len(groups.parent)):
        if groups.find(group) == group and not groups.pinned[group] and groups.size[group] > 1 and groups.uses[group]:
            found.append(
                Neurons(
                    groups.names[group], groups.size[group], tuple(dict.fromkeys(groups.uses[group])),
                    tuple(dict.fromkeys(groups.modules[group])),
                )
            )  # fmt: skip
    return tuple(found)


class _Reader:
    """Reads the nodes of a traced graph in order, and writes down groups and uses."""

    def __init__(self, model: nn.Module, groups: _Groups):
        self.model, self.groups = model, groups

    def read(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        arguments, keywords = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
        if node.op == "placeholder":
            return None
        if node.op == "output":
            self.groups.pin(arguments)
            return None
        if node.op == "get_attr":
            return self._attribute(str(node.target))
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            handler = _handler(module)
            if handler is not None:
                return handler(self, str(node.target), module, *arguments, **keywords)
            return self.unknown(arguments, keywords)
        return self._function(node, arguments, keywords)

    # Values

    def unknown(self, *values: Any) -> Any:
        """Whatever goes through an operation that is not understood stays where it is."""
        self.groups.pin(values)
        return None

    def _attribute(self, name: str) -> Channels | None:
        """A parameter that forward uses by itself, such as a class token: its last axis holds channels."""
        value: Any = self.model
        for part in name.split("."):
            value = getattr(value, part)
        if not isinstance(value, nn.Parameter) or value.dim() == 0 or value.size(-1) == 1:
            return None
        group = self.groups.new(value.size(-1), name)
        self.groups.uses[group].append(Use(name, value.dim() - 1))
        return Channels(((group, 1),))

    def _size(self, value: Channels) -> int:
        return sum(self.groups.size[group] * repeat for group, repeat in value.segments)

    def use(self, value: Any, parameter: str, axis: int, size: int, start: int = 0) -> Channels | None:
        """A layer reads the channels of a value on an axis of its parameter."""
        if not isinstance(value, Channels):
            return None
        if any(repeat == 0 for _, repeat in value.segments):
            channels = sum(self.groups.size[group] for group, _ in value.segments)
            if len(value.segments) == 1 and size % channels == 0:
                value = replace(value, segments=((value.segments[0][0], size // channels),))
        if self._size(value) != size:
            self.unknown(value)
            return None
        for group, repeat in value.segments:
            self.groups.uses[self.groups.find(group)].append(Use(parameter, axis, start, repeat))
            start += self.groups.size[group] * repeat
        return value

    def make(
        self, name: str, size: int, uses: list[tuple[str, int]], axis: int = -1, *, module: bool = True,
        flat: bool = False,
    ) -> Channels:  # fmt: skip
        """A layer makes new neurons."""
        group = self.groups.new(size, name)
        self.groups.uses[group] += [Use(parameter, where) for parameter, where in uses]
        if module:
            self.groups.modules[group].append(name)
        return Channels(((group, 1),), axis, flat)

    def join(self, a: Any, b: Any) -> Any:
        """Entrywise operation on two values; a number goes with anything, an unknown tensor pins."""
        if not (isinstance(a, Channels) and isinstance(b, Channels)):
            known, other = (a, b) if isinstance(a, Channels) else (b, a)
            if isinstance(known, Channels) and not isinstance(other, int | float):
                self.unknown(known)
            return known
        sizes = [[(self.groups.size[g], repeat) for g, repeat in value.segments] for value in (a, b)]
        if sizes[0] != sizes[1] or a.axis != b.axis:
            return self.unknown(a, b)
        for (first, _), (second, _) in zip(a.segments, b.segments, strict=True):
            self.groups.join(first, second)
        return a

    def flatten(self, value: Any) -> Any:
        if not isinstance(value, Channels) or value.axis == -1:
            return self.unknown(value) if _segments(value) else value
        if len(value.segments) > 1:
            return self.unknown(value)
        return Channels(((value.segments[0][0], 0),), -1, True)

    def _function(self, node: fx.Node, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        first = arguments[0] if arguments else None
        if called in METADATA:
            return None
        if called in ENTRYWISE or (called == "truediv" and not _segments(arguments[1:])):
            return first
        if called in JOINING:
            return self.join(arguments[0], arguments[1])
        if called == "flatten" and _where(arguments, keywords, "start_dim", 0) == 1:
            return self.flatten(first)
        if called in ("view", "reshape") and len(arguments) == 3 and arguments[2] == -1:
            return self.flatten(first)
        if called == "mean" and isinstance(first, Channels) and first.axis == 1:
            dims = _where(arguments, keywords, "dim", None)
            dims = [dims] if isinstance(dims, int) else list(dims or [])
            if sorted(d % 4 if d < 0 else d for d in dims) in ([2], [2, 3]) and not keywords.get("keepdim"):
                return Channels(first.segments, -1, True)
        if called in ("cat", "concat", "concatenate"):
            parts = list(first or [])
            dim = _where(arguments, keywords, "dim", 0)
            if all(isinstance(p, Channels) and (dim == p.axis or (dim == 1 and p.flat)) for p in parts):
                return Channels(tuple(s for part in parts for s in part.segments), parts[0].axis, parts[0].flat)
        if called == "getitem" and isinstance(first, tuple) and isinstance(arguments[1], int):
            return first[arguments[1]]
        return self.unknown(arguments, keywords)


ENTRYWISE = {
    "relu", "relu_", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "mish", "dropout",
    "contiguous", "clone", "detach", "neg", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "to", "float",
    "boolean_dispatch",
}  # fmt: skip
JOINING = {"add", "iadd", "add_", "sub", "isub", "mul", "imul", "mul_"}
METADATA = {"size", "dim", "getattr", "numel"}
POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity)


def _where(arguments: tuple[Any, ...], keywords: dict[str, Any], name: str, default: Any) -> Any:
    return keywords.get(name, arguments[1] if len(arguments) > 1 else default)


def _same(_: _Reader, __: str, ___: nn.Module, x: Any = None, *rest: Any) -> Any:
    return x


def _linear(reader: _Reader, name: str, module: Any, x: Any) -> Channels:
    if isinstance(x, Channels) and x.axis != -1:
        reader.groups.pin(x)
    else:
        reader.use(x, f"{name}.weight", 1, module.in_features)
    own = [(f"{name}.weight", 0)] + ([(f"{name}.bias", 0)] if module.bias is not None else [])
    return reader.make(name, module.out_features, own, flat=isinstance(x, Channels) and x.flat)


def _convolution(reader: _Reader, name: str, module: Any, x: Any) -> Any:
    own = [(f"{name}.weight", 0)] + ([(f"{name}.bias", 0)] if module.bias is not None else [])
    if module.groups == 1:
        reader.use(x, f"{name}.weight", 1, module.in_channels)
        return reader.make(name, module.out_channels, own, 1)
    if module.groups == module.in_channels == module.out_channels and isinstance(x, Channels):  # depthwise
        for parameter, axis in own:
            reader.use(x, parameter, axis, module.out_channels)
        return x
    return reader.unknown(x)


def _norm(reader: _Reader, name: str, module: Any, x: Any) -> Any:
    if not isinstance(x, Channels):
        return None
    if isinstance(module, nn.GroupNorm):
        fits, size = module.num_groups == 1 and x.axis == 1, module.num_channels
    elif isinstance(module, nn.LayerNorm):
        fits, size = len(module.normalized_shape) == 1 and x.axis == -1, module.normalized_shape[-1]
    else:
        fits, size = True, module.num_features
    if not fits:
        return reader.unknown(x)
    tensors = ("weight", "bias", "running_mean", "running_var")
    for tensor in tensors:
        if getattr(module, tensor, None) is not None:
            reader.use(x, f"{name}.{tensor}", 0, size)
    return x if reader._size(x) == size else None


def _embedding(reader: _Reader, name: str, module: Any, *_: Any) -> Channels:
    return reader.make(name, module.embedding_dim, [(f"{name}.weight", 1)])


def _flatten(reader: _Reader, name: str, module: Any, x: Any) -> Any:
    return reader.flatten(x) if module.start_dim == 1 else reader.unknown(x)


def _attention(
    reader: _Reader, name: str, module: Any, query: Any, key: Any, value: Any, *rest: Any, **more: Any
) -> Any:
    """Query-key and value-output channels of each head can be permuted; heads stay where they are."""
    reader.groups.pin([rest, more])
    width, head = module.embed_dim, module.head_dim
    sources = (query, key, value)
    if module.in_proj_weight is not None:
        joined = query
        for other in (key, value):
            joined = reader.join(joined, other) if isinstance(other, Channels) else reader.unknown(joined)
        if isinstance(joined, Channels):
            reader.use(joined, f"{name}.in_proj_weight", 1, width)
        else:
            reader.groups.pin(sources)
        weights = [(f"{name}.in_proj_weight", part * width) for part in range(3)]
    else:
        weights = [(f"{name}.{part}_proj_weight", 0) for part in "qkv"]
        for source, (parameter, _), size in zip(sources, weights, (width, module.kdim, module.vdim), strict=True):
            reader.use(source, parameter, 1, size)
    if module.bias_k is not None:
        return (reader.unknown(sources), None)
    for h in range(module.num_heads):
        for kind, parts in (("query-key", (0, 1)), ("value", (2,))):
            group = reader.groups.new(head, f"{name}.head{h}.{kind}")
            uses = [Use(weights[part][0], 0, weights[part][1] + h * head) for part in parts]
            if module.in_proj_bias is not None:
                uses += [Use(f"{name}.in_proj_bias", 0, part * width + h * head) for part in parts]
            if kind == "value":
                uses.append(Use(f"{name}.out_proj.weight", 1, h * head))
            reader.groups.uses[group] += uses
    own = [(f"{name}.out_proj.weight", 0)]
    own += [(f"{name}.out_proj.bias", 0)] if module.out_proj.bias is not None else []
    return (reader.make(name, width, own, module=False), None)


def _encoder_layer(reader: _Reader, name: str, module: Any, x: Any, *rest: Any, **more: Any) -> Any:
    def attend(y: Any) -> Any:
        return _attention(reader, f"{name}.self_attn", module.self_attn, y, y, y)[0]

    def feed(y: Any) -> Any:
        hidden: Any = _linear(reader, f"{name}.linear1", module.linear1, y)
        if isinstance(module.activation, nn.Module):
            handler = _handler(module.activation)
            hidden = (
                handler(reader, f"{name}.activation", module.activation, hidden) if handler else reader.unknown(hidden)
            )
        return _linear(reader, f"{name}.linear2", module.linear2, hidden)

    def norm(part: str, y: Any) -> Any:
        return _norm(reader, f"{name}.{part}", getattr(module, part), y)

    if not isinstance(x, Channels):  # inputs of the network: pinned
        x = Channels(((reader.groups.new(module.self_attn.embed_dim, name, pinned=True), 1),))
    if module.norm_first:
        x = reader.join(x, attend(norm("norm1", x)))
        return reader.join(x, feed(norm("norm2", x)))
    x = norm("norm1", reader.join(x, attend(x)))
    return norm("norm2", reader.join(x, feed(x)))


def _message_passing(reader: _Reader, name: str, module: Any, x: Any, *rest: Any) -> Any:
    """PyG convolutions that are linear maps and an aggregation of each channel by itself."""
    kind = type(module).__name__
    if kind == "SimpleConv":
        return x
    if kind == "GINConv":
        return (
            reader.unknown(x)
            if not isinstance(module.nn, nn.Sequential)
            else _sequence(reader, f"{name}.nn", module.nn, x)
        )
    parts = {"GCNConv": ["lin"], "SAGEConv": ["lin_l", "lin_r"], "GraphConv": ["lin_rel", "lin_root"]}[kind]
    made = None
    for part in parts:
        linear = getattr(module, part, None)
        if linear is None:
            continue
        reader.use(x, f"{name}.{part}.weight", 1, linear.weight.size(1))
        own = [(f"{name}.{part}.weight", 0)] + ([(f"{name}.{part}.bias", 0)] if linear.bias is not None else [])
        new = reader.make(name, linear.weight.size(0), own)
        made = new if made is None else reader.join(made, new)
    if kind == "GCNConv" and module.bias is not None:
        reader.use(made, f"{name}.bias", 0, module.out_channels)
    return made


def _sequence(reader: _Reader, name: str, module: nn.Sequential, x: Any) -> Any:
    for part, child in module.named_children():
        handler = _handler(child)
        x = handler(reader, f"{name}.{part}", child, x) if handler else reader.unknown(x)
    return x


def _pinning(reader: _Reader, name: str, module: nn.Module, x: Any) -> Any:
    reader.groups.pin(x)
    return x


def _handler(module: nn.Module) -> Callable[..., Any] | None:
    """How a known module is read."""
    if getattr(module, "mixes_channels", False):
        return _pinning
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    for kinds, handler in (
        ((nn.Linear,), _linear), (CONVOLUTIONS, _convolution), (norms, _norm), (ACTIVATIONS + POOLS + DROPOUTS, _same),
        ((nn.Embedding,), _embedding), ((nn.Flatten,), _flatten), ((nn.MultiheadAttention,), _attention),
        ((nn.TransformerEncoderLayer,), _encoder_layer),
    ):  # fmt: skip
        if isinstance(module, kinds):
            return handler
    known = ("SimpleConv", "GCNConv", "SAGEConv", "GraphConv", "GINConv")
    if type(module).__name__ in known and type(module).__module__.startswith("torch_geometric"):
        return _message_passing
    if type(module).__name__ == "Linear" and type(module).__module__.startswith("torch_geometric"):
        return lambda reader, name, m, x: _linear(reader, name, _Sizes(m), x)
    return None


class _Sizes:
    """PyG's Linear in the terms of PyTorch's."""

    def __init__(self, module: Any):
        self.out_features, self.in_features = module.weight.shape
        self.bias = module.bias
