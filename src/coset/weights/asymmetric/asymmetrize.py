r"""Networks without permutation symmetry: W-asymmetric (fixed entries) and sigma-asymmetric (fixed gates).

Lim, Putterman, Walters, Maron, Jegelka, "The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof",
NeurIPS 2024 (arXiv 2405.20231). Group: permutations of hidden neurons, prod_l S_{n_l}, acting on weights by
W_l -> P_l W_l P_{l-1}^T; a standard network computes the same function after it.

W: every linear map becomes W' = M * W + (1 - M) * F with constant F ~ N(0, kappa^2) and as many zeros in each row of
M (:class:`~coset.weights.asymmetric.fixed_entries.FixedEntries`). sigma: every elementwise activation becomes
sigmoid(F x) * x (:class:`~coset.weights.asymmetric.figlu.FiGLU`). Networks to be compared must share M and F:
they depend on ``seed`` and on the names of the layers only, never on the process, and travel in the state dict.
"""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from coset.core.errors import CosetError
from coset.weights.asymmetric.figlu import FiGLU
from coset.weights.asymmetric.fixed_entries import FixedEntries, fixed_entries, named_generator
from coset.weights.permutations.layers import ACTIVATIONS, CONVOLUTIONS

PerLayer = float | Sequence[float] | Mapping[str, float]

ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
HARMLESS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
WEAK = 3.0  # fixed entries below this many times the spread of trainable ones change little: a warning


@dataclass(frozen=True)
class LayerAsymmetry:
    """What breaks the symmetry of one layer.

    Attributes:
        name: Of the weight, or of the FiGLU.
        kind: ``"entries"`` or ``"gate"``.
        shape: Of the weight, or of F.
        fixed: How many of its entries are constant.
        scale: Their standard deviation about zero.
    """

    name: str
    kind: Literal["entries", "gate"]
    shape: tuple[int, ...]
    fixed: int
    scale: float


def asymmetrize(
    model: nn.Module,
    method: Literal["w", "sigma"] = "w",
    *,
    n_fix: PerLayer = 0.125,
    kappa: PerLayer = 1.0,
    std: PerLayer = 1.0,
    divide_by_root_width: bool = False,
    filters: bool = False,
    seed: int = 0,
    skip: Sequence[str] = (),
    example: tuple[Any, ...] | None = None,
) -> nn.Module:
    """A copy of the model without permutation symmetry; the model itself is left alone.

    ``n_fix``, ``kappa`` and ``std`` are one number for all layers, a sequence with one for each (in the order of
    ``named_modules``), or a mapping of patterns to numbers, the first match counting: ``{"head": 0.5, "*": 0.125}``.

    Args:
        model: Built of Linear, Conv1d to 3d, MultiheadAttention, PyG convolutions, and anything without matrices.
        method: ``"w"`` fixes entries of weights; ``"sigma"`` replaces activation modules by FiGLU.
        n_fix: Fixed entries of each row: a count, or, below 1, a share of the fan-in (at least one,
            and more where rows could not differ otherwise).
        kappa: Standard deviation of fixed entries; to matter it must be much larger than that of trainable ones.
        std: Standard deviation of the entries of F in FiGLU.
        divide_by_root_width: Divide ``std`` by the square root of the number of channels.
        filters: In convolutions ``n_fix`` counts whole input channels.
        seed: Of masks and constants. Networks to be compared need the same.
        skip: Patterns of names of modules to leave alone.
        example: Positional inputs, for ``"sigma"``: they tell how many channels each activation has.

    Raises:
        CosetError: A module cannot be treated, weights are tied, or rows of masks cannot differ.
    """
    model = copy.deepcopy(model)
    if method == "w":
        return _fix_entries(model, n_fix, kappa, filters, seed, tuple(skip))
    if method == "sigma":
        return _replace_activations(model, std, divide_by_root_width, seed, tuple(skip), example)
    raise CosetError(f"method={method!r} is unknown; choose w or sigma")


def deasymmetrize(model: nn.Module) -> nn.Module:
    """A copy that computes the same and needs nothing of this package: plain weights, gates as ``torch.fx`` graphs."""
    model = copy.deepcopy(model)
    for _, module in list(model.named_modules()):
        _unfix(module)
    for name, module in list(model.named_modules()):
        if isinstance(module, FiGLU):
            _put(model, name, fx.symbolic_trace(module))
    return model


def asymmetries(model: nn.Module) -> list[LayerAsymmetry]:
    """Every layer whose symmetry is broken, in order; empty for a standard network."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, FiGLU):
            w = module.weight
            found.append(LayerAsymmetry(name, "gate", tuple(w.shape), w.numel(), _scale(w)))
        for tensor in _parametrized(module):
            fixed = module.parametrizations[tensor][0]
            shape = tuple(getattr(module, tensor).shape)
            where = f"{name}.{tensor}".lstrip(".")
            found.append(LayerAsymmetry(where, "entries", shape, fixed.index.numel(), _scale(fixed.values)))
    return found


def fixed_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The constants that break its symmetry, by their names in the state dict."""
    buffers = dict(model.named_buffers())
    names = []
    for name, module in model.named_modules():
        parts = {FixedEntries: ("index", "values"), FiGLU: ("weight",)}.get(type(module), ())
        names += [f"{name}.{part}".lstrip(".") for part in parts]
    return {name: buffers[name] for name in names}


def fingerprint(model: nn.Module) -> str:
    """Short hash of all fixed entries and gates: networks can be merged where it agrees. Empty for a standard one."""
    buffers = fixed_buffers(model)
    if not buffers:
        return ""
    digest = hashlib.sha256()
    for name, value in sorted(buffers.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def trainable_masks(model: nn.Module) -> dict[str, Tensor]:
    """For each parameter, true where an entry can be trained: false at fixed entries."""
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    for name, module in model.named_modules():
        for tensor in _parametrized(module):
            fixed = module.parametrizations[tensor][0]
            masks[f"{name}.parametrizations.{tensor}.original".lstrip(".")].view(-1)[fixed.index] = False
    return masks


def trainable_parameters(model: nn.Module) -> int:
    """Number of entries that training can change."""
    return sum(int(mask.sum()) for mask in trainable_masks(model).values())


def _fix_entries(
    model: nn.Module, n_fix: PerLayer, kappa: PerLayer, filters: bool, seed: int, skip: tuple[str, ...]
) -> nn.Module:
    _plain_linear_maps(model)
    maps = list(_linear_maps(model, skip))
    if not maps:
        raise CosetError(f"{type(model).__name__} has no Linear, Conv or MultiheadAttention to asymmetrize")
    names = [name for name, *_ in maps]
    counts, kappas = _per_layer("n_fix", n_fix, names), _per_layer("kappa", kappa, names)
    weak: list[str] = []
    constant: list[str] = []
    for (name, module, tensor), count, scale in zip(maps, counts, kappas, strict=True):
        weight: Tensor = getattr(module, tensor)
        whole = filters and isinstance(module, CONVOLUTIONS)
        fan_in = weight.size(1) if whole else math.prod(weight.shape[1:])
        number = _enough(count, fan_in, weight.size(0)) if count < 1 else int(count)
        if scale < WEAK * float(weight.detach().std(correction=0)):
            weak.append(name)
        if number >= fan_in:
            constant.append(name)
        fixed = fixed_entries(weight.detach(), min(number, fan_in), scale, seed, f"{name}.{tensor}", whole)
        parametrize.register_parametrization(module, tensor, fixed)
    if weak:
        warnings.warn(
            f"kappa is not large beside the trainable entries of {_some(weak)}: expect no effect", stacklevel=3
        )
    if constant:
        warnings.warn(f"nothing of {_some(constant)} is left to train: n_fix is the whole fan-in", stacklevel=3)
    return model


def _enough(share: float, fan_in: int, rows: int) -> int:
    """About this share of the fan-in, and more if the rows could not differ otherwise."""
    number = max(1, round(share * fan_in))
    while math.comb(fan_in, number) < rows and number < fan_in // 2:
        number += 1
    return number


def _linear_maps(model: nn.Module, skip: tuple[str, ...]) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, module and tensor of every linear map.

    Raises:
        CosetError: Another module holds a matrix, or two share one.
    """
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        _refuse_unsized(name, module)
        own = dict(module.named_parameters(recurse=False))
        skipped = any(fnmatchcase(name, pattern) for pattern in skip)
        for part, parameter in own.items():
            where = f"{name}.{part}".lstrip(".")
            if parameter.dim() > 1 and owners.setdefault(id(parameter), where) != where and not skipped:
                raise CosetError(f"{where} is tied to {owners[id(parameter)]}: untie them, or skip={name!r}")
        if skipped:
            continue
        if parametrize.is_parametrized(module):
            raise CosetError(f"{name or type(model).__name__} is parametrized already; asymmetrize a standard network")
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            yield name, module, "weight"
        elif isinstance(module, nn.MultiheadAttention):
            for part in ATTENTION_WEIGHTS:
                if own.get(part) is not None:
                    yield f"{name}.{part}".lstrip("."), module, part
        elif not isinstance(module, HARMLESS) and not _is_message_passing(module):
            _refuse_matrices(name, module, own)


def _refuse_matrices(name: str, module: nn.Module, own: Mapping[str, Tensor]) -> None:
    for part, parameter in own.items():
        if sum(size > 1 for size in parameter.shape) > 1:
            raise CosetError(
                f"{name or 'the model'} ({type(module).__name__}) holds the matrix {part} {tuple(parameter.shape)}, "
                f"which cannot be asymmetrized; leave it alone with skip=[{name!r}]"
            )


def _refuse_unsized(name: str, module: nn.Module) -> None:
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters(recurse=False)):
        raise CosetError(f"{name or 'the model'} ({type(module).__name__}) has no size yet: run it once first")


def _replace_activations(
    model: nn.Module, std: PerLayer, divide: bool, seed: int, skip: tuple[str, ...], example: tuple[Any, ...] | None
) -> nn.Module:
    places = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, ACTIVATIONS) and not any(fnmatchcase(name, pattern) for pattern in skip)
    }
    if not places:
        raise CosetError(
            f"{type(model).__name__} has no activation modules to replace: functions called in forward cannot be "
            "exchanged; use nn.ReLU() and the like"
        )
    if example is None:
        raise CosetError("method=sigma needs example=(inputs,): they tell how many channels each activation has")
    widths = _widths(model, places, example)
    scales = _per_layer("std", std, list(widths))
    for (name, (channels, axis)), scale in zip(widths.items(), scales, strict=True):
        scale = scale / math.sqrt(channels) if divide else scale
        gate = FiGLU(channels, scale, axis, named_generator(seed, name))
        _put(model, name, gate.to(next(model.parameters()).device))
    return model


def _widths(model: nn.Module, places: Mapping[str, nn.Module], example: tuple[Any, ...]) -> dict[str, tuple[int, int]]:
    """Channels and their axis at each activation: axis 1 behind a convolution, else the last."""
    found: dict[str, tuple[int, int]] = {}

    def seen(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0]
            axis = 1 if x.dim() >= 4 or (x.dim() == 3 and "Conv1d" in kinds) else -1
            if found.setdefault(name, (x.size(axis), axis)) != (x.size(axis), axis):
                raise CosetError(
                    f"activation {name} sees {found[name][0]} and {x.size(axis)} channels: give each its own"
                )

        return hook

    kinds = {type(module).__name__ for module in model.modules()}
    handles = [module.register_forward_pre_hook(seen(name)) for name, module in places.items()]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(*example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    missing = [name for name in places if name not in found]
    if missing:
        raise CosetError(f"activation {missing[0]} is not reached by the example")
    return {name: found[name] for name in places}


def _per_layer(what: str, given: PerLayer, names: Sequence[str]) -> list[Any]:
    if isinstance(given, Mapping):
        chosen = []
        for name in names:
            match = [value for pattern, value in given.items() if fnmatchcase(name, pattern)]
            if not match:
                raise CosetError(f"{what} has no pattern for {name}; end it with '*'")
            chosen.append(match[0])
    else:
        chosen = list(given) if isinstance(given, Sequence) else [given] * len(names)
    if len(chosen) != len(names):
        raise CosetError(f"{what} has {len(chosen)} numbers for {len(names)} layers: {', '.join(names)}")
    for name, value in zip(names, chosen, strict=True):
        if value < 0 or not math.isfinite(value) or (what == "n_fix" and (value == 0 or (value > 1 and value % 1))):
            raise CosetError(f"{what}={value} of {name} must be a share below 1, or a whole number, above 0")
    return chosen


def _plain_linear_maps(model: nn.Module) -> None:
    """PyG's Linear copies and saves its weight in ways of its own: an ordinary one with the same numbers instead."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "Linear" and type(module).__module__.startswith("torch_geometric"):
            _refuse_unsized(name, module)
            weight: Tensor = module.weight
            plain = nn.Linear(weight.size(1), weight.size(0), module.bias is not None)
            plain.load_state_dict(module.state_dict())
            _put(model, name, plain.to(weight.device, weight.dtype))


def _unfix(module: nn.Module) -> None:
    """Plain weights instead of parametrized ones.

    ``remove_parametrizations`` would delete the property from the class, which copies of a module share.
    """
    values = {tensor: getattr(module, tensor).detach() for tensor in _parametrized(module)}
    if values:
        del module._modules["parametrizations"]
        module.__class__ = type(module).__bases__[0]
        for tensor, value in values.items():
            module.register_parameter(tensor, nn.Parameter(value))


def _is_message_passing(module: nn.Module) -> bool:
    """Vectors of attention, and the like, are PyG's own; its linear maps are modules inside."""
    return any(kind.__name__ == "MessagePassing" for kind in type(module).__mro__)


def _parametrized(module: nn.Module) -> list[str]:
    if not parametrize.is_parametrized(module):
        return []
    chains: Any = module.parametrizations
    return [name for name, chain in chains.items() if isinstance(chain[0], FixedEntries)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _scale(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt()) if values.numel() else 0.0


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    if not name:
        raise CosetError(f"wrap the {type(model).__name__} in nn.Sequential first: a module cannot replace itself")
    setattr(model.get_submodule(parent), last, module)
