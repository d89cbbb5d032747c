import json

import pandas as pd
import pytest
import torch

from coset import CosetError
from coset.motion.data.scenes import SceneOptions, make_scene, seed_of
from coset.motion.lessons import told
from coset.motion.losses import LossWeights
from coset.motion.models.checkpoint import load_model
from coset.motion.pages import BRIEF, SHOWN
from coset.runs.recipes import load, verify

TINY = ["test.optimise=[3]", "training.steps=4", "data.count=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "run"
    recipe = load("trackster4d/tiny", [*TINY, "test.scenes=1"])
    # Bodies made up, so that no data files are needed.
    from coset.motion import experiments as motion
    from coset.motion.data.bodies import breathing_sphere, rigid_bodies

    held_out = {"UNSEEN_SHAPES": {"sphere": breathing_sphere}, "UNSEEN_MOTIONS": {"boxes": rigid_bodies}}
    with pytest.MonkeyPatch.context() as patch:
        for name, bodies in held_out.items():
            patch.setattr(motion, name, bodies)
        metrics = recipe.run(folder, quiet=True)
    return folder, recipe, metrics


def test_a_run_leaves_network_metrics_certificate_and_page(finished):
    folder, recipe, metrics = finished
    for name in ("recipe.yaml", "history.csv", "predictions.csv", "model.safetensors", "certificate.json"):
        assert (folder / name).stat().st_size > 0
    page = recipe.report(folder).read_text()
    for words in ("Held-out scenes", "unseen shapes", "feed-forward + bundle adjustment", "Symmetry"):
        assert words in page
    assert json.loads((folder / "metrics.json").read_text())["steps"] == metrics["steps"] == 4
    model, about = load_model(folder / "model.safetensors")
    assert (about["scenes"], about["window"]) == (2, 12)
    assert sum(p.numel() for p in model.parameters()) == metrics["params"]


def test_every_method_is_measured_on_every_scene(finished):
    folder, recipe, metrics = finished
    rows = pd.read_csv(folder / "predictions.csv")
    assert rows.groupby("group").method.nunique().tolist() == [8, 8, 8]
    assert (rows.seconds > 0).all()
    frozen = metrics["test"]["unseen shapes"]["truth, moving points frozen"]
    assert frozen["static_points"] < 1e-9 < frozen["moving_points"]
    assert (round(frozen["phantom_motion"], 9), frozen["motion_cosine"]) == (0, 0)
    columns, table = recipe.summary(metrics)
    assert len(columns) == len(table[0]) == 2 + len(BRIEF)
    assert set(BRIEF) < set(SHOWN) < set(rows.columns)
    assert len(table) == 24


def test_the_symmetry_of_a_run_and_of_a_recipe_holds(finished):
    folder, _, _ = finished
    assert all(report.passed for report in verify(str(folder)))
    assert all(report.passed for report in verify("trackster4d/tiny"))


def test_a_recipe_of_films_learns_from_their_truth_and_goes_on(tmp_path, monkeypatch):
    from coset.motion import experiments as motion

    films = ["data.name=films", "data.bodies=[rod]", "training.truth=10", "test.optimise=[]", "training.steps=6"]
    row = {"group": "unseen shapes", "scene": 0, "body": "rod", "method": "feed-forward"} | dict.fromkeys(SHOWN, 0.0)
    monkeypatch.setattr(motion, "evaluate", lambda *_: pd.DataFrame([row]))
    monkeypatch.setattr(motion.MotionRecipe, "prepare", lambda self, run: {"unseen shapes": [film]})
    film = motion.make_film(["rod"], motion.SceneOptions(points=30, frames=12), 0)
    recipe = load("trackster4d/tiny", films)
    once = recipe.run(tmp_path / "once", quiet=True)
    assert once["about"]["films"] == 4 + 6 - 1
    history = pd.read_csv(tmp_path / "once" / "history.csv")
    assert (history.truth > 0).all()

    every, train = [], motion.train

    def interrupted(*parts):
        """Training that keeps its state after each update, and is killed when it has kept it four times."""

        def write(state):
            parts[-1].write(state)
            every.append(1)
            if len(every) == 4:
                raise KeyboardInterrupt

        return train(*parts[:-1], motion.Keep(parts[-1].read, write, -1.0))

    monkeypatch.setattr(motion, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recipe.run(tmp_path / "twice", quiet=True)
    monkeypatch.setattr(motion, "train", train)
    recipe.run(tmp_path / "twice", quiet=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "twice" / "history.csv"), history)
    first, second = (load_model(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("once", "twice"))
    assert all((first[name] == second[name]).all() for name in first)
    assert not (tmp_path / "twice" / "parts").exists()


def test_some_of_the_films_may_be_scenes_with_an_arc():
    films = ["data.name=films", "data.bodies=[rod]", "training.truth=10", "data.points=40", "data.frames=12"]
    lessons = {
        share: load("trackster4d/tiny", [*films, f"data.arcs={share}", "data.count=12"]).data.reel(3).at(0)
        for share in (0.0, 0.5, 1.0)
    }
    scene = make_scene("rod", SceneOptions(points=40, frames=12), seed_of(3, 5))
    assert torch.equal(lessons[1.0][5].tracks, told(scene).tracks)
    arcs = [torch.equal(a.tracks, b.tracks) for a, b in zip(lessons[0.5], lessons[1.0], strict=True)]
    kept = [torch.equal(a.tracks, b.tracks) for a, b in zip(lessons[0.5], lessons[0.0], strict=True)]
    assert 0 < sum(arcs) < 12
    assert all(arc != film for arc, film in zip(arcs, kept, strict=True))
    with pytest.raises(CosetError, match=r"data\.arcs=0\.5 is of films that tell the truth"):
        load("trackster4d/tiny", ["data.arcs=0.5"])


def test_the_truth_is_told_by_films_alone():
    with pytest.raises(CosetError, match=r"training\.truth=10 needs data\.name=films"):
        load("trackster4d/tiny", ["training.truth=10"])


def test_weights_of_the_losses_come_from_the_recipe():
    schedule = load("trackster4d/tiny", ["training.motion=0.05", "training.sparse=0"]).training.schedule()
    assert schedule.weights == LossWeights(sparse=0.0, motion=0.05)
    assert load("trackster4d/tiny").training.schedule().weights == LossWeights()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.kernel=4"], "model.kernel=4 must be odd"),
        (["data.bodies=[dragon]"], "'dragon' is none of those for training: rod, boxes"),
        (["training.frame=3"], "unknown key training.frame=3; did you mean training.frames?"),
        (["data.outliers=2"], "data.outliers=2: Input should be less than 1"),
    ],
)
def test_mistakes(overrides, message):
    with pytest.raises(CosetError, match="recipe trackster4d/tiny") as error:
        load("trackster4d/tiny", overrides)
    assert message in str(error.value)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(CosetError, match="no such file"):
        load("trackster4d/tiny", ["checkpoint=missing.safetensors", "test.scenes=1"]).run(tmp_path, quiet=True)
