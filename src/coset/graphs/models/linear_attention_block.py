r"""One layer of Subgraphormer with linear psi and rho as one operation, for speed and memory on a CPU.

The same mathematics as :class:`coset.graphs.models.pair_layers.SubgraphAttentionBlock` with ``linear``, ``gat``
attention and the relations uL, vL, vv, which stays the reference:

    Y  = X W^T                        W stacks the values of both attentions and their logits
    J  = [attend_uL(Y) | attend_vL(Y) | (1 + eps) X W_psi^T + t],   t(v) = X(v, v) W_psi^T
    C  = J W_rho^T,    X' = ReLU(BN(C))

Biases of attentions, psi and rho all meet the norm, which takes them off again: they are never added in training. Kept
for the backward pass are X, Y, J and C; what follows the norm and softmax weights are computed again. Rows may be
stored in bfloat16, as in :mod:`coset.graphs.models.attention_block`.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from coset.graphs.models.attention_block import Attentions, edge_terms, gathers_as_published, weight_gradient
from coset.graphs.models.product import PairGraph
from coset.nn.buffers import buffers
from coset.nn.norm_relu import NormReLU, add_repeated, covers, settled, sum_repeated


def applies(block: Any, x: Tensor) -> bool:
    """Whether this operation can stand for the block on this input."""
    return gathers_as_published(block, x) and fits(block) and settled([block.norm], x)


def fits(block: Any) -> bool:
    """Whether the kernels take as many columns as a published block has."""
    return block.linear is not None and covers(block.gather["vv"].linear.out_features)


def linear_attention_block(
    block: Any, x: Float[Tensor, "pairs width"], graph: PairGraph
) -> Float[Tensor, "pairs width"]:
    """ReLU(BN(rho([Attention_uL | Attention_vL | point]))) of a block that :func:`applies`."""
    internal, external, point = block.gather["uL"], block.gather["vL"], block.gather["vv"]
    psi, rho, norm = point.linear, block.linear, block.norm
    attentions = Attentions(graph, psi.out_features, internal.heads)
    carried = torch.cat([internal.bias, external.bias, psi.bias])
    return _LinearAttentionBlock.apply(
        x, attentions.weight(internal, external), *edge_terms(block, graph), (1 + point.eps) * psi.weight, psi.weight,
        rho.weight, rho.bias + rho.weight @ carried, norm.weight, norm.bias, attentions, norm,
    )  # fmt: skip


class _LinearAttentionBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, edge_u: Tensor | None, edge_v: Tensor | None, psi: Tensor,
        own_psi: Tensor, rho: Tensor, carried: Tensor, gamma: Tensor, beta: Tensor, attentions: Attentions,
        norm: nn.BatchNorm1d,
    ) -> Float[Tensor, "pairs width"]:  # fmt: skip
        rows, graph = x.size(0), attentions.graph
        weight, psi, rho = weight.to(x.dtype), psi.to(x.dtype), rho.to(x.dtype)
        y = torch.mm(x, weight.t(), out=buffers.empty(rows, weight.size(0), x))
        joined = buffers.empty(rows, rho.size(1), x)
        point = joined[:, attentions.point]
        torch.mm(x, psi.t(), out=point)
        add_repeated(point, graph.at_own_root(x).to(own_psi.dtype) @ own_psi.t(), graph.pairs)
        attentions.attend(joined, y, (edge_u, edge_v))
        c = torch.mm(joined, rho.t(), out=buffers.empty(rows, rho.size(0), x))
        last = NormReLU.of(c, norm, gamma, beta, carried)
        ctx.save_for_backward(x, y, joined, c, weight, edge_u, edge_v, psi, own_psi, rho)
        ctx.settled = attentions, last
        return last.forward(c, buffers.empty(rows, rho.size(0), x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "pairs width"]) -> tuple[Tensor | None, ...]:
        x, y, joined, c, weight, edge_u, edge_v, psi, own_psi, rho = ctx.saved_tensors
        attentions, last = ctx.settled
        rows, graph = c.size(0), attentions.graph
        d_c, d_gamma, d_beta = last.backward(c, grad.contiguous(), buffers.empty(rows, c.size(1), c))
        d_rho, d_carried = weight_gradient(d_c, joined), last.bias_gradient(d_c)
        d_joined = torch.mm(d_c, rho, out=buffers.empty(rows, joined.size(1), c))
        del d_c
        d_y = buffers.empty(rows, y.size(1), c)
        d_edges = attentions.attend_backward(d_y, d_joined, y, (edge_u, edge_v))
        d_point = d_joined[:, attentions.point]
        d_term = sum_repeated(d_point, graph.pairs)
        d_x = torch.mm(d_y, weight, out=buffers.empty(rows, x.size(1), c)).addmm_(d_point, psi)
        d_x.index_add_(0, graph.diagonal, (d_term @ own_psi)[graph.root_index].to(d_x.dtype))
        d_own_psi = d_term.t() @ graph.at_own_root(x).to(d_term.dtype)
        return (
            d_x, weight_gradient(d_y, x), *d_edges, weight_gradient(d_point, x), d_own_psi, d_rho, d_carried, d_gamma,
            d_beta, None, None,
        )  # fmt: skip
