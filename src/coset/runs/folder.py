"""The folder that a run leaves behind: which files it holds, and the one object that reads and writes them.

Every file is written whole or not at all. ``metrics.json`` comes last: where it is, the run is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from coset.core.errors import CosetError
from coset.core.files import LOCK, holds_something, make_folder, reason, replacing, takes_paths, write_json, write_text
from coset.core.identity import digest
from coset.core.outside import read_saved, read_text, read_tree
from coset.runs.signals import go_on

RECIPE, METRICS, STATUS, REPORT = "recipe.yaml", "metrics.json", "status.json", "report.html"
HISTORY, PREDICTIONS, CERTIFICATE, CURVES = "history.csv", "predictions.csv", "certificate.json", "curves.json"
BEST, LAST = "checkpoint.ckpt", "last.ckpt"
FILES = (RECIPE, METRICS, STATUS, REPORT, HISTORY, PREDICTIONS, CERTIFICATE, CURVES, BEST, LAST)
"""Files that runs of several kinds leave; those of one kind alone are named in its ``leaves``."""
CONFIG = "config.json"
"""Of a network that was exported for use: with it, a folder has no recipe of its own."""
PARTS, RUNS = "parts", "runs"
RESUMABLE = (LAST, PARTS, RUNS)
"""What a run that was stopped can go on from."""
V = TypeVar("V")


@takes_paths
def run_folders(path: Path) -> list[Path]:
    """The folder of a run itself, or those of the finished runs of a sweep, by name.

    Raises:
        CosetError: A sweep has no finished run.
    """
    if not (path / RUNS).is_dir():
        return [path]
    found = sorted(file.parent for file in (path / RUNS).rglob(METRICS) if (file.parent / RECIPE).is_file())
    if not found:
        raise CosetError(f"{path} is a sweep without a finished run")
    return found


class RunFolder:
    """The folder of one run.

    Args:
        path: Of the folder; it need not exist.
        leaves: Files and folders that runs of this kind leave besides those of all kinds.
    """

    def __init__(self, path: Path, leaves: tuple[str, ...] = ()):
        self.path, self.leaves = Path(path), leaves

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __str__(self) -> str:
        return str(self.path)

    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self / RECIPE).is_file()

    def finished(self) -> bool:
        """Whether the run is whole."""
        return self.holds_run() and (self / METRICS).is_file()

    def resumable(self) -> bool:
        """Whether a run was stopped here that has something to go on from."""
        return self.holds_run() and not self.finished() and any((self / name).exists() for name in RESUMABLE)

    def in_use(self) -> bool:
        """Whether a process runs here now."""
        try:
            with self._locked():
                return False
        except CosetError:
            return True

    def check_holds_run(self) -> RunFolder:
        """This folder.

        Raises:
            CosetError: It holds no run.
        """
        if not self.holds_run():
            raise CosetError(f"{self.path} holds no run: {RECIPE} is missing")
        return self

    def recipe(self) -> str:
        """The recipe that the run was made with, as YAML.

        Raises:
            CosetError: The folder holds no run.
        """
        return read_text(self.check_holds_run() / RECIPE)

    def metrics(self) -> dict[str, Any]:
        """What the run measured.

        Raises:
            CosetError: It is not finished, or its file is damaged.
        """
        if not (self / METRICS).is_file():
            raise CosetError(f"{self.path} holds no finished run: {METRICS} is missing")
        return self.read_json(METRICS)

    def status(self) -> dict[str, Any]:
        """``state`` (running, stopped, failed, done), ``at``, ``why``, ``host``, ``pid``, ``seconds``, ``data``; empty
        if nothing was begun."""
        return self.read_json(STATUS) if (self / STATUS).is_file() else {}

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of the run.

        Raises:
            CosetError: It is missing or damaged.
        """
        if not (self / name).exists():
            raise CosetError(f"{self / name} is missing")
        return read_tree(self / name)

    def write_json(self, name: str, value: Any) -> None:
        """Strict JSON, whole or not at all."""
        write_json(self / name, value)

    def write_text(self, name: str, text: str) -> None:
        """A file in UTF-8, whole or not at all."""
        write_text(self / name, text)

    def save(self, name: str, value: Any) -> None:
        """Tensors, numbers, texts, and lists, tuples and dictionaries of such, as PyTorch saves them."""
        import torch

        with replacing(self / name) as beside:
            torch.save(value, beside)

    def write_status(self, **changes: Any) -> None:
        """Change some entries of the status."""
        here = {"host": socket.gethostname(), "pid": os.getpid()}
        self.write_json(STATUS, {**self.status(), **here, **changes})

    def part(self, name: str, compute: Callable[[], V]) -> V:
        """A piece of the run's work: read if it was finished before the run was stopped, else done now and kept.

        So every kind of run goes on after a kill: work that follows from recipe and seed is cut into pieces, each is
        kept as soon as it is done, and all are removed when the run is whole.

        Args:
            name: Of the piece, different from those of all others of the run.
            compute: Gives tensors, numbers, texts, and lists, tuples and dictionaries of such.

        Raises:
            CosetError: What was kept is damaged.
        """
        file = self / PARTS / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', name)[:80]}.{digest(name)[:8]}.pt"
        if file.is_file():
            try:
                return read_saved(file)
            except CosetError as error:
                raise CosetError(f"{file} is damaged: remove it, and this piece of work is done again") from error
        go_on()
        found = compute()
        make_folder(file.parent)
        self.save(f"{PARTS}/{file.name}", found)
        return found

    def begin(self, recipe: str) -> None:
        """Write down the recipe of the run that begins or goes on here."""
        go_on()
        self.path.mkdir(parents=True, exist_ok=True)
        self._drop_half_written()
        self.write_text(RECIPE, recipe)

    def clear(self) -> None:
        """Remove what a run has left, and nothing else."""
        for name in (*FILES, *self.leaves, PARTS):
            shutil.rmtree(self / name) if (self / name).is_dir() else (self / name).unlink(missing_ok=True)
        self._drop_half_written()

    def _drop_half_written(self) -> None:
        """Remove what a kill left of files that were being written."""
        for name in (*FILES, *self.leaves):
            for beside in self.path.glob(f".{name}.*"):
                beside.unlink(missing_ok=True)

    def drop_parts(self) -> None:
        """Remove the pieces of work that are in the run's files now."""
        shutil.rmtree(self / PARTS, ignore_errors=True)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[RunFolder]:
        """The folder for this process alone, made if missing. If the body fails with nothing to go on from in a folder
        that held nothing before, what was made is removed again.

        Raises:
            CosetError: Another process uses it, it holds something that is no run, or it cannot be written.
        """
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        fresh = not holds_something(self.path)
        if not fresh and not self.holds_run():
            raise CosetError(f"{self.path} is not empty and holds no run; choose another folder with --output")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()
        except OSError as error:
            _remove(missing)
            raise CosetError(
                f"cannot write to {self.path}: {reason(error)}; choose another folder with --output"
            ) from error
        with self._locked():
            try:
                yield self
            except BaseException:
                if fresh and not any((self / name).exists() for name in RESUMABLE):
                    self.clear()
                    (self / LOCK).unlink(missing_ok=True)
                    _remove(missing)
                raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            user = self.status()
            who = f"process {user['pid']} on {user['host']}" if "pid" in user else "another process"
            raise CosetError(f"{self.path} is in use by {who}; wait for it, or choose another folder") from None
        try:
            yield
        finally:
            lock.release()  # its file stays: another process may hold it open already


def _remove(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are there and empty."""
    for folder in folders:
        if not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()
