r"""One layer of GNN-SSWL+ or CS-GNN as one operation, for speed and memory on a CPU.

The same mathematics as :class:`coset.graphs.models.subgraphormer.SumOfTerms`, which stays the reference:

    X' = ReLU(BN( sum over g of MLP_g((1 + eps_g) X + M_g) )),   MLP_g = W2_g ReLU(BN_g(W1_g .)) + b2_g

Each term writes what stands ahead of its norm into its columns of one matrix H; one product with [W2_1 | W2_2 | ...]
then sums all terms. A branch says how its columns come about:

==================  =============================================================================================
:class:`Sums`       H_g = (own X + sum over neighbours of ReLU(X + e)) W1^T
:class:`OwnRoot`    H_g = X ((1 + eps) W1)^T + t repeated over the roots, t(v) = X(v, v) W1^T
:class:`Clusters`   H_g = X ((1 + eps) W1)^T + ReLU(BN(K)) (W1 W_kappa)^T, K(S, v) = X(c(v), v) W^T + b[orbit]
==================  =============================================================================================

Biases ahead of a norm are never added (the norm takes them off again). Kept for the backward pass are the sums, K, H
and what the last norm reads; all that follows a norm, X among them, is computed again.

X may be stored in bfloat16 where all terms are :class:`Sums` and :class:`OwnRoot`, and with it the sums, H, what the
last norm reads and the gradients of these: products of matrices read and write it, and weights are rounded to it once a
step. Statistics, terms of nodes and edges, all sums, X's gradient until its terms are added up among them, and the
gradients of parameters are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from coset.graphs.models.attention_block import weight_gradient
from coset.nn import MLP
from coset.nn.buffers import buffers
from coset.nn.norm_relu import NormReLU, Origin, add_repeated, origin_of, settled, sum_repeated
from coset.relations import Product, Relation, operators
from coset.relations.verbs import kernels_apply

Tensors = Sequence[Tensor | None]


class Branch(Protocol):
    """How the columns of one term come about.

    Attributes:
        mlp: MLP_g, whose first map the branch applies.
        tensors: What gradients are wanted of, besides X, in the order in which they are returned.
        bias: Ahead of the norm; never added.
        norms: All norms of the term.
    """

    mlp: MLP
    tensors: Tensors
    bias: Tensor

    @property
    def norms(self) -> list[nn.Module]: ...

    def forward(self, x: Tensor, h: Tensor, tensors: Tensors) -> Any:
        """Write H_g; return what the backward pass needs."""

    def backward(self, kept: Any, x: Tensor, d_h: Tensor, d_x: Tensor, tensors: Tensors) -> Tensors:
        """Add to the gradient of X, in the precision of arithmetic; return those of ``tensors``."""


class _OneMLP:
    """What terms with a single MLP have in common."""

    mlp: MLP

    @property
    def bias(self) -> Tensor:
        return self.mlp.first.bias

    @property
    def norms(self) -> list[nn.Module]:
        return [self.mlp.norm]


@dataclass
class Sums(_OneMLP):
    """Sums over neighbours along one axis of a product."""

    mlp: MLP
    relation: Relation
    product: Product
    along: int
    tensors: Tensors  # own factor [1], edge terms or None, W1

    def _structure(self) -> operators.Structure:
        table = self.relation.rows
        return self.relation.layout(self.product, self.along), table.ptr, table.source, table.edge

    def forward(self, x: Tensor, h: Tensor, tensors: Sequence[Any]) -> Any:
        own, edge, weight = tensors
        gathered = buffers.empty(x.size(0), x.size(1), x)
        operators.sum_into(gathered, x, edge, self._structure(), self.along, True, float(own))
        torch.mm(gathered, weight.to(x.dtype).t(), out=h)
        return gathered

    def backward(self, kept: Any, x: Tensor, d_h: Tensor, d_x: Tensor, tensors: Sequence[Any]) -> Tensors:
        own, edge, weight = tensors
        d_gathered = torch.mm(d_h, weight.to(x.dtype), out=buffers.empty(x.size(0), x.size(1), x))
        d_edge, d_own = operators.sum_backward_into(
            d_x, d_gathered, x, edge, self._structure(), self.along, True, float(own)
        )
        return d_own.view(1), d_edge, weight_gradient(d_h, kept)


@dataclass
class OwnRoot(_OneMLP):
    """The point term of pairs (root, node)."""

    mlp: MLP
    graph: Any
    tensors: Tensors  # (1 + eps) W1, W1

    def forward(self, x: Tensor, h: Tensor, tensors: Sequence[Any]) -> Any:
        scaled, weight = tensors
        torch.mm(x, scaled.to(x.dtype).t(), out=h)
        add_repeated(h, self.graph.at_own_root(x).to(weight.dtype) @ weight.t(), self.graph.pairs)

    def backward(self, kept: Any, x: Tensor, d_h: Tensor, d_x: Tensor, tensors: Sequence[Any]) -> Tensors:
        scaled, weight = tensors
        if d_x.dtype == d_h.dtype:
            d_x.addmm_(d_h, scaled)
        else:
            d_x.add_(torch.mm(d_h, scaled.to(d_h.dtype), out=buffers.empty(x.size(0), x.size(1), x)))
        d_term = sum_repeated(d_h, self.graph.pairs)
        d_x.index_add_(0, self.graph.diagonal, (d_term @ weight)[self.graph.root_index])
        return weight_gradient(d_h, x), d_term.t() @ self.graph.at_own_root(x).to(d_term.dtype)


@dataclass
class Clusters:
    """The point term of pairs (cluster, node), with an MLP as coupling."""

    mlp: MLP
    coupling: MLP
    graph: Any
    bias: Tensor
    tensors: Tensors  # (1 + eps) W1, W1 W_kappa, W, b of every orbit, gamma and beta of the coupling

    @property
    def norms(self) -> list[nn.Module]:
        return [self.mlp.norm, self.coupling.norm]

    def forward(self, x: Tensor, h: Tensor, tensors: Sequence[Any]) -> Any:
        scaled, joined, first, vectors, gamma, beta = tensors
        k = buffers.empty(x.size(0), first.size(0), x)
        torch.index_select(vectors, 0, self.graph.orbits[1], out=k)
        add_repeated(k, x.index_select(0, self.graph.own_rows) @ first.t(), self.graph.pairs)
        norm = NormReLU.of(k, _batch_norm(self.coupling), gamma, beta)
        torch.mm(x, scaled.t(), out=h)
        h.addmm_(norm.forward(k, buffers.empty(k.size(0), k.size(1), k)), joined.t())
        return k, norm

    def backward(self, kept: Any, x: Tensor, d_h: Tensor, d_x: Tensor, tensors: Sequence[Any]) -> Tensors:
        scaled, joined, first, vectors, _, _ = tensors
        k, norm = kept
        active = norm.forward(k, buffers.empty(k.size(0), k.size(1), k))
        d_scaled, d_joined = d_h.t() @ x, d_h.t() @ active
        d_k = torch.mm(d_h, joined, out=active)
        d_k, d_gamma, d_beta = norm.backward(k, d_k, d_k)
        d_vectors = torch.zeros_like(vectors).index_add_(0, self.graph.orbits[1], d_k)
        d_seen = sum_repeated(d_k, self.graph.pairs)
        d_x.addmm_(d_h, scaled)
        d_x.index_add_(0, self.graph.own_rows, d_seen @ first)
        d_first = d_seen.t() @ x.index_select(0, self.graph.own_rows)
        return d_scaled, d_joined, d_first, d_vectors, d_gamma, d_beta


def branches(block: Any, x: Tensor, graph: Any) -> list[Branch] | None:
    """The branches of a block on this input, or ``None`` where this operation cannot stand for it."""
    if not kernels_apply(x) or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or not block.gather:
        return None
    wanted = operators.arithmetic(x.dtype)
    if any(parameter.dtype != wanted for parameter in block.parameters()) or not settled([block.norm], x):
        return None
    if not all(hasattr(term, "branch") for term in block.gather.values()):
        return None
    found = [term.branch(x, graph) for term in block.gather.values()]
    if any(branch is None for branch in found):
        return None
    norms = [norm for branch in found for norm in branch.norms]
    return found if settled([*norms, block.norm], x) else None


def sum_block(
    terms: Sequence[Branch], norm: nn.BatchNorm1d, x: Float[Tensor, "pairs width"]
) -> Float[Tensor, "pairs width"]:
    """ReLU(norm(sum of the terms)).

    Args:
        terms: Branches that :func:`branches` found.
        norm: The norm after the sum.
        x: Features of the pairs.
    """
    second = torch.cat([term.mlp.second.weight for term in terms], dim=1)
    carried = torch.stack([term.mlp.second.bias for term in terms]).sum(0)
    flat = []
    for term in terms:
        flat += [term.bias, term.mlp.norm.weight, term.mlp.norm.bias, *term.tensors]
    origin: list[Origin] = []
    out = _SumBlock.apply(x, second, carried, norm.weight, norm.bias, terms, norm, origin_of(x), origin, *flat)
    out.origin = origin[0]
    return out


def _by_term(terms: Sequence[Branch], tensors: Tensors) -> list[Tensors]:
    """The tensors of each term: bias, gamma and beta of its norm, then its own."""
    parts, start = [], 0
    for term in terms:
        end = start + 3 + len(term.tensors)
        parts.append(tensors[start:end])
        start = end
    return parts


class _SumBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "pairs inputs"],
        second: Float[Tensor, "width hidden"],
        carried: Float[Tensor, " width"],
        gamma: Float[Tensor, " width"],
        beta: Float[Tensor, " width"],
        terms: Sequence[Branch],
        norm: nn.BatchNorm1d,
        source: Origin | None,
        origin: list[Origin],
        *tensors: Tensor | None,
    ) -> Any:
        rows, width = x.size(0), second.size(0)
        second = second.to(x.dtype)
        hidden = buffers.empty(rows, second.size(1), x)
        columns, norms, kept, start = [], [], [], 0
        for term, (bias, term_gamma, term_beta, *own) in zip(terms, _by_term(terms, tensors)):
            assert bias is not None
            assert term_gamma is not None
            assert term_beta is not None
            columns.append(slice(start, start + bias.numel()))
            start += bias.numel()
            h = hidden[:, columns[-1]]
            kept.append(term.forward(x, h, own))
            norms.append(NormReLU.of(h, _batch_norm(term.mlp), term_gamma, term_beta, bias))
        active = _active(norms, columns, hidden)
        c = torch.mm(active, second.t(), out=buffers.empty(rows, width, x))
        last = NormReLU.of(c, norm, gamma, beta, carried)
        origin.append(Origin(c, last))
        ctx.save_for_backward(None if source else x, second, hidden, c, *tensors)
        ctx.settled = terms, columns, norms, kept, last, source
        del active
        return last.forward(c, buffers.empty(rows, width, x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "pairs width"]) -> Tensors:
        x, second, hidden, c, *tensors = ctx.saved_tensors
        terms, columns, norms, kept, last, source = ctx.settled
        rows, width = c.shape
        d_c, d_gamma, d_beta = last.backward(c, grad.contiguous(), buffers.empty(rows, width, c))
        active = _active(norms, columns, hidden)
        d_second = weight_gradient(d_c, active)
        d_carried = last.bias_gradient(d_c)
        d_hidden = torch.mm(d_c, second, out=active)
        del active, d_c
        x = source.again() if source else x
        d_x = buffers.empty(rows, x.size(1), last.scale).zero_()
        gradients: list[Tensor | None] = []
        for term, where, norm, state, (_, _, _, *own) in zip(terms, columns, norms, kept, _by_term(terms, tensors)):
            d_h = d_hidden[:, where]
            d_h, d_term_gamma, d_term_beta = norm.backward(hidden[:, where], d_h, d_h)
            gradients += [norm.bias_gradient(d_h), d_term_gamma, d_term_beta]
            gradients += term.backward(state, x, d_h, d_x, own)
        return d_x.to(x.dtype), d_second, d_carried, d_gamma, d_beta, None, None, None, None, *gradients


def _batch_norm(mlp: MLP) -> nn.BatchNorm1d:
    assert isinstance(mlp.norm, nn.BatchNorm1d)
    return mlp.norm


def _active(norms: Sequence[NormReLU], columns: Sequence[slice], hidden: Tensor) -> Tensor:
    """ReLU(BN(H)), term by term."""
    active = buffers.empty(hidden.size(0), hidden.size(1), hidden)
    for norm, where in zip(norms, columns):
        norm.forward(hidden[:, where], active[:, where])
    return active
