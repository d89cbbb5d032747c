"""Multi-layer perceptrons and feature encoders.

The middle of Linear - BatchNorm - ReLU - Linear is one operation here: ReLU(BatchNorm(x)) is computed again in the
backward pass instead of being kept, which saves two activations of the size of ``x``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from coset.nn.norm_relu import follow


class _NormReLULinear(torch.autograd.Function):
    """linear(relu(batch_norm(x))), keeping only x and the statistics for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "rows inputs"],
        gamma: Float[Tensor, " inputs"],
        beta: Float[Tensor, " inputs"],
        running_mean: Float[Tensor, " inputs"],
        running_var: Float[Tensor, " inputs"],
        training: bool,
        momentum: float,
        eps: float,
        weight: Float[Tensor, "outputs inputs"],
        bias: Float[Tensor, " outputs"] | None,
    ) -> Float[Tensor, "rows outputs"]:
        y, mean, inverse = torch.native_batch_norm(x, gamma, beta, running_mean, running_var, training, momentum, eps)
        if not training:
            mean, inverse = running_mean, (running_var + eps).rsqrt()
        ctx.save_for_backward(x, gamma, beta, running_mean, running_var, mean, inverse, weight)
        ctx.options = (training, eps, bias is not None)
        return F.linear(y.relu_(), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "rows outputs"]) -> tuple[Tensor | None, ...]:
        x, gamma, beta, running_mean, running_var, mean, inverse, weight = ctx.saved_tensors
        training, eps, has_bias = ctx.options
        factor = gamma * inverse
        y = torch.addcmul(beta - mean * factor, x, factor).relu_()
        d_weight = grad.t() @ y
        d_y = grad @ weight
        torch.ops.aten.threshold_backward.grad_input(d_y, y, 0, grad_input=d_y)
        d_x, d_gamma, d_beta = torch.ops.aten.native_batch_norm_backward(
            d_y, x, gamma, running_mean, running_var, mean, inverse, training, eps, [True, True, True]
        )
        d_bias = grad.sum(0) if has_bias else None
        return d_x, d_gamma, d_beta, None, None, None, None, None, d_weight, d_bias


def norm_relu_linear(
    x: Float[Tensor, "rows inputs"], norm: nn.Module, linear: nn.Linear
) -> Float[Tensor, "rows outputs"]:
    """``linear(relu(norm(x)))``; with an ordinary BatchNorm1d it keeps less for the backward pass.

    Any other ``norm`` module works, at the ordinary cost.
    """
    if type(norm) is not nn.BatchNorm1d or not norm.affine or norm.running_mean is None or _autocasts(x):
        return linear(F.relu(norm(x)))
    if norm.training:
        if x.size(0) < 2:
            raise ValueError("batch normalisation needs at least two rows in training; this batch has one")
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked or 1)
    return _NormReLULinear.apply(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.training, momentum, norm.eps,
        linear.weight, linear.bias,
    )  # fmt: skip


def _device_type(x: Tensor) -> str:
    return x.device.type


def _autocasts(x: Tensor) -> bool:
    device = _device_type(x)
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def norm_of_repeated(
    norm: nn.BatchNorm1d, x: Float[Tensor, "rows columns"], times: Int[Tensor, " rows"], total: int
) -> Float[Tensor, "rows columns"]:
    """A batch norm of ``x`` with row i repeated ``times[i]`` times, without writing any row twice.

    ``total`` is the sum of ``times``, which on a GPU would have to be waited for.

    Raises:
        ValueError: In training, there are fewer than two rows in all.
    """
    if not norm.training:
        return norm(x)
    share = (times.to(x.dtype) / total).unsqueeze(1)
    mean = (share * x).sum(0)
    centred = x - mean
    variance = (share * centred.square()).sum(0)
    follow(norm, mean.detach(), variance.detach(), total)
    return centred * (variance + norm.eps).rsqrt() * norm.weight + norm.bias


class MLP(nn.Module):
    """Linear - BatchNorm - ReLU - Linear, with the hidden width of the input unless told otherwise.

    Args:
        inputs: Columns in.
        outputs: Columns out.
        hidden: Width between the two linear maps; ``inputs`` by default.
        norm: Normalisation between them (a module made from a width); ``nn.Identity`` for none.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int | None = None, norm: Callable[[int], nn.Module] = nn.BatchNorm1d
    ):
        super().__init__()
        hidden = hidden or inputs
        self.first = nn.Linear(inputs, hidden)
        self.norm = norm(hidden)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        return norm_relu_linear(self.first(x), self.norm, self.second)


class CategoricalEncoder(nn.Module):
    """Sum of one embedding table per categorical column, as in OGB's atom and bond encoders.

    Args:
        sizes: Number of categories of each column.
        width: Columns out.
    """

    starts: Tensor

    def __init__(self, sizes: Sequence[int], width: int):
        super().__init__()
        self.sizes = tuple(sizes)
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)  # of each table, all one below the other
        self.register_buffer("starts", starts, persistent=False)
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Int[Tensor, "rows columns"]) -> Float[Tensor, "rows width"]:
        x = x.unsqueeze(1) if x.dim() == 1 else x
        if x.size(1) != len(self.sizes):
            raise ValueError(f"expected {len(self.sizes)} categorical columns of sizes {self.sizes}; got {x.size(1)}")
        if x.numel() and x.device.type == "cpu":  # elsewhere the question would wait for all that was asked before
            outside = (x.amin(0) < 0) | (x.amax(0) >= torch.tensor(self.sizes, device=x.device))
            if bool(outside.any()):
                column = int(outside.nonzero()[0])
                low, high = int(x[:, column].min()), int(x[:, column].max())
                raise ValueError(
                    f"column {column} holds {low} to {high}, but its table has categories 0 to {self.sizes[column] - 1}"
                )
        return F.embedding_bag(x + self.starts, torch.cat(list(self.tables.parameters())), mode="sum")


class FeatureEncoder(nn.Module):
    """Encode the features of nodes or edges: categorical columns by tables, real ones by Linear - ReLU - Linear.

    Args:
        features: Table sizes (a sequence), or the number of real columns (a whole number).
        width: Columns out.
    """

    def __init__(self, features: Sequence[int] | int, width: int):
        super().__init__()
        self.categorical = not isinstance(features, int)
        if isinstance(features, int):
            self.encoder: nn.Module = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))
        else:
            self.encoder = CategoricalEncoder(features, width)

    def forward(self, x: Num[Tensor, "rows columns"]) -> Float[Tensor, "rows width"]:
        if self.categorical == x.is_floating_point():
            wanted = "categorical (whole numbers)" if self.categorical else "real-valued"
            raise ValueError(f"this model was made for {wanted} features; got {x.dtype}")
        return self.encoder(x if self.categorical or x.dim() > 1 else x.unsqueeze(1))
