"""Rendered clips with exact truth, through the whole chain: the tracker, the search for the focal length, refinement.

    python benchmarks/motion_rendered.py clips=20 frames=24

A room of textured planes and boxes, seen by a hand-held camera on an arc with a lens of .6 to 1.8 widths; with
``walker=1`` a textured body of boxes walks through it. Each clip is tracked once and reconstructed with the true focal
length held and from guesses x .6 and x 1.6. Errors of the focal length in percent, of rotation in degrees, of static
points over the scene's size; CPU seconds of the reconstruction. One line a clip, then medians and the share within 1 %.
``pycolmap=1`` runs pycolmap beside it from the same guesses (one thread, sequential matching). With ``file=rows.jsonl``
rows are kept as they come, and those that are there are not measured again.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from coset.motion.data.scenes import Scene
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.metrics import camera_errors, scene_metrics
from coset.motion.models.checkpoint import pretrained
from coset.motion.reconstruct import Options, reconstruct
from coset.motion.tracker import TrackerOptions, track
from coset.motion.video import Video
from rendering import BODY, Face, box, hand_held, rendered, room, yaw

SIZE = (400, 300)


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
        faces += box(centre, np.array(half), turn, rng, BODY)
    return faces


def clip(seed: int, frames: int, with_walker: bool) -> tuple[Video, Scene]:
    """A rendered clip; its tracks as the tracker finds them, with their truth.

    A tracked point is the point of the face under it where its track begins.
    """
    rng = np.random.default_rng(seed)
    focal = SIZE[0] * rng.uniform(0.6, 1.8)
    faces = room(frames, rng) + (walker(frames, rng) if with_walker else [])
    cameras = hand_held(frames, focal / SIZE[0], np.array([0.0, 0.7, 0.0]), rng)
    drawn = rendered(faces, cameras, focal, SIZE)
    found = track(drawn.video, None, TrackerOptions(points=400), drawn.k)
    points, _, things = drawn.follow(found.xy[np.arange(found.points), found.started_at], found.started_at)
    kept = np.flatnonzero(things >= 0)
    tracks = found.select(kept)
    return drawn.video, Scene(tracks, points[kept], *cameras, things[kept] == BODY, "rendered")


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


COLMAP = """
import json, sys, time, numpy as np, pycolmap
folder, focal = sys.argv[1], float(sys.argv[2])
started = time.process_time()
lens = f"{focal},{sys.argv[3]},{sys.argv[4]},0"
options = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL", camera_params=lens)
one = {"num_threads": 1}
mode = pycolmap.CameraMode.SINGLE
pycolmap.extract_features(f"{folder}/d.db", f"{folder}/images", camera_mode=mode, reader_options=options,
    extraction_options=one)
pycolmap.match_sequential(f"{folder}/d.db", matching_options=one)
found = pycolmap.incremental_mapping(f"{folder}/d.db", f"{folder}/images", f"{folder}/out", options=one)
best = max(found.values(), key=lambda r: r.num_reg_images())
poses = {i.name: i.cam_from_world() for i in best.images.values() if i.has_pose}
names = sorted(poses)
print(json.dumps({"focal": next(iter(best.cameras.values())).params[0], "frames": [int(n[:4]) for n in names],
    "rotations": [poses[n].rotation.matrix().T.tolist() for n in names],
    "positions": [(-poses[n].rotation.matrix().T @ poses[n].translation).tolist() for n in names],
    "seconds": time.process_time() - started}))
"""
"""Runs by itself: OpenCV and pycolmap in one process abort."""


def colmap(video: Video, scene: Scene, guess: float) -> dict[str, float]:
    """pycolmap on the same pictures from the same guess; its features and matches are in its seconds."""
    k = scene.tracks.intrinsics
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images").mkdir()
        for n, frame in enumerate(video.frames):
            cv2.imwrite(f"{folder}/images/{n:04d}.png", frame[..., ::-1])
        command = [sys.executable, "-c", COLMAP, folder, *(str(v) for v in (guess, k.cx, k.cy))]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return {"focal_percent": float("nan"), "failed": answer.stderr.strip()[-120:]}
    found = json.loads(answer.stdout.strip().splitlines()[-1])
    turned, placed = (torch.tensor(found[key]).double() for key in ("rotations", "positions"))
    true = (torch.from_numpy(part[found["frames"]]) for part in (scene.rotations, scene.positions))
    errors = camera_errors(turned, placed, *true)
    return {
        "focal_percent": 100 * (found["focal"] / k.focal - 1), "registered": len(found["frames"]),
        "rotation": errors["rotation"], "camera_path": errors["camera_path"], "seconds": found["seconds"],
    }  # fmt: skip


def arms_of(k: Intrinsics, guesses: bool, pycolmap: bool) -> dict[str, Intrinsics]:
    """What each arm is told of the lens."""
    guessed = {f: replace(k, focal=k.focal * f, source="guess") for f in (0.6, 1.6)} if guesses or pycolmap else {}
    ours = {f"guess x{f}": told for f, told in guessed.items()} if guesses else {}
    theirs = {f"pycolmap x{f}": told for f, told in guessed.items()} if pycolmap else {}
    return {"held": k, **ours, **theirs}


def measured(number: int, frames: int, with_walker: bool, arms: dict[str, bool], done: set[str]) -> Iterator[dict]:
    """A row for each arm of a clip that is not done yet; the clip is rendered if there is one."""
    names = arms_of(Intrinsics.assumed(*SIZE), **arms)
    if done.issuperset(names):
        return
    started, model = time.process_time(), pretrained()[0]
    video, scene = clip(number, frames, with_walker)
    k, made = scene.tracks.intrinsics, time.process_time() - started
    about = {"widths": k.focal / SIZE[0], "frames": frames, "walker": with_walker, "made": made}
    for name, told in arms_of(k, **arms).items():
        if name in done:
            continue
        given = replace(scene, tracks=replace(scene.tracks, intrinsics=told))
        found = colmap(video, scene, told.focal) if name.startswith("pycolmap") else measure(scene, given.tracks, model)
        yield {"clip": number, "arm": name, **about, **found}


def summary(rows: list[dict]) -> Iterator[str]:
    """For each arm: clips, share within 1 % (a clip without an answer is not), worst, medians."""
    for arm in dict.fromkeys(row["arm"] for row in rows):
        part = [row for row in rows if row["arm"] == arm]
        numbers = {key for row in part for key, value in row.items() if isinstance(value, float)}
        medians = {
            key: round(float(np.nanmedian([row.get(key, np.nan) for row in part])), 4) for key in sorted(numbers)
        }
        off = np.abs([row["focal_percent"] for row in part])
        within = f"{int((off <= 1).sum())} of {len(part)} within 1 %, worst {np.nanmax(off):.2f}"
        yield f"{arm}: {within}, {int(np.isnan(off).sum())} without an answer; medians {json.dumps(medians)}"


def main(
    clips: int = 20, frames: int = 24, walker: int = 0, seed: int = 0, guesses: int = 1, pycolmap: int = 0,
    file: str = "",
) -> None:  # fmt: skip
    kept = Path(file) if file else None
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    rows = [row for row in rows if row["frames"] == frames and row["walker"] == bool(walker)]
    for number in range(seed, seed + clips):
        done = {row["arm"] for row in rows if row["clip"] == number}
        for row in measured(number, frames, bool(walker), {"guesses": bool(guesses), "pycolmap": bool(pycolmap)}, done):
            rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
            print(json.dumps(rows[-1]), flush=True)
            if kept:
                with kept.open("a") as lines:
                    lines.write(json.dumps(rows[-1]) + "\n")
    for line in summary([row for row in rows if seed <= row["clip"] < seed + clips]):
        print(line)


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = (part.partition("=") for part in sys.argv[1:])
    main(**{key: value if key == "file" else int(value) for key, _, value in words})
