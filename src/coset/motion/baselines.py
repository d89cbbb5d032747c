r"""What TracksTo4D is held against: factorisation of the tracks, and optimisation of its losses from scratch.

Factorisation takes the camera for weakly perspective, w_ip = M_i X_p + m_i (Tomasi and Kanade 1992), finds missing
entries by alternating least squares, and makes M_i scaled rows of rotations by an affine-to-metric upgrade. The mirror
image that no affine camera can tell is chosen by perspective reprojection. Moving scenes: trajectories in K cosines
given those cameras (rank 3K; Akhter et al. 2008).

Two marks tell what a motion that is found is worth: the prediction without it (:func:`standing_still`), and the truth
with every moving point frozen at its mean place (:func:`frozen_truth`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coset.motion.data.scenes import Scene
from coset.motion.geometry import project, rotation_from_6d, to_camera
from coset.motion.losses import START, LossWeights, losses, total_loss
from coset.motion.models.trackster4d import Prediction


def rigid_factorisation(tracks: Float[Tensor, "points frames 3"], rounds: int = 60) -> Prediction:
    """Rank 3: one rigid cloud and affine cameras, upgraded; depths of the cameras from their scales.

    Raises:
        ValueError: Fewer than 4 points or 3 frames.
    """
    tracks = tracks.double()
    if tracks.size(0) < 4 or tracks.size(1) < 3:
        raise ValueError(f"{tracks.size(0)} points, {tracks.size(1)} frames: factorisation needs 4 points and 3 frames")
    seen = tracks[..., 2] > 0.5
    motion, shift, shape = _affine(tracks[..., :2], seen, rounds)
    motion, shape = _metric_upgrade(motion, shape)
    candidates = []
    for mirror in (1.0, -1.0):
        flip = torch.tensor([1.0, 1.0, mirror]).to(shape)
        candidates.append(_weak_perspective(motion * flip, shift, shape * flip, tracks, seen))
    return min(candidates, key=lambda prediction: _median_error(prediction, tracks, seen))


def trajectory_factorisation(
    tracks: Float[Tensor, "points frames 3"], basis: int = 4, ridge: float = 1e-3
) -> Prediction:
    """Rank 3K: cameras of the rigid factorisation, and every point's path a sum of ``basis`` cosines."""
    tracks = tracks.double()
    rigid = rigid_factorisation(tracks)
    seen = tracks[..., 2] > 0.5
    frames = tracks.size(1)
    times = (torch.arange(frames).double() + 0.5) * torch.pi / frames
    cosines = torch.cos(times[:, None] * torch.arange(basis).double())
    axes = rigid.rotations.transpose(-1, -2)
    depth = (to_camera(rigid.static.unsqueeze(1), rigid.rotations, rigid.positions))[..., 2].clamp(min=0.01)
    rows = (axes[:, :2] - tracks[..., :2, None] * axes[:, None, 2]) / depth[..., None, None]
    target = torch.einsum("pnad,nd->pna", rows, rigid.positions)
    design = torch.einsum("pnad,nk->pnakd", rows, cosines).flatten(3).flatten(1, 2)
    weight = seen.double().repeat_interleave(2, 1).unsqueeze(-1)
    left = (design * weight).transpose(1, 2) @ design
    # Higher cosines are held small, or rays that nothing crosses would send points anywhere along them.
    strength = ridge * left.diagonal(dim1=1, dim2=2).mean() * torch.arange(basis).double().repeat_interleave(3) ** 2
    left = left + torch.diag(strength + 1e-9)
    right = (design * weight).transpose(1, 2) @ target.flatten(1).unsqueeze(-1)
    clouds = torch.linalg.solve(left, right).squeeze(-1).unflatten(1, (-1, 3))
    size = clouds[:, 1:].norm(dim=(1, 2)) if basis > 1 else rigid.gamma
    return rigid._replace(basis=clouds, coefficients=cosines, gamma=size)


class FreeReconstruction(nn.Module):
    """Cameras, clouds, coefficients and motion levels as free parameters, started as the network's warm-up starts.

    Points begin on the rays of their mean image place, at the depth of the scene.
    """

    def __init__(self, tracks: Float[Tensor, "points frames 3"], basis: int = 12, seed: int = 0):
        super().__init__()
        points, frames = tracks.shape[:2]
        seen = tracks[..., 2:]
        mean = (tracks[..., :2] * seen).sum(1) / seen.sum(1).clamp(min=1)
        start = torch.zeros(points, basis, 3).to(tracks)
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
        start[:, 1:] = 0.01 * noise[:, 1:].to(tracks)
        start[:, 0] = torch.cat((-START * mean, 0.1 * noise[:, 0, 2:].to(tracks)), -1)
        self.cloud = nn.Parameter(start)
        self.turn = nn.Parameter(torch.tensor([1.0, 0, 0, 0, 1, 0]).to(tracks).repeat(frames, 1))
        self.place = nn.Parameter(torch.tensor([0.0, 0, START]).to(tracks).repeat(frames, 1))
        self.c = nn.Parameter(
            0.01 * torch.randn(frames, basis, generator=torch.Generator().manual_seed(seed + 1)).to(tracks)
        )
        self.log_gamma = nn.Parameter(torch.full((points,), -3.0).to(tracks))

    def forward(self) -> Prediction:
        c = torch.cat((torch.ones_like(self.c[:, :1]), self.c[:, 1:]), 1)
        ones = torch.ones_like(c[:, 0])
        rotations = rotation_from_6d(self.turn)
        positions = (rotations @ self.place.unsqueeze(-1)).squeeze(-1)
        return Prediction(rotations, positions, c, ones, self.cloud, self.log_gamma.exp() + 1e-5)


def optimise_scene(
    tracks: Float[Tensor, "points frames 3"],
    steps: int,
    learning_rate: float = 0.02,
    weights: LossWeights | None = None,
    seed: int = 0,
    done: Callable[[int, Prediction], bool] = lambda step, prediction: False,
) -> Prediction:
    """The same losses minimised for one video from scratch, by Adam; the best iterate.

    Args:
        tracks: (x, y, visible), normalised.
        steps: Updates.
        learning_rate: Falls linearly to a tenth.
        weights: Of the losses.
        seed: Of the start.
        done: Called after every step with the iterate; true ends the optimisation.
    """
    weights = weights or LossWeights()
    free = FreeReconstruction(tracks, seed=seed)
    optimizer = torch.optim.Adam(free.parameters(), lr=learning_rate)
    best, least = free(), float("inf")
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - 0.9 * step / steps)
        prediction = free()
        total = total_loss(losses(prediction, tracks), weights)
        if float(total.detach()) < least:
            best, least = Prediction(*(part.detach().clone() for part in prediction)), float(total.detach())
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        if done(step, best):
            break
    return Prediction(*(part.detach() for part in best))


def standing_still(prediction: Prediction) -> Prediction:
    """The prediction with B_k = 0 for k >= 2: the static cloud alone."""
    return prediction._replace(basis=torch.cat((prediction.basis[..., :1, :], 0 * prediction.basis[..., 1:, :]), -2))


def frozen_truth(scene: Scene) -> Prediction:
    """The true scene with every point frozen at its true mean place while visible: only motion is missing.

    gamma is how far a point strays from there, in the camera's normalised coordinates.
    """
    points, seen = torch.from_numpy(scene.points), torch.from_numpy(scene.tracks.visible)
    rotations, positions = torch.from_numpy(scene.rotations), torch.from_numpy(scene.positions)
    mean = (points * seen.unsqueeze(-1)).sum(1) / seen.sum(1).clamp(min=1).unsqueeze(-1)
    ones = torch.ones(len(rotations), 1).to(points)
    frozen = Prediction(rotations, positions, ones, ones[:, 0], mean.unsqueeze(1), torch.ones(len(points)).to(points))
    away = (_seen_at(frozen) - project(to_camera(points, rotations, positions))).norm(dim=-1)
    return frozen._replace(gamma=(away * seen).sum(1) / seen.sum(1).clamp(min=1) + 1e-5)


def _affine(
    xy: Float[Tensor, "points frames 2"], seen: Bool[Tensor, "points frames"], rounds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """M [N, 2, 3], m [N, 2] and X [P, 3] with w = M X + m, by alternating least squares over what is seen."""
    weight = seen.double()
    mean = (xy * weight[..., None]).sum(0) / weight.sum(0).clamp(min=1)[:, None]
    centred = torch.where(seen.unsqueeze(-1), xy - mean, torch.zeros_like(xy))
    u, s, _ = torch.linalg.svd(centred.flatten(1), full_matrices=False)
    shape = u[:, :3] * s[:3]
    for _ in range(rounds):
        one = torch.cat((shape, torch.ones_like(shape[:, :1])), 1)
        left = torch.einsum("pn,pi,pj->nij", weight, one, one) + 1e-9 * torch.eye(4).double()
        motion = torch.linalg.solve(left, torch.einsum("pn,pi,pna->nia", weight, one, xy)).transpose(1, 2)
        m, shift = motion[..., :3], motion[..., 3]
        left = torch.einsum("pn,nai,naj->pij", weight, m, m) + 1e-9 * torch.eye(3).double()
        shape = torch.linalg.solve(left, torch.einsum("pn,nai,pna->pi", weight, m, xy - shift))
    return m, shift, shape


def _metric_upgrade(motion: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    """The A that makes rows of M_i A orthogonal and equally long (Poelman and Kanade 1997)."""
    a, b = motion[:, 0], motion[:, 1]
    design = torch.cat([_quadratic(a, a) - _quadratic(b, b), _quadratic(a, b)])
    scaled = _quadratic(a, a)[:1]
    # Scale is fixed by the first row of the first camera being of length 1.
    system = torch.cat([design, scaled])
    right = torch.zeros(len(system)).double()
    right[-1] = 1.0
    q = torch.linalg.lstsq(system, right.unsqueeze(-1), driver="gelsd").solution.squeeze(-1)
    symmetric = torch.stack([q[[0, 1, 2]], q[[1, 3, 4]], q[[2, 4, 5]]])
    values, vectors = torch.linalg.eigh(symmetric)
    # Noise or motion may leave no positive solution; the nearest one stands in.
    upgrade = vectors * values.clamp(min=1e-3 * values.max().clamp(min=1e-12)).sqrt()
    return motion @ upgrade, torch.linalg.solve(upgrade, shape.T).T


def _quadratic(a: Tensor, b: Tensor) -> Tensor:
    """Coefficients of a^T Q b in the six entries of a symmetric Q."""
    return torch.stack([
        a[:, 0] * b[:, 0], a[:, 0] * b[:, 1] + a[:, 1] * b[:, 0], a[:, 0] * b[:, 2] + a[:, 2] * b[:, 0],
        a[:, 1] * b[:, 1], a[:, 1] * b[:, 2] + a[:, 2] * b[:, 1], a[:, 2] * b[:, 2],
    ], 1)  # fmt: skip


def _weak_perspective(
    motion: Tensor, shift: Tensor, shape: Tensor, tracks: Tensor, seen: Tensor
) -> Prediction:  # fmt: skip
    """Cameras whose rotations are nearest to the upgraded rows, at the depth their scale tells (focal length 1)."""
    u, s, vh = torch.linalg.svd(motion, full_matrices=False)
    rows = u @ vh
    axes = torch.cat((rows, torch.linalg.cross(rows[:, 0], rows[:, 1]).unsqueeze(1)), 1)
    depth = 1 / s.mean(1).clamp(min=1e-9)
    origin = torch.cat((shift * depth[:, None], depth[:, None]), -1)  # of the world, in the camera
    rotations = axes.transpose(-1, -2)
    positions = -(rotations @ origin.unsqueeze(-1)).squeeze(-1)
    ones = torch.ones(len(motion), 1).double()
    prediction = Prediction(rotations, positions, ones, ones[:, 0], shape.unsqueeze(1), torch.ones(len(shape)).double())
    error = (_seen_at(prediction) - tracks[..., :2]).norm(dim=-1)
    level = torch.where(seen, error, torch.full_like(error, torch.nan)).nanmedian(1).values
    return prediction._replace(gamma=level)


def _seen_at(prediction: Prediction) -> Tensor:
    return project(to_camera(prediction.static.unsqueeze(1), prediction.rotations, prediction.positions))


def _median_error(prediction: Prediction, tracks: Tensor, seen: Tensor) -> float:
    return float((_seen_at(prediction) - tracks[..., :2]).norm(dim=-1)[seen].mean())
