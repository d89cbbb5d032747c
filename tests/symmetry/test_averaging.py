"""Group averages: exact over a finite group, estimated otherwise."""

import copy

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from coset.symmetry import (
    AxisPermutation,
    Compose,
    CyclicImage,
    CyclicShift,
    DihedralImage,
    GroupAverage,
    NodePermutation,
    NodeRowPermutation,
    Parts,
    PointPermutation,
    Rotation3,
    TrivialAction,
    check_equivariance,
    symmetrize,
    verify_claims,
)


def test_the_average_of_the_first_entry_is_the_mean():
    f = symmetrize(lambda x: x[0], PointPermutation())
    assert f(torch.tensor([1.0, 2.0, 6.0])) == 3


def test_the_equivariant_average_of_keeping_the_first_entry():
    # Over S_3 each entry is first in a third of the numberings, and then goes back to its place.
    f = symmetrize(lambda x: x * torch.tensor([1.0, 0.0, 0.0]), PointPermutation(), PointPermutation())
    torch.testing.assert_close(f(torch.tensor([3.0, 6.0, 9.0])), torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("action", "shape"),
    [
        (DihedralImage(), (3, 3)),
        (CyclicShift(), (3, 3)),
        (AxisPermutation((0, 1)), (3, 3)),
        (Compose(CyclicShift(), DihedralImage()), (3, 3)),
    ],
    ids=repr,
)
def test_any_map_becomes_equivariant_and_invariant(action, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    network = nn.Sequential(nn.Flatten(0), nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 9), nn.Unflatten(0, shape))
    assert not check_equivariance(network, x, action, action).passed
    for output in (action, TrivialAction()):
        (report,) = verify_claims(symmetrize(network, action, output), x)
        assert report.passed, report
        assert report.moved > 0


def test_an_equivariant_map_is_its_own_average():
    x = torch.randn(3, 3, dtype=torch.float64)
    torch.testing.assert_close(symmetrize(torch.tanh, DihedralImage(), DihedralImage())(x), x.tanh())


def test_graphs_are_averaged_over_their_numberings():
    graph = Data(x=torch.tensor([[1.0], [2.0], [4.0]]), edge_index=torch.tensor([[0, 1], [1, 2]]))
    first = symmetrize(lambda data: data.x[0], NodePermutation())
    torch.testing.assert_close(first(graph), torch.tensor([7 / 3]))
    rows = symmetrize(lambda data: data.x.cumsum(0), NodePermutation(), NodeRowPermutation())
    (report,) = verify_claims(rows, graph)
    assert report.passed, report


def test_outputs_may_have_parts():
    f = symmetrize(
        lambda x: {"where": x.cumsum(0), "first": x[0]},
        PointPermutation(),
        Parts({"where": PointPermutation(), "first": TrivialAction()}),
    )
    (report,) = verify_claims(f, torch.rand(4))
    assert report.passed, report


def test_listed_elements_make_a_subgroup():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    corner = lambda x: x[0, 0]  # noqa: E731
    half_turns = symmetrize(corner, DihedralImage(), elements=[(0, 0), (2, 0)])
    assert half_turns(image) == 2.5
    assert half_turns.symmetry() == ()
    assert symmetrize(corner, CyclicImage())(image) == 2.5


def test_an_estimate_tends_to_the_average():
    # Over SO(3) the mean of z^2 is |x|^2 / 3.
    f = symmetrize(lambda x: x[..., 2].square(), Rotation3(), samples=4000).eval()
    assert f(torch.tensor([1.0, 2.0, 2.0])).item() == pytest.approx(3.0, rel=0.05)
    assert f.symmetry() == ()


def test_an_estimate_is_a_fixed_map_in_evaluation_and_a_new_one_in_training():
    f = symmetrize(lambda x: x[0], PointPermutation(), samples=2)
    x = torch.rand(100)
    assert f.eval()(x) == f(x)
    torch.manual_seed(0)
    first, second = f.train()(x), f(x)
    assert first != second
    torch.manual_seed(0)
    assert f(x) == first


def test_gradients_reach_the_module_inside():
    f = GroupAverage(nn.Linear(4, 4), CyclicShift((0,)), CyclicShift((0,)))
    f(torch.rand(4)).sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in f.parameters())
    assert set(dict(copy.deepcopy(f).named_parameters())) == {"f.weight", "f.bias"}
    assert "samples=all" in repr(f)


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="no finite list"):
        symmetrize(torch.sum, Rotation3())(torch.rand(3))
    with pytest.raises(ValueError, match="draw some of them with samples="):
        symmetrize(torch.sum, PointPermutation())(torch.rand(12))
    with pytest.raises(ValueError, match="not both"):
        symmetrize(torch.sum, DihedralImage(), samples=2, elements=[(0, 0)])
    with pytest.raises(ValueError, match="at least one"):
        symmetrize(torch.sum, DihedralImage(), samples=0)
