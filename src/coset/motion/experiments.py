"""Recipes of kind ``motion``: train TracksTo4D on synthetic scenes (tracks only), and measure it on scenes held out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator

from coset.core.files import make_folder
from coset.core.options import Options
from coset.motion.baselines import (
    FreeReconstruction,
    frozen_truth,
    optimise_scene,
    rigid_factorisation,
    standing_still,
    trajectory_factorisation,
)
from coset.motion.bundle_adjustment import bundle_adjust
from coset.motion.data.bodies import TRAINING, UNSEEN_MOTIONS, UNSEEN_SHAPES
from coset.motion.data.films import make_film, make_films
from coset.motion.data.scenes import Scene, SceneOptions, make_scene, make_scenes, seed_of
from coset.motion.learning import Keep, train
from coset.motion.lessons import Lesson, Reel, Schedule, teach, told, untaught
from coset.motion.losses import LossWeights
from coset.motion.metrics import scene_metrics
from coset.motion.models.checkpoint import PRETRAINED, load_model, pretrained, save_model
from coset.motion.models.trackster4d import Encoding, Prediction, TracksTo4D
from coset.motion.pages import BRIEF, write
from coset.runs.checkpoints import read_checkpoint
from coset.runs.folder import HISTORY, PARTS, PREDICTIONS, RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import Run, write_certificate
from coset.runs.terminal import progress
from coset.symmetry import EquivarianceReport, verify_claims

CHECKPOINT = "model.safetensors"
TRAINING_STATE = "training.pt"


class EncoderOptions(Options):
    """Sizes of the network."""

    name: Literal["trackster4d"] = "trackster4d"
    width: int = Field(256, ge=2)
    blocks: int = Field(3, ge=1)
    heads: int = Field(16, ge=1)
    head_width: int = Field(64, ge=1)
    hidden: int = Field(2048, ge=1)
    basis: int = Field(12, ge=1, description="clouds, the static one included")
    octaves: int = Field(12, ge=1, description="frequencies of the Fourier features")
    kernel: int = Field(31, ge=1, description="frames that the camera head sees")
    predict_focal: bool = False
    temporal_encoding: bool = True
    attend_visible: bool = False
    orbit: bool = Field(False, description="predict R^T t in place of t")
    encoding: Encoding = Field("published", description="wavelengths of the frames' numbers")
    read_unseen: bool = Field(False, description="read the coordinates of points that are not seen")
    displacement: bool = Field(False, description="read how far a point is from its mean place, too")

    def build(self) -> TracksTo4D:
        return TracksTo4D(**self.model_dump(exclude={"name"}))


class ScenesOptions(Options):
    """Synthetic scenes: one body and a camera on an arc round it (`scenes`), or as phones film (`films`)."""

    name: Literal["scenes", "films"] = "scenes"
    count: int = Field(300, ge=1, description="training scenes; of films, how many there are at a time")
    points: int = Field(128, ge=20)
    frames: int = Field(32, ge=3)
    bodies: list[str] | None = Field(None, description="bodies of training; all of those for training by default")
    noise: float = Field(0.5, ge=0, description="pixels")
    outliers: float = Field(0.02, ge=0, lt=1)
    dropout: float = Field(0.05, ge=0, lt=0.5)
    arcs: float = Field(0.0, ge=0, le=1, description="of films: share of those that are scenes, one body and an arc")

    @model_validator(mode="after")
    def _known(self) -> ScenesOptions:
        for body in self.bodies or ():
            if body not in TRAINING:
                raise ValueError(f"data.bodies: {body!r} is none of those for training: {', '.join(TRAINING)}")
        return self

    def scenes(self) -> SceneOptions:
        return SceneOptions(
            points=self.points, frames=self.frames, noise=self.noise, outliers=self.outliers, dropout=self.dropout
        )

    def reel(self, seed: int) -> Reel:
        """Films without end, of which so many are there at a time."""
        return Reel(lambda number: told(self._film(seed_of(seed, number))), self.count)

    def _film(self, seed: int) -> Scene:
        bodies, draw = list(self.bodies or TRAINING), np.random.default_rng((seed, 2))
        if draw.uniform() < self.arcs:
            return make_scene(str(draw.choice(bodies)), self.scenes(), seed)
        return make_film(bodies, self.scenes(), seed)


class LearningOptions(Options):
    """How to train."""

    steps: int = Field(10_000, ge=1)
    minutes: float | None = Field(None, gt=0, description="processor time; the learning rate is brought down in time")
    batch: int = Field(4, ge=1)
    points: int = Field(32, ge=4, description="of a clip")
    frames: tuple[int, int] = Field((12, 32), description="of a clip, least and most")
    first_frames: int = Field(16, ge=3, description="of a clip in the first half")
    spread: bool = Field(False, description="take a clip's frames evenly from half of a video or more")
    most_frames: int | None = Field(None, ge=3, description="of an update's clips together: fewer clips if long")
    learning_rate: float = Field(1e-3, gt=0)
    heads: float = Field(1.0, gt=0, description="rate of the heads over that of the rest")
    bfloat16: bool = Field(False, description="tokens and the blocks' weights in bfloat16, Adam in float32")
    warm_up: int = Field(100, ge=0)
    teacher: float = Field(5.0, ge=0, description="weight of what bundle adjustment of the tracks teaches; 0: not used")
    truth: float = Field(0.0, ge=0, description="weight of how films truly move; above 0 they teach instead of it")
    reprojection: float = Field(50.0, ge=0)
    static: float = Field(1.0, ge=0)
    negative: float = Field(1.0, ge=0)
    sparse: float = Field(0.001, ge=0)
    motion: float = Field(0.0, ge=0, description="weight of how far points move, over gamma and depth; not published")

    def schedule(self) -> Schedule:
        names = {field.name for field in fields(LossWeights)}
        weights = LossWeights(**self.model_dump(include=names))
        kept = self.model_dump(exclude=names)
        return Schedule(**kept, weights=weights)


class TestOptions(Options):
    """What is measured on held-out scenes."""

    __test__ = False  # no test of pytest's

    scenes: int = Field(10, ge=1, description="of each group: unseen shapes, unseen motions, seen bodies")
    points: int = Field(150, ge=20)
    frames: int = Field(32, ge=3)
    optimise: list[int] = Field([200, 2000], description="updates of per-scene optimisation")
    seed: int = Field(7777, ge=0)


class MotionRecipe(Recipe):
    """Train (or take a network) and measure."""

    leaves: ClassVar[tuple[str, ...]] = (CHECKPOINT,)

    kind: Literal["motion"] = "motion"
    data: ScenesOptions = Field(default_factory=lambda: ScenesOptions.model_validate({}))
    model: EncoderOptions = Field(default_factory=lambda: EncoderOptions.model_validate({}))
    training: LearningOptions = Field(default_factory=lambda: LearningOptions.model_validate({}))
    test: TestOptions = Field(default_factory=lambda: TestOptions.model_validate({}))
    checkpoint: str | None = Field(
        None, description="measure this one: a file, 'package' or 'package-small'; none is trained"
    )

    @model_validator(mode="after")
    def _films_tell_the_truth(self) -> MotionRecipe:
        if self.training.truth and self.data.name != "films":
            raise ValueError(f"training.truth={self.training.truth:g} needs data.name=films, which tell it")
        if self.data.arcs and not self.training.truth:
            raise ValueError(f"data.arcs={self.data.arcs:g} is of films that tell the truth: set training.truth")
        return self

    @model_validator(mode="after")
    def _network_can_be_built(self) -> MotionRecipe:
        try:
            with torch.device("meta"):
                self.model.build()
        except ValueError as error:
            raise ValueError(f"model.{error}") from error
        return self

    def prepare(self, run: Run) -> dict[str, list[Scene]]:
        """Scenes never trained on: shapes never seen, motions never seen, and bodies of training in new scenes.

        Raises:
            CosetError: Data of a body is missing.
        """
        options = SceneOptions(points=self.test.points, frames=self.test.frames)
        groups = {"unseen shapes": UNSEEN_SHAPES, "unseen motions": UNSEEN_MOTIONS, "seen bodies": TRAINING}
        with progress("test scenes", self.test.scenes * len(groups), run.quiet) as each:
            return {
                name: make_scenes(list(bodies), self.test.scenes, options, self.test.seed + i, each)
                for i, (name, bodies) in enumerate(groups.items())
            }

    def work(self, run: Run, prepared: dict[str, list[Scene]]) -> dict[str, Any]:
        """Train (or take a network), and measure it on the held-out scenes.

        Raises:
            CosetError: The checkpoint cannot be used.
        """
        used = time.process_time()
        model, history, about = self._network(run)
        trained = run.part("training seconds", lambda: time.process_time() - used)
        save_model(model, run.folder / CHECKPOINT, about)
        rows = evaluate(model, prepared, self.test, run)
        run.folder.write_text(HISTORY, pd.DataFrame(history).to_csv(index=False))
        run.folder.write_text(PREDICTIONS, rows.to_csv(index=False))
        write_certificate(run.folder, self._certificate(model, prepared["unseen shapes"][0]))
        return {
            "test": table_of(rows),
            "params": sum(p.numel() for p in model.parameters()),
            "cpu_seconds_training": round(trained, 1),
            "steps": history[-1]["step"] if history else 0,
            "about": about,
        }

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        return write(folder, metrics)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a method and group of scenes: medians over scenes."""
        rows = []
        for group, methods in metrics["test"].items():
            for method, values in methods.items():
                rows.append([group, method, *(_rounded(values.get(name)) for name in BRIEF)])
        return ["scenes", "method", *BRIEF.values()], rows

    def verify(self, folder: Path | None = None, progress: bool = False) -> list[EquivarianceReport]:
        """Equivariance to renumbering of points, of the trained network of a run or of an untrained one."""
        model = self._untrained() if folder is None else load_model(folder / CHECKPOINT)[0]
        return self._certificate(model, make_scene("boxes", SceneOptions(points=30, frames=12), self.seed))

    def _certificate(self, model: TracksTo4D, scene: Scene) -> list[EquivarianceReport]:
        return verify_claims(model, scene.tracks.tensor())

    def _untrained(self) -> TracksTo4D:
        torch.manual_seed(self.seed)
        return self.model.build()

    def _network(self, run: Run) -> tuple[TracksTo4D, list[dict[str, float]], dict[str, Any]]:
        """The network, its history of training, and what its file says of it."""
        if self.checkpoint is not None:
            ours = self.checkpoint in PRETRAINED
            model, about = pretrained(self.checkpoint) if ours else load_model(Path(self.checkpoint))
            return model, [], about
        model = self._untrained()
        trained = run.part("training", lambda: self._train(model, run))
        model.load_state_dict(trained["state"])
        return model, trained["history"], trained["about"]

    def _train(self, model: TracksTo4D, run: Run) -> dict[str, Any]:
        videos = self._videos(run)
        with progress("training", 100, run.quiet) as each:
            history = train(model, videos, self.training.schedule(), self.seed, lambda share, values: each(), kept(run))
        about = {
            "recipe": self.name, "seed": self.seed, "window": self.training.frames[1], "steps": history[-1]["step"],
        }  # fmt: skip
        if isinstance(videos, Reel):
            about |= {"films": self.data.count + history[-1]["step"] - 1}
        else:
            about |= {"scenes": len(videos), "taught": sum(bool(video.sure.any()) for video in videos)}
        return {"state": model.state_dict(), "history": history, "about": about}

    def _videos(self, run: Run) -> list[Lesson] | Reel:
        """Films that tell the truth; or tracks alone, with what the teacher finds in them."""
        if self.training.truth:
            reel = self.data.reel(self.seed + 1)
            with progress("films", self.data.count, run.quiet) as each:
                reel.at(0, each)
            return reel
        with progress("scenes", self.data.count, run.quiet) as each:
            make = make_films if self.data.name == "films" else make_scenes
            scenes = make(list(self.data.bodies or TRAINING), self.data.count, self.data.scenes(), self.seed + 1, each)
        tracks = [scene.tracks.tensor() for scene in scenes]
        del scenes  # from here on nothing true is known of them
        if not self.training.teacher:
            return [untaught(video) for video in tracks]
        with progress("bundle adjustment", len(tracks), run.quiet) as each:
            return teach(tracks, each)


def kept(run: Run) -> Keep:
    """The state of training of a run, in its folder until it is whole."""
    file = run.folder / PARTS / TRAINING_STATE

    def write(state: dict[str, Any]) -> None:
        make_folder(file.parent)
        run.folder.save(f"{PARTS}/{TRAINING_STATE}", state)

    return Keep(lambda: read_checkpoint(file) if file.is_file() else None, write)


def methods_of(model: TracksTo4D, test: TestOptions) -> dict[str, Callable[[Scene], Prediction]]:
    """Everything that is compared, from the tracks of a scene to a prediction; only the last looks at the truth."""

    def start(scene: Scene) -> Prediction:
        return Prediction(*(part.detach() for part in FreeReconstruction(scene.tracks.tensor())()))

    def forward(scene: Scene) -> Prediction:
        with torch.no_grad():
            return model(scene.tracks.tensor())

    def refined(scene: Scene) -> Prediction:
        found = forward(scene)
        return bundle_adjust(found, scene.tracks.tensor(), network=found)

    methods: dict[str, Callable[[Scene], Prediction]] = {
        "feed-forward": forward,
        "feed-forward + bundle adjustment": refined,
        "bundle adjustment from scratch": lambda scene: bundle_adjust(start(scene), scene.tracks.tensor()),
        "rigid factorisation": lambda scene: rigid_factorisation(scene.tracks.tensor()),
        "trajectory factorisation, rank 3K": lambda scene: trajectory_factorisation(scene.tracks.tensor()),
    }
    for steps in test.optimise:
        methods[f"per-scene optimisation, {steps} steps"] = partial(_optimise, steps=steps)
    methods["feed-forward, B_k = 0"] = lambda scene: standing_still(forward(scene))
    methods["truth, moving points frozen"] = frozen_truth
    return methods


def _optimise(scene: Scene, steps: int) -> Prediction:
    return optimise_scene(scene.tracks.tensor(), steps)


def evaluate(model: TracksTo4D, groups: dict[str, list[Scene]], test: TestOptions, run: Run) -> pd.DataFrame:
    """A row a scene and method: metrics against the truth, and processor seconds."""
    rows = []
    methods = methods_of(model.eval(), test)
    with progress("measuring", sum(map(len, groups.values())) * len(methods), run.quiet) as each:
        for group, scenes in groups.items():
            for number, scene in enumerate(scenes):
                for name, method in methods.items():
                    measured = run.part(f"{group} {number} {name}", partial(_measure, scene, method))
                    rows.append({"group": group, "scene": number, "body": scene.body, "method": name} | measured)
                    each()
    return pd.DataFrame(rows)


def _measure(scene: Scene, method: Callable[[Scene], Prediction]) -> dict[str, float]:
    started = time.process_time()
    prediction = method(scene)
    return {"seconds": time.process_time() - started} | scene_metrics(prediction, scene)


def table_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Medians over the scenes of a group, by method."""
    result: dict[str, Any] = {}
    for (group, method), part in rows.groupby(["group", "method"], sort=False):
        numbers = part.drop(columns=["group", "scene", "body", "method"])
        result.setdefault(str(group), {})[str(method)] = {name: float(v) for name, v in numbers.median().items()}
    return result


def _rounded(value: float | None) -> str:
    return "" if value is None else "0" if abs(value) < 1e-9 else f"{value:.3g}"
