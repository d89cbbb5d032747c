r"""TracksTo4D: camera and moving 3D of a video from its point tracks, in one pass (Kasten, Lu, Maron, NeurIPS 2024).

The group is S_P, renumbering of points; frames are ordered. From tracks [P, N, 3] of (x, y, visible) come cameras
(R_i, t_i), basis clouds B_1..B_K, coefficients c_ik with c_i1 = 1, and a motion level gamma_p per point:

    X_ip = B_1p + sum_{k >= 2} c_ik B_kp.

Basis and gamma are equivariant to S_P, cameras and coefficients invariant. Layers attend in turn over the frames of a
point and over the points of a frame, so that cost is O(P N^2 + N P^2), not O((P N)^2).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from coset.core.errors import check_choice
from coset.motion.geometry import rotation_from_6d
from coset.symmetry import Claim, Parts, PointPermutation, TrivialAction

CAMERA_CHANNELS = 3 + 1 + 6  # position, focal length, rotation
Encoding = Literal["published", "vaswani"]


class Prediction(NamedTuple):
    """What one pass gives; every shape may have a batch in front.

    Attributes:
        rotations: R_i; the camera sees Y = R_i^T (X - t_i).
        positions: t_i, in the units of the basis.
        coefficients: c_ik; the first is 1.
        focal: Correction of the focal length by frame; 1 unless it is predicted.
        basis: B_kp.
        gamma: Motion level of a point: the size of the static cloud's reprojection error that it expects.
    """

    rotations: Float[Tensor, "*batch frames 3 3"]
    positions: Float[Tensor, "*batch frames 3"]
    coefficients: Float[Tensor, "*batch frames basis"]
    focal: Float[Tensor, "*batch frames"]
    basis: Float[Tensor, "*batch points basis 3"]
    gamma: Float[Tensor, "*batch points"]

    @property
    def static(self) -> Float[Tensor, "*batch points 3"]:
        """B_1, the scene as it would stand still."""
        return self.basis[..., 0, :]

    def still(self) -> Prediction:
        """The same cameras and static cloud, and nothing that moves: of all clouds B_1 alone."""
        return self._replace(basis=self.basis[..., :1, :], coefficients=self.coefficients[..., :1])

    def points(self) -> Float[Tensor, "*batch points frames 3"]:
        """X_ip: where every point is in every frame, in the world."""
        return moving_points(self.basis, self.coefficients)

    def away(self) -> Float[Tensor, "*batch points frames 3"]:
        """X_ip - B_1p: how far every point is from its place in the static scene."""
        clouds = torch.cat((torch.zeros_like(self.basis[..., :1, :]), self.basis[..., 1:, :]), -2)
        return moving_points(clouds, self.coefficients)


def moving_points(
    basis: Float[Tensor, "*batch points basis 3"], coefficients: Float[Tensor, "*batch frames basis"]
) -> Float[Tensor, "*batch points frames 3"]:
    """X_ip = sum_k c_ik B_kp."""
    return torch.einsum("...pkd,...nk->...pnd", basis, coefficients)


class TracksTo4D(nn.Module):
    """The encoder, with the sizes of the paper by default.

    Args:
        width: Channels of a token.
        blocks: Pairs of a transformer block over frames and one over points.
        heads: Attention heads.
        head_width: Channels of a head.
        hidden: Channels inside the blocks' two-layer networks.
        basis: K, the number of basis clouds; the first is the static scene.
        octaves: Frequencies of the Fourier features, 2^0 pi to 2^(octaves - 1) pi.
        kernel: Frames that the circular convolution of the camera head sees; odd.
        predict_focal: Whether focal lengths are corrected by 1 + 0.05 times an output.
        temporal_encoding: Whether frames are numbered. Without it the network commutes with cyclic shifts of time.
        attend_visible: Whether tokens of points that are not seen are left out as keys.
        encoding: Wavelengths of the frames' numbers: ``published``, those of TracksTo4D's code, or ``vaswani``
            (:func:`frame_encoding`), with which the small network of the package was trained.
        read_unseen: Whether coordinates of points that are not seen are looked at, as in the published code, whose
            tracker guesses them. Otherwise 0 stands there: most trackers say nothing, or anything.
        orbit: Whether the head gives R_i^T t_i in place of t_i, so that a change of rotation alone swings the camera
            round the scene, as a hand that films a pet does. Ours; the official network gives t_i.
        displacement: Whether tokens also read how far a point is from its mean place while it is seen: what cameras
            follow from is small beside where points are. Ours.

    Raises:
        ValueError: An even kernel, an odd width, or no basis.
    """

    def __init__(
        self,
        width: int = 256,
        blocks: int = 3,
        heads: int = 16,
        head_width: int = 64,
        hidden: int = 2048,
        basis: int = 12,
        octaves: int = 12,
        kernel: int = 31,
        predict_focal: bool = False,
        temporal_encoding: bool = True,
        attend_visible: bool = False,
        orbit: bool = False,
        encoding: Encoding = "published",
        read_unseen: bool = False,
        displacement: bool = False,
    ):
        super().__init__()
        if kernel % 2 == 0 or width % 2 or basis < 1 or blocks < 1:
            raise ValueError(
                f"kernel={kernel} must be odd, width={width} even, basis={basis} and blocks={blocks} at least 1"
            )
        self.options = {
            "width": width, "blocks": blocks, "heads": heads, "head_width": head_width, "hidden": hidden,
            "basis": basis, "octaves": octaves, "kernel": kernel, "predict_focal": predict_focal,
            "temporal_encoding": temporal_encoding, "attend_visible": attend_visible, "orbit": orbit,
            "encoding": encoding, "read_unseen": read_unseen, "displacement": displacement,
        }  # fmt: skip
        check_choice("encoding", encoding, get_args(Encoding))
        self.basis, self.octaves, self.kernel = basis, octaves, kernel
        self.predict_focal, self.temporal_encoding = predict_focal, temporal_encoding
        self.attend_visible, self.orbit = attend_visible, orbit
        self.encoding, self.read_unseen, self.displacement = encoding, read_unseen, displacement
        channels = (3 + 2 * displacement) * (1 + 2 * octaves) + 1
        self.embed = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width), nn.LayerNorm(width))
        self.over_frames = nn.ModuleList(Block(width, heads, head_width, hidden) for _ in range(blocks))
        self.over_points = nn.ModuleList(Block(width, heads, head_width, hidden) for _ in range(blocks))
        self.camera_head = nn.Conv1d(width, CAMERA_CHANNELS + basis, kernel)
        self.point_head = nn.Linear(width, 3 * basis + 1)
        for head in (self.camera_head, self.point_head):
            nn.init.xavier_uniform_(head.weight)

    def symmetry(self) -> tuple[Claim, ...]:
        """Renumbering the points of tracks [P, N, 3]; shifts in time are claimed only without temporal encoding."""
        still, moved = TrivialAction(), PointPermutation()
        output = Parts([still, still, still, still, moved, moved], drawn_by=4)
        statement = "renumbering points renumbers basis and motion levels and leaves cameras and coefficients"
        return (Claim(PointPermutation(), output, statement),)

    def forward(
        self,
        tracks: Float[Tensor, "*batch points frames 3"],
        point_mask: Bool[Tensor, "batch points"] | None = None,
        frame_mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> Prediction:
        """Cameras, clouds and motion levels.

        Args:
            tracks: x, y in normalised coordinates and 1 where the point is seen, else 0. Coordinates of what is not
                seen are not looked at, unless the network was made with ``read_unseen``.
            point_mask: Which points are there, in a batch padded to the largest clip.
            frame_mask: Which frames are there; those of a clip come first.
        """
        if tracks.dim() == 3:
            return Prediction(*(part.squeeze(0) for part in self(tracks.unsqueeze(0))))
        seen = tracks[..., 2] > 0.5
        if frame_mask is not None:
            seen = seen & frame_mask.unsqueeze(1)
        x = self._tokens(tracks, seen).to(next(self.over_frames.parameters()).dtype)
        keys = _Keys(tracks.shape[:3], point_mask, frame_mask, seen if self.attend_visible else None)
        for over_frames, over_points in zip(self.over_frames, self.over_points, strict=True):
            x = over_frames(x, keys.frames)
            x = over_points(x.transpose(1, 2), keys.points).transpose(1, 2)
        x = x.to(tracks.dtype)
        of_frames = _mean(x, 1, None if point_mask is None else point_mask[:, :, None, None])
        of_points = _mean(x, 2, None if frame_mask is None else frame_mask[:, None, :, None])
        return self._read(of_frames, of_points, frame_mask)

    def _tokens(self, tracks: Tensor, seen: Tensor) -> Tensor:
        """Fourier features of x, y, visibility and displacement, embedded, with frames numbered."""
        values = tracks if self.read_unseen else torch.where(seen.unsqueeze(-1), tracks, torch.zeros_like(tracks))
        if self.displacement:
            values = torch.cat((values, _displacement(values[..., :2], seen)), -1)
        angles = values.unsqueeze(-1) * (math.pi * 2.0 ** torch.arange(self.octaves, device=values.device)).to(values)
        features = (angles.sin().flatten(-2), angles.cos().flatten(-2), values, torch.ones_like(values[..., :1]))
        x = self.embed(torch.cat(features, -1))
        return x + frame_encoding(x.size(2), x.size(3), self.encoding).to(x) if self.temporal_encoding else x

    def _read(self, of_frames: Tensor, of_points: Tensor, frame_mask: Tensor | None) -> Prediction:
        wrapped = _wrap(of_frames, self.kernel // 2, frame_mask)
        camera = self.camera_head(wrapped.transpose(1, 2)).transpose(1, 2)
        position, focal, c, rotation = camera.split([3, 1, self.basis, 6], -1)
        focal = 1 + 0.05 * focal[..., 0] if self.predict_focal else torch.ones_like(focal[..., 0])
        c = torch.cat((torch.ones_like(c[..., :1]), c[..., 1:]), -1)
        point = self.point_head(of_points)
        gamma = functional.elu(point[..., -1]) + 1 + 1e-5
        rotations = rotation_from_6d(rotation)
        if self.orbit:
            position = (rotations @ position.unsqueeze(-1)).squeeze(-1)
        return Prediction(rotations, position, c, focal, point[..., :-1].unflatten(-1, (-1, 3)), gamma)


class Block(nn.Module):
    """x + Attention(LN x), x + MLP(LN x), LN: self-attention along the last axis but one."""

    def __init__(self, width: int, heads: int, head_width: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp, self.after = (nn.LayerNorm(width) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "batch sets tokens width"], keys: Tensor | None) -> Tensor:
        x = x + self._attend(self.before_attention(x), keys)
        x = x + self.mlp(self.before_mlp(x))
        return self.after(x)

    def _attend(self, x: Tensor, keys: Tensor | None) -> Tensor:
        batch, sets, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch * sets, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if x.dtype == torch.bfloat16 and x.device.type == "cpu":
            q, k, v = q.float(), k.float(), v.float()  # its backward pass takes ten times as long in bfloat16
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=keys).to(x.dtype)
        return self.out(mixed.transpose(1, 2).reshape(batch, sets, tokens, -1))


class _Keys:
    """Masks of the tokens that may be attended to, [batch * sets, 1, queries or 1, keys]; None where all may."""

    def __init__(self, shape: torch.Size, points: Tensor | None, frames: Tensor | None, seen: Tensor | None):
        self.frames = self._mask(frames, shape[1], seen)
        self.points = self._mask(points, shape[2], None if seen is None else seen.transpose(1, 2))

    @staticmethod
    def _mask(there: Tensor | None, sets: int, seen: Tensor | None) -> Tensor | None:
        if there is None and seen is None:
            return None
        mask = None if there is None else there[:, None, None, None, :].expand(-1, sets, 1, 1, -1)
        if seen is not None:
            # A token may always attend to itself: a set of which nothing is seen would have no key at all.
            itself = torch.eye(seen.size(-1), dtype=torch.bool, device=seen.device)
            allowed = seen[:, :, None, None, :] | itself
            mask = allowed if mask is None else allowed & mask | itself
        assert mask is not None
        return mask.flatten(0, 1)


def frame_encoding(frames: int, width: int, encoding: Encoding = "published") -> Float[Tensor, "frames width"]:
    """Sines, then cosines, of the frame's number over 10000^(j / s), j = 0 to width / 2 - 1.

    Args:
        frames: How many.
        width: Columns.
        encoding: ``published``: s = width / 2 - 1, so that the last wavelength is 20000 pi. ``vaswani``: s = width / 2
            (Vaswani et al. 2017).
    """
    steps = max(1, width // 2 - (encoding == "published"))
    rates = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / steps)
    angles = torch.arange(frames, dtype=torch.float64)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), -1)


def _displacement(
    where: Float[Tensor, "*batch points frames 2"], seen: Bool[Tensor, "*batch points frames"]
) -> Float[Tensor, "*batch points frames 2"]:
    """From the mean place of a point while it is seen; 0 where it is not."""
    there = seen.unsqueeze(-1)
    mean = (where * there).sum(-2, keepdim=True) / there.sum(-2, keepdim=True).clamp(min=1)
    return (where - mean) * there


def _mean(x: Tensor, axis: int, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x.mean(axis)
    return torch.where(mask, x, torch.zeros_like(x)).sum(axis) / mask.sum(axis)


def _wrap(x: Float[Tensor, "batch frames width"], margin: int, frame_mask: Tensor | None) -> Tensor:
    """Each clip with ``margin`` frames before and after, wrapped round at its own length."""
    batch, frames, width = x.shape
    lengths = torch.full((batch, 1), frames, device=x.device) if frame_mask is None else frame_mask.sum(1, keepdim=True)
    index = (torch.arange(-margin, frames + margin, device=x.device) % lengths).unsqueeze(-1)
    return x.gather(1, index.expand(-1, -1, width))
