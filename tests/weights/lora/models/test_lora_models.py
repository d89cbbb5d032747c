import copy

import pytest
import torch
from torch import nn

from coset.symmetry import check_equivariance, verify_claims
from coset.weights.lora import LoraAdapter, LoraPair
from coset.weights.lora.data.factors import LayerwiseGL, Layout, pad_rank, regauge, select, stack, unstack
from coset.weights.lora.finetuning import digits
from coset.weights.lora.models.equivariant import (
    GATES,
    GLEditor,
    GLLayer,
    GLLinear,
    GLNorm,
    RowDropout,
    gate,
    make_gate,
)
from coset.weights.lora.models.features import Alignment, FeatureModel, flat, products, spectra
from coset.weights.lora.models.fitting import predict
from coset.weights.lora.models.glnet import GLNet
from coset.weights.lora.models.heads import HEADS
from coset.weights.lora.models.kernel import KernelRidge, cosines, gram
from coset.weights.lora.models.registry import LORA_MODELS, build
from precisions import PRECISIONS

LAYOUT = Layout.of([("a", (6, 5)), ("b", (4, 7)), ("c", (6, 5))])
INVARIANT = ("balanced", "svd", "w2t", "dense", "glnet", "glnet2", "kernel")
U, V = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]])


def factors(batch=8, rank=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return tuple(
        (torch.randn(batch, len(names), n, rank, generator=g, dtype=dtype),
         torch.randn(batch, len(names), m, rank, generator=g, dtype=dtype))
        for (n, m), names in LAYOUT.groups
    )  # fmt: skip


def single(u, v):
    """One adapter with one layer."""
    return ((torch.as_tensor(u, dtype=torch.float64)[None, None], torch.as_tensor(v, dtype=torch.float64)[None, None]),)


def model(name, **options):
    x = factors()
    if name == "kernel":
        y = x[0][0].sum((1, 2))[:, :2]
        return KernelRidge(x, y, (x, y))
    return build(name, LAYOUT, x, 2, width=4, hidden=8, dense_hidden=8, token_width=8, **options).double()


def test_gates_by_hand():
    assert [t.flatten().tolist() for t in gate(U, V)] == [[1.0, 2.0], [3.0, 4.0, 5.0]]
    u, v = gate(torch.tensor([[1.0], [-2.0]]), V)
    assert u.flatten().tolist() == [1.0, 0.0]
    assert v.flatten().tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(gate(torch.zeros(2, 1), V)[0], torch.zeros(2, 1))


def test_fast_gate_equals_row_and_column_sums_of_the_product():
    u, v = factors()[0]
    product = u @ v.mT
    slow_u = u * (product.sum(-1, keepdim=True) > 0)
    slow_v = v * (product.sum(-2).unsqueeze(-1) > 0)
    for fast, slow in zip(gate(u, v), (slow_u, slow_v), strict=True):
        assert torch.equal(fast, slow)


def test_glnorm_by_hand():
    u, v = GLNorm(1, 2, 3)(U[None, None], V[None, None])
    torch.testing.assert_close(u[0, 0], U / 250**0.25)
    torch.testing.assert_close(v[0, 0], V / 250**0.25)
    assert float((u @ v.mT).norm().detach()) == pytest.approx(1.0, abs=1e-5)


def test_glnorm_of_small_and_of_no_changes():
    """(||U V^T||_F + epsilon)^(1/2), as published; all-zero adapters have gradients of 0."""
    small = torch.full((1, 1, 1, 1), 1e-3, dtype=torch.float64)
    u, _ = GLNorm(1, 1, 1).double()(small, small)
    assert u.item() == pytest.approx(1e-3 / (1e-6 + 1e-6) ** 0.5, rel=1e-9)
    zero = torch.zeros(1, 1, 2, 2, requires_grad=True)
    sum(side.sum() for side in GLNorm(1, 2, 2)(zero, zero)).backward()
    assert zero.grad.isfinite().all()


class Maps(nn.Module):
    """A map of one pair, as a map of factors."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return (self.inner(*x[0]),)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("layer", [GLLayer(2, 6), GLNorm(2, 6, 6), RowDropout(0.5)], ids=lambda m: type(m).__name__)
def test_layers_commute_with_gl(layer, rank, precision):
    g = torch.Generator().manual_seed(1)
    x = ((torch.randn(3, 2, 6, rank, generator=g).double(), torch.randn(3, 2, 6, rank, generator=g).double()),)
    action = LayerwiseGL(1e3 if precision["dtype"] == torch.float64 else 30.0)
    report = check_equivariance(Maps(layer), x, action, action, **precision)
    assert report.passed, report


def test_gate_and_first_layer_commute_with_gl_and_dropout_does_under_one_mask():
    torch.manual_seed(0)
    first = GLLinear(LAYOUT, 4).double()
    x, action = factors(), LayerwiseGL(100.0)
    g = action.sample(x, torch.Generator().manual_seed(0))
    joined = torch.cat(list(g), 1)

    def both(x):
        torch.manual_seed(3)
        return RowDropout(0.5).train()(*gate(*first(x)))

    u, v = both(x)
    moved_u, moved_v = both(action.apply(g, x))
    torch.testing.assert_close(moved_u, u @ joined)
    torch.testing.assert_close(moved_v, v @ torch.linalg.inv(joined).mT)
    assert (u == 0).all(-1).any()


def test_editor_commutes_with_gl_and_changes_nothing_before_training():
    torch.manual_seed(0)
    editor = GLEditor(LAYOUT, 4)
    x = factors()
    for (a, b), (c, d) in zip(copy.deepcopy(editor).double()(x), x, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    for weight in (*editor.phi, *editor.psi):
        nn.init.normal_(weight)
    for precision in PRECISIONS:
        assert all(report.passed and report.moved for report in verify_claims(editor, x, **precision))


@pytest.mark.parametrize("name", [*INVARIANT, "o_align"])
def test_models_keep_their_claim(name, precision):
    reports = verify_claims(model(name), factors(4, seed=1), **precision)
    assert len(reports) == 1
    assert reports[0].passed, reports[0]
    assert reports[0].moved == reports[0].trials


@pytest.fixture(scope="module")
def zoo():
    return digits.make_digits_zoo(200)


@pytest.mark.parametrize("name", INVARIANT)
def test_trained_adapters_in_single_precision_keep_outputs_to_a_hundred_thousandth(name, zoo):
    if name == "kernel":
        network = KernelRidge(zoo.factors, zoo.members, (zoo.factors, zoo.members))
    else:
        network = build(name, digits.LAYOUT, zoo.factors, 10)
    plain, moved = predict(network, zoo.factors), predict(network, regauge(zoo.factors, 1))
    assert float((moved - plain).abs().max() / plain.abs().max()) < 1e-5


def test_alignment_alone_is_not_invariant_under_gl_and_what_reads_raw_factors_under_nothing():
    x = factors(4, seed=1)
    assert not check_equivariance(model("o_align"), x, LayerwiseGL(10.0)).passed
    for name in ("flat", "transformer"):
        assert not check_equivariance(model(name), x, LayerwiseGL(1.0)).passed


def test_a_bias_mixing_of_sides_and_mixing_of_layers_break_the_symmetry():
    torch.manual_seed(0)
    x = ((torch.randn(2, 2, 6, 2).double(), torch.randn(2, 2, 6, 2).double()),)
    weight = torch.randn(12, 12).double()

    def bias(x):
        return ((x[0][0] + 1.0, x[0][1]),)

    def sides(x):
        mixed = weight @ torch.cat(x[0], -2)
        return ((mixed[..., :6, :], mixed[..., 6:, :]),)

    def layers(x):
        return ((x[0][0].flip(1), x[0][1].flip(1)),)

    for broken in (bias, sides, layers):
        assert not check_equivariance(broken, x, LayerwiseGL(4.0), LayerwiseGL(4.0)).passed
    assert check_equivariance(sides, x, LayerwiseGL(1.0), LayerwiseGL(1.0)).passed  # O(r): standard equals dual


def test_glnet_with_identity_weights_is_the_dense_model():
    layout, g = Layout.of([("a", (5, 5))]), torch.Generator().manual_seed(0)
    x = ((torch.randn(7, 1, 5, 2, generator=g).double(), torch.randn(7, 1, 5, 2, generator=g).double()),)
    net = GLNet(layout, x, 5, 1, 8, 3).double()
    net.size.fill_(1.0)
    with torch.no_grad():
        net.first.phi[0].copy_(torch.eye(5)[None])
        net.first.psi[0].copy_(torch.eye(5)[None])
    torch.testing.assert_close(net(x), net.head(products(x)))


def test_what_each_model_can_and_cannot_separate():
    e11 = single([[1.0], [0.0]], [[1.0], [0.0]])
    e21 = single([[0.0], [1.0]], [[1.0], [0.0]])
    assert torch.equal(spectra(e11), spectra(e21))
    assert not torch.equal(products(e11), products(e21))
    zero = single([[0.0], [0.0]], [[0.0], [0.0]])
    half = single([[1.0], [2.0]], [[0.0], [0.0]])
    net = GLNet(Layout.of([("a", (2, 2))]), e11, 1, 1, 4, 2).double()
    for invariant in (spectra, products, net):
        torch.testing.assert_close(invariant(half), invariant(zero))
    both = single([[1.0], [1.0]], [[1.0], [0.0]])  # E11 + E21
    with torch.no_grad():
        net.first.phi[0].copy_(torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(net(e11), net(both))  # width 1 is below n: the kernel of Phi is not seen
    assert not torch.equal(products(e11), products(both))


def test_alignment_is_optimal_and_idempotent():
    x = factors(5)
    align = Alignment(select(x, slice(0, 1)))
    for (u, v), (a, b) in zip(align.align(x), x, strict=True):
        torch.testing.assert_close(u[0], a[0])
        torch.testing.assert_close(v[0], b[0])
    moved = regauge(x, 3, 1.0)
    for (u, v), (a, b) in zip(align.align(x), align.align(moved), strict=True):
        torch.testing.assert_close(u, a)
        torch.testing.assert_close(v, b)
    template = torch.cat([t[0, 0] for t in x[0]])
    best = float((torch.cat([t[1, 0] for t in align.align(x)[0]]) - template).norm())
    other = torch.cat([t[1, 0] for t in x[0]])
    q = torch.linalg.qr(torch.randn(1000, 3, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    assert best <= float((other @ q - template).flatten(1).norm(dim=1).min()) + 1e-9


def test_alignment_at_rank_one_is_a_sign():
    template = single([[1.0]], [[2.0]])
    assert flat(Alignment(template).align(single([[-1.0]], [[-1.0]]))).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("name", [name for name, kind in LORA_MODELS.items() if kind.any_rank])
def test_zero_columns_change_nothing(name):
    net, x = model(name), factors(4)
    torch.testing.assert_close(net(pad_rank(x, 8)), net(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LORA_MODELS.names())
def test_a_batch_equals_one_by_one_and_saved_weights_give_the_same(name, tmp_path):
    net, x = model(name).eval(), factors(4, seed=2)
    together = net(x)
    torch.testing.assert_close(torch.cat([net(select(x, [i])) for i in range(4)]), together)
    torch.save(net.state_dict(), tmp_path / "x.pt")
    again = model(name)
    again.load_state_dict(torch.load(tmp_path / "x.pt", weights_only=True))
    assert torch.equal(again.eval()(x), together)


OPTIONS = [{"head": head} for head in HEADS] + [{"gate": g} for g in GATES] + [{"norm": True, "head": "transformer"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_heads_and_gates_keep_the_claim_once_their_weights_have_moved(options):
    net = model("glnet2", **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x = factors(4, seed=1)
    assert verify_claims(net, x)[0].passed
    assert net(x).shape == (4, 2)
    torch.testing.assert_close(torch.cat([net(select(x, [i])) for i in range(4)]), net(x))
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_mean_head_sees_the_averages_of_the_products():
    net, x = model("glnet", head="mean"), factors(3)
    full = model("glnet").invariants(x)
    torch.testing.assert_close(net.invariants(x)[..., 0], full.mean(-1))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("rank", [1, 3])
def test_gates_commute_with_gl(kind, rank, precision):
    torch.manual_seed(0)
    layer = make_gate(kind, 2, 6).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    g = torch.Generator().manual_seed(1)
    x = ((torch.randn(3, 2, 6, rank, generator=g).double(), torch.randn(3, 2, 6, rank, generator=g).double()),)
    report = check_equivariance(Maps(layer), x, LayerwiseGL(100.0), LayerwiseGL(100.0), **precision)
    assert report.passed, report


def test_bilinear_gates_are_the_identity_at_first_and_only_those_across_let_layers_meet():
    x = ((torch.randn(3, 2, 6, 2), torch.randn(3, 2, 6, 2)),)
    changed = ((x[0][0].clone(), x[0][1]),)
    changed[0][0][:, 1] += 1
    for kind in GATES[1:]:
        layer = make_gate(kind, 2, 6)
        assert torch.equal(layer(*x[0])[0], x[0][0])
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        first = [layer(*pair[0])[0][:, 0] for pair in (x, changed)]
        assert torch.equal(*first) == (kind == "bilinear")


@pytest.mark.parametrize("name", ["glnet", "glnet2"])
@pytest.mark.parametrize("norm", [False, True])
def test_gradients_reach_every_weight_and_stay_finite_at_zero(name, norm):
    net = model(name, norm=norm)
    net(factors()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.first.parameters())
    net.zero_grad()
    zero = tuple((torch.zeros_like(u), torch.zeros_like(v)) for u, v in factors())
    out = net(zero)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_counts_of_stable_diffusion_and_qwen():
    sd = [((320, 320), 15), ((320, 768), 5), ((640, 640), 15), ((640, 768), 5), ((1280, 1280), 18), ((1280, 768), 6)]
    layout = Layout.of((f"{s}.{i}", s) for s, c in sd for i in range(c))
    assert (len(layout.names), layout.factor_numbers(4), layout.dense_numbers()) == (64, 398_592, 46_755_840)
    assert sum(p.numel() for p in GLLinear(layout, 16).parameters()) == 1_594_368
    qwen = Layout.of((f"{s}.{i}", s) for s in ((1536, 1536), (256, 1536)) for i in range(28))
    assert (len(qwen.names), qwen.factor_numbers(4), qwen.dense_numbers()) == (56, 544_768, 77_070_336)


def test_kernel_is_the_inner_product_of_updates_across_ranks_and_factors():
    a, b = factors(5), factors(4, rank=2, seed=1)
    torch.testing.assert_close(gram(a, b), products(a) @ products(b).mT)
    torch.testing.assert_close(gram(regauge(a, 0), regauge(b, 1)), gram(a, b))
    assert float(torch.linalg.eigvalsh(gram(a, a)).min()) > -1e-9
    torch.testing.assert_close(cosines(a, a).diagonal(), torch.ones(5).double())


def test_kernel_ridge_learns_a_linear_functional_where_spectra_cannot():
    """Updates s a b^T with |s| = 1: all spectra are equal, the target is the sign."""
    g = torch.Generator().manual_seed(0)
    u, v = torch.randn(1, 1, 6, 1, generator=g), torch.randn(1, 1, 5, 1, generator=g)
    sign = torch.where(torch.rand(60, generator=g) < 0.5, -1.0, 1.0)
    x = regauge(((u * sign[:, None, None, None], v.expand(60, -1, -1, -1).clone()),), 0)
    ridge = KernelRidge(select(x, slice(0, 40)), sign[:40, None], (select(x, slice(40, 50)), sign[40:50, None]))
    assert ((ridge(select(x, slice(50, 60)))[:, 0] > 0) == (sign[50:] > 0)).all()
    values = spectra(x)
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=1e-3, atol=1e-4)


def test_a_gaussian_process_knows_what_it_has_seen():
    """At a training adapter the deviation is that of a Gaussian given itself, far away that of the prior."""
    x, far = factors(6), factors(2, seed=9)
    y = torch.arange(6.0)[:, None]
    ridge = KernelRidge(x, y, (x, y))
    ridge.bandwidth.fill_(1e-3)  # no two adapters know of one another
    ridge.ridge.fill_(0.25)
    ridge.size.fill_(2.0)
    near, away = ridge.deviation(x), ridge.deviation(far)
    torch.testing.assert_close(near, torch.full((6, 1), 2 * (1.25 - 1 / 1.25) ** 0.5).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(away, torch.full((2, 1), 2 * 1.25**0.5).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ridge.deviation(regauge(far, 0)), away)


def test_stacking_pads_ranks_fills_absent_layers_and_comes_apart_again():
    one = LoraAdapter({"a": LoraPair(torch.randn(6, 2), torch.randn(5, 2), -3.0)}, "one")
    x = stack([one], LAYOUT, rank=4)
    back = unstack(x, LAYOUT, ["one"])[0]
    torch.testing.assert_close(back.layers["a"].delta(), one.layers["a"].delta())
    assert not back.layers["b"].delta().any()


def test_factors_of_another_layout_are_refused():
    with pytest.raises(ValueError, match="were expected"):
        model("glnet")(single([[1.0]], [[1.0]]))
    with pytest.raises(ValueError, match="pad them"):
        model("o_align")(factors(rank=5))


def test_features_are_standardised_by_the_training_set():
    x = factors(50)
    prepared = FeatureModel(flat, x, 4, 1, None).precompute(x)
    torch.testing.assert_close(prepared.mean(0), torch.zeros(prepared.size(1)).double(), atol=1e-8, rtol=0)
    torch.testing.assert_close(prepared.std(0), torch.ones(prepared.size(1)).double())
