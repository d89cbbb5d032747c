"""Sweeps over ranges, and stopping early what is worse than the rest."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from coset.cli import app
from coset.core.errors import CosetError
from coset.runs.launch.jobs import Job
from coset.runs.recipes import load
from coset.runs.sweep.halving import Halving, _outcome, check_halving, run_halving
from coset.runs.sweep.trials import Range, Sweep

SPACE = ["training.epochs=9", "training.learning_rate=loguniform(1e-5,1e-2)", "model.width=8,16"]


def test_ranges_are_drawn_from_the_same_way_each_time():
    few, many = (Sweep(recipes=["gin/esol"], changes=SPACE, seeds=[0], samples=n).trials() for n in (4, 9))
    assert [trial.settings for trial in few] == [trial.settings for trial in many[:4]]
    rates = [float(dict(trial.settings)["training.learning_rate"]) for trial in many]
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert len(set(rates)) == 9
    assert {dict(trial.settings)["model.width"] for trial in many} == {"8", "16"}
    assert all("training.epochs=9" in trial.overrides for trial in many)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("uniform(0, 0.5)", ("uniform", 0.0, 0.5)),
        ("randint(2,6)", ("randint", 2.0, 6.0)),
        ("[uL,vv]", None),
        ("1e-3", None),
    ],
)
def test_ranges_are_read(text, found):
    assert Range.read(text) == (None if found is None else Range(*found))


@pytest.mark.parametrize("text", ["uniform(1,0)", "loguniform(0,1)", "randint(0.5,3)", "uniform(a,1)"])
def test_impossible_ranges_are_named(text):
    with pytest.raises(ValueError, match=r"bound"):
        Range.read(text)


def test_a_range_needs_a_number_of_draws_and_a_grid_has_only_so_many():
    with pytest.raises(ValueError, match=r"loguniform\(1e-05,0.01\) is a range: say with --samples"):
        Sweep(recipes=["gin/esol"], changes=SPACE)
    with pytest.raises(ValueError, match="--samples 5: there are only 2 different settings"):
        Sweep(recipes=["gin/esol"], changes=["model.width=8,16"], samples=5)


def test_what_cannot_be_compared_is_said(tmp_path):
    gin = load("gin/freesolv")
    with pytest.raises(CosetError, match="needs --engine ray, not local"):
        check_halving([gin], "local")
    with pytest.raises(CosetError, match="lol/digits is of kind lora"):
        check_halving([load("lol/digits")], "ray")
    with pytest.raises(CosetError, match="monitor mae and rmse"):
        check_halving([gin, load("gin/freesolv", ["training.monitor=mae"])], "ray")
    pytest.importorskip("ray.tune")
    job = Job("a", print, ("", "", str(tmp_path / "runs" / "a")))
    with pytest.raises(CosetError, match=r"--grace 500 must be 1 to \d+"):
        run_halving([job], [gin], Halving(grace=500), 1, 0, print)


def test_a_folder_says_what_became_of_its_trial(tmp_path):
    job = Job("a", print, ("", "", str(tmp_path)))
    assert _outcome(job, "mae", None, 2).error == "its process died, 3 times"
    pd.DataFrame({"epoch": [0, 1], "val_mae": [0.5, 0.7]}).to_csv(tmp_path / "history.csv", index=False)
    assert _outcome(job, "mae", 2, 2).result == {"stopped": 2, "val": {"mae": 0.5}}
    assert _outcome(job, "mae", None, 2).result == {"stopped": 2, "val": {"mae": 0.5}}  # as it was, once it is marked
    (tmp_path / "failed.txt").write_text("no such column")
    assert _outcome(job, "mae", None, 2).error == "no such column"
    (tmp_path / "metrics.json").write_text('{"test": {"mae": 1}}')
    assert _outcome(job, "mae", None, 2).result == {"test": {"mae": 1}}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_worse_trials_are_stopped_and_a_second_start_runs_what_is_missing(tmp_path):
    """Learning rates from useless to good; then one trial is taken away, and everything else must stay as it is."""
    pytest.importorskip("ray.tune")
    file, folder = tmp_path / "chains.csv", tmp_path / "sweep"
    rows = (f"{'C' * (1 + i % 9)}{'O' * (i % 3)},{1 + i % 9}\n" for i in range(40))
    file.write_text("smiles,carbons\n" + "".join(rows))
    arguments = ["sweep", "gin/freesolv", "data={name: csv}", f"data.path={file}", "data.target=carbons"]
    arguments += ["training.schedule=constant", "training.epochs=4", "training.learning_rate=loguniform(1e-5,1e-2)"]
    arguments += ["model.layers=1", "model.width=8", "--samples", "3", "--seeds", "1"]
    arguments += ["--engine", "ray", "--asha", "--grace", "1", "--quiet", "--output", str(folder)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    metrics = json.loads((folder / "metrics.json").read_text())
    states = {row["folder"]: row["state"] for row in metrics["ranking"]}
    assert len(states) == 3
    assert set(states.values()) == {"finished", "stopped"}
    assert metrics["epochs"] < metrics["all_epochs"] == 12
    assert metrics["ranking"][0]["val"] == min(row["val"] for row in metrics["ranking"])
    assert metrics["failed"] == {}
    assert "against epochs" in (folder / "report.html").read_text()
    assert len(pd.read_csv(folder / "sweep.csv")) == 3
    finished = next(name for name, state in states.items() if state == "finished")
    kept = {name: (folder / "runs" / name / "history.csv").stat().st_mtime_ns for name in states if name != finished}
    for name in ("metrics.json", "history.csv", "last.ckpt"):
        (folder / "runs" / finished / name).unlink()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    for name, written in kept.items():
        assert (folder / "runs" / name / "history.csv").stat().st_mtime_ns == written
    again = json.loads((folder / "metrics.json").read_text())
    assert {row["folder"] for row in again["ranking"]} == set(states)
