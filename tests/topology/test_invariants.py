"""Betti numbers, orientability and diameters: known values, GUDHI, and relabelling."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from coset import CosetError
from coset.graphs.molecules import smiles_to_data
from coset.topology import (
    Complex,
    RingLift,
    betti_numbers,
    components,
    cross_diameter,
    diameter,
    disjoint_union,
    euler_characteristic,
    is_orientable,
    ring_complex,
)
from coset.topology.invariants import rank_modulo
from coset.topology.torus import klein_bottle, strip, torus

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
