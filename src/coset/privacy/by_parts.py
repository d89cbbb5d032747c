r"""The equations of an averaged network, solved part by part of the group's action, the most symmetric neurons first.

A neuron that a subgroup H leaves as it is sees an input only in the parts of the action that have vectors fixed under H
(:mod:`coset.privacy.deletion`). Where decay has made most neurons symmetric, the equations therefore come apart:

1. Neurons that the whole group leaves as they are see P x_j alone: a network *without* a group, in as many dimensions
   as symmetric inputs have. Its equations give P x_j and all multipliers.
2. With these held, the neurons that see one part more are equations for that part alone, and so on up to neurons that
   see everything. What a step leaves undetermined is looked for again with the next part.

Each step has few unknowns and few wrong minima; all of them at once are where a search from afar gets stuck.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coset.core.errors import CosetError
from coset.privacy.deletion import stabilisers
from coset.privacy.groups import FiniteGroup, LinearGroup
from coset.privacy.hidden_layer import HiddenLayer
from coset.privacy.irreps import Part, isotypic_parts
from coset.privacy.second_order import Refined, levenberg_marquardt, refine

SEEN = 1e-6
"""Length of a projection below which a neuron, or the weights, do not see a part."""
HELD = 1e-11
"""Relative residual at which a step needs no other start: neurons are symmetric to some digits only."""
HIDDEN = 1e-12
"""Relative residual that a change of the size of an input must make to count as determined."""
SIZES = 0.03, 0.1, 0.3
"""Deviations of the starts of a step, in turns."""
DESCENT = 400
"""Steps of Adam before the first second-order one."""


@dataclass(frozen=True)
class _Search:
    """What all steps share."""

    layer: HiddenLayer
    starts: int
    seed: int
    progress: Callable[[], object]


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
    seen = _seen(layer, parts)
    search = _Search(layer, starts, seed, progress)
    symmetric = seen.sum(1) == 1
    if int(symmetric.sum()) * len(parts[0]) < count * (len(parts[0]) + 1):
        raise CosetError(
            f"by parts: {int(symmetric.sum())} neurons that the group leaves as they are do not suffice to begin with"
        )
    x, c = _symmetric_part(search, symmetric, parts[0].basis, count, scale)
    x = _other_parts(search, parts, seen, x, c)
    basis = layer.visible()
    found = refine(layer.on(basis), x @ basis, c, iterations=60, progress=progress)
    return Refined(found.x @ basis.T, found.c, found.residual)


def _seen(layer: HiddenLayer, parts: list[Part]) -> Bool[Tensor, "k parts"]:
    """Parts with vectors fixed under each neuron's stabiliser."""
    fixed = stabilisers(layer).double()
    patterns, which = (fixed / fixed.sum(1, keepdim=True)).unique(dim=0, return_inverse=True)
    means = torch.einsum("kg,gab->kab", patterns, layer.group.matrices())
    return torch.stack([(means @ part.basis).flatten(1).norm(dim=1) > SEEN for part in parts], 1)[which]


def _symmetric_part(
    search: _Search, rows: Bool[Tensor, " k"], basis: Float[Tensor, "d r"], count: int, scale: float
) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """P x_j and multipliers, from the neurons that see nothing else."""
    layer = _some(search.layer, rows)
    own = replace(layer, weight=layer.weight @ basis, group=_none(basis.size(1)))
    inside = own.visible()
    own = replace(own, weight=own.weight @ inside, group=_none(inside.size(1)))
    best: Refined | None = None
    for number in range(search.starts):
        generator = torch.Generator().manual_seed(search.seed + number)
        x = (0.01, 0.1, 0.3)[number % 3] * torch.randn(count, inside.size(1), generator=generator, dtype=torch.float64)
        signs = torch.where(torch.arange(count) < count // 2, -1.0, 1.0).double()
        found = refine(own, *_descended(own, x, signs, scale), iterations=400)
        search.progress()
        if best is None or found.residual[-1] < best.residual[-1]:
            best = found
        if best.residual[-1] <= 1e-14:
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


def _other_parts(
    search: _Search, parts: list[Part], seen: Bool[Tensor, "k parts"], x: Float[Tensor, "m d"], c: Float[Tensor, " m"]
) -> Float[Tensor, "m d"]:
    """The rest of the inputs, a part or a few at a time, those of fewest dimensions first."""
    views = [frozenset(row.nonzero().flatten().tolist()) for row in seen]
    visible = search.layer.visible()
    known, pending = frozenset({0}), frozenset[int]()
    while wanted := {view - known - pending for view in views if view - known - pending} or ({pending} - {frozenset()}):
        new = pending | min(wanted, key=lambda some: (sum(len(parts[p]) for p in some), sorted(some)))
        rows = torch.tensor([view <= known | new and bool(view & new) for view in views])
        basis = _inside(visible, [parts[p].basis for p in sorted(new)])
        held = torch.cat([parts[p].basis for p in sorted(known)], 1)
        fixed = x @ held @ held.T
        x, undetermined = _step(search, rows, fixed, c, basis, (x - fixed) @ basis if pending else None)
        more = any(view & new and not view <= known | new for view in views)
        if undetermined and more:
            pending = new
        else:
            known, pending = known | new, frozenset()
    return x


def _step(
    search: _Search, rows: Bool[Tensor, " k"], fixed: Float[Tensor, "m d"], c: Float[Tensor, " m"],
    basis: Float[Tensor, "d r"], warm: Float[Tensor, "m r"] | None,
) -> tuple[Float[Tensor, "m d"], int]:  # fmt: skip
    """Coordinates in a basis by some of the neurons: the best of several starts, and how many directions are open."""
    layer, size = _some(search.layer, rows), search.layer.size
    m, r = len(fixed), basis.size(1)

    def at(u: Tensor) -> Tensor:
        return fixed + u.view(m, r) @ basis.T

    def jacobian(u: Tensor) -> Tensor:
        full = layer.jacobian(at(u), c)[:, : fixed.numel()]
        return (full.view(-1, m, fixed.size(1)) @ basis).flatten(1)

    def equations(u: Tensor) -> tuple[Tensor, Tensor]:
        rows_of = jacobian(u)
        return rows_of.T @ rows_of, rows_of.T @ layer.residual(at(u), c)["weight"].flatten()

    best, least = fixed.new_zeros(m * r), math.inf
    for start in _starts(search, m, r, warm):
        u, trace = levenberg_marquardt(
            lambda u: float(layer.squares(at(u), c)), equations, start.flatten(), size=size, small=m * r, iterations=200
        )
        search.progress()
        if trace[-1] < least:
            best, least = u, trace[-1]
        if least <= HELD:
            break
    rows_of = jacobian(best)
    shown = torch.linalg.eigvalsh(rows_of.T @ rows_of) * float(fixed.square().sum(1).mean())
    return at(best), int((shown <= max(HIDDEN, 10 * least) * size).sum())


def _starts(search: _Search, m: int, r: int, warm: Tensor | None) -> list[Tensor]:
    """From near what the last step left open, from farther, from anywhere, in turns."""
    found = []
    for number in range(search.starts):
        generator = torch.Generator().manual_seed(search.seed + number)
        away = SIZES[number % 3] * torch.randn(m, r, generator=generator, dtype=torch.float64)
        if warm is not None and number % 3 < 2:
            new = warm.abs().amax(0) == 0
            away = warm + away * torch.where(new, 1.0, (0.1, 1.0)[number % 3])
        found.append(away)
    return found


def _some(layer: HiddenLayer, rows: Bool[Tensor, " k"]) -> HiddenLayer:
    """Some of the neurons."""
    return replace(layer, weight=layer.weight[rows], bias=layer.bias[rows], value=layer.value[rows])


def _none(dimensions: int) -> LinearGroup:
    """No group."""
    return LinearGroup(torch.eye(dimensions, dtype=torch.float64).unsqueeze(0), "")


def _inside(visible: Float[Tensor, "d v"], bases: list[Tensor]) -> Float[Tensor, "d r"]:
    """A basis of what the weights see of some parts."""
    vectors, sizes, _ = torch.linalg.svd(visible @ (visible.T @ torch.cat(bases, 1)), full_matrices=False)
    return vectors[:, sizes > SEEN]
