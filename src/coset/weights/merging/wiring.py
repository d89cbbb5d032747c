r"""How a network is wired, as far as merging needs to know: which parameter reads and writes which features.

Everything that merges (folding, averaging after a permutation, RegMean, zipping) works on this one description, so
that an architecture is added by describing it once. A *space* is a set of features that layers write and read: the
residual stream, the hidden units of one MLP, the query-key and the value channels of one attention layer, the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    """A LayerNorm on a space: its affine parameters are trained, not folded."""

    weight: str
    bias: str
    space: str


@dataclass(frozen=True)
class Wiring:
    """One network.

    Attributes:
        slots: In the order in which data flows.
        norms: All LayerNorms.
        widths: Of each space.
        output: Space of the features that the heads read.
        stream: Space whose width sets the ranks of the hidden ones.
        heads: Number of attention heads of the spaces that have them.
        hidden: Spaces of the hidden units of a transformer's MLP blocks.
    """

    slots: tuple[Slot, ...]
    norms: tuple[Norm, ...]
    widths: Mapping[str, int]
    output: str
    stream: str
    heads: Mapping[str, int] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()

    def names(self) -> set[str]:
        """All parameters that are described."""
        return {n for s in self.slots for n in (s.weight, s.bias) if n} | {
            n for m in self.norms for n in (m.weight, m.bias)
        }

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
                found += [Use(norm.weight, 0), Use(norm.bias, 0)]
        return tuple(found)

    def features(self) -> PermutationSpec:
        """Every space as one group. In attention only orders that keep heads together leave the function alone."""
        return PermutationSpec(tuple(Neurons(space, width, self.uses(space)) for space, width in self.widths.items()))

    def permutations(self) -> tuple[PermutationSpec, PermutationSpec]:
        """What may be permuted: first features and whole heads, then channels inside each head."""
        outer, inner = [], []
        for space, width in self.widths.items():
            heads = self.heads.get(space)
            if heads is None:
                outer.append(Neurons(space, width, self.uses(space)))
                continue
            size = width // heads
            for h in range(heads):
                uses = tuple(Use(u.parameter, u.axis, h * size) for u in self.uses(space))
                inner.append(Neurons(f"{space}:{h}", size, uses))
        # Query-key and value channels of one layer belong to the same heads.
        for spaces in self.layers_of_heads():
            heads, width = self.heads[spaces[0]], self.widths[spaces[0]]
            uses = tuple(Use(u.parameter, u.axis, 0, width // heads) for u in self.uses(*spaces))
            outer.append(Neurons(f"{spaces[0].rpartition('.')[0]}:heads", heads, uses))
        return PermutationSpec(tuple(outer)), PermutationSpec(tuple(inner))

    def layers_of_heads(self) -> list[list[str]]:
        """Spaces that share their heads (queries and keys, values), layer by layer."""
        layers: dict[str, list[str]] = {}
        for space in self.heads:
            layers.setdefault(space.rpartition(".")[0], []).append(space)
        return list(layers.values())

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
        for name in (norm.weight, norm.bias):
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
