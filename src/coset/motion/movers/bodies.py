"""Which points move, and which of them are one body."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from coset.motion.movers.options import MoverOptions
from coset.motion.movers.view import View


def moving_rows(gamma: Float[Tensor, " points"], noise: float) -> Bool[Tensor, " points"]:
    """Points that move: their motion level is above what tracking errors make, and above the others'.

    The one definition: cameras and lens are adjusted without them, bodies are made of them, pages and files name them.
    """
    return gamma > torch.maximum(torch.tensor(4 * noise).to(gamma), 2.5 * gamma.median())


def together(view: View, moving: Bool[np.ndarray, " points"], options: MoverOptions) -> Bool[np.ndarray, " points"]:
    """Of the points that move those of groups that stand together; a few between still ones slid along an edge."""
    found = np.zeros_like(moving)
    share = view.among(moving, options.neighbours)
    mobile = np.flatnonzero(moving)
    if not len(mobile):
        return found
    for group in _groups(view.apart[np.ix_(mobile, mobile)])[0]:
        rows = mobile[group]
        found[rows] = np.median(share[rows]) >= options.company
    return found


def adopted(view: View, moving: Bool[np.ndarray, " points"], options: MoverOptions) -> Int[np.ndarray, " mobile"]:
    """Points that move, and those among them in the picture that hardly stand still.

    What moves along the rays of a camera that moves, or beside it, looks still at a depth that is not its own. Such
    points are told by their neighbours: they are not as still as others, and most points around them move.
    """
    mobile = moving.copy()
    if mobile.sum() < options.least:
        return np.flatnonzero(mobile)
    needed = np.where(view.restless, 0.25, np.where(view.still, np.inf, 0.5))
    needed[view.sunk()] = 1 / options.neighbours
    for _ in range(10):
        more = ~mobile & (view.among(mobile, options.neighbours) >= needed)
        if not more.any():
            break
        mobile |= more
    return np.flatnonzero(mobile)


def bodies_of(view: View, mobile: Int[np.ndarray, " points"], options: MoverOptions) -> list[np.ndarray]:
    """Moving points in groups that lie together in the picture.

    Groups too small for a body go with the nearest one, or are left out where there is none near.
    """
    if len(mobile) < options.least:
        return []
    distance = view.apart[np.ix_(mobile, mobile)]
    groups, reach = _groups(distance)
    bodies = [rows for rows in groups if len(rows) >= options.least]
    for rows in groups:
        if bodies and len(rows) < options.least:
            apart = [float(distance[np.ix_(rows, body)].min()) for body in bodies]
            if min(apart) < 3 * reach:
                bodies[int(np.argmin(apart))] = np.concatenate([bodies[int(np.argmin(apart))], rows])
    return [mobile[np.sort(rows)] for rows in bodies]


def _groups(distance: Float[np.ndarray, "points points"]) -> tuple[list[np.ndarray], float]:
    """Points in groups that lie together, and within what distance of each other that is."""
    nearest = np.sort(distance, 1)[:, : min(3, len(distance) - 1)]
    finite = nearest[np.isfinite(nearest)]
    reach = max(4 * float(np.median(finite)), 0.06) if len(finite) else 0.0
    count, labels = connected_components(sparse.csr_matrix(distance < reach), directed=False)
    return [np.flatnonzero(labels == label) for label in range(count)], reach
