"""The subcomplex layer as one operation is the layer written term by term, values and gradients."""

import pytest
import torch
from torch_geometric.data import Batch

from coset.relations import use_kernels
from coset.topology import SCL, CellBatch, Complex, to_data
from coset.topology.data.torus import klein_bottle, strip, torus
from coset.topology.models.subcomplex_block import applies

COMPLEXES = [torus(3, 4), Complex(2, {1: [(0, 1)]}), strip(5, twisted=True), Complex(1, {}), klein_bottle(4, 4)]
DATA = [to_data(c, ranks=3) for c in COMPLEXES]


def results(layer: SCL, cells: CellBatch, fused: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    dtype, width = next(layer.parameters()).dtype, layer.mlps["low"][0].in_features
    h = [torch.randn(i.total, width, generator=generator, dtype=torch.double).to(dtype) for i in cells.cells]
    x = torch.randn(cells.pairs(*layer.ranks).total, width, generator=generator, dtype=torch.double).to(dtype)
    leaves = [x.requires_grad_(), *(part.requires_grad_() for part in h)]
    with use_kernels(fused):
        assert applies(layer, x) == fused
        out = layer(x, h, cells)
    weight = torch.randn(out.shape, generator=generator, dtype=torch.double).to(dtype)
    grads = torch.autograd.grad((out * weight).sum(), [*leaves, *layer.parameters()], allow_unused=True)
    return [out.detach(), *(g for g in grads if g is not None)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("ranks", [(0, 1), (0, 2), (1, 2), (0, 0)])
def test_equals_the_reference_in_float64(ranks, reduce, threads):
    torch.manual_seed(0)
    layer = SCL(7, ranks, reduce=reduce).double()
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    cells = CellBatch(Batch.from_data_list(DATA))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fused, plain = results(layer, cells, True), results(layer, cells, False)
    finally:
        torch.set_num_threads(before)
    assert len(fused) == len(plain)
    for a, b in zip(fused, plain):
        assert torch.allclose(a, b, atol=1e-10 * (1 + float(b.abs().max())))


def test_equals_the_reference_in_float32():
    torch.manual_seed(0)
    layer = SCL(32, (0, 1))
    cells = CellBatch(Batch.from_data_list(DATA))
    for a, b in zip(results(layer, cells, True), results(layer, cells, False)):
        assert torch.allclose(a, b, atol=1e-4 * (1 + float(b.abs().max())))


def test_gradcheck():
    torch.manual_seed(0)
    layer = SCL(3, (0, 2)).double()
    cells = CellBatch(DATA[0])
    h = [torch.randn(i.total, 3, dtype=torch.double, requires_grad=True) for i in cells.cells]
    x = torch.randn(cells.pairs(0, 2).total, 3, dtype=torch.double, requires_grad=True)
    assert applies(layer, x)
    assert torch.autograd.gradcheck(lambda x, *h: layer(x, list(h), cells), (x, *h))


def test_stands_back_where_it_does_not_apply():
    x = torch.randn(2, 8)
    assert applies(SCL(8, (0, 1)), x)
    for layer in (
        SCL(8, (0, 1), terms=("low",)),
        SCL(8, (0, 1), norm="batch"),
        SCL(8, (0, 1), norm="none"),
        SCL(8, (0, 1), use_bridge=False),
        SCL(8, (0, 1)).double(),
    ):
        assert not applies(layer, x)
    assert not applies(SCL(8, (0, 1)), x[:0])
