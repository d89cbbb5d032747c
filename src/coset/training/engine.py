"""Fit a task with Lightning, keep the best epoch, predict with it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from coset.training.run_directory import write_text
from coset.training.tasks import MONITOR, GraphTask


class EpochSampler(Sampler[int]):
    """A new order every epoch that depends only on seed and epoch, so that a resumed run sees the same batches."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())


class Views(torch.utils.data.Dataset):
    """Graphs with a random transform (sampled roots) applied afresh at each access."""

    def __init__(self, graphs: Sequence[Data], view: Any | None):
        self.graphs, self.view = graphs, view

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, row: int) -> Data:
        graph = self.graphs[row]
        return graph if self.view is None else self.view(graph.clone())


class History(pl.Callback):
    """One row an epoch: losses, validation metrics, learning rate, seconds; rewritten whole after each."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, float]] = pd.read_csv(path).to_dict("records") if path.exists() else []  # type: ignore[assignment]
        self.started = time.monotonic()
        self.before = self.rows[-1]["seconds"] if self.rows else 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        seconds = self.before + time.monotonic() - self.started
        assert isinstance(pl_module, GraphTask)
        losses = pl_module.losses
        row = {"epoch": trainer.current_epoch, "train_loss": float(torch.stack(losses).mean()), "lr": rate}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
        row["seconds"] = round(seconds, 3)
        self.rows = [old for old in self.rows if old["epoch"] < trainer.current_epoch] + [row]
        if trainer.is_global_zero:
            write_text(self.path, pd.DataFrame(self.rows).to_csv(index=False))


@dataclass
class Fit:
    """How to fit: what of a recipe the engine needs."""

    epochs: int = 100
    batch_size: int = 32
    gradient_clip: float | None = None
    early_stopping: int | None = None
    max_minutes: float | None = None
    trainer: dict[str, Any] = field(default_factory=dict)


def fit(
    task: GraphTask,
    train: Sequence[Data],
    val: Sequence[Data],
    how: Fit,
    folder: Path,
    *,
    view: Any | None = None,
    seed: int = 0,
    resume: bool = False,
    quiet: bool = False,
) -> int:
    """Train, and leave the weights of the best validation epoch in ``task``; returns that epoch.

    ``folder`` gets ``history.csv``, ``checkpoint.ckpt`` (best) and ``last.ckpt`` (to resume from).
    """
    drop_last = len(train) % how.batch_size == 1 and len(train) > 1  # batch statistics of one graph say nothing
    loader = DataLoader(Views(train, view), how.batch_size, sampler=EpochSampler(len(train), seed), drop_last=drop_last)
    val_loader = DataLoader(Views(val, view), how.batch_size)
    monitor, mode = f"val_{task.monitor}", MONITOR[task.monitor]
    best = ModelCheckpoint(folder, "checkpoint", monitor=monitor, mode=mode, enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", enable_version_counter=False)
    callbacks: list[pl.Callback] = [History(folder / "history.csv"), best, last]
    if how.early_stopping:
        callbacks.append(EarlyStopping(monitor, patience=how.early_stopping, mode=mode))
    trainer = pl.Trainer(
        accelerator="cpu" if not torch.cuda.is_available() else "auto",
        **{"devices": 1, **how.trainer},
        max_epochs=how.epochs,
        max_time=None if how.max_minutes is None else {"seconds": int(how.max_minutes * 60)},
        gradient_clip_val=how.gradient_clip,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    trainer.fit(task, loader, val_loader, ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    state = torch.load(folder / "checkpoint.ckpt", map_location="cpu", weights_only=True)
    task.load_state_dict(state["state_dict"])
    return int(state["epoch"])


@torch.inference_mode()
def predict(
    task: GraphTask, graphs: Sequence[Data], batch_size: int = 64, view: Any | None = None, votes: int = 1
) -> Tensor:
    """Predictions ``[graphs, targets]`` in evaluation mode; with a random view the mean over ``votes`` draws."""
    task.eval()
    draws = [
        torch.cat([task(batch) for batch in DataLoader(Views(graphs, view), batch_size)])
        for _ in range(votes if view is not None else 1)
    ]
    return torch.stack(draws).mean(0)


def first_batch(graphs: Sequence[Data], size: int = 8) -> Batch:
    return Batch.from_data_list(list(graphs[:size]))
