"""Videos longer than a window of the network: cameras from windows that are merged, from a plain guess, and grown.

    python benchmarks/motion_long.py scenes=4 frames=90 length=45

Clouds of 150 points, of which 24 go about together, seen on an arc round them of 20, 40 and 60 degrees with a swaying
camera (320 x 240 pixels, noise .2), each point for ``length`` frames at most, lens given. A row a scene: rotation
error in degrees, error of the camera path, and the likelihood that adjustments make small (lower is better), after
bundle adjustment from each start; CPU seconds of start and adjustment. ``truth`` starts from the true cameras.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from coset.motion.baselines import FreeReconstruction
from coset.motion.bundle_adjustment import PINHOLE, Unknowns, adjust_among_still, static_cost
from coset.motion.data.scenes import Scene, pictured
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.growing import grown
from coset.motion.metrics import camera_errors
from coset.motion.models.checkpoint import pretrained
from coset.motion.models.trackster4d import Prediction, TracksTo4D
from coset.motion.reconstruct import Options, joined, passes

SIZE, LENS = (320, 240), Intrinsics(300, 160, 120, "synthetic")
ARCS = (20, 40, 60)
MOVING = 24


def arc(degrees: float, frames: int, length: int, seed: int) -> Scene:
    """A camera that goes round a point four units away, by so many degrees, and sways."""
    rng, when = np.random.default_rng(seed), np.linspace(0, 1, frames)
    world = rng.uniform([-1.3, -0.9, 3], [1.3, 0.9, 6], (150, 3))[:, None].repeat(frames, 1)
    world[:MOVING] = rng.uniform([-0.3, -0.3, 3.2], [0.3, 0.3, 3.8], (MOVING, 3))[:, None]
    world[:MOVING] += np.stack([0.5 * np.sin(5 * when), 0.2 * np.cos(7 * when), 0.3 * np.sin(4 * when)], -1)
    about, sway = np.radians(degrees) * (when - 0.5), 0.1 * np.sin(6 * when)
    rotations = Rotation.from_euler("YX", np.stack([about, sway], -1)).as_matrix()
    positions = np.stack([-3.6 * np.sin(about), 0.4 * np.sin(4 * when), 4 - 3.6 * np.cos(about)], -1)
    pixels, depth = pictured(world, rotations, positions, LENS)
    pixels += 0.2 * rng.standard_normal(pixels.shape)
    visible = (pixels >= 0).all(-1) & (pixels <= np.array(SIZE) - 1).all(-1) & (depth > 0)
    visible &= rng.uniform(size=visible.shape) < 0.95
    for row in visible:
        start = int(rng.integers(-length // 2, frames - length // 2))
        row[: max(start, 0)] = row[max(start + length, 0) :] = False
    rows = visible.sum(1) >= 3
    moving = (np.arange(len(world)) < MOVING)[rows]
    tracks = Tracks(pixels[rows], visible[rows], SIZE, intrinsics=LENS)
    return Scene(tracks, world[rows], rotations, positions, moving, f"{degrees} degrees")


def found_from(scene: Scene, model: TracksTo4D, options: Options) -> dict[str, float]:
    """What comes of each start."""
    flat = scene.tracks.tensor(model.read_unseen)
    tracks, windows = flat.double(), passes(flat, model, options)
    merged, kept = joined(windows, flat, model.basis)
    true = [torch.from_numpy(v).double() for v in (scene.rotations, scene.positions)]
    middle = torch.from_numpy(scene.points).double().mean(1)[kept]

    def growing() -> Prediction:
        start = grown(windows, tracks, options.bundle)
        return start._replace(basis=start.basis[kept], gamma=start.gamma[kept])

    starts: dict[str, Callable[[], Prediction]] = {
        "merged": lambda: merged.still(),
        "plain": lambda: Prediction(*(part.detach() for part in FreeReconstruction(tracks[kept], basis=1)())),
        "grown": growing,
        "truth": lambda: merged.still()._replace(rotations=true[0], positions=true[1], basis=middle[:, None]),
    }
    row: dict[str, float] = {}
    for name, start in starts.items():
        began = time.process_time()
        adjusted, *_ = adjust_among_still(start(), PINHOLE, tracks[kept], options.bundle, Unknowns())
        errors = camera_errors(adjusted.rotations, adjusted.positions, *true)
        row |= {f"{name}_{key}": round(errors[key], 4) for key in ("rotation", "camera_path")}
        row[f"{name}_cost"] = round(static_cost(adjusted, tracks[kept]), 3)
        row[f"{name}_seconds"] = round(time.process_time() - began, 1)
    return row


def main(scenes: int = 4, frames: int = 90, length: int = 45) -> None:
    model, about = pretrained()
    options = Options(window=about.get("window"))
    for degrees in ARCS:
        for seed in range(scenes):
            row = found_from(arc(degrees, frames, length, seed), model, options)
            print(json.dumps({"degrees": degrees, "seed": seed, **row}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(**{key: int(value) for key, _, value in (argument.partition("=") for argument in sys.argv[1:])})
