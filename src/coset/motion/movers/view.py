"""What is known before bodies are placed: cameras, what stands still, the rays of all tracks, the ground."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coset.motion.models.trackster4d import Prediction


@dataclass(frozen=True)
class View:
    """Cameras, static cloud, and the rays of all tracks, in NumPy."""

    rotations: Float[np.ndarray, "frames 3 3"]
    positions: Float[np.ndarray, "frames 3"]
    static: Float[np.ndarray, "points 3"]
    still: Bool[np.ndarray, " points"]
    restless: Bool[np.ndarray, " points"]
    flat: Float[np.ndarray, "points frames 2"]
    seen: Bool[np.ndarray, "points frames"]
    rays: Float[np.ndarray, "points frames 3"]

    @classmethod
    def of(cls, prediction: Prediction, tracks: Tensor) -> View:
        flat, seen = tracks[..., :2].numpy(), tracks[..., 2].numpy() > 0.5
        rotations = prediction.rotations.numpy()
        rays = np.einsum("nij,pnj->pni", rotations, np.concatenate([flat, np.ones((*seen.shape, 1))], -1))
        levels = (prediction.gamma / prediction.gamma.median()).numpy()
        places = rotations, prediction.positions.numpy(), prediction.static.numpy()
        return cls(*places, levels < 1.5, levels > 2.5, flat, seen, rays)

    @cached_property
    def apart(self) -> Float[np.ndarray, "points points"]:
        """Distances of all points in the picture (:func:`picture_distances`)."""
        return picture_distances(self.flat, self.seen)

    @cached_property
    def nearest(self) -> Int[np.ndarray, "points points"]:
        """All points, the nearest to each first."""
        return np.argsort(self.apart, 1, kind="stable")

    def among(self, chosen: Bool[np.ndarray, " points"], neighbours: int) -> Float[np.ndarray, " points"]:
        """Share of the nearest neighbours of each point that are chosen."""
        order = self.nearest[:, :neighbours]
        within = np.isfinite(np.take_along_axis(self.apart, order, 1))
        return (chosen[order] & within).sum(1) / np.maximum(within.sum(1), 1)

    @cached_property
    def ground(self) -> tuple[np.ndarray, float] | None:
        """Normal (up) and offset of the plane that what stands still stands on, if one is seen."""
        return _ground(self)

    def sunk(self) -> Bool[np.ndarray, " points"]:
        """Static places well below the ground."""
        if self.ground is None:
            return np.zeros(len(self.static), bool)
        up, offset = self.ground
        return self.static @ up - offset < -0.06 * float(np.median(self.still_depth()[0]))

    def still_depth(self) -> tuple[Float[np.ndarray, "points frames"], Float[np.ndarray, "points frames 2"]]:
        """Depth and place in the picture of the static points in every frame."""
        inside = np.einsum("pni,nij->pnj", self.static[self.still][:, None] - self.positions, self.rotations)
        return inside[..., 2], inside[..., :2] / np.maximum(inside[..., 2:], 1e-9)


PLANES = 2000
"""Drawn in the search for the ground: enough that three of a sixth of the points are among them."""

OUT, OUT_OF_MANY, MANY = 2.5, 2.0, 0.3
"""Standard deviations by which more points are on the ground than in a layer beside it of the same thickness, and those
that are enough where it holds so large a share of all, as of few points it has to."""


def picture_distances(flat: np.ndarray, seen: np.ndarray) -> Float[np.ndarray, "points points"]:
    """Mean distance in the picture over common frames; infinite for points with fewer than 3, and to oneself."""
    both = (seen[:, None] & seen[None]).sum(-1)
    apart = np.zeros(both.shape)
    for n in range(seen.shape[1]):
        common = seen[:, n, None] & seen[None, :, n]
        apart += np.where(common, np.linalg.norm(flat[:, n, None] - flat[None, :, n], axis=-1), 0)
    apart = np.where(both >= 3, apart / np.maximum(both, 1), np.inf)
    np.fill_diagonal(apart, np.inf)
    return apart


def _ground(view: View) -> tuple[np.ndarray, float] | None:
    """Normal (up) and offset of the plane that many static points lie on and hardly any below, if there is one.

    Of points without a ground some plane holds as many: on a ground there are more than in the layers above and below.
    """
    points = view.static[view.still]
    if len(points) < 20:
        return None
    points = points[np.lexsort(points.T)]  # whatever the numbering, planes go through the same three
    up = -view.rotations[:, :, 1].mean(0)
    near = 0.02 * float(np.median(view.still_depth()[0]))
    a, b, c = points[np.random.default_rng(0).integers(0, len(points), (PLANES, 3))].swapaxes(0, 1)
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1)
    true = length > 1e-12
    normals = normals[true] / length[true, None] * np.sign(normals[true] @ up)[:, None]
    offsets = (normals * a[true]).sum(1)
    upright = normals @ up > 0.75 * np.linalg.norm(up)
    below_cameras = (view.positions @ normals.T > offsets).all(0)
    normals, offsets = normals[upright & below_cameras], offsets[upright & below_cameras]
    heights = points @ normals.T - offsets
    low = (heights < -3 * near).mean(0) < 0.1
    if not low.any():
        return None
    on = np.where(low, (np.abs(heights) < near).sum(0), 0)
    best = int(on.argmax())
    below, _, above = np.histogram(heights[:, best], np.array([-3.0, -1.0, 1.0, 3.0]) * near)[0]
    beside = max(below, above)
    share = on[best] / len(points)
    stands_out = on[best] - beside > (OUT_OF_MANY if share >= MANY else OUT) * np.sqrt(on[best] + beside)
    return (normals[best], float(offsets[best])) if share >= 0.15 and stands_out else None
