"""Meshes and point clouds as complexes: files of polygons, and triangulations of points.

OFF files are read here, with polygons of any size; OBJ, PLY, STL and the rest through trimesh, as triangles. Delaunay
triangulations are SciPy's, alpha and Vietoris-Rips complexes GUDHI's.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from coset.core.errors import CosetError, require
from coset.core.outside import check_regular, read_bytes, read_text
from coset.topology.data.batches import ComplexData, to_data
from coset.topology.data.cells import Array, Cells
from coset.topology.data.complexes import Complex, from_faces, from_simplices

SUFFIXES = (".off", ".obj", ".ply", ".stl", ".glb", ".gltf", ".3mf")


class Mesh(NamedTuple):
    """A mesh: its complex (``simplicial`` if all faces are triangles, else ``cell``) and where its vertices are."""

    complex: Complex
    positions: Float[Array, "vertices 3"]
    left_out: tuple[int, int] = (0, 0)
    """By a repair: faces without three different corners, and faces that were there before."""


def read_mesh(path: str | Path, repair: bool = False) -> Mesh:
    """Read a mesh file. Vertices at the same place are one (STL knows no other way), unused ones go.

    Args:
        path: The file.
        repair: Leave out faces that are there twice or have a vertex twice, instead of refusing the mesh.

    Raises:
        CosetError: The file is missing, is no mesh, or names a vertex that it does not have; or it has no faces, a face
            twice, or one with a vertex twice.
    """
    path = Path(path)
    if not path.is_file():
        raise CosetError(f"{path} does not exist")
    if path.suffix.lower() not in SUFFIXES:
        raise CosetError(f"{path.name}: {path.suffix or 'no suffix'} is no mesh format; choose {', '.join(SUFFIXES)}")
    try:
        faces, positions = (_read_off if path.suffix.lower() == ".off" else _read_with_trimesh)(path)
    except CosetError:
        raise
    except Exception as error:  # parsers raise whatever they stumble upon
        raise CosetError(f"{path} cannot be read as a mesh: {' '.join(str(error).split())}") from error
    if not len(faces):
        raise CosetError(f"{path} has no faces: it is no mesh")
    outside = faces.members[(faces.members < 0) | (faces.members >= len(positions))]
    if outside.size:
        raise CosetError(f"{path}: a face names vertex {outside[0]}, but vertices are 0 to {len(positions) - 1}")
    try:
        return mesh(faces, positions, repair)
    except CosetError as error:
        raise CosetError(f"{path}: {error}") from error


def mesh(faces: Cells | Any, positions: Num[Array, "vertices 3"], repair: bool = False) -> Mesh:
    """A mesh from its faces (rows of vertices) and positions, equal places made one vertex and unused ones left out.

    With ``repair`` faces lose corners that follow one another at one place; those with fewer than three different ones,
    or with the corners of a face before them, are left out.
    """
    faces, positions = Cells.of(faces), np.asarray(positions, dtype=float)
    places, one = np.unique(positions, axis=0, return_inverse=True)
    first = np.full(len(places), len(positions))
    np.minimum.at(first, one.reshape(-1), np.arange(len(positions)))
    merged = first[one.reshape(-1)][faces.members]
    left_out = (0, 0)
    if repair:
        faces, left_out = _repaired(Cells(merged.astype(np.int64), faces.ptr))
        merged = faces.members
        if not len(faces):
            raise CosetError("no face is left after the repair")
    used, numbered = np.unique(merged, return_inverse=True)
    polygons = from_faces(Cells(numbered.reshape(-1).astype(np.int64), faces.ptr), len(used))
    if (faces.sizes == 3).all():
        polygons = Complex(len(used), {1: polygons.cells[1], 2: polygons.cells[2]}, "simplicial")
    return Mesh(polygons, positions[used], left_out)


def _repaired(faces: Cells) -> tuple[Cells, tuple[int, int]]:
    kept: list[tuple[int, ...]] = []
    seen: set[frozenset[int]] = set()
    flat = doubled = 0
    for face in faces:
        corners = tuple(v for at, v in enumerate(face) if v != face[at - 1])  # the last comes before the first
        if len(set(corners)) < max(3, len(corners)):
            flat += 1
        elif frozenset(corners) in seen:
            doubled += 1
        else:
            seen.add(frozenset(corners))
            kept.append(corners)
    return Cells.of(kept), (flat, doubled)


OFF_KINDS = re.compile("(ST)?C?N?OFF")
"""First words of OFF files with points in space: texture, colours and normals may follow the coordinates."""
MOST_BYTES = 1 << 28
"""Of a mesh file that trimesh reads."""
CGAL = Path("/usr/share/doc/libcgal-dev/data.tar.gz")
"""Where Debian's ``libcgal-demo`` puts the example meshes of CGAL."""


def cgal_meshes(names: Collection[str] | None = None, archive: Path = CGAL) -> Iterator[tuple[str, Mesh | CosetError]]:
    """The OFF meshes of CGAL's examples by name, each read or with the reason why it is no complex.

    Args:
        names: Read these only.
        archive: The file that holds them.

    Raises:
        CosetError: The archive is missing.
    """
    if not archive.is_file():
        raise CosetError(f"{archive} is missing; Debian's package libcgal-demo brings it")
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if "/meshes/" in f"/{m.name}" and m.name.endswith(".off")]
        for member in sorted(members, key=lambda m: m.name):
            name = Path(member.name).stem
            if names is not None and name not in names:
                continue
            file = tar.extractfile(member)
            assert file is not None
            try:
                yield name, mesh(*_parse_off(file.read().decode("latin-1")))
            except (CosetError, ValueError, IndexError) as error:
                yield name, CosetError(f"{name}: {error}")


def triangulated(mesh: Mesh) -> Mesh:
    """The same surface with every polygon cut into triangles that fan out from its first vertex."""
    faces = mesh.complex.cells[2]
    rows = []
    for size in np.unique(faces.sizes):
        polygon = faces.of_size(size)[1]
        rows += [polygon[:, [0, i, i + 1]] for i in range(1, size - 1)]
    polygons = from_faces(np.concatenate(rows), len(mesh.positions))
    return Mesh(
        Complex(len(mesh.positions), {1: polygons.cells[1], 2: polygons.cells[2]}, "simplicial"), mesh.positions
    )


def delaunay_complex(points: Float[Array, "points dim"]) -> Complex:
    """The Delaunay triangulation of points in the plane or in space, with all faces of its simplices.

    Raises:
        CosetError: Too few points, or all of them on a line or in a plane.
    """
    from scipy.spatial import Delaunay, QhullError

    cloud = _cloud(points)
    try:
        return from_simplices(Delaunay(cloud).simplices.astype(np.int64), len(cloud))
    except QhullError as error:
        raise CosetError(
            f"{len(cloud)} points of dimension {cloud.shape[1]} have no Delaunay triangulation: they are too few, or "
            "lie in a flat"
        ) from error


def alpha_complex(points: Float[Array, "points dim"], radius: float) -> Complex:
    """Simplices of the Delaunay triangulation that an empty ball of at most this radius shows (Edelsbrunner)."""
    gudhi = require("gudhi", "topology")
    tree = gudhi.AlphaComplex(points=_cloud(points)).create_simplex_tree(max_alpha_square=radius**2)
    return _from_simplex_tree(tree, len(points))


def rips_complex(points: Float[Array, "points dim"], radius: float, top: int = 2) -> Complex:
    """Sets of at most ``top`` + 1 points no two of which are farther apart than the radius."""
    gudhi = require("gudhi", "topology")
    tree = gudhi.RipsComplex(points=_cloud(points), max_edge_length=radius).create_simplex_tree(max_dimension=top)
    return _from_simplex_tree(tree, len(points))


class PointLift(BaseTransform):
    """A point cloud (``pos`` of a PyG ``Data``) as a complex; all attributes are kept.

    Args:
        kind: ``delaunay``, ``alpha`` or ``rips``.
        radius: Of the balls (alpha), or the longest edge (rips).
        top: Highest rank that is kept.
    """

    def __init__(self, kind: str = "delaunay", radius: float | None = None, top: int = 2):
        if kind not in ("delaunay", "alpha", "rips"):
            raise CosetError(f"kind={kind!r}: choose delaunay, alpha or rips")
        if kind != "delaunay" and radius is None:
            raise CosetError(f"kind={kind!r} needs a radius")
        self.kind, self.radius, self.top = kind, radius, top

    def complex(self, data: Data) -> Complex:
        """The lifted complex itself."""
        if data.pos is None:
            raise CosetError("the data has no pos [points, dim]: it is no point cloud")
        points = data.pos.cpu().numpy()
        if self.kind == "delaunay":
            lifted = delaunay_complex(points)
        elif self.kind == "alpha":
            lifted = alpha_complex(points, float(self.radius or 0))
        else:
            return rips_complex(points, float(self.radius or 0), self.top)
        cells = {rank: cells for rank, cells in lifted.cells.items() if 1 <= rank <= self.top}
        return Complex.known(len(points), cells, "simplicial")

    def forward(self, data: Data) -> ComplexData:
        lifted = to_data(self.complex(data), ranks=self.top + 1)
        for key, value in data.to_dict().items():
            if key not in ("edge_index", "num_nodes"):
                lifted[key] = value
        return lifted

    def __repr__(self) -> str:
        return f"PointLift({self.kind!r}, radius={self.radius}, top={self.top})"


def _cloud(points: Any) -> Float[Array, "points dim"]:
    cloud = np.asarray(points, dtype=float)
    if cloud.ndim != 2 or not len(cloud):
        raise CosetError(f"points has shape {list(cloud.shape)}; expected [points, dimension] with at least one point")
    if not np.isfinite(cloud).all():
        raise CosetError(f"point {int(np.flatnonzero(~np.isfinite(cloud).all(1))[0])} has no finite position")
    return cloud


def _from_simplex_tree(tree: Any, vertices: int) -> Complex:
    return from_simplices([simplex for simplex, _ in tree.get_simplices() if len(simplex) > 1], vertices)


def _read_off(path: Path) -> tuple[Cells, Array]:
    return _parse_off(read_text(path, encoding="latin-1"))


def _parse_off(text: str) -> tuple[Cells, Array]:
    """OFF: a keyword, counts, a line a vertex, a line a face (size, vertices, colour)."""
    rows = [line for line in (line.split("#")[0].split() for line in text.splitlines()) if line]
    if not rows or not rows[0][0].endswith("OFF"):
        raise ValueError("it does not begin with OFF")
    if not OFF_KINDS.fullmatch(rows[0][0]):
        raise ValueError(f"its first word is {rows[0][0]}: points of three coordinates alone are read")
    rows[0] = rows[0][1:]
    rows = rows if rows[0] else rows[1:]
    if not rows or len(rows[0]) < 2:
        raise ValueError("the numbers of vertices and faces are missing")
    vertices, faces = int(rows[0][0]), int(rows[0][1])
    if len(rows) < 1 + vertices + faces:
        raise ValueError(
            f"it is cut short: {vertices} vertices and {faces} faces are announced, {len(rows) - 1} lines follow"
        )
    if more := rows[1 + vertices + faces :]:
        raise ValueError(f"{faces} faces are announced, but {' '.join(more[0])!r} follows")
    short = next((at for at, row in enumerate(rows[1 : 1 + vertices]) if len(row) < 3), None)
    if short is not None:
        raise ValueError(f"vertex {short} has {len(rows[1 + short])} coordinates, not 3")
    positions = np.array([row[:3] for row in rows[1 : 1 + vertices]], dtype=float).reshape(-1, 3)
    return Cells.of(_off_faces(rows[1 + vertices :])), positions


def _off_faces(rows: list[list[str]]) -> list[tuple[int, ...]]:
    """Vertices of the faces. A colour may follow: 3 or 4 numbers, or, if it does so everywhere, one of a list."""
    sizes = [int(row[0]) for row in rows]
    after = [len(row) - 1 - size for row, size in zip(rows, sizes, strict=True)]
    usual = {0, 1, 3, 4} if set(after) == {1} else {0, 3, 4}
    wrong = next((at for at, count in enumerate(after) if count not in usual), None)
    if wrong is not None:
        raise ValueError(f"face {wrong} announces {sizes[wrong]} vertices: {' '.join(rows[wrong])!r}")
    return [tuple(map(int, row[1 : 1 + size])) for row, size in zip(rows, sizes, strict=True)]


def _read_with_trimesh(path: Path) -> tuple[Cells, Array]:
    check_regular(path, MOST_BYTES)
    if path.suffix.lower() == ".ply":
        _check_ply(path)
    if path.suffix.lower() == ".obj":
        _check_obj(path)
    loaded = require("trimesh", "topology").load(path, process=False, force="mesh")
    faces, vertices = np.asarray(loaded.faces, dtype=np.int64), np.asarray(loaded.vertices, dtype=float)
    return Cells.of(faces.reshape(-1, 3)), vertices.reshape(-1, 3)


def _check_ply(path: Path) -> None:
    """Raise a ValueError if a PLY file of text has other rows than its header says; trimesh reads what there is."""
    content = read_bytes(path, MOST_BYTES)
    if b"ascii" not in content[:200].partition(b"end_header")[0]:
        return  # of a binary file trimesh tells that it is cut short
    lines = [line.split() for line in content.decode("latin-1").splitlines()]
    end = next((at for at, words in enumerate(lines) if words == ["end_header"]), len(lines))
    elements: list[tuple[str, int, list[bool]]] = []  # name, rows, and of each property whether it is a list
    for words in lines[:end]:
        if words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1] == "list")
    rows = [words for words in lines[end + 1 :] if words]
    announced = sum(count for _, count, _ in elements)
    if len(rows) != announced:
        raise ValueError(f"its header announces {announced} rows, but {len(rows)} follow")
    kinds = ((name, lists, at) for name, count, lists in elements for at in range(count))
    for words, (name, lists, at) in zip(rows, kinds, strict=True):
        place = 0
        for is_list in lists:
            place += 1 + (int(words[place]) if is_list and place < len(words) else 0)
        if place != len(words):
            raise ValueError(f"{name} {at} has {len(words)} numbers, not {place}: {' '.join(words)!r}")


def _check_obj(path: Path) -> None:
    """Raise a ValueError if a face has fewer than three vertices; trimesh leaves it out."""
    for number, line in enumerate(read_text(path, MOST_BYTES, encoding="latin-1").splitlines()):
        words = line.split("#")[0].split()
        if words[:1] == ["f"] and len(words) < 4 and not words[-1].endswith("\\"):  # a face may go on in the next line
            raise ValueError(f"line {number + 1} is a face of {len(words) - 1} vertices: {line.strip()!r}")
