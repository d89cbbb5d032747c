r"""Rows of tables of chemistry: a molecule, several molecules (pairs, mixtures), or a reaction; each becomes one graph.

**Several molecules** are one graph with a component each and one more node column, the number of the column of SMILES
that a component came from: the same network reads all of them, a readout pools over all atoms, and no edge joins two.
(Networks on pairs of nodes grow with the square of all atoms together.)

**Reactions** ``reactants>agents>products`` are condensed graphs (Heid, Green, "Machine Learning of Reaction Properties
via Learned Representations of the Condensed Graph of Reaction", J. Chem. Inf. Model. 2022): atoms with one map number
on both sides are one node, an edge is a bond of either side, and nodes and edges carry the columns of both sides
(reactants first), each with a further value for "not on this side". Agents count with the reactants. Atoms without a
number, or with one of a single side, are there on their side alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.graphs.data.molecules import (
    ATOM_SIZES,
    BOND_SIZES,
    canonical_smiles,
    molecule_to_data,
    parse_smiles,
    scaffold,
)

Kind = Literal["molecule", "mixture", "reaction"]


@dataclass(frozen=True)
class Compound:
    """What a row holds.

    Attributes:
        kind: ``molecule``, ``mixture`` (of several columns) or ``reaction``.
        mols: RDKit molecules: one, one a column, or reactants and products.
        text: As it was written; of several columns joined by dots.
    """

    kind: Kind
    mols: tuple[Any, ...]
    text: str

    def graph(self, id: str = "") -> Data:
        """The graph: ``x`` long [n, columns], ``edge_index`` sorted and in both directions, ``edge_attr`` long."""
        if self.kind == "molecule":
            return molecule_to_data(self.mols[0], self.text, id)
        made = _mixture(self.mols) if self.kind == "mixture" else _condensed(*self.mols)
        # Pages draw what a graph's SMILES say, atom for atom: a reaction has none.
        made.smiles, made.id = self.text if self.kind == "mixture" else "", id
        return made

    @property
    def canonical(self) -> str:
        """One text for all ways to write it; of a reaction without agents set apart."""
        if self.kind == "molecule":
            return canonical_smiles(self.mols[0])
        return (">>" if self.kind == "reaction" else " ").join(canonical_smiles(mol) for mol in self.mols)

    @property
    def scaffold(self) -> str:
        """Of the molecules, or of the reactants."""
        mols = self.mols[:1] if self.kind == "reaction" else self.mols
        return " ".join(scaffold(mol) for mol in mols)


def parse_compound(cells: Sequence[str]) -> Compound:
    """What a row's cells of SMILES hold.

    Raises:
        CosetError: One is no SMILES, or a reaction is not mapped; several cells hold molecules alone.
    """
    texts = [cell.strip() for cell in cells]
    if len(texts) > 1:
        return Compound("mixture", tuple(parse_smiles(text) for text in texts), ".".join(texts))
    if ">" in texts[0]:
        return _reaction(texts[0])
    return Compound("molecule", (parse_smiles(texts[0]),), texts[0])


def feature_sizes(kind: Kind, parts: int = 1) -> tuple[list[int], list[int]]:
    """Table sizes of node and of edge columns."""
    if kind == "reaction":
        both = [[size + 1 for size in sizes] * 2 for sizes in (ATOM_SIZES, BOND_SIZES)]
        return both[0], both[1]
    return [*ATOM_SIZES, *([parts] if kind == "mixture" else [])], list(BOND_SIZES)


def _reaction(text: str) -> Compound:
    sides = text.split(">")
    if len(sides) != 3 or not sides[0] or not sides[2]:
        raise CosetError(
            f"reaction {text[:80]!r} must read reactants>agents>products, e.g. [CH3:1][OH:2]>>[CH2:1]=[O:2]"
        )
    reactants = ".".join(part for part in sides[:2] if part)
    mols = parse_smiles(reactants), parse_smiles(sides[2])
    if not set(_numbers(mols[0], text)) & set(_numbers(mols[1], text)):
        raise CosetError(f"reaction {text[:80]!r} has no atom map: atoms of both sides need numbers, e.g. [CH3:1]")
    return Compound("reaction", mols, text)


def _numbers(mol: Any, text: str) -> dict[int, int]:
    """Atoms by their map numbers."""
    found: dict[int, int] = {}
    for atom in mol.GetAtoms():
        number = atom.GetAtomMapNum()
        if number and number in found:
            raise CosetError(f"reaction {text[:80]!r}: two atoms of one side have the number {number}")
        if number:
            found[number] = atom.GetIdx()
    return found


def _mixture(mols: Sequence[Any]) -> Data:
    parts = [molecule_to_data(mol) for mol in mols]
    starts = np.cumsum([0, *(int(part.num_nodes or 0) for part in parts)])
    x = [torch.cat([part.x, torch.full((part.x.size(0), 1), at)], dim=1) for at, part in enumerate(parts)]
    edges = [part.edge_index + int(start) for part, start in zip(parts, starts, strict=False)]
    return Data(x=torch.cat(x), edge_index=torch.cat(edges, 1), edge_attr=torch.cat([part.edge_attr for part in parts]))


def _condensed(reactants: Any, products: Any) -> Data:
    """Reactants' atoms in their order, then those of the products alone."""
    before, after = molecule_to_data(reactants), molecule_to_data(products)
    known = _numbers(reactants, "")
    count = int(before.num_nodes or 0)
    place = np.empty(int(after.num_nodes or 0), dtype=np.int64)
    for atom in products.GetAtoms():
        number = atom.GetAtomMapNum()
        shared = number in known
        place[atom.GetIdx()] = known[number] if shared else count
        count += not shared
    x = torch.tensor(ATOM_SIZES * 2).repeat(count, 1)  # the last entry of each column: not on this side
    x[: before.x.size(0), : len(ATOM_SIZES)] = before.x
    x[torch.from_numpy(place), len(ATOM_SIZES) :] = after.x
    bonds: dict[tuple[int, int], list[int]] = {}
    moved = torch.from_numpy(place)[after.edge_index]
    for side, (ends, columns) in enumerate(((before.edge_index, before.edge_attr), (moved, after.edge_attr))):
        for (i, j), row in zip(ends.T.tolist(), columns.tolist(), strict=True):
            entry = bonds.setdefault((i, j), list(BOND_SIZES * 2))
            entry[side * len(BOND_SIZES) : (side + 1) * len(BOND_SIZES)] = row
    ends = sorted(bonds)
    edge_index = torch.tensor(ends, dtype=torch.long).reshape(-1, 2).T.contiguous()
    edge_attr = torch.tensor([bonds[pair] for pair in ends], dtype=torch.long).reshape(-1, 2 * len(BOND_SIZES))
    return Data(x=x, edge_index=edge_index, edge_attr=edge_attr)
