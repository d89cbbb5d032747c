"""How good a reconstruction is; nothing here depends on the similarity that a video cannot tell."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from coset.motion.data.scenes import Scene
from coset.motion.geometry import align, align_robustly, rotation_angle, to_camera
from coset.motion.losses import observed
from coset.motion.models.trackster4d import Prediction


def reprojection_error(
    prediction: Prediction, tracks: Float[Tensor, "points frames 3"], focal: float
) -> Float[Tensor, " observations"]:
    """Distance in pixels between where visible points are and where the reconstruction sees them."""
    seen = tracks[..., 2] > 0.5
    where, _ = observed(prediction.points(), prediction)
    return focal * (where[seen] - tracks[..., :2][seen]).norm(dim=-1)


def camera_errors(
    rotations: Float[Tensor, "frames 3 3"],
    positions: Float[Tensor, "frames 3"],
    true_rotations: Float[Tensor, "frames 3 3"],
    true_positions: Float[Tensor, "frames 3"],
) -> dict[str, float]:
    """Errors of a camera's path, each after the alignment that suits it.

    Returns:
        ``rotation`` (mean degrees after one rotation of the world), ``rpe_rotation`` (mean degrees from a frame to the
        next), ``ate`` and ``rpe_translation`` (root mean squares after a similarity that aligns the positions, over the
        true path's own root mean square size).
    """
    turn = mean_rotation(true_rotations @ rotations.transpose(-1, -2))
    step = rotations[:-1].transpose(-1, -2) @ rotations[1:]
    true_step = true_rotations[:-1].transpose(-1, -2) @ true_rotations[1:]
    size = (true_positions - true_positions.mean(0)).square().sum(-1).mean().sqrt().clamp(min=1e-12)
    aligned = align(positions, true_positions).points(positions)
    moves, true_moves = aligned.diff(dim=0), true_positions.diff(dim=0)
    return {
        "rotation": float(rotation_angle(turn @ rotations, true_rotations).mean()),
        "rpe_rotation": float(rotation_angle(step, true_step).mean()),
        "ate": float((aligned - true_positions).square().sum(-1).mean().sqrt() / size),
        "rpe_translation": float((moves - true_moves).square().sum(-1).mean().sqrt() / size),
    }


def mean_rotation(rotations: Float[Tensor, "count 3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation nearest to all, in the chordal distance."""
    u, _, vh = torch.linalg.svd(rotations.sum(0))
    signs = torch.ones(3).to(u)
    signs[-1] = torch.det(u @ vh)
    return (u * signs) @ vh


def depth_errors(
    depth: Float[Tensor, "points frames"],
    true_depth: Float[Tensor, "points frames"],
    counted: Bool[Tensor, "points frames"],
) -> dict[str, float]:
    """Absolute relative error and shares within 1.25, 1.25^2, 1.25^3, each frame scaled by its median ratio."""
    errors, ratios = [], []
    for n in range(depth.size(1)):
        rows = counted[:, n] & (true_depth[:, n] > 0)
        if rows.sum() < 3:
            continue
        d, true = depth[rows, n].clamp(min=1e-6), true_depth[rows, n]
        d = d * (true / d).median()
        errors.append((d - true).abs() / true)
        ratios.append(torch.maximum(d / true, true / d))
    if not errors:
        return dict.fromkeys(("abs_rel", "delta1", "delta2", "delta3"), math.nan)
    error, ratio = torch.cat(errors), torch.cat(ratios)
    shares = {f"delta{k}": float((ratio < 1.25**k).double().mean()) for k in (1, 2, 3)}
    return {"abs_rel": float(error.mean())} | shares


def scene_metrics(prediction: Prediction, scene: Scene) -> dict[str, float]:
    """Everything that can be measured against the truth of a synthetic scene, on visible observations.

    Returns:
        Besides :func:`camera_errors` and :func:`depth_errors` (``dynamic_*`` over moving points): ``reprojection``
        (mean, percent of the image's width) and ``reprojection_px`` (median, pixels); ``points``, ``static_points`` and
        ``moving_points`` (median distance after a similarity that aligns all points robustly, over the median distance
        of points from their middle); ``auroc`` of gamma for moving points.
    """
    prediction = Prediction(*(part.detach().double() for part in prediction))
    tracks = scene.tracks.tensor().double()
    true, seen = torch.from_numpy(scene.points), torch.from_numpy(scene.tracks.visible)
    moving = torch.from_numpy(scene.moving)
    points, k = prediction.points(), scene.tracks.intrinsics
    pixels = reprojection_error(prediction, tracks, k.focal)
    found = align_robustly(points[seen], true[seen])
    distance = (found.points(points) - true).norm(dim=-1)
    size = (true[seen] - true[seen].median(0).values).norm(dim=-1).median()
    depth = to_camera(points, prediction.rotations, prediction.positions)[..., 2]
    true_depth = torch.from_numpy(scene.depth())
    mobile = seen & moving[:, None]
    cameras = (torch.from_numpy(scene.rotations), torch.from_numpy(scene.positions))
    dynamic = {f"dynamic_{name}": v for name, v in depth_errors(depth, true_depth, mobile).items()}
    return {
        "reprojection": float(100 * pixels.mean() / scene.tracks.size[0]),
        "reprojection_px": float(pixels.median()),
        **camera_errors(prediction.rotations, prediction.positions, *cameras),
        "points": float(distance[seen].median() / size),
        "static_points": float(distance[seen & ~moving[:, None]].median() / size),
        "moving_points": float(distance[mobile].median() / size) if mobile.any() else math.nan,
        **depth_errors(depth, true_depth, seen),
        **dynamic,
        "auroc": motion_auroc(prediction.gamma, moving),
    }


def motion_auroc(gamma: Float[Tensor, " points"], moving: Bool[Tensor, " points"]) -> float:
    """Chance that a moving point has a larger gamma than a static one; NaN if there are not both."""
    if moving.all() or not moving.any():
        return math.nan
    # torchmetrics squashes scores outside [0, 1] by a sigmoid, which rounds large gammas together: ranks do not.
    ranks = gamma.unique(return_inverse=True)[1].double()
    return float(binary_auroc((ranks + 1) / (ranks.max() + 2), moving.long()))
