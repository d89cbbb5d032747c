"""What a picture of a complex needs: where its vertices are, which cells are drawn, and what SMCN attends to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse.csgraph import shortest_path
from torch import Tensor, nn
from torch_geometric.data import Data

from coset.topology.data.batches import CellBatch
from coset.topology.data.cells import Array
from coset.topology.models.smcn import SMCN


class Drawing(NamedTuple):
    """A complex to draw.

    Attributes:
        positions: Of the vertices.
        edges: Vertices of the cells of rank 1; those of more than two vertices are left out (empty rows).
        faces: Vertices of the cells of rank 2, in cyclic order where they have one.
    """

    positions: Float[Array, "vertices 3"]
    edges: list[list[int]]
    faces: list[list[int]]


def drawing(data: Data, positions: Float[Array, "vertices dim"] | None = None) -> Drawing:
    """Read a drawing off a single complex.

    Args:
        data: A :class:`coset.topology.ComplexData`.
        positions: In the plane or in space; ``data.pos`` by default, and without that a layout in which distances come
            close to hops.
    """
    cells = CellBatch(data)
    edges = _members(cells, 1) if cells.top >= 1 else []
    faces = _members(cells, 2) if cells.top >= 2 else []
    edges = [edge if len(edge) == 2 else [] for edge in edges]
    n = cells.cells[0].total
    given = positions if positions is not None else data.get("pos")
    place = hop_layout(n, edges) if given is None else np.asarray(given, dtype=float)
    place = np.pad(place, ((0, 0), (0, 3 - place.shape[1]))) if place.shape[1] < 3 else place[:, :3]
    joined = {frozenset(edge) for edge in edges if edge}
    return Drawing(place, edges, [_cyclic(face, joined, place) for face in faces])


def hop_layout(vertices: int, edges: list[list[int]]) -> Float[Array, "vertices 3"]:
    """Classical multidimensional scaling of the hop distances to three dimensions; components side by side."""
    adjacency = np.zeros((vertices, vertices))
    for edge in edges:
        if edge:
            adjacency[edge[0], edge[1]] = adjacency[edge[1], edge[0]] = 1
    hops = shortest_path(adjacency, unweighted=True, directed=False)
    far = hops[np.isfinite(hops)].max() + 2
    hops[~np.isfinite(hops)] = far
    centring = np.eye(vertices) - 1 / vertices
    values, vectors = np.linalg.eigh(-0.5 * centring @ hops**2 @ centring)
    largest = np.argsort(values)[::-1][:3]
    place = vectors[:, largest] * np.sqrt(np.clip(values[largest], 0, None))
    return np.pad(place, ((0, 0), (0, 3 - place.shape[1])))


def pair_relevance(model: SMCN, data: Data) -> Float[Array, "x s"]:
    """How much each pair (x, s) of the bag weighs in a prediction: |<X(x, s), df/dX(x, s)>|, f the sum of the outputs.

    X is what the last subcomplex layer gives (the bag itself if there is none): to first order, it is the change of the
    prediction were the features of the pair set to zero (Shrikumar, Greenside, Kundaje, "Learning Important Features
    Through Propagating Activation Differences", 2017, gradient x input). Rows are cells of rank r1, columns the marked
    cells of rank r2, of one complex.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    last = model.layers[-1] if len(model.layers) else model.bag
    hook = last.register_forward_hook(keep)
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            cells = CellBatch(data)
            out = model(cells)
            out.sum().backward()
    finally:
        hook.remove()
        model.zero_grad(set_to_none=True)
        model.train(training)
    (pairs,) = kept
    gradient = torch.zeros_like(pairs) if pairs.grad is None else pairs.grad
    product = cells.pairs(*model.ranks)
    weight = (pairs * gradient).sum(1).abs().detach()
    return weight.reshape(product.left.total, product.right.total).numpy()


def _members(cells: CellBatch, rank: int) -> list[list[int]]:
    vertex, cell = cells.incidence(0, rank).index.numpy()
    return [np.sort(vertex[cell == i]).tolist() for i in range(cells.cells[rank].total)]


def _cyclic(face: list[int], joined: set[frozenset[int]], place: Float[Array, "vertices 3"]) -> list[int]:
    """Around the face along its edges; by angle in its plane where edges do not say (chords, or a set of vertices)."""
    if len(face) <= 3:
        return face
    beside = {v: [w for w in face if frozenset((v, w)) in joined] for v in face}
    if all(len(near) == 2 for near in beside.values()):
        walk = [face[0]]
        while len(walk) < len(face):
            onward = [w for w in beside[walk[-1]] if w not in walk]
            if not onward:
                break
            walk.append(onward[0])
        if len(walk) == len(face):
            return walk
    return [face[i] for i in _by_angle(place[face])]


def _by_angle(points: Float[Array, "points 3"]) -> Int[Array, " points"]:
    centred = points - points.mean(0)
    plane = np.linalg.svd(centred, full_matrices=False)[2][:2]
    across, up = (centred @ plane.T).T
    return np.argsort(np.arctan2(up, across), kind="stable")
