import math

import pytest
import torch

from coset.motion.geometry import Similarity, rotation_from_vector
from coset.motion.metrics import (
    camera_errors,
    depth_errors,
    mean_rotation,
    motion_auroc,
    reprojection_error,
    scene_metrics,
)


def test_depth_errors_by_hand():
    true = torch.tensor([[1.0], [2.0], [4.0]])
    counted = torch.ones(3, 1, dtype=torch.bool)
    assert depth_errors(3 * true, true, counted) == {"abs_rel": 0, "delta1": 1, "delta2": 1, "delta3": 1}
    found = depth_errors(torch.tensor([[1.0], [2.0], [6.0]]), true, counted)
    assert found["abs_rel"] == pytest.approx(0.5 / 3)
    assert (found["delta1"], found["delta2"]) == (pytest.approx(2 / 3), 1.0)
    assert math.isnan(depth_errors(true, true, ~counted)["abs_rel"])


def test_a_similarity_of_the_world_changes_no_metric(scene, truth):
    prediction = truth(scene)
    turn = rotation_from_vector(torch.tensor([0.4, 2.0, -0.3]).double())
    world = Similarity(torch.tensor(3.0).double(), turn, torch.tensor([5.0, -1, 2]).double())
    rotations, positions = world.cameras(prediction.rotations, prediction.positions)
    moved = prediction._replace(rotations=rotations, positions=positions, basis=world.points(prediction.basis))
    before, after = scene_metrics(prediction, scene), scene_metrics(moved, scene)
    assert before == {name: pytest.approx(value, abs=1e-6, nan_ok=True) for name, value in after.items()}


def test_the_truth_has_no_error(clean_scene, truth):
    found = scene_metrics(truth(clean_scene), clean_scene)
    assert found["rotation"] < 1e-5
    assert found["ate"] < 1e-9
    assert found["static_points"] < 1e-6
    assert found["reprojection_px"] < 30


def test_a_known_turn_of_one_camera(scene):
    true = torch.from_numpy(scene.rotations)
    turn = rotation_from_vector(torch.tensor([0.0, 0, math.radians(10)]).double())
    wrong = true.clone()
    wrong[0] = wrong[0] @ turn
    found = camera_errors(wrong, torch.from_numpy(scene.positions), true, torch.from_numpy(scene.positions))
    assert found["rotation"] == pytest.approx(10 / len(true), rel=0.9)
    assert found["rpe_rotation"] == pytest.approx(10 / (len(true) - 1), rel=1e-6)
    assert found["ate"] < 1e-9


def test_the_mean_of_a_rotation_is_itself():
    turn = rotation_from_vector(torch.tensor([0.3, 0.2, 0.1]).double())
    assert torch.allclose(mean_rotation(turn.expand(4, 3, 3)), turn)


def test_auroc_by_hand():
    moving = torch.tensor([True, True, False, False])
    assert motion_auroc(torch.tensor([50.0, 40.0, 30.0, 20.0]), moving) == 1
    assert motion_auroc(torch.tensor([1e-5, 40.0, 30.0, 2e-5]), moving) == 0.5
    assert math.isnan(motion_auroc(torch.ones(2), moving[:2]))


def test_reprojection_error_is_in_pixels(clean_scene, truth):
    still = torch.from_numpy(~clean_scene.moving)
    prediction = truth(clean_scene)
    prediction = prediction._replace(basis=prediction.basis[still], gamma=prediction.gamma[still])
    tracks = clean_scene.tracks.tensor().double()[still]
    focal = clean_scene.tracks.intrinsics.focal
    assert float(reprojection_error(prediction, tracks, focal).median()) < 1e-3
    tracks[..., 0] += 2 / focal * (tracks[..., 2] > 0.5)
    assert float(reprojection_error(prediction, tracks, focal).median()) == pytest.approx(2, rel=1e-3)
