r"""LoL models: what an adapter was made for, predicted from its factors.

Putterman, Lim, Gelberg, Bronstein, Jegelka, Maron: GL equivariant metanetworks for learning on low rank weight spaces
(arXiv 2410.04207). All take :data:`~coset.weights.lora.factors.Factors` and return ``[batch, outputs]``:

- flat:      MLP(vec U, vec V)                               no symmetry
- o_align:   MLP(vec U Q, vec V Q), Q in O(r) nearest to a template; O(r) invariant almost everywhere
- balanced:  the same on the representative U^T U = V^T V; GL(r) invariant almost everywhere
- svd:       MLP(singular values of U V^T)                   GL(r) invariant, cannot separate all updates
- dense:     MLP(U V^T)                                      GL(r) invariant, n m numbers a layer
- glnet:     MLP(Phi U (Psi V)^T)                            GL(r) invariant, k^2 numbers a layer

The linear GL(r)-equivariant maps are exactly (U, V) -> (Phi U, Psi V): no bias, no mixing of U with V or of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.errors import check_choice
from coset.symmetry import Claim, TrivialAction
from coset.weights.lora.adapters import balanced, singular_values, squared_norm
from coset.weights.lora.factors import Factors, LayerwiseGL, Layout
from coset.weights.lora.procrustes import polar

EPSILON = 1e-12


class Head(nn.Sequential):
    """Linear - LayerNorm - ReLU - Linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__(
            nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )  # fmt: skip


def flat(factors: Factors) -> Float[Tensor, "batch features"]:
    """All entries of all factors."""
    return torch.cat([t.flatten(1) for pair in factors for t in pair], 1)


def spectra(factors: Factors) -> Float[Tensor, "batch features"]:
    """Singular values of every update."""
    return torch.cat([singular_values(u, v).flatten(1) for u, v in factors], 1)


def products(factors: Factors) -> Float[Tensor, "batch features"]:
    """All entries of every update."""
    return torch.cat([(u @ v.mT).flatten(1) for u, v in factors], 1)


class Alignment(nn.Module):
    r"""[U; V] Q for the Q in O(r) that brings it nearest to a template: orthogonal Procrustes, batched.

    For X = [U; V] and template T, Q = A B^T where X^T T = A S B^T. Unique where X^T T is not singular; there
    X Q0 aligns to the same point for every Q0 in O(r).

    Args:
        template: Factors of one adapter (a batch of one), from the training set.
        balance: Move to the balanced representative first. What is left of GL(r) is then O(r), which alignment takes.
    """

    def __init__(self, template: Factors, balance: bool = False):
        super().__init__()
        self.balance = balance
        if balance:
            template = tuple(balanced(u, v) for u, v in template)
        self.groups = len(template)
        for i, (u, v) in enumerate(template):
            self.register_buffer(f"template_{i}", torch.cat([u, v], -2)[0].clone())

    def rotations(self, factors: Factors) -> list[Float[Tensor, "batch layers r r"]]:
        """Q of every layer of every adapter."""
        result = []
        for i, (u, v) in enumerate(factors):
            template = self.get_buffer(f"template_{i}").mT
            if template.size(-2) != u.size(-1):
                raise ValueError(f"factors of rank {template.size(-2)} were expected; got {u.size(-1)}: pad them")
            n = u.size(-2)
            result.append(polar((rows(template[..., :n], u) + rows(template[..., n:], v)).mT))
        return result

    def align(self, factors: Factors) -> Factors:
        """Aligned factors; their rank must be that of the template."""
        if self.balance:
            factors = tuple(balanced(u, v) for u, v in factors)
        return tuple((u @ q, v @ q) for (u, v), q in zip(factors, self.rotations(factors), strict=True))

    def forward(self, factors: Factors) -> Float[Tensor, "batch features"]:
        return flat(self.align(factors))


class LolModel(nn.Module):
    """What is the same in every epoch is computed once: ``forward(x)`` is ``predict(precompute(x))``."""

    def precompute(self, factors: Factors) -> Any:
        """What does not change during training."""
        return factors

    def predict(self, prepared: Any) -> Tensor:
        """``[batch, outputs]`` from what :meth:`precompute` gave."""
        raise NotImplementedError

    def forward(self, factors: Factors) -> Float[Tensor, "batch outputs"]:
        return self.predict(self.precompute(factors))

    def symmetry(self) -> tuple[Claim, ...]:
        raise NotImplementedError


class FeatureModel(LolModel):
    """A head on features that have nothing to learn; they are standardised by the training set.

    Args:
        features: From factors to ``[batch, inputs]``.
        training: Factors of the training set, which give number, mean and deviation of the features.
        hidden: Width of the head.
        outputs: Columns out.
        condition: The model claims invariance under elements of GL(r) up to this condition number; 1 claims O(r) only,
            None claims nothing.
    """

    def __init__(
        self,
        features: Callable[[Factors], Tensor],
        training: Factors,
        hidden: int,
        outputs: int,
        condition: float | None,
    ):
        super().__init__()
        self.features, self.condition = features, condition
        self.mean: Tensor
        self.deviation: Tensor
        found = features(training)
        self.register_buffer("mean", found.mean(0))
        self.register_buffer("deviation", found.std(0).clamp(min=1e-3 * float(found.std()) + EPSILON))
        self.head = Head(found.size(1), hidden, outputs)

    def precompute(self, factors: Factors) -> Float[Tensor, "batch features"]:
        return (self.features(factors) - self.mean) / self.deviation

    def predict(self, prepared: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        return self.head(prepared)

    def symmetry(self) -> tuple[Claim, ...]:
        if self.condition is None:
            return ()
        group = "O(r)" if self.condition == 1 else "GL(r)"
        return (Claim(LayerwiseGL(self.condition), TrivialAction(), f"invariant under {group} on the factors"),)


class GLLinear(nn.Module):
    r"""(U, V) -> (Phi U, Psi V) for each layer, to a common width: ``[batch, layers, width, r]`` of all groups.

    Weights are drawn from N(0, 1/fan_in).
    """

    def __init__(self, layout: Layout, width: int):
        super().__init__()
        shapes = [(n, m, len(names)) for (n, m), names in layout.groups]
        self.phi = nn.ParameterList(torch.randn(count, width, n) / n**0.5 for n, _, count in shapes)
        self.psi = nn.ParameterList(torch.randn(count, width, m) / m**0.5 for _, m, count in shapes)

    def forward(self, factors: Factors, sizes: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """With ``sizes``, numbers by which the factors of each layer are multiplied: weights are, which are smaller."""
        by = sizes or [torch.ones((), dtype=u.dtype, device=u.device) for u, _ in factors]
        u = torch.cat([rows(phi * s, u) for phi, s, (u, _) in zip(self.phi, by, factors, strict=True)], 1)
        v = torch.cat([rows(psi * s, v) for psi, s, (_, v) in zip(self.psi, by, factors, strict=True)], 1)
        return u, v


class GLLayer(nn.Module):
    """(U, V) -> (Phi U, Psi V) between equal widths, for layers that are stacked already."""

    def __init__(self, layers: int, width: int):
        super().__init__()
        self.phi = nn.Parameter(torch.randn(layers, width, width) / width**0.5)
        self.psi = nn.Parameter(torch.randn(layers, width, width) / width**0.5)

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return rows(self.phi, u), rows(self.psi, v)


def rows(
    weight: Float[Tensor, "layers k n"], factor: Float[Tensor, "batch layers n r"]
) -> Float[Tensor, "batch layers k r"]:
    """weight[l] @ factor[b, l]: one product a layer, batch and rank together as its columns."""
    batch, layers, _, rank = factor.shape
    return (weight @ _columns(factor)).reshape(layers, -1, batch, rank).permute(2, 0, 1, 3)


def _columns(factor: Float[Tensor, "batch layers n r"]) -> Float[Tensor, "layers n batch*r"]:
    """Batch and rank together as columns: all of the time of a first layer that is not spent in the product."""
    batch, layers, n, rank = factor.shape
    bytes_ = rank * factor.element_size()
    if bytes_ % 8 or factor.device.type != "cpu" or factor.requires_grad:
        return factor.permute(1, 2, 0, 3).reshape(layers, n, batch * rank)
    # Runs of r numbers stay together, so that whole words of 16 or 8 bytes are moved: three times as fast.
    word = torch.complex128 if bytes_ % 16 == 0 else torch.float64
    words = factor.reshape(-1).view(word).view(batch, layers, n, bytes_ // word.itemsize)
    # Flat on both sides: contiguous() would keep odd strides of axes of length 1, through which nothing can be viewed.
    return words.movedim(0, 2).reshape(-1).view(factor.dtype).view(layers, n, batch * rank)


def gate(
    u: Float[Tensor, "... k r"], v: Float[Tensor, "... l r"]
) -> tuple[Float[Tensor, "... k r"], Float[Tensor, "... l r"]]:
    r"""Rows kept where the row sum of U V^T, for V the column sum, is positive; U (V^T 1) avoids the k x l matrix.

    The gates are invariant and act from the left, so that the map is GL(r)-equivariant. They pass no gradient.
    """
    with torch.no_grad():
        gate_u = (u @ v.sum(-2).unsqueeze(-1)) > 0
        gate_v = (v @ u.sum(-2).unsqueeze(-1)) > 0
    return u * gate_u, v * gate_v


class GLNorm(nn.Module):
    r"""U and V over ||U V^T||_F^(1/2), times learnable scales of rows: equivariant, and blind to the size of dW."""

    def __init__(self, layers: int, width_u: int, width_v: int, epsilon: float = 1e-6):
        super().__init__()
        self.scale_u = nn.Parameter(torch.ones(layers, width_u, 1))
        self.scale_v = nn.Parameter(torch.ones(layers, width_v, 1))
        self.epsilon = epsilon

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        # The root of a root has no finite slope at 0; the guard inside keeps gradients of all-zero adapters finite.
        root = (squared_norm(u, v).clamp(min=0) + self.epsilon**4).pow(0.25)[..., None, None] + self.epsilon
        return u / root * self.scale_u, v / root * self.scale_v


class RowDropout(nn.Module):
    """Whole rows of U and V dropped, which GL(r) does not notice; kept ones are scaled up in training."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training or self.p == 0:
            return u, v
        keep = [torch.rand(*t.shape[:-1], 1, device=t.device, dtype=t.dtype) >= self.p for t in (u, v)]
        return u * keep[0] / (1 - self.p), v * keep[1] / (1 - self.p)


class GLNet(LolModel):
    r"""Equivariant linear layers with gates between, then an MLP on the invariants Phi U (Psi V)^T of each layer.

    Args:
        layout: Layers of the adapters.
        training: Factors of the training set; they give the fixed size of dW by which each layer is divided.
        width: k.
        layers: Linear layers; gates stand between them, so that one layer has none.
        hidden: Width of the head.
        outputs: Columns out.
        norm: GLNorm after the first layer; its logarithm of ||dW|| joins the invariants.
        head: full (k^2 numbers a layer), or mean (their mean, one number a layer).
        dropout: Of rows.
    """

    def __init__(
        self,
        layout: Layout,
        training: Factors,
        width: int,
        layers: int,
        hidden: int,
        outputs: int,
        *,
        norm: bool = False,
        head: str = "full",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_choice("head", head, ("full", "mean"))
        self.layout, self.pooled = layout, head == "mean"
        count = len(layout.names)
        for i, (u, v) in enumerate(training):
            typical = squared_norm(u.double(), v.double()).mean(0).sqrt().sqrt().clamp(min=EPSILON)
            # Phi and Psi shrink a product of norm 1 to entries of 1/sqrt(n m); this brings them to about 1.
            size = (u.size(-2) * v.size(-2)) ** 0.25
            self.register_buffer(f"size_{i}", (size / typical).to(u.dtype)[:, None, None])
        self.first = GLLinear(layout, width)
        self.norm = GLNorm(count, width, width) if norm else None
        self.more = nn.ModuleList(GLLayer(count, width) for _ in range(layers - 1))
        self.dropout = RowDropout(dropout)
        features = count * (1 if self.pooled else width**2) + (count if norm else 0)
        self.head = Head(features, hidden, outputs)

    def invariants(self, factors: Factors) -> Float[Tensor, "batch layers features"]:
        """U V^T of the last equivariant layer."""
        self.layout.check(factors)
        sizes = [self.get_buffer(f"size_{i}") for i in range(len(factors))]
        u, v = self.first(factors, sizes)
        extra = []
        if self.norm is not None:
            extra.append(0.5 * torch.log(squared_norm(u, v).clamp(min=0) + EPSILON).unsqueeze(-1))
            u, v = self.norm(u, v)
        for layer in self.more:
            u, v = layer(*self.dropout(*gate(u, v)))
        product = u @ v.mT
        features = product.mean((-2, -1)).unsqueeze(-1) if self.pooled else product.flatten(-2)
        return torch.cat([features, *extra], -1)

    def predict(self, prepared: Factors) -> Float[Tensor, "batch outputs"]:
        return self.head(self.invariants(prepared).flatten(1))

    def symmetry(self) -> tuple[Claim, ...]:
        return (Claim(LayerwiseGL(), TrivialAction(), "invariant under GL(r) on the factors"),)


class GLEditor(nn.Module):
    r"""An equivariant map from adapters to adapters: (U, V) -> (U + Phi' gate(Phi U), V + Psi' gate(Psi V)).

    It commutes with GL(r), so that an edited adapter does not depend on how the given one was factorised. Phi' and
    Psi' start at zero: the untrained editor changes nothing.
    """

    def __init__(self, layout: Layout, width: int):
        super().__init__()
        self.layout, self.inner = layout, GLLinear(layout, width)
        shapes = [(n, m, len(names)) for (n, m), names in layout.groups]
        self.phi = nn.ParameterList(torch.zeros(count, n, width) for n, _, count in shapes)
        self.psi = nn.ParameterList(torch.zeros(count, m, width) for _, m, count in shapes)

    def forward(self, factors: Factors) -> Factors:
        self.layout.check(factors)
        u, v = gate(*self.inner(factors))
        edited, start = [], 0
        for (old_u, old_v), phi, psi in zip(factors, self.phi, self.psi, strict=True):
            part = slice(start, start := start + phi.size(0))
            edited.append((old_u + rows(phi, u[:, part]), old_v + rows(psi, v[:, part])))
        return tuple(edited)

    def symmetry(self) -> tuple[Claim, ...]:
        return (Claim(LayerwiseGL(), LayerwiseGL(), "equivariant under GL(r) on the factors"),)
