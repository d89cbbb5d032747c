r"""Rotations, pinhole projection, and alignment of what is known only up to a similarity.

A camera is a rotation R (its columns are the camera's axes in the world: x right, y down, z forward) and a position t.
A world point X is seen at

    Y = R^T (X - t),        (u, v) = f (Y_x, Y_y) / max(Y_z, 0.01)

in normalised coordinates (pixels times K^-1). A similarity (s, Q, b) of the world, X -> s Q X + b, R -> Q R,
t -> s Q t + b, changes no picture: what is measured here never depends on it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

NEAREST = 0.01  # depth that a point behind or in the camera is projected with
PARALLEL = 1e-6  # sine below which the second of two vectors says nothing about the plane


def rotation_from_6d(numbers: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Gram-Schmidt: rows v1, v2, v1 x v2; parallel vectors get some plane instead of NaN (Zhou et al. 2019)."""
    first, second = numbers[..., :3], numbers[..., 3:]
    v1 = _unit(first)
    second = _unit(second)
    # The axis least along v1 stands in where the second vector is parallel to the first.
    spare = torch.nn.functional.one_hot(v1.detach().abs().argmin(-1), 3).to(v1)
    across = second - (v1 * second).sum(-1, keepdim=True) * v1
    parallel = across.detach().norm(dim=-1, keepdim=True) < PARALLEL
    across = torch.where(parallel, spare - (v1 * spare).sum(-1, keepdim=True) * v1, across)
    v2 = _unit(across)
    v2 = _unit(v2 - (v1 * v2).sum(-1, keepdim=True) * v1)  # once more: of nearly parallel vectors little was left
    return torch.stack((v1, v2, torch.linalg.cross(v1, v2)), -2)


def rotation_from_vector(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """exp of the skew matrix of an axis times an angle in radians (Rodrigues)."""
    return torch.linalg.matrix_exp(skew(vector))


def skew(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix [v]_x with [v]_x w = v x w."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))


def rotation_angle(
    a: Float[Tensor, "*batch 3 3"], b: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch"]:  # fmt: skip
    """Angle in degrees between rotations."""
    # From |A - B|, not from the trace, whose arc cosine cannot see angles below 1e-7.
    chord = (a - b).flatten(-2).norm(dim=-1) / 8**0.5
    return torch.rad2deg(2 * torch.asin(chord.clamp(max=1)))


def to_camera(
    points: Float[Tensor, "*#batch 3"], rotations: Float[Tensor, "*#batch 3 3"], positions: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*#batch 3"]:
    """Y = R^T (X - t); shapes are broadcast."""
    return ((points - positions).unsqueeze(-2) @ rotations).squeeze(-2)


def project(
    camera_points: Float[Tensor, "*batch 3"], focal: Float[Tensor, "*#batch"] | float = 1.0
) -> Float[Tensor, "*batch 2"]:
    """Normalised image coordinates of points in the camera's frame."""
    flat = camera_points[..., :2] / camera_points[..., 2:].clamp(min=NEAREST)
    return flat * (focal.unsqueeze(-1) if isinstance(focal, Tensor) else focal)


class Similarity(NamedTuple):
    """X -> scale * rotation X + shift."""

    scale: Float[Tensor, ""]
    rotation: Float[Tensor, "3 3"]
    shift: Float[Tensor, "xyz=3"]

    def points(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        return self.scale * points @ self.rotation.T + self.shift

    def cameras(
        self, rotations: Float[Tensor, "frames 3 3"], positions: Float[Tensor, "frames 3"]
    ) -> tuple[Float[Tensor, "frames 3 3"], Float[Tensor, "frames 3"]]:
        return self.rotation @ rotations, self.points(positions)


def align(
    source: Float[Tensor, "points 3"],
    target: Float[Tensor, "points 3"],
    weights: Float[Tensor, " points"] | None = None,
) -> Similarity:
    """The similarity that moves ``source`` closest to ``target`` in least squares (Umeyama 1991).

    Raises:
        ValueError: Fewer than 3 points.
    """
    if source.shape[0] < 3:
        raise ValueError(f"{source.shape[0]} points: a similarity needs at least 3")
    w = torch.ones_like(source[:, 0]) if weights is None else weights
    w = (w / w.sum()).unsqueeze(-1)
    mean_source, mean_target = (w * source).sum(0), (w * target).sum(0)
    a, b = source - mean_source, target - mean_target
    u, singular, vh = torch.linalg.svd((w * b).T @ a)
    signs = torch.ones_like(singular)
    signs[-1] = torch.sign(torch.det(u) * torch.det(vh))
    rotation = (u * signs) @ vh
    variance = (w * a * a).sum()
    scale = (singular * signs).sum() / variance.clamp(min=torch.finfo(variance.dtype).tiny)
    return Similarity(scale, rotation, mean_target - scale * rotation @ mean_source)


def align_robustly(
    source: Float[Tensor, "points 3"], target: Float[Tensor, "points 3"], rounds: int = 10
) -> Similarity:
    """As :func:`align`, with weights that let go of points far off (Geman-McClure, scale from the median)."""
    found = align(source, target)
    for _ in range(rounds):
        distance = (found.points(source) - target).norm(dim=-1)
        scale = distance.median().clamp(min=1e-12)
        found = align(source, target, (1 + (distance / (3 * scale)) ** 2) ** -2)
    return found


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True).clamp(min=1e-12)
