import pytest
import torch

from coset import CosetError
from coset.graphs.fitting.callbacks import AtomicFiles
from coset.runs.checkpoints import check_belongs, read_checkpoint


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicFiles().save_checkpoint({"epoch": 1}, path)
    with pytest.raises(AttributeError):
        AtomicFiles().save_checkpoint({"epoch": lambda: 2}, path)  # cannot be pickled: fails half-way
    assert read_checkpoint(path) == {"epoch": 1}


@pytest.mark.parametrize("content", [b"", b"no checkpoint", torch.arange(3).numpy().tobytes()])
def test_files_that_are_no_checkpoints(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CosetError, match=r"a.ckpt cannot be read: it is damaged"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    torch.save({"epoch": print}, tmp_path / "a.ckpt")
    with pytest.raises(CosetError, match="it is damaged, or holds more than tensors"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_missing(tmp_path):
    with pytest.raises(CosetError, match="the run has not finished an epoch"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_the_first_difference_is_named(tmp_path):
    stored = {"model": {"name": "gin", "width": 48}, "seed": 0}
    check_belongs(tmp_path, stored, {"model": {"width": 48}})
    with pytest.raises(CosetError, match=r"belongs to another recipe: its model.width is 48, the recipe's is 64"):
        check_belongs(tmp_path, stored, {"seed": 0, "model": {"width": 64}})
