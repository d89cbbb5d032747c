"""DoRA's magnitudes as input of models."""

import html

import pytest
import torch

from coset.core.errors import CosetError
from coset.weights.lora import LoraAdapter, LoraPair, load_lora, save_peft
from coset.weights.lora.data.factors import Layout, regauge, stack
from coset.weights.lora.data.magnitudes import Magnitudes, groups_of
from coset.weights.lora.data.zoo import build_zoo, find_adapters
from coset.weights.lora.models.features import products
from coset.weights.lora.models.kernel import KernelRidge
from coset.weights.lora.models.registry import LORA_MODELS, build

SHAPES = {"a": (6, 5), "b": (4, 7)}
LAYOUT = Layout.of(SHAPES.items())
GROUPS = groups_of({name: n for name, (n, _) in SHAPES.items()})


def adapter(seed, same_update=False, dora=True):
    g = torch.Generator().manual_seed(0 if same_update else seed)
    own = torch.Generator().manual_seed(100 + seed)
    pairs = {
        name: LoraPair(
            torch.randn(n, 2, generator=g), torch.randn(m, 2, generator=g),
            magnitude=1 + torch.rand(n, generator=own) if dora else None,
        )
        for name, (n, m) in SHAPES.items()
    }  # fmt: skip
    return LoraAdapter(pairs, f"a{seed}")


def joined(adapters, reference=None):
    own = Magnitudes.of(adapters, GROUPS)
    reference = reference or own.mean(torch.arange(len(adapters)))
    return own.join(LAYOUT, stack(adapters, LAYOUT), reference)


def test_a_magnitude_is_the_update_of_one_more_layer():
    adapters = [adapter(seed) for seed in range(3)]
    layout, factors = joined(adapters)
    assert layout.names == ("a", "b", "a.magnitude", "b.magnitude")
    mean = torch.stack([x.layers["b"].magnitude for x in adapters]).mean(0)
    u, v = factors[3]
    torch.testing.assert_close((u @ v.mT)[1, 0, :, 0], adapters[1].layers["b"].magnitude - mean)


@pytest.mark.parametrize("name", [m for m in LORA_MODELS.names() if m != "svd"])
def test_models_see_magnitudes_whatever_the_factors(name):
    """Adapters with equal updates and other magnitudes: only the latter can tell them apart."""
    layout, factors = joined([adapter(seed, same_update=True) for seed in range(8)])
    if name == "kernel":
        y = torch.arange(8.0)[:, None]
        model = KernelRidge(factors, y, (factors, y))
    else:
        model = build(name, layout, factors, 2, width=4, hidden=8, dense_hidden=8, token_width=8)
    out = model.eval()(factors).detach()
    assert float((out[0] - out[1]).abs().max()) > 1e-6
    if model.symmetry() and name != "o_align":
        torch.testing.assert_close(model(regauge(factors, 0)), out, rtol=1e-3, atol=1e-3)


def test_a_collection_keeps_magnitudes_if_all_have_them(tmp_path):
    adapters = [adapter(seed) for seed in range(4)]
    for a in adapters:
        save_peft(a, tmp_path / "in" / a.name)
    zoo = build_zoo(find_adapters(tmp_path / "in"), tmp_path / "zoo", root=tmp_path / "in")
    found, wanted = zoo.magnitudes([2, 0]), Magnitudes.of([adapters[2], adapters[0]], GROUPS)
    assert found.groups == wanted.groups
    for a, b in zip(found.values, wanted.values, strict=True):
        torch.testing.assert_close(a, b)
    assert len(zoo.factors()) == 2
    zoo.verify()
    save_peft(adapter(9, dora=False), tmp_path / "in" / "a9")
    mixed = build_zoo(find_adapters(tmp_path / "in"), tmp_path / "mixed", root=tmp_path / "in")
    assert mixed.magnitude_groups == ()
    assert any("4 of 5 adapters have DoRA magnitudes" in note for note in mixed.notes)


def test_what_no_cosine_looks_at_is_told(tmp_path, coset):
    for seed in range(4):
        save_peft(adapter(seed), tmp_path / "in" / f"a{seed}")
    told = "DoRA's magnitudes are not compared: a cosine is of the products of factors alone"
    for verb in (["search", tmp_path / "in" / "a0"], ["duplicates"]):
        code, _, err = coset("lora", *verb, tmp_path / "in")
        assert code == 0, err
        assert f"note: {told}\n" in err
    assert coset("lora", "map", tmp_path / "in", "--output", tmp_path / "map.html")[0] == 0
    assert told in html.unescape((tmp_path / "map.html").read_text(encoding="utf-8"))


def test_magnitudes_that_are_missing_or_of_another_size_are_named(tmp_path):
    with pytest.raises(CosetError, match="a1: a has no DoRA magnitude"):
        joined([adapter(0), adapter(1, dora=False)])
    with pytest.raises(CosetError, match="the magnitude of a has 6 numbers; 7 expected"):
        Magnitudes.of([adapter(0)], ((7, ("a",)),))


def test_magnitudes_survive_being_written(tmp_path):
    save_peft(adapter(0), tmp_path)
    torch.testing.assert_close(load_lora(tmp_path).layers["a"].magnitude, adapter(0).layers["a"].magnitude)
    assert products(stack([load_lora(tmp_path)], LAYOUT)).shape == (1, 58)
