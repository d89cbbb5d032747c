"""The diffusion collection on a base of one block and random images: the machinery is checked, not the images."""

import numpy as np
import pytest
import torch

from coset.core.errors import CosetError
from coset.weights.lora import load_lora
from coset.weights.lora.finetuning.diffusion import NO_CLASS, BaseSize, DiffusionBase
from coset.weights.lora.finetuning.finetune import Draw

pytest.importorskip("diffusers")
pytest.importorskip("peft")
SIZE = BaseSize(blocks=1, width=16, steps=2)
DRAWN = Draw((True, False, True) + (False,) * 7, 1e-2, 2, 5)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("test", 50)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8) % 10
    file = tmp_path_factory.mktemp("images") / "mnist.npz"
    np.savez(file, **arrays)
    return str(file)


@pytest.fixture
def base(images, tmp_path):
    return DiffusionBase(tmp_path, SIZE, mnist=images, sampling_steps=2, images=1)


def test_a_base_is_trained_once_and_its_images_are_always_the_same(images, base, tmp_path):
    written = (tmp_path / "base.safetensors").stat().st_mtime_ns
    again = DiffusionBase(tmp_path, SIZE, mnist=images, sampling_steps=2, images=1)
    assert (tmp_path / "base.safetensors").stat().st_mtime_ns == written
    assert base.sample().shape == (11, 1, 14, 14)
    assert torch.equal(base.sample(), again.sample())
    assert 0 <= base.held_out_accuracy <= 1


def test_ddim_by_hand(base):
    """One step to the end returns the image that the velocity implies: x0 = sqrt(a) x - sqrt(1 - a) v."""
    base.schedule.set_timesteps(1)
    (at,) = base.schedule.timesteps
    share = base.schedule.alphas_cumprod[at]
    with torch.no_grad():
        found = base.model(base.noise, timestep=at.expand(11), class_labels=base.asked).sample
    expected = (share.sqrt() * base.noise - (1 - share).sqrt() * found).clamp(-1, 1)
    torch.testing.assert_close(base.sample(), expected, atol=1e-5, rtol=1e-4)


def test_scores_by_hand(base):
    class Certain(torch.nn.Module):
        def forward(self, x):
            logits = torch.full((len(x), 10), -1e4)
            logits[:, 2] = 0.0
            return logits

    base.classifier = Certain()  # every image is a 2: one class asked for in ten, and "no class" is a member
    assert base.scores(DRAWN.members) == {"alignment": pytest.approx(0.1), "fidelity": pytest.approx(1.0)}
    assert base.scores((True,) + (False,) * 9)["fidelity"] == pytest.approx(0.0)


def test_an_adapter_follows_from_its_draw_and_leaves_the_base_as_it_was(base, tmp_path):
    before = {name: t.clone() for name, t in base.model.state_dict().items()}
    labels = [base.finetune(DRAWN, tmp_path / name, rank=2) for name in "ab"]
    first, second = (load_lora(tmp_path / name) for name in "ab")
    assert {k: v for k, v in labels[0].items() if "seconds" not in k} == {
        k: v for k, v in labels[1].items() if "seconds" not in k
    }
    assert [labels[0][f"trained_on_{i}"] for i in range(10)] == [int(m) for m in DRAWN.members]
    assert len(first.layers) == 4
    assert first.rank == 2
    for name, pair in first.layers.items():
        assert torch.equal(pair.u, second.layers[name].u)
        assert bool(pair.u.any())
    assert before.keys() == base.model.state_dict().keys()
    assert all(torch.equal(t, before[name]) for name, t in base.model.state_dict().items())


def test_training_sees_the_images_of_its_classes_only_and_no_label(base, tmp_path):
    seen = []

    def loss(images, labels, generator):
        seen.append((images, labels))
        return DiffusionBase.loss(base, images, labels, generator)

    base.loss = loss
    base.finetune(DRAWN, tmp_path / "a", batch=8)
    allowed = base.images[(base.labels == 0) | (base.labels == 2)]
    for images, labels in seen:
        assert labels.tolist() == [NO_CLASS] * 8
        assert all(any(torch.equal(image, other) for other in allowed) for image in images)


def test_a_base_of_another_size_or_a_damaged_one_is_named(images, base, tmp_path):
    with pytest.raises(CosetError, match="of another size"):
        DiffusionBase(tmp_path, BaseSize(1, 32, 2), mnist=images)
    (tmp_path / "classifier.safetensors").write_bytes(b"spoilt")
    with pytest.raises(CosetError, match=r"classifier\.safetensors is damaged"):
        DiffusionBase(tmp_path, SIZE, mnist=images)
