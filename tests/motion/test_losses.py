import math

import pytest
import torch

from coset.motion.geometry import rotation_from_vector
from coset.motion.losses import (
    LossWeights,
    losses,
    motion_loss,
    negative_depth_loss,
    reprojection_loss,
    sparse_loss,
    static_loss,
    total_loss,
    warm_up_loss,
)
from coset.motion.models.trackster4d import Prediction


def scene(points=7, frames=5, basis=3, seed=0, grad=False):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    c = torch.cat((torch.ones(frames, 1).double(), draw(frames, basis - 1)), 1)
    rotations = rotation_from_vector(0.1 * draw(frames, 3))
    positions = 0.2 * draw(frames, 3) + torch.tensor([0, 0, -9.0]).double()
    parts = (rotations, positions, c, torch.ones(frames).double(), draw(points, basis, 3), draw(points).exp())
    tracks = torch.cat((draw(points, frames, 2), (draw(points, frames, 1) > -0.5).double()), -1)
    return Prediction(*(p.requires_grad_() if grad else p for p in parts)), tracks


def test_static_loss_by_hand():
    gamma = torch.tensor([0.5, 2.0])
    assert float(static_loss(torch.zeros(2), gamma)) == pytest.approx((math.log(0.5) + math.log(2.0)) / 2)
    assert float(static_loss(torch.tensor([4.0]), torch.tensor([2.0]))) == pytest.approx(math.log(4.0))


def test_static_loss_is_least_where_gamma_is_the_distance():
    gamma = torch.linspace(0.05, 1.5, 2000, dtype=torch.float64)
    values = torch.stack([static_loss(torch.tensor([0.3**2]).double(), g[None]) for g in gamma])
    assert float(gamma[values.argmin()]) == pytest.approx(0.3, abs=1e-3)


def test_negative_depth_by_hand():
    assert float(negative_depth_loss(torch.tensor([-2.0, 3.0, -1.0]))) == 3


def test_reprojection_by_hand():
    assert float(reprojection_loss(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))) == 3
    eye = torch.eye(3)[None]
    still = Prediction(
        eye, torch.zeros(1, 3), torch.ones(1, 1), torch.ones(1), torch.tensor([[[0.0, 0, 5]]]), torch.ones(1)
    )
    assert float(losses(still, torch.tensor([[[3.0, 4.0, 1.0]]]))["reprojection"]) == 5


@pytest.mark.parametrize("term", ["reprojection", "negative"])
def test_terms_of_the_moving_points_teach_only_the_moving_part(term):
    """The rest of the basis, the coefficients, and a predicted focal length, as in the published code."""
    prediction, tracks = scene(grad=True)
    if term == "negative":
        with torch.no_grad():
            prediction.positions[:, 2] = 0.0  # half of the points lie behind the cameras
    losses(prediction, tracks)[term].backward()
    assert prediction.rotations.grad is None
    assert prediction.positions.grad is None
    assert torch.equal(prediction.basis.grad[:, 0], torch.zeros_like(prediction.basis.grad[:, 0]))
    assert prediction.basis.grad[:, 1:].abs().sum() > 0
    assert prediction.coefficients.grad.abs().sum() > 0
    assert (prediction.focal.grad is not None) == (term == "reprojection")


def test_negative_depths_are_those_of_the_moving_points():
    """A cloud at depth 1 that a coefficient of 3 moves to depth -2 in the second of two frames."""
    eye, clouds = torch.eye(3).expand(2, 3, 3), torch.tensor([[[0.0, 0, 1], [0.0, 0, -1]]])
    coefficients = torch.tensor([[1.0, 0.0], [1.0, 3.0]])
    moving = Prediction(eye, torch.zeros(2, 3), coefficients, torch.ones(2), clouds, torch.ones(1))
    tracks = torch.tensor([[[0.0, 0, 1], [0.0, 0, 1]]])
    assert float(losses(moving, tracks)["negative"]) == 2
    tracks[0, 1, 2] = 0
    assert float(losses(moving, tracks)["negative"]) == 0


def test_sparse_loss_does_not_raise_gamma():
    prediction, _ = scene(grad=True)
    sparse_loss(prediction).backward()
    assert prediction.gamma.grad is None
    expected = (prediction.basis[:, 1:] / prediction.gamma[:, None, None]).abs().mean()
    assert float(sparse_loss(prediction).detach()) == pytest.approx(float(expected.detach()))


def test_what_is_not_seen_changes_no_loss():
    prediction, tracks = scene()
    other = tracks.clone()
    other[..., :2][tracks[..., 2] < 0.5] = 1e6
    assert losses(prediction, tracks) == losses(prediction, other)


def test_a_similarity_of_the_world_changes_no_picture():
    prediction, tracks = scene()
    turn = rotation_from_vector(torch.tensor([0.3, -1.0, 0.2]).double())
    shift = torch.tensor([1.0, 2, 3]).double()
    clouds = 2 * prediction.basis @ turn.T
    clouds[:, 0] += shift
    moved = prediction._replace(
        rotations=turn @ prediction.rotations, positions=2 * prediction.positions @ turn.T + shift, basis=clouds
    )
    before, after = losses(prediction, tracks), losses(moved, tracks)
    for name in ("reprojection", "static"):
        assert float(before[name]) == pytest.approx(float(after[name]), rel=1e-10)


def test_gradients_of_the_static_term():
    prediction, tracks = scene(points=3, frames=2)

    def cost(rotations, positions, clouds, gamma):
        changed = prediction._replace(rotations=rotations, positions=positions, basis=clouds, gamma=gamma)
        return losses(changed, tracks)["static"]

    leaves = (prediction.rotations, prediction.positions, prediction.basis, prediction.gamma)
    assert torch.autograd.gradcheck(cost, [leaf.clone().requires_grad_() for leaf in leaves])


def test_the_sum_and_its_clamp():
    terms = {name: torch.tensor(v) for name, v in (("reprojection", 3.0), ("static", 2.0), ("negative", 1.0))}
    assert float(total_loss(terms, LossWeights())) == 153
    assert float(total_loss(terms, LossWeights(), largest=100.0)) == 100


def test_the_warm_up_is_done_at_its_goal():
    prediction, _ = scene()
    there = prediction._replace(
        rotations=torch.eye(3).expand(5, 3, 3), positions=torch.tensor([0, 0, -15.0]).expand(5, 3)
    )
    assert float(warm_up_loss(there)) == 0
    assert float(warm_up_loss(prediction)) > 0


def test_the_warm_up_adds_positions_up_over_frames():
    """Five cameras that are 3 too near: (0 + 0 + 9) / 3 a frame, in all 15, over 100; two such clips have the same."""
    prediction, _ = scene()
    near = torch.tensor([0, 0, -12.0]).double().expand(5, 3)
    apart = prediction._replace(rotations=torch.eye(3).double().expand(5, 3, 3), positions=near)
    assert float(warm_up_loss(apart)) == pytest.approx(0.15)
    both = Prediction(*(torch.stack([part, part]) for part in apart))
    assert float(warm_up_loss(both)) == pytest.approx(0.15)


def test_motion_loss_by_hand():
    """A point at depth 5 that moves by (3, 4, 0) in frame 1 and not in frame 0, gamma 2: (0 + 5 / (2 * 5)) / 2.

    In a third frame it is not seen and does not count; a point behind the camera counts at the least depth.
    """
    eye = torch.eye(3).expand(3, 3, 3)
    basis = torch.tensor([[[0.0, 0, 5], [3.0, 4, 0]]])
    c = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 9.0]])
    found = Prediction(eye, torch.zeros(3, 3), c, torch.ones(3), basis, torch.tensor([2.0]))
    tracks = torch.tensor([[[0.0, 0, 1], [0.6, 0.8, 1], [0.0, 0, 0]]])
    assert float(motion_loss(found, tracks)) == pytest.approx(0.25)
    behind = found._replace(basis=basis * torch.tensor([[[1.0], [1.0]]]) - torch.tensor([[[0.0, 0, 9], [0, 0, 0]]]))
    assert float(motion_loss(behind, tracks)) == pytest.approx(5 / (2 * 0.01) / 2)
    assert float(motion_loss(found._replace(basis=basis[:, :1], coefficients=c[:, :1]), tracks)) == 0


def test_motion_loss_teaches_only_the_motion():
    prediction, tracks = scene(grad=True)
    motion_loss(prediction, tracks).backward()
    for name in ("rotations", "positions", "gamma"):
        slope = getattr(prediction, name).grad
        assert slope is None or not slope.any(), name
    assert not prediction.basis.grad[:, 0].any()
    assert prediction.basis.grad[:, 1:].any()
    assert not prediction.coefficients.grad[:, 0].any()
    assert prediction.coefficients.grad[:, 1:].any()
