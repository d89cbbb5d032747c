"""Complexes and their batches: counts by hand, errors in one line."""

import pytest
import torch
from torch_geometric.data import Batch

from coset import CosetError
from coset.topology import CellBatch, Complex, disjoint_union, from_faces, to_data
from coset.topology.complexes import Kind

TWO_TRIANGLES = Complex(4, {1: [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], 2: [(0, 1, 2), (1, 2, 3)]}, "cell")


@pytest.mark.parametrize(
    ("rank", "bridge", "with_multiplicity", "distinct"),
    [(0, 1, 10, 10), (1, 0, 16, 16), (0, 2, 12, 10), (2, 0, 4, 2), (1, 2, 12, 12), (2, 1, 2, 2)],
)
def test_neighbours_of_two_triangles_on_an_edge(rank, bridge, with_multiplicity, distinct):
    relation, between = CellBatch(to_data(TWO_TRIANGLES)).neighbours(rank, bridge)
    assert relation.edges == with_multiplicity == between.numel()
    assert relation.index.unique(dim=1).size(1) == distinct
    assert (relation.index[0] != relation.index[1]).all()


def test_vertices_one_and_two_are_neighbours_through_both_triangles():
    relation, between = CellBatch(to_data(TWO_TRIANGLES)).neighbours(0, 2)
    here = (relation.index == torch.tensor([[1], [2]])).all(0)
    assert sorted(between[here].tolist()) == [0, 1]


def test_incidence_by_inclusion_holds_the_chord_and_by_boundary_does_not():
    square = Complex(4, {1: [(0, 1), (1, 2), (2, 3), (0, 3), (0, 2)], 2: [(0, 1, 2, 3)]}, "cell")
    assert to_data(square).incidence_1_2.size(1) == 5
    assert to_data(square, boundary=True).incidence_1_2.size(1) == 4


def test_a_boundary_has_no_boundary():
    for complex_ in (TWO_TRIANGLES, Complex(4, {1: [(1, 0), (0, 2), (2, 1), (3, 0), (1, 3), (3, 2)],
                     2: [(2, 1, 0), (0, 1, 3), (3, 2, 0), (1, 2, 3)], 3: [(3, 0, 2, 1)]}, "simplicial")):  # fmt: skip
        for rank in range(2, complex_.top + 1):
            assert abs(complex_.boundary_matrix(rank - 1) @ complex_.boundary_matrix(rank)).sum() == 0


def test_faces_bring_their_edges():
    assert from_faces([(0, 1, 2), (1, 2, 3)]).counts == (4, 5, 2)


def test_a_batch_numbers_cells_through():
    single = to_data(TWO_TRIANGLES)
    lonely = to_data(Complex(1, {}), ranks=3)
    batch = CellBatch(Batch.from_data_list([single, lonely, single]))
    assert [index.sizes.tolist() for index in batch.cells] == [[4, 1, 4], [5, 0, 5], [2, 0, 2]]
    assert torch.equal(batch.incidence(1, 2).index[:, 6:], single.incidence_1_2 + torch.tensor([[5], [2]]))
    union = CellBatch(to_data(disjoint_union(TWO_TRIANGLES, TWO_TRIANGLES)))
    assert union.neighbours(0, 1).relation.edges == batch.neighbours(0, 1).relation.edges == 20


@pytest.mark.parametrize(
    ("vertices", "cells", "kind", "message"),
    [
        (3, {1: [(0, 3)]}, "combinatorial", r"cell \(0, 3\) of rank 1 names vertex 3, but vertices are 0 to 2"),
        (3, {1: [(0, 1), (1, 0)]}, "combinatorial", r"cell \(1, 0\) of rank 1 is given twice"),
        (3, {1: [(0, 1)], 2: [(0, 1, 2)]}, "cell", r"cell \(0, 1, 2\) of rank 2 needs the face"),
        (3, {1: [(0, 1)], 2: [(0, 1, 2)]}, "simplicial", "needs the face"),
        (3, {1: [(0, 1, 2)], 2: [(0, 1)]}, "combinatorial", "ranks must not fall"),
        (3, {1: [(0, 1)], 2: [(1, 0)]}, "combinatorial", "ranks 1 and 2; it has one rank only"),
        (3, {1: [(0, 0)]}, "combinatorial", "lists a vertex twice"),
        (3, {1: [()]}, "combinatorial", "has no vertices"),
        (3, {0: [(0,)]}, "combinatorial", "ranks start at 1"),
        (3, {1: [(0, 1, 2)]}, "simplicial", "it should have 2"),
        (0, {}, "combinatorial", "at least one vertex"),
        (2, {}, "magic", "choose combinatorial, cell or simplicial"),
    ],
)
def test_bad_complexes_are_refused(vertices: int, cells: dict, kind: Kind, message: str):
    with pytest.raises(CosetError, match=message):
        Complex(vertices, cells, kind)


def test_features_must_fit_the_cells():
    with pytest.raises(CosetError, match="x_1 has 4 rows, but the complex has 5 cells of rank 1"):
        to_data(TWO_TRIANGLES, x_1=torch.zeros(4, 2))


def test_what_is_no_complex_is_refused():
    from torch_geometric.data import Data

    with pytest.raises(ValueError, match="lift it first"):
        CellBatch(Data(num_nodes=3))
    with pytest.raises(ValueError, match="ranks 0 to 2"):
        CellBatch(to_data(TWO_TRIANGLES)).neighbours(0, 3)
    with pytest.raises(CosetError, match="no boundary"):
        Complex(3, {1: [(0, 1, 2)]}).boundary_matrix(1)
