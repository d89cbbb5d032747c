"""Where bodies are: their mean depth, by what tells it best, and their motion as clouds and coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coset.motion.geometry import to_camera
from coset.motion.models.trackster4d import Prediction
from coset.motion.movers.bodies import adopted, bodies_of, moving_rows, together
from coset.motion.movers.depths import Depths
from coset.motion.movers.options import MoverOptions
from coset.motion.movers.view import View, picture_distances


@dataclass(frozen=True)
class Body:
    """Points that move together.

    Attributes:
        rows: Which points.
        depth: Mean depth.
        deviation: Standard deviation of its logarithm, as far as it is known.
        told_by: ``motion``, ``neighbour``, ``network``, ``ground`` or ``nothing``; then ``backdrop`` or
            ``hidden points`` where the static points around or behind it bounded that.
        known: Whether the depth is measured.
    """

    rows: Int[np.ndarray, " points"]
    depth: float
    deviation: float
    told_by: str
    known: bool


def place_movers(
    prediction: Prediction,
    tracks: Float[Tensor, "points frames 3"],
    noise: float,
    network: Prediction | None = None,
    options: MoverOptions | None = None,
) -> tuple[Prediction, list[Body]]:
    """Motion of the points that move; all others stand still in the static cloud.

    Args:
        prediction: With cameras, static cloud and motion levels adjusted.
        tracks: Normalised.
        noise: Accuracy of a track, normalised.
        network: What a trained network says of the same tracks: how far bodies are whose own motion does not tell it.
        options: How.

    Returns:
        The prediction with as many clouds as the motion needs, and the bodies.
    """
    options = options or MoverOptions()
    view = View.of(prediction, tracks)
    mobile = adopted(view, together(view, moving_rows(prediction.gamma, noise).numpy(), options), options)
    still = prediction.still()
    groups = bodies_of(view, mobile, options)
    solved = [Depths.of(view, rows, options) for rows in groups]
    placed, bodies = dict[int, np.ndarray](), dict[int, Body]()
    for number in sorted(range(len(groups)), key=lambda number: not solved[number].deviation <= options.sure):
        depths, known = solved[number], [body for body in bodies.values() if body.known]
        scale, bodies[number] = _scale(view, depths, groups[number], network, known, options)
        placed[number] = _everywhere(view, depths, depths.at(scale))
    if not groups:
        return still, []
    points = torch.from_numpy(np.concatenate([placed[number] for number in range(len(groups))]))
    return _as_clouds(still, np.concatenate(groups), points, noise), [bodies[number] for number in range(len(groups))]


def _scale(
    view: View, depths: Depths, rows: np.ndarray, network: Prediction | None, known: list[Body], options: MoverOptions
) -> tuple[float, Body]:
    """The mean depth of a body, from what tells it best, and not behind what is behind it."""
    scale, deviation, told = depths.scale, depths.deviation, "motion"
    if not deviation <= options.sure:
        scale, deviation, told = _without_motion(view, depths, rows, network, known)
        bound = backdrop_bound(view, depths, rows)
        if bound is not None and bound < scale:
            scale, told = bound, f"{told}, backdrop"
    bound = hidden_bound(view, depths, rows)
    if bound is not None and bound < scale:
        scale, told = bound, f"{told}, hidden points"
    return scale, Body(rows, float(scale), float(deviation), told, deviation <= options.sure)


def _without_motion(
    view: View, depths: Depths, rows: np.ndarray, network: Prediction | None, known: list[Body]
) -> tuple[float, float, str]:
    """The mean depth of a body whose own motion hides it: that of a larger one beside it, of which it is likely a part;
    where the network says, on the ground, or mid-scene."""
    if (larger := _beside(view, rows, known)) is not None:
        return larger.depth, 0.2, "neighbour"
    guess = None if network is None else _by_network(view, rows, network)
    if guess is not None:
        return guess, 0.3, "network"
    touching = None if view.ground is None else _touching(depths, *view.ground)
    if touching is not None:
        return touching, 0.2, "ground"
    return float(np.median(view.still_depth()[0][view.seen[view.still]])), 1.0, "nothing"


def _beside(view: View, rows: np.ndarray, known: list[Body]) -> Body | None:
    """The nearest body of known depth with twice as many points and more, not farther off than half of its extent."""
    near = []
    for body in known:
        within = view.apart[np.ix_(body.rows, body.rows)]
        gap = float(view.apart[np.ix_(rows, body.rows)].min())
        if len(body.rows) >= 2 * len(rows) and gap < 0.5 * within[np.isfinite(within)].max(initial=0.0):
            near.append((gap, body))
    return min(near, key=lambda pair: pair[0])[1] if near else None


def _touching(depths: Depths, normal: np.ndarray, offset: float) -> float | None:
    """The mean depth at which the lowest points of a body are on the ground; further away they would be below."""
    down = depths.rays @ normal

    def lowest(scale: float) -> float:
        return float(np.quantile(depths.points(scale) @ normal - offset, 0.03))

    if np.quantile(down, 0.03) >= 0:
        return None
    low, high = 1e-3, 1e3
    if lowest(low) <= 0 or lowest(high) >= 0:
        return None
    for _ in range(50):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if lowest(middle) > 0 else (low, middle)
    return high


def backdrop_bound(view: View, depths: Depths, rows: np.ndarray, around: int = 12) -> float | None:
    """The mean depth from which on a body would be behind the surfaces before which it is seen.

    A point of the body with static points on all sides of it is before the farthest of these. Where a quarter of such
    sights would be behind, the body is too far; where hardly any are surrounded nothing is said.
    """
    depth, places = view.still_depth()
    body, shown, unit = view.flat[rows], view.seen[rows], _unit(view, depths, rows)
    ratios = []
    for n in range(shown.shape[1]):
        there = np.flatnonzero(depth[:, n] > 0)
        if len(there) < around or not shown[:, n].any():
            continue
        apart = places[there, n][None] - body[shown[:, n], n][:, None]
        distance = np.linalg.norm(apart, axis=-1)
        near = np.argsort(distance, 1)[:, :around]
        ways = np.take_along_axis(apart / np.maximum(distance, 1e-9)[..., None], near[..., None], 1)
        surrounded = np.linalg.norm(ways.mean(1), axis=-1) < 0.5
        ratios.append((depth[there, n][near].max(1) / unit[shown[:, n], n])[surrounded])
    found = np.concatenate(ratios) if ratios else np.zeros(0)
    return float(np.quantile(found, 0.25)) if len(found) >= max(5, 0.2 * shown.sum()) else None


def _unit(view: View, depths: Depths, rows: np.ndarray) -> Float[np.ndarray, "points frames"]:
    """Depths of the observations of a body over its mean depth; not a number where it is not seen."""
    unit = np.full((len(rows), view.seen.shape[1]), np.nan)
    unit[view.seen[rows]] = depths.at(depths.scale) / depths.scale if np.isfinite(depths.scale) else depths.at(1.0)
    return unit


def hidden_bound(view: View, depths: Depths, rows: np.ndarray, least: int = 6) -> float | None:
    """The mean depth from which on a body hides static points that truly vanish where it is seen.

    Static points that lie, in a frame, among points of the body are sorted by the mean depth that would put the body
    just behind them. Points before a body are seen but for a few that trackers lose; where most of those at like depths
    are gone and seen again later, the body is before them.
    """
    depth, places = view.still_depth()
    seen, body, shown = view.seen[view.still], view.flat[rows], view.seen[rows]
    before, after = np.maximum.accumulate(seen, 1), np.maximum.accumulate(seen[:, ::-1], 1)[:, ::-1]
    reach = float(np.median(picture_distances(body, shown).min(1))) * 2
    unit, found = _unit(view, depths, rows), []
    for n in range(seen.shape[1]):
        there = np.flatnonzero(before[:, n] & after[:, n] & (depth[:, n] > 0))
        apart = np.linalg.norm(places[there, n][:, None] - body[None, shown[:, n], n], axis=-1)
        for q, near in zip(there, apart < reach, strict=True):
            if near.sum() >= 3:
                found.append((depth[q, n] / np.median(unit[shown[:, n], n][near]), not seen[q, n]))
    ratios = np.array(sorted(found))
    for ratio in ratios[ratios[:, 1] > 0, 0] if len(ratios) else ():
        alike = np.abs(np.log(ratios[:, 0] / ratio)) < 0.1
        if alike.sum() >= least and ratios[alike, 1].mean() > 0.6:
            return float(ratio) * 1.1
    return None


def _by_network(view: View, rows: np.ndarray, network: Prediction) -> float | None:
    """The body's depth over that of the static points, as the network sees them, times the depth of these here."""
    inside = to_camera(network.static.unsqueeze(1), network.rotations, network.positions)[..., 2].numpy()
    here, seen = view.still_depth()[0], view.seen
    told = inside[rows][seen[rows]]
    around = inside[view.still][seen[view.still]]
    if not (len(around) and np.median(around) > 0 and np.median(told) > 0):
        return None
    return float(np.median(told) / np.median(around) * np.median(here[seen[view.still]]))


def _everywhere(view: View, depths: Depths, depth: np.ndarray) -> Float[np.ndarray, "points frames 3"]:
    """Points of a body in every frame; where one is not seen it goes along with the rest of the body."""
    count, frames = depths.where[:, 0].max() + 1, view.seen.shape[1]
    points = np.full((count, frames, 3), np.nan)
    points[depths.where[:, 0], depths.where[:, 1]] = depths.origins + depth[:, None] * depths.rays
    points[_jumps(points)] = np.nan
    middle = np.nanmean(points, 1, keepdims=True)
    times = np.arange(frames)
    known = np.isfinite(points[..., 0])
    carried = np.zeros((frames, 3))
    some = known.any(0)
    carried[some] = np.nanmean((points - middle)[:, some], 0)
    carried = np.stack([np.interp(times, times[some], carried[some, axis]) for axis in range(3)], 1)
    own = points - middle - carried
    for p in range(count):
        for axis in range(3):
            own[p, :, axis] = np.interp(times, times[known[p]], own[p, known[p], axis])
    return middle + carried + own


def _jumps(points: Float[np.ndarray, "points frames 3"], times: float = 8.0) -> Bool[np.ndarray, "points frames"]:
    """Observations that jump away from those before and after and back: outliers of the tracker."""
    bend = np.zeros(points.shape[:2])
    bend[:, 1:-1] = np.linalg.norm(points[:, :-2] - 2 * points[:, 1:-1] + points[:, 2:], axis=-1)
    bend = np.nan_to_num(bend)
    usual = np.median(bend[bend > 0]) if (bend > 0).any() else 0.0
    peak = bend.copy()
    peak[:, 1:] = np.maximum(peak[:, 1:], bend[:, :-1])
    peak[:, :-1] = np.maximum(peak[:, :-1], bend[:, 1:])
    jumps = (bend > times * usual) & (bend >= peak)
    return jumps & (np.isfinite(points[..., 0]).sum(1, keepdims=True) - jumps.sum(1, keepdims=True) >= 2)


def _as_clouds(
    prediction: Prediction, rows: Int[np.ndarray, " moving"], points: Float[Tensor, "moving frames 3"], noise: float
) -> Prediction:
    """Clouds and coefficients of the points that move, as many as keep what is left below the accuracy of tracks."""
    middle = points.mean(1)
    away = (points - middle.unsqueeze(1)).transpose(0, 1).flatten(1)
    u, s, v = torch.linalg.svd(away, full_matrices=False)
    depth = to_camera(middle, prediction.rotations[0], prediction.positions[0])[:, 2].abs().median()
    left = s.square().flip(0).cumsum(0).flip(0).div(points.size(0) * points.size(1)).sqrt()
    rank = int((left > noise * depth).sum())
    c = u[:, :rank] * len(u) ** 0.5
    basis = torch.zeros(len(prediction.static), 1 + rank, 3).to(points)
    basis[:, 0] = prediction.static
    basis[rows, 0] = middle
    basis[rows, 1:] = (s[:rank, None] * v[:rank] / len(u) ** 0.5).unflatten(1, (-1, 3)).transpose(0, 1)
    return prediction._replace(basis=basis, coefficients=torch.cat((torch.ones_like(u[:, :1]), c), 1))
