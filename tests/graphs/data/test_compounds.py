import random

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem

from coset import CosetError
from coset.graphs import Learner
from coset.graphs.data.compounds import feature_sizes, parse_compound
from coset.graphs.data.datasets import csv
from coset.graphs.data.molecule_files import read_molecules
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.runs.recipes import load

ESTER = "[CH3:1][C:2](=[O:3])[OH:4].[OH:5][CH3:6]>>[CH3:1][C:2](=[O:3])[O:5][CH3:6]"
QUICK = {"width": 12, "layers": 1, "epochs": 1, "batch_size": 4}
PARTS = (0.5, 0.25, 0.25)


def test_a_mixture_is_its_molecules_side_by_side():
    graph = parse_compound(["CCO", "C=O"]).graph("a")
    one, other = smiles_to_data("CCO"), smiles_to_data("C=O")
    assert torch.equal(graph.x[:, :-1], torch.cat([one.x, other.x]))
    assert graph.x[:, -1].tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(graph.edge_index, torch.cat([one.edge_index, other.edge_index + 3], 1))
    assert feature_sizes("mixture", 2)[0] == [*ATOM_SIZES, 2]
    assert graph.smiles == "CCO.C=O"


def test_a_reaction_is_condensed():
    graph = parse_compound([ESTER]).graph()
    assert graph.num_nodes == 6  # the leaving oxygen is there before alone
    sizes = feature_sizes("reaction")
    assert (graph.x < torch.tensor(sizes[0])).all()
    assert (graph.edge_attr < torch.tensor(sizes[1])).all()
    before, after = graph.x.split(len(ATOM_SIZES), dim=1)
    assert before[3, 0] == 7  # atomic number 8
    assert after[3].tolist() == ATOM_SIZES  # gone
    bonds = {tuple(pair): row for pair, row in zip(graph.edge_index.T.tolist(), graph.edge_attr.tolist(), strict=True)}
    assert bonds[1, 3][3:] == BOND_SIZES  # broken
    assert bonds[1, 4][:3] == BOND_SIZES  # made
    assert bonds[1, 2][:3] == bonds[1, 2][3:]
    assert sorted(bonds) == sorted((j, i) for i, j in bonds)


def edges(graph):
    """Rows of features of both ends and of the edge, sorted."""
    ends = zip(graph.edge_index.T.tolist(), graph.edge_attr.tolist(), strict=True)
    return sorted([*graph.x[i].tolist(), *graph.x[j].tolist(), *row] for (i, j), row in ends)


def test_the_order_of_atoms_and_their_numbers_do_not_matter():
    """The condensed graph of a rewritten reaction is isomorphic: the same multisets of rows."""
    rng = random.Random(0)
    left, right = ESTER.split(">>")
    sides = []
    numbers = rng.sample(range(1, 50), 6)
    for side in (left, right):
        mol = Chem.MolFromSmiles(side)
        for atom in mol.GetAtoms():
            atom.SetAtomMapNum(numbers[atom.GetAtomMapNum() - 1])
        sides.append(Chem.MolToSmiles(mol, doRandom=True, canonical=False))
    one, other = parse_compound([ESTER]).graph(), parse_compound([">>".join(sides)]).graph()
    assert sorted(one.x.tolist()) == sorted(other.x.tolist())
    rows = [
        sorted(
            [*g.x[i].tolist(), *g.x[j].tolist(), *row]
            for (i, j), row in zip(g.edge_index.T.tolist(), g.edge_attr.tolist())
        )
        for g in (one, other)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CCO>>CC=O", "has no atom map"),
        ("CCO>CC=O", "must read reactants>agents>products"),
        ("[CH3:1][CH3:1]>>[CH3:1]C", "two atoms of one side have the number 1"),
        ("[CH3:1]Q>>[CH4:1]", "unparsable SMILES"),
    ],
)
def test_reactions_that_are_none(text, message):
    with pytest.raises(CosetError, match=message):
        parse_compound([text])


def test_agents_count_with_the_reactants():
    graph = parse_compound(["[CH3:1]Cl>O>[CH3:1]O"]).graph()
    assert graph.num_nodes == 4  # carbon, chlorine, the agent's oxygen, the products' oxygen


@pytest.mark.parametrize("model", ["gin", "subgraphormer"])
def test_pairs_and_reactions_from_a_file_to_predictions(tmp_path, model):
    tails = ["C" * k for k in range(1, 13)]
    pairs = pd.DataFrame({"solute": tails, "solvent": ["O", "CO"] * 6, "y": range(12)})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    reactions = [f"[CH3:1]{tail}Cl>>[CH3:1]{tail}O" for tail in tails]
    pd.DataFrame({"reaction": reactions, "y": range(12)}).to_csv(tmp_path / "reactions.csv", index=False)
    quick = [f"model.name={model}", "model.width=12", "model.layers=1", "training.epochs=1", "training.batch_size=4"]
    quick += ["data.fractions=[0.5,0.25,0.25]", "data.target=y"] + (["model.heads=2"] if model != "gin" else [])
    for name, column in (("pairs", "solute,solvent"), ("reactions", "reaction")):
        recipe = load("csv", [f"data.path={tmp_path / name}.csv", f"data.smiles={column}", *quick])
        recipe.run(tmp_path / name, quiet=True)
        recipe.predict(recipe.folder(tmp_path / name), tmp_path / f"{name}.csv", tmp_path / "out.csv", quiet=True)
        found, kept = pd.read_csv(tmp_path / "out.csv"), pd.read_csv(tmp_path / name / "predictions.csv")
        assert found["prediction_y"].to_list() == pytest.approx(kept["prediction_y"].to_list(), rel=1e-4, abs=1e-4)
    with pytest.raises(CosetError, match="reactions each need a network of their own"):
        recipe.predict(
            recipe.folder(tmp_path / "reactions"),
            tmp_path / "pairs.csv",
            tmp_path / "no.csv",
            quiet=True,
            smiles="solute",
        )


def test_pairs_in_python():
    pairs = [("C" * k, "O") for k in range(1, 13)]
    learner = Learner("gin", **QUICK).fit(pairs, np.arange(12.0), fractions=PARTS)
    assert learner.predict(pairs).shape == (12,)


def test_molecules_among_reactions_are_told(tmp_path):
    (tmp_path / "a.csv").write_text(f"smiles,y\n{ESTER},1\nCCO,2\n")
    with pytest.raises(CosetError, match=r"a.csv, row 3: 'CCO' is a molecule; rows before hold a reaction"):
        csv(tmp_path / "a.csv", targets="y", split=None)


def sdf(path, smiles, broken=()):
    text = ""
    for at, each in enumerate(smiles):
        mol = Chem.MolFromSmiles(each)
        block = Chem.MolToMolBlock(mol)
        text += "not a block\n" if at in broken else f"mol {at}{block}"
        text += f"> <SOL> (1)\n{at / 2}\n\n>  <note>\ntwo\nlines\n\n$$$$\n"
    path.write_text(text)
    return path


def test_an_sdf_is_a_table_of_its_properties(tmp_path):
    smiles = ["CCO", "C[C@H](N)O", "c1ccccc1"]
    table = read_molecules(sdf(tmp_path / "a.sdf", smiles)).frame
    assert list(table.columns) == ["smiles", "name", "SOL", "note"]
    assert table["smiles"].tolist() == [Chem.CanonSmiles(each) for each in smiles]
    assert table["SOL"].tolist() == ["0.0", "0.5", "1.0"]
    assert table["note"].tolist() == ["two\nlines"] * 3
    assert table.index.tolist() == [1, 2, 3]
    found = csv(tmp_path / "a.sdf", targets="SOL", split=None)
    assert torch.equal(found.graphs[1].x, smiles_to_data(Chem.CanonSmiles(smiles[1])).x)
    assert found.targets.flatten().tolist() == [0.0, 0.5, 1.0]


def test_records_that_are_no_molecules(tmp_path):
    file = sdf(tmp_path / "a.sdf", ["CCO", "CC", "C"], broken=(1,))
    with pytest.raises(CosetError, match=r"a.sdf, record 2 has no line 'M  END' \(skip such rows"):
        csv(file, targets="SOL", split=None)
    table = csv(file, targets="SOL", split=None, skip_bad_rows=True)
    assert (table.ids, table.notes) == (["1", "3"], ("skipped 1 unparsable row: 2",))
    (tmp_path / "b.sdf").write_bytes("caf\u00e9\n\n$$$$\n".encode("latin-1"))
    with pytest.raises(CosetError, match=r"b.sdf, line 1: the byte 0xe9 is not UTF-8; save the file as UTF-8"):
        read_molecules(tmp_path / "b.sdf")
