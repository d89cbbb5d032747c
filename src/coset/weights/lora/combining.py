r"""Several adapters as one: dW = sum_i w_i dW_i, exactly or as well as a rank allows, and the variants that trim first.

The sum is taken of updates, never of A and B apart. Side by side, factors [w_1 U_1 ... w_k U_k] and [V_1 ... V_k] are
those of the sum, of rank r_1 + ... + r_k; the best of rank r comes from two thin QR decompositions and a small SVD
(Eckart, Young), and dW is never formed. TIES (Yadav et al., NeurIPS 2023, arXiv 2306.01708) and DARE (Yu et al., ICML
2024, arXiv 2311.03099) work on entries of dW, whose result has full rank: they are formed layer by layer, and brought
to a rank with the error told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.registry import Registry
from coset.weights.lora.data.adapters import LoraAdapter, LoraPair
from coset.weights.lora.data.naming import canonical
from coset.weights.lora.data.reading import natural_key

Deltas = Sequence[Float[Tensor, "n m"]]


@dataclass(frozen=True)
class Mixing:
    """How adapters are combined.

    Attributes:
        weights: One an adapter.
        rank: Of the result; by default what holds it exactly (``linear``), the largest of the adapters (``svd``), or
            the sum of their ranks.
        density: Share of entries that TIES and DARE keep.
        seed: Of what DARE drops.
    """

    weights: Sequence[float]
    rank: int | None = None
    density: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for weight in self.weights:
            if not math.isfinite(weight):
                raise CosetError(f"weight {weight}: a finite number was expected")
        if not 0 < self.density <= 1:
            raise CosetError(f"density={self.density}: a share above 0 and at most 1 was expected")
        if self.rank is not None and self.rank < 1:
            raise CosetError(f"rank={self.rank}: an adapter has rank 1 at least")


@dataclass(frozen=True)
class Combined:
    """The result.

    Attributes:
        adapter: It.
        error: Of the updates, relative, over all layers together: what its rank could not hold.
        notes: Layers that some adapters lack.
    """

    adapter: LoraAdapter
    error: float
    notes: tuple[str, ...] = ()


Combine = Callable[[Sequence[LoraPair], Mixing, torch.Generator], tuple[LoraPair, float, float]]
"""Of one layer: pairs, weights inside, to one pair, its squared error, and the squared norm of what was asked for."""
COMBINATIONS: Registry[Combine] = Registry("combination of LoRAs")


def combine(adapters: Sequence[LoraAdapter], method: str, mixing: Mixing) -> Combined:
    """One adapter of several, layer by layer; a layer that an adapter lacks is a zero update.

    Adapters of weight 0 are left out, and one alone with weight 1 comes back as it is, whatever it holds.

    Raises:
        CosetError: They belong to different bases, a layer has different shapes, or they hold what does not add: DoRA's
            magnitudes, parameters trained in full that differ; or the result is not finite.
    """
    if len(adapters) != len(mixing.weights):
        raise CosetError(f"{len(mixing.weights)} weights for {len(adapters)} adapters: give one an adapter")
    kept = [(a, w) for a, w in zip(adapters, mixing.weights, strict=True) if w]
    if not kept:
        raise CosetError("all weights are 0: nothing is left to combine")
    if len(kept) == 1 and kept[0][1] == 1 and mixing.rank is None and method in _EXACT:
        return Combined(replace(kept[0][0], name="merged"), 0.0)
    used, weights = _in_one_naming([a for a, _ in kept]), [w for _, w in kept]
    _check_addable(used, weights)
    names = sorted({name for a in used for name in a.layers}, key=natural_key)
    generator = torch.Generator().manual_seed(mixing.seed)
    layers, lost, total = {}, 0.0, 0.0
    for name in names:
        pairs = [_weighted(a.layers[name], w) for a, w in zip(used, weights, strict=True) if name in a.layers]
        _check_shapes(name, pairs)
        layers[name], error, square = COMBINATIONS[method](pairs, mixing, generator)
        if not math.isfinite(square) or not all(bool(side.isfinite().all()) for side in layers[name].factors()):
            raise CosetError(f"{name}: the sum with weights {', '.join(f'{w:g}' for w in weights)} is not finite")
        lost, total = lost + error, total + square
    made = LoraAdapter(
        layers, "merged", used[0].base_model, used[0].source_format, dense=_sum_of([a.dense for a in used], weights),
        saved=used[0].saved, task_type=used[0].task_type, transposed=used[0].transposed,
        models=next((a.models for a in used if len(a.models) == 1), used[0].models),
    )  # fmt: skip
    return Combined(made, (lost / total) ** 0.5 if total > 0 else 0.0, _missing(used, names))


@COMBINATIONS.register("linear", "cat")
def stacked(pairs: Sequence[LoraPair], mixing: Mixing, _: torch.Generator) -> tuple[LoraPair, float, float]:
    """The sum exactly, factors side by side; with a rank, its best of that rank."""
    pair = _side_by_side(pairs)
    return (pair, 0.0, _square(pair)) if mixing.rank is None else _best(pair, mixing.rank)


@COMBINATIONS.register("svd")
def best_of_rank(pairs: Sequence[LoraPair], mixing: Mixing, _: torch.Generator) -> tuple[LoraPair, float, float]:
    """The best approximation of the sum of a rank, by default the largest of the adapters."""
    return _best(_side_by_side(pairs), mixing.rank or max(pair.rank for pair in pairs))


@COMBINATIONS.register("ties")
def ties(pairs: Sequence[LoraPair], mixing: Mixing, _: torch.Generator) -> tuple[LoraPair, float, float]:
    """The largest entries of each update; of these the ones whose sign has the larger sum; their mean."""
    trimmed = [largest(pair.delta(), mixing.density) for pair in pairs]
    return _of_dense(elected(trimmed), pairs, mixing)


@COMBINATIONS.register("dare_linear")
def dare_linear(pairs: Sequence[LoraPair], mixing: Mixing, generator: torch.Generator) -> tuple[LoraPair, float, float]:
    """Entries dropped by chance, the others larger by as much; their sum."""
    dropped = [thinned(pair.delta(), mixing.density, generator) for pair in pairs]
    return _of_dense(torch.stack(dropped).sum(0), pairs, mixing)


@COMBINATIONS.register("dare_ties")
def dare_ties(pairs: Sequence[LoraPair], mixing: Mixing, generator: torch.Generator) -> tuple[LoraPair, float, float]:
    """Entries dropped by chance, then as TIES elects signs."""
    dropped = [thinned(pair.delta(), mixing.density, generator) for pair in pairs]
    return _of_dense(elected(dropped), pairs, mixing)


_EXACT = ("linear", "cat", "svd")
"""Combinations that leave one update as it is."""
_BY_CHANCE = ("dare_linear", "dare_ties")


def unused(method: str, density: float | None, seed: int | None) -> list[str]:
    """Settings that are given and that a combination does not look at."""
    given = {"density": density is not None and method in _EXACT, "seed": seed is not None and method not in _BY_CHANCE}
    return [name for name, idle in given.items() if idle]


def largest(delta: Float[Tensor, "n m"], density: float) -> Float[Tensor, "n m"]:
    """The share ``density`` of entries that are largest in size; the others are 0."""
    keep = max(1, int(density * delta.numel()))
    if keep == delta.numel():
        return delta
    bound = delta.abs().flatten().kthvalue(delta.numel() - keep + 1).values
    return torch.where(delta.abs() >= bound, delta, 0.0)


def thinned(delta: Float[Tensor, "n m"], density: float, generator: torch.Generator) -> Float[Tensor, "n m"]:
    """Each entry kept with probability ``density`` and divided by it."""
    kept = torch.rand(delta.shape, generator=generator, dtype=torch.float64) < density
    return torch.where(kept, delta / density, 0.0)


def elected(deltas: Deltas) -> Float[Tensor, "n m"]:
    """Entry by entry the mean over updates whose sign is that of the sum of all; zeros have no say."""
    stack = torch.stack(list(deltas))
    agreeing = (stack.sign() == stack.sum(0).sign()) & (stack != 0)
    return torch.where(agreeing, stack, 0.0).sum(0) / agreeing.sum(0).clamp(min=1)


def _of_dense(delta: Float[Tensor, "n m"], pairs: Sequence[LoraPair], mixing: Mixing) -> tuple[LoraPair, float, float]:
    """A matrix of full rank as the best pair of a rank, by default the sum of those that went in."""
    if any(pair.bias is not None for pair in pairs):
        raise CosetError("differences of biases are no matrices to trim: combine them by linear or svd")
    rank = min(mixing.rank or sum(pair.rank for pair in pairs), *delta.shape)
    u, values, v = torch.linalg.svd(delta.double(), full_matrices=False)
    root, dtype = values[:rank].sqrt(), pairs[0].u.dtype
    made = replace(pairs[0], u=(u[:, :rank] * root).to(dtype), v=(v[:rank].mT * root).to(dtype), scale=1.0)
    return made, float(values[rank:].square().sum()), float(values.square().sum())


def _side_by_side(pairs: Sequence[LoraPair]) -> LoraPair:
    u, v = (
        torch.cat([x.to(pairs[0].u.dtype) for x in side], 1) for side in zip(*(p.factors() for p in pairs), strict=True)
    )
    biases = [pair.bias for pair in pairs if pair.bias is not None]
    return replace(pairs[0], u=u, v=v, scale=1.0, bias=torch.stack(biases).sum(0) if biases else None)


def _best(pair: LoraPair, rank: int) -> tuple[LoraPair, float, float]:
    values = pair.singular_values().square()
    return pair.truncate(rank), float(values[rank:].sum()), float(values.sum())


def _square(pair: LoraPair) -> float:
    u, v = (x.double() for x in pair.factors())
    return float(((u.mT @ u) * (v.mT @ v)).sum())


def _weighted(pair: LoraPair, weight: float) -> LoraPair:
    """Whatever dW is multiplied with, the difference of the bias is, too; DoRA has been refused."""
    return replace(pair, scale=pair.scale * weight, bias=None if pair.bias is None else pair.bias * weight)


def _in_one_naming(adapters: Sequence[LoraAdapter]) -> list[LoraAdapter]:
    """As they are if layers are shared; else by the names of modules, whichever tools wrote them."""
    first = set(adapters[0].layers)
    if all(first & set(a.layers) for a in adapters):
        return list(adapters)
    named = [canonical(a) for a in adapters]
    alone = next((a for a in named[1:] if not set(named[0].layers) & set(a.layers)), None)
    if alone is not None:
        raise CosetError(
            f"{adapters[0].name} and {alone.name} have no layer in common ({next(iter(named[0].layers))}, ...; "
            f"{next(iter(alone.layers))}, ...)"
        )
    return named


def _check_addable(adapters: Sequence[LoraAdapter], weights: Sequence[float]) -> None:
    for adapter in adapters:
        dora = next((name for name, pair in adapter.layers.items() if pair.magnitude is not None), None)
        if dora is not None:
            raise CosetError(
                f"{adapter.name} is a DoRA ({dora} has magnitudes), whose updates do not add: apply it to its base "
                "model with coset lora apply, and combine whole models with coset merge"
            )
    first = adapters[0]
    for other in adapters[1:]:
        if first.base_model and other.base_model and first.base_model != other.base_model:
            raise CosetError(f"{first.name} belongs to {first.base_model}, {other.name} to {other.base_model}")
        for name in {*first.saved, *other.saved}:
            if (
                name not in first.saved
                or name not in other.saved
                or not torch.equal(first.saved[name], other.saved[name])
            ):
                raise CosetError(
                    f"{name} was trained in full and differs between {first.name} and {other.name}: modules_to_save do "
                    "not add"
                )
    if first.saved and len(adapters) == 1 and weights[0] != 1:
        raise CosetError(
            f"{first.name}: {next(iter(first.saved))} was trained in full, which has no weight {weights[0]}"
        )


def _check_shapes(name: str, pairs: Sequence[LoraPair]) -> None:
    for pair in pairs[1:]:
        if pair.shape != pairs[0].shape or pair.kind != pairs[0].kind or pair.kernel != pairs[0].kernel:
            raise CosetError(
                f"{name} is {pairs[0].shape} ({pairs[0].kind}) in one, {pair.shape} ({pair.kind}) in another"
            )


def _sum_of(held: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for values, weight in zip(held, weights, strict=True):
        for name, value in values.items():
            total[name] = total[name] + weight * value if name in total else weight * value
    return total


def _missing(adapters: Sequence[LoraAdapter], names: Sequence[str]) -> tuple[str, ...]:
    notes = []
    for adapter in adapters:
        lacking = [name for name in names if name not in adapter.layers]
        if lacking:
            notes.append(f"{adapter.name} lacks {len(lacking)} of {len(names)} layers ({lacking[0]}, ...): zero there")
    return tuple(notes)
