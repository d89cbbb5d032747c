"""Animated meshes of glTF files turned into the archives that scenes read."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from coset.core.errors import CosetError
from coset.core.outside import refusing
from coset.motion.data.gltf_bodies import AnimatedFile


def birds(received: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """``mesh_<name>.npz`` of each file: vertices, offsets of its key shapes, triangles.

    Raises:
        CosetError: A file is no binary glTF 2.0, or its mesh has no key shapes.
    """
    for path in received:
        file = AnimatedFile(path)
        with refusing(path, "mesh with key shapes"):
            primitive = file.content["meshes"][0]["primitives"][0]
            if not primitive.get("targets"):
                raise CosetError(f"{path.name} has no key shapes")
            arrays = {
                "vertices": file.array(primitive["attributes"]["POSITION"]).astype(np.float32),
                "key_shape_offsets": np.stack([file.array(t["POSITION"]) for t in primitive["targets"]]).astype("f4"),
                "faces": file.array(primitive["indices"]).reshape(-1, 3).astype(np.int32),
            }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        yield f"motion/mesh_{path.stem.lower()}.npz", content.getvalue()
