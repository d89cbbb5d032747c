"""Exact refinement on sets: the counts of the specification, equivalent marks, singletons as a special case."""

import json

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.core.errors import CosetError
from coset.graphs.benches import bags as bag_bench
from coset.graphs.benches.bags import SUM_GRAPH, separated
from coset.graphs.data.collections import graph_from_adjacency, parse_graph6, read_brec
from coset.graphs.wl.colour_refinement import Neighbourhoods, NodeRefinement, PairRefinement, compare, refine
from coset.graphs.wl.set_refinement import FAMILIES, MARKS, SetRefinement, coarse_adjacency, sum_graph


def graph_of(graph: nx.Graph):
    return graph_from_adjacency(nx.to_numpy_array(graph, nodelist=sorted(graph), dtype=bool))


HEXAGON = graph_of(nx.cycle_graph(6)), graph_of(nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)))
ROOK = parse_graph6("O?dbCaiTQsSgrKK{F`eEW"), parse_graph6("O?YSbAiTQsSgrKK{F`eEW")
DECALIN = (
    graph_of(nx.Graph([*nx.cycle_graph(10).edges, (0, 5)])),
    graph_of(nx.Graph([*nx.cycle_graph(5).edges, *((a + 5, b + 5) for a, b in nx.cycle_graph(5).edges), (0, 5)])),
)
CYCLES = tuple(graph_of(nx.circulant_graph(13, [1, skip])) for skip in (2, 5))


def test_coarse_edges_of_a_path():
    path = nx.to_numpy_array(nx.path_graph(4), dtype=bool)
    halves = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=bool)
    assert coarse_adjacency(path, halves).tolist() == [[0, 1], [1, 0]]
    overlapping = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=bool)
    assert coarse_adjacency(path, overlapping).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    joined = sum_graph(graph_of(nx.path_graph(4)), lambda adjacency: halves)
    assert joined.edge_index.size(1) == 2 * (3 + 4 + 1)
    assert joined.x.flatten().tolist() == [0] * 4 + [1] * 2


@pytest.mark.parametrize("pair", [HEXAGON, DECALIN, CYCLES, ROOK], ids=["hexagon", "decalin", "circulant", "rook"])
def test_singletons_refine_like_node_roots(pair):
    mine = SetRefinement(FAMILIES["singletons"], "minimum")
    theirs = PairRefinement(("uL", "vL", "vv"))
    assert compare(*pair, mine) == compare(*pair, theirs)
    for (colours, _), (others, _) in zip(refine(pair, mine), refine(pair, theirs), strict=True):
        flat, same = (np.concatenate([c.ravel() for c in each]) for each in (colours, others))
        assert len(np.unique(flat)) == len(np.unique(same)) == len(np.unique(np.stack([flat, same]), axis=1).T)


@pytest.mark.parametrize("marking", MARKS)
def test_one_set_is_message_passing_unless_distances_are_learned(marking):
    whole = SetRefinement(FAMILIES["whole"], marking)
    assert compare(*HEXAGON, whole).separated == (marking == "learned")
    assert compare(*DECALIN, whole).separated == (marking == "learned")
    assert not compare(*HEXAGON, NodeRefinement())


@pytest.mark.parametrize("name", FAMILIES)
def test_only_two_nodes_at_a_time_tell_the_rook_from_shrikhande(name):
    for marking in MARKS[: 1 if name == "pairs" else 4]:
        found = compare(*ROOK, SetRefinement(FAMILIES[name], marking))
        assert found.separated == (name in ("edges", "pairs"))


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(0, 10**6), st.sampled_from([DECALIN, CYCLES]))
def test_marks_that_say_the_same(sets, seed, pair):
    """On connected graphs simple, size and minimum marks separate alike; learned ones separate whatever these do."""

    def partition(adjacency):
        # The same draw for both graphs of a pair: otherwise sizes alone would tell them apart.
        labels = np.random.default_rng(seed).integers(sets, size=len(adjacency))
        return np.unique(labels)[:, None] == labels[None]

    found = {marking: compare(*pair, SetRefinement(partition, marking)).separated for marking in MARKS}
    assert found["simple"] == found["size"] == found["minimum"]
    assert found["learned"] >= found["simple"]


def test_families_without_sets_and_wrong_names():
    edgeless = graph_from_adjacency(np.zeros((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="no sets in the family 'edges'"):
        compare(edgeless, edgeless, SetRefinement(FAMILIES["edges"], label="edges"))
    with pytest.raises(ValueError, match="marking='spd'"):
        SetRefinement(FAMILIES["edges"], "spd")
    with pytest.raises(ValueError, match="relation 'vv'"):
        SetRefinement(FAMILIES["edges"], relations=("vv",))
    with pytest.raises(CosetError, match="no family 'triangles'"):
        bag_bench.main(families="triangles")
    assert Neighbourhoods.of(edgeless).nodes == 3


COUNTS = {  # BREC pairs separated: basic 60, regular 50, extension 100
    ("whole", SUM_GRAPH): (0, 0, 0),
    ("whole", "simple"): (0, 0, 0),
    ("whole", "minimum"): (0, 0, 0),
    ("whole", "learned"): (16, 14, 41),
    ("degree classes", "size"): (0, 0, 0),
    ("degree classes", "learned"): (16, 14, 41),
    ("singletons", SUM_GRAPH): (0, 0, 0),
    ("singletons", "simple"): (60, 50, 100),
    ("closed neighbourhoods", SUM_GRAPH): (8, 14, 18),  # equal neighbourhoods are one set; 2, 2, 10 if they are not
    ("closed neighbourhoods", "simple"): (60, 50, 100),
    ("open neighbourhoods", "size"): (60, 50, 100),
    ("spheres", "minimum"): (60, 50, 100),
    ("complements", "learned"): (60, 50, 100),
    ("edges", SUM_GRAPH): (56, 45, 65),
    ("edges", "simple"): (60, 50, 100),
}


@pytest.mark.parametrize(("cell", "counts"), COUNTS.items(), ids=str)
def test_counts_of_the_specification(cell, counts, expressivity_data):
    pairs = read_brec(expressivity_data, ["basic", "regular", "extension"])
    assert tuple(separated(pairs, *cell).values()) == counts


def test_sum_graph_of_one_neighbourhood_a_node(expressivity_data):
    """Equal neighbourhoods of two nodes counted twice, as the specification's table has them."""
    pairs = read_brec(expressivity_data, ["basic", "regular", "extension"])
    counts = dict.fromkeys(("basic", "regular", "extension"), 0)
    for pair in pairs:
        graphs = (
            sum_graph(g, lambda adjacency: adjacency | np.eye(len(adjacency), dtype=bool))
            for g in (pair.first, pair.second)
        )
        counts[pair.category] += compare(*graphs, NodeRefinement()).separated
    assert tuple(counts.values()) == (2, 2, 10)


def test_the_bench_prints_a_table_or_json(capsys, expressivity_data):
    bag_bench.main(category="regular", data=str(expressivity_data), families="whole,degree-classes")
    printed = capsys.readouterr().out
    assert "regular of 50" in printed
    assert "degree classes" in printed
    bag_bench.main(json=True, category="regular", data=str(expressivity_data), families="whole")
    rows = json.loads(capsys.readouterr().out)["separated"]
    assert {row["marking"]: row["regular"] for row in rows} == {
        SUM_GRAPH: 0, "simple": 0, "size": 0, "minimum": 0, "learned": 14,
    }  # fmt: skip
