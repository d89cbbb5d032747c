"""Every command has its output to itself: while the first still writes, a second says who does, and writes nothing."""

import inspect
import os
import socket

import pytest

from benchmark_scripts import script
from coset.cli import COMMANDS, OWN
from coset.core.files import claimed

for extra in ("sklearn", "cv2", "transformers", "pyarrow", "safetensors"):
    pytest.importorskip(extra)

chaos = script("chaos")
OUTSIDE = {
    "motion convert": chaos.Verb(["motion", "convert", "IN/authors.pt", "OUT"]),
    "data get": chaos.Verb(["data", "get", "esol", "--folder", "OUT", "--again"]),
}
"""Commands that read what must be downloaded; who holds the output is told before."""
VERBS = {**chaos.verbs(kinds=False), **OUTSIDE}
FOLDERS = {"run", "run subgraphormer", "sweep", "preprocess", "connect", "reconstruct", "audit", "lora zoo", "export"}
"""Commands whose lock lies in the folder that they write; of the others it lies beside their output."""
RUNS = {"run", "run subgraphormer", "sweep", "lora zoo"}
"""They say in ``status.json`` who they are, once they have begun."""
WAITS = {"lora collect"}
"""The second takes what the first has made: see tests/weights/lora/data/test_zoo.py."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    chaos.make_inputs(folder, " ".join(word for verb in VERBS.values() for word in verb.arguments))
    (folder / "authors.pt").touch()  # not read before the lock is there
    return folder


@pytest.mark.parametrize("name", [name for name in VERBS if name not in WAITS])
def test_the_second_is_refused(name, inputs, coset, tmp_path):
    verb, output = VERBS[name], tmp_path / VERBS[name].output
    command = [str(output) if word == "OUT" else word.replace("IN/", f"{inputs}/") for word in verb.arguments]
    lock = output / ".lock" if name in FOLDERS else tmp_path / f".{output.name}.lock"
    lock = output / ".downloads" / ".lock" if name == "data get" else lock
    lock.parent.mkdir(exist_ok=True, parents=True)
    with claimed(lock, output):
        code, _, problems = coset(*command)
        assert code == 1, problems
        assert "is in use by " in problems
        assert len(problems.strip().splitlines()) == 1
        assert f"process {os.getpid()} on {socket.gethostname()}" in problems or name in RUNS
        assert {file.name for file in tmp_path.rglob("*") if file.is_file()} <= {lock.name}


def test_no_command_that_writes_is_forgotten():
    """Those whose names end with what they write, or whose options name it."""
    written = {"output", "page", "folder", "merged"}
    writing = {
        name
        for name, command in {**OWN, **dict(COMMANDS.items())}.items()
        if written & set(inspect.signature(command).parameters)
    }
    covered = {
        name for name in writing for verb in VERBS.values() if verb.arguments[: len(name.split())] == name.split()
    }
    assert writing == covered
