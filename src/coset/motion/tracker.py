"""Point tracks of a video on a CPU: pyramidal Lucas-Kanade, checked forwards and backwards, seeded anew where lost.

Every step is taken from the frame before, and then again, from where it ended, from a frame some steps earlier: that
holds drift down, and tracks that slip off an edge onto what lies behind it do not find back to where they were. A point
that fails a check is lost: what Lucas-Kanade finds later at the same place is another track. Tracks that begin
in the middle of a shot are followed towards its start, too; those that come back
into view are looked for if wanted. Needs OpenCV (``pip install "coset[motion]"``).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from coset.core.errors import CosetError, require
from coset.core.files import takes_paths
from coset.core.outside import check_regular
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.found_again import AgainOptions, find_again

# Decoders complain about every damaged block on the terminal; what matters is said once, by read_video. OpenCV looks at
# this when it first opens a video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

MARGIN = 3.0  # pixels from the edge at which a track ends: the window would look out of the picture
CUT_CORRELATION, CUT_DIFFERENCE = 0.6, 12.0  # colour histograms; mean difference of small grey pictures of 0..255


@dataclass(frozen=True)
class Video:
    """Frames, upright, red-green-blue."""

    frames: UInt8[np.ndarray, "frames height width 3"]
    rate: float
    path: Path
    scale: float = 1.0  # of the frames against those in the file
    damage: str | None = None  # said of a file that ends before the frames it announces, or of pictures left out
    times: Float[np.ndarray, " frames"] | None = None  # seconds of each frame, where they are not evenly spaced

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frames.shape[2], self.frames.shape[1]


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


MOST_BYTES = 1 << 33
"""Of all frames in memory."""


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
"""Endings of the pictures of a folder."""
UNEVEN = 1.5  # longest over shortest time between frames, from which on a video has a variable frame rate


@takes_paths
def read_video(path: Path, most_frames: int | None = None, stride: int = 1, longest_side: int = 960) -> Video:
    """Decode a video, or a folder of pictures, upright, at most ``longest_side`` pixels wide or high.

    A video is turned as its rotation flag says, and keeps the times of its frames if they are uneven. The pictures of a
    folder are taken in the order of their names (numbers in them count as numbers), turned as their EXIF tag says.
    Those of another size than most are left out, and leave a gap in time.

    Args:
        path: Video, or folder of pictures.
        most_frames: Read no more.
        stride: Take every so many.
        longest_side: Pixels.

    Raises:
        CosetError: There is no such file, or no picture can be decoded from it.
    """
    if path.is_dir():
        return _read_pictures(path, most_frames, stride, longest_side)
    cv2 = require("cv2", "motion")
    check_regular(path)
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(str(path))
        frames: list[np.ndarray] = []
        times: list[float] = []
        rate = capture.get(cv2.CAP_PROP_FPS) if capture.isOpened() else 0.0
        announced = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0.0
        index, scale = 0, 1.0
        while capture.isOpened() and (most_frames is None or len(frames) < most_frames):
            if not capture.grab():
                break
            if index % stride == 0:
                good, frame = capture.retrieve()
                if not good or frame is None:
                    break
                scale = min(1.0, longest_side / max(frame.shape[:2]))
                times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                frames.append(_fitted(cv2, frame, scale))
                if len(frames) * frames[0].nbytes > MOST_BYTES:
                    raise CosetError(f"{path}: {len(frames)} frames fill {MOST_BYTES >> 30} GiB; take a part of them")
            index += 1
        capture.release()
    finally:
        cv2.utils.logging.setLogLevel(before)
    if not frames:
        raise CosetError(f"{path}: no picture can be decoded; it is corrupt, has no video stream, or is no video")
    alike = [frame.shape == frames[0].shape for frame in frames]
    frames = [frame for frame, same in zip(frames, alike, strict=True) if same]
    ended = most_frames is None or len(frames) < most_frames
    damage = None
    if ended and index < 0.95 * announced - 1:
        damage = f"{path} is damaged: {index} of its {announced:.0f} frames can be decoded, and are used"
    rate = (rate if 1 <= rate <= 1000 else 20.0) / stride
    return Video(np.stack(frames), rate, path, scale, damage, uneven(np.array(times)[alike]))


def uneven(times: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"] | None:
    """Seconds of frames from the first on, if the steps between them differ much and all go forward."""
    steps = np.diff(times)
    if not len(steps) or not np.isfinite(times).all() or steps.min() <= 0 or steps.max() < UNEVEN * steps.min():
        return None
    return times - times[0]


def _read_pictures(folder: Path, most_frames: int | None, stride: int, longest_side: int) -> Video:
    cv2 = require("cv2", "motion")
    names = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file()]
    names = sorted(names, key=lambda path: [(w.isdecimal(), int(w) if w.isdecimal() else w) for w in _words(path.stem)])
    if not names:
        raise CosetError(f"{folder}: no pictures in this folder; frames end in {', '.join(PICTURES)}")
    frames: list[np.ndarray] = []
    read, damaged, scale = [], [], 1.0
    for number, name in enumerate(names[::stride][:most_frames]):
        frame = cv2.imread(str(name), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if frame is None or frame.dtype not in (np.uint8, np.uint16):
            damaged.append(number)
            continue
        scale = min(1.0, longest_side / max(frame.shape[:2]))
        frames.append(_fitted(cv2, frame, scale))
        read.append((number, frames[-1].shape, scale))
        if len(frames) * frames[0].nbytes > MOST_BYTES:
            raise CosetError(f"{folder}: {len(frames)} frames fill {MOST_BYTES >> 30} GiB; take a part of them")
    if not frames:
        raise CosetError(f"{folder}: no picture can be decoded, {names[0].name} to begin with")
    usual = Counter((shape, scale) for _, shape, scale in read).most_common(1)[0][0]
    kept = [i for i, (_, shape, scale) in enumerate(read) if (shape, scale) == usual]
    left_out = sorted({*range(len(read) + len(damaged))} - {read[i][0] for i in kept})
    damage = None
    if left_out:
        first = names[::stride][left_out[0]].name
        damage = f"{len(left_out)} pictures of {folder} are damaged or of another size and left out, {first} first"
    times = uneven(np.array([read[i][0] for i in kept]) * stride / 20.0)
    return Video(_in_bytes([frames[i] for i in kept]), 20.0 / stride, folder, usual[1], damage, times)


def _in_bytes(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames of 8 bits. Those of 16 are shifted by what the brightest number of all leaves: cameras of 10, 12 or 14
    bits write files of 16."""
    deep = [frame for frame in frames if frame.dtype == np.uint16]
    shift = max(8, max((int(frame.max()) for frame in deep), default=0).bit_length()) - 8
    return np.stack([frame if frame.dtype == np.uint8 else (frame >> shift).astype(np.uint8) for frame in frames])


def _words(name: str) -> list[str]:
    """Runs of digits and of other characters."""
    return re.findall(r"\d+|\D+", name)


def shots(video: Video) -> list[slice]:
    """Runs of frames without a cut, by colour histograms and by how much the picture changes at once."""
    cv2 = require("cv2", "motion")
    small = np.stack([cv2.resize(frame, (64, 48), interpolation=cv2.INTER_AREA) for frame in video.frames])
    histograms = [_histogram(cv2, frame) for frame in small]
    grey = small.astype(np.float32).mean(-1)
    difference = np.abs(np.diff(grey, axis=0)).mean((1, 2))
    usual = np.median(difference) if len(difference) else 0.0
    cuts = [
        n + 1
        for n in range(len(grey) - 1)
        if difference[n] > max(CUT_DIFFERENCE, 4 * usual)
        and cv2.compareHist(histograms[n], histograms[n + 1], cv2.HISTCMP_CORREL) < CUT_CORRELATION
    ]
    edges = [0, *cuts, len(grey)]
    return [slice(a, b) for a, b in pairwise(edges)]


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


def _histogram(cv2: Any, frame: np.ndarray) -> np.ndarray:
    histogram = cv2.calcHist([frame], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
    return cv2.normalize(histogram, None).flatten()


def _fitted(cv2: Any, frame: np.ndarray, scale: float) -> np.ndarray:
    frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if scale == 1:
        return frame
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
