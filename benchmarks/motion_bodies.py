"""Bodies that walk through a rendered room, from a video file to moving points: `coset reconstruct`, with exact truth.

    python benchmarks/motion_bodies.py clips=12 seed=0 given=1

Each clip: 48 frames of 640 x 480 (every fourth upright), a lens of .7 to 1.4 widths, a hand-held arc of 10 to 35
degrees, a person or a dog of textured boxes that moves as recorded (data: ``motion/{dog3d,humanoid3d}*``), its feet on
the ground, and a post that it passes behind. The video is written as MP4 and goes through the whole chain, with the
focal length given (``given=1``) or not (``given=0``). A line a clip, then medians:

- tracks: median error against exact flow, share beyond 4 pixels, share of the frames in which a point can be seen that
  it is followed in within 4 pixels, mean length, number; how many points come back into view after three hidden frames
  or more, and the share of these that are found again within 4 pixels; of moving and of still points;
- depth abs-rel over all and over moving observations, scaled by the median over all points of a frame, the truth being
  the depth under the pixel; the same with nothing moving (B_k = 0), and with every body frozen at its true mean place;
- travel: median way of moving points from their first to their last sight over the true one; cosine of their motion;
- behind: share of the observations of bodies that are put behind what the body hides;
- rotation in degrees, focal length in percent, static points over the scene's size.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from coset.motion.geometry import align_robustly, to_camera
from coset.motion.metrics import camera_errors, depth_errors, motion_errors
from coset.motion.pipeline import Input, reconstruct_file
from coset.motion.reconstruct import Options, Reconstruction
from rendering import BODY, Clip, creature, hand_held, moved, post, rendered, room

CREATURES = ("human-walk", "dog-trot", "human-run", "dog-pace", "human-dance_a", "dog-canter")


def clip_of(seed: int, frames: int = 48) -> Clip:
    """A clip as above; its kind of body by its seed."""
    rng = np.random.default_rng((seed, 17))
    size = (480, 640) if seed % 4 == 3 else (640, 480)
    focal = rng.uniform(0.7, 1.4) * max(size)
    travel = rng.uniform(0.4, 1.2)
    body = creature(CREATURES[seed % len(CREATURES)], frames, travel, rng)
    path = np.mean([f.corner + f.edges[0] / 2 + f.edges[1] / 2 for f in body], 0)
    body = moved(body, np.array([0, 0, 1.0]) - path.mean(0) * [1, 0, 1])
    cameras = hand_held(frames, focal / max(size), np.array([0.0, 0.6, 0.5]), rng, (10, 35), (2.6, 3.4))
    between = np.array([0, 0, 1.0]) + 0.35 * (cameras[1].mean(0) - [0, 0, 1.0])
    faces = (
        room(frames, rng, tinted=True)
        + post(frames, between + [rng.choice([-1, 1]) * rng.uniform(0.15, 0.4), 0, 0], rng)
        + body
    )
    return rendered(faces, cameras, focal, size)


def write_video(clip: Clip, path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), clip.video.rate, clip.video.size)
    for frame in clip.video.frames:
        writer.write(frame[..., ::-1])
    writer.release()


def of_tracks(clip: Clip, result: Reconstruction) -> dict[str, float]:
    """How well the tracker follows, against exact flow from where each track begins."""
    tracks = result.tracks
    started = tracks.visible.argmax(1)
    points, seen, thing = clip.follow(tracks.xy[np.arange(tracks.points), started], started)
    error = np.linalg.norm(clip.project(points)[0] - tracks.xy, axis=-1)
    back = back_in_view(seen)
    found = (back & tracks.visible & (error < 4)).any(1)
    row = {}
    for name, rows in (("mover", thing >= BODY), ("still", (thing >= 0) & (thing < BODY))):
        error_here, followed, there = error[rows], tracks.visible[rows], seen[rows]
        row |= {
            f"{name}_tracks": int(rows.sum()),
            f"{name}_px": float(np.nanmedian(error_here[followed])) if followed.any() else np.nan,
            f"{name}_beyond": float((error_here[followed] > 4).mean()) if followed.any() else np.nan,
            f"{name}_recall": float((followed & (error_here < 4))[there].mean()) if there.any() else np.nan,
            f"{name}_length": float(followed.sum(1).mean()) if len(followed) else np.nan,
            f"{name}_back": int(back[rows].any(1).sum()),
            f"{name}_again": float(found[rows & back.any(1)].mean()) if back[rows].any() else np.nan,
        }
    return row


def back_in_view(seen: np.ndarray, hidden: int = 3) -> np.ndarray:
    """Sights [P, N] that come after a point was hidden for some frames together, having been seen before."""
    run, back, out = np.zeros(len(seen), int), np.zeros(len(seen), bool), np.zeros_like(seen)
    before = np.maximum.accumulate(seen, 1)
    for n in range(seen.shape[1]):
        run = np.where(seen[:, n], 0, run + before[:, n])
        back |= run >= hidden
        out[:, n] = back & seen[:, n]
    return out


def of_scene(clip: Clip, result: Reconstruction) -> dict[str, float]:
    """Cameras, depths, motion against the truth, and the two marks."""
    tracks, p = clip.tracks_with_truth(result.tracks), result.prediction
    started = tracks.visible.argmax(1)
    true = clip.follow(tracks.xy[np.arange(tracks.points), started], started)[0]
    known = np.isfinite(true).all((1, 2))
    seen, moving = torch.from_numpy(tracks.visible & known[:, None]), torch.from_numpy(tracks.truth.moving)
    true, true_depth = torch.from_numpy(np.nan_to_num(true)), torch.from_numpy(tracks.truth.depth).double()
    rotations, positions = torch.from_numpy(clip.rotations), torch.from_numpy(clip.positions)
    row = camera_errors(p.rotations, p.positions, rotations, positions)
    still = seen & ~moving[:, None]
    points = result.points()
    fitted = align_robustly(points[still], true[still])
    points = fitted.points(points)
    size = (true[seen] - true[seen].median(0).values).norm(dim=-1).median()
    depth = to_camera(result.points(), p.rotations, p.positions)[..., 2]
    frozen = (true * seen[..., None]).sum(1, keepdim=True) / seen.sum(1).clamp(min=1)[:, None, None]
    arms = {
        "": depth,
        "still_": to_camera(p.static.unsqueeze(1), p.rotations, p.positions)[..., 2],
        "frozen_": torch.where(moving[:, None], to_camera(frozen, rotations, positions)[..., 2], true_depth),
    }
    for name, values in arms.items():
        errors = depth_errors(values, true_depth, seen, moving)
        row |= {f"{name}abs_rel": errors["abs_rel"], f"{name}mover_abs_rel": errors["dynamic_abs_rel"]}
    row |= motion_errors(points, true, seen, moving)
    first, last = seen.int().argmax(1), tracks.frames - 1 - seen.int().flip(1).argmax(1)
    rows = torch.arange(len(seen))
    ways = [(x[rows, last] - x[rows, first]).norm(dim=-1)[moving & seen.any(1)].median() for x in (points, true)]
    x, y = np.moveaxis(np.clip(np.round(tracks.xy), 0, np.array(clip.video.size) - 1).astype(int), -1, 0)
    behind = torch.from_numpy(clip.behind[np.arange(tracks.frames), y, x].astype(float))
    on_body = seen & moving[:, None] & (behind > 1.02 * true_depth)
    return row | {
        "static_points": float((points - true).norm(dim=-1)[still].median() / size),
        "travel": float(ways[0] / ways[1]), "true_travel": float(ways[1]),
        "behind": float((float(fitted.scale) * depth > behind)[on_body].double().mean()),
        "bodies": len(result.bodies), "unknown": sum(not body.known for body in result.bodies),
        "told": ";".join(body.told_by for body in result.bodies),
    }  # fmt: skip


def measure(clip: Clip, given: bool, folder: Path) -> dict[str, float]:
    write_video(clip, folder / "clip.mp4")
    k, started = clip.k, time.process_time()
    source = Input(folder / "clip.mp4", intrinsics=f"{k.focal},{k.cx},{k.cy}" if given else None)
    result, _ = reconstruct_file(source, folder / "scene", Options())
    seconds = time.process_time() - started
    focal = 100 * (result.tracks.intrinsics.focal / k.focal - 1)
    row = {"seconds": seconds, "focal_percent": focal, "depth_known": result.depth_known, **of_tracks(clip, result)}
    return row | (of_scene(clip, result) if result.depth_known else {})


def main(clips: int = 12, seed: int = 0, given: int = 1, frames: int = 48) -> None:
    rows = []
    for number in range(seed, seed + clips):
        with tempfile.TemporaryDirectory() as folder:
            row = {"clip": number, "body": CREATURES[number % len(CREATURES)]}
            rows.append(row | measure(clip_of(number, frames), bool(given), Path(folder)))
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}), flush=True)
    numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
    print("medians", json.dumps({k: round(float(np.nanmedian([r.get(k, np.nan) for r in rows])), 4) for k in numbers}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(**{key: int(value) for key, _, value in (part.partition("=") for part in sys.argv[1:])})
