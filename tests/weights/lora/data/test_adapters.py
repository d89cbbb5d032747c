import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.core.errors import CosetError
from coset.weights.lora import LoraAdapter, LoraPair, cosine, gauge, inner_product, inspect
from coset.weights.lora.data.adapters import balanced, singular_values, squared_norm

SMALL = LoraPair(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]]))


def random_adapter(seed=0, rank=3, scale=0.7):
    g = torch.Generator().manual_seed(seed)
    pairs = {
        name: LoraPair(torch.randn(n, rank, generator=g), torch.randn(m, rank, generator=g), scale)
        for name, n, m in (("a", 6, 5), ("b", 4, 7))
    }
    return LoraAdapter(pairs)


def test_rank_one_by_hand():
    assert SMALL.delta().tolist() == [[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]]
    assert float(SMALL.singular_values()[0]) == pytest.approx(15.8114, abs=1e-4)
    moved = LoraPair(SMALL.u * 2, SMALL.v / 2)
    assert moved.v.flatten().tolist() == [1.5, 2.0, 2.5]
    assert torch.equal(moved.delta(), SMALL.delta())
    facts = inspect(LoraAdapter({"x": SMALL})).layers[0]
    assert facts.norm == pytest.approx(math.sqrt(250))
    assert facts.effective_rank == pytest.approx(1.0)


def test_negative_scale_keeps_its_sign():
    pair = LoraPair(SMALL.u, SMALL.v, scale=-2.0)
    torch.testing.assert_close(pair.delta(), -2 * SMALL.delta())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), rank=st.integers(2, 5), condition=st.floats(1.0, 100.0))
def test_regauging_changes_factors_and_nothing_else(seed, rank, condition):
    adapter = random_adapter(seed, rank)
    moved = gauge(adapter, torch.Generator().manual_seed(seed), condition)
    assert not torch.equal(moved.layers["a"].u, adapter.layers["a"].u)
    assert cosine(moved, adapter) == pytest.approx(1.0, abs=1e-5)
    for name, pair in adapter.layers.items():
        torch.testing.assert_close(moved.layers[name].delta(), pair.delta(), rtol=1e-3, atol=1e-3)


def test_spectra_norms_and_inner_products_equal_dense_ones():
    a, b = random_adapter(0), random_adapter(1, rank=2)
    dense = sum(float((a.layers[n].delta() * b.layers[n].delta()).sum()) for n in a.layers)
    assert inner_product(a, b) == pytest.approx(dense, rel=1e-5)
    pair = a.layers["a"]
    torch.testing.assert_close(
        pair.singular_values().float(), torch.linalg.svdvals(pair.delta())[:3], rtol=1e-4, atol=1e-5
    )
    u, v = pair.factors()
    assert float(squared_norm(u, v)) == pytest.approx(float(pair.delta().square().sum()), rel=1e-5)


def test_balancing_makes_both_grams_the_singular_values_also_beyond_full_rank():
    for rank in (2, 9):
        g = torch.Generator().manual_seed(0)
        u, v = torch.randn(6, rank, generator=g).double(), torch.randn(5, rank, generator=g).double()
        new_u, new_v = balanced(u, v)
        assert new_u.shape == u.shape
        torch.testing.assert_close(new_u @ new_v.mT, u @ v.mT)
        torch.testing.assert_close(new_u.mT @ new_u, torch.diag(singular_values(u, v)), atol=1e-10, rtol=1e-8)
        torch.testing.assert_close(new_u.mT @ new_u, new_v.mT @ new_v, atol=1e-10, rtol=1e-8)


def test_truncation_is_the_best_approximation():
    pair = random_adapter().layers["a"]
    left, values, right = torch.linalg.svd(pair.delta())
    torch.testing.assert_close(pair.truncate(2).delta(), left[:, :2] * values[:2] @ right[:2], rtol=1e-4, atol=1e-4)
    with pytest.raises(CosetError, match="rank=0"):
        pair.truncate(0)


def test_adapters_of_other_models_are_told_apart():
    other = LoraAdapter({"a": SMALL}, name="other")
    with pytest.raises(CosetError, match="other base models"):
        inner_product(random_adapter(), other)


def test_factors_that_do_not_fit_are_refused():
    with pytest.raises(CosetError, match="equal r"):
        LoraPair(torch.ones(2, 1), torch.ones(3, 2))
