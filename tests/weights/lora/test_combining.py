"""Adapters combined and applied: what comes out is what PEFT's own forward gives, or is refused by name."""

import warnings
from dataclasses import replace

import pytest
import torch

from coset.core.errors import CosetError
from coset.weights.lora import LoraAdapter, LoraPair, load_lora, save_kohya, save_peft
from coset.weights.lora.applying import apply
from coset.weights.lora.combining import COMBINATIONS, Mixing, combine, elected, largest, thinned

peft = pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")
exporters = pytest.importorskip("exporters")
merge_utils = pytest.importorskip("peft.utils.merge_utils")
X = torch.arange(10)[None]


def saved(folder, net=None, seed=0, **options):
    """A PEFT model with trained numbers, saved."""
    net = net or exporters.Net
    torch.manual_seed(7)
    base = net()
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "target_modules": ["first", "second"], **options})
    model = exporters.trained(config, base, seed)
    exporters.save(model, folder)
    return model


def loaded(folder, net=None):
    torch.manual_seed(7)
    return peft.PeftModel.from_pretrained((net or exporters.Net)(), str(folder)).eval()


FORMS = {
    "plain": {}, "rsLoRA": {"use_rslora": True}, "lora_bias": {"lora_bias": True}, "DoRA": {"use_dora": True},
    "patterns": {"rank_pattern": {"second": 2}, "alpha_pattern": {"first": 9}},
    "modules_to_save": {"modules_to_save": ["head"]},
    "embedding": {"target_modules": ["embed", "first"]}, "convolution": {"target_modules": ["conv", "first"]},
    "rsLoRA and patterns": {"use_rslora": True, "rank_pattern": {"second": 2}}, "negative alpha": {"lora_alpha": -4},
}  # fmt: skip
"""The cases of huggingface/peft issue 3761 (KaSA is refused where it is read), and others."""


@pytest.mark.parametrize("method", ["linear", "cat", "svd"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_1_and_0_give_the_first_adapter_back(form, method, tmp_path):
    model = saved(tmp_path / "a", **FORMS[form])
    saved(tmp_path / "b", seed=1)
    both = [load_lora(tmp_path / name) for name in "ab"]
    made = combine(both, method, Mixing([1.0, 0.0]))
    assert made.error < 1e-6
    save_peft(made.adapter, tmp_path / "out")
    again = loaded(tmp_path / "out")
    with torch.no_grad():
        difference = (again(X) - model(X)).norm() / model(X).norm()
    assert float(difference) < 1e-6
    assert again.peft_config["default"].task_type == model.peft_config["default"].task_type


@pytest.mark.parametrize(
    "form", [name for name in FORMS if name not in ("DoRA", "modules_to_save", "embedding", "convolution")]
)
def test_a_weighted_sum_is_that_of_the_updates(form, tmp_path):
    models = [
        saved(tmp_path / "a", **FORMS[form]),
        saved(tmp_path / "b", seed=1, r=2, lora_alpha=7, lora_bias=form == "lora_bias"),
    ]
    made = combine([load_lora(tmp_path / n) for n in "ab"], "linear", Mixing([0.7, -0.4])).adapter
    for layer in ("first", "second"):
        one, two = (exporters.updates_of(model)[layer] for model in models)
        torch.testing.assert_close(made.layers[layer].delta(), 0.7 * one - 0.4 * two, rtol=1e-5, atol=1e-5)
    if form == "lora_bias":
        module = [m.base_model.model.first for m in models]
        wanted = sum(
            w * m.scaling["default"] * m.lora_B["default"].bias for w, m in zip((0.7, -0.4), module, strict=True)
        )
        torch.testing.assert_close(made.layers["first"].bias, wanted.detach(), rtol=1e-5, atol=1e-5)


def test_dora_and_heads_that_differ_are_refused_by_name(tmp_path):
    for name, options in (
        ("a", {"use_dora": True}),
        ("b", {}),
        ("c", {"modules_to_save": ["head"]}),
        ("d", {"modules_to_save": ["head"]}),
    ):
        saved(tmp_path / name, seed=ord(name), **options)
    a, b, c, d = (load_lora(tmp_path / name) for name in "abcd")
    with pytest.raises(CosetError, match="is a DoRA"):
        combine([a, b], "linear", Mixing([0.5, 0.5]))
    with pytest.raises(CosetError, match="is a DoRA"):
        combine([a, b], "linear", Mixing([0.5, 0.0]))
    with pytest.raises(CosetError, match=r"head\.(weight|bias) was trained in full and differs"):
        combine([c, d], "linear", Mixing([0.5, 0.5]))
    with pytest.raises(CosetError, match=r"head\.(weight|bias) was trained in full and differs"):
        combine([b, c], "linear", Mixing([0.5, 0.5]))
    same = combine([c, c], "linear", Mixing([0.5, 0.5])).adapter
    assert torch.equal(same.saved["head.weight"], c.saved["head.weight"])


def pairs(count=3, n=12, m=9, rank=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [
        LoraAdapter(
            {"x": LoraPair(torch.randn(n, rank + i, generator=g), torch.randn(m, rank + i, generator=g), 0.5 - i)},
            f"a{i}",
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("rank", [1, 3, 5, 9])
def test_the_best_of_a_rank_is_that_of_the_sum(rank):
    adapters, weights = pairs(), [0.3, -1.0, 0.6]
    total = sum(w * a.layers["x"].delta().double() for a, w in zip(adapters, weights, strict=True))
    made = combine(adapters, "svd", Mixing(weights, rank))
    u, s, v = torch.linalg.svd(total)
    best = u[:, :rank] * s[:rank] @ v[:rank]
    torch.testing.assert_close(made.adapter.layers["x"].delta().double(), best, rtol=1e-4, atol=1e-5)
    assert made.error == pytest.approx(float(s[rank:].norm() / s.norm()), abs=1e-5)


def test_ties_and_dare_by_hand():
    """Of four entries the larger half is kept, then signs are elected, then comes the mean of those that agree."""
    one, two = torch.tensor([[4.0, -3.0, 1.0, 0.5]]), torch.tensor([[-2.0, -5.0, 0.1, 3.0]])
    assert torch.equal(largest(one, 0.5), torch.tensor([[4.0, -3.0, 0.0, 0.0]]))
    assert torch.equal(largest(two, 0.5), torch.tensor([[0.0, -5.0, 0.0, 3.0]]))
    assert torch.equal(elected([largest(one, 0.5), largest(two, 0.5)]), torch.tensor([[4.0, -4.0, 0.0, 3.0]]))
    assert torch.equal(elected([one, two]), torch.tensor([[4.0, -4.0, 0.55, 1.75]]))
    assert torch.equal(largest(one, 1.0), one)
    big = torch.ones(400, 400)
    dropped = thinned(big, 0.25, torch.Generator().manual_seed(0))
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)


def peft_ties(deltas, density):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a density of 1
        return merge_utils.ties(deltas, torch.ones(len(deltas)), density)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear"])
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_trimmed_sums_are_those_of_peft(method, density):
    """On whole updates; PEFT itself trims A and B apart."""
    adapters, weights = pairs(2), [0.7, 1.2]
    made = combine(adapters, method, Mixing(weights, 9, density, seed=3))
    deltas = [w * a.layers["x"].delta() for a, w in zip(adapters, weights, strict=True)]
    if method == "ties":
        wanted = peft_ties(deltas, density)
    else:
        generator = torch.Generator().manual_seed(3)
        deltas = [thinned(d, density, generator) for d in deltas]
        wanted = deltas[0] + deltas[1] if method == "dare_linear" else peft_ties(deltas, 1.0)
    torch.testing.assert_close(made.adapter.layers["x"].delta(), wanted, rtol=1e-4, atol=1e-5)
    assert made.error < 1e-6
    assert combine(adapters, method, Mixing(weights, 1, density)).error > 0.1


@pytest.mark.parametrize("method", COMBINATIONS.names())
def test_order_does_not_matter_and_layers_may_lack(method):
    first, second, _ = pairs()
    more = LoraAdapter({**second.layers, "y": LoraPair(torch.ones(3, 1), torch.ones(4, 1))}, "more")
    made = combine([first, more], method, Mixing([1.0, 0.5], density=1.0))
    back = combine([more, first], method, Mixing([0.5, 1.0], density=1.0))
    assert "lacks 1 of 2 layers (y, ...): zero there" in made.notes[0]
    for layer in ("x", "y"):
        torch.testing.assert_close(
            made.adapter.layers[layer].delta(), back.adapter.layers[layer].delta(), rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(made.adapter.layers["y"].delta(), torch.full((3, 4), 0.5))


def test_adapters_of_two_tools_are_combined_by_module(tmp_path):
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    adapter = LoraAdapter({name: LoraPair(torch.randn(4, 2), torch.randn(5, 2), 2.0)})
    other = load_lora(save_kohya(adapter, tmp_path / "x.safetensors"))
    assert set(other.layers) != set(adapter.layers)
    made = combine([adapter, other], "linear", Mixing([1.0, 1.0]))
    torch.testing.assert_close(made.adapter.layers[name].delta(), 2 * adapter.layers[name].delta())


def test_what_cannot_be_combined_is_refused():
    first, second, _ = pairs()
    small = pairs(n=3)[0]
    with pytest.raises(CosetError, match=r"x is \(12, 9\) \(linear\) in one, \(3, 9\)"):
        combine([first, small], "linear", Mixing([1, 1]))
    with pytest.raises(CosetError, match="2 weights for 3 adapters"):
        combine(pairs(), "linear", Mixing([1, 1]))
    with pytest.raises(CosetError, match="all weights are 0"):
        combine([first, second], "linear", Mixing([0, 0]))
    with pytest.raises(CosetError, match="no combination of LoRAs 'average'"):
        combine([first, second], "average", Mixing([1, 1]))
    with pytest.raises(CosetError, match="density=0: a share"):
        Mixing([1, 1], density=0)
    apart = LoraAdapter({"z": first.layers["x"]}, "apart")
    with pytest.raises(CosetError, match="a0 and apart have no layer in common"):
        combine([first, apart], "linear", Mixing([1, 1]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_applied_it_is_the_model_with_the_adapter(form, dtype, tmp_path):
    model = saved(tmp_path / "a", **FORMS[form])
    torch.manual_seed(7)
    base = exporters.Net().to(dtype)
    (tmp_path / "base").mkdir()
    state = base.state_dict()
    names, files = list(state), ("model-1.safetensors", "model-2.safetensors")
    halves = names[:5], names[5:]
    for file, half in zip(files, halves, strict=True):
        safetensors.save_file({n: state[n] for n in half}, tmp_path / "base" / file)
    weight_map = {n: file for file, half in zip(files, halves, strict=True) for n in half}
    index = '{"weight_map": ' + str(weight_map).replace("'", '"') + "}"
    (tmp_path / "base" / "model.safetensors.index.json").write_text(index)
    (tmp_path / "base" / "config.json").write_text("{}")
    apply(load_lora(tmp_path / "a"), tmp_path / "base", tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()
    found = {k: v for file in files for k, v in safetensors.load_file(tmp_path / "out" / file).items()}
    assert all(found[n].dtype == dtype for n in names)
    if dtype == torch.float32:
        base.load_state_dict(found)
        with torch.no_grad():
            difference = (base.eval()(X) - model(X)).norm() / model(X).norm()
        assert float(difference) < 1e-6


def test_transposed_square_weights_are_updated_as_peft_does(tmp_path):
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=8)
    torch.manual_seed(1)
    net = GPT2Model(config).eval()
    net.save_pretrained(tmp_path / "base")
    model = exporters.trained(peft.LoraConfig(r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True), net)
    model.save_pretrained(tmp_path / "a")
    apply(load_lora(tmp_path / "a"), tmp_path / "base", tmp_path / "out")
    made = GPT2Model.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(5)[None]
    with torch.no_grad():
        torch.testing.assert_close(made(ids).last_hidden_state, model(ids).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_applied_is_refused_and_leaves_nothing(tmp_path):
    saved(tmp_path / "a")
    adapter = load_lora(tmp_path / "a")
    safetensors.save_file({"other.weight": torch.zeros(2, 2)}, tmp_path / "base.safetensors")
    with pytest.raises(CosetError, match=r"changes first\.weight; the base has no such parameter"):
        apply(adapter, tmp_path / "base.safetensors", tmp_path / "out.safetensors")
    wrong = {"first.weight": torch.zeros(3, 3), "second.weight": torch.zeros(4, 8)}
    safetensors.save_file(wrong, tmp_path / "base.safetensors")
    with pytest.raises(CosetError, match=r"first\.weight is \(3, 3\) in the base, its update \(8, 6\): another base\?"):
        apply(adapter, tmp_path / "base.safetensors", tmp_path / "out.safetensors")
    wrong = {"first.weight": torch.zeros(8, 6).to(torch.int8), "second.weight": torch.zeros(4, 8)}
    safetensors.save_file(wrong, tmp_path / "base.safetensors")
    with pytest.raises(CosetError, match=r"first\.weight is stored as torch\.int8: a quantised base"):
        apply(adapter, tmp_path / "base.safetensors", tmp_path / "out.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "base.safetensors"]
    (tmp_path / "out.safetensors").touch()
    with pytest.raises(CosetError, match="exists already: choose another output"):
        apply(adapter, tmp_path / "base.safetensors", tmp_path / "out.safetensors")


def test_strength_scales_the_update(tmp_path):
    weight = torch.randn(3, 4)
    safetensors.save_file({"lin.weight": weight}, tmp_path / "base.safetensors")
    pair = LoraPair(torch.randn(3, 2), torch.randn(4, 2), 0.5)
    apply(LoraAdapter({"lin": pair}), tmp_path / "base.safetensors", tmp_path / "out.safetensors", 2.0)
    found = safetensors.load_file(tmp_path / "out.safetensors")["lin.weight"]
    torch.testing.assert_close(found, weight + 2 * pair.delta())
    dora = LoraAdapter({"lin": LoraPair(pair.u, pair.v, magnitude=torch.ones(3))})
    with pytest.raises(CosetError, match="--strength has no meaning for DoRA"):
        apply(dora, tmp_path / "base.safetensors", tmp_path / "other.safetensors", 2.0)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([float("nan"), 1.0], "weight nan"),
        ([1.0, float("inf")], "weight inf"),
        ([1e200, 1e200], "1e.200 is not finite"),
    ],
)
def test_sums_that_are_not_finite_are_refused(weights, text):
    pair = LoraPair(torch.ones(4, 2), torch.ones(3, 2))
    both = [LoraAdapter({"q": pair}, "a"), LoraAdapter({"q": pair}, "b")]
    with pytest.raises(CosetError, match=text):
        combine(both, "linear", Mixing(weights))


def test_an_adapter_that_could_not_be_read_again_is_not_written(tmp_path):
    spoilt = LoraAdapter({"q": LoraPair(torch.full((4, 2), torch.inf), torch.ones(3, 2))}, "spoilt")
    with pytest.raises(CosetError, match=r"nothing is written: .*q.lora_B.weight would hold numbers that are NaN or"):
        save_peft(spoilt, tmp_path / "out")
    with pytest.raises(CosetError, match="nothing is written"):
        save_kohya(replace(spoilt, layers={"unet.conv_in": spoilt.layers["q"]}), tmp_path / "in" / "out.safetensors")
    assert list(tmp_path.iterdir()) == []
