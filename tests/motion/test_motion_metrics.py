import math
from dataclasses import replace

import pytest
import torch

from coset.motion.data.truth import Truth
from coset.motion.geometry import Similarity, rotation_from_vector
from coset.motion.metrics import (
    camera_errors,
    depth_errors,
    mean_rotation,
    motion_auroc,
    motion_errors,
    reprojection_error,
    scene_metrics,
    truth_metrics,
)


def test_depth_errors_by_hand():
    true = torch.tensor([[1.0], [2.0], [4.0]])
    counted = torch.ones(3, 1, dtype=torch.bool)
    assert depth_errors(3 * true, true, counted) == {"abs_rel": 0, "delta1": 1, "delta2": 1, "delta3": 1}
    found = depth_errors(torch.tensor([[1.0], [2.0], [6.0]]), true, counted)
    assert found["abs_rel"] == pytest.approx(0.5 / 3)
    assert (found["delta1"], found["delta2"]) == (pytest.approx(2 / 3), 1.0)
    assert math.isnan(depth_errors(true, true, ~counted)["abs_rel"])


def test_a_body_at_a_wrong_depth_is_an_error_by_the_scale_of_the_whole_frame():
    """Five points at depths 1, 2, 3 that stand and 4, 6 that move; the body is put at half of its depth.

    Medians: 3 true, 2 found, so all is scaled by 3/2: still 1.5, 3, 4.5 of 1, 2, 3 and moving 3, 4.5 of 4, 6.
    """
    true = torch.tensor([[1.0], [2.0], [3.0], [4.0], [6.0]])
    found = torch.tensor([[1.0], [2.0], [3.0], [2.0], [3.0]])
    moving = torch.tensor([False, False, False, True, True])
    errors = depth_errors(found, true, torch.ones(5, 1, dtype=torch.bool), moving)
    assert errors["abs_rel"] == pytest.approx((0.5 + 0.5 + 0.5 + 0.25 + 0.25) / 5)
    assert errors["dynamic_abs_rel"] == pytest.approx(0.25)
    assert (errors["delta1"], errors["dynamic_delta1"], errors["dynamic_delta2"]) == (0, 0, 1)


def test_depth_errors_are_means_over_frames_and_unknown_depths_do_not_count():
    true = torch.tensor([[1.0, 2.0], [1.0, 0.0], [1.0, 2.0], [1.0, 2.0]])
    found = torch.tensor([[1.0, 2.0], [1.0, 9.0], [3.0, 2.0], [1.0, 2.0]])
    seen = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    moving = torch.tensor([True, False, False, False])
    errors = depth_errors(found, true, seen, moving)  # frame 0: 0, 0, 2, 0; frame 1: 0, 0 of two points
    assert errors["abs_rel"] == pytest.approx((2 / 4 + 0) / 2)
    assert errors["dynamic_abs_rel"] == 0
    gone = depth_errors(found, true, seen & ~moving[:, None], moving)
    assert math.isnan(gone["dynamic_abs_rel"])
    assert not math.isnan(gone["abs_rel"])


def test_depths_behind_the_camera_are_within_no_share():
    true = torch.tensor([[1.0], [2.0], [4.0]])
    errors = depth_errors(-true, true, torch.ones(3, 1, dtype=torch.bool))
    assert errors == {"abs_rel": 2, "delta1": 0, "delta2": 0, "delta3": 0}


def test_motion_errors_by_hand():
    """A mover that truly goes -1, 1 along x is found to go -1, 1 along (x, y); a still point goes 3 to each side."""
    true = torch.tensor([[[-1.0, 0, 0], [1.0, 0, 0]], [[5.0, 0, 0], [5.0, 0, 0]]])
    found = torch.tensor([[[6.0, -1, 0], [8.0, 1, 0]], [[5.0, 0, -3], [5.0, 0, 3]]])
    seen, moving = torch.ones(2, 2, dtype=torch.bool), torch.tensor([True, False])
    errors = motion_errors(found, true, seen, moving)
    assert errors["phantom_motion"] == 3
    assert errors["motion_cosine"] == pytest.approx(math.sqrt(0.5))
    assert errors["motion_size"] == pytest.approx(math.sqrt(2))
    still = motion_errors(found[:, :1].expand(2, 2, 3), true, seen, moving)
    assert still == {"phantom_motion": 0, "motion_cosine": 0, "motion_size": 0}
    assert math.isnan(motion_errors(found, true, seen, ~moving & moving)["motion_cosine"])


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
    assert found["rpe_rotation"] == pytest.approx(10 / math.sqrt(len(true) - 1), rel=1e-6)
    assert found["ate"] < 1e-9


def test_steps_are_compared_in_the_axes_of_their_own_camera():
    """Positions on a square, exact; the last camera but one is turned by 90 degrees, so its step of length 2 is off by
    2 sqrt(2), and so are the two turns it takes part in. Three steps: root mean squares sqrt(8 / 3) and 90 sqrt(2/3).
    """
    corners = torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [2.0, 2, 0], [0.0, 2, 0]]).double()
    true = torch.eye(3).double().repeat(4, 1, 1)
    wrong = true.clone()
    wrong[2] = rotation_from_vector(torch.tensor([0.0, 0, math.pi / 2]).double())
    found = camera_errors(wrong, corners, true, corners)
    assert found["rpe_translation"] == pytest.approx(math.sqrt(8 / 3))
    assert found["rpe_rotation"] == pytest.approx(90 * math.sqrt(2 / 3))
    assert found["ate"] < 1e-9


def test_positions_are_errors_in_the_units_of_the_truth_and_the_path_is_free_of_them():
    line = torch.tensor([[0.0, 0, 0], [4.0, 0, 0], [8.0, 0, 0]]).double()
    bent = torch.tensor([[0.0, 0, 0], [4.0, 3, 0], [8.0, 0, 0]]).double()
    eye = torch.eye(3).double().repeat(3, 1, 1)
    near, far = camera_errors(eye, bent, eye, line), camera_errors(eye, 7 * bent, eye, 10 * line)
    # The best similarity of the bent path: scale 32/38, so that off the line stay 1, 2, 1 and along it 4 - 4 (32/38).
    scale = 32 / 38
    wanted = math.sqrt((2 * ((4 - 4 * scale) ** 2 + scale**2) + (2 * scale) ** 2) / 3)
    assert near["ate"] == pytest.approx(wanted)
    assert far["ate"] == pytest.approx(10 * wanted)
    assert near["camera_path"] == pytest.approx(far["camera_path"]) == pytest.approx(wanted / math.sqrt(32 / 3))


def test_a_path_is_not_measured_against_a_camera_that_stays():
    """Any path shrinks onto one place: an error of 0 would say that it was right."""
    eye = torch.eye(3).double().repeat(3, 1, 1)
    path = torch.tensor([[0.0, 0, 0], [4.0, 3, 0], [8.0, 0, 0]]).double()
    found = camera_errors(eye, path, eye, torch.full((3, 3), 2.0).double())
    assert found["rotation"] == pytest.approx(0, abs=1e-6)
    assert all(math.isnan(found[name]) for name in ("ate", "rpe_translation", "camera_path"))


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


def test_a_test_set_is_measured_as_a_scene_is(scene, network):
    """Depths, cameras and moving points beside the tracks, or some of them."""
    with torch.no_grad():
        prediction = network(scene.tracks.tensor())
    known = Truth(scene.depth(), scene.rotations, scene.positions, scene.moving)
    found = truth_metrics(prediction, replace(scene.tracks, truth=known))
    expected = scene_metrics(prediction, scene)
    assert found == {name: pytest.approx(expected[name]) for name in found}
    assert {"ate", "rpe_translation", "abs_rel", "dynamic_abs_rel"} <= found.keys()
    cameras = truth_metrics(prediction, replace(scene.tracks, truth=replace(known, depth=None)))
    depths = truth_metrics(prediction, replace(scene.tracks, truth=Truth(scene.depth())))
    assert set(cameras) == {"rotation", "rpe_rotation", "rpe_translation", "ate", "camera_path"}
    assert set(depths) == {"abs_rel", "delta1", "delta2", "delta3"}
    assert truth_metrics(prediction, scene.tracks) == {}
