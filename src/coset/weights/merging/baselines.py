r"""Other ways to merge, with the interface of FS-Merge: averages, matchings, RegMean, zipping, distillation, ensembles.

All of them are pairs (M, U) of a SuperNet: a weighted average has M_i = w_i I, U_i = I; matching has M_i = P_i^T / k,
U_i = P_i; RegMean U_i = k S^-1 G_i; zipping a matching of all features of all networks with one another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.weights.merging.alignment import activations, align, correlation, identity, match, reorder
from coset.weights.merging.encoders import Encoder, Inputs, features, join
from coset.weights.merging.wiring import Blocks, Slot, Wiring, check_alike, combine, identities, matrix, shaped
from coset.weights.permutations.groups import Neurons, PermutationSpec, Use
from coset.weights.permutations.matching import weight_matching


@runtime_checkable
class HasHead(Protocol):
    """What is needed of a teacher once its features are known."""

    @property
    def name(self) -> str: ...
    @property
    def head(self) -> nn.Linear: ...


@dataclass(frozen=True)
class Teacher:
    """A network to merge.

    Attributes:
        name: Of its task.
        encoder: Its features.
        head: Linear classifier on them.
    """

    name: str
    encoder: Encoder
    head: nn.Linear


@dataclass(frozen=True)
class Merged:
    """One network for all tasks.

    Attributes:
        encoder: An ordinary one.
        heads: A classifier for each task, what leads from merged features to the teacher's folded in.
    """

    encoder: Encoder
    heads: dict[str, nn.Linear]

    def networks(self) -> list[nn.Module]:
        return [self.encoder, *self.heads.values()]

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> dict[str, Float[Tensor, "samples classes"]]:
        """Of every head."""
        found = features(self.encoder, inputs)
        return {name: head(found) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Ensemble:
    """All teachers at once: the mean of their features, each divided by its mean size; then every head."""

    teachers: Sequence[Teacher]

    def networks(self) -> list[nn.Module]:
        return [part for t in self.teachers for part in (t.encoder, t.head)]

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> dict[str, Float[Tensor, "samples classes"]]:
        found = [features(t.encoder, inputs) for t in self.teachers]
        mean = torch.stack([f / f.abs().mean() for f in found]).mean(0)
        # Back to the size that the head was trained on; its bias would otherwise weigh too much.
        return {t.name: t.head(mean * f.abs().mean()) for t, f in zip(self.teachers, found, strict=True)}


@dataclass(frozen=True)
class Originals:
    """The teachers themselves, each with its own features: the ceiling of per-task accuracy."""

    teachers: Sequence[Teacher]

    def networks(self) -> list[nn.Module]:
        return [part for t in self.teachers for part in (t.encoder, t.head)]

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> dict[str, Float[Tensor, "samples classes"]]:
        return {t.name: t.head(features(t.encoder, inputs)) for t in self.teachers}


def fitted_heads(encoder: Encoder, teachers: Sequence[Teacher], inputs: Sequence[Inputs], ridge: float) -> Merged:
    """One frozen network with a head for each task: the teacher's, after a map fitted to its features.

    f_i(x) is regressed on F(x) over the samples of task i, with an offset and a penalty of ``ridge`` times the mean
    variance of F.

    Args:
        encoder: F, left as it is.
        teachers: Of all tasks.
        inputs: Unlabelled samples of each.
        ridge: Of the regression.
    """
    heads = {}
    for teacher, own in zip(teachers, inputs, strict=True):
        x, y = features(encoder, own).double(), features(teacher.encoder, own).double()
        centred = x - x.mean(0)
        gram = centred.mT @ centred
        penalty = ridge * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(gram), dtype=gram.dtype)
        projection = torch.linalg.solve(gram + penalty, centred.mT @ (y - y.mean(0))).mT
        head = fold_heads([teacher], [projection])[teacher.name]
        offset = (y.mean(0) - projection @ x.mean(0)).to(head.weight)
        with torch.no_grad():
            moved = teacher.head.weight @ offset + (0 if teacher.head.bias is None else teacher.head.bias)
        head.bias = nn.Parameter(moved)
        heads[teacher.name] = head
    return Merged(encoder, heads)


def fold_heads(teachers: Sequence[HasHead], projections: Sequence[Float[Tensor, "_d_i width"]]) -> dict[str, nn.Linear]:
    """W_head,i <- W_head,i U_i^T, where the teacher's features are F U_i, U_i^T given as ``[d_i, width]``."""
    heads = {}
    for teacher, projection in zip(teachers, projections, strict=True):
        weight = teacher.head.weight.detach() @ projection.to(teacher.head.weight)
        head = nn.Linear(weight.size(1), weight.size(0), bias=teacher.head.bias is not None).to(weight)
        with torch.no_grad():
            head.weight.copy_(weight)
            if teacher.head.bias is not None:
                head.bias.copy_(teacher.head.bias)
        heads[teacher.name] = head
    return heads


def average(teachers: Sequence[Teacher], shares: Sequence[float] | None = None) -> Merged:
    """The weighted mean of all parameters; equal shares by default."""
    shares = shares or [1 / len(teachers)] * len(teachers)
    if len(shares) != len(teachers):
        raise CosetError(f"{len(shares)} weights for {len(teachers)} models: give one a model")
    return _same_basis(teachers, lambda w, s: combine(w, s, *identities(w, shares)))


def slerp(teachers: Sequence[Teacher], t: float = 0.5) -> Merged:
    """Spherical interpolation of the two vectors of all parameters.

    Raises:
        CosetError: There are not two teachers.
    """
    if len(teachers) != 2:
        raise CosetError(f"slerp takes two models, not {len(teachers)}")

    def mix(_: Wiring, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        first, second = (torch.cat([v.flatten() for v in s.values()]) for s in states)
        a, b = slerp_weights(first, second, t)
        return {name: a * states[0][name] + b * states[1][name] for name in states[0]}

    return _same_basis(teachers, mix)


def slerp_weights(a: Float[Tensor, " n"], b: Float[Tensor, " n"], t: float) -> tuple[float, float]:
    """Coefficients of the two vectors; plain interpolation where they are (anti)parallel."""
    a, b = a.double(), b.double()
    return slerp_coefficients(float(a @ b), float(a @ a), float(b @ b), t)


def slerp_coefficients(product: float, first: float, second: float, t: float) -> tuple[float, float]:
    """The same from the inner product and the two squared norms."""
    cosine = product / max((first * second) ** 0.5, 1e-30)
    angle = torch.acos(torch.tensor(max(-1.0, min(1.0, cosine)), dtype=torch.float64))
    sine = torch.sin(angle)
    if float(sine) < 1e-6:
        return 1 - t, t
    return float(torch.sin((1 - t) * angle) / sine), float(torch.sin(t * angle) / sine)


def task_arithmetic(teachers: Sequence[Teacher], base: Encoder, scale: float = 1.0) -> Merged:
    """base + scale * sum_i (teacher_i - base)."""
    before = {n: p.detach() for n, p in base.named_parameters()}
    return _same_basis(
        teachers, lambda _, states: {n: b + scale * sum(s[n] - b for s in states) for n, b in before.items()}
    )


def matched_average(teachers: Sequence[Teacher], inputs: Sequence[Inputs] | None = None, *, seed: int = 0) -> Merged:
    """The mean after a matching: of activations if samples are given, of weights if not (Git Re-Basin)."""
    aligned = align_teachers(teachers, inputs) if inputs is not None else weight_aligned(teachers, seed)
    return average(aligned)


def align_teachers(teachers: Sequence[Teacher], inputs: Sequence[Inputs]) -> list[Teacher]:
    """The same networks with features in the order of the first, by activations; heads follow."""
    _check(teachers)
    states, outputs = align([t.encoder for t in teachers], join(inputs))
    return [_rebuilt(t, s, order) for t, s, order in zip(teachers, states, outputs, strict=True)]


def weight_aligned(teachers: Sequence[Teacher], seed: int = 0) -> list[Teacher]:
    """The same by weights alone: streams, hidden units and whole heads, then the channels inside heads."""
    wiring = _check(teachers)
    first = {n: p.detach() for n, p in teachers[0].encoder.named_parameters()}
    made = [teachers[0]]
    for teacher in teachers[1:]:
        state: dict[str, Tensor] = {n: p.detach() for n, p in teacher.encoder.named_parameters()}
        order = torch.arange(wiring.widths[wiring.output])
        for spec in matching_specs(wiring):
            if not len(spec):
                continue
            orders = weight_matching(spec, first, state, seed=seed)
            full = _space_orders(wiring, spec, orders)
            state = reorder(wiring, state, full)
            order = order[full[wiring.output]]
        made.append(_rebuilt(teacher, state, order))
    return made


def matching_specs(wiring: Wiring) -> tuple[PermutationSpec, PermutationSpec]:
    """What may be permuted: first features and whole heads, then channels inside each head."""
    outer, inner = [], []
    for space, width in wiring.widths.items():
        heads = wiring.heads.get(space)
        if heads is None:
            outer.append(Neurons(space, width, tuple(_uses(wiring, {space}))))
            continue
        size = width // heads
        for h in range(heads):
            uses = tuple(Use(u.parameter, u.axis, h * size) for u in _uses(wiring, {space}))
            inner.append(Neurons(f"{space}:{h}", size, uses))
    # Query-key and value channels of one layer belong to the same heads.
    for spaces in wiring.layers_of_heads():
        heads, width = wiring.heads[spaces[0]], wiring.widths[spaces[0]]
        uses = tuple(Use(u.parameter, u.axis, 0, width // heads) for u in _uses(wiring, set(spaces)))
        outer.append(Neurons(f"{spaces[0].rpartition('.')[0]}:heads", heads, uses))
    return PermutationSpec(tuple(outer)), PermutationSpec(tuple(inner))


def regmean(teachers: Sequence[Teacher], inputs: Sequence[Inputs], alpha: float = 0.7) -> Merged:
    r"""W* = (sum_i W_i G_i) (sum_i G_i)^-1 with G_i the Gram matrix of what layer i reads; the rest is averaged.

    Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models", ICLR 2023; off-diagonal entries of
    G_i are shrunk by ``alpha``. The first layer is merged so as well.
    """
    wiring = _check(teachers)
    shares = [1 / len(teachers)] * len(teachers)
    grams = [gram_matrices(t.encoder, x) for t, x in zip(teachers, inputs, strict=True)]

    def mix(_: Wiring, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        merged = combine(wiring, states, *identities(wiring, shares))
        for slot in wiring.slots:
            if slot.weight in grams[0]:
                merged[slot.weight] = _regress(slot, states, [g[slot.weight] for g in grams], alpha)
        return merged

    return _same_basis(teachers, mix)


def _regress(slot: Slot, states: Sequence[Mapping[str, Tensor]], grams: Sequence[Tensor], alpha: float) -> Tensor:
    shrunk = [alpha * g + (1 - alpha) * torch.diag(g.diagonal()) for g in grams]
    left = sum(matrix(slot, s[slot.weight]).double() @ g for s, g in zip(states, shrunk, strict=True))
    total = sum(shrunk)
    assert isinstance(left, Tensor)
    assert isinstance(total, Tensor)
    # Features that are never active have no row: least squares leaves their weights at zero.
    weight = torch.linalg.lstsq(total, left.mT, driver="gelsd").solution.mT
    return shaped(slot, weight.to(states[0][slot.weight]), states[0][slot.weight]).contiguous()


def gram_matrices(encoder: Encoder, inputs: Inputs, batch: int = 256) -> dict[str, Float[Tensor, "in in"]]:
    """X^T X of what every Linear layer reads, in float64, by the name of its weight."""
    found: dict[str, Tensor] = {}
    linear = {s.weight: encoder.get_submodule(s.module) for s in encoder.wiring().slots if not s.table}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().flatten(0, -2).double()
            found[name] = found.get(name, 0) + x.mT @ x

        return add

    handles = [m.register_forward_pre_hook(hook(n)) for n, m in linear.items() if isinstance(m, nn.Linear)]
    try:
        features(encoder, inputs, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def zipit(teachers: Sequence[Teacher], inputs: Sequence[Inputs]) -> Merged:
    """Greedy zipping: the two most correlated features, within or across networks, become one until d are left.

    Stoica et al., "ZipIt! Merging Models from Different Tasks without Training", ICLR 2024, without its partial zip:
    M averages the features of a group, U copies the group to its members. Channels of attention are paired across
    networks head by head instead, since zipping them within a network would tear heads apart.
    """
    ordered, merges, unmerges = zip_maps(teachers, inputs)
    wiring = teachers[0].encoder.wiring()
    encoder = teachers[0].encoder.resized(None)
    encoder.load_state_dict(combine(wiring, _states(ordered), merges, unmerges))
    return Merged(encoder.eval(), fold_heads(ordered, list(unmerges[wiring.output])))


def zip_maps(
    teachers: Sequence[Teacher], inputs: Sequence[Inputs]
) -> tuple[list[Teacher], dict[str, Blocks], dict[str, Blocks]]:
    """Teachers with attention channels in the order of the first, and M and U^T of every space."""
    wiring, everything = _check(teachers), join(inputs)
    found = [activations(t.encoder, everything) for t in teachers]
    merges, unmerges = identities(wiring, [1 / len(teachers)] * len(teachers))
    for space, width in wiring.widths.items():
        if space not in wiring.heads:
            merges[space], unmerges[space] = _zip(torch.cat([f[space] for f in found], 1), width)
    if not wiring.heads:
        return list(teachers), merges, unmerges
    ordered = [teachers[0]]
    for teacher, own, state in zip(teachers[1:], found[1:], _states(teachers)[1:], strict=True):
        orders = match(wiring, found[0], own)
        moved = reorder(wiring, state, identity(wiring) | {s: orders[s] for s in wiring.heads})
        ordered.append(_rebuilt(teacher, moved, torch.arange(wiring.widths[wiring.output])))
    return ordered, merges, unmerges


def _zip(rows: Float[Tensor, "rows features"], width: int) -> tuple[Blocks, Blocks]:
    """M and U^T, by teacher, of greedily merged features."""
    members = rows.size(1)
    similarity = correlation(rows, rows)
    still = rows.double().std(0) < 1e-9
    similarity[still[:, None] & still] = 1.0  # units that are never active are all alike
    similarity.fill_diagonal_(-torch.inf)
    sizes = torch.ones(members, dtype=torch.float64)
    group = torch.arange(members)
    for _ in range(members - width):
        a, b = divmod(int(similarity.argmax()), members)
        # The correlation of a group with another feature is taken as the mean over its members.
        joined = (similarity[a] * sizes[a] + similarity[b] * sizes[b]) / (sizes[a] + sizes[b])
        sizes[a] += sizes[b]
        similarity[a], similarity[:, a] = joined, joined
        similarity[a, a] = -torch.inf
        similarity[b], similarity[:, b] = -torch.inf, -torch.inf
        group[group == b] = a
    copied = nn.functional.one_hot(group.unique(return_inverse=True)[1], width).to(rows)
    merge = copied / copied.sum(0)
    return tuple(merge.split(width)), tuple(copied.split(width))


def _uses(wiring: Wiring, spaces: set[str]) -> list[Use]:
    uses = []
    for slot in wiring.slots:
        if slot.writes in spaces:
            uses.append(Use(slot.weight, -1 if slot.table else 0))
            if slot.bias:
                uses.append(Use(slot.bias, 0))
        if slot.reads in spaces:
            uses.append(Use(slot.weight, 1))
    for norm in wiring.norms:
        if norm.space in spaces:
            uses += [Use(norm.weight, 0), Use(norm.bias, 0)]
    return uses


def _space_orders(wiring: Wiring, spec: PermutationSpec, orders: Mapping[str, Tensor]) -> dict[str, Tensor]:
    full = {space: torch.arange(width) for space, width in wiring.widths.items()}
    for group in spec.groups:
        name, _, part = group.name.partition(":")
        order = orders[group.name]
        if part == "heads":
            for space in (s for s in wiring.heads if s.rpartition(".")[0] == name):
                size = wiring.widths[space] // wiring.heads[space]
                full[space] = (order[:, None] * size + torch.arange(size)).flatten()
        elif part:
            start = int(part) * group.size
            full[name][start : start + group.size] = start + order
        else:
            full[name] = order
    return full


def _states(teachers: Sequence[Teacher]) -> list[dict[str, Tensor]]:
    return [{n: p.detach() for n, p in t.encoder.named_parameters()} for t in teachers]


def _check(teachers: Sequence[Teacher]) -> Wiring:
    wirings = [t.encoder.wiring() for t in teachers]
    check_alike([t.name for t in teachers], wirings, widths=True)
    return wirings[0]


def _same_basis(
    teachers: Sequence[Teacher], mix: Callable[[Wiring, list[dict[str, Tensor]]], dict[str, Tensor]]
) -> Merged:
    wiring = _check(teachers)
    states = _states(teachers)
    encoder = teachers[0].encoder.resized(None)
    encoder.load_state_dict(mix(wiring, states))
    eye = torch.eye(wiring.widths[wiring.output])
    return Merged(encoder.eval(), fold_heads(teachers, [eye] * len(teachers)))


def _rebuilt(teacher: Teacher, state: Mapping[str, Tensor], order: Tensor) -> Teacher:
    encoder = teacher.encoder.resized(None)
    encoder.load_state_dict(state)
    head = copy.deepcopy(teacher.head)
    with torch.no_grad():
        head.weight.copy_(teacher.head.weight[:, order])
    return Teacher(teacher.name, encoder.eval(), head)
