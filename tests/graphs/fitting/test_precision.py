"""Precision of training."""

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_half_precision_on_a_cpu_is_told_to_be_slower(coset, small_csv, tmp_path):
    data = f"data={{name: csv, path: {small_csv}, target: carbons}}"
    small = ["model.width=8", "model.layers=1", "training.epochs=1"]
    for precision, told in (("bf16-mixed", True), ("32-true", False)):
        arguments = ["run", "gin/freesolv", data, *small, f"trainer.precision={precision}"]
        code, _, problems = coset(*arguments, "--output", str(tmp_path / precision))
        assert code == 0, problems
        assert ("makes a CPU slower" in problems) == told
