"""Readers of graph collections: hand-made lines, agreement with NetworkX, and what damaged files say."""

import gzip

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.utils import to_networkx

from coset.core.errors import CosetError
from coset.graphs.data.collections import (
    BREC_CATEGORIES,
    graph_atlas,
    parse_graph6,
    read_brec,
    read_counting,
    read_exp,
    read_graph6,
    read_sr25,
)


def test_path_of_three_nodes():
    # 3 nodes: 'B'; bits (0,1) (0,2) (1,2) = 1 0 1, filled up to 101000 = 40: 'g'
    graph = parse_graph6("Bg")
    assert graph.num_nodes == 3
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]


@pytest.mark.parametrize("nodes", [0, 1, 2, 5, 12, 13, 62, 63, 64, 100])
def test_agrees_with_networkx(nodes):
    graph = nx.gnp_random_graph(nodes, 0.3, seed=nodes)
    for header in (True, False):
        read = parse_graph6(nx.to_graph6_bytes(graph, header=header))
        assert read.num_nodes == nodes
        assert set(map(tuple, read.edge_index.t().tolist())) == set(graph.to_directed().edges)
        assert read.edge_index.dtype == torch.long


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "empty"),
        ("B", "needs 1 characters"),
        ("Bgg", "found 2"),
        ("B g", "found ' '"),
        ("~?", "within its number of nodes"),
    ],
)
def test_bad_graph6_says_what_is_wrong(line, message):
    with pytest.raises(ValueError, match=message):
        parse_graph6(line)


def test_bad_line_is_named(tmp_path):
    file = tmp_path / "some.g6.gz"
    with gzip.open(file, "wt") as out:
        out.write("Bg\n\nB!\n")
    with pytest.raises(CosetError, match=r"some.g6.gz, line 3: graph6 uses the characters"):
        read_graph6(file)


def test_missing_collection_says_where_it_was_sought(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSET_DATA", str(tmp_path / "mine"))
    with pytest.raises(CosetError, match=r"mine/expressivity/brec/basic.npy.*COSET_DATA"):
        read_brec()
    with pytest.raises(CosetError, match=r"sr25.g6 is not found"):
        read_sr25()


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "basic.npy", np.array(["Bg"] * 120, dtype=object), allow_pickle=True)
    with pytest.raises(CosetError, match=r"basic.npy holds Python objects"):
        read_brec(tmp_path, ["basic"])
    np.save(tmp_path / "basic.npy", np.arange(4))
    with pytest.raises(CosetError, match=r"4 items of type int64, expected 120 graph6 strings"):
        read_brec(tmp_path, ["basic"])
    with pytest.raises(CosetError, match=r"no category 'basics'"):
        read_brec(tmp_path, ["basics"])


def test_graph_atlas():
    assert len(graph_atlas()) == 1252
    connected = graph_atlas(connected=True)
    assert len(connected) == 996
    assert [graph.num_nodes for graph in connected[:4]] == [1, 2, 3, 3]
    assert all(nx.is_connected(to_networkx(graph, to_undirected=True)) for graph in connected[::97])


def test_brec_pairs_have_official_numbers(expressivity_data):
    pairs = read_brec(expressivity_data)
    assert [pair.index for pair in pairs] == list(range(400))
    assert all(pair.index in BREC_CATEGORIES[pair.category] for pair in pairs)
    assert all(pair.first.num_nodes == pair.second.num_nodes for pair in pairs)
    assert [pair.index for pair in read_brec(expressivity_data / "expressivity/brec", ["4vtx", "regular"])][48:52] == [
        108,
        109,
        360,
        361,
    ]
    rook, shrikhande = (to_networkx(g, to_undirected=True) for g in (pairs[110].first, pairs[110].second))
    assert {len(rook), len(shrikhande)} == {16}
    assert not nx.is_isomorphic(rook, shrikhande)


def test_other_collections(expressivity_data):
    regular = read_sr25(expressivity_data)
    assert len(regular) == 15
    assert all(graph.edge_index.size(1) == 25 * 12 for graph in regular)
    assert (len(read_counting("train", expressivity_data)), len(read_counting("val", expressivity_data))) == (
        1500,
        1000,
    )
    pairs = read_exp(expressivity_data)
    assert len(pairs) == 600
    assert all(pair.first.x.shape == (pair.first.num_nodes, 1) for pair in pairs)
    assert {(int(pair.first.y), int(pair.second.y)) for pair in pairs} == {(1, 0)}
    with pytest.raises(CosetError, match="no split 'test'"):
        read_counting("test", expressivity_data)
