"""Classifiers whose training data are asked for: one hidden layer, deep ReLU networks, sets, convolutions; averages."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from coset.privacy.groups import FiniteGroup
from coset.symmetry import Claim, TrivialAction


class SoftplusFeatures(nn.Module):
    """f(x) = sum_k v_k softplus_beta(w_k x + b_k) with v and b drawn once and kept: only W is trained.

    Different biases keep neurons from collapsing onto a few, so that the weights have enough equations for the inputs
    behind them.

    Args:
        inputs: d.
        hidden: Neurons k.
        scale: Of v: entries are +-scale / sqrt(hidden).
        beta: Sharpness of the softplus.
        generator: Of all draws.
    """

    bias: Tensor
    value: Tensor

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        scale: float = 0.1,
        beta: float = 5.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.beta = beta
        self.weight = nn.Parameter(0.1 * torch.randn(hidden, inputs, generator=generator, dtype=torch.float64))
        sign = torch.randint(2, (hidden,), generator=generator).double() * 2 - 1
        self.register_buffer("bias", torch.randn(hidden, generator=generator, dtype=torch.float64))
        self.register_buffer("value", sign * scale / hidden**0.5)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch"]:
        return F.softplus(F.linear(x, self.weight, self.bias), beta=self.beta) @ self.value


class ReLUNetwork(nn.Module):
    """Linear layers with ReLUs, biases in the first only: homogeneous, as the theory of reconstruction wants it.

    Args:
        sizes: Inputs, hidden layers, outputs; one output is squeezed away.
        first: Deviation of the first layer's entries; PyTorch's own initialisation if None.
        bias: Whether the first layer has one.
        generator: Of all draws.
    """

    def __init__(
        self, sizes: Sequence[int], *, first: float | None = None, bias: bool = True,
        generator: torch.Generator | None = None,
    ):  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            linear = nn.Linear(fan_in, fan_out, bias=bias and number == 0, dtype=torch.float64)
            bound = fan_in**-0.5
            for parameter in linear.parameters():
                with torch.no_grad():
                    parameter.uniform_(-bound, bound, generator=generator)
                    if number == 0 and first is not None:
                        parameter.normal_(0, first, generator=generator)
            layers += [linear, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Tensor:
        out = self.layers(x)
        return out.squeeze(-1) if out.size(-1) == 1 else out


class PointSetNetwork(nn.Module):
    """DeepSets: f(x) = rho(mean_i phi(x_i)), for sets of points laid out one after the other.

    Zaheer et al., "Deep Sets" (NeurIPS 2017). phi is a layer with ReLU, rho a :class:`ReLUNetwork` without biases: the
    whole is homogeneous, and invariant under all orders of the points without a sum over them.

    Args:
        points: In a set.
        coordinates: Of a point.
        hidden: Widths of phi, then of rho's layers.
        first: Deviation of phi's entries; PyTorch's own initialisation if None.
        generator: Of all draws.
    """

    def __init__(
        self, points: int, coordinates: int, hidden: Sequence[int], *, first: float | None = None,
        generator: torch.Generator | None = None,
    ):  # fmt: skip
        super().__init__()
        self.points, self.coordinates = points, coordinates
        self.phi = ReLUNetwork([coordinates, hidden[0]], first=first, generator=generator)
        self.rho = ReLUNetwork([*hidden, 1], bias=False, generator=generator)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Tensor:
        points = x.reshape(*x.shape[:-1], self.points, self.coordinates)
        return self.rho(F.relu(self.phi.layers(points)).mean(-2))


class CircularConvolution(nn.Module):
    """f(x) = v . mean_p relu(W patch_p(x) + b): a convolution that wraps round, averaged over all places.

    Invariant under all shifts that wrap round.

    Args:
        shape: Height and width of an image.
        channels: Filters.
        size: Of their window, odd.
        first: Deviation of the filters' entries; PyTorch's own initialisation if None.
        generator: Of all draws.
    """

    patches: Tensor

    def __init__(
        self, shape: tuple[int, int], channels: int, *, size: int = 3, first: float | None = None,
        generator: torch.Generator | None = None,
    ):  # fmt: skip
        super().__init__()
        height, width = shape
        offset = torch.arange(size) - size // 2
        rows = (torch.arange(height)[:, None] + offset) % height
        columns = (torch.arange(width)[:, None] + offset) % width
        table = rows[:, None, :, None] * width + columns[None, :, None, :]
        self.register_buffer("patches", table.reshape(height * width, size * size))
        self.filters = ReLUNetwork([size * size, channels], first=first, generator=generator)
        self.head = ReLUNetwork([channels, 1], bias=False, generator=generator)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Tensor:
        return self.head(F.relu(self.filters.layers(x[..., self.patches])).mean(-2))


class InvariantClassifier(nn.Module):
    """1/|G| sum_g base(g x): invariant for any base network.

    Args:
        base: A network on inputs [..., d].
        group: What it shall not see.
        average: False for a base network that is invariant by construction: it is then called once.
    """

    def __init__(self, base: nn.Module, group: FiniteGroup, average: bool = True):
        super().__init__()
        self.base, self.group, self.average = base, group, average

    def symmetry(self) -> tuple[Claim, ...]:
        """f(g x) = f(x)."""
        return (Claim(self.group, TrivialAction(), f"invariant under {self.group.name}"),)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Tensor:
        if len(self.group) == 1 or not self.average:
            return self.base(x)
        return self.base(self.group.orbit(x)).mean(x.dim() - 1)


class SurrogateReLU(nn.Module):
    """relu(z) forward, sigmoid(alpha z) as its derivative: gates of inputs still to be found can then open and close.

    Haim et al., "Reconstructing Training Data from Trained Neural Networks", NeurIPS 2022.
    """

    def __init__(self, alpha: float):
        super().__init__()
        self.alpha = alpha

    def forward(self, z: Tensor) -> Tensor:
        soft = F.softplus(self.alpha * z) / self.alpha
        return F.relu(z).detach() + (soft - soft.detach())


class _SurrogateGates(TorchFunctionMode):
    """While active, PyTorch's own ReLUs have the derivative of :class:`SurrogateReLU`."""

    plain = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
    leaky = frozenset({F.leaky_relu, F.leaky_relu_})

    def __init__(self, alpha: float):
        super().__init__()
        self.gate = SurrogateReLU(alpha)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.plain:
            return self.gate(args[0])
        if func in self.leaky:
            slope = args[1] if len(args) > 1 else (kwargs or {}).get("negative_slope", 0.01)
            return slope * args[0] + (1 - slope) * self.gate(args[0])
        return func(*args, **(kwargs or {}))


class _WithSurrogate(nn.Module):
    def __init__(self, model: nn.Module, alpha: float):
        super().__init__()
        self.model, self.alpha = model, alpha

    def forward(self, x: Tensor) -> Tensor:
        with _SurrogateGates(self.alpha):
            return self.model(x)


def with_surrogate(model: nn.Module, alpha: float) -> nn.Module:
    """A copy in which every ReLU and leaky ReLU, module or function, has the derivative of :class:`SurrogateReLU`.

    It shares nothing with the model; its parameters are those of the model with ``model.`` before their names.
    """
    return _WithSurrogate(copy.deepcopy(model), alpha)
