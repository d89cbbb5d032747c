"""ReLU((1 + eps) U + sum over neighbours + b) as one operation on a CPU: the middle of a GIN layer.

The neighbours' sum, the node's own share and both their gradients come from one pass over the edges; bias and ReLU are
applied in place, and nothing but U and the result is kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from coset.relations import Relation, operators, propagate
from coset.relations.verbs import kernels_apply


def gin_sum(
    u: Float[Tensor, "nodes channels"],
    relation: Relation,
    eps: Float[Tensor, ""],
    bias: Float[Tensor, " channels"],
    edge: Float[Tensor, "edges channels"] | None = None,
) -> Float[Tensor, "nodes channels"]:
    """ReLU((1 + eps) u_i + sum over edges (k, i) of u_k + b); with edge terms e the messages are ReLU(u_k + e)."""
    if not _applies(u, edge, relation):
        gathered = propagate(u, relation, edge=edge, relu=edge is not None)
        return (gathered + (1 + eps) * u + bias).relu()
    rows = relation.rows
    structure = (relation.layout(None, 1), rows.ptr, rows.source, rows.edge)
    return _GINSum.apply(u, eps, bias, edge, structure)


def _applies(u: Tensor, edge: Tensor | None, relation: Relation) -> bool:
    """Whether rows fill vectors, and their number is that of the nodes (the other form says so if not)."""
    return (
        kernels_apply(u)
        and bool(operators.lanes(u.size(1)))
        and u.dtype in (torch.float32, torch.float64)
        and u.size(0) == relation.target.total > 0
        and (edge is None or (edge.dtype == u.dtype and edge.size(0) == relation.edges > 0))
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _GINSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, eps: Tensor, bias: Tensor, edge: Tensor | None, structure: operators.Structure
    ) -> Tensor:
        u, own = u.contiguous(), 1 + float(eps)
        out = torch.empty_like(u)
        operators.sum_into(out, u, edge, structure, 1, edge is not None, own)
        out.add_(bias).relu_()
        ctx.save_for_backward(u, edge, out)
        ctx.structure, ctx.own = structure, own
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, edge, out = ctx.saved_tensors
        inside = torch.ops.aten.threshold_backward(grad, out, 0).contiguous()
        d_u = torch.zeros_like(u)
        d_edge, d_eps = operators.sum_backward_into(
            d_u, inside, u, edge, ctx.structure, 1, edge is not None, ctx.own
        )  # fmt: skip
        return d_u, d_eps, inside.sum(0), d_edge, None
