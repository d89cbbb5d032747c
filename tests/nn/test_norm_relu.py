import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from coset.nn.norm_relu import NormReLU, add_repeated, covers, sum_repeated
from coset.relations import IndexSet, broadcast, marginalise

D = torch.float64


def norm_of(columns, training, dtype=D):
    norm = nn.BatchNorm1d(columns).to(dtype).train(training)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean):
            value.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return norm


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 200), columns=st.sampled_from([8, 16, 24, 48]), training=st.booleans(), seed=st.integers(0, 99)
)
def test_equals_pytorch(rows, columns, training, seed):
    torch.manual_seed(seed)
    ours, theirs = norm_of(columns, training), None
    theirs = copy.deepcopy(ours)
    x, bias = torch.randn(rows, columns, dtype=D, requires_grad=True), torch.randn(columns, dtype=D)
    grad = torch.randn(rows, columns, dtype=D)
    with torch.no_grad():
        settled = NormReLU.of(x, ours, ours.weight, ours.bias, bias)
        y = settled.forward(x, torch.empty_like(x))
        d_x, d_gamma, d_beta = settled.backward(x, grad, torch.empty_like(x))
    expected = F.relu(theirs(x + bias))
    expected.backward(grad)
    for found, wanted in (
        (y, expected), (d_x, x.grad), (d_gamma, theirs.weight.grad), (d_beta, theirs.bias.grad),
        (ours.running_mean, theirs.running_mean), (ours.running_var, theirs.running_var),
    ):  # fmt: skip
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_variance_far_from_zero_does_not_cancel():
    x = 1e4 + torch.randn(1000, 16)
    norm = nn.BatchNorm1d(16)
    with torch.no_grad():
        settled = NormReLU.of(x, norm, norm.weight, norm.bias)
    torch.testing.assert_close(settled.inverse, x.double().var(0, correction=0).rsqrt().float(), rtol=1e-3, atol=0)


def test_slices_of_columns_and_a_gradient_in_place():
    torch.manual_seed(0)
    wide, norm = torch.randn(50, 40, dtype=D), norm_of(16, True)
    x, grad = wide[:, 8:24], torch.randn(50, 16, dtype=D)
    with torch.no_grad():
        settled = NormReLU.of(x, norm, norm.weight, norm.bias)
        apart = settled.backward(x, grad, torch.empty_like(grad))[0]
        assert torch.equal(settled.backward(x, grad, grad)[0], apart)


def test_one_row_has_no_batch_statistics():
    norm = nn.BatchNorm1d(8)
    with torch.no_grad(), pytest.raises(ValueError, match="at least two rows"):
        NormReLU.of(torch.randn(1, 8), norm, norm.weight, norm.bias)
    assert not covers(12)


def test_a_repeated_term_and_its_adjoint():
    roots, nodes = IndexSet(torch.tensor([2, 0, 3])), IndexSet(torch.tensor([4, 1, 2]))
    pairs = roots * nodes
    term, x = torch.randn(nodes.total, 8, dtype=D), torch.randn(pairs.total, 8, dtype=D)
    expected = x + broadcast(term, pairs, along=0)
    torch.testing.assert_close(sum_repeated(x, pairs), marginalise(x, pairs, along=0))
    add_repeated(x, term, pairs)
    torch.testing.assert_close(x, expected)
