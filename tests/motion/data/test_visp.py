"""Folders of ViSP's simulated clips: cameras, depths and lens fit one another."""

import struct

import numpy as np
import pytest

from coset import CosetError
from coset.motion.data.tracks import Tracks
from coset.motion.data.visp import BESIDE, read_known_clip, seen_beside

FRAMES, WIDTH, HEIGHT, FOCAL = 4, 40, 30, 50.0
XML = "<conf><camera><px>50</px><py>50</py><u0>20</u0><v0>15</v0></camera></conf>"


def pose(n):
    """A camera that looks along z and moves to the right, 0.1 metres a frame, turning a little."""
    c, s = np.cos(0.05 * n), np.sin(0.05 * n)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return turn, np.array([0.1 * n, 0, 0])


@pytest.fixture
def folder(tmp_path):
    """A wall at z = 0.8, seen by the cameras; nothing in the first row of pixels."""
    for name in ("CameraPose", "Depth", "Config"):
        (tmp_path / name).mkdir()
    (tmp_path / "Config" / "chateau.xml").write_text(XML)
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([(x - 20) / FOCAL, (y - 15) / FOCAL, np.ones_like(x)], -1)
    for n in range(FRAMES):
        turn, place = pose(n)
        matrix = np.eye(4)
        matrix[:3] = np.concatenate([turn.T, -turn.T @ place[:, None]], 1)
        (tmp_path / "CameraPose" / f"Camera_{n + 1:03d}.txt").write_text(
            "\n".join(" ".join(map(repr, row.tolist())) for row in matrix)
        )
        beside = place + turn @ [BESIDE, 0, 0]
        depth = (0.8 - beside[2]) / (rays @ turn.T)[..., 2]
        depth[0] = 0
        content = struct.pack("<II", HEIGHT, WIDTH) + np.round(depth * 2**15).astype("<u2").tobytes()
        (tmp_path / "Depth" / f"Depth_{n + 1:04d}.bin").write_bytes(content)
    return tmp_path


def test_pixels_of_all_frames_lie_on_the_wall(folder):
    clip = read_known_clip(folder)
    assert clip.intrinsics.focal == FOCAL
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(1, HEIGHT))
    rays = np.stack([(x - 20) / FOCAL, (y - 15) / FOCAL, np.ones_like(x)], -1)
    for n in range(FRAMES):
        points = clip.positions[n] + (rays * clip.depth[n, 1:, :, None]) @ clip.rotations[n].T
        seen = clip.depth[n, 1:] > 0
        assert seen.mean() > 0.85
        assert np.allclose(points[seen][:, 2], 0.8, atol=4e-3)
    assert not clip.depth[:, 0].any()
    assert np.allclose(clip.positions[3], pose(3)[1])


def test_what_is_near_hides_what_is_far_from_beside():
    depth = np.zeros((1, 12))
    depth[0, 2:6], depth[0, 6:8] = 4.0, 2.0
    assert seen_beside(depth, 4.0).tolist() == [[0, 0, 0, 4, 4, 4, 4, 0, 2, 2, 0, 0]]
    assert seen_beside(depth, -4.0).tolist() == [[0, 4, 4, 4, 2, 2, 0, 0, 0, 0, 0, 0]]


def test_tracks_get_the_depth_under_them(folder):
    clip = read_known_clip(folder)
    xy = np.zeros((25, FRAMES, 2)) + [17.2, 9.9]
    xy[0] = [5.0, 0.0]
    tracks = clip.with_truth(Tracks(xy, np.ones((25, FRAMES), bool), (WIDTH, HEIGHT)))
    assert np.array_equal(tracks.truth.depth[1], clip.depth[:, 10, 17])
    assert tracks.truth.depth[1].all()
    assert not tracks.truth.depth[0].any()
    assert not tracks.truth.moving.any()
    with pytest.raises(CosetError, match="depths of 4 frames"):
        clip.with_truth(tracks.select(frames=slice(0, 3)))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("Depth/Depth_0002.bin", b"\x1e\x00\x00\x00\x28\x00\x00\x00" + bytes(10), "no depths of 30 x 40"),
        ("Depth/Depth_0002.bin", b"12", "2 bytes are no depths"),
        ("CameraPose/Camera_002.txt", b"1 0 0", "four rows of four numbers"),
        ("CameraPose/Camera_002.txt", b"2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "no rotation"),
        ("Config/chateau.xml", b"<conf/>", "no px py u0 v0"),
        ("Depth/Depth_0005.bin", b"", "there is one a frame"),
    ],
)
def test_what_is_wrong_is_said(folder, file, content, said):
    (folder / file).write_bytes(content)
    with pytest.raises(CosetError, match=said):
        read_known_clip(folder)
