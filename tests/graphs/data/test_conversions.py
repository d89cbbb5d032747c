"""Downloads as their publishers have them become the files that readers read."""

import gzip
import zipfile

import pandas as pd
import pytest

from coset import CosetError
from coset.graphs.data import conversions
from coset.graphs.data.molecules import parse_smiles, zinc_target
from coset.graphs.data.tu_datasets import read_tu
from coset.graphs.data.zinc import zinc12k


def write(folder, found):
    for name, content in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def archive(path, **parts):
    with zipfile.ZipFile(path, "w") as file:
        for part, text in parts.items():
            file.writestr(f"{path.stem}/{path.stem}_{part}.txt", text)
    return path


def test_a_set_of_the_tu_collection(tmp_path):
    """A path of three atoms and a single bond, one class each."""
    path = archive(
        tmp_path / "MUTAG.zip", A="1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n", graph_indicator="1\n1\n1\n2\n2\n",
        graph_labels="1\n-1\n", node_labels="0\n7\n0\n3\n3\n",
    )  # fmt: skip
    (file,) = write(tmp_path, conversions.tu([path])).glob("graphs/*")
    assert file.name == "MUTAG.txt.gz"
    assert gzip.decompress(file.read_bytes()) == b"2\n3 1\n0 1 1\n7 2 0 2\n0 1 1\n2 -1\n3 1 1\n3 1 0\n"
    graphs, tags = read_tu(file)
    assert ([graph.num_nodes for graph in graphs], tags) == ([3, 2], 3)


def test_social_networks_have_no_tags_and_edges_stay_within_graphs(tmp_path):
    whole = {"graph_indicator": "1\n1\n2\n", "graph_labels": "0\n1\n"}
    path = archive(tmp_path / "IMDB-BINARY.zip", A="1, 2\n2, 1\n1, 2\n", **whole)
    ((name, content),) = conversions.tu([path])
    assert (name, gzip.decompress(content)) == ("graphs/IMDBBINARY.txt.gz", b"2\n2 0\n0 1 1\n0 1 0\n1 1\n0 0\n")
    path = archive(tmp_path / "IMDB-MULTI.zip", A="1, 3\n", **whole)
    with pytest.raises(CosetError, match="an edge joins graphs 1 and 2"):
        list(conversions.tu([path]))


def test_zinc12k_is_what_its_indices_name(tmp_path):
    for name, text in {"train.txt": "CCO\nc1ccccc1\nCCN\n", "valid.txt": "CCC\nC1CCCCCCC1\n", "test.txt": "CO\nCF\n",
                       "train.index": "2,0\n", "val.index": "1", "test.index": "0"}.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    names = ("train.txt", "valid.txt", "test.txt", "train.index", "val.index", "test.index")
    paths = [tmp_path / name for name in names]
    write(tmp_path, conversions.zinc12k(paths))
    table = pd.read_csv(tmp_path / "molecules" / "zinc12k_train.csv")
    assert list(table["smiles"]) == ["CCN", "CCO"]
    assert table["penalized_logp"][0] == pytest.approx(zinc_target(parse_smiles("CCN")), abs=1e-6)
    found = zinc12k(tmp_path / "molecules")
    assert found.notes == ("validation and test molecules are the benchmark's, training molecules are too",)
    assert found.smiles == ["CCN", "CCO", "C1CCCCCCC1", "CO"]
    rest = gzip.decompress((tmp_path / "molecules" / "zinc250k_rest.txt.gz").read_bytes()).decode().split()
    assert rest == ["CCO", "c1ccccc1", "CCN", "CCC", "CF"]
    (tmp_path / "val.index").write_text("7")
    with pytest.raises(CosetError, match="the index of val does not fit its molecules"):
        list(conversions.zinc12k(paths))


def test_bace_keeps_three_columns(tmp_path):
    (tmp_path / "bace.csv").write_text("mol,CID,Class,pIC50,MW\nCCO,BACE_1,1,9.1,46\n")
    assert list(conversions.bace([tmp_path / "bace.csv"])) == [
        ("molecules/bace.csv", b"smiles,class,pIC50\nCCO,1,9.1\n")
    ]
    (tmp_path / "bace.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CosetError, match="is not MoleculeNet's table of BACE"):
        list(conversions.bace([tmp_path / "bace.csv"]))
