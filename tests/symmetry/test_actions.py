"""Actions in general: the axioms of a group action hold for every one of them."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from coset.symmetry import (
    Action,
    AxisPermutation,
    Compose,
    CyclicImage,
    CyclicShift,
    DihedralImage,
    FramePermutation,
    GeneralLinear,
    NodePermutation,
    OrthogonalBasis,
    Parts,
    PointPermutation,
    Reversal,
    Rotation3,
    SignFlip,
    TrivialAction,
)
from coset.symmetry.values import tensors


def normal(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def graph(nodes, roots=None):
    kept = nodes if roots is None else len(roots)
    data = Data(
        x=normal(nodes, 2),
        edge_index=torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)]),
        edge_attr=normal(nodes - 1, 3),
        pair_distance=torch.arange(kept * nodes),
        laplacian_eigenvectors=normal(nodes, 3),
        laplacian_eigenvalues=torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64),
        y=torch.full((1, 1), torch.nan),
    )
    if roots is not None:
        data.root_index, data.num_roots = torch.tensor(roots), kept
    return data


ACTIONS: list[tuple[Action, object]] = [
    (TrivialAction(), normal(3)),
    (AxisPermutation((0, 1)), normal(4, 4, 2)),
    (AxisPermutation((0, -1), joint=False), normal(3, 2, 4)),
    (Compose(PointPermutation(), FramePermutation()), normal(3, 4, 2)),
    (CyclicShift(), normal(2, 3, 4)),
    (Reversal((0, 2)), normal(2, 3, 4)),
    (DihedralImage(), normal(2, 3, 3)),
    (CyclicImage(), normal(3, 3)),
    (SignFlip(), normal(4, 3)),
    (SignFlip(), Batch.from_data_list([graph(3), graph(2)])),
    (OrthogonalBasis(torch.tensor([0.0, 1.0, 1.0])), normal(4, 3)),
    (OrthogonalBasis(), Batch.from_data_list([graph(3), graph(2)])),
    (GeneralLinear(), (normal(5, 3), normal(4, 3))),
    (GeneralLinear(), (normal(2, 5, 3), normal(2, 4, 3))),
    (Rotation3(), normal(4, 3)),
    (Rotation3(reflections=True), normal(4, 3)),
    (Compose(Rotation3(), PointPermutation()), normal(4, 3)),
    (Parts((PointPermutation(), PointPermutation(1))), (normal(4, 2), normal(2, 4))),
    (NodePermutation(), graph(4)),
    (NodePermutation(), Batch.from_data_list([graph(3), graph(1), graph(4)])),
    (NodePermutation(), Batch.from_data_list([graph(4, [0, 2, 3]), graph(1, [0]), graph(3, [1])])),
]
SMALL = [(action, value) for action, value in ACTIONS if action.order(value) is not None]


def label(case):
    return str(case) if isinstance(case, Action) else ""


def assert_equal(left, right):
    for (name, a), (_, b) in zip(tensors(left), tensors(right), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("action", "value"), ACTIONS, ids=label)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_acting_twice_is_acting_with_the_product(action, value, seed):
    generator = torch.Generator().manual_seed(seed)
    h = action.sample(value, generator)
    once = action.apply(h, value)
    g = action.sample(once, generator)
    assert_equal(action.apply(action.compose(g, h), value), action.apply(g, once))


@pytest.mark.parametrize(("action", "value"), ACTIONS, ids=label)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_inverse_undoes(action, value, seed):
    g = action.sample(value, torch.Generator().manual_seed(seed))
    moved = action.apply(g, value)
    assert_equal(action.undo(g, moved), value)
    assert_equal(action.apply(action.inverse(g), moved), value)
    assert_equal(action.apply(action.compose(action.inverse(g), g), value), value)


@pytest.mark.parametrize(("action", "value"), ACTIONS, ids=label)
def test_acting_leaves_the_value_alone_and_repeats_with_the_seed(action, value):
    before = [tensor.clone() for _, tensor in tensors(value)]
    first, second = (action.apply(action.sample(value, torch.Generator().manual_seed(7)), value) for _ in range(2))
    assert_equal(first, second)
    assert_equal([tensor for _, tensor in tensors(value)], before)


@pytest.mark.parametrize(("action", "value"), SMALL, ids=label)
def test_a_finite_group_lists_its_elements_once_and_is_closed(action, value):
    if action.order(value) > 200:
        pytest.skip("too many to compare with one another")

    def images(elements):
        return {tuple(str(t.tolist()) for _, t in tensors(action.apply(g, value))) for g in elements}

    elements = list(action.elements(value))
    assert len(elements) == action.order(value)
    orbit = images(elements)
    assert len(orbit) == len(elements)  # no two elements act alike on a value without symmetry
    assert images(itertools.starmap(action.compose, itertools.product(elements[:6], elements))) == orbit


@pytest.mark.parametrize("action", [Rotation3(), GeneralLinear(), Compose(PointPermutation(), Rotation3())], ids=label)
def test_an_infinite_group_has_no_list(action):
    assert action.order(normal(3, 3)) is None
    with pytest.raises(ValueError, match="no finite list"):
        list(action.elements(normal(3, 3)))


def test_compose_undoes_actions_that_do_not_commute():
    action, image = Compose(CyclicShift(), DihedralImage()), torch.arange(9).reshape(3, 3)
    for element in action.elements(image):
        assert torch.equal(action.undo(element, action.apply(element, image)), image)


def test_compose_draws_each_element_for_what_it_acts_on():
    action, image = Compose(AxisPermutation((0,)), Reversal((1,)), name="both"), torch.arange(6).reshape(2, 3)
    moved = action.apply((((torch.tensor([1, 0])),), (True,)), image)
    assert moved.tolist() == [[5, 4, 3], [2, 1, 0]]
    assert action.name == "both"
    with pytest.raises(ValueError, match="at least one"):
        Compose()


def test_parts_move_each_in_its_own_way():
    action = Parts({"points": PointPermutation(), "cameras": TrivialAction()})
    value = {"points": torch.tensor([10, 20, 30]), "cameras": torch.tensor([1, 2])}
    moved = action.apply((torch.tensor([2, 0, 1]),), value)
    assert moved["points"].tolist() == [20, 30, 10]
    assert moved["cameras"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"parts \['points'\]"):
        action.apply((torch.tensor([2, 0, 1]),), {"points": torch.zeros(3)})


def test_actions_name_themselves():
    assert repr(DihedralImage()) == "DihedralImage(D_4 on images)"
    assert Compose(PointPermutation(), Rotation3()).name == "S_P on points x SO(3) on points"
