import errno
import tempfile
from contextlib import suppress

import pytest

from coset import CosetError
from coset.runs.folder import begin, claimed, existing, unused


def test_a_claimed_folder_stays_after_a_run(tmp_path):
    with claimed(tmp_path / "a" / "b", "recipe") as folder:
        begin(folder, "recipe")
    assert (existing(folder) / "recipe.yaml").read_text() == "recipe"


def test_a_failure_before_the_first_epoch_leaves_nothing(tmp_path):
    with suppress(ZeroDivisionError), claimed(tmp_path / "a" / "b", "recipe") as folder:
        begin(folder, "recipe")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_failure_later_leaves_what_a_resume_needs(tmp_path):
    with suppress(ZeroDivisionError), claimed(tmp_path / "a", "recipe") as folder:
        begin(folder, "recipe")
        (folder / "last.ckpt").touch()
        raise ZeroDivisionError
    assert (folder / "recipe.yaml").exists()


def test_the_same_recipe_may_run_again_and_other_files_stay(tmp_path):
    for name in ("metrics.json", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "recipe.yaml").write_text("recipe")
    with claimed(tmp_path, "recipe"):
        assert (tmp_path / "metrics.json").exists()
        begin(tmp_path, "recipe")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "recipe.yaml"]


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CosetError, match=r"is not empty and holds no run; choose another folder with --output"):
        claimed(tmp_path, "recipe").__enter__()
    (tmp_path / "recipe.yaml").write_text("another")
    with pytest.raises(CosetError, match=r"holds a run of another recipe .*continue that run with --resume"):
        claimed(tmp_path, "recipe").__enter__()
    with pytest.raises(CosetError, match=r"thesis.tex: File exists; choose another folder with --output"):
        claimed(tmp_path / "thesis.tex", "recipe").__enter__()


def test_a_folder_that_cannot_be_written_is_not_left_behind(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(CosetError, match=r"cannot write to .*/a/b: Read-only file system; choose another folder"):
        claimed(tmp_path / "a" / "b", "recipe").__enter__()
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(CosetError, match=r"holds no run: recipe.yaml is missing"):
        existing(tmp_path)


def test_names_are_numbered_when_taken(tmp_path):
    assert unused(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert unused(tmp_path / "a") == tmp_path / "a-3"
