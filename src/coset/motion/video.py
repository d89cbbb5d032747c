"""Frames of a video, or of a folder of pictures, and where one shot ends and the next begins."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from coset.core.errors import CosetError, require
from coset.core.files import takes_paths
from coset.core.outside import check_regular

# Decoders complain about every damaged block on the terminal; what matters is said once, by read_video. OpenCV looks at
# this when it first opens a video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

CUT_CORRELATION, CUT_DIFFERENCE = 0.6, 12.0  # colour histograms; mean difference of small grey pictures of 0..255
MOST_BYTES = 1 << 33
"""Of all frames in memory."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
"""Endings of the pictures of a folder."""
UNEVEN = 1.5  # longest over shortest time between frames, from which on a video has a variable frame rate


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


def _histogram(cv2: Any, frame: np.ndarray) -> np.ndarray:
    histogram = cv2.calcHist([frame], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
    return cv2.normalize(histogram, None).flatten()


def _fitted(cv2: Any, frame: np.ndarray, scale: float) -> np.ndarray:
    frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if scale == 1:
        return frame
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
