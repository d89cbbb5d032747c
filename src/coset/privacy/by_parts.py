r"""The equations of an averaged network, solved part by part of the group's action, the most symmetric neurons first.

A neuron that a subgroup H leaves as it is sees an input only in the parts of the action that have vectors fixed under H
(:mod:`coset.privacy.deletion`). Where decay has made most neurons symmetric, the equations therefore come apart:

1. Neurons that the whole group leaves as they are see P x_j alone: a network *without* a group, in as many dimensions
   as symmetric inputs have. Its equations give P x_j and all multipliers.
2. With these held, the neurons that see one part more are equations for that part alone; then all that was solved so
   far, multipliers too, is solved together. So on up to neurons that see everything.

Neurons that see two parts fix the one in relation to the other (signs, or group elements, of each input), so that a
part is solved after those which its neurons see as well, not apart from them. Each step has few unknowns and few wrong
minima; all of them at once are where a search from afar gets stuck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.errors import CosetError
from coset.privacy.groups import FiniteGroup, LinearGroup
from coset.privacy.hidden_layer import HiddenLayer
from coset.privacy.irreps import Part, isotypic_parts
from coset.privacy.second_order import RIDGE, Refined, levenberg_marquardt, refine
from coset.privacy.views import SEEN, View, normal_equations, squares, views_of

SIZES = 0.03, 0.1, 0.3
"""Deviations of the starts of a step, in turns."""
FIRST_SIZES = 0.01, 0.1, 0.3
"""Of the first step, whose descent makes them larger."""
DESCENT = 400
"""Steps of Adam before the first second-order one."""
FIRST_HELD = 1e-14
"""Relative residual at which the first step needs no other start."""
HELD = 1e-12
"""At which a later one needs none: neurons are symmetric to some digits only."""
SMALL = 0.3, 0.01
"""Weights of a new part's size beside the residual, in turns: few neurons leave directions of it open, along which it
grows; near 0 the larger one holds it there."""
ALIKE = 0.02
"""Relative difference of residuals below which two starts count as ended in one place."""


@dataclass(frozen=True)
class _Search:
    """What all steps share."""

    layer: HiddenLayer
    parts: list[Part]
    visible: Float[Tensor, "d v"]
    starts: int
    seed: int
    progress: Callable[[], object]

    def basis(self, parts: frozenset[int]) -> Float[Tensor, "d r"]:
        """Of what the weights see of some parts."""
        vectors = torch.cat([self.parts[p].basis for p in sorted(parts)], 1)
        vectors, sizes, _ = torch.linalg.svd(self.visible @ (self.visible.T @ vectors), full_matrices=False)
        return vectors[:, sizes > SEEN]


@dataclass(frozen=True)
class _Solved:
    """So far: inputs, multipliers, the parts that they are solved in."""

    x: Float[Tensor, "m d"]
    c: Float[Tensor, " m"]
    known: frozenset[int] = frozenset({0})


def solve_by_parts(
    layer: HiddenLayer, count: int, scale: float, *, starts: int = 8, seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> Refined:  # fmt: skip
    """Candidates and multipliers of a network averaged over a finite group.

    Args:
        layer: The equations, in float64, of first-layer weights alone.
        count: Candidates: the number of training inputs.
        scale: Size of a multiplier.
        starts: The most of each step.
        seed: Of all of them.
        progress: Called after each start.

    Raises:
        CosetError: Other parameters were trained, there is no group, or no neuron is left as it is by all of it.
    """
    group = layer.group
    if not isinstance(group, FiniteGroup) or len(group) == 1 or layer.trained != {"weight"}:
        raise CosetError("by parts: for networks averaged over a group whose first layer's weights alone were trained")
    parts = isotypic_parts(group)
    views = views_of(layer, parts)
    search = _Search(layer, parts, layer.visible(), starts, seed, progress)
    symmetric = [view for view in views if view.parts == {0}]
    neurons = sum(len(view.value) for view in symmetric)
    if neurons * len(parts[0]) < count * (len(parts[0]) + 1):
        raise CosetError(f"by parts: {neurons} neurons that the group leaves as they are do not suffice to begin with")
    solved = _Solved(*_symmetric_part(search, symmetric[0], count, scale))
    sizes, seen = [len(part) for part in parts], [view.parts for view in views]
    while new := _next(sizes, seen, solved.known):
        solved = _step(search, views, solved, new)
    found = refine(layer.on(search.visible), solved.x @ search.visible, solved.c, iterations=20, progress=progress)
    return Refined(found.x @ search.visible.T, found.c, found.residual)


def _symmetric_part(
    search: _Search, view: View, count: int, scale: float
) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """P x_j and multipliers, from the neurons that see nothing else."""
    basis = view.moved[0].T
    own = replace(search.layer, weight=view.weight, bias=view.bias, value=view.value, group=_none(basis.size(1)))
    inside = own.visible()
    own = replace(own, weight=own.weight @ inside, group=_none(inside.size(1)))
    best: Refined | None = None
    for number in range(search.starts):
        x = FIRST_SIZES[number % len(FIRST_SIZES)] * _random(search.seed + number, count, inside.size(1))
        signs = torch.where(torch.arange(count) < count // 2, -1.0, 1.0).double()
        found = refine(own, *_descended(own, x, signs, scale), iterations=400)
        search.progress()
        if best is None or found.residual[-1] < best.residual[-1]:
            best = found
        if best.residual[-1] <= FIRST_HELD:
            break
    assert best is not None
    return best.x @ (basis @ inside).T, best.c


def _descended(layer: HiddenLayer, x: Tensor, signs: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """A short descent, which second-order steps go on from."""
    x, c = x.clone().requires_grad_(), signs.clone().requires_grad_()
    optimizer = torch.optim.Adam([x, c], lr=0.02)
    for step in range(DESCENT):
        to_x, to_c, _ = layer.gradient(x.detach().unsqueeze(0), scale * c.detach().unsqueeze(0))
        x.grad, c.grad = to_x[0], scale * to_c[0]
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / DESCENT))
        optimizer.step()
    return x.detach(), scale * c.detach()


def _next(sizes: list[int], views: list[frozenset[int]], solved: frozenset[int]) -> frozenset[int]:
    """Parts to solve for next: those of neurons that see as much as can be of the parts before, and few new ones."""

    def order(view: frozenset[int]) -> tuple[int, int, list[int]]:
        apart, new = (sum(sizes[p] for p in some) for some in (solved - view, view - solved))
        return apart, new, sorted(view)

    return min((view for view in views if view - solved), key=order, default=solved) - solved


def _step(search: _Search, views: Sequence[View], before: _Solved, new: frozenset[int]) -> _Solved:
    """Some parts more: by the neurons that see them, from several starts, then the best of these with all the rest."""
    known, fresh = before.known | new, search.basis(new)
    sees = [view for view in views if view.parts <= known]
    own = [view for view in sees if view.parts & new]
    tried: list[list[Refined]] = [[] for _ in SMALL]
    for number in range(search.starts):
        away = SIZES[number % len(SIZES)] * _random(search.seed + number, len(before.x), fresh.size(1))
        turn = number % len(SMALL)
        found = _improved(search, own, before.x + away @ fresh.T, before.c, new, ridge=SMALL[turn])
        tried[turn].append(found)
        search.progress()
        if found.residual[-1] <= HELD:
            break
    best: Refined | None = None
    for some in _promising(tried):
        found = _improved(search, sees, some.x, some.c, known, multipliers=True)
        search.progress()
        if best is None or found.residual[-1] < best.residual[-1]:
            best = found
        if best.residual[-1] <= HELD:
            break
    assert best is not None
    return _Solved(best.x, best.c, known)


def _promising(tried: list[list[Refined]]) -> list[Refined]:
    """The smallest residual of each weight, then the next; one of those that ended in one place."""
    ranked = [sorted(some, key=lambda one: one.residual[-1]) for some in tried]
    kept: list[Refined] = []
    for one in (one for row in zip_longest(*ranked) for one in row if one is not None):
        if all(abs(math.log(one.residual[-1] / other.residual[-1])) > ALIKE for other in kept):
            kept.append(one)
    return kept


def _improved(
    search: _Search, views: Sequence[View], x: Float[Tensor, "m d"], c: Float[Tensor, " m"], parts: frozenset[int],
    *, multipliers: bool = False, ridge: float = RIDGE,
) -> Refined:  # fmt: skip
    """Second-order steps in some parts of all inputs, the others held; multipliers too, or held."""
    basis, scale = search.basis(parts), float(c.abs().mean()) if multipliers else None
    free, held = len(x) * basis.size(1), x - x @ basis @ basis.T

    def at(u: Tensor) -> tuple[Tensor, Tensor]:
        return held + u[:free].view(len(x), -1) @ basis.T, c if scale is None else scale * u[free:]

    start = (x @ basis).flatten()
    u, trace = levenberg_marquardt(
        lambda u: squares(views, *at(u)), lambda u: normal_equations(views, *at(u), basis, scale),
        start if scale is None else torch.cat([start, c / scale]), size=search.layer.size, small=free, iterations=200,
        ridge=ridge,
    )  # fmt: skip
    return Refined(*at(u), trace)


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _none(dimensions: int) -> LinearGroup:
    """No group."""
    return LinearGroup(torch.eye(dimensions, dtype=torch.float64).unsqueeze(0), "")
