"""Methods that are trained on the teachers' features: FS-Merge, and distillation into one network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from coset.core.errors import CosetError
from coset.weights.merging.alignment import activations
from coset.weights.merging.averages import average
from coset.weights.merging.encoders import Encoder, Inputs, count_samples, take
from coset.weights.merging.fitting import Fit, Targets, fit, fit_local, reconstruction
from coset.weights.merging.matched import align_teachers
from coset.weights.merging.methods import (
    MERGE_METHODS,
    Begin,
    Material,
    MergeMethod,
    Outcome,
    Output,
    Setting,
    error_of_heads,
    tuned,
)
from coset.weights.merging.operators import Start
from coset.weights.merging.sequential import merge_in_sequence
from coset.weights.merging.supernet import Distilled, DistilledApart, FoldedSuperNet, Student, check_output_widths
from coset.weights.merging.teachers import Merged, Teacher, fold_heads
from coset.weights.merging.zipping import zip_maps

Init = Literal["first", "average", "align", "random"]
"""Where a student begins; ``align`` is the average of teachers whose features are in the order of the first's."""
SETTINGS = frozenset(
    ("init", "output", "steps", "learning_rate", "weight_decay", "batch_size", "cross", "augmentation")
)
"""Of a merge file, those that all that is trained looks at."""
OF_SUPERNET = frozenset(("rank", "kind", "width", "low_memory"))
EXACT = 1e-3
"""Largest relative difference that is allowed between the SuperNet and the network it is folded to, in float32."""


def aligned(teachers: Sequence[Teacher], inputs: Sequence[Inputs], init: Init) -> tuple[Sequence[Teacher], Start]:
    """The teachers in the order of features that a student is trained on, and where it begins."""
    return (align_teachers(teachers, inputs), "average") if init == "align" else (teachers, init)


def supernet(teachers: Sequence[Teacher], setting: Setting, init: Start) -> FoldedSuperNet:
    """FS-Merge: the SuperNet of the teachers, run as the network it folds to."""
    net = FoldedSuperNet(
        [t.encoder for t in teachers], width=setting.width, kind=setting.kind, rank=setting.rank, init=init,
        seed=setting.fit.seed,
    )  # fmt: skip
    if setting.output == "tied":
        net.tie_output()
    return net


def distilled(teachers: Sequence[Teacher], setting: Setting, init: Start) -> Distilled:
    """Distillation: an ordinary network, asked for the features of all teachers; with a free output, by maps of them.

    Raises:
        CosetError: Teachers have features of other widths, and no maps to lead to them.
    """
    first = teachers[0].encoder
    if setting.output != "free":
        check_output_widths([t.encoder for t in teachers])
    if init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.fit.seed)
            first = first.resized(None)
    elif init == "average":
        first = average(teachers).encoder
    if setting.output == "free":
        wirings = [t.encoder.wiring() for t in teachers]
        return DistilledApart(first, [w.widths[w.output] for w in wirings])
    return Distilled(first, [1.0] * len(teachers))


class Trained(MergeMethod):
    """A student trained to give the teachers' features.

    Args:
        begin: Makes it.
        init: Where it begins.
        kind: Parametrisation of FS-Merge's maps, if not that of the setting.
        cross: Whether it is asked for the features of all teachers on all samples, too.
        local: Whether layers are trained one by one (MLPs).
        output: Whether it has maps to the teachers' features of their own, if not as the setting says.
        files: Whether ``coset merge`` knows it.
    """

    begin: Begin

    def __init__(
        self, begin: Begin, init: Init, *, kind: str | None = None, cross: bool = False, local: bool = False,
        output: Output | None = None, files: bool = False,
    ):  # fmt: skip
        self.begin, self.init, self.kind, self.cross, self.local, self.files = begin, init, kind, cross, local, files
        self.output = output
        self.any_width = begin is supernet
        self.settings = SETTINGS | (OF_SUPERNET if begin is supernet else frozenset())

    def starts(
        self, teachers: Sequence[Teacher], inputs: Sequence[Inputs], setting: Setting
    ) -> tuple[Callable[[], Student], Sequence[Teacher]]:
        """How a student begins, and the teachers in the order of features that it is trained on."""
        used, init = aligned(teachers, inputs, self.init)
        setting = setting if self.kind is None else replace(setting, kind=self.kind)
        setting = setting if self.output is None else replace(setting, output=self.output)
        return partial(self.begin, used, setting, init), used

    def merge(self, material: Material) -> Outcome:
        setting = material.setting
        start, used = self.starts(material.teachers, material.inputs, setting)
        encoders, cross = [t.encoder for t in used], setting.cross if self.cross else 0.0
        targets = Targets.of(encoders, material.inputs, everywhere=cross > 0)
        held_out = Targets.of(encoders, material.held_out)

        def made_with(options: Fit) -> Outcome:
            student = start()
            if self.local:
                losses = fit_local(student, encoders, material.inputs, options)  # type: ignore[arg-type]
            else:
                losses = fit(student, targets, replace(options, cross=cross), progress=material.progress)
            error = reconstruction(student, held_out)
            return _outcome(student, used, material.inputs, options.learning_rate, losses, error)

        return tuned(setting, made_with)


class Zipped(Trained):
    """FS-Merge that begins as the zipped network."""

    def __init__(self) -> None:
        super().__init__(supernet, "first")
        self.any_width = False

    def starts(
        self, teachers: Sequence[Teacher], inputs: Sequence[Inputs], setting: Setting
    ) -> tuple[Callable[[], Student], Sequence[Teacher]]:
        _check_plain("fs_zip", setting)
        ordered, merges, unmerges = zip_maps(teachers, inputs)

        def zipped() -> Student:
            net = FoldedSuperNet([t.encoder for t in ordered], kind="full", seed=setting.fit.seed)
            net.start_from(merges, unmerges)
            return net

        return zipped, ordered


class InSequence(MergeMethod):
    """FS-Merge of two at a time; the learning rate by the squared error of the heads' outputs on held-out samples."""

    def merge(self, material: Material) -> Outcome:
        _check_plain("fs_sequential", material.setting)
        loaders = [partial(_itself, t) for t in material.teachers]

        def made_with(options: Fit) -> Outcome:
            made, trained = merge_in_sequence(loaders, material.inputs, options, rank=material.setting.rank)
            error = error_of_heads(made, material.teachers, material.held_out)
            return Outcome(made, trained, 0.0, options.learning_rate, held_out=error)

        return tuned(material.setting, made_with)


for _name, _method in {
    "distill_random": Trained(distilled, "random"),
    "distill_first": Trained(distilled, "first"),
    "distill_average": Trained(distilled, "average"),
    "distill_aligned": Trained(distilled, "align"),
    "distill_first_free": Trained(distilled, "first", output="free"),
    "distill_aligned_free": Trained(distilled, "align", output="free"),
    "distill_first_cross": Trained(distilled, "first", output="free", cross=True),
    "distill_aligned_cross": Trained(distilled, "align", output="free", cross=True),
    "fs_diagonal": Trained(supernet, "first", kind="diagonal"),
    "fs_first": Trained(supernet, "first"),
    "fs_average": Trained(supernet, "average"),
    "fs_random": Trained(supernet, "random"),
    "fs_align": Trained(supernet, "align"),
    "fs_first_tied": Trained(supernet, "first", output="tied"),
    "fs_align_tied": Trained(supernet, "align", output="tied"),
    "fs_first_cross": Trained(supernet, "first", cross=True),
    "fs_align_cross": Trained(supernet, "align", cross=True),
    "fs_local": Trained(supernet, "first", local=True),
    "fs_zip": Zipped(),
    "fs_sequential": InSequence(),
    "fs_merge": Trained(supernet, "first", files=True),
    "distillation": Trained(distilled, "first", files=True),
}.items():
    MERGE_METHODS.register(_name)(_method)


def _check_plain(name: str, setting: Setting) -> None:
    if setting.output == "tied":
        raise CosetError(f"output=tied is for the other methods of FS-Merge: {name} begins with maps of its own")
    if setting.width is not None:
        raise CosetError(
            f"width={setting.width} is for the other methods of FS-Merge: {name} keeps the first teacher's"
        )


def _itself(teacher: Teacher) -> Teacher:
    return teacher


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
