"""Samples made of those given, and outputs that are tied or free."""

import pytest
import torch
from torch import nn

from coset.core.errors import CosetError
from coset.runs.recipes import load
from coset.weights.merging import Distilled, Fit, FoldedSuperNet, MLPEncoder, Targets, Teacher, fit, fold_heads
from coset.weights.merging.augmentation import AugmentationOptions, augmented
from coset.weights.merging.methods import Setting, merge
from coset.weights.merging.supernet import DistilledApart


def options(**values):
    return AugmentationOptions.model_validate({"made": 40, **values})


def pictures(count=5):
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_given_come_first_and_all_follow_from_the_seed():
    x = pictures()
    made = augmented(x, options(), 1)
    assert made.shape == (45, 2, 8, 8)
    assert torch.equal(made[:5], x)
    assert torch.equal(made, augmented(x, options(), 1))
    assert not torch.equal(made, augmented(x, options(), 2))
    assert augmented(x, options(made=0), 1) is x
    assert torch.equal(augmented({"pixel_values": x}, options(), 1)["pixel_values"], made)


def test_without_crops_shifts_and_mixtures_pictures_are_copies():
    x = pictures()
    made = augmented(x, options(crop=1.0, shift=0.0, mixup=0.0), 1)[5:]
    nearest = (made[:, None] - x[None]).abs().amax((2, 3, 4))
    assert float(nearest.amin(1).max()) < 1e-5
    assert len(nearest.argmin(1).unique()) == 5


def test_a_shift_moves_a_picture_and_repeats_its_border():
    """A ramp along the width, cut nowhere: moved by s pixels it is the ramp less s, held at its ends."""
    x = torch.arange(8.0).expand(1, 1, 8, 8)
    for row in augmented(x, options(crop=1.0, shift=0.25, mixup=0.0), 3)[1:, 0, 0]:
        shift = float(row[3] - 3)
        assert abs(shift) <= 2
        assert torch.allclose(row, (torch.arange(8.0) + shift).clamp(0, 7), atol=1e-4)


def test_a_crop_is_a_stretched_part():
    """Of a ramp, a part of share c is a ramp c times as steep."""
    x = torch.arange(8.0).expand(1, 1, 8, 8)
    made = augmented(x, options(crop=0.5, shift=0.0, mixup=0.0), 3)[1:, 0, 0]
    slope = made[:, 4] - made[:, 3]
    assert float(slope.min()) >= 0.5 - 1e-5
    assert float(slope.max()) <= 1 + 1e-5
    assert float(slope.min()) < 0.6
    assert float(slope.max()) > 0.9


def test_mixtures_lie_between_two_pictures():
    """Of pictures e_1, ..., e_5 every mixture has shares that sum to 1, of two at most."""
    x = torch.zeros(5, 1, 8, 8)
    for i in range(5):
        x[i, 0, i, 0] = 1
    made = augmented(x, options(crop=1.0, shift=0.0, mixup=0.8), 1)[5:, 0]
    assert torch.allclose(made.sum((1, 2)), torch.ones(40), atol=1e-4)
    assert int((made > 1e-4).sum((1, 2)).max()) == 2
    assert int((made > 0.2).sum((1, 2)).max()) == 2


def test_of_texts_words_are_hidden_but_never_the_first_and_the_last():
    ids = torch.randint(4, 20, (6, 30))
    mask = torch.ones(6, 30).long()
    mask[:, 25:] = 0
    made = augmented({"input_ids": ids, "attention_mask": mask}, options(made=200, drop=0.25), 1)
    assert made["input_ids"].shape == (206, 30)
    assert torch.equal(made["attention_mask"][:6], mask)
    new = made["attention_mask"][6:]
    assert bool(new[:, 0].all())
    assert not bool(new[:, 25:].any())
    assert bool(new[:, 24].all())
    assert 0.7 < float(new[:, 1:24].double().mean()) < 0.8
    assert bool((made["input_ids"][6:, None] == ids[None]).all(2).any(1).all())


def test_what_cannot_be_augmented_is_refused():
    with pytest.raises(CosetError, match=r"samples of shape \(3, 4\) cannot be augmented"):
        augmented(torch.rand(3, 4), options(), 0)
    with pytest.raises(CosetError, match="texts need an attention_mask to be augmented; there is input_ids"):
        augmented({"input_ids": torch.ones(3, 4).long()}, options(), 0)
    with pytest.raises(CosetError, match="pixel_values alone can"):
        augmented({"pixel_values": pictures(), "bool_masked_pos": torch.ones(5)}, options(), 0)


def mlp(seed, sizes=(6, 8, 8)):
    torch.manual_seed(seed)
    return MLPEncoder.of(sizes).double().eval()


def samples():
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(10, 6, generator=generator).double() for _ in range(2)]


def test_a_tied_output_stays_the_identity():
    encoders, x = [mlp(0), mlp(1)], samples()
    net = FoldedSuperNet(encoders, rank=2)
    net.tie_output()
    fit(net, Targets.of(encoders, x), Fit(steps=5))
    for projection in net.finished()[1]:
        assert torch.equal(projection, torch.eye(8).double())
    tied, free = (
        merge("fs_first", teachers(encoders), x, x, Setting(rank=2, learning_rates=(1e-2,), output=o, fit=Fit(steps=3)))
        for o in ("tied", "free")
    )
    assert free.trained - tied.trained == 2 * 8 + 2 * 8 * 2 + 2 * 8  # two diagonals, L_1, L_2 and R
    with pytest.raises(CosetError, match="output=tied is for the other methods of FS-Merge: fs_zip"):
        merge("fs_zip", teachers(encoders), x, x, Setting(output="tied"))


def teachers(encoders):
    return [Teacher(f"t{i}", e, nn.Linear(e.linears()[-1][1].out_features, 3).double()) for i, e in enumerate(encoders)]


def test_distillation_with_maps_begins_as_distillation_and_folds_them_into_heads():
    given, x = teachers([mlp(0), mlp(1)]), samples()
    apart, plain = DistilledApart(given[0].encoder, [8, 8]), Distilled(given[0].encoder, [1.0, 1.0])
    assert torch.equal(apart.project(1, apart(x[0])), plain.project(1, plain(x[0])))
    with torch.no_grad():
        apart.maps[1].copy_(torch.randn(8, 8))
    encoder, projections = apart.finished()
    logits = fold_heads(given, projections)["t1"](encoder(x[1]))
    assert torch.allclose(logits, given[1].head(apart.project(1, apart(x[1]))), atol=1e-12)


def test_distillation_with_maps_needs_no_equal_widths():
    given, x = teachers([mlp(0), mlp(1, (6, 9, 9))]), samples()
    made = merge("distill_first_free", given, x, x, Setting(learning_rates=(1e-2,), fit=Fit(steps=2)))
    assert made.model.logits(x[1])["t1"].shape == (10, 3)
    assert made.trained == 6 * 8 + 8 + 8 * 8 + 8 + 8 * 8 + 9 * 8


def test_with_maps_the_features_of_two_teachers_can_be_asked_for_at_once():
    """With one output shared, a network cannot give two different features of one sample; with maps it can."""
    given, x = teachers([mlp(0), mlp(1)]), samples()
    setting = Setting(learning_rates=(1e-2,), cross=1.0, fit=Fit(steps=300))
    losses = {}
    for output in ("tied", "free"):
        student = (
            Distilled(given[0].encoder, [1.0, 1.0]) if output == "tied" else DistilledApart(given[0].encoder, [8, 8])
        )
        targets = Targets.of([t.encoder for t in given], x, everywhere=True)
        losses[output] = fit(student, targets, Fit(steps=300, cross=1.0))[-1]
    assert losses["free"] < 0.5 * losses["tied"]
    assert merge("distill_first_cross", given, x, x, setting).losses[-1] == pytest.approx(losses["free"])


SHORT = ["seeds=1", "samples=[10]", "held_out=10", "steps=4", "teachers.steps=20", "learning_rates=[0.003]",
         "teachers.cache=null", "augmentation.made=30"]  # fmt: skip


@pytest.mark.parametrize("recipe", ["digits", "digits-vit-few", "markers"])
def test_recipes_take_augmentation_and_the_form_of_outputs(recipe, tmp_path):
    if recipe != "digits":
        pytest.importorskip("transformers")
    changes = [*SHORT, "methods=[distill_first,fs_first]"]
    made, plain, tied = (
        load(f"fs-merge/{recipe}", [*changes, *more]).run(tmp_path / "-".join(more), quiet=True)
        for more in (["batch_size=8"], ["batch_size=8", "augmentation.made=0"], ["output=tied"])
    )
    held_out = [[row["held_out_loss"] for row in run["rows"]] for run in (made, plain)]
    assert all(one != other for one, other in zip(*held_out, strict=True)), "samples that are made are not trained on"
    assert tied["methods"]["fs_first"]["10"]["trained"] < made["methods"]["fs_first"]["10"]["trained"]
