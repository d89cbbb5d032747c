"""Which part of the depth of bodies is wrong: errors of the clips of ``motion_bodies.py``, taken apart.

    python benchmarks/motion_components.py clips=12 seed=0 [file=rows.jsonl]

For the observations of points on bodies, the logarithm of depth over true depth (both of the scene that stands still
scaled alike) is a sum of

- scale: its mean over a clip, how far away the body is put;
- way: its mean over each frame, less the scale; of which a trend (a line over time, what a body does along the rays
  over the whole clip) and swings;
- relief: its mean over each point, less these: which point is before which;
- own: what is left.

A line a clip: abs-rel as it is; root mean squares of the parts; abs-rel with each part alone made right, and with
nothing wrong but it; the same of a body frozen at its true mean place. Focal length given, tracks of the tracker.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from coset.motion.geometry import to_camera
from coset.motion.models.checkpoint import pretrained
from coset.motion.reconstruct import Options, Reconstruction, reconstruct
from coset.motion.tracker import TrackerOptions, track
from motion_bodies import CREATURES, clip_of
from rendering import BODY, Clip


def parts_of(error: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Scale, trend, swings, relief and own, [P, N] each, of what is seen; they add up to the error."""
    rest, times = np.where(seen, error, 0.0), np.linspace(-1, 1, seen.shape[1])
    count = np.maximum(seen.sum(0), 1)
    scale = np.where(seen, rest.sum() / seen.sum(), 0.0)
    rest = rest - scale
    # Points come and go: means over frames and over points are taken in turn until they settle.
    way, relief = np.zeros(seen.shape[1]), np.zeros(len(seen))
    for _ in range(50):
        way = np.where(seen, rest - relief[:, None], 0).sum(0) / count
        relief = np.where(seen, rest - way, 0).sum(1) / np.maximum(seen.sum(1), 1)
    weight = seen.sum(0)
    slope = (weight * way * times).sum() / (weight * times * times).sum()
    trend = np.where(seen, slope * times, 0.0)
    swings, relief = np.where(seen, way, 0.0) - trend, np.where(seen, relief[:, None], 0.0)
    return {"scale": scale, "trend": trend, "swings": swings, "relief": relief, "own": rest - trend - swings - relief}


def measured(depth: np.ndarray, true: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Of observations of bodies."""
    error = np.log(np.where(seen, depth / true, 1.0))
    parts = parts_of(error, seen)

    def abs_rel(values: np.ndarray) -> float:
        return float(np.abs(np.exp(values[seen]) - 1).mean())

    row = {"abs_rel": abs_rel(error)}
    for name, part in parts.items():
        row |= {
            f"{name}_rms": float(np.sqrt(np.square(part[seen]).mean())),
            f"{name}_right": abs_rel(error - part),
            f"{name}_alone": abs_rel(part),
        }
    return row


def of_clip(clip: Clip, result: Reconstruction) -> dict[str, float]:
    """The parts, and those of a body frozen at its true mean place."""
    tracks, p = clip.tracks_with_truth(result.tracks), result.prediction
    started = tracks.visible.argmax(1)
    points, _, thing = clip.follow(tracks.xy[np.arange(tracks.points), started], started)
    true = tracks.truth.depth
    seen = tracks.visible & np.isfinite(points).all((1, 2))[:, None] & (true > 0)
    depth = to_camera(result.points(), p.rotations, p.positions)[..., 2].numpy()
    still = seen & ~tracks.truth.moving[:, None]
    depth = depth * np.median(true[still] / depth[still])
    on = seen & (tracks.truth.moving & (thing >= BODY))[:, None] & (depth > 0)
    rows = on.sum(1) >= 3
    mean = (np.nan_to_num(points) * on[..., None]).sum(1) / np.maximum(on.sum(1), 1)[:, None]
    inside = np.einsum("pni,nij->pnj", mean[:, None] - clip.positions, clip.rotations)[..., 2]
    frozen = {f"frozen_{k}": v for k, v in measured(inside[rows], true[rows], on[rows]).items()}
    return {**measured(depth[rows], true[rows], on[rows]), **frozen}


def main(clips: int = 12, seed: int = 0, frames: int = 48, file: str = "") -> None:
    kept = Path(file) if file else None
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    model = pretrained()[0]
    for number in range(seed, seed + clips):
        if any(row["clip"] == number for row in rows):
            continue
        clip = clip_of(number, frames)
        result = reconstruct(track(clip.video, None, TrackerOptions(), clip.k), model, Options())
        row = {"clip": number, "body": CREATURES[number % len(CREATURES)], **of_clip(clip, result)}
        rows.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
        print(json.dumps(rows[-1]), flush=True)
        if kept:
            with kept.open("a") as lines:
                lines.write(json.dumps(rows[-1]) + "\n")
    rows = [row for row in rows if seed <= row["clip"] < seed + clips]
    numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
    print("medians", json.dumps({k: round(float(np.median([r[k] for r in rows])), 4) for k in numbers}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = (part.partition("=") for part in sys.argv[1:])
    main(**{key: value if key == "file" else int(value) for key, _, value in words})
