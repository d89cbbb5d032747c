"""ReLU(BatchNorm(x)) of a tall matrix and its gradient, in as few passes over memory as the mathematics allows.

With scale = gamma / sqrt(var + eps) and shift = beta - mean scale, y = ReLU(scale x + shift). For a gradient g of y and
g' = g where y > 0, else 0, over n rows:

    d beta = sum g'        d gamma = sum g' (x - mean) / std
    d x    = scale (g' - mean(g') - (x - mean) / var * mean(g' (x - mean)))        (the last two with batch statistics)

Nothing but x is kept for the backward pass. Rows may be stored in bfloat16: statistics and arithmetic are float32 then,
and so are gamma, beta and the gradients of both. Two more kernels go with these: a term repeated over the roots of a
product, and its adjoint. Columns come in vectors of 16 lanes, or of 8.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.nn.buffers import buffers
from coset.relations import Product
from coset.relations.kernels import rows, threads
from coset.relations.operators import arithmetic, flat


def covers(columns: int) -> bool:
    """Whether the kernels take rows of so many columns."""
    return columns % 8 == 0


def _lanes(columns: int) -> tuple[int, ...]:
    return (0,) * (8 if columns % 16 else 16)


def add_repeated(x: Float[Tensor, "pairs columns"], term: Float[Tensor, "elements columns"], product: Product) -> None:
    """Add ``term[v]`` to every row (s, v) of ``x``, in place.

    Raises:
        ValueError: The kernels do not take so many columns (:func:`covers`).
    """
    _on_graphs(rows.add_repeated, x, product, term.contiguous().view(-1).numpy())


def sum_repeated(x: Float[Tensor, "pairs columns"], product: Product) -> Float[Tensor, "elements columns"]:
    """The sum over s of the rows (s, v), one row a v: the adjoint of :func:`add_repeated`."""
    out = x.new_zeros(product.right.total, x.size(1), dtype=arithmetic(x.dtype))
    _on_graphs(rows.sum_repeated, x, product, out.view(-1).numpy())
    return out


def _on_graphs(kernel: Callable[..., None], x: Tensor, product: Product, other: np.ndarray) -> None:
    if not covers(x.size(1)):  # they would write beyond the rows
        raise ValueError(f"columns come in vectors of 8; got {x.size(1)}")
    ptr = product.ptr.numpy()
    bounds = threads.balanced(np.arange(len(ptr)), np.diff(ptr))
    structure = (product.left.ptr.numpy(), product.right.ptr.numpy(), ptr)
    threads.run(kernel, bounds, *flat(x), x.size(1), _lanes(x.size(1)), *structure, other)


@dataclass
class NormReLU:
    """The affine map of a batch norm, settled for one batch: y = ReLU(scale x + shift).

    Attributes:
        mean: Of each column of x.
        inverse: 1 / sqrt(var + eps).
        scale: gamma times ``inverse``.
        shift: beta minus ``mean`` times ``scale``.
        batch: Whether mean and variance are those of the batch, so that they depend on x.
    """

    mean: Tensor
    inverse: Tensor
    scale: Tensor
    shift: Tensor
    batch: bool

    @classmethod
    def of(cls, x: Tensor, norm: nn.BatchNorm1d, gamma: Tensor, beta: Tensor, bias: Tensor | None = None) -> "NormReLU":
        """Take the statistics of ``x + bias`` (training), or the running ones; ``bias`` itself is not added to x.

        In training a bias ahead of the norm changes nothing but the running mean.
        """
        if norm.training:
            mean, variance = _statistics(x)
            follow(norm, mean if bias is None else mean + bias, variance, x.size(0))
        else:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, variance = norm.running_mean, norm.running_var
            mean = mean if bias is None else mean - bias
        inverse = (variance + norm.eps).rsqrt()
        scale = gamma * inverse
        return cls(mean, inverse, scale, beta - mean * scale, norm.training)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """Write ReLU(scale x + shift) to ``out``."""
        vectors = (self.scale.numpy(), self.shift.numpy())
        _on_rows(rows.norm_relu, x, *flat(x), x.size(1), _lanes(x.size(1)), *vectors, *flat(out))
        return out

    def backward(self, x: Tensor, grad: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, written to ``out`` (which may be ``grad``), of gamma and of beta."""
        sums = np.zeros((threads.summed_parts(x.numel()), 2, x.size(1)))
        both = (*flat(x), *flat(grad), x.size(1), _lanes(x.size(1)), self.scale.numpy(), self.shift.numpy())
        _on_parts(rows.gradient_sums, x, sums, *both, self.mean.numpy())
        d_beta, moved = torch.from_numpy(sums.sum(0)).unbind()
        slope, constant = torch.zeros_like(d_beta), torch.zeros_like(d_beta)
        if self.batch:
            slope = -self.scale * self.inverse.double().square() * moved / x.size(0)
            constant = -self.scale * d_beta / x.size(0) - slope * self.mean
        dtype = self.scale.dtype
        rest = (slope.to(dtype).numpy(), constant.to(dtype).numpy())
        _on_rows(rows.gradient, x, *both, *rest, *flat(out))
        return out, (moved * self.inverse).to(dtype), d_beta.to(dtype)

    def bias_gradient(self, grad: Tensor) -> Tensor:
        """Of a bias ahead of the norm: ahead of batch statistics it changes nothing."""
        return torch.zeros_like(self.scale) if self.batch else grad.sum(0, dtype=self.scale.dtype)


class Origin(NamedTuple):
    """How to get the output of a fused block again instead of keeping it: ReLU(norm(before))."""

    before: Tensor
    norm: NormReLU

    def again(self) -> Tensor:
        return self.norm.forward(self.before, buffers.empty(self.before.size(0), self.before.size(1), self.before))


def origin_of(x: Tensor) -> Origin | None:
    """Set on what a fused block returns; dropout or a residual make another tensor, a change in place counts a version
    up.

    Tensors of inference mode count no versions; nothing is computed again there, so their origin does not matter.
    """
    return None if x.is_inference() or x._version else getattr(x, "origin", None)


def settled(norms: Iterable[nn.Module], x: Tensor) -> bool:
    """Whether these kernels can stand for the norms: ordinary ones, all in training or all not, with such columns."""
    norms = list(norms)
    return (
        all(type(n) is nn.BatchNorm1d and n.affine and n.running_mean is not None for n in norms)
        and len({norm.training for norm in norms}) == 1
        and all(covers(norm.num_features) for norm in norms)  # type: ignore[arg-type]
        and x.dtype in (torch.bfloat16, torch.float32, torch.float64)
        and x.size(0) > 1
    )


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of every column, about the first row so that nothing cancels."""
    sums = np.zeros((threads.summed_parts(x.numel()), 2, x.size(1)))
    dtype = arithmetic(x.dtype)
    about = x[0].to(dtype).contiguous()
    _on_parts(rows.moments, x, sums, *flat(x), x.size(1), _lanes(x.size(1)), about.numpy())
    first, second = torch.from_numpy(sums.sum(0) / x.size(0)).unbind()
    return (about + first).to(dtype), (second - first.square()).clamp(min=0).to(dtype)


def follow(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics towards those of a batch of ``count`` rows.

    Raises:
        ValueError: There are fewer than two rows.
    """
    if count < 2:
        raise ValueError("batch normalisation needs at least two rows in training; this batch has one")
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked or 1)
    assert norm.running_mean is not None
    norm.running_mean.lerp_(mean, momentum)
    assert norm.running_var is not None
    norm.running_var.lerp_(variance * (count / (count - 1)), momentum)


def _on_rows(kernel: Callable[..., None], x: Tensor, *arguments: object) -> None:
    threads.run(kernel, threads.even(x.size(0)), *arguments)


def _on_parts(kernel: Callable[..., None], x: Tensor, sums: np.ndarray, *arguments: object) -> None:
    """A part of the rows for each row of ``sums``."""
    threads.run(kernel, threads.even(x.size(0), len(sums)), *arguments, sums)
