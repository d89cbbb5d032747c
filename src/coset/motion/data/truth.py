"""What test sets tell of the scene behind their tracks: depths, cameras, which points move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

CLEARER = 3.0  # times that still points must stray less under inverted cameras to show that these are meant
STRAYS = 0.02  # of their depth: what is below says nothing of how cameras are meant
MOVES = 0.01  # of the median depth: travel beyond which a point of a test set counts as moving


@dataclass(frozen=True)
class Truth:
    """Any part may be unknown.

    Attributes:
        depth: Along the camera's axis; 0 where it is not known.
        rotations: R_i; the camera sees Y = R_i^T (X - t_i).
        positions: t_i.
        moving: Whether a point moves.
    """

    depth: Float[np.ndarray, "points frames"] | None = None
    rotations: Float[np.ndarray, "frames 3 3"] | None = None
    positions: Float[np.ndarray, "frames 3"] | None = None
    moving: Bool[np.ndarray, " points"] | None = None

    def select(self, points: np.ndarray | slice, frames: slice) -> Truth:
        """Of some of the points, in a run of the frames."""
        depth, moving = self.depth, self.moving
        return Truth(
            None if depth is None else depth[points][:, frames],
            None if self.rotations is None else self.rotations[frames],
            None if self.positions is None else self.positions[frames],
            None if moving is None else moving[points],
        )

    def world_to_camera(self) -> Float[np.ndarray, "frames 3 4"] | None:
        """[R_i^T | -R_i^T t_i], if the cameras are known."""
        if self.rotations is None or self.positions is None:
            return None
        turn = self.rotations.transpose(0, 2, 1)
        return np.concatenate([turn, -turn @ self.positions[..., None]], -1)


def cameras_of(
    world_to_camera: Float[np.ndarray, "frames rows 4"],
) -> tuple[Float[np.ndarray, "frames 3 3"], Float[np.ndarray, "frames 3"]]:
    """R_i and t_i of matrices [R | t] that bring the world into the camera.

    Raises:
        ValueError: They turn by no rotation.
    """
    turn, shift = world_to_camera[:, :3, :3].astype(float), world_to_camera[:, :3, 3].astype(float)
    off = np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
    wrong = np.flatnonzero(~(off < 1e-3) | ~(np.linalg.det(turn) > 0))
    if len(wrong):
        raise ValueError(f"frame {wrong[0]} has no rotation: {np.round(turn[wrong[0]], 3).tolist()}")
    rotations = turn.transpose(0, 2, 1)
    return rotations, -(rotations @ shift[..., None])[..., 0]


def moving_points(
    world: Float[np.ndarray, "points frames 3"],
    known: Bool[np.ndarray, "points frames"],
    depth: Float[np.ndarray, "points frames"],
) -> Bool[np.ndarray, " points"]:
    """Points that stray from their mean place by more than a hundredth of the median depth."""
    mean = np.where(known[..., None], world, 0).sum(1) / np.maximum(known.sum(1), 1)[:, None]
    travel = np.where(known, np.linalg.norm(world - mean[:, None], axis=-1), 0).max(1)
    near = np.abs(depth[known])
    return travel > MOVES * (np.median(near) if len(near) else np.inf)


def other_way_round(
    truth: Truth, flat: Float[np.ndarray, "points frames 2"], visible: Bool[np.ndarray, "points frames"]
) -> bool:
    """Whether cameras are from the camera to the world: the median point then stands stiller under their inverses.

    Args:
        truth: With depths and cameras; without, nothing is said.
        flat: Where points are seen, in normalised coordinates.
        visible: Observations that count.
    """
    if truth.depth is None or truth.rotations is None or truth.positions is None:
        return False
    known = visible & (truth.depth > 0) & np.isfinite(flat).all(-1)
    rows = known.sum(1) >= 3
    if not rows.any():
        return False
    known, depth = known[rows], np.where(known, truth.depth, 0.0)[rows]
    inside = (
        np.concatenate([np.where(known[..., None], flat[rows], 0.0), np.ones((*known.shape, 1))], -1) * depth[..., None]
    )
    turn = truth.rotations.transpose(0, 2, 1)
    inverse = -np.einsum("nij,nj->ni", turn, truth.positions)
    as_told, inverted = (
        _strays(np.einsum("nij,pnj->pni", r, inside) + t, known, depth)
        for r, t in ((truth.rotations, truth.positions), (turn, inverse))
    )
    return as_told > max(STRAYS, CLEARER * inverted)


def _strays(
    world: Float[np.ndarray, "points frames 3"],
    known: Bool[np.ndarray, "points frames"],
    depth: Float[np.ndarray, "points frames"],
) -> float:
    """Median over points of how far they are from their mean place, in the mean, over their mean depth."""
    count = known.sum(1)
    mean = np.where(known[..., None], world, 0).sum(1) / count[:, None]
    away = np.where(known, np.linalg.norm(world - mean[:, None], axis=-1), 0).sum(1) / count
    return float(np.median(away / (depth.sum(1) / count)))
