"""Settings chosen by how those before did, and stopping early what is worse than the rest."""

import json
import os
import signal
import warnings

import pandas as pd
import pytest
from test_search import measured, search, started, sweep, wait_for, written

from coset.core.errors import CosetError
from coset.runs.recipes import check, load
from coset.runs.sweep.outcomes import WORSE
from coset.runs.sweep.tuning import Objective

optuna = pytest.importorskip("optuna")
HALVED = {"grace": 1, "reduction": 3}


def lines(folder):
    """What the history of each trial holds, and when it was written."""
    return {f.parent.name: (f.read_text(), f.stat().st_mtime_ns) for f in folder.glob("runs/*/history.csv")}


def journal(folder):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "journal.log")))
    return optuna.load_study(study_name="sweep", storage=storage)


def test_what_cannot_be_compared_is_said(toy, tmp_path):
    def refused(message, **values):
        with pytest.raises(CosetError, match=message):
            search(**values).run(tmp_path / "sweep", quiet=True)

    refused("is of kind score, which tells nothing on the way", recipes=[toy("score")], asha=HALVED)
    refused("monitor mae and rmse", recipes=[toy()], changes=["training.monitor=rmse,mae"], asha=HALVED)
    refused(r"asha.grace=500 must be 1 to 9", recipes=[toy()], asha={"grace": 500})
    refused("which values of found.cost are better", recipes=[toy("score")], samples=2, search="tpe")
    assert not (tmp_path / "sweep").exists()


def test_graphs_are_compared_by_what_they_monitor():
    gin = load("gin/freesolv")
    assert Objective.between([gin], None, None) == Objective(gin.training.monitor, "lower", True)
    higher = load("gin/freesolv", ["training.monitor=r2"])
    assert Objective.between([higher], None, None).better == "higher"


def test_worse_trials_are_stopped_and_stay_so(toy, tmp_path):
    """The best comes first, so that every other must be stopped when it is compared first."""
    folder = tmp_path / "sweep"
    recipe = search(recipes=[toy()], changes=["x=3,0,1,2"], seeds=[0], asha=HALVED)
    metrics = recipe.run(folder, quiet=True)
    states = {row["settings"]["x"]: (row["state"], row["epochs"]) for row in metrics["ranking"]}
    assert states == {"3": ("finished", 9), "0": ("stopped", 1), "1": ("stopped", 1), "2": ("stopped", 1)}
    assert (metrics["epochs"], metrics["all_epochs"], metrics["failed"]) == (12, 36, {})
    assert [row["settings"]["x"] for row in metrics["ranking"]] == ["3", "2", "1", "0"]
    assert metrics["trial_cpu_seconds"] == 0.5 * 12
    assert "against epochs" in (folder / "report.html").read_text()
    assert len(pd.read_csv(folder / "sweep.csv")) == 4
    stopped = next(row["folder"] for row in metrics["ranking"] if row["state"] == "stopped")
    assert json.loads((folder / "runs" / stopped / "status.json").read_text())["why"] == WORSE
    assert [trial.state.name for trial in journal(folder).trials] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    before, kept = written(folder), lines(folder)
    (finished,) = before
    (folder / "runs" / finished / "metrics.json").unlink()
    again = recipe.run(folder, quiet=True)
    assert {row["settings"]["x"]: (row["state"], row["epochs"]) for row in again["ranking"]} == states
    assert lines(folder) == kept


def test_higher_can_be_better(toy, tmp_path):
    changes = ["training.monitor=accuracy", "x=0,3"]
    metrics = search(recipes=[toy()], changes=changes, seeds=[0], asha=HALVED).run(tmp_path / "sweep", quiet=True)
    assert [(row["settings"]["x"], row["state"]) for row in metrics["ranking"]] == [("0", "finished"), ("3", "stopped")]


def tpe(toy, **values):
    changes = ["x=uniform(0,6)", "width=randint(1,4)"]
    return search(recipes=[toy()], changes=changes, seeds=[0], search="tpe", samples=14, **values)


def test_tpe_learns_from_the_trials_before(toy, tmp_path):
    """After ten random ones it stays near the best; the same sweep gives the same settings, and is quiet about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = tpe(toy).run(tmp_path / "one", quiet=True)
    assert metrics["trials"] == 14
    assert metrics["ranking"][0]["val"] == min(row["val"] for row in metrics["ranking"])
    assert metrics["objective"] == "val rmse"
    rows = pd.read_csv(tmp_path / "one" / "sweep.csv")
    distance = (rows["x"] - 3).abs()
    assert distance[10:].mean() < distance[:10].mean() / 2
    tpe(toy).run(tmp_path / "two", quiet=True)
    assert pd.read_csv(tmp_path / "two" / "sweep.csv")["x"].tolist() == rows["x"].tolist()


def test_tpe_takes_kinds_without_epochs_and_chooses_among_recipes(toy, tmp_path):
    other = tmp_path / "far.yaml"
    other.write_text("kind: score\nseed: 0\nwidth: 2\n")
    recipe = search(
        recipes=[toy("score"), str(other)], changes=["x=uniform(0,6)"], seeds=[0, 1], search="tpe", samples=4,
        metric="found.cost", better="lower",
    )  # fmt: skip
    metrics = recipe.run(tmp_path / "sweep", quiet=True)
    rows = pd.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert rows["seed"].tolist() == [0, 1] * 4
    assert set(rows["recipe"]) == set(recipe.recipes)
    assert [len(row["values"]) for row in metrics["rows"]] == [2] * 4
    assert metrics["ranking"][0]["val"] == rows["found.cost"].min()


def test_combinations_that_are_impossible_are_told_and_others_tried(toy, tmp_path):
    recipe = search(
        recipes=[toy(limit=4)], changes=["x=randint(1,4)", "width=randint(1,4)"], seeds=[0], search="tpe", samples=5
    )  # fmt: skip
    metrics = recipe.run(tmp_path / "sweep", quiet=True)
    assert metrics["trials"] == 5
    assert all(float(r["settings"]["x"]) + int(r["settings"]["width"]) <= 4 for r in metrics["ranking"])
    assert any("width=3 is impossible: " in note and "together at most 4" in note for note in metrics["notes"])
    assert "together at most 4" in (tmp_path / "sweep" / "report.html").read_text()


def test_tpe_ends_when_there_are_no_other_settings(toy, tmp_path):
    recipe = search(recipes=[toy()], changes=["width=1,2"], seeds=[0], search="tpe", samples=5)
    metrics = recipe.run(tmp_path / "sweep", quiet=True)
    assert metrics["trials"] == 2


@pytest.mark.slow
def test_a_search_that_was_ended_goes_on_as_if_it_had_not_been(toy, tmp_path):
    """One worker: settings, stops and results are those of an undisturbed one; after a kill, which may come between an
    epoch and what is decided after it, what had been finished stays so and all trials end."""
    recipe = tpe(toy, asha={"grace": 2, "reduction": 2})
    calm = recipe.run(tmp_path / "calm", quiet=True)["ranking"]
    assert {row["state"] for row in calm} == {"finished", "stopped"}
    arguments = [recipe.recipes[0], *recipe.changes, "training.wait=0.02", "--seeds", "1", "--samples", "14"]
    arguments += ["--search", "tpe", "--asha", "--grace", "2", "--reduction", "2", "--output"]

    def ended(how, trials):
        folder = tmp_path / how.name
        driver = started([*arguments, str(folder)])
        wait_for(lambda: len(list(folder.glob("runs/*/history.csv"))) > trials)
        os.kill(driver.pid, how)
        driver.communicate()
        done = sweep(*arguments, str(folder))
        assert done.exit_code == 0, (done.output, done.exception)
        return measured(folder)["ranking"]

    def told(ranking):
        return [(row["settings"]["x"], row["val"], row["state"], row["epochs"]) for row in ranking]

    assert told(ended(signal.SIGTERM, 4)) == told(calm)
    killed = ended(signal.SIGKILL, 12)
    assert len(killed) == len(calm)
    assert {row["state"] for row in killed} <= {"finished", "stopped"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_graphs_on_ray(tmp_path):
    """One good learning rate and two useless ones, which TPE asks for one by one; then a trial is taken away, and
    everything else must stay as it is though this machine alone goes on."""
    pytest.importorskip("ray")
    file, folder = tmp_path / "chains.csv", tmp_path / "sweep"
    rows = (f"{'C' * (1 + i % 9)}{'O' * (i % 3)},{1 + i % 9}\n" for i in range(40))
    file.write_text("smiles,carbons\n" + "".join(rows))
    arguments = ["gin/freesolv", "data={name: csv}", f"data.path={file}", "data.target=carbons"]
    arguments += ["training.schedule=constant", "training.epochs=4", "training.learning_rate=loguniform(1e-10,1e3)"]
    arguments += ["model.layers=1", "model.width=8", "--search", "tpe", "--samples", "3", "--seeds", "1"]
    arguments += ["--asha", "--grace", "1", "--output", str(folder)]
    result = sweep(*arguments, "--engine", "ray")
    assert result.exit_code == 0, (result.output, result.exception)
    metrics = measured(folder)
    states = {row["folder"]: row["state"] for row in metrics["ranking"]}
    assert list(states.values()) == ["finished", "stopped", "stopped"]
    assert metrics["epochs"] < metrics["all_epochs"] == 12
    assert metrics["ranking"][0]["val"] == min(row["val"] for row in metrics["ranking"])
    assert metrics["failed"] == {}
    kept = lines(folder)
    finished = next(name for name, state in states.items() if state == "finished")
    for name in ("metrics.json", "history.csv", "last.ckpt"):
        (folder / "runs" / finished / name).unlink()
    result = sweep(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    del kept[finished]
    assert {name: content for name, content in lines(folder).items() if name in kept} == kept
    assert {row["folder"]: row["state"] for row in measured(folder)["ranking"]} == states


def test_a_search_can_be_a_recipe(toy, tmp_path):
    values = {"kind": "search", "recipes": [toy()], "changes": ["x=1,2"], "asha": HALVED, "launch": {"workers": 2}}
    assert check(values, "mine").command.endswith("x=1,2 --seeds 0,1,2 --asha --grace 1 --reduction 3")
