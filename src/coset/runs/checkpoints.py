"""Checkpoints: written whole or not at all, and sure of which recipe they belong to."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from pytorch_lightning.plugins.io import TorchCheckpointIO

from coset.core.errors import CosetError
from coset.core.files import replacing
from coset.runs.metrics import direction

BEST, LAST = "checkpoint.ckpt", "last.ckpt"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents; nothing in it is executed.

    Raises:
        CosetError: It is missing, or no checkpoint.
    """
    if not path.is_file():
        raise CosetError(f"{path} is missing: the run has not finished an epoch")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, OSError) as error:
        raise CosetError(f"{path} is no checkpoint that can be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def check_belongs(path: Path, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare what a checkpoint was made with against what it is wanted for.

    Raises:
        CosetError: They differ; the message names the first key that does.
    """
    found, wanted = _flat(stored), _flat(expected)
    for key in wanted:
        if found.get(key) != wanted[key]:
            raise CosetError(
                f"{path} belongs to another recipe: its {key} is {found.get(key)!r}, the recipe's is {wanted[key]!r}"
            )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, Mapping) else {f"{prefix}{key}": entry}
    return flat


class AtomicFiles(TorchCheckpointIO):
    """Writes beside the checkpoint and renames, so that a kill leaves the old one or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with replacing(Path(path)) as part, part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


class Checkpoints(Checkpoint):
    """After every epoch: the weights if they are the best so far, then everything, to resume from; then a call."""

    def __init__(self, folder: Path, monitor: str, then: Callable[[], None] | None = None):
        self.folder, self.monitor, self.then = folder, monitor, then
        self.sign = 1.0 if direction(monitor) == "min" else -1.0
        self.best = float("inf")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        score = self.sign * float(trainer.callback_metrics[f"val_{self.monitor}"])
        if score < self.best:
            self.best = score
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        trainer.save_checkpoint(self.folder / LAST)
        if self.then is not None:
            self.then()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


class Patience(EarlyStopping):
    """Early stopping that a run resumed after its stop remembers."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True
