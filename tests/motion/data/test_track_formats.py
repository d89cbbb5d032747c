"""The forms of trackers and test sets, each written here as its tracker writes it, and read back."""

import re
from dataclasses import replace

import numpy as np
import pytest

from coset import CosetError
from coset.motion.data import tracks as files
from coset.motion.data.tracks import Intrinsics
from coset.motion.data.truth import cameras_of, moving_points
from coset.motion.pipeline import Input, read_input

SIZE, FOCAL = (320, 240), 300.0
K = np.array([[FOCAL, 0, 160], [0, FOCAL, 120], [0, 0, 1]])


class World:
    """Thirty points seen by a camera that swings and glides; the first five move."""

    def __init__(self, points=30, frames=9, seed=0):
        rng = np.random.default_rng(seed)
        self.points = rng.uniform([-1, -0.8, 3], [1, 0.8, 5], (points, 3))[:, None].repeat(frames, 1)
        self.points[:5] += np.linspace(0, 1, frames)[:, None] * [0.4, 0.2, 0.3]
        angle = np.linspace(-0.1, 0.1, frames)
        self.rotations = np.stack([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angle])
        self.positions = np.linspace([-0.2, 0, 0], [0.2, 0.1, 0.1], frames)
        self.inside = np.einsum("nji,pnj->pni", self.rotations, self.points - self.positions)
        self.xy = self.inside[..., :2] / self.inside[..., 2:] * FOCAL + [160, 120]
        self.visible = rng.uniform(size=(points, frames)) < 0.8
        self.visible[:, 0] = True
        turn = self.rotations.transpose(0, 2, 1)
        moves = -(turn @ self.positions[..., None])
        self.extrinsics = np.concatenate([np.concatenate([turn, moves], -1), [[[0, 0, 0, 1]]] * frames], 1)


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture
def read(tmp_path):
    def read(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return files.load(tmp_path / "a.npz")

    return read


def agrees(tracks, world, atol=1e-9):
    return (
        tracks.xy.shape == world.xy.shape
        and (tracks.visible == world.visible).all()
        and np.allclose(tracks.xy[world.visible], world.xy[world.visible], atol=atol)
    )


def time_first(values):
    return values.swapaxes(0, 1)


# CoTracker, and the test set of TracksTo4D


def test_set_of_tracksto4d(world, read):
    mask = np.zeros((9, 30), np.uint8)
    mask[:8, :5] = 1  # 8 of 9 frames: more than four fifths
    mask[:7, 5] = 1  # 7 of 9: fewer
    depth = time_first(np.where(world.visible, world.inside[..., 2], 0))
    found = read(
        pred_tracks=time_first(world.xy)[None].astype(np.float32),
        pred_visibility=time_first(world.visible)[None],
        started_at=np.repeat([[[0.0, 3.0]]], 15, -1),
        Ks_all=np.repeat(K[None], 50, 0),
        Ms_all=world.extrinsics[:, :3],
        GT_depth_tracks_all=depth[None],
        GT_mask_tracks_all=mask[None],
    )
    assert agrees(found, world, 1e-4)
    assert (found.intrinsics.focal, found.intrinsics.source, found.size) == (FOCAL, "file", SIZE)
    assert found.started_at.tolist() == [0] * 15 + [3] * 15
    assert np.allclose(found.truth.rotations, world.rotations)
    assert np.allclose(found.truth.positions, world.positions)
    assert np.allclose(found.truth.depth, depth.T)
    assert found.truth.moving.tolist() == [True] * 5 + [False] * 25


def test_intrinsics_of_every_frame_leave_normalised_coordinates_as_they_are(world, read):
    """Focal lengths that differ by axis and frame: a pixel is moved to where one camera for all would see it."""
    scale = np.linspace(0.9, 1.1, 9)[:, None, None] * np.array([[1, 0, 1], [0, 1.1, 1], [0, 0, 1]])
    matrices = K * scale
    normalised = (world.xy - [160, 120]) / FOCAL
    xy = normalised * matrices[:, [0, 1], [0, 1]] + matrices[:, :2, 2]
    found = read(
        pred_tracks=time_first(xy)[None], pred_visibility=time_first(world.visible)[None], Ks_all=matrices
    )  # fmt: skip
    expected = np.where(world.visible[..., None], normalised, 0)
    assert np.allclose(found.tensor()[..., :2].numpy(), expected, atol=1e-6)
    given = Intrinsics(200, 100, 80)
    assert files.load(read.__closure__[0].cell_contents / "a.npz", given).intrinsics == given


def test_the_truth_goes_through_a_file_of_ours_and_selections(world, read, tmp_path):
    tracks = read(
        pred_tracks=time_first(world.xy)[None], pred_visibility=time_first(world.visible)[None],
        Ks_all=K[None].repeat(9, 0), Ms_all=world.extrinsics,
        GT_depth_tracks_all=time_first(world.inside[..., 2])[None],
        GT_mask_tracks_all=np.arange(30)[None, None].repeat(9, 1) < 5,
    )  # fmt: skip
    part = tracks.select(np.arange(3, 25), slice(2, 8))
    files.save(part, tmp_path / "b.npz")
    again = files.load(tmp_path / "b.npz")
    assert np.allclose(again.truth.depth, world.inside[3:25, 2:8, 2])
    assert np.allclose(again.truth.positions, world.positions[2:8])
    assert np.allclose(again.truth.rotations, world.rotations[2:8])
    assert again.truth.moving.tolist() == [True] * 2 + [False] * 20
    assert (again.intrinsics, again.size) == (part.intrinsics, part.size)


# TAPIR


def test_tracks_with_visibility_in_either_order_of_axes(world, read):
    """Points move by some pixels a frame and lie far apart: that tells time from points."""
    assert agrees(read(tracks=world.xy, visibility=world.visible), world)
    assert agrees(read(tracks=time_first(world.xy), visibility=time_first(world.visible)), world)
    batch = {"tracks": time_first(world.xy)[None], "visibility": time_first(world.visible)[None, ..., None]}
    assert agrees(read(**batch), world)


@pytest.mark.parametrize(
    "told",
    [{}, {"image_size": np.array(SIZE)}, {"intrinsics": K.astype(float)}],
    ids=lambda told: "-".join(told) or "nothing",
)
def test_a_size_that_nothing_tells_is_told_to_be_a_guess(world, told, tmp_path):
    np.savez(tmp_path / "a.npz", tracks=world.xy, visibles=world.visible, **told)
    _, _, notes = read_input(Input(tmp_path / "a.npz"), progress=False)
    if told:
        assert notes == []
    else:
        assert "does not say how large the pictures are" in notes[0]
        assert "image_size (width, height)" in notes[0]


def test_other_arrays_tell_which_axis_is_time(world, read):
    shuffled = np.random.default_rng(0).permutation(world.xy.reshape(-1, 2)).reshape(world.xy.shape)
    for extra in ({"video": np.zeros((9, 4, 4, 3), np.uint8)}, {"queries": np.zeros((30, 3))}):
        both = extra | {"image_size": np.array(SIZE)}
        assert np.array_equal(read(tracks=shuffled, visibility=world.visible, **both).xy, shuffled)
        turned = read(tracks=time_first(shuffled), visibility=time_first(world.visible), **both)
        assert np.array_equal(turned.xy, shuffled)


def test_tracks_with_visibility_of_which_nothing_tells_the_axes_are_refused(world, read):
    shuffled = np.random.default_rng(0).permutation(world.xy.reshape(-1, 2)).reshape(world.xy.shape)
    with pytest.raises(CosetError, match="may be \\(points, frames, 2\\) or \\(frames, points, 2\\); save them as"):
        read(tracks=shuffled, visibility=world.visible)


def test_raw_tapir(world, read):
    """Seen if (1 - sigmoid(occlusion)) (1 - sigmoid(expected_dist)) > 1/2: occlusion alone would call more visible."""
    sure = np.where(world.visible, -3.0, 2.0)
    assert agrees(read(tracks=world.xy, occlusion=sure, expected_dist=np.full(sure.shape, -4.0)), world)
    assert agrees(
        read(tracks=world.xy[None], occlusion=sure[None], expected_dist=np.full(sure.shape, -4.0)[None]), world
    )
    doubtful = np.where(world.visible, -4.0, 1.0)  # all unoccluded, some far off
    assert agrees(read(tracks=world.xy, occlusion=np.full(sure.shape, -3.0), expected_dist=doubtful), world)
    both = np.where(world.visible, -3.0, -0.8)  # 0.69 each: 0.48 together
    assert agrees(read(tracks=world.xy, occlusion=both, expected_dist=both), world)


def test_occlusion_without_expected_dist(world, read):
    assert agrees(read(tracks=world.xy, occlusion=~world.visible), world)
    assert agrees(read(tracks=world.xy, occlusion=np.where(world.visible, -2.0, 0.7)), world)
    with pytest.raises(CosetError, match="occlusion lies between 0 and 1: chances or logits"):
        read(tracks=world.xy, occlusion=np.where(world.visible, 0.1, 0.9))


# TAP-Vid and Kubric


def test_tapvid(world, read):
    """Shares of the picture; its size comes from the video, whose pictures are not read."""
    shares = world.xy / SIZE
    video = np.zeros((9, SIZE[1], SIZE[0], 3), np.uint8)
    found = read(points=shares, occluded=~world.visible, video=video)
    assert agrees(found, world)
    assert found.size == SIZE
    assert agrees(read(points=shares, occluded=~world.visible, image_size=np.array(SIZE)), world)
    with pytest.raises(CosetError, match="whose size is not told; add image_size"):
        read(points=shares, occluded=~world.visible)
    assert agrees(read(points=world.xy, occluded=~world.visible), world)  # pixels cannot be shares


def test_shares_of_the_picture_under_another_name_are_refused(world, read):
    with pytest.raises(CosetError, match="shares of the picture are named points, with occluded and image_size"):
        read(tracks=world.xy / SIZE, visibles=world.visible)


def test_kubric(world, read):
    started = np.arange(30) % 9
    queries = np.stack([started, world.xy[:, 0, 1], world.xy[:, 0, 0]], 1)
    found = read(
        target_points=world.xy[None], occluded=~world.visible[None], query_points=queries[None],
        video=np.zeros((9, 240, 320, 3), np.float32),
    )  # fmt: skip
    assert agrees(found, world)
    assert (found.size, found.started_at.tolist()) == (SIZE, started.tolist())


def test_kubric_files_of_cotracker_may_mean_two_things(world, read):
    with pytest.raises(CosetError, match="true where a point is hidden in CoTracker's Kubric files"):
        read(coords=world.xy, visibility=~world.visible)


# Test sets in three dimensions


def test_tapvid_3d(world, read):
    """Places in the camera; the pictures are pickled bytes, which are never loaded."""
    arrays = {
        "tracks_XYZ": time_first(world.inside), "visibility": time_first(world.visible),
        "fx_fy_cx_cy": np.array([FOCAL, FOCAL, 160, 120]), "queries_xyt": np.tile([1.0, 2.0, 4.0], (30, 1)),
        "images_jpeg_bytes": np.array([b"picture", b"x"], dtype=object),
    }  # fmt: skip
    found = read(**arrays)
    assert agrees(found, world)
    assert (found.intrinsics.focal, found.size, set(found.started_at)) == (FOCAL, SIZE, {4})
    assert np.allclose(found.truth.depth, world.inside[..., 2])
    assert found.truth.rotations is found.truth.moving is None
    posed = read(**arrays, extrinsics_w2c=world.extrinsics)
    assert np.allclose(posed.truth.positions, world.positions)
    assert posed.truth.moving.tolist() == [True] * 5 + [False] * 25


def test_points_behind_the_camera_are_not_seen(world, read):
    inside = world.inside.copy()
    inside[7, 3] *= -1
    found = read(
        tracks_XYZ=time_first(inside), visibility=time_first(np.ones_like(world.visible)),
        fx_fy_cx_cy=np.array([FOCAL, FOCAL, 160, 120]),
    )  # fmt: skip
    assert not found.visible[7, 3]
    assert found.visible.sum() == found.visible.size - 1


def test_point_odyssey(world, read):
    valid = np.ones_like(world.visible)
    valid[9, 4] = False
    found = read(
        trajs_2d=time_first(world.xy).astype(np.float32), visibs=time_first(world.visible), valids=time_first(valid),
        trajs_3d=time_first(world.points), intrinsics=np.repeat(K[None], 9, 0), extrinsics=world.extrinsics,
    )  # fmt: skip
    assert (found.visible == (world.visible & valid)).all()
    assert np.allclose(found.xy, world.xy, atol=1e-3)
    assert (found.intrinsics.focal, found.size) == (FOCAL, SIZE)
    assert np.allclose(np.delete(found.truth.depth, 9, 0), np.delete(world.inside[..., 2], 9, 0))
    assert found.truth.depth[9, 4] == 0
    assert np.allclose(found.truth.positions, world.positions)
    assert found.truth.moving.tolist() == [True] * 5 + [False] * 25


# SpatialTracker


def test_spatial_tracker_in_the_world(world, read):
    found = read(
        coords=time_first(world.points), visibs=time_first(world.visible)[..., None],
        intrinsics=np.repeat(K[None], 9, 0), extrinsics=world.extrinsics, video=np.zeros((9, 3, 240, 320), np.float16),
    )  # fmt: skip
    assert agrees(found, world)
    assert (found.size, found.truth) == (SIZE, None)


def test_spatial_tracker_without_extrinsics(world, read):
    """Places in the camera leave the picture if they are taken for pixels, and the other way round."""
    rest = {"visibs": time_first(world.visible), "intrinsics": np.repeat(K[None], 9, 0)}
    assert agrees(read(coords=time_first(world.inside), **rest), world)
    pixels = np.concatenate([world.xy, world.inside[..., 2:]], -1)
    assert agrees(read(coords=time_first(pixels), **rest), world)
    assert agrees(read(coords=time_first(world.xy), **rest), world)
    both = 20 * (world.inside * [0.1, 0.1, 1] + [0.3, 0.2, 0])  # right of and below the axis, and large
    with pytest.raises(CosetError, match="coords may be places in the camera or in the world, or pixels with a depth"):
        read(coords=time_first(both), **rest)


def test_extrinsics_the_wrong_way_round_are_found_out(world, read):
    away = world.points + [0, 0, 20]
    inverse = np.linalg.inv(world.extrinsics)
    inverse[:, :3, 3] += [0, 30, 0]
    with pytest.raises(CosetError, match="extrinsics bring most coords out of the picture"):
        read(
            coords=time_first(away), visibs=time_first(world.visible), intrinsics=np.repeat(K[None], 9, 0),
            extrinsics=inverse,
        )  # fmt: skip


# Files that speak against themselves


def cotracker(world, **others):
    return {
        "pred_tracks": time_first(world.xy)[None], "pred_visibility": time_first(world.visible)[None],
        "image_size": np.array(SIZE), **others,
    }  # fmt: skip


def test_visibility_in_other_numbers_is_refused(world, read):
    """A sigmoid above a half is a logit above 0, not above a half."""
    seen = time_first(world.visible)[None]
    assert agrees(read(**cotracker(world, pred_visibility=np.where(seen, 255, 0).astype(np.uint8))), world)
    assert agrees(read(**cotracker(world, pred_visibility=np.where(seen, 1, np.nan))), world)
    for values in (np.where(seen, 0.4, -0.4), np.where(seen, 1, -1), np.where(seen, 7.0, 0.0)):
        with pytest.raises(CosetError, match=r"pred_visibility holds .* of logits take the sigmoid"):
            read(**cotracker(world, pred_visibility=values))
    tapir = {"tracks": world.xy, "image_size": np.array(SIZE)}
    assert agrees(read(**tapir, occluded=np.where(world.visible, 0, np.nan)), world)  # unknown is not seen
    with pytest.raises(CosetError, match="occluded holds -1 to 0"):
        read(**tapir, occluded=np.where(world.visible, 0, -1))
    chances = np.where(world.visible, 0.1, 0.9)
    with pytest.raises(CosetError, match="occlusion lies between 0 and 1: chances or logits"):
        read(**tapir, occlusion=chances, expected_dist=chances)
    with pytest.raises(CosetError, match="expected_dist lies between 0 and 1"):
        read(**tapir, occlusion=10 * chances - 5, expected_dist=chances)


def test_exchanged_axes_are_found_out(world, read):
    seen, hidden = time_first(world.visible), ~time_first(world.visible)
    for arrays in (
        cotracker(world, pred_tracks=world.xy[None], pred_visibility=world.visible[None]),
        {"tracks": time_first(world.xy), "visibles": seen},
        {"points": time_first(world.xy / SIZE), "occluded": hidden, "image_size": np.array(SIZE)},
        {"target_points": time_first(world.xy), "occluded": hidden},
        {"tracks_XYZ": world.inside, "visibility": world.visible, "fx_fy_cx_cy": np.array([FOCAL, FOCAL, 160, 120])},
        {"trajs_2d": world.xy, "visibs": world.visible},
    ):
        with pytest.raises(CosetError, match="points and frames seem to be exchanged in"):
            read(**arrays)
    # A camera of every frame tells that time is where it should be, however fast points are.
    leaping = {"pred_tracks": world.xy[None], "pred_visibility": world.visible[None]}
    assert read(**leaping, Ks_all=np.repeat(K[None], 30, 0)).frames == 30


def test_tracks_outside_the_picture_are_refused(world, read):
    for size in ((160, 120), (240, 320)):
        with pytest.raises(CosetError, match=rf"lies outside the picture of {size[0]} x {size[1]}"):
            read(**cotracker(world, image_size=np.array(size)))
    with pytest.raises(CosetError, match="all points lie within"):
        read(**cotracker(world, pred_tracks=time_first(2 * world.xy / SIZE - 1)[None]))
    for size in ([0.5, 0.5], [np.inf, 240], [np.nan, 240]):
        with pytest.raises(CosetError, match="expected width and height in pixels"):
            read(**cotracker(world, image_size=np.array(size)))
    arrays = {**cotracker(world), "width": np.array("wide"), "height": np.array("high")}
    del arrays["image_size"]
    with pytest.raises(CosetError, match="width has type"):
        read(**arrays)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (K.T, "expected rows fx, 0, cx"),
        (K + [[0, 40, 0], [0, 0, 0], [0, 0, 0]], "expected rows fx, 0, cx"),
        (np.linalg.inv(K), "the principal point .* lies outside pictures of 320 x 240"),
        (K * [[4], [4], [1]], r"the principal point \(640, 480\) lies outside pictures of 320 x 240"),
        (K / [[320], [320], [1]], "a focal length of 0.9375 is that of no lens for pictures of 320 x 240"),
    ],
)
def test_intrinsics_of_other_pictures_are_refused(world, read, matrix, message):
    for arrays in ({"Ks_all": np.repeat(matrix[None], 9, 0)}, {"intrinsics": matrix}):
        with pytest.raises(CosetError, match=message):
            read(**cotracker(world, **arrays))


def test_pixels_that_are_nearly_square_are_made_square(world, read):
    """Four per cent between fx and fy are two per cent of every place, if their mean stands for both."""
    wide = world.xy * [1.04, 1]
    matrix = K * [[1.04], [1], [1]]
    for intrinsics in (matrix, np.array([1.04 * FOCAL, FOCAL, 1.04 * 160, 120])):
        found = read(
            pred_tracks=time_first(wide)[None], pred_visibility=time_first(world.visible)[None], intrinsics=intrinsics
        )
        expected = np.where(world.visible[..., None], (world.xy - [160, 120]) / FOCAL, 0)
        assert np.allclose(found.tensor()[..., :2].numpy(), expected, atol=1e-6)
        assert found.intrinsics.source == "mean of the file's"


def test_cameras_the_other_way_round_are_found_out(world, read):
    inverse = np.linalg.inv(world.extrinsics)
    rest = {"Ks_all": np.repeat(K[None], 9, 0), "GT_depth_tracks_all": time_first(world.inside[..., 2])[None]}
    assert read(**cotracker(world, **rest, Ms_all=world.extrinsics)).truth is not None
    with pytest.raises(CosetError, match="expected matrices from the world to the camera"):
        read(**cotracker(world, **rest, Ms_all=inverse))
    odyssey = {
        "trajs_2d": time_first(world.xy), "trajs_3d": time_first(world.points), "visibs": time_first(world.visible),
    }  # fmt: skip
    with pytest.raises(CosetError, match="do not bring trajs_3d to trajs_2d"):
        read(**odyssey, intrinsics=np.repeat(K[None], 9, 0), extrinsics=inverse)
    with pytest.raises(CosetError, match="do not bring trajs_3d to trajs_2d"):  # those of pictures twice as large
        read(**odyssey, intrinsics=np.repeat(K[None] * [[2], [2], [1]], 9, 0), extrinsics=world.extrinsics)


def test_depths_without_end_are_not_known(world, read):
    depth = time_first(world.inside[..., 2]).copy()
    depth[:, 7], depth[:, 8] = np.inf, np.nan
    found = read(**cotracker(world, GT_depth_tracks_all=depth[None])).truth.depth
    assert (found[7:9] == 0).all()
    assert np.allclose(found[9:], world.inside[9:, :, 2])


def test_clocks_and_colours(world, read):
    assert read(**cotracker(world, rate=np.array([30.0]))).rate == 30
    for rate in (0.0, -5.0, np.nan, np.inf):
        with pytest.raises(CosetError, match="expected frames a second"):
            read(**cotracker(world, rate=np.array(rate)))
    with pytest.raises(CosetError, match="expected one number"):
        read(**cotracker(world, rate=np.array([30.0, 25.0])))
    with pytest.raises(CosetError, match="expected 9 seconds that grow"):
        read(**cotracker(world, times=np.append(np.arange(8.0), np.inf)))
    assert read(**cotracker(world, colours=np.full((30, 3), 255))).colours.max() == 255
    for colour in (0.5, 256.0, -1.0, np.nan):
        with pytest.raises(CosetError, match="expected red, green, blue of 0 to 255"):
            read(**cotracker(world, colours=np.full((30, 3), colour)))


# Mistakes

SOME = {"pred_tracks": np.ones((1, 4, 30, 2)), "pred_visibility": np.ones((1, 4, 30))}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": np.zeros((30, 4, 2))}, "has points but no occluded (points, frames)"),
        ({"target_points": np.zeros((30, 4, 2))}, "has target_points but no occluded"),
        ({"target_points": np.zeros((30, 4, 3)), "occluded": np.zeros(3)}, "expected (points, frames, 2)"),
        ({"tracks_XYZ": np.zeros((4, 30, 3))}, "expected fx_fy_cx_cy (4) and visibility (frames, points) too"),
        (
            {"tracks_XYZ": np.ones((4, 30, 3)), "visibility": np.ones((4, 30)), "fx_fy_cx_cy": np.ones(3)},
            "fx_fy_cx_cy has 3 numbers; expected 4",
        ),
        ({"trajs_2d": np.zeros((4, 30, 2))}, "has trajs_2d but no visibs"),
        ({"coords": np.zeros((4, 30, 3))}, "has coords but no visibs"),
        ({"coords": np.zeros((4, 30, 3)), "visibs": np.ones((4, 30))}, "expected intrinsics (frames, 3, 3) too"),
        ({**SOME, "Ks_all": np.ones((2, 3, 3))}, "Ks_all has shape (2, 3, 3); expected (4, 3, 3)"),
        ({**SOME, "Ms_all": np.ones((4, 3, 4))}, "Ms_all: frame 0 has no rotation"),
        (
            {**SOME, "GT_depth_tracks_all": np.ones((1, 30, 4))},
            "GT_depth_tracks_all has shape (1, 30, 4); expected (4, 30)",
        ),
        ({"tracks": np.ones((30, 4, 2), bool), "visibles": np.ones((30, 4))}, "tracks holds bool; expected numbers"),
        ({**SOME, "pred_visibility": np.full((1, 4, 30), "seen")}, "pred_visibility has type <U4; numbers"),
        ({"tracks": np.ones((0, 4, 2)), "visibles": np.ones((0, 4))}, "tracks has shape (0, 4, 2); expected"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_one_line(read, arrays, message):
    with pytest.raises(CosetError, match=re.escape(message)) as error:
        read(**arrays)
    assert "\n" not in str(error.value)


def test_cameras_and_moving_points_by_hand():
    """A camera at (0, 0, -2) that looks along x: a point at (5, 0, -2) is 5 ahead of it."""
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]).T  # world to camera; its third row is the camera's axis
    matrix = np.concatenate([turn, -turn @ [[0.0], [0], [-2]]], 1)[None]
    rotations, positions = cameras_of(matrix)
    assert np.allclose(positions, [[0, 0, -2]])
    assert np.allclose((np.array([5.0, 0, -2]) - positions[0]) @ rotations[0], [0, 0, 5])
    world = np.zeros((2, 3, 3))
    world[0, 1, 0] = 1.0
    known = np.array([[True, True, True], [True, True, False]])
    assert moving_points(world, known, np.full((2, 3), 10.0)).tolist() == [True, False]
    assert moving_points(world, known & [True, False, True], np.full((2, 3), 10.0)).tolist() == [False, False]
    assert moving_points(world, known, np.full((2, 3), 100.0)).tolist() == [False, False]
    with pytest.raises(ValueError, match="frame 0 has no rotation"):
        cameras_of(2 * matrix)
    assert replace(files.Tracks(world[..., :2], known, (9, 9))).truth is None
