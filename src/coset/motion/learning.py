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
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from coset.motion.lessons import Lesson, Schedule, draw_clips
from coset.motion.losses import START, losses, motion_loss, total_loss, warm_up_loss
from coset.motion.models.trackster4d import Prediction, TracksTo4D

Progress = Callable[[float, dict[str, float]], None]


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


def learning_rate_factor(share: float) -> float:
    """A rise over the first 2 %, then a cosine down to 1 %."""
    return min(share / 0.02, 1.0) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


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


def _share(schedule: Schedule, step: int, started: float) -> float:
    done = step / schedule.steps
    if schedule.minutes is not None:
        done = max(done, (time.process_time() - started) / (60 * schedule.minutes))
    return min(done, 1.0)
