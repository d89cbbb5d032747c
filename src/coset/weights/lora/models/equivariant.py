r"""Layers that commute with GL(r): linear maps, gates, norm, dropout, and maps from adapters to adapters.

The linear GL(r)-equivariant maps are exactly (U, V) -> (Phi U, Psi V): no bias, no mixing of U with V or of layers.
Anything invariant may act from the left. Every layer takes and returns U ``[batch, layers, k, r]`` and V likewise.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.symmetry import Claim
from coset.weights.lora.data.adapters import squared_norm
from coset.weights.lora.data.factors import Factors, LayerwiseGL, Layout
from coset.weights.lora.models.columns import rows


class GLLinear(nn.Module):
    r"""(U, V) -> (Phi U, Psi V) for each layer, to a common width: ``[batch, layers, width, r]`` of all groups.

    Weights are drawn from N(0, 1/fan_in).
    """

    def __init__(self, layout: Layout, width: int):
        super().__init__()
        shapes = [(n, m, len(names)) for (n, m), names in layout.groups]
        self.phi = nn.ParameterList(torch.randn(count, width, n) / n**0.5 for n, _, count in shapes)
        self.psi = nn.ParameterList(torch.randn(count, width, m) / m**0.5 for _, m, count in shapes)

    def forward(self, factors: Factors) -> tuple[Tensor, Tensor]:
        u = torch.cat([rows(phi, u) for phi, (u, _) in zip(self.phi, factors, strict=True)], 1)
        v = torch.cat([rows(psi, v) for psi, (_, v) in zip(self.psi, factors, strict=True)], 1)
        return u, v


class GLLayer(nn.Module):
    """(U, V) -> (Phi U, Psi V) between equal widths, for layers that are stacked already."""

    def __init__(self, layers: int, width: int):
        super().__init__()
        self.phi = nn.Parameter(torch.randn(layers, width, width) / width**0.5)
        self.psi = nn.Parameter(torch.randn(layers, width, width) / width**0.5)

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return rows(self.phi, u), rows(self.psi, v)


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


class SignGate(nn.Module):
    """:func:`gate` as a module."""

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return gate(u, v)


class BilinearGate(nn.Module):
    r"""Learnt gates: small invariants A U (B V)^T give k x k matrices that multiply U and V from the left.

    The matrices are the identity at first. Unlike :func:`gate` they pass gradients.

    Args:
        layers: Of the adapter.
        width: k.
        across: The matrices of a layer depend on the invariants of all layers, which is the only legal way for layers
            to influence one another; otherwise on its own.
        small: Rows of A and B.
        hidden: Width of the MLP between.
    """

    def __init__(self, layers: int, width: int, across: bool = False, small: int = 4, hidden: int = 32):
        super().__init__()
        self.a = nn.Parameter(torch.randn(layers, small, width) / width**0.5)
        self.b = nn.Parameter(torch.randn(layers, small, width) / width**0.5)
        self.across, self.shape = across, (layers if across else 1, 2, width, width)
        inputs, outputs = small**2 * self.shape[0], 2 * width**2 * self.shape[0]
        last = nn.Linear(hidden, outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), last)

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        small = ((self.a @ u) @ (self.b @ v).mT).flatten(-2)
        small = small.flatten(1) if self.across else small
        change = self.mlp(small).reshape(u.size(0), -1, *self.shape[1:])
        return u + change[..., 0, :, :] @ u, v + change[..., 1, :, :] @ v


GATES = ("sign", "bilinear", "bilinear-across")


def make_gate(kind: str, layers: int, width: int) -> nn.Module:
    """A gate of one of :data:`GATES`."""
    return SignGate() if kind == "sign" else BilinearGate(layers, width, across=kind == "bilinear-across")


class GLNorm(nn.Module):
    r"""U and V over (||U V^T||_F + epsilon)^(1/2), times learnable scales of rows: equivariant, blind to dW's size."""

    def __init__(self, layers: int, width_u: int, width_v: int, epsilon: float = 1e-6):
        super().__init__()
        self.scale_u = nn.Parameter(torch.ones(layers, width_u, 1))
        self.scale_v = nn.Parameter(torch.ones(layers, width_v, 1))
        self.epsilon = epsilon

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        # The norm has no finite slope at 0; the guard inside, too small to be seen otherwise, keeps the gradients of
        # all-zero adapters finite.
        norm = (squared_norm(u, v).clamp(min=0) + self.epsilon**4).sqrt()
        root = (norm + self.epsilon).sqrt()[..., None, None]
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
