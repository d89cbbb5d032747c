r"""Second-order steps for the equations of one hidden layer: Levenberg-Marquardt after a warm start.

Adam creeps where the equations are ill conditioned; a Gauss-Newton step solves them to the last digit from the same
start. Each step minimises |R + J u|^2 + e |x + u_x|^2 + mu |u|^2, whose e falls with the residual: what the equations
do not determine stays as small as it can be. Searched are coordinates in the space that the weights span
(:meth:`HiddenLayer.visible`): neither memory nor time then grows with what inputs have outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from coset.privacy.hidden_layer import HiddenLayer

ROWS = 4096
"""Rows of the Jacobian that are held at a time."""
RIDGE = 1e-2
EXACT = 1e-15
"""Relative residual at which float64 has no digits left."""
SOLVED = 1e-12
"""Relative residual at which no other start is tried."""
PATIENCE = 20
"""Steps in which the residual must halve."""
SAME = 0.3
"""Distance, as a share of their length, at which two candidates are one."""


def normal_equations(
    layer: HiddenLayer, x: Float[Tensor, "m d"], c: Float[Tensor, " m"]
) -> Float[Tensor, "unknowns unknowns"]:
    """J^T J of the equations in (x, c)."""
    if len(layer.group) == 1:
        return _without_group(layer, x, c)
    m, d = x.shape
    total = x.new_zeros(m * (d + 1), m * (d + 1))
    count = len(layer.weight)
    for neurons in torch.eye(count, dtype=x.dtype).split(max(1, ROWS // (d + 2))):
        rows = layer.jacobian(x, c, neurons)
        total.addmm_(rows.T, rows)
    if "offset" in layer.trained:  # every block of neurons has counted its row
        blocks = -(-count // max(1, ROWS // (d + 2)))
        total[m * d :, m * d :] -= blocks - 1
    return total


def _without_group(layer: HiddenLayer, x: Tensor, c: Tensor) -> Tensor:
    """The same from m^2 products of the weights with themselves, without a Jacobian."""
    (m, d), weight = x.shape, layer.weight
    s0, s1, s2 = layer.activation(x @ weight.T + layer.bias)
    by_value = layer.value.square() if {"weight", "bias"} & layer.trained else torch.zeros_like(layer.value)
    own = float("weight" in layer.trained)
    gram = own * (x @ x.T) + float("bias" in layer.trained)
    on_value = float("value" in layer.trained)
    across = own * (s2 * by_value).unsqueeze(1) * s1  # s''_jk s'_ik v_k^2
    mixed = across @ weight
    total = x.new_zeros(m, d + 1, m, d + 1)
    shared = own * (s1 * by_value) @ s1.T
    for j in range(m):
        bend = gram[j, :, None] * by_value * s2[j] * s2 + on_value * s1[j] * s1
        block = torch.einsum("ke,ikf->eif", weight, bend.unsqueeze(-1) * weight)
        block += mixed[j].T.unsqueeze(-1) * x[j]
        block += x.T.unsqueeze(-1) * mixed[:, j]
        block.diagonal(dim1=0, dim2=2).add_(shared[j].unsqueeze(-1))
        total[j, :d, :, :d] = c[j] * block * c[:, None]
        to_c = gram[j, :, None] * by_value * s2[j] * s1 + on_value * s1[j] * s0
        total[j, :d, :, d] = c[j] * ((to_c @ weight).T + shared[j] * x.T)
        total[:, d, j, :d] = total[j, :d, :, d].T
    total[:, d, :, d] = gram * ((s1 * by_value) @ s1.T) + on_value * s0 @ s0.T + float("offset" in layer.trained)
    return torch.cat(
        [torch.cat([total[:, a, :, b].reshape(-1, n) for b, n in _parts(m, d)], 1) for a, _ in _parts(m, d)]
    )


def _parts(m: int, d: int) -> tuple[tuple[slice | int, int], ...]:
    """Entries of x, then of c, in a block of d + 1."""
    return (slice(0, d), m * d), (d, m)


@dataclass(frozen=True)
class Refined:
    """Attributes:
    x: Candidates.
    c: Their multipliers.
    residual: |R|^2 / |theta|^2 after each step; the last is what was reached.
    """

    x: Float[Tensor, "m d"]
    c: Float[Tensor, " m"]
    residual: list[float]


def refine(
    layer: HiddenLayer,
    x: Float[Tensor, "m d"],
    c: Float[Tensor, " m"],
    *,
    iterations: int = 100,
    progress: Callable[[], object] = lambda: None,
) -> Refined:
    """Levenberg-Marquardt from a warm start, until the equations hold to the last digit or no step helps.

    Args:
        layer: The equations, in float64.
        x: Candidates.
        c: Their multipliers; not all zero.
        iterations: The most.
        progress: Called after each.
    """
    m, d = x.shape
    scale = float(c.abs().mean())
    unit = torch.cat([torch.ones(m * d, dtype=x.dtype), torch.full((m,), scale, dtype=x.dtype)])

    def parts(u: Tensor) -> tuple[Tensor, Tensor]:
        return u[: m * d].view(m, d), scale * u[m * d :]

    def equations(u: Tensor) -> tuple[Tensor, Tensor]:
        at_x, at_c = parts(u)
        to_x, to_c, _ = layer.gradient(at_x.unsqueeze(0), at_c.unsqueeze(0))
        matrix = normal_equations(layer, at_x, at_c) * unit * unit[:, None]
        return matrix, torch.cat([to_x.flatten() / 2, to_c.flatten() * scale / 2])

    u, trace = levenberg_marquardt(
        lambda u: float(layer.squares(*parts(u))), equations, torch.cat([x.flatten(), c / scale]), size=layer.size,
        small=m * d, iterations=iterations, progress=progress,
    )  # fmt: skip
    return Refined(*parts(u), trace)


def levenberg_marquardt(
    squares: Callable[[Tensor], float],
    equations: Callable[[Tensor], tuple[Tensor, Tensor]],
    u: Float[Tensor, " unknowns"],
    *,
    size: float,
    small: int,
    iterations: int,
    ridge: float = RIDGE,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Float[Tensor, " unknowns"], list[float]]:
    """Damped Gauss-Newton steps; where they end, and the relative residual after each.

    Args:
        squares: |R|^2.
        equations: J^T J and J^T R.
        u: Start.
        size: |theta|^2.
        small: How many of the first unknowns are to be as small as the equations let them.
        iterations: The most.
        ridge: e |x|^2 as a share of the residual.
        progress: Called after each.
    """
    value, damping, growth = squares(u), 0.0, 2.0
    trace = [value / size]
    for _ in range(iterations):
        length = float(u[:small].square().sum())
        pull = ridge * value / max(length, 1e-300)
        matrix, slope = equations(u)
        matrix.diagonal()[:small] += pull
        slope[:small] += pull * u[:small]
        damping = damping or 1e-3 * float(matrix.diagonal().max())
        before = value + pull * length
        for _ in range(12):
            step = _solve(matrix, slope, damping)
            if step is not None:
                moved = u + step
                found = squares(moved)
                gain = before - found - pull * float(moved[:small].square().sum())
                if gain > 0:
                    break
            damping, growth = damping * growth, 2 * growth
        else:
            break
        foreseen = float(-(2 * slope @ step + step @ (matrix @ step)))
        damping *= max(0.1, 1 - (2 * gain / max(foreseen, 1e-300) - 1) ** 3)
        u, value, growth = moved, found, 2.0
        trace.append(value / size)
        progress()
        if value <= EXACT * size or (len(trace) > PATIENCE and trace[-1] > 0.5 * trace[-1 - PATIENCE]):
            break
    return u, trace


def merged(layer: HiddenLayer, x: Float[Tensor, "m d"], c: Float[Tensor, " m"]) -> tuple[Tensor, Tensor]:
    """One candidate for all those that are alike up to the group, with the sum of their multipliers.

    A search for more candidates than there are inputs finds some twice, and some with no multiplier. What is left is
    the number of inputs that the weights are made of.
    """
    order = c.abs().argsort(descending=True)
    order = order[c[order].abs() > 1e-3 * c.abs().max()]
    kept: list[tuple[Tensor, Tensor]] = []
    for j in order.tolist():
        orbit = layer.group.orbit(x[j])
        for place, (y, weight) in enumerate(kept):
            away, nearest = (orbit - y).norm(dim=-1).min(0)
            if away < SAME * y.norm() and float(weight * c[j]) > 0:
                kept[place] = ((weight * y + c[j] * orbit[nearest]) / (weight + c[j]), weight + c[j])
                break
        else:
            kept.append((x[j], c[j]))
    return torch.stack([y for y, _ in kept]), torch.stack([weight for _, weight in kept])


def solve(
    layer: HiddenLayer,
    starts: Sequence[tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]],
    *,
    iterations: int = 100,
    progress: Callable[[], object] = lambda: None,
) -> Refined:
    """The best of several warm starts, each refined, rid of doubles, and refined again, up to the first exact one.

    Args:
        layer: The equations.
        starts: Candidates and multipliers, the most promising first.
        iterations: The most of each refinement.
        progress: Called after each step.
    """
    best: Refined | None = None
    for x, c in starts:
        once = refine(layer, x, c, iterations=iterations, progress=progress)
        again = refine(layer, *merged(layer, once.x, once.c), iterations=iterations, progress=progress)
        found = again if again.residual[-1] <= max(once.residual[-1], SOLVED) else once
        if best is None or found.residual[-1] < best.residual[-1]:
            best = found
        if best.residual[-1] <= SOLVED:
            break
    assert best is not None
    return best


def _solve(matrix: Tensor, slope: Tensor, damping: float) -> Tensor | None:
    damped = matrix.clone()
    damped.diagonal().add_(damping)
    factor, wrong = torch.linalg.cholesky_ex(damped)
    return None if int(wrong) else -torch.cholesky_solve(slope[:, None], factor)[:, 0]
