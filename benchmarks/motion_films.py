"""The networks of the package on films as people take them, of bodies that neither was trained on.

    python benchmarks/motion_films.py films=20 seed=4242

150 points and 32 frames a film (`coset.motion.data.films`), lens known. One pass, and refined by bundle adjustment with
what moves placed. Medians over films, and of how many cameras are within .3 degrees.
"""

import sys
from statistics import median

import torch

from coset.motion.bundle_adjustment import bundle_adjust
from coset.motion.data.bodies import UNSEEN_MOTIONS, UNSEEN_SHAPES
from coset.motion.data.films import make_films
from coset.motion.data.scenes import SceneOptions
from coset.motion.metrics import scene_metrics
from coset.motion.models.checkpoint import PRETRAINED, pretrained

SHOWN = ("reprojection", "rotation", "camera_path", "points", "moving_points", "phantom_motion", "motion_cosine")
SHOWN += ("motion_size", "abs_rel", "dynamic_abs_rel", "auroc")


def main(films: int = 20, seed: int = 4242) -> None:
    torch.set_num_threads(1)
    scenes = make_films([*UNSEEN_SHAPES, *UNSEEN_MOTIONS], films, SceneOptions(points=150, frames=32), seed)
    print("|", " | ".join(("network", "", *SHOWN, "rotation <= .3")), "|")
    for name in PRETRAINED:
        network = pretrained(name)[0]
        rows: dict[str, list[dict[str, float]]] = {"one pass": [], "refined": []}
        for scene in scenes:
            tracks = scene.tracks.tensor()
            with torch.no_grad():
                found = network(tracks)
            rows["one pass"].append(scene_metrics(found, scene))
            rows["refined"].append(scene_metrics(bundle_adjust(found, tracks, network=found), scene))
        for how, measured in rows.items():
            cells = [f"{median(row[key] for row in measured):.3g}" for key in SHOWN]
            print("|", " | ".join((name, how, *cells, str(sum(row["rotation"] <= 0.3 for row in measured)))), "|")


if __name__ == "__main__":
    main(**{key: int(value) for key, _, value in (part.partition("=") for part in sys.argv[1:])})
