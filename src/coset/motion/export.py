"""A reconstruction as files that others read: PLY clouds, a COLMAP model, an animated glTF, arrays."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num, UInt8

from coset.core.errors import CosetError
from coset.core.files import json_text, make_folder, reason, takes_paths, write_bytes, write_text
from coset.motion.reconstruct import Reconstruction

GREY = 160.0
COLMAP = ("cameras", "images", "points3D")
STAY = ("metrics.json", "scene.glb", "transforms.json", "ply/frame_*.ply", *(f"colmap/{part}.txt" for part in COLMAP))
"""Files of a reconstruction that one after it in the same folder may not write again."""
UPRIGHT = np.diag([1.0, -1.0, -1.0])  # cameras of computer vision look along +z, y down; of graphics along -z, y up


@takes_paths
def write_all(reconstruction: Reconstruction, folder: Path) -> list[str]:
    """``ply/``, ``colmap/``, ``scene.glb``, ``transforms.json``, ``reconstruction.npz``; returns the names.

    Where depth cannot be known there are no clouds, and ``reconstruction.npz`` alone is written.

    Raises:
        CosetError: Something cannot be written.
    """
    if not reconstruction.depth_known:
        write_arrays(reconstruction, folder / "reconstruction.npz")
        return ["reconstruction.npz"]
    for part in ("ply", "colmap"):
        make_folder(folder / part)
    write_plys(reconstruction, folder / "ply")
    write_colmap(reconstruction, folder / "colmap")
    write_gltf(reconstruction, folder / "scene.glb")
    write_nerfstudio(reconstruction, folder / "transforms.json")
    write_arrays(reconstruction, folder / "reconstruction.npz")
    return ["ply/", "colmap/", "scene.glb", "transforms.json", "reconstruction.npz"]


@takes_paths
def clear(folder: Path, images: bool = False) -> None:
    """Remove what an earlier reconstruction left in a folder and the next one may not write over.

    Args:
        folder: Of reconstructions.
        images: Whether the pictures in it were written by the earlier one.

    Raises:
        CosetError: Something cannot be removed.
    """
    patterns = [*STAY, *(["images/frame_*.jpg"] if images else [])]
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        try:
            path.unlink()
        except OSError as error:
            raise CosetError(f"cannot remove {path}, which an earlier reconstruction left: {reason(error)}") from error
    for part in ("ply", "colmap", "images"):
        if (folder / part).is_dir() and not any((folder / part).iterdir()):
            (folder / part).rmdir()


@takes_paths
def write_plys(reconstruction: Reconstruction, folder: Path) -> None:
    """A binary PLY cloud a frame, ``frame_0000.ply`` and so on, in colour, with each point's motion level."""
    points, colours = reconstruction.points().numpy(), colours_of(reconstruction)
    gamma = reconstruction.prediction.gamma.numpy()
    for n in range(points.shape[1]):
        write_ply(folder / f"frame_{n:04d}.ply", points[:, n], colours, gamma)


@takes_paths
def write_ply(
    path: Path, points: Float[np.ndarray, "points 3"], colours: np.ndarray, gamma: Float[np.ndarray, " points"]
) -> None:
    """One cloud."""
    kind = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("motion", "<f4")]
    rows = np.empty(len(points), kind)
    for axis, name in enumerate("xyz"):
        rows[name] = points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        rows[name] = colours[:, channel]
    rows["motion"] = gamma
    names = {"<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property {names[t]} {name}" for name, t in kind]
    write_bytes(path, "\n".join([*lines, "end_header", ""]).encode() + rows.tobytes())


@takes_paths
def write_colmap(reconstruction: Reconstruction, folder: Path) -> None:
    """A COLMAP text model: ``cameras.txt``, ``images.txt``, ``points3D.txt``; points that stand still only.

    COLMAP's pixels begin at the corner of the first one, not in its middle: half a pixel is added. Pictures are named
    as :func:`write_images` names them.
    """
    tracks, prediction = reconstruction.tracks, reconstruction.prediction
    k, (width, height) = tracks.intrinsics, tracks.size
    focal = prediction.focal.numpy() * k.focal
    one = bool(np.ptp(focal) < 1e-9)
    lens, bend = ("SIMPLE_RADIAL", f" {k.radial:.9g}") if k.radial else ("SIMPLE_PINHOLE", "")
    cameras = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"] + [
        f"{n + 1} {lens} {width} {height} {f:.9g} {k.cx + 0.5:.9g} {k.cy + 0.5:.9g}{bend}"
        for n, f in enumerate(focal[:1] if one else focal)
    ]
    static = np.flatnonzero(~reconstruction.moving().numpy())
    number = {int(p): i for i, p in enumerate(static, 1)}
    places: dict[int, dict[int, int]] = {}
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME; POINTS2D[] as (X, Y, POINT3D_ID)"]
    for n, (rotation, position) in enumerate(
        zip(prediction.rotations.numpy(), prediction.positions.numpy(), strict=True)
    ):
        q, t = quaternion(rotation.T), -rotation.T @ position
        numbers = " ".join(f"{x:.12g}" for x in (*q, *t))
        images.append(f"{n + 1} {numbers} {1 if one else n + 1} frame_{n:04d}.jpg")
        seen = np.flatnonzero(tracks.visible[:, n])
        places[n] = {int(p): i for i, p in enumerate(seen)}
        images.append(
            " ".join(
                f"{x + 0.5:.6g} {y + 0.5:.6g} {number.get(int(p), -1)}"
                for p, (x, y) in zip(seen, tracks.xy[seen, n], strict=True)
            )
        )
    clouds, colours, error = prediction.static.numpy(), colours_of(reconstruction), _errors(reconstruction)
    rows = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    for p in static:
        where = " ".join(f"{n + 1} {places[int(n)][int(p)]}" for n in np.flatnonzero(tracks.visible[p]))
        xyz = " ".join(f"{x:.12g}" for x in clouds[p])
        rows.append(f"{number[int(p)]} {xyz} {' '.join(str(int(c)) for c in colours[p])} {error[p]:.6g} {where}")
    for name, lines in zip(COLMAP, (cameras, images, rows), strict=True):
        write_text(folder / f"{name}.txt", "\n".join(lines) + "\n")


@takes_paths
def write_nerfstudio(reconstruction: Reconstruction, path: Path) -> None:
    """``transforms.json`` of nerfstudio and instant-ngp: a lens, and camera to world of every frame, y up.

    Pictures are named ``images/frame_0000.jpg`` and so on; :func:`write_images` writes them. Focal lengths that differ
    stand with the frames alone: nerfstudio reads none there where the file has one for all.
    """
    tracks, prediction = reconstruction.tracks, reconstruction.prediction
    k, focal = tracks.intrinsics, prediction.focal.numpy() * tracks.intrinsics.focal
    one = bool(np.ptp(focal) < 1e-9)
    rotations = UPRIGHT @ prediction.rotations.numpy() @ UPRIGHT
    positions = prediction.positions.numpy() @ UPRIGHT
    frames = []
    for n, time in enumerate(tracks.seconds()):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotations[n], positions[n]
        lens = {} if one else {"fl_x": float(focal[n]), "fl_y": float(focal[n])}
        name = f"images/frame_{n:04d}.jpg"
        frames.append({"file_path": name, "transform_matrix": matrix.tolist(), "time": float(time), **lens})
    content = {
        "camera_model": "OPENCV", **({"fl_x": float(focal[0]), "fl_y": float(focal[0])} if one else {}),
        "cx": k.cx + 0.5, "cy": k.cy + 0.5, "w": tracks.size[0], "h": tracks.size[1],
        "k1": k.radial, "k2": 0.0, "p1": 0.0, "p2": 0.0, "frames": frames,
    }  # fmt: skip
    write_text(path, json_text(content, indent=1))


@takes_paths
def write_images(frames: UInt8[np.ndarray, "frames height width 3"], folder: Path) -> None:
    """Frames as JPEG files ``frame_0000.jpg`` and so on, for programs that read the cameras."""
    from PIL import Image

    make_folder(folder)
    for n, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=95)
        write_bytes(folder / f"frame_{n:04d}.jpg", buffer.getvalue())


@takes_paths
def write_gltf(reconstruction: Reconstruction, path: Path) -> None:
    """A binary glTF 2.0: points whose morph targets are the clouds B_k and whose animated weights are c_ik; the camera.

    The camera is animated too, and its path is drawn as a line. Nothing is lost against the reconstruction but float32.
    """
    prediction, tracks = reconstruction.prediction, reconstruction.tracks
    basis = prediction.basis.numpy() @ UPRIGHT
    rotations = UPRIGHT @ prediction.rotations.numpy() @ UPRIGHT
    positions = prediction.positions.numpy() @ UPRIGHT
    times = tracks.seconds()
    file = _Glb()
    colours = np.concatenate([colours_of(reconstruction) / 255, np.ones((len(basis), 1))], 1)
    attributes = {"POSITION": file.add(basis[:, 0], bounds=True), "COLOR_0": file.add(colours)}
    targets = [{"POSITION": file.add(basis[:, k], bounds=True)} for k in range(1, basis.shape[1])]
    cloud: dict[str, Any] = {"attributes": attributes, "mode": 0}
    mesh: dict[str, Any] = {"name": "points", "primitives": [cloud]}
    if targets:
        cloud["targets"], mesh["weights"] = targets, [0.0] * len(targets)
    path_line = {"attributes": {"POSITION": file.add(positions, bounds=True)}, "mode": 3}
    aspect = tracks.size[0] / tracks.size[1]
    focal = float(prediction.focal.mean()) * tracks.intrinsics.focal
    lens = {"yfov": 2 * float(np.arctan(tracks.size[1] / 2 / focal)), "aspectRatio": aspect, "znear": 0.01}
    clock = file.add(times, bounds=True)
    quaternions = np.stack([np.roll(quaternion(r), -1) for r in rotations])
    tracksets = [(1, "translation", positions), (1, "rotation", _unbroken(quaternions))]
    if targets:
        tracksets.append((0, "weights", prediction.coefficients.numpy()[:, 1:].reshape(-1)))
    animation = {
        "name": "video",
        "samplers": [{"input": clock, "output": file.add(v), "interpolation": "LINEAR"} for _, _, v in tracksets],
        "channels": [{"sampler": i, "target": {"node": n, "path": p}} for i, (n, p, _) in enumerate(tracksets)],
    }
    nodes = [
        {"name": "points", "mesh": 0},
        {"name": "camera", "camera": 0, "translation": positions[0].tolist(), "rotation": quaternions[0].tolist()},
        {"name": "camera path", "mesh": 1},
    ]
    file.write(
        path,
        {
            "asset": {"version": "2.0", "generator": "coset"},
            "scene": 0,
            "scenes": [{"nodes": [0, 1, 2]}],
            "nodes": nodes,
            "meshes": [mesh, {"name": "camera path", "primitives": [path_line]}],
            "cameras": [{"type": "perspective", "perspective": lens}],
            "animations": [animation],
        },
    )


@takes_paths
def write_arrays(reconstruction: Reconstruction, path: Path) -> None:
    """An NPZ: points [P, N, 3], rotations, positions, basis, coefficients, gamma, intrinsics and radial distortion.

    ``rows`` [P] says which points of the tracks that came in these are.
    """
    p, rows = reconstruction.prediction, reconstruction.rows
    arrays = {name: getattr(p, name).numpy() for name in p._fields}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        **arrays,
        points=reconstruction.points().numpy().astype(np.float32),
        moving=reconstruction.moving().numpy(),
        intrinsics=reconstruction.tracks.intrinsics.matrix(),
        depth_known=reconstruction.depth_known,
        radial_distortion=reconstruction.tracks.intrinsics.radial,
        rows=np.arange(reconstruction.tracks.points) if rows is None else rows,
    )
    write_bytes(path, buffer.getvalue())


def quaternion(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "wxyz=4"]:
    """(w, x, y, z) with w >= 0, from the largest eigenvector of Bar-Itzhack's symmetric matrix."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array([
        [a - e - i, b + d, c + g, h - f],
        [b + d, e - a - i, f + h, c - g],
        [c + g, f + h, i - a - e, d - b],
        [h - f, c - g, d - b, a + e + i],
    ]) / 3  # fmt: skip
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    q = np.array([w, x, y, z])
    return -q if w < 0 else q


def colours_of(reconstruction: Reconstruction) -> Num[np.ndarray, "points 3"]:
    """Colour of each point in its video, 0 to 255; grey if it is not known."""
    known = reconstruction.tracks.colours
    return np.full((reconstruction.tracks.points, 3), GREY) if known is None else known


def _errors(reconstruction: Reconstruction) -> np.ndarray:
    """Mean distance in pixels of each point's reprojections from its track."""
    from coset.motion.losses import observed

    where, _ = observed(reconstruction.points(), reconstruction.prediction)
    tracks = reconstruction.tracks
    distance = (where - tracks.tensor()[..., :2].double()).norm(dim=-1).numpy() * tracks.intrinsics.focal
    return np.where(tracks.visible, distance, 0).sum(1) / np.maximum(tracks.visible.sum(1), 1)


def _unbroken(quaternions: np.ndarray) -> np.ndarray:
    """Signs such that neighbours are interpolated the short way."""
    flips = np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1.0, 1.0)
    return quaternions * np.concatenate([[1.0], np.cumprod(flips)])[:, None]


class _Glb:
    """Collects accessors and writes header, JSON and one buffer."""

    kinds = {0: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, values: np.ndarray, bounds: bool = False) -> int:
        """Keep an array of float32; returns its accessor."""
        values = np.ascontiguousarray(values, dtype="<f4")
        view = {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": values.nbytes}
        self.buffer += values.tobytes()
        kind = self.kinds[values.shape[1] if values.ndim == 2 else 0]
        accessor: dict[str, Any] = {
            "bufferView": len(self.views),
            "componentType": 5126,
            "count": len(values),
            "type": kind,
        }
        if bounds:
            accessor |= {"min": np.atleast_1d(values.min(0)).tolist(), "max": np.atleast_1d(values.max(0)).tolist()}
        self.views.append(view)
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def write(self, path: Path, content: dict[str, Any]) -> None:
        content = content | {
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.buffer)}],
        }
        text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self.buffer) + b"\0" * (-len(self.buffer) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
        write_bytes(path, struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks)
