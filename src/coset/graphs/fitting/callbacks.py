"""What Lightning calls while it fits: checkpoints written whole, and early stopping that a resumed run remembers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from pytorch_lightning.plugins.io import TorchCheckpointIO

from coset.core.files import replacing
from coset.graphs.fitting.trainer import MatmulPrecision
from coset.runs.folder import BEST, LAST
from coset.runs.metrics import direction


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


class Settings(pl.Callback):
    """A process that Lightning spawns takes as many threads as its recipe says, and multiplies as exactly; others do
    already."""

    def __init__(self, threads: int, matmul_precision: MatmulPrecision):
        self.threads, self.matmul_precision = threads, matmul_precision

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            torch.set_num_threads(self.threads)
            torch.set_float32_matmul_precision(self.matmul_precision)


class Patience(EarlyStopping):
    """Early stopping that a run resumed after its stop remembers."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True
