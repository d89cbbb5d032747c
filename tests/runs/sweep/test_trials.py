"""Sweeps: which trials there are, one table, nothing dropped, nothing run twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from coset.cli import app
from coset.core.errors import CosetError
from coset.runs.launch.jobs import Outcome
from coset.runs.sweep.trials import Sweep, numbers, run_sweep, seeds_of, split_values, summarise

TINY = ["training.epochs=1", "model.width=8", "model.layers=1"]


def test_trials_are_the_grid():
    sweep = Sweep(recipes=["gin/esol", "csv"], changes=["training.epochs=2", "model.width=8,16"], seeds=[0, 3])
    trials = sweep.trials()
    assert len(trials) == 2 * 2 * 2
    assert trials[0].overrides == ("training.epochs=2", "model.width=8", "seed=0")
    assert trials[3].label == "gin/esol model.width=16"
    assert trials[3].place == "gin_esol-model.width=16-seed3"
    with pytest.raises(ValueError, match="would share a folder"):
        Sweep(recipes=["gin/esol", "gin/esol"])
    with pytest.raises(ValueError, match="'width' must read key=value"):
        Sweep(recipes=["gin/esol"], changes=["width"])


def test_values_and_seeds():
    assert split_values("a,[b,c],'d,e'") == ["a", "[b,c]", "'d,e'"]
    assert split_values("") == [""]
    assert seeds_of("3") == [0, 1, 2]
    assert seeds_of("3,5") == [3, 5]
    for wrong in ("0", "x", "-1,2"):
        with pytest.raises(CosetError, match="give a number of seeds"):
            seeds_of(wrong)


def test_the_table_has_means_deviations_and_failures():
    trials = Sweep(recipes=["gin/esol"], seeds=[0, 1, 2]).trials()
    results = [{"test": {"rmse": 1.0}}, {"test": {"rmse": 2.0}}, None]
    outcomes = {
        trial.place: Outcome(trial.place, result, None if result else "killed", 5.0)
        for trial, result in zip(trials, results, strict=True)
    }
    (row,) = summarise(trials, outcomes, "test.rmse")
    assert (row["mean"], row["values"], row["failed"]) == (1.5, [1.0, 2.0], 1)
    assert row["deviation"] == pytest.approx(0.5**0.5)
    assert numbers({"a": {"b": 1, "c": True, "d": "x"}}) == {"a.b": 1.0}


def test_impossible_trials_stop_the_sweep_before_anything_runs(tmp_path):
    sweep = Sweep(recipes=["gin/freesolv"], changes=["model.width=8,zero"], seeds=[0])
    with pytest.raises(CosetError, match=r"model\.width='zero'"):
        run_sweep(sweep, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
    (tmp_path / "note.txt").touch()
    with pytest.raises(CosetError, match="is not empty and holds no sweep"):
        run_sweep(Sweep(recipes=["gin/freesolv"]), tmp_path)


def test_a_killed_sweep_goes_on_where_it_was(tmp_path):
    """SIGKILL once the first trial is done: what is finished is not run again, the table is whole."""
    folder = tmp_path / "sweep"
    arguments = ["sweep", "gin/freesolv", *TINY, "model.norm=identity,batch", "--seeds", "1", "--quiet"]
    arguments += ["--output", str(folder)]
    code = f"import sys; from coset.cli import main; sys.argv[1:] = {arguments!r}; main()"
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    first = folder / "runs" / "gin_freesolv-model.norm=identity-seed0" / "metrics.json"
    deadline = time.monotonic() + 200
    while not first.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert first.is_file()
    written = first.stat().st_mtime_ns
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert first.stat().st_mtime_ns == written
    rows = pd.read_csv(folder / "sweep.csv")
    assert len(rows) == 2
    assert rows["test.rmse"].notna().all()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [row["label"] for row in metrics["rows"]] == [f"gin/freesolv model.norm={n}" for n in ("identity", "batch")]
    assert metrics["failed"] == {}
    assert "coset sweep gin/freesolv" in (folder / "report.html").read_text()
    other = CliRunner().invoke(app, [*arguments, "training.batch_size=64"])
    assert other.exit_code != 0
    assert "holds another sweep" in str(other.exception)


def test_failed_trials_are_named(tmp_path):
    file = tmp_path / "one.csv"
    file.write_text("smiles,y\nCCO,1.0\n")
    arguments = ["sweep", "csv", f"data.path={file}", "data.target=y", "--seeds", "1", "--output", str(tmp_path / "s")]
    result = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert result.exit_code == 1
    assert "failed: csv-seed0" in result.output
    assert len(pd.read_csv(tmp_path / "s" / "sweep.csv")) == 1
    assert Path(tmp_path / "s" / "report.html").is_file()
