"""The focal length comes out of the tracks, is questioned where given wrongly, and left alone where nothing tells."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from coset.motion.bundle_adjustment import Lens
from coset.motion.calibration import calibrate, longest
from coset.motion.data import tracks as track_files
from coset.motion.data.scenes import SceneOptions, make_scene
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.metrics import scene_metrics
from coset.motion.reconstruct import Options, reconstruct


@pytest.fixture(scope="module")
def scene():
    return make_scene("boxes", SceneOptions(points=80, frames=16), 1)


def seen_through(scene, focal=1.0, radial=0.0, source="guess"):
    """The tracks with another focal length written on them, and seen through a lens that bends."""
    k = scene.tracks.intrinsics
    flat = torch.from_numpy((scene.tracks.xy - [k.cx, k.cy]) / k.focal)
    lens = Lens(torch.tensor(1.0).double(), torch.tensor(radial).double())
    xy = lens.picture(flat).numpy() * k.focal + [k.cx, k.cy]
    return replace(scene.tracks, xy=xy, intrinsics=replace(k, focal=k.focal * focal, source=source))


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_the_focal_length_is_found_from_a_guess_far_off(scene, network, factor):
    result = reconstruct(seen_through(scene, factor), network, Options())
    k, true = result.tracks.intrinsics, scene.tracks.intrinsics.focal
    assert k.focal == pytest.approx(true, rel=0.015)
    assert abs(k.focal / true - 1) < 4 * k.deviation < 0.05
    assert k.source == "estimated"
    errors = scene_metrics(result.prediction, replace(scene, tracks=result.tracks))
    assert errors["rotation"] < 0.2
    assert errors["static_points"] < 0.03
    assert any(f"focal length {k.focal:.0f} px is estimated" in note for note in result.notes)


def test_a_lens_that_bends_is_found(network):
    scene = make_scene("boxes", SceneOptions(points=150, frames=16), 1)
    found = calibrate(seen_through(scene, 1.3, radial=-0.15), lambda flat: [])
    k = found.tracks.intrinsics
    assert k.radial == pytest.approx(-0.15, abs=0.03)
    assert k.focal == pytest.approx(scene.tracks.intrinsics.focal, rel=0.02)


def test_a_wrong_focal_length_is_held_and_questioned(scene, network):
    given = seen_through(scene, 1.5, source="given")
    result = reconstruct(given, network, Options())
    assert result.tracks.intrinsics == given.intrinsics
    (note,) = (note for note in result.notes if "doubtful" in note)
    found = float(note.split("explained better by ")[1].split(" px")[0])
    assert found == pytest.approx(scene.tracks.intrinsics.focal, rel=0.03)
    right = reconstruct(seen_through(scene, source="given"), network, Options())
    assert not any("doubtful" in note for note in right.notes)


def test_a_camera_that_glides_without_turning_tells_no_focal_length():
    """Twice as long a lens and all twice as far away is the same picture."""
    g = np.random.default_rng(0)
    cloud = np.concatenate([g.uniform(-1, 1, (60, 2)), g.uniform(2, 6, (60, 1))], 1)
    places = np.linspace(0, 0.5, 10)[:, None] * np.array([1.0, 0.3, 0])
    inside = cloud[:, None] - places
    xy = inside[..., :2] / inside[..., 2:] * 500 + [320, 240]
    xy += g.normal(0, 0.3, xy.shape)
    tracks = Tracks(xy, np.ones((60, 10), bool), (640, 480))
    assert calibrate(tracks, lambda flat: []) is None


def test_the_longest_tracks_leave_no_frame_without():
    tracks = torch.zeros(40, 8, 3)
    tracks[:20, :7, 2] = 1
    tracks[20:, 6:, 2] = 1
    rows = longest(tracks, 20, least=15)
    assert int((tracks[rows, 7, 2] > 0.5).sum()) == 15
    assert set(range(20)) <= set(rows.tolist())


def test_distortion_is_kept_in_files_and_undone(scene, tmp_path):
    bent = seen_through(scene, radial=-0.2)
    bent = replace(bent, intrinsics=replace(bent.intrinsics, radial=-0.2))
    seen = scene.tracks.visible
    straight, known = bent.tensor(), scene.tracks.tensor()
    assert torch.allclose(straight[torch.from_numpy(seen)], known[torch.from_numpy(seen)], atol=1e-5)
    track_files.save(bent, tmp_path / "t.npz")
    assert track_files.load(tmp_path / "t.npz").intrinsics.radial == -0.2
    assert Intrinsics.assumed(640, 480).known is False
