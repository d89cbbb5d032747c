"""Time and peak memory of one pass of TracksTo4D, against the same network attending over all tokens at once.

Run: python benchmarks/motion_forward.py [films|small|paper], the networks of the package and the paper's sizes. Each
case runs in its own process, on one thread. All tokens of 1,000 points over 200 frames would take most of an hour:
extrapolated from a n + b n^2 through smaller cases.
"""

import json
import resource
import subprocess
import sys
import time

import numpy as np

SIZES = {
    "small": {"width": 64, "heads": 4, "head_width": 16, "hidden": 128, "octaves": 6, "orbit": True},
    "films": {
        "width": 192,
        "heads": 6,
        "head_width": 32,
        "hidden": 768,
        "octaves": 6,
        "kernel": 5,
        "orbit": True,
        "displacement": True,
    },
    "paper": {},
}
LARGEST = (1000, 200)
CASES = [
    (400, 50, "factorised"),
    (*LARGEST, "factorised"),
    (200, 25, "all tokens"),
    (400, 25, "all tokens"),
    (400, 50, "all tokens"),
]


def measure(size: str, points: int, frames: int, how: str) -> dict[str, float]:
    """Processor seconds of a pass after a small one, and how much the process grew."""
    import torch

    from coset.motion.models.trackster4d import TracksTo4D

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = TracksTo4D(**SIZES[size]).eval()
    if how == "all tokens":
        for block in (*model.over_frames, *model.over_points):
            plain = block.forward

            def over_all(x, keys, plain=plain):
                return plain(x.reshape(x.size(0), 1, -1, x.size(-1)), None).view(x.shape)

            block.forward = over_all
    with torch.no_grad():
        model(torch.rand(20, 10, 3))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        model(torch.rand(points, frames, 3).add(0.5))
        seconds = time.process_time() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": round(seconds, 2), "megabytes": round(grown)}


def main() -> None:
    size = sys.argv[1] if len(sys.argv) > 1 else "small"
    tokens, seconds = [], []
    for points, frames, how in CASES:
        command = [sys.executable, __file__, "case", size, str(points), str(frames), how]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"{size}: {points} points, {frames} frames, {how}: {found}", flush=True)
        if how == "all tokens":
            tokens.append(points * frames)
            seconds.append(found["seconds"])
    n = np.array(tokens, dtype=float)
    (a, b), *_ = np.linalg.lstsq(np.stack([n, n**2], 1), np.array(seconds), rcond=None)
    most = LARGEST[0] * LARGEST[1]
    print(f"{size}: {LARGEST[0]} points, {LARGEST[1]} frames, all tokens, extrapolated: {a * most + b * most**2:.0f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
    else:
        main()
