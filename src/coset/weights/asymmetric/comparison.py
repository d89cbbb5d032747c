"""Compare variants of a network by what lies between independently trained copies of each.

A variant is one architecture (standard, W-, sigma-asymmetric, ...) trained from several seeds. Measured are barriers
between pairs, before and after matching neurons; averages of several networks; the way from initialisation to minimum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from coset.weights.asymmetric.connectivity import (
    Curve,
    Data,
    Monotonicity,
    distances,
    measure,
    measure_mixtures,
    monotonicity,
    segment,
    simplex,
)
from coset.weights.asymmetric.ensembles import Ensemble, State
from coset.weights.permutations.groups import permutation_spec, permute
from coset.weights.permutations.matching import activation_matching, weight_matching

Matching = Literal["weights", "activations"]


@dataclass(frozen=True)
class Pairs:
    """What lies between the networks of some pairs.

    Attributes:
        test: A curve a pair, on test data.
        train: The same on training data.
        distance: Between the parameters of each pair.
    """

    test: list[Curve]
    train: list[Curve]
    distance: list[float]

    def summary(self) -> dict[str, Any]:
        """Numbers for a table: lists hold one value a pair."""
        return {
            "barrier": [c.barrier for c in self.test],
            "highest": [c.highest for c in self.test],
            "error_barrier": [c.error_barrier for c in self.test],
            "midpoint_accuracy": [c.midpoint_accuracy for c in self.test],
            "end_loss": [float((c.loss[0] + c.loss[-1]) / 2) for c in self.test],
            "end_accuracy": [float((c.accuracy[0] + c.accuracy[-1]) / 2) for c in self.test],
            "train_barrier": [c.barrier for c in self.train],
            "train_end_accuracy": [float((c.accuracy[0] + c.accuracy[-1]) / 2) for c in self.train],
            "distance": self.distance,
        }


def pairs_of(number: int, every: bool = False) -> list[tuple[int, int]]:
    """Disjoint pairs (0, 1), (2, 3), ...; or every pair."""
    if every:
        return [(i, j) for i in range(number) for j in range(i + 1, number)]
    return [(i, i + 1) for i in range(0, number - 1, 2)]


def between(
    ensemble: Ensemble, pairs: Sequence[tuple[int, int]], test: Data, train: Data | None, *, points: int = 25,
    statistics: Tensor | None = None,
) -> Pairs:  # fmt: skip
    """Curves between the networks of each pair.

    Args:
        ensemble: Trained networks.
        pairs: Numbers of networks.
        test: Test data.
        train: Training data, or part of it; ``None`` where there is none.
        points: Of each curve.
        statistics: Inputs for BatchNorm's statistics.
    """
    curves: dict[str, list[Curve]] = {"test": [], "train": []}
    for i, j in pairs:
        for name, data in (("test", test), ("train", train)):
            if data is None:
                continue
            first, second = row(ensemble.state, i), row(ensemble.state, j)
            curves[name].append(segment(ensemble.model, first, second, data, points=points, statistics=statistics))
    return Pairs(curves["test"], curves["train"], distances(ensemble, torch.tensor(pairs)).tolist())


def matched(
    ensemble: Ensemble, pairs: Sequence[tuple[int, int]], how: Matching, inputs: Tensor, seed: int = 0
) -> Ensemble:
    """For each pair the first network, and the second with its neurons matched to the first's: 2 networks a pair.

    Args:
        ensemble: Standard networks.
        pairs: Numbers of networks.
        how: By weights, or by activations on ``inputs``.
        inputs: Of the training set.
        seed: Of the order in which weight matching visits groups.
    """
    spec = permutation_spec(ensemble.model)
    states: list[State] = []
    for i, j in pairs:
        first, second = row(ensemble.state, i), row(ensemble.state, j)
        if how == "weights":
            orders = weight_matching(spec, first, second, seed=seed)
        else:
            orders = activation_matching(spec, ensemble.model, first, second, inputs)
        states += [first, permute(spec, second, orders)]
    return replace(ensemble, state={name: torch.stack([s[name] for s in states]) for name in states[0]}, initial={})


def averages(ensemble: Ensemble, test: Data, *, number: int = 4, statistics: Tensor | None = None) -> dict[str, Any]:
    """The average of several networks, random mixtures of them, and their ensemble's single members."""
    some = ensemble[:number]
    inside, heights = simplex(some, test, statistics=statistics)
    single = measure(some.model, some.state, test, statistics=statistics)
    return {
        "networks": len(some),
        "single_accuracy": float(single.accuracy.mean()),
        "average_accuracy": float(inside.accuracy[0]),
        "average_loss": float(inside.loss[0]),
        "worst_height": float(heights.max()),
    }


def on_the_way(
    ensemble: Ensemble, train: Data, *, points: int = 25, statistics: Tensor | None = None
) -> tuple[list[list[float]], list[Monotonicity]]:
    """Training losses between initialisation and minimum, a row a network, and what they say."""
    t = torch.linspace(0, 1, points)
    curves, found = [], []
    for i in range(len(ensemble)):
        state = {n: torch.stack([ensemble.initial[n][i], v[i]]) for n, v in ensemble.state.items()}
        losses = measure_mixtures(ensemble.model, state, torch.stack([1 - t, t], 1), train, statistics=statistics).loss
        curves.append(losses.tolist())
        found.append(monotonicity(losses))
    return curves, found


def row(state: State, number: int) -> State:
    """One network of a stacked state."""
    return {name: value[number] for name, value in state.items()}


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation."""
    numbers = list(values)
    deviation = f" ± {np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.3f}{deviation}"
