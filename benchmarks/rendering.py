"""A renderer of textured parallelograms with exact truth: colour, depth, who is seen, and where a seen point goes.

A room of planes and boxes on the ground, bodies of textured boxes along the bones of a recorded motion (data:
``motion/{dog3d,humanoid3d}*``) with their feet on the ground, posts that stand before them, and hand-held cameras.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from coset.motion.data import bodies as recorded
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.data.truth import Truth
from coset.motion.video import Video

ROOM, POST, BODY = 0, 1, 2
"""Things that a face belongs to; bodies are numbered from the last on."""


@dataclass(frozen=True)
class Face:
    """A textured parallelogram: corner and two edges in every frame, [N, 3] each; which thing it belongs to."""

    corner: np.ndarray
    edges: tuple[np.ndarray, np.ndarray]
    texture: np.ndarray
    thing: int


def texture(rng: np.random.Generator, cells: tuple[int, int], tint: np.ndarray | None = None) -> np.ndarray:
    """Smooth blotches of several sizes, at most a few pixels of the picture wide; about a colour, if one is given."""
    layers = [rng.uniform(0, 255, (max(2, c[1]), max(2, c[0]), 3)) for c in (cells, (cells[0] // 3, cells[1] // 3))]
    size = (cells[0] * 8, cells[1] * 8)
    fine, coarse = (cv2.resize(layer, size, interpolation=cv2.INTER_CUBIC) for layer in layers)
    blotches = np.clip(0.6 * fine + 0.4 * coarse, 0, 255)
    return (blotches if tint is None else 0.5 * blotches + 0.5 * tint).astype(np.float32)


def box(
    centre: np.ndarray,
    half: np.ndarray,
    turn: np.ndarray,
    rng: np.random.Generator,
    thing: int,
    dots: float = 14,
    tint: np.ndarray | None = None,
) -> list[Face]:
    """Six faces about centres [N, 3], turned by [N, 3, 3]; ``dots`` of texture a unit of length, about a colour."""
    faces = []
    for axis in range(3):
        a, b = ((axis + 1) % 3, (axis + 2) % 3)
        cells = (max(3, int(2 * half[a] * dots)), max(3, int(2 * half[b] * dots)))
        for sign in (-1.0, 1.0):
            outward = sign * half[axis] * turn[:, :, axis]
            edges = (2 * half[a] * turn[:, :, a], 2 * half[b] * turn[:, :, b])
            corner = centre + outward - edges[0] / 2 - edges[1] / 2
            faces.append(Face(corner, edges, texture(rng, cells, tint), thing))
    return faces


def yaw(angle: np.ndarray) -> np.ndarray:
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([np.stack([c, o, s], -1), np.stack([o, i, o], -1), np.stack([-s, o, c], -1)], -2)


def room(frames: int, rng: np.random.Generator, tinted: bool = False) -> list[Face]:
    """Ground (y = 0, y up), two walls at the back, and boxes on the ground; each of a colour of its own if tinted."""

    def tint() -> np.ndarray | None:
        return rng.uniform(40, 220, 3) if tinted else None

    still = np.tile(np.eye(3), (frames, 1, 1))
    faces = box(np.tile([0.0, -0.05, 0.0], (frames, 1)), np.array([5.0, 0.05, 5.0]), still, rng, ROOM, tint=tint())
    for angle in (0.0, np.pi / 2):
        turn = np.tile(yaw(np.array(angle)), (frames, 1, 1))
        centre = turn[0] @ np.array([0.0, 1.5, -4.0])
        faces += box(np.tile(centre, (frames, 1)), np.array([5.0, 1.6, 0.05]), turn, rng, ROOM, tint=tint())
    for _ in range(5):
        half = rng.uniform(0.15, 0.5, 3)
        at = np.array([rng.uniform(-2.2, 2.2), half[1], rng.uniform(-2.2, 1.0)])
        turn = np.tile(yaw(rng.uniform(0, np.pi, ())), (frames, 1, 1))
        faces += box(np.tile(at, (frames, 1)), half, turn, rng, ROOM, tint=tint())
    return faces


def post(frames: int, at: np.ndarray, rng: np.random.Generator) -> list[Face]:
    """Something thin that stands on the ground, for bodies to pass behind."""
    still = np.tile(yaw(rng.uniform(0, np.pi, ())), (frames, 1, 1))
    half = np.array([rng.uniform(0.04, 0.08), rng.uniform(0.4, 0.7), rng.uniform(0.04, 0.08)])
    return box(np.tile([at[0], half[1], at[2]], (frames, 1)), half, still, rng, POST, tint=rng.uniform(40, 220, 3))


def creature(name: str, frames: int, travel: float, rng: np.random.Generator, thing: int = BODY) -> list[Face]:
    """Boxes along the bones of a recorded motion, about 1.5 high or long, the lowest corner on the ground.

    Args:
        name: Skeleton and clip, ``human-walk`` or ``dog-trot``.
        frames: Of the clip.
        travel: Way of the root over the clip; a motion in place stays there.
        rng: Of phase, heading and textures.
        thing: Number of the body.
    """
    kind, _, clip = name.partition("-")
    skeleton = {"human": "humanoid3d", "dog": "dog3d"}[kind]
    joints, motion = (
        recorded._json(f"{skeleton}.json.gz")["Skeleton"]["Joints"],
        recorded._json(f"{skeleton}_{clip}.json.gz"),
    )
    rows = recorded._continuous(np.array(motion["Frames"], float), joints)
    cycle = rows[0, 0] * (len(rows) - 1)
    way = np.linalg.norm((rows[-1, 1:4] - rows[0, 1:4])[[0, 2]])
    speed = rng.uniform(0.4, 0.7)
    if way > 0.3 and motion["Loop"] == "wrap":  # feet stay where they are set: the speed follows from the travel
        speed = travel / way * cycle / (frames / 20)
    times = rng.uniform(0, len(rows)) + np.arange(frames) * speed / (rows[0, 0] * 20)
    turns, places = recorded._skeleton_poses(joints, recorded._at_times(rows, times, motion["Loop"] == "wrap"))
    heading = yaw(np.array(rng.uniform(0, 2 * np.pi)))
    tint = rng.uniform(40, 220, 3)
    places, turns = places @ heading.T, heading @ turns
    size = 1.5 / (1.7 if kind == "human" else 1.15)
    places = (places - places[0].mean(0) * [1, 0, 1]) * size
    faces: list[Face] = []
    for joint in joints[1:]:
        offset = size * np.array([joint["AttachX"], joint["AttachY"], joint["AttachZ"]], float)
        length = float(np.linalg.norm(offset))
        if length < 0.02 or (joint["Name"].endswith(("hip", "shoulder")) and kind == "human"):
            continue
        along = offset / length
        across = np.cross(along, np.eye(3)[np.abs(along).argmin()])
        own = np.stack([along, across / np.linalg.norm(across), np.cross(along, across / np.linalg.norm(across))], 1)
        thick = np.clip(0.32 * length, 0.045, 0.09)
        half = np.array([length / 2 + 0.3 * thick, thick, thick])
        trunk = joint["Name"] in ("chest", "neck", "spine1") or joint["Name"] == "neck"
        if trunk:
            half = np.array([length / 2 + 0.02, 0.12, 0.16])
        parent = joint["Parent"]
        centre = places[parent] + np.einsum("nij,j->ni", turns[parent], offset / 2)
        faces += box(centre, half, turns[parent] @ own, rng, thing, 26, tint)
    head = next(
        j
        for j, joint in enumerate(joints)
        if joint["Name"] in ("neck", "head") and (kind == "human") == (joint["Name"] == "neck")
    )
    centre = places[head] + np.einsum(
        "nij,j->ni", turns[head], size * np.array([0.1, 0.0, 0.0] if kind == "dog" else [0, 0.14, 0])
    )
    faces += box(centre, np.array([0.11, 0.12, 0.1]), turns[head], rng, thing, 26, tint)
    corners = np.stack([f.corner + s * f.edges[0] + t * f.edges[1] for f in faces for s in (0, 1) for t in (0, 1)])
    down = np.array([0.0, corners[..., 1].min(), 0.0])
    return [replace(face, corner=face.corner - down) for face in faces]


def moved(faces: list[Face], way: np.ndarray) -> list[Face]:
    return [replace(face, corner=face.corner + way) for face in faces]


def hand_held(
    frames: int,
    focal: float,
    target: np.ndarray,
    rng: np.random.Generator,
    sweep: tuple[float, float] = (15, 45),
    away_by: tuple[float, float] = (3.2, 4.2),
) -> tuple[np.ndarray, np.ndarray]:
    """An arc about a target [N, 3] or [3], degrees between those of ``sweep``, further away for longer lenses."""
    turned = np.deg2rad(rng.uniform(*sweep)) * rng.choice([-1, 1])
    angle = rng.uniform(-0.3, 0.5) + turned * np.linspace(-0.5, 0.5, frames)
    distance = rng.uniform(*away_by) * focal
    shake = np.cumsum(rng.normal(0, 0.004, (frames, 6)), 0) + rng.normal(0, 0.002, (frames, 6))
    away = np.stack([np.sin(angle), np.full(frames, rng.uniform(0.2, 0.45)), np.cos(angle)], 1)
    positions = np.array([0.0, 0.7, 0.0]) + distance * away + shake[:, :3]
    forward = target + 5 * shake[:, 3:] - positions
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], -1), positions


def draw(
    faces: list[Face], n: int, rotation: np.ndarray, position: np.ndarray, focal: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame, its depths, and for each pixel the number of its face (-1 for none)."""
    width, height = size
    picture = np.full((height, width, 3), 90, np.float32)
    depth, which = np.full((height, width), np.inf, np.float32), np.full((height, width), -1, np.int32)
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    for number, face in enumerate(faces):
        plane = np.stack([face.edges[0][n], face.edges[1][n], face.corner[n] - position], 1)
        to_picture = k @ rotation.T @ plane  # of (s, t, 1)
        corners = np.array([[s, t, 1.0] for s in (0, 1) for t in (0, 1)]) @ to_picture.T
        if (corners[:, 2] < 0.05).all():
            continue
        low, high = np.array([0, 0]), np.array([width, height])
        if (corners[:, 2] > 0.05).all():
            seen = corners[:, :2] / corners[:, 2:]
            low = np.clip(np.floor(seen.min(0)), 0, high).astype(int)
            high = np.clip(np.ceil(seen.max(0)) + 1, 0, high).astype(int)
        if (high <= low).any() or abs(np.linalg.det(to_picture)) < 1e-12:
            continue
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        back = np.linalg.inv(to_picture)
        s, t, w = (back[i, 0] * x + back[i, 1] * y + back[i, 2] for i in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            s, t, z = s / w, t / w, 1 / w
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        inside = (s >= 0) & (s < 1) & (t >= 0) & (t < 1) & (z > 0.05) & (z < depth[window])
        if not inside.any():
            continue
        rows, columns = face.texture.shape[:2]
        there = (np.where(inside, s, 0) * (columns - 1)).astype(np.float32), (np.where(inside, t, 0) * (rows - 1))
        colours = cv2.remap(face.texture, there[0], there[1].astype(np.float32), cv2.INTER_LINEAR)
        picture[window][inside], depth[window][inside], which[window][inside] = colours[inside], z[inside], number
    return picture.astype(np.uint8), depth, which


@dataclass(frozen=True)
class Clip:
    """Pictures and everything that is true of them.

    Attributes:
        video: The pictures.
        faces: What was drawn.
        rotations, positions: The camera sees Y = R^T (X - t).
        k: The lens.
        depth: Of every pixel.
        behind: Of every pixel, without the bodies.
        which: Number of the face of every pixel.
    """

    video: Video
    faces: list[Face]
    rotations: np.ndarray
    positions: np.ndarray
    k: Intrinsics
    depth: np.ndarray
    behind: np.ndarray
    which: np.ndarray

    @property
    def things(self) -> np.ndarray:
        """Thing of every pixel; -1 for none."""
        return np.array([face.thing for face in self.faces] + [-1])[self.which]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [P, N, 2] and depths [P, N] of points [P, N, 3]."""
        inside = np.einsum("pni,nij->pnj", points - self.positions, self.rotations)
        flat = inside[..., :2] / np.maximum(inside[..., 2:], 1e-6)
        return flat * self.k.focal + [self.k.cx, self.k.cy], inside[..., 2]

    def follow(self, at: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the material points under pixels at [P, 2] of frames [P] are in all frames: exact flow.

        Returns:
            Points [P, N, 3] (NaN where no face is drawn there), whether each is truly seen [P, N], and its thing [P].
        """
        size = np.array(self.video.size)
        x, y = np.clip(np.round(at).astype(int), 0, size - 1).T
        number = self.which[frame, y, x]
        points = np.full((len(at), len(self.positions), 3), np.nan)
        for p in np.flatnonzero(number >= 0):
            face, n = self.faces[number[p]], frame[p]
            ray = self.rotations[n] @ np.array([*((at[p] - [self.k.cx, self.k.cy]) / self.k.focal), 1.0])
            inverse = np.stack([*(e[n] for e in face.edges), -ray], 1)
            s, t, _ = np.linalg.solve(inverse, self.positions[n] - face.corner[n])
            points[p] = face.corner + s * face.edges[0] + t * face.edges[1]
        pixels, depth = self.project(np.nan_to_num(points))
        inside = ((pixels >= 0) & (pixels <= size - 1)).all(-1) & (depth > 0.05)
        x, y = np.moveaxis(np.clip(np.round(pixels), 0, size - 1).astype(int), -1, 0)
        near = self.depth[np.arange(len(self.positions)), y, x]
        things = np.array([face.thing for face in self.faces] + [-1])[number]
        return points, inside & (depth <= 1.02 * near) & (number >= 0)[:, None], things

    def tracks_with_truth(self, tracks: Tracks) -> Tracks:
        """The true depth is that of the pixel in which a track is; a track moves that is mostly on bodies."""
        x, y = np.moveaxis(np.clip(np.round(tracks.xy), 0, np.array(self.video.size) - 1).astype(int), -1, 0)
        frames = np.arange(tracks.frames)
        depth = np.where(np.isfinite(self.depth[frames, y, x]), self.depth[frames, y, x], 0)
        on = (self.things[frames, y, x] >= BODY) & tracks.visible
        moving = on.sum(1) > 0.5 * tracks.visible.sum(1)
        truth = Truth(depth=depth, rotations=self.rotations, positions=self.positions, moving=moving)
        return replace(tracks, truth=truth)


def rendered(faces: list[Face], cameras: tuple[np.ndarray, np.ndarray], focal: float, size: tuple[int, int]) -> Clip:
    rotations, positions = cameras
    drawn = [draw(faces, n, rotations[n], positions[n], focal, size) for n in range(len(positions))]
    pictures, depth, which = (np.stack(part) for part in zip(*drawn, strict=True))
    still = [face for face in faces if face.thing < BODY]
    behind = depth
    if len(still) < len(faces):
        behind = np.stack([draw(still, n, rotations[n], positions[n], focal, size)[1] for n in range(len(positions))])
    k = Intrinsics(focal, size[0] / 2, size[1] / 2, "synthetic")
    return Clip(Video(pictures, 20.0, Path("rendered")), faces, rotations, positions, k, depth, behind, which)
