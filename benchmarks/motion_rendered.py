"""Rendered clips with exact truth, through the whole chain: the tracker, the search for the focal length, refinement.

    python benchmarks/motion_rendered.py clips=20 frames=24

A room of textured planes and boxes, seen by a hand-held camera on an arc with a lens of .6 to 1.8 widths; with
``walker=1`` a textured body of boxes walks through it. Each clip is tracked once and reconstructed with the true focal
length held and from guesses x .6 and x 1.6. Errors of the focal length in percent, of rotation in degrees, of static
points over the scene's size; CPU seconds of the reconstruction. One line a clip, then medians and the share within 1 %.
"""

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from coset.motion.data.scenes import Scene
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.metrics import scene_metrics
from coset.motion.models.checkpoint import pretrained
from coset.motion.reconstruct import Options, reconstruct
from coset.motion.tracker import TrackerOptions, Video, track

SIZE = (400, 300)


@dataclass(frozen=True)
class Face:
    """A textured parallelogram: corner and two edges in every frame, [N, 3] each; which thing it belongs to."""

    corner: np.ndarray
    edges: tuple[np.ndarray, np.ndarray]
    texture: np.ndarray
    thing: int


def texture(rng: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Smooth blotches of several sizes, at most a few pixels of the picture wide."""
    layers = [rng.uniform(0, 255, (max(2, c[1]), max(2, c[0]), 3)) for c in (cells, (cells[0] // 3, cells[1] // 3))]
    size = (cells[0] * 8, cells[1] * 8)
    fine, coarse = (cv2.resize(layer, size, interpolation=cv2.INTER_CUBIC) for layer in layers)
    return np.clip(0.6 * fine + 0.4 * coarse, 0, 255).astype(np.float32)


def box(centre: np.ndarray, half: np.ndarray, turn: np.ndarray, rng: np.random.Generator, thing: int) -> list[Face]:
    """Six faces about centres [N, 3], turned by [N, 3, 3]."""
    faces = []
    for axis in range(3):
        a, b = ((axis + 1) % 3, (axis + 2) % 3)
        cells = (max(3, int(2 * half[a] * 14)), max(3, int(2 * half[b] * 14)))
        for sign in (-1.0, 1.0):
            outward = sign * half[axis] * turn[:, :, axis]
            edges = (2 * half[a] * turn[:, :, a], 2 * half[b] * turn[:, :, b])
            corner = centre + outward - edges[0] / 2 - edges[1] / 2
            faces.append(Face(corner, edges, texture(rng, cells), thing))
    return faces


def yaw(angle: np.ndarray) -> np.ndarray:
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([np.stack([c, o, s], -1), np.stack([o, i, o], -1), np.stack([-s, o, c], -1)], -2)


def room(frames: int, rng: np.random.Generator) -> list[Face]:
    """Ground (y = 0, y up), two walls at the back, and boxes on the ground."""
    still = np.tile(np.eye(3), (frames, 1, 1))
    faces = box(np.tile([0.0, -0.05, 0.0], (frames, 1)), np.array([5.0, 0.05, 5.0]), still, rng, 0)
    for angle in (0.0, np.pi / 2):
        turn = np.tile(yaw(np.array(angle)), (frames, 1, 1))
        centre = turn[0] @ np.array([0.0, 1.5, -4.0])
        faces += box(np.tile(centre, (frames, 1)), np.array([5.0, 1.6, 0.05]), turn, rng, 0)
    for _ in range(5):
        half = rng.uniform(0.15, 0.5, 3)
        at = np.array([rng.uniform(-2.2, 2.2), half[1], rng.uniform(-2.2, 1.0)])
        turn = np.tile(yaw(rng.uniform(0, np.pi, ())), (frames, 1, 1))
        faces += box(np.tile(at, (frames, 1)), half, turn, rng, 0)
    return faces


def walker(frames: int, rng: np.random.Generator) -> list[Face]:
    """A trunk, a head, two arms and two legs that swing, on the ground, along a line."""
    angle = rng.uniform(-0.6, 0.6) + np.pi * (rng.uniform() < 0.5)
    heading = yaw(np.full(frames, angle))
    path = np.linspace(-0.5, 0.5, frames)[:, None] * rng.uniform(0.5, 1.2) * heading[:, :, 0] + [0.0, 0, 1.0]
    phase = rng.uniform(0, 2 * np.pi) + np.arange(frames) * 2 * np.pi / rng.uniform(14, 22)
    faces = []
    parts = [((0, 0.95, 0), (0.13, 0.28, 0.2), 0.0), ((0, 1.38, 0), (0.11, 0.13, 0.11), 0.0)]
    parts += [((0, s, z), (0.07, 0.3 if s < 1 else 0.25, 0.07), w) for s, z, w in (
        (0.65, 0.1, 0.5), (0.65, -0.1, -0.5), (1.2, 0.27, -0.5), (1.2, -0.27, 0.5))]  # fmt: skip
    for joint, half, swing in parts:
        tilt = swing * np.sin(phase)
        c, s, o, i = np.cos(tilt), np.sin(tilt), np.zeros(frames), np.ones(frames)
        roll = np.stack([np.stack([c, -s, o], -1), np.stack([s, c, o], -1), np.stack([o, o, i], -1)], -2)
        turn = heading @ roll
        hang = np.array([0.0, -half[1] if swing else 0.0, 0.0])
        centre = path + np.einsum("nij,j->ni", heading, np.array(joint)) + np.einsum("nij,j->ni", turn, hang)
        faces += box(centre, np.array(half), turn, rng, 1)
    return faces


def cameras(frames: int, focal: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An arc of 15 to 45 degrees with the shake of a hand, further away for longer lenses."""
    sweep = np.deg2rad(rng.uniform(15, 45)) * rng.choice([-1, 1])
    angle = rng.uniform(-0.3, 0.5) + sweep * np.linspace(-0.5, 0.5, frames)
    distance = rng.uniform(3.2, 4.2) * focal
    shake = np.cumsum(rng.normal(0, 0.004, (frames, 6)), 0) + rng.normal(0, 0.002, (frames, 6))
    away = np.stack([np.sin(angle), np.full(frames, rng.uniform(0.2, 0.45)), np.cos(angle)], 1)
    positions = np.array([0.0, 0.7, 0.0]) + distance * away + shake[:, :3]
    forward = np.array([0.0, 0.7, 0.0]) + 5 * shake[:, 3:] - positions
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], -1), positions


def draw(
    faces: list[Face], n: int, rotation: np.ndarray, position: np.ndarray, focal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame, its depths, and for each pixel the number of its face (-1 for none)."""
    width, height = SIZE
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


def clip(seed: int, frames: int, with_walker: bool) -> tuple[Video, Scene, list[np.ndarray]]:
    """A rendered clip; its tracks as the tracker finds them with their truth; depth pictures.

    A tracked point is the point of the face under it where its track begins.
    """
    rng = np.random.default_rng(seed)
    focal = SIZE[0] * rng.uniform(0.6, 1.8)
    faces = room(frames, rng) + (walker(frames, rng) if with_walker else [])
    rotations, positions = cameras(frames, focal / SIZE[0], rng)
    drawn = [draw(faces, n, rotations[n], positions[n], focal) for n in range(frames)]
    video = Video(np.stack([picture for picture, _, _ in drawn]), 20.0, Path(f"rendered-{seed}"))
    k = Intrinsics(focal, SIZE[0] / 2, SIZE[1] / 2, "synthetic")
    found = track(video, None, TrackerOptions(points=400), k)
    points, moving, kept = [], [], []
    for p in range(found.points):
        n = int(found.started_at[p])
        x, y = np.round(found.xy[p, n]).astype(int)
        if drawn[n][2][y, x] < 0:
            continue
        face = faces[drawn[n][2][y, x]]
        ray = rotations[n] @ np.array([*((found.xy[p, n] - [k.cx, k.cy]) / focal), 1.0])
        weights = np.linalg.solve(np.stack([*(e[n] for e in face.edges), -ray], 1), positions[n] - face.corner[n])
        points.append(face.corner + weights[0] * face.edges[0] + weights[1] * face.edges[1])
        moving.append(face.thing == 1)
        kept.append(p)
    tracks = found.select(np.array(kept))
    scene = Scene(tracks, np.array(points), rotations, positions, np.array(moving), "rendered")
    return video, scene, [depth for _, depth, _ in drawn]


def measure(scene: Scene, tracks: Tracks, model: torch.nn.Module) -> dict[str, float]:
    started = time.process_time()
    result = reconstruct(tracks, model, Options())
    seconds = time.process_time() - started
    errors = scene_metrics(result.prediction, replace(scene, tracks=result.tracks))
    k = result.tracks.intrinsics
    shown = (
        "rotation",
        "camera_path",
        "static_points",
        "moving_points",
        "motion_cosine",
        "motion_size",
        "dynamic_abs_rel",
    )
    return {
        "focal_percent": 100 * (k.focal / scene.tracks.intrinsics.focal - 1), "deviation_percent": 100 * k.deviation,
        "radial": k.radial, **{name: errors[name] for name in shown}, "seconds": seconds,
    }  # fmt: skip


def main(clips: int = 20, frames: int = 24, walker: int = 0, seed: int = 0, guesses: int = 1) -> None:
    model, rows = pretrained()[0], []
    for number in range(clips):
        started = time.process_time()
        _, scene, _ = clip(seed + number, frames, bool(walker))
        k, made = scene.tracks.intrinsics, time.process_time() - started
        arms = {"held": k}
        if guesses:
            arms |= {f"guess x{f}": replace(k, focal=k.focal * f, source="guess") for f in (0.6, 1.6)}
        for name, intrinsics in arms.items():
            row = {"clip": seed + number, "arm": name} | measure(
                scene, replace(scene.tracks, intrinsics=intrinsics), model
            )
            rows.append(row)
            numbers = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            print(json.dumps(numbers | {"made": round(made, 1), "focal": round(k.focal / SIZE[0], 2)}), flush=True)
    for arm in dict.fromkeys(row["arm"] for row in rows):
        part = [row for row in rows if row["arm"] == arm]
        medians = {
            key: round(float(np.nanmedian([row[key] for row in part])), 4)
            for key in part[0]
            if key not in ("clip", "arm")
        }
        within = np.mean([abs(row["focal_percent"]) <= 1 for row in part])
        print(arm, f"within 1 %: {within:.2f}", json.dumps(medians))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(**{key: int(value) for key, _, value in (part.partition("=") for part in sys.argv[1:])})
