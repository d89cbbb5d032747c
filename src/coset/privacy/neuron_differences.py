r"""Inputs out of the differences of neurons: an attack in closed form on ReLUs whose training has ended.

At a stationary point of one hidden layer with biases, u_k = w_k / v_k sums up the inputs that neuron k lets through,

    u_k = sum_j g_kj c_j (x_j, 1),      g_kj = 1 if w_k (x_j, 1) > 0, 0 if it is below 0, between them at a kink.

Two neurons that let through the same inputs but one differ by a multiple of that input, with a 1 as its last entry to
tell the scale. Most pairs differ in more, so that every difference is a *candidate*, (x, 1) up to a factor. Which of
them the weights are made of is linear in the multipliers: u_k = sum_p s(w_k (x_p, 1)) c_p (x_p, 1) with few c_p that
are not 0, a lasso. Nothing is drawn at random, and nothing descends through gates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coset.core.errors import CosetError
from coset.privacy.hidden_layer import HiddenLayer

APART = 1e-3
"""Distance of unit vectors from which two neurons are different."""
SHORTEST = 9000
"""Differences that are looked at: their products with each other take 324 MB in single precision."""
LARGEST = 100.0
"""Length of a candidate, beyond which its last entry is rounding."""
SOFT = 50.0
"""Slope at which gates of candidates open and close: where an input is on a kink they are one half."""
ALIKE = 0.9
"""Cosine from which two candidates are one."""


@dataclass(frozen=True)
class Units:
    """Different neurons of a layer.

    Attributes:
        rows: (w_k, b_k) / v_k, averaged over all that have a direction.
        sign: Of v_k.
        weight: Sum of v_k^2 over them: what a deviation of the row counts for in |R|^2.
    """

    rows: Float[Tensor, "k d1"]
    sign: Float[Tensor, " k"]
    weight: Float[Tensor, " k"]

    @property
    def directions(self) -> Float[Tensor, "k d1"]:
        """(w_k, b_k), at length 1."""
        return torch.nn.functional.normalize(self.rows, dim=1) * self.sign[:, None]


def units(layer: HiddenLayer) -> Units:
    """The different neurons of a layer without a group, dead ones left out."""
    both = torch.cat([layer.weight, layer.bias[:, None]], 1)
    length = both.norm(dim=1)
    alive = (length > APART * length.max()) & (layer.value != 0)
    both, value = both[alive], layer.value[alive]
    pointing = torch.nn.functional.normalize(both, dim=1) * value.sign()[:, None]
    left, rows, signs, weights = torch.arange(len(both)), [], [], []
    while len(left):
        near = (pointing[left] - pointing[left[0]]).norm(dim=1) < APART
        same, left = left[near], left[~near]
        share = value[same].square()
        rows.append((both[same] * value[same][:, None]).sum(0) / share.sum())
        signs.append(value[same[0]].sign())
        weights.append(share.sum())
    return Units(torch.stack(rows), torch.stack(signs), torch.stack(weights))


def enough_units(layer: HiddenLayer, candidates: int) -> bool:
    """Whether differences can be asked for so many candidates: biases, no group, as many different neurons."""
    return {"weight", "bias"} <= layer.trained and len(layer.group) == 1 and len(units(layer).rows) >= candidates


def differences(found: Units) -> Float[Tensor, "p d1"]:
    """(x, 1) of pairs of neurons with outputs of one sign, shortest differences first: they differ in few inputs."""
    first, second = torch.triu_indices(len(found.rows), len(found.rows), 1)
    same = found.sign[first] == found.sign[second]
    away = found.rows[first[same]] - found.rows[second[same]]
    length = away.norm(dim=1)
    away = away[length.argsort()][:SHORTEST]
    x = away / away[:, -1:]
    return x[x.norm(dim=1) < LARGEST]


def chosen(
    found: Units, x: Float[Tensor, "p d1"], *, sparsity: float = 1e-2, iterations: int = 150
) -> Float[Tensor, " p"]:
    """Multipliers of candidates by a lasso: minimise |R|^2 + a sum_p |c_p| |grad_p|, by accelerated descent.

    Args:
        found: The neurons.
        x: Candidates, with a 1 as their last entry.
        sparsity: a, as a share of that at which nothing is chosen.
        iterations: Of the descent.
    """
    gates = torch.sigmoid(SOFT * (found.directions @ torch.nn.functional.normalize(x, dim=1).T)).float()
    weight, rows, inputs = (found.weight / found.weight.mean()).float(), found.rows.float(), x.float()
    size = (inputs.norm(dim=1) * (weight[:, None] * gates.square()).sum(0).sqrt()).clamp(min=1e-9)
    inputs = inputs / size[:, None]
    gram = ((gates.T * weight) @ gates) * (inputs @ inputs.T)
    along = ((weight[:, None] * rows) @ inputs.T * gates).sum(0)
    probe = torch.ones_like(along)
    for _ in range(20):
        probe = torch.nn.functional.normalize(gram @ probe, dim=0)
    steepest = 1.05 * float((gram @ probe).norm())
    c = before = torch.zeros_like(along)
    pace, least = 1.0, sparsity * float(along.abs().max()) / steepest
    for _ in range(iterations):
        faster = (1 + (1 + 4 * pace**2) ** 0.5) / 2
        ahead = c + (pace - 1) / faster * (c - before)
        before, pace = c, faster
        moved = ahead - (gram @ ahead - along) / steepest
        c = moved.sign() * (moved.abs() - least).relu()
    return (c / size).double()


def merged(x: Float[Tensor, "p d1"], c: Float[Tensor, " p"]) -> tuple[Float[Tensor, "m d1"], Float[Tensor, " m"]]:
    """One candidate for all that are alike and have multipliers of one sign: their sum, the largest first."""
    x, c = x[c != 0], c[c != 0]
    pointing, size = torch.nn.functional.normalize(x, dim=1), c.abs() * x.norm(dim=1)
    left = torch.ones(len(x), dtype=torch.bool)
    sums = []
    for j in size.argsort(descending=True).tolist():
        if not left[j]:
            continue
        alike = left & (pointing @ pointing[j] > ALIKE)
        left &= ~alike
        sums.append((c[alike & (c * c[j] > 0), None] * x[alike & (c * c[j] > 0)]).sum(0))
    total = torch.stack(sums) if sums else x.new_zeros(0, x.size(1))
    total = total[total.norm(dim=1).argsort(descending=True)]
    return total / total[:, -1:], total[:, -1]


def by_differences(layer: HiddenLayer, candidates: int) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """Candidates and multipliers, as many of either sign, those of negative multipliers first.

    Args:
        layer: ReLUs with biases, without a group, in float64.
        candidates: m.

    Raises:
        CosetError: Another network, or too few different neurons.
    """
    if not {"weight", "bias"} <= layer.trained or len(layer.group) > 1:
        raise CosetError("differences of neurons need one hidden layer of ReLUs with trained biases, without a group")
    basis = layer.visible()
    found = units(replace(layer, weight=layer.weight @ basis))
    if len(found.rows) < 3:
        raise CosetError(f"{len(found.rows)} different neurons have next to no differences: choose another method")
    x = differences(found)
    x, c = merged(x, chosen(found, x))
    kept: list[Int[Tensor, " half"]] = [(c * sign > 0).nonzero().flatten()[: candidates // 2] for sign in (-1, 1)]
    rows = torch.cat(kept)
    return x[rows, :-1] @ basis.T, c[rows]
