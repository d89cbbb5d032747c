"""A camera that only turns, of any focal length, or stands still, gives rotations and no scene."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from coset.motion.data import tracks as track_files
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.geometry import rotation_angle, rotation_from_vector
from coset.motion.models.checkpoint import save_model
from coset.motion.reconstruct import Options, reconstruct
from coset.motion.tracker import TrackerOptions, track
from coset.motion.turning import shows_parallax, turning_camera
from coset.motion.verdict import verdict
from coset.motion.video import Video

FRAMES, POINTS, MOVERS = 10, 60, 8


def pan(widths, noise, shift=0.0, sweep=0.35, known=None):
    """A pan over about half of the picture, a few things that move at random before it; and the true rotations."""
    g = np.random.default_rng(0)
    focal, times = widths * 640, np.linspace(-0.5, 0.5, FRAMES)
    angles = np.stack([0.02 * np.sin(7 * times), sweep * times, 0.03 * np.cos(5 * times)], 1) / max(widths, 0.6)
    rotations = rotation_from_vector(torch.from_numpy(angles))
    depth = g.uniform(2, 6, (POINTS, 1))
    flat = g.uniform(-0.6, 0.6, (POINTS, 2)) * [640, 480] / focal
    points = np.concatenate([flat * depth, depth], 1)[:, None].repeat(FRAMES, 1)
    points[:MOVERS, :, :2] += np.cumsum(g.normal(0, 0.04, (MOVERS, FRAMES, 2)), 1)
    inside = np.einsum("pni,nij->pnj", points - shift * times[:, None] * [1.0, 0.2, 0], rotations.numpy())
    xy = inside[..., :2] / inside[..., 2:] * focal + [320, 240] + g.normal(0, 1, (POINTS, FRAMES, 2)) * noise
    seen = (xy >= 0).all(-1) & (xy < [640, 480]).all(-1)
    k = Intrinsics.assumed(640, 480) if known is None else Intrinsics(known, 320, 240)
    return Tracks(xy, seen, (640, 480), intrinsics=k).checked(), rotations, focal


@pytest.mark.parametrize("widths", [0.6, 1.2, 3.0])
def test_rotations_and_focal_length_of_exact_tracks(widths):
    tracks, rotations, focal = pan(widths, 0.0)
    found = turning_camera(tracks)
    assert found.tracks.intrinsics.focal == pytest.approx(focal, rel=1e-3)
    relative = found.prediction.rotations[0].T @ found.prediction.rotations
    assert float(rotation_angle(relative, rotations[0].T @ rotations).max()) < 0.01
    assert found.error < 0.01


def test_a_focal_length_that_is_held_stays_given():
    """Two thirds, which single precision rounds, of the mean of width and height."""
    tracks, _, focal = pan(0.6 * 560 / 576, 0.0, known=560 * 2 / 3)
    held = turning_camera(replace(tracks, intrinsics=replace(tracks.intrinsics, focal=focal))).tracks.intrinsics
    assert (held.source, held.deviation) == ("given", 0.0)
    assert held.focal == focal
    wrong = turning_camera(replace(tracks, intrinsics=replace(tracks.intrinsics, focal=2 * focal))).tracks.intrinsics
    assert wrong.source == "estimated"


@pytest.mark.parametrize("widths", [0.6, 1.2, 3.0])
def test_a_pan_is_no_scene_whatever_its_focal_length(widths, network):
    tracks, rotations, _ = pan(widths, 0.5)
    result = reconstruct(tracks, network, Options())
    assert not result.depth_known
    assert "depth cannot be known" in result.notes[0]
    assert torch.equal(result.prediction.positions, torch.zeros(FRAMES, 3).double())
    assert torch.allclose(result.points().norm(dim=-1), torch.ones(()).double())
    assert float(rotation_angle(result.prediction.rotations, rotations[0].T @ rotations).max()) < 3 / widths


def test_a_camera_that_moves_is_no_pan(network):
    assert reconstruct(pan(1.2, 0.5, shift=1.0)[0], network, Options(refine="none")).depth_known


def test_points_show_parallax_where_depths_explain_them():
    turned, moved = torch.tensor([5.0, 0.6, 9.0, 0.3]), torch.tensor([0.5, 0.5, 8.0, 0.01])
    assert shows_parallax(turned, moved, 0.5).tolist() == [True, False, False, False]


def test_a_camera_that_stands_still_before_something_that_moves(coset, network, tmp_path):
    g = np.random.default_rng(1)
    xy = g.uniform(60, 420, (50, 1, 2)).repeat(FRAMES, 1)
    xy[:8] += np.cumsum(g.normal(0, 4, (8, FRAMES, 2)), 1)
    track_files.save(Tracks(xy, np.ones((50, FRAMES), bool), (640, 480)), tmp_path / "t.npz")
    save_model(network, tmp_path / "model.safetensors", {})
    arguments = ("--output", tmp_path / "s", "--model", tmp_path / "model.safetensors", "--quiet")
    code, _, err = coset("reconstruct", tmp_path / "t.npz", *arguments)
    assert code == 3, err
    assert "the camera stands still" in err
    assert "depth cannot be known" in err
    metrics = json.loads((tmp_path / "s" / "metrics.json").read_text())
    assert metrics["depth_known"] is False
    assert metrics["focal_source"] == "assumed"
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert not names & {"ply", "colmap", "scene.glb"}
    with np.load(tmp_path / "s" / "reconstruction.npz") as arrays:
        assert not arrays["depth_known"]
        assert arrays["moving"][:8].sum() > 5


def filmed(widths, frames=12, size=(320, 240)):
    """Pictures of a pan over a far wall of texture, two thirds of a picture wide, with a thing that moves before it."""
    g, (width, height), focal = np.random.default_rng(0), size, widths * size[0]
    wall = cv2.resize(g.uniform(0, 255, (160, 260, 3)).astype(np.float32), (1040, 640), interpolation=cv2.INTER_CUBIC)
    thing = cv2.resize(g.uniform(0, 255, (10, 10, 3)).astype(np.float32), (40, 40), interpolation=cv2.INTER_CUBIC)
    k, onto = (
        np.array([[focal, 0, 160], [0, focal, 120], [0, 0, 1.0]]),
        np.array([[1, 0, -360], [0, 1, -200], [0, 0, 1.0]]),
    )
    rotations, pictures = [], []
    for n, turn in enumerate(np.linspace(-0.33, 0.33, frames) / widths):
        vector = torch.tensor([[0.02 * np.sin(n) / widths, turn, 0.01 * np.cos(n)]]).double()
        rotations.append(rotation_from_vector(vector)[0])
        homography = k @ rotations[-1].numpy().T @ np.linalg.inv(k) @ onto
        picture = cv2.warpPerspective(wall, homography, (width, height), flags=cv2.INTER_LINEAR)
        picture[100:140, 40 + 9 * n : 80 + 9 * n] = thing
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return Video(np.stack(pictures), 20.0, Path("pan")), torch.stack(rotations), focal


@pytest.mark.parametrize("widths", [0.7, 1.5, 3.0])
def test_a_filmed_pan_gives_rotations_and_a_verdict(widths, network):
    """From pictures on: tracks with the tracker's own errors, no focal length given."""
    video, rotations, focal = filmed(widths)
    result = reconstruct(track(video, options=TrackerOptions(points=80, least_length=5)), network, Options())
    assert not result.depth_known
    assert verdict(result).startswith("Depth cannot be known: the camera only turns. Its rotations over 12 frames")
    assert result.tracks.intrinsics.focal == pytest.approx(focal, rel=0.1)
    relative = rotations[0].T @ rotations
    assert float(rotation_angle(result.prediction.rotations, relative).max()) < 1.5 / widths
