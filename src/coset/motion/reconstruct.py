"""From tracks to cameras and moving 3D: one pass of the network, windows for long videos, and refinement.

The world has no scale and no up of its own: the first camera's axes and the network's units are the world's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coset.core.errors import CosetError
from coset.motion.baselines import FreeReconstruction
from coset.motion.bundle_adjustment import PINHOLE, BundleOptions, Unknowns, adjust_among_still, static_cost
from coset.motion.calibration import calibrate, doubt
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.geometry import align_robustly, to_camera
from coset.motion.growing import Window, grown, mirrored
from coset.motion.losses import LossWeights, losses, total_loss
from coset.motion.metrics import mean_rotation, reprojection_error, truth_metrics
from coset.motion.models.trackster4d import Prediction, TracksTo4D
from coset.motion.movers import Body, moving_rows, place_movers
from coset.motion.turning import STEADY, Turning, only_turns, stands_still, travel, turning_camera
from coset.relations.kernels.threads import pytorch_threads

SHARED = 12  # observations that two windows must share
EQUAL = 1e-6  # likelihoods of the same minimum, come to in two ways
FEW = 6  # points that stand still below which the camera of a frame is unsure
GROWN = "growing window"  # the start of long videos, which is no mirror image
WINDOW = 32  # frames of one pass if nobody says how many
Refine = Literal["none", "bundle", "finetune"]


@dataclass(frozen=True)
class Reconstruction:
    """Cameras and moving 3D of a video.

    Attributes:
        tracks: The tracks it was made from; points that nothing could be said of are left out.
        prediction: Cameras, clouds, coefficients, motion levels, in float64.
        seconds: Time of each stage.
        notes: What a user should know.
        depth_known: Whether points have depths; of a camera that only turns they are directions, at distance 1.
        bodies: Groups of moving points that refinement placed, depths in units of the adjustment; of these
            ``known`` says whether their depth is measured.
        noise: Accuracy of a track, normalised, that motion levels are held against.
        rows: Which points these are of the tracks that came in; all of them if None.
    """

    tracks: Tracks
    prediction: Prediction
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    depth_known: bool = True
    bodies: tuple[Body, ...] = ()
    noise: float = BundleOptions.noise
    rows: Int[np.ndarray, " points"] | None = None

    def points(self) -> Float[Tensor, "points frames 3"]:
        """Where every point is in every frame."""
        return self.prediction.points()

    def moving(self) -> Bool[Tensor, " points"]:
        """Points whose motion level says so (:func:`moving_rows`), and those that were placed as parts of bodies."""
        moving = moving_rows(self.prediction.gamma, self.noise)
        for body in self.bodies:
            moving[torch.from_numpy(body.rows)] = True
        return moving

    def points_of_unknown_depth(self) -> int:
        """Points of bodies whose depth nothing measures."""
        return sum(len(body.rows) for body in self.bodies if not body.known)

    def metrics(self) -> dict[str, float | int | str]:
        """How far reprojections are from tracks, in pixels; sizes; times; errors against a test set's truth."""
        k = self.tracks.intrinsics
        error = reprojection_error(self.prediction, self.tracks.tensor().double(), k.focal)
        return {
            "depth_known": self.depth_known,
            "frames": self.tracks.frames,
            "points": self.tracks.points,
            "observations": int(self.tracks.visible.sum()),
            "reprojection_median_px": float(error.median()),
            "reprojection_mean_px": float(error.mean()),
            "reprojection_mean_percent_of_width": float(100 * error.mean() / self.tracks.size[0]),
            "moving_points": int(self.moving().sum()),
            "bodies": len(self.bodies),
            "bodies_of_unknown_depth": sum(not body.known for body in self.bodies),
            "moving_points_of_unknown_depth": self.points_of_unknown_depth(),
            "focal_px": k.focal,
            "focal_source": k.source,
            "focal_deviation_percent": 100 * k.deviation,
            "radial_distortion": k.radial,
            **(truth_metrics(self.prediction, self.tracks) if self.depth_known else {}),
            **{f"seconds_{stage}": value for stage, value in self.seconds.items()},
        }


@dataclass(frozen=True)
class Options:
    """How to reconstruct.

    Attributes:
        refine: Nothing, bundle adjustment, or fine-tuning of the network on this video.
        window: Most frames of one pass; None: as many as the network's file says it was trained on, 32 if it says none.
        overlap: Frames that neighbouring windows share at least.
        steps: Updates of fine-tuning.
        learning_rate: Of fine-tuning.
        bundle: Of bundle adjustment.
        restart: Whether bundle adjustment also starts from a plain guess, and the better of the two is kept.
        weights: Of the losses in fine-tuning.
    """

    refine: Refine = "bundle"
    window: int | None = None
    overlap: int = 12
    steps: int = 300
    learning_rate: float = 3e-4
    bundle: BundleOptions = field(default_factory=BundleOptions)
    restart: bool = True
    weights: LossWeights = field(default_factory=LossWeights)


@pytorch_threads()
def reconstruct(
    tracks: Tracks,
    model: TracksTo4D,
    options: Options | None = None,
    each: Callable[[str], object] = lambda stage: None,
) -> Reconstruction:
    """Cameras and moving 3D from tracks; of a camera that only turns, its rotations, and no depth.

    Args:
        tracks: Of one shot.
        model: The network, trained.
        options: How.
        each: Told the stage after every step of it.

    Raises:
        CosetError: The tracks do not allow it: too short, too few, nothing moves, windows without common points.
    """
    options = options or Options()
    rows = np.flatnonzero(tracks.visible.sum(1) >= 2)
    given, tracks = tracks, tracks.checked()
    notes = _track_notes(given, tracks)
    if (most := travel(tracks, 0.98)) < STEADY:
        raise CosetError(f"the points move by {most:.2f} pixels: without motion there is no depth to be seen")
    seconds: dict[str, float] = {}
    bodies: list[Body] = []
    started = time.perf_counter()
    turning = turning_camera(tracks, options.bundle, lambda: each("turning camera"))
    seconds["turning"], started = time.perf_counter() - started, time.perf_counter()
    calibration = None
    if options.refine != "none" and not tracks.intrinsics.known:
        calibration = calibrate(
            tracks, lambda flat: _guesses(flat, model, options), options.bundle, lambda: each("focal length")
        )
        seconds["focal"], started = time.perf_counter() - started, time.perf_counter()
    if only_turns(turning, tracks, calibration, lambda flat: _guesses(flat, model, options), options.bundle):
        turned = rotation_only(turning, seconds)
        return replace(turned, notes=(*notes, *turned.notes), rows=rows)
    tracks = tracks if calibration is None else calibration.tracks
    if not tracks.intrinsics.known:
        notes.append(focal_note(tracks.intrinsics, options.refine))
    if options.refine == "finetune":
        model = finetune(model, tracks, options, lambda: each("fine-tuning"))
        seconds["finetune"], started = time.perf_counter() - started, time.perf_counter()
    windows = passes(tracks.tensor(model.read_unseen), model, options, lambda: each("network"))
    prediction, kept = joined(windows, tracks.tensor(), model.basis)
    whole = tracks
    if not kept.all():
        notes.append(f"{int((~kept).sum())} points seen in a single frame of every window are left out")
        tracks, rows = tracks.select(kept.numpy()), rows[kept.numpy()]
    seconds["network"], started = time.perf_counter() - started, time.perf_counter()
    if len(windows) > 1:
        notes.append(
            f"{len(windows)} windows of at most {options.window or WINDOW} frames were aligned on the points they share"
        )
    if options.refine == "bundle":
        others = {} if calibration is None else {"search for the focal length": calibration.start}
        if len(windows) > 1:
            others[GROWN] = grown(windows, whole.tensor().double(), options.bundle, lambda: each("bundle adjustment"))
        others = {name: _selected(other, kept) for name, other in others.items()}
        prediction, start, bodies = best_bundle(
            prediction, tracks.tensor().double(), options, lambda: each("bundle adjustment"), others
        )
        notes.append(f"bundle adjustment: the start from the {start} won")
        notes += [body_note(body) for body in bodies if not body.known]
        if tracks.intrinsics.known and (doubts := doubt(prediction.still(), tracks, options.bundle)):
            notes.append(str(doubts))
        seconds["bundle"] = time.perf_counter() - started
    placed, noise = in_first_camera(prediction), options.bundle.noise
    found = Reconstruction(tracks, placed, seconds, tuple(notes), bodies=tuple(bodies), noise=noise, rows=rows)
    return replace(found, notes=(*notes, *_unsure_notes(found)))


def _track_notes(given: Tracks, tracks: Tracks) -> list[str]:
    """What is to be said of tracks before anything is made of them.

    Raises:
        CosetError: No two frames share enough points.
    """
    seen = tracks.visible.astype(int)
    together = seen.T @ seen
    most = int(together[~np.eye(len(together), dtype=bool)].max())
    if most < SHARED:
        raise CosetError(f"no two frames share more than {most} points; {SHARED} are needed: longer tracks, or more")
    notes = []
    if left := given.points - tracks.points:
        notes.append(f"{left} of {given.points} points are seen in fewer than two frames and left out")
    frame, shared = tracks.seam()
    if shared < SHARED:
        notes.append(
            f"only {shared} points are seen both before frame {frame} and from there on: how the two parts lie to each "
            "other hangs on them; if there is a cut, each side is to be taken alone"
        )
    return notes


def _unsure_notes(found: Reconstruction) -> list[str]:
    """What is to be said of frames whose camera next to nothing tells."""
    still = found.tracks.visible & ~found.moving().numpy()[:, None]
    few = np.flatnonzero(still.sum(0) < FEW).tolist()
    if not few:
        return []
    which = f"frame {few[0]} sees" if len(few) == 1 else f"{len(few)} frames, {few[0]} to begin with, see"
    return [f"{which} fewer than {FEW} points that stand still: the camera there is unsure"]


def body_note(body: Body) -> str:
    """What is to be said of a body whose depth its motion does not tell."""
    where = {
        "neighbour": "it is taken for a part of the body beside it", "ground": "it is taken to touch the ground",
        "network": "it is where the network says", "nothing": "it is put amid the scene",
    }[body.told_by.split(",")[0]]  # fmt: skip
    return f"the depth of {len(body.rows)} moving points is unknown, since the camera moves less than they do: {where}"


def rotation_only(turning: Turning, seconds: dict[str, float]) -> Reconstruction:
    """What a camera that turns in its place, or stands still, tells: rotations, and directions in place of points."""
    tracks = turning.tracks
    what = "stands still" if stands_still(tracks) else "only turns"
    within = f"rotations explain the tracks within {turning.error:.2f} px in the median"
    notes = [f"the camera {what} ({within}): depth cannot be known, points are directions at distance 1"]
    notes += [] if tracks.intrinsics.known else [focal_note(tracks.intrinsics, "bundle")]
    return Reconstruction(tracks, turned_to_first(turning.prediction), seconds, tuple(notes), depth_known=False)


def turned_to_first(prediction: Prediction) -> Prediction:
    """The same in the axes of the first camera."""
    turn = prediction.rotations[0].T
    return prediction._replace(rotations=turn @ prediction.rotations, basis=prediction.basis @ turn.T)


def focal_note(k: Intrinsics, refine: Refine) -> str:
    """What is to be said of a focal length that nobody gave."""
    if k.source == "estimated":
        bent = f"; radial distortion {k.radial:.3f}" if k.radial else ""
        return (
            f"focal length {k.focal:.0f} px is estimated from the tracks, give or take {100 * k.deviation:.1f} %{bent}"
        )
    word = "assumed" if k.source == "assumed" else "a guess"
    why = "" if refine == "none" else ": the tracks do not tell it, depths and angles may be wrong"
    return f"focal length {k.focal:g} px is {word}{why}"


def _guesses(flat: Float[Tensor, "points frames 3"], model: TracksTo4D, options: Options) -> list[Prediction]:
    """The network's prediction of all points, if its windows hold together."""
    try:
        found, kept = joined(passes(flat, model, options), flat, model.basis)
    except CosetError:
        return []
    middle = found.basis.mean(0, keepdim=True)
    basis = middle.repeat(len(flat), 1, 1).index_copy(0, kept.nonzero()[:, 0], found.basis)
    gamma = found.gamma.median().repeat(len(flat)).index_copy(0, kept.nonzero()[:, 0], found.gamma)
    return [found._replace(basis=basis, gamma=gamma)]


def _selected(start: Prediction, kept: Bool[Tensor, " points"]) -> Prediction:
    return start._replace(basis=start.basis[kept], gamma=start.gamma[kept])


def feed_forward(
    whole: Float[Tensor, "points frames 3"],
    model: TracksTo4D,
    options: Options,
    each: Callable[[], object] = lambda: None,
) -> tuple[Prediction, Bool[Tensor, " points"], int]:
    """One pass, or one a window: the prediction of the points that could be placed, which these are, and how many."""
    windows = passes(whole, model, options, each)
    return *joined(windows, whole, model.basis), len(windows)


def passes(
    whole: Float[Tensor, "points frames 3"],
    model: TracksTo4D,
    options: Options,
    each: Callable[[], object] = lambda: None,
) -> list[Window]:
    """What the network says of each window."""
    windows = []
    for run in window_runs(whole.size(1), options.window or WINDOW, options.overlap):
        clip = whole[:, run]
        rows = torch.nonzero((clip[..., 2] > 0.5).sum(1) >= 2).squeeze(1)
        with torch.no_grad():
            windows.append(Window(run, rows, Prediction(*(part.double() for part in model(clip[rows])))))
        each()
    return windows


def joined(
    windows: Sequence[Window], whole: Float[Tensor, "points frames 3"], basis: int
) -> tuple[Prediction, Bool[Tensor, " points"]]:
    """One prediction of all frames, and the points that it is of."""
    if len(windows) > 1:
        return merge_windows(windows, whole, basis)
    kept = torch.zeros(len(whole), dtype=torch.bool).index_fill_(0, windows[0].rows, True)
    return windows[0].prediction, kept


def window_runs(frames: int, window: int, overlap: int) -> list[slice]:
    """Runs of at most ``window`` frames that cover all, evenly spread, neighbours sharing at least ``overlap``.

    Raises:
        CosetError: The overlap is not below the window.
    """
    if overlap >= window:
        raise CosetError(f"windows of {window} frames cannot overlap by {overlap}")
    if frames <= window:
        return [slice(0, frames)]
    count = -(-(frames - overlap) // (window - overlap))
    starts = np.round(np.linspace(0, frames - window, count)).astype(int)
    return [slice(int(start), int(start) + window) for start in starts]


def merge_windows(
    parts: Sequence[tuple[slice, Tensor, Prediction]], tracks: Float[Tensor, "points frames 3"], basis: int
) -> tuple[Prediction, Bool[Tensor, " points"]]:
    """Windows brought into the world of the first by similarities on what they share, and blended.

    Raises:
        CosetError: Two neighbours share too little.
    """
    count, frames = tracks.shape[:2]
    seen = tracks[..., 2] > 0.5
    placed, weight = torch.zeros(count, frames, 3).double(), torch.zeros(count, frames).double()
    static, levels = torch.zeros(count, 3).double(), torch.zeros(count, 2).double()
    rotations, positions = torch.zeros(frames, 3, 3).double(), torch.zeros(frames, 3).double()
    cameras, focal = torch.zeros(frames).double(), torch.zeros(frames).double()
    for run, rows, part in parts:
        points = torch.zeros(count, run.stop - run.start, 3).double().index_copy_(0, rows, part.points())
        present = torch.zeros(count, dtype=torch.bool).index_fill_(0, rows, True)[:, None]
        shared = seen[:, run] & present & (weight[:, run] > 0)
        turned, moved, clouds = part.rotations, part.positions, part.static
        if run.start > 0:
            if shared.sum() < SHARED:
                raise CosetError(
                    f"frames {run.start} to {run.stop - 1} share {int(shared.sum())} observations with those before; "
                    f"at least {SHARED} are needed: cut the video there"
                )
            found = align_robustly(points[shared], (placed[:, run] / weight[:, run].clamp(min=1e-9)[..., None])[shared])
            points, clouds = found.points(points), found.points(clouds)
            turned, moved = found.cameras(turned, moved)
        # Windows fade into one another: a frame counts by its distance from the window's ends.
        edge = torch.arange(run.stop - run.start).double()
        fade = torch.minimum(edge, edge.flip(0)) + 1
        share = fade * present
        placed[:, run] += share[..., None] * points
        weight[:, run] += share
        static[rows] += clouds
        levels[rows] += torch.stack((part.gamma.log(), torch.ones_like(part.gamma)), 1)
        rotations[run] += fade[:, None, None] * turned
        positions[run] += fade[:, None] * moved
        focal[run] += fade * part.focal
        cameras[run] += fade
    kept = levels[:, 1] > 0
    static, gamma = static[kept] / levels[kept, 1:], (levels[kept, 0] / levels[kept, 1]).exp()
    points = torch.where(
        weight[kept][..., None] > 0, placed[kept] / weight[kept].clamp(min=1e-9)[..., None], static[:, None]
    )
    clouds, c = low_rank(points - static[:, None], basis - 1)
    clouds = torch.cat((static[:, None], clouds), 1)
    c = torch.cat((torch.ones(frames, 1).double(), c), 1)
    rotations = torch.stack([mean_rotation(r[None]) for r in rotations])
    return Prediction(rotations, positions / cameras[:, None], c, focal / cameras, clouds, gamma), kept


def low_rank(
    displacement: Float[Tensor, "points frames 3"], rank: int
) -> tuple[Float[Tensor, "points basis 3"], Float[Tensor, "frames basis"]]:
    """Clouds and coefficients whose products are nearest to given displacements."""
    u, s, v = torch.linalg.svd(displacement.transpose(0, 1).flatten(1), full_matrices=False)
    clouds = displacement.new_zeros(displacement.size(0), rank, 3)
    c = displacement.new_zeros(displacement.size(1), rank)
    rank = min(rank, len(s))
    c[:, :rank] = u[:, :rank] * len(u) ** 0.5
    clouds[:, :rank] = (s[:rank, None] * v[:rank] / len(u) ** 0.5).unflatten(1, (-1, 3)).transpose(0, 1)
    return clouds, c


def best_bundle(
    prediction: Prediction,
    tracks: Float[Tensor, "points frames 3"],
    options: Options,
    each: Callable[[], object],
    others: dict[str, Prediction] | None = None,
) -> tuple[Prediction, str, list[Body]]:
    """Cameras and static cloud adjusted, the best of several starts by its own likelihood; then what moves is placed.

    A scene and its mirror image in depth look alike (:mod:`coset.motion.growing`): both are tried.

    Args:
        prediction: The network's.
        tracks: Normalised.
        options: How.
        each: Called after every step.
        others: Starts with cameras and static cloud, by name; with some of these no plain guess is tried.

    Returns:
        The refined prediction, which start won, and the bodies that move.
    """
    prediction = Prediction(*(part.detach().double() for part in prediction))
    scaled = torch.cat((tracks[..., :2] / prediction.focal[:, None], tracks[..., 2:]), -1)
    starts = {"network": prediction}
    for name, start in (others or {}).items():
        basis = torch.cat((start.basis[:, :1], 0 * prediction.basis[:, 1:]), 1)
        starts[name] = prediction._replace(
            rotations=start.rotations, positions=start.positions, basis=basis, gamma=start.gamma
        )
    if options.restart and not others:
        plain = FreeReconstruction(scaled, basis=prediction.basis.size(1))()
        starts["plain guess"] = Prediction(*(part.detach() for part in plain))._replace(focal=prediction.focal)
    if GROWN not in starts:
        starts["mirror image of the network's"] = mirrored(prediction)
    found = {
        name: adjust_among_still(start, PINHOLE, scaled, options.bundle, Unknowns(), each)[0]
        for name, start in starts.items()
    }
    winner = min(found, key=lambda name: static_cost(found[name], scaled))
    if GROWN not in starts:
        turned = adjust_among_still(mirrored(found[winner]), PINHOLE, scaled, options.bundle, Unknowns(), each)[0]
        if static_cost(turned, scaled) < static_cost(found[winner], scaled) - EQUAL:
            winner = f"mirror image of what the {winner} leads to"
            found[winner] = turned
    placed, bodies = place_movers(found[winner], scaled, options.bundle.noise, prediction)
    each()
    return placed, winner, bodies


def finetune(
    model: TracksTo4D, tracks: Tracks, options: Options, each: Callable[[], object] = lambda: None
) -> TracksTo4D:
    """A copy of the network trained on the losses of this video alone, window by window; the best iterate."""
    import copy

    tuned, best, least = copy.deepcopy(model).train(), copy.deepcopy(model.state_dict()), float("inf")
    whole = tracks.tensor(model.read_unseen)
    runs = window_runs(tracks.frames, options.window or WINDOW, options.overlap)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=options.learning_rate)
    recent: list[float] = []
    for step in range(options.steps):
        clip = whole[:, runs[step % len(runs)]]
        clip = clip[(clip[..., 2] > 0.5).sum(1) >= 2]
        total = total_loss(losses(tuned(clip), clip), options.weights)
        recent = [*recent, float(total.detach())][-len(runs) :]
        # All windows count: an iterate is judged once each has been seen since the last.
        if len(recent) == len(runs) and sum(recent) < least:
            best, least = copy.deepcopy(tuned.state_dict()), sum(recent)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(tuned.parameters(), 1.0)
        optimizer.step()
        each()
    tuned.load_state_dict(best)
    return tuned.eval()


def in_first_camera(prediction: Prediction) -> Prediction:
    """The same in the axes of the first camera, which stands at the origin; static depth there has median 1."""
    turn, centre = prediction.rotations[0].T, prediction.positions[0]
    depth = to_camera(prediction.static, prediction.rotations[0], centre)[:, 2]
    front = depth[depth > 0]
    scale = 1 / front.median() if len(front) else torch.ones(()).to(depth)
    static = scale * (prediction.basis[:, :1] - centre) @ turn.T
    moving = scale * prediction.basis[:, 1:] @ turn.T
    return prediction._replace(
        rotations=turn @ prediction.rotations,
        positions=scale * (prediction.positions - centre) @ turn.T,
        basis=torch.cat((static, moving), 1),
    )
