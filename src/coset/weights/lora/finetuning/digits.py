"""A collection in seconds: 1,200 LoRAs of a small network for digits, all trained at once by batched products.

The base is a ReLU network 64-64-64-10 trained on scikit-learn's 8 x 8 digits. Each LoRA (both hidden matrices) learns
to answer label + 1 (mod 10) on a random subset of the classes, with its own learning rate and initialisation; it is
labelled with that subset and with its accuracy on the shifted task over all classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coset.core.errors import require
from coset.runs.fit import descend
from coset.weights.lora.data.factors import Factors, Layout, select, unstack
from coset.weights.lora.data.writing import save_peft
from coset.weights.lora.finetuning.sources import ADAPTER_SOURCES, AdapterSource, Maker, one_thread

CLASSES, WIDTH = 10, 64
LAYOUT = Layout.of([("layers.0", (WIDTH, WIDTH)), ("layers.2", (WIDTH, WIDTH))])


@dataclass(frozen=True)
class DigitsZoo:
    """What was made.

    Attributes:
        factors: Of all adapters, scale inside.
        members: ``[adapters, 10]``, 1 where a class was trained on.
        accuracy: On the shifted task, over the test digits of all classes.
        base_accuracy: Of the base network on its own task.
    """

    factors: Factors
    members: Float[Tensor, "adapters 10"]
    accuracy: Float[Tensor, " adapters"]
    base_accuracy: float


def make_digits_zoo(
    count: int = 1200, rank: int = 4, *, steps: int = 80, shared_init: bool = False, seed: int = 0, base_seed: int = 0
) -> DigitsZoo:
    """Train the base network, then all adapters together.

    Args:
        count: Adapters.
        rank: r; the scale is 2 (alpha = 2 r).
        steps: Adam steps of each, on batches of 32.
        shared_init: All start from one ``lora_A``: then factors mean the same in all adapters, and no symmetry is
            needed to compare them.
        seed: Of the adapters.
        base_seed: Of the base network and the split of the digits.
    """
    x, y, x_test, y_test, base = _prepared(base_seed)
    base_accuracy = float((base(x_test).argmax(1) == y_test).double().mean())
    g = torch.Generator().manual_seed(seed)
    members = (torch.rand(count, CLASSES, generator=g) < 0.5).float()
    empty = members.sum(1) == 0
    members[empty, torch.randint(CLASSES, (int(empty.sum()),), generator=g)] = 1.0
    rates = 10 ** (-2.7 + torch.rand(count, generator=g))
    bound = (1 / WIDTH) ** 0.5  # PEFT's initialisation of lora_A: Kaiming uniform with a = sqrt(5)
    down = [
        ((torch.rand(1 if shared_init else count, rank, WIDTH, generator=g) * 2 - 1) * bound)
        .expand(count, -1, -1)
        .clone()
        for _ in range(2)
    ]
    up = [torch.zeros(count, WIDTH, rank) for _ in range(2)]
    _train(base, down, up, rates, members, (x, y), steps, g)
    with torch.no_grad():
        correct = [
            (_forward(base, x_test.expand(part[0].size(0), -1, -1), part[:2], part[2:]).argmax(-1) == (y_test + 1) % 10)
            .double().mean(1)
            for part in zip(*(t.split(100) for t in (*down, *up)), strict=True)
        ]  # fmt: skip
    root = 2.0**0.5
    u, v = torch.stack(up, 1) * root, torch.stack(down, 1).mT.contiguous() * root
    return DigitsZoo(((u, v),), members, torch.cat(correct).float(), base_accuracy)


@ADAPTER_SOURCES.add
class DigitsSource(AdapterSource):
    """Adapters of this module as PEFT folders, trained fifty at a time."""

    together: ClassVar[int] = 50

    name: Literal["digits"]
    rank: int = Field(4, ge=1)
    steps: int = Field(80, ge=1)
    shared_init: bool = False

    def open(self, folder: Path, seed: int) -> Maker:
        return _Digits(self, seed)


class _Digits:
    def __init__(self, source: DigitsSource, seed: int):
        @lru_cache(maxsize=1)
        def block(index: int) -> DigitsZoo:
            own = seed * 1_000_003 + index
            return make_digits_zoo(
                source.together, source.rank, steps=source.steps, shared_init=source.shared_init, seed=own
            )  # fmt: skip

        self._block, self._together = block, source.together

    @property
    def base(self) -> dict[str, float]:
        return {}

    def make(self, number: int, place: Path) -> dict[str, Any]:
        index, row = divmod(number, self._together)
        zoo = self._block(index)
        save_peft(unstack(select(zoo.factors, [row]), LAYOUT, [place.name])[0], place)
        members = {f"trained_on_{c}": int(zoo.members[row, c]) for c in range(10)}
        return {**members, "accuracy": float(zoo.accuracy[row])}


@lru_cache(maxsize=2)
def _prepared(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, nn.Sequential]:
    """Digits and the trained base, the same for all collections of a process."""
    x, y, x_test, y_test = _digits(seed)
    with one_thread():  # or the adapters of one process would belong to another base than those of the next
        return x, y, x_test, y_test, _base(x, y, seed)


def _digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = require("sklearn.datasets", "weights").load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    x = torch.tensor(data.data[order] / 16.0, dtype=torch.float32)
    y = torch.tensor(data.target[order], dtype=torch.long)
    cut = int(0.7 * len(y))
    return x[:cut], y[:cut], x[cut:], y[cut:]


def _base(x: Tensor, y: Tensor, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES)
        )
    optimizer = torch.optim.Adam(base.parameters(), lr=3e-3)
    g = torch.Generator().manual_seed(seed)
    batches = (rows for _ in range(15) for rows in torch.randperm(len(y), generator=g).split(32))
    descend(optimizer, lambda rows: F.cross_entropy(base(x[rows]), y[rows]), batches)
    return base.requires_grad_(False)


def _forward(base: Any, x: Tensor, down: tuple[Tensor, ...], up: tuple[Tensor, ...]) -> Tensor:
    """Logits ``[adapters, batch, 10]`` of every adapter on its own batch."""
    for i, layer in enumerate((base[0], base[2])):
        x = F.relu(F.linear(x, layer.weight, layer.bias) + 2.0 * (x @ down[i].mT) @ up[i].mT)
    return F.linear(x, base[4].weight, base[4].bias)


def _train(
    base: nn.Sequential, down: list[Tensor], up: list[Tensor], rates: Tensor, members: Tensor,
    data: tuple[Tensor, Tensor], steps: int, g: torch.Generator,
) -> None:  # fmt: skip
    """Adam with a learning rate for each adapter: the losses are independent, so that one backward pass serves all."""
    x, y = data
    chances = members[:, y]
    parameters = [t.requires_grad_() for t in (*down, *up)]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    for step in range(1, steps + 1):
        rows = torch.multinomial(chances, 32, replacement=True, generator=g)
        logits = _forward(base, x[rows], (parameters[0], parameters[1]), (parameters[2], parameters[3]))
        loss = F.cross_entropy(logits.flatten(0, 1), ((y[rows] + 1) % CLASSES).flatten(), reduction="sum") / 32
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, gradient, (first, second) in zip(parameters, gradients, moments, strict=True):
                first.lerp_(gradient, 0.1)
                second.lerp_(gradient.square(), 0.001)
                size = (second / (1 - 0.999**step)).sqrt() + 1e-8
                p -= rates[:, None, None] * (first / (1 - 0.9**step)) / size
    for p in parameters:
        p.requires_grad_(False)
