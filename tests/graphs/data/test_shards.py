"""Graphs on disk: what is read back is what was written, one by one and in any process."""

import pickle

import pytest
import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.graphs.data.molecules import smiles_to_data
from coset.graphs.data.shards import MANIFEST, Shard, ShardedGraphs, ShardRows, read_shards, write_shard
from coset.graphs.transforms import ProductPositionalEncoding, ShortestPathDistances, precompute

pytest.importorskip("pyarrow")
SMILES = ["C", "CCO", "c1ccccc1", "[Na+].[Cl-]", "CC(=O)O", "C#N", "C1CC1"]


def equal(one: Data, other: Data) -> bool:
    assert set(one.keys()) == set(other.keys())
    for key in one.keys():  # noqa: SIM118  (iterating over Data gives pairs)
        if isinstance(one[key], torch.Tensor):
            assert one[key].dtype == other[key].dtype
            assert one[key].shape == other[key].shape
            assert torch.equal(one[key].nan_to_num(-9), other[key].nan_to_num(-9))
        else:
            assert one[key] == other[key]
    return True


@pytest.fixture
def graphs():
    plain = [smiles_to_data(smiles, id=str(row)) for row, smiles in enumerate(SMILES)]
    for row, data in enumerate(plain):
        data.y = torch.tensor([[float(row), torch.nan]])
    return precompute(plain, ShortestPathDistances(5), ProductPositionalEncoding(4))


@pytest.fixture
def folder(graphs, tmp_path):
    """Three shards, the second without graphs."""
    import json

    parts = [graphs[:4], [], graphs[4:]]
    for number, part in enumerate(parts):
        write_shard(tmp_path / f"{number}.arrow", part, {"skipped": [number]})
    about = {
        "name": "mine", "shards": [[f"{i}.arrow", len(part)] for i, part in enumerate(parts)], "notes": [],
        "target_names": ["a", "b"], "transform": "", "node_features": [1], "edge_features": [1],
    }  # fmt: skip
    (tmp_path / MANIFEST).write_text(json.dumps(about))
    return tmp_path


def test_a_graph_comes_back_as_it_was(graphs, folder):
    read = ShardedGraphs(folder)
    assert len(read) == len(graphs)
    assert all(equal(a, b) for a, b in zip(read, graphs, strict=True))
    assert equal(read[-1], graphs[-1])
    assert [data.id for data in read[2:6]] == ["2", "3", "4", "5"]
    with pytest.raises(IndexError, match="graph 7 of 7"):
        read[7]
    copy = pickle.loads(pickle.dumps(read))
    assert equal(copy[3], graphs[3])
    read[3].x += 1  # a copy: the file stays as it is
    assert equal(read[3], graphs[3])


def test_equal_graphs_are_equal_files_in_any_process(folder):
    """PyG names attributes in an order that changes from process to process."""
    import pyarrow as pa

    names = pa.ipc.open_file(pa.memory_map(str(folder / "0.arrow"))).schema.names
    assert names == sorted(names)


def test_integers_take_one_byte(graphs, folder):
    import pyarrow as pa

    schema = pa.ipc.open_file(pa.memory_map(str(folder / "0.arrow"))).schema
    assert schema.field("edge_index").type.value_type == pa.uint8()
    assert schema.field("product_frequencies").type.value_type == pa.int8()
    assert schema.field("laplacian_eigenvectors").type.value_type == pa.float32()
    assert Shard(folder / "1.arrow").about == {"skipped": [1]}
    big = [Data(x=torch.tensor([[70000]]), z=True, name="a")]
    write_shard(folder / "big.arrow", big)
    assert equal(Shard(folder / "big.arrow")[0], big[0])


def test_columns_need_no_graphs(graphs, folder):
    read = ShardedGraphs(folder)
    assert read.node_counts.tolist() == [data.num_nodes for data in graphs]
    assert read.targets[:, 0].tolist() == list(range(7))
    rows = ShardRows(read, torch.tensor([0, 3, 4, 6]))
    assert rows.blocks == [2, 0, 2]
    assert rows.targets[:, 0].tolist() == [0, 3, 4, 6]
    assert equal(rows[2], graphs[4])
    assert len(rows[1:]) == 3
    table = read_shards(folder, (0.5, 0.25, 0.25))
    assert table.smiles == SMILES
    assert table.ids == [str(row) for row in range(7)]
    assert sorted(row for split in table.splits.values() for row in split.tolist()) == list(range(7))


def test_what_cannot_be_kept_is_named(graphs, tmp_path):
    with pytest.raises(CosetError, match="'tags' is a list"):
        write_shard(tmp_path / "a", [Data(x=torch.zeros(1, 1), tags=[1])])
    with pytest.raises(CosetError, match="'y' is missing from some"):
        write_shard(tmp_path / "a", [Data(y=torch.zeros(1)), Data(x=torch.zeros(1))])
    with pytest.raises(CosetError, match=r"'x' has shapes \[1, 1\] and \[1, 2\]"):
        write_shard(tmp_path / "a", [Data(x=torch.zeros(1, 1)), Data(x=torch.zeros(1, 2))])
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").write_bytes(b"half")
    with pytest.raises(CosetError, match="is no Arrow file that can be read"):
        Shard(tmp_path / "a")
    with pytest.raises(CosetError, match=r"shards\.json is missing"):
        ShardedGraphs(tmp_path)
