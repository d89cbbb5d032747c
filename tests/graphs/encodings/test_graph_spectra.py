"""Spectra of one graph: projections worked out by hand, and distances against their definitions."""

import math

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.core.errors import CosetError
from coset.graphs.encodings.spectra import (
    GraphSpectra,
    Spectrum,
    biharmonic_distances,
    commute_times,
    diffusion_distances,
    eigenspace_sizes,
    graph_matrix,
    heat_kernel,
    hitting_times,
    personalized_pagerank,
    random_walks,
    resistance_distances,
    shortest_paths,
)
from coset.symmetry.linear_groups import random_orthogonal

D = torch.float64
CLOSE = {"rtol": 0, "atol": 1e-10}


def spectra(graph):
    return GraphSpectra.of(torch.as_tensor(networkx.to_numpy_array(graph), dtype=D))


def random_graph(n, seed):
    return networkx.connected_watts_strogatz_graph(n, min(4, n - 1), 0.5, seed=seed)


def test_complete_graph():
    values, projections = spectra(networkx.complete_graph(5)).adjacency.projections()
    torch.testing.assert_close(values, torch.tensor([-1.0, 4], dtype=D))
    constant = torch.full((5, 5), 0.2, dtype=D)
    torch.testing.assert_close(projections, torch.stack([torch.eye(5, dtype=D) - constant, constant]), **CLOSE)


def test_path_of_three_nodes_normalized():
    values, projections = spectra(networkx.path_graph(3)).normalized.projections()
    r = math.sqrt(2) / 4
    expected = [
        [[0.25, -r, 0.25], [-r, 0.5, -r], [0.25, -r, 0.25]],
        [[0.5, 0, -0.5], [0, 0, 0], [-0.5, 0, 0.5]],
        [[0.25, r, 0.25], [r, 0.5, r], [0.25, r, 0.25]],
    ]
    torch.testing.assert_close(values, torch.tensor([-1.0, 0, 1], dtype=D), **CLOSE)
    torch.testing.assert_close(projections, torch.tensor(expected, dtype=D), **CLOSE)


def test_cycle_of_four_nodes():
    graph = spectra(networkx.cycle_graph(4))
    values, projections = graph.laplacian.projections()
    torch.testing.assert_close(values, torch.tensor([0.0, 2, 4], dtype=D), **CLOSE)
    middle = torch.tensor([[0.5, 0, -0.5, 0], [0, 0.5, 0, -0.5], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]], dtype=D)
    torch.testing.assert_close(projections[1], middle, **CLOSE)
    distances = resistance_distances(graph)
    torch.testing.assert_close(distances[0], torch.tensor([0, 0.75, 1, 0.75], dtype=D), **CLOSE)


def test_star():
    k = 5
    values, projections = spectra(networkx.star_graph(k)).adjacency.projections()
    torch.testing.assert_close(values, torch.tensor([-math.sqrt(k), 0, math.sqrt(k)], dtype=D), **CLOSE)
    assert projections[2, 0, 0] == pytest.approx(0.5)
    assert projections[2, 1, 2] == pytest.approx(1 / (2 * k))
    assert projections[0, 0, 1] == pytest.approx(-1 / (2 * math.sqrt(k)))
    assert projections[1, 1, 1] == pytest.approx(1 - 1 / k)


def test_rook_graph():
    rook = networkx.line_graph(networkx.complete_bipartite_graph(4, 4))
    values, projections = spectra(rook).adjacency.projections()
    torch.testing.assert_close(values, torch.tensor([-2.0, 2, 6], dtype=D), **CLOSE)
    torch.testing.assert_close(projections.diagonal(dim1=1, dim2=2).sum(1), torch.tensor([9.0, 6, 1], dtype=D), **CLOSE)
    assert sorted({round(value, 6) for value in projections[1].flatten().tolist()}) == [-0.125, 0.125, 0.375]


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 12), seed=st.integers(0, 99), matrix=st.sampled_from(["adjacency", "laplacian", "normalized"]))
def test_facts_about_projections(n, seed, matrix):
    graph = spectra(random_graph(n, seed))
    dense, spectrum = graph_matrix(graph.weights, matrix), getattr(graph, matrix)
    values, projections = spectrum.projections()
    torch.testing.assert_close(projections.sum(0), torch.eye(n, dtype=D), **CLOSE)
    assert (projections.diagonal(dim1=1, dim2=2) > -1e-12).all()
    torch.testing.assert_close(projections @ projections, projections, **CLOSE)
    for k in range(4):
        power = torch.einsum("m,muv->uv", values**k, projections)
        torch.testing.assert_close(power, torch.linalg.matrix_power(dense, k), rtol=1e-9, atol=1e-8)
    sizes = eigenspace_sizes(spectrum.values)
    generator = torch.Generator().manual_seed(seed)
    turn = torch.block_diag(*(random_orthogonal(size, generator) for size in sizes))
    turned = Spectrum(spectrum.values, spectrum.vectors @ turn)
    torch.testing.assert_close(turned.function(torch.cos), spectrum.function(torch.cos), **CLOSE)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(3, 12), seed=st.integers(0, 99))
def test_distances_are_what_they_are_called(n, seed):
    source = random_graph(n, seed)
    graph = spectra(source)
    walk = graph.weights / graph.degree.unsqueeze(1)
    laplacian = graph_matrix(graph.weights, "laplacian")
    torch.testing.assert_close(heat_kernel(graph, 0.7), torch.linalg.matrix_exp(-0.7 * laplacian), **CLOSE)
    heat = torch.linalg.matrix_exp(-0.7 * laplacian)
    torch.testing.assert_close(diffusion_distances(graph, 0.7), torch.cdist(heat, heat), rtol=0, atol=1e-7)
    pseudo = torch.linalg.pinv(laplacian)
    torch.testing.assert_close(biharmonic_distances(graph), torch.cdist(pseudo, pseudo), rtol=0, atol=1e-7)
    eye = torch.eye(n, dtype=D)
    torch.testing.assert_close(personalized_pagerank(graph, 0.2), 0.2 * torch.linalg.inv(eye - 0.8 * walk), **CLOSE)
    powers = torch.stack([torch.linalg.matrix_power(walk, k) for k in range(5)], dim=-1)
    torch.testing.assert_close(random_walks(graph, 5), powers, **CLOSE)
    hitting = hitting_times(graph)
    one_step = 1 + walk @ hitting
    torch.testing.assert_close(one_step.fill_diagonal_(0), hitting, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(hitting + hitting.mT, commute_times(graph), rtol=1e-8, atol=1e-8)
    lengths = dict(networkx.all_pairs_shortest_path_length(source))
    assert shortest_paths(graph).tolist() == [[lengths[u][v] for v in range(n)] for u in range(n)]


def test_disconnected_and_isolated():
    graph = spectra(networkx.disjoint_union(networkx.cycle_graph(3), networkx.empty_graph(1)))
    assert resistance_distances(graph)[0].tolist() == pytest.approx([0, 2 / 3, 2 / 3, math.inf])
    assert shortest_paths(graph)[3].tolist() == [-1, -1, -1, 0]
    assert graph.normalized.values.tolist() == pytest.approx([-0.5, -0.5, 0, 1])
    assert random_walks(graph, 3)[3, 3].tolist() == pytest.approx([1, 0, 0])
    with pytest.raises(CosetError, match="must be connected"):
        hitting_times(graph)


def test_ambiguous_eigenvalues_are_not_guessed():
    values = torch.tensor([0, 1, 1 + 1e-8], dtype=D)
    with pytest.raises(CosetError, match="equal or not is a guess"):
        eigenspace_sizes(values)
    assert eigenspace_sizes(values, tolerance=1e-6) == [1, 2]
    with pytest.raises(CosetError, match="float32 cannot be grouped"):
        eigenspace_sizes(values.float())


def test_bad_matrices():
    for weights, message in (
        ([[0.0, 1], [0, 0]], "differs from that of"),
        ([[0.0, math.nan], [math.nan, 0]], "NaN"),
    ):
        with pytest.raises(CosetError, match=message):
            GraphSpectra.of(torch.tensor(weights))
    with pytest.raises(CosetError, match="must not be negative"):
        graph_matrix(torch.tensor([[0.0, -1], [-1, 0]]))
    with pytest.raises(ValueError, match="choose adjacency"):
        graph_matrix(torch.zeros(2, 2), "signless")
