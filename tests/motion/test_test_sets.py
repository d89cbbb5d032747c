"""Clips in the form of TracksTo4D's test set, from the command line to a table."""

import json
from dataclasses import replace

import numpy as np
import pytest

from coset.motion.data import tracks as files
from coset.motion.data.scenes import SceneOptions, make_scene
from coset.motion.data.tracks import Tracks
from coset.motion.data.truth import Truth
from coset.motion.models.checkpoint import save_model
from coset.motion.reconstruct import Options
from coset.motion.test_sets import averages, evaluate_clips, selected


def write_clip(path, seed, known=True):
    scene = make_scene("boxes", SceneOptions(points=60, frames=30, noise=0.2, outliers=0, least_seen=15), seed)
    truth = Truth(scene.depth(), scene.rotations, scene.positions, scene.moving) if known else None
    files.save(replace(scene.tracks, truth=truth), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(2):
        write_clip(folder / f"clip{seed}.npz", seed)
    write_clip(folder / "unknown.npz", 2, known=False)
    return folder


def test_the_frames_and_points_that_count():
    """70 frames: those from 50 on do not count, nor points picked there, nor points seen ten times before."""
    visible = np.ones((4, 70), bool)
    visible[1, 10:50] = False  # seen 10 times in the first 50 frames
    visible[2, 11:50] = False  # 11 times
    tracks = Tracks(np.zeros((4, 70, 2)), visible, (9, 9), started_at=np.array([0, 0, 49, 50]))
    found = selected(tracks)
    assert (found.points, found.frames) == (2, 50)
    assert found.started_at.tolist() == [0, 49]


def test_clips_become_a_table_with_means_and_medians(coset, folder, network, tmp_path):
    save_model(network, tmp_path / "model.safetensors", {"window": 30})
    arguments = ("--model", tmp_path / "model.safetensors", "--output", tmp_path / "all.json", "--quiet")
    code, out, err = coset("motion", "evaluate", folder, "--refine", "bundle", *arguments)
    assert code == 0, err
    assert "unknown.npz has no truth" in err
    found = json.loads((tmp_path / "all.json").read_text())
    assert [clip["clip"] for clip in found["clips"]] == ["clip0", "clip1"]
    for name in ("ate", "rpe_translation", "abs_rel", "dynamic_delta3", "reprojection_mean_px"):
        values = [clip[name] for clip in found["clips"]]
        assert found["mean"][name] == pytest.approx(sum(values) / 2)
        assert found["median"][name] == pytest.approx(sum(values) / 2)
    assert "median" in out


def test_errors_do_not_depend_on_how_a_prediction_is_written_down(folder, network):
    from coset.motion.metrics import truth_metrics
    from coset.motion.reconstruct import feed_forward

    table, _ = evaluate_clips([folder / "clip0.npz"], network, Options(refine="none", window=30))
    tracks = selected(files.load(folder / "clip0.npz"))
    prediction, _, _ = feed_forward(tracks.tensor(network.read_unseen), network, Options(window=30))
    errors = truth_metrics(prediction, tracks)
    for name in ("ate", "rpe_translation", "rpe_rotation", "abs_rel", "dynamic_delta1"):
        assert table[name][0] == pytest.approx(errors[name], rel=1e-6), name
    assert averages(table)["mean"] == averages(table)["median"]


def test_clips_without_truth_and_folders_without_clips(coset, folder, tmp_path):
    code, _, err = coset("motion", "evaluate", folder / "unknown.npz", "--quiet")
    assert (code, "has no truth: Ms_all, GT_depth_tracks_all or the like" in err) == (1, True)
    code, _, err = coset("motion", "evaluate", tmp_path, "--quiet")
    assert (code, "no clips: give NPZ files" in err) == (1, True)
    code, _, err = coset("motion", "evaluate", folder, "--refine", "all")
    assert (code, "choose none, bundle or finetune" in err) == (1, True)


def test_clips_that_means_leave_out_are_named(folder, network, tmp_path):
    """A camera that only turns, one that truly stays, and depths that nobody knows."""
    scene = make_scene("boxes", SceneOptions(points=60, frames=16, noise=0.2, outliers=0, least_seen=12), 0)
    angle = np.linspace(-0.1, 0.1, 16)
    flat = np.random.default_rng(0).uniform([-0.3, -0.3], 0.3, (60, 2))
    turn = np.stack([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angle])
    inside = np.einsum("pi,nij->pnj", np.concatenate([flat, np.ones((60, 1))], 1), turn)
    seen, size = np.ones((60, 16), bool), scene.tracks.size
    turned = replace(scene.tracks, xy=inside[..., :2] / inside[..., 2:] * 400 + np.array(size) / 2, visible=seen)
    truth = Truth(scene.depth(), scene.rotations, scene.positions, scene.moving)
    files.save(replace(turned, truth=truth), tmp_path / "turns.npz")
    still = replace(truth, depth=np.zeros_like(scene.depth()), positions=np.zeros((16, 3)))
    files.save(replace(scene.tracks, truth=still), tmp_path / "stays.npz")
    table, notes = evaluate_clips([tmp_path / "turns.npz", tmp_path / "stays.npz"], network, Options(refine="none"))
    assert notes == [
        f"{tmp_path / 'turns.npz'}: the camera only turns or stands still, so that depths and cameras are not measured",
        f"{tmp_path / 'stays.npz'}: the true camera stays in its place, so that ate is not measured",
        f"{tmp_path / 'stays.npz'}: no depth of what is visible is known, so that abs_rel is not measured",
    ]
    assert table["ate"].isna().all()
