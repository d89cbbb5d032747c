"""A short form of ``benchmarks/chaos.py``: ten faults in four commands leave what undisturbed ones leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
VERBS = ["run", "preprocess", "lora merge", "lora apply"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_ten_faults():
    command = [sys.executable, SCRIPT, "--faults", "10", "--seed", "3", "--verbs", *VERBS]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "10 faults, 0 failures" in found.stdout
