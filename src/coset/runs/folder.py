"""The folder that a run leaves behind, written file by file, each whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coset.core.errors import CosetError
from coset.core.files import reason, write_text

FILES = (
    "recipe.yaml", "metrics.json", "history.csv", "predictions.csv", "certificate.json", "attention.json",
    "report.html", "checkpoint.ckpt", "last.ckpt", "model.safetensors", "curves.json", "reconstructions.npz",
)  # fmt: skip


@contextmanager
def claimed(path: Path, recipe: str) -> Iterator[Path]:
    """A folder for a run of this recipe: an empty one, or one with an earlier run of exactly the same.

    Nothing in it is touched before :func:`begin`. If the body fails before a first epoch was saved (or, of a sweep,
    before its first run), what was made here is removed again.

    Args:
        path: The folder; made if missing.
        recipe: The resolved recipe.

    Raises:
        CosetError: It holds something else, or cannot be written.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    fresh = not (path.is_dir() and any(path.iterdir()))
    if not fresh:
        _check_same(path, recipe)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        _remove(missing)
        raise CosetError(f"cannot write to {path}: {reason(error)}; choose another folder with --output") from error
    try:
        yield path
    except BaseException:
        if fresh and not (path / "last.ckpt").exists() and not (path / "runs").exists():
            clear(path)
            _remove(missing)
        raise


def begin(path: Path, recipe: str) -> None:
    """Clear an earlier run away and write down the recipe of this one."""
    path.mkdir(parents=True, exist_ok=True)
    clear(path)
    write_text(path / "recipe.yaml", recipe)


def clear(path: Path) -> None:
    """Remove the files of a run, and nothing else."""
    for name in FILES:
        (path / name).unlink(missing_ok=True)
        for part in path.glob(f".{name}.*"):  # what a kill left half-written
            part.unlink(missing_ok=True)


def existing(path: Path) -> Path:
    """A folder that holds a run.

    Raises:
        CosetError: It does not.
    """
    if not (path / "recipe.yaml").is_file():
        raise CosetError(f"{path} holds no run: recipe.yaml is missing")
    return path


def unused(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist."""
    number, candidate = 2, path
    while candidate.exists():
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate


def _check_same(path: Path, recipe: str) -> None:
    file = path / "recipe.yaml"
    if not file.is_file():
        raise CosetError(f"{path} is not empty and holds no run; choose another folder with --output")
    if file.read_text(encoding="utf-8") != recipe:
        raise CosetError(
            f"{path} holds a run of another recipe (see {file}); choose another folder with --output, "
            f"or continue that run with --resume {path}"
        )


def _remove(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are there and empty."""
    for folder in folders:
        if not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()
