"""Liftings: cells by hand, against networkx, invariance under relabelling, TopoNetX, and errors."""

import pickle

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx

from coset import CosetError
from coset.graphs.data.molecules import smiles_to_data
from coset.topology import (
    BallLift,
    CellBatch,
    CliqueLift,
    ClusterLift,
    Complex,
    FaceLift,
    MapperLift,
    RingLift,
    from_simplices,
    from_toponetx,
    is_orientable,
    ring_complex,
    to_data,
    to_toponetx,
)
from coset.topology.data.torus import strip, torus

GRID = nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3))


def graph_of(graph: nx.Graph) -> Data:
    edges = torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t()
    return Data(edge_index=torch.cat([edges, edges.flip(0)], 1), num_nodes=graph.number_of_nodes())


@pytest.mark.parametrize(
    ("graph", "lift", "cells"),
    [
        (nx.complete_graph(4), RingLift(18), 5),
        (nx.complete_graph(4), RingLift(18, distinct="cycles"), 7),
        (nx.complete_graph(4), RingLift(18, "induced"), 4),
        (nx.house_graph(), RingLift(18, "induced"), 2),
        (GRID, RingLift(18, "induced"), 5),
        (nx.petersen_graph(), RingLift(18, "induced"), 22),
        (nx.petersen_graph(), RingLift(18, distinct="cycles"), 57),
        (nx.complete_graph(4), CliqueLift(), 4),
        (nx.path_graph(5), BallLift(), 3),
        (nx.path_graph(5), RingLift(), 0),
        (nx.empty_graph(3), RingLift(), 0),
        # Eccentricities of a path of 7: 6 5 4 3 4 5 6. Two halves without overlap: 3..4.5 and 4.5..6.
        (nx.path_graph(7), MapperLift(intervals=2, overlap=0), 1),
        # With a third of overlap, 3..4.8 and 4.2..6: the same, for no value lies between.
        (nx.path_graph(7), MapperLift(intervals=2, overlap=1 / 3), 1),
        (nx.path_graph(11), MapperLift(intervals=2, overlap=0), 3),
        (nx.cycle_graph(5), MapperLift(), 1),
        (nx.star_graph(4), MapperLift("degree", intervals=1), 1),
        (nx.empty_graph(3), MapperLift(), 0),
    ],
)
def test_number_of_cells(graph, lift, cells):
    data = graph_of(graph)
    assert int(lift(data).num_cells[0, 2]) == cells
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))
    moved = Data(edge_index=order[data.edge_index], num_nodes=data.num_nodes)
    sizes = [sorted(len(c) for c in lift.complex(d).cells[2]) for d in (data, moved)]
    assert sizes[0] == sizes[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rings_cliques_and_balls_are_those_of_networkx(seed):
    graph = nx.gnp_random_graph(seed % 9 + 1, 0.2 + seed % 5 / 10, seed=seed)
    longest = 3 + seed % 6
    data = graph_of(graph)
    simple, chordless = (
        [tuple(c) for c in find(graph, length_bound=longest)] for find in (nx.simple_cycles, nx.chordless_cycles)
    )
    walks = lambda cycles: {frozenset(frozenset((c[i - 1], c[i])) for i in range(len(c))) for c in cycles}  # noqa: E731
    every = RingLift(longest, distinct="cycles").complex(data).cells[2]
    assert walks(every) == walks(simple)
    assert len(every) == len(simple)
    assert {frozenset(c) for c in RingLift(longest).complex(data).cells[2]} == {frozenset(c) for c in simple}
    assert walks(RingLift(longest, "induced").complex(data).cells[2]) == walks(chordless)
    triangles = {frozenset(c) for c in nx.enumerate_all_cliques(graph) if len(c) == 3}
    assert {frozenset(c) for c in CliqueLift().complex(data).cells[2]} == triangles
    balls = {frozenset(nx.single_source_shortest_path_length(graph, v, 2)) for v in graph}
    assert {frozenset(c) for c in BallLift(2).complex(data).cells[2]} == {b for b in balls if len(b) > 2}
    # What a lifting builds without checks passes the checks.
    for lift in (RingLift(longest), CliqueLift(), BallLift(2), MapperLift(intervals=3)):
        made = lift.complex(data)
        Complex(len(made.cells[0]), {rank: list(made.cells[rank]) for rank in (1, 2)}, made.kind)


def test_a_lifting_remembers_and_forgets_when_it_travels():
    data, lift = smiles_to_data("c1ccc2ccccc2c1"), RingLift()
    assert lift.complex(data) is lift.complex(data)
    twin = pickle.loads(pickle.dumps(lift))
    assert twin.complex(data) is not lift.complex(data)
    assert twin.complex(data).cells[2] == lift.complex(data).cells[2]
    assert repr(lift) == "RingLift(boundary=False, longest=18, rings='simple', distinct='vertices', most=10000)"


def test_bond_features_follow_their_edges():
    data = smiles_to_data("C=CC1CC1")
    lifted = RingLift()(data)
    for cell, feature in zip(RingLift().complex(data).cells[1], lifted.x_1):
        here = (data.edge_index == torch.tensor(cell)[:, None]).all(0)
        assert torch.equal(data.edge_attr[here][0], feature)
    assert lifted.num_cells.tolist() == [[5, 5, 1]]
    assert "edge_index" not in lifted


def test_clusters_are_those_given():
    data = graph_of(nx.path_graph(6))
    data.cluster = torch.tensor([1, 1, 1, 0, 0, -1])
    assert ClusterLift().complex(data).cells[2] == [(0, 1, 2)]
    assert ClusterLift(least=2).complex(data).cells[2] == [(0, 1, 2)]  # (3, 4) is an edge
    data.cluster = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 0]], dtype=torch.bool)
    lifted = ClusterLift()(data)
    assert lifted.num_cells.tolist() == [[6, 5, 2]]
    assert lifted.incidence_0_2.tolist() == [[0, 1, 2, 2, 3, 4], [0, 0, 0, 1, 1, 1]]
    data.cluster = torch.zeros(5)
    with pytest.raises(CosetError, match="expected 6 rows"):
        ClusterLift()(data)
    del data.cluster
    with pytest.raises(CosetError, match="no attribute 'cluster'"):
        ClusterLift()(data)


def test_filters_may_be_functions():
    data = graph_of(nx.path_graph(4))
    halves = MapperLift(lambda graph: np.arange(graph.nodes) // 3, intervals=2, overlap=0)
    assert halves.complex(data).cells[2] == [(0, 1, 2)]


def test_meshes_of_pyg():
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]]).t()
    data = FaceLift()(Data(face=faces, pos=torch.zeros(4, 3), num_nodes=4))
    assert data.num_cells.tolist() == [[4, 5, 2]]
    assert data.pos.shape == (4, 3)
    assert is_orientable(FaceLift().complex(Data(face=faces, num_nodes=4)))
    with pytest.raises(CosetError, match="no mesh"):
        FaceLift()(Data(num_nodes=3))


TRIANGLE = Complex(3, {1: [(0, 1), (0, 2), (1, 2)], 2: [(0, 1, 2)]}, "simplicial")
TETRAHEDRON = from_simplices([(0, 1, 2, 3)])
HYPERGRAPH = Complex(4, {1: [(0, 1, 2)], 2: [(0, 1, 2, 3)]})
LONELY = Complex(3, {1: [(0, 1)]}, "simplicial")
GAP = Complex(3, {1: [], 2: [(0, 1, 2)]})


@pytest.mark.parametrize(
    "complex_", [strip(4), strip(4, twisted=True), torus(3, 4), HYPERGRAPH, TRIANGLE, TETRAHEDRON, LONELY, GAP]
)
def test_toponetx_and_back(complex_):
    pytest.importorskip("toponetx")
    again, names = from_toponetx(to_toponetx(complex_))
    assert again.counts == complex_.counts
    assert again.kind == complex_.kind
    for rank in range(complex_.top + 1):
        named = {frozenset(names[v] for v in cell) for cell in again.cells[rank]}
        assert named == {frozenset(cell) for cell in complex_.cells[rank]}
    if complex_.kind == "cell":
        assert is_orientable(again) == is_orientable(complex_)


def test_names_of_toponetx_may_be_anything():
    tnx = pytest.importorskip("toponetx")
    again, names = from_toponetx(tnx.SimplicialComplex([("a", "b", "c"), ("c", "d")]))
    assert set(names) == {"a", "b", "c", "d"}
    assert again.counts == (4, 4, 1)


def test_adjacency_is_that_of_toponetx_off_the_diagonal():
    pytest.importorskip("toponetx")
    complex_ = torus(3, 4)
    tnx = to_toponetx(complex_)
    relation, _ = CellBatch(to_data(complex_)).neighbours(0, 1)
    ours = torch.zeros(12, 12)
    ours[relation.index[0], relation.index[1]] = 1
    order = [tnx.nodes.index(v) if hasattr(tnx.nodes, "index") else list(tnx.nodes).index(v) for v in range(12)]
    theirs = torch.tensor(tnx.adjacency_matrix(0).toarray() != 0)[order][:, order].float()
    theirs.fill_diagonal_(0)
    assert torch.equal(ours, theirs)


def test_labels_of_networkx_may_be_anything():
    grid = nx.grid_2d_graph(3, 3)  # nodes are tuples
    assert ring_complex(grid, 4).counts == (9, 12, 4)
    named = nx.relabel_nodes(nx.cycle_graph(4), dict(enumerate("dcba")))
    square = ring_complex(named, 4)
    assert square.counts == (4, 4, 1)
    assert square.cells[2] == [(0, 1, 2, 3)]  # d is vertex 0
    shuffled = nx.Graph([(2, 0), (0, 1), (1, 2)])
    shuffled.add_node(3)
    assert ring_complex(shuffled, 3).cells[2] == [(0, 1, 2)]  # numbers 0 to n - 1 stay, whatever their order


def test_multigraphs_and_directed_graphs_of_networkx():
    assert ring_complex(nx.MultiGraph(nx.cycle_graph(5)), 5).counts == (5, 5, 1)
    doubled = nx.MultiGraph([("a", "b"), ("b", "c"), ("a", "c"), ("c", "b")])
    with pytest.raises(CosetError, match=r"edge 'b' - 'c' is there 2 times: nx.Graph\(graph\) keeps one"):
        ring_complex(doubled, 3)
    assert ring_complex(nx.DiGraph(nx.complete_graph(3)), 3).counts == (3, 3, 1)  # both directions of every edge
    with pytest.raises(CosetError, match="has no reverse"):
        ring_complex(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), 3)


def test_boundaries_of_one_ring_of_several_on_the_same_nodes_are_refused():
    with pytest.raises(CosetError, match="distinct='cycles'"):
        RingLift(boundary=True)
    assert RingLift(boundary=True, distinct="cycles").boundary
    assert RingLift(rings="induced", boundary=True).boundary  # of which a set of nodes has one


@pytest.mark.parametrize("lift", [RingLift(), CliqueLift(), BallLift(), MapperLift()])
def test_an_edge_that_is_listed_twice_is_refused(lift):
    once = torch.tensor([[0, 1, 0, 2, 1, 2], [1, 0, 2, 0, 2, 1]])
    twice = torch.cat([once, once[:, :2]], 1)
    assert lift.complex(Data(edge_index=once, num_nodes=3)).counts == (3, 3, 1)
    with pytest.raises(CosetError, match="edge 0 -> 1 is listed twice; keep one"):
        lift.complex(Data(edge_index=twice, num_nodes=3))


def test_a_cluster_that_is_an_edge_has_one_rank_only():
    pairs = graph_of(nx.path_graph(4))
    pairs.cluster = torch.tensor([0, 0, 1, 1])
    assert ClusterLift(least=2).complex(pairs).counts == (4, 3, 0)
    pairs.cluster = torch.tensor([0, 1, 0, 1])
    lifted = ClusterLift(least=2).complex(pairs)
    assert lifted.cells[2] == [(0, 2), (1, 3)]
    assert Complex(4, {1: lifted.cells[1], 2: lifted.cells[2]}).counts == (4, 3, 2)  # as the checks demand


def test_errors():
    one_way = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    with pytest.raises(CosetError, match="edge 0 -> 1 has no reverse"):
        RingLift()(one_way)
    with pytest.raises(CosetError, match="self-loop"):
        RingLift()(Data(edge_index=torch.tensor([[0], [0]]), num_nodes=1))
    with pytest.raises(CosetError, match="edge 0 -> 5 leaves the nodes 0 to 1"):
        RingLift()(Data(edge_index=torch.tensor([[0, 5], [5, 0]]), num_nodes=2))
    with pytest.raises(CosetError, match="without nodes"):
        RingLift()(Data(num_nodes=0))
    with pytest.raises(CosetError, match="more than 10 rings"):
        RingLift(18, most=10)(from_networkx(nx.petersen_graph()))
    with pytest.raises(CosetError, match="choose simple or induced"):
        RingLift(rings="basis")  # type: ignore[arg-type]
    with pytest.raises(CosetError, match="at least 3"):
        RingLift(2)
    with pytest.raises(ValueError, match="choose eccentricity or degree"):
        MapperLift("height")
    with pytest.raises(CosetError, match="overlap=1"):
        MapperLift(overlap=1)
    with pytest.raises(CosetError, match="least=1"):
        ClusterLift(least=1)
    pytest.importorskip("toponetx")
    with pytest.raises(CosetError, match="Graph is no TopoNetX"):
        from_toponetx(nx.Graph())
