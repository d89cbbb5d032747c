import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coset.motion.geometry import (
    align,
    align_robustly,
    project,
    rotation_angle,
    rotation_from_6d,
    rotation_from_vector,
    to_camera,
)


def test_gram_schmidt_of_unit_axes_is_the_identity():
    assert torch.equal(rotation_from_6d(torch.tensor([1.0, 0, 0, 0, 1, 0])), torch.eye(3))


def test_rows_are_v1_v2_and_their_cross_product():
    rotation = rotation_from_6d(torch.tensor([0.0, 2, 0, 3, 5, 0], dtype=torch.float64))
    expected = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]], dtype=torch.float64)
    assert torch.allclose(rotation, expected)


@given(st.integers(0, 10_000))
def test_gram_schmidt_is_orthonormal(seed):
    numbers = torch.randn(20, 6, generator=torch.Generator().manual_seed(seed))
    rotation = rotation_from_6d(numbers)
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(20, 3, 3), atol=1e-6)
    assert torch.allclose(torch.det(rotation), torch.ones(20), atol=1e-5)


@pytest.mark.parametrize("second", [[1.0, 0, 0], [2.0, 1e-9, 0], [-1.0, 0, 1e-30], [0.0, 0, 0]])
def test_parallel_vectors_give_a_rotation_and_finite_gradients(second):
    numbers = torch.tensor([1.0, 0, 0, *second], requires_grad=True)
    rotation = rotation_from_6d(numbers)
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-6)
    rotation.sum().backward()
    assert numbers.grad.isfinite().all()


def test_gram_schmidt_gradient():
    numbers = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(rotation_from_6d, numbers)


def test_projection_by_hand():
    eye, origin = torch.eye(3), torch.zeros(3)
    assert torch.equal(project(to_camera(torch.tensor([0.0, 0, 5]), eye, origin)), torch.zeros(2))
    assert torch.equal(project(to_camera(torch.tensor([1.0, 2, 4]), eye, origin)), torch.tensor([0.25, 0.5]))


def test_a_camera_that_looks_left_from_aside():
    # At (2, 0, 0), looking along -x: its z axis is -x of the world, its x axis z.
    rotation = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    inside = to_camera(torch.tensor([0.0, 1, 1]), rotation, torch.tensor([2.0, 0, 0]))
    assert torch.equal(inside, torch.tensor([1.0, 1, 2]))


def test_what_lies_behind_is_projected_from_the_least_depth():
    assert torch.equal(project(torch.tensor([0.01, 0.0, -3.0])), torch.tensor([1.0, 0.0]))


def test_angle_of_a_known_turn():
    turn = rotation_from_vector(torch.tensor([0.0, 0, math.radians(30)], dtype=torch.float64))
    assert float(rotation_angle(turn, torch.eye(3).double())) == pytest.approx(30, abs=1e-9)
    half = rotation_from_vector(torch.tensor([math.pi, 0, 0], dtype=torch.float64))
    assert float(rotation_angle(half, torch.eye(3).double())) == pytest.approx(180, abs=1e-5)


@given(st.integers(0, 10_000))
def test_alignment_finds_a_similarity_again(seed):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    turn = rotation_from_vector(torch.randn(3, generator=generator, dtype=torch.float64))
    shift = torch.randn(3, generator=generator, dtype=torch.float64)
    found = align(source, 2.5 * source @ turn.T + shift)
    assert float(found.scale) == pytest.approx(2.5)
    assert torch.allclose(found.rotation, turn, atol=1e-9)
    assert torch.allclose(found.shift, shift, atol=1e-9)


def test_alignment_never_mirrors():
    source = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = align(source, source * torch.tensor([-1.0, 1, 1], dtype=torch.float64))
    assert float(torch.det(found.rotation)) == pytest.approx(1)


def test_robust_alignment_lets_go_of_points_far_off():
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    target = 3 * source + 1
    target[:10] += 20 * torch.randn(10, 3, generator=generator, dtype=torch.float64)
    found = align_robustly(source, target)
    assert float(found.scale) == pytest.approx(3, rel=1e-3)
    with pytest.raises(ValueError, match="2 points"):
        align(source[:2], target[:2])
