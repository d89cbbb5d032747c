"""Point tracks of a video: where each point is seen in each frame, in files of CoTracker's or TAPIR's form.

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
from coset.core.files import write_bytes
from coset.core.outside import read_arrays

LEAST_FRAMES, LEAST_POINTS = 3, 20


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole: focal length and principal point in pixels.

    Attributes:
        source: Where the numbers come from; ``assumed`` where nobody gave them.
    """

    focal: float
    cx: float
    cy: float
    source: str = "given"

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
        return cls(float(fx + fy) / 2, float(cx), float(cy))

    def matrix(self) -> Float[np.ndarray, "3 3"]:
        return np.array([[self.focal, 0, self.cx], [0, self.focal, self.cy], [0, 0, 1]])


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
    """

    xy: Float[np.ndarray, "points frames 2"]
    visible: Bool[np.ndarray, "points frames"]
    size: tuple[int, int]
    started_at: Int[np.ndarray, " points"] = None  # type: ignore[assignment]  # settled below
    intrinsics: Intrinsics = None  # type: ignore[assignment]
    rate: float = 20.0
    colours: Num[np.ndarray, "points 3"] | None = None

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

    def tensor(self, unseen: bool = False) -> Float[Tensor, "points frames 3"]:
        """(x, y, visible) in normalised coordinates; zeros where a point is not seen.

        Args:
            unseen: Keep the coordinates of points that are not seen, where there are any: what networks with
                ``read_unseen`` look at.
        """
        k = self.intrinsics
        normalised = (self.xy - np.array([k.cx, k.cy])) / k.focal
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
        )

    def checked(self, where: str = "tracks") -> Tracks:
        """These tracks without points that are seen less than twice, if enough is left.

        Raises:
            CosetError: Too few frames or points, or a visible point has no finite place.
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
        return self.select(kept)


def save(tracks: Tracks, path: Path) -> None:
    """Write an NPZ of CoTracker's form: pred_tracks [1, N, P, 2], pred_visibility [1, N, P], started_at [P]; and ours.

    Raises:
        CosetError: The file cannot be written.
    """
    k = tracks.intrinsics
    arrays: dict[str, Any] = {
        "pred_tracks": tracks.xy.transpose(1, 0, 2)[None].astype(np.float32),
        "pred_visibility": tracks.visible.T[None],
        "started_at": tracks.started_at,
        "image_size": np.array(tracks.size),
        "intrinsics": k.matrix(),
        "intrinsics_source": np.array(k.source),
        "rate": np.array(tracks.rate),
    }
    if tracks.colours is not None:
        arrays["colours"] = tracks.colours.astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def load(path: Path, intrinsics: Intrinsics | None = None) -> Tracks:
    """Read an NPZ: ``pred_tracks`` [1, N, P, 2] and ``pred_visibility``, or ``tracks`` [P, N, 2] and ``visibles``.

    TAPIR's ``occluded`` is understood in place of ``visibles``.

    Raises:
        CosetError: The file is missing, is no NPZ, lacks an array, or one has a shape that does not fit.
    """
    arrays = _read(path)
    if "pred_tracks" in arrays:
        xy, visible = _cotracker(arrays, path)
    elif "tracks" in arrays:
        xy, visible = _tapir(arrays, path)
    else:
        have = ", ".join(sorted(arrays)) or "nothing"
        raise CosetError(f"{path} holds {have}; expected pred_tracks and pred_visibility, or tracks and visibles")
    size = _size(arrays, xy, visible, path)
    if intrinsics is None and "intrinsics" in arrays:
        parsed = Intrinsics.parse(arrays["intrinsics"])
        intrinsics = replace(parsed, source=str(arrays.get("intrinsics_source", "file")))
    started = np.asarray(arrays.get("started_at", visible.argmax(1))).reshape(-1).astype(np.int64)
    if started.shape != (len(xy),):
        raise CosetError(f"{path}: started_at has {started.size} entries for {len(xy)} points")
    colours = arrays.get("colours")
    if colours is not None and colours.shape != (len(xy), 3):
        raise CosetError(f"{path}: colours has shape {colours.shape}; expected ({len(xy)}, 3)")
    rate = float(np.asarray(arrays.get("rate", 20.0)))
    return Tracks(xy, visible, size, started, intrinsics or Intrinsics.assumed(*size), rate, colours)


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path)
    if list(arrays) == [""]:
        raise CosetError(f"{path} holds a single array; expected an NPZ with pred_tracks and pred_visibility")
    wrong = next((name for name, array in arrays.items() if array.dtype.kind not in "biufUS"), None)
    if wrong is not None:
        raise CosetError(f"{path}: {wrong} has type {arrays[wrong].dtype}; numbers were expected")
    return arrays


def _cotracker(arrays: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray]:
    xy = arrays["pred_tracks"]
    if xy.ndim == 4 and xy.shape[0] == 1:
        xy = xy[0]
    if xy.ndim != 3 or xy.shape[-1] != 2:
        raise CosetError(
            f"{path}: pred_tracks has shape {arrays['pred_tracks'].shape}; expected (1, frames, points, 2)"
        )
    if "pred_visibility" not in arrays:
        raise CosetError(f"{path} has pred_tracks but no pred_visibility (1, frames, points)")
    visible = arrays["pred_visibility"]
    if visible.ndim == 4 and visible.shape[-1] == 1:
        visible = visible[..., 0]
    if visible.ndim == 3 and visible.shape[0] == 1:
        visible = visible[0]
    if visible.shape != xy.shape[:2]:
        shape = (1, *xy.shape[:2])
        raise CosetError(f"{path}: pred_visibility has shape {arrays['pred_visibility'].shape}; expected {shape}")
    return xy.transpose(1, 0, 2).astype(np.float64), _boolean(visible).T.copy()


def _tapir(arrays: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray]:
    xy = arrays["tracks"]
    if xy.ndim == 4 and xy.shape[0] == 1:
        xy = xy[0]
    if xy.ndim != 3 or xy.shape[-1] != 2:
        raise CosetError(f"{path}: tracks has shape {arrays['tracks'].shape}; expected (points, frames, 2)")
    if "visibles" in arrays:
        visible = _boolean(arrays["visibles"])
    elif "occluded" in arrays:
        visible = ~_boolean(arrays["occluded"])
    else:
        raise CosetError(f"{path} has tracks but neither visibles nor occluded (points, frames)")
    visible = visible[0] if visible.ndim == 3 and visible.shape[0] == 1 else visible
    if visible.shape != xy.shape[:2]:
        raise CosetError(f"{path}: visibility has shape {visible.shape}; expected {xy.shape[:2]}")
    return xy.astype(np.float64), visible


def _boolean(values: np.ndarray) -> np.ndarray:
    """Visibility may come as booleans, as 0 and 1, or as probabilities."""
    return values if values.dtype == bool else np.nan_to_num(values.astype(float)) > 0.5


def _size(arrays: dict[str, np.ndarray], xy: np.ndarray, visible: np.ndarray, path: Path) -> tuple[int, int]:
    """Width and height: as the file says, or the largest visible coordinates."""
    if "image_size" in arrays:
        size = np.asarray(arrays["image_size"]).reshape(-1)
        if size.shape != (2,) or (size <= 0).any():
            raise CosetError(f"{path}: image_size is {size.tolist()}; expected width and height in pixels")
        return int(size[0]), int(size[1])
    seen = xy[visible & np.isfinite(xy).all(-1)]
    if not len(seen):
        raise CosetError(f"{path}: no point is visible in any frame")
    width, height = np.maximum(np.ceil(seen.max(0)), 1)
    return int(width), int(height)
