"""Which inputs the weights are made of: a convex question, for who owns the data.

theta = sum_i lambda_i y_i grad f(x_i) with lambda >= 0, solved by non-negative least squares over members and others
together; a large lambda says that the input was trained on. Loss-based membership inference stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor, nn

from coset.privacy.stationarity import Labels, flat, parameters_of, sample_gradients


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
    theta = flat(parameters_of(model)).double()
    columns = sample_gradients(model, x, y).T.double()
    q, r = torch.linalg.qr(columns)
    inside = q.T @ theta
    found, _ = nnls(r.numpy(), inside.numpy())
    left = (inside - r @ torch.from_numpy(found)).square().sum() + theta.square().sum() - inside.square().sum()
    return Attribution(torch.from_numpy(found), float(1 - left / theta.square().sum()))


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


def membership_auc(members: Float[Tensor, " m"], others: Float[Tensor, " k"]) -> float:
    """Probability that a member's score is above another's; ties count half. 0.5 tells nothing.

    >>> membership_auc(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]))
    0.875
    """
    difference = members[:, None] - others[None]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())
