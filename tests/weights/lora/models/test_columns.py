"""Batch and rank together as columns, whatever the strides."""

import pytest
import torch

from coset.weights.lora.data.factors import select
from coset.weights.lora.models.columns import columns, gather, rows

SHAPES = [(1, 1, 5, 4), (3, 2, 5, 4), (1, 2, 5, 2), (4, 1, 1, 1), (2, 3, 5, 3), (0, 2, 5, 4), (2, 1, 3, 6)]
KINDS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def test_by_hand():
    """Two adapters, one layer, n = 2, r = 1."""
    factor = torch.tensor([[[[1.0], [2.0]]], [[[3.0], [4.0]]]])
    assert columns(factor).tolist() == [[[1.0, 3.0], [2.0, 4.0]]]
    assert rows(torch.tensor([[[10.0, 1.0]]]), factor).flatten().tolist() == [12.0, 34.0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_a_permutation_of_axes(shape, kind):
    for factor in (torch.randn(shape).to(kind), torch.randn(shape[::-1]).to(kind).permute(3, 2, 1, 0)):
        wanted = factor.permute(1, 2, 0, 3).reshape(shape[1], shape[2], shape[0] * shape[3])
        assert torch.equal(columns(factor), wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gathered_adapters_are_the_selected_ones_and_need_no_copy(shape, kind):
    factors = ((torch.randn(shape).to(kind), torch.randn(shape).to(kind)),)
    chosen = torch.arange(shape[0]).flip(0).repeat(2)
    for u, v in (gather(factors, chosen)[0], gather(((factors[0][0].mT, factors[0][1].mT),), chosen)[0]):
        assert u.shape == v.shape
    (u, v), (wanted_u, wanted_v) = gather(factors, chosen)[0], select(factors, chosen)[0]
    assert torch.equal(u, wanted_u)
    assert torch.equal(v, wanted_v)
    assert columns(u).data_ptr() == u.data_ptr()


def test_rows_that_are_not_there_are_refused():
    factors = ((torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)),)
    for wrong in ([3], [-1]):
        with pytest.raises(IndexError, match="of 3 adapters"):
            gather(factors, torch.tensor(wrong))


def test_gradients_of_factors_and_weights_equal_those_of_the_product():
    weight, factor = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 4), (5, 2, 4, 2)))
    assert torch.autograd.gradcheck(rows, (weight, factor))
    torch.testing.assert_close(rows(weight, factor), weight @ factor)
