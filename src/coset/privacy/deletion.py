r"""When training with decay deletes parts of a group's action from the weights of an averaged network.

    f(x) = mean_g sum_k v_k s(w_k g x + b_k),     w_k = v_k sum_j c_j mean_g s'(w_k g x_j + b_k) g x_j  (stationarity)

- A neuron that a subgroup H leaves as it is (its stabiliser) sees an input only through P_H g x: parts of the action
without
  vectors fixed under the stabiliser of any neuron are deleted, from the weights and from what f looks at.
- :func:`asymmetry_bounds`: where |v_k| sup|s''| lambda_max(sum_j |c_j| mean_g (1 - P) g x_j (..)^T) < 1, neuron k is
symmetric at
  *every* stationary point. For convex s only inputs with v_k c_j > 0 count.
- :func:`instabilities`: a symmetric neuron attracts small deviations in a part if and only if the largest eigenvalue of
  v_k sum_j c_j s''(w_k P x_j + b_k) mean_g g x_j (g x_j)^T on that part is below 1. With ReLUs s'' is 0: always.

Proofs are in the documentation (deleted-parts).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coset.privacy.groups import FiniteGroup
from coset.privacy.hidden_layer import HiddenLayer
from coset.privacy.irreps import Part

SYMMETRIC = 1e-6
"""Relative change under a group element up to which a neuron counts as left alone by it."""


def stabilisers(layer: HiddenLayer, tolerance: float = SYMMETRIC) -> Bool[Tensor, "k order"]:
    """Which group elements leave each neuron's weights as they are; every one, of neurons without weights."""
    weight = layer.weight
    away = (layer.group.orbit(weight) - weight.unsqueeze(1)).norm(dim=-1)
    return away <= tolerance * weight.norm(dim=1).max()


def asymmetry_bounds(
    layer: HiddenLayer, x: Float[Tensor, "n d"], c: Float[Tensor, " n"], bend: float
) -> Float[Tensor, " k"]:
    """Below 1, a neuron is symmetric at every stationary point that has these multipliers.

    Args:
        layer: The network.
        x: Training inputs.
        c: Their multipliers.
        bend: sup |s''| of a convex s; beta / 4 for softplus.
    """
    group = _of_inputs(layer)
    largest = torch.stack([_largest(group, x, (sign * c).relu()) for sign in (1.0, -1.0)])
    return layer.value.abs() * bend * torch.where(layer.value > 0, largest[0], largest[1])


def instabilities(
    layer: HiddenLayer, x: Float[Tensor, "n d"], c: Float[Tensor, " n"], parts: list[Part]
) -> Float[Tensor, "k parts"]:
    """Largest eigenvalue on each part but the first, at each neuron's weights without their asymmetry; above 1:
    unstable."""
    group = _of_inputs(layer)
    bends = layer.activation(group.centre(layer.weight) @ group.centre(x).T + layer.bias[:, None])[2]
    shares = layer.value[:, None] * c * bends
    found = []
    for part in parts[1:]:
        seen = group.orbit(x) @ part.basis  # n, order, r
        blocks = torch.einsum("ngr,ngs->nrs", seen, seen) / len(group)
        found.append(torch.linalg.eigvalsh(torch.einsum("kn,nrs->krs", shares, blocks))[:, -1])
    return torch.stack(found, 1)


def symmetric_neurons(
    layer: HiddenLayer, x: Float[Tensor, "n d"], c: Float[Tensor, " n"], steps: int = 500
) -> HiddenLayer:
    """The same network with every neuron brought to a stationary point among symmetric weights, multipliers held.

    Descent on |w|^2 / 2 - v_k sum_j c_j s(w P x_j + b_k), from the weights without their asymmetry.
    """
    group = _of_inputs(layer)
    centre = group.centre(x)
    bend = layer.activation(torch.linspace(-3, 3, 601, dtype=x.dtype))[2].abs().max()
    steepest = 1 + layer.value.abs() * bend * float(torch.linalg.eigvalsh(centre.T @ (c.abs()[:, None] * centre))[-1])
    weight = group.centre(layer.weight)
    for _ in range(steps):
        gates = layer.activation(weight @ centre.T + layer.bias[:, None])[1]
        weight = weight - (weight - layer.value[:, None] * (gates * c) @ centre) / steepest[:, None]
    parts = (layer.bias, layer.value, layer.offset)
    return HiddenLayer(weight, *parts, layer.trained, layer.activation, layer.group)


def _of_inputs(layer: HiddenLayer) -> FiniteGroup:
    """The group, which permutes the entries of inputs unless the layer is one on coordinates."""
    assert isinstance(layer.group, FiniteGroup)
    return layer.group


def _largest(group: FiniteGroup, x: Tensor, c: Tensor) -> Tensor:
    """Largest eigenvalue of sum_j c_j mean_g (1 - P) g x_j (..)^T."""
    away = group.orbit(x) - group.centre(x).unsqueeze(1)
    return torch.linalg.eigvalsh(torch.einsum("n,ngd,nge->de", c, away, away) / len(group))[-1]
