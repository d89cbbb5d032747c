import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import pandas as pd
import pytest

from coset import cli
from coset.graphs.models.subgraphormer import Subgraphormer

SMALL = ["model.width=12", "model.layers=1", "model.heads=2", "model.positional_encoding=2", "training.epochs=2"]
SMALL += ["training.batch_size=4", "data.fractions=[0.5,0.25,0.25]"]


@pytest.fixture
def mistake(coset):
    """The one line that a mistake gets."""

    def call(*arguments, code=1):
        found, out, err = coset(*arguments)
        lines = [line for line in err.splitlines() if line.strip()]
        assert found == code, err
        assert lines[-1].startswith("error: "), err
        assert "Traceback" not in err + out
        assert not any(line.startswith("error: ") for line in lines[:-1])
        return lines[-1].removeprefix("error: ")

    return call


def own(file, *changes):
    return ["run", "csv", f"data.path={file}", "data.target=carbons", *SMALL, *changes, "--quiet"]


@pytest.fixture
def finished(coset, small_csv, tmp_path):
    code, _, err = coset(*own(small_csv), "--output", tmp_path / "run")
    assert code == 0, err
    return tmp_path / "run"


def test_run_predict_verify_report(coset, finished, small_csv, tmp_path, monkeypatch):
    for name in ("recipe.yaml", "history.csv", "predictions.csv", "checkpoint.ckpt", "report.html", "certificate.json"):
        assert (finished / name).stat().st_size > 0
    code, out, _ = coset("predict", finished, small_csv, "--output", tmp_path / "out.csv")
    assert (code, out.splitlines()[-1]) == (0, f"12 predictions written to {tmp_path / 'out.csv'}")
    assert "prediction_carbons" in pd.read_csv(tmp_path / "out.csv")
    monkeypatch.chdir(tmp_path)
    facts = json.loads(coset("predict", finished, small_csv, "--quiet", "--json")[1])
    assert (facts["predictions"], facts["output"]) == (12, "small-predictions.csv")
    assert (tmp_path / "small-predictions.csv").read_text() == (tmp_path / "out.csv").read_text()
    kept = small_csv.read_bytes()
    code, _, err = coset("predict", finished, small_csv, "--output", small_csv)
    assert code == 1
    assert err == f"error: {small_csv} is what is predicted for; give predictions another name by --output\n"
    assert small_csv.read_bytes() == kept
    code, out, _ = coset("verify", finished, "--json")
    assert code == 0
    assert json.loads(out)[0]["passed"]
    assert "holds" in coset("verify", finished)[1]
    assert coset("report", finished)[0] == 0
    assert coset("report", finished, finished, "--output", tmp_path / "both.html")[0] == 0
    assert (tmp_path / "both.html").stat().st_size > 0


def test_a_run_prints_its_metrics_beside_the_baseline(coset, small_csv, tmp_path):
    code, out, _ = coset(*own(small_csv), "--output", tmp_path / "run", "--seed", "3")
    assert code == 0
    assert re.search(r"rmse +\d+\.\d{4} +\d+\.\d{4} +\d+\.\d{4} +\d+\.\d{4}", out)
    assert "parameters" in out
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["seed"] == 3


def test_runs_go_to_folders_of_their_own(coset, small_csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert coset(*own(small_csv, "training.epochs=1"))[0] == 0
    names = sorted(folder.name for folder in (tmp_path / "runs").iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"csv-\d{8}-\d{6}(-2)?", name) for name in names)


def test_resume(coset, mistake, finished):
    before = json.loads((finished / "metrics.json").read_text())
    assert coset("run", "--resume", finished, "--quiet")[0] == 0
    assert json.loads((finished / "metrics.json").read_text())["test"] == before["test"]
    assert mistake("run", "csv", "--resume", finished).startswith("--resume takes recipe, seed and folder from the run")
    for name in ("last.ckpt", "metrics.json"):
        (finished / name).unlink()
    assert coset("run", "--resume", finished, "--quiet")[0] == 0
    assert json.loads((finished / "metrics.json").read_text())["test"] == before["test"]


def test_a_broken_claim_fails(coset, finished, monkeypatch):
    monkeypatch.setattr(Subgraphormer, "_readout", lambda self, x, graph, how: x[: graph.roots.sizes.numel()])
    code, out, _ = coset("verify", finished)
    assert code == 1
    assert "BROKEN" in out
    code, out, _ = coset("verify", finished, "--json")
    assert code == 1
    assert not json.loads(out)[0]["passed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "subgraphormer/fresolv"],
         "no recipe 'subgraphormer/fresolv'; did you mean 'subgraphormer/freesolv'? (coset list)"),
        (["run", "csv", "data.path=a.csv", "data.target=y", "training.epoch=3"],
         "recipe csv: unknown key training.epoch=3; did you mean training.epochs?"),
        (["run", "csv", "data.path=a.csv", "data.target=y", "training.epochs=many"],
         "recipe csv: training.epochs='many': Input should be a valid integer, unable to parse string as an integer"),
        (["run", "csv", "data.path=a.csv", "data.target=y", "model.dropout=2"],
         "recipe csv: model.dropout=2: Input should be less than 1"),
        (["run", "csv", "data.path=/nowhere.csv", "data.target=y"], "/nowhere.csv: no such file"),
        (["run"], "name a recipe (coset list), or continue a run with --resume DIR"),
        (["run", "--resume", "nothing"], "nothing holds no run: recipe.yaml is missing"),
        (["predict", "nothing", "new.csv", "--output", "out.csv"], "nothing: no such file or folder"),
        (["verify", "gin/zinc"], "no recipe 'gin/zinc'; did you mean 'gin/zinc12k'? (coset list)"),
        (["bench", "speed"],
         "no bench 'speed'; choose from bags, blindspots, brec, counting, evidence, expressivity, norms, torus"),
        (["bench", "expressivity", "part=cfi"],
         "bench expressivity: option 'part=cfi' must read key=value with key one of category, data, networks, seeds, "
         "trained"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(mistake, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mistake(*arguments) == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "start", "command"),
    [
        (["predict", "nothing"], "Missing argument", "coset predict"),
        (["rn"], "No such command 'rn'", "coset"),
        (["run", "csv", "--seed", "x"], "Invalid value for '--seed'", "coset run"),
    ],
)
def test_mistyped_commands_get_one_line_and_code_2(mistake, arguments, start, command):
    message = mistake(*arguments, code=2)
    assert message.startswith(start)
    assert message.endswith(f"({command} --help)")


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("smiles,carbons\nCC,2\nC1CC,1\nC,1\n", [],
         "FILE, row 3: unparsable SMILES 'C1CC': not SMILES (a bracket, ring closure or symbol is wrong) "
         "(skip such rows with data.skip_bad_rows=true)"),
        ("structure,carbons\nCC,2\n", [],
         "FILE has no column 'smiles': its columns are 'structure', 'carbons' "
         "(if another column has them: data.smiles=COLUMN)"),
        ("smiles,carbon\nCC,2\n", [],
         "FILE has no column 'carbons': its columns are 'smiles', 'carbon'; did you mean 'carbon'?"),
        ("smiles,carbons\nCC,2\nC,\nCO,1\n", [],
         "FILE, row 3: target 'carbons' is missing; fill it in or drop such rows (data.drop_missing=true)"),
        ("smiles,carbons\nCC,2\nC,NaN\nCO,1\n", [],
         "FILE, row 3: target 'carbons' is missing; fill it in or drop such rows (data.drop_missing=true)"),
        ("smiles,carbons\nC,1\nCC,two\n", [],
         "FILE, row 3, column 'carbons': 'two' is not a finite number; if these are classes: training.task=multiclass"),
        ("", [], "FILE is empty: the first row must name the columns"),
        ("smiles,carbons\n", [], "FILE has no rows below its header (smiles, carbons)"),
        ("smiles,carbons\nCC,2\n", [],
         "FILE: 1 row cannot be split into 3 parts: at least 3 are needed"),
        ("smiles,carbons,split\nCC,2,train\nC,1,test\nCO,1,val\n", ["data.split=column"],
         "1 graph to train on: at least 2 are needed"),
        ("smiles,carbons,part\nCC,2,train\n", ["data.split=column"],
         "FILE has no column 'split': its columns are 'smiles', 'carbons', 'part'"),
        ("smiles,carbons\nCC,2\nC,1\nCO,1\nCCC,3\n", ["training.task=classification", "training.monitor=auroc"],
         "a label is 2, but classification needs 0 or 1; use training.task=multiclass for several classes, "
         "training.task=regression for numbers"),
        ("smiles,carbons\nCC,1\nC,1\nCO,0\nCCC,1\n", ["training.task=classification", "training.monitor=auroc"],
         "training.monitor=auroc cannot choose the best epoch: it needs both labels, 0 and 1, in val (1 graph); "
         "choose another metric or another split"),
    ],
)  # fmt: skip
def test_bad_data_gets_one_line_and_leaves_nothing(mistake, tmp_path, content, changes, message):
    file = tmp_path / "mine.csv"
    file.write_text(content)
    found = mistake(*own(file, *changes), "--output", tmp_path / "runs" / "a")
    assert found.replace(str(file), "FILE") == message
    assert list(tmp_path.iterdir()) == [file]


def test_bad_rows_are_skipped_on_request_with_a_count(coset, small_csv, tmp_path):
    small_csv.write_text(small_csv.read_text() + "C1CC,3\nxx,1\n")
    arguments = [argument for argument in own(small_csv, "data.skip_bad_rows=true") if argument != "--quiet"]
    code, _, err = coset(*arguments, "--output", tmp_path / "run")
    assert code == 0
    assert "note: skipped 2 unparsable rows: 14, 15" in err
    assert (
        json.loads((tmp_path / "run" / "metrics.json").read_text())["notes"][0] == "skipped 2 unparsable rows: 14, 15"
    )


def test_molecules_in_several_parts_and_single_atoms_work(coset, small_csv, tmp_path):
    small_csv.write_text(small_csv.read_text() + "[Na+].CC(=O)[O-],2\nC.C.C,3\n[Na+].[Cl-],0\nO,0\n")
    assert coset(*own(small_csv), "--output", tmp_path / "run")[0] == 0
    assert pd.read_csv(tmp_path / "run" / "predictions.csv")["prediction_carbons"].notna().all()


def test_a_checkpoint_of_another_recipe(coset, mistake, finished, small_csv, tmp_path):
    other = tmp_path / "other"
    assert coset(*own(small_csv, "model.width=15"), "--output", other)[0] == 0
    for name in ("checkpoint.ckpt", "last.ckpt"):
        (finished / name).write_bytes((other / name).read_bytes())
    difference = "belongs to another recipe: its model.width is 15, the recipe's is 12"
    assert mistake("predict", finished, small_csv, "--output", tmp_path / "out.csv") == (
        f"{finished / 'checkpoint.ckpt'} {difference}"
    )
    assert mistake("verify", finished) == f"{finished / 'checkpoint.ckpt'} {difference}"
    (finished / "metrics.json").unlink()
    assert mistake("run", "--resume", finished) == f"{finished / 'last.ckpt'} {difference}"
    assert not (tmp_path / "out.csv").exists()


def test_output_that_cannot_be_written(mistake, finished, small_csv, tmp_path, monkeypatch):
    out = tmp_path / "nowhere" / "out.csv"
    assert mistake("predict", finished, small_csv, "--output", out) == f"cannot write {out}: No such file or directory"

    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert mistake(*own(small_csv), "--output", tmp_path / "a" / "b") == (
        f"cannot write to {tmp_path / 'a' / 'b'}: Read-only file system; choose another folder with --output"
    )
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(mistake, small_csv, tmp_path):
    (tmp_path / "mine").mkdir(mode=0o500)
    assert "Permission denied; choose another folder" in mistake(*own(small_csv), "--output", tmp_path / "mine" / "a")


def test_a_folder_with_something_else(mistake, finished, small_csv, tmp_path):
    message = mistake(*own(small_csv), "--output", tmp_path)
    assert message == f"{tmp_path} is not empty and holds no run; choose another folder with --output"
    before = (finished / "metrics.json").read_text()
    message = mistake(*own(small_csv, "model.width=15"), "--output", finished)
    assert message.startswith(f"{finished} holds a run of another recipe: its model.width is 12, here it is 15; choose")
    assert (finished / "metrics.json").read_text() == before


def test_the_same_run_again_gives_the_same_metrics(coset, finished, small_csv):
    before = json.loads((finished / "metrics.json").read_text())
    assert coset(*own(small_csv), "--output", finished)[0] == 0
    after = json.loads((finished / "metrics.json").read_text())
    assert {**before, "seconds": 0} == {**after, "seconds": 0}


def test_tracebacks_on_request_only(monkeypatch):
    for arguments in (["--debug", "show", "x"], ["show", "x", "--debug"]):
        monkeypatch.setattr(sys, "argv", ["coset", *arguments])
        with pytest.raises(cli.CosetError):
            cli.main()


def test_a_bug_of_ours_gets_one_line_too(mistake, monkeypatch):
    def broken(*_):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("coset.runs.listing.show", broken)
    assert mistake("show", "csv") == "RuntimeError: first second (--debug shows where)"


def test_list_and_show(coset):
    assert "subgraphormer/freesolv" in coset("list")[1]
    code, out, _ = coset("show", "subgraphormer/freesolv")
    assert code == 0
    assert "kind: graphs" in out


@pytest.mark.parametrize("command", ["list", "show", "run", "predict", "verify", "report", "bench"])
def test_every_command_explains_itself_with_an_example(coset, command):
    code, out, _ = coset(command, "--help")
    assert code == 0
    assert f"Example: coset {command}" in out


def test_start_is_fast_because_nothing_heavy_is_imported():
    code = "import sys; import coset.cli; import coset.runs.recipes; coset.runs.recipes.names(); "
    code += (
        "print([name for name in ('torch', 'pandas', 'numpy', 'rdkit', 'pytorch_lightning') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_what_is_no_graph_needs_neither_pyg_nor_lightning():
    kinds = (
        "weights.lora.experiments", "weights.lora.prediction", "weights.merging.experiments",
        "weights.merging.merge_file", "weights.asymmetric.connect", "weights.asymmetric.experiments",
        "motion.experiments", "privacy.experiments",
    )  # fmt: skip
    code = f"import sys; import {', '.join(f'coset.{kind}' for kind in kinds)}, coset.cli.runs; "
    code += "print([name for name in ('torch_geometric', 'pytorch_lightning') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_signal_of_which_a_library_makes_an_error_of_its_own(coset, monkeypatch):
    def interrupted(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except BaseException as error:
            raise ValueError("a bad batch") from error

    monkeypatch.setattr(cli, "app", interrupted)
    code, _, problems = coset("list")
    assert (code, problems.strip()) == (130, "stopped by SIGINT")


def test_an_interrupt_of_which_typer_makes_a_bare_code_is_told(coset, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda *_, **__: 130)
    code, _, problems = coset("list")
    assert (code, problems.strip()) == (130, "error: stopped")


def test_the_command_is_installed():
    command = os.path.join(os.path.dirname(sys.executable), "coset")
    assert subprocess.check_output([command, "--version"], text=True).startswith("coset ")
    failed = subprocess.run([command, "show", "nothing"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "error: no recipe 'nothing' (coset list)\n"
