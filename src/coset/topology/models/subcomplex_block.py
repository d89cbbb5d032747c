r"""One subcomplex layer with the terms low and inc as one operation, for speed and memory on a CPU.

The same mathematics as :class:`coset.topology.SCL`, which stays the reference:

    [P | U] = X [W_m | (1 + e2) W_1]^T            what is sent inside copies, and the first map of the point term
    A       = (1 + e1) X + sum over (x', z) of ReLU(P(x', s) + Q(z)),          Q = h W_b^T + c
    Z       = A W_a^T,   V = ReLU(LN(Z)) W_b^T,   T = ReLU(LN(U + p W_1^T)) W_2^T
    out     = ReLU(LN([ReLU(LN(V)) | ReLU(LN(T))] W_h^T))                      (biases are added inside the norms)

Kept for the backward pass are X, [P | U], A, Z, V, T and the last product; all that follows a norm is computed again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from coset.nn.buffers import buffers
from coset.relations.kernels import copies, layer_norm, threads
from coset.relations.operators import flat
from coset.relations.reference import scatter
from coset.relations.verbs import kernels_apply
from coset.topology.data.batches import CellBatch

BLOCK = 1024  # rows whose gradients of a bias are added up before they meet the others'


def applies(layer: Any, x: Tensor) -> bool:
    """Whether this operation can stand for the layer on this input."""
    if not kernels_apply(x) or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if layer.terms != ("low", "inc") or "low" not in layer.messages or x.size(0) == 0:
        return False
    if layer.head is None or layer.marks is not None:
        return False
    parts = [layer.messages["low"], *layer.mlps["low"], *layer.mlps["inc"], *layer.head]
    plain = all(type(part) in (nn.Linear, nn.LayerNorm, nn.ReLU) for part in parts)
    return (
        plain
        and len(parts) == 16
        and x.dtype in (torch.float32, torch.float64)
        and all(parameter.dtype == x.dtype for parameter in layer.parameters())
    )


def subcomplex_block(layer: Any, x: Float[Tensor, "pairs width"], h: list[Tensor], cells: CellBatch) -> Tensor:
    """The layer (before dropout) on an input that it :func:`applies` to."""
    _, between, _ = layer.between["low"]
    low, inc, head = layer.mlps["low"], layer.mlps["inc"], layer.head
    weight = torch.cat([layer.messages["low"].weight, (1 + layer.own["inc"].eps) * inc[0].weight])
    norms = [low[1], low[4], inc[1], inc[4], head[1]]
    return _SubcomplexBlock.apply(
        x, weight, layer.bridges["low"](h[between]), inc[0].weight, inc[0].bias, 1 + layer.own["low"].eps,
        low[0].weight, low[0].bias, low[3].weight, low[3].bias, inc[3].weight, inc[3].bias,
        head[0].weight, head[0].bias,
        *(parameter for norm in norms for parameter in (norm.weight, norm.bias)),
        _Structure.of(cells, layer.ranks, between), [norm.eps for norm in norms], layer.reduce == "mean",
    )  # fmt: skip


class _Structure(NamedTuple):
    """What the kernels read of the complexes."""

    rows: np.ndarray  # first row of every cell of the left set, and their number
    ptr: np.ndarray  # compressed rows of who hears whom
    sender: np.ndarray
    bridge: np.ndarray
    inside: Tensor  # rows of pairs (x, t) with x in t
    holder: Tensor  # their x

    @classmethod
    def of(cls, cells: CellBatch, ranks: tuple[int, int], between: int) -> _Structure:
        key = ("copies", *ranks, between)
        if key not in cells.derived:
            product, (relation, bridge) = cells.pairs(*ranks), cells.neighbours(ranks[0], between)
            holder, held = cells.incidence(*ranks).index
            width = product.right.sizes[product.left.batch]
            rows = torch.nn.functional.pad(width.cumsum(0), (1, 0)).numpy()
            order = relation.rows.edge
            ptr, sender = relation.rows.ptr.numpy(), relation.index[0][order].numpy()
            assert bridge is not None
            inside = product.rows(holder, held)
            cells.derived[key] = cls(rows, ptr, sender, bridge[order].numpy(), inside, holder)
        return cells.derived[key]

    @property
    def messages(self) -> tuple[np.ndarray, ...]:
        return self[:4]

    def point(self, x: Tensor, mean: bool) -> Tensor:
        """What every cell collects from the marked cells that hold it."""
        return scatter(x.index_select(0, self.inside), self.holder, len(self.ptr) - 1, "mean" if mean else "sum")

    def add_point_gradient(self, d_x: Tensor, grad: Tensor, mean: bool) -> None:
        """The adjoint of :meth:`point`, added to ``d_x``."""
        if mean:
            count = torch.bincount(self.holder, minlength=grad.size(0)).clamp(min=1)
            grad = grad / count.unsqueeze(1)
        d_x.index_add_(0, self.inside, grad.index_select(0, self.holder))

    def bounds(self, summed: int | None = None) -> np.ndarray:
        """Ranges of cells, balanced by the rows of messages: one for each thread, or where each range keeps sums of its
        own over so many columns."""
        cost = np.diff(self.rows) * (1 + np.diff(self.ptr))
        parts = None if summed is None else threads.summed_parts(int(cost.sum()) * summed)
        return threads.balanced(np.arange(len(cost) + 1), cost, parts)


class _NormReLU(NamedTuple):
    """ReLU(LN(x + term)): a term for all rows, or one a cell of the left set."""

    gamma: Tensor
    beta: Tensor
    eps: float
    term: Tensor
    ptr: np.ndarray  # rows of each block

    @classmethod
    def of(cls, parameters: tuple[Tensor, Tensor], eps: float, term: Tensor, rows: np.ndarray | int) -> _NormReLU:
        if isinstance(rows, int):
            rows = np.minimum(np.arange(0, rows + BLOCK, BLOCK), rows)
        gamma, beta, shift = (p.detach().contiguous() for p in (*parameters, term))
        return cls(gamma, beta, eps, shift, rows)

    @property
    def _arguments(self) -> tuple[Any, ...]:
        step = int(self.term.dim() == 2)
        dtype = self.gamma.numpy().dtype.type
        return self.term.view(-1).numpy(), step, self.gamma.numpy(), self.beta.numpy(), dtype(self.eps)

    def _run(self, kernel: Any, x: Tensor, *arguments: Any) -> None:
        bounds = threads.balanced(np.arange(len(self.ptr)), np.diff(self.ptr))
        threads.run(kernel, bounds, self.ptr, *flat(x), x.size(1), *self._arguments, *arguments)

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        out = _empty(x) if out is None else out
        self._run(layer_norm.forward, x, *flat(out))
        return out

    def backward(self, x: Tensor, grad: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of x to ``out`` (which may be ``grad``); those of term, gamma and beta are returned."""
        d_term, d_gamma, d_beta = x.new_empty(3, len(self.ptr) - 1, x.size(1)).unbind()
        outputs = [part.view(-1).numpy() for part in (d_term, d_gamma, d_beta)]
        self._run(layer_norm.backward, x, *flat(grad), *flat(out), *outputs)
        return d_term if self.term.dim() == 2 else d_term.sum(0), d_gamma.sum(0), d_beta.sum(0)


def _empty(like: Tensor, columns: int | None = None) -> Tensor:
    return buffers.empty(like.size(0), like.size(1) if columns is None else columns, like)


class _SubcomplexBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, term: Tensor, point_weight: Tensor, point_bias: Tensor, own: Tensor,
        low_1: Tensor, low_bias_1: Tensor, low_2: Tensor, low_bias_2: Tensor, inc_2: Tensor, inc_bias_2: Tensor,
        head: Tensor, head_bias: Tensor, *rest: Any,
    ) -> Float[Tensor, "pairs width"]:  # fmt: skip
        *affine, structure, eps, mean = rest
        d, rows = x.size(1), x.size(0)
        pairs = list(zip(affine[::2], affine[1::2]))
        blocks = [rows, rows, structure.rows, rows, rows]
        collected = structure.point(x, mean)
        point = torch.addmm(point_bias, collected, point_weight.t())
        terms = [low_bias_1, low_bias_2, point, inc_bias_2, head_bias]
        norms = [_NormReLU.of(*given) for given in zip(pairs, eps, terms, blocks)]
        y = torch.mm(x, weight.t(), out=_empty(x, 2 * d))
        a, term = _empty(x), term.contiguous()
        threads.run(
            copies.forward, structure.bounds(), *structure.messages, mean, d, *flat(x), own.numpy()[0], *flat(y[:, :d]),
            term.view(-1).numpy(), *flat(a),
        )  # fmt: skip
        z = torch.mm(a, low_1.t(), out=_empty(x))
        active = norms[0].forward(z)
        v = torch.mm(active, low_2.t(), out=_empty(x))
        t = torch.mm(norms[2].forward(y[:, d:], active), inc_2.t(), out=_empty(x))
        joined = _empty(x, 2 * d)
        norms[1].forward(v, joined[:, :d])
        norms[3].forward(t, joined[:, d:])
        c = torch.mm(joined, head.t(), out=_empty(x))
        ctx.save_for_backward(
            x, weight, term, point_weight, collected, own, y, a, z, v, t, c, low_1, low_2, inc_2, head
        )
        ctx.settled = norms, structure, mean
        del joined
        return norms[4].forward(c, active)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "pairs width"]) -> tuple[Tensor | None, ...]:
        x, weight, term, point_weight, collected, own, y, a, z, v, t, c, low_1, low_2, inc_2, head = ctx.saved_tensors
        norms, structure, mean = ctx.settled
        d = x.size(1)
        buffer = _empty(x)
        d_head_bias, *d_norm_head = norms[4].backward(c, grad.contiguous(), buffer)
        joined = _empty(x, 2 * d)
        norms[1].forward(v, joined[:, :d])
        norms[3].forward(t, joined[:, d:])
        d_head = buffer.t() @ joined
        d_joined = torch.mm(buffer, head, out=joined)
        d_v, d_t = d_joined[:, :d], d_joined[:, d:]

        d_y = _empty(x, 2 * d)
        d_u = d_y[:, d:]
        d_inc_bias, *d_norm_t = norms[3].backward(t, d_t, d_t)
        d_inc_2 = d_t.t() @ norms[2].forward(y[:, d:], buffer)
        torch.mm(d_t, inc_2, out=buffer)
        d_point, *d_norm_u = norms[2].backward(y[:, d:], buffer, d_u)

        d_low_bias_2, *d_norm_v = norms[1].backward(v, d_v, d_v)
        d_low_2 = d_v.t() @ norms[0].forward(z, buffer)
        torch.mm(d_v, low_2, out=buffer)
        d_low_bias_1, *d_norm_z = norms[0].backward(z, buffer, buffer)
        d_low_1 = buffer.t() @ a
        del joined, d_joined, d_v, d_t
        d_a = torch.mm(buffer, low_1, out=_empty(x))
        bounds = structure.bounds(summed=d)
        d_term = x.new_zeros(len(bounds) - 1, term.numel())
        threads.run(
            copies.backward, bounds, *structure.messages, mean, d, *flat(y[:, :d]), term.view(-1).numpy(), *flat(d_a),
            *flat(d_y[:, :d]), d_term.numpy(), 0 * own.numpy()[0],
        )  # fmt: skip
        d_own = torch.dot(d_a.view(-1), x.reshape(-1)).reshape(1)
        d_weight = d_y.t() @ x
        d_x = d_a.mul_(own).addmm_(d_y, weight)
        structure.add_point_gradient(d_x, d_point @ point_weight, mean)
        return (
            d_x, d_weight, d_term.sum(0).view_as(term), d_point.t() @ collected, d_point.sum(0), d_own,
            d_low_1, d_low_bias_1, d_low_2, d_low_bias_2,
            d_inc_2, d_inc_bias, d_head, d_head_bias, *d_norm_z, *d_norm_v, *d_norm_u, *d_norm_t, *d_norm_head,
            None, None, None,
        )  # fmt: skip
