"""Networks that can be merged: anything that gives features and says how it is wired. Here: MLPs."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.weights.merging.wiring import Slot, Wiring

Inputs = Tensor | dict[str, Tensor]
"""A tensor of samples, or tensors by name, all with samples on their first axis."""

ELEMENTWISE = (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.LeakyReLU, nn.Sigmoid, nn.ELU, nn.Identity, nn.Dropout)


class Encoder(nn.Module, ABC):
    """Features of inputs, before any head."""

    @abstractmethod
    def forward(self, inputs: Any) -> Float[Tensor, "samples features"]:
        """Features of a batch."""

    @abstractmethod
    def wiring(self) -> Wiring:
        """Which parameter reads and writes what."""

    @abstractmethod
    def resized(self, width: int | None) -> Encoder:
        """An untrained network of the same kind, of another width (None: of the same)."""

    def shell(self, width: int | None) -> Encoder:
        """The same to be run with other parameters in place of its own, which may be empty."""
        return self.resized(width)

    def weights(self) -> Mapping[str, Tensor]:
        """Its parameters by name, without gradients."""
        return {name: p.detach() for name, p in self.named_parameters()}


class MLPEncoder(Encoder):
    """A plain ``nn.Sequential`` of Linear layers and entrywise activations.

    Args:
        layers: The network without its head.

    Raises:
        CosetError: It holds another kind of layer.
    """

    def __init__(self, layers: nn.Sequential):
        super().__init__()
        for name, module in layers.named_children():
            if not isinstance(module, (nn.Linear, nn.Flatten, *ELEMENTWISE)):
                raise CosetError(f"layer {name} is {type(module).__name__}: an MLP has Linear and entrywise layers")
        self.layers = layers

    @classmethod
    def of(cls, sizes: Sequence[int]) -> MLPEncoder:
        """ReLU after every layer; ``sizes`` are those of the input and of all layers."""
        layers: list[nn.Module] = []
        for n, m in itertools.pairwise(sizes):
            layers += [nn.Linear(n, m), nn.ReLU()]
        return cls(nn.Sequential(*layers))

    def forward(self, inputs: Inputs) -> Float[Tensor, "samples features"]:
        if isinstance(inputs, dict):
            (inputs,) = inputs.values()
        return self.layers(inputs)

    def linears(self) -> list[tuple[str, nn.Linear]]:
        return [(f"layers.{n}", m) for n, m in self.layers.named_children() if isinstance(m, nn.Linear)]

    def wiring(self) -> Wiring:
        slots, widths, before = [], {}, None
        for name, linear in self.linears():
            key = name.replace(".", "_")
            bias = f"{name}.bias" if linear.bias is not None else None
            slots.append(Slot(f"{name}.weight", bias, key, before and before.replace(".", "_"), name, before))
            widths[name] = linear.out_features
            before = name
        if before is None:
            raise CosetError("the network has no Linear layer to merge")
        return Wiring(tuple(slots), (), widths, output=before, stream=slots[0].writes)

    def resized(self, width: int | None) -> MLPEncoder:
        made: list[nn.Module] = []
        before: int | None = None
        for module in self.layers:
            if isinstance(module, nn.Linear):
                out = module.out_features if width is None else width
                made.append(nn.Linear(before or module.in_features, out, bias=module.bias is not None))
                before = out
            else:
                made.append(module)
        return MLPEncoder(nn.Sequential(*made)).to(next(self.parameters()).dtype)


def count_samples(inputs: Inputs) -> int:
    """How many samples."""
    return len(inputs) if isinstance(inputs, Tensor) else len(next(iter(inputs.values())))


def take(inputs: Inputs, rows: Tensor | slice) -> Inputs:
    """Some of the samples."""
    return inputs[rows] if isinstance(inputs, Tensor) else {name: value[rows] for name, value in inputs.items()}


def join(batches: Sequence[Inputs]) -> Inputs:
    """Samples of all tasks, one after the other.

    Raises:
        CosetError: Their names or shapes differ.
    """
    check_together(batches)
    tensors = [b for b in batches if isinstance(b, Tensor)]
    named = [b for b in batches if not isinstance(b, Tensor)]
    return torch.cat(tensors) if tensors else {n: torch.cat([b[n] for b in named]) for n in named[0]}


def check_together(batches: Sequence[Inputs]) -> None:
    """Whether samples of all tasks can be one batch.

    Raises:
        CosetError: Their names or shapes differ.
    """
    shapes = [_shapes(batch) for batch in batches]
    for t, own in enumerate(shapes):
        if own.keys() != shapes[0].keys():
            held = [" and ".join(map(repr, names)) for names in (shapes[0], own)]
            raise CosetError(
                f"inputs of the tasks do not fit together: task 1 has {held[0]}, task {t + 1} {held[1]}: give them "
                "the same names"
            )
        for name, shape in own.items():
            if shape != shapes[0][name]:
                raise CosetError(
                    f"inputs of the tasks do not fit together: samples of task 1 have shape {shapes[0][name]}, of task "
                    f"{t + 1} {shape} ({name})"
                )


def _shapes(batch: Inputs) -> dict[str, tuple[int, ...]]:
    """Of one sample, by name; a tensor alone is called ``inputs``."""
    named = {"inputs": batch} if isinstance(batch, Tensor) else batch
    return {name: tuple(value.shape[1:]) for name, value in named.items()}


@torch.no_grad()
def features(encoder: nn.Module, inputs: Inputs, batch: int = 256) -> Float[Tensor, "samples features"]:
    """Features of many samples, in eval mode."""
    encoder.eval()
    return torch.cat([encoder(take(inputs, slice(i, i + batch))) for i in range(0, count_samples(inputs), batch)])
