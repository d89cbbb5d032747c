r"""FiGLU, a fixed gated linear unit: sigma(x) = sigmoid(F x) * x with a constant Gaussian F (arXiv 2405.20231).

Unlike an elementwise activation it commutes, almost surely, with no permutation and no scaling of its inputs.
F = 0 gives x / 2, F = I gives SiLU. How much a random F mixes decides how much there is of it: with entries of
standard deviation 0.01 / sqrt(d) the gate is 0.5 +- 0.003 on normalised inputs, and the unit nearly linear.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class FiGLU(nn.Module):
    """sigmoid(F x) * x on one axis of a tensor.

    Args:
        channels: Size of that axis, d.
        std: Standard deviation of the entries of F.
        axis: The axis, -1 for linear maps and 1 for convolutions.
        generator: Of F.
    """

    mixes_channels = True
    """By this whoever looks for symmetries knows that its channels stay where they are."""
    weight: Tensor

    def __init__(self, channels: int, std: float = 1.0, axis: int = -1, generator: torch.Generator | None = None):
        super().__init__()
        self.axis = axis
        self.register_buffer("weight", std * torch.randn(channels, channels, generator=generator))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if self.axis == -1:
            return functional.linear(x, self.weight).sigmoid() * x
        return functional.linear(x.movedim(self.axis, -1), self.weight).movedim(-1, self.axis).sigmoid() * x

    def extra_repr(self) -> str:
        return f"{self.weight.size(0)}, axis={self.axis}"


def jacobian(
    weight: Float[Tensor, "channels channels"], x: Float[Tensor, " channels"]
) -> Float[Tensor, "channels channels"]:
    """d sigma / d x = diag(s) + diag(x s (1 - s)) F with s = sigmoid(F x)."""
    gate = (weight @ x).sigmoid()
    return gate.diag() + (x * gate * (1 - gate))[:, None] * weight


def permutation_equivariances(weight: Float[Tensor, "channels channels"]) -> list[tuple[int, ...]]:
    """All permutations p with F[p][:, p] = F: those with which FiGLU commutes.

    Only neurons whose rows and columns hold the same numbers can be exchanged, so that for a random F the search ends
    at once.

    Raises:
        ValueError: More than 10^6 candidates are left.
    """
    n = weight.size(0)
    keys = [
        (float(weight[i, i]), tuple(weight[i].sort().values.tolist()), tuple(weight[:, i].sort().values.tolist()))
        for i in range(n)
    ]
    classes = [[i for i in range(n) if keys[i] == key] for key in dict.fromkeys(keys)]
    candidates = math.prod(math.factorial(len(members)) for members in classes)
    if candidates > 10**6:
        raise ValueError(f"{candidates} permutations are too many to try")
    found = []
    for images in itertools.product(*(itertools.permutations(members) for members in classes)):
        p = [0] * n
        for members, image in zip(classes, images, strict=True):
            for i, j in zip(members, image, strict=True):
                p[i] = j
        if torch.equal(weight[p][:, p], weight):
            found.append(tuple(p))
    return found
