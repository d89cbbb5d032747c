"""``coset sweep``: which trials there are, one table, nothing dropped, nothing run twice."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from typer.testing import CliRunner

from coset.cli import app
from coset.core.errors import CosetError
from coset.runs.launch.jobs import Outcome
from coset.runs.recipes import check, load, load_run
from coset.runs.run import execute
from coset.runs.sweep.outcomes import numbers
from coset.runs.sweep.pages import _verdict
from coset.runs.sweep.tables import summarise


def search(**values):
    return check({"kind": "search", **values}, "sweep")


def sweep(*arguments):
    return CliRunner().invoke(app, ["sweep", *arguments, "--quiet"])


def measured(folder):
    return json.loads((folder / "metrics.json").read_text())


def written(folder):
    """When every trial's metrics were written."""
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("runs/*/metrics.json")}


def test_trials_are_the_grid(toy):
    name = toy()
    recipe = search(recipes=[name, toy("score")], changes=["x=2", "width=8,16"], seeds=[0, 3])
    trials = recipe.trials()
    assert len(trials) == recipe.count == 2 * 2 * 2
    assert [(t.recipe.x, t.recipe.width, t.recipe.seed) for t in trials[:3]] == [(2, 8, 0), (2, 8, 3), (2, 16, 0)]
    assert trials[3].label == f"{name} width=16"
    assert trials[3].place.endswith("descent.yaml-width=16-seed3")
    assert trials[3].labels == {"recipe": name, "width": "16"}
    with pytest.raises(CosetError, match="would share a folder"):
        search(recipes=[name, name])
    with pytest.raises(CosetError, match="'width' must read key=value"):
        search(recipes=[name], changes=["width"])
    with pytest.raises(CosetError, match="search=tpe: say with samples"):
        search(recipes=[name], changes=["x=1,2"], search="tpe")


def test_the_table_has_means_deviations_and_failures(toy, tmp_path):
    trials = search(recipes=[toy()], seeds=[0, 1, 2]).trials()
    results = [{"test": {"rmse": 1.0}}, {"test": {"rmse": 2.0}}, None]
    ended = {
        trial.place: (trial, Outcome(trial.place, result, None if result else "killed", 5.0))
        for trial, result in zip(trials, results, strict=True)
    }
    (row,) = summarise(ended, "test.rmse", trials[0].recipe.folder(tmp_path))
    assert (row["mean"], row["values"], row["failed"]) == (1.5, [1.0, 2.0], 1)
    assert row["deviation"] == pytest.approx(0.5**0.5)
    assert numbers({"a": {"b": 1, "c": True, "d": "x"}}) == {"a.b": 1.0}


@pytest.mark.parametrize(
    ("metric", "better", "said"),
    [("test.macro_f1", None, "Best macro f1 on test: b"), ("test.rmse", None, "Best RMSE on test: a"),
     ("found.cost", "higher", "Best cost on found: b"), ("found.cost", None, "Lowest cost on found: a")],
)  # fmt: skip
def test_the_page_says_first_what_is_best(metric, better, said):
    rows = [{"label": label, "mean": mean, "deviation": None} for label, mean in (("a", 1.0), ("b", 2.0))]
    assert _verdict({"rows": rows, "failed": {}, "metric": metric, "trials": 2}, better).startswith(said)


def test_impossible_trials_stop_the_sweep_before_anything_runs(toy, tmp_path):
    recipe = search(recipes=[toy()], changes=["width=8,zero"], seeds=[0])
    with pytest.raises(CosetError, match=r"width='zero'"):
        recipe.run(tmp_path / "sweep", quiet=True)
    assert not (tmp_path / "sweep").exists()
    (tmp_path / "note.txt").touch()
    with pytest.raises(CosetError, match="is not empty and holds no run"):
        search(recipes=[toy()]).run(tmp_path, quiet=True)


def test_a_sweep_is_a_run_like_others(toy, tmp_path):
    """Its folder tells its recipe and its state; it takes kinds that count no epochs; another sweep is refused."""
    folder, name = tmp_path / "sweep", toy("score")
    done = sweep(name, "x=1,3", "--seeds", "2", "--output", str(folder))
    assert done.exit_code == 0, (done.output, done.exception)
    rows = pd.read_csv(folder / "sweep.csv")
    assert rows["found.cost"].tolist() == [4.0, 5.0, 0.0, 1.0]
    assert rows["process"].nunique() == 1  # one process serves one trial after the other
    metrics = measured(folder)
    assert [row["mean"] for row in metrics["rows"]] == [4.5, 0.5]
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert load_run(folder).changes == ["x=1,3"]
    assert f"coset sweep {name} x=1,3 --seeds 0,1" in (folder / "report.html").read_text()
    before = written(folder)
    again = sweep(name, "x=1,3", "--seeds", "2", "--workers", "2", "--output", str(folder))
    assert again.exit_code == 0
    assert written(folder) == before
    other = sweep(name, "x=1,2", "--seeds", "2", "--output", str(folder))
    assert "holds a run of another recipe: its changes is ['x=1,3']" in str(other.exception)


def test_what_was_lost_is_run_again(toy, tmp_path):
    folder = tmp_path / "sweep"
    recipe = search(recipes=[toy()], changes=["width=1,2"], seeds=[0])
    whole = recipe.run(folder, quiet=True)
    before = written(folder)
    lost = next(iter(before))
    (folder / "runs" / lost / "metrics.json").unlink()
    again = recipe.run(folder, quiet=True)
    assert [row["values"] for row in again["rows"]] == [row["values"] for row in whole["rows"]]
    after = written(folder)
    assert {name for name in before if after[name] != before[name]} == {lost}


def test_trials_whose_process_dies_are_tried_again(toy, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    for number in range(3):
        (marks / str(number)).touch()
    folder, name = tmp_path / "sweep", toy("score", marks=str(marks))
    died = sweep(name, "--seeds", "1", "--retries", "1", "--output", str(folder))
    assert died.exit_code == 1
    assert "its process died (killed by SIGKILL), 2 times" in died.output
    assert len(list(marks.iterdir())) == 1
    again = sweep(name, "--seeds", "1", "--retries", "1", "--output", str(folder))
    assert again.exit_code == 0, (again.output, again.exception)
    assert measured(folder)["failed"] == {}


def test_failed_trials_are_named_and_tried_again(toy, tmp_path):
    folder, name = tmp_path / "s", toy()
    result = sweep(name, "refused=false,true", "--seeds", "1", "--output", str(folder))
    assert result.exit_code == 1
    assert "there is no such toy" in result.output
    rows = pd.read_csv(folder / "sweep.csv")
    assert rows["error"].isna().tolist() == [True, False]
    assert "there is no such toy" in (folder / "report.html").read_text()
    assert list(measured(folder)["states"].values()) == ["finished", "failed"]
    assert not load_run(folder).folder(folder).finished()


def started(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "coset", "sweep", *arguments, "--quiet"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_that_was_ended_goes_on_where_it_was(end, toy, tmp_path):
    """In the middle of its second trial: what is finished is not run again, what was begun goes on."""
    folder, name = tmp_path / "sweep", toy()
    arguments = [name, "width=1,2", "training.epochs=6", "training.wait=0.3", "--seeds", "1", "--output", str(folder)]
    driver = started(arguments)
    first, second = (
        folder / "runs" / trial.place for trial in search(recipes=[name], changes=["width=1,2"], seeds=[0]).trials()
    )
    wait_for((second / "history.csv").is_file)
    os.kill(driver.pid, end)
    told = driver.communicate()[1]
    status = json.loads((folder / "status.json").read_text())
    if end == signal.SIGTERM:
        assert driver.returncode == 143
        assert f"stopped by SIGTERM at trial 1 of 2; go on with: coset run --resume {folder}" in " ".join(told.split())
        assert (status["state"], status["at"]) == ("stopped", "trial 1 of 2")
        assert json.loads((second / "status.json").read_text())["why"] == "signal SIGTERM"
    before, begun = written(folder), pd.read_csv(second / "history.csv")
    assert list(before) == [first.name]
    result = CliRunner().invoke(app, ["run", "--resume", str(folder), "--quiet"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert written(folder)[first.name] == before[first.name]
    history = pd.read_csv(second / "history.csv")
    assert len(history) == 6
    pd.testing.assert_frame_equal(history.head(len(begun)), begun)
    undisturbed = execute(
        search(recipes=[name], changes=["width=1,2", "training.epochs=6"], seeds=[0]), tmp_path / "calm", quiet=True
    )
    assert [row["values"] for row in measured(folder)["rows"]] == [row["values"] for row in undisturbed["rows"]]


def test_two_sweeps_at_once_in_one_folder(toy, tmp_path):
    folder, name = tmp_path / "sweep", toy()
    driver = started([name, "training.wait=0.5", "--seeds", "1", "--output", str(folder)])
    wait_for((folder / "status.json").is_file)
    other = sweep(name, "training.wait=0.5", "--seeds", "1", "--output", str(folder))
    assert "is in use by process" in str(other.exception)
    driver.communicate()
    assert driver.returncode == 0
    assert load(name).folder(folder).status()["state"] == "done"


@pytest.mark.slow
def test_graphs_from_a_shell(tmp_path):
    """One real kind, data and all: a trial equals a run of its own, also in a process that has served another."""
    folder = tmp_path / "sweep"
    tiny = ["training.epochs=1", "model.width=8", "model.layers=1"]
    result = sweep("gin/freesolv", *tiny, "model.norm=identity,batch", "--seeds", "1", "--output", str(folder))
    assert result.exit_code == 0, (result.output, result.exception)
    rows = pd.read_csv(folder / "sweep.csv")
    assert rows["test.rmse"].notna().tolist() == [True, True]
    assert [row["label"] for row in measured(folder)["rows"]] == [
        f"gin/freesolv model.norm={name}" for name in ("identity", "batch")
    ]
    alone = load("gin/freesolv", [*tiny, "model.norm=batch", "seed=0"]).run(tmp_path / "alone", quiet=True)
    second = json.loads((folder / "runs" / rows["folder"][1] / "metrics.json").read_text())
    assert [second[split] for split in ("train", "val", "test")] == [alone[split] for split in ("train", "val", "test")]
