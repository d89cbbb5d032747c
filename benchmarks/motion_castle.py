"""A simulated film with exact cameras and depths that is not ours: Castle-simu of Debian's ``visp-images-data``.

    apt-get download visp-images-data && dpkg -x visp-images-data_*.deb FOLDER
    python benchmarks/motion_castle.py FOLDER [OUTPUT]

40 grey frames of 640 x 480, a toy castle and a box before nothing, the camera on an arc of about 50 degrees. From the
pictures to the scene by the command's own way, with the lens given (700 pixels), estimated from the usual start, and
from guesses x 0.6 and x 1.6. A line each: errors of the focal length (percent) and of rotation (degrees), of the
camera's way over its size, of depth, and the reprojection; CPU seconds with tracking. OUTPUT gets the
page of the first.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from coset.motion.data.visp import KnownClip, read_known_clip
from coset.motion.pipeline import Input, reconstruct_file
from coset.motion.reconstruct import Options

PLACE = "usr/share/visp-images-data/ViSP-images/mbt-depth/Castle-simu"
SHOWN = ("rotation", "camera_path", "abs_rel", "delta1", "reprojection_median_px", "points", "moving_points")


def measure(known: KnownClip, pictures: Path, output: Path, arm: str) -> dict:
    k, started = known.intrinsics, time.process_time()
    given = {
        "given": {"intrinsics": f"{k.focal},{k.cx},{k.cy}"},
        "unknown": {},
        "x 0.6": {"focal_guess": 0.6 * k.focal},
        "x 1.6": {"focal_guess": 1.6 * k.focal},
    }[arm]
    result, _ = reconstruct_file(Input(pictures, **given), output, Options())
    seconds = time.process_time() - started
    measured = replace(result, tracks=known.with_truth(result.tracks)).metrics()
    found = result.tracks.intrinsics.focal
    return {
        "lens": arm, "focal_percent": 100 * (found / k.focal - 1), **{name: measured.get(name) for name in SHOWN},
        "seconds": seconds,
    }  # fmt: skip


def main(folder: Path, output: Path | None) -> None:
    place = folder / PLACE if (folder / PLACE).exists() else folder
    known = read_known_clip(place)
    for arm in ("given", "unknown", "x 0.6", "x 1.6"):
        with tempfile.TemporaryDirectory() as spare:
            here = output if output is not None and arm == "given" else Path(spare) / "scene"
            row = measure(known, place / "Images", here, arm)
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
