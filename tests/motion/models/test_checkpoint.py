import json
from importlib import resources

import pytest
import torch
from safetensors.torch import save_file

from coset import CosetError
from coset.motion.models.checkpoint import PRETRAINED, load_model, pretrained, save_model


def test_a_network_comes_back_with_its_sizes_and_story(network, scene, tmp_path):
    save_model(network, tmp_path / "a.safetensors", {"seed": 3})
    model, about = load_model(tmp_path / "a.safetensors")
    tracks = scene.tracks.tensor()
    assert all(torch.equal(a, b) for a, b in zip(model(tracks), network(tracks), strict=True))
    assert about == {"seed": 3}
    assert not model.training


def test_files_of_before_say_nothing_of_their_frame_encoding(network, scene, tmp_path):
    options = {name: value for name, value in network.options.items() if name not in ("encoding", "read_unseen")}
    save_file(dict(network.state_dict()), tmp_path / "old.safetensors", metadata={"model": json.dumps(options)})
    model, _ = load_model(tmp_path / "old.safetensors")
    assert (model.encoding, model.read_unseen) == ("vaswani", False)
    assert pretrained("package-small")[0].encoding == "vaswani"
    save_model(model, tmp_path / "again.safetensors")
    assert load_model(tmp_path / "again.safetensors")[0].encoding == "vaswani"
    save_model(network, tmp_path / "new.safetensors")
    assert load_model(tmp_path / "new.safetensors")[0].encoding == "published"


def test_files_that_hold_no_network(tmp_path, network):
    with pytest.raises(CosetError, match="no such file"):
        load_model(tmp_path / "a.safetensors")
    (tmp_path / "text.safetensors").write_text("none")
    with pytest.raises(CosetError, match="is no safetensors file that can be read"):
        load_model(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CosetError, match="holds no TracksTo4D network"):
        load_model(tmp_path / "other.safetensors")
    broken = {name: torch.full_like(value, torch.nan) for name, value in network.state_dict().items()}
    other = type(network)(**network.options)
    other.load_state_dict(broken)
    save_model(other, tmp_path / "nan.safetensors")
    with pytest.raises(CosetError, match="not finite"):
        load_model(tmp_path / "nan.safetensors")


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_networks_of_the_package_can_be_used(name, scene):
    model, about = pretrained(name)
    prediction = model(scene.tracks.tensor())
    assert prediction.rotations.isfinite().all()
    assert about["window"] >= 24
    folder = resources.files("coset.motion").joinpath("pretrained")
    assert len(folder.joinpath(PRETRAINED[name]).read_bytes()) < 8e6


def test_equal_networks_are_equal_files(network, tmp_path):
    about = {"steps": 3, "seed": 0}
    for n in range(8):
        save_model(network, tmp_path / f"{n}.safetensors", about)
    assert len({(tmp_path / f"{n}.safetensors").read_bytes() for n in range(8)}) == 1
    assert load_model(tmp_path / "0.safetensors")[1] == about
