r"""Training a merged network on the teachers' features, without labels.

Own-teacher loss: L = mean_x mean_j (F(x) U_t - f_t(x))_j^2, t the task that x came from. With ``cross`` > 0 the other
teachers' features are asked for as well: this helps each task when samples are few, and costs joint accuracy, since it
also teaches the other heads to be sure of themselves on inputs that are not theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler

from coset.core.errors import CosetError
from coset.core.files import replacing, takes_paths
from coset.runs.checkpoints import read_checkpoint
from coset.runs.fit import descend
from coset.weights.merging.encoders import Encoder, Inputs, MLPEncoder, count_samples, features, join, take
from coset.weights.merging.supernet import FoldedSuperNet, Student

Progress = Callable[[int, int], None]
"""Told how many steps of how many are done."""


@dataclass(frozen=True)
class Fit:
    """How to train.

    Attributes:
        steps: Of AdamW.
        learning_rate: The largest of a one-cycle schedule (30% warm-up, linear).
        weight_decay: Of AdamW.
        batch_size: Samples of all tasks together; None for all of them.
        cross: Weight of the other teachers' features.
        seed: Of the batches.
    """

    steps: int = 300
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    batch_size: int | None = None
    cross: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Targets:
    """Samples of every task with the teachers' features of them.

    Attributes:
        inputs: One batch a task.
        wanted: ``wanted[t][i]``: features of teacher i on the samples of task t; None where they are not asked for.
    """

    inputs: Sequence[Inputs]
    wanted: Sequence[Sequence[Tensor | None]]
    sizes: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, teachers: Sequence[Encoder], inputs: Sequence[Inputs], *, everywhere: bool = False) -> Targets:
        """Features of each teacher on its own task; ``everywhere``, on all of them.

        Raises:
            CosetError: There are not as many batches as teachers, too few samples, or features that are not finite.
        """
        if len(teachers) != len(inputs):
            raise CosetError(f"{len(teachers)} teachers need as many sets of samples, not {len(inputs)}")
        return cls.gathered([features_of(i, f, inputs, everywhere=everywhere) for i, f in enumerate(teachers)], inputs)

    @classmethod
    def gathered(cls, columns: Sequence[Sequence[Tensor | None]], inputs: Sequence[Inputs]) -> Targets:
        """The same of features that were made teacher by teacher, :func:`features_of`."""
        return cls(tuple(inputs), tuple(zip(*columns, strict=True)), tuple(map(count_samples, inputs)))


def features_of(
    i: int, teacher: Encoder, inputs: Sequence[Inputs], *, everywhere: bool = False
) -> list[Float[Tensor, "samples d_i"] | None]:
    """Features of teacher i on the samples of its own task; ``everywhere``, of all tasks.

    Raises:
        CosetError: A task has too few samples, or features are not finite.
    """
    found: list[Tensor | None] = []
    for t, batch in enumerate(inputs):
        if count_samples(batch) < 2:
            raise CosetError(f"task {t + 1} has {count_samples(batch)} samples: give at least 2")
        made = features(teacher, batch) if everywhere or i == t else None
        if made is not None and not bool(made.isfinite().all()):
            raise CosetError(f"teacher {i + 1} gives features that are not finite on the samples of task {t + 1}")
        found.append(made)
    return found


def own_loss(
    student: Student, merged: Sequence[Float[Tensor, "_samples width"]], wanted: Sequence[Sequence[Tensor | None]],
    cross: float = 0.0,
) -> Float[Tensor, ""]:  # fmt: skip
    """The loss of the samples of each task, averaged over all samples."""
    own, other, samples = merged[0].new_zeros(()), merged[0].new_zeros(()), sum(map(len, merged))
    for t, found in enumerate(merged):
        for i, target in enumerate(wanted[t]):
            if target is None or not len(found) or (i != t and not cross):
                continue
            error = F.mse_loss(student.project(i, found), target) * (len(found) / samples)
            own, other = (own + error, other) if i == t else (own, other + error / max(1, len(wanted) - 1))
    return own + cross * other


@takes_paths
def fit(
    student: Student, targets: Targets, options: Fit, *, progress: Progress | None = None, state: Path | None = None,
    save_every: int = 50,
) -> list[float]:  # fmt: skip
    """Train; returns the loss of every step.

    Args:
        student: In place.
        targets: What it should give.
        options: How.
        progress: Told after each step.
        state: File in which training is kept every ``save_every`` steps; if it is there, training goes on from it.

    Raises:
        CosetError: The loss is not finite.
    """
    optimizer, schedule = _one_cycle([p for p in student.parameters() if p.requires_grad], options)
    generator = torch.Generator().manual_seed(options.seed)
    training = _Training(student, optimizer, schedule, generator)
    batches, losses = _Batches(student, targets, options, generator), training.losses
    student.train()

    def after(loss: float) -> None:
        losses.append(loss)
        if progress is not None:
            progress(len(losses), options.steps)
        if state is not None and len(losses) % save_every == 0:
            training.keep(state)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)  # dropout
        if state is not None and state.is_file():
            training.restore(state)
        done = len(losses)
        descend(optimizer, batches.loss, range(done, options.steps), schedule=schedule, after=after, first=done)
    student.eval()
    return losses


@dataclass
class _Training:
    """What training can go on from."""

    student: Student
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    generator: torch.Generator
    losses: list[float] = field(default_factory=list)

    def keep(self, path: Path) -> None:
        kept = {
            "student": self.student.state_dict(), "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(), "generator": self.generator.get_state(), "losses": self.losses,
            "random": torch.get_rng_state(),
        }  # fmt: skip
        with replacing(path) as part:
            torch.save(kept, part)

    def restore(self, path: Path) -> None:
        kept = read_checkpoint(path)
        self.student.load_state_dict(kept["student"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.schedule.load_state_dict(kept["schedule"])
        self.generator.set_state(kept["generator"])
        self.losses[:] = kept["losses"]
        torch.set_rng_state(kept["random"])


class _Batches:
    """Samples of all tasks, some of them a step."""

    def __init__(self, student: Student, targets: Targets, options: Fit, generator: torch.Generator):
        self.student, self.targets, self.options, self.generator = student, targets, options, generator
        self.everything = join(targets.inputs)
        self.task = torch.repeat_interleave(torch.arange(len(targets.sizes)), torch.tensor(targets.sizes))
        self.place = torch.cat([torch.arange(n) for n in targets.sizes])

    def loss(self, _: int) -> Float[Tensor, ""]:
        """Of a new batch."""
        task, size = self.task, self.options.batch_size
        rows = torch.arange(len(task))
        if size is not None and size < len(task):
            rows = torch.randperm(len(task), generator=self.generator)[:size]
            rows = rows[task[rows].argsort(stable=True)]
        sizes = torch.bincount(task[rows], minlength=len(self.targets.sizes)).tolist()
        merged = self.student(take(self.everything, rows)).split(sizes)
        places = self.place[rows].split(sizes)
        wanted = [[None if w is None else w[places[t]] for w in row] for t, row in enumerate(self.targets.wanted)]
        return own_loss(self.student, merged, wanted, self.options.cross)


def _one_cycle(parameters: Iterable[nn.Parameter], options: Fit) -> tuple[torch.optim.Optimizer, LRScheduler]:
    optimizer = torch.optim.AdamW(
        parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
    )  # fmt: skip
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=max(options.steps, 2), anneal_strategy="linear"
    )


@torch.no_grad()
def reconstruction(student: Student, targets: Targets) -> float:
    """The own-teacher loss on samples that were held out: what learning rates and ranks are chosen by."""
    student.eval()
    merged = [student(inputs) for inputs in targets.inputs]
    return float(own_loss(student, merged, targets.wanted))


def fit_local(
    net: FoldedSuperNet, teachers: Sequence[MLPEncoder], inputs: Sequence[Inputs], options: Fit
) -> list[float]:
    r"""Local mode: each layer by itself, from the teachers' true features to the teachers' true features.

    min_{M_l, U_l} E || sigma(concat_i(f_{i,l-1} W_i^T + b_i) M_l) U_l - concat_i f_{i,l} ||^2, all teachers on all
    samples. Errors of a layer are not compensated by later ones.

    Returns:
        The last loss of each layer.
    """
    if not all(isinstance(teacher, MLPEncoder) for teacher in teachers):
        raise CosetError("mode=local is for MLPs; transformers are merged with mode=global")
    everything, slots = join(inputs), net.wiring.slots
    below: list[Tensor] = [everything] * len(teachers)  # type: ignore[list-item]
    last = []
    for n, slot in enumerate(slots):
        activation = _after(teachers[0], n)
        weights, biases = [net.source(slot, i) for i in range(net.teachers)], net.biases(slot)
        with torch.no_grad():
            before = [F.linear(x, w, b) for x, w, b in zip(below, weights, biases, strict=True)]
            after = [activation(z) for z in before]
        merge = net.merges[slot.merge]
        unmerge = net.unmerges[slots[n + 1].unmerge if n + 1 < len(slots) else "output"]  # type: ignore[index]
        layer = _LocalLayer(merge, unmerge, activation)
        optimizer, schedule = _one_cycle(layer.parameters(), options)
        error = partial(_error, layer, before, torch.cat(after, -1))
        last.append(descend(optimizer, error, range(options.steps), schedule=schedule)[-1])
        below = after
    return last


def _error(layer: nn.Module, before: Sequence[Tensor], wanted: Tensor, _: int) -> Float[Tensor, ""]:
    return F.mse_loss(layer(before), wanted)


class _LocalLayer(nn.Module):
    def __init__(self, merge: nn.Module, unmerge: nn.Module, activation: nn.Module):
        super().__init__()
        self.merge, self.unmerge, self.activation = merge, unmerge, activation

    def forward(self, before: Sequence[Tensor]) -> Tensor:
        merged = self.activation(sum(self.merge.gather(i, z) for i, z in enumerate(before)))  # type: ignore[operator]
        return torch.cat([self.unmerge.spread(i, merged) for i in range(len(before))], -1)  # type: ignore[operator]


def _after(encoder: MLPEncoder, n: int) -> nn.Module:
    """Everything between the n-th Linear layer and the next."""
    modules = list(encoder.layers)
    places = [p for p, module in enumerate(modules) if isinstance(module, nn.Linear)]
    end = places[n + 1] if n + 1 < len(places) else len(modules)
    return nn.Sequential(*modules[places[n] + 1 : end])
