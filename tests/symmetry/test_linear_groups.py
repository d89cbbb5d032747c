"""Signs and bases of eigenspaces, GL(r), rotations: small cases by hand, and that draws are what they should be."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from coset.symmetry import GeneralLinear, OrthogonalBasis, Rotation3, SignFlip
from coset.symmetry.linear_groups import eigenspace_sizes, random_orthogonal


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cycle(nodes):
    """A cycle with its Laplacian eigenvectors, all but the constant one: eigenvalues come in twos."""
    sources = torch.arange(nodes)
    laplacian = 2 * torch.eye(nodes, dtype=torch.float64)
    laplacian[sources, (sources + 1) % nodes] = laplacian[(sources + 1) % nodes, sources] = -1
    values, vectors = torch.linalg.eigh(laplacian)
    data = Data(num_nodes=nodes, laplacian_eigenvectors=vectors[:, 1:3], laplacian_eigenvalues=values[None, 1:3])
    return data, laplacian


def test_signs_flip_columns():
    vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert SignFlip().apply(torch.tensor([1.0, -1.0]), vectors).tolist() == [[1, -2], [3, -4]]


def test_signs_of_each_graph_are_its_own():
    batch = Batch.from_data_list([Data(laplacian_eigenvectors=torch.ones(n, 2), num_nodes=n) for n in (2, 1)])
    moved = SignFlip().apply(torch.tensor([[1.0, -1.0], [-1.0, -1.0]]), batch)
    assert moved.laplacian_eigenvectors.tolist() == [[1, -1], [1, -1], [-1, -1]]
    assert SignFlip().order(batch) == 16
    with pytest.raises(ValueError, match="no laplacian_eigenvectors"):
        SignFlip().sample(Data(num_nodes=1), generator())


def test_eigenspaces_are_runs_of_equal_eigenvalues():
    nan = float("nan")
    assert eigenspace_sizes(torch.tensor([0.0, 1.0, 1.0, 1.0, 3.0]), 1e-6) == [1, 3, 1]
    assert eigenspace_sizes(torch.tensor([0.0, 1e-7, nan, nan]), 1e-6) == [2, 1, 1]
    assert eigenspace_sizes(torch.tensor([]), 1e-6) == []


def test_a_rotation_within_an_eigenspace_keeps_eigenvectors():
    data, laplacian = cycle(6)
    action = OrthogonalBasis()
    moved = action.apply(action.sample(data, generator()), data).laplacian_eigenvectors
    assert not torch.allclose(moved.abs(), data.laplacian_eigenvectors.abs())
    torch.testing.assert_close(laplacian @ moved, moved * data.laplacian_eigenvalues)
    projection = data.laplacian_eigenvectors @ data.laplacian_eigenvectors.T
    torch.testing.assert_close(moved @ moved.T, projection)


def test_distinct_eigenvalues_leave_only_signs_and_padding_does_not_move():
    action = OrthogonalBasis(torch.tensor([0.0, 1.0, float("nan")]))
    element = action.sample(torch.zeros(4, 3), generator())
    torch.testing.assert_close(element.abs(), torch.eye(3, dtype=torch.float64))
    assert element[2, 2] == 1


def test_basis_changes_of_a_batch_are_those_of_its_graphs():
    graphs = [cycle(n)[0] for n in (5, 6)]
    action, batch = OrthogonalBasis(), Batch.from_data_list(graphs)
    element = action.sample(batch, generator())
    moved = action.apply(element, batch).to_data_list()
    for one, rotation, found in zip(graphs, element, moved, strict=True):
        expected = one.laplacian_eigenvectors @ rotation
        torch.testing.assert_close(found.laplacian_eigenvectors, expected)


def test_eigenvalues_must_be_there():
    with pytest.raises(ValueError, match="needs eigenvalues="):
        OrthogonalBasis().sample(torch.zeros(3, 2), generator())
    with pytest.raises(ValueError, match="3 eigenvalues for 2 columns"):
        OrthogonalBasis(torch.zeros(3)).sample(torch.zeros(3, 2), generator())


def test_gl_by_hand():
    u, v = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    moved_u, moved_v = GeneralLinear().apply(torch.tensor([[2.0, 1.0], [0.0, 1.0]]).double(), (u, v))
    assert moved_u.tolist() == [[2, 1], [0, 1]]
    assert moved_v.tolist() == [[0, 1]]  # g^-1 = [[1/2, -1/2], [0, 1]], (1, 1) g^-T = (0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gl_keeps_the_product(dtype):
    u, v = (torch.randn(3, n, 4, generator=generator(n), dtype=dtype) for n in (6, 5))
    action = GeneralLinear(condition=100.0)
    element = action.sample((u, v), generator())
    moved_u, moved_v = action.apply(element, (u, v))
    assert element.shape == (3, 4, 4)
    assert moved_u.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(moved_u @ moved_v.mT, u @ v.mT, rtol=tolerance, atol=tolerance)
    assert (moved_u - u).abs().max() > 0.1


def test_gl_stays_within_its_condition():
    pair = (torch.zeros(50, 3, 3), torch.zeros(50, 3, 3))
    assert torch.linalg.cond(GeneralLinear(10.0).sample(pair, generator())).max() <= 10 + 1e-9
    orthogonal = GeneralLinear(1.0).sample(pair, generator())
    torch.testing.assert_close(orthogonal @ orthogonal.mT, torch.eye(3).double().expand(50, 3, 3))
    with pytest.raises(ValueError, match=r"condition=0\.5"):
        GeneralLinear(0.5)
    with pytest.raises(ValueError, match=r"got \(2, 3\), \(2, 4\)"):
        GeneralLinear().sample((torch.zeros(2, 3), torch.zeros(2, 4)), generator())


def test_a_quarter_turn_about_z():
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert Rotation3().apply(quarter, torch.tensor([[1.0, 0.0, 5.0]])).tolist() == [[0, 1, 5]]
    with pytest.raises(ValueError, match="last axis"):
        Rotation3().apply(quarter, torch.zeros(3, 2))


def test_rotations_do_not_reflect_unless_asked():
    drawn, point = generator(), torch.zeros(3)
    proper = [torch.linalg.det(Rotation3().sample(point, drawn)) for _ in range(20)]
    torch.testing.assert_close(torch.stack(proper), torch.ones(20, dtype=torch.float64))
    signs = {round(float(torch.linalg.det(Rotation3(True).sample(point, drawn)))) for _ in range(20)}
    assert signs == {-1, 1}


def test_orthogonal_matrices_are_uniform():
    # For the Haar measure on O(n): E[Q] = 0 and E[Q_ij^2] = 1/n.
    drawn = random_orthogonal(3, generator(), (20_000,))
    torch.testing.assert_close(drawn @ drawn.mT, torch.eye(3).double().expand(20_000, 3, 3))
    assert drawn.mean(0).abs().max() < 0.02
    assert (drawn.square().mean(0) - 1 / 3).abs().max() < 0.02
