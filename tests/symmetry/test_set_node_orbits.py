"""Equivariant maps on (set, node) tensors: counts of the paper, the group's own orbits, the numeric null space."""

import itertools

import pytest
import torch

from coset.symmetry import (
    count_set_node_orbits,
    equivariant_null_space,
    on_pairs,
    on_subsets,
    set_node_basis,
    set_node_orbit,
    set_node_orbits,
    subsets_of_size,
    symmetric_group_generators,
)


def sets_of(n, size=None):
    return [[i for i in range(n) if number >> i & 1] for number in subsets_of_size(n, size).tolist()]


def labels(n, output_size=None, input_size=None):
    """The orbit of every quadruple, from the five invariants."""
    rows = list(itertools.product(sets_of(n, output_size), range(n)))
    columns = list(itertools.product(sets_of(n, input_size), range(n)))
    return [[set_node_orbit(*row, *column) for column in columns] for row in rows]


def test_an_orbit_by_hand():
    orbit = set_node_orbit({0, 1}, 2, {1, 2, 3}, 1)
    assert orbit == (2, 3, 1, False, 2, 0)
    assert not orbit.is_point
    assert set_node_orbit({0, 1}, 2, {2}, 2).is_point
    assert not set_node_orbit({2}, 2, {0, 1}, 2).is_point


def test_counts_of_the_formula():
    assert [count_set_node_orbits(n) for n in range(1, 7)] == [4, 32, 104, 240, 460, 784]
    for n in range(1, 8):
        orbits = list(set_node_orbits(n))
        assert len(orbits) == len(set(orbits)) == count_set_node_orbits(n)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_invariants_tell_the_orbits_of_the_group(n):
    basis = set_node_basis(n)
    assert len(basis) == count_set_node_orbits(n)
    told = {orbit: k for k, orbit in enumerate(dict.fromkeys(orbit for row in labels(n) for orbit in row))}
    assert torch.equal(basis.labels, torch.tensor([[told[orbit] for orbit in row] for row in labels(n)]))
    assert set(told) == set(set_node_orbits(n))


@pytest.mark.parametrize(
    ("n", "output_size", "input_size", "maps"),
    [(1, 1, 1, 1), (2, 1, 1, 8), (3, 1, 1, 14), (4, 1, 1, 15), (6, 1, 1, 15), (5, 1, 2, 21), (6, 1, 2, 21)]
    + [(4, 2, 2, 28), (5, 2, 2, 34), (6, 2, 2, 35), (7, 2, 2, 35)],
)
def test_blocks_of_fixed_sizes(n, output_size, input_size, maps):
    assert len(set_node_basis(n, output_size, input_size)) == maps


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_basis_spans_the_numeric_null_space(n):
    generators = [on_pairs(on_subsets(sigma), sigma) for sigma in symmetric_group_generators(n)]
    space = equivariant_null_space(generators, generators).flatten(1)
    basis = set_node_basis(n)
    flat = torch.stack([basis.dense(k).flatten() for k in range(len(basis))])
    assert len(space) == len(basis)
    torch.testing.assert_close(flat @ space.T @ space, flat)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_invariant_functionals_are_two_a_size(n):
    from coset.symmetry import orbits

    moved = [on_pairs(on_subsets(sigma), sigma) for sigma in symmetric_group_generators(n)]
    assert int(orbits(moved).max()) + 1 == 2 * n
