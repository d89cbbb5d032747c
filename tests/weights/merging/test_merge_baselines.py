"""Averages, matchings, RegMean, zipping, and what is trained."""

import copy
import math

import pytest
import torch
from torch import nn

from coset.core.errors import CosetError
from coset.weights.merging import (
    Distilled,
    Fit,
    FoldedSuperNet,
    Merged,
    MLPEncoder,
    Originals,
    Targets,
    Teacher,
    align_teachers,
    average,
    evaluate,
    fit,
    fit_local,
    fitted_heads,
    matched_average,
    reconstruction,
    regmean,
    slerp,
    task_arithmetic,
    weight_aligned,
    zipit,
)
from coset.weights.merging.averages import slerp_weights
from coset.weights.merging.diagnosis import diagnose
from coset.weights.merging.fitting import own_loss
from coset.weights.merging.methods import MERGE_METHODS, Setting, merge
from coset.weights.merging.trained import layer_errors
from coset.weights.merging.transformer_encoders import TransformerEncoder, build
from coset.weights.merging.zipping import zip_maps
from coset.weights.permutations import permute


def mlp(seed, sizes=(6, 8, 8, 8)):
    torch.manual_seed(seed)
    return MLPEncoder.of(sizes).double().eval()


def vit(seed):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, image_size=8, patch_size=4,
        num_channels=1,
    )  # fmt: skip
    made = TransformerEncoder(build(config, seed=seed)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for p in made.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return made


def teachers(make=mlp, width=8):
    torch.manual_seed(5)
    return [Teacher(f"t{s}", make(s), nn.Linear(width, 3).double()) for s in range(2)]


def samples(make=mlp, count=40):
    generator = torch.Generator().manual_seed(3)
    shape = (count, 6) if make is mlp else (count, 1, 8, 8)
    return [torch.randn(shape, generator=generator).double() for _ in range(2)]


@pytest.mark.parametrize(("make", "width"), [(mlp, 8), (vit, 16)])
def test_matching_does_not_change_a_network(make, width):
    given, x = teachers(make, width), samples(make)
    before = Originals(given).logits(x[0])
    for moved in (align_teachers(given, x), weight_aligned(given)):
        after = Originals(moved).logits(x[0])
        for name in before:
            assert torch.allclose(before[name], after[name], atol=1e-10)


@pytest.mark.parametrize(("make", "width"), [(mlp, 8), (vit, 16)])
@pytest.mark.parametrize("by", ["weights", "activations"])
def test_a_permuted_copy_is_found_again(make, width, by):
    first, x = teachers(make, width)[0], samples(make)
    wiring = first.encoder.wiring()
    generator = torch.Generator().manual_seed(0)
    orders = wiring.features().identity()
    for space, d in wiring.widths.items():
        if space not in wiring.heads:
            orders[space] = torch.randperm(d, generator=generator)
    for layer in wiring.attention:
        heads = torch.randperm(4, generator=generator)
        for space in layer.spaces:
            inside = torch.stack([torch.randperm(4, generator=generator) for _ in range(4)])
            orders[space] = (heads[:, None] * 4 + inside).flatten()
    copied = copy.deepcopy(first.encoder)
    copied.load_state_dict(permute(wiring.features(), first.encoder.state_dict(), orders))
    head = copy.deepcopy(first.head)
    head.weight.data = first.head.weight.data[:, orders[wiring.output]]
    pair = [first, Teacher("copy", copied, head)]
    want = Originals(pair).logits(x[0])
    assert torch.allclose(want["copy"], want[first.name], atol=1e-10)
    merged = matched_average(pair, x if by == "activations" else None)
    dead = make is mlp and by == "activations"  # units that are never active have no activations to go by
    for name, value in merged.encoder.state_dict().items() if not dead else ():
        assert torch.allclose(value, first.encoder.state_dict()[name], atol=1e-10), name
    assert torch.allclose(merged.logits(x[0])["copy"], want["copy"], atol=1e-10)


def test_regmean_is_the_least_squares_solution_and_a_pair_of_maps():
    given, x = teachers(), samples()
    merged = regmean(given, x, alpha=1.0)
    w = [t.encoder.layers[0].weight.double() for t in given]
    grams = [s.mT @ s for s in x]
    want = (w[0] @ grams[0] + w[1] @ grams[1]) @ (grams[0] + grams[1]).inverse()
    assert torch.allclose(merged.encoder.layers[0].weight, want, atol=1e-10)
    bias = torch.stack([t.encoder.layers[0].bias for t in given]).mean(0)
    assert torch.allclose(merged.encoder.layers[0].bias, bias)
    # M_i = I / k and U_i^T = k G_i S^-1 in a SuperNet fold to the same.
    inverse = (grams[0] + grams[1]).inverse()
    assert torch.allclose(sum(w[i] / 2 @ (2 * grams[i] @ inverse) for i in range(2)), want, atol=1e-10)


def test_slerp_at_its_limits():
    a, b = torch.tensor([1.0, 0]), torch.tensor([0.0, 1])
    assert slerp_weights(a, b, 0.5) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
    assert slerp_weights(a, a, 0.5) == (0.5, 0.5)
    given = teachers()
    ends = [slerp(given, t).encoder.state_dict() for t in (0.0, 1.0)]
    for end, teacher in zip(ends, given, strict=True):
        assert all(torch.allclose(end[n], v) for n, v in teacher.encoder.state_dict().items())


def test_task_arithmetic_with_the_mean_as_base():
    given = teachers()
    base = average(given).encoder
    merged = task_arithmetic(given, base, 1.0).encoder.state_dict()
    assert all(torch.allclose(merged[n], v) for n, v in base.state_dict().items())


def test_zipping_two_copies_keeps_both():
    one = teachers()[0]
    pair, x = [one, Teacher("again", one.encoder, one.head)], samples()
    merged = zipit(pair, x)
    want = one.head(one.encoder(x[0]))
    assert torch.allclose(merged.logits(x[0])["again"], want, atol=1e-8)


@pytest.mark.parametrize(("make", "width"), [(mlp, 8), (vit, 16)])
def test_a_supernet_can_begin_as_the_zipped_network(make, width):
    given, x = teachers(make, width), samples(make)
    ordered, merges, unmerges = zip_maps(given, x)
    net = FoldedSuperNet([t.encoder for t in ordered], kind="full")
    net.start_from(merges, unmerges)
    begun, want = net.finished()[0].state_dict(), zipit(given, x).encoder.state_dict()
    assert all(torch.allclose(begun[n], v, atol=1e-10) for n, v in want.items())
    with pytest.raises(CosetError, match="only kind=full"):
        FoldedSuperNet([t.encoder for t in ordered], rank=2).start_from(merges, unmerges)


def test_own_teacher_loss_by_hand():
    class Fixed(FoldedSuperNet):
        def __init__(self):
            nn.Module.__init__(self)

        def project(self, i, features):
            return features[:, 2 * i : 2 * i + 2]

    rows = torch.tensor([[1.0, 2, 3, 4], [9.0, 10, 11, 12], [5.0, 6, 7, 8]])
    merged = (rows[:2], rows[2:])
    wanted = [(torch.tensor([[1.0, 2], [9, 10]]), None), (None, torch.tensor([[7.0, 8]]))]
    assert own_loss(Fixed(), merged, wanted) == 0
    off = [(torch.tensor([[0.0, 0], [9, 10]]), None), (None, torch.tensor([[7.0, 8]]))]
    assert float(own_loss(Fixed(), merged, off)) == pytest.approx(2.5 / 3)


def test_training_lowers_the_loss_and_resumes(tmp_path):
    given, x = teachers(), samples()
    encoders = [t.encoder for t in given]
    targets, options = Targets.of(encoders, x), Fit(steps=30, batch_size=16, learning_rate=1e-2)
    whole = FoldedSuperNet(encoders, rank=2)
    losses = fit(whole, targets, options)
    assert reconstruction(whole, targets) < reconstruction(FoldedSuperNet(encoders, rank=2), targets)
    state = tmp_path / "state.pt"

    def stop(done, of):
        if done == 17:
            raise KeyboardInterrupt

    again = FoldedSuperNet(encoders, rank=2)
    with pytest.raises(KeyboardInterrupt):
        fit(again, targets, options, progress=stop, state=state, save_every=10)
    resumed = FoldedSuperNet(encoders, rank=2, seed=8)
    assert fit(resumed, targets, options, state=state) == losses
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_local_mode_fits_each_layer():
    given, x = teachers(), samples()
    encoders = [t.encoder for t in given]
    losses = []
    for steps in (1, 400):
        net = FoldedSuperNet(encoders, kind="full", width=16)  # wide enough to hold both networks of width 8
        losses.append(fit_local(net, encoders, x, Fit(steps=steps, learning_rate=1e-2, weight_decay=0.0)))
    assert len(losses[0]) == 3
    assert all(after < 0.2 * before for before, after in zip(*losses, strict=True))
    errors = layer_errors(net, net.finished()[0], encoders, x)
    assert list(errors) == ["layers_0", "layers_2", "output"]
    assert max(errors.values()) < 0.5


def test_joint_accuracy_counts_classes_of_all_heads():
    class Fixed:
        def networks(self):
            return ()

        def logits(self, inputs):
            return {"a": torch.tensor([[0.0, 1, 0], [2, 0, 0]]), "b": torch.tensor([[1.0, 0], [0, 3]])}

    scores = evaluate(
        Fixed(), {"a": (torch.zeros(2), torch.tensor([1, 0])), "b": (torch.zeros(2), torch.tensor([0, 1]))}
    )
    assert scores.tasks == {"a": 1.0, "b": 1.0}
    # First row: both heads say 1, and the lowest class wins; second row: class 1 of task b, the fifth of all.
    assert scores.joint == {"a": 0.5, "b": 0.5}


def test_basins_are_told_apart():
    given, x = teachers(), samples()
    assert not diagnose(given, x)[0].same_basin
    near = copy.deepcopy(given[0].encoder)
    for p in near.parameters():
        p.data += 0.01 * torch.randn_like(p)
    found = diagnose([given[0], Teacher("near", near, given[0].head)], x)[0]
    assert found.same_basin
    assert not found.identical
    assert "same basin" in str(found)
    assert "the same network twice" in str(diagnose([given[0], given[0]])[0])


@pytest.mark.parametrize("method", MERGE_METHODS.names())
def test_every_method_gives_an_ordinary_network(method):
    given, x = teachers(), samples(count=12)
    if MERGE_METHODS[method].models == 1:
        with pytest.raises(CosetError, match=f"{method} takes 1 models, not 2"):
            merge(method, given, x, x, Setting(base=given[0].encoder))
        return
    outcome = merge(
        method, given, x, x, Setting(rank=2, learning_rates=(1e-2,), base=given[0].encoder, fit=Fit(steps=3))
    )
    logits = outcome.model.logits(x[0])
    assert list(logits) == ["t0", "t1"]
    assert all(v.shape == (12, 3) and v.isfinite().all() for v in logits.values())
    if isinstance(outcome.model, Merged):
        assert sum(p.numel() for p in outcome.model.encoder.parameters()) == 200
    if method.startswith("fs") and method != "fs_sequential":
        assert outcome.difference is not None
        assert outcome.difference < 1e-9
    one_by_one = torch.cat([outcome.model.logits(x[0][i : i + 1])["t1"] for i in range(12)])
    assert method == "ensemble" or torch.allclose(one_by_one, logits["t1"], atol=1e-10)


def test_what_cannot_be_merged_is_refused():
    given, x = teachers(), samples()
    wide = [given[0], Teacher("wide", mlp(3, (6, 9, 9, 9)), nn.Linear(9, 3).double())]
    with pytest.raises(CosetError, match=r"t0 has width 8 in layers\.0, wide 9"):
        average(wide)
    with pytest.raises(CosetError, match=r"widths \[8, 9\]: distillation with output=tied needs equal ones"):
        merge("distill_first", wide, x, x)
    assert merge("fs_first", wide, x, x, Setting(rank=2, learning_rates=(1e-2,), fit=Fit(steps=2))).model.logits(x[0])
    with pytest.raises(CosetError, match="slerp takes two models, not 3"):
        slerp([*given, given[0]])
    with pytest.raises(CosetError, match="no merge method 'nonsense'"):
        merge("nonsense", given, x, x)
    with pytest.raises(CosetError, match="task 1 has 1 samples: give at least 2"):
        Targets.of([t.encoder for t in given], [x[0][:1], x[1]])
    broken = copy.deepcopy(given[0].encoder)
    broken.layers[0].weight.data[0, 0] = torch.nan
    with pytest.raises(CosetError, match="teacher 1 gives features that are not finite"):
        Targets.of([broken, given[1].encoder], x)
    with pytest.raises(CosetError, match="training diverged in step"):
        fit(Distilled(given[0].encoder, [1e200, 1e200]), Targets.of([t.encoder for t in given], x), Fit(steps=3))


def test_merging_in_sequence_goes_on_from_the_stage_before():
    from coset.weights.merging.sequential import SequentialStage, merge_in_sequence

    given, x = [Teacher(f"t{s}", mlp(s), nn.Linear(8, 3).double()) for s in range(3)], samples()
    before = [torch.randn(8, 8).double() for _ in range(2)]
    net = FoldedSuperNet([given[0].encoder, given[2].encoder], rank=2)
    stage = SequentialStage(net, before)
    assert all(torch.equal(p, q) for p, q in zip(stage.projections, before, strict=False))
    assert torch.equal(stage.project(2, net(x[0])), net(x[0]))
    merged, trained = merge_in_sequence([lambda t=t: t for t in given], [*x, x[0] + 1], Fit(steps=40), rank=2)
    assert list(merged.logits(x[0])) == ["t0", "t1", "t2"]
    assert trained < sum(p.numel() for p in FoldedSuperNet([t.encoder for t in given], rank=2).parameters()) + 3 * 64
    plain, _ = merge_in_sequence([lambda t=t: t for t in given], [*x, x[0] + 1], Fit(steps=1), rank=2)
    for i, own in enumerate([*x, x[0] + 1]):
        want = given[i].head(given[i].encoder(own))
        errors = [(m.logits(own)[f"t{i}"] - want).square().mean() for m in (merged, plain)]
        assert i == 0 or errors[0] < errors[1]


def test_heads_are_fitted_to_the_teachers_features():
    """Where one network's features are an affine map of the other's, its heads give the same logits."""
    first, x = teachers()[0], samples(count=40)
    turned = MLPEncoder(nn.Sequential(*copy.deepcopy(first.encoder).layers[:-1])).double()
    last = turned.layers[-1]
    with torch.no_grad():
        last.weight.copy_(torch.eye(8).double() * 2)
        last.bias.fill_(0.5)
    plain = copy.deepcopy(turned)
    with torch.no_grad():
        plain.layers[-1].weight.copy_(torch.randn(8, 8).double())
    made = fitted_heads(turned, [Teacher("t0", plain, first.head)], x[:1], ridge=1e-12)
    wanted = first.head(plain(x[0]))
    assert torch.allclose(made.logits(x[0])["t0"], wanted, atol=1e-4)
    far = fitted_heads(turned, [Teacher("t0", plain, first.head)], x[:1], ridge=1e9).logits(x[0])["t0"]
    assert torch.allclose(far, wanted.mean(0).expand_as(far), atol=1e-3)


def test_task_arithmetic_needs_a_base():
    given, x = teachers(), samples(count=12)
    with pytest.raises(CosetError, match="task_arithmetic needs base"):
        merge("task_arithmetic", given, x, x, Setting())
