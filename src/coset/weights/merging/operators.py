r"""Merge maps M and unmerge maps U of FS-Merge: diagonal plus low rank, one block a teacher.

Kinderman, Hubara, Maron, Soudry, "Foldable SuperNets: Scalable Merging of Transformers with Different Initializations
and Tasks", TMLR 2025 (arXiv 2410.01483). With rows as features, M in R^{kd x d*} takes the concatenated
pre-activations of k teachers to the merged network, U in R^{d* x kd} takes merged features to every teacher's next
layer. Both are held by their blocks B_i in R^{d_i x d*}: M_i = B_i and U_i = B_i^T, so that one class serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coset.core.errors import CosetError

Kind = Literal["diagonal", "low_rank", "diagonal_and_low_rank", "full", "heads"]
Start = Literal["first", "average", "random"]
LOW_RANK: tuple[Kind, ...] = ("low_rank", "diagonal_and_low_rank")
SMALL = 0.1
"""Scale of the factor of the low-rank part that does not begin at zero."""


class BlockMap(nn.Module):
    """Blocks B_i = diag_i + L_i R + F_i of shape ``[d_i, d*]``; parts that the kind does not have are left out.

    A rectangular diagonal has entries (j, j) for j < min(d_i, d*).

    Args:
        widths: d_i of each teacher.
        width: d* of the merged network.
        kind: Which parts there are.
        rank: Of the low-rank part; it may be more than a narrow width, as in the published code.

    Raises:
        CosetError: A low-rank part of no rank.
    """

    def __init__(self, widths: Sequence[int], width: int, kind: Kind, rank: int = 0):
        super().__init__()
        self.widths, self.width, self.kind = tuple(widths), width, kind
        low = kind in LOW_RANK
        if low and rank < 1:
            raise CosetError(f"rank={rank} must be at least 1")
        self.rank = rank if low else 0
        self.diagonal = _blocks([(min(d, width),) for d in widths]) if kind.startswith("diagonal") else None
        self.left = _blocks([(d, rank) for d in widths]) if low else None
        self.right = nn.Parameter(torch.zeros(rank, width)) if low else None
        self.full = _blocks([(d, width) for d in widths]) if kind == "full" else None

    def __len__(self) -> int:
        return len(self.widths)

    def gather(self, i: int, x: Float[Tensor, "... d_i"]) -> Float[Tensor, "... width"]:
        """x B_i: what teacher i contributes to the merged features."""
        parts = []
        if self.diagonal is not None:
            parts.append(_scaled(x, self.diagonal[i], self.width))
        if self.left is not None and self.right is not None:
            parts.append(x @ self.left[i] @ self.right)
        if self.full is not None:
            parts.append(x @ self.full[i])
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def spread(self, i: int, x: Float[Tensor, "... width"]) -> Float[Tensor, "... d_i"]:
        """x B_i^T: what teacher i reads from the merged features."""
        parts = []
        if self.diagonal is not None:
            parts.append(_scaled(x, self.diagonal[i], self.widths[i]))
        if self.left is not None and self.right is not None:
            parts.append(x @ self.right.mT @ self.left[i].mT)
        if self.full is not None:
            parts.append(x @ self.full[i].mT)
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def dense(self, i: int) -> Float[Tensor, "d_i width"]:
        """B_i as a matrix."""
        some = next(self.parameters())
        return self.gather(i, torch.eye(self.widths[i], dtype=some.dtype, device=some.device))

    @torch.no_grad()
    def start(self, how: Start, side: Literal["merge", "unmerge"], generator: torch.Generator) -> None:
        """Initialise: ``first`` makes the folded network teacher 1, ``average`` the mean of the weights.

        Of the low-rank part one factor begins at zero, so that the map begins at its diagonal; with ``random`` neither.

        Raises:
            CosetError: A purely low-rank map cannot begin at the identity.
        """
        k, s = len(self), self.width**-0.5
        if self.kind == "low_rank" and how != "random":
            raise CosetError(f"kind=low_rank has no diagonal to begin with: init={how!r} must be 'random'")
        for i in range(k):
            share = 1.0 if side == "unmerge" else 1 / k if how == "average" else float(i == 0)
            if self.diagonal is not None:
                noise = s / (k**0.5 if side == "merge" else 1) if how == "random" and self.left is None else 0.0
                self.diagonal[i].fill_(0.0 if how == "random" else share)
                self.diagonal[i].add_(_normal(self.diagonal[i], generator), alpha=noise)
            if self.full is not None:
                nn.init.eye_(self.full[i]).mul_(share)
                if how == "random":
                    self.full[i].copy_(_normal(self.full[i], generator) * (s / k if side == "merge" else s))
        if self.left is not None and self.right is not None:
            both, scale = how == "random", s / self.rank**0.5 if how == "random" else SMALL * s / self.rank
            for left in self.left:
                left.copy_(_normal(left, generator) * (scale if both or side == "unmerge" else 0.0))
            self.right.copy_(_normal(self.right, generator) * (scale if both or side == "merge" else 0.0))

    def extra_repr(self) -> str:
        return f"{self.widths} -> {self.width}, {self.kind}, rank={self.rank}"


class HeadMap(BlockMap):
    """Maps of attention heads: B_i = blockdiag_h(R_{i,h}) (S_i kron I), R_{i,h} inside a head, S_i mixes heads.

    The unmerge map shares one R among the teachers.

    Args:
        widths: H times the width of a head, for each teacher.
        width: The same of the merged network.
        heads: H.
        shared: Whether all teachers have the same R (unmerge).
    """

    def __init__(self, widths: Sequence[int], width: int, heads: int, *, shared: bool = False):
        nn.Module.__init__(self)
        if {*widths, width} != {width} or width % heads:
            raise CosetError(f"kind=heads needs equal widths that {heads} heads divide, not {[*widths, width]}")
        self.widths, self.width, self.kind, self.rank, self.heads = tuple(widths), width, "heads", 0, heads
        self.diagonal = self.left = self.right = self.full = None
        size = width // heads
        self.inside = _blocks([(heads, size, size)] * (1 if shared else len(widths)))
        self.mixing = _blocks([(heads, heads)] * len(widths))

    def gather(self, i: int, x: Float[Tensor, "... d_i"]) -> Float[Tensor, "... width"]:
        inside = self.inside[min(i, len(self.inside) - 1)]
        mixed = torch.einsum("...hc,hce,hg->...ge", x.unflatten(-1, (self.heads, -1)), inside, self.mixing[i])
        return mixed.flatten(-2)

    def spread(self, i: int, x: Float[Tensor, "... width"]) -> Float[Tensor, "... d_i"]:
        inside = self.inside[min(i, len(self.inside) - 1)]
        mixed = torch.einsum("...ge,hce,hg->...hc", x.unflatten(-1, (self.heads, -1)), inside, self.mixing[i])
        return mixed.flatten(-2)

    @torch.no_grad()
    def start(self, how: Start, side: Literal["merge", "unmerge"], generator: torch.Generator) -> None:
        k, size = len(self), self.width // self.heads
        for i, inside in enumerate(self.inside):
            share = 1.0 if side == "unmerge" else 1 / k if how == "average" else float(i == 0)
            inside.copy_(torch.eye(size)).mul_(share)
            if how == "random":
                inside.copy_(_normal(inside, generator) * size**-0.5)
        for mixing in self.mixing:
            mixing.copy_(torch.eye(self.heads))


class _Fold(torch.autograd.Function):
    r"""W* and b* of diagonal plus low rank, in one step, keeping nothing that is as large as W*.

    With M_i = Delta_i + A_i B, U_i^T = Gamma_i + D_i C, S_i = W_i D_i, T_i = A_i^T W_i and R = sum_i A_i^T S_i,
    W* = sum_i Delta_i W_i Gamma_i + (sum_i Delta_i S_i) C + B^T (sum_i T_i Gamma_i + R C).
    """

    @staticmethod
    def forward(
        ctx: Any,
        read: Callable[[int], Tensor],
        biases: Sequence[Tensor] | None,
        delta: Float[Tensor, "k outputs"],
        a: Float[Tensor, "k outputs rank"] | None,
        b: Float[Tensor, "rank outputs"] | None,
        gamma: Float[Tensor, "k inputs"] | None,
        d: Float[Tensor, "k inputs rank_in"] | None,
        c: Float[Tensor, "rank_in inputs"] | None,
    ) -> tuple[Tensor, Tensor | None]:
        k = len(delta)
        total: Any = None
        outer: Any = None
        inner: Any = None
        cross: Any = None
        s: list[Any] = [None] * k
        t: list[Any] = [None] * k
        for i in range(k):
            w = read(i)
            if d is not None:
                s[i] = w @ d[i]
                outer = _plus(outer, delta[i][:, None] * s[i])
            if a is not None:
                t[i] = a[i].mT @ w
                inner = _plus(inner, t[i] if gamma is None else t[i] * gamma[i])
                cross = _plus(cross, a[i].mT @ s[i]) if d is not None else None
            term = w * delta[i][:, None]
            term = term if gamma is None else term.mul_(gamma[i])
            total = term if total is None else total.add_(term)
        if c is not None:
            inner = inner if cross is None else torch.addmm(inner, cross, c)
            total = total.addmm_(outer, c)
        if b is not None:
            total = total.addmm_(b.mT, inner)
        folded = None if biases is None else _folded_bias(ctx, torch.stack(tuple(biases)), delta, a, b)
        ctx.read, ctx.biased, ctx.s, ctx.t, ctx.rest = read, biases is not None, s, t, (outer, inner, cross)
        ctx.save_for_backward(delta, a, b, gamma, d, c)
        return total, folded

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_bias: Any) -> tuple[Tensor | None, ...]:
        delta, a, b, gamma, d, c = ctx.saved_tensors
        outer, inner, cross = ctx.rest
        empty: list[Any] = [None if x is None else torch.empty_like(x) for x in (delta, a, gamma, d)]
        of_delta, of_a, of_gamma, of_d = empty
        across: Any = None if d is None else grad @ c.mT
        down: Any = None if a is None else b @ grad
        both: Any = None if a is None or d is None else down @ c.mT
        for i in range(len(delta)):
            w = ctx.read(i)
            product = grad * w
            of_delta[i] = product.sum(1) if gamma is None else product @ gamma[i]
            if gamma is not None:
                of_gamma[i] = delta[i] @ product
            del product
            if d is not None:
                of_delta[i] += (ctx.s[i] * across).sum(1)
                lifted = delta[i][:, None] * across
                of_d[i] = w.mT @ (lifted if both is None else lifted.addmm_(a[i], both))
            if a is not None:
                of_a[i] = w @ (down.mT if gamma is None else down.mT * gamma[i][:, None])
                if both is not None:
                    of_a[i].addmm_(ctx.s[i], both.mT)
                if gamma is not None:
                    of_gamma[i] += (ctx.t[i] * down).sum(0)
        of_b: Any = None if a is None else inner @ grad.mT
        of_c: Any = None
        if d is not None:
            of_c = outer.mT @ grad
            of_c = of_c if cross is None else of_c.addmm_(cross.mT, down)
        if ctx.biased:
            of_delta += ctx.biases * grad_bias
            if a is not None:
                of_a += torch.einsum("ko,r->kor", ctx.biases, b @ grad_bias)
                of_b += torch.outer(ctx.leaning, grad_bias)
        return None, None, of_delta, of_a, of_b, of_gamma, of_d, of_c


def _folded_bias(
    ctx: Any, biases: Float[Tensor, "k outputs"], delta: Float[Tensor, "k outputs"],
    a: Float[Tensor, "k outputs rank"] | None, b: Float[Tensor, "rank outputs"] | None,
) -> Float[Tensor, " outputs"]:  # fmt: skip
    """b* = sum_i b_i M_i; what its gradient needs is kept in ``ctx``."""
    ctx.biases, folded = biases, (delta * biases).sum(0)
    if a is None or b is None:
        return folded
    ctx.leaning = torch.einsum("kor,ko->r", a, biases)
    return torch.addmv(folded, b.mT, ctx.leaning)


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total.add_(term)


Reader = Callable[[int], Tensor]
"""W_i, read when it is needed: twice, once for W* and once for its gradient."""


def fold(
    merge: BlockMap, read: Reader, biases: Sequence[Float[Tensor, " _o_i"]] | None, unmerge: BlockMap | None
) -> tuple[Float[Tensor, "o n"], Float[Tensor, " o"] | None]:
    """W* = sum_i M_i^T W_i U_i^T (without U where the input is shared by all teachers), and b* = sum_i b_i M_i.

    For diagonal plus low rank it costs O(k r o n), and no W_i is kept for the gradient.
    """
    if all(m.diagonal is not None and {*m.widths} == {m.width} for m in (merge, unmerge) if m is not None):
        of_input = (None, None, None) if unmerge is None else (unmerge.diagonal, unmerge.left, unmerge.right)
        return _Fold.apply(read, biases, merge.diagonal, merge.left, merge.right, *of_input)
    total: Tensor | None = None
    for i in range(len(merge)):
        weight = read(i)
        term = merge.gather(i, (weight if unmerge is None else unmerge.gather(i, weight)).mT)
        total = term if total is None else total + term
    assert total is not None
    return total.mT, None if biases is None else fold_bias(merge, biases)


def fold_weight(
    merge: BlockMap, weights: Sequence[Float[Tensor, "o_i n_i"]], unmerge: BlockMap | None
) -> Float[Tensor, "o n"]:
    """W* alone, of matrices at hand; see :func:`fold`."""
    return fold(merge, lambda i: weights[i], None, unmerge)[0]


def fold_bias(merge: BlockMap, biases: Sequence[Float[Tensor, " _o_i"]]) -> Float[Tensor, " o"]:
    """b* = sum_i b_i M_i."""
    return torch.stack([merge.gather(i, bias) for i, bias in enumerate(biases)]).sum(0)


def _scaled(x: Tensor, scale: Tensor, width: int) -> Tensor:
    """x times a rectangular diagonal."""
    if x.size(-1) == width:
        return x * scale
    return F.pad(x[..., : len(scale)] * scale, (0, width - len(scale)))


def _blocks(shapes: Sequence[tuple[int, ...]]) -> Any:
    """One parameter a teacher; a single stacked one where all are of one shape, which is quicker to train."""
    if len(set(shapes)) == 1:
        return nn.Parameter(torch.zeros(len(shapes), *shapes[0]))
    return nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)
