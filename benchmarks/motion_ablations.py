"""What the parts of TracksTo4D are for: the same scenes, teacher and number of updates for networks that lack one.

    python benchmarks/motion_ablations.py steps=1500 scenes=200 seeds=2 file=rows.jsonl

Cameras and the places of still points are taught exactly; what moves, how, and how far anything may be from the static
cloud, only the losses on tracks tell: the paper's with L_motion in the place of its sparsity. Variants: ``full``;
``sparsity`` (the paper's, and no L_motion); ``one motion level`` (gamma is its mean over the points, so that no point
can let go of the static cloud); ``static`` (no basis: one cloud); ``free`` (no low rank: a place for every point in
every frame); ``numbered`` (an encoding of the point's number on its tokens: not equivariant). Held-out scenes as of
``coset run trackster4d/small``; ``numbered`` is measured with points in the order of the tracks and shuffled. A row a
variant, seed and group in the file, which the same command completes; medians over scenes. CPU seconds.
"""

import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from coset.motion.data.bodies import TRAINING, UNSEEN_MOTIONS, UNSEEN_SHAPES
from coset.motion.data.scenes import Scene, SceneOptions, make_scenes
from coset.motion.learning import train
from coset.motion.lessons import Lesson, Schedule, told
from coset.motion.losses import LossWeights
from coset.motion.metrics import scene_metrics
from coset.motion.models.trackster4d import Prediction, TracksTo4D, frame_encoding

SIZES = {"width": 64, "blocks": 3, "heads": 4, "head_width": 16, "hidden": 128, "octaves": 6}
SIZES |= {"kernel": 5, "orbit": True, "displacement": True}
SHOWN = ("reprojection", "rotation", "camera_path", "points", "moving_points")
SHOWN += ("phantom_motion", "motion_cosine", "motion_size", "abs_rel", "auroc")
MENDED = LossWeights(sparse=0.0, motion=0.05)
SCHEDULE = Schedule(batch=8, points=32, frames=(12, 32), first_frames=8, spread=True, most_frames=128, heads=0.3)


class OneMotionLevel(TracksTo4D):
    """gamma is the same for all points."""

    def _read(self, of_frames: Tensor, of_points: Tensor, frame_mask: Tensor | None) -> Prediction:
        found = super()._read(of_frames, of_points, frame_mask)
        return found._replace(gamma=found.gamma.mean(-1, keepdim=True).expand_as(found.gamma))


class Free(TracksTo4D):
    """X_ip = B_p + a map of the token of point p in frame i: as a basis of N clouds, each for one frame."""

    def __init__(self, **options: object):
        super().__init__(**options, basis=1)  # type: ignore[arg-type]
        self.place = torch.nn.Linear(int(SIZES["width"]), 3)

    def forward(self, tracks: Tensor, point_mask: Tensor | None = None, frame_mask: Tensor | None = None) -> Prediction:
        if tracks.dim() == 3:
            return Prediction(*(part.squeeze(0) for part in self(tracks.unsqueeze(0))))
        kept: list[Tensor] = []
        hook = self.over_points[-1].register_forward_hook(lambda module, inputs, out: kept.append(out))
        found = super().forward(tracks, point_mask, frame_mask)
        hook.remove()
        moves = self.place(kept[0]).transpose(1, 2)  # of every point in every frame
        frames = torch.eye(tracks.size(2)).to(moves).expand(len(moves), -1, -1)
        coefficients = torch.cat((found.coefficients, frames), -1)
        return found._replace(basis=torch.cat((found.basis, moves), 2), coefficients=coefficients)


class Numbered(TracksTo4D):
    """Points are numbered as frames are."""

    def _tokens(self, tracks: Tensor, seen: Tensor) -> Tensor:
        x = super()._tokens(tracks, seen)
        return x + frame_encoding(x.size(1), x.size(3), self.encoding).to(x)[:, None]


VARIANTS = {
    "full": TracksTo4D,
    "sparsity": TracksTo4D,
    "one motion level": OneMotionLevel,
    "static": partial(TracksTo4D, basis=1),
    "free": Free,
    "numbered": Numbered,
}


def measure(model: TracksTo4D, scenes: list[Scene], shuffle: bool) -> dict[str, float]:
    """Medians over scenes; with ``shuffle`` the points are renumbered first, and the result put back in order."""
    rows = []
    for number, scene in enumerate(scenes):
        tracks = scene.tracks.tensor()
        order = torch.arange(len(tracks))
        if shuffle:
            order = torch.randperm(len(tracks), generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            found = model(tracks[order])
        back = order.argsort()
        rows.append(scene_metrics(found._replace(basis=found.basis[back], gamma=found.gamma[back]), scene))
    return {name: float(torch.tensor([row[name] for row in rows]).nanmedian()) for name in SHOWN}


def lesson(scene: Scene) -> Lesson:
    """Its tracks, with the true cameras and the places of what stands still, and nothing of what moves."""
    known = told(scene)
    return known._replace(
        sure=torch.from_numpy(~scene.moving), away=torch.zeros_like(known.away), told=torch.tensor(False)
    )


def main(steps: int = 1500, scenes: int = 200, seeds: int = 2, tests: int = 20, file: str = "") -> None:
    kept = Path(file) if file else None
    there = [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    videos = [lesson(s) for s in make_scenes(list(TRAINING), scenes, SceneOptions(points=128, frames=32), 1)]
    held = SceneOptions(points=150, frames=32)
    groups = {
        "unseen shapes": make_scenes(list(UNSEEN_SHAPES), tests, held, 7777),
        "unseen motions": make_scenes(list(UNSEEN_MOTIONS), tests, held, 7778),
        "unseen shapes, 32 points": make_scenes(list(UNSEEN_SHAPES), tests, SceneOptions(points=32, frames=32), 7779),
    }
    for seed in range(seeds):
        for name, make in VARIANTS.items():
            if any((row["variant"], row["seed"]) == (name, seed) for row in there):
                continue
            torch.manual_seed(seed)
            model = make(**SIZES)
            before = time.process_time()
            weights = LossWeights() if name == "sparsity" else MENDED
            train(model, videos, replace(SCHEDULE, steps=steps, weights=weights), seed)
            seconds = time.process_time() - before
            rows = []
            for group, held_out in groups.items():
                for shuffle in (False, True) if name == "numbered" else (False,):
                    found = measure(model.eval(), held_out, shuffle)
                    about = {"variant": name, "seed": seed, "group": group, "shuffled": shuffle}
                    rows.append(about | found | {"seconds": round(seconds)})
                    print(json.dumps(rows[-1]), flush=True)
            if kept:
                with kept.open("a") as lines:
                    lines.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = {key: value for key, _, value in (part.partition("=") for part in sys.argv[1:])}
    main(**{key: value if key == "file" else int(value) for key, value in asked.items()})  # type: ignore[arg-type]
