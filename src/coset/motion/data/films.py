"""Synthetic films as people take them: one to three bodies that walk or dance, any lens, pans, dollies and arcs,
things in front, and the errors that trackers make.

Scenes of :mod:`coset.motion.data.scenes` have one body, a camera on an arc round it, lenses of 0.8 to 1.5 widths and
white noise; held-out scenes stay those. A film is cheap (some 0.04 s): training makes thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.signal import lfilter

from coset.core.errors import CosetError
from coset.motion.data.bodies import BODIES
from coset.motion.data.scenes import (
    MOVES,
    SURFACE,
    Scene,
    SceneOptions,
    background,
    choose,
    looking,
    lose,
    make_many,
    pictured,
    placed,
    seed_of,
    smooth_noise,
    visible,
)
from coset.motion.data.tracks import Intrinsics, Tracks

Path = Float[np.ndarray, "frames 3"]
LENSES = (0.5, 3.0)  # focal length over the longer side, evenly spread in its logarithm
POST = 900  # points of a post in the depth buffer: as dense as a body
KINDS = {"arc": 0.35, "sideways": 0.15, "forward": 0.15, "follow": 0.2, "pan": 0.1, "still": 0.05}
"""Ways of the camera, and how often each is drawn."""


@dataclass(frozen=True)
class TrackerErrors:
    """Errors of a track against the point it began on, in pixels of a picture 640 wide.

    A track's own factor (log-normal) times a tremble (Student's t with 4 degrees of freedom) and a drift that forgets
    itself, and now and then a jump that is slowly made good. Parameters were chosen so that quantiles over the age of
    a track are those of our tracker on 18 rendered clips with exact flow; there / here, 50 and 95 %:

        age, frames    1              8              32
        still          0.24, 1.1      0.41, 2.7      0.70, 3.8    recorded
                       0.24, 0.9      0.41, 1.7      0.67, 3.6    drawn
        moving         0.36, 1.4      1.00, 5.4      1.33, 6.8    recorded
                       0.46, 1.9      0.90, 4.1      1.16, 6.3    drawn

    Attributes:
        tremble: Scale of the t distribution, each frame on its own.
        drift: Step of the drift, a frame.
        memory: Frames after which a drift is forgotten to 1 / e.
        jumps: Chance of a jump, a frame.
        jump: Size of a jump.
        spread: Standard deviation of the logarithm of a track's factor.
    """

    tremble: float
    drift: float
    memory: float
    jumps: float
    jump: float
    spread: float

    def draw(self, points: int, frames: int, rng: np.random.Generator) -> Float[np.ndarray, "points frames 2"]:
        """Errors; the frame in which a track began is the caller's to subtract."""
        shape = points, frames, 2
        own = np.exp(self.spread * rng.normal(size=(points, 1, 1)))
        drift = lfilter([1.0], [1.0, -np.exp(-1 / self.memory)], self.drift * own * rng.normal(size=shape), axis=1)
        there = rng.uniform(size=(points, frames, 1)) < self.jumps
        jumps = there * self.jump * rng.exponential(size=(points, 1, 1)) * rng.normal(size=shape)
        return self.tremble * own * rng.standard_t(4, size=shape) + drift + lfilter([1.0], [1.0, -0.95], jumps, axis=1)


STILL = TrackerErrors(0.10, 0.115, 60.0, 0.003, 8.0, 0.6)
MOVING = TrackerErrors(0.13, 0.33, 12.0, 0.005, 8.0, 0.65)


def make_film(bodies: Sequence[str], options: SceneOptions, seed: int) -> Scene:
    """One film with one to three of these bodies; the same seed gives the same.

    Of the options ``noise`` scales what trackers get wrong (0.5 as recorded), and ``outliers`` are not drawn: jumps
    stand for them.

    Raises:
        CosetError: A body is unknown, or its data is missing.
    """
    unknown = next((name for name in bodies if name not in BODIES), None)
    if unknown is not None or not bodies:
        raise CosetError(f"no body {unknown!r}; choose from {', '.join(BODIES)}")
    for attempt in range(40):
        rng = np.random.default_rng((seed, attempt, 1))
        film = _try_film(bodies, options, rng)
        if film is not None:
            return film
    raise CosetError(f"film, seed {seed}: in 40 attempts too few of {options.points} points stayed in the picture")


def make_films(
    bodies: Sequence[str], count: int, options: SceneOptions, seed: int, each: Callable[[], object] = lambda: None
) -> list[Scene]:
    """Films of bodies drawn from these; ``each`` is called after every one of them."""
    return make_many(lambda index: make_film(bodies, options, seed_of(seed, index)), count, each)


def _try_film(bodies: Sequence[str], options: SceneOptions, rng: np.random.Generator) -> Scene | None:
    frames = options.frames
    names = [str(name) for name in rng.choice(list(bodies), rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))]
    surfaces = _side_by_side(names, frames, rng)
    surface = np.concatenate(surfaces)
    travel = np.linalg.norm(surface - surface.mean(1, keepdims=True), axis=-1).max(1)
    size = (640, 480) if rng.uniform() < 0.7 else (480, 640)
    focal = np.exp(rng.uniform(*np.log(LENSES))) * max(size)
    rotations, positions = _camera(surfaces[0].mean(0), frames, focal / min(size), rng)
    scenery = [background(rng)]
    if rng.uniform() < 0.4:
        scenery.append(_post(surfaces[0].mean((0, 1)), positions.mean(0), rng))
    still = np.concatenate(scenery)
    world = np.concatenate([surface, np.repeat(still[:, None], frames, 1)])
    moving = np.concatenate([travel > MOVES, np.zeros(len(still), bool)])
    lens = Intrinsics(focal, size[0] / 2, size[1] / 2, "synthetic")
    pixels, depth = pictured(world, rotations, positions, lens)
    seen = lose(visible(pixels, depth, size), options, rng)
    rows = choose(seen, moving, options, rng)
    if rows is None or (seen[rows].sum(0) < 8).any():
        return None
    pixels = pixels[rows] + 2 * options.noise * _errors(seen[rows], moving[rows], rng)
    tracks = Tracks(pixels, seen[rows], size, intrinsics=lens)
    return Scene(tracks, world[rows], rotations, positions, moving[rows], "+".join(names))


def _side_by_side(names: Sequence[str], frames: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Bodies on one ground, each at a place of its own, the first in the middle."""
    surfaces = []
    for number, name in enumerate(names):
        surface = placed(BODIES[name](SURFACE // len(names), frames, rng), rng)
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.8) * (number > 0)
        surfaces.append(surface + away * np.array([np.cos(angle), 0.0, np.sin(angle)]))
    return surfaces


def _post(target: Float[np.ndarray, " 3"], camera: Float[np.ndarray, " 3"], rng: np.random.Generator) -> np.ndarray:
    """Points of an upright post between the camera and what it looks at."""
    foot = target + rng.uniform(0.3, 0.7) * (camera - target)
    width, height = rng.uniform(0.05, 0.25), rng.uniform(0.8, 2.4)
    around, up = rng.uniform(0, 2 * np.pi, POST), rng.uniform(0, height, POST)
    aside = rng.normal(0, 0.25, 2)
    return np.stack([foot[0] + aside[0] + width * np.cos(around), up, foot[2] + aside[1] + width * np.sin(around)], 1)


def _camera(target: Path, frames: int, lens: float, rng: np.random.Generator) -> tuple[np.ndarray, Path]:
    """A camera in somebody's hand: where it goes, where it looks, and how it shakes.

    Args:
        target: Where the first body is.
        frames: How many.
        lens: Focal length over the shorter side.
        rng: Draws.
    """
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    times = np.linspace(-0.5, 0.5, frames)[:, None]
    distance = max(lens * rng.uniform(1.6, 3.2), 1.3)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(0, 30))
    sweep = np.deg2rad(rng.uniform(15, 70)) * rng.choice([-1, 1]) * (kind == "arc")
    turn = azimuth + sweep * times[:, 0]
    away = np.stack([np.cos(turn) * np.cos(elevation), np.full(frames, np.sin(elevation)),
                     np.sin(turn) * np.cos(elevation)], 1)  # fmt: skip
    side = np.array([-np.sin(azimuth), 0.0, np.cos(azimuth)])
    middle = target.mean(0)
    steady = rng.uniform(0.005, 0.04) * (0.2 if kind == "still" else 1.0)
    positions = middle + distance * away + steady * smooth_noise(frames, 3, rng)
    looks = middle + 0.05 * distance * rng.normal(0, 1, 3) + steady * smooth_noise(frames, 3, rng)
    travel = rng.choice([-1, 1]) * rng.uniform(0.15, 0.6) * distance
    if kind == "sideways":
        positions = positions + travel * times * side
        looks = looks + travel * times * side * rng.uniform(0, 1)
    elif kind == "forward":
        positions = positions - travel * times * away
    elif kind == "follow":  # along with the body, or looking after it from where one stands
        along = rng.uniform(0, 1)
        positions = positions + along * (target - middle) * np.array([1.0, 0.2, 1.0])
        looks = looks + (target - middle)
    elif kind == "pan":
        looks = looks + rng.choice([-1, 1]) * rng.uniform(0.1, 0.5) * distance / lens * times * side
    positions[:, 1] = np.maximum(positions[:, 1], 0.15)
    return looking(looks - positions, 0.03, rng), positions


def _errors(
    seen: Bool[np.ndarray, "points frames"], moving: Bool[np.ndarray, " points"], rng: np.random.Generator
) -> Float[np.ndarray, "points frames 2"]:
    """What a tracker gets wrong: nothing where a track begins, which is any of the frames in which it is seen."""
    points, frames = seen.shape
    errors = np.where(moving[:, None, None], MOVING.draw(points, frames, rng), STILL.draw(points, frames, rng))
    began = np.argmax(seen * rng.uniform(0.5, 1.0, seen.shape), 1)
    return errors - errors[np.arange(points), began][:, None]
