"""The examples of every command's help are run as they are written, on small files with the names that they use.

Where an example is long, words are added that make it small; what a shell does (``>``, ``|``, ``;``) is done here.
"""

import importlib.util
from pathlib import Path

import pytest

for extra in ("sklearn", "cv2", "transformers", "pyarrow", "safetensors", "trimesh", "datamol"):
    if importlib.util.find_spec(extra) is None:
        pytest.skip(f"{extra} is not installed", allow_module_level=True)

FILE = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
spec = importlib.util.spec_from_file_location("chaos", FILE)
chaos = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chaos)

TINY = ["training.epochs=1", "model.width=8", "model.layers=1", "training.batch_size=64"]
SMALLER = {
    "run subgraphormer/freesolv": TINY,
    "run mine.yaml": TINY,
    "sweep": ["--seeds", "1", "--workers", "1", *TINY],
    "preprocess": ["--workers", "1", "--shard-rows", "10"],
    "verify subgraphormer/freesolv": ["--seed", "0"],
    "bench expressivity": [],
    "reconstruct": [],
    "audit": ["--steps", "20"],
    "lora zoo": [],
}
"""Words that are added, by the first words of an example."""
ELSEWHERE = {"/media/stick/downloads": "stick"}
ABSENT = ("is not here: pip install", "COSET_DATA")
"""What the error says where data or a package that is not free to have here is missing."""
