r"""What lies between minima: linear interpolation, barriers, simplices, planes, monotonicity.

theta(t) = (1 - t) theta_1 + t theta_2. The barrier of Lim et al. (NeurIPS 2024, arXiv 2405.20231) is
L(theta(1/2)) - (L(theta_1) + L(theta_2)) / 2, which may be negative; the largest height above the chord is reported
beside it. All geometry here is one thing: affine combinations sum_k w_pk theta_k of K networks at P points, evaluated
together with :func:`torch.func.vmap`, in one pass over the data. Running statistics of BatchNorm mean nothing between
networks: they are measured anew at every point.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from coset.core.errors import CosetError
from coset.weights.asymmetric.asymmetrize import fixed_buffers
from coset.weights.asymmetric.classification_data import IGNORED
from coset.weights.asymmetric.ensembles import Ensemble, State, outputs

Data = tuple[Tensor, Tensor]
"""Inputs ``[rows, ...]`` and classes ``[rows]``; where only some rows count, the others have class -1."""


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropy and accuracy at P points.

    Attributes:
        loss: ``[P]``.
        accuracy: ``[P]``, shares of right answers.
    """

    loss: Float[Tensor, " points"]
    accuracy: Float[Tensor, " points"]


@dataclass(frozen=True)
class Curve:
    """Losses along a segment, at evenly spaced t from 0 to 1."""

    t: Float[Tensor, " points"]
    loss: Float[Tensor, " points"]
    accuracy: Float[Tensor, " points"]

    @property
    def barrier(self) -> float:
        """L(1/2) - (L(0) + L(1)) / 2; needs an odd number of points."""
        return float(self.loss[len(self.loss) // 2] - (self.loss[0] + self.loss[-1]) / 2)

    @property
    def highest(self) -> float:
        """Largest height of the loss above the chord."""
        return float((self.loss - torch.lerp(self.loss[0], self.loss[-1], self.t)).max())

    @property
    def error_barrier(self) -> float:
        """The barrier of the error, 1 - accuracy."""
        return float((self.accuracy[0] + self.accuracy[-1]) / 2 - self.accuracy[len(self.accuracy) // 2])

    @property
    def midpoint_accuracy(self) -> float:
        return float(self.accuracy[len(self.accuracy) // 2])


@dataclass(frozen=True)
class Monotonicity:
    """Whether the loss falls all the way from initialisation to minimum, and how its graph bends.

    Attributes:
        largest_rise: max_i (L_{i+1} - L_i); monotone where it is at most 0.
        monotone: Whether it is.
        local_convexity: Share of second differences that are at least 0.
        global_convexity: Share of inner points on or below the chord between the two ends.
    """

    largest_rise: float
    monotone: bool
    local_convexity: float
    global_convexity: float


def combine(state: State, weights: Float[Tensor, "points networks"]) -> State:
    """Affine combinations of the networks of a stacked state; of counters and other integers the first is taken."""
    mixed = {}
    for name, value in state.items():
        if value.is_floating_point():
            mixed[name] = torch.tensordot(weights.to(value), value, dims=1)
        else:
            mixed[name] = value[:1].expand(weights.size(0), *value.shape[1:]).clone()
    return mixed


def measure(
    model: nn.Module, state: State, data: Data, *, statistics: Tensor | None = None, rows: int | None = None,
    each: int = 64,
) -> Losses:  # fmt: skip
    """Loss and accuracy of every network of a stacked state.

    Args:
        model: The architecture.
        state: Stacked, at P points.
        data: Where to measure; classes of -1 do not count.
        statistics: Inputs from which BatchNorm's running statistics are measured anew; ``None`` leaves them.
        rows: Rows of a batch, by default 2048, or 128 pictures (of more the feature maps outgrow the cache); a graph is
            one batch, whatever this says.
        each: Networks that run together.
    """
    model = model.eval()
    if statistics is not None and has_batch_norm(model):
        state = recalibrate(model, state, statistics)
    inputs, targets = data
    number = next(iter(state.values())).size(0)
    loss, right = torch.zeros(number, dtype=torch.float64), torch.zeros(number, dtype=torch.float64)
    rows = len(inputs) if hasattr(model, "edge_index") else rows or (2048 if inputs.dim() < 4 else 128)
    with torch.no_grad():
        for x, y in zip(inputs.split(rows), targets.split(rows), strict=True):
            counts = y != IGNORED
            found = outputs(model, state, x, each=each)[:, counts]
            y = y[counts].expand(number, -1)
            losses = functional.cross_entropy(found.flatten(0, 1), y.flatten(), reduction="none")
            loss += losses.view_as(y).double().sum(1).cpu()
            right += (found.argmax(-1) == y).double().sum(1).cpu()
    used = int((targets != IGNORED).sum())
    return Losses(loss / used, right / used)


def measure_mixtures(
    model: nn.Module, state: State, weights: Float[Tensor, "points networks"], data: Data, *,
    statistics: Tensor | None = None, each: int = 32,
) -> Losses:  # fmt: skip
    """Loss and accuracy of affine combinations of networks, ``each`` at a time so that memory stays flat."""
    parts = [
        measure(model, combine(state, part), data, statistics=statistics, each=each) for part in weights.split(each)
    ]
    return Losses(torch.cat([p.loss for p in parts]), torch.cat([p.accuracy for p in parts]))


def recalibrate(model: nn.Module, state: State, inputs: Tensor, batch_size: int = 500, batches: int = 50) -> State:
    """Running statistics of BatchNorm measured anew: cumulative averages over batches in training mode."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.momentum = None  # cumulative
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    state = {name: value.clone() for name, value in state.items()}
    whole = hasattr(model, "edge_index")
    parts = [inputs] if whole else list(inputs.split(batch_size))[:batches]
    for i in range(next(iter(state.values())).size(0)):
        own = {name: value[i] for name, value in state.items()}
        for name, value in own.items():
            if name.endswith(("running_mean", "num_batches_tracked")):
                value.zero_()
            elif name.endswith("running_var"):
                value.fill_(1.0)
        with torch.no_grad():
            for x in parts:
                functional_call(model, own, (x,), tie_weights=False)
    return state


def has_batch_norm(model: nn.Module) -> bool:
    """Whether it holds running statistics."""
    return any(name.endswith("running_mean") for name, _ in model.named_buffers())


def segment(
    model: nn.Module, first: State, second: State, data: Data, *, points: int = 25, statistics: Tensor | None = None
) -> Curve:
    """The curve between two networks, given by their state dicts.

    Args:
        model: Their architecture.
        first: Parameters (and running statistics) at t = 0.
        second: The same at t = 1.
        data: Where to measure.
        points: Odd, so that the midpoint is among them.
        statistics: See :func:`measure`.

    Raises:
        CosetError: The networks cannot be interpolated.
    """
    check_points(points)
    state = stacked(model, [first, second])
    t = torch.linspace(0, 1, points)
    found = measure_mixtures(model, state, torch.stack([1 - t, t], 1), data, statistics=statistics)
    return Curve(t.double(), found.loss, found.accuracy)


def check_points(points: int) -> None:
    """Whether a curve of so many points has a midpoint.

    Raises:
        CosetError: It has not.
    """
    if points < 3 or points % 2 == 0:
        raise CosetError(f"points={points} must be odd and at least 3, so that the midpoint is one of them")


def stacked(model: nn.Module, states: Sequence[State]) -> State:
    """State dicts of networks that may be mixed, stacked; what they share by construction is left out.

    Raises:
        CosetError: Names or shapes differ from the model's, or fixed entries or gates do.
    """
    own, shared = model.state_dict(), fixed_buffers(model)
    for k, state in enumerate(states):
        missing = [name for name in own if name not in state and name not in shared]
        unknown = [name for name in state if name not in own]
        if missing or unknown:
            what = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which the model has not"
            raise CosetError(f"network {k + 1} {what}: it belongs to another architecture")
        for name, value in state.items():
            if value.shape != own[name].shape:
                raise CosetError(
                    f"network {k + 1}: {name} has shape {tuple(value.shape)}, the model {tuple(own[name].shape)}"
                )
            if name in shared and not torch.equal(value, shared[name].to(value)):
                raise CosetError(
                    f"network {k + 1}: {name} differs from the model's: networks with different fixed entries cannot "
                    "be mixed (asymmetrize with one seed)"
                )
    return {name: torch.stack([state[name] for state in states]) for name in own if name not in shared}


def simplex(
    ensemble: Ensemble, data: Data, *, points: int = 40, seed: int = 0, statistics: Tensor | None = None
) -> tuple[Losses, Float[Tensor, " points"]]:
    """Random points of the simplex that the networks span, and their loss above the same mixture of losses.

    The first point is the plain average of all networks.

    Returns:
        Losses at the points, and heights ``[points]``.
    """
    number = len(ensemble)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.empty(points, number).exponential_(generator=generator)  # normalised: uniform on the simplex
    weights = weights / weights.sum(1, keepdim=True)
    weights[0] = 1 / number
    corners = measure(ensemble.model, ensemble.state, data, statistics=statistics)
    inside = measure_mixtures(ensemble.model, ensemble.state, weights, data, statistics=statistics)
    return inside, inside.loss - weights.double() @ corners.loss


@dataclass(frozen=True)
class Plane:
    """Losses on the plane through three networks.

    Attributes:
        x: Coordinates along the first axis, from network 1 towards 2; lengths are those of parameter space.
        y: Along the second.
        loss: ``[y, x]``.
        accuracy: ``[y, x]``.
        corners: Coordinates of the networks.
    """

    x: Float[Tensor, " columns"]
    y: Float[Tensor, " rows"]
    loss: Float[Tensor, "rows columns"]
    accuracy: Float[Tensor, "rows columns"]
    corners: Float[Tensor, "3 2"]


def plane(ensemble: Ensemble, data: Data, *, resolution: int = 21, statistics: Tensor | None = None) -> Plane:
    """The plane through the first three networks (Garipov et al. 2018), with a margin of a fifth around them.

    Raises:
        CosetError: There are fewer than three, or they lie on a line.
    """
    if len(ensemble) < 3:
        raise CosetError(f"a plane needs three networks, not {len(ensemble)}")
    gram = _gram(ensemble[:3])
    u2, uv, v2 = float(gram[0, 0]), float(gram[0, 1]), float(gram[1, 1])
    width = u2**0.5
    along = uv / width if width else 0.0
    height = max(v2 - along**2, 0.0) ** 0.5
    if width < 1e-12 or height < 1e-6 * width:
        raise CosetError("the three networks lie on a line: there is no plane through them")
    corners = torch.tensor([[0.0, 0.0], [width, 0.0], [along, height]], dtype=torch.float64)
    low, high = corners.min(0).values, corners.max(0).values
    margin = 0.2 * (high - low)
    x, y = (
        torch.linspace(float(a), float(b), resolution, dtype=torch.float64) for a, b in zip(low - margin, high + margin)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2)
    third = grid[:, 1] / height
    second = (grid[:, 0] - third * along) / width
    weights = torch.stack([1 - second - third, second, third], 1)
    found = measure_mixtures(ensemble.model, ensemble[:3].state, weights, data, statistics=statistics)
    return Plane(x, y, found.loss.view(resolution, -1), found.accuracy.view(resolution, -1), corners)


def distances(ensemble: Ensemble, pairs: Int[Tensor, "pairs 2"]) -> Float[Tensor, " pairs"]:
    """Euclidean distances of trainable parameters; fixed entries do not count."""
    from coset.weights.asymmetric.asymmetrize import trainable_masks

    squares = torch.zeros(len(pairs), dtype=torch.float64)
    for name, mask in trainable_masks(ensemble.model).items():
        value = ensemble.state[name][:, mask].double()
        squares += (value[pairs[:, 0]] - value[pairs[:, 1]]).square().sum(1)
    return squares.sqrt()


def monotonicity(losses: Float[Tensor, " points"]) -> Monotonicity:
    """What the losses on the way from initialisation to minimum say.

    The published code draws the chord of global convexity to the second point; here it goes to the last.
    """
    losses = losses.double()
    rise = float(losses.diff().max())
    bends = losses.diff().diff()
    inner = torch.lerp(losses[0], losses[-1], torch.linspace(0, 1, len(losses), dtype=torch.float64))[1:-1]
    return Monotonicity(
        rise, rise <= 0, float((bends >= 0).double().mean()), float((losses[1:-1] <= inner).double().mean())
    )


def _gram(ensemble: Ensemble) -> Float[Tensor, "2 2"]:
    """Inner products of theta_2 - theta_1 and theta_3 - theta_1."""
    gram = torch.zeros(2, 2, dtype=torch.float64)
    for name, _ in ensemble.model.named_parameters():
        value = ensemble.state[name].double().flatten(1)
        sides = value[1:] - value[:1]
        gram += sides @ sides.T
    return gram
