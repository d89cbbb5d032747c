import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from coset.graphs.transforms import ShortestPathDistances, distance_matrix


def undirected(n, *edges):
    pairs = [pair for u, v in edges for pair in ((u, v), (v, u))]
    return Data(edge_index=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t(), num_nodes=n)


def path(n):
    return undirected(n, *((v, v + 1) for v in range(n - 1)))


def test_path_of_three():
    data = ShortestPathDistances()(path(3))
    assert data.pair_distance.dtype == torch.uint8
    assert data.pair_distance.tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0]


def test_two_components_are_told_from_far_away():
    # 0 - 1 - 2 - 3 and 4: from 0 with largest distance 2, node 3 is "2 or more", node 4 is out of reach.
    data = ShortestPathDistances(max_distance=2)(undirected(5, (0, 1), (1, 2), (2, 3)))
    assert data.pair_distance.view(5, 5).tolist() == [
        [0, 1, 2, 2, 3],
        [1, 0, 1, 2, 3],
        [2, 1, 0, 1, 3],
        [2, 2, 1, 0, 3],
        [3, 3, 3, 3, 0],
    ]


@pytest.mark.parametrize("largest", [1, 2, 3, 254])
def test_largest_distance(largest):
    expected = [min(distance, largest) for distance in range(7)]
    assert ShortestPathDistances(largest)(path(7)).pair_distance[:7].tolist() == expected


def test_a_path_longer_than_the_largest_byte():
    assert distance_matrix(path(256))[0].tolist() == [min(distance, 254) for distance in range(256)]


def test_one_node_and_no_edges():
    assert ShortestPathDistances()(undirected(1)).pair_distance.tolist() == [0]
    assert ShortestPathDistances()(undirected(2)).pair_distance.tolist() == [0, 6, 6, 0]


@pytest.mark.parametrize("largest", [0, -1, 255])
def test_impossible_largest_distance(largest):
    with pytest.raises(ValueError, match="choose 1 to 254"):
        ShortestPathDistances(largest)


@settings(deadline=None)
@given(st.integers(1, 14), st.floats(0, 0.6), st.integers(0, 10**6), st.integers(1, 9))
def test_like_networkx(n, probability, seed, largest):
    graph = nx.gnp_random_graph(n, probability, seed=seed)
    distances = ShortestPathDistances(largest)(undirected(n, *graph.edges)).pair_distance.view(n, n)
    true = dict(nx.all_pairs_shortest_path_length(graph))
    expected = [[min(true[s][v], largest) if v in true[s] else largest + 1 for v in range(n)] for s in range(n)]
    assert distances.tolist() == expected


def test_repr():
    assert repr(ShortestPathDistances(7)) == "ShortestPathDistances(max_distance=7)"
