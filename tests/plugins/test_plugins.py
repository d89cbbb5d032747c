"""What other distributions add: a model by one Python file, one YAML and one entry point; a domain by one folder.

Each is installed with pip into a folder of its own, as a user would, and used through the command line.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "plugins"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """``coset`` in a process that finds both packages: arguments -> what it printed; it must end well."""
    site = tmp_path_factory.mktemp("site")
    for name in ("gatedgcn", "points"):
        source = shutil.copytree(EXAMPLES / name, tmp_path_factory.mktemp("source") / name)
        how = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", site]
        subprocess.run([sys.executable, "-m", "pip", "install", *how, source], check=True)
    paths = [str(site), str(EXAMPLES.parents[1] / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    server = [sys.executable, Path(__file__).with_name("command_server.py")]
    with subprocess.Popen(server, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def call(*arguments, code=0):
            asked = {"arguments": [*map(str, arguments)], "cwd": str(Path.cwd()), "to": str(site / "printed")}
            print(json.dumps(asked), file=process.stdin, flush=True)
            ended = int(process.stdout.readline())
            printed = (site / "printed").read_text()
            assert ended == code, printed
            return printed

        yield call


def test_a_graph_model_of_another_package_is_one_of_ours(command, tmp_path):
    assert "GatedGCN on FreeSolv" in command("list", "gatedgcn")
    run = tmp_path / "run"
    small = ["training.epochs=2", "model.width=8", "model.layers=2"]
    command("run", "gatedgcn/freesolv", *small, "--output", run, "--quiet")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["epochs"] == 2
    assert (run / "report.html").stat().st_size > 0
    again = command("run", "gatedgcn/freesolv", "model.width=8", "model.layers=2", "training.epochs=3", "--output", run)
    assert "rmse" in again
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 3
    (tmp_path / "new.csv").write_text("smiles\nCCO\nc1ccccc1\n")
    command("predict", run, tmp_path / "new.csv", "--output", tmp_path / "out.csv", "--quiet")
    assert pd.read_csv(tmp_path / "out.csv").filter(like="prediction_").notna().all(axis=None)
    assert "holds" in command("verify", run)
    assert "unknown key model.heads=2" in command("run", "gatedgcn/freesolv", "model.heads=2", code=1)
    wrong = command("run", "gatedgcn/freesolv", "model.name=gatedgnc", code=1)
    assert "did you mean 'gatedgcn'?" in wrong


def test_the_bench_of_expressive_power_knows_it(command):
    printed = command("bench", "expressivity", "category=basic", "networks=gatedgcn", "seeds=1", "--json")
    tables = json.loads(printed[printed.index("{") :])
    (row,) = tables["networks"]
    bound = next(row for row in tables["refinements"] if row["name"] == "1-WL")
    assert row["name"].startswith("gatedgcn")
    assert sum(row["separated"].values()) <= sum(bound["separated"].values())
    assert row["false_separations"] == 0


@pytest.fixture
def points(tmp_path):
    """Sets of points, half of them wide."""
    generator = np.random.default_rng(0)
    labels = np.arange(80) % 2
    drawn = generator.normal(size=(80, 12, 3)) * (1 + labels)[:, None, None]
    np.savez(tmp_path / "points.npz", points=drawn, labels=labels)
    np.savez(tmp_path / "new.npz", points=drawn[:5])
    return tmp_path / "points.npz"


def test_a_domain_of_another_package_runs_goes_on_predicts_verifies_and_shows(command, points, tmp_path):
    run, task = tmp_path / "run", ["training.task=classification", "training.monitor=auroc"]
    arguments = ["run", "points/spread", f"path={points}", *task, "--output", run, "--quiet"]
    command(*arguments, "training.epochs=2")
    command(*arguments, "training.epochs=15")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["epochs"] == 15
    assert metrics["test"]["auroc"] > 0.8
    whole = tmp_path / "whole"
    command("run", "points/spread", f"path={points}", *task, "training.epochs=15", "--output", whole, "--quiet")
    assert json.loads((whole / "metrics.json").read_text())["test"] == metrics["test"]
    assert "holds" in command("verify", run)
    command("predict", run, tmp_path / "new.npz", "--output", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["prediction_label"].between(0, 1).all()
    command("report", run)
    page = (run / "report.html").read_text()
    assert "the order of the points changes nothing" in page
    sweep = tmp_path / "sweep"
    command("sweep", "points/spread", f"path={points}", *task, "training.epochs=2", "width=4,8", "--seeds", "1",
            "--output", sweep, "--quiet")  # fmt: skip
    assert len(pd.read_csv(sweep / "sweep.csv")) == 2


def test_its_mistakes_get_one_line(command, points):
    assert "path is missing" in command("run", "points/spread", code=1).replace("path='???'", "path is missing")
    assert "no such file" in command("run", "points/spread", "path=nowhere.npz", code=1)
    assert "did you mean training.epochs?" in command(
        "run", "points/spread", f"path={points}", "training.epoch=1", code=1
    )
