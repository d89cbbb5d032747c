import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coset import CosetError
from coset.motion.data import tracks as files
from coset.motion.data.tracks import Intrinsics, Tracks


def some(points=25, frames=6, seed=0):
    rng = np.random.default_rng(seed)
    return Tracks(rng.uniform(0, 90, (points, frames, 2)), rng.uniform(size=(points, frames)) < 0.8, (100, 90))


def test_normalised_coordinates_by_hand():
    tracks = Tracks(
        np.array([[[60.0, 40.0], [1.0, 1.0]]]), np.array([[True, False]]), (100, 80), intrinsics=Intrinsics(100, 50, 40)
    )
    assert tracks.tensor().tolist() == [[[pytest.approx(0.1), 0.0, 1.0], [0.0, 0.0, 0.0]]]


def test_coordinates_of_unseen_points_are_given_to_those_who_ask():
    xy = np.array([[[60.0, 40.0], [150.0, 40.0], [np.nan, 1.0]]])
    tracks = Tracks(xy, np.array([[True, False, False]]), (100, 80), intrinsics=Intrinsics(100, 50, 40))
    assert np.allclose(tracks.tensor(), [[[0.1, 0, 1], [0, 0, 0], [0, 0, 0]]])
    assert np.allclose(tracks.tensor(unseen=True), [[[0.1, 0, 1], [1, 0, 0], [0, 0, 0]]])


def test_assumed_intrinsics_are_half_the_size_and_its_mean():
    k = some().intrinsics
    assert (k.focal, k.cx, k.cy, k.source) == (95, 50, 45, "assumed")


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9))
def test_a_file_gives_back_what_was_written(tmp_path_factory, seed, points, frames):
    tracks = some(points, frames, seed)
    path = tmp_path_factory.mktemp("tracks") / "tracks.npz"
    files.save(tracks, path)
    read = files.load(path)
    assert np.allclose(read.xy, tracks.xy, atol=1e-5)
    assert (read.visible == tracks.visible).all()
    assert (read.started_at == tracks.started_at).all()
    assert (read.size, read.intrinsics, read.rate) == (tracks.size, tracks.intrinsics, tracks.rate)


def test_the_form_of_cotracker(tmp_path):
    tracks = some()
    files.save(tracks, tmp_path / "a.npz")
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["pred_tracks"].shape == (1, 6, 25, 2)
    assert arrays["pred_visibility"].shape == (1, 6, 25)
    assert arrays["started_at"].shape == (1, 1, 25)  # as the authors' loader of TracksTo4D takes it
    assert "Ks_all" not in arrays  # intrinsics are assumed, and that loader would take them for true
    np.savez(tmp_path / "before.npz", **{**arrays, "started_at": tracks.started_at})
    assert (files.load(tmp_path / "before.npz").started_at == tracks.started_at).all()


def test_the_authors_loader_takes_our_files(tmp_path):
    """What it does with a file: a column of started_at[0], visibility as a mask, intrinsics a frame."""
    tracks = replace(some(), intrinsics=Intrinsics(120, 50, 45))
    files.save(tracks, tmp_path / "a.npz")
    arrays = np.load(tmp_path / "a.npz")
    often = arrays["pred_visibility"][:, :5].sum(axis=1) > 2
    rows = np.where(np.logical_and(arrays["started_at"][0][:, :] < 5, often))[1]
    assert rows.tolist() == np.flatnonzero((tracks.visible[:, :5].sum(1) > 2) & (tracks.started_at < 5)).tolist()
    assert arrays["pred_tracks"][arrays["pred_visibility"]].shape == (tracks.visible.sum(), 2)
    assert np.array_equal(arrays["Ks_all"], np.repeat(tracks.intrinsics.matrix()[None], 6, 0))


@pytest.mark.parametrize("extra", [{"visibles": True}, {"occluded": False}])
def test_the_form_of_tapir(tmp_path, extra):
    tracks = some()
    ((name, keep),) = extra.items()
    seen = tracks.visible if keep else ~tracks.visible
    np.savez(tmp_path / "a.npz", tracks=tracks.xy, **{name: seen})
    read = files.load(tmp_path / "a.npz")
    assert np.allclose(read.xy, tracks.xy)
    assert (read.visible == tracks.visible).all()
    assert read.size == tuple(np.ceil(tracks.xy[tracks.visible].max(0)).astype(int))


def test_visibility_may_be_probabilities_and_have_another_axis(tmp_path):
    tracks = some()
    chance = np.where(tracks.visible, 0.9, 0.2).T[None, ..., None]
    np.savez(tmp_path / "a.npz", pred_tracks=tracks.xy.transpose(1, 0, 2)[None], pred_visibility=chance)
    assert (files.load(tmp_path / "a.npz").visible == tracks.visible).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "holds a; expected pred_tracks and pred_visibility, or tracks and visibles"),
        ({"pred_tracks": np.zeros((1, 4, 30, 3))}, "pred_tracks has shape (1, 4, 30, 3); expected (1, frames, points"),
        ({"pred_tracks": np.zeros((1, 4, 30, 2))}, "has pred_tracks but no pred_visibility"),
        (
            {"pred_tracks": np.zeros((1, 4, 30, 2)), "pred_visibility": np.ones((1, 30, 3))},
            "pred_visibility has shape (1, 30, 3); expected (1, 4, 30)",
        ),
        ({"tracks": np.zeros((30, 4, 2))}, "has tracks but neither visibles nor occluded"),
        ({"tracks": np.zeros((30, 4, 2)), "visibles": np.zeros((30, 4))}, "no point is visible in any frame"),
        (
            {"tracks": np.ones((30, 4, 2)), "visibles": np.ones((30, 4)), "intrinsics": np.eye(2)},
            "intrinsics of shape (2, 2): give a 3 x 3 matrix",
        ),
        (
            {"tracks": np.ones((30, 4, 2)), "visibles": np.ones((30, 4)), "started_at": np.zeros(3)},
            "started_at has 3 entries for 30 points",
        ),
        ({"tracks": np.array([{}], dtype=object), "visibles": np.zeros(1)}, "holds Python objects"),
    ],
)
def test_files_that_hold_no_tracks(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(CosetError, match=re.escape(message)) as error:
        files.load(tmp_path / "a.npz")
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(CosetError, match="is no NPZ or NPY file"):
        files.load(tmp_path / "text.npz")
    with pytest.raises(CosetError, match="no such file"):
        files.load(tmp_path / "missing.npz")
    with pytest.raises(CosetError, match="is a folder"):
        files.load(tmp_path)
    with pytest.raises(CosetError, match="cannot write"):
        files.save(some(), tmp_path / "no" / "a.npz")


def test_checks_name_what_is_wrong():
    tracks = some(40, 6)
    with pytest.raises(CosetError, match="2 frames; a reconstruction needs at least 3"):
        tracks.select(frames=slice(0, 2)).checked()
    with pytest.raises(CosetError, match=r"points are seen in two frames or more; at least 20"):
        tracks.select(np.arange(12)).checked()
    xy = tracks.xy.copy()
    p, n = np.argwhere(tracks.visible)[3]
    xy[p, n] = np.nan
    with pytest.raises(CosetError, match=rf"point {p} is visible in frame {n} but its place is \[nan"):
        Tracks(xy, tracks.visible, tracks.size).checked()
    seen = tracks.visible.copy()
    seen[:, 2] = False
    with pytest.raises(CosetError, match="frame 2 sees fewer than 4"):
        Tracks(tracks.xy, seen, tracks.size).checked()


def test_points_seen_once_are_left_out():
    tracks = some(40, 6)
    tracks.visible[3] = [True, False, False, False, False, False]
    assert tracks.checked().points == int((tracks.visible.sum(1) >= 2).sum()) <= 39


@pytest.mark.parametrize("value", [[100, 50, 40], [100, 100, 50, 40], [[100, 0, 50], [0, 100, 40], [0, 0, 1]]])
def test_forms_of_intrinsics(value):
    k = Intrinsics.parse(value)
    assert (k.focal, k.cx, k.cy) == (100, 50, 40)
    assert Intrinsics.parse(k.matrix()) == k


@pytest.mark.parametrize(
    ("value", "message"),
    [([1, 2], "shape"), ([-1, 2, 3], "positive"), ([100, 150, 1, 1], "square"), ([np.nan, 1, 1], "pos")],
)
def test_intrinsics_that_make_no_pinhole(value, message):
    with pytest.raises(CosetError, match=message):
        Intrinsics.parse(value)
