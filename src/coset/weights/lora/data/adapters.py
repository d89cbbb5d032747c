r"""A LoRA adapter as mathematics: a pair (U, V) for each adapted matrix, with update dW = s U V^T.

GL(r) acts on each pair by (U, V) -> (U R, V R^-T) and leaves the update as it is, so that everything here that is a
property of the adapter (norms, spectra, inner products) is computed from r x r Gram matrices and never forms dW.
PEFT calls U ``lora_B`` and V^T ``lora_A``; diffusers and kohya call them ``up`` and ``down``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.errors import CosetError
from coset.symmetry import GeneralLinear

KINDS = ("linear", "conv", "embedding", "expert")


@dataclass(frozen=True)
class LoraPair:
    """The update of one matrix.

    Attributes:
        u: ``[n, r]``, the side of outputs.
        v: ``[m, r]``, the side of inputs.
        scale: s; it may be negative.
        kind: linear, conv (then m = in * height * width), embedding (n is its dimension, m the vocabulary), or expert
            (one of several in a parameter, or a parameter that is no weight of its module).
        kernel: For conv the shape ``(in, height, width)`` that m stands for.
        magnitude: DoRA's vector ``[n]``, which GL(r) does not move; with it dW is not the whole update.
        bias: Difference of the layer's bias ``[n]``, its scale inside.
    """

    u: Float[Tensor, "n r"]
    v: Float[Tensor, "m r"]
    scale: float = 1.0
    kind: str = "linear"
    kernel: tuple[int, ...] | None = None
    magnitude: Float[Tensor, " n"] | None = None
    bias: Float[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        if self.u.dim() != 2 or self.v.dim() != 2 or self.u.size(1) != self.v.size(1):
            shapes = f"{tuple(self.u.shape)} and {tuple(self.v.shape)}"
            raise CosetError(f"the factors of an update must be [n, r] and [m, r] with equal r; got {shapes}")
        if self.kind not in KINDS:
            raise CosetError(f"kind {self.kind!r} of an update is unknown; choose from {', '.join(KINDS)}")

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.u.size(0), self.v.size(0)

    @property
    def rank(self) -> int:
        """r, the number of columns; the rank of dW may be smaller."""
        return self.u.size(1)

    def factors(self) -> tuple[Float[Tensor, "n r"], Float[Tensor, "m r"]]:
        """(U, V) with the scale inside, shared equally: dW = U V^T. The sign goes to U."""
        root = math.sqrt(abs(self.scale))
        return self.u * math.copysign(root, self.scale), self.v * root

    def delta(self) -> Float[Tensor, "n m"]:
        """dW itself, as a matrix."""
        u, v = self.factors()
        return u @ v.mT

    def weight_update(self) -> Tensor:
        """dW as it is added to a PyTorch weight: ``[out, in]``, ``[out, in, h, w]``, or ``[vocabulary, dimension]``."""
        delta = self.delta()
        if self.kernel is not None:
            return delta.reshape(delta.size(0), *self.kernel)
        return delta.mT if self.kind == "embedding" else delta

    def singular_values(self) -> Float[Tensor, " r"]:
        """Of dW, descending, in float64: those of R_U R_V^T, from two thin QR decompositions."""
        return singular_values(*(factor.double() for factor in self.factors()))

    def balance(self) -> LoraPair:
        """The representative with U^T U = V^T V = diag(singular values); what is left of GL(r) is O(r)."""
        u, v = balanced(*self.factors())
        return replace(self, u=u, v=v, scale=1.0)

    def truncate(self, rank: int) -> LoraPair:
        """The best approximation of dW of this rank (Eckart-Young)."""
        if rank < 1:
            raise CosetError(f"rank={rank}: an adapter has rank 1 at least")
        pair = self.balance()
        return replace(pair, u=pair.u[:, :rank].clone(), v=pair.v[:, :rank].clone())


@dataclass(frozen=True)
class LoraAdapter:
    """Updates by name of layer.

    Attributes:
        layers: In the order of their names.
        name: Where it comes from.
        base_model: What it was trained on, if the files say.
        source_format: peft, diffusers, kohya, mlx, indexed or state dict.
        notes: What a reader should know: parts that were ignored, updates that are more than dW.
        dense: Differences of whole parameters, by their names.
        saved: Parameters that were trained in full, by their names: they stand in the place of the base's.
        obstacles: What of the file is not in here, or is not known: whoever goes on with it must say that this is well.
        task_type: As PEFT names it, e.g. ``SEQ_CLS``.
        transposed: Whether square matrices of the base are stored as ``[in, out]`` (``fan_in_fan_out`` of PEFT).
        models: The diffusion models that it can belong to by what its file says (``flux``, ``hunyuan``, ...); empty for
            any.
    """

    layers: Mapping[str, LoraPair]
    name: str = "adapter"
    base_model: str | None = None
    source_format: str = "state dict"
    notes: tuple[str, ...] = field(default=())
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    saved: Mapping[str, Tensor] = field(default_factory=dict)
    obstacles: tuple[str, ...] = field(default=())
    task_type: str | None = None
    transposed: bool = False
    models: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """The largest of its layers."""
        return max(pair.rank for pair in self.layers.values())

    def parameters(self) -> int:
        """How many numbers the factors hold."""
        return sum(pair.u.numel() + pair.v.numel() for pair in self.layers.values())

    def balance(self) -> LoraAdapter:
        """See :meth:`LoraPair.balance`."""
        return self._map(LoraPair.balance)

    def truncate(self, rank: int) -> LoraAdapter:
        """See :meth:`LoraPair.truncate`."""
        return self._map(lambda pair: pair.truncate(rank))

    def truncation_error(self, rank: int) -> float:
        """||dW - its best of this rank|| / ||dW||, over all layers together."""
        values = [pair.singular_values().square() for pair in self.layers.values()]
        total = sum(float(v.sum()) for v in values)
        return math.sqrt(sum(float(v[rank:].sum()) for v in values) / total) if total > 0 else 0.0

    def norm(self) -> float:
        """Frobenius norm of all updates together."""
        return math.sqrt(max(0.0, inner_product(self, self)))

    def _map(self, function: Callable[[LoraPair], LoraPair]) -> LoraAdapter:
        return replace(self, layers={name: function(pair) for name, pair in self.layers.items()})


def gauge(adapter: LoraAdapter, generator: torch.Generator, condition: float = 10.0) -> LoraAdapter:
    """The same updates by other factors: each layer moved by a random element of GL(r).

    Args:
        adapter: Left as it is.
        generator: Draws the elements.
        condition: Largest condition number of an element; 1 draws from O(r).
    """
    action = GeneralLinear(condition)
    layers = {}
    for name, pair in adapter.layers.items():
        value = (pair.u.double(), pair.v.double())
        u, v = action.apply(action.sample(value, generator), value)
        layers[name] = replace(pair, u=u.to(pair.u.dtype), v=v.to(pair.v.dtype))
    return replace(adapter, layers=layers)


def inner_product(a: LoraAdapter, b: LoraAdapter) -> float:
    """<dW_a, dW_b> summed over the layers that both have; a layer that is absent is a zero update.

    Raises:
        CosetError: A layer has different shapes in the two.
    """
    total = 0.0
    for name, pair in a.layers.items():
        other = b.layers.get(name)
        if other is None:
            continue
        if pair.shape != other.shape:
            raise CosetError(f"layer {name} is {pair.shape} in {a.name}, {other.shape} in {b.name}: other base models?")
        (u, v), (x, y) = pair.factors(), other.factors()
        total += float(((u.double().mT @ x.double()) * (v.double().mT @ y.double())).sum())
    return total


def cosine(a: LoraAdapter, b: LoraAdapter) -> float:
    """Cosine of the angle between the updates of two adapters; 0 if one of them is zero."""
    scale = a.norm() * b.norm()
    return inner_product(a, b) / scale if scale > 0 else 0.0


def singular_values(u: Float[Tensor, "... n r"], v: Float[Tensor, "... m r"]) -> Float[Tensor, "... r"]:
    """Singular values of U V^T, descending, r of them (zeros where n or m is smaller)."""
    core = torch.linalg.qr(u, mode="r").R @ torch.linalg.qr(v, mode="r").R.mT
    values = torch.linalg.svdvals(core)
    missing = u.size(-1) - values.size(-1)
    return torch.nn.functional.pad(values, (0, missing)) if missing else values


def balanced(
    u: Float[Tensor, "... n r"], v: Float[Tensor, "... m r"]
) -> tuple[Float[Tensor, "... n r"], Float[Tensor, "... m r"]]:
    """(A S^1/2, B S^1/2) for the singular value decomposition U V^T = A S B^T; its signs are those of the solver.

    Computed in float64: where singular values are close, float32 would leave visible traces of R in the result.
    """
    rank, dtype = u.size(-1), u.dtype
    left, core_u = torch.linalg.qr(u.double())
    right, core_v = torch.linalg.qr(v.double())
    a, values, b = torch.linalg.svd(core_u @ core_v.mT, full_matrices=False)
    root = values.clamp(min=0).sqrt().unsqueeze(-2)
    pad = (0, rank - values.size(-1))
    new_u, new_v = ((left @ a) * root).to(dtype), ((right @ b.mT) * root).to(dtype)
    return torch.nn.functional.pad(new_u, pad), torch.nn.functional.pad(new_v, pad)


def squared_norm(u: Float[Tensor, "... n r"], v: Float[Tensor, "... m r"]) -> Float[Tensor, "*shape"]:
    """||U V^T||_F^2 = tr((U^T U)(V^T V)), in O((n + m) r^2)."""
    return ((u.mT @ u) * (v.mT @ v)).sum((-2, -1))
