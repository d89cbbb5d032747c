"""Films as people take them: reproducible, consistent with their truth, with the errors that trackers make."""

import numpy as np
import pytest

from coset.core.errors import CosetError
from coset.motion.data.films import LENSES, MOVING, STILL, make_film, make_films
from coset.motion.data.scenes import SceneOptions

OPTIONS = SceneOptions(points=60, frames=20)


def test_a_seed_gives_the_same_film_and_another_one_another():
    first, again, other = (make_film(["rod", "boxes"], OPTIONS, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.tracks.xy, again.tracks.xy)
    assert np.array_equal(first.points, again.points)
    assert not np.array_equal(first.points, other.points)


@pytest.mark.parametrize("seed", range(8))
def test_without_errors_tracks_are_where_the_truth_is_seen(seed):
    film = make_film(["rod", "boxes"], SceneOptions(points=60, frames=20, noise=0.0), seed)
    k, tracks = film.tracks.intrinsics, film.tracks
    inside = np.einsum("pni,nij->pnj", film.points - film.positions, film.rotations)
    pixels = inside[..., :2] / inside[..., 2:] * k.focal + [k.cx, k.cy]
    assert np.abs(pixels - tracks.xy)[tracks.visible].max() < 1e-6
    assert (film.depth()[tracks.visible] > 0.1).all()
    assert np.allclose(np.linalg.det(film.rotations), 1)
    assert LENSES[0] <= k.focal / max(tracks.size) <= LENSES[1]
    assert 0 < film.moving.mean() <= 0.5
    assert (tracks.visible.sum(1) >= 8).all()


def test_films_differ_in_what_is_in_them_and_how_they_are_taken():
    films = make_films(["rod", "boxes", "rod"], 24, OPTIONS, 0)
    lenses = [film.tracks.intrinsics.focal / max(film.tracks.size) for film in films]
    ways = [np.linalg.norm(np.ptp(f.positions, 0)) / np.median(f.depth()[f.tracks.visible]) for f in films]
    assert min(lenses) < 0.8
    assert max(lenses) > 2
    assert min(ways) < 0.1
    assert max(ways) > 0.4
    assert {film.body.count("+") for film in films} == {0, 1, 2}
    assert len({film.tracks.size for film in films}) == 2


def test_errors_are_those_that_our_tracker_makes():
    """Medians and 95 % quantiles over the age of a track, recorded on rendered clips with exact flow."""
    recorded = {1: (0.24, 1.07), 8: (0.41, 2.72), 32: (0.70, 3.75)}, {1: (0.36, 1.43), 8: (1.0, 5.38), 32: (1.33, 6.78)}
    for errors, ages in zip((STILL, MOVING), recorded, strict=True):
        drawn = errors.draw(4000, 33, np.random.default_rng(0))
        for age, (middle, far) in ages.items():
            away = np.linalg.norm(drawn[:, age] - drawn[:, 0], axis=-1)
            assert np.median(away) == pytest.approx(middle, rel=0.35)
            assert np.quantile(away, 0.95) == pytest.approx(far, rel=0.4)


def test_a_track_is_right_where_it_began():
    film = make_film(["rod"], OPTIONS, 5)
    k = film.tracks.intrinsics
    inside = np.einsum("pni,nij->pnj", film.points - film.positions, film.rotations)
    error = np.linalg.norm(inside[..., :2] / inside[..., 2:] * k.focal + [k.cx, k.cy] - film.tracks.xy, axis=-1)
    error[~film.tracks.visible] = np.inf
    assert error.min(1).max() < 1e-9
    assert 0.1 < np.median(error[film.tracks.visible]) < 2


def test_bodies_that_are_not_known_are_told():
    with pytest.raises(CosetError, match="no body 'cow'; choose from"):
        make_film(["rod", "cow"], OPTIONS, 0)
