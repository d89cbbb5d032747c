"""Orbits, stabilisers and distances between orbits: the hand-computed cases of the specification."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.core.errors import CosetError
from coset.privacy import FiniteGroup, group_of
from coset.symmetry import CyclicShift, Rotation3

D4, FLIP = group_of("d4", (2, 2)), group_of("flips", (2, 2))
NAMES = ("plain", "flips", "c4", "d4", "shifts")


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("image", "orbit", "centre", "index"),
    [
        ((0, 1, 2, 3), 8, 1.5, 9 / 14),
        ((1, 0, 0, 0), 4, 0.25, 0.25),
        ((1, 0, 0, 1), 2, 0.5, 0.5),
        ((1, 1, 1, 1), 1, 1, 1),
    ],
)
def test_images_of_two_by_two(image, orbit, centre, index):
    x = tensor(*image)
    every = D4.orbit(x)
    distinct = every.unique(dim=0)
    assert len(distinct) == orbit
    assert int((every == x).all(1).sum()) * orbit == len(D4) == 8
    torch.testing.assert_close(D4.centre(x), torch.full((4,), centre, dtype=torch.float64))
    assert float(D4.symmetry_index(x)) == pytest.approx(index)


def test_distances_between_orbits():
    a, b = tensor(1, 0, 0, 0)[None], tensor(0, 0, 0, 1)[None]
    assert float(D4.distance(a, b)) == 0
    mirror = FiniteGroup(torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), "left-right")
    assert float(mirror.distance(a, b)) == pytest.approx(2**0.5)
    shifts = group_of(CyclicShift((-1,)), (4,))
    assert float(shifts.distance(a, tensor(0, 0, 1, 0)[None])) == 0
    assert float(shifts.distance(a, tensor(0, 0, 2, 0)[None])) == 1
    assert float(shifts.symmetry_index(a)) == 0.25
    rows = group_of("sets", (3, 1))
    assert len(rows) == 6
    assert float(rows.distance(tensor(0, 1, 2)[None], tensor(2, 0, 1)[None])) == 0
    assert float(rows.distance(tensor(0, 1, 2)[None], tensor(2, 0, 2)[None])) == 1
    torch.testing.assert_close(rows.centre(tensor(0, 1, 2)), tensor(1, 1, 1))
    assert float(rows.symmetry_index(tensor(0, 1, 2))) == pytest.approx(3 / 5)


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_groups(name):
    group = group_of(name, (3, 3))
    x = torch.randn(9, dtype=torch.float64)
    for g, h in itertools.product(range(len(group)), repeat=2):
        torch.testing.assert_close(group.apply(group.compose(g, h), x), group.apply(g, group.apply(h, x)))
    for g in range(len(group)):
        torch.testing.assert_close(group.undo(g, group.apply(g, x)), x)
    projector = group.projector()
    torch.testing.assert_close(projector @ projector, projector)
    torch.testing.assert_close(x @ projector, group.centre(x))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 10**6), st.data())
def test_distances_do_not_see_the_group(name, seed, draw):
    group = group_of(name, (3, 3))
    x, y, z = torch.randn(3, 1, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    g, h = (draw.draw(st.integers(0, len(group) - 1)) for _ in range(2))
    distance = float(group.distance(x, y))
    assert float(group.distance(group.apply(g, x), group.apply(h, y))) == pytest.approx(distance, abs=1e-9)
    assert float(group.distance(y, x)) == pytest.approx(distance, abs=1e-9)
    assert distance <= float(torch.cdist(x, y)) + 1e-9
    assert distance >= float(torch.cdist(group.centre(x), group.centre(y))) - 1e-9
    assert distance <= float(group.distance(x, z)) + float(group.distance(z, y)) + 1e-9
    assert float(group.correlation(group.apply(g, x), x)[0]) == pytest.approx(1)
    assert 0 <= float(group.symmetry_index(x)) <= 1


def test_constant_inputs_correlate_with_nothing():
    constant, other = torch.full((1, 4), 0.1, dtype=torch.float64), tensor(0, 1, 2, 3)[None]
    assert float(D4.correlation(constant, other)[0]) == 0
    assert float(FLIP.self_similarity(constant)) == 0


def test_errors_say_what_would_be_right():
    with pytest.raises(CosetError, match="group 'd5': choose plain, flips, c4, d4"):
        group_of("d5", (8, 8))
    with pytest.raises(CosetError, match="more than 1000 elements"):
        group_of("sets", (8, 2))
    with pytest.raises(CosetError, match="inputs of shape"):
        group_of("d4", (3, 4))
    with pytest.raises(CosetError, match="more than 1000 elements"):
        group_of(Rotation3(), (3,))
    with pytest.raises(CosetError, match="must be a permutation of 0 to 1"):
        FiniteGroup(torch.tensor([[0, 0]]), "wrong")
