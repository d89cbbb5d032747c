import pytest
import torch

from coset.core.errors import CosetError
from coset.graphs.data.molecules import (
    ATOM_SIZES,
    BOND_SIZES,
    molecule_to_data,
    parse_smiles,
    scaffold,
    smiles_to_data,
    zinc_target,
)


def test_methanol_by_hand():
    data = smiles_to_data("CO", id="methanol")
    # columns: atomic number - 1, chirality, degree with H, charge + 5, hydrogens, radicals, SP3 = 2, aromatic, in ring
    assert data.x.tolist() == [[5, 0, 4, 5, 3, 0, 2, 0, 0], [7, 0, 2, 5, 1, 0, 2, 0, 0]]
    assert data.edge_index.tolist() == [[0, 1], [1, 0]]
    assert data.edge_attr.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert (data.smiles, data.id) == ("CO", "methanol")


def test_bond_columns():
    assert smiles_to_data("C#C").edge_attr[0].tolist() == [2, 0, 0]
    assert smiles_to_data("c1ccccc1").edge_attr.unique(dim=0).tolist() == [[3, 0, 1]]
    # The middle bond of E-2-butene is a double bond with stereo E, and E is entry 2.
    assert [1, 2, 0] in smiles_to_data("C/C=C/C").edge_attr.tolist()
    assert [1, 1, 0] in smiles_to_data("C/C=C\\C").edge_attr.tolist()


def test_charges_radicals_chirality_and_rings():
    assert smiles_to_data("[NH4+]").x.tolist() == [[6, 0, 4, 6, 4, 0, 2, 0, 0]]
    assert smiles_to_data("[CH3]").x[0, 5] == 1
    left, right = (smiles_to_data(smiles).x[1, 1] for smiles in ("N[C@@H](C)O", "N[C@H](C)O"))
    assert {int(left), int(right)} == {1, 2}
    ring = smiles_to_data("c1ccccc1C").x
    assert ring[:, 7].tolist() == ring[:, 8].tolist() == [1] * 6 + [0]


@pytest.mark.parametrize(
    ("smiles", "labels"),
    [
        ("C[C@H](N)C(=O)O", [2]),  # L-alanine is S, D-alanine R
        ("N[C@@H](C)C(=O)O", [2]),
        ("C[C@@H](N)C(=O)O", [1]),
        ("N[C@H](C)C(=O)O", [1]),
        ("C[C@H]1CC[C@H](C)CC1", [1, 1]),  # cis is (r, r), trans is (s, s)
        ("C[C@H]1CC[C@@H](C)CC1", [2, 2]),
        ("C[C@@]12CC[C@@](C)(CC1)CC2", [3, 3]),  # a cage: the rules give no label
        ("N[Pt@SP1](N)(Cl)Cl", [4]),
        ("CC(N)C(=O)O", []),
    ],
)
def test_chirality_is_the_label_of_cahn_ingold_and_prelog(smiles, labels):
    chirality = smiles_to_data(smiles).x[:, 1]
    assert chirality[chirality > 0].tolist() == labels


SPELLED = (
    "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C",  # testosterone
    "OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O",
    "C/C=C/[C@@H](O)[C@H](F)CC[S@](=O)C",
)


@pytest.mark.parametrize("smiles", SPELLED)
def test_columns_do_not_depend_on_how_a_molecule_is_spelled(smiles):
    chem = pytest.importorskip("rdkit.Chem")
    mol, x = parse_smiles(smiles), smiles_to_data(smiles).x
    for seed in range(10):
        spelled = chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed)[0]
        other = parse_smiles(spelled)
        match = list(other.GetSubstructMatch(mol, useChirality=True))
        assert torch.equal(smiles_to_data(spelled).x[match], x), spelled


def test_a_molecule_of_very_many_centres_is_read_without_labels():
    x = smiles_to_data("C" + "[C@H](F)" * 401 + "C").x
    assert x[:, 1].unique().tolist() == [0, 3]


def test_reading_a_molecule_leaves_it_as_it_is():
    mol = parse_smiles("C[S@](=O)c1ccccc1")  # RDKit's older rules, which it has gone by, call this R
    assert molecule_to_data(mol).x[1, 1] == 2
    assert mol.GetAtomWithIdx(1).GetProp("_CIPCode") == "R"


@pytest.mark.parametrize(
    "smiles",
    ["*", "[U]", "S(F)(F)(F)(F)(F)F", "[Cu-3]", "[Fe+6]", "[2H]", "[SiH4]", "C[C@](F)(Cl)Br", "N->[Pt]", "[Og]", "B"],
)
def test_unusual_atoms_stay_inside_the_tables(smiles):
    data = smiles_to_data(smiles)
    assert bool((data.x >= 0).all())
    assert bool((data.x < torch.tensor(ATOM_SIZES)).all())
    assert bool((data.edge_attr < torch.tensor(BOND_SIZES)).all())


def test_unknown_elements_take_the_last_entry():
    assert smiles_to_data("*").x[0, 0] == 118
    assert smiles_to_data("[Fe+6]").x[0, 3] == 11


def test_edges_are_sorted_and_go_both_ways():
    data = smiles_to_data("OCC3OC(OCC2OC(OC(C#N)c1ccccc1)C(O)C(O)C2O)C(O)C(O)C3O")
    codes = data.edge_index[0] * data.num_nodes + data.edge_index[1]
    assert bool((codes.diff() > 0).all())
    back = data.edge_index[1] * data.num_nodes + data.edge_index[0]
    order = back.argsort()
    assert torch.equal(back[order], codes)
    assert torch.equal(data.edge_attr[order], data.edge_attr)


def test_single_atom_has_no_edges():
    data = smiles_to_data("C")
    assert data.x.shape == (1, 9)
    assert data.edge_index.shape == (2, 0)
    assert data.edge_attr.shape == (0, 3)
    assert data.edge_index.dtype == data.edge_attr.dtype == torch.long


def test_salts_have_components():
    data = smiles_to_data("[Na+].[Cl-]")
    assert data.num_nodes == 2
    assert data.num_edges == 0


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1CC", "not SMILES"),
        ("CN(C)(C)(C)C", "[Vv]alence"),
        ("c1cccc1", "kekulize|aromatic"),
        ("hello", "not SMILES"),
        ("", "empty"),
        ("  ", "empty"),
    ],
)
def test_unparsable_smiles_say_why_and_print_nothing(smiles, reason, capfd):
    with pytest.raises(CosetError, match=reason) as caught:
        parse_smiles(smiles)
    assert repr(smiles.strip())[1:-1] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_scaffold():
    assert scaffold(parse_smiles("Cc1ccccc1CCO")) == "c1ccccc1"
    assert scaffold(parse_smiles("CCO")) == ""
    left, right = (scaffold(parse_smiles(s)) for s in ("C[C@H]1CCCN1C", "C[C@@H]1CCCN1C"))
    assert left == right


def test_renumbering_atoms_permutes_the_rows():
    chem = pytest.importorskip("rdkit.Chem")
    mol = parse_smiles("CC(=O)Oc1ccccc1C(=O)O")
    order = torch.randperm(mol.GetNumAtoms(), generator=torch.Generator().manual_seed(1))
    data, shuffled = molecule_to_data(mol), molecule_to_data(chem.RenumberAtoms(mol, order.tolist()))
    assert torch.equal(shuffled.x, data.x[order])
    there = {tuple(edge): features for edge, features in zip(data.edge_index.t().tolist(), data.edge_attr.tolist())}
    moved = order[shuffled.edge_index].t().tolist()
    assert {tuple(edge): f for edge, f in zip(moved, shuffled.edge_attr.tolist())} == there


def test_zinc_target_matches_published_values():
    # First molecules of the benchmark's files.
    mol = parse_smiles("C[C@@]1(c2ccc(F)cc2)NC(=O)N(CN2CCN(S(=O)(=O)c3ccc4ccccc4c3)CC2)C1=O")
    assert zinc_target(mol) == pytest.approx(0.631514, abs=5e-3)
    assert zinc_target(parse_smiles("COCc1ccc(C(=O)Oc2ccc(F)cc2)cc1")) == pytest.approx(2.469099, abs=5e-3)
