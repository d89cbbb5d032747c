"""Clips of ViSP's images with known cameras and depths: ``mbt-depth/Castle-simu`` of Debian's ``visp-images-data``.

A folder has ``Images/Image_0001.pgm``, ``CameraPose/Camera_001.txt`` (4 x 4, what the world is to the camera, metres)
and ``Depth/Depth_0001.bin`` (height and width in 32 bits, then depths in 16 bits, little-endian, of 2^-15 metres; 0
where nothing is). The lens of Castle-simu is in ``Config/chateau.xml``: 700 pixels, (320, 240). Depths are those of a
second camera, 5 cm to the right of the one whose pictures and poses these are (its own frames then agree with one
another within 0.02 %; taken as the first camera's they are off by 3 to 10 %): they are brought into the first.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.outside import read_bytes, read_text
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.data.truth import Truth, cameras_of

DEPTH_UNIT = 2.0**-15  # metres
BESIDE = 0.05  # metres from the camera of the pictures to that of the depths, along x
MOST = 1 << 26  # bytes of a file of depths
LENS = ("px", "py", "u0", "v0")


@dataclass(frozen=True)
class KnownClip:
    """What is true of a folder of pictures.

    Attributes:
        rotations, positions: The camera of a frame sees Y = R^T (X - t), metres.
        depth: Of every pixel, metres; 0 where nothing is.
        intrinsics: The lens.
    """

    rotations: Float[np.ndarray, "frames 3 3"]
    positions: Float[np.ndarray, "frames 3"]
    depth: Float[np.ndarray, "frames height width"]
    intrinsics: Intrinsics

    def with_truth(self, tracks: Tracks) -> Tracks:
        """Tracks of the pictures, the true depth of an observation being that of its pixel; nothing moves.

        Raises:
            CosetError: They are of another number of frames, or of pictures of another size.
        """
        frames, height, width = self.depth.shape
        if (tracks.frames, tracks.size) != (frames, (width, height)):
            raise CosetError(
                f"tracks of {tracks.frames} frames of {tracks.size}, but depths of {frames} frames of {(width, height)}"
            )
        x, y = np.moveaxis(np.clip(np.round(tracks.xy), 0, [width - 1, height - 1]).astype(int), -1, 0)
        depth = self.depth[np.arange(frames), y, x]
        still = np.zeros(tracks.points, bool)
        return replace(tracks, truth=Truth(depth, self.rotations, self.positions, still))


@takes_paths
def read_known_clip(folder: Path) -> KnownClip:
    """Cameras, depths and lens of a folder as above; its pictures are read by ``video.read_video(folder/Images)``.

    Raises:
        CosetError: A file is missing or is not what it should be.
    """
    poses, depths = sorted((folder / "CameraPose").glob("*.txt")), sorted((folder / "Depth").glob("*.bin"))
    if not poses or len(poses) != len(depths):
        raise CosetError(f"{folder}: {len(poses)} files in CameraPose and {len(depths)} in Depth; there is one a frame")
    matrices = np.stack([_pose(path) for path in poses])
    try:
        rotations, positions = cameras_of(matrices)
    except ValueError as error:
        raise CosetError(f"{folder / 'CameraPose'}: {error}") from error
    maps = [_depth(path) for path in depths]
    if len({part.shape for part in maps}) > 1:
        raise CosetError(f"{folder / 'Depth'}: depths of several sizes")
    lens = _lens(folder / "Config" / "chateau.xml")
    return KnownClip(rotations, positions, np.stack([seen_beside(part, lens.focal * BESIDE) for part in maps]), lens)


def seen_beside(depth: Float[np.ndarray, "height width"], shift: float) -> Float[np.ndarray, "height width"]:
    """Depths as a camera sees them that stands beside the one they are of, with the same axes and lens.

    Args:
        depth: 0 where nothing is.
        shift: How far to the left the other camera stands, times the focal length in pixels: what is at depth z is
            seen ``shift / z`` pixels further to the right.

    Returns:
        Depths; 0 where nothing is, or where the first camera does not see.
    """
    height, width = depth.shape
    row, column = np.nonzero(depth)
    z = depth[row, column]
    at = column + shift / z
    found = np.full((height, width), np.inf)
    for reached in (np.floor(at).astype(int), np.ceil(at).astype(int)):
        inside = (reached >= 0) & (reached < width)
        np.minimum.at(found, (row[inside], reached[inside]), z[inside])
    return np.where(np.isfinite(found), found, 0.0)


def _pose(path: Path) -> Float[np.ndarray, "4 4"]:
    try:
        rows = [
            [float(word) for word in line.split()] for line in read_text(path, 1 << 16).splitlines() if line.strip()
        ]
        return np.array(rows).reshape(4, 4)
    except ValueError as error:
        raise CosetError(f"{path}: a pose is four rows of four numbers") from error


def _depth(path: Path) -> Float[np.ndarray, "height width"]:
    content = read_bytes(path, MOST)
    height, width = struct.unpack("<II", content[:8]) if len(content) >= 8 else (0, 0)
    if not height * width or len(content) != 8 + 2 * height * width:
        raise CosetError(f"{path}: {len(content)} bytes are no depths of {height} x {width} pixels in 16 bits")
    return np.frombuffer(content, "<u2", offset=8).reshape(height, width) * DEPTH_UNIT


def _lens(path: Path) -> Intrinsics:
    """Of ViSP's settings: the numbers of ``<camera>``."""
    text = read_text(path, 1 << 20)
    found = {name: re.search(rf"<{name}>\s*([0-9.]{{1,20}})\s*</{name}>", text) for name in LENS}
    if not all(found.values()):
        raise CosetError(f"{path}: no {' '.join(LENS)} of a camera")
    px, py, u0, v0 = (float(match[1]) for match in found.values() if match)
    return Intrinsics.parse([px, py, u0, v0])
