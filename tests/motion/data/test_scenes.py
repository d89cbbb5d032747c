import numpy as np
import pytest

from coset import CosetError
from coset.core.data_files import data_file
from coset.motion.data.bodies import (
    BODIES,
    PROCEDURAL,
    TRAINING,
    UNSEEN_MOTIONS,
    UNSEEN_SHAPES,
    breathing_sphere,
    rigid_bodies,
)
from coset.motion.data.scenes import SceneOptions, make_scene, make_scenes


def has_data():
    try:
        return data_file("motion/mesh_stork.npz").is_file()
    except CosetError:
        return False


def test_true_points_and_cameras_give_the_tracks(clean_scene):
    inside = np.einsum("pni,nij->pnj", clean_scene.points - clean_scene.positions, clean_scene.rotations)
    k = clean_scene.tracks.intrinsics
    pixels = inside[..., :2] / inside[..., 2:] * k.focal + np.array([k.cx, k.cy])
    seen = clean_scene.tracks.visible
    assert np.abs(pixels - clean_scene.tracks.xy)[seen].max() < 1e-9
    assert np.allclose(clean_scene.depth(), inside[..., 2])
    assert (inside[..., 2][seen] > 0).all()
    assert (clean_scene.tracks.xy[seen] >= 0).all()
    assert (clean_scene.tracks.xy[seen] < clean_scene.tracks.size).all()


def test_cameras_are_rotations(scene):
    r = scene.rotations
    assert np.allclose(r @ r.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(r), 1)


def test_half_of_the_points_stand_still_and_some_move(scene):
    assert 0.5 <= (~scene.moving).mean() < 1
    still = scene.points[~scene.moving]
    assert np.ptp(still, axis=1).max() < 1e-12 or np.ptp(still, axis=1).max() < 0.1
    assert np.ptp(scene.points[scene.moving], axis=1).max(1).min() > 0.01
    assert (scene.tracks.visible.sum(1) >= 8).all()


def test_noise_is_what_was_asked_for():
    options = {"points": 60, "frames": 14, "dropout": 0.0}
    clean, noisy = (make_scene("boxes", SceneOptions(**options, noise=n, outliers=0), 5) for n in (0.0, 0.5))
    assert (clean.points == noisy.points).all()
    assert (noisy.tracks.xy - clean.tracks.xy).std() == pytest.approx(0.5, rel=0.1)


def test_a_seed_gives_the_same_scene_again():
    options = SceneOptions(points=40, frames=10)
    a, b, c = (make_scene("rod", options, seed) for seed in (1, 1, 2))
    assert (a.tracks.xy == b.tracks.xy).all()
    assert not np.array_equal(a.tracks.xy, c.tracks.xy)


def test_what_is_hidden_is_not_seen():
    """A point right behind a dense sheet is lost where the sheet covers it."""
    from coset.motion.data.scenes import visible

    x, y = np.meshgrid(np.arange(100, 200, 2.0), np.arange(100, 200, 2.0))
    pixels = np.concatenate([np.stack([x, y], -1).reshape(-1, 2), [[150.0, 150.0], [250.0, 150.0]]])[:, None]
    depth = np.concatenate([np.full(x.size, 2.0), [3.0, 3.0]])[:, None]
    seen = visible(pixels, depth, (640, 480))
    assert seen[:-2].all()
    assert not seen[-2, 0]
    assert seen[-1, 0]


def test_rigid_bodies_keep_their_shape():
    body = rigid_bodies(40, 12, np.random.default_rng(0))
    part = body[:8]  # of at most four boxes, the first eight points are of one
    distances = np.linalg.norm(part[:, None] - part[None], axis=-1)
    assert np.allclose(distances, distances[..., :1], atol=1e-9)


def test_a_sphere_breathes():
    body = breathing_sphere(100, 40, np.random.default_rng(0))
    assert np.ptp(np.ptp(body, axis=0)[:, 0]) > 0.01


def test_what_is_held_out_is_not_trained_on():
    held_out = set(UNSEEN_SHAPES) | set(UNSEEN_MOTIONS)
    assert not held_out & set(TRAINING)
    assert held_out | set(TRAINING) == set(BODIES)
    assert set(PROCEDURAL) <= set(TRAINING)


def test_unknown_bodies():
    with pytest.raises(CosetError, match="no body 'dragon'; choose from rod"):
        make_scene("dragon", SceneOptions(), 0)


@pytest.mark.skipif(not has_data(), reason="the motion data is not there")
@pytest.mark.parametrize("name", sorted(set(BODIES) - set(PROCEDURAL) - {"sphere"}))
def test_bodies_from_files_move_smoothly(name):
    body = BODIES[name](200, 20, np.random.default_rng(0))
    assert body.shape == (200, 20, 3)
    assert np.isfinite(body).all()
    middle = body[:, 10]
    assert np.ptp(middle, axis=0).max() == pytest.approx(1.4, rel=0.05)
    step = np.linalg.norm(np.diff(body, axis=1), axis=-1)
    assert 0.001 < step.max() < 0.7  # a body of 1.4 that jumps further in a twentieth of a second would be a bug
    assert len(make_scenes([name], 2, SceneOptions(points=50, frames=12), 0)) == 2


@pytest.mark.skipif(not has_data(), reason="the motion data is not there")
def test_bones_keep_their_length():
    from coset.motion.data.bodies import _continuous, _json, _skeleton_poses

    joints = _json("humanoid3d.json.gz")["Skeleton"]["Joints"]
    rows = _continuous(np.array(_json("humanoid3d_walk.json.gz")["Frames"], float), joints)
    _, places = _skeleton_poses(joints, rows)
    for j, joint in enumerate(joints[1:], 1):
        length = np.linalg.norm(places[j] - places[joint["Parent"]], axis=-1)
        expected = np.linalg.norm([joint["AttachX"], joint["AttachY"], joint["AttachZ"]])
        assert np.allclose(length, expected, atol=1e-9)
    feet = places[[5, 11], :, 1]
    assert 0 <= feet.min() < 0.15  # the lower ankle comes near the ground, y = 0


@pytest.mark.skipif(not has_data(), reason="the motion data is not there")
def test_trimesh_puts_the_resting_robot_where_we_do():
    trimesh = pytest.importorskip("trimesh")
    from coset.motion.data.gltf_bodies import AnimatedFile

    path = data_file("motion/robot_expressive.glb")
    file = AnimatedFile(path)
    assert "Walking" in file.animations()
    file.content["animations"].append({"name": "rest", "channels": [], "samplers": []})
    vertices, faces = file.surface("rest", np.zeros(1))
    assert faces.max() == vertices.shape[1] - 1
    scene = trimesh.load(path)
    torsos = [
        trimesh.transform_points(scene.geometry[name].vertices, scene.graph.get(node)[0])
        for node in scene.graph.nodes_geometry
        for name in [scene.graph.get(node)[1]]
        if name.startswith("Torso")
    ]
    assert len(torsos) > 0
    for torso in torsos:
        distance = np.linalg.norm(vertices[0][None] - torso[:50, None], axis=-1).min(1)
        assert distance.max() < 1e-4 * np.ptp(vertices[0], axis=0).max()


def test_a_file_that_is_no_gltf(tmp_path):
    from coset.motion.data.gltf_bodies import AnimatedFile

    (tmp_path / "a.glb").write_text("no glTF at all, only text")
    with pytest.raises(CosetError, match="is no binary glTF"):
        AnimatedFile(tmp_path / "a.glb")
