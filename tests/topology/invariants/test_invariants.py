"""Betti numbers, orientability and diameters: known values, GUDHI, and relabelling."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix

from coset import CosetError
from coset.graphs.data.molecules import smiles_to_data
from coset.topology import (
    Complex,
    RingLift,
    betti_numbers,
    classify_surfaces,
    closed_surface,
    components,
    cross_diameter,
    diameter,
    disjoint_union,
    euler_characteristic,
    from_simplices,
    is_orientable,
    ring_complex,
)
from coset.topology.data.torus import klein_bottle, strip, torus
from coset.topology.invariants import rank_modulo
from coset.topology.kernels import rank_of_columns
from coset.topology.surfaces import PROJECTIVE_PLANE

GRID = nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 3))
HOUSE = nx.house_graph()


@pytest.mark.parametrize(
    ("graph", "longest", "betti"),
    [
        (nx.cycle_graph(6), 18, (1, 0, 0)),
        (nx.cycle_graph(6), 4, (1, 1, 0)),
        (HOUSE, 18, (1, 0, 1)),
        (HOUSE, 4, (1, 0, 0)),
        (nx.complete_graph(4), 18, (1, 0, 2)),
        (nx.complete_graph(5), 4, (1, 0, 9)),
        (nx.complete_graph(5), 18, (1, 0, 10)),
        (GRID, 4, (1, 0, 0)),
        (GRID, 6, (1, 0, 4)),
        (GRID, 18, (1, 0, 9)),
        (nx.petersen_graph(), 4, (1, 6, 0)),
        (nx.petersen_graph(), 6, (1, 0, 16)),
        (nx.petersen_graph(), 18, (1, 0, 41)),
    ],
)
def test_betti_numbers_of_ring_complexes(graph, longest, betti):
    assert betti_numbers(ring_complex(graph, longest), 2) == betti


@pytest.mark.parametrize(
    ("surface", "rational", "modulo_two", "orientable", "euler"),
    [
        (torus(3, 4), (1, 2, 1), (1, 2, 1), True, 0),
        (klein_bottle(4, 5), (1, 1, 0), (1, 2, 1), False, 0),
        (strip(5), (1, 1, 0), (1, 1, 0), True, 0),
        (strip(5, twisted=True), (1, 1, 0), (1, 1, 0), False, 0),
        (disjoint_union(torus(3, 3), torus(3, 3)), (2, 4, 2), (2, 4, 2), True, 0),
    ],
)
def test_surfaces(surface, rational, modulo_two, orientable, euler):
    assert betti_numbers(surface) == rational
    assert betti_numbers(surface, 2) == modulo_two
    assert is_orientable(surface) is orientable
    assert euler_characteristic(surface) == euler


def test_orientability_of_complexes_that_are_not_pure():
    """Cells count that are no faces of larger ones: a disc of triangles, a solid tetrahedron, a projective plane."""
    plane, solid = from_simplices(PROJECTIVE_PLANE), from_simplices([(0, 1, 2, 3)])
    assert not is_orientable(plane)
    assert is_orientable(solid)
    assert not is_orientable(disjoint_union(plane, solid))
    assert is_orientable(disjoint_union(from_simplices([(0, 1, 2), (1, 2, 3)]), solid))
    fan = from_simplices([(0, 1, 2, 3), (0, 1, 4), (0, 1, 5)])  # the edge 01 lies in two triangles that are no faces
    assert is_orientable(fan)
    with pytest.raises(CosetError, match=r"edge \(0, 1\) lies in 3 cells"):
        is_orientable(from_simplices([(0, 1, 2, 3), (0, 1, 4), (0, 1, 5), (0, 1, 6)]))


@pytest.mark.parametrize(
    ("smiles", "cells", "b2", "cross"),
    [
        ("c1ccccc1", (6, 6, 1), 0, 0),
        ("c1ccc2ccccc2c1", (10, 11, 3), 1, 2),
        ("c1ccc2cc3ccccc3cc2c1", (14, 16, 6), 3, 4),
        ("c1ccccc1-c1ccccc1", (12, 13, 2), 0, 4),
        ("C1CC2CCC1C2", (7, 8, 3), 1, 1),
        ("C1C2CC3CC1CC(C2)C3", (10, 12, 7), 4, 2),
        ("C12C3C4C1C5C2C3C45", (8, 12, 23), 18, 1),
        ("CN1C=NC2=C1C(=O)N(C(=O)N2C)C", (14, 15, 3), 1, 3),
        ("CCCCCCCCCC", (10, 9, 0), 0, None),
    ],
)
def test_molecules(smiles, cells, b2, cross):
    complex_ = RingLift(18).complex(smiles_to_data(smiles))
    assert complex_.counts == cells
    assert betti_numbers(complex_, 2)[2] == b2
    assert cross_diameter(complex_) == cross


@pytest.mark.parametrize(("r", "R", "expected"), [(3, 12, 7), (6, 6, 6), (4, 9, 6)])
def test_diameter_of_tori(r, R, expected):
    assert diameter(torus(r, R)) == expected
    assert components(torus(r, R)) == 1


@given(st.integers(0, 2**32 - 1))
def test_agrees_with_gudhi_on_random_triangulated_sets(seed):
    gudhi = pytest.importorskip("gudhi")
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 8))
    tree = gudhi.SimplexTree()
    for v in range(n):
        tree.insert([v])
    for _ in range(int(rng.integers(1, 12))):
        tree.insert(rng.choice(n, size=int(rng.integers(2, 4)), replace=False).tolist())
    simplices = [tuple(s) for s, _ in tree.get_simplices()]
    complex_ = Complex(n, {r: [s for s in simplices if len(s) == r + 1] for r in (1, 2)}, "simplicial")
    for field, prime in ((2, 2), ("rational", 11)):
        tree.compute_persistence(homology_coeff_field=prime, min_persistence=-1, persistence_dim_max=True)
        assert list(betti_numbers(complex_, field)) == (tree.betti_numbers() + [0] * 3)[:3]


@given(st.integers(0, 2**32 - 1))
def test_rank_agrees_with_floating_point(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-2, 3, size=rng.integers(1, 7, size=2))
    assert rank_modulo(csr_matrix(matrix), 2**31 - 1) == np.linalg.matrix_rank(matrix)


@given(st.integers(0, 2**32 - 1))
def test_ranks_of_signed_graphs(seed):
    """Columns with at most two entries of 1 or -1, and their transposes, take another way than the others."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 8, size=2)
    matrix = np.zeros((n, m), dtype=int)
    for column in matrix.T:
        rows = rng.choice(n, size=min(n, rng.integers(0, 3)), replace=False)
        column[rows] = rng.choice([-1, 1], size=len(rows))
    for side in (matrix, matrix.T):
        assert rank_modulo(csr_matrix(side), 2**31 - 1) == np.linalg.matrix_rank(side)
        indptr, indices, values = (np.asarray(a, np.int64) for a in _csc(side))
        assert rank_modulo(csr_matrix(side), 2) == rank_of_columns(indptr, indices, values % 2, len(side), 2)


def _csc(matrix):
    columns = csc_matrix(matrix)
    return columns.indptr, columns.indices, columns.data


@given(st.integers(0, 2**32 - 1))
def test_distances_are_those_of_networkx(seed):
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(int(rng.integers(1, 14)), 0.3, seed=int(seed))
    complex_ = ring_complex(graph, 6)
    hops = dict(nx.all_pairs_shortest_path_length(graph))
    assert diameter(complex_) == max(max(row.values()) for row in hops.values())
    assert components(complex_) == nx.number_connected_components(graph)
    for low in (0, 1):
        pairs = [
            min(hops[v][u] for v in x for u in s if u in hops[v])
            for x in complex_.cells[low]
            for s in complex_.cells[2]
            if any(u in hops[v] for v in x for u in s)
        ]
        assert cross_diameter(complex_, low) == max(pairs, default=None)


@given(st.integers(0, 2**32 - 1))
def test_cross_diameters_of_sets_that_no_path_joins(seed):
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(int(rng.integers(3, 12)), 0.2, seed=int(seed))
    n = graph.number_of_nodes()
    sets = {frozenset(rng.choice(n, size=3, replace=False).tolist()) for _ in range(int(rng.integers(1, 5)))}
    complex_ = Complex(n, {1: list(graph.edges), 2: sorted(map(sorted, sets))})
    hops = dict(nx.all_pairs_shortest_path_length(graph))
    for low in (0, 1, 2):
        pairs = [
            min(hops[v][u] for v in x for u in s if u in hops[v])
            for x in complex_.cells[low]
            for s in complex_.cells[2]
            if any(u in hops[v] for v in x for u in s)
        ]
        assert cross_diameter(complex_, low) == max(pairs, default=None)


def test_three_dimensions():
    """A ball and a 3-sphere: tetrahedra, their boundary, and that of a 4-simplex."""
    ball = from_simplices([(0, 1, 2, 3), (1, 2, 3, 4)])
    assert betti_numbers(ball) == (1, 0, 0, 0)
    sphere = from_simplices(np.array([np.delete(range(5), i) for i in range(5)]))
    assert betti_numbers(sphere) == betti_numbers(sphere, 2) == (1, 0, 0, 1)
    assert euler_characteristic(sphere) == 0


def test_torsion_shows_modulo_two_only():
    plane = closed_surface(1, orientable=False)
    assert betti_numbers(plane) == (1, 0, 0)
    assert betti_numbers(plane, 2) == (1, 1, 1)


def test_a_mesh_of_many_faces_needs_no_dense_matrix():
    """40,000 faces: a dense boundary matrix would take tens of gigabytes."""
    grid = torus(100, 200)
    assert betti_numbers(grid) == betti_numbers(grid, 2) == (1, 2, 1)
    assert is_orientable(grid)
    assert not is_orientable(klein_bottle(100, 200))
    assert str(classify_surfaces(grid)[0]) == "torus"


def test_relabelling_changes_nothing():
    images = np.random.default_rng(0).permutation(20).tolist()
    before, after = klein_bottle(4, 5), klein_bottle(4, 5).relabelled(images)
    assert betti_numbers(before) == betti_numbers(after)
    assert is_orientable(after) is False
    assert cross_diameter(before) == cross_diameter(after)


def test_errors():
    with pytest.raises(CosetError, match="choose 'rational' or 2"):
        betti_numbers(torus(3, 3), 3)  # type: ignore[arg-type]
    book = Complex(5, {1: [(0, 1), *((i, j) for j in (2, 3, 4) for i in (0, 1))], 2: [(0, 1, j) for j in (2, 3, 4)]},
                   "cell")  # fmt: skip
    with pytest.raises(CosetError, match="lies in 3 cells: not a surface"):
        is_orientable(book)
