"""A film of one turn around a reconstruction, its frames going on meanwhile: GIF or MP4, by Pillow and OpenCV."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from coset.core.errors import CosetError, require
from coset.core.files import takes_paths, write_bytes
from coset.core.outside import read_bytes
from coset.motion.export import colours_of
from coset.motion.reconstruct import Reconstruction

ENDINGS = (".gif", ".mp4")
PAPER, INK, LINES, CAMERA = (223, 228, 235), (24, 32, 44), (110, 120, 135), (31, 99, 196)
SUBPIXELS = 4  # bits of the places that OpenCV draws at


@dataclass(frozen=True)
class TurntableOptions:
    """How the film looks.

    Attributes:
        size: Width and height.
        pictures: Of the turn, at least; a longer video has all its frames.
        rate: Pictures a second.
        pitch: Radians from which the scene is looked down on.
        still: Radius of points, pixels; those that move are larger.
    """

    size: tuple[int, int] = (560, 420)
    pictures: int = 72
    rate: float = 18.0
    pitch: float = 0.25
    still: float = 2.2


@takes_paths
def write_turntable(
    reconstruction: Reconstruction,
    path: Path,
    frames: UInt8[np.ndarray, "frames height width 3"] | None = None,
    options: TurntableOptions | None = None,
) -> None:
    """Write the film.

    Args:
        reconstruction: What is shown.
        path: File whose name ends in ``.gif`` or ``.mp4``.
        frames: Of the video, shown in a corner, if there are any.
        options: How it looks.

    Raises:
        CosetError: The name ends otherwise, or the file cannot be written.
    """
    check_ending(path)
    options = options or TurntableOptions()
    pictures = turn_of(reconstruction, frames, options)
    write_bytes(path, _gif(pictures, options) if path.suffix.lower() == ".gif" else _mp4(pictures, options))


def check_ending(path: Path) -> None:
    """Refuse names of other formats, and folders that are not there.

    Raises:
        CosetError: The name ends neither in ``.gif`` nor in ``.mp4``, or nothing can lie there.
    """
    if path.suffix.lower() not in ENDINGS:
        raise CosetError(f"{path}: a turn is written as a file that ends in {' or '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise CosetError(f"cannot write {path}: {os.strerror(errno.ENOENT)}")


def turn_of(
    reconstruction: Reconstruction, frames: np.ndarray | None, options: TurntableOptions
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """The pictures of the film."""
    count = max(options.pictures, reconstruction.tracks.frames)
    number = np.arange(count) % reconstruction.tracks.frames
    stage = _Stage.of(reconstruction, options)
    return [
        stage.picture(int(n), 0.35 + 2 * np.pi * i / count, None if frames is None else frames[n])
        for i, n in enumerate(number)
    ]


@dataclass(frozen=True)
class _Stage:
    """What is drawn, and how large it is."""

    points: Float[np.ndarray, "points frames 3"]
    colours: np.ndarray
    moving: np.ndarray
    corners: Float[np.ndarray, "frames 5 3"]
    centre: Float[np.ndarray, " 3"]
    radius: float
    options: TurntableOptions

    @classmethod
    def of(cls, reconstruction: Reconstruction, options: TurntableOptions) -> _Stage:
        prediction, k = reconstruction.prediction, reconstruction.tracks.intrinsics
        static = prediction.static.numpy()
        centre = np.median(static, 0)
        radius = float(np.median(np.linalg.norm(static - centre, axis=1))) or 1.0
        half = np.array(reconstruction.tracks.size) / (2 * k.focal)
        flat = np.array([[0, 0, 0], [-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]) * [*half, 1.0] * 0.35 * radius
        turned = np.einsum("nij,cj->nci", prediction.rotations.numpy(), flat)
        corners = prediction.positions.numpy()[:, None] + turned
        points, moving = reconstruction.points().numpy(), reconstruction.moving().numpy()
        return cls(points, colours_of(reconstruction), moving, corners, centre, radius, options)

    def seen(self, places: Float[np.ndarray, "*n 3"], yaw: float) -> Float[np.ndarray, "*n 3"]:
        """Pixels and depths from a place on the circle."""
        (width, height), pitch = self.options.size, self.options.pitch
        across = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        down = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        inside = (places - self.centre) @ (down @ across).T + [0, 0, 4 * self.radius]
        depth = np.maximum(inside[..., 2:], 1e-9)
        flat = inside[..., :2] / depth * 1.1 * min(width, height) + [width / 2, height / 2]
        return np.concatenate([flat, inside[..., 2:]], -1)

    def picture(self, n: int, yaw: float, frame: np.ndarray | None) -> UInt8[np.ndarray, "height width 3"]:
        cv2 = require("cv2", "motion")
        width, height = self.options.size
        canvas = np.full((height, width, 3), PAPER, np.uint8)
        self._cameras(cv2, canvas, n, yaw)
        seen = self.seen(self.points[:, n], yaw)
        near = 0.05 * self.radius
        for p in np.argsort(-seen[:, 2], kind="stable"):
            if seen[p, 2] > near and (np.abs(seen[p, :2]) < 1e5).all():
                size = self.options.still * float(np.clip(4 * self.radius / seen[p, 2], 0.6, 2.0))
                size *= 1.7 if self.moving[p] else 1.0
                _disc(cv2, canvas, seen[p, :2], size, self.colours[p], bool(self.moving[p]))
        if frame is not None:
            scale = min(width / 4 / frame.shape[1], height / 3 / frame.shape[0])
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            canvas[height - small.shape[0] - 6 : height - 6, width - small.shape[1] - 6 : width - 6] = small
        return canvas

    def _cameras(self, cv2: Any, canvas: np.ndarray, n: int, yaw: float) -> None:
        """The way of the camera, and where it is."""
        way = self.seen(self.corners[:, 0], yaw)
        here = self.seen(self.corners[n], yaw)
        sides = [(1, 2), (2, 3), (3, 4), (4, 1), *((0, i) for i in range(1, 5))]
        lines = [(way[m], way[m + 1], LINES) for m in range(len(way) - 1)]
        for a, b, colour in [*lines, *((here[i], here[j], CAMERA) for i, j in sides)]:
            if min(a[2], b[2]) > 0.05 * self.radius and np.abs([a[:2], b[:2]]).max() < 1e5:
                cv2.line(canvas, _shifted(a), _shifted(b), colour, 1, cv2.LINE_AA, SUBPIXELS)


def _shifted(place: np.ndarray) -> tuple[int, int]:
    x, y = np.round(place[:2] * (1 << SUBPIXELS)).astype(int)
    return int(x), int(y)


def _disc(cv2: Any, canvas: np.ndarray, at: np.ndarray, size: float, colour: np.ndarray, rim: bool) -> None:
    one = 1 << SUBPIXELS
    if rim:
        cv2.circle(canvas, _shifted(at), round((size + 1) * one), INK, -1, cv2.LINE_AA, SUBPIXELS)
    cv2.circle(canvas, _shifted(at), round(size * one), tuple(int(c) for c in colour), -1, cv2.LINE_AA, SUBPIXELS)


def _gif(pictures: list[np.ndarray], options: TurntableOptions) -> bytes:
    from PIL import Image

    first, *others = (Image.fromarray(picture).quantize(128) for picture in pictures)
    buffer = io.BytesIO()
    first.save(
        buffer, "GIF", save_all=True, append_images=others, duration=round(1000 / options.rate), loop=0, optimize=False
    )
    return buffer.getvalue()


def _mp4(pictures: list[np.ndarray], options: TurntableOptions) -> bytes:
    cv2 = require("cv2", "motion")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "turn.mp4"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), options.rate, options.size)
        for picture in pictures:
            writer.write(picture[..., ::-1])
        writer.release()
        if not file.exists() or not file.stat().st_size:
            raise CosetError("this OpenCV writes no MP4: take a name that ends in .gif")
        return read_bytes(file)
