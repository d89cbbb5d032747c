import pytest
import torch

from coset.motion.bundle_adjustment import (
    BundleOptions,
    Lens,
    Unknowns,
    _solve,
    _solved,
    _system,
    _View,
    adjust_among_still,
    adjust_cameras,
    adjust_with_lens,
    bundle_adjust,
    motion_levels,
    of_points,
    static_cost,
    still_rows,
)
from coset.motion.geometry import project, rotation_from_vector, to_camera
from coset.motion.metrics import reprojection_error, scene_metrics


def shaken(prediction, amount, seed=0):
    g = torch.Generator().manual_seed(seed)

    def noise(like):
        return amount * torch.randn(like.shape, generator=g, dtype=torch.float64)

    turn = rotation_from_vector(noise(prediction.positions))
    basis = prediction.basis + noise(prediction.basis)
    return prediction._replace(
        rotations=prediction.rotations @ turn, positions=prediction.positions + noise(prediction.positions), basis=basis
    )


def test_motion_levels_are_where_their_likelihood_is_least():
    squared = torch.tensor([0.04, 0.04, 0.04, 0.01, 0.25, 1.0, 9.0]).double()
    p = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    levels = motion_levels(squared, p, torch.tensor([1.0, 1.0]).double(), 1e-6, rounds=200)
    assert float(levels[0]) == pytest.approx(0.2, rel=1e-3)
    grid = torch.linspace(0.05, 5, 20_000).double()
    cost = (grid[:, None] + squared[3:] / grid[:, None]).log().sum(1)
    assert float(levels[1]) == pytest.approx(float(grid[cost.argmin()]), rel=1e-2)


def test_levels_stay_above_the_noise():
    levels = motion_levels(torch.zeros(3).double(), torch.zeros(3).long(), torch.ones(2).double(), 0.1)
    assert float(levels[0]) == pytest.approx(0.1)


@pytest.mark.parametrize("unknowns", [Unknowns(), Unknowns(lens=1), Unknowns(lens=2), Unknowns(2, places=False)])
def test_a_step_is_the_newton_step_of_dense_normal_equations(scene, truth, unknowns):
    """Schur complement and index sums against one dense least-squares problem, differentiated by PyTorch."""
    tracks = scene.tracks.tensor().double()[:12, :4]
    whole = shaken(truth(scene), 0.01)
    lens = Lens(torch.tensor(1.1).double(), torch.tensor(-0.05).double())
    positions = whole.positions[:4] if unknowns.places else torch.zeros(4, 3).double()
    directions = torch.nn.functional.normalize(whole.static[:12] - whole.positions.mean(0), dim=-1)
    points = whole.static[:12] if unknowns.places else directions
    rotations = whole.rotations[:4]
    view = _View(rotations, positions, points, lens)
    p, n = (tracks[..., 2] > 0.5).nonzero(as_tuple=True)
    target = tracks[p, n, :2]
    weight = torch.rand(len(p), generator=torch.Generator().manual_seed(0)).double() + 0.1
    six, three, shared = (6, 3, unknowns.lens) if unknowns.places else (3, 2, unknowns.lens)

    def residual(step):
        numbers, cameras, moved = step.split((shared, 4 * six, 12 * three))
        parts = type(start)(numbers, cameras.view(4, six), moved.view(12, three))
        return (view.moved(parts, unknowns).residuals(p, n, target)[0] * weight.sqrt()[:, None]).reshape(-1)

    r, inside = view.residuals(p, n, target)
    system = _system(view, unknowns, r, inside, weight, p, n)
    start = system.right
    zero = torch.zeros(shared + 4 * six + 12 * three).double()
    jacobian, value = torch.autograd.functional.jacobian(residual, zero), residual(zero)
    normal = jacobian.T @ jacobian
    normal.diagonal().mul_(1.1)
    expected = torch.linalg.solve(normal, -jacobian.T @ value)
    found = torch.cat([part.reshape(-1) for part in _solve(*system, 0.1)])
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_a_static_scene_without_noise_is_found_exactly(clean_scene, truth):
    still = torch.from_numpy(~clean_scene.moving)
    tracks = clean_scene.tracks.tensor().double()[still]
    start = shaken(truth(clean_scene), 0.05)
    start = start._replace(basis=start.basis[still], gamma=start.gamma[still])
    found = adjust_cameras(start, tracks, BundleOptions())
    error = reprojection_error(found, tracks, clean_scene.tracks.intrinsics.focal)
    assert float(error.max()) < 1e-3  # pixels; tracks are float32


def test_adjustment_makes_its_own_cost_smaller_and_the_truth_nearer(scene, truth):
    tracks = scene.tracks.tensor().double()
    start = shaken(truth(scene, basis=6), 0.05)
    before, after = scene_metrics(start, scene), scene_metrics(bundle_adjust(start, tracks), scene)
    for name in ("rotation", "ate", "static_points", "reprojection_px"):
        assert after[name] < 0.2 * before[name], name
    assert after["auroc"] > 0.9
    assert static_cost(adjust_cameras(start, tracks, BundleOptions()), tracks) < static_cost(start, tracks)


def test_moving_points_are_followed(scene, truth):
    tracks, focal = scene.tracks.tensor().double(), scene.tracks.intrinsics.focal
    moving = torch.from_numpy(scene.moving)
    start = shaken(truth(scene, basis=8), 0.01)
    fixed = adjust_cameras(start, tracks, BundleOptions())
    fixed = fixed._replace(basis=fixed.basis * torch.tensor([1.0] + [0.0] * 7).double()[:, None])
    found = bundle_adjust(start, tracks)

    def error(prediction):
        kept = prediction._replace(basis=prediction.basis[moving], gamma=prediction.gamma[moving])
        return float(reprojection_error(kept, tracks[moving], focal).median())

    assert error(found) < 0.3 * error(fixed)


def walked_through(scene, truth, count=30):
    """The still points of a scene and a body that crosses it, seen through f = 1; and how many are still."""
    g, still = torch.Generator().manual_seed(0), torch.from_numpy(~scene.moving)
    start, frames = of_points(truth(scene), still), scene.tracks.frames
    size = float(start.static.std())
    body = start.static.median(0).values + 0.3 * size * torch.randn(count, 1, 3, generator=g).double()
    ways = size * torch.linspace(-0.5, 0.5, frames)[:, None] * torch.tensor([1.0, 0.0, 0.5])
    points = torch.cat((start.points(), body + ways))
    flat = project(to_camera(points, start.rotations, start.positions))
    flat = flat + 5e-4 * torch.randn(flat.shape, generator=g).double()
    basis, gamma = points.mean(1, keepdim=True), torch.full((len(points),), 0.01).double()
    return (
        start._replace(basis=basis, gamma=gamma),
        torch.cat((flat, torch.ones_like(flat[..., :1])), -1),
        int(still.sum()),
    )


def test_what_moves_does_not_pull_the_lens(scene, truth):
    start, tracks, still = walked_through(scene, truth)
    free, one = (BundleOptions(), Unknowns(lens=1)), Lens(torch.tensor(1.03).double(), torch.tensor(0.0).double())
    found, lens, rows = adjust_among_still(start, one, tracks, *free)
    assert rows.tolist() == list(range(still))
    everything = adjust_with_lens(start, one, tracks, *free)[1]
    alone = adjust_with_lens(of_points(start, rows), one, tracks[:still], *free)[1]
    assert abs(float(lens.focal - alone.focal)) < 0.1 * abs(float(everything.focal - alone.focal))
    assert (found.gamma[still:] > 3 * found.gamma[:still].max()).all()


def test_where_too_little_stands_still_everything_counts(scene, truth):
    _, tracks, still = walked_through(scene, truth)
    gamma = torch.where(torch.arange(len(tracks)) < still, 8e-4, 0.05).double()
    assert len(still_rows(gamma, tracks, 8e-4)) == still
    tracks[5:still, 3, 2] = 0
    assert len(still_rows(gamma, tracks, 8e-4)) == len(tracks)


def test_points_end_before_the_cameras_and_numbers_stay_finite(scene, truth):
    tracks = scene.tracks.tensor().double()
    generator = torch.Generator().manual_seed(0)
    start = truth(scene, basis=4)
    wild = start._replace(basis=torch.randn(start.basis.shape, generator=generator).double() * 5)
    found = bundle_adjust(wild, tracks)
    assert all(part.isfinite().all() for part in found)
    still = found._replace(basis=found.basis[:, :1], coefficients=found.coefficients[:, :1])
    depth = torch.einsum("pnd,nd->pn", still.points() - found.positions, found.rotations[:, :, 2])
    assert (depth[tracks[..., 2] > 0.5] > 0).double().mean() > 0.98


def test_a_step_is_the_same_to_the_last_digit():
    """Whatever lies in memory that was given back: PyTorch's own driver of ``lstsq`` pivots by it."""
    draw = torch.Generator().manual_seed(0)
    half, right = torch.randn(141, 140, dtype=torch.float64, generator=draw).split([140, 1])
    whole, found = half @ half.T, set()
    for number in range(40):
        waste = [torch.randn(1 + 7 * number, 17) for _ in range(20)]
        del waste
        found.add(_solved(whole, right[0]).numpy().tobytes())
    assert len(found) == 1
    assert (whole @ _solved(whole, right[0]) - right[0]).abs().max() < 1e-8
    singular = torch.diag(torch.tensor([1.0, 2.0, 0.0]).double())
    assert torch.allclose(
        _solved(singular, torch.tensor([1.0, 1.0, 0.0]).double()), torch.tensor([1.0, 0.5, 0.0]).double()
    )
