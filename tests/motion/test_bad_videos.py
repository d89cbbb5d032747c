"""Videos that cannot be used, or only in part, through the commands: one line, an exit code, nothing half-written."""

import struct
import sys
import wave

import numpy as np
import pytest

from coset import cli
from coset.motion.video import read_video

cv2 = pytest.importorskip("cv2")


def picture(seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    return cv2.resize(coarse, (400, 240), interpolation=cv2.INTER_CUBIC)


def glide(frames):
    return [picture()[20:180, 3 * n : 200 + 3 * n].copy() for n in range(frames)]


def write(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def still(path):
    return write(path, glide(1) * 16)


def short(path):
    return write(path, glide(2))


def single(path):
    return write(path, glide(1))


def black(path):
    return write(path, [np.zeros((160, 200, 3), np.uint8)] * 16)


def unrelated(path):
    rng = np.random.default_rng(0)
    return write(path, [rng.integers(0, 255, (160, 200, 3), dtype=np.uint8) for _ in range(16)])


def sound(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16_000))
    return path


def beheaded(path):
    """Without its last part, where this writer puts the index of frames."""
    content = write(path, glide(16)).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def lost(path):
    path = path.with_suffix(".npz")
    places = np.random.default_rng(0).uniform(0, 100, (1, 10, 40, 2))
    np.savez(path, pred_tracks=places, pred_visibility=np.zeros((1, 10, 40), bool))
    return path


def pickled(path):
    path = path.with_suffix(".npz")
    np.savez(path, pred_tracks=np.array([{}], dtype=object), pred_visibility=np.ones(1))
    return path


@pytest.mark.parametrize(
    ("make", "commands", "message"),
    [
        (still, ("reconstruct",), "without motion there is no depth"),
        (short, ("track", "reconstruct"), "2 frames; "),
        (single, ("reconstruct",), "1 frame; a reconstruction needs a shot of at least 3"),
        (black, ("track", "reconstruct"), "0 points could be followed"),
        (unrelated, ("track", "reconstruct"), "points could be followed"),
        (sound, ("track", "reconstruct"), "no picture can be decoded"),
        (beheaded, ("track", "reconstruct"), "no picture can be decoded"),
        (lost, ("reconstruct",), "lost.npz"),
        (pickled, ("reconstruct",), "pickled.npz"),
    ],
)
def test_what_cannot_be_used(make, commands, message, tmp_path, monkeypatch, capfd):
    source = make(tmp_path / f"{make.__name__}.mp4")
    for command in commands:
        output = tmp_path / ("out.npz" if command == "track" else "out")
        monkeypatch.setattr(sys, "argv", ["coset", command, str(source), "--output", str(output), "--quiet"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capfd.readouterr().err.splitlines()
        assert stop.value.code == 1
        assert len(said) == 1, said
        assert said[0].startswith("error: ")
        assert message in said[0]
        assert sorted(path.name for path in tmp_path.iterdir()) == [source.name]


@pytest.mark.parametrize(("angle", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotation_flags_turn_frames_upright(angle, turns, tmp_path):
    upright = write(tmp_path / "upright.mp4", glide(4))
    content = upright.read_bytes()
    matrix = content.find(b"tkhd") + 44  # the display matrix of a version 0 track header
    one = 1 << 16
    a, b = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[angle]
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:matrix] + struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, 1 << 30) + content[matrix + 36 :])
    expected = np.rot90(read_video(upright).frames, turns, axes=(1, 2))
    np.testing.assert_array_equal(read_video(turned).frames, expected)


def test_damaged_files_are_used_as_far_as_they_go(tmp_path, monkeypatch, capfd):
    path = tmp_path / "half.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (200, 160))
    for frame in glide(40):
        writer.write(frame)
    writer.release()
    assert read_video(path).damage is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    video = read_video(path)
    assert 10 < len(video.frames) < 30
    assert f"{len(video.frames)} of its 40 frames" in video.damage
    monkeypatch.setattr(sys, "argv", ["coset", "track", str(path), "--output", str(tmp_path / "t.npz"), "--quiet"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out, err = capfd.readouterr()
    assert "is damaged" in " ".join(out.split())
    assert err == ""
