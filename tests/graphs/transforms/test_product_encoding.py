import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from coset.graphs.transforms import (
    GraphStack,
    ProductPositionalEncoding,
    laplacian,
    laplacian_spectrum,
    product_eigenvectors,
    product_frequencies,
)


def from_networkx(graph):
    pairs = [pair for u, v in graph.edges for pair in ((u, v), (v, u))]
    return Data(edge_index=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t(), num_nodes=len(graph))


def spectrum(graph, normalization=None):
    values, vectors = laplacian_spectrum(GraphStack([from_networkx(graph)]), normalization)
    return values, vectors[0]


def product_laplacian(graph, normalization=None):
    matrix = laplacian(GraphStack([from_networkx(graph)]).adjacency, normalization)[0]
    identity = torch.eye(len(graph), dtype=torch.float64)
    return torch.kron(matrix, identity) + torch.kron(identity, matrix)


def sums(values, pairs):
    return values[0, pairs[0, :, 0]] + values[0, pairs[0, :, 1]]


W = 2 - math.sqrt(2)
KNOWN = {
    "K2": (nx.complete_graph(2), [0, 2, 2, 4]),
    "P3": (nx.path_graph(3), [0, 1, 1, 2, 3, 3, 4, 4, 6]),
    "P4": (nx.path_graph(4), [0, W, W, 2 * W, 2, 2, 2 + W, 2 + W, 4 - W, 4 - W, 4, 4, 4, 6 - W, 6 - W, 8 - 2 * W]),
    "star": (nx.star_graph(3), [0, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 5, 5, 5, 5, 8]),
    "C4": (nx.cycle_graph(4), [0, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 6, 6, 6, 6, 8]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_product_spectra(name):
    graph, expected = KNOWN[name]
    values, _ = spectrum(graph)
    pairs = product_frequencies(values, len(expected), include_constant=True)
    torch.testing.assert_close(sums(values, pairs), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", KNOWN)
def test_without_one_axis_the_smallest_of_all_products_of_two_others(name):
    graph, _ = KNOWN[name]
    values, _ = spectrum(graph)
    own = values[0, 1:]
    every = (own[:, None] + own[None]).flatten().sort().values
    for k in range(1, len(every) + 1):
        pairs = product_frequencies(values, k, one_axis=False)
        assert (pairs > 0).all()
        assert len({tuple(pair) for pair in pairs[0].tolist()}) == k
        torch.testing.assert_close(sums(values, pairs), every[:k], rtol=0, atol=1e-12)
    assert (product_frequencies(values, len(every) + 1, one_axis=False)[0, -1] == -1).all()


def test_one_axis_by_hand():
    """A path of three, eigenvalues 0, 1, 3: four products have no constant factor, and all vary along both axes."""
    data = ProductPositionalEncoding(5, one_axis=False)(from_networkx(nx.path_graph(3)))
    assert data.product_frequencies[0].tolist() == [[1, 1], [1, 2], [2, 1], [2, 2], [-1, -1]]
    table = product_eigenvectors(data).view(3, 3, 5)
    assert (table[..., :4].std(0).amax(0) > 0.1).all()
    assert (table[..., :4].std(1).amax(0) > 0.1).all()
    assert (
        ProductPositionalEncoding(2, one_axis=False)(from_networkx(nx.empty_graph(1))).product_frequencies.eq(-1).all()
    )
    with pytest.raises(ValueError, match="choose one"):
        ProductPositionalEncoding(2, include_constant=True, one_axis=False)


def test_path_of_three_in_order():
    values, _ = spectrum(nx.path_graph(3))
    everything = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [2, 0], [1, 2], [2, 1], [2, 2]]
    assert product_frequencies(values, 9, include_constant=True)[0].tolist() == everything
    assert product_frequencies(values, 9)[0].tolist() == everything[1:] + [[-1, -1]]


def test_equal_sums_are_ordered_by_columns_whatever_the_rounding():
    values = torch.tensor([[0.0, 1 + 1e-14, 1 - 1e-14, 1.0]], dtype=torch.float64)
    assert product_frequencies(values, 6)[0].tolist() == [[0, 1], [0, 2], [0, 3], [1, 0], [2, 0], [3, 0]]


def test_single_node_has_only_the_constant():
    values, _ = spectrum(nx.empty_graph(1))
    assert product_frequencies(values, 2)[0].tolist() == [[-1, -1]] * 2
    assert product_frequencies(values, 2, include_constant=True)[0].tolist() == [[0, 0], [-1, -1]]


random_graphs = st.builds(nx.gnp_random_graph, st.integers(1, 12), st.floats(0, 0.8), st.integers(0, 10**6))
normalizations = st.sampled_from([None, "sym", "rw"])


@settings(deadline=None, max_examples=40)
@given(random_graphs, st.integers(1, 40), st.booleans(), normalizations)
def test_the_smallest_sums_are_those_of_the_dense_spectrum(graph, k, include_constant, normalization):
    values, _ = spectrum(graph, normalization)
    pairs = product_frequencies(values, k, include_constant)
    assert pairs.shape == (1, k, 2)
    dense = torch.linalg.eigvalsh(product_laplacian(graph, normalization))[0 if include_constant else 1 :][:k]
    have = int((pairs[0, :, 0] >= 0).sum())
    assert have == len(dense)
    assert len({tuple(pair) for pair in pairs[0, :have].tolist()}) == have
    torch.testing.assert_close(sums(values, pairs)[:have], dense, rtol=0, atol=1e-10)


@settings(deadline=None)
@given(random_graphs, st.integers(1, 20), st.booleans())
def test_columns_are_orthonormal_eigenvectors(graph, k, include_constant):
    values, vectors = spectrum(graph)
    pairs = product_frequencies(values, k, include_constant)
    have = int((pairs[0, :, 0] >= 0).sum())
    data = Data(laplacian_eigenvectors=vectors, product_frequencies=pairs)
    table = product_eigenvectors(data)
    assert table.shape == (len(graph) ** 2, k)
    assert bool((table[:, have:] == 0).all())
    table = table[:, :have]
    torch.testing.assert_close(product_laplacian(graph) @ table, table * sums(values, pairs)[:have], rtol=0, atol=1e-10)
    torch.testing.assert_close(table.t() @ table, torch.eye(have, dtype=torch.float64), rtol=0, atol=1e-10)


def test_signs_of_base_vectors():
    # Flipping u_i changes column (i, j) by the product of the two signs: (i, i) never, (i, j) and (j, i) together.
    data = ProductPositionalEncoding(8)(from_networkx(nx.lollipop_graph(4, 3)))
    before = product_eigenvectors(data)
    signs = torch.tensor([1.0, -1, 1, -1, 1, -1, 1, 1, -1])[: data.laplacian_eigenvectors.size(1)]
    data.laplacian_eigenvectors = data.laplacian_eigenvectors * signs
    first, second = data.product_frequencies[0].t()
    assert bool((first == second).any())
    torch.testing.assert_close(product_eigenvectors(data), before * signs[first] * signs[second])


@settings(deadline=None)
@given(random_graphs, st.integers(1, 12), st.booleans(), normalizations)
def test_stored_columns_are_all_that_are_needed(graph, k, include_constant, normalization):
    data = ProductPositionalEncoding(k, include_constant, normalization)(from_networkx(graph))
    columns = k if include_constant else k + 1
    assert data.laplacian_eigenvectors.shape == (len(graph), columns)
    assert data.laplacian_eigenvalues.shape == (1, columns)
    assert data.product_frequencies.shape == (1, k, 2)
    assert int(data.product_frequencies.max()) < min(columns, len(graph))
    assert data.laplacian_eigenvectors.isfinite().all()


def test_not_the_product_of_nontrivial_vectors_only():
    # Products of u_1, u_2, ... alone would give sums 2, 4, 4, 6 for P3 and 4 for K2.
    path = ProductPositionalEncoding(4)(from_networkx(nx.path_graph(3)))
    torch.testing.assert_close(
        path.laplacian_eigenvalues[0, path.product_frequencies[0]].sum(1), torch.tensor([1.0, 1, 2, 3])
    )
    edge = ProductPositionalEncoding(1)(from_networkx(nx.complete_graph(2)))
    assert edge.laplacian_eigenvalues[0, edge.product_frequencies[0]].sum() == pytest.approx(2)


def test_two_components_have_four_zero_eigenvalues():
    data = ProductPositionalEncoding(3)(from_networkx(nx.disjoint_union(nx.path_graph(3), nx.path_graph(2))))
    assert data.product_frequencies[0].tolist() == [[0, 1], [1, 0], [1, 1]]
    assert data.laplacian_eigenvalues[0, :2].tolist() == [0, 0]


def test_repr():
    assert (
        repr(ProductPositionalEncoding(8))
        == "ProductPositionalEncoding(k=8, include_constant=False, normalization=None)"
    )
    assert repr(ProductPositionalEncoding(8, one_axis=False)).endswith("normalization=None, one_axis=False)")
