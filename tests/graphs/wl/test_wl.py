"""The hierarchy of exact tests on pairs whose verdicts are known, and that no renumbering is ever told apart."""

import itertools
import json

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from typer.testing import CliRunner

from coset.cli import app
from coset.core.errors import CosetError
from coset.graphs.data.collections import graph_atlas, graph_from_adjacency, parse_graph6
from coset.graphs.encodings.spectra import GraphSpectra, resistance_distances
from coset.graphs.wl import TESTS, read_one_graph, wl_colours, wl_compare
from coset.graphs.wl.colour_refinement import Neighbourhoods, classify
from coset.graphs.wl.distance_refinement import _INVERSES, KINDS, PRIMES, DistanceRefinement, pair_codes

SEPARATING = {  # left, right: the tests that tell them apart
    ("EhEG", "EJaG"): set(TESTS) - {"1-WL"},
    ("ElEG", "E{CW"): set(TESTS) - {"1-WL"},
    ("EhNG", "EhUg"): set(TESTS) - {"1-WL", "SPD-WL"},
    ("EtTg", "ElUg"): set(TESTS) - {"1-WL", "SPD-WL"},
    ("N?dbCaiTQsSgo?B??E?", "N?YSbAiTQsSgo?B??E?"): set(TESTS) - {"1-WL", "SPD-WL", "EPWL-A"},
    ("OQhRC_K?oE@_?I?D?EO?Y", "OKhRC_K?oE@_?I?D?EO?Y"): set(TESTS) - {"1-WL", "SWL"},
    ("O?dbCaiTQsSgrKK{F`eEW", "O?YSbAiTQsSgrKK{F`eEW"): set(),
}
TWO_ROUNDS = [
    ("GzeR^W", "GreVZw"), ("GFw`H{", "Gr`sFS"), ("GMohlK", "GhFIlo"), ("GLNMP{", "G?]~fc"), ("Geo`@K", "G`o_mO"),
    ("GMo`LK", "GMs`DK"),
]  # fmt: skip


def furer(base):
    """The graph of Fürer over a base graph, and its twist."""
    nodes = [
        (x, frozenset(chosen))
        for x in base
        for size in range(0, base.degree(x) + 1, 2)
        for chosen in itertools.combinations(sorted(base[x]), size)
    ]
    edges = list(base.edges)
    pair = []
    for twisted in (None, edges[0]):
        graph = networkx.empty_graph(len(nodes))
        number = {node: i for i, node in enumerate(nodes)}
        for x, y in edges:
            for (a, s), (b, t) in itertools.product(nodes, nodes):
                if (a, b) == (x, y) and ((y in s) == (x in t)) != ((x, y) == twisted):
                    graph.add_edge(number[a, s], number[b, t])
        pair.append(graph)
    return pair


def triangles(count):
    """A path whose every edge is the side of a triangle."""
    graph = networkx.path_graph(count + 1)
    for i in range(count):
        graph.add_edges_from([(i, f"t{i}"), (f"t{i}", i + 1)])
    return networkx.convert_node_labels_to_integers(graph)


@pytest.mark.parametrize("pair", SEPARATING)
def test_which_tests_separate(pair):
    verdicts = wl_compare(*pair)
    assert {verdict.test for verdict in verdicts if verdict.separated} == SEPARATING[pair]


@pytest.mark.parametrize("pair", TWO_ROUNDS)
def test_laplacian_needs_two_rounds(pair):
    (verdict,) = wl_compare(*pair, tests=["EPWL-L"])
    assert (verdict.separated, verdict.rounds) == (True, 2)
    assert wl_compare(*pair, tests=["1-WL"])[0].separated


@pytest.mark.parametrize(("length", "rounds", "swl"), [(3, 2, (False, True)), (5, 3, (False, False))])
def test_chains_of_triangles_need_more_rounds(length, rounds, swl):
    pair = furer(triangles(length))
    assert len(pair[0]) == {3: 26, 5: 46}[length]
    (verdict,) = wl_compare(*pair, tests=["EPWL-A"])
    assert (verdict.separated, verdict.rounds) == (True, rounds)
    assert tuple(v.separated for v in wl_compare(*pair, tests=["SWL", "SWL-SV"])) == swl


def test_marking_a_node_sees_more_than_any_spectrum():
    base = networkx.path_graph(5)
    base.add_edges_from((i, i + 2) for i in range(3))
    verdicts = {v.test: v.separated for v in wl_compare(*furer(base))}
    assert not any(verdicts[name] for name in ("EPWL-A", "EPWL-L", "EPWL-N", "RD-WL", "SPD-WL"))
    assert all(verdicts[name] for name in ("SWL", "PSWL", "SSWL", "2-FWL"))


def test_codes_against_exact_resolvents():
    """P3: (I - tA)^-1 has the determinant 1 - 2t^2 and rational entries that can be written down."""
    graph = Neighbourhoods.of(parse_graph6("Bg"))
    centre = int(graph.adjacency.sum(1).argmax())
    codes = pair_codes(graph, "adjacency")
    from coset.graphs.wl.distance_refinement import POINTS

    for which, (prime, point) in enumerate(zip(PRIMES, POINTS[0])):
        residue = codes % PRIMES[1] if which else codes // PRIMES[1]
        determinant = pow(1 - 2 * point * point, -1, prime)
        assert residue[centre, centre] == determinant % prime
        assert residue[centre, (centre + 1) % 3] == point * determinant % prime


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 8), seed=st.integers(0, 999))
def test_inverses_modulo_primes(n, seed):
    matrix = np.random.default_rng(seed).integers(0, 3, (n, n))
    for prime, invert in zip(PRIMES, _INVERSES):
        inverse = matrix.copy()
        if invert(inverse):
            product = matrix.astype(object) @ inverse.astype(object) % prime
            assert (product == np.eye(n, dtype=int)).all()
        else:
            assert round(np.linalg.det(matrix)) % prime == 0


def test_resistance_codes_are_equal_where_resistances_are():
    for graph in graph_atlas()[:200]:
        distances = resistance_distances(GraphSpectra.of(graph)).nan_to_num(posinf=-1).numpy().round(8)
        codes = pair_codes(Neighbourhoods.of(graph), "resistance")
        numbered = [np.unique(matrix, return_inverse=True)[1].reshape(-1) for matrix in (distances, codes)]
        pairs = set(zip(*numbered))
        assert len(pairs) == len(np.unique(numbered[0])) == len(np.unique(numbered[1]))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 999), name=st.sampled_from(list(TESTS)))
def test_a_renumbered_graph_is_never_told_apart(n, seed, name):
    graph = networkx.gnp_random_graph(n, 0.4, seed=seed)
    order = np.random.default_rng(seed).permutation(n)
    matrix = networkx.to_numpy_array(graph)
    (verdict,) = wl_compare(matrix, matrix[order][:, order], tests=[name])
    assert not verdict.separated
    assert verdict.witness is None


def test_classes_of_all_graphs_with_up_to_six_nodes():
    six = [graph for graph in graph_atlas() if graph.num_nodes == 6]
    classes = {name: len(set(classify(six, TESTS[name]))) for name in ("1-WL", "SPD-WL", "RD-WL", "EPWL-A", "EPWL-L")}
    assert classes == {"1-WL": 152, "SPD-WL": 154, "RD-WL": 156, "EPWL-A": 156, "EPWL-L": 156}


def test_the_order_of_the_tests_on_small_graphs():
    """A finer test never joins what a coarser one separates."""
    graphs = [graph for graph in graph_atlas() if graph.num_nodes == 6]
    found = {name: classify(graphs, refinement) for name, refinement in TESTS.items()}
    chain = ("1-WL", "SPD-WL", "EPWL-N", "PSWL-SV", "2-FWL")
    for coarse, fine in itertools.pairwise(chain):
        assert len(set(zip(found[coarse], found[fine]))) == len(set(found[fine]))


def test_adjacency_and_laplacian_agree_on_regular_graphs():
    for seed in range(5):
        graph = networkx.random_regular_graph(3, 10, seed=seed)
        partitions = [wl_colours(graph, name) for name in ("EPWL-A", "EPWL-L", "EPWL-N")]
        assert len({tuple(np.unique(p, return_inverse=True)[1]) for p in partitions}) == 1


def test_node_types_and_sizes_count():
    edges = torch.tensor([[0, 1], [1, 0]])
    typed = [Data(edge_index=edges, x=torch.tensor([[a], [b]]), num_nodes=2) for a, b in ((0, 1), (1, 1))]
    (verdict,) = wl_compare(*typed, tests=["EPWL-L"])
    assert (verdict.separated, verdict.rounds) == (True, 0)
    (verdict,) = wl_compare(networkx.path_graph(2), networkx.path_graph(3), tests=["1-WL"])
    assert (verdict.separated, verdict.rounds) == (True, 0)


def test_the_witness_is_a_colour_that_differs_in_number():
    (verdict,) = wl_compare("OQhRC_K?oE@_?I?D?EO?Y", "OKhRC_K?oE@_?I?D?EO?Y", tests=["EPWL-A"])
    assert len(verdict.witness.first) != len(verdict.witness.second)
    path, star = networkx.path_graph(4), networkx.star_graph(3)
    (verdict,) = wl_compare(path, star, tests=["1-WL"])
    assert str(verdict.witness) == "none against node 0"


def test_one_graph_of_every_form(tmp_path):
    graph = networkx.cycle_graph(5)
    matrix = networkx.to_numpy_array(graph)
    text = networkx.to_graph6_bytes(graph, header=False).decode().strip()
    (tmp_path / "a.g6").write_text(text + "\n")
    forms = [graph, matrix, torch.as_tensor(matrix), text, graph_from_adjacency(matrix > 0)]
    for form in [*forms, read_one_graph(tmp_path / "a.g6"), read_one_graph(text)]:
        assert not wl_compare(graph, form, tests=["2-FWL"])[0].separated


def test_the_command(tmp_path):
    run = CliRunner().invoke(app, ["wl", "EhEG", "EJaG", "--tests", "1-WL, EPWL-A", "--json"])
    assert run.exit_code == 0
    found = json.loads(run.stdout)
    assert [(row["test"], row["separated"], row["rounds"]) for row in found] == [
        ("1-WL", False, 0),
        ("EPWL-A", True, 1),
    ]
    table = CliRunner().invoke(app, ["wl", "EhEG", "EJaG"])
    assert "EPWL-N" in table.stdout
    assert "against none" in table.stdout
    (tmp_path / "two.g6").write_text("EhEG\nEJaG\n")
    for arguments, message in (
        (["wl", str(tmp_path / "two.g6"), "EJaG"], "holds 2 graphs"),
        (["wl", "missing.g6", "EJaG"], "does not exist"),
        (["wl", "EhE", "EJaG"], "no graph6 string"),
        (["wl", "EhEG", "EJaG", "--tests", "3-WL"], "no test '3-WL'"),
    ):
        failed = CliRunner().invoke(app, arguments)
        assert isinstance(failed.exception, CosetError)
        assert message in str(failed.exception)


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match="choose shortest-path"):
        DistanceRefinement("commute")
    with pytest.raises(CosetError, match="is square"):
        wl_compare(np.zeros((2, 3)), "A_")
    with pytest.raises(CosetError, match="no test"):
        wl_colours("A_", "EPWL")
    assert DistanceRefinement("laplacian").name == "EPWL (laplacian)"
    assert len(KINDS) == 5
