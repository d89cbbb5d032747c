"""Rows of pairs stored in bfloat16: what kernels read and write, and how far a network is from float64."""

import copy

import fused_layers
import numpy as np
import pytest
import torch
from llvmlite import binding
from numba import njit

from coset.graphs import GNNSSWLPlus, Subgraphormer
from coset.graphs.transforms import ProductPositionalEncoding, ShortestPathDistances
from coset.relations.kernels import simd

WIDTH = 48


@pytest.mark.parametrize("native", [True, False])
def test_a_load_widens_and_a_store_rounds_as_pytorch(native, monkeypatch):
    if not native:
        monkeypatch.setattr(binding, "get_host_cpu_features", dict)
    elif not binding.get_host_cpu_features().get("avx512bf16"):
        pytest.skip("this CPU has no instruction that rounds to bfloat16")

    @njit
    def rounded(x, out, back, lanes):
        for i in range(0, len(x), len(lanes)):
            simd.store(out, i, simd.load(x, i, lanes))
            simd.store(back, i, simd.load(out, i, lanes))

    torch.manual_seed(0)
    bits = torch.randint(0, 1 << 16, (4096,), dtype=torch.int32) << 16
    ties = torch.randn(4096).bfloat16().float().view(torch.int32) + 0x8000  # halfway between two of bfloat16
    x = torch.cat([torch.randn(4096), ties.view(torch.float32), bits.view(torch.float32), torch.full((16,), torch.inf)])
    x = x[(x == 0) | (x.abs() > 1e-30) | x.isnan()]  # the instruction takes subnormal numbers for zeros
    x = x[: len(x) // 24 * 24]  # both lengths of vectors
    for lanes in (3, 8):
        out, back = np.empty(len(x), np.int16), np.empty(len(x), np.float32)
        rounded(x.numpy(), out, back, (0,) * lanes)
        torch.testing.assert_close(torch.from_numpy(back), x.bfloat16().float(), rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(
            torch.from_numpy(out).view(torch.bfloat16), x.bfloat16(), rtol=0, atol=0, equal_nan=True
        )


def network(away_from_kinks=False, kind=Subgraphormer, **options):
    torch.manual_seed(0)
    made = kind(2, [3, 3], [2], **{"width": WIDTH, "layers": 2, "positional_encoding": 8} | options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if away_from_kinks:
            for name, parameter in made.layers.named_parameters():
                if "norm.bias" in name or "edge_encoder" in name:
                    parameter.add_(5)
    return made


def gradients(made, batch):
    out = made(batch)
    (out**2).sum().backward()
    return out.detach().double(), torch.cat(
        [p.grad.flatten().double() for p in made.parameters() if p.grad is not None]
    )


def distance(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def graphs(count):
    def dress(graph):
        return ProductPositionalEncoding(8)(ShortestPathDistances()(graph))

    return fused_layers.random_graphs(dress, count, 0)


def widened(batch):
    wide = copy.copy(batch)
    wide.laplacian_eigenvectors = batch.laplacian_eigenvectors.double()
    return wide


SUMS = {"kind": GNNSSWLPlus}
NETWORKS = [{}, {"linear": True}, SUMS, SUMS | {"residual": True}, SUMS | {"relations": ["uL", "vL"]}]


@pytest.mark.parametrize("options", NETWORKS)
def test_a_network_is_as_near_to_float64_as_eight_bits_are(options):
    made, batch = network(away_from_kinks=True, **options), graphs(40)
    stored = copy.deepcopy(made)
    stored.store_in_bfloat16()
    assert stored.pair_features(batch)[0].dtype == torch.float32  # after the last layer; the next line looks before it
    assert stored.encoder(batch, stored.pair_features(batch)[1], torch.bfloat16).dtype == torch.bfloat16
    wide = widened(batch)
    (out, grad), (exact, d_exact) = gradients(stored, batch), gradients(made.double(), wide)
    assert 1e-5 < distance(out, exact) < 2e-2
    assert distance(grad, d_exact) < 3e-2
    assert all(parameter.grad.dtype == torch.float32 for parameter in stored.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("options", [{}, SUMS])
def test_behind_kinks_gradients_point_the_same_way(options):
    """Rounding switches units whose input is near 0 on and off, as rounding the weights of a float64 network does."""
    made, batch = network(**options), graphs(40)
    stored = copy.deepcopy(made)
    stored.store_in_bfloat16()
    (_, grad), (_, exact) = gradients(stored, batch), gradients(made.double(), widened(batch))
    assert torch.cosine_similarity(grad, exact, dim=0) > 0.97


@pytest.mark.parametrize("options", [{}, SUMS])
def test_evaluation_is_in_the_precision_of_the_weights(options):
    made, batch = network(**options).double().eval(), widened(graphs(4))
    stored = copy.deepcopy(made)
    stored.store_in_bfloat16()
    with torch.no_grad():
        assert torch.equal(stored(batch), made(batch))


@pytest.mark.parametrize("relations", [["uL"], ["vL", "vv"]])
def test_a_part_in_evaluation_is_computed_apart(relations):
    """Norms of several modes have no operation of their own, whatever rows are stored as."""
    made, batch = network(kind=GNNSSWLPlus), graphs(20)
    for relation in relations:
        made.layers[0].gather[relation].eval()
    stored = copy.deepcopy(made)
    stored.store_in_bfloat16()
    (out, grad), (exact, d_exact) = gradients(stored, batch), gradients(made.double(), widened(batch))
    assert 1e-5 < distance(out, exact) < 2e-2
    assert torch.cosine_similarity(grad, d_exact, dim=0) > 0.97


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Subgraphormer, {"attention": "gatv2"}),
        (Subgraphormer, {"relations": ["uL", "vv"]}),
        (Subgraphormer, {"width": 36}),
        (GNNSSWLPlus, {"relations": ["uL", "uG"]}),
        (GNNSSWLPlus, {"width": 36}),
    ],
)
def test_networks_without_the_operation_say_so(kind, options):
    with pytest.raises(ValueError, match="no operation on rows of pairs in bfloat16"):
        kind(1, None, None, **({"width": WIDTH} | options)).store_in_bfloat16()
