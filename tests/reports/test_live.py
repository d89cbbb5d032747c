"""A run that can be watched: the page while it trains, what it turns into, and what is left of one that is stopped."""

import json

import pandas as pd
import pytest

from coset.reports.live import Progress, write_progress
from coset.runs.recipes import load
from coset.runs.run import GivenUp, execute

SMALL = ["model.name=gin", "model.width=8", "model.layers=1", "data.target=carbons", "training.epochs=3"]


def test_where_a_run_is_and_how_long_it_may_take(tmp_path):
    rows = [{"epoch": k, "train_loss": 4.0 - k, "val_rmse": 3.0 - k, "lr": 0.1} for k in range(2)]
    page = Progress("mine <b>", "epoch 2 of 6", 10.0, 6, "val_rmse", rows)
    assert page.verdict() == "Epoch 2 of 6; about 20.0 s to go; validation RMSE 2, best 2."
    write_progress(tmp_path / "report.html", page)
    text = (tmp_path / "report.html").read_text()
    assert "mine &lt;b&gt;" in text
    assert '<meta http-equiv="refresh" content="2">' in text
    assert text.count("<figure>") == 2
    assert "<script" not in text
    write_progress(tmp_path / "report.html", page, "stopped: enough")
    assert "refresh" not in (tmp_path / "report.html").read_text()


def test_the_best_epoch_is_that_of_the_metric():
    rows = [{"epoch": k, "val_macro_f1": value} for k, value in enumerate((0.25, 0.75, 0.5))]
    assert Progress("mine", "", 1.0, 3, "val_macro_f1", rows).verdict().endswith("macro f1 0.5000, best 0.7500.")


def test_the_page_of_a_run_is_there_while_it_trains(small_csv, tmp_path):
    recipe, seen = load("csv", [f"data.path={small_csv}", *SMALL]), []
    page = tmp_path / "run" / "report.html"
    execute(recipe, tmp_path / "run", quiet=True, live=True, on_epoch=lambda row: seen.append(page.read_text()))
    assert len(seen) == len(pd.read_csv(tmp_path / "run" / "history.csv")) == 3
    assert all("refresh" in text and "training now" in text for text in seen)
    assert "refresh" not in page.read_text()
    assert "Table of predictions" in page.read_text()


def test_a_run_that_is_stopped_leaves_a_page_that_says_so(small_csv, tmp_path):
    def stop(row):
        raise GivenUp("enough of it")

    recipe = load("csv", [f"data.path={small_csv}", *SMALL])
    with pytest.raises(GivenUp):
        execute(recipe, tmp_path / "run", quiet=True, live=True, on_epoch=stop)
    text = (tmp_path / "run" / "report.html").read_text()
    assert "stopped: enough of it. The same command given again goes on." in text
    assert "refresh" not in text
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "stopped"
    assert execute(recipe, tmp_path / "run", quiet=True, live=True)["epochs"] == 3


def test_several_processes_are_not_followed(coset):
    code, _, err = coset("run", "csv", "--live", "--engine", "torchrun")
    assert code == 1
    assert "--live follows runs of this process" in err
