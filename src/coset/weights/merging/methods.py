"""Methods of merging by name, each registered where it is written, with what it needs.

One interface for all: teachers and unlabelled samples in, one network out. All of them are pairs (M, U) of a
SuperNet: a weighted average has M_i = w_i I, U_i = I; matching has M_i = P_i^T / k, U_i = P_i; RegMean has
U_i = k S^-1 G_i; zipping is a matching of all features of all networks with one another.

What is trained is trained once with each learning rate of a list, and what has a closed form with a setting (t of
SLERP, scale of task arithmetic, shrinkage of RegMean, ridge of heads) is made with as many; the one nearest to the
teachers on held-out samples is taken: the same budget for every method, and no labels.
"""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.registry import Registry
from coset.weights.merging.encoders import Encoder, Inputs, features
from coset.weights.merging.evaluation import HasLogits
from coset.weights.merging.fitting import Fit, Progress
from coset.weights.merging.operators import Start
from coset.weights.merging.supernet import Student
from coset.weights.merging.teachers import Merged, Teacher

Function = TypeVar("Function", bound=Callable[..., Any])
Output = Literal["tied", "free"]
"""Whether merged features are the teachers' own, or lead to them by a map that is trained for each teacher."""
Mix = Callable[..., Callable[[str], Tensor]]
"""Of ``models``, each of which gives its parameters by name, and by name ``names``, ``base`` and settings: gives the
merged parameter of a name."""
Begin = Callable[[Sequence[Teacher], "Setting", Start], Student]
"""The student of teachers, and where it begins."""


@dataclass(frozen=True)
class Setting:
    """What all methods share.

    Attributes:
        rank: Of FS-Merge.
        kind: Parametrisation of its maps, but for ``fs_diagonal``.
        width: Of the merged network; that of the first teacher if None (FS-Merge only).
        learning_rates: Tried by everything that is trained.
        cross: Weight of the other teachers' features in the methods whose name ends so.
        output: Of what is trained; by default free for FS-Merge and tied for distillation, as published.
        base: What the teachers began as, for ``task_arithmetic``.
        fit: Steps, weight decay, batches, seed.
    """

    rank: int = 4
    kind: Any = "diagonal_and_low_rank"
    width: int | None = None
    learning_rates: Sequence[float] = (1e-3, 3e-3, 1e-2)
    cross: float = 0.3
    output: Output | None = None
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


@dataclass(frozen=True)
class Material:
    """What is merged.

    Attributes:
        teachers: Networks with heads, of one architecture.
        inputs: Unlabelled samples of each task.
        held_out: Others, by which learning rates and settings are chosen.
        setting: What all methods share.
        progress: Told after each step of training.
    """

    teachers: Sequence[Teacher]
    inputs: Sequence[Inputs]
    held_out: Sequence[Inputs]
    setting: Setting
    progress: Progress | None = None


class MergeMethod(ABC):
    """A way to merge, and what it needs.

    Attributes:
        samples: Whether it looks at samples.
        base: Whether it asks for the network that all began as.
        base_optional: Whether it uses it if there is one.
        least: How many it merges at least.
        models: How many it merges; ``None`` for any number.
        any_width: Whether teachers may be of different widths, and the merged network of a width of its own.
        files: Whether ``coset merge`` knows it.
        settings: Those of a merge file that it looks at.
        mix: For methods that do not follow features through the networks: merges them parameter by parameter.
        begin: For methods that are trained: makes the student.
        solve: For methods in closed form: makes the merged network.
    """

    samples: bool = True
    base: bool = False
    base_optional: bool = False
    least: int = 2
    models: int | None = None
    any_width: bool = False
    files: bool = False
    settings: frozenset[str] = frozenset()
    mix: Mix | None = None
    begin: Begin | None = None
    solve: Callable[..., Any] | None = None

    @abstractmethod
    def merge(self, material: Material) -> Outcome:
        """The merged network.

        Raises:
            CosetError: The networks cannot be merged by it.
        """


MERGE_METHODS: Registry[MergeMethod] = Registry("merge method")


class ClosedForm(MergeMethod):
    """A function of teachers that needs no training; what else it takes says what it needs.

    Args:
        function: Of ``teachers``, and by name ``inputs`` (samples), ``base`` (what all began as), and settings. It
            gives a :class:`~coset.weights.merging.teachers.Merged`, or what has to keep all teachers.
        tries: For one of its settings the values that are tried.
        models: See :class:`MergeMethod`.
        mix: See :class:`MergeMethod`.
    """

    solve: Callable[..., Any]

    def __init__(
        self, function: Callable[..., HasLogits], tries: Mapping[str, Sequence[float]], models: int | None,
        mix: Mix | None,
    ):  # fmt: skip
        self.solve, self.models, self.mix = function, models, mix
        signature = inspect.signature(function, eval_str=True)
        self.samples, self.base = "inputs" in signature.parameters, "base" in signature.parameters
        self.files = signature.return_annotation is Merged
        self.settings = frozenset(signature.parameters) | ({"augmentation"} if self.samples else set())
        self.tries = [{name: value} for name, values in tries.items() for value in values] or [{}]

    def merge(self, material: Material) -> Outcome:
        started, given = time.process_time(), {"inputs": material.inputs, "base": material.setting.base}
        if self.base and material.setting.base is None:
            raise CosetError(f"{self.solve.__name__} needs base: the network that all began as")
        tried = [called(self.solve, material.teachers, **given, **setting) for setting in self.tries]
        if len(tried) == 1:
            return Outcome(tried[0], seconds=time.process_time() - started)
        errors = [error_of_heads(model, material.teachers, material.held_out) for model in tried]
        best = min(range(len(tried)), key=errors.__getitem__)
        return Outcome(tried[best], seconds=time.process_time() - started, held_out=errors[best])


def merge_method(
    *names: str, models: int | None = None, mix: Mix | None = None, **tries: Sequence[float]
) -> Callable[[Function], Function]:
    """A decorator that registers a function of teachers as a :class:`ClosedForm`.

    Args:
        names: Of the method.
        models: How many it merges; ``None`` for any number.
        mix: The same parameter by parameter.
        tries: For one of its settings the values that a comparison tries.
    """

    def add(function: Function) -> Function:
        MERGE_METHODS.register(*names)(ClosedForm(function, tries, models, mix))
        return function

    return add


def called(function: Callable[..., Any], first: Any, **given: Any) -> Any:
    """What a function gives for its first argument, and those of the others that it takes."""
    takes = inspect.signature(function).parameters
    return function(first, **{name: value for name, value in given.items() if name in takes})


def merge(
    method: str, teachers: Sequence[Teacher], inputs: Sequence[Inputs], held_out: Sequence[Inputs],
    setting: Setting | None = None, *, progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """Merge by a method of :data:`MERGE_METHODS`.

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
    return MERGE_METHODS[method].merge(Material(teachers, inputs, held_out, setting or Setting(), progress))


def tuned(setting: Setting, made_with: Callable[[Fit], Outcome]) -> Outcome:
    """The outcome with the smallest error on held-out samples, over the learning rates that are tried."""
    started, best = time.process_time(), None
    for rate in setting.learning_rates:
        made = made_with(replace(setting.fit, learning_rate=rate))
        if best is None or best.held_out is None or (made.held_out is not None and made.held_out < best.held_out):
            best = made
    assert best is not None
    return replace(best, seconds=time.process_time() - started)


@torch.no_grad()
def error_of_heads(model: HasLogits, teachers: Sequence[Teacher], held_out: Sequence[Inputs]) -> float:
    """Mean squared difference of each head's outputs from its teacher's, on samples of its task."""
    total = 0.0
    for teacher, own in zip(teachers, held_out, strict=True):
        wanted = teacher.head(features(teacher.encoder, own))
        total += float((model.logits(own)[teacher.name] - wanted).square().mean())
    return total
