"""Making collections: whoever makes them, and however often they are interrupted, they come out equal."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from coset.core.errors import CosetError
from coset.runs.recipes import load
from coset.weights.lora import zoo_experiment
from coset.weights.lora.collections import opened
from coset.weights.lora.finetuning import digits
from coset.weights.lora.finetuning.sources import AdapterSource
from coset.weights.lora.zoo_experiment import LABELS, Workers, make_share

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
QUICK = ["source.steps=4"]  # of training: what is tested is who makes which adapter, and when


def content(folder):
    """Bytes of all weights, and labels."""
    weights = {p.parent.name: p.read_bytes() for p in sorted(folder.glob("adapters/*/adapter_model.safetensors"))}
    return weights, pd.read_csv(folder / "labels.csv", dtype={"id": str})


def without_times(metrics):
    return {key: value for key, value in metrics.items() if "seconds" not in key}


def same(a, b):
    (weights, labels), (others, rows) = content(a), content(b)
    pd.testing.assert_frame_equal(labels, rows)
    return weights == others


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "zoo"
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).run(folder, quiet=True)
    return folder


@pytest.mark.parametrize(
    ("engine", "workers"),
    [
        pytest.param("local", 2, marks=pytest.mark.slow),
        pytest.param("ray", 2, marks=[pytest.mark.ray, pytest.mark.slow]),
    ],
)
def test_engines_and_workers_make_equal_collections(engine, workers, undisturbed, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray")
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).run(
        tmp_path / "zoo", prepared=Workers(engine, workers), quiet=True
    )
    assert same(tmp_path / "zoo", undisturbed)


def test_a_collection_grows_without_changing(undisturbed, tmp_path):
    load("lol/digits-zoo", [*QUICK, "adapters=30"]).run(tmp_path / "zoo", quiet=True)
    kept = (tmp_path / "zoo" / "adapters" / "00007" / LABELS).stat().st_mtime_ns
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).run(tmp_path / "zoo", quiet=True)
    assert (tmp_path / "zoo" / "adapters" / "00007" / LABELS).stat().st_mtime_ns == kept
    assert same(tmp_path / "zoo", undisturbed)


def start(folder: Path) -> subprocess.Popen:
    options = ["--output", str(folder), "--workers", "2", "--quiet"]
    arguments = ["lora", "zoo", "lol/digits-zoo", *QUICK, "adapters=120", *options]
    code = "import sys; from coset.cli import main; sys.argv[1:] = " + repr(arguments) + "; main()"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(tmp_path, monkeypatch):
    recipe, written, write = load("lol/digits-zoo", [*QUICK, "adapters=6"]), [], zoo_experiment.write_json

    def counted(path, value):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.parent.name)
        write(path, value)

    whole = recipe.run(tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(zoo_experiment, "write_json", counted)
        with pytest.raises(KeyboardInterrupt):
            recipe.run(tmp_path / "killed", quiet=True)
    assert written == ["00000", "00001", "00002"]
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob(f"adapters/*/{LABELS}")}
    metrics = recipe.run(tmp_path / "killed", quiet=True)
    assert all(p.stat().st_mtime_ns == made for p, made in kept.items())
    assert without_times(metrics) == without_times(whole)
    assert same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(undisturbed, tmp_path):
    """Killed at a random moment after the first adapter; the same recipe completes what its workers had made."""
    folder, process = tmp_path / "zoo", start(tmp_path / "zoo")
    try:
        while process.poll() is None and not list(folder.glob(f"adapters/*/{LABELS}")):
            time.sleep(0.01)
        time.sleep(random.Random(0).uniform(0, 0.1))
    finally:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    made = {p: p.stat().st_mtime_ns for p in folder.glob(f"adapters/*/{LABELS}")}
    assert made, errors
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).run(folder, quiet=True)
    assert all(p.stat().st_mtime_ns == written for p, written in made.items())
    assert same(folder, undisturbed)


def test_an_interrupted_run_is_completed_by_the_same_command(undisturbed, tmp_path):
    """What was half written is made again; what was finished is not."""
    folder = tmp_path / "zoo"
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).run(folder, quiet=True)
    for number in (3, 60, 119):
        place = folder / "adapters" / f"{number:05d}"
        (place / LABELS).unlink()
        (place / "adapter_model.safetensors").write_bytes(b"half")
    (folder / "labels.csv").unlink()
    (folder / "metrics.json").unlink()
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).run(folder, quiet=True)
    assert same(folder, undisturbed)


def test_what_fails_is_told_and_what_was_made_is_kept(tmp_path):
    recipe = load("lol/minilm-zoo", ["adapters=4", f"source.texts={tmp_path}"])
    with pytest.raises(CosetError, match=r"sst2_train\.tsv\.gz is not found|all-MiniLM-L6-v2 is not here"):
        recipe.run(tmp_path / "zoo", quiet=True)
    digits = load("lol/digits-zoo", [*QUICK, "adapters=4"])
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "notes.txt").touch()
    with pytest.raises(CosetError, match="is not empty and holds no run"):
        digits.run(tmp_path / "strange", quiet=True)
    blocked = tmp_path / "blocked"
    digits.run(blocked, quiet=True)
    (blocked / "adapters" / "00001" / LABELS).unlink()
    (blocked / "adapters" / "00001" / LABELS).mkdir()  # cannot be replaced by a file
    (blocked / "metrics.json").unlink()
    with pytest.raises(CosetError, match="1 of 1 workers failed"):
        digits.run(blocked, prepared=Workers("local", 2), quiet=True)
    assert len(list(blocked.glob(f"adapters/*/{LABELS}"))) == 4


def test_a_share_that_is_done_opens_nothing(tmp_path):
    make_share(AdapterSource(name="none"), str(tmp_path), 0, [])  # which cannot open anything


def test_the_model_beside_a_collection_is_no_adapter(undisturbed, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "zoo"
    shutil.copytree(undisturbed, folder)
    (folder / "base").mkdir()
    save_file({"weight": torch.zeros(2, 2)}, folder / "base" / "model.safetensors")
    assert len(opened(folder).names) == 120


def test_the_base_does_not_depend_on_the_number_of_threads():
    before, bases = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            digits._prepared.cache_clear()
            bases.append(digits._prepared(0)[-1].state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(value, bases[1][name]) for name, value in bases[0].items())
