"""``index.html``: cameras and moving points to turn with the mouse, the frame beside them; one file, offline."""

from __future__ import annotations

import base64
import html
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from coset.core.files import json_text, takes_paths, write_text
from coset.motion.export import colours_of
from coset.motion.reconstruct import Reconstruction
from coset.motion.verdict import verdict
from coset.reports.page import head

STATIC = ("viewer.html", "painters.js", "gif.js", "viewer.js")
WIDE = 480  # pixels of the pictures kept in the page
PICTURE_BYTES = 25_000_000  # of all of them together; beyond it they get smaller
IN_PICTURE = 1200  # points whose tracks are drawn on the frames; of more, those that move and some of the others
STEPS = 16  # to a pixel, in which tracks are kept


@takes_paths
def write_viewer(reconstruction: Reconstruction, path: Path, title: str, frames: np.ndarray | None = None) -> None:
    """Write the page.

    Args:
        reconstruction: What is shown.
        path: The file.
        title: Heading.
        frames: Pictures of the video [N, H, W, 3], if there are any.

    Raises:
        CosetError: The file cannot be written.
    """
    page, *scripts = (
        resources.files("coset.motion").joinpath("static", name).read_text(encoding="utf-8") for name in STATIC
    )
    data = script_text(page_data(reconstruction, frames))
    lead = " ".join(f"{note[:1].upper()}{note[1:]}." for note in reconstruction.notes)
    style, top = head(title, "cameras and points", verdict(reconstruction), lead)
    before, after = page.split("__TOP__")
    before = before.replace("__STYLE__", style).replace("__TITLE__", html.escape(title))
    after = after.replace("__SCRIPT__", "\n".join(scripts)).replace("__DATA__", data)
    write_text(path, before + top + after)


def page_data(reconstruction: Reconstruction, frames: np.ndarray | None = None) -> dict[str, Any]:
    """Everything that the page draws; what there is a number of for every point is packed."""
    p, tracks = reconstruction.prediction, reconstruction.tracks
    k = tracks.intrinsics
    return {
        "facts": [[name.replace("_", " "), _number(value)] for name, value in reconstruction.metrics().items()],
        "coefficients": _rounded(p.coefficients),
        "rotations": _rounded(p.rotations),
        "positions": _rounded(p.positions),
        "focal": p.focal.tolist(),
        "intrinsics": [k.focal, k.cx, k.cy],
        "radial": k.radial,
        "size": list(tracks.size),
        "rate": tracks.rate,
        "times": tracks.seconds().round(4).tolist(),
        "coloured": tracks.colours is not None,
        "arrays": {name: packed(array) for name, array in _arrays(reconstruction).items()},
        "pictures": [] if frames is None else _pictures(frames),
    }


def _arrays(reconstruction: Reconstruction) -> dict[str, np.ndarray]:
    """Points, and their tracks in the frames: of the rows ``drawn``, from the frames ``first`` to the last sights.

    Only points of the rows ``clouded`` have ``clouds`` beside the static one, in ``units`` of each; ``visible`` has a
    bit for each point and frame.
    """
    p, tracks = reconstruction.prediction, reconstruction.tracks
    moving, static = reconstruction.moving().numpy(), p.static.numpy()
    largest = np.abs(p.basis[:, 1:].numpy()).reshape(len(static), -1).max(1, initial=0)
    clouded = np.flatnonzero(largest > 0)
    unit = largest[clouded] / np.iinfo(np.int16).max
    drawn = in_picture(moving)
    first = tracks.visible.argmax(1)[drawn]
    last = tracks.frames - tracks.visible[drawn, ::-1].argmax(1)
    runs = [tracks.xy[i, a:b] for i, a, b in zip(drawn, first, last, strict=True)]
    limit = np.iinfo(np.int16)
    return {
        "static": static.astype("<f4"),
        "clouded": clouded.astype("<i4"),
        "units": unit.astype("<f4"),
        "clouds": np.round(p.basis[:, 1:].numpy()[clouded] / unit[:, None, None]).astype("<i2"),
        "gamma": p.gamma.numpy().astype("<f4"),
        "radius": radii(static).astype("<f4"),
        "moving": moving.astype("u1"),
        "colours": colours_of(reconstruction).astype("u1"),
        "visible": np.packbits(tracks.visible.ravel()),
        "drawn": drawn.astype("<i4"),
        "first": first.astype("<i4"),
        "offsets": np.cumsum([0, *(len(run) for run in runs[:-1])]).astype("<i4"),
        "tracks": np.clip(np.round(STEPS * np.concatenate(runs)), limit.min, limit.max).astype("<i2"),
    }


def in_picture(moving: Bool[np.ndarray, " points"]) -> Int[np.ndarray, " drawn"]:
    """Points whose tracks are drawn on the frames: all, or at most half of them moving ones, evenly taken."""
    if len(moving) <= IN_PICTURE:
        return np.arange(len(moving))

    def evenly(rows: np.ndarray, count: int) -> np.ndarray:
        return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)] if len(rows) else rows

    movers = evenly(np.flatnonzero(moving), IN_PICTURE // 2)
    return np.sort(np.concatenate([movers, evenly(np.flatnonzero(~moving), IN_PICTURE - len(movers))]))


def radii(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, " points"]:
    """Half of the way to the next point: where points are dense, discs of these radii close to a surface."""
    apart = cKDTree(points).query(points, k=2)[0][:, 1] / 2
    return np.clip(apart, *np.quantile(apart, [0.4, 0.8]))


def packed(array: np.ndarray) -> dict[str, str]:
    """An array as text: its kind, and its bytes in base 64."""
    kind = array.dtype.str.lstrip("<|")
    return {"kind": kind, "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")}


def script_text(value: Any) -> str:
    """JSON in which nothing can end the script element that holds it; numbers that are not finite are null."""
    text = json_text(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _pictures(frames: np.ndarray) -> list[str]:
    import io

    from PIL import Image

    quality, width = 70, min(WIDE, frames.shape[2])
    height = round(frames.shape[1] * width / frames.shape[2])
    sources: list[str] = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).resize((width, height)).save(buffer, "JPEG", quality=quality)
        if not sources and buffer.tell() * len(frames) > PICTURE_BYTES:
            quality = 40
        sources.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
    return sources


def _rounded(value: Any) -> Any:
    return np.round(value.numpy().astype(float), 5).tolist()


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
