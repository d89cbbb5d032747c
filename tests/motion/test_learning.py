import io
import math
from dataclasses import replace

import pytest
import torch

from coset.motion.data.films import make_film
from coset.motion.data.scenes import SceneOptions, make_scene
from coset.motion.geometry import project, to_camera
from coset.motion.learning import LEAST_LEVEL, SMALL_MOTION, Keep, rounded, teacher_loss, train, truth_loss, warm_up
from coset.motion.lessons import Lesson, Reel, Schedule, draw_clips, in_middle_frame, taught, teach, told, untaught
from coset.motion.losses import LossWeights, warm_up_loss
from coset.motion.metrics import camera_errors
from coset.motion.models.checkpoint import load_model, save_model
from coset.motion.models.trackster4d import Prediction, TracksTo4D

SMALL = Schedule(steps=30, batch=2, points=20, frames=(8, 14), first_frames=8, warm_up=40)


def lesson_of(scene):
    """A lesson that holds the truth."""
    points = torch.from_numpy(scene.points[:, scene.tracks.frames // 2]).float()
    rotations, positions = torch.from_numpy(scene.rotations).float(), torch.from_numpy(scene.positions).float()
    return untaught(scene.tracks.tensor())._replace(
        rotations=rotations, positions=positions, static=points, sure=torch.from_numpy(~scene.moving)
    )


def test_the_teacher_finds_cameras_from_tracks_alone():
    scene = make_scene("rod", SceneOptions(points=80, frames=16), 0)
    lesson = taught(scene.tracks.tensor())
    assert lesson.sure.any()
    true = torch.from_numpy(scene.rotations).float(), torch.from_numpy(scene.positions).float()
    assert camera_errors(lesson.rotations, lesson.positions, *true)["rotation"] < 1
    assert (~torch.from_numpy(scene.moving)[lesson.sure]).double().mean() > 0.9


def test_the_teacher_says_nothing_where_it_does_not_know():
    noise = torch.rand(40, 10, 3, generator=torch.Generator().manual_seed(0))
    noise[..., 2] = 1
    assert not taught(noise).sure.any()


@pytest.mark.parametrize("seed", range(6))
def test_drawn_clips_keep_tracks_and_teacher_consistent(clean_scene, seed):
    """Mirrored, reversed, cut and re-gauged: the static points are still seen where the tracks say."""
    generator = torch.Generator().manual_seed(seed)
    batch = draw_clips([lesson_of(clean_scene)], SMALL, True, generator)
    inside = to_camera(batch.static[:, :, None], batch.rotations[:, None], batch.positions[:, None])
    seen = (batch.tracks[..., 2] > 0.5) & batch.sure[..., None]
    assert seen.any()
    assert (project(inside) - batch.tracks[..., :2])[seen].abs().max() < 1e-4
    assert torch.allclose(torch.det(batch.rotations), torch.ones(()), atol=1e-5)


def test_the_gauge_of_the_warm_up(clean_scene):
    clip = in_middle_frame(lesson_of(clean_scene))
    middle = clip.rotations.size(0) // 2
    assert torch.allclose(clip.rotations[middle], torch.eye(3), atol=1e-5)
    assert torch.allclose(clip.positions[middle], torch.tensor([0.0, 0, -15]), atol=1e-4)
    assert float((clip.static[clip.sure, 2] + 15).median()) == pytest.approx(15, rel=1e-4)


def test_a_teacher_that_is_followed_costs_nothing(clean_scene):
    clip = Lesson(*(part[None] for part in in_middle_frame(lesson_of(clean_scene))))
    frames, points = clip.rotations.size(1), clip.static.size(1)
    ones = torch.ones(1, frames, 1)
    right = Prediction(
        clip.rotations, clip.positions, ones, ones[..., 0], clip.static[:, :, None], torch.ones(1, points)
    )
    assert float(teacher_loss(right, clip)) == 0
    assert float(teacher_loss(right._replace(positions=right.positions + 1), clip)) > 0
    assert float(teacher_loss(right, clip._replace(sure=torch.zeros_like(clip.sure)))) == 0


def test_the_warm_up_brings_cameras_to_their_start(scene):
    torch.manual_seed(0)
    model = TracksTo4D(width=16, blocks=1, heads=2, head_width=8, hidden=16, basis=3, octaves=3, kernel=5, orbit=True)
    videos = [untaught(scene.tracks.tensor())]
    before = float(warm_up_loss(model(videos[0].tracks)).detach())
    warm_up(
        model, videos, Schedule(batch=2, points=20, warm_up=300, learning_rate=1e-2), torch.Generator().manual_seed(0)
    )
    assert float(warm_up_loss(model(videos[0].tracks)).detach()) < 0.05 * before


@pytest.mark.parametrize("teacher", [0.0, 5.0])
def test_training_learns_and_repeats_itself(scene, teacher):
    def run():
        torch.manual_seed(0)
        model = TracksTo4D(
            width=16, blocks=1, heads=2, head_width=8, hidden=16, basis=3, octaves=3, kernel=5, orbit=True
        )
        schedule = Schedule(**{**SMALL.__dict__, "teacher": teacher})
        return train(model, [lesson_of(scene)], schedule, seed=1), model

    (history, model), (again, other) = run(), run()
    assert history == again
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert history[-1]["share"] == 1
    assert history[-1]["total"] < history[0]["total"]
    assert ("teacher" in history[0]) == (teacher > 0)


def test_a_loss_on_displacement_is_there_if_asked_for_and_holds_points_still(scene):
    def trained(weights):
        torch.manual_seed(0)
        model = TracksTo4D(width=16, blocks=1, heads=2, head_width=8, hidden=16, basis=3, octaves=3, kernel=5)
        schedule = replace(SMALL, steps=60, learning_rate=3e-3, teacher=0.0, weights=weights)
        return train(model, [untaught(scene.tracks.tensor())], schedule, seed=1)

    assert "motion" not in trained(LossWeights())[0]
    history = trained(LossWeights(reprojection=0.0, sparse=0.0, motion=10.0))
    assert history[-1]["motion"] < 0.5 * history[0]["motion"]


def test_every_video_is_taught_or_kept_without():
    calls = []
    scenes = [make_scene("boxes", SceneOptions(points=40, frames=10), s).tracks.tensor() for s in range(2)]
    assert len(teach(scenes, lambda: calls.append(1))) == 2
    assert len(calls) == 2


EXACT = SceneOptions(points=40, frames=16, noise=0.0)


def saved(state):
    """As a file would give it back: what training does afterwards does not reach it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


def small_network():
    torch.manual_seed(0)
    return TracksTo4D(width=16, blocks=1, heads=2, head_width=8, hidden=16, basis=3, octaves=3, kernel=5, orbit=True)


@pytest.mark.parametrize("seed", range(4))
def test_clips_of_films_that_tell_the_truth_are_consistent(seed):
    """Cut, mirrored, reversed and re-gauged: every point is seen where the tracks say, moving ones too."""
    film = make_film(["rod", "boxes"], EXACT, seed)
    clips = draw_clips([told(film)], SMALL, True, torch.Generator().manual_seed(seed))
    where = clips.static[:, :, None] + clips.away
    inside = to_camera(where, clips.rotations[:, None], clips.positions[:, None])
    seen = clips.tracks[..., 2] > 0.5
    assert clips.told.all()
    assert clips.sure.all()
    assert (project(inside) - clips.tracks[..., :2])[seen].abs().max() < 1e-4
    assert clips.away.mean(2).abs().max() < 1e-4
    assert clips.away.norm(dim=-1).max() > 0.1


def test_the_truth_costs_nothing_and_what_differs_from_it_does():
    film = make_film(["rod", "boxes"], EXACT, 1)
    clip = Lesson(*(part[None] for part in in_middle_frame(told(film))))
    frames = clip.rotations.size(1)
    basis = torch.cat((clip.static[:, :, None], clip.away), 2)
    coefficients = torch.cat((torch.ones(1, frames, 1), torch.eye(frames)[None]), 2)
    still = project(to_camera(clip.static[:, :, None], clip.rotations[:, None], clip.positions[:, None]))
    seen = clip.tracks[..., 2] > 0.5
    left = ((still - clip.tracks[..., :2]).square().sum(-1) * seen).sum(-1) / seen.sum(-1)
    gamma = left.sqrt().clamp(min=LEAST_LEVEL, max=1.0)
    right = Prediction(clip.rotations, clip.positions, coefficients, coefficients[..., 0], basis, gamma)
    exact = float(truth_loss(right, clip))
    assert 0 <= exact < 1e-5
    assert float(truth_loss(right._replace(gamma=2 * gamma), clip)) == pytest.approx(math.log(2) / 25, rel=1e-3)
    turned = clip.rotations @ rotation_about_y(0.1)
    # |R - R'|^2 = 8 sin^2(angle / 2); what else turns with the camera only adds.
    assert float(truth_loss(right._replace(rotations=turned), clip)) > 10 * 8 * math.sin(0.05) ** 2
    standing = right._replace(basis=torch.cat((basis[:, :, :1], torch.zeros_like(clip.away)), 2))
    depth = to_camera(basis[:, :, :1] + clip.away, clip.rotations[:, None], clip.positions[:, None])[..., 2]
    size = clip.away.norm(dim=-1) / depth.clamp(min=1)
    motion = ((size.square() + SMALL_MOTION**2).sqrt() - SMALL_MOTION)[seen].mean()
    reprojection = (still - clip.tracks[..., :2]).norm(dim=-1)[seen].clamp(max=0.5).mean()
    assert float(truth_loss(standing, clip)) == pytest.approx(float(4 * motion + 2 * reprojection), rel=1e-4)
    assert float(truth_loss(standing, clip._replace(told=torch.tensor([False])))) == 0


def rotation_about_y(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0.0, s], [0, 1, 0], [-s, 0, c]])


def test_clips_are_spread_over_half_of_a_video_or_more_and_fewer_where_they_are_long():
    frames = torch.arange(40.0)
    tracks = torch.stack((frames, torch.zeros(40), torch.ones(40)), -1).expand(20, -1, -1)
    schedule = replace(SMALL, batch=9, first_frames=8, frames=(30, 30), spread=True, most_frames=80)
    generator = torch.Generator().manual_seed(0)
    early, late = (draw_clips([untaught(tracks)], schedule, late, generator).tracks for late in (False, True))
    assert early.shape[0] == 9
    assert late.shape[0] == 2
    steps = early[:, 0, :, 0].abs().diff(dim=-1).abs()
    assert ((early[:, 0, -1, 0].abs() - early[:, 0, 0, 0].abs()).abs() >= 19).all()
    assert ((steps - steps.mean(-1, keepdim=True)).abs() < 1).all()


def test_training_in_bfloat16_learns_and_leaves_weights_that_take_two_bytes(scene, tmp_path):
    torch.manual_seed(0)
    model = TracksTo4D(width=16, blocks=1, heads=2, head_width=8, hidden=16, basis=3, octaves=3, kernel=5, orbit=True)
    history = train(model, [lesson_of(scene)], replace(SMALL, bfloat16=True, heads=0.3), seed=1)
    assert history[-1]["total"] < history[0]["total"]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(torch.equal(short.float(), model.get_parameter(name)) for name, short in rounded(model).items())
    save_model(model, tmp_path / "model.safetensors")
    again, _ = load_model(tmp_path / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    numbers = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 3.5 * numbers


def test_the_films_of_an_update_are_the_same_however_one_came_there():
    def make(number):
        return untaught(torch.full((4, 8, 3), float(number)))

    def numbers(films):
        return [int(film.tracks[0, 0, 0]) for film in films]

    reel, made = Reel(make, 3), []
    assert [numbers(reel.at(update)) for update in range(3)] == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert numbers(Reel(make, 3).at(2, lambda: made.append(1))) == [2, 3, 4]
    assert len(made) == 3


@pytest.mark.parametrize("truth", [0.0, 10.0])
def test_training_that_was_stopped_goes_on_as_if_it_had_not_been(truth):
    films = [told(make_film(["rod"], replace(EXACT, noise=0.5), seed)) for seed in range(6)]
    schedule = replace(SMALL, steps=12, truth=truth)

    def reel():
        return Reel(lambda number: films[number % 6], 3)

    whole = small_network()
    history = train(whole, reel(), schedule, seed=1)
    states = []
    train(small_network(), reel(), schedule, seed=1, keep=Keep(lambda: None, lambda s: states.append(saved(s)), -1.0))
    assert len(states) == 11
    assert ("truth" in history[0]) == (truth > 0)
    for state in (states[0], states[6]):
        resumed = small_network()
        assert train(resumed, reel(), schedule, seed=1, keep=Keep(lambda state=state: state, lambda _: None)) == history
        assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_training_that_goes_on_for_longer_than_was_meant_keeps_its_history(scene):
    video, kept = [lesson_of(scene)], []
    short = replace(SMALL, steps=4, warm_up=0)
    train(small_network(), video, short, keep=Keep(lambda: None, lambda state: kept.append(saved(state)), -1.0))
    history = train(small_network(), video, replace(short, steps=8), keep=Keep(lambda: kept[-1], lambda state: None))
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 6, 7, 8]  # the fourth was made anew
    assert [row["share"] for row in history] == pytest.approx([step / 8 for step in range(1, 9)])
