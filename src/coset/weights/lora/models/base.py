"""What all models on adapters have in common: from factors to outputs, and what they claim of their symmetry."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from coset.symmetry import Claim, TrivialAction
from coset.weights.lora.data.factors import Factors, LayerwiseGL, select

EPSILON = 1e-12


class LolModel(nn.Module):
    """What is the same in every epoch is computed once: ``forward(x)`` is ``predict(precompute(x))``."""

    def precompute(self, factors: Factors) -> Any:
        """What does not change during training."""
        return factors

    def batch(self, prepared: Any, chosen: Int[Tensor, " adapters"]) -> Any:
        """Some adapters of what :meth:`precompute` gave."""
        return prepared[chosen] if isinstance(prepared, Tensor) else select(prepared, chosen)

    def predict(self, prepared: Any) -> Tensor:
        """``[batch, outputs]`` from what :meth:`precompute` gave."""
        raise NotImplementedError

    def forward(self, factors: Factors) -> Float[Tensor, "batch outputs"]:
        return self.predict(self.precompute(factors))

    def symmetry(self) -> tuple[Claim, ...]:
        raise NotImplementedError


def invariance(condition: float | None) -> tuple[Claim, ...]:
    """Invariance under elements of GL(r) up to this condition number; 1 stands for O(r), None claims nothing."""
    if condition is None:
        return ()
    group = "O(r)" if condition == 1 else "GL(r)"
    return (Claim(LayerwiseGL(condition), TrivialAction(), f"invariant under {group} on the factors"),)
