import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from coset.weights.lora.models.columns import rows
from coset.weights.lora.models.features import Alignment
from coset.weights.lora.models.procrustes import polar


def test_by_hand():
    """A rotation by 90 degrees, stretched, and a reflection."""
    turn = torch.tensor([[0.0, -3.0], [2.0, 0.0]])
    assert torch.allclose(polar(turn), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    assert torch.allclose(polar(torch.tensor([[[-5.0]]])), torch.tensor([[[-1.0]]]))
    assert torch.allclose(polar(torch.diag(torch.tensor([4.0, -0.1]))), torch.diag(torch.tensor([1.0, -1.0])))


@given(
    rank=st.integers(1, 9), number=st.sampled_from([1, 2, 64, 65, 130]), spread=st.integers(0, 9),
    seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_matrices_as_scipy(rank, number, spread, seed):
    """Condition numbers up to 1e9, sizes from 1e-12 to 1e12."""
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.linalg.qr(torch.randn(number, rank, rank, generator=g, dtype=torch.float64))[0] for _ in "ab")
    values = 10 ** (-torch.rand(number, rank, generator=g, dtype=torch.float64) * spread)
    size = 10 ** ((torch.rand(number, 1, 1, generator=g, dtype=torch.float64) - 0.5) * 24)
    found = polar(size * (a * values[:, None]) @ b.mT)
    # Singular vectors of the small values are known to about 1e-16 times the condition number.
    assert float((found - a @ b.mT).abs().max()) < 1e-14 * 10.0**spread + 1e-12
    assert float((found.mT @ found - torch.eye(rank, dtype=torch.float64)).abs().max()) < 1e-12


@pytest.mark.parametrize("rank", [1, 3, 4, 8])
def test_alignment_is_scipy_layer_by_layer(rank):
    g = torch.Generator().manual_seed(rank)
    x = tuple((torch.randn(3, c, n, rank, generator=g), torch.randn(3, c, m, rank, generator=g))
              for c, n, m in ((2, 12, 7), (1, 9, 30)))  # fmt: skip
    align = Alignment(tuple((u[:1], v[:1]) for u, v in x))
    for (u, v), q, i in zip(x, align.rotations(x), range(2), strict=True):
        for b in range(3):
            for layer in range(u.size(1)):
                joined = torch.cat([u, v], -2)[b, layer].double().numpy()
                template = align.get_buffer(f"template_{i}")[layer].double().numpy()
                np.testing.assert_allclose(q[b, layer].numpy(), orthogonal_procrustes(joined, template)[0], atol=2e-4)
    torch.testing.assert_close(align.align(x)[0][0][0], x[0][0][0], atol=1e-5, rtol=1e-4)  # the template itself


def test_singular_matrices_still_give_orthogonal_ones():
    matrices = torch.stack([torch.zeros(3, 3), torch.ones(3, 3), torch.eye(3), torch.diag(torch.tensor([1.0, 1, 0]))])
    found = polar(matrices)
    assert torch.allclose(found.mT @ found, torch.eye(3).expand(4, 3, 3), atol=1e-5)
    assert torch.equal(found[2], torch.eye(3))
    assert polar(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_any_precision_is_computed_in_double_and_given_back(dtype):
    x = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(polar(x), polar(x.double()).to(dtype))


def test_gradients_pass():
    x = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(polar, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("rank", [1, 2, 3, 4, 6, 8])
def test_rows_are_products_layer_by_layer(rank, dtype):
    """Whatever the number of bytes in a run of r numbers, and for views."""
    g = torch.Generator().manual_seed(rank)
    weight, factor = (torch.randint(-4, 5, s, generator=g).to(dtype) for s in ((2, 5, 7), (3, 2, 14, rank)))
    factor = factor[:, :, ::2]
    expected = torch.einsum("lkn,blnr->blkr", weight.double(), factor.double()).to(dtype)
    assert torch.equal(rows(weight, factor), expected)
    tracked = factor.float().requires_grad_()
    assert torch.equal(rows(weight.float(), tracked).to(dtype), expected)
