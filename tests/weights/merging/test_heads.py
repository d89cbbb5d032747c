"""Heads of tasks: side by side, averaged, or each kept; for sequences, tokens and spans, of several families."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from coset.core.errors import CosetError
from coset.weights.merging import checkpoints, merge_file, writing
from coset.weights.merging.merge_options import load

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20,
         "max_position_embeddings": 16}  # fmt: skip


def saved(folder, kind, seed, config="BertConfig", **changes):
    torch.manual_seed(seed)
    made = getattr(transformers, kind)(getattr(transformers, config)(**(SIZES | changes)))
    made.save_pretrained(folder)
    return made


def merged(folder, **text):
    names = text.pop("names", ("a", "b"))
    models = [{"model": name} for name in names]
    file = {"merge_method": "linear", "models": models, "output": "out", **text}
    (folder / "merge.yaml").write_text(yaml.safe_dump(file))
    return load(folder / "merge.yaml")


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def test_heads_of_spans_are_averaged_or_kept(tmp_path):
    made = {n: saved(tmp_path / n, "BertForQuestionAnswering", i) for i, n in enumerate("ab")}
    first, second = (made[n].qa_outputs.weight for n in "ab")
    merge_file.run(merged(tmp_path))
    torch.testing.assert_close(tensors_of(tmp_path / "out")["qa_outputs.weight"], (first + second) / 2)
    merge_file.run(merged(tmp_path, heads="keep", output="kept"))
    assert torch.equal(tensors_of(tmp_path / "kept")["qa_outputs.weight"], first)
    heads = load_file(tmp_path / "kept" / "heads.safetensors")
    assert torch.equal(heads["a.qa_outputs.weight"], first)
    assert torch.equal(heads["b.qa_outputs.weight"], second)
    assert transformers.BertForQuestionAnswering.from_pretrained(tmp_path / "kept").config.num_labels == 2
    with pytest.raises(CosetError, match="whose heads cannot stand side by side"):
        merge_file.run(merged(tmp_path, heads="join", output="joined"))


def test_tags_are_joined_where_that_is_asked_for(tmp_path):
    for i, n in enumerate("ab"):
        saved(tmp_path / n, "BertForTokenClassification", i, num_labels=3 + i)
    with pytest.raises(CosetError, match="heads of other classes have no average"):
        merge_file.run(merged(tmp_path))
    merge_file.run(merged(tmp_path, heads="join"))
    assert tensors_of(tmp_path / "out")["classifier.weight"].shape == (7, 8)
    assert transformers.BertForTokenClassification.from_pretrained(tmp_path / "out").config.num_labels == 7
    merge_file.run(merged(tmp_path, heads="keep", output="kept"))
    assert tensors_of(tmp_path / "kept")["classifier.weight"].shape == (3, 8)
    assert load_file(tmp_path / "kept" / "heads.safetensors")["b.classifier.weight"].shape == (4, 8)


def test_the_same_classes_in_another_order_have_no_average(tmp_path):
    labels = {0: "good", 1: "bad"}
    saved(tmp_path / "a", "BertForSequenceClassification", 0, id2label=labels)
    saved(tmp_path / "b", "BertForSequenceClassification", 1, id2label={0: "bad", 1: "good"})
    with pytest.raises(CosetError, match=r"its classes are bad, good, those of .* good, bad"):
        merge_file.run(merged(tmp_path, heads="average"))


@pytest.mark.parametrize(
    ("kind", "config", "last", "more"),
    [
        ("RobertaForSequenceClassification", "RobertaConfig", "classifier.out_proj", {}),
        ("LlamaForSequenceClassification", "LlamaConfig", "score", {"pad_token_id": 0}),
        ("DistilBertForSequenceClassification", "DistilBertConfig", "classifier",
         {"dim": 8, "hidden_dim": 12, "n_layers": 1, "n_heads": 2}),
    ],
)  # fmt: skip
def test_heads_of_other_families_are_kept_whole(kind, config, last, more, tmp_path):
    made = {n: saved(tmp_path / n, kind, i, config, num_labels=2 + i, **more) for i, n in enumerate("ab")}
    merge_file.run(merged(tmp_path, heads="keep"))
    heads = load_file(tmp_path / "out" / "heads.safetensors")
    for name, model in made.items():
        own = {k: v for k, v in model.state_dict().items() if k.startswith(checkpoints.HEADS)}
        assert {k.removeprefix(f"{name}.") for k in heads if k.startswith(f"{name}.")} == set(own)
        assert all(torch.equal(heads[f"{name}.{k}"], v) for k, v in own.items())
    merge_file.run(merged(tmp_path, heads="join", output="joined"))
    assert len(tensors_of(tmp_path / "joined")[f"{last}.weight"]) == 5


def test_files_of_pytorch_give_the_same_and_run_nothing(tmp_path):
    for i, n in enumerate("ab"):
        model = saved(tmp_path / n, "BertForSequenceClassification", i)
        (tmp_path / f"{n}-bin").mkdir()
        model.config.save_pretrained(tmp_path / f"{n}-bin")
        torch.save(model.state_dict(), tmp_path / f"{n}-bin" / "pytorch_model.bin")
    merge_file.run(merged(tmp_path))
    merge_file.run(merged(tmp_path, names=("a-bin", "b-bin"), output="from-bin"))
    ours, theirs = (tensors_of(tmp_path / n) for n in ("out", "from-bin"))
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    torch.save({"x": os.system}, tmp_path / "b-bin" / "pytorch_model.bin")
    with pytest.raises(CosetError, match="holds more than tensors"):
        merge_file.run(merged(tmp_path, names=("a-bin", "b-bin"), output="no"))


def texts(tmp_path, words):
    (tmp_path / "x.txt").write_text("\n".join(words))
    return {"models": [{"model": n, "inputs": "x.txt"} for n in "ab"], "merge_method": "regmean"}


def with_tokenizer(folder):
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c")
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


def test_texts_are_cut_at_the_last_position_and_check_tells_what_is_too_long(tmp_path):
    for i, n in enumerate("ab"):
        saved(tmp_path / n, "BertForSequenceClassification", i)
        with_tokenizer(tmp_path / n)
    file = texts(tmp_path, ["a b c " * 20, "c b"])
    assert merge_file.run(merged(tmp_path, **file))["merge"]["parameters"]["tokens"] is None
    with pytest.raises(CosetError, match=r"parameters\.tokens=64, but .* has 16 positions"):
        merge_file.check(merged(tmp_path, **file, parameters={"tokens": 64}, output="no"))
    for said, ids in (("has 17 tokens a sample", torch.ones(2, 17)), ("has the token 20", torch.full((2, 4), 20))):
        save_file({"input_ids": ids.long()}, tmp_path / "x.safetensors")
        file["models"] = [{"model": n, "inputs": "x.safetensors"} for n in "ab"]
        with pytest.raises(CosetError, match=said):
            merge_file.check(merged(tmp_path, **file, output="no"))


def test_a_tokenizer_with_code_is_not_run(tmp_path):
    for i, n in enumerate("ab"):
        saved(tmp_path / n, "BertForSequenceClassification", i)
        (tmp_path / n / "own.py").write_text("raise SystemExit('run')\nclass Own: pass\n")
        config = '{"auto_map": {"AutoTokenizer": ["own.Own", null]}, "tokenizer_class": "Own"}'
        (tmp_path / n / "tokenizer_config.json").write_text(config)
    with pytest.raises(CosetError, match="has no tokenizer for the texts of"):
        merge_file.check(merged(tmp_path, **texts(tmp_path, ["a"])))


def test_check_tells_of_an_output_that_is_there_and_of_a_full_disk(tmp_path, monkeypatch):
    for i, n in enumerate("ab"):
        saved(tmp_path / n, "BertForSequenceClassification", i)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    with pytest.raises(CosetError, match="there exists already"):
        merge_file.check(merged(tmp_path, output="there"))
    usage = merge_file.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(merge_file.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CosetError, match="MB left"):
        merge_file.check(merged(tmp_path))


def test_numbers_that_a_type_does_not_hold_are_not_written(tmp_path):
    for i, n in enumerate("ab"):
        model = saved(tmp_path / n, "BertForSequenceClassification", i)
        model.bert.encoder.layer[0].output.dense.weight.data[0, 0] = 1e5
        model.save_pretrained(tmp_path / n)
    with pytest.raises(
        CosetError, match=r"the merged bert\.encoder\.layer\.0\.output\.dense\.weight is beyond float16"
    ):
        merge_file.run(merged(tmp_path, dtype="float16"))
    assert not (tmp_path / "out").exists()
    merge_file.run(merged(tmp_path, dtype="bfloat16"))


def test_memory_that_is_not_there_is_told(tmp_path, monkeypatch):
    for i, n in enumerate("ab"):
        saved(tmp_path / n, "BertForSequenceClassification", i)
    monkeypatch.setattr(merge_file, "memory_free", lambda: 1000)
    save_file({"input_ids": torch.ones(2, 4).long()}, tmp_path / "x.safetensors")
    models = [{"model": n, "inputs": "x.safetensors"} for n in "ab"]
    lines = merge_file.check(merged(tmp_path, models=models, merge_method="regmean"))
    assert any("more than the 0 MB that are free" in line for line in lines)


def test_the_card_begins_with_what_hubs_read(tmp_path):
    for i, n in enumerate("ab"):
        saved(tmp_path / n, "BertForSequenceClassification", i)
    merge_file.run(merged(tmp_path))
    _, head, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(head)
    assert about["library_name"] == "transformers"
    assert about["base_model_relation"] == "merge"
    assert about["base_model"] == [str(tmp_path / n) for n in "ab"]
    assert about["tags"] == ["merge", "linear"]
    assert body.lstrip().startswith("# Merged: a, b")


def slow_merge(folder, begun):
    def slowly(*_, **__):
        begun.set()
        time.sleep(60)

    writing.write_shards = slowly
    merge_file.run(merged(folder))


def test_after_a_merge_was_killed_the_next_one_runs(tmp_path):
    for i, n in enumerate("ab"):
        saved(tmp_path / n, "BertForSequenceClassification", i)
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()
    process = fork.Process(target=slow_merge, args=(tmp_path, begun))
    process.start()
    assert begun.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "out").exists()
    merge_file.run(merged(tmp_path))
    assert tensors_of(tmp_path / "out")
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
