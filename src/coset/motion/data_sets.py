"""Data sets of motion: bodies that made-up scenes show. Light: nothing heavy is imported."""

from collections.abc import Mapping
from typing import Any

from coset.core.data_sets import DataSet, Download, register

DEEPMIMIC = "https://raw.githubusercontent.com/xbpeng/DeepMimic/master/data"
THREE = "https://raw.githubusercontent.com/mrdoob/three.js/r160/examples/models/gltf"
CLIPS = {
    "dog3d": ("pace", "trot", "canter"),
    "humanoid3d": ("walk", "run", "dance_a", "jump", "crawl", "kick", "cartwheel", "spin"),
}
CLIP_FILES = {
    **{f"motion/{body}.json.gz": f"characters/{body}.txt" for body in CLIPS},
    **{f"motion/{body}_{clip}.json.gz": f"motions/{body}_{clip}.txt" for body in CLIPS for clip in CLIPS[body]},
}

register(
    DataSet("scenes", "scenes at random with tracks of points, depths and cameras", "none needed", generated=True),
    DataSet(
        "motion-capture", "skeletons of a person and a dog in eleven recorded motions (DeepMimic)", "MIT",
        files=tuple(CLIP_FILES), downloads=tuple(
            Download(f"{DEEPMIMIC}/{theirs}", size=60_000) for theirs in CLIP_FILES.values()
        ),
    ),
    DataSet(
        "robot", "a robot with fourteen motions (RobotExpressive)", "CC0",
        files=("motion/robot_expressive.glb",), downloads=(Download(
            f"{THREE}/RobotExpressive/RobotExpressive.glb", size=870_000,
        ),),
    ),
    DataSet(
        "birds", "a parrot and a stork in flight, as meshes with key shapes (three.js)", "none stated",
        files=("motion/mesh_parrot.npz", "motion/mesh_stork.npz"), make="coset.motion.data.key_shapes:birds",
        downloads=(Download(f"{THREE}/Parrot.glb", size=100_000), Download(f"{THREE}/Stork.glb", size=80_000)),
    ),
)  # fmt: skip


def needed(recipe: Mapping[str, Any]) -> list[str]:
    """Names of the data sets of a recipe of kind ``motion``: whatever it trains on, it is tested on all bodies."""
    return ["scenes", "motion-capture", "robot", "birds"]
