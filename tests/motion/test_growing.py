import pytest
import torch

from coset.motion.bundle_adjustment import PINHOLE, BundleOptions, Unknowns, adjust_among_still
from coset.motion.data.scenes import SceneOptions, make_scene
from coset.motion.geometry import align, project, to_camera
from coset.motion.growing import Window, grown, mirrored, settled
from coset.motion.metrics import camera_errors
from coset.motion.models.trackster4d import Prediction
from coset.motion.reconstruct import window_runs

OPTIONS = SceneOptions(points=60, frames=48, noise=0.2, outliers=0.0)


@pytest.fixture(scope="module")
def scene():
    return make_scene("boxes", OPTIONS, seed=3)


def truth_of(scene, run=slice(None), rows=slice(None)):
    """The true cameras of some frames, and the true cloud as it stands in the middle of them."""
    rotations, positions = (torch.as_tensor(v).double()[run] for v in (scene.rotations, scene.positions))
    points = torch.as_tensor(scene.points).double()[rows][:, run]
    frames = len(rotations)
    ones = torch.ones(frames, dtype=torch.double)
    gamma = torch.full((len(points),), 1e-3, dtype=torch.double)
    return Prediction(rotations, positions, ones[:, None], ones, points[:, frames // 2][:, None], gamma)


def turned_by(prediction, scene, run=slice(None)):
    truth = truth_of(scene, run)
    return camera_errors(prediction.rotations, prediction.positions, truth.rotations, truth.positions)["rotation"]


def test_the_mirror_image_looks_alike_from_far_away_and_its_mirror_image_is_the_scene(scene):
    truth = truth_of(scene)
    centre = truth.static.median(0).values
    far = truth.positions - 1e4 * truth.rotations[..., 2]
    far = truth._replace(positions=far, basis=(centre + 0.1 * (truth.static - centre))[:, None])
    other = mirrored(far)
    assert turned_by(other, scene) > 1
    assert torch.linalg.det(other.rotations).allclose(torch.ones(OPTIONS.frames, dtype=torch.double))
    seen, again = (project(to_camera(p.static[:, None], p.rotations, p.positions)) for p in (far, other))
    spread = (seen - seen.mean(0)).abs().median()
    assert (seen - again).abs().max() < 0.01 * spread
    back = mirrored(other)
    torch.testing.assert_close(back.rotations, far.rotations)
    torch.testing.assert_close(back.static - back.static[0], far.static - far.static[0])


def test_windows_that_are_mirror_images_grow_into_the_scene(scene):
    tracks, windows = scene.tracks.tensor().double(), []
    for run in window_runs(OPTIONS.frames, 24, 8):
        rows = ((tracks[:, run, 2] > 0.5).sum(1) >= 2).nonzero().squeeze(1)
        windows.append(Window(run, rows, mirrored(truth_of(scene, run, rows))))
    options = BundleOptions()
    run, rows, start = windows[0]
    assert turned_by(settled(start, tracks[rows][:, run], options), scene, run) < 0.5 < turned_by(start, scene, run)
    found = grown(windows, tracks, options)
    assert found.rotations.shape == (OPTIONS.frames, 3, 3)
    refined, *_ = adjust_among_still(found, PINHOLE, tracks, options, Unknowns())
    assert turned_by(refined, scene) < 0.2


def test_points_beyond_the_most_are_placed_in_the_end(scene, monkeypatch):
    tracks = scene.tracks.tensor().double()
    windows = []
    for run in window_runs(OPTIONS.frames, 24, 8):
        rows = ((tracks[:, run, 2] > 0.5).sum(1) >= 2).nonzero().squeeze(1)
        windows.append(Window(run, rows, truth_of(scene, run, rows)))
    monkeypatch.setattr("coset.motion.growing.MOST", 30)
    monkeypatch.setattr("coset.motion.growing.COVERED", 10)
    found = grown(windows, tracks, BundleOptions())
    assert turned_by(found, scene) < 0.5
    ours, true = (p.static[~torch.from_numpy(scene.moving)] for p in (found, truth_of(scene)))
    placed = align(ours, true).points(ours)
    assert ((placed - true).norm(dim=-1).median() / true.std(0).norm()) < 0.05
