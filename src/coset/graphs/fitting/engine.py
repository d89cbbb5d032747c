"""Fit a task with Lightning, keep the best epoch, predict with it."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.multiprocessing import ProcessRaisedException
from torch_geometric.data import Batch, Data

from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.core.outside import read_numbers
from coset.graphs.data.graph_table import counted
from coset.graphs.fitting.callbacks import AtomicFiles, Checkpoints, Patience, Settings
from coset.graphs.fitting.loaders import (
    FIRST_VOTE,
    EpochBatches,
    OrderedBatches,
    View,
    loader,
    node_counts,
    targets_of,
    views,
)
from coset.graphs.fitting.loggers import make_logger
from coset.graphs.fitting.matmul import matmul_precision
from coset.graphs.fitting.neighbourhoods import NodeBatches
from coset.graphs.fitting.tasks import GraphTask
from coset.graphs.fitting.trainer import MatmulPrecision
from coset.runs.checkpoints import read_checkpoint
from coset.runs.folder import BEST, HISTORY, LAST
from coset.runs.launch import processes
from coset.runs.metrics import direction, metrics_of
from coset.runs.terminal import bars

EVALUATED = 8192  # nodes whose whole neighbourhoods are looked at together


@dataclass
class Fit:
    """How to fit.

    Attributes:
        epochs: The most there will be.
        batch_size: Graphs a step, those of all processes together.
        gradient_clip: Largest norm of the gradient.
        early_stopping: Epochs without a better validation metric after which to stop.
        max_minutes: Stop training then; the best epoch so far counts.
        workers: Processes that load batches; 0 loads them in the training process.
        seed: Order of the graphs, dropout and sampled roots follow from it and the epoch.
        trainer: Passed to Lightning's ``Trainer``, e.g. ``devices``.
        threads: Of PyTorch's operations in processes that Lightning starts.
        matmul_precision: Of products of float32 matrices while training.
        logger: Of :mod:`coset.graphs.fitting.loggers`.
        name: What the run is called there.
        quiet: No progress bar.
        identity: Stored in every checkpoint: what it was made with.
        on_epoch: Called with the row of ``history.csv`` after each epoch, once its checkpoint is saved.
    """

    epochs: int = 100
    batch_size: int = 32
    gradient_clip: float | None = None
    early_stopping: int | None = None
    max_minutes: float | None = None
    workers: int = 0
    seed: int = 0
    trainer: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    matmul_precision: MatmulPrecision = "highest"
    logger: str | None = None
    name: str = ""
    quiet: bool = False
    identity: dict[str, Any] = field(default_factory=dict)
    on_epoch: Callable[[Mapping[str, float]], None] | None = None


def fit(
    task: GraphTask,
    train: Sequence[Data] | NodeBatches,
    val: Sequence[Data] | NodeBatches,
    how: Fit,
    folder: Path,
    *,
    view: View | None = None,
    resume: bool = False,
) -> int:
    """Train, and leave the weights of the best validation epoch in ``task``; returns that epoch.

    ``folder`` gets ``history.csv``, ``checkpoint.ckpt`` (best) and ``last.ckpt`` (to resume from).

    Raises:
        CosetError: Too few graphs, a validation set that the metric cannot judge, or training diverged.
    """
    _check(task, train, val, how)
    start = int(read_checkpoint(folder / LAST)["epoch"]) + 1 if resume else 0
    task.identity = how.identity
    # Lightning opens the first epoch's batches before it says which epoch it is: hence ``start``.
    costs = [float(count) ** 2 for count in node_counts(train)]  # models on pairs of nodes; others mind little
    batches = EpochBatches(len(train), how.batch_size, how.seed, start, costs, getattr(train, "blocks", None))
    at_once = max(how.batch_size, EVALUATED) if isinstance(val, NodeBatches) else how.batch_size
    with _without_chatter(), matmul_precision(how.matmul_precision):
        trainer = _trainer(task, how, folder, start)
        structure = task.structure_for(trainer.strategy.root_device)
        loaders = (
            loader(views(train, view, how.seed), batches, how.workers, structure),
            loader(views(val, view, how.seed), OrderedBatches(len(val), at_once), structure=structure),
        )
        try:
            trainer.fit(task, *loaders, ckpt_path=folder / LAST if resume else None, weights_only=True)
        except (ProcessRaisedException, ValueError) as error:
            raise _in_one_line(error) from error
    if torch.distributed.is_initialized():  # by torchrun or Ray: what follows is done by one process
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    state = read_checkpoint(folder / BEST)
    _check_best(folder, task.monitor, int(state["epoch"]))
    task.load_state_dict(state["state_dict"])
    return int(state["epoch"])


def _check_best(folder: Path, monitor: str, epoch: int) -> None:
    """Hold the checkpoint against the history: whoever wrote one of them alone would make metrics lie.

    Raises:
        CosetError: They name different epochs as the best.
    """
    history = read_numbers(folder / HISTORY)
    values = history[f"val_{monitor}"] * (1 if direction(monitor) == "min" else -1)
    best = int(history["epoch"].iloc[int(values.argmin())])
    if best != epoch:
        raise CosetError(
            f"{folder / BEST} is of epoch {epoch}, but {HISTORY} has its best validation in epoch {best}: something "
            "else wrote into the folder; run again with --restart"
        )


@torch.inference_mode()
def predict_with_spread(
    task: GraphTask,
    graphs: Sequence[Data] | NodeBatches,
    *,
    batch_size: int = 64,
    view: View | None = None,
    votes: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Float[Tensor, "rows columns"], Float[Tensor, "rows columns"] | None]:
    """Predictions in evaluation mode, with a random view the mean over ``votes`` draws of it; and the deviation between
    draws of the view and of the network's own noise, where there are several."""
    task.eval()
    shown_views, votes = views(graphs, view, seed), votes if view is not None else 1
    batch_size = EVALUATED if isinstance(graphs, NodeBatches) else batch_size
    total, drawn = torch.zeros(1, task.columns, dtype=torch.float64), list[Tensor]()
    with bars(quiet=not progress) as bar:
        shown = bar.add_task("predicting", total=votes * len(graphs))
        for vote in range(votes):
            parts, each = [torch.empty(0, task.columns, dtype=torch.float64)], list[Tensor]()
            order = OrderedBatches(len(graphs), batch_size, FIRST_VOTE + vote)
            for batch in loader(shown_views, order, structure=task.structure_for(task.device)):
                found, own = task.with_draws(batch.to(task.device))
                parts.append(found.cpu().double())
                each.append(own.cpu().double())
                bar.advance(shown, len(batch.seed_index) if "seed_index" in batch else batch.num_graphs)
            total = total + torch.cat(parts)
            drawn += [torch.cat(each, 1)] if each else []
    draws = torch.cat(drawn) if drawn else total.new_empty(0)
    spread = draws.std(0).to(task.mean.dtype) if len(draws) > 1 else None
    return (total / votes).to(task.mean.dtype), spread


def first_batch(graphs: Sequence[Data], size: int = 8) -> Batch:
    """The first few graphs, to look at a model with."""
    return Batch.from_data_list(list(graphs[:size]))


CLOCKS = {"seconds": time.monotonic, "cpu_seconds": time.process_time}


class History(pl.Callback):
    """One row an epoch: losses, validation metrics, learning rate, seconds of the clock and of this process's
    processors; rewritten whole after each."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.started = dict.fromkeys(CLOCKS, 0.0)
        self.before = dict(self.started)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch and self.path.exists():  # a row may be ahead of the checkpoint that was resumed
            rows = read_numbers(self.path).to_dict("records")
            self.rows = [row for row in rows if row["epoch"] < trainer.current_epoch]  # type: ignore[misc]
        self.started = {name: clock() for name, clock in CLOCKS.items()}
        self.before = {name: self.rows[-1].get(name, 0.0) if self.rows else 0.0 for name in CLOCKS}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, GraphTask)
        loss = trainer.strategy.reduce(torch.stack(pl_module.losses).mean(), reduce_op="mean")
        row = {"epoch": trainer.current_epoch, "train_loss": float(loss)}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        row |= {name: round(self.before[name] + clock() - self.started[name], 3) for name, clock in CLOCKS.items()}
        self.rows.append(row)
        if trainer.is_global_zero:
            write_text(self.path, pd.DataFrame(self.rows).to_csv(index=False))


def _trainer(task: GraphTask, how: Fit, folder: Path, start: int) -> pl.Trainer:
    history = History(folder / HISTORY)
    told = how.on_epoch
    then = None if told is None else (lambda: told(history.rows[-1]))
    settings = Settings(how.threads, how.matmul_precision)
    callbacks: list[pl.Callback] = [settings, history, Checkpoints(folder, task.monitor, then)]
    if how.early_stopping:
        mode = direction(task.monitor)
        callbacks.append(Patience(f"val_{task.monitor}", patience=how.early_stopping, mode=mode))
    options = {"accelerator": "auto" if torch.cuda.is_available() else "cpu", "devices": 1, **how.trainer}
    plugins: list[Any] = [AtomicFiles()]
    if processes.on_ray():
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

        options |= {"devices": "auto", "strategy": RayDDPStrategy()}
        plugins.append(RayLightningEnvironment())
    elif (world := processes.world()) is not None:
        options |= {"devices": world.on_this_machine, "num_nodes": world.machines, "strategy": "ddp"}
    if "strategy" not in options and options["devices"] != 1:
        options["strategy"] = "ddp_spawn"  # plain ddp would run the whole command once more for each process
    return pl.Trainer(
        **options,
        max_epochs=how.epochs,
        max_time=None if how.max_minutes is None else timedelta(minutes=how.max_minutes),
        gradient_clip_val=how.gradient_clip,
        callbacks=callbacks,
        plugins=plugins,
        default_root_dir=folder,
        use_distributed_sampler=False,  # the batches share themselves out
        logger=make_logger(how.logger, folder, how.name, how.identity.get("recipe", {}), start),
        log_every_n_steps=1,
        enable_progress_bar=not how.quiet,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _check(task: GraphTask, train: Sequence[Data] | NodeBatches, val: Sequence[Data] | NodeBatches, how: Fit) -> None:
    if len(targets_of(train)) < 2:
        raise CosetError(f"{len(train)} graph{'s' * (len(train) != 1)} to train on: at least 2 are needed")
    devices = how.trainer.get("devices", 1)
    smallest = len(train) // -(-len(train) // how.batch_size)
    if isinstance(devices, int) and smallest < devices:
        raise CosetError(
            f"trainer.devices={devices} cannot share batches of {smallest}: raise training.batch_size, "
            f"or give more than the {counted(len(train), 'graph')} to train on"
        )
    target = targets_of(val)
    ideal = target if task.task != "multiclass" else _certain(target, task.columns)
    if task.monitor not in metrics_of(task.task, ideal, target):
        needed = "both labels, 0 and 1," if task.task in ("classification", "link") else "two different values"
        raise CosetError(
            f"training.monitor={task.monitor} cannot choose the best epoch: it needs {needed} in val "
            f"({counted(len(val), 'graph')}); choose another metric or another split"
        )


def _certain(target: Tensor, classes: int) -> Tensor:
    """Probabilities of classes that are all right."""
    return torch.nn.functional.one_hot(target.nan_to_num().long().squeeze(1), classes).double()


def _in_one_line(error: Exception) -> Exception:
    """What went wrong in another process, without its traceback; and what batch normalisation means."""
    *_, last = str(error).strip().splitlines()
    if "Expected more than 1 value per channel" in last:
        return CosetError("a process got a single node to take batch statistics of; raise training.batch_size")
    if isinstance(error, ProcessRaisedException):
        _, found, message = last.partition("CosetError: ")
        return CosetError(message) if found else RuntimeError(last)
    return error


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Lightning's notes on hardware, and its advice on loaders and loggers that here is settled, are left out."""
    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
        warnings.filterwarnings("ignore", message=r".*(num_workers|LeafSpec|sampler).*")
        for name in names:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
