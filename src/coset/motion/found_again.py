"""Points that were lost and come back into view: looked for where their neighbours have gone, and told by their look.

A point that passes behind a post, or out of the picture and in again, is seen twice by Lucas-Kanade as two tracks. Here
the patch about a lost point, some frames before it was lost, is looked for in later frames, from where its neighbours'
way puts it. What is found must lead back to where the patch was, look like it (normalised correlation), and is
followed on from there, and back to where it came into view; tracks that run along with it are the same point,
unless both were seen at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Flow = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From pictures a and b, places in a and starts in b to places in b and whether the way back agrees."""
Follow = Callable[[np.ndarray, np.ndarray, bool], tuple[np.ndarray, np.ndarray]]
"""From first frames, places there and whether to go backwards, to places and visibility of every frame."""


@dataclass(frozen=True)
class AgainOptions:
    """How lost points are looked for.

    Attributes:
        long: Frames that a point must have been seen in before it was lost.
        every: Frames between those in which they are looked for, and between those that patches are taken from.
        before: Frames before the last sight, at least, from which the patch is taken: the last one may be half hidden.
        longest: Frames that a point may be away.
        neighbours: Tracks whose median way a lost point is thought to have gone.
        within: Pixels in which at least four of these lie.
        away: Pixels from there in which a point may be found.
        patch: Side of the patch that is compared.
        alike: Least normalised correlation.
        least: Frames that a point must be seen in again.
        same: Pixels within which two tracks are one point.
    """

    long: int = 8
    every: int = 3
    before: int = 2
    longest: int = 30
    neighbours: int = 8
    within: float = 90.0
    away: float = 10.0
    patch: int = 17
    alike: float = 0.9
    least: int = 4
    same: float = 1.5


def find_again(
    cv2: Any,
    grey: UInt8[np.ndarray, "frames height width"],
    xy: Float[np.ndarray, "points frames 2"],
    visible: Bool[np.ndarray, "points frames"],
    flow: Flow,
    follow: Follow,
    options: AgainOptions | None = None,
) -> tuple[Float[np.ndarray, "points frames 2"], Bool[np.ndarray, "points frames"], Int[np.ndarray, " left"]]:
    """Tracks with what was seen of their points later.

    Args:
        cv2: OpenCV.
        grey: The pictures.
        xy, visible: Tracks.
        flow: A step of the tracker between any two pictures.
        follow: The tracker, from given points on.
        options: How.

    Returns:
        Places and visibility of all rows, and the rows that are left: those are not that turned out to be others.
    """
    options = options or AgainOptions()
    found = _sightings(cv2, grey, xy, visible, flow, options)
    if not len(found):
        return xy, visible, np.arange(len(xy))
    rows, frames = found[:, 0].astype(int), found[:, 1].astype(int)
    order = np.argsort(frames, kind="stable")
    rows, frames, places = rows[order], frames[order], found[order, 2:]
    lost = _last(visible)[rows]
    ahead, seen_ahead = follow(frames, places, False)
    back, seen_back = follow(frames, places, True)
    number = np.arange(visible.shape[1])
    seen_back &= (number > lost[:, None]) & (number < frames[:, None])
    seen = seen_ahead | seen_back
    return _joined(xy.copy(), visible.copy(), rows, np.where(seen_back[..., None], back, ahead), seen, options)


def _last(visible: Bool[np.ndarray, "points frames"]) -> Int[np.ndarray, " points"]:
    return visible.shape[1] - 1 - visible[:, ::-1].argmax(1)


def _sightings(
    cv2: Any, grey: np.ndarray, xy: np.ndarray, visible: np.ndarray, flow: Flow, options: AgainOptions
) -> Float[np.ndarray, "found 4"]:
    """Row, frame and place of the first later sight of lost points."""
    last, first, frames = _last(visible), visible.argmax(1), visible.shape[1]
    source = np.maximum((last - options.before) // options.every * options.every, first)
    open_, found = visible.sum(1) >= options.long, []
    for n in range(options.every, frames, options.every):
        gone = open_ & (last < n - 1) & (n - last <= options.longest)
        for m in np.unique(source[gone]).tolist():
            rows = np.flatnonzero(gone & (source == m))
            known = visible[:, m] & visible[:, n]
            start, near = _expected(xy[rows, m], xy[known, m], xy[known, n], options)
            inside = ((start >= 0) & (start < [grey.shape[2], grey.shape[1]])).all(1) & near
            rows, start = rows[inside], start[inside]
            if not len(rows):
                continue
            there, good = flow(grey[m], grey[n], xy[rows, m].astype(np.float32), start.astype(np.float32))
            good &= np.linalg.norm(there - start, axis=1) < options.away
            for row, place in zip(rows[good], there[good], strict=True):
                if _alike(cv2, grey[m], grey[n], xy[row, m], place, options):
                    found.append((row, n, *place))
                    open_[row] = False
    return np.array(found).reshape(-1, 4)


def _expected(
    at: np.ndarray, before: np.ndarray, after: np.ndarray, options: AgainOptions
) -> tuple[Float[np.ndarray, "rows 2"], Bool[np.ndarray, " rows"]]:
    """Where neighbours' median way leads from given places, and whether four of them are near."""
    if len(before) < options.neighbours:
        return at.copy(), np.zeros(len(at), bool)
    apart = np.linalg.norm(at[:, None] - before[None], axis=-1)
    nearest = np.argpartition(apart, options.neighbours - 1, 1)[:, : options.neighbours]
    way = np.median((after - before)[nearest], 1)
    return at + way, (np.take_along_axis(apart, nearest, 1) < options.within).sum(1) >= 4


def _alike(cv2: Any, a: np.ndarray, b: np.ndarray, at: np.ndarray, place: np.ndarray, options: AgainOptions) -> bool:
    """Whether the patches about two places look the same, but for brightness and contrast."""
    side = (options.patch, options.patch)
    one, other = (
        cv2.getRectSubPix(picture, side, tuple(float(v) for v in where)).astype(float)
        for picture, where in ((a, at), (b, place))
    )
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one * one).sum() * (other * other).sum())
    return bool(size > 0 and (one * other).sum() / size > options.alike)


def _joined(
    xy: np.ndarray, visible: np.ndarray, rows: np.ndarray, places: np.ndarray, seen: np.ndarray, options: AgainOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Later sights put into the rows of their points; rows that run along with them are taken in and left out."""
    left = np.ones(len(xy), bool)
    for row, place, shown in zip(rows, places, seen, strict=True):
        if not left[row]:
            continue
        shown = shown & ~visible[row]
        if shown.sum() < options.least:
            continue
        both = visible & shown
        apart, count = np.where(both, np.linalg.norm(xy - place, axis=-1), 0.0).sum(1), both.sum(1)
        along = left & (count >= 2) & (apart < options.same * np.maximum(count, 1))
        # What it runs along with was seen while this one was: it has run onto another point.
        if (along & (visible & visible[row]).any(1)).any():
            continue
        xy[row, shown], visible[row, shown] = place[shown], True
        for other in np.flatnonzero(along):
            more = visible[other] & ~visible[row]
            xy[row, more], visible[row, more] = xy[other, more], True
            left[other] = False
    return xy, visible, np.flatnonzero(left)
