"""``coset merge``: folders in, a folder out; what is wrong is said in one line and leaves nothing behind."""

import json
import re
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from coset.cli import main
from coset.core.errors import CosetError
from coset.weights.merging import merge_file
from coset.weights.merging.merge_options import load
from coset.weights.merging.methods import MERGE_METHODS
from coset.weights.merging.writing import write_shards

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}


def vit(folder, seed, classes=3, shard="5GB", **changes):
    torch.manual_seed(seed)
    images = {"image_size": 8, "patch_size": 4, "num_channels": 1}
    config = transformers.ViTConfig(**(SIZES | images | changes), num_labels=classes)
    transformers.ViTForImageClassification(config).save_pretrained(folder, max_shard_size=shard)


def bert(folder, seed, vocabulary=20, words=None, shard="5GB"):
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, vocab_size=vocabulary, max_position_embeddings=12, num_labels=2)
    transformers.BertForSequenceClassification(config).save_pretrained(folder, max_shard_size=shard)
    if words:
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")


def clip(folder, seed):
    torch.manual_seed(seed)
    config = transformers.CLIPVisionConfig(**SIZES, image_size=8, patch_size=4, projection_dim=6)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder, max_shard_size="10KB")


@pytest.fixture
def pair(tmp_path):
    for s in range(2):
        vit(tmp_path / f"m{s}", s, 3 + s, shard="10KB")
        save_file(
            {"pixel_values": torch.randn(12, 1, 8, 8), "labels": torch.zeros(12).long()}, tmp_path / f"x{s}.safetensors"
        )
    return tmp_path


def written(folder, method="fs_merge", inputs="x", more="", parameters="steps: 4, rank: 2", shard="10KB"):
    samples = [f", inputs: {inputs}{s}.safetensors" if inputs else "" for s in range(2)]
    (folder / "merge.yaml").write_text(
        f"merge_method: {method}\nmodels:\n"
        + "".join(f"  - {{model: m{s}{samples[s]}}}\n" for s in range(2))
        + f"parameters: {{{parameters}}}\noutput: out\nmax_shard_size: {shard}\n{more}",
        encoding="utf-8",
    )
    return folder / "merge.yaml"


METHODS = [name for name, method in MERGE_METHODS.items() if method.files and not method.base and method.models != 1]


@pytest.mark.parametrize("method", METHODS)
def test_the_output_is_an_ordinary_checkpoint(pair, method):
    facts = merge_file.run(load(written(pair, method)))
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
    merge_file.run(load(written(pair, "linear", parameters="weights: [0.0, 1.0]")))
    x = load_file(pair / "x0.safetensors")["pixel_values"]
    with torch.no_grad():
        a = transformers.ViTForImageClassification.from_pretrained(pair / "out").eval()(x).logits
        b = transformers.ViTForImageClassification.from_pretrained(pair / "m1").eval()(x).logits
    assert torch.allclose(a[:, 3:], b, atol=1e-6)


def test_fs_merge_begins_as_the_first_model(pair):
    """With a learning rate of next to nothing."""
    merge_file.run(load(written(pair, parameters="steps: 1, rank: 2, learning_rate: 1.0e-12")))
    x = load_file(pair / "x0.safetensors")["pixel_values"]
    with torch.no_grad():
        a = transformers.ViTForImageClassification.from_pretrained(pair / "out").eval()(x).logits
        b = transformers.ViTForImageClassification.from_pretrained(pair / "m0").eval()(x).logits
    assert torch.allclose(a[:, :3], b, atol=1e-5)


def test_low_memory_gives_the_same(pair):
    states = []
    for low in ("false", "true"):
        chosen = written(pair, parameters=f"steps: 5, rank: 2, low_memory: {low}")
        merge = load(chosen).model_copy(update={"output": str(pair / f"out-{low}")})
        merge_file.run(merge)
        states.append(transformers.ViTForImageClassification.from_pretrained(merge.output).state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-5), name


def test_task_arithmetic_needs_its_base(pair):
    with pytest.raises(CosetError, match="needs base_model"):
        merge_file.run(load(written(pair, "task_arithmetic")))
    merge_file.run(load(written(pair, "task_arithmetic", more="base_model: m0\n", parameters="scale: 1.0")))
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
    merge_file.run(load(tmp_path / "merge.yaml"))
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_labels == 4
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()


def test_models_without_heads(pair):
    for s in range(2):
        transformers.ViTModel.from_pretrained(pair / f"m{s}", add_pooling_layer=False).save_pretrained(pair / f"n{s}")
    path = written(pair)
    path.write_text(path.read_text().replace("model: m", "model: n"))
    merge_file.run(load(path))
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


@pytest.mark.parametrize("method", ["fs_merge", "fs_merge on disk", "linear"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (corrupt, "is no safetensors file that can be read"),
        (lose_shard, "is missing, which its index names"),
        (lose_tensor, "lacks .*cls_token, which the index says"),
        (poison, "cls_token holds numbers that are not finite"),
    ],
)
def test_damage_is_said_in_one_line_and_nothing_is_left(pair, method, damage, said, capsys, monkeypatch):
    damage(pair / "m1")
    more = ", low_memory: true" if method.endswith("disk") else ""
    path = written(pair, method.partition(" ")[0], parameters=f"steps: 4, rank: 2{more}")
    refused(pair, path, said, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 1}, "num_hidden_layers=1, but .*m0 has num_hidden_layers=2"),
        ({"hidden_act": "relu"}, "hidden_act=relu, but .*m0 has hidden_act=gelu"),
        ({"num_attention_heads": 2}, "heads are 8 wide, those of .*m0 4"),
        ({"image_size": 16}, "image_size=16, but .*m0 has image_size=8"),
        ({"patch_size": 2}, "patch_size=2, but .*m0 has patch_size=4"),
        ({"num_channels": 3}, "num_channels=3, but .*m0 has num_channels=1"),
        ({"qkv_bias": False}, "qkv_bias=False, but .*m0 has qkv_bias=True"),
    ],
)
def test_models_that_do_not_fit(pair, changes, said, capsys, monkeypatch):
    replaced(pair / "m1")
    vit(pair / "m1", 1, 4, **changes)
    refused(pair, written(pair), said, capsys, monkeypatch)


def replaced(folder):
    for file in folder.glob("*"):
        file.unlink()


def refused(folder, path, said, capsys, monkeypatch):
    """Through the command, checked and run: one line, exit code 1, nothing left."""
    capsys.readouterr()  # what was said while the models were made
    for arguments in (["--check"], []):
        monkeypatch.setattr(sys, "argv", ["coset", "merge", str(path), "--quiet", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        error = capsys.readouterr().err.strip()
        assert stop.value.code == 1
        assert error.startswith("error: ")
        assert "\n" not in error
        assert re.search(said, error), error
    assert not (folder / "out").exists()
    assert not list(folder.glob(".out*"))


def test_heads_are_given_by_all_or_by_none(pair, capsys, monkeypatch):
    replaced(pair / "m1")
    transformers.ViTModel(transformers.ViTConfig(**SIZES, image_size=8, patch_size=4, num_channels=1)).save_pretrained(
        pair / "m1"
    )
    refused(pair, written(pair), "m1 has no head, .*m0 has one", capsys, monkeypatch)


def test_numbers_of_other_types(pair, capsys, monkeypatch):
    """Half precision is merged, and said; integers are not."""
    for method in ("linear", "fs_merge"):
        model = transformers.ViTForImageClassification.from_pretrained(pair / "m1").half()
        replaced(pair / "m1")
        model.save_pretrained(pair / "m1")
        merge = load(written(pair, method, more="dtype: bfloat16\n"))
        assert any("F32 in" in line and "F16 in" in line for line in merge_file.check(merge))
        facts = merge_file.run(merge.model_copy(update={"output": str(pair / f"out-{method}")}))
        assert "merged in float32" in facts["notes"][0]
        one = transformers.ViTForImageClassification.from_pretrained(pair / f"out-{method}", dtype="auto")
        assert one.dtype == torch.bfloat16
    tensors = load_file(pair / "m1" / "model.safetensors")
    name = next(n for n in tensors if n.endswith("query.weight") or n.endswith("q_proj.weight"))
    save_file(tensors | {name: tensors[name].to(torch.int8)}, pair / "m1" / "model.safetensors")
    refused(pair, written(pair), "is stored as I8: quantised models cannot be merged", capsys, monkeypatch)


def test_check_tells_one_basin_from_two(pair, capsys, monkeypatch):
    for copied in (True, False):
        if copied:
            model = transformers.ViTForImageClassification.from_pretrained(pair / "m0")
            for p in model.parameters():
                p.data += 0.005 * torch.randn_like(p)
            replaced(pair / "m1")
            model.save_pretrained(pair / "m1")
        else:
            replaced(pair / "m1")
            vit(pair / "m1", 1)
        monkeypatch.setattr(sys, "argv", ["coset", "merge", str(written(pair)), "--check"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        said = " ".join(capsys.readouterr().out.split())
        assert ("same basin; try average, slerp or regmean" in said) == copied
        assert ("use fs_merge, distillation, zipit or regmean" in said) != copied


LOADER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "coset":
            raise ImportError("coset is not here")

sys.meta_path.insert(0, Blocker())
import torch, transformers
from safetensors.torch import load_file, save_file

folder = sys.argv[1]
for kind, wanted in (("ViTForImageClassification", "logits"), ("BertForSequenceClassification", "logits"),
                     ("CLIPVisionModelWithProjection", "image_embeds")):
    model = getattr(transformers, kind).from_pretrained(f"{folder}/{kind}/out").eval()
    inputs = load_file(f"{folder}/{kind}/x0.safetensors")
    with torch.no_grad():
        save_file({"found": model(**inputs)[wanted]}, f"{folder}/{kind}/found.safetensors")
assert not any(name.partition(".")[0] == "coset" for name in sys.modules)
"""


def test_merged_models_need_no_coset(tmp_path):
    """Every family, from folders of shards, in a process that cannot import Coset: the outputs are those seen here."""
    makers = {
        "ViTForImageClassification": lambda f, s: vit(f, s, shard="10KB"),
        "BertForSequenceClassification": lambda f, s: bert(f, s, shard="10KB"),
        "CLIPVisionModelWithProjection": clip,
    }
    for kind, make in makers.items():
        (tmp_path / kind).mkdir()
        for s in range(2):
            make(tmp_path / kind / f"m{s}", s)
            x = torch.randn(6, 3 if kind.startswith("CLIP") else 1, 8, 8)
            inputs = {"input_ids": torch.randint(4, 20, (6, 9))} if kind.startswith("Bert") else {"pixel_values": x}
            save_file(inputs, tmp_path / kind / f"x{s}.safetensors")
        merge_file.run(load(written(tmp_path / kind)))
    done = subprocess.run([sys.executable, "-c", LOADER, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for kind in makers:
        model = getattr(transformers, kind).from_pretrained(tmp_path / kind / "out").eval()
        with torch.no_grad():
            wanted = model(**load_file(tmp_path / kind / "x0.safetensors"))
        found = load_file(tmp_path / kind / "found.safetensors")["found"]
        assert torch.allclose(found, wanted.image_embeds if kind.startswith("CLIP") else wanted.logits, atol=1e-6)


def test_vocabularies_must_agree(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnop"]
    bert(tmp_path / "m0", 0, words=words)
    bert(tmp_path / "m1", 1, words=words[::-1])
    with pytest.raises(CosetError, match="is another vocabulary than"):
        merge_file.check(load(written(tmp_path, "linear", inputs="")))
    bert(tmp_path / "m1", 1, vocabulary=21)
    with pytest.raises(CosetError, match="vocab_size=21, but"):
        merge_file.check(load(written(tmp_path, "linear", inputs="")))


def test_an_interrupted_merge_goes_on(pair):
    path = written(pair, parameters="steps: 40, rank: 2")
    merge = load(path)
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


def tripled(folder):
    """All its weights times three."""
    for shard in folder.glob("*.safetensors"):
        tensors = load_file(shard)
        save_file({n: 3 * v for n, v in tensors.items()}, shard, metadata={"format": "pt"})


def test_training_on_models_that_changed_begins_anew(pair):
    merge = load(written(pair, parameters="steps: 20, rank: 2"))

    def stop(step, of):
        if step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_file.run(merge, progress=stop)
    assert (pair / ".out.training" / "state.pt").is_file()
    tripled(pair / "m1")
    steps = []
    facts = merge_file.run(merge, progress=lambda step, of: steps.append(step))
    assert steps[0] == 1
    fresh = merge_file.run(merge.model_copy(update={"output": str(pair / "fresh")}))
    assert facts["first_loss"] == fresh["first_loss"]


def test_check_says_what_will_happen(pair):
    lines = merge_file.check(load(written(pair)))
    assert "m0: vit" in lines[0]
    assert "3 classes" in lines[0]
    assert any("different basins" in line for line in lines)
    assert any("memory: about" in line for line in lines)


def test_mistakes_in_the_file(pair):
    with pytest.raises(CosetError, match="does not exist"):
        load(pair / "none.yaml")
    with pytest.raises(CosetError, match="merge_method"):
        load(written(pair, "nonsense"))
    with pytest.raises(CosetError, match="m0 has no inputs"):
        merge_file.run(load(written(pair, inputs="")))
    with pytest.raises(CosetError, match="must read like 5GB"):
        merge_file.run(load(written(pair, "linear")).model_copy(update={"max_shard_size": "much"}))
    (pair / "out").mkdir()
    (pair / "out" / "mine").touch()
    with pytest.raises(CosetError, match="exists already"):
        merge_file.run(load(written(pair)))


@pytest.mark.parametrize("method", ["linear", "fs_merge", "zipit", "distillation"])
def test_sequences_of_linear_layers(tmp_path, method):
    """From shards, and back into a plain ``nn.Sequential``."""
    from torch import nn

    def network(classes):
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, classes))

    for s in range(2):
        torch.manual_seed(s)
        folder = tmp_path / f"m{s}"
        folder.mkdir()
        tensors = {n: v.detach() for n, v in network(2 + s).state_dict().items()}
        sizes = {n: v.numel() * 4 for n, v in tensors.items()}
        write_shards(folder, tensors.items(), sizes, "1KB" if s else "5GB")
        (folder / "config.json").write_text('{"model_type": "mlp", "hidden_act": "tanh"}')
        save_file({"x": torch.randn(10, 5)}, tmp_path / f"x{s}.safetensors")
    path = written(tmp_path, method, parameters="steps: 3, rank: 2, weights: [0.0, 1.0]")
    facts = merge_file.run(load(path))
    assert set(facts["scores"]) == {"m0", "m1"}
    merged, second = network(5), network(3)
    merged.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]["2"] == "m1: LABEL_0"
    shards = (tmp_path / "m1").glob("*.safetensors")
    second.load_state_dict({n: v for shard in shards for n, v in load_file(shard).items()})
    x = load_file(tmp_path / "x1.safetensors")["x"]
    if method == "linear":
        assert torch.allclose(merged(x)[:, 2:], second(x), atol=1e-6)


def mlp(folder, classes, width=6, scale=1.0):
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "mlp", "hidden_act": "relu"}')
    shapes = {"0.weight": (8, width), "0.bias": (8,), "2.weight": (classes, 8), "2.bias": (classes,)}
    save_file({n: scale * torch.randn(*s) for n, s in shapes.items()}, folder / "model.safetensors")


@pytest.fixture
def mlps(tmp_path):
    torch.manual_seed(0)
    for s in range(2):
        mlp(tmp_path / f"m{s}", 3 - s)
        save_file({"inputs": torch.randn(10, 6)}, tmp_path / f"x{s}.safetensors")
    return tmp_path


@pytest.mark.parametrize("heads", ["join", "keep"])
@pytest.mark.parametrize("method", ["fs_merge", "regmean", "linear"])
def test_what_half_precision_has_no_room_for_is_not_written(tmp_path, method, heads):
    torch.manual_seed(0)
    for s in range(2):
        mlp(tmp_path / f"m{s}", 3, scale=1e5)
        save_file({"inputs": torch.randn(10, 6)}, tmp_path / f"x{s}.safetensors")
    more = f"dtype: float16\nheads: {heads}\n"
    path = written(tmp_path, method, more=more, parameters="steps: 1, rank: 2, learning_rate: 1.0e-9")
    with pytest.raises(CosetError, match=r"the merged \S+ is beyond float16: dtype: bfloat16 has the range"):
        merge_file.run(load(path))
    assert not (tmp_path / "out").exists()


def test_pictures_that_half_precision_has_no_room_for(pair):
    """The other way of writing: by the package's own classes."""
    for _ in range(13):
        tripled(pair / "m0")
    with pytest.raises(CosetError, match=r"the merged \S+ is beyond float16"):
        merge_file.run(load(written(pair, "weight_matching", more="dtype: float16\n")))
    assert not (pair / "out").exists()


ROWS = torch.linspace(-1, 1, 60).reshape(10, 6)
OF_NO_USE = {
    "a class more": ({"labels": torch.full((10,), 3)}, "labels go from 3 to 3, classes of .*m1 from 0 to 1"),
    "no class": ({"labels": torch.arange(10) % 3 - 1}, "labels go from -1 to 1, classes of .*m1 from 0 to 1"),
    "no whole numbers": ({"labels": torch.rand(10)}, r"labels has shape \(10,\) and type float32: 10 whole numbers"),
    "too few": ({"labels": torch.zeros(9).long()}, r"labels has shape \(9,\) and type int64: 10 whole numbers"),
    "columns": ({"labels": torch.ones(10, 2).long()}, r"labels has shape \(10, 2\) and type int64: 10 whole numbers"),
    "another width": ({"inputs": ROWS[:, :5].clone()}, r"samples of inputs have shape \(5,\), .*m1 takes \(6,\)"),
    "whole numbers": ({"inputs": ROWS.long()}, "inputs has type int64: an MLP takes floating-point numbers"),
    "two tensors": ({"more": ROWS.clone()}, "holds inputs and more: an MLP takes one tensor"),
    "not finite": ({"inputs": ROWS / 0}, "inputs holds numbers that are not finite"),
    "one number": ({"inputs": torch.tensor(1.0)}, "must hold tensors such as pixel_values"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OF_NO_USE)
def test_samples_and_labels_of_no_use_are_told_before_work_starts(mlps, kind, capsys, monkeypatch):
    tensors, said = OF_NO_USE[kind]
    save_file({"inputs": ROWS, **tensors}, mlps / "t.safetensors")
    path = written(mlps, "fs_merge")
    path.write_text(path.read_text().replace("x1.safetensors", "x1.safetensors, test: t.safetensors"))
    refused(mlps, path, rf"t\.safetensors.*{said}", capsys, monkeypatch)


def test_samples_of_all_tasks_have_one_name(mlps, capsys, monkeypatch):
    save_file({"x": ROWS}, mlps / "x1.safetensors")
    said = "task 1 has 'inputs', task 2 'x': give them the same names"
    refused(mlps, written(mlps, parameters="steps: 3, rank: 2"), said, capsys, monkeypatch)


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_samples_of_other_precisions(mlps, kind):
    """As the same numbers in float32; labels of one byte count beyond it."""
    labels = (torch.arange(10) % 2).to(torch.uint8)
    save_file({"inputs": ROWS.to(kind), "labels": labels}, mlps / "x1.safetensors")
    found = merge_file.run(load(written(mlps, parameters="steps: 3, rank: 2")))
    save_file({"inputs": ROWS.to(kind).float(), "labels": labels.long()}, mlps / "x1.safetensors")
    merge = load(written(mlps, parameters="steps: 3, rank: 2")).model_copy(update={"output": str(mlps / "again")})
    assert merge_file.run(merge)["scores"] == found["scores"]


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"x": torch.randn(4, 1, 8, 8)}, "holds x: .*m1 takes pixel_values"),
        ({"pixel_values": torch.ones(4, 1, 8, 8).to(torch.uint8)}, "pixel_values has type uint8: pictures as"),
        ({"pixel_values": torch.randn(4, 1, 8, 8), "labels": torch.full((4,), 4)}, "labels go from 4 to 4, classes"),
    ],
)
def test_pictures_of_no_use(pair, tensors, said, capsys, monkeypatch):
    save_file(tensors, pair / "x1.safetensors")
    refused(pair, written(pair), said, capsys, monkeypatch)


def test_tokens_of_no_use(tmp_path, capsys, monkeypatch):
    for s in range(2):
        bert(tmp_path / f"m{s}", s)
        save_file({"input_ids": torch.full((4, 5), 7 + 0.5 * s)}, tmp_path / f"x{s}.safetensors")
    said = r"input_ids has shape \(4, 5\) and type float32: whole numbers"
    refused(tmp_path, written(tmp_path), said, capsys, monkeypatch)


def test_what_is_no_sequence_of_linear_layers(tmp_path, capsys, monkeypatch):
    for s in range(2):
        (tmp_path / f"m{s}").mkdir()
        (tmp_path / f"m{s}" / "config.json").write_text('{"model_type": "mlp", "hidden_act": "tanh"}')
        save_file(
            {"0.weight": torch.randn(3, 5), "norm.weight": torch.randn(3)}, tmp_path / f"m{s}" / "model.safetensors"
        )
    refused(
        tmp_path, written(tmp_path, "linear", inputs=""), "norm.weight is no tensor of a plain", capsys, monkeypatch
    )


def test_a_merge_that_is_done_is_not_done_again(pair, monkeypatch):
    first = merge_file.run(load(written(pair, "linear")))
    monkeypatch.setattr(merge_file, "_run", pytest.fail)
    again = merge_file.run(load(written(pair, "linear")))
    assert again["seconds"] == first["seconds"]
    assert "nothing was done" in again["notes"][-1]
    monkeypatch.undo()
    with pytest.raises(CosetError, match="exists already"):
        merge_file.run(load(written(pair, "average")))


@pytest.mark.parametrize("changed", ["m0", "base", "x1.safetensors"])
def test_a_merge_whose_files_changed_is_not_taken_for_done(pair, changed, capsys, monkeypatch):
    """Neither a model nor the base nor samples may be others than they were."""
    vit(pair / "base", 2, 3)
    path = written(pair, "task_arithmetic", more="base_model: base\n")
    merge_file.run(load(path))
    kept = {file.name: file.read_bytes() for file in (pair / "out").iterdir()}
    tripled(pair / changed) if (pair / changed).is_dir() else save_file(
        {"pixel_values": torch.zeros(12, 1, 8, 8)}, pair / changed
    )
    monkeypatch.setattr(sys, "argv", ["coset", "merge", str(path), "--quiet"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert re.search(rf"{changed}.* has changed since .*out was merged: choose another", capsys.readouterr().err)
    assert kept == {file.name: file.read_bytes() for file in (pair / "out").iterdir()}
    facts = merge_file.run(load(path).model_copy(update={"output": str(pair / "anew")}))
    assert len(facts["made_from"]) > 5


def test_of_two_merges_into_one_folder_the_second_is_told(pair):
    merge = load(written(pair, "linear"))

    def second(*_):
        with pytest.raises(CosetError, match=r"out is in use by process \d+ on "):
            merge_file.run(merge)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_file, "_run", second)
        with pytest.raises(KeyboardInterrupt):
            merge_file.run(merge)
    merge_file.run(merge)
    assert not list(pair.glob(".out*"))
    mode = stat.S_IMODE(next((pair / "out").glob("*.safetensors")).stat().st_mode)
    assert mode == stat.S_IMODE((pair / "out" / "merge.json").stat().st_mode)


def test_shards_and_a_whole_file_are_two_models(pair):
    save_file({"x": torch.ones(2)}, pair / "m1" / "model.safetensors")
    with pytest.raises(CosetError, match=r"m1 holds model.safetensors and shards by model.safetensors.index.json: two"):
        merge_file.check(load(written(pair, "linear")))


def test_shards_outside_of_the_folder_are_refused(pair):
    index = {"weight_map": {"a": "../m1/model.safetensors"}}
    (pair / "m0" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CosetError, match=r"names the file '\.\./m1/model\.safetensors', which is not in"):
        merge_file.run(load(written(pair, "linear")))
