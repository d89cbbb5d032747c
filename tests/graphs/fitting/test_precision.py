"""Precision of training."""

import pytest
import torch

from coset.graphs import experiments
from coset.graphs.fitting import matmul
from coset.graphs.fitting.tasks import GraphTask
from coset.graphs.models.product import PairEncoder


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_half_precision_on_a_cpu_is_told_to_be_slower(coset, small_csv, tmp_path):
    data = f"data={{name: csv, path: {small_csv}, target: carbons}}"
    small = ["model.width=8", "model.layers=1", "training.epochs=1"]
    for precision, told in (("bf16-mixed", True), ("32-true", False)):
        arguments = ["run", "gin/freesolv", data, *small, f"trainer.precision={precision}"]
        code, _, problems = coset(*arguments, "--output", str(tmp_path / precision))
        assert code == 0, problems
        assert ("makes a CPU slower" in problems) == told


SMALL = ["model.width=48", "model.layers=1", "training.epochs=1"]


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_on_a_cpu(coset, small_csv, tmp_path, monkeypatch, able):
    seen = set()
    forward = PairEncoder.forward

    def watched(self, data, graph, stored=None):
        seen.add((self.training, stored))
        return forward(self, data, graph, stored)

    monkeypatch.setattr(experiments, "has_bfloat16", lambda: able)
    monkeypatch.setattr(PairEncoder, "forward", watched)
    data = f"data={{name: csv, path: {small_csv}, target: carbons}}"
    code, _, problems = coset(
        "run", "subgraphormer/freesolv", data, *SMALL, "trainer.precision=bf16", "--output", str(tmp_path / "run")
    )
    assert code == 0, problems
    assert seen == {(True, torch.bfloat16 if able else None), (False, None)}
    assert ("precision is float32" in problems) == (not able)


def test_bfloat16_is_refused_to_networks_without_it(coset, small_csv, tmp_path):
    data = f"data={{name: csv, path: {small_csv}, target: carbons}}"
    code, _, problems = coset("run", "gin/freesolv", data, "trainer.precision=bf16", "--output", str(tmp_path / "run"))
    assert code == 1
    assert "gin with these options has no layers for it" in problems


def test_products_may_be_less_exact_while_training_and_their_error_is_told(coset, small_csv, tmp_path, monkeypatch):
    seen, step = [], GraphTask.training_step

    def watched(self, *arguments):
        seen.append(torch.get_float32_matmul_precision())
        return step(self, *arguments)

    monkeypatch.setattr(GraphTask, "training_step", watched)
    data = f"data={{name: csv, path: {small_csv}, target: carbons}}"
    for precision in ("medium", "highest"):
        seen.clear()
        arguments = ["run", "gin/freesolv", data, *SMALL, f"trainer.matmul_precision={precision}"]
        code, _, problems = coset(*arguments, "--output", str(tmp_path / precision))
        assert code == 0, problems
        assert set(seen) == {precision}
        assert ("trainer.matmul_precision=medium" in problems) == (precision == "medium")
        assert torch.get_float32_matmul_precision() == "highest"

    def broken(self, *arguments):
        raise ValueError("as of a trial that is given up")

    monkeypatch.setattr(GraphTask, "training_step", broken)
    arguments = ["run", "gin/freesolv", data, *SMALL, "trainer.matmul_precision=medium"]
    code, _, problems = coset(*arguments, "--output", str(tmp_path / "broken"))
    assert code == 1
    assert torch.get_float32_matmul_precision() == "highest"
    code, _, problems = coset("run", "gin/freesolv", data, "trainer.matmul_precision=low")
    assert code == 1
    assert "'highest', 'high' or 'medium'" in problems


def test_the_error_of_products_is_measured(monkeypatch):
    assert matmul.product_error("highest") < 1e-6
    assert matmul.product_error("medium") < 0.01
    assert torch.get_float32_matmul_precision() == "highest"
    errors = {"highest": 2e-7, "high": 2e-7, "medium": 0.0024}
    monkeypatch.setattr(matmul, "product_error", lambda precision, device: errors[precision])
    assert matmul.told("high") == "trainer.matmul_precision=high changes nothing on this processor"
    assert matmul.told("medium").endswith("products of matrices are off by 2.4e-03 of their size (2.0e-07 without)")
