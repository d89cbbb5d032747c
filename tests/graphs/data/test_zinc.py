import gzip

import pandas as pd
import pytest
import torch

from coset.core.data_files import data_file
from coset.core.data_sets import with_file
from coset.core.errors import CosetError
from coset.graphs.data import zinc
from coset.graphs.data.compounds import parse_compound
from coset.graphs.data.datasets import csv
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, parse_smiles, zinc_target
from coset.graphs.data.zinc import ATOM_TYPES, with_types, zinc12k
from coset.graphs.prediction import graphs_to_predict
from coset.runs.recipes import load


def typed(smiles):
    table = GraphTable([parse_compound([smiles]).graph()], (), {}, "one", list(ATOM_SIZES), list(BOND_SIZES))
    return with_types(table)


@pytest.mark.parametrize(
    ("smiles", "types"),
    [
        ("C[C@@H](F)N", ["C", "C H1", "F", "N"]),
        ("[NH3+]CC(=O)[O-]", ["N H3 +", "C", "C", "O", "O -"]),
        ("c1cc[nH]c1", ["C", "C", "C", "N", "C"]),
        ("C[NH+](C)C[N+](=O)[O-]", ["C", "N H1 +", "C", "C", "N +", "O", "O -"]),
        ("C[P@H](=O)O", ["C", "P H1", "O", "O"]),
        ("ClCBr", ["Cl", "C", "Br"]),
    ],
)
def test_an_atom_has_the_benchmarks_type(smiles, types):
    (graph,) = typed(smiles)
    assert [ATOM_TYPES[number] for number in graph.x.squeeze(1).tolist()] == types


def test_bonds_are_those_of_a_kekule_structure():
    (ring,) = typed("c1ccccc1C#N")
    orders = {(i, j): order for (i, j), order in zip(ring.edge_index.T.tolist(), ring.edge_attr.squeeze(1).tolist())}
    assert all(orders[j, i] == order for (i, j), order in orders.items())
    assert sorted(orders[i, (i + 1) % 6] for i in range(6)) == [1, 1, 1, 2, 2, 2]
    assert (orders[5, 6], orders[6, 7]) == (1, 3)


def test_sizes_are_the_benchmarks_and_other_atoms_are_refused():
    table = typed("CO")
    assert (table.node_features, table.edge_features) == ([28], [4])
    with pytest.raises(CosetError, match=r"an atom .Si. is none of the 28 types of ZINC; a network trained with"):
        typed("C[Si](C)(C)C")


def test_every_atom_of_the_test_molecules_has_a_type():
    """With the rule of :data:`ATOM_TYPES`, ZINC-250k has 28 kinds of atoms, which are the benchmark's 28."""
    try:
        file = data_file("molecules/zinc12k_test.csv")
    except CosetError as error:
        pytest.skip(str(error))
    table = with_types(csv(file, "smiles", "penalized_logp", split=None))
    assert len(table) == 1000
    used = torch.cat([graph.x for graph in table.graphs]).unique()
    assert used.numel() > 15
    assert torch.cat([graph.edge_attr for graph in table.graphs]).unique().tolist() == [1, 2, 3]


@pytest.fixture
def folder(tmp_path):
    parts = {"train": ["CCO", "CCN", "CCF", "CCC"], "val": ["CCCO", "CCCN"], "test": ["CCCCO"]}
    for part, smiles in parts.items():
        frame = pd.DataFrame({"smiles": smiles, "penalized_logp": [zinc_target(parse_smiles(text)) for text in smiles]})
        frame.to_csv(tmp_path / f"zinc12k_{part}.csv", index=False)
    with gzip.open(tmp_path / "zinc250k_rest.txt.gz", "wt") as file:
        file.write("\n".join("C" * length + "S" for length in range(1, 21)) + "\n")
    return tmp_path


def test_the_test_molecules_are_a_split_where_they_are(folder):
    table = zinc12k(folder)
    assert {name: len(rows) for name, rows in table.splits.items()} == {"train": 4, "val": 2, "test": 1}
    assert table.notes == ("validation and test molecules are the benchmark's, training molecules are not",)
    assert table.subset("test")[0].smiles == "CCCCO"


def test_training_sets_are_drawn_and_are_the_same_again(folder, monkeypatch):
    monkeypatch.setattr(zinc, "TRAINED_ON", 6)
    first, again, other = (zinc12k(folder, training_set=number) for number in (0, 0, 1))
    assert first.smiles == again.smiles != other.smiles
    assert len(set(first.smiles[:6])) == 6
    assert {text[-1] for text in first.smiles[:6]} == {"S"}
    assert first.smiles[6:] == ["CCCO", "CCCN", "CCCCO"]
    expected = [zinc_target(parse_smiles(text)) for text in first.smiles[:6]]
    torch.testing.assert_close(
        first.targets[:6, 0].double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5
    )
    assert "training molecules are set 0 drawn from others of ZINC-250k" in first.notes[0]
    assert len(set(first.ids)) == len(first)


def test_what_is_drawn_from_comes_with_the_download():
    assert with_file("molecules/zinc250k_rest.txt.gz").name == "zinc12k"
    assert with_file("molecules/zinc12k_test.csv").name == "zinc12k"


def test_too_few_to_draw_from_are_refused(folder):
    with pytest.raises(CosetError, match="has 20 molecules: training sets of 10,000 are drawn from it"):
        zinc12k(folder, training_set=0)


def test_molecules_to_predict_for_have_the_types_of_training(folder):
    recipe = load("gin/zinc12k", [f"data.path={folder}", "data.features=types"])
    table = recipe.load()
    (folder / "new.csv").write_text("smiles\nCCCCO\nC[C@@H](F)N\n")
    found = graphs_to_predict(recipe, table, folder / "new.csv")
    (tested,) = table.subset("test")
    assert all(torch.equal(found[0][key], tested[key]) for key in ("x", "edge_index", "edge_attr"))
    assert found[1].x.squeeze(1).tolist() == [ATOM_TYPES.index(word) for word in ("C", "C H1", "F", "N")]
    (folder / "new.csv").write_text("smiles\n[CH3:1][OH:2]>>[CH2:1]=[O:2]\n")
    with pytest.raises(CosetError, match="has other graphs than gin/zinc12k was trained on"):
        graphs_to_predict(recipe, table, folder / "new.csv")
