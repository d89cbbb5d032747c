"""Bases of equivariant linear maps: counts, hand-computed elements, and the numeric null space as judge."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.symmetry import (
    TupleBasis,
    apply_pattern,
    count_partitions,
    equivariant_null_space,
    on_pairs,
    on_subsets,
    on_tuples,
    orbit_basis,
    orbits,
    set_partitions,
    symmetric_group_generators,
)


def test_partitions_of_three_places():
    assert list(set_partitions(3)) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2)]
    assert list(set_partitions(3, blocks=2)) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert list(set_partitions(0)) == [()]


def test_counts_are_bell_numbers():
    assert [count_partitions(places) for places in range(8)] == [1, 1, 2, 5, 15, 52, 203, 877]
    assert [count_partitions(4, blocks) for blocks in range(6)] == [0, 1, 8, 14, 15, 15]
    for places, blocks in itertools.product(range(7), range(1, 8)):
        assert count_partitions(places, blocks) == len(list(set_partitions(places, blocks)))


def test_maps_from_vectors_to_vectors_are_two():
    basis = TupleBasis(3, 1, 1)
    assert [basis.dense(i).tolist() for i in range(2)] == [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 1, 1], [1, 0, 1], [1, 1, 0]],
    ]
    x = torch.tensor([1.0, 2.0, 4.0])
    assert basis.apply(0, x).tolist() == [1, 2, 4]
    assert basis.apply(1, x).tolist() == [6, 5, 3]
    assert basis.sparse(0).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_maps_from_matrices_to_numbers_are_trace_and_rest():
    basis, x = TupleBasis(2, 2, 0), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert [basis.apply(i, x).item() for i in range(len(basis))] == [5, 5]
    assert TupleBasis(2, 0, 2).apply(0, torch.tensor(7.0)).tolist() == [[7, 0], [0, 7]]
    assert TupleBasis(2, 0, 0).apply(0, torch.tensor(7.0)) == 7


@pytest.mark.parametrize(("k", "l"), [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_basis_spans_the_numeric_null_space(n, k, l):  # noqa: E741
    generators = symmetric_group_generators(n)
    null = equivariant_null_space(
        [on_tuples(sigma, k) for sigma in generators], [on_tuples(sigma, l) for sigma in generators]
    )
    basis = TupleBasis(n, k, l)
    elements = torch.stack([basis.dense(i).reshape(n**l, n**k) for i in range(len(basis))])
    assert len(null) == len(basis) == count_partitions(k + l, n)
    # Indicators of disjoint sets are orthogonal; each lies in the null space, whose projector is sum of its basis.
    flat, space = elements.flatten(1), null.flatten(1)
    torch.testing.assert_close(flat @ space.T @ space, flat)
    assert torch.linalg.matrix_rank(flat) == len(basis)
    assert elements.sum(0).eq(1).all()


def test_from_matrices_to_matrices_there_are_fifteen_from_four_nodes_on():
    assert [len(TupleBasis(n, 2, 2)) for n in (1, 2, 3, 4, 10)] == [1, 8, 14, 15, 15]
    assert [len(TupleBasis(9, k, 0)) for k in range(5)] == [1, 1, 2, 5, 15]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 4), k=st.integers(0, 3), l=st.integers(0, 2), seed=st.integers(0, 100))
def test_applying_an_element_is_multiplying_by_its_matrix(n, k, l, seed):  # noqa: E741
    basis = TupleBasis(n, k, l)
    x = torch.randn((n,) * k + (2, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    element = seed % len(basis)
    dense = basis.dense(element).reshape(n**l, n**k) @ x.reshape(n**k, 6)
    torch.testing.assert_close(basis.apply(element, x), dense.reshape((n,) * l + (2, 3)))


def test_large_tensors_are_never_squared():
    # 15 maps on 300 x 300 matrices: as dense tensors each would take 65 GB.
    basis, x = TupleBasis(300, 2, 2), torch.randn(300, 300, generator=torch.Generator().manual_seed(0)).double()
    total = sum(basis.apply(i, x) for i in range(len(basis)))
    torch.testing.assert_close(total, x.sum().expand(300, 300))  # the orbits cover every pair of entries once


def test_patterns_are_diagonals_sums_and_copies():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert apply_pattern((0, 0), x, 2, 2) == 5  # trace
    assert apply_pattern((0, 0, 1), x, 2, 2).tolist() == [3, 7]  # rows
    assert apply_pattern((0, 0, 0), x, 2, 2).tolist() == [1, 4]  # diagonal
    assert apply_pattern((0, 1, 1, 0), x, 2, 2).tolist() == [[1, 3], [2, 4]]  # transpose
    assert apply_pattern((0, 0, 0, 1), x, 2, 2).tolist() == [[3, 0], [0, 7]]  # rows onto the diagonal
    assert apply_pattern((0, 1, 2, 2), x, 2, 2).tolist() == [[5, 5], [5, 5]]  # trace everywhere
    with pytest.raises(ValueError, match="2 axes of length 3"):
        apply_pattern((0, 0), x, 3, 2)


def test_gradients_flow_through_an_element():
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    basis = TupleBasis(3, 2, 2)
    assert all(torch.autograd.gradcheck(lambda t, i=i: basis.apply(i, t), x) for i in (0, 5, len(basis) - 1))


def test_orbits_of_a_rotation():
    assert orbits([torch.tensor([1, 0, 3, 4, 2, 5])]).tolist() == [0, 0, 1, 1, 1, 2]


def test_orbits_of_pairs_are_those_of_tuples():
    generators = symmetric_group_generators(4)
    pairs = [on_tuples(sigma, 2) for sigma in generators]
    found, known = orbit_basis(pairs, pairs), TupleBasis(4, 2, 2)
    assert len(found) == 15
    dense = {str(known.dense(i).reshape(16, 16).tolist()) for i in range(15)}
    assert {str(found.dense(i).tolist()) for i in range(15)} == dense


@pytest.mark.parametrize(("n", "count"), [(1, 4), (2, 32), (3, 104), (4, 240), (5, 460), (6, 784)])
def test_orbits_on_subsets_and_nodes(n, count):
    # S_n on P([n]) x [n]: 2n (n + 1)(5n - 2) / 3 equivariant maps and 2n invariant ones.
    generators = [on_pairs(on_subsets(sigma), sigma) for sigma in symmetric_group_generators(n)]
    assert count == 2 * n * (n + 1) * (5 * n - 2) // 3
    assert len(orbit_basis(generators, generators)) == count
    assert int(orbits(generators).max()) + 1 == 2 * n


def test_orbits_on_subsets_and_nodes_agree_with_the_null_space():
    generators = [on_pairs(on_subsets(sigma), sigma) for sigma in symmetric_group_generators(3)]
    null = equivariant_null_space(generators, generators)
    basis = orbit_basis(generators, generators)
    assert len(null) == len(basis) == 104
    space = null.flatten(1)
    flat = torch.stack([basis.dense(i) for i in range(len(basis))]).flatten(1)
    torch.testing.assert_close(flat @ space.T @ space, flat)


def test_a_subset_moves_with_its_members():
    sigma = torch.tensor([1, 2, 0])
    assert on_subsets(sigma).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]  # {0} -> {1}, {0, 1} -> {1, 2}
    assert on_tuples(sigma, 2)[1] == 5  # (0, 1) -> (1, 2)
    assert on_tuples(sigma, 0).tolist() == [0]


def test_a_basis_element_is_applied_by_its_entries():
    generators = symmetric_group_generators(4)
    basis = orbit_basis([on_tuples(sigma, 2) for sigma in generators], generators)
    x = torch.randn(4, 3, dtype=torch.float64)
    for i in range(len(basis)):
        torch.testing.assert_close(basis.apply(i, x), basis.dense(i) @ x)
        dense = torch.zeros(16, 4).index_put(tuple(basis.sparse(i)), torch.ones(()))
        assert dense.double().equal(basis.dense(i))


def test_the_null_space_takes_matrices():
    # Quarter turns of the plane: the maps that commute are a + b i, two dimensions.
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    null = equivariant_null_space([quarter], [quarter])
    assert len(null) == 2
    for w in null:
        torch.testing.assert_close(w @ quarter.double(), quarter.double() @ w)
    assert len(equivariant_null_space([torch.eye(2)], [quarter])) == 0  # nothing invariant to copy


def test_what_does_not_fit_is_refused():
    three, four = (symmetric_group_generators(n) for n in (3, 4))
    with pytest.raises(ValueError, match="2 on outputs, 1 on inputs"):
        orbit_basis(three, three[:1])
    with pytest.raises(ValueError, match="differ in size"):
        orbit_basis([three[0], four[0]], [three[0], four[0]])
    with pytest.raises(ValueError, match="not a permutation"):
        orbits([torch.tensor([0, 0])])
    with pytest.raises(ValueError, match="each generator acts on both sides"):
        equivariant_null_space(three, [])
    with pytest.raises(ValueError, match="at most 4096"):
        equivariant_null_space([torch.eye(65)], [torch.eye(64)])
    with pytest.raises(ValueError, match="n=0"):
        TupleBasis(0, 1, 1)
    with pytest.raises(IndexError, match="basis element 2: there are 2"):
        TupleBasis(3, 1, 1).apply(2, torch.zeros(3))
    with pytest.raises(ValueError, match="x has 2 rows"):
        orbit_basis(three, three).apply(0, torch.zeros(2))
