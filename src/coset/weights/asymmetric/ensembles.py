r"""Many networks of one architecture, trained at once.

Parameters of N networks are stacked, [N, ...]; :func:`torch.func.vmap` runs all of them, each on its own batches, and
one backward pass of the sum of losses gives each its own gradient, since the losses share nothing. AdamW acts on each
entry by itself, with a rate for each network. Every network is drawn, and its batches are, from a seed of its own:
trained with others or alone, it becomes the same up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from coset.core.errors import CosetError
from coset.weights.asymmetric.asymmetrize import fixed_buffers
from coset.weights.asymmetric.classification_data import IGNORED
from coset.weights.asymmetric.networks import seeded

LARGE = 1 << 16
"""Parameters of a network from which on it takes its steps faster by itself than together with others."""

State = dict[str, Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]
Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class Ensemble:
    """N networks of one architecture.

    Attributes:
        model: The architecture, with the buffers that all networks share (fixed entries, gates, a graph).
        state: What each has of its own, stacked: parameters, and running statistics where there are any.
        initial: The same before training.
        history: Mean training loss of each network and epoch, ``[epochs, N]``.
    """

    model: nn.Module
    state: State
    initial: State = field(default_factory=dict)
    history: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def __len__(self) -> int:
        return next(iter(self.state.values())).size(0)

    def __getitem__(self, rows: slice | Sequence[int]) -> Ensemble:
        """Some of the networks."""
        chosen = torch.arange(len(self))[rows] if isinstance(rows, slice) else torch.as_tensor(rows)
        pick = lambda state: {name: value[chosen] for name, value in state.items()}  # noqa: E731
        history = self.history[:, chosen] if self.history.numel() else self.history
        return replace(self, state=pick(self.state), initial=pick(self.initial), history=history)

    def network(self, row: int) -> nn.Module:
        """One of them as a module of its own."""
        model = copy.deepcopy(self.model)
        model.load_state_dict({name: value[row] for name, value in self.state.items()}, strict=False)
        return model


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: Passes over the data; each network shuffles for itself.
        batch_size: Rows of a step; 0 for all of them.
        learning_rate: Of AdamW; a number, or one for each network.
        weight_decay: Of AdamW; a number, or one for each network.
        warmup: Epochs in which the rate climbs from a hundredth, by the same factor each.
        label_smoothing: Of the cross-entropy.
        steps: Stop after so many steps, at most; a number, or one for each network.
    """

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float | Sequence[float] = 1e-3
    weight_decay: float | Sequence[float] = 0.0
    warmup: int = 0
    label_smoothing: float = 0.0
    steps: int | Sequence[int] | None = None


def initialise(build: Callable[[], nn.Module], model: nn.Module, seeds: Sequence[int]) -> State:
    """Stacked parameters (and running statistics) of standard networks, named as ``model`` names them.

    Args:
        build: Makes a standard network with fresh parameters.
        model: The architecture to train: such a network, or its asymmetric version.
        seeds: One for each network.
    """
    states = [seeded(build, seed).state_dict() for seed in seeds]
    state, shared = {}, fixed_buffers(model)
    for name in model.state_dict():
        plain = name.replace("parametrizations.", "").removesuffix(".original") if ".original" in name else name
        if name in shared:
            continue
        if plain not in states[0]:
            raise CosetError(f"{name} of the model to train has no counterpart {plain} in what was built")
        state[name] = torch.stack([s[plain] for s in states])
    return state


def train(
    model: nn.Module, state: State, inputs: Float[Tensor, "rows ..."], targets: Tensor, how: Training, *,
    seeds: Sequence[int], augment: Augment | None = None, progress: Progress | None = None,
) -> Ensemble:  # fmt: skip
    """Train all networks of a stacked state on a classification task.

    Args:
        model: The architecture.
        state: As from :func:`initialise`; left alone.
        inputs: Shared by all networks.
        targets: Classes ``[rows]`` (-1 where a row does not count), or ``[N, rows]``: labels of each network's own.
        how: Optimisation.
        seeds: Of the order of rows, one for each network.
        augment: Changes a batch of one network.
        progress: Wraps the epochs, e.g. in a progress bar.

    Raises:
        CosetError: A loss is not finite.
    """
    model = model.train()
    initial, state = ({name: value.clone() for name, value in state.items()} for _ in range(2))
    trained = [name for name, _ in model.named_parameters()]
    number, rows = len(seeds), inputs.size(0)
    targets = targets.expand(number, -1)  # of one row, or of as many as there are networks
    optimizer = StackedAdamW({n: state[n] for n in trained}, how.learning_rate, how.weight_decay)
    batches, done, history = _Batches(inputs, targets, seeds, how.batch_size or rows, augment), 0, []
    limit = None if how.steps is None else torch.as_tensor(how.steps)
    for epoch in (progress or iter)(range(how.epochs)):
        total = torch.zeros(number)
        factor = 0.01 ** (1 - (epoch + 1) / how.warmup) if epoch < how.warmup else 1.0
        for x, y, size in batches.of_epoch():
            if limit is not None and done >= int(limit.max()):
                break
            losses, gradients = _step(model, state, trained, x, y, how.label_smoothing, shared_input=batches.shared)
            optimizer.step(gradients, factor if limit is None else factor * (done < limit))  # 0 where it is trained
            total += losses * size
            done += 1
        history.append(total / rows)
        _check_finite(total, epoch, seeds)
    return Ensemble(model.eval(), state, initial, torch.stack(history))


def _check_finite(losses: Float[Tensor, " networks"], epoch: int, seeds: Sequence[int]) -> None:
    if not losses.isfinite().all():
        bad = [seeds[i] for i in (~losses.isfinite()).nonzero().flatten().tolist()]
        raise CosetError(f"training diverged in epoch {epoch + 1} (seeds {bad}): lower the learning rate")


class _Batches:
    """Rows of each network in an order of its own."""

    def __init__(self, inputs: Tensor, targets: Tensor, seeds: Sequence[int], size: int, augment: Augment | None):
        self.inputs, self.targets, self.size, self.augment = inputs, targets, size, augment
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shared = size >= len(inputs) and augment is None  # all networks see all rows, and the same ones

    def of_epoch(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Inputs, classes, and how many rows."""
        orders = torch.stack([torch.randperm(len(self.inputs), generator=g) for g in self.generators])
        each = torch.arange(len(orders))[:, None]
        for rows in orders.split(self.size, 1):
            x = self.inputs if self.shared else self.inputs[rows]
            y = self.targets if self.shared else self.targets[each, rows]
            if self.augment is not None:
                x = torch.stack([self.augment(part, g) for part, g in zip(x, self.generators, strict=True)])
            yield x, y, rows.size(1)


class StackedAdamW:
    """AdamW on stacked parameters, changed in place, with a rate and a decay for each network.

    Args:
        parameters: Tensors ``[N, ...]``.
        learning_rate: A number, or N of them.
        weight_decay: A number, or N of them.
    """

    def __init__(
        self, parameters: State, learning_rate: float | Sequence[float], weight_decay: float | Sequence[float] = 0.0
    ):
        self.parameters = parameters
        self.rate, self.decay = torch.as_tensor(learning_rate), torch.as_tensor(weight_decay)
        # PyTorch's kernel knows one rate: at rate 1 from 0 it leaves a direction, along which each network then goes.
        self.direction = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.adam = torch.optim.Adam(self.direction.values(), lr=1.0, fused=True)

    def step(self, gradients: State, factor: float | Tensor = 1.0) -> None:
        """One step with ``factor`` times the rate; a number, or one for each network."""
        for name, direction in self.direction.items():
            # The kernel takes any gradient for a contiguous one (PyTorch 2.13), and those of stacked products are not.
            direction.zero_().grad = gradients[name].contiguous()
        self.adam.step()
        rate, decay = factor * self.rate, self.decay
        for name, p in self.parameters.items():
            shape = (-1,) + (1,) * (p.dim() - 1)
            if bool((decay != 0).any()):
                p.mul_((1 - rate * decay).to(p).view(shape))
            p.addcmul_(rate.to(p).view(shape), self.direction[name])


def vectorisable(model: nn.Module) -> bool:
    """Whether :func:`torch.func.vmap` pays: it knows no running statistics, no recurrent layers, slows convolutions."""
    others = (nn.modules.batchnorm._BatchNorm, nn.modules.conv._ConvNd, nn.RNNBase)
    return not any(isinstance(module, others) for module in model.modules())


def outputs(
    model: nn.Module, state: State, inputs: Tensor, *, shared_input: bool = True, each: int = 64
) -> Float[Tensor, "networks rows outputs"]:
    """Outputs of all networks of a stacked state.

    Args:
        model: The architecture, in the mode (train, eval) it is to run in.
        state: Stacked.
        inputs: The same for all networks, or with ``shared_input=False`` ``[N, rows, ...]``.
        shared_input: Which.
        each: Networks that run together.
    """
    number = next(iter(state.values())).size(0)
    if not vectorisable(model):
        results = []
        for i in range(number):
            own = {name: value[i] for name, value in state.items()}
            x = inputs if shared_input else inputs[i]
            results.append(functional_call(model, own, (x,), tie_weights=False))
        return torch.stack(results)

    def call(own: State, x: Tensor) -> Tensor:
        return functional_call(model, own, (x,), tie_weights=False)  # every name has its tensor

    run = vmap(call, in_dims=(0, None if shared_input else 0))
    if number <= each:  # a slice would have its gradient copied
        return run(state, inputs)
    parts = []
    for start in range(0, number, each):
        part = {name: value[start : start + each] for name, value in state.items()}
        parts.append(run(part, inputs if shared_input else inputs[start : start + each]))
    return torch.cat(parts)


def _step(
    model: nn.Module, state: State, trained: Sequence[str], x: Tensor, y: Tensor, smoothing: float, shared_input: bool
) -> tuple[Float[Tensor, " networks"], State]:
    """Losses of all networks, and the gradient of each."""
    loss = partial(functional.cross_entropy, label_smoothing=smoothing, ignore_index=IGNORED)
    if not vectorisable(model) or sum(state[name][0].numel() for name in trained) >= LARGE:
        return _one_by_one(model, state, trained, (x if shared_input else x[i] for i in range(len(y))), y, loss)
    leaves = {name: state[name].detach().requires_grad_() for name in trained}
    found = outputs(model, {**state, **leaves}, x, shared_input=shared_input, each=y.size(0))
    losses = loss(found.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
    means = losses.sum(1) / (y != IGNORED).sum(1).clamp(min=1)
    gradients = torch.autograd.grad(means.sum(), list(leaves.values()))
    return means.detach(), dict(zip(leaves, gradients, strict=True))


def _one_by_one(
    model: nn.Module, state: State, trained: Sequence[str], inputs: Iterable[Tensor], y: Tensor, loss: Any
) -> tuple[Float[Tensor, " networks"], State]:
    """The same without stacked products, whose gradients come transposed: for networks whose own products are large."""
    losses, gradients = [], []
    for i, x in enumerate(inputs):
        own = {name: value[i] for name, value in state.items()}  # running statistics change in place
        leaves = {name: own[name].detach().requires_grad_() for name in trained}
        found = loss(functional_call(model, {**own, **leaves}, (x,)), y[i], reduction="sum")
        losses.append(found / (y[i] != IGNORED).sum().clamp(min=1))
        gradients.append(torch.autograd.grad(losses[-1], list(leaves.values())))
    stacked = (torch.stack(parts) for parts in zip(*gradients, strict=True))
    return torch.stack(losses).detach(), dict(zip(trained, stacked, strict=True))
