"""``index.html``: cameras and moving points to turn with the mouse, the frame beside them; one file, offline."""

from __future__ import annotations

import base64
import html
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from coset.core.files import json_text, takes_paths, write_text
from coset.motion.export import colours_of
from coset.motion.reconstruct import Reconstruction
from coset.reports.page import head

WIDE = 480  # pixels of the pictures kept in the page
PICTURE_BYTES = 25_000_000  # of all of them together; beyond it they get smaller


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
    page = resources.files("coset.motion").joinpath("static", "viewer.html").read_text(encoding="utf-8")
    data = script_text(page_data(reconstruction, frames))
    lead = " ".join(f"{note[:1].upper()}{note[1:]}." for note in reconstruction.notes)
    style, top = head(title, "cameras and points", verdict(reconstruction), lead)
    before, after = page.split("__TOP__")
    before = before.replace("__STYLE__", style).replace("__TITLE__", html.escape(title))
    after = after.replace("__DATA__", data)
    write_text(path, before + top + after)


def verdict(reconstruction: Reconstruction) -> str:
    """How well the cameras and points explain what was seen."""
    measured, tracks = reconstruction.metrics(), reconstruction.tracks
    moving = measured["moving_points"]
    return (
        f"{tracks.points} points and the camera over {tracks.frames} frames: seen again "
        f"{measured['reprojection_median_px']:.2g} pixels from where they were tracked (median); "
        f"{moving} {'point moves' if moving == 1 else 'points move'}."
    )


def page_data(reconstruction: Reconstruction, frames: np.ndarray | None = None) -> dict[str, Any]:
    """Everything that the page draws, rounded to what a screen can show."""
    p, tracks = reconstruction.prediction, reconstruction.tracks
    k = tracks.intrinsics
    first = tracks.visible.argmax(1)
    last = tracks.frames - tracks.visible[:, ::-1].argmax(1)
    places = [tracks.xy[i, a:b].round(1).tolist() for i, (a, b) in enumerate(zip(first, last, strict=True))]
    metrics = reconstruction.metrics()
    facts = [[name.replace("_", " "), _number(value)] for name, value in metrics.items()]
    return {
        "facts": facts,
        "basis": _rounded(p.basis),
        "coefficients": _rounded(p.coefficients),
        "gamma": p.gamma.numpy().astype(float).tolist(),
        "moving": reconstruction.moving().int().tolist(),
        "rotations": _rounded(p.rotations),
        "positions": _rounded(p.positions),
        "focal": p.focal.tolist(),
        "intrinsics": [k.focal, k.cx, k.cy],
        "radial": k.radial,
        "warning": warning(reconstruction),
        "size": list(tracks.size),
        "rate": tracks.rate,
        "times": tracks.seconds().round(4).tolist(),
        "coloured": tracks.colours is not None,
        "colours": colours_of(reconstruction).astype(int).tolist(),
        "visible": ["".join("1" if seen else "0" for seen in row) for row in tracks.visible],
        "first": first.tolist(),
        "tracks": places,
        "pictures": [] if frames is None else _pictures(frames),
    }


def warning(reconstruction: Reconstruction) -> str:
    """What a visitor must know before believing the picture; empty if there is nothing."""
    if not reconstruction.depth_known:
        return "Depth cannot be known here: the camera does not move from its place. Points are directions on a sphere."
    unknown = sum(not body.known for body in reconstruction.bodies)
    return f"The depth of {unknown} moving bodies is not measured: see the notes." if unknown else ""


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
