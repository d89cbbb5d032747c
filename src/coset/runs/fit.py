"""The one training loop: epochs of steps, a rate that follows a schedule, the best epoch, and a state to go on from.

What happens in an epoch follows from the seed and the number of the epoch alone, so that a run that was stopped and
goes on ends as an undisturbed one. Networks on graphs train in the same way under Lightning, which adds devices and
processes (:mod:`coset.graphs.fitting.engine`). Where there are no epochs, :func:`descend` is the loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import replacing
from coset.runs.checkpoints import read_checkpoint
from coset.runs.metrics import Direction
from coset.runs.seeds import seed_everything

Row = dict[str, float]
T = TypeVar("T")


@dataclass
class Loop:
    """What is trained, and how.

    Attributes:
        network: Whose parameters are trained; it is left with those of the best epoch, or of the last without
            ``monitor``.
        optimiser: Of its parameters, with the base learning rate.
        loss: Of a batch.
        batches: Of an epoch; they must follow from its number.
        epochs: The most there will be.
        seed: Of all randomness in an epoch.
        factor: By what the base rate is multiplied, from the epoch and the monitored values before.
        clip: Largest norm of the gradient.
        judge: Measured after each epoch.
        monitor: Which of these chooses the best epoch.
        better: Which way it is better.
        early_stopping: Epochs without a better value after which to stop.
        max_minutes: After which to stop; the best epoch so far counts.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    loss: Callable[[Any], Tensor]
    batches: Callable[[int], Iterable[Any]]
    epochs: int
    seed: int = 0
    factor: Callable[[int, Sequence[float]], float] | None = None
    clip: float | None = None
    judge: Callable[[], Mapping[str, float]] | None = None
    monitor: str | None = None
    better: Direction = "min"
    early_stopping: int | None = None
    max_minutes: float | None = None


def fit(
    loop: Loop,
    state: Path | None = None,
    after: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Train; returns a row an epoch: ``epoch``, ``train_loss``, what was measured, ``lr``.

    Args:
        loop: What is trained, and how.
        state: File from which training goes on if it is there, and to which it is saved after each epoch.
        after: Called with the row of each epoch once its state is saved.

    Raises:
        CosetError: The loss is no finite number, or the state is damaged.
    """
    best: dict[str, Any] = {"value": math.inf, "epoch": -1, "network": None}
    rows: list[Row] = []
    rates = [group["lr"] for group in loop.optimiser.param_groups]
    end = math.inf if loop.max_minutes is None else time.monotonic() + 60 * loop.max_minutes
    if state is not None and state.is_file():
        saved = read_checkpoint(state)
        loop.network.load_state_dict(saved["network"])
        loop.optimiser.load_state_dict(saved["optimiser"])
        best, rows, rates = saved["best"], saved["rows"], saved["rates"]
    for epoch in range(len(rows), loop.epochs):
        waited = epoch - 1 - best["epoch"]
        if rows and (waited >= (loop.early_stopping or math.inf) or time.monotonic() > end):
            break
        row = _epoch(loop, epoch, rows, rates)
        rows.append(row)
        if loop.monitor is not None:
            value = row[loop.monitor] if loop.better == "min" else -row[loop.monitor]
            if value < best["value"]:
                copy = {name: tensor.detach().clone() for name, tensor in loop.network.state_dict().items()}
                best = {"value": value, "epoch": epoch, "network": copy}
        if state is not None:
            kept = {"network": loop.network.state_dict(), "optimiser": loop.optimiser.state_dict()}
            with replacing(state) as part:
                torch.save({**kept, "best": best, "rows": rows, "rates": rates}, part)
        if after is not None:
            after(row)
    if best["network"] is not None:
        loop.network.load_state_dict(best["network"])
    return rows


def descend(
    optimiser: torch.optim.Optimizer,
    loss: Callable[[T], Tensor],
    steps: Iterable[T],
    *,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    after: Callable[[float], None] | None = None,
    clip: float | None = None,
    first: int = 0,
) -> list[float]:
    """The loop without epochs: one update of the parameters a step; returns the losses.

    Args:
        optimiser: Of the parameters.
        loss: Of a step.
        steps: What the loss is of: rows of a batch, numbers, ...; each is asked for when its turn has come.
        schedule: Of the rate, taken further after each step.
        after: Called with the loss after each step.
        clip: Largest norm of the gradient.
        first: How many steps there were before, of training that goes on.

    Raises:
        CosetError: A loss is no finite number.
    """
    losses = []
    for number, step in enumerate(steps, start=first + 1):
        value = loss(step)
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise CosetError(f"training diverged in step {number}: the loss is {losses[-1]}; lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_((p for group in optimiser.param_groups for p in group["params"]), clip)
        optimiser.step()
        if schedule is not None:
            schedule.step()
        if after is not None:
            after(losses[-1])
    return losses


def best_epoch(rows: Sequence[Row], monitor: str, better: Direction) -> int:
    """The first epoch with the best value."""
    values = [row[monitor] if better == "min" else -row[monitor] for row in rows]
    return int(rows[values.index(min(values))]["epoch"])


def _epoch(loop: Loop, epoch: int, rows: Sequence[Row], rates: Sequence[float]) -> Row:
    watched = [] if loop.monitor is None else [row[loop.monitor] for row in rows]
    factor = 1.0 if loop.factor is None else loop.factor(epoch, watched)
    for group, rate in zip(loop.optimiser.param_groups, rates, strict=True):
        group["lr"] = rate * factor
    losses = []
    loop.network.train()
    for number, batch in enumerate(loop.batches(epoch)):
        seed_everything(loop.seed, epoch, number)
        loop.optimiser.zero_grad(set_to_none=True)
        loss = loop.loss(batch)
        if not torch.isfinite(loss):
            raise CosetError(
                f"training diverged in epoch {epoch}: the loss is {float(loss.detach())}; lower the learning rate or "
                "set a largest norm of the gradient"
            )
        loss.backward()
        if loop.clip is not None:
            nn.utils.clip_grad_norm_(loop.network.parameters(), loop.clip)
        loop.optimiser.step()
        losses.append(float(loss.detach()))
    measured = {} if loop.judge is None else dict(loop.judge())
    mean = sum(losses) / max(1, len(losses))
    return {"epoch": epoch, "train_loss": mean, **measured, "lr": loop.optimiser.param_groups[0]["lr"]}
