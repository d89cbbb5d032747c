"""What moves is placed where it is, stands still where it does, and is said to be unknown where nothing tells."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from coset.motion.data.scenes import Scene, SceneOptions, make_scene
from coset.motion.data.tracks import Intrinsics, Tracks
from coset.motion.metrics import scene_metrics
from coset.motion.models.trackster4d import Prediction
from coset.motion.movers import MoverOptions, moving_rows, place_movers
from coset.motion.movers.bodies import adopted, bodies_of
from coset.motion.movers.depths import Depths, Terms
from coset.motion.movers.placing import hidden_bound
from coset.motion.movers.view import View
from coset.motion.reconstruct import body_note

NOISE = 8e-4
FRAMES = 16


def known(scene):
    """True cameras and static cloud; motion levels of the moving points high."""
    points = torch.from_numpy(scene.points)
    middle = points.mean(1)
    ones = torch.ones(scene.tracks.frames, 1).double()
    gamma = torch.where(torch.from_numpy(scene.moving), 0.05, NOISE).double()
    cameras = torch.from_numpy(scene.rotations), torch.from_numpy(scene.positions)
    return Prediction(*cameras, ones, ones[:, 0], middle.unsqueeze(1), gamma)


def walk(camera_travel, step, lost=(), wall_foot=0.0, towards=(0.0, 0.0, -1.0), shake=(0.05, 9)):
    """A ground, a wall, and a ball of points that moves, before a camera that goes sideways and shakes."""
    g = np.random.default_rng(0)
    ground = np.stack([g.uniform(-3, 3, 60), np.zeros(60), g.uniform(3, 8, 60)], 1)
    wall = np.stack([g.uniform(-3, 3, 40), wall_foot - g.uniform(0, 3, 40), np.full(40, 8.0)], 1)
    ball = g.normal(size=(24, 3))
    ball = 0.4 * ball / np.linalg.norm(ball, axis=1, keepdims=True) + [-0.3, -0.4, 4.5]
    times = np.linspace(-0.5, 0.5, FRAMES)
    still = np.concatenate([ground, wall])[:, None].repeat(FRAMES, 1)
    moves = step * (times[:, None] * towards + 0.3 * np.sin(6 * times)[:, None] * [1.0, 0.0, 0.0])
    points = np.concatenate([still, ball[:, None] + moves])
    positions = np.stack(
        [camera_travel * times, -1.2 + shake[0] * np.sin(shake[1] * times) * (camera_travel > 0), 0 * times], 1
    )
    rotations = np.tile(np.eye(3), (FRAMES, 1, 1))
    inside = points - positions
    focal = 500
    xy = inside[..., :2] / inside[..., 2:] * focal + [320, 240] + g.normal(0, 0.2, (*points.shape[:2], 2))
    seen = np.ones(points.shape[:2], bool)
    for row, run in lost:
        seen[row, run] = False
    moving = np.arange(len(points)) >= 100
    tracks = Tracks(xy, seen, (640, 480), intrinsics=Intrinsics(focal, 320, 240))
    return Scene(tracks, points, rotations, positions, moving, "ball")


def placed(scene, network=None):
    return place_movers(known(scene), scene.tracks.tensor().double(), NOISE, network)


@pytest.mark.parametrize(("body", "seed"), [("boxes", 1), ("rod", 4)])
def test_bodies_are_nearer_to_the_truth_than_frozen_ones(body, seed):
    scene = make_scene(body, SceneOptions(points=100, frames=24), seed)
    prediction, bodies = placed(scene)
    found, frozen = scene_metrics(prediction, scene), scene_metrics(known(scene), scene)
    assert found["moving_points"] < 0.7 * frozen["moving_points"]
    assert found["motion_cosine"] > 0.75
    assert 0.7 < found["motion_size"] < 1.4
    assert found["phantom_motion"] < 1e-12
    assert all(body.known for body in bodies)


def test_a_body_is_at_its_depth_and_travels_as_far_as_it_does():
    scene = walk(camera_travel=3.0, step=0.3, towards=(0.0, -1.0, 0.0), shake=(0.2, 14))
    prediction, (body,) = placed(scene)
    assert body.depth == pytest.approx(scene.depth()[100:].mean(), rel=0.02)
    assert body.told_by == "motion"
    assert set(body.rows) == set(range(100, 124))
    travel = prediction.points()[100:].diff(dim=1).sum(1).norm(dim=-1).median()
    assert float(travel) == pytest.approx(0.3, rel=0.2)


def test_an_even_glide_tells_the_depth_but_hardly_the_way_along_the_rays():
    scene = walk(camera_travel=3.0, step=0.3, towards=(0.0, -1.0, 0.0))
    prediction, (body,) = placed(scene)
    assert body.depth == pytest.approx(scene.depth()[100:].mean(), rel=0.06)
    assert body.told_by == "motion"
    sideways, up, along = prediction.points()[100:].diff(dim=1).sum(1).median(0).values.tolist()
    assert np.hypot(sideways, up + 0.3) < 0.25
    assert abs(along) < 0.15 * body.depth


def test_a_body_follows_its_rays_and_goes_on_where_it_is_not_seen():
    scene = walk(2.0, 0.5, lost=[(105, slice(5, 9)), (110, slice(0, 4))])
    prediction, _ = placed(scene)
    metrics = scene_metrics(prediction, scene)
    assert metrics["reprojection_px"] < 1
    away = (prediction.points() - torch.from_numpy(scene.points)).norm(dim=-1)
    assert float(away[105, 5:9].max()) < 0.25
    assert float(away[110, :4].max()) < 0.25


def test_a_camera_that_hardly_moves_leaves_the_depth_unknown_and_feet_on_the_ground():
    scene = walk(camera_travel=0.1, step=1.2)
    _, (body,) = placed(scene)
    assert not body.known
    assert body.told_by == "ground"
    assert body.depth == pytest.approx(scene.depth()[100:].mean(), rel=0.15)
    assert "24 moving points is unknown" in body_note(body)
    assert "touch the ground" in body_note(body)


def test_a_network_is_asked_before_the_ground():
    """Feet are seldom tracked, and what seems to be the ground may be something else."""
    scene = walk(camera_travel=0.1, step=1.2)
    _, (body,) = placed(scene, network=known(scene))
    assert body.told_by == "network"
    assert not body.known
    assert body.depth == pytest.approx(scene.depth()[100:].mean(), rel=0.05)
    assert "where the network says" in body_note(body)


def test_without_ground_the_network_is_asked():
    scene = walk(camera_travel=0.1, step=1.2)
    rows = np.r_[60:124]
    tracks = scene.tracks.select(rows)
    scene = replace(scene, tracks=tracks, points=scene.points[rows], moving=scene.moving[rows])
    _, (body,) = placed(scene, network=known(scene))
    assert body.told_by == "network"
    assert not body.known
    assert body.depth == pytest.approx(scene.depth()[40:].mean(), rel=0.1)
    _, (body,) = placed(scene)
    assert body.told_by == "nothing"


def scattered(count, generator):
    """A view of points that stand still in a box or a ball, with no ground among them."""
    distance = generator.uniform(3, 20)
    if generator.random() < 0.5:
        points = generator.uniform(-0.5, 0.5, (count, 3)) * distance * generator.uniform(0.4, 1.2, 3)
    else:
        points = generator.normal(size=(count, 3)) * distance * generator.uniform(0.1, 0.3)
    cameras = generator.normal(size=(FRAMES, 3)) * 0.05 * distance
    everywhere = np.ones(count, bool)
    return View(
        np.tile(np.eye(3), (FRAMES, 1, 1)), cameras, points + [0, 0, distance], everywhere, ~everywhere,
        np.zeros((count, FRAMES, 2)), np.ones((count, FRAMES), bool), np.zeros((count, FRAMES, 3)),
    )  # fmt: skip


def test_points_without_a_ground_have_hardly_ever_one():
    """Some plane holds a sixth of nearly any points; bodies were placed by such planes, and believed to be known."""
    generator = np.random.default_rng(0)
    found = [scattered(int(generator.integers(30, 400)), generator).ground for _ in range(100)]
    assert sum(ground is not None for ground in found) <= 6


@pytest.mark.parametrize("seed", range(3))
def test_the_ground_is_the_same_however_points_are_numbered(seed):
    scene = walk(camera_travel=0.1, step=1.2)
    view = View.of(known(scene), scene.tracks.tensor().double())
    order = np.random.default_rng(seed).permutation(len(scene.points))
    by_point = ("static", "still", "restless", "flat", "seen", "rays")
    again = replace(view, **{name: getattr(view, name)[order] for name in by_point})
    assert np.allclose(again.ground[0], view.ground[0], atol=1e-12)
    assert again.ground[1] == pytest.approx(view.ground[1])
    assert np.allclose(view.ground[0], [0, -1, 0], atol=0.02)


def with_a_part(scene):
    """The ball drawn out to a pillar of 19 points, five beside it that are seen while the camera still stands."""
    points, seen, positions = scene.points.copy(), scene.tracks.visible.copy(), scene.positions.copy()
    positions[:5] = positions[5]
    middle = points[100:119].mean(0)
    upright = np.linspace(-0.6, 0.6, 19)[:, None, None] * [0.0, 1.0, 0.0]
    points[100:119] = middle + 0.15 * (points[100:119] - middle) + upright
    points[119:] = middle + 0.2 * (points[119:] - points[119:].mean(0)) + [0.55, 0, 0]
    seen[119:, 5:] = False
    inside = points - positions
    xy = inside[..., :2] / inside[..., 2:] * 500 + [320, 240]
    tracks = replace(scene.tracks, xy=xy, visible=seen)
    return replace(scene, points=points, positions=positions, tracks=tracks)


def test_a_part_that_shows_no_depth_of_its_own_is_where_the_body_beside_it_is():
    scene = with_a_part(walk(2.0, 0.1))
    _, bodies = placed(scene)
    assert [len(body.rows) for body in bodies] == [19, 5]
    whole, part = bodies
    assert whole.known
    assert (part.known, part.told_by) == (False, "neighbour")
    assert part.depth == whole.depth == pytest.approx(scene.depth()[100:119].mean(), rel=0.1)
    assert "a part of the body beside it" in body_note(part)


def test_what_is_seen_before_a_wall_is_not_behind_it():
    """The network says three times as far as the wall before which the ball is seen."""
    scene = walk(camera_travel=0.1, step=1.2, wall_foot=1.5)
    rows = np.r_[60:124]
    tracks = scene.tracks.select(rows)
    scene = replace(scene, tracks=tracks, points=scene.points[rows], moving=scene.moving[rows])
    far = known(scene).basis.clone()
    far[40:, :, 2] *= 6
    _, (body,) = placed(scene, network=known(scene)._replace(basis=far))
    assert body.told_by == "network, backdrop"
    assert not body.known
    assert body.depth < 8.2


def test_nothing_is_put_behind_what_it_hides():
    """Points of the wall that vanish while the ball passes over them bound its depth."""
    scene = walk(camera_travel=0.1, step=1.2, wall_foot=1.5)
    rows = np.r_[60:124]
    seen = scene.tracks.visible.copy()
    flat = scene.tracks.xy
    middle = flat[100:].mean(0)
    hidden = np.linalg.norm(flat[60:100] - middle, axis=-1) < 70
    seen[60:100] &= ~hidden
    seen[60:100, [0, -1]] = True
    tracks = replace(scene.tracks, visible=seen).select(rows)
    scene = replace(scene, tracks=tracks, points=scene.points[rows], moving=scene.moving[rows])
    behind = known(scene)
    far = behind.basis.clone()
    far[40:, :, 2] *= 3
    view, rows = View.of(behind, tracks.tensor().double()), np.arange(40, 64)
    assert 7 < hidden_bound(view, Depths.of(view, rows, MoverOptions()), rows) < 9
    _, (body,) = placed(scene, network=behind._replace(basis=far))
    assert body.depth < 8


def test_a_few_tracks_that_move_alone_are_bad_tracks():
    scene = walk(2.0, 0.5)
    gamma = torch.full((124,), NOISE).double()
    gamma[[3, 40, 77]] = 0.1
    prediction, bodies = place_movers(known(scene)._replace(gamma=gamma), scene.tracks.tensor().double(), NOISE)
    assert bodies == []
    assert prediction.basis.size(1) == 1


def test_two_groups_apart_are_two_bodies():
    scene = walk(2.0, 0.5)
    tracks = scene.tracks.tensor().double()
    apart = tracks.clone()
    apart[112:, :, 0] += 0.5
    mobile = np.arange(100, 124)
    options = MoverOptions()
    assert len(bodies_of(View.of(known(scene), tracks), mobile, options)) == 1
    assert [len(rows) for rows in bodies_of(View.of(known(scene), apart), mobile, options)] == [12, 12]


def test_the_best_depth_is_the_least_of_its_sum_of_squares():
    """The closed form against a search; first solve, all weights 1."""
    scene = walk(2.0, 0.5)
    view = View.of(known(scene), scene.tracks.tensor().double())
    options = MoverOptions(rounds=0)
    depths = Depths.of(view, np.arange(100, 124), options)
    design, constant = Terms(view, np.arange(100, 124), options).whole()
    of_points, of_body = np.split(design.toarray(), [len(depths.where)], axis=1)

    def cost(scale):
        left = of_points @ (depths.base + scale * depths.slope) + constant
        way = np.linalg.lstsq(of_body, -left, rcond=None)[0]  # of the whole body: free
        return np.square(left + of_body @ way).sum() / scale**2

    scales = depths.scale * np.array([0.9, 0.99, 1.0, 1.01, 1.1])
    assert np.argmin([cost(scale) for scale in scales]) == 2
    assert np.mean(depths.at(2.0)) == pytest.approx(2.0, rel=0.05)


def test_tracks_that_slide_between_still_points_make_no_body():
    scene = walk(3.0, 0.3, shake=(0.2, 14))
    slid = np.flatnonzero(np.abs(scene.points[:100, 0, 0]) > 2)[::3]  # a few, and not beside the ball
    drift = np.linspace(0, 12, FRAMES)[:, None] * [1.0, 0.3]
    xy = scene.tracks.xy.copy()
    xy[slid] += drift
    scene = replace(scene, tracks=replace(scene.tracks, xy=xy))
    prediction = known(scene)
    prediction.gamma[slid] = 0.01
    moved, (body,) = place_movers(prediction, scene.tracks.tensor().double(), NOISE)
    assert set(body.rows) == set(range(100, 124))
    assert float(moved.points()[slid].diff(dim=1).abs().max()) == 0


def test_levels_of_still_points_are_no_motion():
    gamma = torch.tensor([1.0, 1.1, 0.9, 1.2, 9.0]).double() * NOISE
    assert moving_rows(gamma, NOISE).tolist() == [False, False, False, False, True]


def test_what_moves_away_along_the_rays_of_a_gliding_camera_goes_along_the_ground():
    """A camera that glides evenly tells an even way along its rays by what shrinks; noise hides that, but no ground."""
    scene = walk(3.0, 0.0)
    times = np.linspace(-0.5, 0.5, FRAMES)
    points = scene.points.copy()
    points[100:] = points[100:, :1] + 1.2 * times[:, None] * [0.0, 0.0, 1.0]
    positions = np.stack([3.0 * times, np.full(FRAMES, -1.2), 0 * times], 1)
    inside = points - positions
    noise = np.random.default_rng(1).normal(0, 0.5, (*points.shape[:2], 2))
    tracks = replace(scene.tracks, xy=inside[..., :2] / inside[..., 2:] * 500 + [320, 240] + noise)
    scene = replace(scene, tracks=tracks, points=points, positions=positions)
    view = View.of(known(scene), tracks.tensor().double())
    rows = np.arange(100, 124)
    grounded, loose = (Depths.of(view, rows, MoverOptions(rise=rise)) for rise in (0.005, 1e9))
    ways = [np.ptp(np.array([d.points(d.scale)[d.where[:, 1] == n].mean(0) for n in (0, 15)])[:, 2]) for d in
            (grounded, loose)]  # fmt: skip
    assert ways[0] == pytest.approx(1.2, abs=0.05)
    assert ways[1] < 1.0


def test_a_point_that_would_lie_below_the_ground_goes_with_the_moving_points_around_it():
    scene = walk(2.0, 0.5)
    prediction = known(scene)
    static, gamma = prediction.basis.clone(), prediction.gamma.clone()
    gamma[[110, 115]] = NOISE  # they look still, at places deep below the ground
    static[[110, 115], 0] = torch.tensor([0.0, 2.0, 12.0]).double()
    view = View.of(prediction._replace(basis=static, gamma=gamma), scene.tracks.tensor().double())
    moving = moving_rows(gamma, NOISE).numpy()
    assert not moving[[110, 115]].any()
    assert set(adopted(view, moving, MoverOptions())) == set(range(100, 124))


def test_a_few_moving_points_near_a_body_are_a_part_of_it():
    scene = walk(2.0, 0.5)
    tracks = scene.tracks.tensor().double()
    tracks[122:, :, 0] += 0.25
    (body,) = bodies_of(View.of(known(scene), tracks), np.arange(100, 124), MoverOptions())
    assert set(body) == set(range(100, 124))
