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
from coset.weights.lora.collections import opened
from coset.weights.lora.zoo_experiment import LABELS, make_share

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
QUICK = ["source.steps=4"]  # of training: what is tested is who makes which adapter, and when


def content(folder):
    """Bytes of all weights, and labels."""
    weights = {p.parent.name: p.read_bytes() for p in sorted(folder.glob("adapters/*/adapter_model.safetensors"))}
    return weights, pd.read_csv(folder / "labels.csv", dtype={"id": str})


def same(a, b):
    (weights, labels), (others, rows) = content(a), content(b)
    pd.testing.assert_frame_equal(labels, rows)
    return weights == others


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "zoo"
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).make(folder, quiet=True)
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
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).make(tmp_path / "zoo", engine=engine, workers=workers, quiet=True)
    assert same(tmp_path / "zoo", undisturbed)


def test_a_collection_grows_without_changing(undisturbed, tmp_path):
    load("lol/digits-zoo", [*QUICK, "adapters=30"]).make(tmp_path / "zoo", quiet=True)
    kept = (tmp_path / "zoo" / "adapters" / "00007" / LABELS).stat().st_mtime_ns
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).make(tmp_path / "zoo", quiet=True)
    assert (tmp_path / "zoo" / "adapters" / "00007" / LABELS).stat().st_mtime_ns == kept
    assert same(tmp_path / "zoo", undisturbed)


def start(folder: Path) -> subprocess.Popen:
    options = ["--output", str(folder), "--workers", "2", "--quiet"]
    arguments = ["lora", "zoo", "lol/digits-zoo", *QUICK, "adapters=120", *options]
    code = "import sys; from coset.cli import main; sys.argv[1:] = " + repr(arguments) + "; main()"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


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
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).make(folder, quiet=True)
    assert all(p.stat().st_mtime_ns == written for p, written in made.items())
    assert same(folder, undisturbed)


def test_an_interrupted_run_is_completed_by_the_same_command(undisturbed, tmp_path):
    """What was half written is made again; what was finished is not."""
    folder = tmp_path / "zoo"
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).make(folder, quiet=True)
    for number in (3, 60, 119):
        place = folder / "adapters" / f"{number:05d}"
        (place / LABELS).unlink()
        (place / "adapter_model.safetensors").write_bytes(b"half")
    (folder / "labels.csv").unlink()
    load("lol/digits-zoo", [*QUICK, "adapters=120"]).run(folder, resume=True, quiet=True)
    assert same(folder, undisturbed)


def test_what_fails_is_told_and_what_was_made_is_kept(tmp_path):
    recipe = load("lol/minilm-zoo", ["adapters=4", f"source.texts={tmp_path}"])
    with pytest.raises(CosetError, match=r"sst2_train\.tsv\.gz is not found|all-MiniLM-L6-v2 is not here"):
        recipe.make(tmp_path / "zoo", quiet=True)
    digits = load("lol/digits-zoo", [*QUICK, "adapters=4"])
    with pytest.raises(CosetError, match="not empty and holds no collection"):
        digits.make(tmp_path, quiet=True)
    blocked = tmp_path / "blocked"
    digits.make(blocked, quiet=True)
    (blocked / "adapters" / "00001" / LABELS).unlink()
    (blocked / "adapters" / "00001" / LABELS).mkdir()  # cannot be replaced by a file
    with pytest.raises(CosetError, match="1 of 1 workers failed"):
        digits.make(blocked, workers=2, quiet=True)
    assert len(list(blocked.glob(f"adapters/*/{LABELS}"))) == 4


def test_a_share_that_is_done_opens_nothing(tmp_path):
    make_share(None, str(tmp_path), 0, [])


def test_the_model_beside_a_collection_is_no_adapter(undisturbed, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "zoo"
    shutil.copytree(undisturbed, folder)
    (folder / "base").mkdir()
    save_file({"weight": torch.zeros(2, 2)}, folder / "base" / "model.safetensors")
    assert len(opened(folder).names) == 120
