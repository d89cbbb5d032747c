"""The largest relative difference of each kind of number: outputs, layers, gradients, and what else a file holds."""

from __future__ import annotations

import math

from torch import Tensor, nn, zeros_like

from .reading import ParityFile

SMALL_GRADIENT = 1e-2  # of the largest in a file: biases ahead of a batch norm have gradients of rounding errors


class Differences:
    """Collects max |ours - official| / max |official|, the worst of all arrays of a kind.

    Args:
        file: What is compared with.
    """

    def __init__(self, file: ParityFile):
        self.file = file
        self.worst: dict[str, float] = {}

    def compare(self, kind: str, ours: Tensor, official: Tensor, least_scale: float = 0.0) -> None:
        """Add one array.

        Args:
            kind: Kept apart in the table.
            ours: As many numbers as ``official``.
            official: What it should be.
            least_scale: Divides the difference where all of ``official`` is smaller.

        Raises:
            RuntimeError: The arrays differ in size.
        """
        ours = ours.detach().reshape(official.shape)
        largest = float(official.abs().max()) if official.numel() else 0.0
        difference = float((ours - official).abs().max()) if official.numel() else 0.0
        scale = max(largest, least_scale)
        found = difference / scale if scale else difference
        before = self.worst.get(kind, 0.0)
        self.worst[kind] = found if math.isnan(found) or found > before else before

    def gradients(self, model: nn.Module) -> None:
        """Of every parameter that the file has a gradient for."""
        wanted = self.file.below("official/grad")
        least = SMALL_GRADIENT * max((float(gradient.abs().max()) for gradient in wanted.values()), default=0.0)
        parameters = dict(model.named_parameters())
        for name, gradient in wanted.items():
            ours = parameters[name].grad
            self.compare("gradients", zeros_like(gradient) if ours is None else ours, gradient, least)

    def running_statistics(self, model: nn.Module) -> None:
        """Of every buffer that the file tells after a forward pass."""
        state = model.state_dict()
        for name, value in self.file.below("official/after").items():
            self.compare("running statistics", state[name], value)

    def beyond(self, tolerance: float) -> dict[str, float]:
        """What differs by more; NaN among it."""
        return {kind: value for kind, value in self.worst.items() if not value <= tolerance}

    def __str__(self) -> str:
        return ", ".join(f"{kind} {value:.1e}" for kind, value in self.worst.items())


def absolute_error(ours: Tensor, target: Tensor) -> Tensor:
    """mean |y - t|, the loss whose gradients the files hold."""
    return (ours - target).abs().mean()
