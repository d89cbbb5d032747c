"""Point tracks of a video: where each point is seen in each frame, read from the files of most trackers.

A point that is not seen has no place: its coordinates are kept if a file gives them, for networks that look at them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from coset.core.errors import CosetError
from coset.core.files import takes_paths, write_bytes
from coset.core.outside import array_archive
from coset.motion.data.array_file import ArrayFile
from coset.motion.data.track_formats import SHARES, RawTracks, check_pinholes, read_tracks
from coset.motion.data.truth import Truth, other_way_round

LEAST_FRAMES, LEAST_POINTS = 3, 20
WIDEST, NARROWEST = 0.05, 100.0  # focal lengths over the mean of width and height beyond which a lens is a mistake
SAME = 1e-3  # of the focal length, within which cameras are the same but for rounding
MEAN = "mean of the file's"
"""Source of a camera in place of several, or of pixels that are not square, to whose pixels tracks were brought."""

BETWEEN = "mean of fx and fy"
"""Source of a focal length given in place of two."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole: focal length and principal point in pixels; and how its lens bends pictures.

    Attributes:
        source: Where the numbers come from; ``assumed`` where nobody gave them, ``guess`` where somebody is not sure,
            ``estimated`` where tracks told the focal length.
        radial: k of (u, v) -> (1 + k (u^2 + v^2)) (u, v) in normalised coordinates, as in COLMAP's SIMPLE_RADIAL.
        deviation: Standard deviation of an estimated focal length, over itself.
    """

    focal: float
    cx: float
    cy: float
    source: str = "given"
    radial: float = 0.0
    deviation: float = 0.0

    @property
    def known(self) -> bool:
        """Whether the focal length is held by a reconstruction."""
        return self.source not in ("assumed", "guess", "estimated")

    @classmethod
    def assumed(cls, width: float, height: float) -> Intrinsics:
        """Focal length the mean of width and height, centre in the middle, as the official code takes them."""
        return cls((width + height) / 2, width / 2, height / 2, "assumed")

    @classmethod
    def parse(cls, value: Any) -> Intrinsics:
        """From a 3 x 3 matrix, or (focal, cx, cy), or (fx, fy, cx, cy).

        Raises:
            CosetError: It has another shape, or makes no pinhole.
        """
        k = np.asarray(value, dtype=float)
        if k.shape == (3, 3):
            check_pinholes(k, "intrinsics")
            fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
        elif k.shape == (4,):
            fx, fy, cx, cy = k
        elif k.shape == (3,):
            fx, cx, cy = k
            fy = fx
        else:
            raise CosetError(f"intrinsics of shape {k.shape}: give a 3 x 3 matrix, fx,fy,cx,cy or f,cx,cy in pixels")
        if not np.isfinite(k).all() or fx <= 0 or fy <= 0:
            raise CosetError(f"intrinsics {k.tolist()}: focal lengths must be positive numbers of pixels")
        if abs(fx - fy) > 0.05 * fx:
            raise CosetError(f"intrinsics with fx={fx:g} and fy={fy:g}: pixels must be square (within 5 %)")
        return cls(float(fx + fy) / 2, float(cx), float(cy), "given" if abs(fx - fy) <= SAME * fx else BETWEEN)

    def checked(self, size: tuple[int, int], where: str) -> Intrinsics:
        """These intrinsics, if they may be those of pictures of a size.

        Raises:
            CosetError: The principal point lies outside, or no lens has such a focal length.
        """
        (width, height), of = size, f"pictures of {size[0]} x {size[1]}; expected pixels of these pictures"
        if not (0 < self.cx < width and 0 < self.cy < height):
            raise CosetError(f"{where}: the principal point ({self.cx:g}, {self.cy:g}) lies outside {of}")
        if not WIDEST <= self.focal / ((width + height) / 2) <= NARROWEST:
            raise CosetError(f"{where}: a focal length of {self.focal:g} is that of no lens for {of}")
        return self

    def straight(self, bent: Float[np.ndarray, "*batch 2"], rounds: int = 20) -> Float[np.ndarray, "*batch 2"]:
        """Normalised coordinates without the lens's distortion, by fixed-point iteration."""
        flat = bent
        for _ in range(rounds if self.radial else 0):
            flat = bent / np.maximum(1 + self.radial * np.square(flat).sum(-1, keepdims=True), 0.1)
        return flat

    def matrix(self) -> Float[np.ndarray, "3 3"]:
        return np.array([[self.focal, 0, self.cx], [0, self.focal, self.cy], [0, 0, 1]], dtype=float)


@dataclass(frozen=True)
class Tracks:
    """Tracks of P points over N frames.

    Attributes:
        xy: Pixels, x right and y down; the middle of the first pixel is (0, 0).
        visible: Whether a point is seen in a frame.
        size: Width and height of the frames.
        started_at: Frame in which each point was first picked.
        intrinsics: Of the camera; assumed from the size if not given.
        rate: Frames a second.
        colours: Red, green, blue of each point where it was picked, 0 to 255, if known.
        truth: What a test set tells of the scene.
        times: Seconds of each frame where they are not evenly spaced.
        size_is_known: Whether ``size`` was told, or no more than what the points span.
    """

    xy: Float[np.ndarray, "points frames 2"]
    visible: Bool[np.ndarray, "points frames"]
    size: tuple[int, int]
    started_at: Int[np.ndarray, " points"] = None  # type: ignore[assignment]  # settled below
    intrinsics: Intrinsics = None  # type: ignore[assignment]
    rate: float = 20.0
    colours: Num[np.ndarray, "points 3"] | None = None
    truth: Truth | None = None
    times: Float[np.ndarray, " frames"] | None = None
    size_is_known: bool = True

    def __post_init__(self) -> None:
        if self.started_at is None:
            object.__setattr__(self, "started_at", self.visible.argmax(1).astype(np.int64))
        if self.intrinsics is None:
            object.__setattr__(self, "intrinsics", Intrinsics.assumed(*self.size))

    @property
    def points(self) -> int:
        return self.xy.shape[0]

    @property
    def frames(self) -> int:
        return self.xy.shape[1]

    def seconds(self) -> Float[np.ndarray, " frames"]:
        """Time of each frame, from that of the first."""
        even = np.arange(self.frames) / self.rate
        return even if self.times is None else self.times - self.times[0]

    def tensor(self, unseen: bool = False) -> Float[Tensor, "points frames 3"]:
        """(x, y, visible) in normalised coordinates; zeros where a point is not seen.

        Args:
            unseen: Keep the coordinates of points that are not seen, where there are any: what networks with
                ``read_unseen`` look at.
        """
        k = self.intrinsics
        normalised = k.straight((self.xy - np.array([k.cx, k.cy])) / k.focal)
        kept = np.isfinite(normalised).all(-1) if unseen else self.visible
        stacked = np.concatenate([np.where(kept[..., None], normalised, 0.0), self.visible[..., None]], -1)
        return torch.from_numpy(stacked.astype(np.float32))

    def select(self, points: np.ndarray | slice | None = None, frames: slice | None = None) -> Tracks:
        """Some of the points, in a run of the frames."""
        rows = slice(None) if points is None else points
        run = slice(None) if frames is None else frames
        first = run.indices(self.frames)[0]
        return replace(
            self,
            xy=self.xy[rows][:, run],
            visible=self.visible[rows][:, run],
            started_at=np.maximum(self.started_at[rows] - first, 0),
            colours=None if self.colours is None else self.colours[rows],
            truth=None if self.truth is None else self.truth.select(rows, run),
            times=None if self.times is None else self.times[run],
        )

    def checked(self, where: str = "tracks") -> Tracks:
        """These tracks without points that are seen less than twice, if enough is left.

        Raises:
            CosetError: Too few frames or points, a visible point has no finite place, or too few points are seen before
                a frame and from there on.
        """
        if self.frames < LEAST_FRAMES:
            raise CosetError(f"{where}: {self.frames} frames; a reconstruction needs at least {LEAST_FRAMES}")
        bad = self.visible & ~np.isfinite(self.xy).all(-1)
        if bad.any():
            p, n = np.argwhere(bad)[0]
            raise CosetError(
                f"{where}: point {p} is visible in frame {n} but its place is {self.xy[p, n].tolist()}; "
                "mark it invisible or give numbers"
            )
        kept = self.visible.sum(1) >= 2
        if kept.sum() < LEAST_POINTS:
            raise CosetError(
                f"{where}: {int(kept.sum())} points are seen in two frames or more; at least {LEAST_POINTS} are needed"
            )
        alone = np.flatnonzero(self.visible[kept].sum(0) < 4)
        if len(alone):
            raise CosetError(f"{where}: frame {alone[0]} sees fewer than 4 of the points; cut the video there")
        frame, shared = self.seam()
        if shared < 4:
            raise CosetError(
                f"{where}: {shared} points are seen both before frame {frame} and from there on; at least 4 are "
                "needed, cut the video there"
            )
        return self.select(kept)

    def seam(self) -> tuple[int, int]:
        """The frame whose earlier and later frames share the fewest points, and how many."""
        seen = self.visible
        before, later = np.logical_or.accumulate(seen, 1), np.logical_or.accumulate(seen[:, ::-1], 1)[:, ::-1]
        shared = (before[:, :-1] & later[:, 1:]).sum(0)
        return int(shared.argmin()) + 1, int(shared.min())


@takes_paths
def save(tracks: Tracks, path: Path) -> None:
    """Write an NPZ of CoTracker's form, which the authors' code of TracksTo4D loads too, and ours.

    ``pred_tracks`` [1, N, P, 2], ``pred_visibility`` [1, N, P], ``started_at`` [1, 1, P]; ``Ks_all`` [N, 3, 3] unless
    the intrinsics are assumed; ``Ms_all``, ``GT_depth_tracks_all`` and ``GT_mask_tracks_all`` if the truth is known.

    Raises:
        CosetError: The file cannot be written.
    """
    k = tracks.intrinsics
    arrays: dict[str, Any] = {
        "pred_tracks": tracks.xy.transpose(1, 0, 2)[None].astype(np.float32),
        "pred_visibility": tracks.visible.T[None],
        "started_at": tracks.started_at[None, None],
        "image_size": np.array(tracks.size),
        "intrinsics": k.matrix(),
        "intrinsics_source": np.array(k.source),
        "intrinsics_radial": np.array(k.radial),
        "rate": np.array(tracks.rate),
    }
    if k.source != "assumed":
        arrays["Ks_all"] = np.repeat(k.matrix()[None], tracks.frames, 0)
    if tracks.times is not None:
        arrays["times"] = tracks.times
    if tracks.colours is not None:
        arrays["colours"] = tracks.colours.astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{**arrays, **_truth_arrays(tracks)})
    write_bytes(path, buffer.getvalue())


@takes_paths
def load(path: Path, intrinsics: Intrinsics | None = None) -> Tracks:
    """Read an NPZ of any form that :mod:`coset.motion.data.track_formats` knows.

    Pixels of frames with intrinsics of their own are brought to one pinhole, so that normalised coordinates stay.

    Args:
        path: The file.
        intrinsics: Taken in place of the file's.

    Raises:
        CosetError: The file is missing, is no NPZ, lacks an array, has one of a shape that does not fit, or may mean
            two things.
    """
    with array_archive(path) as archive:
        return _tracks_of(ArrayFile(archive), intrinsics)


def _tracks_of(file: ArrayFile, given: Intrinsics | None) -> Tracks:
    raw = read_tracks(file)
    path = file.path
    xy, k = (raw.xy, given) if given is not None else _camera_of(file, raw)
    size = raw.size or _size(xy, raw.visible, k, path)
    if k is not None:
        k = k.checked(size, f"{path}: intrinsics" if given is None else "intrinsics")
    seen = np.abs(xy[raw.visible & np.isfinite(xy).all(-1)])
    if len(seen) and seen.max() <= SHARES:
        raise CosetError(
            f"{path}: all points lie within {SHARES} pixels of the corner; shares of the picture are named points, "
            "with occluded and image_size"
        )
    if (
        raw.truth is not None
        and k is not None
        and other_way_round(raw.truth, (xy - [k.cx, k.cy]) / k.focal, raw.visible)
    ):
        raise CosetError(
            f"{path}: with cameras the other way round, points stand still three times better; expected matrices from "
            "the world to the camera"
        )
    started = raw.visible.argmax(1).astype(np.int64) if raw.started_at is None else raw.started_at
    lens, known = k or Intrinsics.assumed(*size), raw.size is not None
    rate, times = _clock(file, xy.shape[1])
    return Tracks(xy, raw.visible, size, started, lens, rate, _colours(file, len(xy)), raw.truth, times, known)


def _camera_of(file: ArrayFile, raw: RawTracks) -> tuple[Float[np.ndarray, "points frames 2"], Intrinsics | None]:
    """Tracks and camera of a file; pixels are brought to one pinhole where there are several, or none are square."""
    ours = "intrinsics_source" in file
    if raw.matrices is not None and not ours:
        return one_pinhole(raw.xy, raw.matrices, file.path)
    if "intrinsics" not in file:
        return raw.xy, None
    try:
        k = Intrinsics.parse(file["intrinsics"])
    except CosetError as error:
        raise CosetError(f"{file.path}: {error}") from error
    if ours:
        return raw.xy, replace(k, source=file.text("intrinsics_source"), radial=file.number("intrinsics_radial") or 0.0)
    matrix, numbers = k.matrix(), file["intrinsics"].astype(float)
    if numbers.size > 3:
        matrix[[0, 1], [0, 1]] = numbers[:2] if numbers.ndim == 1 else numbers[[0, 1], [0, 1]]
    return one_pinhole(raw.xy, matrix, file.path)


def _clock(file: ArrayFile, frames: int) -> tuple[float, Float[np.ndarray, " frames"] | None]:
    """Frames a second, and the seconds of each if they are told.

    Raises:
        CosetError: The rate is no positive number, or the seconds do not grow.
    """
    rate, times = file.number("rate"), file.get("times")
    if rate is not None and not (np.isfinite(rate) and rate > 0):
        raise CosetError(f"{file.path}: rate is {rate:g}; expected frames a second")
    if times is not None and (
        times.shape != (frames,) or not (np.isfinite(times).all() and (np.diff(times) > 0).all())
    ):
        raise CosetError(f"{file.path}: times has shape {times.shape}; expected {frames} seconds that grow")
    return 20.0 if rate is None else rate, times


def _colours(file: ArrayFile, points: int) -> Num[np.ndarray, "points 3"] | None:
    """Colours of points, if the file has them.

    Raises:
        CosetError: They have another shape, or are no numbers of 0 to 255.
    """
    colours = file.get("colours")
    if colours is None:
        return None
    if colours.shape != (points, 3):
        raise CosetError(f"{file.path}: colours has shape {colours.shape}; expected ({points}, 3)")
    shares = bool((colours != np.round(colours)).any() and (colours <= 1).all())
    if shares or not ((colours >= 0) & (colours <= 255)).all():
        low, high = colours.min(), colours.max()
        raise CosetError(f"{file.path}: colours holds {low:g} to {high:g}; expected red, green, blue of 0 to 255")
    return colours


@takes_paths
def one_pinhole(
    xy: Float[np.ndarray, "points frames 2"], matrices: Float[np.ndarray, "*frames 3 3"], path: Path
) -> tuple[Float[np.ndarray, "points frames 2"], Intrinsics]:
    """Pixels of a camera that is the mean of those of all frames, with square pixels; and that camera.

    Raises:
        CosetError: A focal length is no positive number.
    """
    each = matrices.reshape(-1, 3, 3)
    focal, centre = each[:, [0, 1], [0, 1]], each[:, :2, 2]
    if not (np.isfinite(each).all() and (focal > 0).all()):
        raise CosetError(f"{path}: intrinsics with focal lengths {focal[0].tolist()}; expected positive numbers")
    k = Intrinsics(float(focal.mean()), float(centre[:, 0].mean()), float(centre[:, 1].mean()), "file")
    if np.array_equal(focal, np.full_like(focal, k.focal)) and np.array_equal(centre, centre[:1].repeat(len(each), 0)):
        return xy, k
    if max(np.ptp(focal) / k.focal, np.ptp(centre, 0).max() / k.focal) > SAME:
        k = replace(k, source=MEAN)
    return (xy - centre) / focal * k.focal + np.array([k.cx, k.cy]), k


def _truth_arrays(tracks: Tracks) -> dict[str, np.ndarray]:
    truth = tracks.truth or Truth()
    arrays = {"Ms_all": truth.world_to_camera()}
    arrays["GT_depth_tracks_all"] = None if truth.depth is None else truth.depth.T[None]
    if truth.moving is not None:
        arrays["GT_mask_tracks_all"] = np.repeat(truth.moving[None, None], tracks.frames, 1).astype(np.uint8)
    return {name: array for name, array in arrays.items() if array is not None}


def _size(xy: np.ndarray, visible: np.ndarray, k: Intrinsics | None, path: Path) -> tuple[int, int]:
    """Width and height: twice the principal point if all that is seen lies within, or the largest coordinates."""
    seen = xy[visible & np.isfinite(xy).all(-1)]
    if not len(seen):
        raise CosetError(f"{path}: no point is visible in any frame")
    width, height = np.maximum(np.ceil(seen.max(0)), 1)
    if k is not None and width <= 2 * k.cx and height <= 2 * k.cy:
        return round(2 * k.cx), round(2 * k.cy)
    return int(width), int(height)
