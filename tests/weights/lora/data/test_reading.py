import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from coset.core.errors import CosetError
from coset.weights.lora import load_lora, save_kohya, save_peft
from coset.weights.lora.applying import apply

peft = pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")
exporters = pytest.importorskip("exporters")


def kohya(rank=2, alpha=1.0):
    g = torch.Generator().manual_seed(0)
    return {
        "lora_unet_a_b.lora_down.weight": torch.randn(rank, 5, generator=g),
        "lora_unet_a_b.lora_up.weight": torch.randn(3, rank, generator=g),
        "lora_unet_a_b.alpha": torch.tensor(alpha),
    }


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 4)
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return self.second(self.first(self.embed(x)))


def trained(config, net=None):
    torch.manual_seed(0)
    model = peft.get_peft_model(net or Net(), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(
                    torch.randn_like(parameter).abs() if "magnitude" in name else torch.randn_like(parameter)
                )
    return model


def assert_equals_peft(adapter, model):
    compared = 0
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            wanted = module.get_delta_weight("default")
            found = adapter.layers[name].weight_update()
            if getattr(module, "fan_in_fan_out", False):
                found = found.mT
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
            compared += 1
    assert compared == len(adapter.layers) > 0


CONFIGS = {
    "plain": {"target_modules": ["first", "second"], "r": 4, "lora_alpha": 27},
    "rslora": {"target_modules": ["first", "second"], "r": 4, "lora_alpha": 27, "use_rslora": True},
    "patterns": {
        "target_modules": ["first", "second"], "r": 4, "lora_alpha": 8, "rank_pattern": {"second": 2},
        "alpha_pattern": {"first": 3},
    },
    "embedding": {"target_modules": ["embed", "first"], "r": 3, "lora_alpha": 5},
    "conv": {"target_modules": ["conv"], "r": 2, "lora_alpha": 5},
    "dora": {"target_modules": ["first"], "r": 2, "lora_alpha": 5, "use_dora": True},
    "negative alpha": {"target_modules": ["first"], "r": 2, "lora_alpha": -5},
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_update_equals_that_of_peft_from_memory_and_from_disk(kind, tmp_path):
    model = trained(peft.LoraConfig(**CONFIGS[kind]))
    assert_equals_peft(load_lora(model), model)
    model.save_pretrained(tmp_path)
    read = load_lora(tmp_path)
    assert_equals_peft(read, model)
    assert read.source_format == "peft"
    assert (kind == "dora") == any("DoRA" in note for note in read.notes)


def test_transposed_weights_of_gpt2_keep_their_factors():
    from transformers import GPT2Config, GPT2Model

    net = GPT2Model(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=8))
    model = trained(peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True), net)
    assert_equals_peft(load_lora(model), model)


def test_adalora_folds_its_diagonal():
    config = peft.AdaLoraConfig(
        target_modules=["first"], init_r=3, target_r=2, lora_alpha=6, total_step=10, tinit=1, tfinal=1
    )
    model = trained(config)
    assert_equals_peft(load_lora(model), model)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"lora_A.weight": (4,), "lora_B.weight": (4,)}, r"q: its tensors do not fit together: down \(4,\), up \(4,\)"),
        ({"lora_A.weight": (4,), "lora_B.weight": (6, 4)}, r"q: a factor is a matrix.*down \(4,\), up \(6, 4\)"),
        ({"lora_A.weight": (4, 10), "lora_B.weight": (4,)}, "q: its tensors do not fit together"),
        ({"lora_A.weight": (), "lora_B.weight": ()}, "q: its tensors do not fit together"),
        ({"lora_A.weight": (4, 0), "lora_B.weight": (6, 4)}, "q: a factor is a matrix"),
        ({"lora_A.weight": (0, 4), "lora_B.weight": (6, 0), "alpha": ()}, r"a factor is .* here are down \(0, 4\), up"),
        ({"lora_embedding_A": (4,), "lora_embedding_B": (6,)}, "q: its tensors do not fit together"),
        ({"lokr_w1": (), "lokr_w2": (3, 3)}, "q: "),
        (
            {"lora_down.weight": (4, 10), "lora_up.weight": (6, 4), "lora_mid.weight": (4, 4)},
            r"q: its tensors do not fit together: down \(4, 10\)",
        ),
        ({"lora_A.weight": (4, 10), "lora_B.weight": (6, 4), "alpha": (2,)}, "q: its tensors do not fit together"),
        ({"hada_w1_a": (6, 2), "hada_w1_b": (2, 4), "hada_w2_a": (5, 2), "hada_w2_b": (2, 4)}, "q: "),
        ({"lora_A.weight": (8, 16, 3, 3), "lora_B.weight": (32, 2, 1, 1)}, "q is a convolution of 4 groups"),
        ({"lora_A.weight": (8, 16, 3, 3), "lora_B.weight": (32, 3, 1, 1)}, "q: the ranks of its factors differ"),
    ],
)
def test_tensors_that_are_no_factors_are_refused_with_their_shapes(tensors, text):
    with pytest.raises(CosetError, match=text):
        load_lora({f"q.{part}": torch.ones(shape) for part, shape in tensors.items()})


@pytest.mark.parametrize(
    ("alphas", "scales", "note"),
    [
        ([1.0, 4.0], [0.5, 2], None),
        ([1.0, None], [0.5, 1], "no alpha for 1 of 2 layers (lora_unet_1, ...): scale 1"),
        ([None, None], [1, 1], "no alpha anywhere: scale 1"),
    ],
)
def test_files_of_kohya_that_were_resized_layer_by_layer(alphas, scales, note, tmp_path):
    """Its tool writes ``Dynamic`` for the alpha of the file, and each layer's own beside the factors."""
    state = {}
    for i, alpha in enumerate(alphas):
        state |= {
            f"lora_unet_{i}.lora_down.weight": torch.ones(2, 4),
            f"lora_unet_{i}.lora_up.weight": torch.ones(3, 2),
        }
        state |= {} if alpha is None else {f"lora_unet_{i}.alpha": torch.tensor(alpha)}
    safetensors.save_file(
        state, tmp_path / "x.safetensors", {"ss_network_alpha": "Dynamic", "ss_network_dim": "Dynamic"}
    )
    read = load_lora(tmp_path / "x.safetensors")
    assert [pair.scale for pair in read.layers.values()] == scales
    assert read.notes == (() if note is None else (note,))


LAYER = {"lora_down.weight": (2, 4), "lora_up.weight": (4, 2)}
CONVOLUTION = {"lora_down.weight": (2, 4, 3, 3), "lora_up.weight": (4, 2, 1, 1)}


@pytest.mark.parametrize(
    ("layer", "part", "shape", "text"),
    [
        (LAYER, "dora_scale", (1, 4), "DoRA magnitudes of 4 columns; those of its 4 rows are read"),
        (LAYER, "lora_magnitude_vector", (1, 4), "DoRA magnitudes of 4 columns; those of its 4 rows are read"),
        (LAYER, "lora_magnitude_vector", (2, 2), r"DoRA magnitudes of shape \(2, 2\); one for each of its 4 rows"),
        (LAYER, "lora_magnitude_vector", (5,), r"DoRA magnitudes of shape \(5,\); one for each of its 4 rows"),
        (LAYER, "lora_magnitude_vector", (), r"DoRA magnitudes of shape \(\); one for each of its 4 rows"),
        (CONVOLUTION, "dora_scale", (1, 4, 1, 1), "DoRA magnitudes of 4 columns; those of its 4 rows are read"),
        (CONVOLUTION, "lora_magnitude_vector", (2, 2, 1, 1), r"DoRA magnitudes of shape \(2, 2, 1, 1\); one for each"),
    ],
)
def test_magnitudes_of_anything_but_rows_are_refused(layer, part, shape, text):
    tensors = {key: torch.ones(size) for key, size in layer.items()} | {part: torch.ones(shape)}
    with pytest.raises(CosetError, match=text):
        load_lora({f"q.{key}": value for key, value in tensors.items()})


@pytest.mark.parametrize(
    ("layer", "part", "shape"),
    [
        (LAYER, "dora_scale", (4, 1)),
        (LAYER, "lora_magnitude_vector", (4,)),
        (CONVOLUTION, "dora_scale", (4, 1, 1, 1)),
        (CONVOLUTION, "lora_magnitude_vector", (1, 4, 1, 1)),
    ],
)
def test_magnitudes_of_rows_are_read_however_they_lie(layer, part, shape):
    tensors = {key: torch.ones(size) for key, size in layer.items()} | {part: torch.arange(4.0).reshape(shape)}
    read = load_lora({f"q.{key}": value for key, value in tensors.items()})
    assert read.layers["q"].magnitude.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("key", "part"), [("use_dora", "magnitude"), ("lora_bias", "bias")])
def test_what_the_configuration_promises_and_the_file_lacks_is_an_obstacle(key, part):
    state = {"q.lora_A.weight": torch.ones(2, 5), "q.lora_B.weight": torch.ones(4, 2)}
    read = load_lora(state, {"r": 2, "lora_alpha": 2, key: True})
    assert read.obstacles == (f"{key} is set, but no layer has a {part}: the file is not whole",)


def test_an_alpha_that_is_true_is_no_number(tmp_path):
    trained(peft.LoraConfig(target_modules=["first"])).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": True}))
    with pytest.raises(CosetError, match=r"lora_alpha: .*a number was expected, not true or false"):
        load_lora(tmp_path)


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_is_true_is_no_number(key, tmp_path):
    trained(peft.LoraConfig(target_modules=["first"])).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {key: {"second": True}}))
    with pytest.raises(CosetError, match=rf"{key}\.second: .*a number was expected, not true or false"):
        load_lora(tmp_path)


class Nested(nn.Module):
    """Layers whose names are the ends of others', as Flux has them."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"proj_out": nn.Linear(6, 8)}) for _ in range(2)])
        self.proj_out = nn.Linear(6, 8)

    def forward(self, x):
        return self.proj_out(x) + sum(block["proj_out"](x) for block in self.blocks)


@pytest.mark.parametrize("first", ["^proj_out", r"^blocks\.1.proj_out"])
def test_ranks_of_layers_whose_names_end_alike_are_written_as_peft_and_we_read_them(first, tmp_path):
    config = peft.LoraConfig(
        target_modules=["proj_out"], r=4, lora_alpha=8, rank_pattern={first: 2}, alpha_pattern={first: 6}
    )
    model = trained(config, Nested())
    model.save_pretrained(tmp_path / "a")
    save_peft(load_lora(tmp_path / "a"), tmp_path / "again")
    assert_equals_peft(load_lora(tmp_path / "again"), model)
    assert_equals_peft(load_lora(tmp_path / "again"), peft.PeftModel.from_pretrained(Nested(), tmp_path / "again"))


@pytest.mark.parametrize("left", [[1, 0, 0, 0, 1, 0], [0] * 6])
def test_adalora_scales_by_the_rank_it_began_with_and_may_leave_a_layer_none(left, tmp_path):
    config = peft.AdaLoraConfig(
        target_modules=["first", "second"], init_r=6, target_r=4, lora_alpha=16, total_step=10, tinit=1, tfinal=1
    )
    model = trained(config)
    exporters.prune(model, {"first": [bool(kept) for kept in left], "second": [True] * 6})
    exporters.save(model, tmp_path)
    assert_equals_peft(load_lora(tmp_path), model)
    assert_equals_peft(load_lora(tmp_path), exporters.loaded(tmp_path))
    save_peft(load_lora(tmp_path), tmp_path / "plain")
    assert_equals_peft(load_lora(tmp_path / "plain"), model)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"init_r": None}, "init_r=None"),
        ({"init_r": 1}, "first has rank 2, AdaLoRA's init_r=1"),
        ({"init_r": "6"}, "init_r"),
        ({"lora_alpha": -2}, "lora_alpha=-2 and pruned"),
    ],
)
def test_adalora_whose_scale_is_not_told_is_refused(changed, text):
    state = {"first.lora_A": torch.ones(2, 6), "first.lora_B": torch.ones(8, 2), "first.lora_E": torch.ones(2, 1)}
    config = {"peft_type": "ADALORA", "init_r": 6, "lora_alpha": 16} | changed
    with pytest.raises(CosetError, match=text):
        load_lora(state, config)


def test_experts_of_one_parameter_are_pairs_of_their_own():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 6, 5))

        def forward(self, x):
            return x @ self.weight[0]

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = Experts()

        def forward(self, x):
            return self.experts(x)

    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=[], target_parameters=["experts.weight"])
    model = trained(config, Mixture())
    adapter = load_lora(model)
    module = model.base_model.model.experts
    wanted = module.get_delta_weight("default")
    assert list(adapter.layers) == ["experts.expert0", "experts.expert1", "experts.expert2"]
    found = torch.stack([pair.delta() for pair in adapter.layers.values()])
    if found.shape != wanted.shape:
        found = found.mT
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"target_parameters": ["blk.raw"]}, "expert"),
        ({"target_parameters": ["raw"]}, "expert"),
        ({"target_parameters": ["blk.weight"]}, "linear"),
        ({"target_parameters": ["other.raw"], "target_modules": ["blk"]}, "linear"),
        ({"target_parameters": ["raw"], "target_modules": ["blk"]}, "linear"),
    ],
)
def test_a_parameter_that_is_no_weight_of_its_module_is_not_taken_for_one(config, kind, tmp_path):
    """PEFT's file names the module alone: which of its parameters it was, the configuration says."""
    state = {"deep.blk.lora_A.weight": torch.ones(2, 4), "deep.blk.lora_B.weight": torch.ones(4, 2)}
    read = load_lora(state, {"r": 2, "lora_alpha": 2} | config)
    assert read.layers["deep.blk"].kind == kind
    safetensors.save_file({"deep.blk.weight": torch.ones(4, 4)}, tmp_path / "base.safetensors")
    if kind == "linear":
        assert apply(read, tmp_path / "base.safetensors", tmp_path / "made.safetensors") == 1
        return
    with pytest.raises(
        CosetError, match=r"deep.blk is of experts .* or of one that is no weight \(target_parameters\)"
    ):
        apply(read, tmp_path / "base.safetensors", tmp_path / "made.safetensors")


def test_experts_of_alpha_zero_are_zero_updates():
    state = {"blk.lora_A.weight": torch.ones(6, 4), "blk.lora_B.weight": torch.ones(5, 6)}
    read = load_lora(state, {"r": 2, "lora_alpha": 0, "target_parameters": ["blk.weight"]})
    assert [pair.scale for pair in read.layers.values()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("rank", "alpha", "rslora", "scale"),
    [(4, 27, False, 6.75), (32, 27, False, 0.84375), (4, 27, True, 13.5), (32, 27, True, 4.77297)],
)
def test_scales(rank, alpha, rslora, scale):
    state = {"a.lora_A.weight": torch.ones(rank, 5), "a.lora_B.weight": torch.ones(3, rank)}
    read = load_lora(state, {"r": rank, "lora_alpha": alpha, "use_rslora": rslora})
    assert read.layers["a"].scale == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize(
    ("down", "up", "layer"),
    [
        ("base_model.model.x.q.lora_A.weight", "base_model.model.x.q.lora_B.weight", "x.q"),
        ("x.q.lora_A.default.weight", "x.q.lora_B.default.weight", "x.q"),
        ("unet.x.to_q.lora_A.weight", "unet.x.to_q.lora_B.weight", "unet.x.to_q"),
        ("unet.x.processor.to_q_lora.down.weight", "unet.x.processor.to_q_lora.up.weight", "unet.x.to_q"),
        ("unet.x.to_out.0.lora.down.weight", "unet.x.to_out.0.lora.up.weight", "unet.x.to_out.0"),
        (
            "text_encoder.q.lora_linear_layer.down.weight",
            "text_encoder.q.lora_linear_layer.up.weight",
            "text_encoder.q",
        ),
        ("lora_te1_x_q.lora_down.weight", "lora_te1_x_q.lora_up.weight", "lora_te1_x_q"),
        ("unet:12:down", "unet:12:up", "unet:12"),
    ],
)
def test_names_of_every_tool_and_any_order(down, up, layer):
    a, b = torch.randn(2, 5), torch.randn(3, 2)
    for state in ({down: a, up: b}, {up: b, down: a}):
        read = load_lora(state)
        assert list(read.layers) == [layer]
        torch.testing.assert_close(read.layers[layer].delta(), b @ a)


def test_kohya_alpha_and_convolution_with_a_middle_factor():
    pair = load_lora(kohya(rank=2, alpha=1.0)).layers["lora_unet_a_b"]
    assert pair.scale == 0.5
    g = torch.Generator().manual_seed(1)
    down, mid, up = (torch.randn(*s, generator=g) for s in ((2, 3, 1, 1), (2, 2, 3, 3), (4, 2, 1, 1)))
    read = load_lora({"c.lora_down.weight": down, "c.lora_mid.weight": mid, "c.lora_up.weight": up})
    image = torch.randn(1, 3, 7, 7, generator=g)
    stepwise = nn.functional.conv2d(nn.functional.conv2d(nn.functional.conv2d(image, down), mid), up)
    torch.testing.assert_close(nn.functional.conv2d(image, read.layers["c"].weight_update()), stepwise)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("lora_unet_a_b.lora_up.weight"), r"has A \(down\) but no B \(up\)"),
        (lambda s: s["lora_unet_a_b.lora_up.weight"].fill_(math.nan), "NaN"),
        (lambda s: s.update({"lora_unet_a_b.lora_up.weight": torch.ones(3, 4)}), "ranks of its factors differ"),
        (lambda s: s.update({"lora_unet_a_b.hada_w1_a": torch.ones(1)}), "factors of two kinds"),
        (
            lambda s: s.update({"x.hada_w1_a": torch.ones(3, 2)}),
            "x has no hada_w1_b, which goes with its other factors",
        ),
        (lambda s: s.update({"x.vera_lambda_b": torch.ones(1)}), "unsupported tuner VeRA"),
        (lambda s: s.update({"lora_unet_a_b.lora_up.weight": torch.ones(3, 2).to(torch.int8)}), "quantised"),
        (lambda s: s.clear(), "no LoRA among"),
    ],
)
def test_damage_is_named(spoil, message):
    state = kohya()
    spoil(state)
    with pytest.raises(CosetError, match=message):
        load_lora(state)


def test_configuration_must_agree_with_the_tensors():
    state = {"a.lora_A.weight": torch.ones(4, 5), "a.lora_B.weight": torch.ones(3, 4)}
    with pytest.raises(CosetError, match=r"a has rank 4, but adapter_config\.json says 8"):
        load_lora(state, {"r": 8, "lora_alpha": 8})
    with pytest.raises(CosetError, match="unsupported tuner VERA"):
        load_lora(state, {"peft_type": "VERA"})
    assert any("pissa" in note for note in load_lora(state, {"r": 4, "init_lora_weights": "pissa"}).notes)


def test_several_adapters_need_a_choice():
    state = {f"a.lora_{ab}.{name}.weight": torch.ones(2, 2) for ab in "AB" for name in ("x", "y")}
    with pytest.raises(CosetError, match=r"several adapters \(x, y\)"):
        load_lora(state)
    assert list(load_lora(state, adapter="y").layers) == ["a"]


def test_truncated_and_missing_files_give_one_line(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(safetensors.save(kohya())[:-9])
    with pytest.raises(CosetError, match="truncated"):
        load_lora(file)
    with pytest.raises(CosetError, match="does not exist"):
        load_lora(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CosetError, match="no adapter"):
        load_lora(tmp_path / "empty")
    (tmp_path / "empty" / "adapter_config.json").write_text(json.dumps({"r": 2}))
    with pytest.raises(CosetError, match="incomplete"):
        load_lora(tmp_path / "empty")


def test_pickles_with_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"a": Evil()}, tmp_path / "adapter_model.bin")
    with pytest.raises(CosetError, match="cannot be read"):
        load_lora(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_an_untrained_adapter_is_noted():
    state = kohya()
    state["lora_unet_a_b.lora_up.weight"].zero_()
    assert any("never trained" in note for note in load_lora(state).notes)


@pytest.mark.parametrize("kind", ["plain", "patterns", "embedding", "conv"])
def test_written_for_peft_it_is_read_by_peft(kind, tmp_path):
    model = trained(peft.LoraConfig(**CONFIGS[kind]))
    adapter = load_lora(model)
    save_peft(adapter, tmp_path)
    loaded = peft.PeftModel.from_pretrained(Net(), str(tmp_path))
    assert_equals_peft(adapter, loaded)


def test_written_as_kohya_it_reads_the_same(tmp_path):
    name = "unet.down_blocks.0.resnets.0.conv1"
    adapter = load_lora(trained(peft.LoraConfig(**CONFIGS["conv"])))
    adapter = replace(adapter, layers={name: adapter.layers["conv"]})
    again = load_lora(save_kohya(adapter, tmp_path / "x.safetensors"))
    found = again.layers["lora_unet_down_blocks_0_resnets_0_conv1"]
    torch.testing.assert_close(found.weight_update(), adapter.layers[name].weight_update())


def mlx(folder, config):
    g = torch.Generator().manual_seed(0)
    layer = "model.layers.0.self_attn.q_proj"
    a, b = torch.randn(6, 2, generator=g), torch.randn(2, 4, generator=g)
    folder.mkdir()
    safetensors.save_file({f"{layer}.lora_a": a, f"{layer}.lora_b": b}, folder / "adapters.safetensors")
    safetensors.save_file({f"{layer}.lora_a": a, f"{layer}.lora_b": 0 * b}, folder / "0000100_adapters.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return layer, (a @ b).T


def test_an_adapter_of_mlx_becomes_one_of_peft(tmp_path):
    layer, product = mlx(tmp_path / "mlx", {"model": "some/base", "lora_parameters": {"rank": 2, "scale": 10.0}})
    read = load_lora(tmp_path / "mlx")
    assert (read.source_format, read.base_model, read.obstacles) == ("mlx", "some/base", ())
    save_peft(read, tmp_path / "peft")
    again = load_lora(tmp_path / "peft")
    assert again.base_model == "some/base"
    torch.testing.assert_close(again.layers[layer].weight_update(), 10 * product)
    one = load_lora(tmp_path / "mlx" / "0000100_adapters.safetensors")
    assert one.layers[layer].scale == 10
    assert "every update is zero" in " ".join(one.notes)


def test_an_adapter_of_mlx_without_its_scale_has_none(tmp_path):
    layer, product = mlx(tmp_path / "mlx", {"lora_parameters": {"rank": 2}})
    assert "--alpha says it" in load_lora(tmp_path / "mlx").obstacles[0]
    torch.testing.assert_close(load_lora(tmp_path / "mlx", alpha=6.0).layers[layer].weight_update(), 3 * product)
