"""Many small classifiers, each trained in its own way, to learn from their weights how good they are.

Lim et al. (NeurIPS 2024, arXiv 2405.20231) compare zoos of standard and of W-asymmetric networks. Here all networks of
a zoo train at once; they differ in seed, learning rate, share of wrong labels, and number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coset.weights.asymmetric.asymmetrize import trainable_masks
from coset.weights.asymmetric.classification_data import Classification
from coset.weights.asymmetric.connectivity import Monotonicity, measure, measure_mixtures, monotonicity
from coset.weights.asymmetric.ensembles import Ensemble, Progress, State, Training, initialise, train

STATISTICS = 7  # of each tensor


@dataclass(frozen=True)
class Ranges:
    """How the networks of a zoo differ; each draws its own values evenly.

    Attributes:
        rate: Exponents e of the learning rate 10^-e.
        wrong: Share of training labels replaced by random ones.
        steps: Of training.
    """

    rate: tuple[float, float] = (1.7, 3.7)
    wrong: tuple[float, float] = (0.0, 0.6)
    steps: tuple[int, int] = (40, 250)


@dataclass(frozen=True)
class Zoo:
    """Trained networks and what they are worth.

    Attributes:
        ensemble: The networks.
        accuracy: On the test set.
        targets: The labels that each was trained on.
        rate: Learning rates.
        wrong: Shares of wrong labels.
        steps: Steps of training.
    """

    ensemble: Ensemble
    accuracy: Float[Tensor, " networks"]
    targets: Int[Tensor, "networks rows"]
    rate: Float[Tensor, " networks"]
    wrong: Float[Tensor, " networks"]
    steps: Int[Tensor, " networks"]

    def content(self) -> dict[str, Any]:
        """Everything but the architecture, as tensors: what :meth:`restored` reads again."""
        own = {name: getattr(self, name) for name in ("accuracy", "targets", "rate", "wrong", "steps")}
        return own | {"state": self.ensemble.state, "initial": self.ensemble.initial}

    @classmethod
    def restored(cls, model: nn.Module, content: Mapping[str, Any]) -> Zoo:
        """The zoo of an architecture that :meth:`content` was made of."""
        own = {name: value for name, value in content.items() if name not in ("state", "initial")}
        return cls(Ensemble(model.eval(), content["state"], content["initial"]), **own)


def make_zoo(
    model: nn.Module, build: Callable[[], nn.Module], data: Classification, number: int, ranges: Ranges, *,
    batch_size: int = 64, seed: int = 0, progress: Progress | None = None,
) -> Zoo:  # fmt: skip
    """Train a zoo. With one seed, zoos of different architectures get the same settings, labels and initial networks.

    Args:
        model: The architecture, standard or W-asymmetric.
        build: Makes a standard network with fresh parameters.
        data: To train and test on.
        number: Of networks.
        ranges: How they differ.
        batch_size: Rows of a step.
        seed: Of everything.
        progress: Wraps the epochs.
    """
    g = torch.Generator().manual_seed(seed)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(number, generator=g)

    rate, wrong = 10 ** -between(*ranges.rate), between(*ranges.wrong)
    steps = torch.randint(ranges.steps[0], ranges.steps[1] + 1, (number,), generator=g)
    inputs, right = data.train
    random = torch.randint(data.classes, (number, len(right)), generator=g)
    targets = torch.where(torch.rand(number, len(right), generator=g) < wrong[:, None], random, right)
    seeds = [number * seed + i for i in range(number)]
    per_epoch = -(-len(right) // batch_size)
    how = Training(
        epochs=-(-int(steps.max()) // per_epoch), batch_size=batch_size, learning_rate=rate.tolist(),
        steps=steps.tolist(),
    )  # fmt: skip
    ensemble = train(
        model, initialise(build, model, seeds), inputs, targets, how, seeds=seeds, progress=progress
    )  # fmt: skip
    return Zoo(ensemble, measure(model, ensemble.state, data.test).accuracy, targets, rate, wrong, steps)


def trainable_entries(model: nn.Module, state: State) -> dict[str, Float[Tensor, "networks entries"]]:
    """Of every parameter the entries that are not fixed."""
    return {name: state[name][:, mask] for name, mask in trainable_masks(model).items() if bool(mask.any())}


def flat_features(model: nn.Module, state: State) -> Float[Tensor, "networks entries"]:
    """All entries that are not fixed, one after another: they change when neurons are permuted."""
    return torch.cat(list(trainable_entries(model, state).values()), 1)


def statistics_features(model: nn.Module, state: State) -> Float[Tensor, "networks statistics"]:
    """Mean, variance, least, greatest, and quartiles of every parameter: the order of neurons does not show."""
    found = []
    for values in trainable_entries(model, state).values():
        ordered = values.sort(1).values.double()  # sums of sorted numbers do not depend on the order either
        quartiles = ordered.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), 1).T
        variance = ordered.var(1, correction=0)
        ends = torch.stack([ordered[:, 0], ordered[:, -1]], 1)
        found.append(torch.cat([ordered.mean(1, keepdim=True), variance[:, None], ends, quartiles], 1))
    return torch.cat(found, 1).to(values)


def on_the_way_of_zoo(
    zoo: Zoo, inputs: Tensor, number: int, points: int = 25
) -> tuple[list[list[float]], list[Monotonicity]]:
    """Training loss between initialisation and end, of each of the first networks on its own labels."""
    t = torch.linspace(0, 1, points)
    curves, found = [], []
    for i in range(min(number, len(zoo.ensemble))):
        one = zoo.ensemble[[i]]
        ends = {name: torch.cat([one.initial[name], value]) for name, value in one.state.items()}
        data = (inputs, zoo.targets[i])
        losses = measure_mixtures(one.model, ends, torch.stack([1 - t, t], 1), data).loss
        curves.append(losses.tolist())
        found.append(monotonicity(losses))
    return curves, found
