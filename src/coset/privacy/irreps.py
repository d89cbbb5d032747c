"""The parts into which a finite group's action splits inputs, and how much of weights and data lies in each.

The parts are the real isotypic components of a permutation representation: the joint eigenspaces of the sums over
conjugacy classes, which commute with everything the group does (Serre, Linear Representations of Finite Groups, 2.6).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from coset.privacy.groups import FiniteGroup

APART = 1e-8


@dataclass(frozen=True)
class Part:
    """An isotypic component.

    Attributes:
        name: Of its irreducible representation, e.g. ``A1`` or ``E`` of D4.
        basis: Orthonormal.
    """

    name: str
    basis: Float[Tensor, "d r"]

    def __len__(self) -> int:
        return self.basis.size(1)


def isotypic_parts(group: FiniteGroup) -> list[Part]:
    """The parts of R^d under a group, that of inputs it leaves as they are first, then by size.

    Complex-conjugate representations make one real part. Names are those of chemistry for quarter turns (A, B, E) and
    the symmetries of the square (A1, A2, B1, B2, E: B1 keeps its sign under mirrors along the axes, B2 under the
    diagonal ones), signs under each generator for mirrors, and numbers for other groups.

    >>> from coset.privacy.groups import group_of
    >>> [(part.name, len(part)) for part in isotypic_parts(group_of("d4", (8, 8)))]
    [('A1', 10), ('A2', 6), ('B1', 6), ('B2', 10), ('E', 32)]
    """
    d = group.table.size(1)
    numbers = torch.rand(len(group), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixed = torch.zeros(d, d, dtype=torch.float64)
    rows = torch.arange(d)
    for members, number in zip(_classes(group), numbers, strict=False):
        for g in members:
            mixed[rows, group.table[g]] += float(number)
            mixed[group.table[g], rows] += float(number)  # the inverse's class: real parts
    values, vectors = torch.linalg.eigh(mixed)
    cuts = (values.diff() > APART * (1 + values.abs().max())).nonzero().flatten() + 1
    bases = torch.tensor_split(vectors, cuts.tolist(), dim=1)
    parts = [Part(_name(group, basis), basis) for basis in bases]
    parts.sort(key=lambda part: (not _is_fixed(group, part.basis), part.name, len(part)))
    numbered = [Part(part.name or f"part {n}", part.basis) for n, part in enumerate(parts, start=1)]
    return numbered


def energies(rows: Float[Tensor, "n d"], parts: list[Part]) -> dict[str, float]:
    """Share of |rows|^2 in each part."""
    rows = rows.double()
    total = float(rows.square().sum())
    return {part.name: float((rows @ part.basis).square().sum()) / max(total, 1e-300) for part in parts}


def _classes(group: FiniteGroup) -> list[list[int]]:
    """Conjugacy classes, as numbers of elements."""
    number = {row.numpy().tobytes(): place for place, row in enumerate(group.table)}
    inverse = group.table.argsort(1)
    left, classes = set(range(len(group))), []
    while left:
        g = min(left)
        # x -> x[h][g][h^-1] takes entries through the three tables one after the other
        conjugates = torch.stack([inverse[h][group.table[g]][group.table[h]] for h in range(len(group))])
        members = sorted({number[row.numpy().tobytes()] for row in conjugates.unique(dim=0)})
        classes.append(members)
        left -= set(members)
    return classes


def _is_fixed(group: FiniteGroup, basis: Tensor) -> bool:
    return bool(torch.allclose(group.centre(basis.T), basis.T, atol=1e-9))


def _ratios(group: FiniteGroup, basis: Tensor) -> Float[Tensor, " order"]:
    """Character over dimension, of each element."""
    return torch.stack([(basis[row] * basis).sum() for row in group.table]) / basis.size(1)


def _name(group: FiniteGroup, basis: Tensor) -> str:
    ratio = _ratios(group, basis).round(decimals=6)
    order = [_order(row) for row in group.table]
    if len(group) == 4 and 4 in order:
        return {1.0: "A", -1.0: "B"}.get(float(ratio[order.index(4)]), "E")
    if len(group) == 8 and order.count(4) == 2 and order.count(2) == 5:
        turn = float(ratio[order.index(4)])
        diagonal = next((g for g, row in enumerate(group.table) if g and int(row[0]) == 0), None)
        if abs(turn) < 1 or diagonal is None:
            return "E"
        along = float(ratio[diagonal])
        return ("A1" if along > 0 else "A2") if turn > 0 else ("B2" if along > 0 else "B1")
    if max(order) <= 2 and len(group) <= 4:
        return "".join("+" if value > 0 else "-" for value in ratio[1:].tolist()) or "all"
    return "fixed" if bool((ratio == 1).all()) else ""


def _order(row: Tensor) -> int:
    power, count = row, 1
    while not torch.equal(power, torch.arange(len(row))):
        power, count = power[row], count + 1
    return count
