"""3-manifolds given as tetrahedra glued along their faces, as SnapPy and Regina give them, made into complexes.

Such a gluing is no simplicial complex: a face of a tetrahedron may be glued to another of the same one, and an edge may
be a loop. Its first barycentric subdivision has no loops, and the second is simplicial: 576 tetrahedra for each one.
"""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray as Array
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from coset.core.errors import CosetError
from coset.topology.data.complexes import Complex, from_simplices

Chain = tuple[tuple[int, ...], ...]
"""Faces of a tetrahedron, each in the next: a simplex of the barycentric subdivision."""


def glued_tetrahedra(
    neighbours: Int[Array, "tetrahedra 4"], gluings: Int[Array, "tetrahedra 4 4"], remove_vertices: bool = True
) -> tuple[Complex, list[Complex]]:
    """The second barycentric subdivision of glued tetrahedra, and the links of their vertices.

    Args:
        neighbours: ``neighbours[t, f]`` is glued to the face of t opposite its vertex f.
        gluings: ``gluings[t, f]`` takes the vertices of t to those of that neighbour, f to the one opposite the face.
        remove_vertices: Leave out the open stars of the vertices. An ideal triangulation of a manifold with cusps
            becomes the compact manifold that way, and the links are its boundary; other vertices become holes.

    Returns:
        The complex, of rank 3, and the link of each vertex, a closed surface.

    Raises:
        CosetError: A gluing is no permutation, or its neighbour does not glue back.
    """
    neighbours, gluings = np.asarray(neighbours), np.asarray(gluings)
    _check(neighbours, gluings)
    cells, flags = _chains(), list(permutations(range(4)))
    number = {chain: i for i, chain in enumerate(cells)}
    labels = _identified(neighbours, gluings, cells, number)
    # A tetrahedron of the second subdivision: a flag of faces, and an order in which a chain grows to it.
    grown = np.array([[number[chain] for chain in _growth(flag, order)] for flag in flags for order in flags])
    tetrahedra = labels[np.arange(len(neighbours))[:, None, None] * len(cells) + grown].reshape(-1, 4)
    corners = [number[((v,),)] for v in range(4)]
    vertices = np.unique(labels[np.arange(len(neighbours))[:, None] * len(cells) + corners])
    links = [_compact(_opposite(tetrahedra, vertex)) for vertex in vertices]
    if remove_vertices:
        tetrahedra = tetrahedra[~np.isin(tetrahedra, vertices).any(1)]
    return _compact(tetrahedra), links


def from_snappy(manifold: Any, remove_vertices: bool = True) -> tuple[Complex, list[Complex]]:
    """A triangulation or manifold of SnapPy as a complex; see :func:`glued_tetrahedra`.

    Args:
        manifold: ``snappy.Triangulation`` or ``snappy.Manifold``. Dehn fillings are not seen: fill it first.
        remove_vertices: As there; ``False`` for closed manifolds (``filled_triangulation()``).
    """
    from snappy.snap.t3mlite import Mcomplex, simplex

    tetrahedra, faces = Mcomplex(manifold).Tetrahedra, simplex.TwoSubsimplices
    neighbours = [[t.Neighbor[face].Index for face in faces] for t in tetrahedra]
    gluings = [[[t.Gluing[face][v] for v in range(4)] for face in faces] for t in tetrahedra]
    return glued_tetrahedra(np.array(neighbours), np.array(gluings), remove_vertices)


def _check(neighbours: Array, gluings: Array) -> None:
    count = len(neighbours)
    if neighbours.shape != (count, 4) or gluings.shape != (count, 4, 4):
        raise CosetError(
            f"neighbours must be n x 4 and gluings n x 4 x 4; they are {neighbours.shape} and {gluings.shape}"
        )
    for t, f in np.ndindex(count, 4):
        other, gluing = neighbours[t, f], gluings[t, f]
        if sorted(gluing) != [0, 1, 2, 3] or not 0 <= other < count:
            raise CosetError(
                f"tetrahedron {t}, face {f}: vertices {gluing.tolist()} of tetrahedron {other} are no gluing"
            )
        back = gluing[f]
        if neighbours[other, back] != t or (gluings[other, back][gluing] != np.arange(4)).any():
            raise CosetError(f"tetrahedron {t}, face {f}: tetrahedron {other}, face {back}, does not glue back to it")


def _chains() -> list[Chain]:
    """The 149 simplices of the barycentric subdivision of a tetrahedron."""
    faces = [face for size in (1, 2, 3, 4) for face in combinations(range(4), size)]
    found: list[Chain] = []
    grow: list[Chain] = [(face,) for face in faces]
    while grow:
        found += grow
        grow = [(*chain, face) for chain in grow for face in faces if set(chain[-1]) < set(face)]
    return found


def _growth(flag: tuple[int, ...], order: tuple[int, ...]) -> list[Chain]:
    faces = [tuple(sorted(flag[: size + 1])) for size in range(4)]
    return [tuple(faces[i] for i in sorted(order[: size + 1])) for size in range(4)]


def _identified(
    neighbours: Array, gluings: Array, cells: list[Chain], number: dict[Chain, int]
) -> Int[Array, " chains"]:
    """For every chain of every tetrahedron the number of what it is glued to."""
    pairs = []
    for t, f in np.ndindex(len(neighbours), 4):
        gluing = gluings[t, f]
        for i, chain in enumerate(cells):
            if f not in chain[-1]:
                image = tuple(tuple(sorted(int(gluing[v]) for v in face)) for face in chain)
                pairs.append((t * len(cells) + i, neighbours[t, f] * len(cells) + number[image]))
    a, b = np.array(pairs).T
    size = len(neighbours) * len(cells)
    return connected_components(coo_matrix((np.ones(len(a)), (a, b)), (size, size)), directed=False)[1]


def _opposite(tetrahedra: Int[Array, "tetrahedra 4"], vertex: np.integer) -> Int[Array, "triangles 3"]:
    star = tetrahedra[(tetrahedra == vertex).any(1)]
    return star[star != vertex].reshape(-1, 3)


def _compact(simplices: Array) -> Complex:
    """The complex of these simplices, their vertices numbered anew."""
    kept, again = np.unique(simplices, return_inverse=True)
    return from_simplices(again.reshape(simplices.shape), len(kept))
