"""The verbs of ``coset lora`` on a small collection, from the command line."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from coset.weights.lora import LoraAdapter, LoraPair, load_lora, save_kohya, save_peft
from coset.weights.lora.data.writing import save_comfyui, save_diffusers
from coset.weights.lora.data.zoo import open_zoo

pytest.importorskip("sklearn")
pytest.importorskip("safetensors")
from safetensors.torch import load_file, save_file


@pytest.fixture
def adapters(coset, tmp_path):
    code, out, err = coset("lora", "zoo", "lol/digits-zoo", "adapters=4", "--output", tmp_path / "run", "--quiet")
    assert code == 0, err
    assert "everything is in" in out
    return tmp_path / "run" / "adapters"


def test_inspect_convert_and_read_again(coset, adapters, tmp_path):
    code, out, _ = coset("lora", "inspect", adapters / "00000")
    assert code == 0
    assert "layers.0" in out
    assert "2 layers" in out
    facts = json.loads(coset("lora", "inspect", adapters / "00000", "--json", "--page", tmp_path / "page.html")[1])
    assert len(facts["layers"][0]["singular_values"]) == 4
    assert "layers.2" in (tmp_path / "page.html").read_text()
    assert coset("lora", "convert", adapters / "00000", tmp_path / "again")[0] == 0
    assert coset("lora", "inspect", tmp_path / "again")[1].splitlines()[:3] == out.splitlines()[:3]


def test_collect_search_duplicates_and_map(coset, adapters, tmp_path):
    shutil.copytree(adapters / "00002", adapters / "copy")
    code, out, err = coset("lora", "collect", adapters, tmp_path / "zoo")
    assert code == 0, err
    assert "5 adapters" in out
    first = coset("lora", "search", adapters / "00001", tmp_path / "zoo")[1].splitlines()[1]
    assert first.split() == ["00001", "1.0000"]
    out = coset("lora", "duplicates", tmp_path / "zoo")[1]
    assert "00002" in out
    assert "1 pair" in out
    assert coset("lora", "map", tmp_path / "zoo", "--output", tmp_path / "map.html")[0] == 0
    page = (tmp_path / "map.html").read_text()
    assert "00003" in page
    assert "http" not in page.split("<script>")[0].split("</style>")[1]


def test_a_spoilt_adapter_is_named_and_nothing_is_written(coset, adapters, tmp_path):
    (adapters / "00003" / "adapter_model.safetensors").write_bytes(b"spoilt")
    code, _, err = coset("lora", "collect", adapters, tmp_path / "zoo")
    assert code == 1
    assert "00003" in err
    assert not (tmp_path / "zoo").exists()
    code, out, _ = coset("lora", "collect", adapters, tmp_path / "zoo", "--skip-bad")
    assert code == 0
    assert "3 adapters" in out


def test_a_map_is_coloured_by_classes_or_by_a_scale(coset, adapters, tmp_path):
    for colour, found in (("trained_on_3", "trained_on_3 1"), ("accuracy", '"showscale":true')):
        coset("lora", "map", adapters.parent, "--colour", colour, "--output", tmp_path / "map.html")
        assert found in (tmp_path / "map.html").read_text()


def test_what_is_no_adapter_gets_one_line(coset, tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    for target, message in (
        ("nothing", "no such file or folder"),
        ("notes.csv", "cannot be read: it is damaged, or holds more than tensors"),
    ):
        code, _, err = coset("lora", "inspect", tmp_path / target)
        assert code == 1
        assert message in err
        assert "weights_only" not in err


def broken(kind, folder):
    """An adapter of the layers of the others with one fault."""
    save_peft(one(99), folder)
    file = folder / "adapter_model.safetensors"
    state = load_file(file)
    key = next(k for k in state if "lora_B" in k)
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-7])
        return
    if kind == "NaN":
        state[key][0, 0] = float("nan")
    elif kind == "missing B":
        del state[key]
    elif kind == "rank mismatch":
        state[key] = torch.zeros(6, 3)
    elif kind == "configured rank":
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "r": 5, "rank_pattern": {}}))
        return
    elif kind == "other base":
        save_peft(one(99, n=8, base="somebody/larger"), folder)
        return
    save_file(state, file)


def one(seed, n=6, base="somebody/base"):
    g = torch.Generator().manual_seed(seed)
    pairs = {f"x.{t}": LoraPair(torch.randn(n, 2, generator=g), torch.randn(5, 2, generator=g)) for t in "qv"}
    return LoraAdapter(pairs, base_model=base)


FAULTS = {
    "truncated": "incomplete metadata", "NaN": "NaN", "missing B": r"has A (down) but no B (up)",
    "rank mismatch": "the ranks of its factors differ", "configured rank": "adapter_config.json says 5",
    "other base": "another base model (somebody/larger)",
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_named_and_left_out_on_request(kind, coset, tmp_path):
    for seed in range(3):
        save_peft(one(seed), tmp_path / "in" / f"good{seed}")
    broken(kind, tmp_path / "in" / "bad")
    code, out, err = coset("lora", "collect", tmp_path / "in", tmp_path / "zoo", "--quiet")
    assert (code, out) == (1, "")
    assert len(err.strip().splitlines()) == 1
    assert "1 of 4 adapters" in err
    assert "bad: " in err
    assert FAULTS[kind] in err
    assert not (tmp_path / "zoo").exists()
    code, out, err = coset("lora", "collect", tmp_path / "in", tmp_path / "zoo", "--skip-bad", "--quiet")
    assert code == 0
    assert "3 adapters" in out
    assert "skipped bad: " in err
    if kind != "other base":  # alone it is an adapter like any other
        code, out, err = coset("lora", "inspect", tmp_path / "in" / "bad")
        assert (code, out) == (1, "")
        assert FAULTS[kind] in err


def test_of_many_adapters_the_bad_ones_are_named_and_no_other_is_lost(coset, tmp_path):
    for seed in range(120):
        save_peft(one(seed), tmp_path / "in" / f"{seed:03d}")
    for number, kind in ((7, "truncated"), (60, "NaN"), (119, "missing B")):
        broken(kind, tmp_path / "in" / f"{number:03d}")
    code, _, err = coset("lora", "collect", tmp_path / "in", tmp_path / "zoo", "--quiet")
    assert code == 1
    assert all(f"{number}: " in err for number in ("007", "060", "119"))
    assert coset("lora", "collect", tmp_path / "in", tmp_path / "zoo", "--skip-bad", "--quiet")[0] == 0
    zoo = open_zoo(tmp_path / "zoo")
    assert [int(name) for name in zoo.names] == [i for i in range(120) if i not in (7, 60, 119)]
    assert [name for name, _ in zoo.skipped] == ["007", "060", "119"]
    u, v = zoo.factors([50])[0]
    torch.testing.assert_close(u[0, 0] @ v[0, 0].mT, one(int(zoo.names[50])).layers["x.q"].delta())


def test_what_cannot_be_carried_is_refused_unless_it_is_said_to_be_well(coset, tmp_path):
    """Tensors of PEFT without their configuration: the scale is unknown."""
    save_peft(one(1), tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").unlink()
    code, _, err = coset("lora", "convert", tmp_path / "a", tmp_path / "b")
    assert code == 1
    assert "the scale of 2 layers is unknown and taken as 1 (x.q, ...); --alpha says it" in err.replace("\n", " ")
    assert not (tmp_path / "b").exists()
    assert coset("lora", "convert", tmp_path / "a", tmp_path / "b", "--alpha", "6")[0] == 0
    assert load_lora(tmp_path / "b").layers["x.q"].delta().allclose(3 * one(1).layers["x.q"].delta(), atol=1e-5)
    assert coset("lora", "convert", tmp_path / "a", tmp_path / "c", "--lossy")[0] == 0


def test_a_folder_around_one_adapter_is_looked_into(coset, tmp_path):
    save_peft(one(1), tmp_path / "in" / "only")
    code, out, err = coset("lora", "inspect", tmp_path / "in")
    assert code == 0, err
    assert "only (peft, base model somebody/base): 2 layers" in out.replace("\n", " ")
    code, _, err = coset("lora", "convert", tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert "is no adapter itself: give " in err.replace("\n", " ")


def test_what_is_there_is_not_written_over(coset, tmp_path):
    for seed in range(2):
        save_peft(one(seed), tmp_path / f"a{seed}")
    (tmp_path / "precious.safetensors").write_bytes(b"precious")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for output in ("a0", "a1", "precious.safetensors"):
        code, _, err = coset("lora", "convert", tmp_path / "a0", tmp_path / output, "--to", "peft")
        assert code == 1
        assert f"{output} exists already: choose another output" in err.replace("\n", "")
    code, _, err = coset("lora", "merge", tmp_path / "a0", tmp_path / "a1", "--output", tmp_path / "a1")
    assert code == 1
    assert "exists already" in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_products_are_brought_to_a_rank_with_the_error_told(coset, tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {"w1_a": (6, 2), "w1_b": (2, 5), "w2_a": (6, 2), "w2_b": (2, 5)}
    state = {f"base_model.model.x.hada_{k}": torch.randn(*s, generator=generator) for k, s in shapes.items()}
    (tmp_path / "a").mkdir()
    save_file(state, tmp_path / "a" / "adapter_model.safetensors")
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps({"peft_type": "LOHA", "r": 2, "alpha": 2}))
    code, out, err = coset("lora", "convert", tmp_path / "a", tmp_path / "b", "--rank", "2")
    assert code == 0, err
    delta = (state["base_model.model.x.hada_w1_a"] @ state["base_model.model.x.hada_w1_b"]) * (
        state["base_model.model.x.hada_w2_a"] @ state["base_model.model.x.hada_w2_b"]
    )
    error = (load_lora(tmp_path / "b").layers["x"].delta() - delta).norm() / delta.norm()
    assert f"rank 2: relative error {float(error):.3g} of the updates" in out


def test_merge_and_apply(coset, tmp_path, monkeypatch):
    for seed in range(2):
        save_peft(one(seed), tmp_path / f"a{seed}")
    weights = {f"x.{t}.weight": torch.randn(6, 5) for t in "qv"}
    save_file(weights, tmp_path / "base.safetensors")
    code, out, err = coset(
        "lora", "merge", tmp_path / "a0", tmp_path / "a1", "--output", tmp_path / "both", "--weights", "0.5,-2"
    )
    assert code == 0, err
    assert "relative error of the updates: 0" in out
    code, _, err = coset(
        "lora", "apply", tmp_path / "base.safetensors", tmp_path / "both", tmp_path / "out.safetensors"
    )
    assert code == 0, err
    found = load_file(tmp_path / "out.safetensors")
    for t in "qv":
        wanted = weights[f"x.{t}.weight"] + 0.5 * one(0).layers[f"x.{t}"].delta() - 2 * one(1).layers[f"x.{t}"].delta()
        torch.testing.assert_close(found[f"x.{t}.weight"], wanted, rtol=1e-4, atol=1e-5)
    code, _, err = coset("lora", "merge", tmp_path / "a0", tmp_path / "a1", "--weights", "0.5,much")
    assert code == 1
    assert "--weights holds 'much'" in err
    monkeypatch.chdir(tmp_path)
    for made in ("a0-merged", "a0-merged-2"):
        code, out, _ = coset("lora", "merge", "a0", "a1")
        assert out.splitlines()[-1] == f"2 layers written to {made}"
    code, _, err = coset("lora", "merge", "a0", "a1", "both-of-them")
    assert "both-of-them: no such file or folder; where the result goes is told by --output" in err


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("svd", ["--density", "0.3", "--seed", "1"], "svd does not look at --density and --seed"),
        ("ties", ["--density", "0.3", "--seed", "1"], "ties does not look at --seed"),
        ("dare_linear", ["--density", "0.3", "--seed", "1"], ""),
        ("linear", [], ""),
    ],
)
def test_settings_that_a_combination_does_not_look_at_are_told(coset, tmp_path, method, given, said):
    for seed in range(2):
        save_peft(one(seed), tmp_path / f"a{seed}")
    made = ("--output", tmp_path / "made", "--method", method, *given)
    code, _, err = coset("lora", "merge", tmp_path / "a0", tmp_path / "a1", *made)
    assert code == 0, err
    assert (f"note: {said}\n" in err) if said else "does not look at" not in err


def test_further_adapters_of_a_folder_are_named(coset, tmp_path):
    save_peft(one(1), tmp_path / "a")
    save_peft(one(2), tmp_path / "a" / "second")
    assert "further adapters in it: second" in coset("lora", "inspect", tmp_path / "a")[2].replace("\n", " ")


def test_an_adapter_in_another_naming_is_found(coset, tmp_path):
    names = ["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    for seed in range(3):
        pair = one(seed).layers["x.q"]
        save_diffusers(LoraAdapter(dict.fromkeys(names, pair)), tmp_path / "in" / f"a{seed}.safetensors")
    save_kohya(LoraAdapter(dict.fromkeys(names, one(1).layers["x.q"])), tmp_path / "other.safetensors")
    assert coset("lora", "collect", tmp_path / "in", tmp_path / "zoo")[0] == 0
    code, out, err = coset("lora", "search", tmp_path / "other.safetensors", tmp_path / "zoo")
    assert code == 0, err
    assert out.splitlines()[1].split() == ["a1.safetensors", "1.0000"]


def test_layers_that_no_adapter_of_the_collection_has_are_orthogonal_to_it(coset, tmp_path):
    for seed in range(3):
        save_peft(one(seed), tmp_path / "in" / f"a{seed}")
    more = one(1)
    layers = {**more.layers, "y.q": replace(more.layers["x.q"], u=3 * more.layers["x.q"].u)}
    more = LoraAdapter(layers)
    save_peft(more, tmp_path / "more")
    code, out, err = coset("lora", "search", tmp_path / "more", tmp_path / "in")
    assert code == 0, err
    assert out.splitlines()[1].split() == ["a1", f"{one(1).norm() / more.norm():.4f}"]
    assert f"{tmp_path / 'more'} has 1 layers that the collection lacks (y.q, ...): orthogonal to all of it" in err


def test_where_common_layers_alone_are_kept_they_alone_are_compared(coset, tmp_path):
    save_peft(one(0), tmp_path / "in" / "a0")
    save_peft(LoraAdapter({"x.q": one(1).layers["x.q"]}), tmp_path / "in" / "a1")
    assert coset("lora", "collect", tmp_path / "in", tmp_path / "zoo", "--layers", "intersection")[0] == 0
    code, out, err = coset("lora", "search", tmp_path / "in" / "a0", tmp_path / "zoo")
    assert code == 0, err
    assert out.splitlines()[1].split() == ["a0", "1.0000"]
    assert "has 1 layers that the collection lacks (x.v, ...): not compared" in err


def flux(seed, size=4, rank=2):
    """q, k and v of one block under the names of diffusers, of one A as in Flux's own matrix."""
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(5, rank, generator=g)
    names = [f"transformer.transformer_blocks.0.attn.to_{x}" for x in "qkv"]
    return LoraAdapter({n: LoraPair(torch.randn(size, rank, generator=g), v) for n in names}, models=("flux",))


def test_copies_are_found_across_namings(coset, tmp_path):
    """One folder with files of three tools; a matrix of Flux is three modules of diffusers."""
    (tmp_path / "in").mkdir()
    for seed in range(2):
        save_diffusers(flux(seed), tmp_path / "in" / f"a{seed}.safetensors")
    save_kohya(flux(1), tmp_path / "in" / "kohya.safetensors")
    save_comfyui(flux(2), tmp_path / "in" / "comfy.safetensors")
    code, out, err = coset("lora", "duplicates", tmp_path / "in")
    assert code == 0, err
    assert out.splitlines()[1].split() == ["a1.safetensors", "kohya.safetensors", "1.0000"]
    assert "1 pairs among 4 adapters" in out
    code, out, err = coset("lora", "search", tmp_path / "in" / "comfy.safetensors", tmp_path / "in")
    assert (code, out.splitlines()[1].split()) == (0, ["comfy.safetensors", "1.0000"])
    (tmp_path / "native").mkdir()
    for seed in range(3):
        save_kohya(flux(seed), tmp_path / "native" / f"b{seed}.safetensors")
    assert coset("lora", "collect", tmp_path / "native", tmp_path / "zoo", "--quiet")[0] == 0
    out = coset("lora", "search", tmp_path / "in" / "a1.safetensors", tmp_path / "zoo")[1]
    assert out.splitlines()[1].split() == ["b1.safetensors", "1.0000"]


def test_of_a_folder_all_adapters_are_told(coset, tmp_path):
    save_peft(one(1), tmp_path / "in" / "a")
    save_kohya(flux(1), tmp_path / "in" / "deep" / "b.safetensors")
    broken("NaN", tmp_path / "in" / "c")
    code, out, err = coset("lora", "inspect", tmp_path / "in", "--json")
    assert code == 0, err
    rows = {row["adapter"]: row for row in json.loads(out)}
    assert (rows["a"]["written as"], rows["a"]["layers"], rows["a"]["rank"]) == ("peft", "2", "2")
    assert (rows["deep/b.safetensors"]["written as"], rows["deep/b.safetensors"]["layers"]) == ("kohya", "1")
    assert "NaN" in rows["c"]["notes"]
    assert "3 adapters in" in coset("lora", "inspect", tmp_path / "in")[1]


def test_collect_tells_all_obstacles_at_once(coset, tmp_path):
    for seed in range(3):
        save_peft(one(seed), tmp_path / "in" / f"good{seed}")
    broken("NaN", tmp_path / "in" / "nan")
    broken("missing B", tmp_path / "in" / "torn")
    save_peft(one(5), tmp_path / "in" / "unknown")
    (tmp_path / "in" / "unknown" / "adapter_config.json").unlink()
    less = one(6)
    save_peft(replace(less, layers={"x.q": less.layers["x.q"]}), tmp_path / "in" / "less")
    code, _, err = coset("lora", "collect", tmp_path / "in", tmp_path / "zoo", "--quiet")
    said = " ".join(err.split())
    assert code == 1
    assert "3 of 7 adapters cannot be used" in said
    assert "nan: " in said
    assert "torn: " in said
    assert "unknown: no adapter_config.json and no alpha" in said
    assert "(--lossy goes on without)" in said
    assert "different layers (less lacks x.v)" in said
    code, out, err = coset("lora", "collect", tmp_path / "in", tmp_path / "zoo", "--skip-bad", "--lossy", "--layers",
                           "union", "--quiet")  # fmt: skip
    assert code == 0, err
    assert "5 adapters" in out
    assert "unknown: no adapter_config.json" in " ".join(err.split())
