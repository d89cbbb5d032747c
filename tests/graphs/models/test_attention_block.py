"""The layer as one operation, held to the layer made of its parts."""

import copy

import fused_layers
import pytest
import torch
from fused_layers import assert_same_outcome, check_change_in_place, check_two_passes_alive, disturbed, outcome

from coset.graphs import Subgraphormer
from coset.graphs.models import attention_block, linear_attention_block
from coset.graphs.transforms import ProductPositionalEncoding, SampleRoots, ShortestPathDistances

D = torch.float64


def random_graphs(count=4, seed=0, fraction=None):
    def dress(graph):
        graph = ProductPositionalEncoding(8)(ShortestPathDistances()(graph))
        return graph if fraction is None else SampleRoots(fraction=fraction, seed=seed)(graph)

    batch = fused_layers.random_graphs(dress, count, seed)
    batch.laplacian_eigenvectors = batch.laplacian_eigenvectors.double()
    return batch


def model(edges=True, **options):
    torch.manual_seed(0)
    settings = {"width": 48, "layers": 2, "positional_encoding": 8} | options
    return disturbed(Subgraphormer(2, [3, 3], [2] if edges else None, **settings))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edges": False},
        {"residual": True},
        {"marking": "none"},
        {"marking": "root", "level": "pair"},
        {"heads": 2},
        {"width": 32},
        {"linear": True},
        {"linear": True, "residual": True, "edges": False},
        {"linear": True, "heads": 2, "width": 56},  # 18 columns from vv: not in vectors of 8, and so of parts
        {"linear": True, "width": 80},
    ],
)
@pytest.mark.parametrize("fraction", [None, 0.5])
def test_equals_the_layer_made_of_its_parts(training, options, fraction):
    fast = model(**options).train(training)
    parts, batch = copy.deepcopy(fast), random_graphs(fraction=fraction)
    assert_same_outcome(outcome(fast, batch, True), outcome(parts, batch, False))


def test_it_is_used_where_it_applies_and_only_there():
    batch = random_graphs()
    made = model()
    x, _ = made.pair_features(batch)
    assert x.grad_fn.name() == "_AttentionBlockBackward"
    assert model(linear=True).pair_features(batch)[0].grad_fn.name() == "_LinearAttentionBlockBackward"
    for other in ({"attention": "gatv2"}, {"relations": ("uL", "vL")}):
        for linear in (True, False):
            block = model(**other, linear=linear).layers[0]
            assert not attention_block.applies(block, x)
            assert not linear_attention_block.applies(block, x)
    assert not attention_block.applies(made.layers[0], x.float())
    made.layers[0].norm.eval()
    assert not attention_block.applies(made.layers[0], x)


@pytest.mark.parametrize("linear", [False, True])
def test_two_forward_passes_may_be_alive_at_once(linear):
    check_two_passes_alive(model(linear=linear).eval(), random_graphs(seed=1), random_graphs(seed=2))


@pytest.mark.parametrize("linear", [False, True])
def test_a_change_in_place_between_layers_is_seen(linear):
    check_change_in_place(model(linear=linear).eval(), random_graphs())


def test_inference_mode_gives_the_same():
    made, batch = model().eval(), random_graphs()
    with torch.inference_mode():
        found = made(batch)
    torch.testing.assert_close(found, made(batch).detach())


@pytest.mark.parametrize("linear", [False, True])
def test_gradcheck_of_the_operation(linear):
    batch, made = random_graphs(2, seed=3), model(linear=linear).eval()
    x, graph = made.pair_features(batch)
    x = x.detach().requires_grad_()
    block = made.layers[0]
    operation, name = (
        (linear_attention_block, "linear_attention_block") if linear else (attention_block, "attention_block")
    )
    assert operation.applies(block, x)
    assert torch.autograd.gradcheck(lambda x: getattr(operation, name)(block, x, graph), (x,), fast_mode=True)
