r"""The losses of TracksTo4D: tracks teach, no 3D is needed (Kasten, Lu, Maron, NeurIPS 2024, section 3.3).

With r the reprojection distance of a visible observation, z its depth, and r_s that of the static cloud B_1 alone:

    L_repr   = mean r                       (R, t and B_1 detached: the rest of the basis explains the residual)
    L_static = mean log(gamma + r_s^2 / gamma)          (Cauchy: a point that moves raises its gamma and lets go)
    L_neg    = - sum min(z, 0)              (R, t and B_1 detached)
    L_sparse = mean |B_k / gamma|, k >= 2               (gamma detached)

L_sparse bounds the clouds and not their coefficients, and no reprojection sees along a ray, so that points that stand
still are moved in depth. A term of ours, which training may take in its place, bounds where points go:

    L_motion = mean |X - B_1| / (gamma z)               (gamma and z detached)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from coset.motion.geometry import NEAREST, project, to_camera
from coset.motion.models.trackster4d import Prediction, moving_points

START = -15.0  # z of the cameras that the warm-up asks for


@dataclass(frozen=True)
class LossWeights:
    """Weights of the sum; those of the official training by default. 0 leaves a term out; ``motion`` is ours."""

    reprojection: float = 50.0
    static: float = 1.0
    negative: float = 1.0
    sparse: float = 0.001
    motion: float = 0.0


def observed(
    points: Float[Tensor, "*batch points frames 3"], prediction: Prediction
) -> tuple[Float[Tensor, "*batch points frames 2"], Float[Tensor, "*batch points frames"]]:
    """Where the predicted cameras see the points, and at what depth."""
    inside = to_camera(points, prediction.rotations.unsqueeze(-4), prediction.positions.unsqueeze(-3))
    return project(inside, prediction.focal.unsqueeze(-2)), inside[..., 2]


def observed_moving(
    prediction: Prediction,
) -> tuple[Float[Tensor, "*batch points frames 2"], Float[Tensor, "*batch points frames"]]:
    """Of the moving points, with slopes in the coefficients, B_2..B_K and a predicted focal length only."""
    static = prediction.basis[..., :1, :].detach()
    points = moving_points(torch.cat((static, prediction.basis[..., 1:, :]), -2), prediction.coefficients)
    cameras = {"rotations": prediction.rotations.detach(), "positions": prediction.positions.detach()}
    return observed(points, prediction._replace(**cameras))


def reprojection_loss(
    where: Float[Tensor, "observations 2"], tracked: Float[Tensor, "observations 2"]
) -> Float[Tensor, ""]:
    """L_repr: the mean distance of where points are seen from where they are tracked."""
    return (where - tracked).norm(dim=-1).mean()


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


def motion_loss(
    prediction: Prediction, tracks: Float[Tensor, "*batch points frames 3"]
) -> Float[Tensor, ""]:  # fmt: skip
    """L_motion: how far visible points are from their place in the static cloud, over gamma and depth.

    Slopes are in the coefficients and B_2..B_K alone.
    """
    seen = tracks[..., 2] > 0.5
    away = prediction.away()
    _, depth = observed((prediction.static.unsqueeze(-2) + away).detach(), prediction)
    size = prediction.gamma.unsqueeze(-1) * depth.clamp(min=NEAREST)
    return (away.norm(dim=-1) / size.detach())[seen].mean()


def losses(prediction: Prediction, tracks: Float[Tensor, "*batch points frames 3"]) -> dict[str, Tensor]:
    """The four terms, unweighted, over the visible observations of all clips."""
    seen, tracked = tracks[..., 2] > 0.5, tracks[..., :2]
    where, depth = observed_moving(prediction)
    still, _ = observed(prediction.static.unsqueeze(-2).expand(*tracks.shape), prediction)
    squared = (still[seen] - tracked[seen]).square().sum(-1)
    gamma = prediction.gamma.unsqueeze(-1).expand(seen.shape)[seen]
    return {
        "reprojection": reprojection_loss(where[seen], tracked[seen]),
        "static": static_loss(squared, gamma),
        "negative": negative_depth_loss(depth[seen]),
        "sparse": sparse_loss(prediction),
    }


def total_loss(terms: dict[str, Tensor], weights: LossWeights, largest: float | None = None) -> Float[Tensor, ""]:
    """The weighted sum, at most ``largest``."""
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return total if largest is None else total.clamp(max=largest)


def warm_up_loss(prediction: Prediction) -> Float[Tensor, ""]:
    """Distance of the cameras from R = I, t = (0, 0, -15): where training starts from.

    As published, positions add up over the frames of a clip, where rotations are averaged.
    """
    eye = torch.eye(3).to(prediction.rotations)
    start = torch.tensor([0.0, 0.0, START]).to(prediction.positions)
    rotation = (prediction.rotations - eye).square().mean()
    position = (prediction.positions - start).square().sum(-2).mean()
    return (100 * rotation + position) / 100
