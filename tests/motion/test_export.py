"""Files are read back by readers that know nothing of us."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from coset import CosetError
from coset.motion.export import quaternion, write_all, write_colmap, write_nerfstudio
from coset.motion.geometry import project, rotation_from_vector, to_camera
from coset.motion.reconstruct import Options, reconstruct


@pytest.fixture(scope="module")
def result(scene, network):
    return reconstruct(scene.tracks, network, Options(refine="bundle"))


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    assert write_all(result, folder) == ["ply/", "colmap/", "scene.glb", "transforms.json", "reconstruction.npz"]
    return folder


def test_trimesh_reads_the_clouds(result, folder):
    trimesh = pytest.importorskip("trimesh")
    assert len(list((folder / "ply").iterdir())) == 14
    cloud = trimesh.load(folder / "ply" / "frame_0003.ply")
    assert np.allclose(cloud.vertices, result.points()[:, 3].numpy(), atol=1e-5)
    assert (np.asarray(cloud.colors)[:, :3] == 160).all()


def test_trimesh_reads_the_gltf(result, folder):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(folder / "scene.glb")
    clouds = [g for g in scene.geometry.values() if isinstance(g, trimesh.PointCloud)]
    expected = result.prediction.static.numpy() * [1, -1, -1]
    assert any(c.vertices.shape == expected.shape and np.allclose(c.vertices, expected, atol=1e-5) for c in clouds)


def accessor(content, buffer, index):
    a = content["accessors"][index]
    view = content["bufferViews"][a["bufferView"]]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[a["type"]]
    values = np.frombuffer(buffer, "<f4", a["count"] * width, view["byteOffset"])
    return values.reshape(a["count"], -1)


def test_the_animation_of_the_gltf_is_the_motion(result, folder):
    raw = (folder / "scene.glb").read_bytes()
    magic, version, length = struct.unpack_from("<4sII", raw)
    assert (magic, version, length) == (b"glTF", 2, len(raw))
    size = struct.unpack_from("<I", raw, 12)[0]
    content, buffer = json.loads(raw[20 : 20 + size]), raw[28 + size :]
    primitive = content["meshes"][0]["primitives"][0]
    base = accessor(content, buffer, primitive["attributes"]["POSITION"])
    targets = np.stack([accessor(content, buffer, t["POSITION"]) for t in primitive["targets"]])
    samplers = content["animations"][0]["samplers"]
    outputs = {
        c["target"]["path"]: accessor(content, buffer, samplers[c["sampler"]]["output"])
        for c in content["animations"][0]["channels"]
    }
    weights = outputs["weights"].reshape(14, -1)
    moved = base[:, None] + np.einsum("nk,kpd->pnd", weights, targets)
    assert np.allclose(moved * [1, -1, -1], result.points().numpy(), atol=1e-4)
    assert np.allclose(outputs["translation"] * [1, -1, -1], result.prediction.positions.numpy(), atol=1e-5)
    times = accessor(content, buffer, samplers[0]["input"])[:, 0]
    assert np.allclose(np.diff(times), 1 / result.tracks.rate)
    assert np.allclose(np.linalg.norm(outputs["rotation"], axis=1), 1, atol=1e-6)


def read_colmap(folder):
    """A reader of the documented text format."""

    def lines(name):
        return [line.split() for line in (folder / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]

    _, model, width, height, f, cx, cy = lines("cameras")[0]
    assert model == "SIMPLE_PINHOLE"
    images, rows = {}, lines("images")
    for pose, points in zip(rows[::2], rows[1::2], strict=True):
        w, x, y, z, *t = map(float, pose[1:8])
        r = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ])  # fmt: skip
        images[int(pose[0])] = r, np.array(t), np.array(points, float).reshape(-1, 3)
    clouds = {
        int(row[0]): (np.array(row[1:4], float), float(row[7]), np.array(row[8:], int).reshape(-1, 2))
        for row in lines("points3D")
    }
    return (int(width), int(height), float(f), float(cx), float(cy)), images, clouds


def test_the_colmap_model_projects_its_points_to_its_pictures(result, folder):
    (width, height, f, cx, cy), images, clouds = read_colmap(folder / "colmap")
    assert (width, height) == result.tracks.size
    assert len(images) == 14
    assert len(clouds) == int((~result.moving()).sum())
    static = result.prediction._replace(
        basis=result.prediction.basis[:, :1], coefficients=result.prediction.coefficients[:, :1]
    )
    ours = project(to_camera(static.points(), static.rotations, static.positions)) * result.tracks.intrinsics.focal
    rows = torch.nonzero(~result.moving()).squeeze(1)
    for number, (point, _, track) in clouds.items():
        for image, index in track:
            r, t, observed = images[image]
            inside = r @ point + t
            pixel = f * inside[:2] / inside[2] + [cx, cy]
            mine = ours[rows[number - 1], image - 1].numpy() + [
                result.tracks.intrinsics.cx,
                result.tracks.intrinsics.cy,
            ]
            assert np.allclose(pixel, mine + 0.5, atol=1e-3)
            assert observed[index, 2] == number
            xy = result.tracks.xy[rows[number - 1], image - 1]
            assert np.allclose(observed[index, :2], xy + 0.5, atol=1e-3)


def test_pycolmap_reads_the_model(folder):
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(str(folder / "colmap"))
    assert model.num_images() == 14


def test_arrays_give_back_the_reconstruction(result, folder):
    arrays = np.load(folder / "reconstruction.npz")
    assert np.allclose(arrays["points"], result.points().numpy(), atol=1e-5)
    assert np.array_equal(arrays["rotations"], result.prediction.rotations.numpy())
    assert np.array_equal(arrays["moving"], result.moving().numpy())
    assert np.array_equal(arrays["rows"], np.arange(result.tracks.points))


@pytest.mark.parametrize("vector", [[0, 0, 0], [3.1, 0, 0], [0, -2, 1], [0, 0, np.pi]])
def test_quaternions_turn_as_their_matrices(vector):
    rotation = rotation_from_vector(torch.tensor(vector, dtype=torch.float64)).numpy()
    w, *v = quaternion(rotation)
    x = np.array([0.3, -1.0, 2.0])
    turned = x + 2 * w * np.cross(v, x) + 2 * np.cross(v, np.cross(v, x))
    assert np.allclose(turned, rotation @ x)
    assert w >= 0


def test_folders_that_cannot_be_written(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CosetError, match="cannot make"):
        write_all(result, tmp_path / "file")
    with pytest.raises(CosetError, match="cannot write"):
        write_colmap(result, tmp_path / "missing")


def test_nerfstudio_gets_cameras_that_look_along_minus_z(result, tmp_path):
    write_nerfstudio(result, tmp_path / "transforms.json")
    content = json.loads((tmp_path / "transforms.json").read_text())
    tracks, points = result.tracks, result.points().numpy()
    assert (content["w"], content["h"], content["k1"]) == (*tracks.size, 0.0)
    n = tracks.frames - 1
    frame = content["frames"][n]
    assert frame["file_path"] == f"images/frame_{n:04d}.jpg"
    assert frame["time"] == pytest.approx(n / tracks.rate)
    world = np.append(points[0, n] * [1, -1, -1], 1.0)
    x, y, z, _ = np.linalg.inv(np.array(frame["transform_matrix"])) @ world
    assert z < 0
    seen = np.array([content["fl_x"] * x / -z + content["cx"], content["cy"] - content["fl_y"] * y / -z]) - 0.5
    inside = to_camera(result.points()[0, n], result.prediction.rotations[n], result.prediction.positions[n])
    k = tracks.intrinsics
    expected = project(inside).numpy() * k.focal * float(result.prediction.focal[n]) + [k.cx, k.cy]
    assert seen == pytest.approx(expected, abs=1e-6)


def test_focal_lengths_that_differ_stand_with_their_frames(result, tmp_path):
    """nerfstudio reads fl_x of a frame only where the file has none for all."""
    zoom = torch.linspace(1, 1.3, result.tracks.frames).double()
    zoomed = replace(result, prediction=result.prediction._replace(focal=zoom))
    write_nerfstudio(zoomed, tmp_path / "transforms.json")
    content = json.loads((tmp_path / "transforms.json").read_text())
    assert "fl_x" not in content
    told = [frame["fl_x"] for frame in content["frames"]]
    assert told == pytest.approx((zoom * result.tracks.intrinsics.focal).tolist())
