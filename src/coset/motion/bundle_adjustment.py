r"""Bundle adjustment of a predicted reconstruction: the same Cauchy likelihood, minimised over cameras and points.

Two stages, as the losses have two. Cameras (R, t) and static cloud B_1 by sparse Levenberg-Marquardt with the points
eliminated (Schur complement), on

    sum log(gamma_p + r_s^2 / gamma_p),     re-weighted: w = 1 / (gamma_p^2 + r_s^2),

each gamma_p at its own optimum in between. Then, cameras and B_1 held, coefficients c and clouds B_2..B_K by
alternating linear least squares on (u Y_z - Y_x, v Y_z - Y_y) = 0, with clouds held small in proportion to gamma and
coefficients held smooth in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coset.motion.geometry import NEAREST, project, rotation_from_vector, skew, to_camera
from coset.motion.losses import observed
from coset.motion.models.trackster4d import Prediction


@dataclass(frozen=True)
class BundleOptions:
    """How to refine.

    Attributes:
        iterations: Levenberg-Marquardt steps.
        sweeps: Alternations between clouds and coefficients.
        noise: Least gamma: the accuracy of a track in normalised coordinates; half a pixel of a 640-pixel picture.
        stiffness: How much clouds B_2..B_K are held small; larger moves points less.
        smoothness: How much coefficients are held smooth in time.
    """

    iterations: int = 100
    sweeps: int = 12
    noise: float = 8e-4
    stiffness: float = 1e-3
    smoothness: float = 0.3


def bundle_adjust(
    prediction: Prediction,
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions | None = None,
    each: Callable[[], object] = lambda: None,
) -> Prediction:
    """Refine a prediction on its own tracks; in float64 within, focal lengths kept.

    Args:
        prediction: Where to start.
        tracks: (x, y, visible), normalised.
        options: How.
        each: Called after every step.
    """
    options = options or BundleOptions()
    kept = prediction.positions.dtype
    prediction = Prediction(*(part.detach().double() for part in prediction))
    tracks = tracks.double()
    scaled = torch.cat((tracks[..., :2] / prediction.focal[:, None], tracks[..., 2:]), -1)
    refined = adjust_cameras(prediction, scaled, options, each)
    refined = adjust_motion(refined, scaled, options, each)
    return Prediction(*(part.to(kept) for part in refined))


def adjust_cameras(
    prediction: Prediction,
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    each: Callable[[], object] = lambda: None,
) -> Prediction:
    """Cameras, static cloud and motion levels, by Levenberg-Marquardt."""
    seen = tracks[..., 2] > 0.5
    p, n = seen.nonzero(as_tuple=True)
    target = tracks[..., :2][p, n]
    rotations, positions, points = prediction.rotations, prediction.positions, prediction.static
    squared = _residuals(rotations, positions, points, p, n, target)[0].square().sum(-1)
    gamma = motion_levels(squared, p, prediction.gamma, options.noise)
    damping = 1e-3
    for _ in range(options.iterations):
        cost = _cost(squared, gamma[p])
        residual, inside = _residuals(rotations, positions, points, p, n, target)
        weight = 1 / (gamma[p] ** 2 + squared)
        system = _system(residual, inside, rotations[n], weight, p, n, len(points), len(positions))
        while True:
            camera_step, point_step = _solve(*system, damping)
            new_rotations = rotations @ rotation_from_vector(camera_step[:, :3])
            new_positions = positions + (rotations @ camera_step[:, 3:, None]).squeeze(-1)
            new_points = points + point_step
            trial = _residuals(new_rotations, new_positions, new_points, p, n, target)[0].square().sum(-1)
            better = bool(_cost(trial, gamma[p]) < cost)
            damping = max(damping / 4, 1e-9) if better else damping * 6
            if better or damping > 1e6:
                break
        if not better:
            break
        gain = float(cost - _cost(trial, gamma[p]))
        rotations, positions = new_rotations, new_positions
        points = _brought_before(rotations, positions, new_points, p, n, target)
        squared = _residuals(rotations, positions, points, p, n, target)[0].square().sum(-1)
        gamma = motion_levels(squared, p, gamma, options.noise)
        each()
        if gain < 1e-7 * len(p):
            break
    basis = torch.cat((points.unsqueeze(1), prediction.basis[:, 1:]), 1)
    return prediction._replace(rotations=rotations, positions=positions, basis=basis, gamma=gamma)


def motion_levels(
    squared: Float[Tensor, " observations"], p: Tensor, start: Float[Tensor, " points"], least: float, rounds: int = 8
) -> Float[Tensor, " points"]:
    """The gamma of each point that minimises its share of L_static: sum r^2 / (gamma^2 + r^2) = observations / 2."""
    gamma2 = start.clamp(min=least) ** 2
    count = torch.zeros_like(gamma2).index_add_(0, p, torch.ones_like(squared))
    for _ in range(rounds):
        share = torch.zeros_like(gamma2).index_add_(0, p, squared / (gamma2[p] + squared))
        gamma2 = torch.where(count > 0, gamma2 * (2 * share / count.clamp(min=1)), gamma2).clamp(min=least**2)
    return gamma2.sqrt()


def adjust_motion(
    prediction: Prediction,
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    each: Callable[[], object] = lambda: None,
) -> Prediction:
    """Coefficients and moving clouds, cameras and static cloud held."""
    count = prediction.basis.size(1) - 1
    if count == 0:
        return prediction
    seen = tracks[..., 2] > 0.5
    rows, target, depth = _linear_rows(prediction, tracks)
    clouds, c = _start(prediction, seen, rows, target, depth, count)
    # A cloud B_k of a point may be as large as its gamma, seen at its depth, allows.
    allowed = (prediction.gamma * depth.median(1).values).clamp(min=1e-9)
    for _ in range(options.sweeps):
        residual = torch.einsum("pnad,pnd->pna", rows, torch.einsum("nk,pkd->pnd", c, clouds)) - target
        weight = seen / (options.noise**2 + residual.square().sum(-1))
        clouds = _solve_clouds(rows, target, weight, c, options.stiffness / (allowed**2 * options.noise**2) * 1e-1)
        c = _solve_coefficients(rows, target, weight, clouds, options.smoothness)
        scale = c.square().mean(0).sqrt().clamp(min=1e-12)
        c, clouds = c / scale, clouds * scale[:, None]
        each()
    basis = torch.cat((prediction.basis[:, :1], clouds), 1)
    moved = prediction._replace(basis=basis, coefficients=torch.cat((torch.ones_like(c[:, :1]), c), 1))
    return _kept_where_better(moved, tracks, depth)


def static_cost(prediction: Prediction, tracks: Float[Tensor, "points frames 3"]) -> float:
    """Mean of the Cauchy likelihood that :func:`adjust_cameras` makes small; lower is better, whatever the start."""
    p, n = (tracks[..., 2] > 0.5).nonzero(as_tuple=True)
    target = tracks[..., :2][p, n]
    squared = (
        _residuals(prediction.rotations, prediction.positions, prediction.static, p, n, target)[0].square().sum(-1)
    )
    return float(_cost(squared, prediction.gamma[p])) / len(p)


def _brought_before(
    rotations: Tensor, positions: Tensor, points: Tensor, p: Tensor, n: Tensor, target: Tensor
) -> Tensor:
    """Points that lie behind a camera that sees them go onto the ray of that sight, at the median depth."""
    inside = to_camera(points[p], rotations[n], positions[n])
    typical = inside[:, 2].median().clamp(min=NEAREST)
    behind = inside[:, 2] < 0.02 * typical
    if not behind.any():
        return points
    rays = torch.cat((target[behind], torch.ones_like(target[behind, :1])), 1) * typical
    fresh = (rotations[n[behind]] @ rays.unsqueeze(-1)).squeeze(-1) + positions[n[behind]]
    return points.index_copy(0, p[behind], fresh)


def _kept_where_better(prediction: Prediction, tracks: Tensor, depth: Tensor) -> Prediction:
    """Moving clouds only of points that stay well before the cameras and are seen better with them than without."""
    seen = tracks[..., 2] > 0.5
    where, moving_depth = observed(prediction.points(), prediction._replace(focal=torch.ones_like(prediction.focal)))
    still = project(to_camera(prediction.static.unsqueeze(1), prediction.rotations, prediction.positions))
    errors = [torch.where(seen, (w - tracks[..., :2]).norm(dim=-1), 0.0).sum(1) for w in (where, still)]
    near = (moving_depth < 0.2 * depth).any(1)
    keep = (errors[0] < errors[1]) & ~near
    basis = torch.where(keep[:, None, None], prediction.basis[:, 1:], 0.0)
    return prediction._replace(basis=torch.cat((prediction.basis[:, :1], basis), 1))


def _linear_rows(prediction: Prediction, tracks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows a_ip [P, N, 2, 3] and right sides with a_ip . (X - B_1) = target for the X that is seen there; and depths.

    (x r_3 - r_1) . (X - t) = 0, over the static depth, so that a residual is about an image distance.
    """
    axes = prediction.rotations.transpose(-1, -2)
    inside = to_camera(prediction.static.unsqueeze(1), prediction.rotations, prediction.positions)
    depth = inside[..., 2].clamp(min=NEAREST)
    rows = (axes[:, :2] - tracks[..., :2, None] * axes[:, None, 2]) / depth[..., None, None]
    target = -torch.einsum("pnad,pnd->pna", rows, prediction.static.unsqueeze(1) - prediction.positions)
    return rows, target, depth


def _start(
    prediction: Prediction, seen: Bool[Tensor, "points frames"], rows: Tensor, target: Tensor, depth: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Clouds and coefficients from the smallest displacements that explain the tracks, by a low-rank fit."""
    least = torch.linalg.pinv(rows) @ target.unsqueeze(-1)
    displacement = torch.where(seen.unsqueeze(-1), least.squeeze(-1), torch.zeros_like(least[..., 0]))
    # Where a point is not seen it is where it was seen last, or first: a hold, not a jump back to B_1.
    frames = torch.arange(seen.size(1)).to(seen.device)
    last = torch.where(seen, frames, torch.full_like(frames, -1)).cummax(1).values
    first = seen.to(torch.uint8).argmax(1, keepdim=True)
    held = displacement.gather(1, torch.where(last < 0, first, last).unsqueeze(-1).expand_as(displacement))
    limit = (3 * prediction.gamma * depth.median(1).values)[:, None, None]
    held = held * (limit / held.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    u, s, v = torch.linalg.svd(held.transpose(0, 1).flatten(1), full_matrices=False)
    rank = min(count, len(s))
    c = torch.zeros(seen.size(1), count).to(held)
    clouds = torch.zeros(seen.size(0), count, 3).to(held)
    c[:, :rank] = u[:, :rank] * len(u) ** 0.5
    clouds[:, :rank] = (s[:rank, None] * v[:rank] / len(u) ** 0.5).unflatten(1, (-1, 3)).transpose(0, 1)
    return clouds, c


def _solve_clouds(rows: Tensor, target: Tensor, weight: Tensor, c: Tensor, ridge: Tensor) -> Tensor:
    """B_2..B_K of every point, given coefficients."""
    design = torch.einsum("pnad,nk->pnakd", rows, c).flatten(3).flatten(1, 2)
    w = weight.repeat_interleave(2, 1).unsqueeze(-1)
    left = (design * w).transpose(1, 2) @ design
    left = left + torch.diag_embed(
        (ridge[:, None] + 1e-9 * left.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)).expand(-1, left.size(1))
    )
    right = (design * w).transpose(1, 2) @ target.flatten(1).unsqueeze(-1)
    return torch.linalg.solve(left, right).squeeze(-1).unflatten(1, (-1, 3))


def _solve_coefficients(rows: Tensor, target: Tensor, weight: Tensor, clouds: Tensor, smoothness: float) -> Tensor:
    """Coefficients of all frames, given clouds; squared second differences in time are held small."""
    design = torch.einsum("pnad,pkd->npak", rows, clouds).flatten(1, 2)
    w = weight.T.repeat_interleave(2, 1).unsqueeze(-1)
    left = (design * w).transpose(1, 2) @ design
    right = ((design * w).transpose(1, 2) @ target.transpose(0, 1).flatten(1).unsqueeze(-1)).squeeze(-1)
    frames, count = right.shape
    scale = left.diagonal(dim1=1, dim2=2).mean(0).clamp(min=1e-12)
    difference = torch.zeros(max(frames - 2, 0), frames).to(left)
    index = torch.arange(difference.size(0))
    for offset, value in ((0, 1.0), (1, -2.0), (2, 1.0)):
        difference[index, index + offset] = value
    bend = difference.T @ difference + 1e-3 * torch.eye(frames).to(left)
    whole = torch.einsum("nm,kl->nkml", torch.zeros_like(bend), torch.zeros_like(left[0]))
    whole[torch.arange(frames), :, torch.arange(frames), :] = left
    whole = whole + smoothness * torch.einsum("nm,kl->nkml", bend, torch.diag(scale))
    solved = torch.linalg.solve(whole.reshape(frames * count, -1), right.reshape(-1))
    return solved.view(frames, count)


def _residuals(
    rotations: Tensor, positions: Tensor, points: Tensor, p: Tensor, n: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    inside = to_camera(points[p], rotations[n], positions[n])
    return project(inside) - target, inside


def _cost(squared: Tensor, gamma: Tensor) -> Tensor:
    return (gamma + squared / gamma).log().sum()


def _system(
    residual: Tensor, inside: Tensor, rotations: Tensor, weight: Tensor, p: Tensor, n: Tensor, points: int, frames: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Normal equations in blocks: cameras, points, between them, and the right sides."""
    z = inside[:, 2].clamp(min=NEAREST)
    zero, slope = torch.zeros_like(z), inside[:, :2] / z.square().unsqueeze(-1)
    of_inside = torch.stack((1 / z, zero, -slope[:, 0], zero, 1 / z, -slope[:, 1]), -1).unflatten(-1, (2, 3))
    # R <- R exp([w]_x) moves Y by Y x w; t <- t + R s moves it by -s; X moves it by R^T.
    of_camera = of_inside @ torch.cat((skew(inside), -torch.eye(3).to(inside).expand(len(p), 3, 3)), -1)
    of_point = of_inside @ rotations.transpose(-1, -2)
    weighted_camera, weighted_point = of_camera * weight[:, None, None], of_point * weight[:, None, None]
    cameras = inside.new_zeros(frames, 6, 6).index_add_(0, n, weighted_camera.mT @ of_camera)
    blocks = inside.new_zeros(points, 3, 3).index_add_(0, p, weighted_point.mT @ of_point)
    between = inside.new_zeros(frames * points, 6, 3).index_add_(0, n * points + p, weighted_camera.mT @ of_point)
    right_cameras = inside.new_zeros(frames, 6).index_add_(0, n, -(weighted_camera.mT @ residual[..., None])[..., 0])
    right_points = inside.new_zeros(points, 3).index_add_(0, p, -(weighted_point.mT @ residual[..., None])[..., 0])
    return cameras, blocks, between.view(frames, points, 6, 3), right_cameras, right_points


def _solve(
    cameras: Tensor, blocks: Tensor, between: Tensor, right_cameras: Tensor, right_points: Tensor, damping: float
) -> tuple[Tensor, Tensor]:
    """A damped step: points are eliminated, cameras solved for, points put back."""
    frames, points = between.shape[:2]
    inverse = torch.linalg.inv(_damped(blocks, damping))
    wide = between.transpose(1, 2).reshape(frames * 6, points * 3)
    reduced = (between @ inverse).transpose(1, 2).reshape(frames * 6, points * 3)
    whole = torch.block_diag(*_damped(cameras, damping)) - reduced @ wide.T
    right = right_cameras.reshape(-1) - reduced @ right_points.reshape(-1)
    camera_step = torch.linalg.lstsq(whole, right.unsqueeze(-1)).solution.view(frames, 6)
    back = right_points - torch.einsum("npci,nc->pi", between, camera_step)
    return camera_step, (inverse @ back.unsqueeze(-1)).squeeze(-1)


def _damped(blocks: Tensor, damping: float) -> Tensor:
    diagonal = blocks.diagonal(dim1=-2, dim2=-1)
    floor = 1e-9 * diagonal.mean().clamp(min=1e-30)
    return blocks + torch.diag_embed(damping * diagonal + floor)
