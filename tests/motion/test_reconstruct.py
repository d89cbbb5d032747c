from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from coset import CosetError
from coset.motion.data.tracks import Tracks
from coset.motion.data.truth import Truth
from coset.motion.geometry import to_camera
from coset.motion.metrics import camera_errors, scene_metrics
from coset.motion.reconstruct import (
    Options,
    finetune,
    in_first_camera,
    low_rank,
    merge_windows,
    reconstruct,
    window_runs,
)
from coset.motion.verdict import verdict


def test_runs_cover_all_frames_and_overlap():
    assert window_runs(30, 32, 12) == [slice(0, 30)]
    for frames in (33, 50, 87, 141):
        runs = window_runs(frames, 32, 12)
        assert runs[0].start == 0
        assert runs[-1].stop == frames
        assert all(run.stop - run.start == 32 for run in runs)
        assert all(a.stop - b.start >= 12 for a, b in pairwise(runs))
    with pytest.raises(CosetError, match="cannot overlap"):
        window_runs(50, 10, 10)


@pytest.mark.parametrize("refine", ["none", "bundle", "finetune"])
def test_a_reconstruction_has_a_camera_a_frame_and_a_place_a_point_and_frame(scene, network, refine):
    result = reconstruct(scene.tracks, network, Options(refine=refine, steps=3))
    assert result.points().shape == (60, 14, 3)
    assert result.prediction.rotations.shape == (14, 3, 3)
    assert result.points().isfinite().all()
    metrics = result.metrics()
    assert metrics["observations"] == scene.tracks.visible.sum()
    assert set(metrics) >= {"reprojection_median_px", "seconds_network"}


def test_the_gauge_is_the_first_camera(scene, network, truth):
    prediction = in_first_camera(truth(scene))
    assert torch.allclose(prediction.rotations[0], torch.eye(3).double())
    assert torch.equal(prediction.positions[0], torch.zeros(3).double())
    depth = to_camera(prediction.static, prediction.rotations[0], prediction.positions[0])[:, 2]
    assert float(depth[depth > 0].median()) == pytest.approx(1)
    before, after = scene_metrics(truth(scene), scene), scene_metrics(prediction, scene)
    assert before == {k: pytest.approx(v, abs=1e-6, nan_ok=True) for k, v in after.items()}


def test_refinement_recovers_cameras_whatever_the_network_says(scene, network):
    result = reconstruct(scene.tracks, network, Options(refine="bundle"))
    errors = scene_metrics(result.prediction, scene)
    assert errors["rotation"] < 1
    assert errors["auroc"] > 0.9
    assert any(" won" in note for note in result.notes)


def test_points_are_numbered_as_they_please(scene, network):
    order = np.random.default_rng(0).permutation(60)
    options = Options(refine="none")
    a = reconstruct(scene.tracks, network, options)
    b = reconstruct(scene.tracks.select(order), network, options)
    # The world's units hang on medians, which renumbering leaves.
    assert torch.allclose(a.points()[torch.from_numpy(order)], b.points(), atol=1e-4)
    assert torch.allclose(a.prediction.rotations, b.prediction.rotations, atol=1e-5)


def test_windows_of_one_truth_are_put_together_again(scene, truth):
    """Windows, each in a world of its own, give back the whole."""
    from coset.motion.geometry import Similarity, rotation_from_vector

    whole = truth(scene, basis=3)
    tracks = scene.tracks.tensor()
    parts, g = [], torch.Generator().manual_seed(0)
    for run in (slice(0, 8), slice(4, 14)):
        turn = rotation_from_vector(torch.randn(3, generator=g).double())
        world = Similarity(torch.tensor(2.0 + run.start).double(), turn, torch.randn(3, generator=g).double())
        rotations, positions = world.cameras(whole.rotations[run], whole.positions[run])
        basis = whole.basis.clone()
        basis[:, :1] = world.points(basis[:, :1])
        rows = torch.nonzero((tracks[:, run, 2] > 0.5).sum(1) >= 2).squeeze(1)
        ones = torch.ones(run.stop - run.start, 3).double()
        part = whole._replace(
            rotations=rotations, positions=positions, basis=basis[rows], gamma=whole.gamma[rows],
            coefficients=ones, focal=ones[:, 0],
        )  # fmt: skip
        parts.append((run, rows, part))
    merged, kept = merge_windows(parts, tracks, 3)
    true = torch.from_numpy(scene.rotations), torch.from_numpy(scene.positions)
    errors = camera_errors(merged.rotations, merged.positions, *true)
    assert max(errors["rotation"], errors["ate"]) < 1e-4
    assert kept.sum() >= 55
    with pytest.raises(CosetError, match="share 0 observations with those before"):
        merge_windows([parts[0], (slice(4, 14), torch.zeros(0).long(), parts[1][2]._replace(
            basis=parts[1][2].basis[:0], gamma=parts[1][2].gamma[:0]))], tracks, 3)  # fmt: skip


def test_long_videos_go_through_windows(scene, network):
    result = reconstruct(scene.tracks, network, Options(refine="none", window=8, overlap=4))
    assert result.prediction.rotations.shape[0] == 14
    assert any("windows of at most 8 frames" in note for note in result.notes)
    assert torch.allclose(
        result.prediction.rotations.mT @ result.prediction.rotations, torch.eye(3).double(), atol=1e-6
    )


def test_low_rank_is_exact_at_full_rank():
    motion = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    clouds, c = low_rank(motion, 6)
    assert torch.allclose(torch.einsum("pkd,nk->pnd", clouds, c), motion)


def test_finetuning_leaves_the_network_and_makes_the_losses_smaller(scene, network):
    from coset.motion.losses import LossWeights, losses, total_loss

    tracks = scene.tracks.tensor()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    tuned = finetune(network, scene.tracks, Options(steps=30, learning_rate=1e-3))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    with torch.no_grad():
        a, b = (float(total_loss(losses(m(tracks), tracks), LossWeights())) for m in (network, tuned))
    assert b < a


def test_no_motion_at_all_is_told(network):
    places = np.random.default_rng(0).uniform(0, 480, (60, 1, 2)).repeat(10, 1)
    tracks = Tracks(places, np.ones((60, 10), bool), (640, 480))
    with pytest.raises(CosetError, match=r"the points move by 0\.00 pixels"):
        reconstruct(tracks, network)


def test_networks_that_read_guesses_get_them(scene, network):
    """What a tracker guesses for points that are not seen changes such a network's result, and no other's."""
    reading = type(network)(**{**network.options, "read_unseen": True}).eval()
    reading.load_state_dict(network.state_dict())
    moved = replace(scene.tracks, xy=np.where(scene.tracks.visible[..., None], scene.tracks.xy, 7.0))
    options = Options(refine="none")
    plain, other = (reconstruct(tracks, network, options).prediction for tracks in (scene.tracks, moved))
    assert torch.equal(plain.basis, other.basis)
    plain, other = (reconstruct(tracks, reading, options).prediction for tracks in (scene.tracks, moved))
    assert (plain.basis - other.basis).abs().max() > 1e-6


def test_tracks_of_a_test_set_are_measured_against_its_truth(scene, network):
    """Points that are left out take their truth along."""
    truth = Truth(scene.depth(), scene.rotations, scene.positions, scene.moving)
    seen = scene.tracks.visible.copy()
    seen[4, 1:] = False
    tracks = replace(scene.tracks, visible=seen, truth=truth)
    result = reconstruct(tracks, network, Options(refine="bundle"))
    assert result.tracks.points == scene.tracks.points - 1
    metrics = result.metrics()
    assert metrics["rotation"] < 1
    assert metrics["abs_rel"] < 0.1
    assert {"rpe_translation", "dynamic_abs_rel"} <= metrics.keys()


def test_halves_that_hardly_share_a_point_are_told_or_refused(scene, network):
    """Points of the first half end at frame 7, the others begin there; some go on: a cut that nobody saw."""
    for bridges, message in ((3, "3 points are seen both before frame 7 and from there on; at least 4"), (6, None)):
        seen = np.ones_like(scene.tracks.visible)
        seen[bridges:30, 7:], seen[30:, :7] = False, False
        tracks = replace(scene.tracks, visible=seen)
        if message:
            with pytest.raises(CosetError, match=message):
                reconstruct(tracks, network, Options(refine="none"))
        else:
            notes = " ".join(reconstruct(tracks, network, Options(refine="none")).notes)
            assert "only 6 points are seen both before frame 7 and from there on" in notes


def test_tracks_too_short_to_share_frames_are_not_called_motionless(scene, network):
    seen = np.zeros_like(scene.tracks.visible)
    for p in range(60):
        seen[p, p % 13 : p % 13 + 2] = True
    with pytest.raises(CosetError, match="no two frames share more than 5 points; 12 are needed"):
        reconstruct(replace(scene.tracks, visible=seen), network, Options(refine="none"))


def test_a_frame_that_few_still_points_tell_of_is_named(clean_scene, network):
    tracks = clean_scene.tracks
    seen = tracks.visible.copy()
    seen[np.flatnonzero(~clean_scene.moving)[5:], 6] = False
    seen[np.flatnonzero(clean_scene.moving), 6] = True
    found = reconstruct(replace(tracks, visible=seen), network, Options())
    assert found.notes[-1] == "frame 6 sees fewer than 6 points that stand still: the camera there is unsure"


def test_points_that_are_left_out_are_told_and_the_others_numbered(scene, network):
    seen = scene.tracks.visible.copy()
    seen[[4, 40]] = np.arange(14) == 3
    found = reconstruct(replace(scene.tracks, visible=seen), network, Options(refine="none"))
    assert found.rows.tolist() == [p for p in range(60) if p not in (4, 40)]
    assert found.notes[0] == "2 of 60 points are seen in fewer than two frames and left out"


def test_tracks_that_nothing_explains_are_not_called_a_scene(scene, network):
    xy = np.random.default_rng(0).uniform(0, scene.tracks.size, scene.tracks.xy.shape)
    found = reconstruct(replace(scene.tracks, xy=xy), network, Options())
    assert "cameras and points are not to be trusted" in verdict(found)
    assert "not to be trusted" not in verdict(reconstruct(scene.tracks, network, Options()))
