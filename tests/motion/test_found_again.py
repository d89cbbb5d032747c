"""Points that go behind something and come out again are one track."""

from pathlib import Path

import numpy as np
import pytest

from coset.motion.found_again import AgainOptions, _joined, find_again
from coset.motion.tracker import TrackerOptions, track
from coset.motion.video import Video

cv2 = pytest.importorskip("cv2")
STEP, BAR = 3.0, (70, 88)


@pytest.fixture(scope="module")
def behind_a_bar():
    """A texture that glides to the right behind an upright grey bar, and its tracks."""
    noise = np.random.default_rng(0).uniform(0, 255, (60, 90, 3)).astype(np.float32)
    whole = cv2.resize(noise, (360, 240), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    pictures = []
    for n in range(24):
        picture = cv2.warpAffine(whole, np.array([[1, 0, -100 + n * STEP], [0, 1, -40.0]]), (160, 120))
        picture[:, BAR[0] : BAR[1]] = np.random.default_rng(1).integers(90, 130, (120, BAR[1] - BAR[0], 3))
        pictures.append(picture)
    return track(Video(np.stack(pictures), 20.0, Path("bar")), options=TrackerOptions(least_length=5, again=True))


def gaps(tracks):
    """Rows that are lost and seen again."""
    first, last = tracks.visible.argmax(1), tracks.frames - 1 - tracks.visible[:, ::-1].argmax(1)
    return np.flatnonzero(tracks.visible.sum(1) < last - first + 1)


def test_points_that_come_out_behind_a_bar_are_found_where_they_are(behind_a_bar):
    rows, errors, where = gaps(behind_a_bar), [], []
    assert len(rows) > 60
    for p in rows:
        seen = np.flatnonzero(behind_a_bar.visible[p])
        way = behind_a_bar.xy[p, seen] - behind_a_bar.xy[p, seen[0]]
        errors.append(np.abs(way - (seen - seen[0])[:, None] * [STEP, 0]).max())
        hidden = np.setdiff1d(np.arange(seen[0], seen[-1]), seen)
        # A lone frame in which a check failed is a gap, too.
        where += (behind_a_bar.xy[p, seen[0], 0] + (hidden - seen[0]) * STEP).tolist() if len(hidden) > 3 else []
    assert np.median(errors) < 1.0
    assert np.quantile(errors, 0.9) < 2.5
    assert len(where) > 40
    print(np.quantile(errors, [0.5, 0.7, 0.8, 0.9, 1]), len(rows), np.sort(where)[::6])
    assert np.mean([BAR[0] - 12 < x < BAR[1] + 12 for x in where]) > 0.9


def test_what_is_found_again_is_no_second_track_of_its_point(behind_a_bar):
    rows = gaps(behind_a_bar)
    for n in (16, 20, 23):
        seen = np.flatnonzero(behind_a_bar.visible[:, n])
        again = np.intersect1d(rows, seen)
        apart = np.linalg.norm(behind_a_bar.xy[again, n][:, None] - behind_a_bar.xy[seen, n], axis=-1)
        apart[again[:, None] == seen] = np.inf
        assert (apart.min(1) < 0.5).mean() < 0.03


def test_what_looks_otherwise_is_not_taken_for_it():
    """Another texture comes out behind the bar: nothing is found again."""
    rng = np.random.default_rng(2)
    grey = rng.integers(0, 255, (12, 80, 120)).astype(np.uint8)
    xy = np.tile(rng.uniform(20, 60, (30, 1, 2)), (1, 12, 1))
    visible = np.ones((30, 12), bool)
    visible[:5, 4:] = False

    def flow(a, b, at, start):
        return start, np.ones(len(at), bool)

    def follow(begin, at, backwards):
        raise AssertionError("nothing is there to be followed")

    _, seen, rows = find_again(cv2, grey, xy, visible, flow, follow)
    assert np.array_equal(seen, visible)
    assert len(rows) == 30


def test_a_track_that_runs_along_is_the_same_point():
    xy, visible = np.zeros((3, 8, 2)), np.zeros((3, 8), bool)
    visible[0, :3] = visible[1, 5:] = visible[2, 4:] = True
    xy[1, 5:], xy[2, 4:] = [9.0, 9.4], [40.0, 9.0]
    places, seen = np.full((1, 8, 2), 9.0), np.zeros((1, 8), bool)
    seen[0, 4:7] = True
    found, shown, rows = _joined(xy, visible, np.array([0]), places, seen, AgainOptions(least=3))
    assert rows.tolist() == [0, 2]
    assert shown[0].tolist() == [True] * 3 + [False] + [True] * 4
    assert found[0, 7].tolist() == [9.0, 9.4]
