"""Bodies from binary glTF files: meshes hung on animated nodes or skinned to them, as surface points over time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.outside import parse_tree, read_bytes

WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
TYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}


class AnimatedFile:
    """A glTF scene that can be asked where its surface is at a time of one of its animations.

    Raises:
        CosetError: The file is no binary glTF 2.0.
    """

    def __init__(self, path: Path):
        raw = read_bytes(path)
        if len(raw) < 20 or struct.unpack_from("<4sI", raw) != (b"glTF", 2):
            raise CosetError(f"{path} is no binary glTF 2.0 file")
        length = struct.unpack_from("<I", raw, 12)[0]
        self.content, self.buffer = parse_tree(raw[20 : 20 + length].decode(), path, dict[str, Any]), raw[28 + length :]
        self.nodes = self.content["nodes"]
        self.parents = {child: n for n, node in enumerate(self.nodes) for child in node.get("children", ())}

    def array(self, accessor: int) -> np.ndarray:
        """Values of an accessor, a row an element."""
        a = self.content["accessors"][accessor]
        view = self.content["bufferViews"][a["bufferView"]]
        kind, width = np.dtype(TYPES[a["componentType"]]), WIDTHS[a["type"]]
        start, stride = (
            view.get("byteOffset", 0) + a.get("byteOffset", 0),
            view.get("byteStride", kind.itemsize * width),
        )
        rows = np.ndarray((a["count"], width), kind, self.buffer, start, (stride, kind.itemsize))
        return rows.astype(np.float64 if kind.kind == "f" else np.int64)

    def animations(self) -> list[str]:
        return [animation["name"] for animation in self.content["animations"]]

    def duration(self, name: str) -> float:
        """Seconds."""
        samplers = self._animation(name)["samplers"]
        return max(float(self.array(sampler["input"]).max()) for sampler in samplers)

    def surface(self, name: str, times: Float[np.ndarray, " frames"]) -> tuple[np.ndarray, np.ndarray]:
        """Vertices [frames, vertices, 3] and triangles of everything, at times of an animation."""
        world = self._world(name, times)
        vertices, faces, count = [], [], 0
        for node, primitive in self._primitives():
            local = self.array(primitive["attributes"]["POSITION"])
            if "skin" in self.nodes[node]:
                placed = self._skinned(node, primitive, local, world)
            else:
                placed = local @ world[node][:, :3, :3].transpose(0, 2, 1) + world[node][:, None, :3, 3]
            vertices.append(placed)
            faces.append(self.array(primitive["indices"]).reshape(-1, 3) + count)
            count += len(local)
        return np.concatenate(vertices, 1), np.concatenate(faces)

    def _primitives(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for n, node in enumerate(self.nodes):
            if "mesh" in node:
                for primitive in self.content["meshes"][node["mesh"]]["primitives"]:
                    yield n, primitive

    def _skinned(self, node: int, primitive: dict[str, Any], local: np.ndarray, world: list[np.ndarray]) -> np.ndarray:
        """Vertices moved by the weighted matrices of their joints; the node's own place is ignored, as glTF says."""
        skin = self.content["skins"][self.nodes[node]["skin"]]
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = np.stack([world[j] @ inverse[i] for i, j in enumerate(skin["joints"])])
        weights = self.array(primitive["attributes"]["WEIGHTS_0"])
        chosen = joints[self.array(primitive["attributes"]["JOINTS_0"])]  # vertices, 4, frames, 4, 4
        matrices = np.einsum("vw,vwnij->nvij", weights / weights.sum(1, keepdims=True), chosen)
        return np.einsum("nvij,vj->nvi", matrices[..., :3, :3], local) + matrices[..., :3, 3]

    def _world(self, name: str, times: np.ndarray) -> list[np.ndarray]:
        """Matrix [frames, 4, 4] of every node."""
        tracks = {
            (channel["target"]["node"], channel["target"]["path"]): self._animation(name)["samplers"][
                channel["sampler"]
            ]
            for channel in self._animation(name)["channels"]
        }
        own = [self._local(n, tracks, times) for n in range(len(self.nodes))]
        world: dict[int, np.ndarray] = {}

        def place(n: int) -> np.ndarray:
            if n not in world:
                world[n] = place(self.parents[n]) @ own[n] if n in self.parents else own[n]
            return world[n]

        return [place(n) for n in range(len(self.nodes))]

    def _local(self, n: int, tracks: dict[tuple[int, str], Any], times: np.ndarray) -> np.ndarray:
        node, frames = self.nodes[n], len(times)
        if "matrix" in node:
            return np.repeat(np.array(node["matrix"], float).reshape(1, 4, 4).transpose(0, 2, 1), frames, 0)
        parts = {}
        for path, rest in (("translation", [0, 0, 0]), ("rotation", [0, 0, 0, 1]), ("scale", [1, 1, 1])):
            still = np.repeat(np.array([node.get(path, rest)], float), frames, 0)
            parts[path] = self._sampled(tracks[n, path], times) if (n, path) in tracks else still
        q = parts["rotation"] / np.linalg.norm(parts["rotation"], axis=1, keepdims=True)
        matrix = np.repeat(np.eye(4)[None], frames, 0)
        matrix[:, :3, :3] = rotations_of(q[:, [3, 0, 1, 2]]) * parts["scale"][:, None]
        matrix[:, :3, 3] = parts["translation"]
        return matrix

    def _sampled(self, sampler: dict[str, Any], times: np.ndarray) -> np.ndarray:
        keys, values = self.array(sampler["input"])[:, 0], self.array(sampler["output"])
        if values.shape[1] == 4:
            flips = np.where((values[1:] * values[:-1]).sum(1) < 0, -1.0, 1.0)
            values = values * np.concatenate([[1.0], np.cumprod(flips)])[:, None]
        low = np.clip(np.searchsorted(keys, times, "right") - 1, 0, max(len(keys) - 2, 0))
        if len(keys) == 1 or sampler.get("interpolation") == "STEP":
            return values[np.clip(np.searchsorted(keys, times, "right") - 1, 0, len(keys) - 1)]
        part = np.clip((times - keys[low]) / (keys[low + 1] - keys[low]), 0, 1)[:, None]
        return (1 - part) * values[low] + part * values[low + 1]

    def _animation(self, name: str) -> dict[str, Any]:
        for animation in self.content["animations"]:
            if animation["name"] == name:
                return animation
        raise CosetError(f"no animation {name!r}; choose from {', '.join(self.animations())}")


def rotations_of(q: Float[np.ndarray, "count 4"]) -> Float[np.ndarray, "count 3 3"]:
    """Rotation matrices of unit quaternions (w, x, y, z)."""
    w, x, y, z = q.T
    return np.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ], 1).reshape(-1, 3, 3)  # fmt: skip


@cache
@takes_paths
def opened(path: Path) -> AnimatedFile:
    """The file, read once."""
    return AnimatedFile(path)
