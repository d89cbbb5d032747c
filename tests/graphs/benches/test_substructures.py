"""Counts of short cycles: by hand, against enumeration by NetworkX, against closed formulas."""

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.utils import to_networkx

from coset.graphs.benches.substructures import (
    SIZES_AND_DEGREES,
    chordal_squares,
    counting_graphs,
    cycles_through_nodes,
    node_counts,
    thinned_regular_graph,
)
from coset.graphs.data.collections import graph_from_adjacency


def data(graph: nx.Graph) -> Data:
    return graph_from_adjacency(nx.to_numpy_array(graph, dtype=bool))


def test_bow_tie_by_hand():
    # Two triangles sharing node 0.
    bow_tie = data(nx.from_edgelist([(0, 1), (1, 2), (2, 0), (0, 3), (3, 4), (4, 0)]))
    assert cycles_through_nodes(bow_tie, 3).tolist() == [2, 1, 1, 1, 1]
    assert cycles_through_nodes(bow_tie, 4).tolist() == [0] * 5
    assert chordal_squares(bow_tie).tolist() == [0] * 5


def test_complete_graph():
    # In K_5 every node is in C(4, k-1) (k-1)! / 2 cycles of length k, and in 4 squares of K_4 that have 6 chords each.
    complete = data(nx.complete_graph(5))
    assert [cycles_through_nodes(complete, k)[0].item() for k in (3, 4, 5, 6)] == [6, 12, 12, 0]
    assert chordal_squares(complete).tolist() == [4 * 6] * 5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.floats(0, 0.7), st.integers(0, 2**31 - 1))
def test_agrees_with_enumeration(nodes, density, seed):
    graph = nx.gnp_random_graph(nodes, density, seed=seed)
    cycles = list(nx.simple_cycles(graph, length_bound=6))
    for length in (3, 4, 5, 6):
        expected = [sum(v in cycle for cycle in cycles if len(cycle) == length) for v in range(nodes)]
        assert cycles_through_nodes(data(graph), length).tolist() == expected
    squares = [
        (u, v, a, b) for u, v in graph.edges for a, b in itertools.combinations(set(graph[u]) & set(graph[v]), 2)
    ]
    assert chordal_squares(data(graph)).tolist() == [sum(v in square for square in squares) for v in range(nodes)]


def test_agrees_with_matrix_formulas():
    graph = thinned_regular_graph(30, 5, np.random.default_rng(0))
    a = nx.to_numpy_array(to_networkx(graph, to_undirected=True), nodelist=range(30)).astype(np.int64)
    degree, cube = a.sum(0), np.diagonal(np.linalg.matrix_power(a, 3))
    assert cycles_through_nodes(graph, 3).tolist() == (cube // 2).tolist()
    # Closed walks of length 4 that are no cycles go to a neighbour and back twice, or to one at distance two and back.
    walks = np.diagonal(np.linalg.matrix_power(a, 4))
    assert cycles_through_nodes(graph, 4).tolist() == ((walks - degree * (degree - 1) - a @ degree) // 2).tolist()
    # 5-cycles of the whole graph (Harary, Manvel 1971): what is left of closed walks without triangles and their tails.
    fifth = np.trace(np.linalg.matrix_power(a, 5)) - 5 * cube.sum() - 5 * ((degree - 2) * cube).sum()
    assert cycles_through_nodes(graph, 5).sum() == 5 * fifth // 10


def test_random_graphs_of_the_benchmark():
    sizes = {(n, n * d // 2 - n) for n, d in SIZES_AND_DEGREES}
    assert sizes == {(10, 20), (15, 30), (20, 30), (30, 45)}
    graphs = counting_graphs(60, ["cycle5", "chordal4", "cycle3"], seed=3)
    assert {(g.num_nodes, g.edge_index.size(1) // 2) for g in graphs} == sizes
    assert all(g.y.shape == (g.num_nodes, 3) and g.y.dtype == torch.float32 for g in graphs)
    assert all(torch.equal(g.y[:, 0], cycles_through_nodes(g, 5).float()) for g in graphs[:5])
    again, other = counting_graphs(60, seed=3), counting_graphs(60, seed=4)
    assert all(torch.equal(g.edge_index, h.edge_index) for g, h in zip(graphs, again))
    assert not all(torch.equal(g.edge_index, h.edge_index) for g, h in zip(graphs, other))


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="no 5-regular graph on 9 nodes"):
        thinned_regular_graph(9, 5, np.random.default_rng(0))
    for target in ("cycle2", "cycle", "star"):
        with pytest.raises(ValueError, match=f"target '{target}': choose chordal4, cycle3"):
            node_counts(data(nx.path_graph(3)), target)
