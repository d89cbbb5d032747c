"""Complexes and their batches: counts by hand, errors in one line."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch

from coset import CosetError
from coset.topology import (
    HOMP,
    SMCN,
    CellBatch,
    Cells,
    Complex,
    disjoint_union,
    from_faces,
    from_simplices,
    to_data,
)
from coset.topology.data.cells import find_rows, number_rows
from coset.topology.data.complexes import Kind
from coset.topology.kernels import inclusions

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
        (3, {1: [(0, 1.5)]}, "combinatorial", "cells of rank 1 are rows of whole numbers of vertices; got 1.5"),
        (3, {1: [(0, "a")]}, "combinatorial", "rows of whole numbers"),
        (3, {1: [(0, True)]}, "combinatorial", "rows of whole numbers of vertices; got True"),
        (3, {1: [0, 1]}, "combinatorial", "rows of whole numbers of vertices; got 0"),
        (3, {1: np.zeros((1, 2))}, "combinatorial", "rows of whole numbers of vertices; got 0.0"),
        (3, {1: [(0, -1)]}, "combinatorial", "names vertex -1"),
        (4, {1: [(0, 1), (1, 2), (2, 3), (0, 3)], 2: [(0, 1, 2, 3), (1, 0, 3, 2)]}, "cell", "given twice"),
        (3, {1: [(0, 1)], 3: [(0, 1, 2)]}, "cell", "ranks up to 2; got 3"),
        (2, {1: [(0, 1, 2)]}, "cell", "names vertex 2"),
        (4, {1: [(0, 1), (0, 2), (1, 2)], 2: [(0, 1, 2)], 3: [(0, 1, 2, 3)]}, "simplicial", "needs the face"),
    ],
)
def test_bad_complexes_are_refused(vertices: int, cells: dict, kind: Kind, message: str):
    with pytest.raises(CosetError, match=message):
        Complex(vertices, cells, kind)


def test_two_polygons_on_the_same_vertices_differ_by_their_walks():
    edges = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    both = Complex(4, {1: edges, 2: [(0, 1, 2, 3), (0, 2, 1, 3)]}, "cell")
    assert both.counts == (4, 6, 2)
    with pytest.raises(CosetError, match="given twice"):
        Complex(4, {1: edges, 2: [(0, 1, 2, 3), (0, 3, 2, 1)]})


def test_a_gap_between_ranks_is_an_empty_rank():
    hyper = Complex(4, {3: [(0, 1, 2, 3)]})
    assert hyper.counts == (4, 0, 0, 1)
    assert hyper.incidence(0, 3).tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert to_data(hyper).incidence_1_3.shape == (2, 0)


def test_cells_read_like_tuples():
    cells = Cells.of([(2, 0), (1, 2, 0)])
    assert cells == [(2, 0), (1, 2, 0)]
    assert (len(cells), cells[1], cells[-1], cells[:1]) == (2, (1, 2, 0), (1, 2, 0), [(2, 0)])
    assert repr(cells) == "[(2, 0), (1, 2, 0)]"
    assert cells.sorted_members().tolist() == [0, 2, 0, 1, 2]
    assert not Cells.of([])


@given(st.lists(st.sets(st.integers(0, 6), min_size=1), max_size=8), st.lists(st.sets(st.integers(0, 6), min_size=1)))
def test_inclusions_are_those_of_sets(inner, outer):
    found = inclusions(
        *(a for c in (Cells.of(map(list, outer)), Cells.of(map(list, inner))) for a in (c.members, c.ptr)), 7
    )
    wanted = [(x, y) for y, b in enumerate(outer) for x, a in enumerate(inner) if a <= b]
    assert list(zip(*found.tolist())) == wanted


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=12))
def test_rows_are_numbered_and_found(rows):
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    codes = number_rows(table)
    assert [[a == b for b in codes] for a in codes] == [[a == b for b in rows] for a in rows]
    huge = number_rows(table * 10**15)  # beyond what one integer holds
    assert [[a == b for b in huge] for a in huge] == [[a == b for b in rows] for a in rows]
    wanted = np.array([(0, 1, 2), (3, 3, 3)])
    assert find_rows(wanted, table).tolist() == [rows.index(w) if w in rows else -1 for w in wanted.tolist()]


def test_simplices_bring_their_faces():
    assert from_simplices([(3, 1, 0), (1, 2), (0, 1)]).counts == (4, 4, 1)
    assert from_simplices([(0, 1, 2, 3)]).counts == (4, 6, 4, 1)
    assert from_simplices([], 2).counts == (2,)
    with pytest.raises(CosetError, match="names vertex -1"):
        from_simplices([(0, -1)], 2)


def test_unions_of_complexes_of_different_height():
    edge, triangle = Complex(2, {1: [(0, 1)]}, "cell"), from_faces([(0, 1, 2)])
    union = disjoint_union(edge, triangle)
    assert union.counts == (5, 4, 1)
    assert union.cells[2] == [(2, 3, 4)]
    with pytest.raises(CosetError, match="one kind"):
        disjoint_union(edge, Complex(1, {}))


def test_a_batch_of_one_row_can_be_trained_on():
    """One complex of one vertex: batch norm cannot normalise a single row and says so; layer norm can."""
    single = to_data(Complex(1, {}), ranks=3)
    for model in (HOMP(1, width=4), SMCN(1, width=4), SMCN(1, width=4, ranks=(0, 1))):
        out = model.train()(single)
        assert out.shape == (1, 1)
        out.sum().backward()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        HOMP(1, width=4, norm="batch").train()(single)
    assert HOMP(1, width=4, norm="batch").eval()(single).isfinite().all()


def test_cells_may_be_tensors_but_no_names():
    triangle = torch.tensor([[0, 1, 2]])
    assert from_faces(triangle).counts == from_simplices(triangle).counts == (3, 3, 1)
    assert from_faces([torch.tensor([0, 1, 2]), torch.tensor([0, 1, 3])]).counts == (4, 5, 2)
    assert Complex(3, {1: triangle[:, :2]}).counts == (3, 1)
    for make, what in ((from_faces, "faces"), (from_simplices, "simplices")):
        with pytest.raises(CosetError, match=f"{what} are rows of whole numbers of vertices; got 'a'"):
            make([("a", "b", "c")])
    with pytest.raises(CosetError, match=r"got 0\.0"):
        from_faces(triangle.double())


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
