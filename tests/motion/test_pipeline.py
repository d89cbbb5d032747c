"""From the command line: a made-up video of a moving camera in, files out; mistakes in one line."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from coset.core.errors import CosetError
from coset.motion.data import tracks as files
from coset.motion.models.checkpoint import save_model
from coset.motion.pipeline import Input, read_input, write_picture
from coset.motion.video import read_video

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two textured planes at different depths, and a camera that glides past them."""
    rng = np.random.default_rng(0)
    far, near = (
        cv2.resize(rng.integers(0, 255, size, dtype=np.uint8), None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
        for size in ((60, 90, 3), (16, 60, 3))
    )
    path = tmp_path_factory.mktemp("video") / "glide.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (200, 160))
    for n in range(16):
        frame = far[40:200, 40 + 2 * n : 240 + 2 * n].copy()
        frame[80:] = near[:, 8 * n // 2 : 8 * n // 2 + 200][:80]
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture
def checkpoint(network, tmp_path):
    save_model(network, tmp_path / "model.safetensors", {"window": 10})
    return tmp_path / "model.safetensors"


def test_a_video_becomes_tracks_and_tracks_a_scene(coset, video, checkpoint, tmp_path):
    code, out, err = coset("track", video, "--output", tmp_path / "t.npz", "--preview", tmp_path / "t.png", "--quiet")
    assert code == 0, err
    assert "focal length 180 px, assumed" in out
    tracks = files.load(tmp_path / "t.npz")
    assert tracks.points > 40
    assert cv2.imread(str(tmp_path / "t.png")).shape == (160, 200, 3)
    scene = tmp_path / "scene"
    code, out, err = coset("reconstruct", tmp_path / "t.npz", "--output", scene, "--model", checkpoint, "--quiet")
    assert code == 0, err
    metrics = json.loads((scene / "metrics.json").read_text())
    assert metrics["points"] <= tracks.points
    assert metrics["reprojection_median_px"] < 2
    for name in (
        "index.html",
        "tracks.npz",
        "reconstruction.npz",
        "scene.glb",
        "colmap/images.txt",
        "ply/frame_0015.ply",
    ):
        assert (scene / name).stat().st_size > 0
    assert "note: focal length 180 px is assumed: the tracks do not tell it" in err  # the camera glides past planes


def test_a_video_becomes_a_scene_at_once(coset, video, checkpoint, tmp_path):
    arguments = ("--output", tmp_path / "s", "--model", checkpoint, "--refine", "none", "--intrinsics", "170,100,80")
    code, _, err = coset("reconstruct", video, *arguments, "--max-frames", 12, "--points", 60, "--quiet")
    assert code == 0, err
    metrics = json.loads((tmp_path / "s" / "metrics.json").read_text())
    assert (metrics["frames"], metrics["focal_px"], metrics["focal_source"]) == (12, 170.0, "given")
    assert metrics["points"] <= 60
    page = (tmp_path / "s" / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 12


def test_a_folder_of_frames_becomes_a_scene_for_other_programs(coset, video, checkpoint, tmp_path):
    (tmp_path / "frames").mkdir()
    for n, frame in enumerate(read_video(str(video)).frames[:12]):
        cv2.imwrite(str(tmp_path / "frames" / f"{n}.png"), frame[..., ::-1])
    arguments = ("--output", tmp_path / "s", "--model", checkpoint, "--refine", "none", "--intrinsics", "170,100,80")
    code, out, err = coset(
        "reconstruct", tmp_path / "frames", *arguments, "--points", 40, "--images", "--json", "--quiet"
    )
    assert code == 0, err
    said = json.loads(out)
    assert (said["frames"], said["focal_px"], said["depth_known"]) == (12, 170.0, True)
    assert said["output"] == str(tmp_path / "s")
    content = json.loads((tmp_path / "s" / "transforms.json").read_text())
    for frame in content["frames"]:
        assert cv2.imread(str(tmp_path / "s" / frame["file_path"])).shape == (content["h"], content["w"], 3)


def test_nothing_stays_of_an_earlier_reconstruction(coset, video, checkpoint, tmp_path):
    """Sixteen frames with pictures, then twelve without; a file of somebody else's stays."""
    scene = tmp_path / "s"
    arguments = ("--output", scene, "--model", checkpoint, "--refine", "none", "--intrinsics", "170,100,80")
    arguments += ("--points", 40, "--quiet")
    code, _, err = coset("reconstruct", video, *arguments, "--images")
    assert code == 0, err
    (scene / "ply" / "mine.ply").write_text("mine")
    colmap = (scene / "colmap" / "images.txt").read_text().splitlines()
    for name in [line.split()[-1] for line in colmap[1::2]]:
        assert (scene / "images" / name).exists()
    code, _, err = coset("reconstruct", video, *arguments, "--max-frames", 12)
    assert code == 0, err
    assert sorted(path.name for path in (scene / "ply").iterdir()) == [
        *(f"frame_{n:04d}.ply" for n in range(12)), "mine.ply",
    ]  # fmt: skip
    assert not (scene / "images").exists()
    pictures = tmp_path / "t" / "images"  # of another's, not listed in metrics.json: they stay
    pictures.mkdir(parents=True)
    for n, frame in enumerate(read_video(video).frames):
        cv2.imwrite(str(pictures / f"frame_{n:04d}.jpg"), frame[..., ::-1])
    code, _, err = coset("reconstruct", pictures, *("--output", tmp_path / "t"), *arguments[2:])
    assert code == 0, err
    assert len(list(pictures.iterdir())) == 16
    code, _, err = coset("reconstruct", pictures, *("--output", tmp_path / "t"), *arguments[2:], "--images")
    assert (code, "--images would write over the pictures that it reads" in err) == (1, True)


def test_intrinsics_that_may_be_of_other_pictures_are_told(video, tmp_path):
    def notes(given, path=video):
        return " ".join(read_input(Input(path, given, points=30), False)[2])

    assert notes("170,100,80") == ""
    assert "the principal point (80, 100) is far from the middle of pictures of 200 x 160" in notes("170,80,100")
    assert "fx and fy differ: their mean of 172.0 px is taken for both" in notes("170,174,100,80")
    tracks = read_input(Input(video, "170,100,80", points=30), False)[0]
    xy = tracks.xy.transpose(1, 0, 2)[None]
    matrices = np.repeat(tracks.intrinsics.matrix()[None], 16, 0)
    arrays = {"pred_tracks": xy, "pred_visibility": tracks.visible.T[None]}
    np.savez(tmp_path / "zoom.npz", **arrays, Ks_all=matrices * np.linspace(1, 1.2, 16)[:, None, None])
    assert "the cameras of the file differ" in notes(None, tmp_path / "zoom.npz")
    np.savez(tmp_path / "large.npz", **arrays, image_size=np.array([800, 640]))
    assert "of pictures of 800 x 640: their coordinates have to be in pixels" in notes(None, tmp_path / "large.npz")


def test_a_shot_that_cannot_be_followed_is_left_out(coset, tmp_path):
    rng = np.random.default_rng(0)
    bright, dull = (
        cv2.resize(
            rng.integers(low, high, (50, 60, 3), dtype=np.uint8), None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC
        )
        for low, high in ((60, 255), (0, 120))
    )
    shots = [[wall[40:200, 40 + 2 * n : 240 + 2 * n] for n in range(10)] for wall in (bright, dull)]
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20, (200, 160))
    for frame in [*shots[0], *[np.zeros((160, 200, 3), np.uint8)] * 5, *shots[1]]:
        writer.write(frame)
    writer.release()
    code, out, err = coset("track", tmp_path / "v.avi", "--output", tmp_path / "t.npz", "--quiet")
    assert code == 0, err
    assert "frames 10 to 14 are left out: " in out
    assert files.load(tmp_path / "t-2.npz").frames == 10
    assert not (tmp_path / "t-3.npz").exists()


def test_intrinsics_from_files(coset, video, tmp_path):
    (tmp_path / "k.json").write_text(json.dumps({"K": [[150, 0, 100], [0, 150, 80], [0, 0, 1]]}))
    (tmp_path / "k.txt").write_text("150 0 100\n0 150 80\n0 0 1\n")
    for name in ("k.json", "k.txt"):
        code, _, err = coset("track", video, "--output", tmp_path / "t.npz", "--intrinsics", tmp_path / name, "--quiet")
        assert code == 0, err
        assert files.load(tmp_path / "t.npz").intrinsics.focal == 150


def mistakes(video, folder):
    return [
        (["track", folder / "no.mp4"], "no.mp4: no such file"),
        (["track", video, "--intrinsics", "a,b"], "intrinsics 'a,b': give f,cx,cy"),
        (["track", video, "--shot", "4"], "has 1 shots of 3 frames or more; shot 4 does not exist"),
        (["track", video, "--preview", folder / "no" / "a.png"], "cannot write"),
        (["track", video, "--stride", "14"], "2 frames; tracks need a shot of at least 3"),
        (["reconstruct", video, "--output", folder / "s", "--refine", "magic"], "--refine magic: choose none, bundle"),
        (["reconstruct", folder / "text.npz", "--output", folder / "s"], "is no NPZ or NPY file that can be read"),
        (["reconstruct", folder / "text.mp4", "--output", folder / "s"], "no picture can be decoded"),
        (["reconstruct", video, "--output", folder / "text.npz" / "s"], "cannot make"),
        (["reconstruct", video, "--output", folder / "s", "--model", folder / "text.npz"], "cannot be read: it is dam"),
        (["track", video, "--output", folder / "a.txt"], "a.txt: tracks are written as a file that ends in .npz"),
        (["track", video, "--preview", folder / "a.xyz"], "a.xyz: give a name that ends in .png or .jpg"),
        (
            ["track", video, "--intrinsics", "170,250,80"],
            "the principal point (250, 80) lies outside pictures of 200 x",
        ),
        (["track", video, "--intrinsics", ".9,.5,.5"], "a focal length of 0.9 is that of no lens for pictures of 200"),
        (
            ["reconstruct", video, "--output", folder / "s", "--focal-guess", "1e6", "--points", "30"],
            "--focal-guess: a focal length of 1e+06 is that of no lens",
        ),
        (
            ["reconstruct", folder / "text.npz", "--output", folder / "s", "--max-frames", "9", "--images"],
            "text.npz: --max-frames and --images is for videos; the tracks of a file are taken as they are",
        ),
        (
            ["reconstruct", video, "--output", folder / "s", "--turntable", folder / "no" / "a.gif"],
            "a.gif: No such file or directory",
        ),
    ]


@pytest.mark.parametrize("number", range(17))
def test_mistakes_get_one_line(coset, video, tmp_path, checkpoint, number, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.npz").write_text("none")
    (tmp_path / "text.mp4").write_text("none")
    arguments, message = mistakes(video, tmp_path)[number]
    if arguments[0] == "reconstruct" and "--model" not in arguments:
        arguments = [*arguments, "--model", checkpoint]
    code, out, err = coset(*arguments, "--quiet")
    assert code == 1
    lines = [line for line in err.splitlines() if line.strip()]
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in err + out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "text.mp4", "text.npz"]


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    picture = np.zeros((20, 30, 3), np.uint8)
    write_picture(picture, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(CosetError, match=r"cannot write .*a\.png"):
        write_picture(picture + 200, tmp_path / "a.png")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_tracks_in_pickles_are_not_read(coset, tmp_path):
    (tmp_path / "davis.pkl").write_bytes(b"")
    code, _, err = coset("reconstruct", tmp_path / "davis.pkl", "--output", tmp_path / "scene", "--quiet")
    assert (code, "tracks are read from NPZ alone, since pickles may run code" in err) == (1, True)
    assert not (tmp_path / "scene").exists()
