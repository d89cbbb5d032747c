"""Slices that repeat, drop or move layers: what comes out is the network that its layers make, one above the other."""

import json

import pytest
import torch
from safetensors.torch import load_file

from coset.core.errors import CosetError
from coset.weights.merging import merge_file
from coset.weights.merging.merge_options import load
from coset.weights.merging.methods import MERGE_METHODS
from coset.weights.merging.mixing import Values

transformers = pytest.importorskip("transformers")
SIZES = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 12,
    "vocab_size": 20,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        config = transformers.Qwen2Config(**SIZES, num_hidden_layers=4, layer_types=["full_attention"] * 4)
        model = transformers.Qwen2ForCausalLM(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture
def merged(models, tmp_path):
    def run(text):
        for name in "ab":
            text = text.replace(f"model: {name}", f"model: {models / name}")
        (tmp_path / "merge.yaml").write_text(f"{text}\noutput: out\n")
        merge = load(tmp_path / "merge.yaml")
        said = merge_file.check(merge)
        merge_file.run(merge)
        return tmp_path / "out", said

    return run


def hidden(models, layers, first, last):
    """Logits of a network of layers (model, number), embedded by one model and read out by another."""
    loaded = {name: transformers.Qwen2ForCausalLM.from_pretrained(models / name) for name in "ab"}
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**SIZES, num_hidden_layers=len(layers), layer_types=["full_attention"] * len(layers))
    )
    for layer, (name, number) in zip(model.model.layers, layers, strict=True):
        layer.load_state_dict(loaded[name].model.layers[number].state_dict())
    model.model.embed_tokens.load_state_dict(loaded[first].model.embed_tokens.state_dict())
    model.model.norm.load_state_dict(loaded[last].model.norm.state_dict())
    model.lm_head.load_state_dict(loaded[last].lm_head.state_dict())
    return model(torch.arange(9)[None]).logits


STACKS = {
    "{sources: [{model: a, layer_range: [0, 3]}]}, {sources: [{model: b, layer_range: [1, 4]}]}":
        ([*(("a", n) for n in (0, 1, 2)), *(("b", n) for n in (1, 2, 3))], "a", "b"),
    "{sources: [{model: a, layer_range: [0, 3]}]}, {sources: [{model: a, layer_range: [1, 4]}]}":
        ([("a", n) for n in (0, 1, 2, 1, 2, 3)], "a", "a"),
    "{sources: [{model: b, layer_range: [0, 2]}]}": ([("b", 0), ("b", 1)], "b", "b"),
    "{sources: [{model: a, layer_range: [2, 4]}]}, {sources: [{model: a, layer_range: [0, 2]}]}":
        ([("a", n) for n in (2, 3, 0, 1)], "a", "a"),
}  # fmt: skip


@pytest.mark.parametrize("slices", STACKS)
def test_layers_one_above_the_other(slices, merged, models):
    layers, first, last = STACKS[slices]
    folder, said = merged(f"slices: [{slices}]\nmerge_method: passthrough")
    assert f"layers: {len(layers)}, of 4" in said or len(layers) == 4
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_hidden_layers"], len(config["layer_types"])) == (len(layers),) * 2
    found = transformers.Qwen2ForCausalLM.from_pretrained(folder)(torch.arange(9)[None]).logits
    torch.testing.assert_close(found, hidden(models, layers, first, last))


def test_layers_that_are_moved_are_merged_with_settings_of_their_slice(merged, models):
    folder, _ = merged(
        "slices:\n"
        "- sources: [{model: a, layer_range: [0, 2]}]\n"
        "- sources: [{model: a, layer_range: [2, 3], parameters: {weight: 3}}, {model: b, layer_range: [1, 2]}]\n"
        "merge_method: linear\nparameters: {weight: 1}"
    )
    a, b, found = (load_file(place / "model.safetensors") for place in (models / "a", models / "b", folder))
    name = "model.layers.{}.mlp.up_proj.weight"
    torch.testing.assert_close(found[name.format(0)], a[name.format(0)])
    torch.testing.assert_close(found[name.format(2)], 0.75 * a[name.format(2)] + 0.25 * b[name.format(1)])
    torch.testing.assert_close(found["lm_head.weight"], 0.75 * a["lm_head.weight"] + 0.25 * b["lm_head.weight"])
    torch.testing.assert_close(found["model.embed_tokens.weight"], a["model.embed_tokens.weight"])


REFUSED = {
    "slices: [{sources: [{model: a, layer_range: [0, 5]}]}]\nmerge_method: passthrough": "ends at 5, .* has 4 layers",
    "slices: [{sources: [{model: a, layer_range: [3, 2]}]}]\nmerge_method: linear": r"\[3, 2\]: two numbers",
    "slices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]}]\n"
    "merge_method: passthrough": "takes 1 models in a slice, not 2",
    "slices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]}]\n"
    "merge_method: slerp_global": "go with methods that go tensor by tensor",
    "slices: [{sources: [{model: a, layer_range: [1, 3]}]}]\nmerge_method: ties\nbase_model: b":
        "layers of a base are not moved",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_stacked_is_said(text, merged, tmp_path, models):
    with pytest.raises(CosetError, match=REFUSED[text]):
        merged(text.replace("base_model: b", f"base_model: {models / 'b'}"))
    assert not (tmp_path / "out").exists()


def test_of_two_lists_of_layers_none_is_moved(tmp_path, merged):
    sizes = {"d_model": 8, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "vocab_size": 20}
    config = transformers.BartConfig(**sizes, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8)
    transformers.BartModel(config).save_pretrained(tmp_path / "bart")
    text = f"slices: [{{sources: [{{model: {tmp_path / 'bart'}, layer_range: [0, 1]}}]}}]\nmerge_method: passthrough"
    with pytest.raises(CosetError, match=r"one list of layers; .* has decoder.layers, encoder.layers"):
        merged(text)


TOLD = {
    "merge_method: linear\nmodels: [{model: a}]\nalign_weights: zipit": "unknown key align_weights='zipit'",
    "merge_method: linear\nmodels: [{model: a}]\n---\nmerge_method: linear\nmodels: [{model: b}]": "several merges",
    "base_model: a\ngate_mode: hidden\nexperts: [{source_model: a}]": "mixtures of experts are not made here",
    "merge_method: linear\nmodels: [{model: a}]\nparameters: {t: [{pattern: mlp, value: 1}]}":
        "parameters.t: a number, a list of numbers, or a list of filter and value was expected",
    "merge_method: lrp\nmodels: [{model: a}]": "merge_method: 'lrp' is no method of ours: choose from .*ties",
    "models: [{model: a}]": "merge_method is missing",
}  # fmt: skip


@pytest.mark.parametrize("text", TOLD)
def test_mistakes_in_files_are_told_with_their_keys(text, tmp_path):
    (tmp_path / "merge.yaml").write_text(text)
    with pytest.raises(CosetError, match=TOLD[text]) as told:
        load(tmp_path / "merge.yaml")
    assert len(str(told.value).splitlines()) == 1


def test_an_adapter_behind_a_plus_is_told_how_to_be_put_in(models, tmp_path):
    (tmp_path / "merge.yaml").write_text(f"merge_method: linear\nmodels: [{{model: {models}/a+mine}}, {{model: b}}]")
    with pytest.raises(CosetError, match=r"coset lora apply .*a mine OUTPUT"):
        merge_file.check(load(tmp_path / "merge.yaml"))


def test_keys_without_a_value_are_those_that_are_not_there(tmp_path):
    text = "models:\n- model: a\n  parameters:\n- model: b\nmerge_method: linear\nparameters:\nout_path: there"
    (tmp_path / "merge.yaml").write_text(text)
    found = load(tmp_path / "merge.yaml")
    assert found.parameters == load_default(tmp_path)
    assert found.output == str(tmp_path / "there")


def load_default(folder):
    (folder / "plain.yaml").write_text("models: [{model: a}, {model: b}]\nmerge_method: linear")
    return load(folder / "plain.yaml").parameters


def mixed(name, tensors, base=None, **values):
    begin = None if base is None else {"x": base}
    chosen = Values.of(len(tensors), **values)
    return MERGE_METHODS[name].mix([{"x": t} for t in tensors], begin, lambda _: chosen, 0)("x")


@pytest.mark.parametrize("row_wise", [False, True])
def test_an_angle_for_each_row_is_slerp_row_by_row(row_wise):
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 3)
    b[2] = 2 * a[2]  # parallel: in a straight line
    found = mixed("nuslerp", [a, b], weight=[1.0, 3.0], flatten=False, row_wise=row_wise)
    turned = (lambda x: x.T) if row_wise else (lambda x: x)
    pairs = zip(turned(a), turned(b), strict=True)
    rows = [mixed("nuslerp", [x, y], weight=[1.0, 3.0]) for x, y in pairs]
    torch.testing.assert_close(turned(found), torch.stack(rows))


def test_a_cosine_for_each_row_is_model_stock_row_by_row():
    torch.manual_seed(0)
    base, a, b = torch.randn(3, 5, 3)
    b[1] = 2 * base[1] - a[1]  # opposed: the base stays
    found = mixed("model_stock", [a, b], base, filter_wise=True)
    rows = [mixed("model_stock", [x, y], z) for x, y, z in zip(a, b, base, strict=True)]
    torch.testing.assert_close(found, torch.stack(rows))
    torch.testing.assert_close(found[1], base[1])
