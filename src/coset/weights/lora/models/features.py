"""Features of adapters that have nothing to learn: entries, spectra, products, and factors aligned to a template."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.symmetry import Claim
from coset.weights.lora.data.adapters import balanced, singular_values
from coset.weights.lora.data.factors import Factors
from coset.weights.lora.models.base import EPSILON, LolModel, invariance
from coset.weights.lora.models.columns import rows
from coset.weights.lora.models.heads import Head
from coset.weights.lora.models.procrustes import polar
from coset.weights.lora.models.registry import Setting, lora_model


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
        crossed = []
        for i, (u, v) in enumerate(factors):
            template = self.get_buffer(f"template_{i}").mT
            if template.size(-2) != u.size(-1):
                raise ValueError(f"factors of rank {template.size(-2)} were expected; got {u.size(-1)}: pad them")
            n = u.size(-2)
            crossed.append((rows(template[..., :n], u) + rows(template[..., n:], v)).mT)
        return list(polar(torch.cat(crossed, 1)).split([c.size(1) for c in crossed], 1))

    def align(self, factors: Factors) -> Factors:
        """Aligned factors; their rank must be that of the template."""
        if self.balance:
            factors = tuple(balanced(u, v) for u, v in factors)
        return tuple((u @ q, v @ q) for (u, v), q in zip(factors, self.rotations(factors), strict=True))

    def forward(self, factors: Factors) -> Float[Tensor, "batch features"]:
        return flat(self.align(factors))


class FeatureModel(LolModel):
    """A head on features that have nothing to learn; they are standardised by the training set.

    Args:
        features: From factors to ``[batch, inputs]``.
        training: Factors of the training set, which give number, mean and deviation of the features.
        hidden: Width of the head.
        outputs: Columns out.
        condition: What the model claims, see :func:`invariance`.
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
        return invariance(self.condition)


@lora_model("flat")
def flat_model(setting: Setting) -> FeatureModel:
    """An MLP on all entries of all factors: no symmetry."""
    return FeatureModel(flat, setting.training, setting.sizes.hidden, setting.outputs, None)


@lora_model("o_align")
def aligned_model(setting: Setting) -> FeatureModel:
    """An MLP on factors aligned to a template by O(r)."""
    features = Alignment(setting.template)
    return FeatureModel(features, setting.training, setting.sizes.hidden, setting.outputs, 1.0)


@lora_model("balanced")
def balanced_model(setting: Setting) -> FeatureModel:
    """An MLP on balanced factors aligned to a template by O(r)."""
    features = Alignment(setting.template, balance=True)
    return FeatureModel(features, setting.training, setting.sizes.hidden, setting.outputs, 10.0)


@lora_model("svd")
def spectral_model(setting: Setting) -> FeatureModel:
    """An MLP on singular values."""
    return FeatureModel(spectra, setting.training, setting.sizes.hidden, setting.outputs, 10.0)


@lora_model("dense", any_rank=True)
def dense_model(setting: Setting) -> FeatureModel:
    """An MLP on all entries of all updates."""
    return FeatureModel(products, setting.training, setting.sizes.dense_hidden, setting.outputs, 10.0)
