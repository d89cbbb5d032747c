"""Coarsenings: hand-made cases, what every family must satisfy, and which of them depend on the numbering."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coset.graphs.encodings.coarsening import COARSENINGS, Settings, coarsen, k_means, masks


def adjacency(graph: nx.Graph):
    return nx.to_numpy_array(graph, nodelist=sorted(graph), dtype=bool)


def sets(family):
    return [np.flatnonzero(members).tolist() for members in family]


PATH = adjacency(nx.path_graph(4))
TWO_PATHS = adjacency(nx.disjoint_union(nx.path_graph(3), nx.path_graph(3)))


def test_a_path_is_cut_in_the_middle():
    assert sets(coarsen(PATH, "spectral", Settings(2, dimensions=1))) == [[0, 1], [2, 3]]
    assert sets(coarsen(PATH, "merge", Settings(2))) == [[0, 1], [2, 3]]
    assert sets(coarsen(PATH, "edges")) == [[0, 1], [1, 2], [2, 3]]
    assert sets(coarsen(PATH, "balls")) == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]
    assert sets(coarsen(PATH, "balls", Settings(radius=3))) == [[0, 1, 2, 3]]
    assert sets(coarsen(PATH, "pairs")) == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert sets(coarsen(PATH, "whole")) == [[0, 1, 2, 3]]


def test_clusters_of_two_eigenvectors_need_not_be_connected():
    # The third eigenvector of a path, (1, -1, -1, 1) / 2, outweighs the second.
    assert sets(coarsen(PATH, "spectral", Settings(2))) == [[0, 3], [1, 2]]


def test_components_are_never_mixed_when_there_are_sets_enough():
    assert sets(coarsen(TWO_PATHS, "spectral", Settings(2))) == [[0, 1, 2], [3, 4, 5]]
    assert sets(coarsen(TWO_PATHS, "components")) == [[0, 1, 2], [3, 4, 5]]
    four = coarsen(TWO_PATHS, "spectral", Settings(4))
    assert all(len({node // 3 for node in members}) == 1 for members in sets(four))
    three = adjacency(nx.disjoint_union_all([nx.path_graph(4), nx.path_graph(2), nx.path_graph(1)]))
    assert sets(coarsen(three, "spectral", Settings(2))) == [[0, 1, 2, 3], [4, 5, 6]]


def test_rings_stay_whole():
    two_rings = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(4))
    two_rings.add_edges_from([(2, 7), (7, 3)])
    assert sets(coarsen(adjacency(two_rings), "rings")) == [[0, 1, 2], [3, 4, 5, 6], [7]]


def test_central_nodes_have_most_closed_walks():
    assert sets(coarsen(PATH, "centrality", Settings(2))) == [[1], [2]]
    assert sets(coarsen(adjacency(nx.star_graph(6)), "centrality", Settings(1))) == [[0]]
    graph = nx.random_labeled_tree(25, seed=1)
    theirs = nx.subgraph_centrality(graph)
    wanted = sorted(sorted(theirs, key=lambda node: (-round(theirs[node], 8), node))[:6])
    assert sets(coarsen(adjacency(graph), "centrality", Settings(6))) == [[node] for node in wanted]
    dense = np.ones((900, 900), dtype=bool) & ~np.eye(900, dtype=bool)  # exp of its eigenvalue 899 is no number
    assert sets(coarsen(dense, "centrality", Settings(2))) == [[0], [1]]


@pytest.mark.parametrize("method", [name for name, way in COARSENINGS.items() if way.sized])
def test_as_many_sets_as_nodes_are_the_singletons(method):
    # Twins have equal rows of eigenvectors: clustering them without care leaves sets empty.
    star = adjacency(nx.star_graph(6))
    for size in (7, 8, 100):
        assert np.array_equal(coarsen(star, method, Settings(size)), np.eye(7, dtype=bool))


def test_twins_never_leave_a_cluster_empty():
    star = adjacency(nx.star_graph(6))
    for size in range(1, 7):
        family = coarsen(star, "spectral", Settings(size))
        assert len(family) == size
        assert family.any(axis=1).all()


graphs = st.tuples(st.integers(1, 9), st.floats(0, 1), st.integers(0, 10**6)).map(
    lambda drawn: adjacency(nx.gnp_random_graph(*drawn[:2], seed=drawn[2]))
)


@given(graphs, st.sampled_from(sorted(COARSENINGS)), st.integers(1, 9), st.integers(0, 5))
def test_what_every_family_satisfies(graph, method, size, seed):
    way, n = COARSENINGS[method], len(graph)
    settings = Settings(size, seed=seed)
    family = coarsen(graph, method, settings)
    assert family.dtype == bool
    assert family.shape[1] == n
    assert family.any(axis=1).all()
    assert len(np.unique(family, axis=0)) == len(family)
    assert np.array_equal(family, coarsen(graph, method, settings))
    if way.sized:
        assert len(family) == min(size, n)
    if way.partition:
        assert (family.sum(axis=0) == 1).all()
    if way.invariant:
        order = np.random.default_rng(seed).permutation(n)
        moved = coarsen(graph[np.ix_(order, order)], method, settings)
        assert {frozenset(order[m].tolist()) for m in sets(moved)} == {frozenset(m) for m in sets(family)}


def test_merged_clusters_are_connected():
    tree = adjacency(nx.random_labeled_tree(30, seed=3))
    for members in coarsen(tree, "merge", Settings(6)):
        assert nx.is_connected(nx.from_numpy_array(tree[np.ix_(members, members)]))


def test_spectral_clusters_depend_on_the_numbering_where_eigenvalues_repeat():
    # A ring's eigenvalues are double: any rotation of the plane is as good, and renumbering picks another.
    ring = adjacency(nx.cycle_graph(12))
    rotation = np.roll(np.arange(12), 1)
    found = {tuple(map(tuple, sets(coarsen(ring, "spectral", Settings(5)))))}
    moved = coarsen(ring[np.ix_(rotation, rotation)], "spectral", Settings(5))
    found.add(tuple(sorted(tuple(sorted(rotation[m].tolist())) for m in sets(moved))))
    assert len(found) == 2
    assert not COARSENINGS["spectral"].invariant


def test_k_means_finds_separated_clusters():
    generator = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = np.repeat(centres, 5, axis=0) + generator.normal(size=(20, 2))
    labels = k_means(points, 4, generator)
    assert sorted(np.flatnonzero(row).tolist() for row in masks(labels)) == [
        list(range(k, k + 5)) for k in (0, 5, 10, 15)
    ]
    assert sorted(set(k_means(np.zeros((4, 2)), 3, generator))) == [0, 1, 2]
    with pytest.raises(ValueError, match="5 clusters of 4 points"):
        k_means(np.zeros((4, 2)), 5, generator)


def test_errors_say_what_would_be_right():
    with pytest.raises(ValueError, match="coarsening='metis': choose "):
        coarsen(PATH, "metis")
    with pytest.raises(ValueError, match="size=0: at least 1"):
        coarsen(PATH, "spectral", Settings(0))
