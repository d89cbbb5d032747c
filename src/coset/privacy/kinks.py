r"""How far ReLU networks are from a stationary point, with inputs on the kinks of neurons counted as they are.

Where training with decay (or to the largest margin) ends, w_k - v_k sum_j c_j g_kj x_j = 0 with gates g_kj = s'(z_kj).
A ReLU has no derivative at 0, and training drives inputs *onto* such kinks and holds them there: in wide networks every
tenth pair of a neuron and an input ends at |z| of next to nothing. The theory (Lyu and Li, ICLR 2020) asks for *some*
gate between 0 and 1 there, an element of Clarke's subdifferential. With 0 or 1 by the sign of rounding errors, a
network whose training has ended seems to be far from it. Here gates at kinks are chosen so that the least is left,
which is a convex problem.

Given the gates the equations are linear: with Z the rows c_j (x_j, 1), (w_k, b_k) = sum_j v_k g_kj Z_j, so that the
rank of v_k g_kj says what the weights determine at all (:func:`determined_by_gates`), at sizes where the Jacobian in
all pixels (:mod:`coset.privacy.information`) cannot be written down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coset.core.errors import CosetError
from coset.privacy.hidden_layer import HiddenLayer

WIDTH = 1e-6
"""Of a kink: |z| below this share of the largest."""


@dataclass(frozen=True)
class Stationarity:
    """Attributes:
    residual: |R|^2 / |theta|^2, gates at kinks chosen for the best.
    by_sign: The same with every gate by the sign of z.
    kinks: Share of all pairs of a neuron and an input that are at a kink.
    gates: Those of ``residual``, a row each neuron; None if no weights of the first layer were trained.
    """

    residual: float
    by_sign: float
    kinks: float
    gates: Float[Tensor, "k n"] | None = None


def kinked(layer: HiddenLayer) -> bool:
    """Whether its activation is a ReLU or a leaky ReLU, with its own derivative."""
    z = layer.weight.new_tensor([-1e-9, 1e-9])
    below, above = layer.activation(z)[1].tolist()
    return below < above == 1.0


def stationarity_at_kinks(
    layer: HiddenLayer,
    x: Float[Tensor, "n d"],
    c: Float[Tensor, " n"],
    *,
    width: float = WIDTH,
    iterations: int = 300,
) -> Stationarity:
    """Distance of the weights of ReLUs from the sums over inputs that Clarke's subdifferentials allow.

    Args:
        layer: A hidden layer of ReLUs or leaky ReLUs, without a surrogate.
        x: Training inputs.
        c: Their multipliers.
        width: Below this share of the largest |z|, an input is at a neuron's kink.
        iterations: Of accelerated projected descent on the gates at kinks.
    """
    order = len(layer.group)
    orbit = layer.group.orbit(x).flatten(0, 1) if order > 1 else x
    share = (c.repeat_interleave(order) / order).unsqueeze(-1)
    z = orbit @ layer.weight.T + layer.bias
    gates = layer.activation(z)[1].T
    left = layer.residual(x, c)
    rest = sum((float(r.square().sum()) for name, r in left.items() if name in ("value", "offset")), 0.0)
    names = [name for name in ("weight", "bias") if name in layer.trained]
    if not names:
        return Stationarity(rest / layer.size, rest / layer.size, 0.0)
    columns = {"weight": (layer.weight, orbit), "bias": (layer.bias[:, None], torch.ones_like(share))}
    target = torch.cat([columns[name][0] for name in names], 1)
    inputs = share * torch.cat([columns[name][1] for name in names], 1)
    kink = (z.abs() <= width * z.abs().max()).T
    by_sign = float((target - layer.value[:, None] * (gates @ inputs)).square().sum())
    low = float(layer.activation(z.new_tensor([-1.0]))[1])
    chosen = _chosen_gates(target, layer.value[:, None], inputs, gates, kink, low, iterations)
    best = float((target - layer.value[:, None] * (chosen @ inputs)).square().sum())
    return Stationarity(
        (min(best, by_sign) + rest) / layer.size, (by_sign + rest) / layer.size, float(kink.double().mean()),
        chosen if best <= by_sign else gates,
    )  # fmt: skip


@dataclass(frozen=True)
class Determined:
    """Attributes:
    rank: Of the gates: as many combinations of inputs are determined, all of them if it is the number of inputs.
    undetermined: Dimension of the changes of inputs and multipliers that leave the equations as they are.
    condition: Largest over least singular value of those that count: how far errors grow on the way back.
    """

    rank: int
    undetermined: int
    condition: float


def determined_by_gates(
    layer: HiddenLayer, gates: Float[Tensor, "k n"], c: Float[Tensor, " n"], tolerance: float = 1e-10
) -> Determined:
    """What the weights of ReLUs say of their inputs if it is known which neurons let which of them through.

    The equations of v_k add nothing (they follow from those of w_k and b_k, as ReLUs are homogeneous); that of the
    output's bias adds the sum of the multipliers.

    Args:
        layer: Without a group; first-layer weights and biases were trained.
        gates: A row each neuron, as :func:`stationarity_at_kinks` finds them.
        c: Multipliers, none of them 0.
        tolerance: Least singular value that counts, as a share of the largest.

    Raises:
        CosetError: There is a group, or other parameters were trained.
    """
    if len(layer.group) > 1 or not {"weight", "bias"} <= layer.trained:
        raise CosetError("gates: for networks without a group whose first layer's weights and biases were trained")
    passed = layer.value[:, None] * gates
    sizes = torch.linalg.svdvals(passed * c)  # of inputs, whatever their multipliers are
    rank = int((sizes > tolerance * sizes[0]).sum())
    for_c = rank
    if "offset" in layer.trained:
        summed = torch.linalg.svdvals(torch.cat([passed, passed.abs().amax() * torch.ones_like(c)[None]]) * c)
        for_c = int((summed > tolerance * summed[0]).sum())
    n, d = len(c), layer.weight.size(1)
    return Determined(rank, (n - rank) * d + n - for_c, float(sizes[0] / sizes[rank - 1]))


def _chosen_gates(
    target: Float[Tensor, "k q"], value: Float[Tensor, "k 1"], inputs: Float[Tensor, "n q"],
    gates: Float[Tensor, "k n"], kink: Bool[Tensor, "k n"], low: float, iterations: int,
) -> Float[Tensor, "k n"]:  # fmt: skip
    """argmin |target - value (gates inputs)|^2 over gates between ``low`` and 1 at kinks, the others kept."""
    steepest = float(torch.linalg.eigvalsh(inputs @ inputs.T)[-1])
    safe = value.abs().clamp(min=1e-300)
    gates = torch.where(kink, 0.5 * (1 + low), gates)
    before, pace = gates, 1.0
    for _ in range(iterations if bool(kink.any()) else 0):
        faster = (1 + (1 + 4 * pace**2) ** 0.5) / 2
        ahead = gates + (pace - 1) / faster * (gates - before)
        left = target - value * (ahead @ inputs)
        step = (left / (safe * value.sign()) @ inputs.T) / steepest
        before, pace = gates, faster
        gates = torch.where(kink, (ahead + step).clamp(low, 1.0), gates)
    return gates
