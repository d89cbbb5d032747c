"""How the layers that are known here read and make channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from coset.weights.layers import ACTIVATIONS, CONVOLUTIONS
from coset.weights.layers.figlu import FiGLU
from coset.weights.permutations.channels import Channels
from coset.weights.permutations.spec import Use

if TYPE_CHECKING:
    from coset.weights.permutations.tracing import Reader

POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity)
BY_CHANNEL = {f"{name}Aggregation" for name in ("Sum", "Mean", "Max", "Min", "Mul", "Var", "Std", "Median")}


def _same(_: Reader, __: str, ___: nn.Module, x: Any = None, *rest: Any) -> Any:
    return x


def _pool(reader: Reader, _: str, module: nn.Module, x: Any) -> Any:
    return reader.pool(x, _dimensions(module))


def _dimensions(module: nn.Module) -> int:
    """1, 2 or 3, as the name of its class in PyTorch says."""
    return next(int(kind.__name__[-2]) for kind in type(module).__mro__ if kind.__name__[-2:] in ("1d", "2d", "3d"))


def _linear(reader: Reader, name: str, module: Any, x: Any) -> Channels:
    reader.use(x, f"{name}.weight", 1, module.in_features)
    own = [(f"{name}.weight", 0)] + ([(f"{name}.bias", 0)] if module.bias is not None else [])
    return reader.make(name, module.out_features, own, rank=x.rank if isinstance(x, Channels) else None)


def _convolution(reader: Reader, name: str, module: Any, x: Any) -> Any:
    own = [(f"{name}.weight", 0)] + ([(f"{name}.bias", 0)] if module.bias is not None else [])
    rank = len(module.kernel_size) + 2
    if isinstance(x, Channels) and x.rank not in (rank, None):  # it would be read without a batch
        return reader.opaque(name, module, x)
    if module.groups == 1:
        reader.use(x, f"{name}.weight", 1, module.in_channels, on=1)
        return reader.make(name, module.out_channels, own, 1, rank=rank)
    if module.groups == module.in_channels == module.out_channels and isinstance(x, Channels):  # depthwise
        for parameter, axis in own:
            x = reader.use(x, parameter, axis, module.out_channels, on=1)
        return x
    return reader.opaque(name, module, x)


def _norm(reader: Reader, name: str, module: Any, x: Any) -> Any:
    if not isinstance(x, Channels):
        return reader.opaque(name, module, x)
    if isinstance(module, nn.GroupNorm):
        fits, size = module.num_groups == 1 and x.axis == 1, module.num_channels
    elif isinstance(module, nn.LayerNorm):
        fits, size = len(module.normalized_shape) == 1 and x.axis == -1, module.normalized_shape[-1]
    elif isinstance(module, _InstanceNorm):  # of a value without a batch it would take the channels for positions
        fits, size = x.axis == 1 and x.rank == _dimensions(module) + 2, module.num_features
    else:  # its axis is 1, which is the last of [batch, channels]
        fits, size = x.axis == 1 or x.rank in (None, 2), module.num_features
    read = reader.fitting(x, size, x.axis) if fits else None
    if read is None:
        return reader.opaque(name, module, x)
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        if getattr(module, tensor, None) is not None:
            reader.use(read, f"{name}.{tensor}", 0, size, on=x.axis)
    return read


def _embedding(reader: Reader, name: str, module: Any, x: Any) -> Channels:
    reader.groups.pin(x)
    reader.groups.freeze(f"{name}.weight", 0, module.num_embeddings)  # rows are found by number
    return reader.make(name, module.embedding_dim, [(f"{name}.weight", 1)])


def _flatten(reader: Reader, _: str, module: Any, x: Any) -> Any:
    return reader.flatten(x) if (module.start_dim, module.end_dim) == (1, -1) else reader.unknown(x)


def _attention(
    reader: Reader, name: str, module: Any, query: Any, key: Any, value: Any, *rest: Any, **more: Any
) -> Any:
    """Query-key and value-output channels of each head can be permuted; heads stay where they are."""
    reader.groups.pin([rest, more])
    width, head = module.embed_dim, module.head_dim
    sources = (query, key, value)
    if module.bias_k is not None:
        return reader.opaque(name, module, sources)
    if module.in_proj_weight is not None:
        joined = reader.join(reader.join(query, key), value)
        reader.use(joined, f"{name}.in_proj_weight", 1, width)
        weights = [(f"{name}.in_proj_weight", part * width) for part in range(3)]
    else:
        weights = [(f"{name}.{part}_proj_weight", 0) for part in "qkv"]
        for source, (parameter, _), size in zip(sources, weights, (width, module.kdim, module.vdim), strict=True):
            reader.use(source, parameter, 1, size)
    for h in range(module.num_heads):
        for kind, parts in (("query-key", (0, 1)), ("value", (2,))):
            group = reader.groups.new(head, f"{name}.head{h}.{kind}")
            uses = [Use(weights[part][0], 0, weights[part][1] + h * head) for part in parts]
            if module.in_proj_bias is not None:
                uses += [Use(f"{name}.in_proj_bias", 0, part * width + h * head) for part in parts]
            if kind == "value":
                uses.append(Use(f"{name}.out_proj.weight", 1, h * head))
            for use in uses:
                reader.groups.claim(group, use)
    own = [(f"{name}.out_proj.weight", 0)]
    own += [(f"{name}.out_proj.bias", 0)] if module.out_proj.bias is not None else []
    rank = query.rank if isinstance(query, Channels) else None
    return (reader.make(name, width, own, module=False, rank=rank), None)


def _encoder_layer(reader: Reader, name: str, module: Any, x: Any, *rest: Any, **more: Any) -> Any:
    reader.groups.pin([rest, more])

    def part(own: str, *values: Any) -> Any:
        return reader.module(f"{name}.{own}", getattr(module, own), *values)

    def attend(y: Any) -> Any:
        found = part("self_attn", y, y, y)
        return found[0] if isinstance(found, tuple) else found

    def feed(y: Any) -> Any:
        return part("linear2", reader.activated(f"{name}.activation", module.activation, part("linear1", y)))

    if not isinstance(x, Channels):  # inputs of the network: pinned
        x = Channels(((reader.groups.new(module.self_attn.embed_dim, name, pinned=True), 1),))
    if module.norm_first:
        x = reader.join(x, attend(part("norm1", x)))
        return reader.join(x, feed(part("norm2", x)))
    x = part("norm1", reader.join(x, attend(x)))
    return part("norm2", reader.join(x, feed(x)))


def _message_passing(reader: Reader, name: str, module: Any, x: Any, *rest: Any) -> Any:
    """PyG convolutions that are linear maps and an aggregation of each channel by itself."""
    reader.groups.pin(rest)
    kind = type(module).__name__
    aggregation = type(module.aggr_module).__name__
    if aggregation not in BY_CHANNEL or getattr(module, "project", False) or _widens(module):
        return reader.opaque(name, module, x)
    if kind == "SimpleConv":
        return x if isinstance(x, Channels) else reader.unknown(x)
    if kind == "GINConv":
        if not isinstance(module.nn, nn.Sequential):
            return reader.opaque(name, module, x)
        for step, child in module.nn.named_children():
            x = reader.module(f"{name}.nn.{step}", child, x)
        return x
    parts = {"GCNConv": ["lin"], "SAGEConv": ["lin_l", "lin_r"], "GraphConv": ["lin_rel", "lin_root"]}[kind]
    made = None
    for part in parts:
        linear = getattr(module, part, None)
        if linear is None:
            continue
        reader.use(x, f"{name}.{part}.weight", 1, linear.weight.size(1))
        own = [(f"{name}.{part}.weight", 0)] + ([(f"{name}.{part}.bias", 0)] if linear.bias is not None else [])
        new = reader.make(name, linear.weight.size(0), own, rank=x.rank if isinstance(x, Channels) else None)
        made = new if made is None else reader.join(made, new)
    if kind == "GCNConv" and module.bias is not None:
        reader.use(made, f"{name}.bias", 0, module.out_channels)
    return made


def _widens(module: Any) -> bool:
    """Whether what a node has is put beside what its neighbours send."""
    return getattr(module, "combine_root", None) == "cat"


def _pinning(reader: Reader, name: str, module: nn.Module, x: Any) -> Any:
    return reader.opaque(name, module, x)


def handler(module: nn.Module) -> Callable[..., Any] | None:
    """How a known module is read; ``None`` for others, and for those whose forward is the user's own."""
    home = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    if home is not FiGLU and home.__module__.partition(".")[0] not in ("torch", "torch_geometric"):
        return None
    norms = (_NormBase, nn.LayerNorm, nn.GroupNorm)
    for kinds, reading in (
        ((nn.Linear,), _linear), (CONVOLUTIONS, _convolution), (norms, _norm), (ACTIVATIONS + DROPOUTS, _same),
        (POOLS, _pool), ((nn.Embedding,), _embedding), ((nn.Flatten,), _flatten),
        ((nn.MultiheadAttention,), _attention), ((nn.TransformerEncoderLayer,), _encoder_layer), ((FiGLU,), _pinning),
    ):  # fmt: skip
        if isinstance(module, kinds):
            return reading
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
