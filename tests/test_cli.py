import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

FAST = ["model.width=12", "model.layers=1", "model.heads=2", "model.positional_encoding=2", "training.epochs=2"]
FAST += ["training.batch_size=4"]


def coset(*arguments, code=0):
    result = subprocess.run(
        [sys.executable, "-c", "from coset.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return result


def data(file):
    return [f"data.path={file}", "data.target=carbons", "data.fractions=[0.5,0.25,0.25]"]


@pytest.fixture
def finished(small_csv, tmp_path) -> Path:
    coset("run", "csv", *data(small_csv), *FAST, "--output", tmp_path / "run", "--quiet")
    return tmp_path / "run"


@pytest.mark.slow
def test_run_predict_verify_report(finished, small_csv, tmp_path):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) >= {"train", "val", "test", "params", "seconds", "baseline"}
    for name in ("recipe.yaml", "history.csv", "predictions.csv", "checkpoint.ckpt", "report.html", "certificate.json"):
        assert (finished / name).stat().st_size > 0
    assert len(pd.read_csv(finished / "history.csv")) == 2
    coset("predict", finished, small_csv, "--output", tmp_path / "out.csv")
    ours, theirs = pd.read_csv(tmp_path / "out.csv"), pd.read_csv(finished / "predictions.csv")
    assert ours["prediction"].to_list() == pytest.approx(theirs["prediction"].to_list(), abs=1e-5)
    assert json.loads(coset("verify", finished, "--json").stdout)[0]["passed"]
    coset("report", finished, finished, "--output", tmp_path / "both.html")


@pytest.mark.slow
def test_resume_ends_where_an_uninterrupted_run_ends(finished, small_csv, tmp_path):
    half = tmp_path / "half"
    coset("run", "csv", *data(small_csv), *FAST, "training.epochs=1", "--output", half, "--quiet")
    recipe = half / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 1", "epochs: 2"))
    coset("run", "--resume", half, "--quiet")
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (half, finished))
    assert ours["test"] == theirs["test"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "subgraphormer/fresolv"], "did you mean 'subgraphormer/freesolv'?"),
        (["run", "csv", "training.epoch=3"], "unknown key training.epoch=3; did you mean training.epochs?"),
        (["run", "csv", "training.epochs=many"], "training.epochs='many'"),
        (["run", "csv", "model.dropout=2"], "model.dropout=2"),
        (["run", "csv"], "data.path is missing"),
        (["run", "csv", "data.path=/nowhere.csv", "data.target=y"], "/nowhere.csv"),
        (["predict", "nothing", "new.csv", "--output", "out.csv"], "holds no run"),
        (["bench", "speed"], "choose from expressivity"),
        (["bench", "expressivity", "part=cfi"], "key one of category, data, networks, seeds"),
    ],
)
def test_mistakes_get_one_line(arguments, message, tmp_path):
    if arguments[0] == "run":
        arguments = [*arguments, "--output", tmp_path / "out"]
    error = coset(*arguments, code=1).stderr.strip()
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_bad_molecule_is_named_with_its_row(tmp_path):
    file = tmp_path / "bad.csv"
    file.write_text("smiles,carbons\nCC,2\nnot_a_molecule,1\n")
    error = coset("run", "csv", *data(file), "--output", tmp_path / "run", code=1).stderr
    assert "row 3" in error
    assert "not_a_molecule" in error


def test_list_and_show():
    assert "subgraphormer/freesolv" in coset("list").stdout
    assert "kind: graphs" in coset("show", "subgraphormer/freesolv").stdout
