r"""The losses of TracksTo4D: tracks teach, no 3D is needed (Kasten, Lu, Maron, NeurIPS 2024, section 3.3).

With r the reprojection distance of a visible observation and r_s that of the static cloud B_1 alone:

    L_repr   = mean r                       (cameras and B_1 detached: the rest of the basis explains the residual)
    L_static = mean log(gamma + r_s^2 / gamma)          (Cauchy: a point that moves raises its gamma and lets go)
    L_neg    = - sum min(depth, 0)
    L_sparse = mean |B_k / gamma|, k >= 2               (gamma detached)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from coset.motion.geometry import project, to_camera
from coset.motion.models.trackster4d import Prediction, moving_points

START = -15.0  # z of the cameras that the warm-up asks for


@dataclass(frozen=True)
class LossWeights:
    """Weights of the sum; those of the official training by default. 0 leaves a term out."""

    reprojection: float = 50.0
    static: float = 1.0
    negative: float = 1.0
    sparse: float = 0.001


def observed(
    points: Float[Tensor, "*batch points frames 3"], prediction: Prediction, detach: bool = False
) -> tuple[Float[Tensor, "*batch points frames 2"], Float[Tensor, "*batch points frames"]]:
    """Where the predicted cameras see the points, and at what depth."""
    cameras = (prediction.rotations, prediction.positions, prediction.focal)
    rotations, positions, focal = (c.detach() for c in cameras) if detach else cameras
    inside = to_camera(points, rotations.unsqueeze(-4), positions.unsqueeze(-3))
    return project(inside, focal.unsqueeze(-2)), inside[..., 2]


def reprojection_loss(prediction: Prediction, tracks: Float[Tensor, "*batch points frames 3"]) -> Tensor:
    """L_repr, through the coefficients and B_2..B_K only."""
    static = prediction.basis[..., :1, :].detach()
    points = moving_points(torch.cat((static, prediction.basis[..., 1:, :]), -2), prediction.coefficients)
    seen = tracks[..., 2] > 0.5
    where, _ = observed(points, prediction, detach=True)
    return (where[seen] - tracks[..., :2][seen]).norm(dim=-1).mean()


def static_loss(
    squared: Float[Tensor, " observations"], gamma: Float[Tensor, " observations"]
) -> Float[Tensor, ""]:  # fmt: skip
    """L_static of squared reprojection distances of the static cloud."""
    return (gamma + squared / gamma).log().mean()


def negative_depth_loss(depth: Float[Tensor, " observations"]) -> Float[Tensor, ""]:
    """L_neg: how far points lie behind the cameras that see them."""
    return -depth.clamp(max=0).sum()


def sparse_loss(prediction: Prediction) -> Float[Tensor, ""]:
    """L_sparse: points of low gamma should not move. 0 if there is only the static cloud."""
    moving = prediction.basis[..., 1:, :] / prediction.gamma.detach()[..., None, None]
    return moving.abs().mean() if moving.numel() else moving.sum()


def losses(prediction: Prediction, tracks: Float[Tensor, "*batch points frames 3"]) -> dict[str, Tensor]:
    """The four terms, unweighted, over the visible observations of all clips."""
    seen = tracks[..., 2] > 0.5
    static_points = prediction.static.unsqueeze(-2).expand(*tracks.shape)
    where, static_depth = observed(static_points, prediction)
    squared = (where[seen] - tracks[..., :2][seen]).square().sum(-1)
    gamma = prediction.gamma.unsqueeze(-1).expand(seen.shape)[seen]
    return {
        "reprojection": reprojection_loss(prediction, tracks),
        "static": static_loss(squared, gamma),
        "negative": negative_depth_loss(static_depth[seen]),
        "sparse": sparse_loss(prediction),
    }


def total_loss(terms: dict[str, Tensor], weights: LossWeights, largest: float | None = None) -> Float[Tensor, ""]:
    """The weighted sum, at most ``largest``."""
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return total if largest is None else total.clamp(max=largest)


def warm_up_loss(prediction: Prediction) -> Float[Tensor, ""]:
    """Distance of the cameras from R = I, t = (0, 0, -15): where training starts from."""
    eye = torch.eye(3).to(prediction.rotations)
    start = torch.tensor([0.0, 0.0, START]).to(prediction.positions)
    rotation = (prediction.rotations - eye).square().mean()
    return (100 * rotation + (prediction.positions - start).square().mean()) / 100
