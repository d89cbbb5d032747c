import gzip

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coset.core.data_files import data_file
from coset.core.errors import CosetError
from coset.graphs.data.splits import fold_split
from coset.graphs.data.tu_datasets import read_tu, tu_dataset
from coset.runs.recipes import load

TRIANGLE = "3 {label}\n5 2 1 2\n{tag} 2 0 2\n5 2 0 1\n"
PATH = "2 {label}\n5 1 1\n5 1 0\n"


def written(folder, text, name="MUTAG"):
    file = folder / f"{name}.txt.gz"
    with gzip.open(file, "wt") as out:
        out.write(text)
    return file


def collection(tag=9, graphs=6):
    parts = ((TRIANGLE if k % 2 else PATH).format(label=2 * (k % 2), tag=tag) for k in range(graphs))
    return f"{graphs}\n" + "".join(parts)


def test_tags_and_classes_are_numbered_in_the_order_of_their_values(tmp_path):
    graphs, tags = read_tu(written(tmp_path, collection()))
    path, triangle = graphs[:2]
    assert tags == 2
    assert (path.num_nodes, path.x.tolist(), path.y.tolist()) == (2, [[0], [0]], [[0.0]])
    assert (triangle.x.tolist(), triangle.y.tolist()) == ([[0], [1], [0]], [[1.0]])
    assert triangle.edge_index.tolist() == [[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]]


def test_degrees_stand_in_for_tags_that_are_all_equal(tmp_path):
    table = tu_dataset("imdb-b", written(tmp_path, collection(tag=5), "IMDBBINARY"), folds=3)
    assert table[0].x.tolist() == [[1], [1]]
    assert table[1].x.tolist() == [[2], [2], [2]]
    assert (table.node_features, table.edge_features, table.target_names) == ([3], None, ("label",))


@given(st.lists(st.integers(0, 1), min_size=12, max_size=60), st.integers(3, 6), st.integers(0, 9))
def test_folds_cover_every_row_once_and_keep_the_shares_of_the_classes(labels, folds, seed):
    labels = labels + [0, 1] * folds
    rounds = [fold_split(labels, folds, fold, seed) for fold in range(folds)]
    assert sorted(torch.cat([split["test"] for split in rounds]).tolist()) == list(range(len(labels)))
    for k, split in enumerate(rounds):
        assert torch.equal(split["val"], rounds[(k + 1) % folds]["test"])
        assert sorted(torch.cat(list(split.values())).tolist()) == list(range(len(labels)))
    ones = [sum(labels[row] for row in split["test"].tolist()) for split in rounds]
    assert max(ones) - min(ones) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n3 0\n0 1 1\n", "line 2: not a graph of this format"),
        ("x\n", "line 2: not a graph"),
        ("1\n2 0\n0 3 1\n0 1 0\n", "node 0 has 1 of 3 neighbours"),
        ("1\n2 0\n0 1 1\n0 0\n", "no reverse"),
        ("2\n1 0\n0 0\n1 0\n0 0\n", "has 1 class: at least two can be learnt"),
    ],
)
def test_malformed_files_are_explained(tmp_path, text, message):
    with pytest.raises(CosetError, match=message):
        read_tu(written(tmp_path, text))


def test_folds_that_do_not_exist_are_explained(tmp_path):
    with pytest.raises(ValueError, match="fold=3 of 3"):
        fold_split([0, 1] * 5, 3, 3)
    with pytest.raises(ValueError, match="smallest class has 2 graphs"):
        fold_split([0, 1, 0, 1, 0], 3, 0)
    with pytest.raises(CosetError, match="there are 10 folds"):
        load("gin/mutag", ["data.fold=10"])


def test_a_run_classifies_and_reports(tmp_path):
    file = written(tmp_path, collection(graphs=30))
    changes = [f"data.path={file}", "data.folds=5", "training.epochs=40", "training.learning_rate=0.02"]
    recipe = load("granola/mutag", [*changes, "model.width=16", "model.draws=2", "seed=7"])
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert metrics["notes"] == ["fold 2 of 5 is tested on, fold 3 chooses the epoch"]
    assert metrics["test"].keys() == {"accuracy", "auroc", "ap"}
    assert metrics["test"]["accuracy"] == 1


def test_the_collection_itself():
    try:
        file = data_file("graphs/MUTAG.txt.gz")
    except CosetError:
        pytest.skip("MUTAG is not at hand")
    table = tu_dataset("mutag", file)
    assert (len(table), table.node_features, int(table.targets.sum())) == (188, [7], 125)


def test_several_classes_have_names(tmp_path):
    parts = (PATH.format(label=5 * (k % 3), tag=9) for k in range(30))
    file = written(tmp_path, "30\n" + "".join(parts), "ENZYMES")
    table = tu_dataset("enzymes", file)
    assert table.classes == ("0", "1", "2")
    assert table.targets.squeeze(1).tolist() == [float(k % 3) for k in range(30)]
    recipe = load("gin/enzymes", [f"data.path={file}", "training.epochs=1", "model.width=8", "model.layers=1"])
    assert "macro_f1" in recipe.run(tmp_path / "run", quiet=True)["test"]


@pytest.mark.parametrize(("name", "graphs", "classes"), [("enzymes", 600, 6), ("imdb-m", 1500, 3)])
def test_collections_with_several_classes(name, graphs, classes):
    try:
        table = tu_dataset(name)
    except CosetError:
        pytest.skip(f"{name} is not at hand")
    assert (len(table), len(table.classes)) == (graphs, classes)
    assert torch.bincount(table.targets.squeeze(1).long()).tolist() == [graphs // classes] * classes
