"""The script that checks and times kernels where there is a GPU: what it does without one."""

import pytest
import torch

from benchmark_scripts import FOLDER, script


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return script("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure")
def test_without_a_gpu_it_measures_nothing(benchmark, capsys, tmp_path):
    assert benchmark.main([f"--json={tmp_path / 'gpu.json'}"]) == 0
    assert capsys.readouterr().out == "not measured: no GPU\n"
    assert not list(tmp_path.iterdir())


def test_a_difference_is_found(benchmark, capsys):
    graphs = benchmark.subgraphormer.dressed([benchmark.subgraphormer.chain(4, 0)], 0)
    found = benchmark.equality(("GNN-SSWL+",), graphs, "cpu", {"plain": False}, 6, 1)
    assert benchmark.report_equality(found)
    assert found["GNN-SSWL+ plain float32"] != found["GNN-SSWL+ plain float64"] == (0, 0)
    assert not benchmark.report_equality({"GNN-SSWL+ plain float64": (0.0, 2e-9)})
    assert "| GNN-SSWL+ plain float64 | 0.0e+00 | 2.0e-09 |" in capsys.readouterr().out
