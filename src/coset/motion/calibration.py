"""The focal length of a video that nobody knows it of, from its tracks: one unknown more of the bundle adjustment.

Starts at several focal lengths, from the network and from a plain guess, are adjusted for some steps on the longest
tracks, the focal length free; the best are adjusted to their end, and the winner on all tracks, then on those of points
that do not move. One coefficient of radial distortion is freed last, and kept where the tracks tell it. Errors are
measured in the picture, not in normalised coordinates, which would shrink with every longer focal length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coset.motion.baselines import FreeReconstruction
from coset.motion.bundle_adjustment import (
    BundleOptions,
    Lens,
    Unknowns,
    adjust_among_still,
    adjust_with_lens,
    among,
    lens_deviations,
    of_points,
    static_cost,
    static_residuals,
    still_rows,
    triangulate,
)
from coset.motion.data.tracks import Tracks
from coset.motion.models.trackster4d import Prediction

FACTORS = (0.4, 0.63, 1.0, 1.6, 2.5)
"""Of the guess, where the search begins."""
LONGEST = 150  # tracks of the search
SHORT, LONG = 12, 60  # steps of a start, and of the best starts
FINALISTS = 2
WIDEST, NARROWEST = 0.2, 12.0  # focal lengths over the mean of width and height beyond which a result is none
TELLS = 0.1  # relative standard deviation above which tracks do not tell a focal length
ASIDE, RISE, LIKELY = 1.25, 2e-3, 10.0  # factor; rise there of the cost of an observation, and of all together
GAIN = 0.01  # of the mean cost of an observation, for which an unknown more is believed
SURE = 5.0  # standard deviations

Guesses = Callable[[Float[Tensor, "points frames 3"]], list[Prediction]]


@dataclass(frozen=True)
class Calibration:
    """A lens with the cameras and the static cloud that were found along with it.

    Attributes:
        tracks: With the intrinsics found.
        start: Cameras, static cloud and motion levels in the normalised coordinates of these intrinsics.
        cost: Mean Cauchy likelihood of an observation in units of the picture, comparable between lenses.
    """

    tracks: Tracks
    start: Prediction
    cost: float


def picture_tracks(tracks: Tracks) -> tuple[Float[Tensor, "points frames 3"], float]:
    """Tracks about the principal point in units of the mean of width and height; and pixels of that unit."""
    k, unit = tracks.intrinsics, sum(tracks.size) / 2
    places = np.where(tracks.visible[..., None], (tracks.xy - [k.cx, k.cy]) / unit, 0.0)
    return torch.from_numpy(np.concatenate([places, tracks.visible[..., None]], -1)), unit


def calibrate(
    tracks: Tracks, guesses: Guesses, options: BundleOptions | None = None, each: Callable[[], object] = lambda: None
) -> Calibration | None:
    """Focal length and radial distortion that explain the tracks best; None where they do not tell.

    Args:
        tracks: Their intrinsics are the guess that the search goes out from; the principal point is kept.
        guesses: From tracks in normalised coordinates to predictions to start from, besides a plain one.
        options: Of the bundle adjustments; steps as this module says.
        each: Called after every step.
    """
    options = options or BundleOptions()
    picture, unit = picture_tracks(tracks)
    guess = tracks.intrinsics.focal / unit
    rows = longest(picture, LONGEST)
    short, long = replace(options, iterations=SHORT), replace(options, iterations=LONG)
    found = []
    for factor in FACTORS:
        lens = lens_of(guess * factor)
        for start in starts_from(picture[rows], lens, guesses):
            found.append(adjust_with_lens(start, lens, picture[rows], short, Unknowns(lens=1), each))
    found.sort(key=lambda pair: static_cost(pair[0], picture[rows], pair[1]))
    finals = [adjust_with_lens(*pair, picture[rows], long, Unknowns(lens=1), each) for pair in found[:FINALISTS]]
    best, lens = min(finals, key=lambda pair: static_cost(pair[0], picture[rows], pair[1]))
    whole = triangulate(best, lens, picture, options.noise)
    whole, lens, still = adjust_among_still(whole, lens, picture, options, Unknowns(lens=1), each)
    part, lens, deviation = with_distortion(of_points(whole, still), lens, picture[still], options, each)
    focal, rows = float(lens.focal), longest(picture[still], LONGEST)
    if not (
        WIDEST <= focal <= NARROWEST and deviation <= TELLS and _told(part, lens, picture[still], rows, short, each)
    ):
        return None
    whole = among(part, still, triangulate(part, lens, picture, options.noise))
    return Calibration(
        _known(tracks, lens, unit, deviation), normalised(whole, lens), static_cost(whole, picture, lens)
    )


@dataclass(frozen=True)
class Doubt:
    """A given focal length that the tracks speak against: pixels given and found, and median errors with both."""

    given: float
    found: float
    deviation: float
    error_given: float
    error_found: float

    def __str__(self) -> str:
        return (
            f"the given focal length of {self.given:g} px is doubtful: the tracks are explained better by "
            f"{self.found:.0f} px, give or take {100 * self.deviation:.1f} % (median reprojection "
            f"{self.error_found:.2f} px in place of {self.error_given:.2f}); without --intrinsics it is estimated"
        )


def doubt(prediction: Prediction, tracks: Tracks, options: BundleOptions | None = None) -> Doubt | None:
    """Whether a focal length that was held should have been another: the adjustment goes on with it free.

    What moves says nothing here.

    Args:
        prediction: Adjusted with the focal length held, in normalised coordinates.
        tracks: With the intrinsics in question.
        options: Of the bundle adjustment.
    """
    options = replace(options or BundleOptions(), iterations=LONG)
    picture, unit = picture_tracks(tracks)
    held = Lens(torch.tensor(tracks.intrinsics.focal / unit).double(), torch.tensor(tracks.intrinsics.radial).double())
    still = still_rows(prediction.gamma, picture, options.noise)
    picture, start = picture[still], of_points(prediction._replace(gamma=prediction.gamma * held.focal), still)
    before = adjust_with_lens(start, held, picture, options, Unknowns())[0]
    after, lens = adjust_with_lens(before, held, picture, options, Unknowns(lens=1))
    gain = static_cost(before, picture, held) - static_cost(after, picture, lens)
    deviation = lens_deviations(after, lens, picture, Unknowns(lens=1))[0]
    away = abs(math.log(float(lens.focal / held.focal)))
    if gain < GAIN or deviation > TELLS or away < max(0.03, SURE * deviation):
        return None
    errors = [
        float(static_residuals(p, picture, s)[0].sqrt().median()) * unit for p, s in ((before, held), (after, lens))
    ]
    return Doubt(tracks.intrinsics.focal, float(lens.focal) * unit, deviation, *errors)


def with_distortion(
    prediction: Prediction,
    lens: Lens,
    picture: Float[Tensor, "points frames 3"],
    options: BundleOptions,
    each: Callable[[], object],
) -> tuple[Prediction, Lens, float]:
    """Radial distortion freed, and kept if it lowers the cost and is many standard deviations from none."""
    plain = lens_deviations(prediction, lens, picture, Unknowns(lens=1))[0]
    bent, curved = adjust_with_lens(prediction, lens, picture, options, Unknowns(lens=2), each)
    gain = static_cost(prediction, picture, lens) - static_cost(bent, picture, curved)
    deviations = lens_deviations(bent, curved, picture, Unknowns(lens=2))
    if gain < GAIN or abs(float(curved.radial)) < SURE * deviations[1] or deviations[0] > TELLS:
        return prediction, lens, plain
    return bent, curved, deviations[0]


def longest(tracks: Float[Tensor, "points frames 3"], count: int, least: int = 15) -> Tensor:
    """Rows of the longest tracks, and in frames that too few of these are seen in, of the longest there."""
    seen = tracks[..., 2] > 0.5
    order = seen.sum(1).argsort(descending=True, stable=True)
    chosen = torch.zeros(len(tracks), dtype=torch.bool).index_fill_(0, order[:count], True)
    for n in range(tracks.size(1)):
        lacking = least - int((chosen & seen[:, n]).sum())
        others = order[(seen[:, n] & ~chosen)[order]]
        chosen[others[: max(lacking, 0)]] = True
    return chosen.nonzero().squeeze(1)


def _told(
    prediction: Prediction,
    lens: Lens,
    picture: Float[Tensor, "points frames 3"],
    rows: Tensor,
    options: BundleOptions,
    each: Callable[[], object],
) -> bool:
    """Whether the cost rises on both sides of a focal length, everything else adjusted again."""
    part = prediction._replace(basis=prediction.basis[rows], gamma=prediction.gamma[rows])
    least = static_cost(part, picture[rows], lens)
    rises = []
    for factor in (1 / ASIDE, ASIDE):
        aside = lens._replace(focal=lens.focal * factor)
        found, _ = adjust_with_lens(part, aside, picture[rows], options, Unknowns(), each)
        rises.append(static_cost(found, picture[rows], aside) - least)
    return min(rises) > max(RISE, LIKELY / float(picture[rows][..., 2].sum()))


def lens_of(focal: float, radial: float = 0.0) -> Lens:
    return Lens(torch.tensor(focal).double(), torch.tensor(radial).double())


def normalised(prediction: Prediction, lens: Lens) -> Prediction:
    """Motion levels in normalised coordinates, in place of those of the picture."""
    return prediction._replace(gamma=prediction.gamma / lens.focal)


def starts_from(picture: Float[Tensor, "points frames 3"], lens: Lens, guesses: Guesses) -> list[Prediction]:
    """A plain guess and others, with motion levels in units of the picture and no motion."""
    flat = torch.cat((lens.normalised(picture[..., :2]), picture[..., 2:]), -1)
    plain = FreeReconstruction(flat, basis=1)()
    with torch.no_grad():
        predicted = guesses(flat.float())
    starts = [Prediction(*(part.detach().double() for part in start)) for start in (plain, *predicted)]
    return [start.still()._replace(gamma=start.gamma * lens.focal) for start in starts]


def _known(tracks: Tracks, lens: Lens, unit: float, deviation: float) -> Tracks:
    k = replace(
        tracks.intrinsics,
        focal=float(lens.focal) * unit,
        radial=float(lens.radial),
        deviation=deviation,
        source="estimated",
    )
    return replace(tracks, intrinsics=k)
