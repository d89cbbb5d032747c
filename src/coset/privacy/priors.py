r"""What inputs look like, for the part of them that leaves no trace in the weights.

Weights see inputs in a subspace (:meth:`coset.privacy.hidden_layer.HiddenLayer.visible`); what inputs have outside
changes no equation. An attack on the weights leaves it at 0. Here it is filled in, and nothing else is touched, so that
every candidate solves the equations as exactly as before:

- ``smooth``: as little total variation as possible, which needs no data.
- ``mixture``: the mean of a mixture of Gaussians of *other* inputs, given what the weights say. Up to the group: of all
  g x that the weights cannot tell apart, the likeliest is completed, and moved back.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.errors import require
from coset.privacy.groups import FiniteGroup

COMPONENTS = 10
NOISE = 1e-3
"""Added to the variances of the mixture's components."""


def smooth(
    x: Float[Tensor, "m d"], visible: Float[Tensor, "d r"], shape: tuple[int, int], steps: int = 500
) -> Float[Tensor, "m d"]:
    """Fill in what is not visible so that total variation is least, by accelerated descent on a rounded one.

    Args:
        x: Candidates.
        visible: Orthonormal basis of what the weights see.
        shape: Height and width.
        steps: Of Adam.
    """
    hidden = torch.linalg.svd(visible, full_matrices=True)[0][:, visible.size(1) :]
    if not hidden.size(1):
        return x
    seen = x @ visible @ visible.T
    z = torch.zeros(len(x), hidden.size(1), dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for step in range(steps):
        total = variation((seen + z @ hidden.T).view(-1, *shape)).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.param_groups[0]["lr"] = 0.025 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    return seen + z.detach() @ hidden.T


def variation(images: Float[Tensor, "m h w"]) -> Float[Tensor, " m"]:
    """Total variation: the sum of the lengths of gradients, rounded at 0 by a hundredth."""
    # the last row and column have one neighbour each, so that no pixel is free
    down = torch.nn.functional.pad(images.diff(dim=1), (0, 0, 0, 1))
    right = torch.nn.functional.pad(images.diff(dim=2), (0, 1))
    return (down.square() + right.square() + 1e-4).sqrt().sum((1, 2))


def mixture(
    x: Float[Tensor, "m d"], visible: Float[Tensor, "d r"], others: Float[Tensor, "k d"], group: FiniteGroup
) -> Float[Tensor, "m d"]:
    """Fill in what is not visible by its mean given the rest, under a mixture of Gaussians of other inputs.

    Args:
        x: Candidates.
        visible: Orthonormal basis of what the weights see; the group leaves its span as it is.
        others: Inputs of the same kind that the network was not trained on.
        group: Up to which candidates are known.

    Raises:
        CosetError: scikit-learn is not installed.
    """
    fitted = require("sklearn.mixture", "weights").GaussianMixture(COMPONENTS, reg_covar=NOISE, random_state=0)
    fitted.fit(others.numpy())
    weights, means, spreads = (torch.from_numpy(v) for v in (fitted.weights_, fitted.means_, fitted.covariances_))
    within = visible.T @ spreads @ visible
    within.diagonal(dim1=1, dim2=2).add_(NOISE)
    factor = torch.linalg.cholesky(within)
    orbit = group.orbit(x) @ visible  # m, order, r
    away = orbit.unsqueeze(2) - means @ visible  # m, order, components, r
    solved = torch.linalg.solve_triangular(factor, away.permute(2, 3, 0, 1).flatten(2), upper=False)
    likely = weights.log()[:, None] - solved.square().sum(1) / 2 - factor.diagonal(dim1=1, dim2=2).log().sum(1)[:, None]
    likely = likely.view(len(weights), *orbit.shape[:2])  # components, m, order
    best = likely.logsumexp(0).argmax(1)
    filled = []
    for number, g in enumerate(best.tolist()):
        shares = likely[:, number, g].softmax(0)
        pull = torch.cholesky_solve(away[number, g].unsqueeze(-1), factor)
        guess = means + (spreads @ visible @ pull).squeeze(-1)
        whole = shares @ guess
        seen = orbit[number, g]
        upright = visible @ seen + whole - visible @ (visible.T @ whole)
        filled.append(upright[group.table[g].argsort()])
    return torch.stack(filled)
