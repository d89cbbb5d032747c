r"""How a network is wired, as far as merging needs to know: which parameter reads and writes which features.

Everything that merges (folding, averaging after a permutation, RegMean, zipping) works on this one description, so
that an architecture is added by describing it once. A *space* is a set of features that layers write and read: the
residual stream, the hidden units of one MLP, the query-key and the value channels of one attention layer, the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from coset.core.errors import CosetError
from coset.weights.permutations.spec import Neurons, PermutationSpec, Use


@dataclass(frozen=True)
class Slot:
    """A linear map, or a table of embeddings.

    Attributes:
        weight: Name of the parameter, ``[out, in...]``, or ``[..., out]`` for a table.
        bias: Name of its bias, if it has one.
        merge: Name of its merge map; tables that are added to one another share one.
        unmerge: Name of its unmerge map; None if it reads the raw input.
        writes: Space of its outputs.
        reads: Space of its inputs; None for the raw input.
        table: Whether features are on the last axis.
    """

    weight: str
    bias: str | None
    merge: str
    unmerge: str | None
    writes: str
    reads: str | None
    table: bool = False

    @property
    def module(self) -> str:
        """Name of the module that holds the weight."""
        return self.weight.rpartition(".")[0]


@dataclass(frozen=True)
class Norm:
    """A LayerNorm or, without a bias, an RMSNorm on a space: its affine parameters are trained, not folded."""

    weight: str
    bias: str | None
    space: str

    @property
    def names(self) -> tuple[str, ...]:
        """Its parameters."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


@dataclass(frozen=True)
class Attention:
    """The spaces of one attention layer: ``[groups, heads / groups, channels]`` for queries and what W_O reads.

    Attributes:
        queries: Written by W_Q.
        keys: Written by W_K; the same space where their channels may be moved together.
        values: Written by W_V: ``[groups, channels]``.
        read: By W_O: each group's value channels once for each of its query heads; the same space as ``values`` where
            each group has one.
        heads: Of queries.
        groups: Heads of keys and values.
        rotary: Whether queries and keys are turned by their positions, so that their channels have to stay.
    """

    queries: str
    keys: str
    values: str
    read: str
    heads: int
    groups: int
    rotary: bool = False

    @property
    def spaces(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys((self.queries, self.keys, self.values, self.read)))


@dataclass(frozen=True)
class Wiring:
    """One network.

    Attributes:
        slots: In the order in which data flows.
        norms: All LayerNorms and RMSNorms.
        widths: Of each space.
        output: Space of the features that the heads read.
        stream: Space whose width sets the ranks of the hidden ones.
        attention: Layers of attention, whose spaces are made of heads.
        hidden: Spaces of the hidden units of a transformer's MLP blocks.
    """

    slots: tuple[Slot, ...]
    norms: tuple[Norm, ...]
    widths: Mapping[str, int]
    output: str
    stream: str
    attention: tuple[Attention, ...] = ()
    hidden: frozenset[str] = frozenset()

    def names(self) -> set[str]:
        """All parameters that are described."""
        return {n for s in self.slots for n in (s.weight, s.bias) if n} | {n for m in self.norms for n in m.names}

    @property
    def heads(self) -> dict[str, int]:
        """Number of heads of each space that has them."""
        found: dict[str, int] = {}
        for a in self.attention:
            found |= {a.queries: a.heads, a.keys: a.groups, a.values: a.groups, a.read: a.heads}
        return found

    def maps(self) -> tuple[dict[str, str], dict[str, str]]:
        """Spaces of the merge maps, and of the unmerge maps, that of the output among them."""
        merges = {slot.merge: slot.writes for slot in self.slots}
        unmerges = {slot.unmerge: slot.reads for slot in self.slots if slot.unmerge and slot.reads}
        return merges, {**unmerges, "output": self.output}

    def uses(self, *spaces: str) -> tuple[Use, ...]:
        """Where the entries of the features of some spaces are."""
        found = []
        for slot in self.slots:
            if slot.writes in spaces:
                found.append(Use(slot.weight, -1 if slot.table else 0))
                if slot.bias:
                    found.append(Use(slot.bias, 0))
            if slot.reads in spaces:
                found.append(Use(slot.weight, 1))
        for norm in self.norms:
            if norm.space in spaces:
                found += [Use(name, 0) for name in norm.names]
        return tuple(found)

    def features(self) -> PermutationSpec:
        """Every space as one group.

        In attention only orders that keep heads together leave the function alone, those of spaces that belong together
        have to agree.
        """
        return PermutationSpec(tuple(Neurons(space, width, self.uses(space)) for space, width in self.widths.items()))

    def permutations(self) -> tuple[PermutationSpec, ...]:
        """What may be permuted, one after the other: features and groups of heads, heads of a group, channels."""
        outer = [Neurons(s, width, self.uses(s)) for s, width in self.widths.items() if s not in self.heads]
        within: list[Neurons] = []
        inner: list[Neurons] = []
        for a in self.attention:
            name = a.queries.rpartition(".")[0]
            outer.append(Neurons(f"{name}:heads", a.groups, self._blocks(a, a.spaces, a.groups)))
            if a.heads > a.groups:
                within += self._parts(a, (a.queries, a.read), a.groups, a.heads // a.groups)
            if not a.rotary:
                inner += self._channels(a, (a.queries,) if a.queries == a.keys else (a.queries, a.keys))
            inner += self._channels(a, tuple(dict.fromkeys((a.values, a.read))))
        return tuple(PermutationSpec(tuple(groups)) for groups in (outer, within, inner) if groups)

    def _blocks(self, a: Attention, spaces: Sequence[str], count: int) -> tuple[Use, ...]:
        """Equal stretches of the spaces, ``count`` of each."""
        return tuple(Use(u.parameter, u.axis, 0, self.widths[s] // count) for s in spaces for u in self.uses(s))

    def _parts(self, a: Attention, spaces: Sequence[str], groups: int, parts: int) -> list[Neurons]:
        """For each group its parts, which move together in all the spaces."""
        made = []
        for g in range(groups):
            uses = []
            for s in spaces:
                size = self.widths[s] // groups
                uses += [Use(u.parameter, u.axis, g * size, size // parts) for u in self.uses(s)]
            made.append(Neurons(f"{spaces[0]}:{g}:heads", parts, tuple(uses)))
        return made

    def _channels(self, a: Attention, spaces: Sequence[str]) -> list[Neurons]:
        """For each group the channels of its heads, the same in all of them."""
        made = []
        for g in range(a.groups):
            uses, size = [], self.widths[a.values] // a.groups
            if spaces[0] == a.queries:
                size = self.widths[a.queries] // a.heads
            for s in spaces:
                whole = self.widths[s] // a.groups
                uses += [
                    Use(u.parameter, u.axis, start)
                    for u in self.uses(s)
                    for start in range(g * whole, (g + 1) * whole, size)
                ]
            made.append(Neurons(f"{spaces[0]}:{g}", size, tuple(uses)))
        return made

    def rank(self, space: str, rank: int) -> int:
        """As published: r, and floor(r h / d) for the h hidden units of an MLP block beside a stream of width d."""
        return max(1, rank * self.widths[space] // self.widths[self.stream]) if space in self.hidden else rank


Blocks = Sequence[Float[Tensor, "d_i width"]]


def matrix(slot: Slot, weight: Tensor) -> Float[Tensor, "out in"]:
    """A weight as a matrix; a table has its features as rows."""
    return weight.reshape(-1, weight.size(-1)).mT if slot.table else weight.flatten(1)


def shaped(slot: Slot, value: Float[Tensor, "out in"], like: Tensor) -> Tensor:
    """A matrix in the shape that the parameter has, with another number of features."""
    if slot.table:
        return value.mT.reshape(*like.shape[:-1], value.size(0))
    return value if like.dim() == 2 else value.reshape(value.size(0), *like.shape[1:])


def combine(
    wiring: Wiring, states: Sequence[Mapping[str, Tensor]], merges: Mapping[str, Blocks], unmerges: Mapping[str, Blocks]
) -> dict[str, Tensor]:
    """W* = sum_i M_i^T W_i U_i^T with one pair of maps for each space (averages, matchings, zipping).

    Args:
        wiring: Of the networks.
        states: Their parameters.
        merges: For each space M_i ``[d_i, d*]``.
        unmerges: For each space U_i^T ``[d_i, d*]``.
    """
    merged = {}
    for slot in wiring.slots:
        total, bias = None, None
        for i, state in enumerate(states):
            w = matrix(slot, state[slot.weight])
            m = merges[slot.writes][i].to(w)
            term = m.mT @ (w if slot.reads is None else w @ unmerges[slot.reads][i].to(w))
            total = term if total is None else total + term
            if slot.bias:
                bias = state[slot.bias] @ m if bias is None else bias + state[slot.bias] @ m
        assert total is not None
        merged[slot.weight] = shaped(slot, total, states[0][slot.weight]).contiguous()
        if slot.bias and bias is not None:
            merged[slot.bias] = bias
    for norm in wiring.norms:
        for name in norm.names:
            merged[name] = torch.stack([s[name] @ merges[norm.space][i].to(s[name]) for i, s in enumerate(states)]).sum(
                0
            )
    return merged


def identities(wiring: Wiring, shares: Sequence[float]) -> tuple[dict[str, Blocks], dict[str, Blocks]]:
    """Maps of a weighted average: M_i = w_i I, U_i = I."""
    merges: dict[str, Blocks] = {s: [torch.eye(d) * w for w in shares] for s, d in wiring.widths.items()}
    return merges, {s: [torch.eye(d) for _ in shares] for s, d in wiring.widths.items()}


def check_alike(names: Sequence[str], wirings: Sequence[Wiring], *, widths: bool = False) -> None:
    """Networks must have the same layers; with ``widths`` also the same widths.

    Raises:
        CosetError: They differ; the message names the first difference.
    """
    first = wirings[0]
    for name, other in zip(names[1:], wirings[1:], strict=True):
        if len(first.slots) != len(other.slots):
            raise CosetError(
                f"{names[0]} has {len(first.slots)} linear maps, {name} {len(other.slots)}: depths and kinds must agree"
            )
        for a, b in zip(first.slots, other.slots, strict=True):
            if a != b:
                raise CosetError(f"{names[0]} has {a.weight} where {name} has {b.weight}: layers must agree")
        for space, width in first.widths.items() if widths else ():
            if other.widths[space] != width:
                raise CosetError(
                    f"{names[0]} has width {width} in {space}, {name} {other.widths[space]}: this method needs equal "
                    "widths; fs_merge does not"
                )
