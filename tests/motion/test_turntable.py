"""A film of one turn around a scene."""

import cv2
import numpy as np
import pytest
from PIL import Image

from coset import CosetError
from coset.motion.reconstruct import Options, reconstruct
from coset.motion.turntable import TurntableOptions, turn_of, write_turntable

SHORT = TurntableOptions(size=(160, 120), pictures=20)


@pytest.fixture(scope="module")
def result(scene, network):
    return reconstruct(scene.tracks, network, Options(refine="none"))


def test_a_gif_turns_once_and_goes_on_for_ever(result, tmp_path):
    write_turntable(result, tmp_path / "turn.gif", options=SHORT)
    with Image.open(tmp_path / "turn.gif") as film:
        assert (film.size, film.info["loop"]) == ((160, 120), 0)
        assert film.n_frames == 20
        assert film.info["duration"] == pytest.approx(1000 / 18, abs=10)


def test_an_mp4_is_read_back(result, tmp_path):
    write_turntable(result, tmp_path / "turn.mp4", options=SHORT)
    capture = cv2.VideoCapture(str(tmp_path / "turn.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 20
    good, first = capture.read()
    assert good
    assert first.shape == (120, 160, 3)
    assert first.std() > 5


def test_the_view_turns_and_the_film_is_in_its_corner(result):
    frames = np.full((14, 60, 80, 3), [250, 0, 0], np.uint8)
    plain, filmed = turn_of(result, None, SHORT), turn_of(result, frames, SHORT)
    assert len(plain) == 20
    assert (plain[0] != plain[5]).any()
    corner = (slice(86, 114), slice(116, 154))
    assert (filmed[3][corner] == [250, 0, 0]).all()
    assert not (plain[3][corner] == [250, 0, 0]).all()


def test_points_are_drawn_where_they_are_and_nearer_ones_before_others(result):
    from coset.motion.turntable import _Stage

    stage = _Stage.of(result, SHORT)
    picture, seen = stage.picture(0, 0.35, None), stage.seen(stage.points[:, 0], 0.35)
    shown = (np.abs(seen[:, :2] - [80, 60]) < [70, 50]).all(1) & (seen[:, 2] > 0.1 * stage.radius)
    nearest = np.where(shown, seen[:, 2], np.inf).argmin()
    x, y = np.round(seen[nearest, :2]).astype(int)
    assert shown.sum() > 10
    assert np.abs(picture[y, x].astype(int) - stage.colours[nearest]).max() < 60
    assert np.allclose(stage.seen(stage.centre, 1.0)[:2], [80, 60])


def test_other_endings_are_refused_before_anything_is_made(coset, tmp_path):
    with pytest.raises(CosetError, match=r"ends in \.gif or \.mp4"):
        write_turntable(None, tmp_path / "turn.avi")
    (tmp_path / "empty.npz").touch()
    code, _, err = coset("reconstruct", tmp_path / "empty.npz", "--turntable", tmp_path / "turn.avi")
    assert code == 1
    assert "ends in .gif or .mp4" in err
