import math

import pytest
import torch

from coset.motion.models.trackster4d import TracksTo4D, frame_encoding, moving_points
from coset.symmetry import Claim, CyclicShift, Parts, TrivialAction, check_equivariance, verify_claims

SMALL = {"width": 16, "blocks": 2, "heads": 2, "head_width": 8, "hidden": 32, "basis": 5, "octaves": 4, "kernel": 7}


def network(**changes):
    torch.manual_seed(0)
    return TracksTo4D(**{**SMALL, **changes}).eval()


def clip(points=9, frames=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(points, frames, 2, generator=generator) - 0.5
    seen = (torch.rand(points, frames, 1, generator=generator) < 0.7).float()
    return torch.cat((xy, seen), -1)


def test_the_first_coefficient_is_one_and_gamma_is_positive():
    prediction = network()(clip())
    assert torch.equal(prediction.coefficients[:, 0], torch.ones(11))
    assert (prediction.gamma > 0).all()
    assert prediction.basis.shape == (9, 5, 3)
    assert prediction.rotations.shape == (11, 3, 3)
    assert torch.allclose(prediction.rotations @ prediction.rotations.mT, torch.eye(3).expand(11, 3, 3), atol=1e-5)
    assert torch.equal(prediction.focal, torch.ones(11))


def test_points_by_hand():
    basis = torch.tensor([[[1.0, 0, 0], [0, 2, 0]]])
    points = moving_points(basis, torch.tensor([[1.0, 0.0], [1.0, 3.0]]))
    assert torch.equal(points, torch.tensor([[[1.0, 0, 0], [1, 6, 0]]]))


def test_a_static_scene_stands_still():
    prediction = network()(clip())
    prediction.basis[:, 1:] = 0
    assert torch.equal(prediction.points(), prediction.static[:, None].expand(-1, 11, -1))


@pytest.mark.parametrize(
    "changes", [{}, {"attend_visible": True}, {"orbit": True, "predict_focal": True}, {"displacement": True}]
)
def test_renumbering_points_renumbers_clouds_and_leaves_cameras(changes, precision):
    reports = verify_claims(network(**changes), clip(), **precision)
    assert [report.passed for report in reports] == [True]
    assert reports[0].moved == reports[0].trials


def test_shifts_of_time_are_followed_only_without_frame_numbers():
    shift = CyclicShift((1,))
    frames = CyclicShift((0,))
    claim = Claim(shift, Parts([frames] * 4 + [TrivialAction()] * 2))
    assert check_equivariance(network(temporal_encoding=False), clip(), claim.input, claim.output).passed
    assert not check_equivariance(network(), clip(), claim.input, claim.output).passed


def test_a_network_that_numbers_points_would_be_found_out():
    model = network()

    def numbered(tracks):
        ramp = torch.linspace(0, 1, tracks.size(0), dtype=tracks.dtype)[:, None]
        return model.double()(torch.cat((tracks[..., :2] * ramp[..., None], tracks[..., 2:]), -1))

    claim = model.symmetry()[0]
    assert not check_equivariance(numbered, clip(), claim.input, claim.output).passed


@pytest.mark.parametrize("displacement", [False, True])
def test_what_is_not_seen_is_not_looked_at(displacement):
    model, tracks = network(displacement=displacement), clip()
    hidden = tracks[..., 2] < 0.5
    other = tracks.clone()
    other[..., 0][hidden] = torch.nan
    other[..., 1][hidden] = 1e6
    for a, b in zip(model(tracks), model(other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("changes", [{}, {"attend_visible": True}, {"displacement": True}])
def test_a_padded_batch_gives_what_clips_give_alone(changes):
    model = network(**changes).double()
    clips = [clip(9, 11, 0).double(), clip(6, 8, 1).double(), clip(9, 5, 2).double()]
    batch = torch.randn(3, 9, 11, 3, dtype=torch.float64).abs()  # padding that must not matter
    points, frames = torch.zeros(3, 9, dtype=torch.bool), torch.zeros(3, 11, dtype=torch.bool)
    for b, tracks in enumerate(clips):
        batch[b, : tracks.size(0), : tracks.size(1)] = tracks
        points[b, : tracks.size(0)], frames[b, : tracks.size(1)] = True, True
    together = model(batch, points, frames)
    for b, tracks in enumerate(clips):
        p, n = tracks.shape[:2]
        alone = model(tracks)
        for name, length in (("rotations", n), ("positions", n), ("coefficients", n), ("basis", p), ("gamma", p)):
            assert torch.allclose(getattr(together, name)[b, :length], getattr(alone, name), atol=1e-10), name


def test_saved_and_loaded_networks_agree(tmp_path):
    model, tracks = network(), clip()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = network()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(model(tracks).basis, other(tracks).basis)


def test_gradients_reach_every_weight():
    model = network(predict_focal=True)
    prediction = model(clip())
    sum(part.square().sum() for part in prediction).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_the_frame_encoding_by_hand():
    """Frame 1 of width 4: rates 1 and 10000^-1 as in TracksTo4D's code, 1 and 10000^-(1/2) in Vaswani's."""
    slow, one = math.sin(1e-4), math.cos(1e-4)
    published = [[0, 0, 1, 1], [math.sin(1), slow, math.cos(1), one]]
    vaswani = [[0, 0, 1, 1], [0.8414709848, 0.0099998333, 0.5403023059, 0.9999500004]]
    for expected, options in ((published, ()), (published, ("published",)), (vaswani, ("vaswani",))):
        encoding = frame_encoding(2, 4, *options)
        assert torch.allclose(encoding, torch.tensor(expected, dtype=torch.float64), atol=1e-9)
    assert frame_encoding(2, 2)[1].tolist() == [math.sin(1), math.cos(1)]  # one rate, whatever the last would be


def test_what_is_not_seen_is_read_only_if_asked():
    """The published network reads the coordinates that a tracker guesses; ours has 0 there unless it is told to."""
    hidden = clip()
    zeroed = hidden * hidden[..., 2:]
    plain, reading = network(), network(read_unseen=True)
    reading.load_state_dict(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain(hidden), plain(zeroed), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(reading(zeroed), plain(zeroed), strict=True))
    assert (reading(hidden).basis - reading(zeroed).basis).abs().max() > 1e-3


def test_displacements_are_from_the_mean_place_of_what_is_seen():
    """By hand: seen at 1, 2 and 6, and once not: from 3. A point that rests is told by them wherever it is."""
    tracks = torch.tensor([[[1.0, 0, 1], [2, 0, 1], [50, 0, 0], [6, 0, 1]]])
    model, read = network(displacement=True, octaves=1), []
    model.embed.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    model(tracks)
    values = read[0][0, 0, :, -6:-1]  # x, y, visible, how far; before the last, which is 1
    assert torch.allclose(values, torch.tensor([[1.0, 0, 1, -2, 0], [2, 0, 1, -1, 0], [0] * 5, [6, 0, 1, 3, 0]]))


def test_blocks_in_bfloat16_give_nearly_what_float32_gives_and_the_heads_stay():
    model, tracks = network(displacement=True), clip()
    rounded = {name: p.bfloat16() for name, p in model.named_parameters() if name.startswith("over_")}
    found, wanted = torch.func.functional_call(model, rounded, (tracks,)), model(tracks)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        assert torch.allclose(a, b, atol=0.1)
    assert not torch.equal(found.basis, wanted.basis)


def test_sizes_that_make_no_network():
    for bad in ({"kernel": 4}, {"width": 15}, {"basis": 0}, {"blocks": 0}):
        with pytest.raises(ValueError, match="must be odd"):
            network(**bad)


def test_the_paper_sizes():
    model = TracksTo4D()
    assert model.embed[1].in_features == 76
    assert model.camera_head.weight.shape == (22, 256, 31)
    assert model.point_head.out_features == 37
    assert len(model.over_frames) == len(model.over_points) == 3
