"""Checkpoints in the form of the authors' code become networks of ours."""

import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from coset import CosetError
from coset.motion.models.checkpoint import load_model, save_model
from coset.motion.models.published import cloud_order, fourier_order, from_published, read_published
from coset.motion.models.trackster4d import TracksTo4D
from published_checkpoints import in_their_form

SIZES = {"width": 16, "blocks": 2, "heads": 4, "head_width": 4, "hidden": 24, "basis": 5, "octaves": 3, "kernel": 7}


@pytest.fixture(scope="module")
def ours():
    """Without a bias after attention, as theirs; every weight is drawn, so that an order that is wrong shows."""
    torch.manual_seed(0)
    model = TracksTo4D(**SIZES, read_unseen=True).double().eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if name.endswith("out.bias"):
            torch.nn.init.zeros_(parameter)
    return model


@pytest.fixture
def theirs(ours):
    return in_their_form(ours.state_dict(), SIZES["octaves"], SIZES["basis"])


def clip():
    generator = torch.Generator().manual_seed(1)
    xy = torch.rand(9, 11, 2, generator=generator, dtype=torch.float64) - 0.5
    return torch.cat((xy, (torch.rand(9, 11, 1, generator=generator) < 0.7).double()), -1)


def test_orders_by_hand():
    """One channel, two octaves: ours sin 0, sin 1, cos 0, cos 1, x, 1; theirs x, sin 0, cos 0, sin 1, cos 1, 1."""
    assert fourier_order(2, 1).tolist() == [1, 3, 2, 4, 0, 5]
    assert cloud_order(2).tolist() == [0, 2, 4, 1, 3, 5, 6]  # theirs x1 x2 y1 y2 z1 z2 gamma


@pytest.mark.parametrize("predict_focal", [False, True])
def test_a_converted_network_is_the_same_function(ours, theirs, predict_focal):
    found = from_published(theirs, heads=4, predict_focal=predict_focal)
    wanted = TracksTo4D(**SIZES, read_unseen=True, predict_focal=predict_focal).double().eval()
    wanted.load_state_dict(ours.state_dict())
    assert found.options == wanted.options
    for a, b in zip(found(clip()), wanted(clip()), strict=True):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()


def attend(x, state, name, heads):
    """Residual attention along the last axis but one, then a residual MLP, then a norm: a block of theirs."""
    norm = partial(torch.nn.functional.layer_norm, normalized_shape=x.shape[-1:])
    part = {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}
    y = norm(x, weight=part["layers.0.0.norm.weight"], bias=part["layers.0.0.norm.bias"])
    q, k, v = (
        rows.unflatten(-1, (heads, -1)).transpose(-2, -3)
        for rows in (y @ part["layers.0.0.to_qkv.weight"].T).chunk(3, -1)
    )
    mixed = ((q @ k.transpose(-1, -2)) / q.size(-1) ** 0.5).softmax(-1) @ v
    x = x + mixed.transpose(-2, -3).flatten(-2) @ part["layers.0.0.to_out.weight"].T
    y = norm(x, weight=part["layers.0.1.net.0.weight"], bias=part["layers.0.1.net.0.bias"])
    y = torch.nn.functional.gelu(y @ part["layers.0.1.net.1.weight"].T + part["layers.0.1.net.1.bias"])
    x = x + y @ part["layers.0.1.net.3.weight"].T + part["layers.0.1.net.3.bias"]
    return norm(x, weight=part["norm.weight"], bias=part["norm.bias"])


def read_as_they_do(state, tracks, octaves, basis, heads):
    """Positions, clouds [points, 3, basis] and gamma, computed from a checkpoint's own names and orders."""
    frequencies = (torch.pi * 2.0 ** torch.arange(octaves)).double()  # held in float32 there
    waves = tracks[..., None, :] * frequencies[:, None]
    waves = torch.cat((waves.sin(), waves.cos()), -1).flatten(-2)
    x = torch.cat((tracks, waves, torch.ones_like(tracks[..., :1])), -1)
    embed = {key.removeprefix("transformer_my.to_patch_embedding."): value for key, value in state.items()}
    x = torch.nn.functional.layer_norm(x, x.shape[-1:], embed["0.weight"], embed["0.bias"])
    x = x @ embed["1.weight"].T + embed["1.bias"]
    x = torch.nn.functional.layer_norm(x, x.shape[-1:], embed["2.weight"], embed["2.bias"])
    half = x.size(-1) // 2
    angles = torch.arange(x.size(1))[:, None] / 10000.0 ** (torch.arange(half, dtype=torch.float64) / (half - 1))
    x = x + torch.cat((angles.sin(), angles.cos()), -1)
    for number in range(2):
        x = attend(x, state, f"transformer_my.transformer_frames.{number}.", heads)
        x = attend(x.transpose(0, 1), state, f"transformer_my.transformer_points.{number}.", heads).transpose(0, 1)
    kernel = state["conv_final.weight"]
    wrapped = torch.nn.functional.pad(x.mean(0).T[None], (kernel.size(-1) // 2,) * 2, mode="circular")
    camera = torch.nn.functional.conv1d(wrapped, kernel, state["conv_final.bias"])[0].T
    point = x.mean(1) @ state["fc1.weight"].T + state["fc1.bias"]
    gamma = torch.nn.functional.elu(point[:, -1]) + 1 + 1e-5
    return camera[:, :3], camera[:, 4 : 4 + basis], point[:, :-1].view(-1, 3, basis), gamma


def test_a_converted_network_reads_a_checkpoint_as_its_own_code_does(theirs):
    found = from_published(theirs, heads=4)(clip())
    position, coefficients, clouds, gamma = read_as_they_do(theirs, clip(), SIZES["octaves"], SIZES["basis"], 4)
    for ours, wanted in (
        (found.positions, position), (found.coefficients[:, 1:], coefficients[:, 1:]),
        (found.basis.transpose(1, 2), clouds), (found.gamma, gamma),
    ):  # fmt: skip
        assert (ours - wanted).abs().max() <= 1e-9 * wanted.abs().max()


@pytest.mark.parametrize("name", ["motion_ahead", "motion_focal", "motion_unseen"])
def test_official_weights_in_their_form_give_official_outputs(name):
    """Where the folder of the official outputs is there (tests/parity)."""
    path = Path(os.environ.get("COSET_PARITY", Path(__file__).parents[4] / "shared" / "parity")) / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind == "f"}
    state = {key.removeprefix("state/"): value for key, value in arrays.items() if key.startswith("state/")}
    found = from_published(in_their_form(state, 6, 5), heads=4, predict_focal=name == "motion_focal")
    for field, value in found(arrays["input/tracks"])._asdict().items():
        wanted = arrays[f"official/{field}"]
        assert (value - wanted).abs().max() <= 1e-9 * wanted.abs().max(), field


def test_a_checkpoint_of_a_training_run_comes_through_files(ours, theirs, tmp_path):
    half = {name: value.float() for name, value in theirs.items()}
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-4)
    content = {"epoch": 1200, "model_state_dict": half, "optimizer_state_dict": optimizer.state_dict(), "loss": 3.5}
    torch.save(content, tmp_path / "001200.pt")
    model, about = read_published(tmp_path / "001200.pt", heads=4)
    assert (about["window"], about["epoch"], about["file"]) == (50, 1200, "001200.pt")
    save_model(model, tmp_path / "model.safetensors", about)
    again, _ = load_model(tmp_path / "model.safetensors")
    rounded = TracksTo4D(**SIZES, read_unseen=True).eval()
    rounded.load_state_dict(ours.state_dict())
    for a, b in zip(again.double()(clip()), rounded.double()(clip()), strict=True):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()


def test_a_bare_state_dict_is_read_too(theirs, tmp_path):
    torch.save(theirs, tmp_path / "weights.pt")
    assert read_published(tmp_path / "weights.pt", heads=2)[0].options["head_width"] == 8


def test_the_released_sizes_are_known():
    model = TracksTo4D(basis=12, read_unseen=True)
    found = from_published(in_their_form(model.state_dict(), 12, 12))
    assert found.options == model.options


def change(name, value):
    def changed(state):
        if value is None:
            del state[name]
        else:
            state[name] = value(state[name]) if name in state else value(torch.zeros(2))

    return changed


@pytest.mark.parametrize(
    ("alter", "heads", "message"),
    [
        (change("fc1.weight", None), 4, "it lacks fc1.weight"),
        (change("fc1.bias", None), 4, "it lacks fc1.bias"),
        (change("bn1.weight", lambda value: value), 4, "nothing is known of bn1.weight"),
        (change("fc1.weight", lambda value: value[:-1]), 4, "conv_final gives 17 numbers a frame and fc1 15 a point"),
        (change("fc1.bias", lambda value: value * torch.nan), 4, "fc1.bias has numbers that are not finite"),
        (change("fc1.bias", lambda value: value[:-1]), 4, "fc1.bias has shape (15,), which does not fit the rest"),
        (change("conv_final.weight", lambda value: value[0]), 4, "has shape (16, 7); expected 3 axes"),
        (
            change("transformer_my.to_patch_embedding.1.weight", lambda value: value[:, :15]), 4,
            "tokens are made of 15 features; expected 6 per frequency and 4 (x, y, visibility and 1)",
        ),
        (lambda state: None, 3, "attention is 16 wide, which 3 heads cannot share equally"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(theirs, tmp_path, alter, heads, message):
    alter(theirs)
    torch.save({"model_state_dict": theirs}, tmp_path / "a.pt")
    with pytest.raises(CosetError, match=re.escape(message)) as error:
        read_published(tmp_path / "a.pt", heads=heads)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path))


class Anything:
    """What a pickle may not hold."""


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(CosetError, match="no such file"):
        read_published(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("none")
    torch.save({"model_state_dict": Anything()}, tmp_path / "code.pt")
    for name in ("text.pt", "code.pt"):
        with pytest.raises(CosetError, match="it is damaged, or holds more than tensors") as error:
            read_published(tmp_path / name)
        assert "\n" not in str(error.value)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CosetError, match="holds no weights; expected a dictionary with model_state_dict"):
        read_published(tmp_path / "empty.pt")


def test_the_command_converts_and_refuses(coset, theirs, tmp_path):
    torch.save({"model_state_dict": theirs}, tmp_path / "a.pt")
    code, out, err = coset("motion", "convert", tmp_path / "a.pt", tmp_path / "a.safetensors", "--heads", 4)
    assert code == 0, err
    model, about = load_model(tmp_path / "a.safetensors")
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters written to" in out
    assert (model.options["heads"], model.read_unseen, about["window"]) == (4, True, 50)
    code, _, err = coset("motion", "convert", tmp_path / "a.pt", tmp_path / "b.safetensors", "--heads", 3)
    assert (code, "which 3 heads cannot share" in err, (tmp_path / "b.safetensors").exists()) == (1, True, False)
    with pytest.raises(CosetError, match="converted first, by coset motion convert"):
        load_model(tmp_path / "a.pt")
