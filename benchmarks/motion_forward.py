"""Time and peak memory of one pass of TracksTo4D, against the same network attending over all tokens at once.

Run: python benchmarks/motion_forward.py [small|paper]. Each case runs in its own process, on one thread.
"""

import json
import resource
import subprocess
import sys
import time

SIZES = {
    "small": {"width": 64, "heads": 4, "head_width": 16, "hidden": 128, "octaves": 6, "orbit": True},
    "paper": {},
}
CASES = [(400, 50, "factorised"), (400, 50, "all tokens"), (1000, 200, "factorised")]


def measure(size: str, points: int, frames: int, how: str) -> dict[str, float]:
    """Processor seconds of a pass after a small one, and how much the process grew."""
    import torch

    from coset.motion.encoder import TracksTo4D

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
    for points, frames, how in CASES:
        command = [sys.executable, __file__, "case", size, str(points), str(frames), how]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"{size}: {points} points, {frames} frames, {how}: {json.loads(out)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
    else:
        main()
