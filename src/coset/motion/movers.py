r"""Where moving things are, once cameras and what stands still are known.

A track that moves is a point on every ray it is seen along, at depths z_pn nobody sees. Depths of a body are the
smallest in a sum of squares, all linear in z, robustly re-weighted:

    X_pn = t_n + z_pn d_pn,
    sum |X_p,n+1 - X_pn - (c_n+1 - c_n)|^2 / v^2 + |c_n+1 - c_n|^2 / w^2 + |X_p,n+1 - 2 X_pn + X_p,n-1|^2 / a^2
        + |(X_p - X_q)_{n+1} - (X_p - X_q)_n|^2 / c^2 + (z_pn - z_qn)^2 / f^2
        + (mean over p of up . (X_p,n+N/2 - X_pn))^2 / h^2,     over s^2,

over points p, neighbours q, and the body's mean depth s. Without the last division nearer would always be stiller.
c_n is the way of the whole body, as free as the depths: what it travels counts once a frame. Were the travel of each
of its hundred points to count, a way along the rays, which the tracks tell faintly, would shrink to half.
The last term is there where a ground is seen: a steady way along the rays of a camera that moves steadily is told by
nothing else, and shows as one up or down the world. At a given s the depths are z_0 + s z_1; the best s has a closed
form, and shows where the camera travels more than the body: smoothness in the world tells them apart. Where it does
not, a body is taken to touch the ground, if one is seen, or to be where the network says, and its depth is said to be
unknown. No body is put behind static points that it hides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from torch import Tensor

from coset.motion.geometry import to_camera
from coset.motion.models.trackster4d import Prediction

AGAINST = 2.0
"""Times the cost of all else without the ground, from which on tracks speak against a body that goes along it."""


@dataclass(frozen=True)
class MoverOptions:
    """How bodies are placed; lengths are in shares of a body's depth.

    Attributes:
        step: v, travel of a point from a frame to the next, beside that of its body.
        way: w, travel of a body; counted once, however many points it has.
        bend: a, change of that travel.
        coherence: c, change of the difference of neighbours from a frame to the next.
        relief: f, difference of the depths of neighbours.
        rise: h, change of a body's mean height over the ground in half of the video, where a ground is seen.
        neighbours: Of each point.
        rounds: Of robust re-weighting.
        cut: Residuals count less beyond so many times the median.
        least: Points of a body; fewer that move are bad tracks.
        company: Share of a body's moving points among the nearest neighbours of one of them, in the median.
        sure: Standard deviation of the log of a body's depth above which the depth is unknown.
    """

    step: float = 0.04
    way: float = 0.01
    bend: float = 0.005
    coherence: float = 0.006
    relief: float = 0.5
    rise: float = 0.03
    neighbours: int = 8
    rounds: int = 3
    cut: float = 8.0
    least: int = 4
    company: float = 0.3
    sure: float = 0.15


@dataclass(frozen=True)
class Body:
    """Points that move together.

    Attributes:
        rows: Which points.
        depth: Mean depth.
        deviation: Standard deviation of its logarithm, as far as it is known.
        told_by: ``motion``, ``ground``, ``network`` or ``nothing``; then ``hidden points`` where these bounded it.
        known: Whether the depth is measured.
    """

    rows: Int[np.ndarray, " points"]
    depth: float
    deviation: float
    told_by: str
    known: bool


def moving_rows(gamma: Float[Tensor, " points"], noise: float) -> Bool[Tensor, " points"]:
    """Points that move: their motion level is above what tracking errors make, and above the others'.

    The one definition: cameras and lens are adjusted without them, bodies are made of them, pages and files name them.
    """
    return gamma > torch.maximum(torch.tensor(4 * noise).to(gamma), 2.5 * gamma.median())


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
        network: What the network says of the same tracks, for depths that nothing else tells.
        options: How.

    Returns:
        The prediction with as many clouds as the motion needs, and the bodies.
    """
    options = options or MoverOptions()
    scene = _Scene.of(prediction, tracks)
    mobile = adopted(scene, together(scene, moving_rows(prediction.gamma, noise).numpy(), options), options)
    still = prediction._replace(basis=prediction.basis[:, :1], coefficients=prediction.coefficients[:, :1])
    placed, bodies = [], []
    for rows in bodies_of(scene, mobile, options):
        depths = _Depths.of(scene, rows, options)
        scale, body = _scale(scene, depths, rows, network, options)
        placed.append(_everywhere(scene, depths, depths.at(scale)))
        bodies.append(body)
    if not bodies:
        return still, bodies
    rows = np.concatenate([body.rows for body in bodies])
    return _as_clouds(still, rows, torch.from_numpy(np.concatenate(placed)), noise), bodies


@dataclass(frozen=True)
class _Scene:
    """Cameras, static cloud, and the rays of all tracks, in NumPy."""

    rotations: Float[np.ndarray, "frames 3 3"]
    positions: Float[np.ndarray, "frames 3"]
    static: Float[np.ndarray, "points 3"]
    still: Bool[np.ndarray, " points"]
    restless: Bool[np.ndarray, " points"]
    flat: Float[np.ndarray, "points frames 2"]
    seen: Bool[np.ndarray, "points frames"]
    rays: Float[np.ndarray, "points frames 3"]

    @classmethod
    def of(cls, prediction: Prediction, tracks: Tensor) -> _Scene:
        flat, seen = tracks[..., :2].numpy(), tracks[..., 2].numpy() > 0.5
        rotations = prediction.rotations.numpy()
        rays = np.einsum("nij,pnj->pni", rotations, np.concatenate([flat, np.ones((*seen.shape, 1))], -1))
        levels = (prediction.gamma / prediction.gamma.median()).numpy()
        places = rotations, prediction.positions.numpy(), prediction.static.numpy()
        return cls(*places, levels < 1.5, levels > 2.5, flat, seen, rays)

    @cached_property
    def apart(self) -> Float[np.ndarray, "points points"]:
        """Distances of all points in the picture (:func:`_distances`)."""
        return _distances(self.flat, self.seen)

    @cached_property
    def nearest(self) -> Int[np.ndarray, "points points"]:
        """All points, the nearest to each first."""
        return np.argsort(self.apart, 1, kind="stable")

    def among(self, chosen: Bool[np.ndarray, " points"], neighbours: int) -> Float[np.ndarray, " points"]:
        """Share of the nearest neighbours of each point that are chosen."""
        order = self.nearest[:, :neighbours]
        within = np.isfinite(np.take_along_axis(self.apart, order, 1))
        return (chosen[order] & within).sum(1) / np.maximum(within.sum(1), 1)

    @cached_property
    def ground(self) -> tuple[np.ndarray, float] | None:
        """Normal (up) and offset of the plane that what stands still stands on, if one is seen."""
        return _ground(self)

    def sunk(self) -> Bool[np.ndarray, " points"]:
        """Static places well below the ground."""
        if self.ground is None:
            return np.zeros(len(self.static), bool)
        up, offset = self.ground
        return self.static @ up - offset < -0.06 * float(np.median(self.still_depth()[0]))

    def still_depth(self) -> tuple[Float[np.ndarray, "points frames"], Float[np.ndarray, "points frames 2"]]:
        """Depth and place in the picture of the static points in every frame."""
        inside = np.einsum("pni,nij->pnj", self.static[self.still][:, None] - self.positions, self.rotations)
        return inside[..., 2], inside[..., :2] / np.maximum(inside[..., 2:], 1e-9)


def together(scene: _Scene, moving: Bool[np.ndarray, " points"], options: MoverOptions) -> Bool[np.ndarray, " points"]:
    """Of the points that move those of groups that stand together; a few between still ones slid along an edge."""
    found = np.zeros_like(moving)
    share = scene.among(moving, options.neighbours)
    mobile = np.flatnonzero(moving)
    if not len(mobile):
        return found
    for group in _groups(scene.apart[np.ix_(mobile, mobile)])[0]:
        rows = mobile[group]
        found[rows] = np.median(share[rows]) >= options.company
    return found


def adopted(scene: _Scene, moving: Bool[np.ndarray, " points"], options: MoverOptions) -> Int[np.ndarray, " mobile"]:
    """Points that move, and those among them in the picture that hardly stand still.

    What moves along the rays of a camera that moves, or beside it, looks still at a depth that is not its own. Such
    points are told by their neighbours: they are not as still as others, and most points around them move.
    """
    mobile = moving.copy()
    if mobile.sum() < options.least:
        return np.flatnonzero(mobile)
    needed = np.where(scene.restless, 0.25, np.where(scene.still, np.inf, 0.5))
    needed[scene.sunk()] = 1 / options.neighbours
    for _ in range(10):
        more = ~mobile & (scene.among(mobile, options.neighbours) >= needed)
        if not more.any():
            break
        mobile |= more
    return np.flatnonzero(mobile)


def bodies_of(scene: _Scene, mobile: Int[np.ndarray, " points"], options: MoverOptions) -> list[np.ndarray]:
    """Moving points in groups that lie together in the picture.

    Groups too small for a body go with the nearest one, or are left out where there is none near.
    """
    if len(mobile) < options.least:
        return []
    distance = scene.apart[np.ix_(mobile, mobile)]
    groups, reach = _groups(distance)
    bodies = [rows for rows in groups if len(rows) >= options.least]
    for rows in groups:
        if bodies and len(rows) < options.least:
            apart = [float(distance[np.ix_(rows, body)].min()) for body in bodies]
            if min(apart) < 3 * reach:
                bodies[int(np.argmin(apart))] = np.concatenate([bodies[int(np.argmin(apart))], rows])
    return [mobile[np.sort(rows)] for rows in bodies]


def _groups(distance: Float[np.ndarray, "points points"]) -> tuple[list[np.ndarray], float]:
    """Points in groups that lie together, and within what distance of each other that is."""
    nearest = np.sort(distance, 1)[:, : min(3, len(distance) - 1)]
    finite = nearest[np.isfinite(nearest)]
    reach = max(4 * float(np.median(finite)), 0.06) if len(finite) else 0.0
    count, labels = connected_components(sparse.csr_matrix(distance < reach), directed=False)
    return [np.flatnonzero(labels == label) for label in range(count)], reach


def _distances(flat: np.ndarray, seen: np.ndarray) -> Float[np.ndarray, "points points"]:
    """Mean distance in the picture over common frames; infinite for points with fewer than 3, and to oneself."""
    both = (seen[:, None] & seen[None]).sum(-1)
    apart = np.zeros(both.shape)
    for n in range(seen.shape[1]):
        common = seen[:, n, None] & seen[None, :, n]
        apart += np.where(common, np.linalg.norm(flat[:, n, None] - flat[None, :, n], axis=-1), 0)
    apart = np.where(both >= 3, apart / np.maximum(both, 1), np.inf)
    np.fill_diagonal(apart, np.inf)
    return apart


@dataclass(frozen=True)
class _Depths:
    """The depths of a body's observations, least in its sum of squares for every mean depth: base + scale * slope.

    Attributes:
        where: Point (of the body) and frame of each observation.
        base, slope: Depths at mean depth 0, and what a unit of mean depth adds.
        scale: The best mean depth; infinite if the sum of squares falls to the end.
        deviation: Of its logarithm.
    """

    where: Int[np.ndarray, "observations 2"]
    base: Float[np.ndarray, " observations"]
    slope: Float[np.ndarray, " observations"]
    scale: float
    deviation: float
    origins: Float[np.ndarray, "observations 3"]
    rays: Float[np.ndarray, "observations 3"]

    @classmethod
    def of(cls, scene: _Scene, rows: np.ndarray, options: MoverOptions) -> _Depths:
        terms = _Terms(scene, rows, options)
        whole = terms.whole()
        solution = _least(whole, len(terms.where), options, np.ones(terms.height // 3))
        if terms.along_ground.any():
            free = _least(whole, len(terms.where), options, np.where(terms.along_ground, 0.0, 1.0))
            others, usual = ~terms.along_ground, options.cut * np.median(free.size[~terms.along_ground])
            costs = [np.log1p((found.size[others] / usual) ** 2).mean() for found in (solution, free)]
            # Where the tracks themselves tell of a way up or down, it is one.
            solution = solution if costs[0] < AGAINST * costs[1] else free
        deviation = _deviation(terms, whole, solution, stretches=max(scene.seen.shape[1] / 4, 1))
        return cls(terms.where, solution.base, solution.slope, solution.scale, deviation, terms.origins, terms.rays)

    def at(self, scale: float) -> Float[np.ndarray, " observations"]:
        return np.maximum(self.base + scale * self.slope, 0.05 * scale)

    def points(self, scale: float) -> Float[np.ndarray, "observations 3"]:
        return self.origins + self.at(scale)[:, None] * self.rays


class _Least(NamedTuple):
    """Depths that make a sum of squares least, base + scale * slope, and what is left of its differences there.

    Attributes:
        base, slope: See :class:`_Depths`.
        scale: The best mean depth.
        size: Length of each difference over the scale.
        weight: Of each difference in the last round.
    """

    base: Float[np.ndarray, " observations"]
    slope: Float[np.ndarray, " observations"]
    scale: float
    size: Float[np.ndarray, " differences"]
    weight: Float[np.ndarray, " differences"]


def _deviation(terms: _Terms, whole: tuple[sparse.csr_matrix, np.ndarray], solution: _Least, stretches: float) -> float:
    """Of the logarithm of the mean depth: how the body itself travels and swerves against how the camera does.

    The one tells the depth as far as it is small beside the other, over a few independent stretches of the video.
    """
    if not np.isfinite(solution.scale):
        return np.inf
    design, constant = whole
    told = 0.0
    for own in (terms.steps, terms.bends):
        depths = design[own, : len(terms.where)]  # of the points: the way of the whole body is among what they do
        camera = (depths @ solution.base + constant[own]) / solution.scale
        body, wide = camera + depths @ solution.slope, np.repeat(solution.weight, 3)[own]
        told += stretches * (wide * camera * camera).sum() / max((wide * body * body).sum(), 1e-30)
    return float(told**-0.5) if told else np.inf


def _least(
    whole: tuple[sparse.csr_matrix, np.ndarray],
    observations: int,
    options: MoverOptions,
    start: Float[np.ndarray, " differences"],
) -> _Least:
    """Robustly re-weighted, from weights of which those that are 0 stay 0; depths are the first unknowns."""
    design, constant = whole
    depths = np.arange(design.shape[1]) < observations
    weight = start
    for _ in range(options.rounds + 1):
        used, wide = weight, np.repeat(weight, 3)
        weighted = sparse.diags(wide) @ design
        normal = (design.T @ weighted).tocsc()
        normal = normal + 1e-6 * normal.diagonal().mean() * sparse.identity(normal.shape[0], format="csc")
        factor = splu(normal)
        slope = factor.solve(depths.astype(float))
        slope = slope / slope[depths].mean()
        base = -factor.solve(weighted.T @ constant)
        base = base - base[depths].mean() * slope
        fixed, moving = design @ base + constant, design @ slope
        # |fixed + s moving|^2 / s^2 is a parabola in 1 / s.
        travel, cross = (wide * fixed * fixed).sum(), (wide * fixed * moving).sum()
        scale = -travel / cross if cross < 0 else np.inf
        left = fixed / scale + moving
        size = np.linalg.norm(left.reshape(-1, 3), axis=1)
        middle = np.median(size[start > 0])
        weight = start * (1 + (size / max(options.cut * middle, 1e-12)) ** 2) ** -2
    return _Least(base[depths], slope[depths], float(scale), size, used)


class _Terms:
    """Rows of the sum of squares, three to a difference in space."""

    def __init__(self, scene: _Scene, rows: np.ndarray, options: MoverOptions):
        seen, self.options = scene.seen[rows], options
        self.where = np.argwhere(seen)
        self.number = np.full(seen.shape, -1)
        self.number[seen] = np.arange(len(self.where))
        self.all_rays = scene.rays[rows]
        self.rays, self.origins = self.all_rays[seen], scene.positions[self.where[:, 1]]
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.constants: list[np.ndarray] = []
        self.height = 0
        self._along_tracks()
        self._of_the_body()
        travelling = self.height // 3  # differences in time, before those of neighbours
        if scene.ground is not None:
            self._along_ground(scene.ground[0])
        self.along_ground = np.arange(self.height // 3) >= travelling
        self._between_neighbours(scene.apart[np.ix_(rows, rows)], seen)
        self.along_ground = np.pad(self.along_ground, (0, self.height // 3 - len(self.along_ground)))

    def whole(self) -> tuple[sparse.csr_matrix, np.ndarray]:
        shape = (self.height, len(self.where) + 3 * self.number.shape[1])
        down, across, values = (np.concatenate([part[i].ravel() for part in self.parts]) for i in range(3))
        constant = np.concatenate(self.constants)
        return sparse.csr_matrix((values, (down, across)), shape=shape), constant

    def _add(self, numbers: np.ndarray, factors: np.ndarray, constant: np.ndarray, weight: np.ndarray) -> None:
        """Rows weight * (sum_j factors_j z + constant): numbers [m, j], factors [m, j, 3], constant [m, 3]."""
        count, terms = numbers.shape
        down = (np.arange(3 * count).reshape(count, 1, 3) + self.height).repeat(terms, 1)
        self.parts.append((down, numbers[:, :, None].repeat(3, 2), factors * weight[:, None, None]))
        self.constants.append((constant * weight[:, None]).ravel())
        self.height += 3 * count

    def _along_tracks(self) -> None:
        point, frame = self.where.T
        first = np.flatnonzero(point[1:] == point[:-1])
        gap = frame[first + 1] - frame[first]
        numbers = np.stack([first, first + 1], 1)
        factors = np.stack([-self.rays[first], self.rays[first + 1]], 1)
        shift = self.origins[first + 1] - self.origins[first]
        whole, signs = self._whole(frame[first], frame[first + 1])
        numbers, factors = np.concatenate([numbers, whole], 1), np.concatenate([factors, -signs], 1)
        self._add(numbers, factors, shift, 1 / (self.options.step * np.sqrt(gap)))
        self.steps = slice(0, self.height)
        middle = np.flatnonzero((point[2:] == point[:-2]) & (frame[2:] - frame[:-2] == 2)) + 1
        numbers = np.stack([middle - 1, middle, middle + 1], 1)
        signs = np.array([1.0, -2.0, 1.0])
        bend = np.einsum("j,mji->mi", signs, self.origins[numbers])
        self._add(numbers, signs[:, None] * self.rays[numbers], bend, np.full(len(middle), 1 / self.options.bend))
        self.bends = slice(self.steps.stop, self.height)

    def _whole(self, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unknowns of the way of the whole body between frames, and their factors."""
        axes = np.arange(3)
        places = [len(self.where) + 3 * frame[:, None] + axes for frame in (first, last)]
        factors = np.concatenate([-np.eye(3), np.eye(3)])
        return np.concatenate(places, 1), np.broadcast_to(factors, (len(first), 6, 3))

    def _of_the_body(self) -> None:
        """The way of the whole body counts once, however many points it has."""
        frames = np.arange(self.number.shape[1] - 1)
        numbers, factors = self._whole(frames, frames + 1)
        weight = np.full(len(frames), 1 / self.options.way)
        self._add(numbers, factors, np.zeros((len(frames), 3)), weight)

    def _along_ground(self, up: np.ndarray) -> None:
        """Bodies go along the ground: a way up or down the rays shows as one up or down the world.

        Limbs and strides go up and down; over half of the video a body's mean height does so hardly.
        """
        number, half = self.number, self.number.shape[1] // 2
        both = (number[:, :-half] >= 0) & (number[:, half:] >= 0)
        for n in np.flatnonzero(both.sum(0) >= 3):
            p = np.flatnonzero(both[:, n])
            first, last = number[p, n], number[p, n + half]
            factors = np.zeros((1, 2 * len(p), 3))
            factors[0, :, 0] = np.concatenate([-self.rays[first] @ up, self.rays[last] @ up]) / len(p)
            rise = ((self.origins[last] - self.origins[first]) @ up).mean()
            weight = np.array([np.sqrt(len(p)) / self.options.rise])
            self._add(np.concatenate([first, last])[None], factors, np.array([[rise, 0.0, 0.0]]), weight)

    def _between_neighbours(self, apart: Float[np.ndarray, "points points"], seen: np.ndarray) -> None:
        near = np.argsort(apart, 1, kind="stable")[:, : self.options.neighbours]
        i, j = np.repeat(np.arange(len(near)), near.shape[1]), near.ravel()
        known = np.isfinite(apart[i, j])
        pairs = np.unique(np.sort(np.stack([i[known], j[known]], 1), 1), axis=0)
        if not len(pairs):
            return
        p, q = pairs.T
        share = np.sqrt(self.options.neighbours) * (0.5 + apart[p, q] / np.median(apart[p, q]))
        row, n = np.nonzero(seen[p, :-1] & seen[p, 1:] & seen[q, :-1] & seen[q, 1:])
        a, b = p[row], q[row]
        numbers = np.stack([self.number[k, m] for m in (n + 1, n) for k in (a, b)], 1)
        signs = np.array([1.0, -1.0, -1.0, 1.0])
        weight = 1 / (self.options.coherence * share[row])
        self._add(numbers, signs[:, None] * self.rays[numbers], np.zeros((len(row), 3)), weight)
        row, n = np.nonzero(seen[p] & seen[q])
        numbers = np.stack([self.number[p[row], n], self.number[q[row], n]], 1)
        factors = np.zeros((len(row), 2, 3))
        factors[:, :, 0] = [1.0, -1.0]
        self._add(numbers, factors, np.zeros((len(row), 3)), 1 / (self.options.relief * share[row]))


def _scale(
    scene: _Scene, depths: _Depths, rows: np.ndarray, network: Prediction | None, options: MoverOptions
) -> tuple[float, Body]:
    """The mean depth of a body, from what tells it best, and not behind what it hides."""
    scale, deviation, told = depths.scale, depths.deviation, "motion"
    if not deviation <= options.sure:
        scale, deviation, told = _without_motion(scene, depths, rows, network)
    bound = _hidden(scene, depths, rows)
    if bound is not None and bound < scale:
        scale, told = bound, f"{told}, hidden points"
    return scale, Body(rows, float(scale), float(deviation), told, deviation <= options.sure)


def _without_motion(
    scene: _Scene, depths: _Depths, rows: np.ndarray, network: Prediction | None
) -> tuple[float, float, str]:
    """The mean depth of a body whose own motion hides it: on the ground, or where the network says, or mid-scene."""
    touching = None if scene.ground is None else _touching(depths, *scene.ground)
    if touching is not None:
        return touching, 0.2, "ground"
    guess = None if network is None else _by_network(scene, rows, network)
    if guess is not None:
        return guess, 0.4, "network"
    return float(np.median(scene.still_depth()[0][scene.seen[scene.still]])), 1.0, "nothing"


def _ground(scene: _Scene) -> tuple[np.ndarray, float] | None:
    """Normal (up) and offset of the plane that many static points lie on and hardly any below, if there is one."""
    points = scene.static[scene.still]
    if len(points) < 20:
        return None
    up = -scene.rotations[:, :, 1].mean(0)
    near = 0.02 * float(np.median(scene.still_depth()[0]))
    draw = np.random.default_rng(0)
    best: tuple[int, np.ndarray, float] | None = None
    for _ in range(300):
        a, b, c = points[draw.choice(len(points), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal)
        if length < 1e-12:
            continue
        normal = normal / length * np.sign(normal @ up)
        height = points @ normal - normal @ a
        upright = normal @ up > 0.75 * np.linalg.norm(up)
        if upright and (scene.positions @ normal > normal @ a).all() and (height < -3 * near).mean() < 0.1:
            on = int((np.abs(height) < near).sum())
            if best is None or on > best[0]:
                best = on, normal, float(normal @ a)
    return None if best is None or best[0] < 0.15 * len(points) else (best[1], best[2])


def _touching(depths: _Depths, normal: np.ndarray, offset: float) -> float | None:
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


def _hidden(scene: _Scene, depths: _Depths, rows: np.ndarray, least: int = 6) -> float | None:
    """The mean depth from which on a body hides static points that truly vanish where it is seen.

    Static points that lie, in a frame, among points of the body are sorted by the mean depth that would put the body
    just behind them. Points before a body are seen but for a few that trackers lose; where most of those at like depths
    are gone and seen again later, the body is before them.
    """
    depth, places = scene.still_depth()
    seen, body, shown = scene.seen[scene.still], scene.flat[rows], scene.seen[rows]
    before, after = np.maximum.accumulate(seen, 1), np.maximum.accumulate(seen[:, ::-1], 1)[:, ::-1]
    reach = float(np.median(_distances(body, shown).min(1))) * 2
    unit = np.full(shown.shape, np.nan)
    unit[shown] = depths.at(depths.scale) / depths.scale if np.isfinite(depths.scale) else depths.at(1.0)
    found = []
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


def _by_network(scene: _Scene, rows: np.ndarray, network: Prediction) -> float | None:
    """The body's depth over that of the static points, as the network sees them, times the depth of these here."""
    inside = to_camera(network.static.unsqueeze(1), network.rotations, network.positions)[..., 2].numpy()
    here, seen = scene.still_depth()[0], scene.seen
    told = inside[rows][seen[rows]]
    around = inside[scene.still][seen[scene.still]]
    if not (len(around) and np.median(around) > 0 and np.median(told) > 0):
        return None
    return float(np.median(told) / np.median(around) * np.median(here[seen[scene.still]]))


def _everywhere(scene: _Scene, depths: _Depths, depth: np.ndarray) -> Float[np.ndarray, "points frames 3"]:
    """Points of a body in every frame; where one is not seen it goes along with the rest of the body."""
    count, frames = depths.where[:, 0].max() + 1, scene.seen.shape[1]
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
