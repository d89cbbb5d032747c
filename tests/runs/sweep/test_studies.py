"""Recipes of kind ``sweep``: which trials they make, that finished ones are kept, and what their page shows."""

import json

import pandas as pd
import pytest

from coset.core.errors import CosetError
from coset.runs.recipes import load

TINY = """
kind: sweep
base: csgnn/freesolv
setting: model.bag
values: [1, 2]
series: {clusters: {}, random: {changes: [model.coarsening=random], values: [2]}}
references: {GIN: gin/freesolv}
overrides: [training.epochs=1, model.width=8, model.layers=1]
seeds: [0, 1]
metric: rmse
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return lambda *changes: load(str(tmp_path / "tiny.yaml"), changes)


def test_every_setting_comes_before_the_next_seed(tiny):
    trials = tiny("fewer_seeds={1: [0], GIN: [1]}").trials()
    assert [(*trial.labels.values(), trial.recipe.seed) for trial in trials] == [
        ("clusters", "1", 0), ("clusters", "2", 0), ("random", "2", 0),
        ("clusters", "2", 1), ("random", "2", 1), ("GIN", "", 1),
    ]  # fmt: skip
    assert [trial.place for trial in trials[-2:]] == ["random-bag=2-seed1", "GIN-seed1"]


def test_fewer_seeds_are_checked(tiny):
    with pytest.raises(CosetError, match=r"fewer_seeds\.7"):
        tiny("fewer_seeds={7: [0]}")
    with pytest.raises(CosetError, match=r"fewer_seeds\.GIN"):
        tiny("fewer_seeds={GIN: [5]}")


def test_every_trial_is_checked_before_the_first_starts(tiny, tmp_path):
    with pytest.raises(CosetError, match=r"model.bag='many'"):
        tiny("values=[1,many]").run(tmp_path / "run", quiet=True)
    with pytest.raises(CosetError, match=r"would share a folder \(clusters-bag=1-seed0\)"):
        tiny("values=[1,1]").run(tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_trials_are_written_kept_and_shown(tiny, tmp_path):
    recipe, folder = tiny("values=[1]", "seeds=[0]"), tmp_path / "run"
    metrics = recipe.run(folder, quiet=True)
    rows = pd.read_csv(folder / "sweep.csv")
    assert rows["series"].tolist() == ["clusters", "random", "GIN"]
    assert rows["test.rmse"].notna().all()
    assert min(row["cpu_seconds_per_epoch"] for row in metrics["rows"]) > 0
    assert [row["params"] > 0 for row in metrics["rows"]] == [True] * 3
    assert json.loads((folder / "metrics.json").read_text())["rows"] == metrics["rows"]
    assert "against time" in recipe.report(folder).read_text()
    written = {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/*")}
    (folder / "metrics.json").unlink()
    assert recipe.run(folder, quiet=True)["rows"] == metrics["rows"]
    assert {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/*")} == written


def test_every_shipped_sweep_is_possible():
    assert len(load("csgnn/zinc12k-bags").trials()) == 21


def test_any_kind_that_tells_a_number(toy, tmp_path):
    (tmp_path / "study.yaml").write_text(
        f"kind: sweep\nbase: {toy('score')}\nsetting: x\nvalues: [1, 2]\nreferences: {{far: {toy('score')}}}\n"
    )
    recipe = load(str(tmp_path / "study.yaml"))
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert [(row["label"], row["mean"]) for row in metrics["rows"]] == [("x=1", 5.0), ("x=2", 2.0), ("far", 10.0)]
    columns, table = recipe.summary(metrics)
    assert columns == ["", "found.cost", "runs", "failed"]
    assert table[0] == ["x=1", "5 ± 1", "3", ""]
