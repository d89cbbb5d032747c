import pytest
import torch

from coset.motion.baselines import (
    FreeReconstruction,
    frozen_truth,
    optimise_scene,
    rigid_factorisation,
    standing_still,
    trajectory_factorisation,
)
from coset.motion.geometry import project, rotation_from_vector, to_camera
from coset.motion.losses import LossWeights, losses, total_loss
from coset.motion.metrics import camera_errors, reprojection_error, scene_metrics


def distant(moving=0.0, points=60, frames=15, hidden=0.2, seed=0):
    """A cloud seen from very far by a camera that turns round it: nearly weak perspective, so that theory is exact."""
    g = torch.Generator().manual_seed(seed)
    cloud = torch.randn(points, 1, 3, generator=g).double()
    swing = (
        torch.sin(torch.linspace(0, 3, frames).double())[None, :, None]
        * torch.randn(points, 1, 3, generator=g).double()
    )
    cloud = cloud + moving * swing * (torch.arange(points) < points // 4)[:, None, None]
    angles = torch.stack(
        (0.3 * torch.sin(torch.linspace(0, 4, frames)), torch.linspace(0, 1, frames), torch.zeros(frames)), 1
    )
    rotations = rotation_from_vector(angles.double())
    positions = (rotations @ torch.tensor([0.0, 0, -200]).double().view(1, 3, 1)).squeeze(-1)
    xy = project(to_camera(cloud, rotations, positions))
    seen = (torch.rand(points, frames, 1, generator=g) >= hidden).double()
    return torch.cat((xy * seen, seen), -1), rotations, positions


def test_rigid_factorisation_is_exact_far_away_with_points_hidden():
    tracks, rotations, positions = distant()
    found = rigid_factorisation(tracks)
    errors = camera_errors(found.rotations, found.positions, rotations, positions)
    mirrored = camera_errors(found.rotations.mT, found.positions, rotations.mT, positions)
    # The mirror image fits as well from this far: either may be chosen.
    assert min(errors["rpe_rotation"], mirrored["rpe_rotation"]) < 0.5
    assert float(reprojection_error(found, tracks, 640.0).median()) < 0.05


def test_trajectories_explain_motion_that_a_rigid_cloud_cannot():
    tracks, _, _ = distant(moving=1.0)
    rigid, moving = rigid_factorisation(tracks), trajectory_factorisation(tracks, basis=5)
    error = [float(reprojection_error(found, tracks, 640.0).mean()) for found in (rigid, moving)]
    assert error[1] < 0.5 * error[0]
    assert moving.points().shape == (60, 15, 3)


def test_too_little_to_factorise():
    with pytest.raises(ValueError, match="needs 4 points and 3 frames"):
        rigid_factorisation(torch.rand(3, 5, 3))


def test_optimisation_makes_the_losses_smaller_and_keeps_the_best(scene):
    tracks = scene.tracks.tensor()
    start = total_loss(losses(FreeReconstruction(tracks)(), tracks), LossWeights())
    seen = []
    found = optimise_scene(tracks, 60, done=lambda step, best: bool(seen.append(step)))
    end = total_loss(losses(found, tracks), LossWeights())
    assert float(end.detach()) < float(start.detach()) - 0.5
    assert seen == list(range(60))
    assert optimise_scene(tracks, 60, done=lambda step, best: step == 2).basis.shape == (60, 12, 3)


def test_the_free_start_looks_at_its_points():
    tracks, _, _ = distant(hidden=0.0)
    start = FreeReconstruction(tracks.float())()
    where = project(to_camera(start.static[:, None], start.rotations, start.positions))
    mean = tracks[..., :2].mean(1).float()
    assert (where[:, 0] - mean).norm(dim=1).max() < 0.01


def test_the_frozen_truth_lacks_motion_alone(clean_scene):
    found = scene_metrics(frozen_truth(clean_scene), clean_scene)
    assert max(found["rotation"], found["ate"], found["static_points"], found["phantom_motion"]) < 1e-5
    assert found["moving_points"] > 1e-3
    assert (found["motion_cosine"], round(found["motion_size"], 9)) == (0, 0)
    assert found["auroc"] == 1


def test_what_stands_still_keeps_cameras_and_the_static_cloud(scene, network):
    with torch.no_grad():
        moving = network(scene.tracks.tensor())
    still = standing_still(moving)
    assert torch.equal(still.points(), moving.static[:, None].expand_as(still.points()))
    assert all(torch.equal(getattr(still, name), getattr(moving, name)) for name in ("rotations", "positions", "gamma"))
    assert scene_metrics(moving, scene)["phantom_motion"] > 1e-6 > scene_metrics(still, scene)["phantom_motion"]
