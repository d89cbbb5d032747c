"""The forms in which trackers and test sets keep point tracks in an NPZ, each a function from its arrays to ours.

A form is known by the name of its tracks:

    pred_tracks      CoTracker, and the test set of TracksTo4D (Ks_all, Ms_all, GT_depth_tracks_all, GT_mask_tracks_all)
    tracks           TAPIR (visibles, occluded, or raw occlusion and expected_dist); visibility in either order of axes
    points           TAP-Vid: shares of the picture's width and height
    target_points    Kubric
    tracks_XYZ       TAPVid-3D: places in the camera
    trajs_2d         PointOdyssey
    coords           SpatialTracker and TAPIP3D: pixels, or places in the world or in the camera

What may mean two things is refused. Arrays that are not needed (videos, pictures) are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from coset.core.errors import CosetError
from coset.motion.data.array_file import ArrayFile
from coset.motion.data.truth import Truth, cameras_of, moving_points

SHARES = 1.5  # largest coordinate up to which tracks are shares of the picture, not pixels
CLEARER = 3.0  # times that a step along time must be below one along points to tell which axis is which
LEAP = 0.05  # of the extent of all points: a step along time above it is none of a video
INSIDE = 0.9  # share of what is visible that lies in the picture, or nearly
NEAR = 0.02  # of the picture's size around it, in which trackers put points that leave it
SKEW = 0.01  # of the focal length, above which pixels are no rectangles
ASTRAY = 0.05  # of the picture's size: distance of a projected place from its track that shows a wrong camera
MASKED = 0.8  # share of frames that the test set of TracksTo4D asks a moving point to be on the mask (40 of 50)
LENGTHS = {"intrinsics": (3, True), "extrinsics": (3, True), "video": (4, True), "queries": (2, False)}
"""Arrays with a row a frame (or else a point), and their number of axes without one of batches."""
CAMERAS = {"Ks_all": 3, "Ms_all": 3, "intrinsics": 3, "extrinsics": 3, "extrinsics_w2c": 3, "video": 4}
"""Arrays with a row a frame in forms whose axes are known, and their number of axes without one of batches."""


class RawTracks(NamedTuple):
    """What a file says, before intrinsics are settled.

    Attributes:
        xy: Pixels.
        visible: Whether a point is seen in a frame.
        matrices: Intrinsics, one for all frames or one each; None if the file has none.
        size: Width and height; None if the file does not tell.
        started_at: Frame in which each point was picked; None if the file does not tell.
        truth: What a test set tells of the scene.
    """

    xy: Float[np.ndarray, "points frames 2"]
    visible: Bool[np.ndarray, "points frames"]
    matrices: np.ndarray | None = None
    size: tuple[int, int] | None = None
    started_at: Int[np.ndarray, " points"] | None = None
    truth: Truth | None = None


def read_tracks(file: ArrayFile) -> RawTracks:
    """Tracks in any known form.

    Raises:
        CosetError: The form is not known, may mean two things, or an array is missing or has another shape.
    """
    for name, read in FORMATS.items():
        if name in file:
            raw = read(file)
            if raw.matrices is None and "intrinsics" in file and len(file.shape("intrinsics")) > 2:
                raw = raw._replace(matrices=_matrices(file, "intrinsics", raw.xy.shape[1]))
            if "started_at" in file:
                raw = raw._replace(started_at=_started(file["started_at"], len(raw.xy), file.path))
            raw = raw._replace(size=_size(file) or raw.size)
            _check_axes(file, name, raw)
            _check_picture(file, raw)
            return raw
    have = ", ".join(file.names) or "nothing"
    raise CosetError(
        f"{file.path} holds {have}; expected pred_tracks and pred_visibility, or tracks and visibles, or a form known "
        f"by one of {', '.join(FORMATS)}"
    )


def _cotracker(file: ArrayFile) -> RawTracks:
    xy = file.places("pred_tracks", "(1, frames, points, 2)")
    if "pred_visibility" not in file:
        raise CosetError(f"{file.path} has pred_tracks but no pred_visibility (1, frames, points)")
    visible = file.flags("pred_visibility", xy.shape[:2], (1, *xy.shape[:2])).T.copy()
    xy = xy.transpose(1, 0, 2)
    return RawTracks(xy, visible, _matrices(file, "Ks_all", xy.shape[1]), truth=_truth_of_test_set(file, visible))


def _truth_of_test_set(file: ArrayFile, visible: Bool[np.ndarray, "points frames"]) -> Truth | None:
    """Ms_all [N, 3 or 4, 4] (world to camera), GT_depth_tracks_all and GT_mask_tracks_all [1, N, P]."""
    names = ("Ms_all", "GT_depth_tracks_all", "GT_mask_tracks_all")
    if not any(name in file for name in names):
        return None
    points, frames = visible.shape
    depth = moving = rotations = positions = None
    if "Ms_all" in file:
        rotations, positions = _cameras(file, "Ms_all", frames)
    if "GT_depth_tracks_all" in file:
        depth = _known_depth(file.by_frame("GT_depth_tracks_all", (frames, points)).T.astype(float))
    if "GT_mask_tracks_all" in file:
        mask = file.by_frame("GT_mask_tracks_all", (frames, points)).T
        moving = (np.nan_to_num(mask.astype(float)) > 0).sum(1) > MASKED * frames
    return Truth(depth, rotations, positions, moving)


def _known_depth(depth: Float[np.ndarray, "points frames"]) -> Float[np.ndarray, "points frames"]:
    """With 0 where it is not known: rendered skies have an infinite depth, sensors give NaN."""
    return np.where(np.isfinite(depth), depth, 0.0)


def _tapir(file: ArrayFile) -> RawTracks:
    xy = file.places("tracks", "(points, frames, 2)")
    shape = xy.shape[:2]
    if "visibles" in file:
        return RawTracks(xy, file.flags("visibles", shape))
    if "occluded" in file:
        return RawTracks(xy, ~file.flags("occluded", shape, unknown=True))
    if "occlusion" in file:
        return RawTracks(xy, _seen_by_logits(file, shape))
    if "visibility" in file:
        visible = file.flags("visibility", shape)
        if _frames_first(file, xy, visible):
            return RawTracks(xy.transpose(1, 0, 2), visible.T.copy())
        return RawTracks(xy, visible)
    raise CosetError(
        f"{file.path} has tracks but neither visibles nor occluded (points, frames), nor occlusion and expected_dist, "
        "nor visibility"
    )


def _seen_by_logits(file: ArrayFile, shape: tuple[int, int]) -> Bool[np.ndarray, "points frames"]:
    """TAPIR's rule: a point is seen if (1 - sigmoid(occlusion)) (1 - sigmoid(expected_dist)) is above a half."""
    occlusion = file.by_frame("occlusion", shape)
    if "expected_dist" in file:
        doubt = file.by_frame("expected_dist", shape)
        for name, values in (("occlusion", occlusion), ("expected_dist", doubt)):
            if values.any() and (values >= 0).all() and (values <= 1).all():
                raise CosetError(
                    f"{file.path}: {name} lies between 0 and 1: chances or logits? Save visibles (points, frames), "
                    "true where a point is seen"
                )
        return _sigmoid(-occlusion) * _sigmoid(-doubt) > 0.5
    if np.isin(occlusion, (0, 1)).all():
        return occlusion == 0
    if (occlusion < 0).any() or (occlusion > 1).any():
        return occlusion < 0
    raise CosetError(
        f"{file.path}: occlusion lies between 0 and 1: chances or logits? Save visibles (points, frames), true where "
        "a point is seen, or TAPIR's expected_dist beside it"
    )


def _tapvid(file: ArrayFile) -> RawTracks:
    shares = file.places("points", "(points, frames, 2)")
    if "occluded" not in file:
        raise CosetError(f"{file.path} has points but no occluded (points, frames)")
    visible = ~file.flags("occluded", shares.shape[:2], unknown=True)
    started = _query_frames(file, "query_points", len(shares), column=0)
    if _largest(shares, visible) > SHARES:
        return RawTracks(shares, visible, started_at=started)
    size = _size(file)
    if size is None:
        raise CosetError(
            f"{file.path}: points are shares of the picture, whose size is not told; add image_size (width, height)"
        )
    return RawTracks(shares * np.array(size), visible, size=size, started_at=started)


def _kubric(file: ArrayFile) -> RawTracks:
    xy = file.places("target_points", "(points, frames, 2)")
    if "occluded" not in file:
        raise CosetError(f"{file.path} has target_points but no occluded (points, frames)")
    visible = ~file.flags("occluded", xy.shape[:2], unknown=True)
    return RawTracks(xy, visible, started_at=_query_frames(file, "query_points", len(xy), column=0))


def _tapvid_3d(file: ArrayFile) -> RawTracks:
    inside = file.places("tracks_XYZ", "(frames, points, 3)", 3).transpose(1, 0, 2)
    if "fx_fy_cx_cy" not in file or "visibility" not in file:
        raise CosetError(f"{file.path} has tracks_XYZ; expected fx_fy_cx_cy (4) and visibility (frames, points) too")
    visible = file.flags("visibility", inside.shape[1::-1]).T & (inside[..., 2] > 0)
    numbers = file["fx_fy_cx_cy"].astype(float).reshape(-1)
    if numbers.shape != (4,):
        raise CosetError(f"{file.path}: fx_fy_cx_cy has {numbers.size} numbers; expected 4")
    matrix = np.array([[numbers[0], 0, numbers[2]], [0, numbers[1], numbers[3]], [0, 0, 1]])
    rotations = positions = moving = None
    if "extrinsics_w2c" in file:
        rotations, positions = _cameras(file, "extrinsics_w2c", inside.shape[1])
        world = np.einsum("nij,pnj->pni", rotations, inside) + positions
        moving = moving_points(world, visible, inside[..., 2])
    truth = Truth(_known_depth(inside[..., 2]), rotations, positions, moving)
    started = _query_frames(file, "queries_xyt", len(inside), column=2)
    return RawTracks(_pixels(inside, matrix[None]), visible, matrix, None, started, truth)


def _point_odyssey(file: ArrayFile) -> RawTracks:
    xy = file.places("trajs_2d", "(frames, points, 2)").transpose(1, 0, 2)
    shape = xy.shape[1::-1]
    names = [name for name in ("visibs", "visibilities") if name in file]
    if not names:
        raise CosetError(f"{file.path} has trajs_2d but no visibs (frames, points)")
    known = file.flags("valids", shape).T if "valids" in file else np.isfinite(xy).all(-1)
    visible = file.flags(names[0], shape).T & known
    matrices = _matrices(file, "intrinsics", xy.shape[1])
    if "trajs_3d" not in file or "extrinsics" not in file:
        return RawTracks(xy, visible, matrices)
    world = file.places("trajs_3d", "(frames, points, 3)", 3).transpose(1, 0, 2)
    rotations, positions = _cameras(file, "extrinsics", xy.shape[1])
    if matrices is not None:
        inside = np.einsum("nji,pnj->pni", rotations, world - positions)
        away = np.linalg.norm(_pixels(inside, matrices) - xy, axis=-1)[visible]
        away = np.where(np.isfinite(away), away, np.inf)
        if len(away) and np.median(away) > ASTRAY * max(_picture(file, matrices)):
            raise CosetError(
                f"{file.path}: extrinsics and intrinsics do not bring trajs_3d to trajs_2d; expected matrices from the "
                "world to the camera (frames, 4, 4), and intrinsics in pixels of trajs_2d"
            )
    depth = np.where(known, np.einsum("pni,ni->pn", world - positions, rotations[:, :, 2]), 0)
    truth = Truth(_known_depth(depth), rotations, positions, moving_points(world, known, depth))
    return RawTracks(xy, visible, matrices, truth=truth)


def _spatial_tracker(file: ArrayFile) -> RawTracks:
    if "visibs" not in file:
        if "visibility" in file:
            raise CosetError(
                f"{file.path} has coords and visibility, which is true where a point is hidden in CoTracker's Kubric "
                "files and where it is seen elsewhere; save it as occluded with target_points, or as visibs"
            )
        raise CosetError(f"{file.path} has coords but no visibs (frames, points)")
    last = file.shape("coords")[-1:]
    coords = file.places("coords", "(frames, points, 2 or 3)", last[0] if last in ((2,), (3,)) else 3)
    coords = coords.transpose(1, 0, 2)
    points, frames = coords.shape[:2]
    visible = file.flags("visibs", (frames, points)).T
    matrices = _matrices(file, "intrinsics", frames)
    if coords.shape[-1] == 2:
        return RawTracks(coords, visible, matrices)
    if matrices is None:
        raise CosetError(f"{file.path}: coords are places in space; expected intrinsics (frames, 3, 3) too")
    if "extrinsics" in file:
        rotations, positions = _cameras(file, "extrinsics", frames)
        inside = np.einsum("nji,pnj->pni", rotations, coords - positions)
        xy, picture = _pixels(inside, matrices), _picture(file, matrices)
        share = _share_inside(xy, visible & (inside[..., 2] > 0), visible, picture)
        behind = np.einsum("nij,pnj->pni", rotations, coords) + positions
        other = _share_inside(_pixels(behind, matrices), visible & (behind[..., 2] > 0), visible, picture)
        if share < 0.5 or share < min(other, INSIDE):
            raise CosetError(
                f"{file.path}: extrinsics bring most coords out of the picture; expected matrices from the world to "
                "the camera (frames, 4, 4)"
            )
        return RawTracks(xy, visible & (inside[..., 2] > 0), matrices)
    return _in_camera_or_pixels(file, coords, visible, matrices)


def _in_camera_or_pixels(
    file: ArrayFile,
    coords: Float[np.ndarray, "points frames 3"],
    visible: Bool[np.ndarray, "points frames"],
    matrices: np.ndarray,
) -> RawTracks:
    """Without extrinsics: what lies in the picture one way and not the other decides."""
    picture = _picture(file, matrices)
    ahead = visible & (coords[..., 2] > 0)
    projected = _pixels(coords, matrices)
    in_space = _share_inside(projected, ahead, visible, picture) > 0.9
    flat = coords[..., :2]
    in_picture = _share_inside(flat, ahead, visible, picture, margin=0) > 0.9 and _largest(flat, visible) > SHARES
    if in_space == in_picture:
        raise CosetError(
            f"{file.path}: coords may be places in the camera or in the world, or pixels with a depth; add extrinsics "
            "(frames, 4, 4), or save pred_tracks (1, frames, points, 2) and pred_visibility"
        )
    return RawTracks(projected if in_space else flat, ahead, matrices)


FORMATS: dict[str, Callable[[ArrayFile], RawTracks]] = {
    "pred_tracks": _cotracker, "tracks_XYZ": _tapvid_3d, "trajs_2d": _point_odyssey, "target_points": _kubric,
    "coords": _spatial_tracker, "points": _tapvid, "tracks": _tapir,
}  # fmt: skip
"""By the name of the tracks; the first that a file has decides."""


def _frames_first(
    file: ArrayFile, xy: Float[np.ndarray, "first second 2"], visible: Bool[np.ndarray, "first second"]
) -> bool:
    """Whether the first axis of ``tracks`` is time, where ``visibility`` leaves that open.

    Other arrays tell if their lengths do; else points move little from frame to frame, and are far from one another.

    Raises:
        CosetError: Nothing tells.
    """
    first, second = visible.shape
    for name, (axes, of_frames) in LENGTHS.items():
        shape = file.shape(name) if name in file else ()
        length = shape[-axes] if len(shape) >= axes else 0
        if first != second and length in (first, second):
            return (length == first) == of_frames
    steps = [_step(xy.swapaxes(0, 1), visible.T), _step(xy, visible)]  # along the first axis, along the second
    if steps[0] * CLEARER < steps[1]:
        return True
    if steps[1] * CLEARER < steps[0]:
        return False
    if len(file.shape("tracks")) == 4:
        return True  # with an axis of batches in front: the form of CoTracker
    raise CosetError(
        f"{file.path}: tracks {file.shape('tracks')} with visibility may be (points, frames, 2) or "
        "(frames, points, 2); save them as pred_tracks (1, frames, points, 2) and pred_visibility, or as tracks "
        "(points, frames, 2) and visibles"
    )


def _check_axes(file: ArrayFile, name: str, raw: RawTracks) -> None:
    """Refuse tracks whose axes are exchanged: points that leap from frame to frame and lie close to one another.

    Raises:
        CosetError: It looks like that, and no other array has as many rows as there are frames.
    """
    points, frames = raw.visible.shape
    for other, axes in CAMERAS.items():
        shape = file.shape(other) if other in file else ()
        if len(shape) >= axes and shape[-axes] == frames != points:
            return
    along, across = _step(raw.xy, raw.visible), _step(raw.xy.swapaxes(0, 1), raw.visible.T)
    seen = raw.xy[raw.visible & np.isfinite(raw.xy).all(-1)]
    if not len(seen) or not np.isfinite(along):
        return
    low, high = np.quantile(seen, (0.05, 0.95), axis=0)
    if across * CLEARER < along and along > LEAP * np.linalg.norm(high - low):
        raise CosetError(
            f"{file.path}: points and frames seem to be exchanged in {name}: as it is, {points} points leap by "
            f"{along:.0f} pixels from each of {frames} frames to the next and lie {across:.0f} apart in one; exchange "
            "its axes, and those of the array that says where points are visible"
        )


def _check_picture(file: ArrayFile, raw: RawTracks) -> None:
    """Refuse tracks of which much lies outside the picture.

    Raises:
        CosetError: The size is told, and more than a tenth of what is visible lies outside; or all but nothing would
            lie inside with width and height exchanged, and does not.
    """
    there = raw.visible & np.isfinite(raw.xy).all(-1)
    if raw.size is None or not there.any():
        return
    (width, height), share = raw.size, _share_inside(raw.xy, there, there, raw.size)
    near, other = (_share_inside(raw.xy, there, there, size, NEAR) for size in (raw.size, raw.size[::-1]))
    if share < INSIDE or (near < 1 - NEAR and other > 1 - NEAR / 4):
        raise CosetError(
            f"{file.path}: {100 * (1 - near):.0f} % of what is visible lies outside the picture of {width} x {height}; "
            "expected x before y in pixels of that picture, and image_size (width, height)"
        )


def _step(xy: Float[np.ndarray, "rows steps 2"], visible: Bool[np.ndarray, "rows steps"]) -> float:
    """Median distance from one entry of a row to the next, where both are visible; infinite if there is none."""
    both = visible[:, 1:] & visible[:, :-1]
    steps = np.diff(np.where(visible[..., None], xy, 0), axis=1)[both]
    return float(np.median(np.linalg.norm(steps, axis=-1))) if both.any() else np.inf


def _matrices(file: ArrayFile, name: str, frames: int) -> np.ndarray | None:
    """Intrinsics (3, 3) or (frames, 3, 3), if the file has them.

    Raises:
        CosetError: They have another shape.
    """
    if name not in file:
        return None
    values = file[name]
    inner = values[0] if values.ndim == 4 and values.shape[0] == 1 else values
    if inner.shape[-2:] != (3, 3) or inner.ndim > 3 or (inner.ndim == 3 and len(inner) < frames):
        raise CosetError(f"{file.path}: {name} has shape {values.shape}; expected ({frames}, 3, 3)")
    check_pinholes(inner, f"{file.path}: {name}")
    inner = inner.astype(float)
    return inner[:frames] if inner.ndim == 3 else inner


def check_pinholes(matrices: Float[np.ndarray, "*frames 3 3"], where: str) -> None:
    """Refuse matrices that are no (fx, 0, cx), (0, fy, cy), (0, 0, 1).

    Raises:
        CosetError: One of them is transposed, inverted, has another last row, or pixels that are no rectangles.
    """
    for matrix in matrices.reshape(-1, 3, 3).astype(float):
        skew, zeros = abs(matrix[0, 1]), np.abs(matrix[[1, 2, 2], [0, 0, 1]])
        if np.isfinite(matrix).all() and (skew > SKEW * abs(matrix[0, 0]) or (zeros > SKEW).any()):
            raise CosetError(f"{where}: {matrix.tolist()}; expected rows fx, 0, cx, then 0, fy, cy, then 0, 0, 1")


def _cameras(
    file: ArrayFile, name: str, frames: int
) -> tuple[Float[np.ndarray, "frames 3 3"], Float[np.ndarray, "frames 3"]]:
    """Cameras of matrices from the world to the camera.

    Raises:
        CosetError: They have another shape, or turn by no rotation.
    """
    values = file[name]
    inner = values[0] if values.ndim == 4 and values.shape[0] == 1 else values
    if inner.ndim != 3 or len(inner) < frames or inner.shape[1:] not in ((3, 4), (4, 4)):
        raise CosetError(f"{file.path}: {name} has shape {values.shape}; expected ({frames}, 3 or 4, 4)")
    try:
        return cameras_of(inner[:frames])
    except ValueError as error:
        raise CosetError(f"{file.path}: {name}: {error}") from error


def _pixels(
    inside: Float[np.ndarray, "points frames 3"], matrices: np.ndarray
) -> Float[np.ndarray, "points frames 2"]:  # fmt: skip
    """Where places in the camera are seen; NaN behind it."""
    depth = np.where(inside[..., 2] > 0, inside[..., 2], np.nan)[..., None]
    matrices = matrices if matrices.ndim == 3 else matrices[None]
    scale, centre = matrices[:, [0, 1], [0, 1]], matrices[:, :2, 2]
    return inside[..., :2] / depth * scale + centre


def _started(values: np.ndarray, points: int, path: Path) -> Int[np.ndarray, " points"]:
    started = values.reshape(-1)
    if started.shape != (points,):
        raise CosetError(f"{path}: started_at has {started.size} entries for {points} points")
    return np.nan_to_num(started).astype(np.int64)


def _query_frames(file: ArrayFile, name: str, points: int, column: int) -> Int[np.ndarray, " points"] | None:
    """The frame in which each point was asked for, if the file tells."""
    if name not in file or file.shape(name)[-2:] != (points, 3):
        return None
    return _started(file[name].reshape(points, 3)[:, column], points, file.path)


def _size(file: ArrayFile) -> tuple[int, int] | None:
    """Width and height, from image_size, height and width, a video or depths.

    Raises:
        CosetError: image_size, or width and height, are no size.
    """
    told = None
    if "image_size" in file:
        told = file["image_size"].reshape(-1)
    elif "width" in file and "height" in file:
        told = np.concatenate([file["width"].reshape(-1)[:1], file["height"].reshape(-1)[:1]])
    if told is not None:
        if told.shape != (2,) or not (np.isfinite(told) & (told >= 2)).all():
            raise CosetError(f"{file.path}: image_size is {told.tolist()}; expected width and height in pixels")
        return int(told[0]), int(told[1])
    for name in ("video", "depths"):
        shape = file.shape(name) if name in file else ()
        if len(shape) >= 4 and shape[-1] in (1, 3, 4):
            return shape[-2], shape[-3]
        if (len(shape) >= 3 and name == "depths") or len(shape) >= 4:
            return shape[-1], shape[-2]
    return None


def _picture(file: ArrayFile, matrices: np.ndarray) -> tuple[float, float]:
    """The picture's size, or twice the principal point."""
    size = _size(file)
    if size is not None:
        return float(size[0]), float(size[1])
    centre = matrices.reshape(-1, 3, 3)[:, :2, 2].mean(0)
    return float(2 * centre[0]), float(2 * centre[1])


def _share_inside(
    xy: np.ndarray, there: np.ndarray, visible: np.ndarray, size: tuple[float, float], margin: float = 0.05
) -> float:  # fmt: skip
    """Share of visible observations that lie in the picture, or in a margin around it (of its size)."""
    around = margin * np.array(size)
    inside = there & (xy >= -around).all(-1) & (xy <= np.array(size) + around).all(-1)
    return float(inside.sum() / max(visible.sum(), 1))


def _largest(xy: np.ndarray, visible: np.ndarray) -> float:
    seen = np.abs(xy[visible & np.isfinite(xy).all(-1)])
    return float(seen.max()) if len(seen) else 0.0


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.astype(float)))
