r"""What weights can tell at all: the directions in which inputs may change and leave the equations as they are.

At a solution of theta = sum_j c_j grad f(x_j), the null space of the Jacobian in (x, c) holds the changes that no
weight shows. Inputs without their part in it are what is left for an attack that knows nothing else; how they correlate
with the inputs is a *ceiling without a prior*, beside which every attack is to be judged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from coset.core.errors import CosetError
from coset.privacy.groups import FiniteGroup
from coset.privacy.hidden_layer import hidden_layer_of
from coset.privacy.irreps import energies, isotypic_parts
from coset.privacy.second_order import normal_equations
from coset.privacy.stationarity import flat, parameters_of, weighted_gradient

MOST_UNKNOWNS = 2000
"""Beyond them the eigenvectors take minutes."""
MOST_ENTRIES = 50_000_000
"""Of the Jacobian of a network that is not one hidden layer."""
NOISE = 1e-10
"""Relative residual that no training reaches: what changes the weights by less does not show."""


@dataclass(frozen=True)
class Information:
    """What the weights determine of the inputs they are made of.

    Attributes:
        unknowns: Entries of all inputs and multipliers.
        undetermined: Dimension of the changes that leave the equations as they are.
        ceiling: Of each input, the correlation up to the group with itself of what is determined.
        weights: Share of the first layer's energy in each part of the group's action; None without such a layer.
        data: The same of the inputs.
    """

    unknowns: int
    undetermined: int
    ceiling: Float[Tensor, " n"]
    weights: dict[str, float] | None = None
    data: dict[str, float] | None = None

    def numbers(self) -> dict[str, Any]:
        """For a table or JSON."""
        plain = {name: value for name, value in asdict(self).items() if name != "ceiling"}
        return plain | {"ceiling": float(self.ceiling.mean())}


def information_of(
    model: nn.Module,
    x: Float[Tensor, "n d"],
    c: Float[Tensor, " n"],
    group: FiniteGroup,
    *,
    residual: float = 0.0,
) -> Information | None:
    """What the weights determine of inputs that solve (or nearly solve) the equations; None where there are too many.

    Args:
        model: One output.
        x: The inputs: the truth, or what was found.
        c: Their multipliers.
        group: Under which the model is invariant.
        residual: |R|^2 / |theta|^2 at the inputs: changes that make no more of it do not show.
    """
    matrix = _normal(model, x, c)
    if matrix is None:
        return None
    null = null_space(matrix, x, c, size=float(flat(parameters_of(model)).square().sum()), residual=residual)
    n, d = x.shape
    inputs = null[: n * d]
    rest = x - (inputs @ (inputs.T @ x.flatten())).view(n, d)
    ceiling = group.correlation(rest, x)[0].diagonal()
    weights, data = split(model, x, group)
    return Information(n * (d + 1), null.size(1), ceiling, weights, data)


def null_space(
    matrix: Float[Tensor, "unknowns unknowns"],
    x: Float[Tensor, "n d"],
    c: Float[Tensor, " n"],
    *,
    size: float,
    residual: float = 0.0,
) -> Float[Tensor, "unknowns null"]:
    """An orthonormal basis of the changes, as large as an input, that the weights do not show.

    Multipliers are measured by their mean size.

    Args:
        matrix: J^T J in (x, c).
        x: Inputs.
        c: Multipliers.
        size: |theta|^2.
        residual: |R|^2 / |theta|^2 here.
    """
    unit = torch.cat([x.new_ones(x.numel()), c.abs().mean().expand(len(c))])
    values, vectors = torch.linalg.eigh(matrix * unit * unit[:, None])
    shown = values * float(x.square().sum(1).mean())
    return vectors[:, shown <= max(NOISE, 10 * residual) * size]


def split(
    model: nn.Module, x: Float[Tensor, "n d"], group: FiniteGroup
) -> tuple[dict[str, float] | None, dict[str, float]]:
    """Energy of the first layer, and of inputs, by the parts of the group's action."""
    parts = isotypic_parts(group)
    first = next((p for p in parameters_of(model).values() if p.dim() == 2 and p.size(1) == x.size(1)), None)
    return None if first is None else energies(first, parts), energies(x, parts)


def _normal(model: nn.Module, x: Tensor, c: Tensor) -> Tensor | None:
    n, d = x.shape
    if n * (d + 1) > MOST_UNKNOWNS:
        return None
    layer = hidden_layer_of(model, d)
    if layer is not None:
        return normal_equations(layer, x, c)
    if n * (d + 1) * flat(parameters_of(model)).numel() > MOST_ENTRIES:
        return None
    return normal_equations_of_any(model, x, c)


def normal_equations_of_any(
    model: nn.Module, x: Float[Tensor, "n d"], c: Float[Tensor, " n"]
) -> Float[Tensor, "unknowns unknowns"]:
    """J^T J of the equations of any network with one output, by forward differentiation.

    Raises:
        CosetError: The network has several outputs.
    """
    parameters = parameters_of(model)
    with torch.no_grad():
        if functional_call(model, parameters, (x,)).dim() != 1:
            raise CosetError("the equations are written for networks of one output")

    def left(x: Tensor, c: Tensor) -> Tensor:
        return -flat(weighted_gradient(model, parameters, x, c))

    def along(direction: Tensor) -> Tensor:
        change = direction[: x.numel()].view_as(x), direction[x.numel() :]
        return jvp(left, (x, c), change)[1]

    directions = torch.eye(x.numel() + len(c), dtype=x.dtype)
    rows = torch.cat([vmap(along)(part) for part in directions.split(64)])
    return rows @ rows.T
