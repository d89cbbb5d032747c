"""Methods that go tensor by tensor: hand-computed cases, mergekit's own numbers where it is installed, its files."""

import json
import math
import re
import warnings

import pytest
import torch
import yaml
from safetensors.torch import load_file

from coset.core.errors import CosetError
from coset.weights.merging import merge_file, mixing
from coset.weights.merging.merge_options import load
from coset.weights.merging.merge_values import Filtered, evaluated
from coset.weights.merging.methods import MERGE_METHODS
from coset.weights.merging.mixing import PerTensor, Values

transformers = pytest.importorskip("transformers")
NAMES = [name for name, method in MERGE_METHODS.items() if isinstance(method, PerTensor)]


def mixed(name, tensors, base=None, seed=0, **values):
    method = MERGE_METHODS[name]
    chosen = Values.of(len(tensors), **values)
    models = [{"x": torch.as_tensor(t, dtype=torch.float32)} for t in tensors]
    begin = None if base is None else {"x": torch.as_tensor(base, dtype=torch.float32)}
    return method.mix(models, begin, lambda _: chosen, seed)("x")


BASE, A, B = [1.0, 1.0, 1.0, 1.0], [5.0, -2.0, 2.0, 1.5], [-1.0, -4.0, 1.1, 4.0]  # differences 4 -3 1 .5 and -2 -5 .1 3
HALF = {"density": [0.5, 0.5]}
BY_HAND = {
    "linear": ({"weight": [3.0, 1.0]}, None, [3.5, -2.5, 1.775, 2.125]),
    "task_arithmetic": ({"weight": [1.0, 0.5], "lam": 2.0}, BASE, [7.0, -10.0, 3.1, 5.0]),
    # kept: 4 -3 0 0 and 0 -5 0 3; signs + - + +; means over those that agree
    "ties": (HALF, BASE, [5.0, -3.0, 1.0, 4.0]),
    # without the largest of each: -3 1 and -2 3; signs - - + +
    "breadcrumbs": (HALF | {"gamma": [0.25, 0.25]}, BASE, [-1.0, -2.0, 2.0, 4.0]),
    "breadcrumbs_ties": (HALF | {"gamma": [0.25, 0.25]}, BASE, [-1.0, -2.0, 2.0, 4.0]),
    # weights 26.25 and 38.01 of 64.26 where signs agree
    "sce": ({}, BASE, [5.0, 1 - (3 * 26.25 + 5 * 38.01) / 64.26, 1 + (26.25 + 3.801) / 64.26,
                       1 + (0.5 * 26.25 + 3 * 38.01) / 64.26]),
    "passthrough": ({"scale": [2.0]}, None, [10.0, -4.0, 4.0, 3.0]),
    # shares 1 / |difference|: 1/4 1/3 1 1
    "nearswap": ({"t": 1.0}, BASE, [2.0, 0.0, 2.0, 1.5]),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    values, base, wanted = BY_HAND[name]
    tensors = [A] if name in ("passthrough", "nearswap") else [A, B]
    torch.testing.assert_close(mixed(name, tensors, base, **values), torch.tensor(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.0), (0.5, 0.2), (0.3, 0.7), (0.05, 0.0), (0.01, 0.0)])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_as_many_entries_are_kept_as_asked_for_whether_some_are_equal_or_not(density, gamma, levels):
    """Against a sort: the sizes that are kept are those of the ranks asked for, however many are equal."""
    moved = torch.randint(-levels, levels + 1, (40, 25), generator=torch.Generator().manual_seed(levels)).float()
    moved[moved == 0] = 1.0
    kept = mixing._between(moved, density, gamma)
    count = int(density * 1000) if gamma else max(1, int(density * 1000))
    start = max(0, 1000 - count - int(gamma * 1000))
    wanted = moved.abs().flatten().sort().values[start : start + count]
    assert torch.equal(kept[kept != 0].abs().sort().values, wanted)
    assert torch.equal(kept[kept != 0], moved[kept != 0])


def test_slerp_takes_the_angle_of_each_tensor():
    """Of (2, 0) and (0, 1) half way: sin 45 of each; parallel ones in a straight line, also of other lengths."""
    root = math.sqrt(0.5)
    torch.testing.assert_close(mixed("slerp", [[2.0, 0.0], [0.0, 1.0]]), torch.tensor([2 * root, root]))
    torch.testing.assert_close(mixed("slerp", [[1.0, 1.0], [3.0, 3.0]], t=0.25), torch.tensor([1.5, 1.5]))
    torch.testing.assert_close(mixed("slerp", [A, B], t=0.0), torch.tensor(A))
    torch.testing.assert_close(
        mixed("nuslerp", [[2.0, 0.0], [0.0, 1.0]], weight=[1.0, 1.0]), torch.tensor([2 * root, root])
    )
    moved = mixed("nuslerp", [[3.0, 1.0], [1.0, 2.0]], [1.0, 1.0])
    torch.testing.assert_close(moved, torch.tensor([1 + 2 * root, 1 + root]))


def test_means_on_the_sphere():
    root = math.sqrt(0.5)
    for name in ("karcher", "multislerp"):
        torch.testing.assert_close(mixed(name, [[2.0, 0.0], [0.0, 1.0]]), torch.tensor([1.5 * root, 1.5 * root]))
        torch.testing.assert_close(mixed(name, [A, A, A]), torch.tensor(A), rtol=1e-5, atol=1e-5)


def test_model_stock_is_the_base_where_differences_are_orthogonal_and_the_mean_where_they_agree():
    base = torch.zeros(4)
    torch.testing.assert_close(mixed("model_stock", [[1.0, 0, 0, 0], [0, 2.0, 0, 0]], base), base)
    torch.testing.assert_close(mixed("model_stock", [A, A], base), torch.tensor(A))
    # cosine 1/2 of two: t = 2/3
    two = [[1.0, 0.0], [0.5, math.sqrt(0.75)]]
    torch.testing.assert_close(mixed("model_stock", two, [0.0, 0.0]), torch.tensor(two).mean(0) * 2 / 3)
    with pytest.raises(CosetError, match="model_stock takes two models at least"):
        mixed("model_stock", [A], base)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_what_is_dropped_by_chance_follows_from_seed_and_name_and_keeps_the_size(name):
    generator = torch.Generator().manual_seed(0)
    tensors, base = [torch.randn(40, 50, generator=generator) for _ in range(2)], torch.zeros(40, 50)
    one = mixed(name, tensors, base, **HALF)
    assert torch.equal(one, mixed(name, tensors, base, **HALF))
    assert not torch.equal(one, mixed(name, tensors, base, seed=1, **HALF))
    alone = mixed(name, tensors[:1], base, density=[0.5])
    assert float(alone.abs().sum()) == pytest.approx(float(tensors[0].abs().sum()), rel=1e-4)
    assert float((alone == 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    like = "task_arithmetic" if "linear" in name else "ties"
    whole = mixed(like, tensors, base, normalize=name == "della")
    torch.testing.assert_close(mixed(name, tensors, base), whole)
    if name.startswith("della"):
        kept = (
            mixed(name, [torch.arange(1.0, 2001).expand(200, -1)], torch.zeros(200, 2000), density=[0.5]) != 0
        ).double()
        assert float(kept[:, :100].mean()) == pytest.approx(0.36, abs=0.02)
        assert float(kept[:, -100:].mean()) == pytest.approx(0.64, abs=0.02)
        with pytest.raises(CosetError, match="density -\\+ epsilon has to lie between 0 and 1"):
            mixed(name, tensors, base, density=[0.9, 0.9])


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_what_chance_drops_is_right_on_average_and_other_for_each_seed_and_model(name):
    """Over seeds: kept as often as said, the mean the difference itself (within five standard errors), no two alike."""
    generator = torch.Generator().manual_seed(1)
    x, base, seeds, density = torch.randn(20, 30, generator=generator), torch.zeros(20, 30), 300, 0.6
    found = torch.stack([mixed(name, [x], base, seed=s, density=[density]) for s in range(seeds)])
    kept = (found != 0).double().mean(0)
    if name == "dare_linear":
        assert float((kept - density).abs().max()) < 5 * (density * (1 - density) / seeds) ** 0.5
        error = (found.mean(0) - x).abs() / (x.abs() * ((1 - density) / density / seeds) ** 0.5)
        assert float(error.max()) < 5
    assert float(kept.mean()) == pytest.approx(density, abs=0.01)
    assert len({tuple(f.flatten().ne(0).tolist()) for f in found}) == seeds
    both = mixed(name, [x, torch.zeros_like(x)], base, density=[density] * 2)
    other = mixed(name, [torch.zeros_like(x), x], base, density=[density] * 2)
    assert not torch.equal(both != 0, other != 0)


@pytest.mark.parametrize("name", NAMES)
def test_one_network_several_times_is_that_network(name):
    method = MERGE_METHODS[name]
    count = method.models or 3
    base = torch.tensor(BASE) if method.base else None
    values = (
        {"weight": [1 / count] * count}
        if name in ("task_arithmetic", "dare_linear", "breadcrumbs", "della_linear")
        else {}
    )
    found = mixed(name, [A] * count, base, **(values | ({"t": 10.0} if name == "nearswap" else {})))
    if name in ("dare_ties", "breadcrumbs_ties"):  # sums, not divided by default
        found = (found - torch.tensor(BASE)) / count + torch.tensor(BASE)
    torch.testing.assert_close(found, torch.tensor(A), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_which_settings_it_looks_at(name):
    looked_at = set()

    class Watched(Values):
        def __getattribute__(self, key):
            if key in Values.__dataclass_fields__:
                looked_at.add(key)
            return super().__getattribute__(key)

    method = MERGE_METHODS[name]
    count = method.models or 2
    chosen = Watched.of(count, density=[0.5] * count, flatten=False, select_topk=0.5)
    looked_at.clear()
    tensors = [torch.randn(4, 6) for _ in range(count + 1)]
    method.function(tensors[1:], tensors[0] if method.base else None, chosen, torch.Generator())
    assert looked_at == method.settings


@pytest.mark.parametrize("source", ["base", "b", "model:b"])
def test_the_tokenizer_may_be_asked_for_that_of_any_of_the_models(source, three):
    text = f"merge_method: linear\nmodels: [{{model: a}}, {{model: b}}]\ntokenizer_source: {source}\noutput: out\n"
    assert len(written(three, text).models) == 2


UNUSED = {
    "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1, density: 0.5}}, {model: b}]\n"
    "parameters: {t: 0.5, normalize: true, int8_mask: true}": "t, density",
    "merge_method: average\nmodels: [{model: a}, {model: b}]\nparameters: {weights: [1, 0]}": "weights",
    "merge_method: task_arithmetic\nmodels: [{model: a, parameters: {scale: 2}}]\nbase_model: base\n"
    "parameters: {scale: 0.5}": "scale",
    "merge_method: slerp_global\nslices: [{sources: [{model: a, layer_range: [0, 3]}, {model: b, layer_range: "
    "[0, 3]}], parameters: {t: 0.2}}]\nparameters: {t: 0.5}": "t",
    "merge_method: distillation\nmodels: [{model: a}, {model: b}]\nparameters: {width: 8, steps: 3}": "width",
}


@pytest.mark.parametrize("text", UNUSED)
def test_settings_that_a_method_does_not_look_at_are_told(text, three):
    merge = written(three, text + "\noutput: out\n")
    assert merge.unused == UNUSED[text].split(", ")
    if merge.method.mix is not None:
        note = f"merge_method={merge.merge_method} does not look at {UNUSED[text]}: without effect"
        assert f"note: {note}" in merge_file.check(merge)
        assert note in merge_file.run(merge)["notes"]


def test_gradients_and_filters():
    assert evaluated(0.5, "x", 0.3) == 0.5
    assert evaluated([0.0, 1.0], "x", 0.25) == 0.25
    assert evaluated([0.0, 0.5, 1.0, 0.0], "x", 0.5) == 0.75
    assert evaluated([0.0, 0.5, 1.0], "x", 1.0) == 1.0
    both = [Filtered(filter="mlp", value=[0.0, 1.0]), Filtered(value=0.3)]
    assert evaluated(both, "layers.1.mlp.up.weight", 0.5) == 0.5
    assert evaluated(both, "layers.1.self_attn.weight", 0.5) == 0.3
    assert evaluated([Filtered(filter="mlp", value=1.0)], "norm", 0.5) is None


def llama(folder, seed, layers=3, **changes):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=8, intermediate_size=12, num_hidden_layers=layers, num_attention_heads=2, vocab_size=20,
        max_position_embeddings=16, **changes,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="4KB")


@pytest.fixture
def three(tmp_path):
    for seed, name in enumerate(("base", "a", "b")):
        llama(tmp_path / name, seed)
    return tmp_path


def tensors_of(folder):
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def written(folder, text):
    (folder / "merge.yaml").write_text(text)
    return load(folder / "merge.yaml")


def test_a_file_of_mergekit_with_gradients_and_filters(three):
    merge = written(
        three,
        """
slices:
  - sources:
      - {model: base, layer_range: [0, 3]}
      - {model: a, layer_range: [0, 3]}
merge_method: slerp
base_model: base
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 1]}
    - {filter: mlp, value: 1}
    - {value: 0.25}
dtype: float32
tokenizer_source: base
""",
    )
    merge_file.run(merge)
    base, a, found = (tensors_of(three / n) for n in ("base", "a", "merged"))
    assert set(found) == set(base)
    for layer, t in enumerate((0.0, 0.5, 1.0)):
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        torch.testing.assert_close(found[name], mixed("slerp", [base[name], a[name]], t=t))
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        torch.testing.assert_close(found[name], a[name])
    name = "model.embed_tokens.weight"
    torch.testing.assert_close(found[name], mixed("slerp", [base[name], a[name]], t=0.25))
    model = transformers.LlamaForCausalLM.from_pretrained(three / "merged")
    assert model(torch.arange(5)[None]).logits.isfinite().all()


def test_a_file_of_mergekit_with_settings_of_each_model(three):
    merge = written(
        three,
        """
models:
  - model: base
  - model: a
    parameters: {weight: 0.7, density: 0.4}
  - model: b
    parameters: {weight: [0.0, 1.0], density: 1.0}
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true, lambda: 0.5}
dtype: bfloat16
""",
    )
    assert [m.task for m in merge.models] == ["a", "b"]
    merge_file.run(merge)
    base, a, b, found = (tensors_of(three / n) for n in ("base", "a", "b", "merged"))
    name = "model.layers.1.mlp.up_proj.weight"
    wanted = mixed("ties", [a[name], b[name]], base[name], weight=[0.7, 0.5], density=[0.4, 1.0], lam=0.5)
    assert found[name].dtype == torch.bfloat16
    torch.testing.assert_close(found[name], wanted.to(torch.bfloat16))


@pytest.mark.parametrize("name", NAMES)
def test_every_method_takes_any_architecture(name, three):
    method = MERGE_METHODS[name]
    models = ["a"] if method.models == 1 else ["a", "b"]
    values = "parameters: {t: 0.001}\n" if name == "nearswap" else ""
    listed = "".join(f"  - {{model: {m}}}\n" for m in models)
    base = "base_model: base\n" if method.base else ""
    merge = written(three, f"merge_method: {name}\nmodels:\n{listed}{base}{values}output: out\n")
    assert merge_file.check(merge)
    merge_file.run(merge)
    assert transformers.LlamaForCausalLM.from_pretrained(three / "out")(torch.arange(5)[None]).logits.isfinite().all()


REFUSED = {
    "slices: [{sources: [{model: a, layer_range: [0, 3]}, {model: b, layer_range: [1, 3]}]}]\nmerge_method: linear":
        "layer_range of all sources of a slice has to be of equally many layers",
    "models: [{model: a}, {model: b}]\nmerge_method: ram": "choose from .*ties",
    "models: [{model: a}, {model: b}]\nmerge_method: ties": "merge_method=ties needs base_model",
    "models: [{model: a}, {model: b}]\nmerge_method: linear\ntokenizer_source: union": "vocabularies are not joined",
    "models: [{model: a}, {model: b}]\nmerge_method: linear\ntokenizer_source: model:elsewhere":
        "tokenizer_source: model:elsewhere: none of the models; the first one's tokenizer is kept",
    "models: [{model: a}, {model: b}]\nmerge_method: linear\nchat_template: auto": "chat templates are not chosen",
    "models: [{model: a}]\nmerge_method: linear": "takes 2 models at least, not 1",
    "models: [{model: a, parameters: {weight: 2}}, {model: b}]\nmerge_method: linear\nparameters: {weights: [1, 2]}":
        "parameters.weights and weight are two names of the same numbers: give one",
    "models: [{model: a}]\nmerge_method: ties\nbase_model: base\nparameters: {lambda: 2, scale: 1}":
        "parameters.lambda and scale are two names of the same number here: give one",
    "models: [{model: a}, {model: b}]\nmerge_method: slerp_global\nparameters: {t: [0, 1]}": "takes one number for t",
    "models: [{model: a}, {model: b}]\nmerge_method: regmean": "regmean needs samples of every task",
}  # fmt: skip


NUMBERS = "a number, a list of numbers, or a list of filter and value was expected, not"
SETTINGS = {
    "density: 1.7": "parameters: density=1.7 has to be above 0 and at most 1",
    "density: -1": "density=-1 has to be above 0 and at most 1",
    "density: 0": "density=0 has to be above 0 and at most 1",
    "density: [1, 0.5, 0]": "density=0 has to be above 0",
    "density: [{filter: mlp, value: 2}, {value: 1}]": "density=2 has to be above 0",
    "gamma: -1": "gamma=-1 has to be from 0 to 1",
    "epsilon: 3": "epsilon=3 has to be from 0 to 1",
    "t: []": rf"parameters\.t: {NUMBERS} \[\]",
    "t: [{filter: mlp, value: []}]": rf"parameters\.t: {NUMBERS}",
    "t: .nan": rf"parameters\.t: {NUMBERS} nan",
    "t: true": rf"parameters\.t: {NUMBERS} True",
    "lambda: .inf": rf"parameters\.lambda: {NUMBERS} inf",
    "weights: [1, .nan]": r"parameters\.weights\.1: Input should be a finite number, not nan",
    "weights: [true, 1]": r"parameters\.weights\.0: a number was expected, not True",
    "weights: [0.1, -0.1]": "linear divides by the sum of weights, which is 0",
    "rank: true": r"parameters\.rank: a number was expected, not True",
    "width: -2": r"parameters\.width: .*greater than or equal to 1, not -2",
    "learning_rate: .inf": r"parameters\.learning_rate: Input should be a finite number, not inf",
    "weight_decay: -1": r"parameters\.weight_decay: .*greater than or equal to 0",
}  # fmt: skip
OF_A_MODEL = {
    "wieght: 0.1": r"unknown key wieght, did you mean weight\? \(known here: weight, density, gamma,",
    "t: 0.5": "unknown key t ",
    "weight: true": rf"weight: {NUMBERS} True",
    "weight: .nan": rf"weight: {NUMBERS} nan",
    "density: 0": "density=0 has to be above 0",
}
REFUSED |= {f"models: [{{model: a}}, {{model: b}}]\nmerge_method: linear\nparameters: {{{key}}}": said
            for key, said in SETTINGS.items()}  # fmt: skip
for _key, _said in OF_A_MODEL.items():
    _one = f"model: a, parameters: {{{_key}}}"
    REFUSED[f"models: [{{{_one}}}, {{model: b}}]\nmerge_method: linear"] = rf"models\.0\.parameters.*{_said}"
    REFUSED[f"slices: [{{sources: [{{{_one}, layer_range: [0, 3]}}]}}]\nmerge_method: passthrough"] = (
        rf"slices\.0\.sources\.0\.parameters.*{_said}"
    )
SLICE = "slices: [{{sources: [{{model: a, layer_range: {}}}], parameters: {{{}}}}}]\nmerge_method: passthrough"
REFUSED |= {
    SLICE.format("[true, 2]", ""): "sources with model and layer_range",
    SLICE.format("[0, 3]", "densty: 1"): "unknown key densty, did you mean density",
    SLICE.format("[0, 3]", "select_topk: 2"): "select_topk=2 has to be above 0 and at most 1",
    SLICE.format("[0, 3]", "max_iter: 0.5"): "max_iter=0.5 has to be whole and at least 1",
    SLICE.format("[0, 3]", "tol: 0"): "tol=0 has to be above 0",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_done_is_said(text, three):
    with pytest.raises(CosetError, match=REFUSED[text]):
        merge_file.run(written(three, text + "\noutput: out\n"))
    assert not (three / "out").exists()


def test_heads_of_tokens_are_averaged_and_those_of_sequences_joined(tmp_path):
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "vocab_size": 20,
    }
    for seed in range(2):
        torch.manual_seed(seed)
        config = transformers.BertConfig(**sizes, num_labels=5)
        transformers.BertForTokenClassification(config).save_pretrained(tmp_path / f"t{seed}")
        transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / f"s{seed}")
    for kind, heads, rows in (("t", None, 5), ("s", None, 10), ("s", "average", 5)):
        text = {
            "merge_method": "linear",
            "models": [{"model": f"{kind}{i}"} for i in range(2)],
            "output": f"{kind}{heads}",
        }
        merge_file.run(written(tmp_path, yaml.safe_dump(text | ({"heads": heads} if heads else {}))))
        found = tensors_of(tmp_path / f"{kind}{heads}")["classifier.weight"]
        assert len(found) == rows
        assert len(json.loads((tmp_path / f"{kind}{heads}" / "config.json").read_text())["id2label"]) == rows
    one, two = (tensors_of(tmp_path / f"t{i}")["classifier.weight"] for i in range(2))
    torch.testing.assert_close(tensors_of(tmp_path / "tNone")["classifier.weight"], (one + two) / 2)


def two(first, second):
    return [{"model": "a", "parameters": first}, {"model": "b", "parameters": second}]


PRUNED = two({"weight": 0.7, "density": 0.4}, {"weight": [0.0, 1.0], "density": 0.6})
KEPT = two({"weight": 0.7, "density": 1.0}, {"weight": 0.2})
PLAIN = [{"model": "a"}, {"model": "b"}]
FILES = {
    "linear": {"models": two({"weight": 0.7}, {"weight": [0.1, 0.9]})},
    "slerp": {"models": PLAIN, "base_model": "a",
              "parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.25}]}},
    "nuslerp": {"models": KEPT}, "multislerp": {"models": KEPT}, "karcher": {"models": PLAIN},
    "task_arithmetic": {"models": KEPT, "base_model": "base", "parameters": {"lambda": 0.8}},
    "ties": {"models": PRUNED, "base_model": "base"}, "breadcrumbs": {"models": PRUNED, "base_model": "base"},
    "breadcrumbs_ties": {"models": PRUNED, "base_model": "base", "parameters": {"gamma": 0.05}},
    "dare_linear": {"models": KEPT, "base_model": "base"}, "dare_ties": {"models": KEPT, "base_model": "base"},
    "della": {"models": KEPT, "base_model": "base"}, "della_linear": {"models": KEPT, "base_model": "base"},
    "sce": {"models": PLAIN, "base_model": "base", "parameters": {"select_topk": 0.4}},
    "model_stock": {"models": PLAIN, "base_model": "base"},
    "nearswap": {"models": [{"model": "base"}, {"model": "a"}], "base_model": "base", "parameters": {"t": 0.01}},
    "passthrough": {"models": [{"model": "a"}]},
}  # fmt: skip
"""Files of mergekit; those that drop by chance keep everything."""


DROPPED = {f"{name}, entries dropped": {"models": PRUNED, "base_model": "base", "merge_method": name}
           for name in ("dare_linear", "dare_ties", "della", "della_linear")}  # fmt: skip
"""With the same draws in both: entries are kept where fixed numbers lie below the probabilities."""


def drawn(probabilities, generator=None):
    fixed = torch.rand(probabilities.shape, generator=torch.Generator().manual_seed(5))
    return (fixed < probabilities).to(probabilities)


@pytest.mark.parametrize("name", [*FILES, *DROPPED])
def test_numbers_are_those_of_mergekit_itself(name, three, monkeypatch):
    if name in DROPPED:
        monkeypatch.setattr(torch, "bernoulli", drawn)
    reason = "mergekit is not installed"
    configuration = pytest.importorskip("mergekit.config", reason=reason).MergeConfiguration
    run_merge = pytest.importorskip("mergekit.merge", reason=reason).run_merge
    options = pytest.importorskip("mergekit.options", reason=reason).MergeOptions(copy_tokenizer=False, quiet=True)
    file = {"merge_method": name, "dtype": "float32", **(FILES | DROPPED)[name]}
    there = json.loads(re.sub(r'"(a|b|base)"', lambda m: json.dumps(str(three / m[1])), json.dumps(file)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_merge(configuration.model_validate(there), str(three / "theirs"), options)
    merge_file.run(written(three, yaml.safe_dump(file | {"output": "ours"})))
    ours, theirs = tensors_of(three / "ours"), tensors_of(three / "theirs")
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6)
