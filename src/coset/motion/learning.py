r"""Train TracksTo4D: clips of scenes, the paper's losses, its warm-up of the cameras, and a teacher or the truth.

The teacher is ours and optional: bundle adjustment of each training video from a trivial start, kept where its own
reprojection errors say that it converged. It adds

    L_teacher = 10 mean |R - R*|^2 + 20 mean |R^T t - R*^T t*|^2 / 15^2 + mean |B_1 - B_1*| / z_1*

in the gauge of the warm-up: the middle camera of a clip at R = I, t = (0, 0, -15), the median static depth 15; z_1* is
the depth of B_1* in the middle camera, |.| Euclidean, over all nine entries of a rotation. Squares, because a camera
that stands is the best constant of a distance, and networks are slow to begin from there. No true camera, depth or
shape is used.

Films made by a computer can tell the truth instead (:func:`coset.motion.lessons.told`): R*, t*, B_1* of all points, and
how far they are from there. With z* the true depth, gamma* the root mean square of what B_1* leaves of a track, x where
a point is tracked and x' where the prediction sees it,

    L_truth = L_teacher + 4 mean h(|X - B_1 - (X* - B_1*)| / z*)
            + mean |log gamma - log gamma*| / 25 + 2 mean min(|x - x'|, 1/2),

h(e) = sqrt(e^2 + s^2) - s with s = 1/20.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coset.motion.geometry import project, to_camera
from coset.motion.lessons import Lesson, Reel, Schedule, draw_clips
from coset.motion.losses import START, losses, motion_loss, observed, total_loss, warm_up_loss
from coset.motion.models.trackster4d import Prediction, TracksTo4D

SMALL_MOTION = 0.05
"""s in L_truth: motion over depth below which its error counts by its square."""
HEADS = ("camera_head.", "point_head.")
LEAST_LEVEL = 1e-3
"""Motion levels that are asked for are at least so large, normalised: half a pixel of a lens of one width."""

Progress = Callable[[float, dict[str, float]], None]


def train(
    model: TracksTo4D,
    videos: Sequence[Lesson] | Reel,
    schedule: Schedule,
    seed: int = 0,
    progress: Progress = lambda share, values: None,
    keep: Keep | None = None,
) -> list[dict[str, float]]:
    """Train in place; returns means of the losses, a row every hundredth of the way.

    Args:
        model: The network.
        videos: From which clips are cut.
        schedule: How.
        seed: Of the clips drawn.
        progress: Told the share done and the latest losses.
        keep: Where to go on from, and where to write that down every few minutes.
    """
    generator = torch.Generator().manual_seed(seed)
    model.train()
    state = Training(model, _adam(model, schedule), generator)
    kept = None if keep is None else keep.read()
    if kept is None:
        warm_up(model, films_of(videos, 0), schedule, generator)
        state.started = time.process_time()
    else:
        state.restore(kept, schedule)
    written = time.process_time()
    while state.share < 1:
        for group in state.optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate_factor(state.share)
        batch = draw_clips(films_of(videos, state.step), schedule, state.share > 0.5, generator)
        state.count(_update(model, state.optimizer, batch, schedule, state.share), schedule, progress)
        if keep is not None and state.share < 1 and time.process_time() - written > keep.every:
            keep.write(state.kept())
            written = time.process_time()
    if schedule.bfloat16:
        model.load_state_dict(rounded(model), strict=False)
    model.eval()
    return state.history


def films_of(videos: Sequence[Lesson] | Reel, update: int) -> Sequence[Lesson]:
    """Those of an update."""
    return videos.at(update) if isinstance(videos, Reel) else videos


@dataclass(frozen=True)
class Keep:
    """Where the state of training is kept.

    Attributes:
        read: Gives what was kept, if anything was.
        write: Keeps it.
        every: Processor seconds between two times.
    """

    read: Callable[[], dict[str, Any] | None]
    write: Callable[[dict[str, Any]], None]
    every: float = 180.0


@dataclass
class Training:
    """How far training is.

    Attributes:
        model: The network.
        optimizer: Its optimizer.
        generator: Draws clips.
        step: Updates that were made.
        share: Of the way.
        started: Processor time at which training began, or would have begun in this process.
        sums: Of losses since the last row of the history, and their number.
        history: See :func:`train`.
    """

    model: TracksTo4D
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    step: int = 0
    share: float = 0.0
    started: float = field(default_factory=time.process_time)
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def count(self, terms: dict[str, float], schedule: Schedule, progress: Progress) -> None:
        """Another update is made."""
        self.step += 1
        for name, value in {**terms, "": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.share = _share(schedule, self.step, self.started)
        last = self.history[-1]["share"] if self.history else 0.0
        if int(100 * self.share) > int(100 * last) or self.share >= 1:
            number = self.sums.pop("")
            means = {name: value / number for name, value in self.sums.items()}
            self.history.append({"step": self.step, "share": self.share} | means)
            progress(self.share, self.history[-1])
            self.sums = {}

    def kept(self) -> dict[str, Any]:
        """All that :meth:`restore` needs."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer")}
        plain = {name: getattr(self, name) for name in ("step", "share", "sums", "history")}
        used = time.process_time() - self.started
        return {**parts, **plain, "generator": self.generator.get_state(), "used": used}

    def restore(self, kept: dict[str, Any], schedule: Schedule) -> None:
        """Go on from there; shares are of this schedule, which may be longer than the one that was kept."""
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.generator.set_state(kept["generator"])
        self.step = kept["step"]
        self.sums, self.history = kept["sums"], kept["history"]
        self.started = time.process_time() - kept["used"]
        self.share = _share(schedule, self.step, self.started)
        if self.share < kept["share"]:
            self.history = [{**row, "share": row["share"] * self.share / kept["share"]} for row in self.history]


def warm_up(
    model: TracksTo4D, videos: Sequence[Lesson], schedule: Schedule, generator: torch.Generator, enough: float = 1e-4
) -> int:
    """Bring the cameras to R = I, t = (0, 0, -15), where every point lies before them; returns the updates made."""
    optimizer = _adam(model, schedule)
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
    rotation = (prediction.rotations - lesson.rotations).square().sum((-1, -2))[known].mean()
    local, wanted = (
        (r.transpose(-1, -2) @ t.unsqueeze(-1)).squeeze(-1)
        for r, t in ((prediction.rotations, prediction.positions), (lesson.rotations, lesson.positions))
    )
    place = ((local - wanted) / START).square().sum(-1)[known].mean()
    depth = (lesson.static[..., 2] - START).clamp(min=1.0)  # in the middle camera
    cloud = ((prediction.static - lesson.static).norm(dim=-1) / depth)[lesson.sure].mean()
    return 10 * rotation + 20 * place + cloud


def truth_loss(prediction: Prediction, clips: Lesson) -> Float[Tensor, ""]:
    """L_truth of a batch of clips, over those of which the truth is told."""
    if not clips.told.any():
        return prediction.gamma.sum() * 0
    prediction, clips = Prediction(*(part[clips.told] for part in prediction)), Lesson(*(c[clips.told] for c in clips))
    seen = clips.tracks[..., 2] > 0.5
    cameras = clips.rotations.unsqueeze(-4), clips.positions.unsqueeze(-3)
    depth = to_camera(clips.static.unsqueeze(-2) + clips.away, *cameras)[..., 2].clamp(min=1.0)
    wrong = (prediction.away() - clips.away).square().sum(-1) / depth.square()
    motion = ((wrong + SMALL_MOTION**2).sqrt() - SMALL_MOTION)[seen].mean()
    still = project(to_camera(clips.static.unsqueeze(-2), *cameras))
    left = ((still - clips.tracks[..., :2]).square().sum(-1) * seen).sum(-1) / seen.sum(-1).clamp(min=1)
    level = (prediction.gamma.log() - left.sqrt().clamp(min=LEAST_LEVEL, max=1.0).log()).abs().mean()
    where, _ = observed(prediction.points(), prediction)
    reprojection = (where - clips.tracks[..., :2])[seen].norm(dim=-1).clamp(max=0.5).mean()
    return teacher_loss(prediction, clips) + 4 * motion + level / 25 + 2 * reprojection


def learning_rate_factor(share: float) -> float:
    """A rise over the first 2 %, then a cosine down to 1 %."""
    return min(share / 0.02, 1.0) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _update(
    model: TracksTo4D, optimizer: torch.optim.Optimizer, batch: Lesson, schedule: Schedule, share: float
) -> dict[str, float]:
    prediction = _predict(model, batch.tracks, schedule.bfloat16)
    terms = losses(prediction, batch.tracks)
    if schedule.weights.motion:
        terms["motion"] = motion_loss(prediction, batch.tracks)
    # The official code clamps after its third epoch; the first twentieth stands for that here.
    total = total_loss(terms, schedule.weights, 100.0 if share > 0.05 else None)
    if schedule.teacher and not schedule.truth:
        terms["teacher"] = teacher_loss(prediction, batch)
        total = total + schedule.teacher * terms["teacher"]
    if schedule.truth:
        terms["truth"] = truth_loss(prediction, batch)
        total = total + schedule.truth * terms["truth"]
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {name: float(value.detach()) for name, value in (*terms.items(), ("total", total))}


def _adam(model: TracksTo4D, schedule: Schedule) -> torch.optim.Adam:
    """With a rate of their own for the heads; a group's ``rate`` is what schedules multiply."""
    heads = [p for name, p in model.named_parameters() if name.startswith(HEADS)]
    rest = [p for name, p in model.named_parameters() if not name.startswith(HEADS)]
    rates = schedule.learning_rate, schedule.heads * schedule.learning_rate
    groups = [{"params": part, "lr": rate, "rate": rate} for part, rate in zip((rest, heads), rates, strict=True)]
    return torch.optim.Adam(groups)


def _predict(model: TracksTo4D, tracks: Tensor, bfloat16: bool) -> Prediction:
    """With the blocks' weights rounded to bfloat16 for this pass if that is asked for; their gradients reach them."""
    if not bfloat16:
        return model(tracks)
    return torch.func.functional_call(model, rounded(model), (tracks,))


def rounded(model: TracksTo4D) -> dict[str, Tensor]:
    """The blocks' weights in bfloat16: those with which a network predicts while it is trained so."""
    return {name: p.bfloat16() for name, p in model.named_parameters() if name.startswith("over_")}


def _share(schedule: Schedule, step: int, started: float) -> float:
    done = step / schedule.steps
    if schedule.minutes is not None:
        done = max(done, (time.process_time() - started) / (60 * schedule.minutes))
    return min(done, 1.0)
