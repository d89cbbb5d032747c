"""Clips with known depths and cameras, measured as the official evaluation of TracksTo4D measures its test set.

Of a clip the first 50 frames count, and the points that were picked in them and are seen in more than ten of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from coset.core.errors import CosetError
from coset.motion.data.tracks import Tracks, load
from coset.motion.models.trackster4d import TracksTo4D
from coset.motion.reconstruct import Options, reconstruct

FRAMES, SEEN = 50, 10
SHOWN = (
    "reprojection_mean_px", "ate", "rpe_translation", "rpe_rotation", "abs_rel", "delta1", "delta2", "delta3",
    "dynamic_abs_rel", "dynamic_delta1", "dynamic_delta2", "dynamic_delta3", "seconds",
)  # fmt: skip
"""Of a clip; depths in shares, cameras in the units of the truth and degrees. ``reprojection_mean_px`` in pixels."""


def selected(tracks: Tracks, frames: int = FRAMES, seen: int = SEEN) -> Tracks:
    """The first frames, and the points that started in them and are seen in more than ``seen`` of them."""
    clip = tracks.select(frames=slice(0, frames))
    return clip.select(np.flatnonzero((tracks.started_at < frames) & (clip.visible.sum(1) > seen)))


def evaluate_clips(
    paths: Sequence[Path], model: TracksTo4D, options: Options, each: Callable[[], object] = lambda: None
) -> tuple[pd.DataFrame, list[str]]:
    """A row a clip, and what is to be said of clips that could not be measured.

    Args:
        paths: NPZ of tracks with a truth.
        model: The network.
        options: How to reconstruct; the published numbers are without refinement, or with fine-tuning.
        each: Called after every clip.

    Raises:
        CosetError: No clip could be measured.
    """
    rows, notes = [], []
    for path in paths:
        try:
            tracks = selected(load(path)).checked(str(path))
            if tracks.truth is None:
                raise CosetError(f"{path} has no truth: Ms_all, GT_depth_tracks_all or the like")
            started = time.process_time()
            result = reconstruct(tracks, model, options)
            row = {"clip": path.stem, **result.metrics(), "seconds": time.process_time() - started}
            rows.append(row)
            notes += _unmeasured(path, row, result.depth_known)
        except CosetError as error:
            notes.append(str(error) if str(path) in str(error) else f"{path}: {error}")
        each()
    if not rows:
        raise CosetError(notes[0] if notes else "no clips: give NPZ files of tracks with their truth")
    table = pd.DataFrame(rows)
    return table[["clip", "frames", "points", *(name for name in SHOWN if name in table)]], notes


def _unmeasured(path: Path, row: dict, depth_known: bool) -> list[str]:
    """What is to be said of a clip that means and medians of some errors leave out."""
    if not depth_known:
        return [f"{path}: the camera only turns or stands still, so that depths and cameras are not measured"]
    without = [name for name in ("ate", "abs_rel") if name in row and math.isnan(row[name])]
    why = {"ate": "the true camera stays in its place", "abs_rel": "no depth of what is visible is known"}
    return [f"{path}: {why[name]}, so that {name} is not measured" for name in without]


def averages(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean and median over clips, as the official evaluation prints them."""
    numbers = table.drop(columns=["clip", "frames", "points"])
    return {
        kind: {str(name): float(value) for name, value in getattr(numbers, kind)().items()}
        for kind in ("mean", "median")
    }  # fmt: skip
