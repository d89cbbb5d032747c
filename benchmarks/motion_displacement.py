"""What holds still points still: the published sparsity of the clouds, or a loss on how far points move.

    python benchmarks/motion_displacement.py updates=400 scenes=96 seeds=2

The network of the package is trained on, at rate 3e-4, on new scenes with the losses of the paper and the teacher:
``sparse`` with L_sparse (weight .001), ``motion`` with L_motion in its place (weight .05). Held-out scenes as of
``coset run trackster4d/evaluate``; medians. CPU seconds.
"""

import sys
import time

import pandas as pd
import torch

from coset.motion.data.bodies import TRAINING, UNSEEN_MOTIONS, UNSEEN_SHAPES
from coset.motion.data.scenes import Scene, SceneOptions, make_scenes
from coset.motion.learning import train
from coset.motion.lessons import Schedule, teach
from coset.motion.losses import LossWeights
from coset.motion.metrics import scene_metrics
from coset.motion.models.checkpoint import pretrained
from coset.motion.models.trackster4d import TracksTo4D

SHOWN = (
    "reprojection", "rotation", "points", "static_points", "moving_points", "phantom_motion", "motion_cosine",
    "motion_size", "abs_rel", "dynamic_abs_rel", "auroc",
)  # fmt: skip
ARMS = {"sparse": LossWeights(), "motion": LossWeights(sparse=0.0, motion=0.05)}


def measure(model: TracksTo4D, scenes: list[Scene]) -> dict[str, float]:
    """Medians over scenes of one pass."""
    rows = []
    for scene in scenes:
        with torch.no_grad():
            rows.append(scene_metrics(model(scene.tracks.tensor()), scene))
    medians = pd.DataFrame(rows).median()
    return {name: float(medians[name]) for name in SHOWN}


def main(updates: int = 400, scenes: int = 96, seeds: int = 2, tests: int = 10) -> None:
    held = SceneOptions(points=150, frames=32)
    groups = {
        "unseen shapes": make_scenes(list(UNSEEN_SHAPES), tests, held, 7777),
        "unseen motions": make_scenes(list(UNSEEN_MOTIONS), tests, held, 7778),
    }

    def show(name: str, model: TracksTo4D, seconds: float) -> None:
        for group, held_out in groups.items():
            cells = ", ".join(f"{key} {value:.3g}" for key, value in measure(model, held_out).items())
            print(f"{name} | {group} | {cells} | {seconds:.0f} s", flush=True)

    show("package", pretrained()[0], 0.0)
    for seed in range(seeds):
        new = make_scenes(list(TRAINING), scenes, SceneOptions(points=128, frames=32), 1000 + seed)
        videos = teach([scene.tracks.tensor() for scene in new])
        for name, weights in ARMS.items():
            model = pretrained()[0]
            schedule = Schedule(steps=updates, learning_rate=3e-4, warm_up=0, weights=weights)
            started = time.process_time()
            train(model, videos, schedule, seed)
            show(f"{name}, seed={seed}", model.eval(), time.process_time() - started)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(**{key: int(value) for key, _, value in (part.partition("=") for part in sys.argv[1:])})
