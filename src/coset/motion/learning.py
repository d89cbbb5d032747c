r"""Train TracksTo4D on tracks alone: clips of scenes, the paper's losses, its warm-up of the cameras, and a teacher.

The teacher is ours and optional: bundle adjustment of each training video from a trivial start, kept where its own
reprojection errors say that it converged. It adds

    L_teacher = mean |R - R*| + mean |R^T t - R*^T t*| / 15 + mean |B_1 - B_1*| / depth*

in the gauge of the warm-up: the middle camera of a clip at R = I, t = (0, 0, -15), the median static depth 15. No true
camera, depth or shape is used anywhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coset.motion.baselines import FreeReconstruction
from coset.motion.bundle_adjustment import BundleOptions, adjust_cameras
from coset.motion.geometry import NEAREST
from coset.motion.losses import START, LossWeights, losses, motion_loss, total_loss, warm_up_loss
from coset.motion.models.trackster4d import Prediction, TracksTo4D


@dataclass(frozen=True)
class Schedule:
    """How to train.

    Attributes:
        steps: Updates after the warm-up.
        batch: Clips of an update; the paper has 1.
        points: Points of a clip, drawn anew each time.
        frames: Least and largest number of frames of a clip.
        first_frames: Number of frames in the first half of training; the paper begins with clips of one length.
        learning_rate: Of Adam; falls to nothing along a cosine.
        warm_up: Most updates that bring the cameras to R = I, t = (0, 0, -15).
        minutes: Processor time after which training ends, the learning rate brought down in time.
        teacher: Weight of L_teacher.
        weights: Of the losses.
    """

    steps: int = 10_000
    batch: int = 4
    points: int = 32
    frames: tuple[int, int] = (12, 32)
    first_frames: int = 16
    learning_rate: float = 1e-3
    warm_up: int = 100
    minutes: float | None = None
    teacher: float = 5.0
    weights: LossWeights = field(default_factory=LossWeights)


class Lesson(NamedTuple):
    """A training video, or a clip of one; batches have one more axis in front.

    Attributes:
        tracks: (x, y, visible), normalised.
        rotations: What the teacher found; the identity where it found nothing.
        positions: The same.
        static: The same.
        sure: Points that the teacher found to stand still; none where it failed.
    """

    tracks: Float[Tensor, "points frames 3"]
    rotations: Float[Tensor, "frames 3 3"]
    positions: Float[Tensor, "frames 3"]
    static: Float[Tensor, "points 3"]
    sure: Bool[Tensor, " points"]


Progress = Callable[[float, dict[str, float]], None]


def untaught(tracks: Float[Tensor, "points frames 3"]) -> Lesson:
    """A video without a teacher's findings."""
    points, frames = tracks.shape[:2]
    eye = torch.eye(3).to(tracks).repeat(frames, 1, 1)
    nowhere = torch.zeros(frames, 3).to(tracks), torch.zeros(points, 3).to(tracks)
    return Lesson(tracks, eye, *nowhere, torch.zeros(points, dtype=torch.bool))


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
    return Lesson(tracks, found.rotations.to(kind), found.positions.to(kind), found.static.to(kind), sure)


def train(
    model: TracksTo4D,
    videos: Sequence[Lesson],
    schedule: Schedule,
    seed: int = 0,
    progress: Progress = lambda share, values: None,
) -> list[dict[str, float]]:
    """Train in place; returns means of the losses, a row every hundredth of the way.

    Args:
        model: The network.
        videos: From which clips are cut.
        schedule: How.
        seed: Of the clips drawn.
        progress: Told the share done and the latest losses.
    """
    generator = torch.Generator().manual_seed(seed)
    model.train()
    warm_up(model, videos, schedule, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate)
    history: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    started, count, step, share = time.process_time(), 0, 0, 0.0
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * learning_rate_factor(share)
        batch = draw_clips(videos, schedule, share > 0.5, generator)
        terms = _update(model, optimizer, batch, schedule, share)
        step, count = step + 1, count + 1
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value
        share = _share(schedule, step, started)
        if share >= (len(history) + 1) / 100 or share >= 1:
            history.append({"step": step, "share": share} | {name: value / count for name, value in sums.items()})
            progress(share, history[-1])
            sums, count = {}, 0
    model.eval()
    return history


def warm_up(
    model: TracksTo4D, videos: Sequence[Lesson], schedule: Schedule, generator: torch.Generator, enough: float = 1e-4
) -> int:
    """Bring the cameras to R = I, t = (0, 0, -15), where every point lies before them; returns the updates made."""
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate)
    for step in range(schedule.warm_up):
        loss = warm_up_loss(model(draw_clips(videos, schedule, False, generator).tracks))
        if float(loss.detach()) < enough:
            return step
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return schedule.warm_up


def teacher_loss(prediction: Prediction, lesson: Lesson) -> Float[Tensor, ""]:
    """L_teacher of a batch of clips, over those in which the teacher found something."""
    known = lesson.sure.any(-1)
    if not known.any():
        return prediction.positions.sum() * 0
    rotation = (prediction.rotations - lesson.rotations)[known].abs().mean()
    local, wanted = (
        (r.transpose(-1, -2) @ t.unsqueeze(-1)).squeeze(-1)
        for r, t in ((prediction.rotations, prediction.positions), (lesson.rotations, lesson.positions))
    )
    position = (local - wanted)[known].abs().mean() / -START
    away = (lesson.static[..., 2:] - START).clamp(min=1.0)  # depth in the middle camera
    cloud = ((prediction.static - lesson.static) / away)[lesson.sure].abs().mean()
    return rotation + position + cloud


def draw_clips(videos: Sequence[Lesson], schedule: Schedule, late: bool, generator: torch.Generator) -> Lesson:
    """A batch of clips of one length: random videos, random start, random points seen in it, mirrored or reversed."""
    low, high = schedule.frames
    length = int(torch.randint(low, high + 1, (), generator=generator)) if late else schedule.first_frames
    length = min(length, min(video.tracks.size(1) for video in videos))
    drawn: list[Lesson] = []
    while len(drawn) < schedule.batch:
        video = videos[int(torch.randint(len(videos), (), generator=generator))]
        start = int(torch.randint(video.tracks.size(1) - length + 1, (), generator=generator))
        run = slice(start, start + length)
        seen = torch.nonzero((video.tracks[:, run, 2] > 0.5).sum(1) >= min(8, length // 2)).squeeze(1)
        if len(seen) < schedule.points // 2:
            continue
        order = torch.randperm(len(seen), generator=generator)
        # Where too few points are seen, some come twice: the loss does not mind, and shapes stay equal.
        rows = seen[order[torch.arange(schedule.points) % len(seen)]]
        clip = Lesson(
            video.tracks[rows][:, run], video.rotations[run], video.positions[run], video.static[rows], video.sure[rows]
        )
        drawn.append(in_middle_frame(_varied(clip, generator)))
    return Lesson(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


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
    return clip._replace(rotations=turn @ clip.rotations, positions=positions, static=scale * inside + origin)


def learning_rate_factor(share: float) -> float:
    """A rise over the first 2 %, then a cosine down to 1 %."""
    return min(share / 0.02, 1.0) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def teach(videos: Iterable[Tensor], each: Callable[[], object] = lambda: None) -> list[Lesson]:
    """:func:`taught` for every video; ``each`` is called after each."""
    lessons = []
    for tracks in videos:
        lessons.append(taught(tracks))
        each()
    return lessons


def _update(
    model: TracksTo4D, optimizer: torch.optim.Optimizer, batch: Lesson, schedule: Schedule, share: float
) -> dict[str, float]:
    prediction = model(batch.tracks)
    terms = losses(prediction, batch.tracks)
    if schedule.weights.motion:
        terms["motion"] = motion_loss(prediction, batch.tracks)
    # The official code clamps after its third epoch; the first twentieth stands for that here.
    total = total_loss(terms, schedule.weights, 100.0 if share > 0.05 else None)
    if schedule.teacher:
        terms["teacher"] = teacher_loss(prediction, batch)
        total = total + schedule.teacher * terms["teacher"]
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {name: float(value.detach()) for name, value in (*terms.items(), ("total", total))}


def _varied(clip: Lesson, generator: torch.Generator) -> Lesson:
    """Mirrored, run backwards: every result is again a possible video."""
    mirror, reverse = torch.rand(2, generator=generator).tolist()
    if mirror < 0.5:
        flip = torch.tensor([-1.0, 1.0, 1.0]).to(clip.tracks)
        turned = flip[:, None] * clip.rotations * flip
        clip = Lesson(clip.tracks * flip, turned, clip.positions * flip, clip.static * flip, clip.sure)
    if reverse < 0.5:
        tracks, rotations, positions = clip.tracks.flip(1), clip.rotations.flip(0), clip.positions.flip(0)
        clip = clip._replace(tracks=tracks, rotations=rotations, positions=positions)
    return clip


def _share(schedule: Schedule, step: int, started: float) -> float:
    done = step / schedule.steps
    if schedule.minutes is not None:
        done = max(done, (time.process_time() - started) / (60 * schedule.minutes))
    return min(done, 1.0)
