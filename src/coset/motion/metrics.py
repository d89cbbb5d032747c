"""How good a reconstruction is; nothing here depends on the similarity that a video cannot tell."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from coset.motion.data.scenes import Scene
from coset.motion.data.tracks import Tracks
from coset.motion.geometry import align, align_robustly, rotation_angle, to_camera
from coset.motion.losses import observed
from coset.motion.models.trackster4d import Prediction

STAYS = 1e-9  # of its coordinates: a path of this size is rounding


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
    """Errors of a camera's path; ``ate`` and ``rpe_*`` as the official evaluation of TracksTo4D measures them.

    Returns:
        ``rotation``: mean degrees after the best rotation of the world. After the similarity that aligns the positions:
        ``ate``, root mean square distance of positions; ``rpe_translation``, root mean square error of the step to the
        next frame, each step seen from its own camera; both in the truth's units. ``rpe_rotation``: root mean square
        degrees of the turn to the next frame. ``camera_path``: ``ate`` over the true path's root mean square size.
        NaN for errors of positions where the true camera stays in its place, to which every path shrinks.
    """
    turn = mean_rotation(true_rotations @ rotations.transpose(-1, -2))
    similarity = align(positions, true_positions)
    aligned = similarity.points(positions)
    step, shift = _steps(similarity.rotation @ rotations, aligned)
    true_step, true_shift = _steps(true_rotations, true_positions)
    size = _rms((true_positions - true_positions.mean(0)).norm(dim=-1))
    stays = bool(size <= STAYS * true_positions.abs().max().clamp(min=1e-3))
    ate = size.new_tensor(math.nan) if stays else _rms((aligned - true_positions).norm(dim=-1))
    return {
        "rotation": float(rotation_angle(turn @ rotations, true_rotations).mean()),
        "rpe_rotation": float(_rms(rotation_angle(step, true_step))),
        "rpe_translation": math.nan if stays else float(_rms((shift - true_shift).norm(dim=-1))),
        "ate": float(ate),
        "camera_path": float(ate / size),
    }


def _steps(
    rotations: Float[Tensor, "frames 3 3"], positions: Float[Tensor, "frames 3"]
) -> tuple[Float[Tensor, "steps 3 3"], Float[Tensor, "steps 3"]]:
    """Turn and shift from a frame to the next, in the axes of the first of the two cameras."""
    back = rotations[:-1].transpose(-1, -2)
    return back @ rotations[1:], (back @ positions.diff(dim=0).unsqueeze(-1)).squeeze(-1)


def _rms(values: Tensor) -> Float[Tensor, ""]:
    return values.square().mean().sqrt()


def mean_rotation(rotations: Float[Tensor, "count 3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation nearest to all, in the chordal distance."""
    u, _, vh = torch.linalg.svd(rotations.sum(0))
    signs = torch.ones(3).to(u)
    signs[-1] = torch.det(u @ vh)
    return (u * signs) @ vh


def depth_errors(
    depth: Float[Tensor, "points frames"],
    true_depth: Float[Tensor, "points frames"],
    visible: Bool[Tensor, "points frames"],
    moving: Bool[Tensor, " points"] | None = None,
) -> dict[str, float]:
    """Depth errors as the official evaluation of TracksTo4D measures them: means over frames of means over points.

    The depths of a frame are scaled by the ratio of the medians over all its visible points, moving and still, so that
    a body at a wrong depth is an error. Where that evaluation divides by nothing, here is a rule: depths behind the
    camera stay behind it and are within no share; a frame without a moving point says nothing of them.

    Args:
        depth: Predicted.
        true_depth: 0 or less where it is not known.
        visible: Observations that count.
        moving: Points that the ``dynamic_*`` errors are taken over; without it there are none.

    Returns:
        ``abs_rel`` (absolute error over true depth), ``delta1``, ``delta2``, ``delta3`` (shares within a factor of
        1.25, 1.25^2, 1.25^3), and the same with ``dynamic_`` in front; NaN where no frame tells.
    """
    rows: dict[str, list[Tensor]] = {"": [], "dynamic_": []}
    for n in range(depth.size(1)):
        known = visible[:, n] & (true_depth[:, n] > 0)
        if not known.any():
            continue
        d, true = depth[known, n], true_depth[known, n]
        d = d * (true.median() / d.median().abs().clamp(min=1e-12))
        ratio = torch.where(d > 0, torch.maximum(d / true, true / d), torch.inf)
        within = [(ratio < 1.25**k).to(d) for k in (1, 2, 3)]
        errors = torch.stack([(d - true).abs() / true, *within], 1)
        rows[""].append(errors.mean(0))
        if moving is not None and moving[known].any():
            rows["dynamic_"].append(errors[moving[known]].mean(0))
    kinds = ("",) if moving is None else tuple(rows)
    return {f"{kind}{name}": value for kind in kinds for name, value in _mean_by_name(rows[kind]).items()}


def _mean_by_name(frames: list[Tensor]) -> dict[str, float]:
    names = ("abs_rel", "delta1", "delta2", "delta3")
    means = torch.stack(frames).mean(0).tolist() if frames else [math.nan] * len(names)
    return dict(zip(names, means, strict=True))


def motion_errors(
    points: Float[Tensor, "points frames 3"],
    true_points: Float[Tensor, "points frames 3"],
    visible: Bool[Tensor, "points frames"],
    moving: Bool[Tensor, " points"],
) -> dict[str, float]:
    """How what is found moves, against how it truly moves: displacements of a point from its mean place while visible.

    Args:
        points: Found, in the scale and axes of the truth.
        true_points: The truth.
        visible: Observations that count.
        moving: Points that truly move.

    Returns:
        ``phantom_motion``: median displacement of points that stand still, in the truth's units (0 is right).
        ``motion_cosine``: of the displacements of moving points with the true ones, over all of them at once (1 is
        right, 0 if nothing moves). ``motion_size``: their root mean square over the true one's. NaN where the scene has
        no such points.
    """
    count = visible.sum(1).clamp(min=1)[:, None, None]
    found, true = (
        (p - (p * visible.unsqueeze(-1)).sum(1, keepdim=True) / count).double() for p in (points, true_points)
    )
    still, mobile = visible & ~moving[:, None], visible & moving[:, None]
    phantom = float(found[still].norm(dim=-1).median()) if still.any() else math.nan
    length, true_length = found[mobile].norm(), true[mobile].norm()
    known, moves = bool(true_length > 0), bool(length > 1e-9 * true_length)  # what rounding leaves is no motion
    cosine = (found[mobile] * true[mobile]).sum() / (length * true_length) if moves else torch.zeros(())
    return {
        "phantom_motion": phantom,
        "motion_cosine": float(cosine) if known else math.nan,
        "motion_size": float(length / true_length) if known else math.nan,
    }


def scene_metrics(prediction: Prediction, scene: Scene) -> dict[str, float]:
    """Everything that can be measured against the truth of a synthetic scene, on visible observations.

    Returns:
        Besides :func:`camera_errors` and :func:`depth_errors` (``dynamic_*`` over moving points): ``reprojection``
        (mean, percent of the image's width) and ``reprojection_px`` (median, pixels); ``points``, ``static_points`` and
        ``moving_points`` (median distance after a similarity that aligns all points robustly, over the median distance
        of points from their middle); :func:`motion_errors` after that similarity, ``phantom_motion`` over the same
        size; ``auroc`` of gamma for moving points.
    """
    prediction = Prediction(*(part.detach().double() for part in prediction))
    tracks = scene.tracks.tensor().double()
    true, seen = torch.from_numpy(scene.points), torch.from_numpy(scene.tracks.visible)
    moving = torch.from_numpy(scene.moving)
    points, k = prediction.points(), scene.tracks.intrinsics
    pixels = reprojection_error(prediction, tracks, k.focal)
    aligned = align_robustly(points[seen], true[seen]).points(points)
    distance = (aligned - true).norm(dim=-1)
    size = (true[seen] - true[seen].median(0).values).norm(dim=-1).median()
    depth = to_camera(points, prediction.rotations, prediction.positions)[..., 2]
    mobile = seen & moving[:, None]
    cameras = (torch.from_numpy(scene.rotations), torch.from_numpy(scene.positions))
    motion = motion_errors(aligned, true, seen, moving)
    return {
        "reprojection": float(100 * pixels.mean() / scene.tracks.size[0]),
        "reprojection_px": float(pixels.median()),
        **camera_errors(prediction.rotations, prediction.positions, *cameras),
        "points": float(distance[seen].median() / size),
        "static_points": float(distance[seen & ~moving[:, None]].median() / size),
        "moving_points": float(distance[mobile].median() / size) if mobile.any() else math.nan,
        **motion,
        "phantom_motion": motion["phantom_motion"] / float(size),
        **depth_errors(depth, torch.from_numpy(scene.depth()), seen, moving),
        "auroc": motion_auroc(prediction.gamma, moving),
    }


def truth_metrics(prediction: Prediction, tracks: Tracks) -> dict[str, float]:
    """What a test set's truth tells of a reconstruction: :func:`camera_errors` and :func:`depth_errors`.

    Args:
        prediction: Of these points and frames.
        tracks: With their truth; without one, or where a part of it is unknown, what needs it is left out.
    """
    truth = tracks.truth
    errors: dict[str, float] = {}
    if truth is None:
        return errors
    prediction = Prediction(*(part.detach().double() for part in prediction))
    if truth.rotations is not None and truth.positions is not None:
        cameras = (torch.from_numpy(truth.rotations), torch.from_numpy(truth.positions))
        errors |= camera_errors(prediction.rotations, prediction.positions, *cameras)
    if truth.depth is not None:
        depth = to_camera(prediction.points(), prediction.rotations, prediction.positions)[..., 2]
        moving = None if truth.moving is None else torch.from_numpy(truth.moving)
        errors |= depth_errors(depth, torch.from_numpy(truth.depth), torch.from_numpy(tracks.visible), moving)
    return errors


def motion_auroc(gamma: Float[Tensor, " points"], moving: Bool[Tensor, " points"]) -> float:
    """Chance that a moving point has a larger gamma than a static one; NaN if there are not both."""
    if moving.all() or not moving.any():
        return math.nan
    # torchmetrics squashes scores outside [0, 1] by a sigmoid, which rounds large gammas together: ranks do not.
    ranks = gamma.unique(return_inverse=True)[1].double()
    return float(binary_auroc((ranks + 1) / (ranks.max() + 2), moving.long()))
