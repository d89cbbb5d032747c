"""The depths of a body along its rays: the least of the sum of squares that :mod:`coset.motion.movers` writes down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.linalg import splu

from coset.motion.movers.options import MoverOptions
from coset.motion.movers.view import View

SYMMETRIC = {"SymmetricMode": True}
"""With the order of a symmetric matrix SuperLU takes a quarter of the time that it takes otherwise."""

AGAINST = 2.0
"""Times the cost of all else without the ground, from which on tracks speak against a body that goes along it."""


@dataclass(frozen=True)
class Depths:
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
    def of(cls, view: View, rows: np.ndarray, options: MoverOptions) -> Depths:
        terms = Terms(view, rows, options)
        whole = terms.whole()
        solution = _least(whole, len(terms.where), options, np.ones(terms.height // 3))
        if terms.along_ground.any():
            free = _least(whole, len(terms.where), options, np.where(terms.along_ground, 0.0, 1.0))
            others, usual = ~terms.along_ground, options.cut * np.median(free.size[~terms.along_ground])
            costs = [np.log1p((found.size[others] / usual) ** 2).mean() for found in (solution, free)]
            # Where the tracks themselves tell of a way up or down, it is one.
            solution = solution if costs[0] < AGAINST * costs[1] else free
        deviation = _deviation(terms, whole, solution, stretches=max(view.seen.shape[1] / 4, 1))
        return cls(terms.where, solution.base, solution.slope, solution.scale, deviation, terms.origins, terms.rays)

    def at(self, scale: float) -> Float[np.ndarray, " observations"]:
        return np.maximum(self.base + scale * self.slope, 0.05 * scale)

    def points(self, scale: float) -> Float[np.ndarray, "observations 3"]:
        return self.origins + self.at(scale)[:, None] * self.rays


class _Least(NamedTuple):
    """Depths that make a sum of squares least, base + scale * slope, and what is left of its differences there.

    Attributes:
        base, slope: See :class:`Depths`.
        scale: The best mean depth.
        size: Length of each difference over the scale.
        weight: Of each difference in the last round.
    """

    base: Float[np.ndarray, " observations"]
    slope: Float[np.ndarray, " observations"]
    scale: float
    size: Float[np.ndarray, " differences"]
    weight: Float[np.ndarray, " differences"]


def _deviation(terms: Terms, whole: tuple[sparse.csr_matrix, np.ndarray], solution: _Least, stretches: float) -> float:
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
        factor = splu(normal, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=SYMMETRIC)
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


class Terms:
    """Rows of the sum of squares, three to a difference in space."""

    def __init__(self, view: View, rows: np.ndarray, options: MoverOptions):
        seen, self.options = view.seen[rows], options
        self.where = np.argwhere(seen)
        self.number = np.full(seen.shape, -1)
        self.number[seen] = np.arange(len(self.where))
        self.all_rays = view.rays[rows]
        self.rays, self.origins = self.all_rays[seen], view.positions[self.where[:, 1]]
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.constants: list[np.ndarray] = []
        self.height = 0
        self._along_tracks()
        self._of_the_body()
        travelling = self.height // 3  # differences in time, before those of neighbours
        if view.ground is not None:
            self._along_ground(view.ground[0])
        self.along_ground = np.arange(self.height // 3) >= travelling
        self._between_neighbours(view.apart[np.ix_(rows, rows)], seen)
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
        for lag, least in ((1, self.options.coherence), (self.options.lag, self.options.lasting)):
            first, last = seen[:, :-lag], seen[:, lag:]
            row, n = np.nonzero(first[p] & last[p] & first[q] & last[q])
            numbers = np.stack([self.number[k[row], m] for m in (n + lag, n) for k in (p, q)], 1)
            signs = np.array([1.0, -1.0, -1.0, 1.0])
            self._add(numbers, signs[:, None] * self.rays[numbers], np.zeros((len(row), 3)), 1 / (least * share[row]))
        row, n = np.nonzero(seen[p] & seen[q])
        numbers = np.stack([self.number[p[row], n], self.number[q[row], n]], 1)
        factors = np.zeros((len(row), 2, 3))
        factors[:, :, 0] = [1.0, -1.0]
        self._add(numbers, factors, np.zeros((len(row), 3)), 1 / (self.options.relief * share[row]))
