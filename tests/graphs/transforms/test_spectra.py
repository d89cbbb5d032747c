import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from coset.graphs.transforms import GraphStack, LaplacianEigenvectors, laplacian, laplacian_spectrum


def from_networkx(graph):
    pairs = [pair for u, v in graph.edges for pair in ((u, v), (v, u))]
    return Data(edge_index=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t(), num_nodes=len(graph))


ROOT2 = math.sqrt(2)
KNOWN = {
    "K1": (nx.empty_graph(1), [0]),
    "K2": (nx.complete_graph(2), [0, 2]),
    "P3": (nx.path_graph(3), [0, 1, 3]),
    "P4": (nx.path_graph(4), [0, 2 - ROOT2, 2, 2 + ROOT2]),
    "star": (nx.star_graph(3), [0, 1, 1, 4]),
    "C4": (nx.cycle_graph(4), [0, 2, 2, 4]),
    "edgeless": (nx.empty_graph(3), [0, 0, 0]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_spectra(name):
    graph, expected = KNOWN[name]
    values, _ = laplacian_spectrum(GraphStack([from_networkx(graph)]))
    torch.testing.assert_close(values[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_path_of_three_by_hand():
    data = LaplacianEigenvectors(2)(from_networkx(nx.path_graph(3)))
    a, b = 1 / ROOT2, 1 / math.sqrt(6)
    torch.testing.assert_close(data.laplacian_eigenvectors, torch.tensor([[a, -b], [0, 2 * b], [-a, -b]]))
    torch.testing.assert_close(data.laplacian_eigenvalues, torch.tensor([[1.0, 3.0]]))


def test_include_constant():
    data = LaplacianEigenvectors(2, include_constant=True)(from_networkx(nx.path_graph(3)))
    torch.testing.assert_close(data.laplacian_eigenvectors[:, 0], torch.full((3,), 1 / math.sqrt(3)))
    torch.testing.assert_close(data.laplacian_eigenvalues, torch.tensor([[0.0, 1.0]]))


def test_fewer_eigenvectors_than_asked_for_are_padded():
    data = LaplacianEigenvectors(4)(from_networkx(nx.path_graph(3)))
    assert data.laplacian_eigenvectors.shape == (3, 4)
    assert data.laplacian_eigenvectors[:, 2:].abs().sum() == 0
    assert data.laplacian_eigenvalues.isnan().tolist() == [[False, False, True, True]]
    single = LaplacianEigenvectors(2)(from_networkx(nx.empty_graph(1)))
    assert single.laplacian_eigenvectors.tolist() == [[0.0, 0.0]]


def test_components_are_told_apart_and_only_the_constant_is_left_out():
    # A triangle {0, 1, 2} and an edge {3, 4}: of the two zero eigenvalues one direction is constant over the graph.
    graph = nx.disjoint_union(nx.complete_graph(3), nx.complete_graph(2))
    data = LaplacianEigenvectors(4)(from_networkx(graph))
    torch.testing.assert_close(data.laplacian_eigenvalues, torch.tensor([[0.0, 2.0, 3.0, 3.0]]))
    between = data.laplacian_eigenvectors[:, 0]
    assert float(between.sum()) == pytest.approx(0, abs=1e-6)
    scale = 1 / math.sqrt(30)  # 2 on the larger component, -3 on the smaller; the entry of largest magnitude positive
    torch.testing.assert_close(between, torch.tensor([-2, -2, -2, 3, 3]) * scale)


def test_isolated_nodes_all_have_zero_eigenvalues():
    data = LaplacianEigenvectors(3)(from_networkx(nx.empty_graph(4)))
    vectors = data.laplacian_eigenvectors
    assert data.laplacian_eigenvalues.tolist() == [[0.0, 0.0, 0.0]]
    torch.testing.assert_close(vectors.t() @ vectors, torch.eye(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(vectors.sum(dim=0), torch.zeros(3), rtol=0, atol=1e-6)


random_graphs = st.builds(nx.gnp_random_graph, st.integers(1, 12), st.floats(0, 0.8), st.integers(0, 10**6))


@settings(deadline=None)
@given(random_graphs, st.sampled_from([None, "sym"]))
def test_orthonormal_eigenbasis(graph, normalization):
    stack = GraphStack([from_networkx(graph)])
    matrix = laplacian(stack.adjacency, normalization)[0]
    values, vectors = (part[0] for part in laplacian_spectrum(stack, normalization))
    identity = torch.eye(len(graph), dtype=torch.float64)
    torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-10)
    torch.testing.assert_close(vectors.t() @ vectors, identity, rtol=0, atol=1e-10)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-10)
    assert bool((values[1:] - values[:-1] > -1e-12).all())
    weight = torch.tensor([max(1, degree) for _, degree in graph.degree], dtype=torch.float64).sqrt()
    trivial = weight if normalization else torch.ones(len(graph), dtype=torch.float64)
    torch.testing.assert_close(vectors[:, 0], trivial / trivial.norm(), rtol=0, atol=1e-10)


@settings(deadline=None)
@given(random_graphs)
def test_random_walk_normalisation(graph):
    stack = GraphStack([from_networkx(graph)])
    values, vectors = (part[0] for part in laplacian_spectrum(stack, "rw"))
    edges = stack.adjacency[0].double()
    degree = edges.sum(1)
    matrix = torch.diag((degree > 0).double()) - edges / degree.clamp(min=1).unsqueeze(1)
    torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-10)
    torch.testing.assert_close(vectors.norm(dim=0), torch.ones(len(graph), dtype=torch.float64), rtol=0, atol=1e-10)
    assert float(vectors[:, 0].std(correction=0)) < 1e-10


def test_signs_do_not_depend_on_the_numbering():
    # A path with a branch has no symmetry and simple eigenvalues: nothing but signs could differ.
    graph = nx.path_graph(6)
    graph.add_edges_from([(2, 6)])
    order = [3, 6, 0, 5, 2, 4, 1]
    moved = nx.relabel_nodes(graph, {node: place for place, node in enumerate(order)})
    first, second = (
        LaplacianEigenvectors(6)(from_networkx(nx.convert_node_labels_to_integers(g, ordering="sorted")))
        for g in (graph, moved)
    )
    torch.testing.assert_close(second.laplacian_eigenvectors, first.laplacian_eigenvectors[order], rtol=0, atol=1e-5)


def test_impossible_arguments():
    with pytest.raises(ValueError, match="at least one eigenvector"):
        LaplacianEigenvectors(0)
    with pytest.raises(ValueError, match="normalization='symmetric': choose None, 'sym' or 'rw'"):
        LaplacianEigenvectors(2, normalization="symmetric")


def test_repr():
    assert repr(LaplacianEigenvectors(3)) == "LaplacianEigenvectors(k=3, include_constant=False, normalization=None)"
