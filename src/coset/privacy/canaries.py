r"""Controls of an audit: what its attack finds where it is known what there is to find.

An attack that finds nothing says little unless it finds something elsewhere. A network of the audited form is therefore
trained from other weights on *canaries*, inputs that the audited model never saw, until the equations hold, and
attacked in the same way. A second one is trained on them by noisy descent with clipped gradients, whose differential
privacy bounds what any attack can find: what seems to be found there is chance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from coset.core.errors import CosetError
from coset.privacy.attribution import attribute
from coset.privacy.descent import train_by_descent
from coset.privacy.groups import FiniteGroup
from coset.privacy.hidden_layer import hidden_layer_of
from coset.privacy.information import information_of
from coset.privacy.kinks import kinked
from coset.privacy.reconstruction import Attack, reconstruct
from coset.privacy.scores import FOUND
from coset.privacy.stationarity import (
    LOSSES,
    Labels,
    homogeneity,
    multipliers,
    parameters_of,
    stationarity_residual,
    train_to_margin,
    train_to_stationarity,
)

DELTA = 1e-5
RATES = {"logistic": 1.0, "mse": 0.05}
"""First rates of descent for ReLUs of one output: the squared error bends more."""


@dataclass(frozen=True)
class Canaries:
    """What an attack finds of inputs that a network was trained on for this purpose.

    Attributes:
        correlation: Of each canary with the candidate most like it, up to the group.
        ceiling: What an attack without a prior could reach, if known.
        residual: What the canaries leave unexplained of that network's weights.
        epsilon: Of the differential privacy of training; None without.
    """

    correlation: Float[Tensor, " n"]
    ceiling: Float[Tensor, " n"] | None
    residual: float
    epsilon: float | None = None

    @property
    def recovered(self) -> int:
        """How many, at a correlation of 0.9."""
        return int((self.correlation >= FOUND).sum())

    def numbers(self) -> dict[str, float | int | None]:
        """For JSON."""
        return {
            "canaries": len(self.correlation),
            "recovered": self.recovered,
            "correlation": float(self.correlation.mean()),
            "ceiling": None if self.ceiling is None else float(self.ceiling.mean()),
            "residual": self.residual,
            "epsilon": self.epsilon,
        }


def planted(
    model: nn.Module,
    x: Float[Tensor, "n d"],
    y: Labels,
    attack: Attack,
    group: FiniteGroup,
    *,
    loss: str,
    weight_decay: float | None,
    progress: Callable[[], object] = lambda: None,
) -> Canaries:
    """Train a network of the model's form on canaries to where the equations hold, and attack it.

    Args:
        model: The audited network; left alone.
        x: Canaries.
        y: Their labels.
        attack: The audit's own.
        group: Under which the network is invariant.
        loss: ``mse``, ``logistic`` or ``ce``.
        weight_decay: Of the audited training; without it the control is trained to the largest margin.
        progress: As of :func:`reconstruct`.

    Raises:
        CosetError: Without weight decay, the network is not homogeneous or does not learn the canaries.
    """
    control = drawn_anew(model, attack.seed + 1)
    if weight_decay:
        layer = hidden_layer_of(control, x.size(1))
        if layer is not None and kinked(layer):
            train_by_descent(control, x, y, loss=loss, weight_decay=weight_decay, learning_rate=RATES[loss])
        else:
            train_to_stationarity(control, x, y, loss=loss, weight_decay=weight_decay, iterations=1000)
        residual = stationarity_residual(control, x, y, loss=loss, weight_decay=weight_decay)
    else:
        if homogeneity(control, x) is None:
            raise CosetError("without weight decay the theory covers homogeneous networks only: give --weight-decay")
        train_to_margin(control, x, y, steps=3000)
        residual = 1 - attribute(control, x, y).explained
    correlation = _attacked(control, x, y, attack, group, progress)
    ceiling = None
    if y.is_floating_point():
        with torch.no_grad():
            c = (
                multipliers(loss, control(x), y, weight_decay)
                if weight_decay
                else y * attribute(control, x, y).multipliers
            )
        known = information_of(control, x, c, group, residual=residual)
        ceiling = None if known is None else known.ceiling
    return Canaries(correlation, ceiling, residual)


def private_control(
    model: nn.Module,
    x: Float[Tensor, "n d"],
    y: Labels,
    attack: Attack,
    group: FiniteGroup,
    *,
    loss: str,
    noise: float = 10.0,
    steps: int = 100,
    progress: Callable[[], object] = lambda: None,
) -> Canaries:
    r"""The same after descent on all gradients, each clipped to length 1, with noise: T steps of deviation s are
    sqrt(T) / s Gaussian differentially private (Dong, Roth, Su 2022, corollary 3.3).

    Args:
        model: The audited network; left alone.
        x: Canaries.
        y: Their labels.
        attack: The audit's own.
        group: Under which the network is invariant.
        loss: Of training.
        noise: s, in lengths of a clipped gradient.
        steps: T.
        progress: As of :func:`reconstruct`.
    """
    control, objective = drawn_anew(model, attack.seed + 2), LOSSES[loss]
    generator = torch.Generator().manual_seed(attack.seed)

    def of_one(parameters: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return objective(functional_call(control, parameters, (one.unsqueeze(0),)), label.unsqueeze(0))

    for _ in range(steps):
        parameters = parameters_of(control)
        each = vmap(grad(of_one), in_dims=(None, 0, 0))(parameters, x, y)
        length = sum(g.flatten(1).square().sum(1) for g in each.values()).sqrt()
        share = 1 / length.clamp(min=1.0)
        with torch.no_grad():
            for name, p in control.named_parameters():
                if p.requires_grad:
                    drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
                    p.sub_(0.1 / len(x) * ((share @ each[name].flatten(1)).view_as(p) + noise * drawn))
    residual = 1 - attribute(control, x, y).explained
    correlation = _attacked(control, x, y, attack, group, progress)
    return Canaries(correlation, None, residual, epsilon(math.sqrt(steps) / noise))


def drawn_anew(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose trained parameters are random: normal, with deviation 1 / sqrt(inputs of a neuron)."""
    control = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in control.parameters():
            if p.requires_grad:
                fan_in = p[0].numel() if p.dim() > 1 else p.numel()
                p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * fan_in**-0.5)
    return control


def epsilon(mu: float, delta: float = DELTA) -> float:
    """Of (epsilon, delta) differential privacy, from mu Gaussian differential privacy, by bisection.

    >>> 4.3 < epsilon(1.0) < 4.5
    True
    """

    def spent(e: float) -> float:
        return float(norm.cdf(-e / mu + mu / 2) - math.exp(min(e, 700)) * norm.cdf(-e / mu - mu / 2))

    low, high = 0.0, 1.0
    while spent(high) > delta:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


def _attacked(
    control: nn.Module, x: Tensor, y: Tensor, attack: Attack, group: FiniteGroup, progress: Callable[[], object]
) -> Tensor:
    scale = max(float(attribute(control, x, y).multipliers.sum()) / attack.candidates, 1e-6)
    found = reconstruct(control, x.size(1), attack, group=group, scale=scale, progress=progress)
    return group.correlation(found.candidates[found.best], x)[0].amax(0)
