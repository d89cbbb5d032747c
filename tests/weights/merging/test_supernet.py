"""The folded network is the SuperNet, for MLPs, ViT, BERT and CLIP."""

import copy
import weakref

import pytest
import torch
from torch import nn

from coset.core.errors import CosetError
from coset.weights.merging import BlockMap, FoldedSuperNet, MLPEncoder, Teacher, average, fold_heads
from coset.weights.merging.stored import StoredEncoder, StoredWeights
from coset.weights.merging.transformer_encoders import TransformerEncoder, build

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
IMAGES = {"image_size": 8, "patch_size": 4, "num_channels": 1}


def make(family, seed, **changes):
    sizes = SIZES | changes
    if family == "mlp":
        torch.manual_seed(seed)
        return MLPEncoder.of([5, 8, 8, 8]).double().eval()
    if family == "vit":
        config = transformers.ViTConfig(**sizes, **IMAGES)
    elif family == "bert":
        config = transformers.BertConfig(vocab_size=20, max_position_embeddings=9, **sizes)
    else:
        config = transformers.CLIPVisionConfig(projection_dim=6, **sizes, **IMAGES)
    made = TransformerEncoder(build(config, seed=seed)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for p in made.parameters():  # norms, biases and tables that are not at their start
        p.data += 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return made


def inputs_of(family, count=3):
    generator = torch.Generator().manual_seed(9)
    if family == "mlp":
        return torch.randn(count, 5, generator=generator).double()
    if family == "bert":
        mask = torch.ones(count, 7).long()
        mask[1, 4:] = 0
        return {"input_ids": torch.randint(0, 20, (count, 7), generator=generator), "attention_mask": mask}
    return torch.randn(count, 1, 8, 8, generator=generator).double()


def shake(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return net


FAMILIES = ("mlp", "vit", "bert", "clip")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["diagonal", "diagonal_and_low_rank", "full", "heads"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_folding_is_exact(family, kind, k):
    net = shake(FoldedSuperNet([make(family, s) for s in range(k)], kind=kind, rank=2))
    x = inputs_of(family)
    folded = net(x)
    for mode in ("implicit", "dense", "folded"):
        assert torch.allclose(net.explicit(mode)(x), folded, atol=1e-9)
    ordinary, projections = net.finished()
    assert torch.allclose(ordinary(x), folded, atol=1e-9)
    assert torch.allclose(net.project(k - 1, folded), folded @ projections[k - 1].mT, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", [12, 20])
def test_folding_to_other_widths(family, width):
    net = shake(FoldedSuperNet([make(family, s) for s in range(2)], rank=2, width=width))
    x = inputs_of(family)
    assert torch.allclose(net.explicit()(x), net(x), atol=1e-9)
    assert net.wiring.widths[net.wiring.stream] == width


def test_teachers_of_different_widths():
    small, large = make("vit", 0), make("vit", 1, hidden_size=24, num_attention_heads=6, intermediate_size=36)
    net = shake(FoldedSuperNet([small, large], rank=2))
    x = inputs_of("vit")
    assert torch.allclose(net.explicit()(x), net(x), atol=1e-9)
    assert net(x).shape == (3, 16)
    assert net.project(1, net(x)).shape == (3, 24)


@pytest.mark.parametrize("family", FAMILIES)
def test_first_is_the_first_teacher_and_average_the_average(family):
    teachers, x = [make(family, s) for s in range(2)], inputs_of(family)
    net = FoldedSuperNet(teachers, init="first", rank=2)
    assert torch.equal(net(x), teachers[0](x))
    assert torch.equal(net.project(1, net(x)), net(x))
    mean = FoldedSuperNet(teachers, init="average", rank=2).finished()[0].state_dict()
    for name, value in mean.items():
        states = [t.state_dict()[name] for t in teachers]
        assert torch.allclose(value, torch.stack(states).double().mean(0).to(value), atol=1e-12), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_map_is_used_and_gets_a_gradient(family):
    net = shake(FoldedSuperNet([make(family, s) for s in range(2)], rank=2))
    x = inputs_of(family)
    sum(net.project(i, net(x)).square().sum() for i in range(2)).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0, name


def test_values_have_a_merge_of_their_own():
    net, x = shake(FoldedSuperNet([make("bert", s) for s in range(2)], rank=2)), inputs_of("bert")
    before = net(x)
    net.merges["v_0"].diagonal[0].data += 1
    after = net(x)
    assert (after - before).abs().max() > 1e-6
    assert torch.allclose(net.explicit()(x), after, atol=1e-9)


def test_training_folded_is_training_the_supernet():
    x = inputs_of("vit", 6)
    nets = [FoldedSuperNet([make("vit", s) for s in range(2)], rank=2, seed=3) for _ in range(3)]
    runs = (nets[0], nets[1].explicit("dense"), nets[2].explicit("folded"))
    for run in runs:
        optimizer = torch.optim.Adam(run.parameters(), lr=1e-3)
        for _ in range(20):
            loss = (run.project(1, run(x)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for other in nets[1:]:
        for a, b in zip(nets[0].parameters(), other.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-8)


def test_numbers_trained_for_a_tiny_vit():
    teachers = [make("vit", s, hidden_size=32, intermediate_size=64) for s in range(2)]
    net = FoldedSuperNet(teachers, rank=4)
    assert sum(p.numel() for p in net.parameters()) == 2 * (8 * 448 + 2 * 1664 + 128) + 2 * 448 + 64 == 15040


@pytest.mark.parametrize("kind", ["diagonal", "full", "heads"])
def test_maps_begin_in_the_precision_of_the_teachers(kind):
    net = FoldedSuperNet([make("vit", s) for s in range(3)], kind=kind, rank=2, init="average")
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    for name in ("q_0", "up_0") if kind != "heads" else ("q_0",):
        size = net.merges[name].width
        assert torch.equal(net.merges[name].dense(2), torch.eye(size, dtype=torch.float64) * (1 / 3))


def test_ranks_as_published():
    """r for every map but those of the hidden units, floor(r h / d), however narrow the projection is."""
    net = FoldedSuperNet([make("clip", s) for s in range(2)], rank=8)  # d = 16, h = 24, projection 6
    hidden = (net.merges["up_0"], net.merges["up_1"], net.unmerges["down_0"], net.unmerges["down_1"])
    others = {*net.merges.values(), *net.unmerges.values()} - {*hidden}
    assert {made.rank for made in hidden} == {12}
    assert {net.merges["project"], net.unmerges["output"]} < others
    assert {made.rank for made in others} == {8}
    layers = FoldedSuperNet([MLPEncoder.of([5, 8, 4, 2]) for _ in range(2)], rank=3)
    assert {made.rank for made in layers.merges.values()} == {3}
    x = inputs_of("clip")
    shake(net)
    assert torch.allclose(net(x), net.explicit("dense")(x), atol=1e-9)
    for rank in (0, 17):
        with pytest.raises(CosetError, match=f"rank={rank} must lie between 1 and the width of the merged network, 16"):
            FoldedSuperNet([make("clip", s) for s in range(2)], rank=rank)
    FoldedSuperNet([make("clip", s) for s in range(2)], kind="full", rank=17)  # has no ranks


def test_double_width_keeps_both_mlps_exactly():
    teachers = [make("mlp", s) for s in range(2)]
    net, x = FoldedSuperNet(teachers, kind="full", width=16), inputs_of("mlp")
    for maps in (net.merges, net.unmerges):
        for one in maps.values():
            for i in range(2):
                one.full.data[i] = torch.eye(16, dtype=torch.float64)[8 * i : 8 * (i + 1)]
    for i, teacher in enumerate(teachers):
        assert torch.allclose(net.project(i, net(x)), teacher(x), atol=1e-12)


def test_relabelled_neurons_are_absorbed():
    """W_l -> L P W_l, W_{l+1} -> W_{l+1} P^T L^-1 with M -> L^-1 P M and U -> U P^T L gives the same network."""
    teachers, x = [make("mlp", s) for s in range(2)], inputs_of("mlp")
    net = shake(FoldedSuperNet(teachers, kind="full"))
    moved = copy.deepcopy(teachers[1])
    order, scale = torch.randperm(8), torch.rand(8).double() + 0.5
    linear = [m for _, m in moved.linears()]
    linear[0].weight.data = scale[:, None] * linear[0].weight.data[order]
    linear[0].bias.data = scale * linear[0].bias.data[order]
    linear[1].weight.data = linear[1].weight.data[:, order] / scale
    other = FoldedSuperNet([teachers[0], moved], kind="full")
    other.load_state_dict(net.state_dict())
    merge, unmerge = (m["layers_0"].full.data for m in (other.merges, other.unmerges))
    merge[1] = merge[1][order] / scale[:, None]
    unmerge[1] = unmerge[1][order] * scale[:, None]
    assert torch.allclose(other(x), net(x), atol=1e-10)


def test_any_network_can_be_reached():
    """With W_1 invertible: U_1 = I, M_1 = (W* W_1^-1)^T, U_2 = 0 and M_2 for the bias."""
    w1, w2 = torch.randn(4, 4).double(), torch.randn(4, 4).double()
    b1, b2, want, bias = torch.randn(4).double(), torch.randn(4).double(), torch.randn(4, 4).double(), torch.randn(4)
    merge, unmerge = BlockMap([4, 4], 4, "full").double(), BlockMap([4, 4], 4, "full").double()
    unmerge.full.data[0] = torch.eye(4).double()
    merge.full.data[0] = (want @ w1.inverse()).mT
    merge.full.data[1] = torch.outer(b2, bias - b1 @ merge.full[0]) / (b2 @ b2)
    from coset.weights.merging import fold_bias, fold_weight

    assert torch.allclose(fold_weight(merge, [w1, w2], unmerge), want, atol=1e-8)
    assert torch.allclose(fold_bias(merge, [b1, b2]), bias.double(), atol=1e-8)


def test_heads_take_the_projection_in():
    teachers = [Teacher(str(s), make("vit", s), nn.Linear(16, 3 + s).double()) for s in range(2)]
    net, x = shake(FoldedSuperNet([t.encoder for t in teachers], rank=2)), inputs_of("vit")
    encoder, projections = net.finished()
    heads = fold_heads(teachers, projections)
    for i, teacher in enumerate(teachers):
        assert torch.allclose(heads[teacher.name](encoder(x)), teacher.head(net.project(i, net(x))), atol=1e-9)


def test_same_teacher_twice_is_itself():
    teacher, x = make("bert", 0), inputs_of("bert")
    merged = average([Teacher(n, teacher, nn.Linear(16, 2).double()) for n in "ab"])
    assert torch.allclose(merged.encoder(x), teacher(x), atol=1e-12)


def test_other_depths_are_refused():
    with pytest.raises(CosetError, match="depths and kinds must agree"):
        FoldedSuperNet([make("vit", 0), make("vit", 1, num_hidden_layers=1)])
    with pytest.raises(CosetError, match="width=10 is not a multiple of the width of a head, 4"):
        FoldedSuperNet([make("vit", 0)], width=10)
    with pytest.raises(CosetError, match="cannot be merged"):
        TransformerEncoder(nn.Linear(2, 2))
    with pytest.raises(CosetError, match="BatchNorm1d"):
        MLPEncoder(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


@pytest.mark.parametrize("family", ["vit", "bert", "clip"])
def test_teachers_may_stay_on_disk(family, tmp_path):
    """Same features and gradients, and no more than the matrices of one layer, k of them, are ever alive."""
    teachers, x = [make(family, s) for s in range(2)], inputs_of(family)
    stored = [StoredEncoder(teacher, tmp_path / str(i)) for i, teacher in enumerate(teachers)]
    assert torch.allclose(stored[1](x), teachers[1](x), atol=1e-12)
    alive, most = [], 0

    class Watched(StoredWeights):
        def __getitem__(self, name):
            nonlocal most
            value = super().__getitem__(name)
            if value.dim() == 2:
                alive.append(weakref.ref(value))
                most = max(most, sum(r() is not None for r in alive))
            return value

    in_memory = shake(FoldedSuperNet(teachers, rank=2))
    for encoder in stored:
        encoder._weights = Watched(encoder.weights().files)
    net = shake(FoldedSuperNet(stored, rank=2))
    student = net.explicit("folded")
    for one in (in_memory, student):
        one.project(1, one(x)).square().sum().backward()
    assert torch.allclose(student(x), in_memory(x), atol=1e-10)
    for (name, a), b in zip(net.named_parameters(), in_memory.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-9), name
    assert 1 <= most <= 2
    assert torch.allclose(net.encoder()(x), in_memory.encoder()(x), atol=1e-10)
