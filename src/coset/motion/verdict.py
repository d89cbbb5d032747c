"""What came out of a reconstruction, in a sentence or two: what the page, the terminal and ``--json`` begin with."""

from __future__ import annotations

from coset.motion.reconstruct import Reconstruction
from coset.motion.turning import stands_still

TOO_FAR = 0.03  # of the mean of width and height: a median error above it is no reconstruction


def verdict(reconstruction: Reconstruction) -> str:
    """How well cameras and points explain what was seen, what moves, and what of it is not known."""
    if not reconstruction.depth_known:
        return _without_depth(reconstruction)
    measured, tracks = reconstruction.metrics(), reconstruction.tracks
    error = float(measured["reprojection_median_px"])
    text = (
        f"{tracks.points} points and the camera over {tracks.frames} frames: seen again {error:.2g} pixels from where "
        f"they were tracked (median); {_movers(reconstruction)}."
    )
    if error > TOO_FAR * sum(tracks.size) / 2:
        text += " That explains nothing of what was seen: cameras and points are not to be trusted."
    if tracks.intrinsics.source in ("assumed", "guess"):
        text += " The focal length is not known: depths and angles may be wrong."
    return text


def _without_depth(reconstruction: Reconstruction) -> str:
    tracks = reconstruction.tracks
    error = reconstruction.metrics()["reprojection_median_px"]
    if stands_still(tracks):
        return (
            f"Depth cannot be known: the camera stands still for all {tracks.frames} frames. "
            f"The {tracks.points} points are directions."
        )
    return (
        f"Depth cannot be known: the camera only turns. Its rotations over {tracks.frames} frames explain "
        f"{tracks.points} points within {error:.2g} pixels (median), whatever their distance; points are directions."
    )


def _movers(reconstruction: Reconstruction) -> str:
    """How many points move, and of how many of them the depth is no measurement."""
    moving = int(reconstruction.metrics()["moving_points"])
    text = f"{moving} {'point moves' if moving == 1 else 'points move'}" if moving else "nothing moves"
    unknown = reconstruction.points_of_unknown_depth()
    if not unknown:
        return text
    bodies = sum(not body.known for body in reconstruction.bodies)
    whose = "a body" if bodies == 1 else f"{bodies} bodies"
    return f"{text}. How far away {whose} of {unknown} moving points is cannot be known, only guessed"
