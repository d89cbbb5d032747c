r"""What inputs look like, for the part of them that leaves no trace in the weights.

Weights see inputs in a subspace (:meth:`coset.privacy.hidden_layer.HiddenLayer.visible`); what inputs have outside
changes no equation. An attack on the weights leaves it at 0. Here it is filled in, and nothing else is touched, so that
every candidate solves the equations as exactly as before:

- ``smooth``: as little total variation as possible, which needs no data.
- ``deep``: what an hourglass of convolutions with random weights makes of noise while it is fitted to what the weights
  do see (deep image prior, Ulyanov, Vedaldi, Lempitsky, CVPR 2018), which needs no data either.
- ``mixture``: the mean of a mixture of Gaussians of *other* inputs, given what the weights say. Up to the group: of all
  g x that the weights cannot tell apart, the likeliest is completed, and moved back.

A fourth, a denoiser trained on other inputs, is in :mod:`coset.privacy.denoising`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

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


class Hourglasses(nn.Module):
    """As many small convolutional networks as candidates, side by side, each from its own fixed noise to an image.

    Down by convolutions of stride 2, up by bilinear interpolation, with a bridge of one pixel at each level.

    Args:
        count: m.
        shape: Height and width.
        box: Least and largest entry of an image, which a tanh keeps to.
        channels: Of every layer.
        levels: The most; fewer of images that are too small.
        seed: Of noise and weights.
    """

    noise: Tensor

    def __init__(
        self, count: int, shape: tuple[int, int], box: tuple[float, float], channels: int = 16, levels: int = 3,
        seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.shape, self.box = shape, box
        levels = max(1, min(levels, int(math.log2(min(shape)))))  # reflected edges need two pixels
        wide = count * channels

        def layer(size: int, out: int = wide, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(wide, out, size, stride, size // 2, groups=count, padding_mode="reflect")

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.register_buffer("noise", 0.1 * torch.rand(1, wide, *shape))
            self.bridges = nn.ModuleList(layer(1) for _ in range(levels))
            self.down = nn.ModuleList(layer(3, stride=2) for _ in range(levels))
            self.up = nn.ModuleList(layer(3) for _ in range(levels))
            self.last = layer(1, count)

    def forward(self) -> Float[Tensor, "m h w"]:
        """The images."""
        x, kept = self.noise, []
        for down, bridge in zip(self.down, self.bridges, strict=True):
            kept.append(bridge(x))
            x = F.leaky_relu(down(x), 0.1)
        for up, bridge in zip(self.up, reversed(kept), strict=True):
            wider = F.interpolate(x, size=bridge.shape[-2:], mode="bilinear", align_corners=False)
            x = F.leaky_relu(up(wider) + bridge, 0.1)
        low, high = self.box
        return low + (high - low) * (1 + self.last(x)[0].tanh()) / 2


def deep(
    x: Float[Tensor, "m d"], visible: Float[Tensor, "d r"], shape: tuple[int, int],
    box: tuple[float, float] = (-1.0, 1.0), *, steps: int = 100, learning_rate: float = 0.003, tries: int = 8,
) -> Float[Tensor, "m d"]:  # fmt: skip
    """Fill in what is not visible by that of a deep image prior fitted to what is, the mean of several.

    Few steps and several networks: the longer one is fitted, the more of its own it adds.

    Args:
        x: Candidates.
        visible: Orthonormal basis of what the weights see.
        shape: Height and width.
        box: Least and largest entry.
        steps: Of Adam.
        learning_rate: Its rate.
        tries: Networks a candidate.
    """
    seen = (x @ visible).float()
    if visible.size(1) == x.size(1):
        return x
    basis, total = visible.float(), torch.zeros_like(x)
    for number in range(tries):
        network = Hourglasses(len(x), shape, box, seed=number)
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        for _ in range(steps):
            optimizer.zero_grad()
            (network().flatten(1) @ basis - seen).square().sum().backward()
            optimizer.step()
        total += network().detach().flatten(1).double() / tries
    return x @ visible @ visible.T + total - total @ visible @ visible.T


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
