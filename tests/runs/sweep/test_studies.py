"""Recipes of kind ``sweep``: which runs they make, that finished ones are kept, and what their page shows."""

import json

import pandas as pd
import pytest

from coset.core.errors import CosetError
from coset.runs.recipes import load
from coset.runs.sweep import studies as sweep

TINY = """
kind: sweep
base: csgnn/freesolv
setting: model.bag
values: [1, 2]
series: {clusters: {}, random: {changes: [model.coarsening=random], values: [2]}}
references: {GIN: gin/freesolv}
overrides: [training.epochs=1, model.width=8, model.layers=1]
seeds: [0, 1]
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return lambda *changes: load(str(tmp_path / "tiny.yaml"), changes)


def test_every_setting_comes_before_the_next_seed(tiny):
    cells = [(cell.series, cell.value, cell.recipe.seed) for cell in tiny("fewer_seeds={1: [0], GIN: [1]}").cells()]
    assert cells == [
        ("clusters", "1", 0), ("clusters", "2", 0), ("random", "2", 0),
        ("clusters", "2", 1), ("random", "2", 1), ("GIN", "", 1),
    ]  # fmt: skip


def test_fewer_seeds_are_checked(tiny):
    with pytest.raises(CosetError, match=r"fewer_seeds\.7"):
        tiny("fewer_seeds={7: [0]}")
    with pytest.raises(CosetError, match=r"fewer_seeds\.GIN"):
        tiny("fewer_seeds={GIN: [5]}")


def test_runs_are_written_kept_and_shown(tiny, tmp_path, monkeypatch):
    recipe, tmp_path = tiny("values=[1]", "seeds=[0]"), tmp_path / "run"
    tmp_path.mkdir()
    metrics = recipe.run(tmp_path, quiet=True)
    rows = pd.read_csv(tmp_path / "sweep.csv")
    assert rows["series"].tolist() == ["clusters", "random", "GIN"]
    assert rows["cpu_seconds_per_epoch"].min() > 0
    assert json.loads((tmp_path / "metrics.json").read_text())["cells"] == metrics["cells"]
    assert "against time" in recipe.report(tmp_path).read_text()

    monkeypatch.setattr(sweep.GraphRecipe, "run", lambda *_, **__: pytest.fail("a finished run was run again"))
    assert recipe.run(tmp_path, quiet=True)["cells"] == metrics["cells"]


def test_every_shipped_sweep_is_possible():
    assert len(list(load("csgnn/zinc12k-bags").cells())) == 21


def test_a_run_that_was_cut_off_is_gone_on_with(tiny, tmp_path):
    """After its only epoch but before its metrics: nothing is trained again."""
    recipe, folder = tiny("values=[1]", "seeds=[0]", "series={clusters: {}}", "references={}"), tmp_path / "run"
    folder.mkdir()
    recipe.run(folder, quiet=True)
    part = folder / "runs" / "clusters-1-seed0"
    before = (part / "history.csv").read_text()
    (part / "metrics.json").unlink()
    recipe.run(folder, quiet=True)
    assert (part / "metrics.json").is_file()
    assert (part / "history.csv").read_text() == before
