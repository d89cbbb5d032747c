r"""One layer of Subgraphormer as one operation, for speed and memory on a CPU.

The same mathematics as :class:`coset.graphs.models.subgraphormer.SubgraphAttentionBlock` with ``gat`` attention and the
relations uL, vL, vv, which stays the reference:

    Y  = X W^T                        W stacks the values of both attentions, (1 + eps) W_psi, and their logits
    J  = [attend_uL(Y) | attend_vL(Y) | ReLU(BN(Y_psi + t)) W_2^T],   t(v) = X(v, v) W_psi^T + b
    C1 = J W_rho^T,    C2 = ReLU(BN(C1)) W_out^T,    X' = ReLU(BN(C2))

One product of matrices replaces seven, and X's gradient comes from one as well. Biases ahead of a norm are never added
(the norm takes them off again); those behind an attention or psi are folded into that of rho. Kept for the backward
pass are Y, J, C1 and C2; softmax weights and all that follows a norm, X among them, are computed again.

X may be stored in bfloat16, and with it Y, J, C1, C2 and all gradients of these: products of matrices read and write
it, and weights are rounded to it once a step. Statistics, softmax, terms of nodes and edges, all sums and the gradients
of parameters are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from coset.graphs.models.product import PairGraph
from coset.nn.buffers import buffers
from coset.nn.norm_relu import NormReLU, Origin, add_repeated, covers, origin_of, settled, sum_repeated
from coset.relations import operators
from coset.relations.verbs import kernels_apply

SLOPE = 0.2  # of the leaky ReLU in the logits
AXES = (1, 0)  # of uL and vL, in the order of their columns


def applies(block: Any, x: Tensor) -> bool:
    """Whether this operation can stand for the block on this input."""
    return block.mlp is not None and gathers_as_published(block, x) and settled(_norms(block), x)


def fits(block: Any) -> bool:
    """Whether the kernels take as many columns as it has."""
    return block.mlp is not None and all(covers(norm.num_features) for norm in _norms(block))


def is_published(block: Any) -> bool:
    """Whether it gathers with ``gat`` attention along uL and vL and from vv."""
    if tuple(block.gather) != ("uL", "vL", "vv") or block.gather["uL"].score != "gat":
        return False
    return operators.covers("gat", block.norm.num_features // 3)


def gathers_as_published(block: Any, x: Tensor) -> bool:
    """Whether it :func:`is_published`, and in a precision that the kernels have."""
    if not kernels_apply(x) or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    wanted = operators.arithmetic(x.dtype)
    return is_published(block) and all(parameter.dtype == wanted for parameter in block.parameters())


def attention_block(block: Any, x: Float[Tensor, "pairs width"], graph: PairGraph) -> Float[Tensor, "pairs width"]:
    """ReLU(BN(rho([Attention_uL | Attention_vL | point]))) of a block that :func:`applies`."""
    internal, external, point = block.gather["uL"], block.gather["vL"], block.gather["vv"]
    first, rho = point.mlp.first, block.mlp
    attentions = Attentions(graph, internal.value.out_features, internal.heads, between=first.out_features)
    carried = torch.cat([internal.bias, external.bias, point.mlp.second.bias])
    origin: list[Origin] = []
    out = _AttentionBlock.apply(
        x, attentions.weight(internal, external, (1 + point.eps) * first.weight), first.weight, first.bias,
        *edge_terms(block, graph), point.mlp.second.weight,
        rho.first.weight, rho.first.bias + rho.first.weight @ carried, rho.second.weight, rho.second.bias,
        *(parameter for norm in _norms(block) for parameter in (norm.weight, norm.bias)),
        attentions, _norms(block), origin_of(x), origin,
    )  # fmt: skip
    out.origin = origin[0]
    return out


def edge_terms(block: Any, graph: PairGraph) -> list[Tensor | None]:
    """What edges and loops add to the logits of uL and vL."""
    return [block.gather[name]._edge_terms(graph, loops=True) for name in ("uL", "vL")]


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """grad^T x in the precision of arithmetic."""
    return (grad.t() @ x).to(operators.arithmetic(x.dtype))


def _norms(block: Any) -> tuple[nn.BatchNorm1d, ...]:
    return block.gather["vv"].mlp.norm, block.mlp.norm, block.norm


@dataclass
class Attentions:
    """Both attentions, between columns of Y = [values of uL | values of vL | others | logits] and of J.

    J = [attend_uL | attend_vL | point], each as wide as the others.

    Attributes:
        graph: The pairs.
        share: Columns of the values of one attention.
        heads: Of each.
        between: Columns of Y that are no attention's.
    """

    graph: PairGraph
    share: int
    heads: int
    between: int = 0

    @property
    def others(self) -> slice:
        """Columns of Y that are no attention's."""
        return slice(2 * self.share, 2 * self.share + self.between)

    @property
    def point(self) -> slice:
        """Columns of J for what comes from vv."""
        return slice(2 * self.share, 3 * self.share)

    def weight(self, internal: Any, external: Any, *between: Tensor) -> Float[Tensor, "columns width"]:
        """W of Y = X W^T."""
        both = (internal, external)
        logits = [a._logit_weight(a.value.weight, a.vectors[side]) for a in both for side in ("source", "target")]
        return torch.cat([*(a.value.weight for a in both), *between, *logits])

    def attend(self, joined: Tensor, y: Tensor, edges: Sequence[Tensor | None]) -> None:
        """Write what both attentions give to their columns of J."""
        for i, edge in enumerate(edges):
            structure, axis, longest = self._structure(AXES[i])
            out = joined[:, self._values(i)]
            operators.gat_into(out, *self._columns(y, i), edge, structure, axis, longest, self.heads, SLOPE)

    def attend_backward(
        self, d_y: Tensor, d_joined: Tensor, y: Tensor, edges: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Write the gradients of values and logits to their columns of ``d_y``; those of ``edges`` are returned."""
        found: list[Tensor | None] = []
        for i, edge in enumerate(edges):
            structure, axis, longest = self._structure(AXES[i])
            d_edge = operators.gat_backward_into(
                self._columns(d_y, i), d_joined[:, self._values(i)], *self._columns(y, i), edge, structure, axis,
                longest, self.heads, SLOPE,
            )  # fmt: skip
            found.append(None if edge is None else d_edge)
        return found

    def _values(self, i: int) -> slice:
        return slice(i * self.share, (i + 1) * self.share)

    def _columns(self, y: Tensor, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """Values, and logits of the source and of the target."""
        start, heads = self.others.stop + 2 * i * self.heads, self.heads
        return y[:, self._values(i)], y[:, start : start + heads], y[:, start + heads : start + 2 * heads]

    def _structure(self, axis: int) -> tuple[operators.Structure, int, int]:
        """What the kernels read of a relation with loops: arrays, axis, length of the longest row."""
        relation = (self.graph.internal if axis else self.graph.external).with_self_loops
        table = relation.rows
        return (relation.layout(self.graph.pairs, axis), table.ptr, table.source, table.edge), axis, table.longest


class _AttentionBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, own_weight: Tensor, own_bias: Tensor, edge_u: Tensor | None,
        edge_v: Tensor | None, psi_weight: Tensor, rho_weight: Tensor, rho_bias: Tensor, out_weight: Tensor,
        out_bias: Tensor, psi_gamma: Tensor, psi_beta: Tensor, rho_gamma: Tensor, rho_beta: Tensor, out_gamma: Tensor,
        out_beta: Tensor, attentions: Attentions, norms: Sequence[nn.BatchNorm1d], source: Origin | None,
        origin: list[Origin],
    ) -> Float[Tensor, "pairs width"]:  # fmt: skip
        rows, width, graph = x.size(0), x.size(1), attentions.graph
        weight, psi_weight = weight.to(x.dtype), psi_weight.to(x.dtype)
        rho_weight, out_weight = rho_weight.to(x.dtype), out_weight.to(x.dtype)
        y = torch.mm(x, weight.t(), out=buffers.empty(rows, weight.size(0), x))
        point = y[:, attentions.others]
        own = graph.at_own_root(x).to(own_weight.dtype)
        add_repeated(point, torch.addmm(own_bias, own, own_weight.t()), graph.pairs)
        joined = buffers.empty(rows, rho_weight.size(1), x)
        attentions.attend(joined, y, (edge_u, edge_v))
        psi = NormReLU.of(point, norms[0], psi_gamma, psi_beta)
        active = psi.forward(point, buffers.empty(rows, width, x))
        torch.mm(active, psi_weight.t(), out=joined[:, attentions.point])
        del active
        hidden = rho_weight.size(0)
        c1 = torch.mm(joined, rho_weight.t(), out=buffers.empty(rows, hidden, x))
        rho = NormReLU.of(c1, norms[1], rho_gamma, rho_beta, rho_bias)
        active = rho.forward(c1, buffers.empty(rows, hidden, x))
        c2 = torch.mm(active, out_weight.t(), out=buffers.empty(rows, width, x))
        last = NormReLU.of(c2, norms[2], out_gamma, out_beta, out_bias)
        origin.append(Origin(c2, last))
        ctx.save_for_backward(
            None if source else x,
            y,
            joined,
            c1,
            c2,
            weight,
            own_weight,
            edge_u,
            edge_v,
            psi_weight,
            rho_weight,
            out_weight,
        )
        ctx.settled = psi, rho, last, attentions, source
        del active
        return last.forward(c2, buffers.empty(rows, width, x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "pairs width"]) -> tuple[Tensor | None, ...]:
        x, y, joined, c1, c2, weight, own_weight, edge_u, edge_v, psi_weight, rho_weight, out_weight = ctx.saved_tensors
        psi, rho, last, attentions, source = ctx.settled
        (rows, width), graph = c2.shape, attentions.graph
        d_2, d_out_gamma, d_out_beta = last.backward(c2, grad.contiguous(), buffers.empty(rows, width, c1))
        active = rho.forward(c1, buffers.empty(rows, c1.size(1), c1))
        d_out_weight, d_out_bias = weight_gradient(d_2, active), last.bias_gradient(d_2)
        d_1 = torch.mm(d_2, out_weight, out=active)
        d_1, d_rho_gamma, d_rho_beta = rho.backward(c1, d_1, d_1)
        d_rho_weight, d_rho_bias = weight_gradient(d_1, joined), rho.bias_gradient(d_1)
        d_joined = torch.mm(d_1, rho_weight, out=buffers.empty(rows, joined.size(1), c1))

        point, d_joined_point = y[:, attentions.others], d_joined[:, attentions.point]
        d_psi_weight = weight_gradient(d_joined_point, psi.forward(point, d_2))
        del active, d_1, d_2  # their memory serves what follows
        d_y = buffers.empty(rows, y.size(1), c1)
        d_point = torch.mm(d_joined_point, psi_weight, out=d_y[:, attentions.others])
        d_point, d_psi_gamma, d_psi_beta = psi.backward(point, d_point, d_point)
        d_term = sum_repeated(d_point, graph.pairs)
        d_edges = attentions.attend_backward(d_y, d_joined, y, (edge_u, edge_v))
        del d_joined, d_joined_point

        x = source.again() if source else x
        d_weight = weight_gradient(d_y, x)
        d_own_weight, d_own_bias = d_term.t() @ graph.at_own_root(x).to(d_term.dtype), d_term.sum(0)
        d_x = torch.mm(d_y, weight, out=buffers.empty(rows, width, c1))
        d_x.index_add_(0, graph.diagonal, (d_term @ own_weight)[graph.root_index].to(d_x.dtype))
        return (
            d_x, d_weight, d_own_weight, d_own_bias, *d_edges, d_psi_weight, d_rho_weight, d_rho_bias, d_out_weight,
            d_out_bias, d_psi_gamma, d_psi_beta, d_rho_gamma, d_rho_beta, d_out_gamma, d_out_beta, *[None] * 4,
        )  # fmt: skip
