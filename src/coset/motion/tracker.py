"""Point tracks of a video on a CPU: pyramidal Lucas-Kanade, checked forwards and backwards, seeded anew where lost.

Every step is taken from the frame before, and then again, from where it ended, from a frame some steps earlier: that
holds drift down, and tracks that slip off an edge onto what lies behind it do not find back to where they were. A point
that fails a check is lost: what Lucas-Kanade finds later at the same place is another track. Tracks that begin
in the middle of a shot are followed towards its start, too; those that come back
into view are looked for if wanted. Needs OpenCV (``pip install "coset[motion]"``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from coset.core.errors import CosetError, require
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.found_again import AgainOptions, find_again
from coset.motion.video import Video

MARGIN = 3.0  # pixels from the edge at which a track ends: the window would look out of the picture


@dataclass(frozen=True)
class TrackerOptions:
    """How points are picked and followed.

    Attributes:
        points: Most tracks to keep, the longest, spread over picture and time.
        cells: Cells along the longer side; a cell without a living track is seeded anew.
        window: Side of the Lucas-Kanade window of a step, pixels.
        near: Side of the window of the step from an earlier frame.
        levels: Halvings of the picture above the first.
        backward: Largest distance, in pixels, between a point and where tracking there and back ends.
        apart: Largest distance, in pixels, between the ends of the two steps.
        earlier: Frames after which the earlier frame is another one.
        least_length: Frames that a kept track is seen in; half of them in a shot of fewer than twice as many.
        again: Whether points that were lost are looked for in later frames (:mod:`coset.motion.found_again`).
    """

    points: int = 600
    cells: int = 26
    window: int = 15
    near: int = 11
    levels: int = 3
    backward: float = 0.5
    apart: float = 1.5
    earlier: int = 6
    least_length: int = 8
    again: bool = False

    def least(self, frames: int) -> int:
        """Frames that a kept track is seen in, of a shot of so many."""
        return min(self.least_length, max(3, frames // 2))


def track(
    video: Video,
    frames: slice | None = None,
    options: TrackerOptions | None = None,
    intrinsics: Intrinsics | None = None,
    each: Callable[[], object] = lambda: None,
) -> Tracks:
    """Follow points through one shot.

    Args:
        video: The video.
        frames: The shot; all frames by default.
        options: How.
        intrinsics: Of the camera, in pixels of the decoded frames; assumed if left out.
        each: Called after every frame.

    Raises:
        CosetError: The shot has fewer than 3 frames, or too little to follow.
    """
    cv2 = require("cv2", "motion")
    options = options or TrackerOptions()
    pictures = video.frames[frames or slice(None)]
    if len(pictures) < 3:
        raise CosetError(f"{video.path}: a shot of {len(pictures)} frames; tracks need at least 3")
    living = _Living(cv2, pictures, options)
    for _ in range(len(pictures) - 1):
        living.step()
        each()
    xy, visible, started = living.collect()
    _extend_back(cv2, pictures, options, xy, visible, started)
    if options.again:
        xy, visible, kept = _find_again(cv2, living, xy, visible)
        xy, visible, started = xy[kept], visible[kept], started[kept]
    rows = _spread(xy, visible, video.size, options)
    if len(rows) < 20:
        raise CosetError(
            f"{video.path}: only {len(rows)} points could be followed for {options.least(len(pictures))} frames; the "
            "picture is too blurred, too dark or too empty, or changes too much from frame to frame"
        )
    xy, visible, started = xy[rows], visible[rows], started[rows]
    colours = _colours(pictures, xy, started)
    times = None if video.times is None else video.times[frames or slice(None)]
    k = intrinsics or Intrinsics.assumed(*video.size)
    return Tracks(xy, visible, video.size, started, k, video.rate, colours, times=times)


class _Living:
    """The tracks that are being followed, and all that were."""

    def __init__(self, cv2: Any, pictures: np.ndarray, options: TrackerOptions):
        self.cv2, self.pictures, self.options = cv2, pictures, options
        self.frame = 0
        self.grey = self._grey(0)
        self.at = np.zeros((0, 2), np.float32)
        self.rows = np.zeros(0, int)
        self.earlier = np.zeros(0, int)  # frame of the second step, and where the point was in it
        self.was_at = np.zeros((0, 2), np.float32)
        self.history: list[tuple[np.ndarray, np.ndarray]] = []
        self.started: list[int] = []
        self._seed()

    def step(self) -> None:
        """Follow into the next frame, let go of what fails, seed empty cells."""
        following = self._grey(self.frame + 1)
        if len(self.at):
            side, levels = self.options.window, self.options.levels
            there, good = self._there_and_back(self.grey, following, self.at, self.at, side, levels)
            for frame in np.unique(self.earlier[self.earlier < self.frame]).tolist():
                rows = np.flatnonzero(good & (self.earlier == frame))
                place, steps = self.was_at[rows], there[rows]
                again, held = self._there_and_back(self._grey(frame), following, place, steps, self.options.near, 1)
                good[rows] = held & (np.linalg.norm(again - steps, axis=1) < self.options.apart)
                there[rows] = again
            height, width = following.shape
            corner = np.array([width, height]) - 1 - MARGIN
            good &= ((there >= MARGIN) & (there <= corner)).all(1)
            self.at = there
            self._keep(np.flatnonzero(good))
            self._part_from_neighbours()
        self.frame, self.grey = self.frame + 1, following
        if self.frame % self.options.earlier == 0:
            self.earlier, self.was_at = np.full(len(self.at), self.frame), self.at.copy()
        self._seed()

    def collect(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places, visibility and first frames of all tracks."""
        xy = np.zeros((len(self.started), len(self.history), 2))
        visible = np.zeros(xy.shape[:2], bool)
        for n, (rows, at) in enumerate(self.history):
            xy[rows, n], visible[rows, n] = at, True
        return xy, visible, np.array(self.started, dtype=np.int64)

    def _seed(self) -> None:
        """Begin tracks in this frame, and write down where all are."""
        fresh = self._fresh()
        first = len(self.started)
        self.started += [self.frame] * len(fresh)
        self.at, self.was_at = np.concatenate([self.at, fresh]), np.concatenate([self.was_at, fresh])
        self.rows = np.concatenate([self.rows, np.arange(first, first + len(fresh))])
        self.earlier = np.concatenate([self.earlier, np.full(len(fresh), self.frame)])
        self.history.append((self.rows.copy(), self.at.copy()))

    def _fresh(self) -> Float[np.ndarray, "fresh 2"]:
        """Corners in cells without a living track."""
        height, width = self.grey.shape
        cell = max(8, int(np.ceil(max(width, height) / self.options.cells)))
        taken = np.zeros((height, width), np.uint8)
        for x, y in self.at.astype(int):
            taken[y // cell * cell : (y // cell + 1) * cell, x // cell * cell : (x // cell + 1) * cell] = 1
        # The last frames cannot give a track of the least length.
        if self.frame > len(self.pictures) - self.options.least(len(self.pictures)):
            return np.zeros((0, 2), np.float32)
        corners = self.cv2.goodFeaturesToTrack(self.grey, 5000, 0.002, cell * 0.45, mask=(1 - taken) * 255)
        return np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2).astype(np.float32)

    def _keep(self, kept: Int[np.ndarray, " kept"]) -> None:
        self.at, self.rows = self.at[kept], self.rows[kept]
        self.earlier, self.was_at = self.earlier[kept], self.was_at[kept]

    def _part_from_neighbours(self) -> None:
        """Of tracks that have run into the same pixel, keep the oldest."""
        cells = np.round(self.at).astype(int)
        order = np.argsort(self.rows, kind="stable")
        _, first = np.unique(cells[order], axis=0, return_index=True)
        self._keep(np.sort(order[first]))

    def _there_and_back(
        self, a: np.ndarray, b: np.ndarray, at: np.ndarray, start: np.ndarray, side: int, levels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """From places in one picture to those in another, looked for about a start; and whether the way back agrees."""
        there, found = self._flow(a, b, at, start, side, levels)
        back, returned = self._flow(b, a, there, at, side, levels)
        return there, found & returned & (np.linalg.norm(back - at, axis=1) < self.options.backward)

    def _flow(
        self, a: np.ndarray, b: np.ndarray, at: np.ndarray, start: np.ndarray, side: int, levels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if not len(at):
            return at.copy(), np.zeros(0, bool)
        criteria = (self.cv2.TERM_CRITERIA_EPS | self.cv2.TERM_CRITERIA_COUNT, 30, 0.01)
        guess, flags = start.reshape(-1, 1, 2).astype(np.float32), self.cv2.OPTFLOW_USE_INITIAL_FLOW
        there, status, _ = self.cv2.calcOpticalFlowPyrLK(
            a, b, at.reshape(-1, 1, 2), guess, None, None, (side, side), levels, criteria, flags
        )
        return there.reshape(-1, 2), status.reshape(-1) == 1

    def _grey(self, n: int) -> np.ndarray:
        return self.cv2.cvtColor(self.pictures[n], self.cv2.COLOR_RGB2GRAY)


class _Back(_Living):
    """Tracks that were begun elsewhere in a shot, followed through its pictures in reverse."""

    def __init__(self, cv2: Any, pictures: np.ndarray, options: TrackerOptions, begin: np.ndarray, at: np.ndarray):
        self.begin, self.begin_at = begin, at.astype(np.float32)
        super().__init__(cv2, pictures, options)

    def _fresh(self) -> Float[np.ndarray, "fresh 2"]:
        return self.begin_at[self.begin == self.frame]


def _extend_back(
    cv2: Any, pictures: np.ndarray, options: TrackerOptions, xy: np.ndarray, visible: np.ndarray, started: np.ndarray
) -> None:
    """Follow tracks that begin later than the shot towards its start; in place."""
    late = np.flatnonzero(started > 0)
    late = late[np.argsort(-started[late], kind="stable")]  # as the reversed shot comes to them
    places = xy[late, started[late]]
    living = _Back(cv2, pictures[::-1], options, len(pictures) - 1 - started[late], places)
    for _ in range(len(pictures) - 1):
        living.step()
    earlier, seen, _ = living.collect()
    earlier, seen = earlier[:, ::-1], seen[:, ::-1] & ~visible[late]
    xy[late], visible[late] = np.where(seen[..., None], earlier, xy[late]), visible[late] | seen
    started[late] = visible[late].argmax(1)


def _find_again(
    cv2: Any, living: _Living, xy: np.ndarray, visible: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tracks with later sights of points that were lost; and the rows that are left."""
    pictures, options = living.pictures, living.options
    frames = len(pictures)

    def flow(a: np.ndarray, b: np.ndarray, at: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return living._there_and_back(a, b, at, start, options.window, 1)

    def follow(begin: np.ndarray, at: np.ndarray, backwards: bool) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(-begin if backwards else begin, kind="stable")  # as the shot comes to them
        first = frames - 1 - begin[order] if backwards else begin[order]
        again = _Back(cv2, pictures[::-1] if backwards else pictures, options, first, at[order])
        for _ in range(frames - 1):
            again.step()
        places, seen, _ = again.collect()
        back = np.argsort(order, kind="stable")
        places, seen = places[back], seen[back]
        return (places[:, ::-1], seen[:, ::-1]) if backwards else (places, seen)

    grey = np.stack([living._grey(n) for n in range(frames)])
    return find_again(cv2, grey, xy, visible, flow, follow, AgainOptions(long=options.least(frames)))


def preview(video: Video, tracks: Tracks, frame: int, tail: int = 10) -> UInt8[np.ndarray, "height width 3"]:
    """A frame with the points seen in it and where each came from."""
    cv2 = require("cv2", "motion")
    picture = video.frames[frame].copy()
    for p in np.flatnonzero(tracks.visible[:, frame]):
        hue = int(179 * (p * 0.618034 % 1))
        colour = cv2.cvtColor(np.array([[[hue, 220, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
        past = np.arange(max(0, frame - tail), frame + 1)
        path = tracks.xy[p, past[tracks.visible[p, past]]]
        cv2.polylines(picture, [np.round(path).astype(np.int32)], False, colour, 1, cv2.LINE_AA)
        x, y = np.round(tracks.xy[p, frame]).astype(int)
        cv2.circle(picture, (int(x), int(y)), 2, colour, -1, cv2.LINE_AA)
    return picture


def _spread(xy: np.ndarray, visible: np.ndarray, size: tuple[int, int], options: TrackerOptions) -> np.ndarray:
    """The longest tracks, taken in turn from the cells of picture and time in which they begin."""
    length = visible.sum(1)
    fit = np.flatnonzero(length >= options.least(visible.shape[1]))
    if len(fit) <= options.points:
        return fit
    middle = np.array([xy[p, visible[p]].mean(0) for p in fit])
    time = np.array([np.flatnonzero(visible[p]).mean() for p in fit])
    cells = np.stack([middle[:, 0] * 12 // size[0], middle[:, 1] * 12 // size[1], time * 4 // visible.shape[1]], 1)
    order = np.argsort(-length[fit], kind="stable")
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    rank = np.zeros(len(fit), int)
    counts: dict[int, int] = {}
    for p in order:
        rank[p] = counts.get(int(cell[p]), 0)
        counts[int(cell[p])] = rank[p] + 1
    chosen = np.lexsort((-length[fit], rank))[: options.points]
    return np.sort(fit[chosen])


def _colours(pictures: np.ndarray, xy: np.ndarray, started: np.ndarray) -> np.ndarray:
    places = np.round(xy[np.arange(len(xy)), started]).astype(int)
    limits = np.array([pictures.shape[2] - 1, pictures.shape[1] - 1])
    x, y = np.clip(places, 0, limits).T
    return pictures[started, y, x].astype(float)
