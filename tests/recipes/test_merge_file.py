"""``coset merge``: folders in, a folder out; what is wrong is said in one line and leaves nothing behind."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from coset.cli import main
from coset.errors import CosetError
from coset.recipes import merge_file

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}


def vit(folder, seed, classes=3, shard="5GB", **changes):
    torch.manual_seed(seed)
    config = transformers.ViTConfig(**(SIZES | changes), image_size=8, patch_size=4, num_channels=1, num_labels=classes)
    transformers.ViTForImageClassification(config).save_pretrained(folder, max_shard_size=shard)


def bert(folder, seed, vocabulary=20, words=None, shard="5GB"):
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, vocab_size=vocabulary, max_position_embeddings=12, num_labels=2)
    transformers.BertForSequenceClassification(config).save_pretrained(folder, max_shard_size=shard)
    if words:
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")


@pytest.fixture
def pair(tmp_path):
    for s in range(2):
        vit(tmp_path / f"m{s}", s, 3 + s, shard="10KB")
        save_file(
            {"pixel_values": torch.randn(12, 1, 8, 8), "labels": torch.zeros(12).long()}, tmp_path / f"x{s}.safetensors"
        )
    return tmp_path


def written(folder, method="fs_merge", inputs="x", more="", parameters="steps: 4, rank: 2"):
    samples = [f", inputs: {inputs}{s}.safetensors" if inputs else "" for s in range(2)]
    (folder / "merge.yaml").write_text(
        f"merge_method: {method}\nmodels:\n"
        + "".join(f"  - {{model: m{s}{samples[s]}}}\n" for s in range(2))
        + f"parameters: {{{parameters}}}\noutput: out\nmax_shard_size: 10KB\n{more}",
        encoding="utf-8",
    )
    return folder / "merge.yaml"


METHODS = (
    "fs_merge", "linear", "slerp", "regmean", "weight_matching", "activation_matching", "zipit", "distillation"
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_the_output_is_an_ordinary_checkpoint(pair, method):
    facts = merge_file.run(merge_file.load(written(pair, method)))
    model = transformers.ViTForImageClassification.from_pretrained(pair / "out").eval()
    assert model.config.num_labels == 7
    assert model.config.id2label[3] == "m1: LABEL_0"
    x, y = (load_file(pair / "x1.safetensors")[k] for k in ("pixel_values", "labels"))
    with torch.no_grad():
        right = model(x).logits[:, 3:].argmax(1) == y
    assert facts["scores"]["m1"]["accuracy"] == pytest.approx(float(right.double().mean()))
    assert len(list((pair / "out").glob("model-*.safetensors"))) > 1
    assert "m0" in (pair / "out" / "README.md").read_text()
    assert not list(pair.glob(".out*"))


def test_linear_with_all_weight_on_one_is_that_one(pair):
    merge_file.run(merge_file.load(written(pair, "linear", parameters="weights: [0.0, 1.0]")))
    x = load_file(pair / "x0.safetensors")["pixel_values"]
    with torch.no_grad():
        a = transformers.ViTForImageClassification.from_pretrained(pair / "out").eval()(x).logits
        b = transformers.ViTForImageClassification.from_pretrained(pair / "m1").eval()(x).logits
    assert torch.allclose(a[:, 3:], b, atol=1e-6)


def test_fs_merge_begins_as_the_first_model(pair):
    """With a learning rate of next to nothing."""
    merge_file.run(merge_file.load(written(pair, parameters="steps: 1, rank: 2, learning_rate: 1.0e-12")))
    x = load_file(pair / "x0.safetensors")["pixel_values"]
    with torch.no_grad():
        a = transformers.ViTForImageClassification.from_pretrained(pair / "out").eval()(x).logits
        b = transformers.ViTForImageClassification.from_pretrained(pair / "m0").eval()(x).logits
    assert torch.allclose(a[:, :3], b, atol=1e-5)


def test_low_memory_gives_the_same(pair):
    states = []
    for low in ("false", "true"):
        chosen = written(pair, parameters=f"steps: 5, rank: 2, low_memory: {low}")
        merge = merge_file.load(chosen).model_copy(update={"output": str(pair / f"out-{low}")})
        merge_file.run(merge)
        states.append(transformers.ViTForImageClassification.from_pretrained(merge.output).state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-5), name


def test_task_arithmetic_needs_its_base(pair):
    with pytest.raises(CosetError, match="needs base_model"):
        merge_file.run(merge_file.load(written(pair, "task_arithmetic")))
    merge_file.run(merge_file.load(written(pair, "task_arithmetic", more="base_model: m0\n", parameters="scale: 1.0")))
    a = transformers.ViTForImageClassification.from_pretrained(pair / "out").vit.state_dict()
    b = transformers.ViTForImageClassification.from_pretrained(pair / "m1").vit.state_dict()
    assert all(torch.allclose(a[n], v, atol=1e-6) for n, v in b.items())


def test_texts_and_bert(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmno"]
    for s in range(2):
        bert(tmp_path / f"m{s}", s, words=words, shard="10KB")
        vocabulary = tmp_path / f"m{s}" / "vocab.txt"
        transformers.BertTokenizer(vocab=str(vocabulary)).save_pretrained(tmp_path / f"m{s}")
        (tmp_path / f"x{s}.txt").write_text("a b c\nd e f g\nh i\n", encoding="utf-8")
    text = written(tmp_path).read_text().replace(".safetensors", ".txt").replace("rank: 2", "rank: 2, tokens: 8")
    (tmp_path / "merge.yaml").write_text(text)
    merge_file.run(merge_file.load(tmp_path / "merge.yaml"))
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_labels == 4
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()


def test_models_without_heads(pair):
    for s in range(2):
        transformers.ViTModel.from_pretrained(pair / f"m{s}", add_pooling_layer=False).save_pretrained(pair / f"n{s}")
    path = written(pair)
    path.write_text(path.read_text().replace("model: m", "model: n"))
    merge_file.run(merge_file.load(path))
    transformers.ViTModel.from_pretrained(pair / "out", add_pooling_layer=False)
    assert {n: v.shape for n, v in load_file(pair / "out" / "heads.safetensors").items()} == {
        "n0": (16, 16),
        "n1": (16, 16),
    }


def corrupt(path):
    shard = sorted(path.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:40])


def lose_shard(path):
    sorted(path.glob("model-*.safetensors"))[0].unlink()


def first_with(path, name):
    index = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
    return path / index[name], name


def any_name(path):
    return next(n for n in json.loads((path / "model.safetensors.index.json").read_text())["weight_map"] if "cls" in n)


def lose_tensor(path):
    shard, name = first_with(path, any_name(path))
    tensors = load_file(shard)
    del tensors[name]
    save_file(tensors, shard)


def poison(path):
    shard, name = first_with(path, any_name(path))
    tensors = load_file(shard)
    tensors[name][..., 0] = torch.nan
    save_file(tensors, shard)


@pytest.mark.parametrize("method", ["fs_merge", "linear"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (corrupt, "is damaged or no safetensors file"),
        (lose_shard, "is missing, which its index names"),
        (lose_tensor, "lacks .*cls_token, which the index says"),
        (poison, "cls_token holds numbers that are not finite"),
    ],
)
def test_damage_is_said_in_one_line_and_nothing_is_left(pair, method, damage, said, capsys, monkeypatch):
    damage(pair / "m1")
    path = written(pair, method)
    for arguments in (["--check"], []):
        monkeypatch.setattr(sys, "argv", ["coset", "merge", str(path), "--quiet", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        error = capsys.readouterr().err.strip()
        assert stop.value.code == 1
        assert error.startswith("error: ")
        assert "\n" not in error
        import re

        assert re.search(said, error), error
    assert not (pair / "out").exists()
    assert not list(pair.glob(".out*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 1}, "num_hidden_layers=1, but .*m0 has num_hidden_layers=2"),
        ({"hidden_act": "relu"}, "hidden_act=relu, but .*m0 has hidden_act=gelu"),
        ({"num_attention_heads": 2}, "heads are 8 wide, those of .*m0 4"),
    ],
)
def test_models_that_do_not_fit(pair, changes, said):
    vit(pair / "m1", 1, 4, **changes)
    for file in (pair / "m1").glob("model*of*"):
        file.unlink()
    (pair / "m1" / "model.safetensors.index.json").unlink()
    with pytest.raises(CosetError, match=said):
        merge_file.check(merge_file.load(written(pair)))


def test_vocabularies_must_agree(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnop"]
    bert(tmp_path / "m0", 0, words=words)
    bert(tmp_path / "m1", 1, words=words[::-1])
    with pytest.raises(CosetError, match="is another vocabulary than"):
        merge_file.check(merge_file.load(written(tmp_path, "linear", inputs="")))
    bert(tmp_path / "m1", 1, vocabulary=21)
    with pytest.raises(CosetError, match="vocab_size=21, but"):
        merge_file.check(merge_file.load(written(tmp_path, "linear", inputs="")))


def test_an_interrupted_merge_goes_on(pair):
    path = written(pair, parameters="steps: 40, rank: 2")
    merge = merge_file.load(path)
    whole = merge.model_copy(update={"output": str(pair / "whole")})
    merge_file.run(whole)
    done = []

    def stop(step, of):
        done.append(step)
        if step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_file.run(merge, progress=stop)
    assert not (pair / "out").exists()
    assert (pair / ".out.training" / "state.pt").is_file()
    steps = []
    merge_file.run(merge, progress=lambda step, of: steps.append(step))
    assert steps[0] == 25
    assert not (pair / ".out.training").exists()
    a, b = (transformers.ViTForImageClassification.from_pretrained(pair / n).state_dict() for n in ("out", "whole"))
    assert all(torch.equal(a[n], v) for n, v in b.items())


def test_check_says_what_will_happen(pair):
    lines = merge_file.check(merge_file.load(written(pair)))
    assert "m0: vit" in lines[0]
    assert "3 classes" in lines[0]
    assert any("different basins" in line for line in lines)
    assert any("memory: about" in line for line in lines)


def test_mistakes_in_the_file(pair):
    with pytest.raises(CosetError, match="does not exist"):
        merge_file.load(pair / "none.yaml")
    with pytest.raises(CosetError, match="merge_method"):
        merge_file.load(written(pair, "nonsense"))
    with pytest.raises(CosetError, match="m0 has no inputs"):
        merge_file.run(merge_file.load(written(pair, inputs="")))
    with pytest.raises(CosetError, match="must read like 5GB"):
        merge_file.run(merge_file.load(written(pair, "linear")).model_copy(update={"max_shard_size": "much"}))
    (pair / "out").mkdir()
    (pair / "out" / "mine").touch()
    with pytest.raises(CosetError, match="exists already"):
        merge_file.run(merge_file.load(written(pair)))
