"""Moving bodies for synthetic scenes: points of a surface over time, from meshes, motion capture, or made up.

A body is an array [points, frames, 3] in metres or so, y up. Where points are drawn on a surface, each keeps its place
on it: the same row is the same material point in every frame.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from coset.core.data_files import data_file
from coset.core.outside import read_arrays, read_tree
from coset.motion.data.gltf_bodies import opened, rotations_of

Points = Float[np.ndarray, "points frames 3"]
Maker = Callable[[int, int, np.random.Generator], Points]
RATE = 20.0  # frames a second of the scenes
ROBOT_MOTIONS = ("Dance", "Jump", "Punch", "Running", "Walking", "Wave", "No")


def bending_rod(points: int, frames: int, rng: np.random.Generator) -> Points:
    """An upright rod whose curvature swings."""
    length, radius = rng.uniform(0.8, 1.6), rng.uniform(0.06, 0.2)
    along, around = rng.uniform(0, length, points), rng.uniform(0, 2 * np.pi, points)
    curvature = rng.uniform(0.5, 1.6) * np.sin(_phase(frames, rng)) / length + 1e-9
    angle = along[:, None] * curvature
    centre = np.stack(((1 - np.cos(angle)) / curvature, np.sin(angle) / curvature, np.zeros_like(angle)), -1)
    normal = np.stack((np.cos(angle), -np.sin(angle), np.zeros_like(angle)), -1)
    side = radius * (np.cos(around)[:, None, None] * normal + np.sin(around)[:, None, None] * np.array([0.0, 0, 1]))
    return centre + side


def breathing_sphere(points: int, frames: int, rng: np.random.Generator) -> Points:
    """An ellipsoid whose three axes swell out of step."""
    direction = rng.normal(size=(points, 1, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    swing = np.stack([np.sin(_phase(frames, rng)) for _ in range(3)], -1)
    axes = rng.uniform(0.3, 0.6, 3) * (1 + rng.uniform(0.1, 0.35, 3) * swing)
    return direction * axes + np.array([0, 0.6, 0])


def rigid_bodies(points: int, frames: int, rng: np.random.Generator) -> Points:
    """Two to four boxes that travel and turn, each on its own."""
    count = int(rng.integers(2, 5))
    parts = []
    for share in np.array_split(np.arange(points), count):
        cube = rng.uniform(-1, 1, (len(share), 3))
        cube[np.arange(len(share)), rng.integers(0, 3, len(share))] = rng.choice([-1, 1], len(share))
        box = cube * rng.uniform(0.12, 0.35, 3)
        start, drift = rng.uniform(-0.7, 0.7, 3), rng.normal(0, 0.5, 3)
        times = np.linspace(-0.5, 0.5, frames)[:, None]
        path = start + drift * times + rng.uniform(0, 0.15) * np.sin(_phase(frames, rng))[:, None]
        turn = _rotations(rng.normal(0, 1.2, 3) * times)
        parts.append(np.einsum("nij,pj->pni", turn, box) + path + np.array([0, 0.7, 0]))
    return np.concatenate(parts)


def key_shape_mesh(name: str) -> Maker:
    """An animated mesh ``mesh_<name>.npz``: base vertices and offsets of key shapes, blended in a loop."""

    def make(points: int, frames: int, rng: np.random.Generator) -> Points:
        data = read_arrays(data_file(f"motion/mesh_{name}.npz"), ["vertices", "key_shape_offsets", "faces"])
        vertices, offsets = data["vertices"].astype(float), data["key_shape_offsets"].astype(float)
        phase = (rng.uniform() + np.arange(frames) / rng.uniform(14, 40)) % 1 * len(offsets)
        low = phase.astype(int) % len(offsets)
        part = (phase - np.floor(phase))[:, None, None]
        shapes = vertices + (1 - part) * offsets[low] + part * offsets[(low + 1) % len(offsets)]
        return _scaled(_on_faces(shapes, data["faces"], points, rng), 1.4)

    return make


def motion_capture(skeleton: str, clip: str) -> Maker:
    """A recorded motion of a skeleton, its bones thickened to tubes (DeepMimic files)."""

    def make(points: int, frames: int, rng: np.random.Generator) -> Points:
        joints = _json(f"{skeleton}.json.gz")["Skeleton"]["Joints"]
        motion = _json(f"{skeleton}_{clip}.json.gz")
        rows = _continuous(np.array(motion["Frames"], float), joints)
        speed = rng.uniform(0.5, 1.2) / (rows[0, 0] * RATE)
        times = rng.uniform(0, len(rows)) + np.arange(frames) * speed
        turns, places = _skeleton_poses(joints, _at_times(rows, times, motion["Loop"] == "wrap"))
        return _scaled(_tubes(joints, turns, places, points, rng), 1.4)

    return make


def skinned_robot(points: int, frames: int, rng: np.random.Generator) -> Points:
    """A robot of rigid and skinned parts in one of its recorded motions (``robot_expressive.glb``)."""
    file = opened(data_file("motion/robot_expressive.glb"))
    name = str(rng.choice(ROBOT_MOTIONS))
    length = file.duration(name)
    times = rng.uniform(0, length) + np.arange(frames) / RATE * rng.uniform(0.5, 1.0)
    # Back and forth, since not every motion ends where it began.
    shapes, faces = file.surface(name, length - np.abs(times % (2 * length) - length))
    return _scaled(_on_faces(shapes, faces, points, rng), 1.4)


def _skeleton_poses(joints: list[dict[str, Any]], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [joints, frames, 3, 3] and place [joints, frames, 3] of every joint."""
    turns = np.zeros((len(joints), len(rows), 3, 3))
    places = np.zeros((len(joints), len(rows), 3))
    turns[0], places[0] = _from_quaternions(rows[:, 4:8]), rows[:, 1:4]
    column = 8
    for j, joint in enumerate(joints[1:], 1):
        width = {"spherical": 4, "revolute": 1, "fixed": 0}[joint["Type"]]
        value = rows[:, column : column + width]
        column += width
        if width == 4:
            own = _from_quaternions(value)
        else:
            own = _rotations(
                np.concatenate([np.zeros((len(rows), 2)), value if width else np.zeros((len(rows), 1))], 1)
            )
        parent = joint["Parent"]
        offset = np.array([joint["AttachX"], joint["AttachY"], joint["AttachZ"]])
        places[j] = places[parent] + turns[parent] @ offset
        turns[j] = turns[parent] @ own
    return turns, places


def _continuous(rows: np.ndarray, joints: list[dict[str, Any]]) -> np.ndarray:
    """Rows whose quaternions keep their sign in time: q and -q turn alike, but not what lies between them."""
    rows, columns, column = rows.copy(), [4], 8
    for joint in joints[1:]:
        width = {"spherical": 4, "revolute": 1, "fixed": 0}[joint["Type"]]
        columns += [column] if width == 4 else []
        column += width
    for start in columns:
        q = rows[:, start : start + 4]
        flips = np.where((q[1:] * q[:-1]).sum(1) < 0, -1.0, 1.0)
        q[1:] *= np.cumprod(flips)[:, None]
    return rows


def _tubes(
    joints: list[dict[str, Any]], turns: np.ndarray, places: np.ndarray, points: int, rng: np.random.Generator
) -> Points:
    """Points on a tube around each bone; they turn with the joint at which the bone begins."""
    offsets = np.array([[j["AttachX"], j["AttachY"], j["AttachZ"]] for j in joints], float)
    parents = np.array([j["Parent"] for j in joints])
    bones = [b for b in range(1, len(joints)) if np.linalg.norm(offsets[b]) > 0.02]
    lengths = np.array([np.linalg.norm(offsets[b]) for b in bones])
    chosen = rng.choice(len(bones), points, p=lengths / lengths.sum())
    radius = np.clip(0.3 * lengths, 0.03, 0.12)[chosen]
    bone = np.array(bones)[chosen]
    axis = offsets[bone]
    across = np.cross(axis, rng.normal(size=(points, 3)))
    across *= (radius / np.linalg.norm(across, axis=1))[:, None]
    local = axis * rng.uniform(0, 1, (points, 1)) + across
    start = parents[bone]
    return places[start] + np.einsum("pnij,pj->pni", turns[start], local)


def _at_times(rows: np.ndarray, times: np.ndarray, loops: bool) -> np.ndarray:
    """Rows of a clip at fractional times, looped or run back and forth, linear between the two nearest."""
    last = len(rows) - 1
    if loops:
        round_, inside = np.divmod(times, last)
    else:
        round_, inside = np.zeros_like(times), np.abs((times + last) % (2 * last) - last)
    low = np.minimum(inside.astype(int), last - 1)
    part = (inside - low)[:, None]
    mixed = (1 - part) * rows[low] + part * rows[low + 1]
    mixed[:, 1:4] += round_[:, None] * (rows[-1, 1:4] - rows[0, 1:4]) * np.array([1, 0, 1])
    return mixed


def _on_faces(shapes: np.ndarray, faces: np.ndarray, points: int, rng: np.random.Generator) -> Points:
    """Points spread evenly over the triangles of the first shape, followed through all shapes [frames, vertices, 3]."""
    a, b, c = (shapes[0][faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = rng.choice(len(faces), points, p=area / area.sum())
    u = rng.dirichlet((1, 1, 1), points)
    return np.einsum("pk,npkd->pnd", u, shapes[:, faces[face]])


def _scaled(points: Points, size: float) -> Points:
    """Feet at y = 0, centred at the middle frame, ``size`` across."""
    low = np.percentile(points, 2, axis=(0, 1))
    within = points[:, points.shape[1] // 2]
    extent = np.ptp(within, axis=0).max()
    centre = within.mean(0)
    return (points - np.array([centre[0], low[1], centre[2]])) * (size / extent)


def _phase(frames: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 2 * np.pi) + np.arange(frames) * 2 * np.pi / rng.uniform(15, 45)


def _rotations(vectors: np.ndarray) -> np.ndarray:
    """Rodrigues for rows [n, 3] of axis times angle."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = (vectors / np.maximum(angle[:, 0], 1e-12)).T
    zero = np.zeros_like(x)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def _from_quaternions(q: np.ndarray) -> np.ndarray:
    """Rotation matrices of quaternions (w, x, y, z), of any length but zero."""
    return rotations_of(q / np.linalg.norm(q, axis=1, keepdims=True))


@cache
def _json(name: str) -> Any:
    return read_tree(data_file(f"motion/{name}"))


PROCEDURAL: dict[str, Maker] = {"rod": bending_rod, "boxes": rigid_bodies}
TRAINING: dict[str, Maker] = PROCEDURAL | {
    "parrot": key_shape_mesh("parrot"),
    **{f"dog-{clip}": motion_capture("dog3d", clip) for clip in ("pace", "trot")},
    **{
        f"human-{clip}": motion_capture("humanoid3d", clip)
        for clip in ("walk", "run", "dance_a", "jump", "crawl", "kick")
    },
}
"""Bodies that training sees."""

UNSEEN_SHAPES: dict[str, Maker] = {"stork": key_shape_mesh("stork"), "sphere": breathing_sphere, "robot": skinned_robot}
UNSEEN_MOTIONS: dict[str, Maker] = {
    "dog-canter": motion_capture("dog3d", "canter"),
    "human-cartwheel": motion_capture("humanoid3d", "cartwheel"),
    "human-spin": motion_capture("humanoid3d", "spin"),
}
"""Bodies held out: shapes never seen in training, and motions of seen skeletons never seen."""
BODIES = TRAINING | UNSEEN_SHAPES | UNSEEN_MOTIONS
