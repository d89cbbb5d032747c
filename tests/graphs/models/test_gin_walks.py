"""GIN with walks and feed-forward networks: GNN+ of Luo, Shi, Wu (ICML 2025)."""

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.utils import from_networkx

from coset.graphs import GIN
from coset.graphs.models.options import GRAPH_MODELS
from coset.symmetry import verify_claims

OPTIONS = {"width": 12, "layers": 2, "residual": True, "walks": 6, "feed_forward": True, "dropout": 0.1}


def batch_of(options, *graphs):
    transform = GRAPH_MODELS["gin"].model_validate(options).transform()
    return Batch.from_data_list([transform(from_networkx(graph)) for graph in graphs])


def test_chances_of_return_are_those_of_hand():
    path = batch_of(OPTIONS, nx.path_graph(3)).walks
    expected = torch.tensor([[0, 0.5, 0, 0.5, 0, 0.5], [0, 1, 0, 1, 0, 1], [0, 0.5, 0, 0.5, 0, 0.5]])
    torch.testing.assert_close(path, expected)


@pytest.mark.parametrize("walks", [0, 6])
def test_walks_see_what_messages_cannot(walks):
    """A hexagon and two triangles: chances of return differ from three steps on."""
    options = {**OPTIONS, "walks": walks}
    torch.manual_seed(0)
    model = GIN(**options).eval()
    out = model(batch_of(options, nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))))
    assert (float((out[0] - out[1]).abs().max().detach()) > 1e-4) == bool(walks)


@pytest.mark.parametrize("training", [False, True])
def test_renumbering_nodes_changes_nothing(training):
    torch.manual_seed(0)
    model = GIN(**{**OPTIONS, "dropout": 0.0}).double().train(training)
    reports = verify_claims(model, batch_of(OPTIONS, nx.random_labeled_tree(9, seed=1), nx.cycle_graph(5)))
    assert reports
    assert all(report.passed and report.max_relative_error < 1e-9 for report in reports)


def test_a_layer_is_the_formula():
    torch.manual_seed(1)
    model = GIN(width=4, layers=1, feed_forward=True, residual=True, norm="identity").double().eval()
    batch = batch_of({"walks": 0}, nx.path_graph(3))
    seen = []
    model.head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(batch)
    start = model.encoder.weight.expand(3, 4)
    neighbours = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    mlp, wide = model.mlps[0], model.feed_forwards[0]
    out = start + torch.relu(mlp.second(torch.relu(mlp.first(neighbours @ start + (1 + model.eps[0]) * start))))
    out = model.feed_forward_norms[0](out + wide.second(torch.relu(wide.first(out))))
    torch.testing.assert_close(seen[0][0], out.sum(0))
    assert wide.first.out_features == 8
