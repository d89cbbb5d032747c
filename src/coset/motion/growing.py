"""A start for the bundle adjustment of long videos: the window that is explained best, grown frame by frame.

A scene and its mirror image in depth look nearly the same where depths differ little: cameras that turn the other way
before a scene turned inside out (the Necker reversal; Koenderink and van Doorn, 1991). Windows may fall into either,
and what is merged of both leads nowhere. A window is settled in both, and the frames beside it are added to what is
known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coset.motion.bundle_adjustment import PINHOLE, BundleOptions, adjust_cameras, static_cost, triangulate
from coset.motion.models.trackster4d import Prediction

STEP = 4  # frames that are added on either side before all is adjusted again
MOST = 150  # points of a window, those seen longest: more cost time and tell cameras hardly better
COVERED = 40  # of them in every frame, or all are taken
STEPS = 15  # of Levenberg-Marquardt each time; the last adjustment is not made here


class Window(NamedTuple):
    """What a network says of some frames.

    Attributes:
        run: The frames.
        rows: Points that are seen twice in them.
        prediction: Of these.
    """

    run: slice
    rows: Int[Tensor, " rows"]
    prediction: Prediction


def mirrored(prediction: Prediction) -> Prediction:
    """Cameras and static cloud turned inside out along the axis of the middle camera, about the middle of the cloud.

    An orthographic camera sees the same; cameras in line with their rotations keep their distances.
    """
    across = prediction.rotations[len(prediction.rotations) // 2]
    flip = torch.diag(across.new_tensor([1.0, 1.0, -1.0]))
    mirror = across @ flip @ across.T
    centre = prediction.static.median(0).values
    towards = torch.einsum("nji,nj->ni", prediction.rotations, centre - prediction.positions)
    rotations = mirror @ prediction.rotations @ flip
    positions = centre - torch.einsum("nij,nj->ni", rotations, towards)
    static = centre + (prediction.static - centre) @ mirror.T
    basis = torch.cat((static.unsqueeze(1), prediction.basis[:, 1:]), 1)
    return prediction._replace(rotations=rotations, positions=positions, basis=basis)


def settled(
    start: Prediction,
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    each: Callable[[], object] = lambda: None,
) -> Prediction:
    """Cameras and static cloud adjusted from a start, from its mirror image, and from the mirror image of what it leads
    to; the one with the best likelihood."""
    start = start.still()
    first = adjust_cameras(start, tracks, options, each)
    found = [first, *(adjust_cameras(mirrored(s), tracks, options, each) for s in (start, first))]
    return min(found, key=lambda one: static_cost(one, tracks))


def grown(
    windows: Sequence[Window],
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    each: Callable[[], object] = lambda: None,
) -> Prediction:
    """Cameras of all frames and a static cloud, from the window that its settled cameras explain best.

    Cameras are settled on some points of each window; the others are placed in the end.

    Args:
        windows: Predictions that together cover all frames.
        tracks: Normalised, in float64.
        options: Of the adjustments.
        each: Called after every step of one.
    """
    windows = [_longest(window, tracks) for window in windows]
    used = torch.zeros(len(tracks), dtype=torch.bool).index_fill_(0, torch.cat([w.rows for w in windows]), True)
    numbers = used.cumsum(0) - 1
    cameras, known, points, gamma = _grown(
        [w._replace(rows=numbers[w.rows]) for w in windows], tracks[used], options, each
    )
    placed = triangulate(cameras._replace(basis=points[known][:, None]), PINHOLE, tracks, options.noise)
    basis, levels = placed.basis, placed.gamma
    rows = used.nonzero().squeeze(1)[known]
    return cameras._replace(
        basis=basis.index_copy(0, rows, points[known][:, None]), gamma=levels.index_copy(0, rows, gamma[known])
    )


def _longest(window: Window, tracks: Float[Tensor, "points frames 3"]) -> Window:
    """The window with the points alone that are seen in most of its frames; all, where these leave a frame bare."""
    seen = tracks[window.rows][:, window.run, 2] > 0.5
    best = seen.sum(1).sort(descending=True, stable=True).indices[:MOST].sort().values
    if (seen[best].sum(0) < seen.sum(0).clamp(max=COVERED)).any():
        return window
    p = window.prediction
    return window._replace(rows=window.rows[best], prediction=p._replace(basis=p.basis[best], gamma=p.gamma[best]))


def _grown(
    windows: Sequence[Window],
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    each: Callable[[], object],
) -> tuple[Prediction, Bool[Tensor, " points"], Float[Tensor, "points 3"], Float[Tensor, " points"]]:
    """Cameras of all frames; which points are placed, where, and their motion levels."""
    count, frames = tracks.shape[:2]
    seen = tracks[..., 2] > 0.5
    found = [w._replace(prediction=settled(w.prediction, tracks[w.rows][:, w.run], options, each)) for w in windows]
    best = min(found, key=lambda w: static_cost(w.prediction, tracks[w.rows][:, w.run]))
    inside, cameras = best.run, best.prediction
    points, gamma = tracks.new_zeros(count, 3), tracks.new_full((count,), options.noise)
    points[best.rows], gamma[best.rows] = cameras.static, cameras.gamma
    known = torch.zeros(count, dtype=torch.bool).index_fill_(0, best.rows, True)
    while True:
        fresh = ~known & (seen[:, inside].sum(1) >= 2)
        if fresh.any():
            placed = triangulate(cameras, PINHOLE, tracks[fresh][:, inside], options.noise)
            points[fresh], gamma[fresh] = placed.static, placed.gamma
            known |= fresh
        if inside == slice(0, frames):
            break
        before, after = min(STEP, inside.start), min(STEP, frames - inside.stop)
        inside = slice(inside.start - before, inside.stop + after)
        start = _held(cameras, before, after)._replace(basis=points[known][:, None], gamma=gamma[known])
        cameras = adjust_cameras(start, tracks[known][:, inside], replace(options, iterations=STEPS), each)
        points[known], gamma[known] = cameras.static, cameras.gamma
    return cameras, known, points, gamma


def _held(prediction: Prediction, before: int, after: int) -> Prediction:
    """With cameras before the first and after the last that stand where these do."""
    at = torch.arange(-before, len(prediction.rotations) + after).clamp(0, len(prediction.rotations) - 1)
    return prediction._replace(
        rotations=prediction.rotations[at],
        positions=prediction.positions[at],
        coefficients=prediction.coefficients[at],
        focal=prediction.focal[at],
    )
