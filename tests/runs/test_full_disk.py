"""No room, or no right to write: one line that says where, and what was there before stays whole."""

import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch_geometric.transforms import Compose
from typer.testing import CliRunner

from coset.cli import app
from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.graphs.fitting.callbacks import AtomicFiles
from coset.runs.checkpoints import read_checkpoint

SMALL = ["model.width=8", "model.layers=1", "training.epochs=2", "--quiet"]


@contextmanager
def files_of_at_most(size):
    """As on a disk that has no more room than that: writing on fails (with another reason, File too large)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_file_keeps_what_it_held(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with files_of_at_most(1000), pytest.raises(CosetError, match=r"^cannot write .*a\.txt: File too large$"):
        write_text(tmp_path / "a.txt", "x" * 100_000)
    assert content(tmp_path) == {"a.txt": b"old"}


def test_a_checkpoint_is_the_last_that_fitted(tmp_path):
    file = tmp_path / "last.ckpt"
    AtomicFiles().save_checkpoint({"a": torch.zeros(3)}, file)
    with files_of_at_most(10_000), pytest.raises(CosetError, match=r"^cannot write .*last\.ckpt: File too large$"):
        AtomicFiles().save_checkpoint({"a": torch.zeros(100_000)}, file)
    assert read_checkpoint(file)["a"].shape == (3,)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_without_room_leaves_an_earlier_one(small_csv, tmp_path):
    options = ["data={name: csv}", f"data.path={small_csv}", "data.target=carbons", *SMALL]
    done = CliRunner().invoke(app, ["run", "gin/freesolv", *options, "--output", str(tmp_path / "one")])
    assert done.exit_code == 0, done.exception
    before = content(tmp_path / "one")
    with files_of_at_most(8000):
        failed = CliRunner().invoke(app, ["run", "gin/freesolv", *options, "--output", str(tmp_path / "two")])
    assert isinstance(failed.exception, CosetError)
    assert str(failed.exception) == f"cannot write {tmp_path / 'two' / 'checkpoint.ckpt'}: File too large"
    assert content(tmp_path / "one") == before
    assert not (tmp_path / "two").exists()


def test_shards_without_room_are_made_later(small_csv, tmp_path):
    pytest.importorskip("pyarrow")
    from coset.graphs.data.sharding import Sharding, preprocess

    sharding, folder = Sharding((small_csv,), Compose([]), shard_rows=4), tmp_path / "shards"
    preprocess(sharding, folder, quiet=True)
    whole = content(folder)
    (folder / "000001.arrow").unlink()
    (folder / "shards.json").unlink()
    shutil.rmtree(folder / "rows", ignore_errors=True)
    (folder / "parts.json").unlink()
    kept = {name: text for name, text in content(folder).items() if name.endswith(".arrow")}
    with (
        files_of_at_most(1000),
        pytest.raises(CosetError, match=r"cannot write .*000001\.arrow: File too large.*kept in"),
    ):
        preprocess(sharding, folder, quiet=True)
    assert {name: text for name, text in content(folder).items() if name.endswith(".arrow")} == kept
    preprocess(sharding, folder, quiet=True)
    assert content(folder) == whole


@pytest.mark.parametrize(
    "command",
    [
        ["run", "gin/freesolv", *SMALL],
        ["sweep", "gin/freesolv", *SMALL],
        ["lora", "zoo", "lol/digits-zoo", "--quiet"],
        ["preprocess", "{file}", "--quiet"],
    ],
)
def test_a_folder_that_cannot_be_written_is_named(command, small_csv):
    place = Path("/proc/coset")
    result = CliRunner().invoke(app, [*(part.format(file=small_csv) for part in command), "--output", str(place)])
    assert isinstance(result.exception, CosetError)
    assert str(result.exception).startswith(("cannot write to /proc/coset: ", "cannot make /proc/coset: "))
    assert "\n" not in str(result.exception)
