"""The folder of a run."""

import errno
import multiprocessing
import tempfile
from contextlib import suppress

import pytest
import torch

from coset import CosetError
from coset.core.files import unused
from coset.runs.folder import LAST, LOCK, METRICS, PARTS, RECIPE, RunFolder


def test_a_claimed_folder_stays_after_a_run(tmp_path):
    with RunFolder(tmp_path / "a" / "b").claimed() as folder:
        folder.begin("recipe")
    assert folder.recipe() == "recipe"
    assert (folder.holds_run(), folder.finished(), folder.resumable()) == (True, False, False)


def test_a_failure_with_nothing_to_go_on_from_leaves_nothing(tmp_path):
    with suppress(ZeroDivisionError), RunFolder(tmp_path / "a" / "b").claimed() as folder:
        folder.begin("recipe")
        folder.write_status(state="running")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("leave", [lambda f: (f / LAST).touch(), lambda f: f.part("a", lambda: 1)])
def test_a_failure_later_leaves_what_a_run_goes_on_from(tmp_path, leave):
    with suppress(ZeroDivisionError), RunFolder(tmp_path / "a").claimed() as folder:
        folder.begin("recipe")
        leave(folder)
        raise ZeroDivisionError
    assert folder.resumable()


def test_clearing_removes_what_a_run_leaves_and_nothing_else(tmp_path):
    folder = RunFolder(tmp_path, leaves=("cells.json", "networks"))
    for name in (RECIPE, METRICS, "cells.json", "notes.txt", f".{METRICS}.half"):
        (folder / name).touch()
    (folder / "networks").mkdir()
    (folder / "networks" / "0.safetensors").touch()
    folder.part("a", lambda: 1)
    folder.clear()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_parts_are_done_once_and_survive_in_any_shape(tmp_path):
    folder, value = RunFolder(tmp_path), {"x": torch.arange(3), "rows": [{"a": 1.5, "b": "text"}], "pair": (1, None)}
    assert folder.part("variant 1/b", lambda: value) is value
    again = folder.part("variant 1/b", lambda: pytest.fail("done twice"))
    assert again["rows"] == value["rows"]
    assert again["pair"] == (1, None)
    assert torch.equal(again["x"], value["x"])
    folder.drop_parts()
    assert not (folder / PARTS).exists()


def test_names_of_parts_that_differ_are_kept_apart(tmp_path):
    folder = RunFolder(tmp_path)
    assert [folder.part(name, lambda name=name: name) for name in ("a b", "a_b", "a/b", "A b")] == [
        "a b", "a_b", "a/b", "A b"
    ]  # fmt: skip


def test_a_damaged_part_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.part("a", lambda: 1)
    (file,) = (tmp_path / PARTS).iterdir()
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(CosetError, match=rf"{file} is damaged: remove it"):
        folder.part("a", lambda: 1)


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CosetError, match=r"is not empty and holds no run; choose another folder with --output"):
        RunFolder(tmp_path).claimed().__enter__()
    with pytest.raises(CosetError, match=r"thesis.tex: File exists; choose another folder with --output"):
        RunFolder(tmp_path / "thesis.tex").claimed().__enter__()


def _hold(path, told, end):
    with RunFolder(path).claimed() as folder:
        folder.begin("recipe")
        folder.write_status(state="running")
        told.set()
        end.wait(60)


def test_two_at_once_are_refused_and_told_who_is_there(tmp_path):
    context = multiprocessing.get_context("spawn")
    told, end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "run", told, end))
    other.start()
    try:
        assert told.wait(60)
        assert RunFolder(tmp_path / "run").in_use()
        with pytest.raises(
            CosetError, match=rf"is in use by process {other.pid} on \S+; wait for it, or choose another"
        ):
            RunFolder(tmp_path / "run").claimed().__enter__()
    finally:
        end.set()
        other.join()
    assert not RunFolder(tmp_path / "run").in_use()


def test_a_run_that_has_just_begun_is_no_folder_of_something_else(tmp_path):
    """Its first file is being written, or was when it was killed: the folder is not empty, and holds no run yet."""
    with RunFolder(tmp_path).claimed():
        (tmp_path / f".{RECIPE}.0a1b2c3d").touch()
        with pytest.raises(CosetError, match="is in use by"):
            RunFolder(tmp_path).claimed().__enter__()
    with RunFolder(tmp_path).claimed() as folder:
        folder.begin("recipe")
    assert folder.holds_run()


def test_a_folder_that_cannot_be_written_is_not_left_behind(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(CosetError, match=r"cannot write to .*/a/b: Read-only file system; choose another folder"):
        RunFolder(tmp_path / "a" / "b").claimed().__enter__()
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_or_with_a_damaged_one(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(CosetError, match=r"holds no run: recipe.yaml is missing"):
        folder.recipe()
    with pytest.raises(CosetError, match=r"holds no finished run: metrics.json is missing"):
        folder.metrics()
    (folder / METRICS).write_text("{")
    with pytest.raises(CosetError, match=r"metrics.json is not valid JSON"):
        folder.metrics()
    assert folder.status() == {}


def test_a_lock_alone_is_an_empty_folder(tmp_path):
    (tmp_path / LOCK).touch()
    with RunFolder(tmp_path).claimed() as folder:
        folder.begin("recipe")
    assert folder.holds_run()


def test_names_are_numbered_when_taken(tmp_path):
    assert unused(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert unused(tmp_path / "a") == tmp_path / "a-3"


def test_a_run_that_begins_removes_what_a_kill_left_half_written(tmp_path):
    (tmp_path / f".{RECIPE}.e9706aca").write_text("half")
    with RunFolder(tmp_path).claimed() as folder:
        folder.begin("recipe")
    assert [file.name for file in tmp_path.glob(".*") if file.name != LOCK] == []
