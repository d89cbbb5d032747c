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


WORDS = [f"w{i}" for i in range(6)]
SWAPPED = ["w1", "w0", *WORDS[2:]]


SMALL = {"num_key_value_heads": 1, "max_position_embeddings": 8}
SAVED_BY = {  # the same network, as other releases say it
    "rotations": ({"rope_theta": 1e4, "rope_scaling": None},
                  {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}),
    "rotations by default": ({}, {"rope_theta": 1e4}),
    "stretched": ({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
                  {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}}),
    "width of heads": ({"head_dim": 2}, {}),
    "groups of heads": ({"num_key_value_heads": 2}, {"num_key_value_heads": None}),
    "no window": ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 4096},
                  {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": None}),
}  # fmt: skip
APART = {
    "rotations": ({"rope_theta": 1e4}, {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_"),
    "stretched": ({"rope_theta": 1e4}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_"),
    "width of heads": ({"head_dim": 4}, {}, "x: head_dim=2, but .*a has head_dim=4"),
    "a kind that nobody knows": ({"model_type": "own"}, {"model_type": "own", "head_dim": 2}, "x: head_dim=2, but"),
}  # fmt: skip


def saved(folder, seed, settings):
    """With settings as said, those that are None left out."""
    model(folder, seed)
    config = {k: v for k, v in (CONFIG | SMALL | settings).items() if v is not None or k not in SMALL}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", SAVED_BY)
def test_one_network_saved_by_several_releases(kind, tmp_path):
    pytest.importorskip("transformers", minversion="5")  # which alone knows all these names
    first, second = (saved(tmp_path / n, i, said) for i, (n, said) in enumerate(zip("ax", SAVED_BY[kind], strict=True)))
    _, facts, _ = merged(tmp_path, first, second)
    assert facts["notes"] == []


@pytest.mark.parametrize("kind", APART)
def test_settings_that_differ_whatever_they_are_called(kind, tmp_path):
    *settings, said = APART[kind]
    first, second = (saved(tmp_path / n, i, own) for i, (n, own) in enumerate(zip("ax", settings, strict=True)))
    with pytest.raises(CosetError, match=said):
        merged(tmp_path, first, second)


@pytest.mark.parametrize("key", ["rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"])
def test_other_epsilons_of_norms_are_told(key, tmp_path):
    first, second = (model(tmp_path / n, i, config={key: 10.0 ** -(6 - i)}) for i, n in enumerate("ab"))
    _, facts, _ = merged(tmp_path, first, second)
    (note,) = facts["notes"]
    assert note.startswith(f"{key} is 1e-06 in ")
    assert note.endswith("the first is kept")


def poisoned(folder):
    name = "model.norm.weight"
    tensors = safetensors.load_file(folder / "model.safetensors")
    tensors[name][0] = torch.nan
    safetensors.save_file(tensors, folder / "model.safetensors")
    return folder


BASES = {
    "missing": (lambda at: at / "x", "x is not a folder"),
    "of more words": (lambda at: model(at / "x", 2, config={"vocab_size": 7}), "x: vocab_size=7, but .*a has vocab_s"),
    "wider": (lambda at: model(at / "x", 2, config={"hidden_size": 8}), "x: hidden_size=8, but .*a has hidden_size=4"),
    "deeper": (lambda at: model(at / "x", 2, config={"num_hidden_layers": 2}), "x: num_hidden_layers=2, but"),
    "of another kind": (lambda at: model(at / "x", 2, config={"model_type": "bert"}), "x: model_type=bert, but"),
    "other rotations": (lambda at: model(at / "x", 2, config={"rope_theta": 5e5}), "x: rope_"),
    "lacking a tensor": (lambda at: model(at / "x", 2, ("model.norm.weight",)), r"x lacks model\.norm\.weight"),
    "another shape": (lambda at: model(at / "x", 2, **{"model.norm.weight": torch.ones(1)}),
                      r"x: model\.norm\.weight has shape \(1,\), .*a \(4,\)"),
    "not finite": (lambda at: poisoned(model(at / "x", 2)), r"model\.norm\.weight holds numbers that are not finite"),
    "whole numbers": (lambda at: model(at / "x", 2, dtype=torch.int8), "is stored as I8: quantised models cannot"),
    "other tokens": (lambda at: with_files(model(at / "x", 2), {"vocab.json": numbered(SWAPPED)}), "another vocabula"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BASES)
def test_a_base_that_does_not_fit_is_told_before_work_starts(kind, tmp_path):
    make, said = BASES[kind]
    first = with_files(model(tmp_path / "a"), {"vocab.json": numbered(WORDS)})
    make(tmp_path)
    for work in (merge_file.check, merge_file.run):
        with pytest.raises(CosetError, match=said):
            work(on_base(tmp_path, first, "ties"))
        assert not list(tmp_path.glob("*out*"))


def on_base(folder, first, method):
    (folder / "merge.yaml").write_text(
        f"merge_method: {method}\nmodels:\n  - model: {first}\nbase_model: x\noutput: out"
    )
    return merge_options.load(folder / "merge.yaml")


def test_the_only_model_of_a_base_is_looked_at(tmp_path):
    first = poisoned(model(tmp_path / "a"))
    model(tmp_path / "x", 2)
    with pytest.raises(CosetError, match="not finite"):
        merge_file.check(on_base(tmp_path, first, "task_arithmetic"))


def test_a_base_may_hold_more_and_methods_without_one_leave_it_alone(tmp_path):
    first = model(tmp_path / "a")
    model(tmp_path / "x", 2, **{"visual.weight": torch.ones(2)})
    merge_file.run(on_base(tmp_path, first, "task_arithmetic"))
    for name, value in safetensors.load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(value, safetensors.load_file(first / "model.safetensors")[name])
    (tmp_path / "new").mkdir()
    _, facts, _ = merged(tmp_path / "new", first, model(tmp_path / "b", 1), base_model="nowhere")
    assert "merge_method=linear does not look at base_model, which is left unread" in facts["notes"]


def tokenizer(words=WORDS, merges=(), added=(), kind="BPE"):
    """The text of a ``tokenizer.json``."""
    vocabulary = {word: i for i, word in enumerate(words)}
    tokens = [{"id": i, "content": word, "special": True} for i, word in added]
    return json.dumps({"model": {"type": kind, "vocab": vocabulary, "merges": list(merges)}, "added_tokens": tokens})


def numbered(words):
    return json.dumps({word: i for i, word in enumerate(words)})


def decoder(word):
    return json.dumps({"added_tokens_decoder": {"5": {"content": word}}})


ANOTHER = "is another vocabulary than"
OTHER_WORDS = {  # files of the first folder, of the second, and what is said
    "vocab.json": ({"vocab.json": numbered(WORDS)}, {"vocab.json": numbered(SWAPPED)}, rf"x/vocab\.json {ANOTHER}"),
    "merges.txt": ({"merges.txt": "#version: 0.2\na b\n"}, {"merges.txt": "b a\n"}, rf"x/merges\.txt {ANOTHER}"),
    "tokenizer.model": ({"tokenizer.model": "one"}, {"tokenizer.model": "other"}, rf"x/tokenizer\.model {ANOTHER}"),
    "spiece.model": ({"spiece.model": "one"}, {"spiece.model": "other"}, rf"x/spiece\.model {ANOTHER}"),
    "source.spm": ({"source.spm": "one"}, {"source.spm": "other"}, rf"x/source\.spm {ANOTHER}"),
    "tiktoken": ({"qwen.tiktoken": "one"}, {"qwen.tiktoken": "other"}, rf"x/qwen\.tiktoken {ANOTHER}"),
    "merges in tokenizer.json": ({"tokenizer.json": tokenizer(merges=["w0 w1"])},
                                 {"tokenizer.json": tokenizer(merges=["w1 w0"])}, ANOTHER),
    "files of two kinds": ({"vocab.txt": "\n".join(WORDS)}, {"tokenizer.json": tokenizer(SWAPPED)},
                           r"x/tokenizer\.json is another vocabulary than .*a/vocab\.txt"),
    "added tokens": ({"tokenizer.json": tokenizer(WORDS[:5], added=[(5, "<im>")])},
                     {"tokenizer.json": tokenizer(WORDS[:5], added=[(5, "<tool>")])}, "token 5 is '<tool>', but in .*"),
    "added_tokens.json": ({"added_tokens.json": '{"<im>": 5}'}, {"tokenizer_config.json": decoder("<tool>")},
                          "x: token 5 is '<tool>', but in .*a it is '<im>'"),
}  # fmt: skip


def with_files(folder, files):
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("kind", OTHER_WORDS)
def test_the_same_number_has_to_be_the_same_word(kind, tmp_path):
    """Whichever files say so."""
    own, other, said = OTHER_WORDS[kind]
    first = with_files(model(tmp_path / "a"), own)
    second = with_files(model(tmp_path / "x", 1), other)
    with pytest.raises(CosetError, match=said):
        merged(tmp_path, first, second)
    assert not (tmp_path / "out").exists()


def test_the_same_words_in_other_files(tmp_path):
    """Merges as texts and as pairs, ends of lines, a version; a token that one alone has is told."""
    own = {"tokenizer.json": tokenizer(WORDS[:5], ["w0 w1"]), "tokenizer_config.json": "{}"}
    pairs = tokenizer(WORDS[:5], [["w0", "w1"]], added=[(5, "<im>"), (4, "w4")])
    for n, other in enumerate((
        {"tokenizer.json": pairs},
        {"vocab.json": numbered(WORDS[:5]), "merges.txt": "#version: 0.2\nw0 w1\n", "added_tokens.json": '{"<im>": 5}'},
        {"vocab.txt": "\r\n".join(WORDS[:5]) + "\r\n", "tokenizer_config.json": decoder("<im>")},
    )):  # fmt: skip
        (tmp_path / str(n)).mkdir()
        first, second = (with_files(model(tmp_path / str(n) / k, n), f) for k, f in (("a", own), ("x", other)))
        _, facts, _ = merged(tmp_path / str(n), first, second)
        assert [note for note in facts["notes"] if "'<im>' of" in note and "whose tokenizer is kept" in note]


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


def test_what_texts_and_pictures_are_read_with_is_copied(tmp_path):
    names = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model", "qwen.tiktoken",
             "source.spm", "bpe.codes", "prophetnet.tokenizer",
             "processor_config.json", "preprocessor_config.json", "chat_template.json")  # fmt: skip
    first = with_files(model(tmp_path / "a [1]"), dict.fromkeys(names, "{}"))
    (first / "notes.txt").write_text("mine")
    merged(tmp_path, first, model(tmp_path / "b", 1))
    copied = {file.name for file in (tmp_path / "out").iterdir()}
    assert copied == {*names, "config.json", "model.safetensors", "merge.json", "README.md"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_numbers_keep_their_type_or_take_that_asked_for(dtype, tmp_path):
    a, b = (model(tmp_path / n, i, dtype=dtype) for i, n in enumerate("ab"))
    found, _, _ = merged(tmp_path, a, b, dtype="bfloat16")
    one, two = (safetensors.load_file(x / "model.safetensors") for x in (a, b))
    for name, value in found.items():
        assert value.dtype == torch.bfloat16
        wanted = ((one[name].double() + two[name].double()) / 2).float().bfloat16()
        torch.testing.assert_close(value, wanted, rtol=0.008, atol=0)
