"""Merging tensor by tensor: no wiring, no samples, any architecture, one tensor of each model in memory.

The definitions are those of the papers, with the choices that mergekit has made of them (which tensor an angle is
taken of, what a sum is divided by, how what is left of a pruned difference is scaled), so that its recipes give the
same numbers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from coset.core.errors import CosetError
from coset.weights.merging.methods import MERGE_METHODS, Material, MergeMethod, Outcome, error_of_heads
from coset.weights.merging.teachers import in_same_basis, states_of

Tensors = Sequence[Tensor]
Base = Literal["none", "needed", "optional"]
PARALLEL = 0.9995
"""Cosine from which SLERP interpolates in a straight line."""


@dataclass(frozen=True)
class Values:
    """Settings of one tensor.

    Attributes:
        weight: Of each model.
        density: Share of entries of each model's difference that is kept.
        gamma: Share of its largest entries that Breadcrumbs removes.
        epsilon: Half the range of DELLA's probabilities.
        scale: Of each model, for ``passthrough``.
        t: Where between two models.
        lam: What a merged difference is multiplied with (``lambda``).
        normalize: Whether sums are divided by the weights in them; None: as the method is used to.
        rescale: Whether pruned differences keep the sum of their sizes; None: as the method is used to.
        flatten: Of ``nuslerp``: one angle for a tensor; else one for each of its rows.
        row_wise: Of ``nuslerp`` without ``flatten``: angles between slices along the first axis, as mergekit has it.
        filter_wise: Of ``model_stock``: a cosine for each row; a vector is one.
        select_topk: Share of entries of the largest variance that SCE looks at.
        max_iter: Steps of the Karcher mean.
        tol: Where it stops.
    """

    weight: Sequence[float]
    density: Sequence[float]
    gamma: Sequence[float]
    epsilon: Sequence[float]
    scale: Sequence[float]
    t: float = 0.5
    lam: float = 1.0
    normalize: bool | None = None
    rescale: bool | None = None
    flatten: bool = True
    row_wise: bool = False
    filter_wise: bool = False
    select_topk: float = 1.0
    max_iter: int = 10
    tol: float = 1e-5

    @classmethod
    def of(cls, models: int, **given: Any) -> Values:
        """Defaults for so many models, and what is given."""
        one = {"weight": 1.0, "density": 1.0, "gamma": 0.01, "epsilon": 0.15, "scale": 1.0}
        return cls(**({name: [value] * models for name, value in one.items()} | given))


Mixer = Callable[[Tensors, "Tensor | None", Values, torch.Generator], Tensor]


class ByName(Protocol):
    """Parameters of a network, each read when it is asked for."""

    def __getitem__(self, name: str) -> Tensor: ...


class PerTensor(MergeMethod):
    """A method that looks at one tensor of each model at a time.

    Args:
        name: Of the method.
        function: Of the models' tensors, the base's, settings and a generator that follows from seed and name.
        base: Whether it asks for the model that all began as.
        models: How many it merges; ``None`` for any number from two, or from one where there is a base.
        uses: Which of :class:`Values` it looks at.
        tries: For one of its settings the values that a comparison tries.
    """

    def __init__(
        self, name: str, function: Mixer, base: Base, models: int | None, uses: Iterable[str],
        tries: Mapping[str, Sequence[float]],
    ):  # fmt: skip
        self.name, self.function, self.models, self.samples, self.files = name, function, models, False, True
        self.base, self.base_optional = base == "needed", base == "optional"
        self.least, self.settings = models or (1 if self.base else 2), frozenset(uses)
        self.tries = [{name: value} for name, values in tries.items() for value in values] or [{}]
        self.mix = self._mix

    def _mix(
        self, models: Sequence[ByName], base: ByName | None = None, values: Callable[[str], Values] | None = None,
        seed: int = 0,
    ) -> Callable[[str], Tensor]:  # fmt: skip
        def mixed(name: str) -> Tensor:
            tensors = [m[name].float() for m in models]
            begin = None if base is None else base[name].float()
            chosen = Values.of(len(models)) if values is None else values(name)
            generator = torch.Generator().manual_seed(_seed_of(seed, name))
            return self.function(tensors, begin, chosen, generator).reshape(tensors[0].shape)

        return mixed

    def merge(self, material: Material) -> Outcome:
        started, teachers, encoder = time.process_time(), material.teachers, material.setting.base
        if self.base and encoder is None:
            raise CosetError(f"{self.name} needs base: the network that all began as")
        if self.models not in (None, len(teachers)):
            raise CosetError(f"{self.name} takes {self.models} models, not {len(teachers)}")
        base = None
        if self.base and encoder is not None:
            base = {name: p.detach() for name, p in encoder.named_parameters()}
        tried = []
        for values in self.tries:
            chosen = Values.of(len(teachers), **values)
            mixed = self._mix(states_of(teachers), base, lambda _, v=chosen: v, material.setting.fit.seed)  # type: ignore[misc]
            tried.append(in_same_basis(teachers, lambda _, s, m=mixed: {n: m(n).to(s[0][n]) for n in s[0]}))  # type: ignore[misc]
        seconds = time.process_time() - started
        if len(tried) == 1:
            return Outcome(tried[0], seconds=seconds)
        errors = [error_of_heads(model, teachers, material.held_out) for model in tried]
        best = min(range(len(tried)), key=errors.__getitem__)
        return Outcome(tried[best], seconds=time.process_time() - started, held_out=errors[best])


def mixer(
    name: str, *uses: str, base: Base = "none", models: int | None = None, **tries: Sequence[float]
) -> Callable[[Mixer], Mixer]:
    """A decorator that registers a function of tensors as a :class:`PerTensor`."""

    def add(function: Mixer) -> Mixer:
        MERGE_METHODS.register(name)(PerTensor(name, function, base, models, uses, tries))
        return function

    return add


def _seed_of(seed: int, name: str) -> int:
    """Another for each tensor, and the same whatever the order in which tensors come."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big")


@mixer("linear", "weight", "normalize")
def linear(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """sum_i w_i W_i, divided by sum_i w_i unless ``normalize`` is false.

    Raises:
        CosetError: It would be divided by 0.
    """
    total, below = _weighted_sum(v.weight, tensors), sum(v.weight)
    if v.normalize is False:
        return total
    if abs(below) < 1e-8:
        raise CosetError("linear divides by the sum of weights, which is 0: give others, or normalize: false")
    return total.div_(below)


def _weighted_sum(weights: Sequence[float], tensors: Tensors) -> Tensor:
    """In one tensor more: an embedding of a large model is hundreds of megabytes."""
    total = weights[0] * tensors[0]
    for weight, value in zip(weights[1:], tensors[1:], strict=True):
        total.add_(value, alpha=weight)
    return total


@mixer("slerp", "t", models=2, t=(0.3, 0.5, 0.7))
def slerp(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """Along the great circle between the directions of two tensors; in a straight line where these are parallel."""
    return _on_the_circle(tensors[0], tensors[1], v.t, PARALLEL)


@mixer("nuslerp", "weight", "flatten", "row_wise", base="optional", models=2)
def nuslerp(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """SLERP at t = w_2 / (w_1 + w_2), of differences from a base if there is one, of tensors or of their rows."""
    total = sum(v.weight)
    t = 0.5 if abs(total) < 1e-6 else v.weight[1] / total
    moved = [x - base for x in tensors] if base is not None else list(tensors)
    if v.flatten:
        found = _on_the_circle(moved[0], moved[1], t, 1.0)
    else:
        axis = 0 if v.row_wise else -1
        found = _on_circles(moved[0].transpose(axis, -1), moved[1].transpose(axis, -1), t).transpose(axis, -1)
    return found if base is None else base + found


def _on_circles(a: Tensor, b: Tensor, t: float) -> Tensor:
    """SLERP of each pair of vectors along the last axis; in a straight line where they are parallel."""
    units = [x / x.norm(dim=-1, keepdim=True).clamp(min=1e-7) for x in (a, b)]
    cosine = (units[0] * units[1]).sum(-1, keepdim=True).clamp(-1, 1)
    straight = 1 - cosine.square() <= 1e-16
    angle = torch.acos(torch.where(straight, 0, cosine))
    arc = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
    return torch.where(straight, (1 - t) * a + t * b, arc)


def _on_the_circle(a: Tensor, b: Tensor, t: float, parallel: float) -> Tensor:
    norms = [x.norm().clamp(min=1e-8) for x in (a, b)]
    cosine = (a.flatten() @ b.flatten() / norms[0] / norms[1]).clamp(-1, 1)
    if abs(float(cosine)) >= parallel:
        return _weighted_sum((1 - t, t), (a, b))
    angle = torch.acos(cosine)
    shares = [float(torch.sin(share * angle) / torch.sin(angle)) for share in (1 - t, t)]
    return _weighted_sum(shares, (a, b))


@mixer("multislerp", "weight", "normalize", base="optional")
def multislerp(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """Directions projected to the tangent space at their weighted mean, averaged there, and brought back.

    Raises:
        CosetError: The directions cancel.
    """
    moved = torch.stack([x - base if base is not None else x for x in tensors]).flatten(1)
    weights = torch.tensor(v.weight)
    weights = (weights if v.normalize is False else weights / weights.sum())[:, None]
    norms = moved.norm(dim=1, keepdim=True)
    units = moved / (norms + 1e-8)
    mean = (weights * units).sum(0)
    if float(mean.norm()) < 1e-8:
        if len(tensors) > 2 and float(norms.sum()) > 0:
            raise CosetError("multislerp: the directions of the models cancel: give them other weights")
        found = (weights * moved).sum(0)
    else:
        mean = mean / mean.norm()
        tangent = (weights * (units - (units @ mean)[:, None] * mean)).sum(0)
        size = tangent.norm() + 1e-8
        found = (mean * torch.cos(size) + tangent * (torch.sin(size) / size)) * (weights * norms).sum()
    found = found.reshape(tensors[0].shape)
    return found if base is None else base + found


@mixer("karcher", "max_iter", "tol")
def karcher(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """The point of the sphere of directions with the smallest sum of squared angles, times the mean norm."""
    norms = [float(x.norm()) for x in tensors]
    units = [x / n for x, n in zip(tensors, norms, strict=True) if n > v.tol]
    if not units:
        return torch.zeros_like(tensors[0])
    mean = torch.stack(units).mean(0)
    mean = units[0] if float(mean.norm()) < v.tol else mean / mean.norm()
    for _step in range(v.max_iter):
        tangent = torch.zeros_like(mean)
        for unit in units:
            cosine = (mean.flatten() @ unit.flatten()).clamp(-1, 1)
            angle = torch.acos(cosine)
            if float(angle) >= v.tol:
                tangent += angle / torch.sin(angle) * (unit - cosine * mean) / len(units)
        size = tangent.norm()
        if float(size) < v.tol:
            break
        mean = torch.cos(size) * mean + torch.sin(size) * tangent / size
        mean = mean / mean.norm()
    return mean * (sum(norms) / len(norms))


@mixer("nearswap", "t", base="needed", models=1, t=(1e-3, 1e-2))
def nearswap(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """The base, moved to the other model where the two are nearer than t, and by a share t / |difference| elsewhere."""
    assert base is not None
    share = (v.t / (tensors[0] - base).abs().clamp(min=1e-6)).clamp(0, 1)
    return share * tensors[0] + (1 - share) * base


@mixer("passthrough", "scale", models=1)
def passthrough(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """One model as it is, times ``scale``."""
    return tensors[0] * v.scale[0]


@mixer("model_stock", "filter_wise", base="needed")
def model_stock(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """t mean + (1 - t) base, t = k c / (1 + (k - 1) c), c the mean cosine of differences (Jang et al. 2024).

    c is of whole tensors, or with ``filter_wise`` of each row.

    Raises:
        CosetError: There are fewer than two models.
    """
    assert base is not None
    if len(tensors) < 2:
        raise CosetError("model_stock takes two models at least, beside base_model")
    moved = [x - base if v.filter_wise else (x - base).flatten() for x in tensors]
    cosines = [
        ((a * b).sum(-1, keepdim=True) / (a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)).clamp(min=1e-6))
        for i, a in enumerate(moved)
        for b in moved[i + 1 :]
    ]
    cosine, k = torch.stack(cosines).clamp(-1, 1).mean(0), len(moved)
    below = 1 + (k - 1) * cosine
    t = torch.where(below.abs() < 1e-6, 0, k * cosine / below)
    return t * torch.stack(list(tensors)).mean(0) + (1 - t) * base


@mixer("sce", "select_topk", base="needed")
def sce(tensors: Tensors, base: Tensor | None, v: Values, _: torch.Generator) -> Tensor:
    """Entries of the largest variance, models weighted by mean squares, signs elected (Wan et al. 2024)."""
    assert base is not None
    moved = torch.stack([x - base for x in tensors])
    if v.select_topk < 1:
        variance = moved.var(0, unbiased=False).flatten()
        keep = int(int((variance != 0).sum()) * v.select_topk)
        kept = torch.zeros_like(variance).index_fill(0, variance.topk(keep).indices, 1.0)
        moved = moved * kept.reshape(base.shape)
    squares = moved.square().flatten(1).mean(1)
    total = float(squares.sum())
    weights = (torch.full_like(squares, 1 / len(squares)) if total < 1e-6 else squares / total).reshape(
        -1, *[1] * base.dim()
    )
    agreeing = weights * _agreeing(moved)
    return base + (moved * agreeing).sum(0) / agreeing.sum(0).clamp(min=1e-6)


def _agreeing(moved: Tensor) -> Tensor:
    """1 where an entry has the sign of the sum over models (a sum of 0 counts as positive), 0 elsewhere."""
    sign = (moved.sum(0) >= 0).to(moved) * 2 - 1
    return (moved.sign() == sign).to(moved)


@dataclass(frozen=True)
class _Differences:
    """Methods on differences from a base: prune, elect signs or not, add.

    Attributes:
        prune: Of a difference, its number among the models, settings, and a generator.
        elect: Whether entries whose sign is in the minority are left out.
        normalize: Whether the sum is divided by the weights in it, unless the settings say.
        rescale: Whether what is left of a difference is scaled to the sum of sizes it had, unless the settings say.
    """

    prune: Callable[[Tensor, int, Values, torch.Generator], Tensor] | None = None
    elect: bool = False
    normalize: bool = False
    rescale: bool = False

    def __call__(self, tensors: Tensors, base: Tensor | None, v: Values, generator: torch.Generator) -> Tensor:
        assert base is not None
        weighted = []
        for i, (x, weight) in enumerate(zip(tensors, v.weight, strict=True)):
            moved = x - base
            if self.prune is not None:
                pruned = self.prune(moved, i, v, generator)
                moved = _as_large(pruned, moved) if (self.rescale if v.rescale is None else v.rescale) else pruned
            weighted.append(moved.mul_(weight))
        found, below = _elected(weighted, v.weight) if self.elect else (_sum_of(weighted), sum(v.weight))
        if self.normalize if v.normalize is None else v.normalize:
            below = torch.as_tensor(below)
            found = found.div_(torch.where(below.abs() < 1e-8, 1.0, below))
        return found.mul_(v.lam).add_(base)


def _sum_of(tensors: Tensors) -> Tensor:
    total = tensors[0].clone()
    for value in tensors[1:]:
        total.add_(value)
    return total


def _elected(weighted: Tensors, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Sums over models of entries with the sign of the sum of all (0 counts as positive), and of their weights."""
    sign = (_sum_of(weighted) >= 0).to(weighted[0]) * 2 - 1
    found, below = torch.zeros_like(sign), torch.zeros_like(sign)
    for value, weight in zip(weighted, weights, strict=True):
        agreeing = value.sign() == sign
        found.add_(value * agreeing)
        below.add_(agreeing, alpha=weight)
    return found, below


def _as_large(pruned: Tensor, whole: Tensor) -> Tensor:
    before, after = whole.abs().sum(), pruned.abs().sum()
    return pruned * (before / after) if float(before) >= 1e-7 and float(after) >= 1e-7 else pruned


def largest(moved: Tensor, i: int, v: Values, _: torch.Generator) -> Tensor:
    """TIES (Yadav et al. 2023): the share of entries that are largest in size."""
    return _between(moved, v.density[i], 0.0)


def without_outliers(moved: Tensor, i: int, v: Values, _: torch.Generator) -> Tensor:
    """Breadcrumbs (Davari, Belilovsky 2023): the same after the very largest are gone."""
    return _between(moved, v.density[i], v.gamma[i])


def _between(moved: Tensor, density: float, gamma: float) -> Tensor:
    """The share ``density`` of entries below the ``gamma`` largest, or below as many as leave room for it."""
    if density >= 1:
        return moved
    sizes, count = moved.abs().flatten(), moved.numel()
    keep = int(density * count) if gamma else max(1, int(density * count))
    start = max(0, count - keep - int(gamma * count))
    return moved * _ranked(sizes, start, start + keep).reshape(moved.shape)


def _ranked(sizes: Tensor, start: int, stop: int) -> Tensor:
    """Whether entries are of ranks ``start`` to ``stop`` (not included) from below; of equal ones the first are.

    By two selections in O(n); a sort of an embedding's entries would take most of a merge.
    """
    if stop <= start:
        return torch.zeros_like(sizes, dtype=torch.bool)
    low = sizes.kthvalue(start + 1).values
    kept = sizes > low
    if stop < len(sizes):
        high = sizes.kthvalue(stop).values
        kept &= sizes < high
        if high > low:
            _first_of(kept, sizes == high, stop - int((sizes < high).sum()))
    _first_of(kept, sizes == low, min(stop, int((sizes <= low).sum())) - start)
    return kept


def _first_of(kept: Tensor, equal: Tensor, count: int) -> None:
    """Marks so many of equal entries."""
    kept[equal.nonzero().flatten()[:count]] = True


def by_chance(moved: Tensor, i: int, v: Values, generator: torch.Generator) -> Tensor:
    """DARE (Yu et al. 2023): entries kept with probability ``density``."""
    if v.density[i] >= 1:
        return moved
    return moved * torch.bernoulli(torch.full_like(moved, v.density[i]), generator=generator)


def by_rank(moved: Tensor, i: int, v: Values, generator: torch.Generator) -> Tensor:
    """DELLA (Deep et al. 2024): the larger an entry in its row, the likelier it is kept, from density -+ epsilon.

    Raises:
        CosetError: density -+ epsilon leaves the range of probabilities.
    """
    density, epsilon = v.density[i], v.epsilon[i]
    if density >= 1:
        return moved
    if not 0 < density - epsilon <= density + epsilon < 1:
        raise CosetError(f"density={density} and epsilon={epsilon}: density -+ epsilon has to lie between 0 and 1")
    rows = moved if moved.dim() > 1 else moved[None]
    ranks = rows.abs().argsort(1).argsort(1).float()
    share = (ranks / max(1, rows.size(1) - 1)) if rows.size(1) > 1 else torch.zeros_like(ranks)
    kept = torch.bernoulli((density - epsilon) + 2 * epsilon * share, generator=generator)
    return (rows * kept).reshape(moved.shape)


for _name, _method, _uses, _tries in (
    ("task_arithmetic", _Differences(), (), {"lam": (0.3, 0.5, 1.0)}),
    ("ties", _Differences(largest, elect=True, normalize=True), ("density", "rescale"), {}),
    ("dare_linear", _Differences(by_chance, rescale=True), ("density", "rescale"), {}),
    ("dare_ties", _Differences(by_chance, elect=True, rescale=True), ("density", "rescale"), {}),
    ("breadcrumbs", _Differences(without_outliers), ("density", "gamma", "rescale"), {}),
    ("breadcrumbs_ties", _Differences(without_outliers, elect=True), ("density", "gamma", "rescale"), {}),
    ("della", _Differences(by_rank, elect=True, normalize=True, rescale=True), ("density", "epsilon", "rescale"), {}),
    ("della_linear", _Differences(by_rank, rescale=True), ("density", "epsilon", "rescale"), {}),
):  # fmt: skip
    MERGE_METHODS.register(_name)(
        PerTensor(_name, _method, "needed", None, ("weight", "normalize", "lam", *_uses), _tries)
    )
