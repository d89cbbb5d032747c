"""Which inputs the weights are made of: a convex question, for who owns the data.

theta = sum_i lambda_i y_i grad f(x_i) with lambda >= 0, solved by non-negative least squares over members and others
together; a large lambda says that the input was trained on. Loss-based membership inference stands beside it. Only
inner products of gradients are needed, which one hidden layer has in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import nnls
from scipy.stats import beta
from torch import Tensor, nn

from coset.privacy.hidden_layer import hidden_layer_of
from coset.privacy.stationarity import Labels, flat, parameters_of, sample_gradients

AT_A_TIME = 20_000_000
"""Entries of gradients that are held at a time."""


@dataclass(frozen=True)
class Attribution:
    """Attributes:
    multipliers: lambda_i.
    explained: 1 - |theta - sum_i lambda_i y_i grad f(x_i)|^2 / |theta|^2, from 0 to 1.
    """

    multipliers: Float[Tensor, " n"]
    explained: float


def attribute(model: nn.Module, x: Float[Tensor, "n d"], y: Labels) -> Attribution:
    """The share of the weights that these inputs explain, and how much of it each.

    Args:
        model: One output a sample, or one for each class.
        x: Inputs.
        y: Labels, -1 or 1; class numbers for several outputs, whose margins then stand in for y f.
    """
    return from_products(*products(model, x, y), float(flat(parameters_of(model)).double().square().sum()))


def products(model: nn.Module, x: Float[Tensor, "n d"], y: Labels) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """Inner products of the gradients of all margins with each other, and with the weights."""
    layer = hidden_layer_of(model, x.size(1)) if y.is_floating_point() else None
    if layer is not None:
        gram, along = layer.products(x)
        return (y * gram * y[:, None]).double(), (y * along).double()
    theta = flat(parameters_of(model)).double()
    size = max(1, AT_A_TIME // len(theta))
    gram, along = torch.zeros(len(x), len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
    parts = torch.arange(len(x)).split(size)
    for place, rows in enumerate(parts):
        one = sample_gradients(model, x[rows], y[rows]).double()
        along[rows] = one @ theta
        for others in parts[place:]:
            other = one if others is rows else sample_gradients(model, x[others], y[others]).double()
            gram[rows[:, None], others] = one @ other.T
            gram[others[:, None], rows] = other @ one.T
    return gram, along


def from_products(gram: Float[Tensor, "n n"], along: Float[Tensor, " n"], size: float) -> Attribution:
    """Non-negative least squares from inner products.

    Args:
        gram: Of gradients with each other.
        along: Of gradients with the weights.
        size: |theta|^2.
    """
    values, vectors = torch.linalg.eigh(gram)
    shown = values > 1e-13 * values[-1]
    root = values[shown].sqrt()
    inside = (vectors[:, shown].T @ along) / root
    columns = root[:, None] * vectors[:, shown].T
    found, _ = nnls(columns.numpy(), inside.numpy())
    left = (inside - columns @ torch.from_numpy(found)).square().sum() + size - inside.square().sum()
    return Attribution(torch.from_numpy(found), float(1 - left / size))


def explained_by_shuffled_labels(
    model: nn.Module, x: Float[Tensor, "n d"], y: Labels, draws: int = 20, seed: int = 0
) -> Float[Tensor, " draws"]:
    """The shares that the same inputs explain under labels in a random order: what explaining takes no truth for.

    Args:
        model: As of :func:`attribute`.
        x: Inputs.
        y: Labels.
        draws: Orders.
        seed: Of the orders.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(len(y), generator=generator) for _ in range(draws))
    return torch.tensor([attribute(model, x, y[order]).explained for order in orders], dtype=torch.float64)


def true_positives(
    members: Float[Tensor, " m"], others: Float[Tensor, " k"], false: float = 0.01
) -> tuple[float, float, float]:
    """Share of members told at a false positive rate, with a 95 % interval (Clopper and Pearson).

    The threshold is the score that at most ``false`` of the others are above; with fewer than 1 / ``false`` others, all
    of them are at or below it.

    >>> true_positives(torch.tensor([3.0, 2.0, 0.0, 2.5]), torch.tensor([1.0, 0.0]))[0]
    0.75
    """
    allowed = int(false * len(others))
    threshold = others.sort(descending=True).values[allowed]
    told, count = int((members > threshold).sum()), len(members)
    low = float(beta.ppf(0.025, told, count - told + 1)) if told else 0.0
    high = float(beta.ppf(0.975, told + 1, count - told)) if told < count else 1.0
    return told / count, low, high


def membership_auc(members: Float[Tensor, " m"], others: Float[Tensor, " k"]) -> float:
    """Probability that a member's score is above another's; ties count half. 0.5 tells nothing.

    >>> membership_auc(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]))
    0.875
    """
    difference = members[:, None] - others[None]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())
