r"""Bundle adjustment of a predicted reconstruction: the same Cauchy likelihood, minimised over cameras and points.

Two stages, as the losses have two. Cameras (R, t) and static cloud B_1 by sparse Levenberg-Marquardt with the points
eliminated (Schur complement), on

    sum log(gamma_p + r_s^2 / gamma_p),     re-weighted: w = 1 / (gamma_p^2 + r_s^2),

each gamma_p at its own optimum in between. Cameras may share an unknown lens, (u, v) -> f (1 + k (u^2 + v^2)) (u, v),
and may be held in one place, where points are directions only. Then, cameras and B_1 held, what moves is placed
(:mod:`coset.motion.movers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coset.motion.geometry import NEAREST, project, rotation_from_vector, skew, to_camera
from coset.motion.models.trackster4d import Prediction
from coset.motion.movers import moving_rows, place_movers

STILL = 12  # still points that every frame must see, for what moves to be left out


@dataclass(frozen=True)
class BundleOptions:
    """How to refine.

    Attributes:
        iterations: Levenberg-Marquardt steps.
        noise: Least gamma: the accuracy of a track in normalised coordinates; half a pixel of a 640-pixel picture.
    """

    iterations: int = 100
    noise: float = 8e-4


class Lens(NamedTuple):
    """What cameras share: (u, v) in normalised coordinates is seen at f (1 + k (u^2 + v^2)) (u, v).

    Attributes:
        focal: f, in the units of the tracks; 1 where they are normalised.
        radial: k.
    """

    focal: Float[Tensor, ""]
    radial: Float[Tensor, ""]

    def picture(self, flat: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Where normalised coordinates are seen."""
        return self.focal * (1 + self.radial * flat.square().sum(-1, keepdim=True)) * flat

    def normalised(self, picture: Float[Tensor, "*batch 2"], rounds: int = 20) -> Float[Tensor, "*batch 2"]:
        """The inverse of :meth:`picture`, by fixed-point iteration."""
        straight = picture / self.focal
        flat = straight
        if self.radial == 0:
            return flat
        for _ in range(rounds):
            flat = straight / (1 + self.radial * flat.square().sum(-1, keepdim=True)).clamp(min=0.1)
        return flat


PINHOLE = Lens(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


@dataclass(frozen=True)
class Unknowns:
    """What an adjustment may change besides rotations and directions of points.

    Attributes:
        lens: Numbers of the lens: 0 holds it, 1 frees the focal length, 2 the radial distortion too.
        places: Whether cameras move and points have depths.
    """

    lens: int = 0
    places: bool = True


def bundle_adjust(
    prediction: Prediction,
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions | None = None,
    each: Callable[[], object] = lambda: None,
    network: Prediction | None = None,
) -> Prediction:
    """Refine a prediction on its own tracks; in float64 within, focal lengths kept.

    Args:
        prediction: Where to start.
        tracks: (x, y, visible), normalised.
        options: How.
        each: Called after every step.
        network: What a trained network says of the same tracks, to place what moves by: the start, if it is one's.
    """
    options = options or BundleOptions()
    kept = prediction.positions.dtype
    prediction = Prediction(*(part.detach().double() for part in prediction))
    tracks = tracks.double()
    scaled = torch.cat((tracks[..., :2] / prediction.focal[:, None], tracks[..., 2:]), -1)
    refined = adjust_cameras(prediction, scaled, options, each)
    if network is not None:
        network = Prediction(*(part.detach().double() for part in network))
    refined, _ = place_movers(refined, scaled, options.noise, network)
    return Prediction(*(part.to(kept) for part in refined))


def adjust_cameras(
    prediction: Prediction,
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    each: Callable[[], object] = lambda: None,
) -> Prediction:
    """Cameras, static cloud and motion levels, by Levenberg-Marquardt."""
    return adjust_with_lens(prediction, PINHOLE, tracks, options, Unknowns(), each)[0]


def adjust_with_lens(
    prediction: Prediction,
    lens: Lens,
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    unknowns: Unknowns,
    each: Callable[[], object] = lambda: None,
) -> tuple[Prediction, Lens]:
    """As :func:`adjust_cameras`, seen through a lens that may be unknown too.

    Args:
        prediction: Where to start; with ``unknowns.places=False`` its cameras stay where they are.
        lens: Where its numbers start.
        tracks: (x, y, visible) about the principal point, in any units that ``lens`` and ``options.noise`` share.
        options: How; ``iterations`` steps at most.
        unknowns: What is free.
        each: Called after every step.
    """
    seen = tracks[..., 2] > 0.5
    p, n = seen.nonzero(as_tuple=True)
    target = tracks[..., :2][p, n]
    view = _View(prediction.rotations, prediction.positions, prediction.static, lens)
    squared = view.residuals(p, n, target)[0].square().sum(-1)
    gamma = motion_levels(squared, p, prediction.gamma, options.noise)
    damping = 1e-3
    for _ in range(options.iterations):
        cost = _cost(squared, gamma[p])
        residual, inside = view.residuals(p, n, target)
        system = _system(view, unknowns, residual, inside, 1 / (gamma[p] ** 2 + squared), p, n)
        while True:
            moved = view.moved(_solve(*system, damping), unknowns)
            trial = moved.residuals(p, n, target)[0].square().sum(-1)
            better = bool(_cost(trial, gamma[p]) < cost)
            damping = max(damping / 4, 1e-9) if better else damping * 6
            if better or damping > 1e6:
                break
        if not better:
            break
        gain = float(cost - _cost(trial, gamma[p]))
        view = moved._replace(points=_brought_before(moved, p, n, target))
        squared = view.residuals(p, n, target)[0].square().sum(-1)
        gamma = motion_levels(squared, p, gamma, options.noise)
        each()
        if gain < 1e-7 * len(p):
            break
    basis = torch.cat((view.points.unsqueeze(1), prediction.basis[:, 1:]), 1)
    placed = prediction._replace(rotations=view.rotations, positions=view.positions, basis=basis, gamma=gamma)
    return placed, view.lens


def adjust_among_still(
    prediction: Prediction,
    lens: Lens,
    tracks: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    unknowns: Unknowns,
    each: Callable[[], object] = lambda: None,
) -> tuple[Prediction, Lens, Tensor]:
    """As :func:`adjust_with_lens`, then once more on the points alone that do not move.

    The likelihood weighs a point that moves little and not by nothing; a body of many tracks still pulls the lens and
    the cameras after it. Where too few points stand still in some frame, all stay in.

    Returns:
        The prediction, in which points that move are where their rays come nearest to each other; the lens; and the
        rows of the points that it was adjusted on.
    """
    found, lens = adjust_with_lens(prediction, lens, tracks, options, unknowns, each)
    rows = still_rows(found.gamma, tracks, options.noise)
    if len(rows) == len(tracks):
        return found, lens, rows
    part, lens = adjust_with_lens(of_points(found, rows), lens, tracks[rows], options, unknowns, each)
    return among(part, rows, triangulate(part, lens, tracks, options.noise)), lens, rows


def still_rows(gamma: Float[Tensor, " points"], tracks: Float[Tensor, "points frames 3"], noise: float) -> Tensor:
    """Points that do not move; all, where some frame would be left with fewer than 12."""
    rows = (~moving_rows(gamma, noise)).nonzero().squeeze(1)
    enough = int((tracks[rows][..., 2] > 0.5).sum(0).min()) >= STILL
    return rows if enough else torch.arange(len(tracks))


def of_points(prediction: Prediction, rows: Tensor) -> Prediction:
    """The same of some points."""
    return prediction._replace(basis=prediction.basis[rows], gamma=prediction.gamma[rows])


def among(part: Prediction, rows: Tensor, whole: Prediction) -> Prediction:
    """The prediction of some points put in the place of theirs in one of all."""
    basis, gamma = whole.basis.clone(), whole.gamma.clone()
    basis[rows, :1], gamma[rows] = part.basis[:, :1], part.gamma
    return part._replace(basis=basis, coefficients=part.coefficients[:, :1], gamma=gamma)


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


def static_cost(prediction: Prediction, tracks: Float[Tensor, "points frames 3"], lens: Lens = PINHOLE) -> float:
    """Mean of the Cauchy likelihood that :func:`adjust_cameras` makes small; lower is better, whatever the start."""
    squared, p, _ = static_residuals(prediction, tracks, lens)
    return float(_cost(squared, prediction.gamma[p])) / len(p)


def static_residuals(
    prediction: Prediction, tracks: Float[Tensor, "points frames 3"], lens: Lens = PINHOLE
) -> tuple[Float[Tensor, " observations"], Tensor, Tensor]:
    """Squared distances of the static cloud's reprojections from what is seen; point and frame of each."""
    p, n = (tracks[..., 2] > 0.5).nonzero(as_tuple=True)
    view = _View(prediction.rotations, prediction.positions, prediction.static, lens)
    return view.residuals(p, n, tracks[..., :2][p, n])[0].square().sum(-1), p, n


def lens_deviations(
    prediction: Prediction, lens: Lens, tracks: Float[Tensor, "points frames 3"], unknowns: Unknowns
) -> list[float]:
    """Standard deviations of log f (and k) at a minimum of :func:`adjust_with_lens`, all other unknowns free.

    From the normal equations, with h = H^-1 e_f: the larger of sqrt(h_f) times the residuals' size, and of the square
    root of the sum over points of (h . gradient of the point's own cost)^2 (a sandwich by tracks), which is true to
    errors that are alike along a track, as a tracker's drift is.
    """
    squared, p, n = static_residuals(prediction, tracks, lens)
    view = _View(prediction.rotations, prediction.positions, prediction.static, lens)
    residual, inside = view.residuals(p, n, tracks[..., :2][p, n])
    weight = 1 / (prediction.gamma[p] ** 2 + squared)
    shared, cameras, points = view.slopes(inside, p, n, unknowns)
    system = _system(view, unknowns, residual, inside, weight, p, n)
    size = (weight * squared).mean() / 2
    deviations = []
    for number in range(unknowns.lens):
        step = _solve(*system.asking(number), 1e-11, torch.linalg.solve)
        along = shared @ step.lens + torch.einsum("oaf,of->oa", cameras, step.cameras[n])
        along = along + torch.einsum("oaf,of->oa", points, step.points[p])
        share = weight * (along * residual).sum(-1)
        by_point = torch.zeros(len(view.points)).to(residual).index_add_(0, p, share)
        # Where nothing in the tracks tells a number, its own entry of H^-1 is all that shows it.
        deviations.append(max(float(by_point.norm()), float((step.lens[number].clamp(min=0) * size).sqrt())))
    return deviations


def triangulate(cameras: Prediction, lens: Lens, tracks: Float[Tensor, "points frames 3"], noise: float) -> Prediction:
    """Known cameras with the static cloud that all tracks are rays to, by re-weighted linear least squares."""
    seen = (tracks[..., 2] > 0.5).double()
    flat = lens.normalised(tracks[..., :2])
    axes = cameras.rotations.transpose(-1, -2)
    rows = axes[:, :2] - flat[..., None] * axes[:, None, 2]
    target = torch.einsum("pnad,nd->pna", rows, cameras.positions)
    depth = to_camera(cameras.static.unsqueeze(1), cameras.rotations, cameras.positions)[..., 2].median()
    weight, ridge = seen, 1e-6 * torch.eye(3).to(rows)
    middle = cameras.positions.mean(0) + depth * torch.nn.functional.normalize(axes[:, 2].sum(0), dim=0)
    points = middle.expand(len(tracks), 3)
    for _ in range(4):
        left = torch.einsum("pn,pnai,pnaj->pij", weight, rows, rows) + ridge
        right = torch.einsum("pn,pnai,pna->pi", weight, rows, target) + ridge @ middle
        points = torch.linalg.solve(left, right)
        away = (torch.einsum("pnai,pi->pna", rows, points) - target).norm(dim=-1)
        inside = to_camera(points.unsqueeze(1), cameras.rotations, cameras.positions)[..., 2].clamp(min=0.1 * depth)
        weight = seen / (noise**2 + (away / inside) ** 2) / inside**2
        weight = weight / weight.amax(1, keepdim=True).clamp(min=1e-30)
    levels = (away / inside * lens.focal * seen).sum(1) / seen.sum(1).clamp(min=1)
    return cameras._replace(basis=points.unsqueeze(1), gamma=levels.clamp(min=noise))


def _brought_before(view: _View, p: Tensor, n: Tensor, target: Tensor) -> Tensor:
    """Points that lie behind a camera that sees them go onto the ray of that sight, at the median depth."""
    inside = to_camera(view.points[p], view.rotations[n], view.positions[n])
    typical = inside[:, 2].median().clamp(min=NEAREST)
    behind = inside[:, 2] < 0.02 * typical
    if not behind.any():
        return view.points
    flat = view.lens.normalised(target[behind])
    rays = torch.cat((flat, torch.ones_like(flat[:, :1])), 1) * typical
    fresh = (view.rotations[n[behind]] @ rays.unsqueeze(-1)).squeeze(-1) + view.positions[n[behind]]
    return view.points.index_copy(0, p[behind], fresh)


class _Step(NamedTuple):
    """A step, or a right side, in all unknowns."""

    lens: Float[Tensor, " shared"]
    cameras: Float[Tensor, "frames six"]
    points: Float[Tensor, "points three"]


class _System(NamedTuple):
    """Normal equations in blocks; the lens is a border of the cameras."""

    cameras: Float[Tensor, "frames six six"]
    points: Float[Tensor, "points three three"]
    between: Float[Tensor, "frames points six three"]
    lens: Float[Tensor, "shared shared"]
    lens_cameras: Float[Tensor, "frames shared six"]
    lens_points: Float[Tensor, "points shared three"]
    right: _Step

    def asking(self, number: int) -> _System:
        """The same left side with a unit right side at a number of the lens."""
        right = _Step(*(torch.zeros_like(part) for part in self.right))
        right.lens[number] = 1
        return self._replace(right=right)


class _View(NamedTuple):
    """What is adjusted: R <- R exp([w]_x), t <- t + R s, X <- X + d, log f and k; or, in one place, X <- X + T d with
    T spanning the plane across the direction X."""

    rotations: Float[Tensor, "frames 3 3"]
    positions: Float[Tensor, "frames 3"]
    points: Float[Tensor, "points 3"]
    lens: Lens

    def residuals(self, p: Tensor, n: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Reprojections less targets, and points in the cameras' frames."""
        inside = to_camera(self.points[p], self.rotations[n], self.positions[n])
        return self.lens.picture(project(inside)) - target, inside

    def slopes(self, inside: Tensor, p: Tensor, n: Tensor, unknowns: Unknowns) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of residuals by lens [., 2, shared], camera [., 2, 6] and point [., 2, 3] (in one place 3, 2)."""
        z = inside[:, 2].clamp(min=NEAREST)
        zero, flat = torch.zeros_like(z), inside[:, :2] / z.unsqueeze(-1)
        slope = flat / z.unsqueeze(-1)
        of_inside = torch.stack((1 / z, zero, -slope[:, 0], zero, 1 / z, -slope[:, 1]), -1).unflatten(-1, (2, 3))
        focal, radial = self.lens
        size = flat.square().sum(-1)[:, None, None]
        stretch = (1 + radial * size) * torch.eye(2).to(flat) + 2 * radial * flat.unsqueeze(-1) * flat.unsqueeze(-2)
        of_inside = focal * stretch @ of_inside
        shared = torch.stack((self.lens.picture(flat), focal * size[..., 0] * flat), -1)[..., : unknowns.lens]
        # R <- R exp([w]_x) moves Y by Y x w; t <- t + R s moves it by -s; X moves it by R^T.
        of_points = of_inside @ self.rotations[n].transpose(-1, -2)
        if not unknowns.places:
            return shared, of_inside @ skew(inside), of_points @ self._across()[p]
        moves = torch.cat((skew(inside), -torch.eye(3).to(inside).expand(len(p), 3, 3)), -1)
        return shared, of_inside @ moves, of_points

    def moved(self, step: _Step, unknowns: Unknowns) -> _View:
        rotations = self.rotations @ rotation_from_vector(step.cameras[:, :3])
        lens = self.lens
        if unknowns.lens > 0:
            lens = lens._replace(focal=lens.focal * step.lens[0].clamp(-0.7, 0.7).exp())
        if unknowns.lens > 1:
            lens = lens._replace(radial=(lens.radial + step.lens[1]).clamp(-0.4, 0.4))
        if not unknowns.places:
            points = self.points + (self._across() @ step.points.unsqueeze(-1)).squeeze(-1)
            points = self.positions[:1] + torch.nn.functional.normalize(points - self.positions[:1], dim=-1)
            return _View(rotations, self.positions, points, lens)
        positions = self.positions + (self.rotations @ step.cameras[:, 3:, None]).squeeze(-1)
        return _View(rotations, positions, self.points + step.points, lens)

    def _across(self) -> Float[Tensor, "points 3 2"]:
        """Two axes across the direction in which each point is seen from the first camera's place."""
        rays = torch.nn.functional.normalize(self.points - self.positions[:1], dim=-1)
        spare = torch.nn.functional.one_hot(rays.abs().argmin(-1), 3).to(rays)
        first = torch.nn.functional.normalize(torch.linalg.cross(rays, spare), dim=-1)
        return torch.stack((first, torch.linalg.cross(rays, first)), -1)


def _cost(squared: Tensor, gamma: Tensor) -> Tensor:
    return (gamma + squared / gamma).log().sum()


def _system(
    view: _View, unknowns: Unknowns, residual: Tensor, inside: Tensor, weight: Tensor, p: Tensor, n: Tensor
) -> _System:
    """Normal equations of weighted residuals."""
    frames, points = len(view.positions), len(view.points)
    shared, of_camera, of_point = view.slopes(inside, p, n, unknowns)
    six, three = of_camera.size(-1), of_point.size(-1)
    weighted_camera, weighted_point = of_camera * weight[:, None, None], of_point * weight[:, None, None]
    weighted_shared, aim = shared * weight[:, None, None], -residual[..., None]

    def summed(index: Tensor, count: int, values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add_(0, index, values)

    between = summed(n * points + p, frames * points, weighted_camera.mT @ of_point)
    return _System(
        summed(n, frames, weighted_camera.mT @ of_camera),
        summed(p, points, weighted_point.mT @ of_point),
        between.view(frames, points, six, three),
        (weighted_shared.mT @ shared).sum(0),
        summed(n, frames, weighted_shared.mT @ of_camera),
        summed(p, points, weighted_shared.mT @ of_point),
        _Step(
            (weighted_shared.mT @ aim).sum(0)[:, 0],
            summed(n, frames, (weighted_camera.mT @ aim)[..., 0]),
            summed(p, points, (weighted_point.mT @ aim)[..., 0]),
        ),
    )


def _solve(
    cameras: Tensor,
    blocks: Tensor,
    between: Tensor,
    lens: Tensor,
    lens_cameras: Tensor,
    lens_points: Tensor,
    right: _Step,
    damping: float,
    solver: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> _Step:
    """A damped step: points are eliminated, cameras and lens solved for, points put back."""
    frames, points, six, three = between.shape
    shared = len(lens)
    inverse = torch.linalg.inv(_damped(blocks, damping))
    wide = between.transpose(1, 2).reshape(frames * six, points * three)
    reduced = (between @ inverse).transpose(1, 2).reshape(frames * six, points * three)
    whole = torch.block_diag(*_damped(cameras, damping)) - reduced @ wide.T
    aim = right.cameras.reshape(-1) - reduced @ right.points.reshape(-1)
    if shared:
        # The border: the lens is one more camera that sees every point.
        row = lens_points.transpose(0, 1).reshape(shared, points * three)
        thin = (lens_points @ inverse).transpose(0, 1).reshape(shared, points * three)
        corner = _damped(lens[None], damping)[0] - thin @ row.T
        edge = lens_cameras.transpose(0, 1).reshape(shared, frames * six) - thin @ wide.T
        whole = torch.cat((torch.cat((whole, edge.T), 1), torch.cat((edge, corner), 1)), 0)
        aim = torch.cat((aim, right.lens - thin @ right.points.reshape(-1)))
    solved = (_solved if solver is None else solver)(whole, aim)
    camera_step, lens_step = solved[: frames * six].view(frames, six), solved[frames * six :]
    back = right.points - torch.einsum("npci,nc->pi", between, camera_step)
    back = back - torch.einsum("psi,s->pi", lens_points, lens_step)
    return _Step(lens_step, camera_step, (inverse @ back.unsqueeze(-1)).squeeze(-1))


def _solved(system: Float[Tensor, "unknowns unknowns"], right: Float[Tensor, " unknowns"]) -> Tensor:
    """The solution, of least length where the damping leaves several.

    PyTorch's own driver of ``lstsq`` pivots by memory that it has not set, so that its last digits change from call to
    call; the others do not.
    """
    found, info = torch.linalg.solve_ex(system, right)
    if info == 0 and found.isfinite().all():
        return found
    return torch.linalg.lstsq(system, right.unsqueeze(-1), driver="gelsd").solution[:, 0]


def _damped(blocks: Tensor, damping: float) -> Tensor:
    diagonal = blocks.diagonal(dim1=-2, dim2=-1)
    floor = 1e-9 * diagonal.mean().clamp(min=1e-30)
    return blocks + torch.diag_embed(damping * diagonal + floor)
