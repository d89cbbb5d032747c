r"""The invariant kernel <U1 V1^T, U2 V2^T> = sum((U1^T U2) * (V1^T V2)), and regression with it.

No update is ever formed: O((n + m) r1 r2) a pair of layers, and ranks may differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.symmetry import Claim, TrivialAction
from coset.weights.lora.data.adapters import squared_norm
from coset.weights.lora.data.factors import Factors, LayerwiseGL
from coset.weights.lora.models.base import LolModel
from coset.weights.lora.models.fitting import Examples, Row, Task
from coset.weights.lora.models.registry import LORA_MODELS, LoraModel, Setting

BANDWIDTHS = (0.1, 0.3, 1.0, 3.0, 10.0)
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def gram(a: Factors, b: Factors) -> Float[Tensor, "a b"]:
    """Inner products of updates, summed over layers, between two batches of adapters; accumulated in float64."""
    total: Tensor | None = None
    for (u, v), (x, y) in zip(a, b, strict=True):
        for layer in range(u.size(1)):
            left = _cross(u[:, layer], x[:, layer])
            left *= _cross(v[:, layer], y[:, layer])
            # [a, r, b, r'] summed over both ranks
            part = left.sum((1, 3)).double()
            total = part if total is None else total + part
    if total is None:
        raise CosetError("adapters without layers have no kernel")
    return total


def squared_norms(factors: Factors) -> Float[Tensor, " adapters"]:
    """||dW||_F^2 of each adapter, over all layers, in float64."""
    return torch.stack([squared_norm(u, v).double().sum(-1) for u, v in factors]).sum(0)


def cosines(a: Factors, b: Factors) -> Float[Tensor, "a b"]:
    """Cosines of the angles between adapters; a zero adapter has cosine 0 with all."""
    scale = (squared_norms(a)[:, None] * squared_norms(b)[None, :]).sqrt()
    return (gram(a, b) / scale.clamp(min=1e-300)).clamp(-1, 1)


class KernelRidge(nn.Module):
    r"""Ridge regression with K = exp(-(1 - cos) / h), h a multiple of the typical 1 - cos.

    The same as the mean of a Gaussian process with this covariance and noise; :meth:`deviation` is its spread.

    Args:
        training: Factors it keeps.
        targets: ``[adapters, outputs]``.
        validation: Factors and targets on which bandwidth and ridge are chosen by squared error.
        log_norm: Besides the angle, compare log ||dW||, which says how long an adapter was trained.
    """

    def __init__(
        self,
        training: Factors,
        targets: Float[Tensor, "adapters outputs"],
        validation: tuple[Factors, Float[Tensor, "others outputs"]],
        log_norm: bool = True,
    ):
        super().__init__()
        self.groups, self.log_norm = len(training), log_norm
        self.bandwidth: Tensor
        self.ridge: Tensor
        self.weights: Tensor
        self.mean: Tensor
        self.size: Tensor
        for i, (u, v) in enumerate(training):
            self.register_buffer(f"u_{i}", u.clone())
            self.register_buffer(f"v_{i}", v.clone())
        distance = self.distance(training)
        typical = float(distance[distance > 1e-9].median()) if bool((distance > 1e-9).any()) else 1.0
        mean = targets.double().mean(0)
        held_out, wanted = self.distance(validation[0]), validation[1].double()
        best, chosen = float("inf"), (1.0, 1.0, torch.zeros_like(targets).double())
        identity = torch.eye(len(targets), dtype=torch.float64)
        for multiple in BANDWIDTHS:
            kernel, across = ((-d / (multiple * typical)).exp() for d in (distance, held_out))
            for ridge in RIDGES:
                weights = torch.linalg.solve(kernel + ridge * identity, targets.double() - mean)
                error = float((across @ weights + mean - wanted).square().mean())
                if error < best:
                    best, chosen = error, (multiple * typical, ridge, weights)
        self.register_buffer("bandwidth", torch.tensor(chosen[0], dtype=torch.float64))
        self.register_buffer("ridge", torch.tensor(chosen[1], dtype=torch.float64))
        self.register_buffer("weights", chosen[2])
        self.register_buffer("mean", mean)
        # The size of the process under which the targets are most likely: y^T (K + ridge)^-1 y / n.
        variance = ((targets.double() - mean) * chosen[2]).mean(0)
        self.register_buffer("size", variance.clamp(min=0).sqrt())

    @classmethod
    def restored(cls, state: Mapping[str, Tensor], log_norm: bool = True) -> KernelRidge:
        """A fitted one from its state, whatever the number of adapters that it keeps."""
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.groups, model.log_norm = sum(name.startswith("u_") for name in state), log_norm
        for name, value in state.items():
            model.register_buffer(name, value)
        return model

    def training_factors(self) -> Factors:
        """What it was fitted on."""
        return tuple((self.get_buffer(f"u_{i}"), self.get_buffer(f"v_{i}")) for i in range(self.groups))

    def distance(self, factors: Factors) -> Float[Tensor, "adapters training"]:
        """1 - cos, plus the squared difference of log norms if asked for."""
        training = self.training_factors()
        distance = 1 - cosines(factors, training)
        if self.log_norm:
            a, b = (0.5 * torch.log(squared_norms(f) + 1e-300) for f in (factors, training))
            distance = distance + (a[:, None] - b[None, :]).square()
        return distance

    def forward(self, factors: Factors) -> Float[Tensor, "adapters outputs"]:
        return (-self.distance(factors) / self.bandwidth).exp().to(self.weights.dtype) @ self.weights + self.mean

    def deviation(self, factors: Factors) -> Float[Tensor, "adapters outputs"]:
        """How unsure the Gaussian process is of each prediction (of a noisy target), as a standard deviation."""
        kernel = (-self.distance(self.training_factors()) / self.bandwidth).exp()
        across = (-self.distance(factors) / self.bandwidth).exp()
        noisy = kernel + self.ridge * torch.eye(len(kernel), dtype=kernel.dtype)
        known = (across * torch.linalg.solve(noisy, across.mT).mT).sum(1)
        return (1 + self.ridge - known).clamp(min=0).sqrt()[:, None] * self.size

    def symmetry(self) -> tuple[Claim, ...]:
        return (Claim(LayerwiseGL(), TrivialAction(), "invariant under GL(r) on the factors"),)


class KernelRegression(LoraModel):
    """Kernel ridge regression, solved at once; labels become -1 and 1, so that its sign decides."""

    any_rank = True
    built_untrained = False

    def build(self, setting: Setting) -> LolModel:
        raise CosetError("the kernel has nothing to be built of before it is fitted")

    def fit(
        self, setting: Setting, task: Task, training: Examples, validation: Examples, **how: Any
    ) -> tuple[KernelRidge, list[Row]]:
        (x, y), (x_val, y_val) = training, validation
        if task == "classification":
            y, y_val = 2 * y - 1, 2 * y_val - 1
        return KernelRidge(x, y, (x_val, y_val)), []

    def restored(self, setting: Setting, state: Mapping[str, Tensor]) -> KernelRidge:
        return KernelRidge.restored(state).eval()

    def share(self, outputs: Tensor) -> Tensor:
        return ((outputs + 1) / 2).clamp(0, 1)


LORA_MODELS.register("kernel")(KernelRegression())


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """a[i]^T b[j] for all i and j as ``[i, r, j, r']``: one matrix product."""
    n = a.size(-2)
    left = a.permute(0, 2, 1).reshape(-1, n)
    right = b.permute(1, 0, 2).reshape(n, -1)
    return (left @ right).reshape(a.size(0), a.size(-1), b.size(0), b.size(-1))
