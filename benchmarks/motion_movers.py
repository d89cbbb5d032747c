"""Where bodies are put, on synthetic tracks with exact truth: unseen shapes and unseen motions, and the two marks.

    python benchmarks/motion_movers.py scenes=10 seed=7777

Groups of held-out scenes as ``coset run trackster4d/evaluate`` makes them (150 points, 32 frames, seeds ``seed`` and
``seed`` + 1). Medians over the scenes of a group; lengths over the scene's size, depths scaled by the median over all
points of a frame. ``placed``: the network, bundle adjustment, movers placed. ``B_k = 0``: the same with nothing moving.
``frozen``: the truth, every moving point at its mean place. CPU seconds of placing the movers in the first row.
"""

import json
import sys
import time

import numpy as np
import torch

from coset.motion.bundle_adjustment import adjust_cameras
from coset.motion.data.bodies import UNSEEN_MOTIONS, UNSEEN_SHAPES
from coset.motion.data.scenes import Scene, SceneOptions, make_scenes
from coset.motion.metrics import scene_metrics
from coset.motion.models.checkpoint import pretrained
from coset.motion.models.trackster4d import Prediction
from coset.motion.movers import place_movers
from coset.motion.reconstruct import Options, best_bundle, feed_forward

SHOWN = (
    "points", "moving_points", "motion_cosine", "motion_size", "phantom_motion", "abs_rel", "dynamic_abs_rel",
    "rotation",
)  # fmt: skip


def frozen(scene: Scene) -> Prediction:
    """The truth with each moving point at the mean of where it is seen."""
    points, seen = torch.from_numpy(scene.points), torch.from_numpy(scene.tracks.visible)
    mean = (points * seen[..., None]).sum(1) / seen.sum(1)[:, None]
    rotations, positions = torch.from_numpy(scene.rotations), torch.from_numpy(scene.positions)
    ones = torch.ones(len(positions), 1).double()
    return Prediction(rotations, positions, ones, ones[:, 0], mean[:, None], torch.ones(len(points)).double())


def arms(scene: Scene, model: torch.nn.Module) -> dict[str, dict[str, float]]:
    options = Options()
    tracks = scene.tracks.tensor(model.read_unseen)
    prediction, _, _ = feed_forward(tracks, model, options)
    placed, _, _ = best_bundle(prediction, tracks.double(), options, lambda: None)
    adjusted = adjust_cameras(prediction, tracks.double(), options.bundle)
    started = time.process_time()
    place_movers(adjusted, tracks.double(), options.bundle.noise, prediction)
    seconds = time.process_time() - started
    found = {"placed": placed, "B_k = 0": placed.still(), "frozen": frozen(scene)}
    rows = {name: scene_metrics(p, scene) for name, p in found.items()}
    rows["placed"]["seconds"] = seconds
    return rows


def main(scenes: int = 10, seed: int = 7777) -> None:
    model, options = pretrained()[0], SceneOptions(points=150, frames=32)
    for number, (group, bodies) in enumerate(
        {"unseen shapes": UNSEEN_SHAPES, "unseen motions": UNSEEN_MOTIONS}.items()
    ):
        rows = [arms(scene, model) for scene in make_scenes(list(bodies), scenes, options, seed + number)]
        for arm in rows[0]:
            names = [*SHOWN, *(["seconds"] if arm == "placed" else [])]
            medians = {name: round(float(np.nanmedian([row[arm][name] for row in rows])), 4) for name in names}
            print(
                json.dumps({"group": group, "seed": seed + number, "arm": arm, "scenes": scenes, **medians}), flush=True
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(**{key: int(value) for key, _, value in (part.partition("=") for part in sys.argv[1:])})
