r"""LoL models: what an adapter was made for, predicted from its factors.

Putterman, Lim, Gelberg, Bronstein, Jegelka, Maron: GL equivariant metanetworks for learning on low rank weight spaces
(arXiv 2410.04207). All take :data:`~coset.weights.lora.data.factors.Factors` and return ``[batch, outputs]``:

- flat:        MLP(vec U, vec V)                               no symmetry
- transformer: a token a layer, embedded from (vec U, vec V)   no symmetry (:mod:`coset.weights.lora.models.tokens`)
- o_align:     MLP(vec U Q, vec V Q), Q in O(r) nearest to a template; O(r) invariant almost everywhere
- balanced:    the same on the representative U^T U = V^T V; GL(r) invariant almost everywhere
- w2t:         a token a singular triple of U V^T              GL(r) invariant almost everywhere (tokens)
- svd:         MLP(singular values of U V^T)                   GL(r) invariant, cannot separate all updates
- dense:       MLP(U V^T)                                      GL(r) invariant, n m numbers a layer
- glnet:       MLP(Phi U (Psi V)^T)                            GL(r) invariant, k^2 numbers a layer
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coset.core.errors import check_choice
from coset.symmetry import Claim
from coset.weights.lora.data.adapters import squared_norm
from coset.weights.lora.data.factors import Factors, Layout
from coset.weights.lora.models.base import EPSILON, LolModel, invariance
from coset.weights.lora.models.columns import gather
from coset.weights.lora.models.equivariant import GATES, GLLayer, GLLinear, GLNorm, RowDropout, make_gate
from coset.weights.lora.models.heads import HEADS
from coset.weights.lora.models.registry import Setting, lora_model


class GLNet(LolModel):
    r"""Equivariant linear layers with gates between, then a head on the invariants Phi U (Psi V)^T of each layer.

    Args:
        layout: Layers of the adapters.
        training: Factors of the training set; they give the fixed size of dW by which each layer is divided.
        width: k.
        layers: Linear layers; gates stand between them, so that one layer has none.
        hidden: Width of the head.
        outputs: Columns out.
        norm: GLNorm after the first layer; its logarithm of ||dW|| joins the invariants.
        head: One of :data:`~coset.weights.lora.models.heads.HEADS`.
        gate: One of :data:`~coset.weights.lora.models.equivariant.GATES`.
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
        gate: str = "sign",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_choice("head", head, tuple(HEADS))
        check_choice("gate", gate, GATES)
        self.layout, self.pooled = layout, head == "mean"
        count = len(layout.names)
        self.size: Tensor
        self.register_buffer("size", torch.cat([_size(u, v) for u, v in training])[:, None, None])
        self.first = GLLinear(layout, width)
        self.norm = GLNorm(count, width, width) if norm else None
        self.gates = nn.ModuleList(make_gate(gate, count, width) for _ in range(layers - 1))
        self.more = nn.ModuleList(GLLayer(count, width) for _ in range(layers - 1))
        self.dropout = RowDropout(dropout)
        self.head = HEADS[head](count, (1 if self.pooled else width**2) + int(norm), hidden, outputs)

    def batch(self, prepared: Factors, chosen: Int[Tensor, " adapters"]) -> Factors:
        return gather(prepared, chosen)

    def invariants(self, factors: Factors) -> Float[Tensor, "batch layers features"]:
        """U V^T of the last equivariant layer."""
        self.layout.check(factors)
        u, v = self.first(factors)
        u, v = u * self.size, v * self.size
        extra = []
        if self.norm is not None:
            extra.append(0.5 * torch.log(squared_norm(u, v).clamp(min=0) + EPSILON).unsqueeze(-1))
            u, v = self.norm(u, v)
        for gate, layer in zip(self.gates, self.more, strict=True):
            u, v = layer(*self.dropout(*gate(u, v)))
        product = u @ v.mT
        features = product.mean((-2, -1)).unsqueeze(-1) if self.pooled else product.flatten(-2)
        return torch.cat([features, *extra], -1)

    def predict(self, prepared: Factors) -> Float[Tensor, "batch outputs"]:
        return self.head(self.invariants(prepared))

    def symmetry(self) -> tuple[Claim, ...]:
        return invariance(10.0)


@lora_model("glnet", any_rank=True)
def one_layer(setting: Setting) -> GLNet:
    """One equivariant layer."""
    return _glnet(setting, 1)


@lora_model("glnet2", any_rank=True)
def two_layers(setting: Setting) -> GLNet:
    """Two, with a gate between."""
    return _glnet(setting, 2)


def _glnet(setting: Setting, layers: int) -> GLNet:
    s = setting.sizes
    return GLNet(
        setting.layout, setting.training, s.width, layers, s.hidden, setting.outputs, norm=s.norm, head=s.head,
        gate=s.gate, dropout=s.dropout,
    )  # fmt: skip


def _size(u: Float[Tensor, "batch layers n r"], v: Float[Tensor, "batch layers m r"]) -> Float[Tensor, " layers"]:
    """What brings entries of Phi U (Psi V)^T to about 1: they shrink a product of norm 1 to 1 / sqrt(n m)."""
    typical = squared_norm(u.double(), v.double()).mean(0).sqrt().sqrt().clamp(min=EPSILON)
    return ((u.size(-2) * v.size(-2)) ** 0.25 / typical).to(u.dtype)
