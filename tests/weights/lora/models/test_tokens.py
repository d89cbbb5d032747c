"""Tokens of adapters: layers with all their entries, and singular triples."""

import pytest
import torch

from coset.weights.lora.data.factors import Layout, pad_rank, regauge, select
from coset.weights.lora.models.tokens import FactorTransformer, TripleTransformer, triples

LAYOUT = Layout.of([("a", (6, 5)), ("b", (4, 7)), ("c", (6, 5))])


def factors(batch=8, rank=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(
        (torch.randn(batch, len(names), n, rank, generator=g).double(),
         torch.randn(batch, len(names), m, rank, generator=g).double())
        for (n, m), names in LAYOUT.groups
    )  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TripleTransformer(LAYOUT, factors(), 16, 8, 2).double().eval()


def test_triples_by_hand():
    """diag(3, 2) has triples (e1, 3, e1) and (e2, 2, e2)."""
    layout = Layout.of([("a", (2, 2))])
    x = ((torch.diag(torch.tensor([3.0, 2.0]))[None, None], torch.eye(2)[None, None]),)
    ((u, v),), values = triples(TripleTransformer(layout, x, 8, 4, 1).precompute(x))
    torch.testing.assert_close(values, torch.tensor([[[3.0, 2.0]]]))
    torch.testing.assert_close(u.abs()[0, 0], torch.eye(2))
    torch.testing.assert_close(u, v)


def test_a_common_sign_of_both_vectors_changes_no_token(model):
    prepared = model.precompute(factors())
    turned = tuple((u * torch.tensor([1.0, -1.0, 1.0]), v * torch.tensor([1.0, -1.0, 1.0])) for u, v in prepared)
    torch.testing.assert_close(model.tokens(turned)[0], model.tokens(prepared)[0])
    one_side = tuple((u * torch.tensor([1.0, -1.0, 1.0]), v) for u, v in prepared)
    assert not torch.allclose(model.tokens(one_side)[0], model.tokens(prepared)[0])


def test_triples_of_value_zero_are_not_seen_so_that_ranks_do_not_matter(model):
    x = factors(4, rank=2, seed=1)
    tokens, seen = model.tokens(model.precompute(pad_rank(x, 5)))
    assert tokens.shape == (4, 15, 16)
    assert seen.sum(1).tolist() == [6, 6, 6, 6]
    torch.testing.assert_close(model(pad_rank(x, 5)), model(x))
    zero = tuple((torch.zeros_like(u), torch.zeros_like(v)) for u, v in x)
    assert model(zero).isfinite().all()


def test_the_order_of_singular_values_does_not_matter_but_that_of_layers_does(model):
    u, v = model.precompute(factors())[0]
    rest = model.precompute(factors())[1:]
    turned = ((u.flip(-1), v.flip(-1)), *rest)
    torch.testing.assert_close(model.predict(turned), model.predict(((u, v), *rest)))
    assert not torch.allclose(model.predict(((u.flip(1), v.flip(1)), *rest)), model.predict(((u, v), *rest)))


def test_gradients_reach_every_weight():
    for kind in (FactorTransformer, TripleTransformer):
        net = kind(LAYOUT, factors(), 16, 8, 2).double()
        net(factors()).square().sum().backward()
        names = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not names


def test_raw_entries_are_another_input_after_a_change_of_basis():
    torch.manual_seed(0)
    net = FactorTransformer(LAYOUT, factors(), 16, 8, 2).double().eval()
    assert net.symmetry() == ()
    x = factors(3)
    assert not torch.allclose(net(regauge(x, 0)), net(x))
    torch.testing.assert_close(torch.cat([net(select(x, [i])) for i in range(3)]), net(x))
