"""A mesh with key shapes, out of a binary glTF file made by hand."""

import io
import json
import struct

import numpy as np
import pytest

from coset import CosetError
from coset.motion.data.key_shapes import birds

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
OFFSETS = np.array([[[0, 0, 1]] * 3, [[0, 0, -2]] * 3], np.float32)


def mesh(path, targets=True):
    """A triangle that two key shapes lift and lower."""
    parts = [VERTICES.tobytes(), OFFSETS[0].tobytes(), OFFSETS[1].tobytes(), struct.pack("<4H", 0, 1, 2, 0)]
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    primitive = {"attributes": {"POSITION": 0}, "indices": 3}
    content = {
        "asset": {"version": "2.0"}, "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive | ({"targets": [{"POSITION": 1}, {"POSITION": 2}]} if targets else {})]}],
        "bufferViews": [{"buffer": 0, "byteOffset": s, "byteLength": len(p)} for s, p in zip(starts, parts)],
        "accessors": [{"bufferView": k, "componentType": 5126, "count": 3, "type": "VEC3"} for k in range(3)]
        + [{"bufferView": 3, "componentType": 5123, "count": 3, "type": "SCALAR"}],
    }  # fmt: skip
    text, data = json.dumps(content).encode(), b"".join(parts)
    text += b" " * (-len(text) % 4)
    whole = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(whole)) + whole)
    return path


def test_vertices_key_shapes_and_triangles(tmp_path):
    ((name, content),) = birds([mesh(tmp_path / "Parrot.glb")])
    found = np.load(io.BytesIO(content))
    assert name == "motion/mesh_parrot.npz"
    assert np.array_equal(found["vertices"], VERTICES)
    assert np.array_equal(found["key_shape_offsets"], OFFSETS)
    assert found["faces"].tolist() == [[0, 1, 2]]


def test_a_mesh_without_key_shapes_is_refused(tmp_path):
    with pytest.raises(CosetError, match=r"Stork.glb has no key shapes"):
        list(birds([mesh(tmp_path / "Stork.glb", targets=False)]))
