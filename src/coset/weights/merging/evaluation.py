"""How good one network is at several tasks: by the head of the task, and by all heads at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coset.weights.merging.encoders import Inputs


class HasLogits(Protocol):
    def networks(self) -> Sequence[nn.Module]:
        """Everything that has to be kept for it."""

    def logits(self, inputs: Inputs) -> dict[str, Float[Tensor, "samples classes"]]:
        """Of every head, in the order of the tasks."""


@dataclass(frozen=True)
class Scores:
    """Shares of right answers.

    Attributes:
        tasks: With the head of the task.
        joint: Of the arg-max over the classes of all heads together, not calibrated between heads.
    """

    tasks: dict[str, float]
    joint: dict[str, float]

    @property
    def per_task(self) -> float:
        return sum(self.tasks.values()) / len(self.tasks)

    @property
    def joint_mean(self) -> float:
        return sum(self.joint.values()) / len(self.joint)

    def to_dict(self) -> dict[str, object]:
        return {"per_task": self.per_task, "joint": self.joint_mean, "tasks": self.tasks, "joint_tasks": self.joint}


def evaluate(model: HasLogits, tests: Mapping[str, tuple[Inputs, Int[Tensor, " samples"]]]) -> Scores:
    """Accuracy on every task.

    Args:
        model: With one head for each task.
        tests: Samples and labels by task; the labels of a task begin at 0.
    """
    tasks, joint = {}, {}
    for name, (inputs, labels) in tests.items():
        found = model.logits(inputs)
        tasks[name] = float((found[name].argmax(1) == labels).double().mean())
        offset = sum(found[n].size(1) for n in list(found)[: list(found).index(name)])
        joint[name] = float((joint_predictions(list(found.values())) == labels + offset).double().mean())
    return Scores(tasks, joint)


def numbers_in(model: HasLogits) -> int:
    """Parameters of all that has to be kept: of k networks for the originals and the ensemble."""
    return sum(p.numel() for network in model.networks() for p in network.parameters())


def joint_predictions(logits: Sequence[Float[Tensor, "samples _classes"]]) -> Int[Tensor, " samples"]:
    """Arg-max over all classes of all heads; ties go to the lowest."""
    return torch.cat(list(logits), 1).argmax(1)
