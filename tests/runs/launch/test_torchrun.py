"""Several processes train what one would, whoever starts them, dies on the way, or goes on; their shares cost alike."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coset.cli import app
from coset.core.errors import CosetError
from coset.graphs.fitting.loaders import fair_share
from coset.runs.launch import processes, ray_train, torchrun

EPOCHS = 31


def test_shares_of_a_batch_cost_alike():
    """Heavy-tailed sizes: the dearest share over the mean, against dealing rows out as they come."""
    generator = random.Random(0)
    costs = [float(generator.randint(5, 60)) ** 2 for _ in range(128)]
    rows = list(range(128))

    def worst(shares):
        sums = [sum(costs[row] for row in share) for share in shares]
        return max(sums) * len(sums) / sum(sums)

    for count in (2, 3, 8):
        fair = [fair_share(rows, costs, rank, count) for rank in range(count)]
        assert sorted(row for share in fair for row in share) == rows
        assert max(map(len, fair)) - min(map(len, fair)) <= 1
        plain = [fair_share(rows, None, rank, count) for rank in range(count)]
        assert worst(fair) < 1.03
        assert worst(fair) < worst(plain)


def test_who_takes_part(monkeypatch, tmp_path):
    assert processes.world() is None
    assert processes.is_first()
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "5"), ("WORLD_SIZE", "6"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert processes.world() == (5, 6, 2, 3)
    assert not processes.is_first()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert processes.world() is None
    monkeypatch.setenv(processes.ON_RAY, "1")
    assert processes.world() == (5, 6, 2, 3)
    for launch in (lambda: torchrun.launch([], 0), lambda: ray_train.launch(print, (), tmp_path, 0)):
        with pytest.raises(CosetError, match="workers=0"):
            launch()


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """37 molecules, of which 26, 6 and 5 are for training, validation and testing: two processes never share evenly."""
    file = tmp_path_factory.mktemp("data") / "chains.csv"
    rows = (f"{'C' * (1 + i % 9)}{'O' * (i % 3)},{1 + i % 9}\n" for i in range(37))
    file.write_text("smiles,carbons\n" + "".join(rows))
    options = ["data={name: csv, fractions: [0.7, 0.17, 0.13]}", f"data.path={file}", "data.target=carbons"]
    options += ["model.norm=identity", "model.width=8", "model.layers=2", "training.batch_size=4"]
    return ["run", "gin/freesolv", *options, "training.schedule=constant", "--quiet"]


def run(arguments, folder):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def one(command, tmp_path_factory):
    """What one process comes to."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    return run([*command, f"training.epochs={EPOCHS}", "--output", str(folder)], folder)


def lengthened(folder):
    """A run that was to be shorter, to be gone on with."""
    file = folder / "recipe.yaml"
    file.write_text(file.read_text().replace(f"epochs: {EPOCHS - 1}", f"epochs: {EPOCHS}"))
    return folder


def same(found, expected):
    for split in ("train", "val", "test"):
        for metric in ("mae", "rmse"):
            assert found[split][metric] == pytest.approx(expected[split][metric], rel=1e-3)
    assert found["best_epoch"] == expected["best_epoch"]
    return True


def kill_one_of(folder, killed):
    """SIGKILL to one process of a run, once it has saved an epoch."""
    deadline = time.monotonic() + 200
    while not killed and time.monotonic() < deadline:
        time.sleep(0.01)
        if not (folder / "last.ckpt").is_file():
            continue
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                place = (entry / "environ").read_bytes().split(b"\0")
                if b"RANK=1" in place and str(folder).encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.append(len((folder / "history.csv").read_text().splitlines()) - 1)
                    break
            except OSError:
                continue


@pytest.mark.slow
def test_two_processes_train_what_one_does_though_one_is_killed(command, one, tmp_path):
    """And from two processes to one: the last epoch is run by a single one."""
    folder, killed = tmp_path / "two", []
    thread = threading.Thread(target=kill_one_of, args=(folder, killed))
    thread.start()
    arguments = [*command, f"training.epochs={EPOCHS - 1}", "--engine", "torchrun", "--output", str(folder)]
    run(arguments, folder)
    thread.join()
    assert killed
    assert killed[0] < EPOCHS - 1
    assert same(run(["run", "--resume", str(lengthened(folder)), "--quiet"], folder), one)


@pytest.mark.ray
@pytest.mark.slow
def test_ray_train_goes_on_with_what_one_process_began(command, one, tmp_path):
    pytest.importorskip("ray.train")
    folder = tmp_path / "grown"
    run([*command, f"training.epochs={EPOCHS - 1}", "--output", str(folder)], folder)
    arguments = ["run", "--resume", str(lengthened(folder)), "--engine", "ray", "--workers", "2", "--quiet"]
    assert same(run(arguments, folder), one)
    assert not (folder.parent / ".grown.ray").exists()


def test_what_several_processes_cannot_do_is_said():
    for engine in ("torchrun", "ray"):
        wrong = CliRunner().invoke(app, ["run", "lol/digits", "--engine", engine])
        assert "is of kind lora, whose runs several processes cannot share" in str(wrong.exception)
    wrong = CliRunner().invoke(app, ["run", "gin/freesolv", "engine=slurm"])
    assert "--engine slurm: choose local, torchrun or ray" in str(wrong.exception)


def test_a_mistake_is_noted_for_whoever_launched(monkeypatch, tmp_path):
    note = tmp_path / "mistake.txt"
    assert not processes.note_mistake("nobody reads this")
    processes.raise_mistake(note)
    monkeypatch.setenv(processes.MISTAKE, str(note))
    assert not processes.mistake_was_made()
    assert processes.note_mistake("column y is missing")
    assert processes.mistake_was_made()
    with pytest.raises(CosetError, match=r"^column y is missing$"):
        processes.raise_mistake(note)
    done = CliRunner().invoke(app, ["run", "csv", "data.path=nowhere.csv", "data.target=y"])  # is not made again
    assert done.exit_code == 0


def test_processes_end_with_the_one_that_launched_them():
    """A launcher that is killed leaves no one behind who trains on in the folder that its successor starts again."""
    launcher = subprocess.Popen(["sleep", "60"])
    follow = "from coset.runs.launch.processes import follow_launcher; follow_launcher(.05); print(flush=True)"
    environment = os.environ | {processes.LAUNCHER: str(launcher.pid)}
    follower = subprocess.Popen(
        [sys.executable, "-c", f"{follow}; import time; time.sleep(60)"], env=environment, stdout=subprocess.PIPE
    )
    follower.stdout.readline()
    assert follower.poll() is None
    launcher.kill()
    launcher.wait()
    assert follower.wait(timeout=20) == 1
    follower.stdout.close()
