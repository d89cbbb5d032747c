import json
import math
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from coset import CosetError
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.experiments import metrics_by_split, prediction_table
from coset.graphs.fitting.tasks import GraphTask
from coset.runs.recipes import load

SMALL = ["model.width=12", "model.layers=1", "model.heads=2", "model.positional_encoding=2", "training.epochs=3"]
SMALL += ["training.batch_size=4", "data.fractions=[0.5,0.25,0.25]"]
RANDOM = ["model.root_fraction=0.5", "model.votes=2", "model.dropout=0.3"]


def recipe_for(file, *changes):
    return load("csv", [f"data.path={file}", "data.target=carbons", *SMALL, *changes])


def finish(recipe, folder, **options):
    metrics = recipe.run(folder, quiet=True, **options)
    return {name: metrics[name] for name in ("train", "val", "test", "baseline", "best_epoch", "epochs")}


def test_a_run_leaves_its_folder(small_csv, tmp_path):
    recipe_for(small_csv).run(tmp_path / "run", quiet=True)
    files = {"recipe.yaml", "metrics.json", "status.json", "history.csv", "predictions.csv", "certificate.json"}
    assert {file.name for file in (tmp_path / "run").iterdir()} == files | {
        "attention.json", "checkpoint.ckpt", "last.ckpt", "report.html", ".lock",
    }  # fmt: skip
    records = json.loads((tmp_path / "run" / "attention.json").read_text())
    assert all(len(record["layers"]) == 1 for record in records)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics) == {
        "train", "val", "test", "baseline", "params", "seconds", "best_epoch", "epochs", "seed", "recipe", "notes",
        "versions", "machine", "cpu_seconds", "data_identity",
    }  # fmt: skip
    assert metrics["recipe"] == "csv"
    assert metrics["epochs"] == 3
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(frame) == ["id", "smiles", "split", "target_carbons", "prediction_carbons"]
    assert frame["split"].value_counts().to_dict() == {"train": 6, "val": 3, "test": 3}
    test = frame[frame["split"] == "test"]
    assert metrics["test"]["mae"] == pytest.approx(
        (test["target_carbons"] - test["prediction_carbons"]).abs().mean(), rel=1e-5
    )
    assert json.loads((tmp_path / "run" / "certificate.json").read_text())[0]["passed"]


@pytest.mark.parametrize("changes", [[], RANDOM], ids=["all roots", "sampled roots"])
def test_one_seed_one_result(small_csv, tmp_path, changes):
    runs = [finish(recipe_for(small_csv, *changes, f"seed={seed}"), tmp_path / str(seed)) for seed in (0, 1)]
    assert finish(recipe_for(small_csv, *changes), tmp_path / "again") == runs[0]
    assert runs[0]["train"] != runs[1]["train"]


@pytest.mark.slow
def test_a_killed_run_ends_where_it_would_have_ended(small_csv, tmp_path):
    """With a rate that falls where nothing is gained; tests/contracts/test_kinds.py has one along a cosine."""
    changes = ["training.schedule=plateau", "training.patience=2", "training.epochs=60", *RANDOM]
    recipe = recipe_for(small_csv, *changes)
    expected = finish(recipe, tmp_path / "whole")
    half = tmp_path / "half"
    half.mkdir()
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    code = "import sys, pathlib; from coset.runs.recipes import load; "
    code += "load(sys.argv[1]).run(pathlib.Path(sys.argv[2]), quiet=True)"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "mine.yaml", half])
    history = half / "history.csv"
    while process.poll() is None and not (history.exists() and len(history.read_text().splitlines()) > 8):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 8 <= len(pd.read_csv(history)) < 60
    assert not (half / "metrics.json").exists()
    assert finish(load(str(half / "recipe.yaml")), half) == expected
    frames = [
        pd.read_csv(folder / "history.csv").drop(columns=["seconds", "cpu_seconds"])
        for folder in (tmp_path / "whole", half)
    ]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_resuming_a_finished_run_changes_nothing(small_csv, tmp_path):
    recipe = recipe_for(small_csv)
    expected = finish(recipe, tmp_path / "run")
    assert finish(recipe, tmp_path / "run") == expected


def test_resuming_with_another_recipe_is_refused(small_csv, tmp_path):
    finish(recipe_for(small_csv), tmp_path / "run")
    other = recipe_for(small_csv, "training.learning_rate=0.1")
    with pytest.raises(CosetError, match=r"another recipe: its training.learning_rate is 0.001, here it is 0.1"):
        other.run(tmp_path / "run", quiet=True)
    assert finish(recipe_for(small_csv, "training.epochs=4"), tmp_path / "run")["epochs"] == 4


def test_a_finished_run_of_data_that_changed_since_is_refused(small_csv, tmp_path, monkeypatch):
    recipe, text = recipe_for(small_csv, "training.epochs=1"), small_csv.read_text()
    before = finish(recipe, tmp_path / "run")
    small_csv.write_text(text)
    assert finish(recipe, tmp_path / "run") == before  # read again: they are what they were
    os.utime(tmp_path / "run" / "recipe.yaml")
    with monkeypatch.context() as patched:
        patched.setattr(type(recipe), "prepare", lambda *_: pytest.fail("read without need"))
        assert finish(recipe, tmp_path / "run") == before
    small_csv.write_text(text.replace("C,1", "C,7", 1))
    with pytest.raises(CosetError, match=r"the data are not those that the run in .* began with"):
        finish(recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"


def test_a_finished_run_goes_on_when_its_recipe_asks_for_more(small_csv, tmp_path):
    """Also if the recipe in its folder was edited, which then is the only one that is left."""
    assert finish(recipe_for(small_csv), tmp_path / "run")["epochs"] == 3
    file = tmp_path / "run" / "recipe.yaml"
    file.write_text(file.read_text().replace("epochs: 3", "epochs: 5"))
    longer = load(str(file))
    assert finish(longer, tmp_path / "run")["epochs"] == 5
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 5
    assert finish(longer, tmp_path / "run")["epochs"] == 5


def test_a_best_epoch_that_is_not_in_the_checkpoint_is_refused(small_csv, tmp_path):
    """As two runs in one folder once left it: metrics of one epoch, weights and history of another."""
    best = tmp_path / "run" / "checkpoint.ckpt"

    def spoil(row):
        if row["epoch"] == 2:
            state = torch.load(best, weights_only=False)
            torch.save({**state, "epoch": state["epoch"] + 1}, best)

    with pytest.raises(
        CosetError, match=r"checkpoint.ckpt is of epoch \d, but history.csv has its best .* in epoch \d"
    ):
        recipe_for(small_csv).run(tmp_path / "run", quiet=True, on_epoch=spoil)
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["gat", "transformer"])
def test_two_processes(small_csv, tmp_path, attention):
    recipe = recipe_for(small_csv, f"model.attention={attention}", "trainer.devices=2", "training.batch_size=6")
    metrics = finish(recipe, tmp_path / "run")
    assert metrics["epochs"] == 3
    assert math.isfinite(metrics["test"]["mae"])


def test_batch_statistics_of_a_single_node(tmp_path):
    (tmp_path / "ions.csv").write_text("smiles,carbons\n" + "[Na+],0\n" * 2 + "C,1\n" * 3)
    with pytest.raises(CosetError, match=r"a single node to take batch statistics of; raise training.batch_size"):
        recipe_for(tmp_path / "ions.csv", "training.batch_size=2").run(tmp_path / "run", quiet=True)


@pytest.mark.parametrize("model", ["gin", "gnn-sswl-plus"])
def test_other_models(small_csv, tmp_path, model):
    overrides = ["data={name: csv, fractions: [0.5, 0.25, 0.25]}", f"data.path={small_csv}", "data.target=carbons"]
    overrides += ["model.width=8", "model.layers=1", "training.epochs=1"]
    assert math.isfinite(finish(load(f"{model}/freesolv", overrides), tmp_path / "run")["test"]["mae"])


def test_several_targets_with_missing_labels(tmp_path):
    file = tmp_path / "two.csv"
    rows = [f"{'C' * n},{n if n % 3 else ''},{-n if n % 4 else ''}" for n in range(1, 13) if n % 12]
    file.write_text("\n".join(["smiles,a,b", *rows]) + "\n")
    recipe = load("csv", [f"data.path={file}", "data.target=a,b", *SMALL])
    assert math.isfinite(finish(recipe, tmp_path / "run")["train"]["mae"])
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(frame)[3:] == ["target_a", "prediction_a", "target_b", "prediction_b"]
    assert frame["prediction_a"].notna().all()


def test_classification(small_csv, tmp_path):
    frame = pd.read_csv(small_csv)
    (frame.assign(carbons=(frame["carbons"] > 2).astype(int))).to_csv(small_csv, index=False)
    changes = ["training.task=classification", "training.monitor=accuracy", "data.split_seed=3"]
    metrics = finish(recipe_for(small_csv, *changes), tmp_path / "run")
    assert set(metrics["train"]) == {"accuracy", "auroc", "ap"}
    assert metrics["baseline"]["train"]["auroc"] == 0.5
    frame.to_csv(small_csv, index=False)
    with pytest.raises(CosetError, match=r"a label is \d, but classification needs 0 or 1"):
        recipe_for(small_csv, *changes).run(tmp_path / "b", quiet=True)
    assert not (tmp_path / "b").exists()


def test_without_validation_the_training_set_chooses_and_the_notes_say_so(small_csv, tmp_path):
    metrics = recipe_for(small_csv, "data.fractions=[0.75,0,0.25]").run(tmp_path / "run", quiet=True)
    assert "val" not in metrics
    assert metrics["notes"] == ["there is no validation split: the best epoch was chosen on the training set"]


def small_table():
    from torch_geometric.data import Data

    graphs = [Data(y=torch.tensor([[float(y)]]), id=str(y)) for y in (0, 2, 4, math.nan)]
    splits = {"train": torch.tensor([0, 1]), "val": torch.tensor([], dtype=torch.long), "test": torch.tensor([2, 3])}
    return GraphTable(graphs, ("y",), splits)


def test_metrics_beside_those_of_the_training_mean():
    table = small_table()
    task = GraphTask(torch.nn.Identity(), "regression", table.targets)
    metrics = metrics_by_split(task, table, torch.tensor([[0.0], [1.0], [3.0], [9.0]]))
    assert set(metrics) == {"train", "test", "baseline"}
    assert metrics["test"]["mae"] == 1.0
    assert metrics["baseline"]["train"]["mae"] == 1.0  # the mean is 1
    assert metrics["baseline"]["test"]["mae"] == 3.0


def test_prediction_table_keeps_missing_targets_empty():
    frame = prediction_table(small_table(), torch.arange(4.0).view(4, 1))
    assert frame.to_csv(index=False).splitlines() == [
        "id,smiles,split,target_y,prediction_y", "0,,train,0.0,0.0", "2,,train,2.0,1.0", "4,,test,4.0,2.0",
        "nan,,test,,3.0",
    ]  # fmt: skip


WORDS = ["C", "CC", "CCC", "CCCC", "CO", "CCO", "CCCO", "CCCCO", "CN", "CCN", "CCCN", "CCCCN", "C1CC1", "OCO", "NCN"]


@pytest.fixture
def classes_csv(tmp_path):
    file = tmp_path / "kinds.csv"
    kinds = ["alcohol" if "O" in text else "amine" if "N" in text else "alkane" for text in WORDS]
    file.write_text("smiles,kind\n" + "".join(f"{text},{kind}\n" for text, kind in zip(WORDS, kinds, strict=True)))
    return file


def test_words_are_classes_to_learn_and_to_predict(classes_csv, tmp_path):
    changes = [*SMALL, f"data.path={classes_csv}", "data.target=kind", "training.task=multiclass", "seed=1"]
    changes += ["data.fractions=[0.6,0.2,0.2]", "training.class_weights=balanced", "training.epochs=12"]
    recipe = load("csv", changes)
    assert recipe.training.monitor == "accuracy"
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert set(metrics["test"]) <= {"accuracy", "macro_f1", "macro_auroc", "cross_entropy"}
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(frame)[3:] == [
        "target_kind",
        "prediction_kind",
        *(f"probability_{c}" for c in ("alcohol", "alkane", "amine")),
    ]
    test = frame[frame["split"] == "test"]
    assert metrics["test"]["accuracy"] == pytest.approx((test["target_kind"] == test["prediction_kind"]).mean())
    probabilities = frame.filter(like="probability_")
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1.0, abs=1e-5)
    likeliest = probabilities.idxmax(axis=1).str.removeprefix("probability_")
    assert (likeliest == frame["prediction_kind"]).all()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Classes, test" in page
    count, _ = recipe.predict(recipe.folder(tmp_path / "run"), classes_csv, tmp_path / "new.csv", quiet=True)
    assert count == len(WORDS)
    assert (pd.read_csv(tmp_path / "new.csv")["prediction_kind"] == frame["prediction_kind"]).all()


def test_words_need_the_task_that_learns_them(classes_csv, tmp_path):
    recipe = load("csv", [*SMALL, f"data.path={classes_csv}", "data.target=kind"])
    with pytest.raises(
        CosetError, match=r"classes \('alcohol', 'alkane', 'amine', ...\): use training.task=multiclass"
    ):
        recipe.run(tmp_path / "run", quiet=True)


def test_numbers_are_classes_where_the_task_says_so(small_csv, tmp_path):
    recipe = recipe_for(small_csv, "training.task=multiclass", "training.epochs=1")
    recipe.run(tmp_path / "run", quiet=True)
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    carbons = sorted(frame["target_carbons"].unique())
    assert [c for c in frame if c.startswith("probability_")] == [f"probability_{c:g}" for c in carbons]


def test_a_folder_from_before_an_option_came_still_predicts(small_csv, tmp_path):
    recipe = recipe_for(small_csv, "training.epochs=1")
    recipe.run(tmp_path / "run", quiet=True)
    file = tmp_path / "run" / "checkpoint.ckpt"
    state = torch.load(file, weights_only=True)
    del (
        state["identity"]["recipe"]["training"]["class_weights"],
        state["identity"]["classes"],
        state["identity"]["level"],
    )
    torch.save(state, file)
    count, _ = recipe.predict(recipe.folder(tmp_path / "run"), small_csv, tmp_path / "new.csv", quiet=True)
    assert count == 12


def test_seeds_are_the_rounds_of_one_cross_validation(small_csv, tmp_path):
    held = []
    for seed in range(3):
        recipe = recipe_for(small_csv, "data.split=kfold", "data.folds=3", f"seed={seed}", "training.epochs=1")
        table = recipe.load()
        held += table.splits["test"].tolist()
    assert sorted(held) == list(range(12))
    with pytest.raises(CosetError, match=r"data.fold=3: there are 3 folds"):
        recipe_for(small_csv, "data.split=kfold", "data.folds=3", "data.fold=3").load()


def test_a_column_of_dates_splits(small_csv):
    frame = pd.read_csv(small_csv)
    frame["when"] = [f"2024-01-{31 - row:02d}" for row in range(12)]
    frame.to_csv(small_csv, index=False)
    table = recipe_for(small_csv, "data.split=time", "data.split_column=when").load()
    assert table.splits["test"].tolist() == [0, 1, 2]
    assert table.splits["train"].tolist() == list(range(6, 12))
