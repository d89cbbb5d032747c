"""The layer of GNN-SSWL+ and CS-GNN as one operation, held to the layer made of its parts."""

import copy

import fused_layers
import pytest
import torch
from fused_layers import assert_same_outcome, check_change_in_place, check_two_passes_alive, disturbed, outcome

from coset.graphs import CSGNN, GNNSSWLPlus
from coset.graphs.models import sum_block
from coset.graphs.transforms import Coarsen, SampleRoots, ShortestPathDistances


def random_graphs(count=4, seed=0, dress=lambda graph: graph):
    return fused_layers.random_graphs(lambda graph: dress(ShortestPathDistances()(graph)), count, seed)


DRESSES = {
    "all": lambda graph: graph,
    "roots": lambda graph: SampleRoots(fraction=0.5, seed=0)(graph),
    "clusters": lambda graph: Coarsen("spectral", size=3)(graph),
    "balls": lambda graph: Coarsen("balls")(graph),
}


def model(kind=GNNSSWLPlus, edges=True, **options):
    torch.manual_seed(0)
    return disturbed(kind(2, [3, 3], [2] if edges else None, **{"width": 16, "layers": 2} | options))


CASES = [
    (GNNSSWLPlus, {}, "all"),
    (GNNSSWLPlus, {"edges": False, "residual": True, "width": 24}, "all"),
    (GNNSSWLPlus, {"level": "pair"}, "roots"),
    (GNNSSWLPlus, {"relations": ("uL",)}, "all"),
    (GNNSSWLPlus, {"relations": ("uL", "vL")}, "all"),
    (CSGNN, {}, "all"),
    (CSGNN, {}, "clusters"),
    (CSGNN, {"edges": False, "residual": True}, "clusters"),
    (CSGNN, {"updates": "none", "crossing": "once"}, "clusters"),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "options", "dress"), CASES)
def test_equals_the_layer_made_of_its_parts(training, kind, options, dress):
    fast = model(kind, **options).train(training)
    parts, batch = copy.deepcopy(fast), random_graphs(dress=DRESSES[dress])
    x, graph = fast.pair_features(batch)
    assert sum_block.branches(fast.layers[0], x.detach(), graph) is not None
    fast.load_state_dict(parts.state_dict())
    assert_same_outcome(outcome(fast, batch, True), outcome(parts, batch, False))


def test_a_factor_of_zero_still_has_a_gradient():
    fast = model()
    with torch.no_grad():
        for layer in fast.layers:
            layer.gather["uL"].eps.fill_(-1)
    parts, batch = copy.deepcopy(fast), random_graphs()
    found, wanted = outcome(fast, batch, True), outcome(parts, batch, False)
    name = "layers.0.gather.uL.eps"
    assert wanted[name].abs() > 1e-6
    torch.testing.assert_close(found[name], wanted[name], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "options", "dress"),
    [
        (GNNSSWLPlus, {"relations": ("uL", "vG")}, "all"),
        (GNNSSWLPlus, {"width": 12}, "all"),
        (CSGNN, {"updates": "full"}, "clusters"),
        (CSGNN, {"coupling": "relu"}, "clusters"),
        (CSGNN, {"attention": "gat"}, "clusters"),
        (CSGNN, {}, "balls"),
    ],
)
def test_it_is_left_out_where_it_does_not_apply(kind, options, dress):
    made, batch = model(kind, **options), random_graphs(dress=DRESSES[dress])
    x, graph = made.pair_features(batch)
    assert sum_block.branches(made.layers[0], x.detach(), graph) is None


def test_two_forward_passes_may_be_alive_at_once():
    check_two_passes_alive(model().eval(), random_graphs(seed=1), random_graphs(seed=2))


def test_a_change_in_place_between_layers_is_seen():
    check_change_in_place(model().eval(), random_graphs())


@pytest.mark.parametrize(("kind", "dress"), [(GNNSSWLPlus, "all"), (CSGNN, "clusters")])
def test_inference_mode_gives_the_same(kind, dress):
    made, batch = model(kind).eval(), random_graphs(dress=DRESSES[dress])
    with torch.inference_mode():
        found = made(batch)
    torch.testing.assert_close(found, made(batch).detach())


@pytest.mark.parametrize(("kind", "dress"), [(GNNSSWLPlus, "all"), (CSGNN, "clusters")])
def test_gradcheck_of_the_operation(kind, dress):
    batch, made = random_graphs(2, seed=3, dress=DRESSES[dress]), model(kind).eval()
    x, graph = made.pair_features(batch)
    # Not x itself: it holds zeros, where ReLU(x + ReLU(e)) has no slope.
    x, block = torch.randn_like(x.detach()).requires_grad_(), made.layers[0]

    def layer(x):
        return sum_block.sum_block(sum_block.branches(block, x, graph), block.norm, x)

    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)
