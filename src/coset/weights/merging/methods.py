"""All ways to merge, by name, with one interface: teachers and unlabelled samples in, one network out.

All of them are pairs (M, U) of a SuperNet: a weighted average has M_i = w_i I, U_i = I; matching has M_i = P_i^T / k,
U_i = P_i; RegMean U_i = k S^-1 G_i; zipping a matching of all features of all networks with one another.

What is trained is trained once with each learning rate of a list, and what has a closed form with a setting (t of
SLERP, scale of task arithmetic, shrinkage of RegMean, ridge of heads) is made with as many; the one nearest to the
teachers on held-out samples is taken: the same budget for every method, and no labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from coset.core.errors import CosetError
from coset.weights.merging.alignment import activations
from coset.weights.merging.averages import average, slerp, task_arithmetic
from coset.weights.merging.encoders import Encoder, Inputs, count_samples, features, take
from coset.weights.merging.evaluation import HasLogits
from coset.weights.merging.fitting import Fit, Progress, Targets, fit, fit_local, reconstruction
from coset.weights.merging.heads import fitted_heads
from coset.weights.merging.matched import align_teachers, matched_average
from coset.weights.merging.regression import regmean
from coset.weights.merging.sequential import merge_in_sequence
from coset.weights.merging.supernet import Distilled, FoldedSuperNet, Student, check_output_widths
from coset.weights.merging.teachers import FeatureEnsemble, Merged, Originals, Teacher, fold_heads
from coset.weights.merging.zipping import zip_maps, zipit

CLOSED = (
    "originals", "ensemble", "average", "slerp", "task_arithmetic", "weight_matching", "activation_matching", "regmean",
    "zipit", "heads_first",
)  # fmt: skip
"""Methods without training."""
TUNED: dict[str, tuple[float, ...]] = {
    "slerp": (0.3, 0.5, 0.7), "task_arithmetic": (0.3, 0.5, 1.0), "regmean": (0.5, 0.7, 0.9),
    "heads_first": (0.01, 0.1, 1.0),
}  # fmt: skip
"""Settings that closed forms try."""
TRAINED = (
    "distill_random", "distill_first", "distill_average", "distill_aligned", "fs_diagonal", "fs_first", "fs_average",
    "fs_random", "fs_align", "fs_first_cross", "fs_align_cross", "fs_local", "fs_zip", "fs_sequential",
)  # fmt: skip
METHODS = CLOSED + TRAINED
EXACT = 1e-3
"""Largest relative difference that is allowed between the SuperNet and the network it is folded to, in float32."""


@dataclass(frozen=True)
class Setting:
    """What all methods share.

    Attributes:
        rank: Of FS-Merge.
        kind: Parametrisation of its maps, but for ``fs_diagonal``.
        width: Of the merged network; that of the first teacher if None (FS-Merge only).
        learning_rates: Tried by everything that is trained.
        cross: Weight of the other teachers' features in the methods whose name ends so.
        base: What the teachers began as, for ``task_arithmetic``.
        fit: Steps, weight decay, batches, seed.
    """

    rank: int = 4
    kind: Any = "diagonal_and_low_rank"
    width: int | None = None
    learning_rates: Sequence[float] = (1e-3, 3e-3, 1e-2)
    cross: float = 0.3
    base: Encoder | None = None
    fit: Fit = field(default_factory=Fit)


@dataclass(frozen=True)
class Outcome:
    """A merged network and what it cost.

    Attributes:
        model: With heads.
        trained: Numbers that were trained.
        seconds: CPU seconds, all learning rates together.
        learning_rate: The one taken.
        losses: Of its steps.
        held_out: Reconstruction loss on held-out samples; of closed forms and sequences, error of the heads' outputs.
        difference: Between the SuperNet as it is written and the folded network: largest, relative.
        layers: Relative error of each layer's features, ``|x U_i - f_i|^2 / |f_i|^2``, over teachers and their tasks.
    """

    model: HasLogits
    trained: int = 0
    seconds: float = 0.0
    learning_rate: float | None = None
    losses: Sequence[float] = ()
    held_out: float | None = None
    difference: float | None = None
    layers: dict[str, float] = field(default_factory=dict)


def merge(
    method: str, teachers: Sequence[Teacher], inputs: Sequence[Inputs], held_out: Sequence[Inputs],
    setting: Setting | None = None, *, progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """Merge by a method of :data:`METHODS`.

    Args:
        method: Its name.
        teachers: Networks with heads, of one architecture.
        inputs: Unlabelled samples of each task.
        held_out: Others, by which learning rates are chosen.
        setting: See :class:`Setting`.
        progress: Told after each step of training.

    Raises:
        CosetError: Unknown method, or networks that it cannot merge.
    """
    setting, started = setting or Setting(), time.process_time()
    if method in CLOSED:
        made, error = _closed(method, teachers, inputs, held_out, setting)
        return Outcome(made, seconds=time.process_time() - started, held_out=error)
    if method not in TRAINED:
        raise CosetError(f"no method {method!r}; choose from {', '.join(METHODS)}")
    if setting.width is not None and method in ("fs_sequential", "fs_zip"):
        raise CosetError(
            f"width={setting.width} is for the other methods of FS-Merge: {method} keeps the first teacher's"
        )
    if method == "fs_sequential":
        return _sequential(teachers, inputs, held_out, setting)
    start, used = _starts(method, teachers, inputs, setting)
    encoders = [t.encoder for t in used]
    cross = setting.cross if method.endswith("_cross") else 0.0
    targets, check = Targets.of(encoders, inputs, everywhere=cross > 0), Targets.of(encoders, held_out)
    best: Outcome | None = None
    for rate in setting.learning_rates:
        student = start()
        options = replace(setting.fit, learning_rate=rate, cross=cross)
        if method == "fs_local":
            assert isinstance(student, FoldedSuperNet)
            losses = fit_local(student, encoders, inputs, options)  # type: ignore[arg-type]
        else:
            losses = fit(student, targets, options, progress=progress)
        found = reconstruction(student, check)
        if best is None or best.held_out is None or found < best.held_out:
            best = _outcome(student, used, inputs, rate, losses, found)
    assert best is not None
    return replace(best, seconds=time.process_time() - started)


def _closed(
    method: str, teachers: Sequence[Teacher], inputs: Sequence[Inputs], held_out: Sequence[Inputs], setting: Setting
) -> tuple[HasLogits, float | None]:
    """The closed form at its best setting, and the error of its heads on held-out samples if settings were tried."""
    base = setting.base

    def arithmetic(scale: float) -> HasLogits:
        if base is None:
            raise CosetError("task_arithmetic needs base: the network that all began as")
        return task_arithmetic(teachers, base, scale)

    makers: dict[str, Callable[[float], HasLogits]] = {
        "originals": lambda _: Originals(teachers),
        "ensemble": lambda _: FeatureEnsemble(teachers),
        "average": lambda _: average(teachers),
        "slerp": lambda t: slerp(teachers, t),
        "task_arithmetic": arithmetic,
        "weight_matching": lambda _: matched_average(teachers),
        "activation_matching": lambda _: matched_average(teachers, inputs),
        "regmean": lambda alpha: regmean(teachers, inputs, alpha),
        "zipit": lambda _: zipit(teachers, inputs),
        "heads_first": lambda ridge: fitted_heads(teachers[0].encoder, teachers, inputs, ridge),
    }
    if method not in TUNED:
        return makers[method](0.0), None
    tried = [makers[method](value) for value in TUNED[method]]
    errors = [_error_of_heads(model, teachers, held_out) for model in tried]
    best = min(range(len(tried)), key=errors.__getitem__)
    return tried[best], errors[best]


@torch.no_grad()
def _error_of_heads(model: HasLogits, teachers: Sequence[Teacher], held_out: Sequence[Inputs]) -> float:
    """Mean squared difference of each head's outputs from its teacher's, on samples of its task."""
    total = 0.0
    for teacher, own in zip(teachers, held_out, strict=True):
        wanted = teacher.head(features(teacher.encoder, own))
        total += float((model.logits(own)[teacher.name] - wanted).square().mean())
    return total


def _starts(
    method: str, teachers: Sequence[Teacher], inputs: Sequence[Inputs], setting: Setting
) -> tuple[Callable[[], Student], Sequence[Teacher]]:
    """How a student begins, and the teachers in the order of features that it is trained on."""
    if method == "fs_zip":
        ordered, merges, unmerges = zip_maps(teachers, inputs)

        def zipped() -> Student:
            net = FoldedSuperNet([t.encoder for t in ordered], kind="full", seed=setting.fit.seed)
            net.start_from(merges, unmerges)
            return net

        return zipped, ordered
    aligned = "align" in method
    used = align_teachers(teachers, inputs) if aligned else teachers
    encoders = [t.encoder for t in used]
    if method.startswith("distill"):
        check_output_widths(encoders)
        if method == "distill_random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(setting.fit.seed)
                begin = encoders[0].resized(None)
        else:
            begin = encoders[0] if method == "distill_first" else average(used).encoder
        return lambda: Distilled(begin, [1.0] * len(used)), used
    init: Any = "average" if aligned or method == "fs_average" else "random" if method == "fs_random" else "first"
    kind: Any = "diagonal" if method == "fs_diagonal" else setting.kind
    return (
        lambda: FoldedSuperNet(
            encoders, width=setting.width, kind=kind, rank=setting.rank, init=init, seed=setting.fit.seed
        ),
        used,
    )


def _itself(teacher: Teacher) -> Teacher:
    return teacher


def _sequential(
    teachers: Sequence[Teacher], inputs: Sequence[Inputs], held_out: Sequence[Inputs], setting: Setting
) -> Outcome:
    """Two at a time; the learning rate by the squared error of the heads' outputs on held-out samples."""
    started, best = time.process_time(), None
    for rate in setting.learning_rates:
        options = replace(setting.fit, learning_rate=rate)
        made, trained = merge_in_sequence([partial(_itself, t) for t in teachers], inputs, options, rank=setting.rank)
        error = _error_of_heads(made, teachers, held_out)
        if best is None or best.held_out is None or error < best.held_out:
            best = Outcome(made, trained, 0.0, rate, held_out=error)
    assert best is not None
    return replace(best, seconds=time.process_time() - started)


def _outcome(
    student: Student, teachers: Sequence[Teacher], inputs: Sequence[Inputs], rate: float, losses: Sequence[float],
    held_out: float,
) -> Outcome:  # fmt: skip
    encoder, projections = student.finished()
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    difference, layers = None, {}
    if isinstance(student, FoldedSuperNet):
        difference = exactness(student, inputs[0])
        layers = layer_errors(student, encoder, [t.encoder for t in teachers], inputs)
    merged = Merged(encoder.eval(), fold_heads(teachers, projections))
    return Outcome(merged, trained, 0.0, rate, losses, held_out, difference, layers)


@torch.no_grad()
def exactness(net: FoldedSuperNet, inputs: Inputs, student: Student | None = None) -> float:
    """Largest difference between the SuperNet and its folded network on some samples, over the largest feature.

    Args:
        net: The SuperNet.
        inputs: Samples.
        student: What runs it folded; itself by default.

    Raises:
        CosetError: They are not the same function: a fault of the architecture's description.
    """
    some = take(inputs, slice(0, min(16, count_samples(inputs))))
    folded, written = (student or net)(some), net.explicit()(some)
    found = float((folded - written).abs().max() / written.abs().max().clamp(min=1e-12))
    if found > EXACT:
        raise CosetError(f"the folded network differs from its SuperNet by {found:.1e}: it must not")
    return found


@torch.no_grad()
def layer_errors(
    net: FoldedSuperNet, merged: Encoder, teachers: Sequence[Encoder], inputs: Sequence[Inputs]
) -> dict[str, float]:
    """Relative squared error of what each layer of the teacher whose task it is would read, by unmerge map."""
    total: dict[str, list[float]] = {}
    for i, (teacher, own) in enumerate(zip(teachers, inputs, strict=True)):
        wanted, found = activations(teacher, own, by_layer=True), activations(merged, own, by_layer=True)
        for name, target in wanted.items():
            guess = net.unmerges[name].spread(i, found[name])  # type: ignore[operator]
            error = (guess - target).square().sum() / target.square().sum().clamp(min=1e-12)
            total.setdefault(name, []).append(float(error))
    return {name: sum(values) / len(values) for name, values in total.items()}
