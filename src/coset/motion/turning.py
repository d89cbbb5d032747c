"""A camera that only turns, of whatever focal length: its pictures are related by K R K^-1, and say nothing of depth.

The model of a turning camera (rotations, directions of points, one focal length) is fitted from starts over a wide
range of focal lengths, as the model of a moving camera is; what each leaves unexplained of every point is compared. A
camera is only taken for a moving one where a fair share of the points is explained with depths and not without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coset.motion.bundle_adjustment import (
    BundleOptions,
    Lens,
    Unknowns,
    adjust_with_lens,
    lens_deviations,
    static_cost,
    static_residuals,
)
from coset.motion.calibration import (
    LONG,
    LONGEST,
    SHORT,
    TELLS,
    Calibration,
    Guesses,
    lens_of,
    longest,
    normalised,
    picture_tracks,
    starts_from,
)
from coset.motion.data.tracks import Tracks
from coset.motion.metrics import mean_rotation
from coset.motion.models.trackster4d import Prediction

FOCALS = (0.4, 0.7, 1.2, 2.1, 3.7, 6.5)
"""Over the mean of width and height, where the fit of a turning camera begins."""
TIMES = 2.0  # what a turning camera leaves over what a moving one leaves, from which a point shows parallax
SHARE = 0.2  # of points that show parallax in a camera that moves; a few may be moving things
HOPELESS = 12.0  # pixels of median error above which no turning camera is meant
NOISE = 0.5  # pixels below which what is left of a point says nothing
SAME = 1e-6  # of a focal length that was held
STEADY = 1.0  # pixels that points of a camera that stands still move at most


@dataclass(frozen=True)
class Turning:
    """A camera that turns in its place, as far as tracks can tell.

    Attributes:
        tracks: All tracks, with the focal length found or, where nothing tells it, the one they came with.
        prediction: Rotations; positions 0; points at distance 1, in the directions in which they are seen.
        error: Median pixels from where points are tracked.
        rows: Points of the comparison.
        left: Pixels that the fit leaves of each of these.
    """

    tracks: Tracks
    prediction: Prediction
    error: float
    rows: Tensor
    left: Float[Tensor, " points"]


def turning_camera(
    tracks: Tracks, options: BundleOptions | None = None, each: Callable[[], object] = lambda: None
) -> Turning:
    """The turning camera that explains the tracks best, over all focal lengths.

    Args:
        tracks: Of one shot; a focal length that is known is a start like any other.
        options: Of the adjustments.
        each: Called after every step.
    """
    options = options or BundleOptions()
    picture, unit = picture_tracks(tracks)
    guess, rows = tracks.intrinsics.focal / unit, longest(picture, LONGEST)
    short, long = replace(options, iterations=SHORT), replace(options, iterations=LONG)
    free = Unknowns(lens=1, places=False)
    fits = []
    for focal in (guess, *FOCALS):
        lens = lens_of(focal)
        fits.append(adjust_with_lens(_chained(picture[rows], lens), lens, picture[rows], short, free, each))
    best, lens = min(fits, key=lambda fit: static_cost(fit[0], picture[rows], fit[1]))
    best, lens = adjust_with_lens(best, lens, picture[rows], long, free, each)
    if lens_deviations(best, lens, picture[rows], free)[0] > TELLS or tracks.intrinsics.known:
        known = lens_of(guess)
        held = adjust_with_lens(_chained(picture[rows], known), known, picture[rows], long, replace(free, lens=0), each)
        # A focal length is let go of where it is not the camera that is unsure of it.
        if static_cost(held[0], picture[rows], known) < static_cost(best, picture[rows], lens) + 0.02:
            best, lens = held
    whole = _directions(best, lens, picture)
    whole, lens = adjust_with_lens(whole, lens, picture, long, replace(free, lens=0), each)
    left = left_over(whole, picture, lens) * unit
    k = tracks.intrinsics
    if abs(float(lens.focal) / guess - 1) > SAME:  # more than what single precision rounds
        k = replace(k, focal=float(lens.focal) * unit, source="estimated", radial=0.0)
        k = replace(k, deviation=lens_deviations(whole, lens, picture, free)[0])
    return Turning(replace(tracks, intrinsics=k), normalised(whole, lens), float(left.median()), rows, left[rows])


def only_turns(
    turning: Turning, tracks: Tracks, calibration: Calibration | None, guesses: Guesses, options: BundleOptions
) -> bool:
    """Whether a camera that moves explains no more than one that turns, but for a few points.

    Args:
        turning: The turning camera.
        tracks: With the focal length that the moving camera has, if no calibration tells it.
        calibration: The moving camera and its focal length, where it was looked for and found.
        guesses: From tracks in normalised coordinates to predictions to start from.
        options: Of the adjustments.
    """
    if turning.error > HOPELESS:
        return False
    k, (picture, unit) = tracks.intrinsics, picture_tracks(tracks)
    rows = turning.rows
    if calibration is None:
        lens, long = lens_of(k.focal / unit, k.radial), replace(options, iterations=SHORT + LONG)
        starts = starts_from(picture[rows], lens, guesses)
        fits = [adjust_with_lens(start, lens, picture[rows], long, Unknowns())[0] for start in starts]
        moving = min(fits, key=lambda fit: static_cost(fit, picture[rows], lens))
    else:
        k, start = calibration.tracks.intrinsics, calibration.start
        lens = lens_of(k.focal / unit, k.radial)
        moving = start._replace(basis=start.basis[rows], gamma=start.gamma[rows] * lens.focal)
    left = left_over(moving, picture[rows], lens) * unit
    return float(shows_parallax(turning.left, left, NOISE).double().mean()) < SHARE


def travel(tracks: Tracks, share: float) -> float:
    """Pixels that a share of the points stays within, the largest over pairs of frames that share enough points."""
    most = 0.0
    for gap in sorted({max(1, tracks.frames // d) for d in (2, 3, 4, 6, 10)} | {1}):
        for first in range(0, tracks.frames - gap, max(1, gap // 2)):
            both = tracks.visible[:, first] & tracks.visible[:, first + gap]
            if both.sum() >= 12:
                moved = np.linalg.norm(tracks.xy[both, first] - tracks.xy[both, first + gap], axis=1)
                most = max(most, float(np.quantile(moved, share)))
    return most


def stands_still(tracks: Tracks) -> bool:
    """Whether most points stay where they are: the camera does not even turn."""
    return travel(tracks, 0.7) < STEADY


def left_over(
    prediction: Prediction, picture: Float[Tensor, "points frames 3"], lens: Lens
) -> Float[Tensor, " points"]:
    """Root mean square of each point's residuals, all above three times the median left out; units of the picture."""
    squared = static_residuals(prediction, picture, lens)[0]
    table = torch.full(picture.shape[:2], torch.nan).to(squared)
    table[picture[..., 2] > 0.5] = squared
    limit = 9 * table.nanmedian(1, keepdim=True).values
    return torch.where(table <= limit, table, torch.nan).nanmean(1).sqrt()


def shows_parallax(
    turned: Float[Tensor, " points"], moved: Float[Tensor, " points"], noise: float
) -> Bool[Tensor, " points"]:
    """Points that depths explain, and a turning camera does not.

    Args:
        turned: What the turning camera leaves of each point.
        moved: What the moving camera leaves.
        noise: Below which what is left says nothing; all in pixels.
    """
    explained = moved <= torch.maximum(2 * moved.median(), torch.tensor(noise))
    return explained & (turned > TIMES * moved.clamp(min=noise))


def _chained(picture: Float[Tensor, "points frames 3"], lens: Lens) -> Prediction:
    """Rotations from each frame to the next, put together, and the mean direction of every point."""
    seen = picture[..., 2] > 0.5
    flat = lens.normalised(picture[..., :2])
    rays = torch.nn.functional.normalize(torch.cat((flat, torch.ones_like(flat[..., :1])), -1), dim=-1)
    turns = [torch.eye(3).to(rays)]
    for n in range(1, picture.size(1)):
        both = seen[:, n - 1] & seen[:, n]
        turns.append(turns[-1] @ _between(rays[both, n], rays[both, n - 1]))
    prediction = Prediction(
        torch.stack(turns), torch.zeros(len(turns), 3).to(rays), torch.ones(len(turns), 1).to(rays),
        torch.ones(len(turns)).to(rays), torch.zeros(len(rays), 1, 3).to(rays), torch.ones(len(rays)).to(rays),
    )  # fmt: skip
    return _directions(prediction, lens, picture)


def _between(a: Float[Tensor, "points 3"], b: Float[Tensor, "points 3"], rounds: int = 8) -> Float[Tensor, "3 3"]:
    """The rotation nearest to taking rays ``a`` to ``b``, found robustly; none if there are too few."""
    if len(a) < 3:
        return torch.eye(3).to(a)
    weight = torch.ones(len(a), 1).to(a)
    turn = torch.eye(3).to(a)
    for _ in range(rounds):
        turn = mean_rotation(((weight * b).T @ a)[None])
        distance = (a @ turn.T - b).norm(dim=1)
        weight = (1 / (1 + (distance / distance.median().clamp(min=1e-9)) ** 2)).unsqueeze(1)
    return turn


def _directions(cameras: Prediction, lens: Lens, picture: Float[Tensor, "points frames 3"]) -> Prediction:
    """Known rotations with the median direction in which each point is seen."""
    flat = lens.normalised(picture[..., :2])
    rays = torch.nn.functional.normalize(torch.cat((flat, torch.ones_like(flat[..., :1])), -1), dim=-1)
    world = torch.einsum("nij,pnj->pni", cameras.rotations, rays)
    world = torch.where((picture[..., 2:] > 0.5), world, torch.nan)
    points = torch.nn.functional.normalize(world.nanmedian(1).values, dim=-1)
    away = (world - points.unsqueeze(1)).norm(dim=-1).nanmedian(1).values
    levels = (away * lens.focal).clamp(min=1e-4)
    return cameras._replace(basis=points.unsqueeze(1), gamma=levels)
