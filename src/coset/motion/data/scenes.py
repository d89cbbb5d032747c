"""Synthetic scenes with exact truth: a moving body before a static background, seen by a camera that moves.

Half of the points or more stand still. Points leave the picture, hide behind others (a depth buffer), and are lost at
random; tracks carry pixel noise and outliers. Half of the scenes lose a point for good when it is hidden, as trackers
without re-identification do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from coset.core.errors import CosetError
from coset.motion.data.bodies import BODIES
from coset.motion.data.tracks import Intrinsics, Tracks

SURFACE = 1500  # points of a body in the depth buffer
BACKGROUND = 700
MOVES = 0.03  # of the body's size: travel beyond which a point counts as moving


@dataclass(frozen=True)
class Scene:
    """Tracks and what they are tracks of.

    Attributes:
        tracks: As a tracker would give them, intrinsics known.
        points: True places in the world.
        rotations: R_i; the camera sees Y = R_i^T (X - t_i).
        positions: t_i.
        moving: Whether a point moves.
        body: Name of the body.
    """

    tracks: Tracks
    points: Float[np.ndarray, "points frames 3"]
    rotations: Float[np.ndarray, "frames 3 3"]
    positions: Float[np.ndarray, "frames 3"]
    moving: Bool[np.ndarray, " points"]
    body: str

    def depth(self) -> Float[np.ndarray, "points frames"]:
        """True depth of every point in every frame."""
        return np.einsum("pni,ni->pn", self.points - self.positions, self.rotations[:, :, 2])


@dataclass(frozen=True)
class SceneOptions:
    """How scenes are made.

    Attributes:
        points: Points of a scene.
        frames: Frames of a scene.
        static_share: Least share of points that stand still.
        noise: Standard deviation of a track, pixels.
        outliers: Share of observations that are anywhere within 30 pixels.
        dropout: Share of observations lost at random.
        least_seen: Frames in which a point is seen at least.
    """

    points: int = 128
    frames: int = 40
    static_share: float = 0.5
    noise: float = 0.5
    outliers: float = 0.02
    dropout: float = 0.05
    least_seen: int = 8


def make_scene(body: str, options: SceneOptions, seed: int) -> Scene:
    """One scene; the same seed gives the same.

    Raises:
        CosetError: The body is unknown, or its data is missing.
    """
    if body not in BODIES:
        raise CosetError(f"no body {body!r}; choose from {', '.join(BODIES)}")
    for attempt in range(20):
        rng = np.random.default_rng((seed, attempt))
        scene = _try_scene(body, options, rng)
        if scene is not None:
            return scene
    raise CosetError(f"{body}, seed {seed}: in 20 attempts too few of {options.points} points stayed in the picture")


def make_scenes(
    bodies: Sequence[str], count: int, options: SceneOptions, seed: int, each: Callable[[], object] = lambda: None
) -> list[Scene]:
    """Scenes of the bodies in turn; ``each`` is called after every one of them."""
    return make_many(lambda index: make_scene(bodies[index % len(bodies)], options, seed_of(seed, index)), count, each)


def make_many(make: Callable[[int], Scene], count: int, each: Callable[[], object]) -> list[Scene]:
    """Scenes 0 to ``count`` - 1; ``each`` is called after every one of them."""
    scenes = []
    for index in range(count):
        scenes.append(make(index))
        each()
    return scenes


def seed_of(seed: int, index: int) -> int:
    """The seed of one of many scenes."""
    return seed * 1_000_003 + index


def _try_scene(body: str, options: SceneOptions, rng: np.random.Generator) -> Scene | None:
    frames = options.frames
    surface = placed(BODIES[body](SURFACE, frames, rng), rng)
    travel = np.linalg.norm(surface - surface.mean(1, keepdims=True), axis=-1).max(1)
    scenery = np.repeat(background(rng)[:, None], frames, 1)
    world = np.concatenate([surface, scenery])
    moving = np.concatenate([travel > MOVES, np.zeros(len(scenery), bool)])
    size = (640, 480) if rng.uniform() < 0.75 else (480, 640)
    focal = rng.uniform(0.8, 1.5) * max(size)
    rotations, positions = _camera(surface.mean(0), frames, focal, size, rng)
    lens = Intrinsics(focal, size[0] / 2, size[1] / 2, "synthetic")
    pixels, depth = pictured(world, rotations, positions, lens)
    seen = visible(pixels, depth, size)
    seen = lose(seen, options, rng)
    rows = choose(seen, moving, options, rng)
    if rows is None:
        return None
    pixels, seen = _disturb(pixels[rows], options, rng), seen[rows]
    if (seen.sum(0) < 8).any():
        return None
    tracks = Tracks(pixels, seen, size, intrinsics=lens)
    return Scene(tracks, world[rows], rotations, positions, moving[rows], body)


def pictured(
    world: Float[np.ndarray, "points frames 3"], rotations: np.ndarray, positions: np.ndarray, lens: Intrinsics
) -> tuple[Float[np.ndarray, "points frames 2"], Float[np.ndarray, "points frames"]]:
    """Where points are in the pictures, in pixels, and how deep."""
    inside = np.einsum("pni,nij->pnj", world - positions, rotations)
    return inside[..., :2] / np.maximum(inside[..., 2:], 1e-6) * lens.focal + [lens.cx, lens.cy], inside[..., 2]


def placed(surface: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned about the vertical, and for some bodies made to walk along a line."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    placed = surface @ turn.T
    # A body that runs out of every picture is brought back to a walk.
    path = placed.mean(0) - placed.mean((0, 1))
    length = float(np.linalg.norm(path[-1] - path[0]))
    placed = placed - path * (1 - min(1.0, 1.2 / max(length, 1e-9))) * np.array([1, 0, 1])
    drift = rng.normal(0, 0.25, 3) * np.array([1, 0.2, 1]) * (rng.uniform() < 0.5)
    return placed + drift * np.linspace(-0.5, 0.5, surface.shape[1])[:, None]


def background(rng: np.random.Generator) -> Float[np.ndarray, "points 3"]:
    """Ground, a far wall round the scene, and boxes in between."""
    ground = np.stack([rng.uniform(-4, 4, BACKGROUND), np.zeros(BACKGROUND), rng.uniform(-4, 4, BACKGROUND)], 1)
    angle, radius = rng.uniform(0, 2 * np.pi, BACKGROUND), rng.uniform(2.5, 6)
    wall = np.stack([radius * np.cos(angle), rng.uniform(0, 3, BACKGROUND), radius * np.sin(angle)], 1)
    boxes = []
    for _ in range(8):
        at, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 2.5)
        box = rng.uniform(-1, 1, (BACKGROUND // 8, 3)) * rng.uniform(0.15, 0.5, 3)
        boxes.append(box + np.array([spread * np.cos(at), 0.4, spread * np.sin(at)]))
    return np.concatenate([ground, wall, *boxes])


def _camera(
    target: Float[np.ndarray, "frames 3"], frames: int, focal: float, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A smooth arc round the body with the shake of a hand; the body fills about half of the picture."""
    times = np.linspace(0, 1, frames)
    sweep = np.deg2rad(rng.uniform(15, 70)) * rng.choice([-1, 1])
    azimuth = rng.uniform(0, 2 * np.pi) + sweep * times + 0.08 * smooth_noise(frames, 1, rng)[:, 0]
    elevation = np.deg2rad(rng.uniform(5, 35) + rng.uniform(-8, 8) * times)
    distance = focal / min(size) * rng.uniform(2.0, 3.2) * (1 + rng.uniform(-0.2, 0.2) * times)
    middle = target.mean(0) + 0.5 * (target - target.mean(0)) * (rng.uniform() < 0.5)
    away = np.stack([np.cos(azimuth) * np.cos(elevation), np.sin(elevation), np.sin(azimuth) * np.cos(elevation)], 1)
    positions = middle + distance[:, None] * away + 0.03 * smooth_noise(frames, 3, rng)
    forward = middle + 0.08 * smooth_noise(frames, 3, rng) - positions
    return looking(forward, 0.05, rng), positions


def looking(
    forward: Float[np.ndarray, "frames 3"], tilt: float, rng: np.random.Generator
) -> Float[np.ndarray, "frames 3 3"]:
    """Cameras that look along these ways, upright but for the tilt of a hand."""
    forward = forward / np.linalg.norm(forward, axis=1, keepdims=True)
    up = np.array([0, 1.0, 0]) + tilt * smooth_noise(len(forward), 3, rng)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], -1)


def smooth_noise(frames: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """White noise through a moving average of some frames, at unit variance."""
    width = int(rng.integers(3, 9))
    noise = rng.normal(size=(frames + width - 1, channels))
    kernel = np.ones(width) / np.sqrt(width)
    return np.stack([np.convolve(noise[:, c], kernel, "valid") for c in range(channels)], 1)


def visible(pixels: np.ndarray, depth: np.ndarray, size: tuple[int, int], cell: int = 10) -> np.ndarray:
    """In the picture and nearest in its cell of a depth buffer, within a margin."""
    width, height = size
    inside = (depth > 0.1) & (pixels >= 0).all(-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    columns, rows = width // cell, height // cell
    x, y = (np.clip(pixels[..., k] // cell, 0, limit - 1).astype(int) for k, limit in enumerate((columns, rows)))
    frame = np.broadcast_to(np.arange(depth.shape[1]), depth.shape)
    nearest = np.full((depth.shape[1], rows, columns), np.inf)
    np.minimum.at(nearest, (frame[inside], y[inside], x[inside]), depth[inside])
    return inside & (depth <= nearest[frame, y, x] + 0.12)


def lose(seen: np.ndarray, options: SceneOptions, rng: np.random.Generator) -> np.ndarray:
    """Lost at random; in half of the scenes only the longest run of a point is kept."""
    seen = seen & (rng.uniform(size=seen.shape) >= options.dropout * rng.uniform(0, 2))
    if rng.uniform() < 0.5:
        return seen
    # Single missing frames inside a run are bridged, else dropout would cut every run short.
    bridged = seen.copy()
    bridged[:, 1:-1] |= seen[:, :-2] & seen[:, 2:]
    run = np.zeros(seen.shape, int)
    count = np.zeros(len(seen), int)
    for n in range(seen.shape[1]):
        count = np.where(bridged[:, n], count + 1, 0)
        run[:, n] = count
    end, length = run.argmax(1), run.max(1)
    frames = np.arange(seen.shape[1])
    return seen & (frames <= end[:, None]) & (frames > (end - length)[:, None])


def choose(seen: np.ndarray, moving: np.ndarray, options: SceneOptions, rng: np.random.Generator) -> np.ndarray | None:
    """Rows of moving and of static points in random order, or nothing if too few are seen long enough."""
    fit = seen.sum(1) >= options.least_seen
    movers, still = (rng.permutation(np.flatnonzero(fit & kind)) for kind in (moving, ~moving))
    share = rng.uniform(0.15, 1 - options.static_share)
    wanted = int(options.points * share)
    if len(movers) < max(wanted // 2, 5):
        return None
    movers = movers[:wanted]
    still = still[: options.points - len(movers)]
    if len(movers) + len(still) < options.points:
        return None
    return rng.permutation(np.concatenate([movers, still]))


def _disturb(pixels: np.ndarray, options: SceneOptions, rng: np.random.Generator) -> np.ndarray:
    noisy = pixels + rng.normal(0, options.noise, pixels.shape) if options.noise else pixels.copy()
    bad = rng.uniform(size=pixels.shape[:2]) < options.outliers
    noisy[bad] += rng.uniform(-30, 30, (int(bad.sum()), 2))
    return noisy
