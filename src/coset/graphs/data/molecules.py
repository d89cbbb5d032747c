r"""Molecules as graphs: SMILES in, PyG ``Data`` out, with the categorical columns of the Open Graph Benchmark.

Hu et al., "Open Graph Benchmark: Datasets for Machine Learning on Graphs", NeurIPS 2020. Nodes are heavy atoms,
described by nine integers; edges are bonds in both directions, described by three. Columns and the number of values
each can take are ``ATOM_COLUMNS`` and ``BOND_COLUMNS``: the table sizes that an embedding needs. A value outside the
usual ones goes to the last entry of its column, so the columns never run out of their tables.

The group is S_n, renumbering atoms; nothing here depends on the order in which the SMILES string names them except
that order. Chirality is therefore the label of Cahn, Ingold and Prelog, R or S. The benchmark's own column holds the
tags ``@`` and ``@@``, which change with the order of a string's letters: two spellings of one molecule differ there.
"""

from __future__ import annotations

import sys
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError, require

ATOM_COLUMNS: dict[str, int] = {
    "atomic number": 119,
    "chirality": 5,
    "degree": 12,
    "formal charge": 12,
    "hydrogens": 10,
    "radical electrons": 6,
    "hybridisation": 6,
    "aromatic": 2,
    "in ring": 2,
}
BOND_COLUMNS: dict[str, int] = {"bond type": 5, "stereo": 6, "conjugated": 2}
ATOM_SIZES: list[int] = list(ATOM_COLUMNS.values())
BOND_SIZES: list[int] = list(BOND_COLUMNS.values())

# Order of the values that have an entry of their own; anything else takes the column's last entry.
_TAGS = ("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER")
_UNLABELLED = 3  # entry of a stereocentre that the rules give no label
_CHIRALITY = {"R": 1, "r": 1, "S": 2, "s": 2}  # small letters: centres whose branches differ by their handedness alone
_MOST_STEPS = 100_000  # of the rules on a molecule, about a second: only long chains of centres need more
_HYBRIDISATION = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
_BOND_TYPE = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
_STEREO = ("STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY")

# Mean and deviation of logP, -SA and -(largest ring over 6) over ZINC-250k (Jin, Barzilay, Jaakkola, ICML 2018).
_ZINC_MEAN = (2.4570953396190123, -3.0525811293166134, -0.0485696876403053)
_ZINC_DEVIATION = (1.434324401111988, 0.8335207024513095, 0.2860212110245455)


LONGEST_SMILES = 10_000
"""Letters of a molecule: RDKit's time grows with their square, and beyond."""


def parse_smiles(smiles: str) -> Any:
    """The RDKit molecule of a SMILES string, without RDKit's messages on stderr.

    Raises:
        CosetError: The string is empty or no molecule; the message quotes it and gives RDKit's reason where it has one.
    """
    chem = require("rdkit.Chem", "molecules")
    text = smiles.strip() if isinstance(smiles, str) else ""
    if not text:
        raise CosetError("empty SMILES: every row needs a molecule, e.g. CCO")
    if len(text) > LONGEST_SMILES:
        raise CosetError(f"SMILES {text[:40]!r}... has {len(text):,} letters; at most {LONGEST_SMILES:,} are read")
    with _quiet():
        mol = chem.MolFromSmiles(text)
        if mol is None:
            shown = repr(text) if len(text) <= 200 else f"{text[:200]!r}..."
            raise CosetError(f"unparsable SMILES {shown}: {_reason(text)}")
    if mol.GetNumAtoms() == 0:
        raise CosetError(f"SMILES {text!r} has no atoms")
    return mol


def molecule_to_data(mol: Any, smiles: str = "", id: str = "") -> Data:
    """The graph of an RDKit molecule.

    Returns:
        Data with ``x`` long [n, 9], ``edge_index`` [2, 2m] sorted and in both directions, ``edge_attr`` long [2m, 3],
        ``smiles`` and ``id``. Single atoms have no edges; salts and other mixtures are graphs with several components.
    """
    # By index and through NumPy: RDKit's sequences ask for their length at every step; torch.tensor is slow on lists.
    x = np.array([_atom_columns(mol.GetAtomWithIdx(i)) for i in range(mol.GetNumAtoms())], dtype=np.int64)
    x[:, 1] = _chirality(mol, x[:, 1])
    bonds = [mol.GetBondWithIdx(i) for i in range(mol.GetNumBonds())]
    forward = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), *_bond_columns(bond)) for bond in bonds]
    table = np.array(forward, dtype=np.int64).reshape(-1, 2 + len(BOND_SIZES))
    table = np.concatenate([table, table[:, [1, 0, *range(2, table.shape[1])]]])
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    edge_index, edge_attr = torch.from_numpy(table[:, :2].T.copy()), torch.from_numpy(table[:, 2:].copy())
    return Data(x=torch.from_numpy(x), edge_index=edge_index, edge_attr=edge_attr, smiles=smiles, id=id)


def smiles_to_data(smiles: str, id: str = "") -> Data:
    """The graph of a SMILES string: :func:`molecule_to_data` of :func:`parse_smiles`.

    Raises:
        CosetError: The string is no molecule.
    """
    return molecule_to_data(parse_smiles(smiles), smiles.strip(), id)


def canonical_smiles(mol: Any) -> str:
    """One text for all ways to write a molecule."""
    return require("rdkit.Chem", "molecules").MolToSmiles(mol)


def scaffold(mol: Any) -> str:
    """SMILES of the Bemis-Murcko scaffold: ring systems and the chains that join them, without stereochemistry.

    Molecules without rings share the empty scaffold.
    """
    murcko = require("rdkit.Chem.Scaffolds.MurckoScaffold", "molecules")
    with _quiet():
        return murcko.MurckoScaffoldSmiles(mol=mol, includeChirality=False)


def zinc_target(mol: Any) -> float:
    """Penalised logP, the target of the ZINC benchmarks: standardised logP - SA - (largest ring over 6).

    Jin, Barzilay, Jaakkola, "Junction Tree Variational Autoencoder for Molecular Graph Generation", ICML 2018. SA is
    the synthetic accessibility of Ertl and Schuffenhauer (2009); each of the three terms has its mean over ZINC-250k
    removed and is divided by its deviation.
    """
    crippen = require("rdkit.Chem.Crippen", "molecules")
    ring = max(chain([0], (len(atoms) - 6 for atoms in mol.GetRingInfo().AtomRings())))
    terms = (crippen.MolLogP(mol), -_sascorer().calculateScore(mol), -ring)
    return float(sum((term - mean) / std for term, mean, std in zip(terms, _ZINC_MEAN, _ZINC_DEVIATION)))


def _quiet() -> Any:
    """RDKit logs parse errors on stderr itself; inside this context it does not."""
    return require("rdkit.rdBase", "molecules").BlockLogs()


def _reason(text: str) -> str:
    """Why RDKit refuses a string: the first chemistry problem, or that the grammar is wrong."""
    chem = require("rdkit.Chem", "molecules")
    loose = chem.MolFromSmiles(text, sanitize=False)
    if loose is None:
        return "not SMILES (a bracket, ring closure or symbol is wrong)"
    problems = chem.DetectChemistryProblems(loose)
    return problems[0].Message() if problems else "RDKit cannot sanitise it"


@cache
def _entry(values: tuple[str, ...], value: object, last: int) -> int:
    """Entry of one of RDKit's enumerated values; remembered, since naming it takes longer than looking it up."""
    text = str(value)
    return values.index(text) if text in values else last


def _ranged(value: int, low: int, high: int) -> int:
    """Entry of an integer between ``low`` and ``high``; one more entry holds everything else."""
    return value - low if low <= value <= high else high - low + 1


def _chirality(mol: Any, tags: np.ndarray) -> np.ndarray:
    """Entries of atoms [n]: 0 for none, 1 for R, 2 for S, 3 for a stereocentre without a label, 4 for other geometries.

    Args:
        mol: The molecule, which is left as it is.
        tags: RDKit's tags of its atoms [n], which hold for the order of its bonds.
    """
    centres = np.flatnonzero((tags > 0) & (tags < len(_TAGS)))
    if not len(centres):
        return tags
    labelled, entries = require("rdkit.Chem", "molecules").Mol(mol), tags.copy()
    entries[centres] = _UNLABELLED
    try:
        require("rdkit.Chem.rdCIPLabeler", "molecules").AssignCIPLabels(labelled, centres.tolist(), [], _MOST_STEPS)
    except RuntimeError:  # too many steps: how far it got depends on the order of the atoms
        return entries
    for i in centres.tolist():
        atom = labelled.GetAtomWithIdx(i)
        if atom.HasProp("_CIPCode"):
            entries[i] = _CHIRALITY.get(atom.GetProp("_CIPCode"), _UNLABELLED)
    return entries


def _atom_columns(atom: Any) -> list[int]:
    return [
        _ranged(atom.GetAtomicNum(), 1, 118),
        _entry(_TAGS, atom.GetChiralTag(), 4),
        _ranged(atom.GetTotalDegree(), 0, 10),
        _ranged(atom.GetFormalCharge(), -5, 5),
        _ranged(atom.GetTotalNumHs(), 0, 8),
        _ranged(atom.GetNumRadicalElectrons(), 0, 4),
        _entry(_HYBRIDISATION, atom.GetHybridization(), 5),
        int(atom.GetIsAromatic()),
        int(atom.IsInRing()),
    ]


def _bond_columns(bond: Any) -> list[int]:
    return [
        _entry(_BOND_TYPE, bond.GetBondType(), 4),
        _entry(_STEREO, bond.GetStereo(), 5),
        int(bond.GetIsConjugated()),
    ]


@cache
def _sascorer() -> Any:
    """Ertl's synthetic accessibility score, which RDKit ships beside its package and not inside it."""
    config = require("rdkit.RDConfig", "molecules")
    folder = Path(config.RDContribDir) / "SA_Score"
    if not folder.is_dir():
        raise CosetError(f"this RDKit has no Contrib/SA_Score folder ({folder}): install the wheel from PyPI")
    sys.path.append(str(folder))
    try:
        return require("sascorer", "molecules")
    finally:
        sys.path.remove(str(folder))
