"""Liftings: cells by hand, invariance under relabelling, TopoNetX, and errors."""

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx

from coset import CosetError
from coset.graphs.molecules import smiles_to_data
from coset.topology import BallLift, CellBatch, CliqueLift, Complex, RingLift, from_toponetx, to_data, to_toponetx
from coset.topology.torus import strip, torus

GRID = nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3))


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
    ],
)
def test_number_of_cells(graph, lift, cells):
    data = (
        from_networkx(graph)
        if graph.number_of_edges()
        else Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=3)
    )
    assert int(lift(data).num_cells[0, 2]) == cells
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))
    moved = Data(edge_index=order[data.edge_index], num_nodes=data.num_nodes)
    sizes = [sorted(len(c) for c in lift.complex(d).cells[2]) for d in (data, moved)]
    assert sizes[0] == sizes[1]


def test_bond_features_follow_their_edges():
    data = smiles_to_data("C=CC1CC1")
    lifted = RingLift()(data)
    for cell, feature in zip(RingLift().complex(data).cells[1], lifted.x_1):
        here = (data.edge_index == torch.tensor(cell)[:, None]).all(0)
        assert torch.equal(data.edge_attr[here][0], feature)
    assert lifted.num_cells.tolist() == [[5, 5, 1]]
    assert "edge_index" not in lifted


TRIANGLE = Complex(3, {1: [(0, 1), (0, 2), (1, 2)], 2: [(0, 1, 2)]}, "simplicial")
HYPERGRAPH = Complex(4, {1: [(0, 1, 2)], 2: [(0, 1, 2, 3)]})


@pytest.mark.parametrize("complex_", [strip(4), torus(3, 4), HYPERGRAPH, TRIANGLE])
def test_toponetx_and_back(complex_):
    pytest.importorskip("toponetx")
    again, names = from_toponetx(to_toponetx(complex_))
    assert again.counts == complex_.counts
    assert again.kind == complex_.kind
    for rank in range(complex_.top + 1):
        named = {frozenset(names[v] for v in cell) for cell in again.cells[rank]}
        assert named == {frozenset(cell) for cell in complex_.cells[rank]}


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


def test_errors():
    one_way = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    with pytest.raises(CosetError, match="edge 0 -> 1 has no reverse"):
        RingLift()(one_way)
    with pytest.raises(CosetError, match="self-loop"):
        RingLift()(Data(edge_index=torch.tensor([[0], [0]]), num_nodes=1))
    with pytest.raises(CosetError, match="more than 10 rings"):
        RingLift(18, most=10)(from_networkx(nx.petersen_graph()))
    with pytest.raises(CosetError, match="choose simple or induced"):
        RingLift(rings="basis")  # type: ignore[arg-type]
    with pytest.raises(CosetError, match="at least 3"):
        RingLift(2)
    pytest.importorskip("toponetx")
    with pytest.raises(CosetError, match="Graph is no TopoNetX"):
        from_toponetx(nx.Graph())
