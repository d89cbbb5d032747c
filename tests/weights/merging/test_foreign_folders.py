"""Folders that people have: what can be merged is right, what cannot is told in one line, and nothing is written."""

import json

import pytest
import torch

from coset.core.errors import CosetError
from coset.weights.merging import merge_file, merge_options
from coset.weights.merging.checkpoints import is_finite

safetensors = pytest.importorskip("safetensors.torch")

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4, "num_attention_heads": 2,
          "num_hidden_layers": 1, "vocab_size": 6}  # fmt: skip
NAMES = {"model.embed_tokens.weight": (6, 4), "model.layers.0.mlp.up_proj.weight": (8, 4), "model.norm.weight": (4,),
         "lm_head.weight": (6, 4)}  # fmt: skip


def model(folder, seed=0, lacking=(), config=None, dtype=torch.float32, **tensors):
    generator = torch.Generator().manual_seed(seed)
    state = {n: torch.randn(*s, generator=generator).to(dtype) for n, s in NAMES.items() if n not in lacking}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    safetensors.save_file(state | tensors, folder / "model.safetensors")
    return folder


def merged(folder, first, second, **settings):
    text = "\n".join(f"{key}: {value}" for key, value in settings.items())
    (folder / "merge.yaml").write_text(
        f"merge_method: linear\nmodels:\n  - model: {first}\n  - model: {second}\noutput: out\n{text}\n"
    )
    merge = merge_options.load(folder / "merge.yaml")
    lines = merge_file.check(merge)
    facts = merge_file.run(merge)
    return safetensors.load_file(folder / "out" / "model.safetensors"), facts, lines


TIED = {"tie_word_embeddings": True}


def test_two_models_with_one_parameter_for_embedding_and_last_map(tmp_path):
    a, b = (model(tmp_path / n, i, ("lm_head.weight",), TIED) for i, n in enumerate("ab"))
    found, _, _ = merged(tmp_path, a, b)
    assert "lm_head.weight" not in found
    one, two = (safetensors.load_file(x / "model.safetensors") for x in (a, b))
    for name, value in found.items():
        torch.testing.assert_close(value, (one[name] + two[name]) / 2)


def adapter(folder):
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


def gguf(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model-q4.gguf").write_bytes(b"GGUF")
    return folder


FOREIGN = {
    "tied beside untied": (lambda at: model(at / "x", 1, ("lm_head.weight",), TIED),
                           r"x lacks lm_head\.weight, which .*a has \(tie_word_embeddings: its last map is its"),
    "settings of a quantised model": (lambda at: model(at / "x", 1, config={"quantization_config": {"bits": 4}}),
                                      "has quantization_config: quantised models cannot be merged"),
    "eight bits": (lambda at: model(at / "x", 1, dtype=torch.float8_e4m3fn), "is stored as F8_E4M3: quantised"),
    "whole numbers": (lambda at: model(at / "x", 1, dtype=torch.int8), "is stored as I8: quantised models cannot"),
    "an adapter": (lambda at: adapter(at / "x"), "is an adapter, not a model: put it into its base first"),
    "GGUF beside a configuration": (lambda at: gguf(at / "x"), "but GGUF files, which are not read"),
    "a GGUF file": (lambda at: gguf(at / "x") / "model-q4.gguf", "GGUF files are not read, give the model as safeten"),
    "a file of weights": (lambda at: model(at / "x", 1) / "model.safetensors", "give the folder that it lies in"),
    "a name of a hub": (lambda at: "somebody/model-1B", "models are read from disk; one of a hub is downloaded first"),
    "more words": (lambda at: model(at / "x", 1, config={"vocab_size": 7}), "vocab_size=7, but .*a has vocab_size=6"),
    "a tensor more": (lambda at: model(at / "x", 1, **{"model.more.lora_A.weight": torch.ones(2)}),
                      r"a lacks model\.more\.lora_A\.weight, which .*x has"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_cannot_be_merged_is_told(kind, tmp_path):
    make, said = FOREIGN[kind]
    first = model(tmp_path / "a")
    with pytest.raises(CosetError, match=said):
        merged(tmp_path, first, make(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_found_however_they_add(value):
    large = torch.full((8, 4), 3e38)  # a sum of them is not finite, they are
    assert is_finite(large)
    spoilt = torch.full((8, 4), 1.0)
    spoilt[2, 1], spoilt[0, 0] = value, -value
    assert not is_finite(spoilt)
    assert is_finite(torch.full((300, 300), 6e4, dtype=torch.float16))
    assert not is_finite(spoilt.bfloat16())


def test_code_of_a_model_is_neither_run_nor_copied(tmp_path):
    folders = [model(tmp_path / n, i, config={"auto_map": {"AutoModel": "code.Model"}}) for i, n in enumerate("ab")]
    (tmp_path / "a" / "code.py").write_text("raise SystemExit")
    _, facts, _ = merged(tmp_path, *folders)
    assert any("auto_map" in note for note in facts["notes"])
    assert not (tmp_path / "out" / "code.py").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_numbers_keep_their_type_or_take_that_asked_for(dtype, tmp_path):
    a, b = (model(tmp_path / n, i, dtype=dtype) for i, n in enumerate("ab"))
    found, _, _ = merged(tmp_path, a, b, dtype="bfloat16")
    one, two = (safetensors.load_file(x / "model.safetensors") for x in (a, b))
    for name, value in found.items():
        assert value.dtype == torch.bfloat16
        wanted = ((one[name].double() + two[name].double()) / 2).float().bfloat16()
        torch.testing.assert_close(value, wanted, rtol=0.008, atol=0)
