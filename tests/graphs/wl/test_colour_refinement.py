"""Colour refinement: classic pairs, an independent recursive reference, relabelled copies, and the published counts."""

import itertools
from collections import Counter

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from coset.graphs.data.collections import graph_atlas, graph_from_adjacency, parse_graph6
from coset.graphs.wl.colour_refinement import (
    FolkloreRefinement,
    NodeRefinement,
    PairRefinement,
    _reduce,
    classify,
    compare,
    refine,
)
from coset.symmetry import NodePermutation

WL, FWL = NodeRefinement(), FolkloreRefinement()
SWL, SSWL = PairRefinement(("uL",)), PairRefinement(("uL", "vL", "vv"))
ATTENTION = PairRefinement(("uL", "vL", "vv"), proportions=True)
EVERY = [
    WL,
    SWL,
    PairRefinement(("uL",), marking="root"),
    PairRefinement(("uL", "vG"), marking="root"),
    PairRefinement(("uL", "vL", "vv", "vu", "uu", "uG", "vG")),
    ATTENTION,
    FWL,
]


def data(graph: nx.Graph) -> Data:
    return graph_from_adjacency(nx.to_numpy_array(graph, dtype=bool))


def two_rings(first: int, second: int, *links: tuple[int, int]) -> nx.Graph:
    graph = nx.disjoint_union(nx.cycle_graph(first), nx.cycle_graph(second))
    graph.add_edges_from(links)
    return graph


def decalin() -> nx.Graph:
    graph = nx.cycle_graph(10)
    graph.add_edge(0, 5)
    return graph


ROOK = data(nx.line_graph(nx.complete_bipartite_graph(4, 4)))
SHRIKHANDE = parse_graph6("O?YSbAiTQsSgrKK{F`eEW")
HEXAGON, TRIANGLES = data(nx.cycle_graph(6)), data(two_rings(3, 3))
SEPARABLE = [
    (HEXAGON, TRIANGLES),
    (data(decalin()), data(two_rings(5, 5, (0, 5)))),
    (data(nx.circulant_graph(41, [1, 2])), data(nx.circulant_graph(41, [1, 3]))),
]


def test_hexagon_and_two_triangles_by_hand():
    # All nodes have two neighbours: 1-WL stops at once with one colour. Distances from a root: 0 1 1 2 2 3 against 0 1
    # 1 and three unreachable nodes, so the marking alone tells the graphs apart, and a mark on the root does so when
    # it has travelled to the distance at which the rings differ.
    (colours, classes), *more = refine([HEXAGON, TRIANGLES], WL)
    assert not more
    assert classes.tolist() == [0, 0]
    assert [c.tolist() for c in colours] == [[0] * 6, [0] * 6]
    assert (compare(HEXAGON, TRIANGLES, SWL).separated, compare(HEXAGON, TRIANGLES, SWL).rounds) == (True, 0)
    assert compare(HEXAGON, TRIANGLES, PairRefinement(("uL",), marking="root")).rounds == 2


@pytest.mark.parametrize("refinement", EVERY[1:], ids=lambda r: r.name)
@pytest.mark.parametrize("pair", range(len(SEPARABLE)))
def test_pairs_that_message_passing_confuses(pair, refinement):
    first, second = SEPARABLE[pair]
    assert not compare(first, second, WL)
    assert compare(first, second, refinement)


@pytest.mark.parametrize("refinement", EVERY, ids=lambda r: r.name)
def test_strongly_regular_graphs_look_alike(refinement):
    # The second graph is the first with another edge set: 16 nodes of degree 6 each, but 8 cliques of four nodes
    # against none.
    assert nx.is_strongly_regular(nx.from_edgelist(SHRIKHANDE.edge_index.t().tolist()))
    assert not nx.is_isomorphic(*(nx.from_edgelist(g.edge_index.t().tolist()) for g in (ROOK, SHRIKHANDE)))
    assert not compare(ROOK, SHRIKHANDE, refinement)


def test_twisted_pairs_that_order_the_refinements():
    # Pairs of Fuerer's construction over a net, a dumbbell, and a triangle with a triangle on each side: what one copy
    # sees (uL) misses the second; everything on pairs along edges misses the third.
    net = parse_graph6("N?dbCaiTQsSgo?B??E?"), parse_graph6("N?YSbAiTQsSgo?B??E?")
    dumbbell = parse_graph6("OQhRC_K?oE@_?I?D?EO?Y"), parse_graph6("OKhRC_K?oE@_?I?D?EO?Y")
    sun = nx.from_edgelist([(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (1, 4), (2, 4), (2, 5), (0, 5)])
    triangles = twisted(sun, None), twisted(sun, (0, 1))
    tests = (WL, SWL, PairRefinement(("uL", "vv")), PairRefinement(("uL", "vG")), SSWL, FWL)
    found = [[bool(compare(*pair, test)) for test in tests] for pair in (net, dumbbell, triangles)]
    assert found == [[False] + [True] * 5, [False, False] + [True] * 4, [False] * 5 + [True]]


def twisted(base: nx.Graph, twist: tuple[int, int] | None) -> Data:
    """Nodes (x, S), S an even set of neighbours of x; (x, S) ~ (y, T) if xy is an edge and y in S iff x in T.

    On the twisted edge it is the other way round.
    """
    nodes = [
        (x, frozenset(s))
        for x in sorted(base)
        for k in range(0, base.degree(x) + 1, 2)
        for s in itertools.combinations(base[x], k)
    ]
    graph = nx.Graph()
    graph.add_nodes_from(nodes)
    for (x, s), (y, t) in itertools.combinations(nodes, 2):
        if base.has_edge(x, y) and ((y in s) == (x in t)) != (twist is not None and {x, y} == set(twist)):
            graph.add_edge((x, s), (y, t))
    return data(graph)


def test_no_marking_sees_no_more_than_message_passing():
    blind = PairRefinement(("uL", "vL", "vv"), marking="none")
    assert not any(compare(first, second, blind) for first, second in SEPARABLE)


def test_all_connected_atlas_pairs_that_message_passing_confuses():
    graphs = graph_atlas(connected=True)
    classes = classify(graphs, WL)
    groups = [[graphs[i] for i in np.flatnonzero(classes == c)] for c in range(classes.max() + 1)]
    pairs = [pair for group in groups for pair in itertools.combinations(group, 2)]
    assert len(pairs) == 20
    for refinement in (SWL, SSWL, ATTENTION, FWL):
        assert sum(map(bool, (compare(*pair, refinement) for pair in pairs))) == 20


def test_census_of_graphs_with_seven_nodes():
    graphs = [graph for graph in graph_atlas() if graph.num_nodes == 7]
    assert len(graphs) == 1044
    assert classify(graphs, WL).max() + 1 == 1022
    assert classify(graphs, SSWL).max() + 1 == 1044


def nested(graph: nx.Graph, relations: tuple[str, ...], rounds: int):
    """Pair refinement without any numbering: colours are nested tuples, compared whole."""
    nodes = list(graph)
    colour = {(s, v): s == v for s in nodes for v in nodes}
    bag = {
        "uL": lambda s, v: [(s, w) for w in graph[v]],
        "vL": lambda s, v: [(w, v) for w in graph[s]],
        "vv": lambda s, v: [(v, v)],
        "uu": lambda s, v: [(s, s)],
        "vu": lambda s, v: [(v, s)],
        "uG": lambda s, v: [(s, w) for w in nodes],
        "vG": lambda s, v: [(w, v) for w in nodes],
    }
    for _ in range(rounds):
        seen = {
            p: (repr(colour[p]), *(tuple(sorted(repr(colour[q]) for q in bag[r](*p))) for r in relations))
            for p in colour
        }
        colour = seen
    return Counter(tuple(sorted(repr(colour[s, v]) for v in nodes)) for s in nodes)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from(["uL", "vL", "vv", "uu", "vu", "uG", "vG"]), min_size=1))
def test_agrees_with_nested_tuples(seed, relations):
    generator = np.random.default_rng(seed)
    graphs = [nx.gnm_random_graph(5, 5, seed=int(generator.integers(2**31))) for _ in range(6)]
    relations = tuple(sorted(relations))
    expected = [nested(graph, relations, 2) for graph in graphs]
    found = classify([data(graph) for graph in graphs], PairRefinement(relations, marking="root"), max_rounds=2)
    for i, j in itertools.combinations(range(6), 2):
        assert (found[i] == found[j]) == (expected[i] == expected[j])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.floats(0, 1), st.integers(0, 2**31 - 1), st.booleans(), st.sampled_from(EVERY))
def test_relabelled_copies_are_never_separated(nodes, density, seed, typed, refinement):
    graph = data(nx.gnp_random_graph(nodes, density, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    if typed:
        graph.x = torch.randint(0, 3, (nodes, 2), generator=generator)
    action = NodePermutation(nodes=["x"])
    assert not compare(graph, action.apply(action.sample(graph, generator), graph), refinement)


def test_node_types_count():
    path = data(nx.path_graph(3))
    ends, middle = path.clone(), path.clone()
    ends.x, middle.x = torch.tensor([[1], [0], [0]]), torch.tensor([[0], [1], [0]])
    for refinement in EVERY:
        assert compare(ends, middle, refinement).rounds in (0, 1)
    with pytest.raises(ValueError, match="like with like"):
        compare(path, ends, WL)
    path.x = torch.rand(3, 1)
    with pytest.raises(ValueError, match="integer node types"):
        compare(path, path, WL)


def test_graphs_of_different_sizes_edgeless_and_empty():
    empty, single, edgeless = (data(nx.empty_graph(n)) for n in (0, 1, 5))
    for refinement in EVERY:
        assert len(set(classify([empty, single, edgeless, HEXAGON], refinement))) == 4
        assert classify([empty, empty, single, single], refinement).tolist() == [0, 0, 1, 1]
        assert classify([], refinement).tolist() == []


def test_proportions_see_multisets_up_to_scale():
    rows = np.array([[-1, 3, 3, 5, 5], [-1, -1, -1, 3, 5], [3, 3, 3, 5, 5], [7, 7, 7, 7, 7], [-1, -1, -1, -1, -1]])
    expected = [[-1, -1, -1, 3, 5], [-1, -1, -1, 3, 5], [3, 3, 3, 5, 5], [-1, -1, -1, -1, 7], [-1] * 5]
    assert _reduce(rows).tolist() == expected


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match="relation 'uX': choose from uL, vL"):
        PairRefinement(("uX",))
    with pytest.raises(ValueError, match="marking='spd'"):
        PairRefinement(marking="spd")
