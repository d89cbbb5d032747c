"""What TracksTo4D learns from: videos as tracks, with what is known of them beside, and clips cut from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coset.motion.baselines import FreeReconstruction
from coset.motion.bundle_adjustment import BundleOptions, adjust_cameras
from coset.motion.data.scenes import Scene
from coset.motion.geometry import NEAREST
from coset.motion.losses import START, LossWeights
from coset.motion.models.trackster4d import Prediction


@dataclass(frozen=True)
class Schedule:
    """How to train.

    Attributes:
        steps: Updates after the warm-up.
        batch: Clips of an update; the paper has 1.
        points: Points of a clip, drawn anew each time.
        frames: Least and largest number of frames of a clip.
        spread: Whether the frames of a clip are taken evenly from half of a video or more, not one after the other:
            cameras turn further in few frames.
        most_frames: Of the clips of an update together, of which there are fewer where they are long.
        first_frames: Number of frames in the first half of training; the paper begins with clips of one length.
        heads: Rate of the two heads over that of the rest.
        bfloat16: Whether tokens and the weights of the blocks are in bfloat16 in the two passes of an update; Adam and
            the network that it trains stay in float32.
        learning_rate: Of Adam; falls to nothing along a cosine.
        warm_up: Most updates that bring the cameras to R = I, t = (0, 0, -15).
        minutes: Processor time after which training ends, the learning rate brought down in time.
        teacher: Weight of L_teacher.
        truth: Weight of L_truth, of films whose truth is told.
        weights: Of the losses.
    """

    steps: int = 10_000
    batch: int = 4
    points: int = 32
    frames: tuple[int, int] = (12, 32)
    first_frames: int = 16
    spread: bool = False
    most_frames: int | None = None
    heads: float = 1.0
    bfloat16: bool = False
    learning_rate: float = 1e-3
    warm_up: int = 100
    minutes: float | None = None
    teacher: float = 5.0
    truth: float = 0.0
    weights: LossWeights = field(default_factory=LossWeights)


class Lesson(NamedTuple):
    """A training video, or a clip of one; batches have one more axis in front.

    Attributes:
        tracks: (x, y, visible), normalised.
        rotations: What the teacher found, or the truth; the identity where nothing is known.
        positions: The same.
        static: The same: where points stand still, or their mean place in the clip.
        sure: Points of which that is known; none where the teacher failed.
        away: How far points are from there in each frame; 0 where that is not known.
        told: Whether it is: one entry, that a batch has one of each clip.
    """

    tracks: Float[Tensor, "points frames 3"]
    rotations: Float[Tensor, "frames 3 3"]
    positions: Float[Tensor, "frames 3"]
    static: Float[Tensor, "points 3"]
    sure: Bool[Tensor, " points"]
    away: Float[Tensor, "points frames 3"]
    told: Bool[Tensor, ""]


class Reel:
    """Films that are made while training goes on: so many at a time, the oldest exchanged for a new one each update.

    Which films there are follows from the number of the update alone, so that training that was stopped goes on with
    the same.

    Args:
        make: The film of a number.
        size: How many there are at a time.
    """

    def __init__(self, make: Callable[[int], Lesson], size: int):
        self._make, self._size = make, size
        self._films: dict[int, Lesson] = {}

    def at(self, update: int, each: Callable[[], object] = lambda: None) -> Sequence[Lesson]:
        """Those of an update; ``each`` is called after each that had to be made."""
        numbers = range(update, update + self._size)
        for number in numbers:
            if number not in self._films:
                self._films[number] = self._make(number)
                each()
        self._films = {number: self._films[number] for number in numbers}
        return list(self._films.values())


def untaught(tracks: Float[Tensor, "points frames 3"]) -> Lesson:
    """A video without a teacher's findings."""
    points, frames = tracks.shape[:2]
    eye = torch.eye(3).to(tracks).repeat(frames, 1, 1)
    nowhere = torch.zeros(frames, 3).to(tracks), torch.zeros(points, 3).to(tracks)
    unknown = torch.zeros(points, dtype=torch.bool)
    return Lesson(tracks, eye, *nowhere, unknown, torch.zeros_like(tracks), torch.tensor(False))


def told(scene: Scene) -> Lesson:
    """A synthetic video with its truth: cameras, and where every point is in every frame."""
    tracks = scene.tracks.tensor()
    points = torch.from_numpy(scene.points).to(tracks)
    static = points.mean(1)
    return untaught(tracks)._replace(
        rotations=torch.from_numpy(scene.rotations).to(tracks), positions=torch.from_numpy(scene.positions).to(tracks),
        static=static, sure=torch.ones(len(points), dtype=torch.bool), away=points - static[:, None],
        told=torch.tensor(True),
    )  # fmt: skip


def taught(tracks: Float[Tensor, "points frames 3"], pixel: float = 1 / 600) -> Lesson:
    """A video with what bundle adjustment finds in it, where most of its points then fit within a pixel.

    Args:
        tracks: Of a whole video.
        pixel: In normalised coordinates.
    """
    start = Prediction(*(part.detach().double() for part in FreeReconstruction(tracks.double())()))
    found = adjust_cameras(start, tracks.double(), BundleOptions())
    sure = found.gamma < 1.2 * pixel
    if not (found.gamma.median() < 0.8 * pixel and sure.double().mean() > 0.35):
        return untaught(tracks)
    kind = tracks.dtype
    cameras = found.rotations.to(kind), found.positions.to(kind)
    return untaught(tracks)._replace(
        rotations=cameras[0], positions=cameras[1], static=found.static.to(kind), sure=sure
    )


def teach(videos: Iterable[Tensor], each: Callable[[], object] = lambda: None) -> list[Lesson]:
    """:func:`taught` for every video; ``each`` is called after each."""
    lessons = []
    for tracks in videos:
        lessons.append(taught(tracks))
        each()
    return lessons


def draw_clips(videos: Sequence[Lesson], schedule: Schedule, late: bool, generator: torch.Generator) -> Lesson:
    """A batch of clips of one length: random videos, random start, random points seen in it, mirrored or reversed."""
    low, high = schedule.frames
    length = int(torch.randint(low, high + 1, (), generator=generator)) if late else schedule.first_frames
    length = min(length, min(video.tracks.size(1) for video in videos))
    batch = schedule.batch
    if schedule.most_frames is not None:
        batch = max(1, min(batch, schedule.most_frames // length))
    drawn: list[Lesson] = []
    while len(drawn) < batch:
        video = videos[int(torch.randint(len(videos), (), generator=generator))]
        run = _frames_of_clip(video.tracks.size(1), length, schedule.spread, generator)
        seen = torch.nonzero((video.tracks[:, run, 2] > 0.5).sum(1) >= min(8, length // 2)).squeeze(1)
        if len(seen) < schedule.points // 2:
            continue
        order = torch.randperm(len(seen), generator=generator)
        # Where too few points are seen, some come twice: the loss does not mind, and shapes stay equal.
        rows = seen[order[torch.arange(schedule.points) % len(seen)]]
        away = video.away[rows][:, run]
        middle = away.mean(1)
        clip = Lesson(
            video.tracks[rows][:, run], video.rotations[run], video.positions[run], video.static[rows] + middle,
            video.sure[rows], away - middle[:, None], video.told,
        )  # fmt: skip
        drawn.append(in_middle_frame(_varied(clip, generator)))
    return Lesson(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


def _frames_of_clip(frames: int, length: int, spread: bool, generator: torch.Generator) -> Tensor:
    """So many of these frames: one after the other, or evenly from a stretch of half of them or more."""
    stretch = length
    if spread:
        least = max(length, frames // 2)
        stretch = int(torch.randint(least, frames + 1, (), generator=generator))
    start = int(torch.randint(frames - stretch + 1, (), generator=generator))
    return torch.linspace(start, start + stretch - 1, length).round().long()


def in_middle_frame(clip: Lesson) -> Lesson:
    """The clip in the gauge of the warm-up: middle camera at (0, 0, -15), looking along z, median static depth 15."""
    if not clip.sure.any():
        return clip
    middle = clip.rotations.size(0) // 2
    turn, centre = clip.rotations[middle].T, clip.positions[middle]
    inside = (clip.static - centre) @ turn.T
    scale = -START / inside[clip.sure, 2].median().clamp(min=NEAREST)
    origin = torch.tensor([0.0, 0.0, START]).to(centre)
    positions = scale * (clip.positions - centre) @ turn.T + origin
    moved = {"static": scale * inside + origin, "away": scale * clip.away @ turn.T}
    return clip._replace(rotations=turn @ clip.rotations, positions=positions, **moved)


def _varied(clip: Lesson, generator: torch.Generator) -> Lesson:
    """Mirrored, run backwards: every result is again a possible video."""
    mirror, reverse = torch.rand(2, generator=generator).tolist()
    if mirror < 0.5:
        flip = torch.tensor([-1.0, 1.0, 1.0]).to(clip.tracks)
        turned = flip[:, None] * clip.rotations * flip
        moved = {"static": clip.static * flip, "away": clip.away * flip}
        clip = clip._replace(tracks=clip.tracks * flip, rotations=turned, positions=clip.positions * flip, **moved)
    if reverse < 0.5:
        tracks, rotations, positions = clip.tracks.flip(1), clip.rotations.flip(0), clip.positions.flip(0)
        clip = clip._replace(tracks=tracks, rotations=rotations, positions=positions, away=clip.away.flip(1))
    return clip
