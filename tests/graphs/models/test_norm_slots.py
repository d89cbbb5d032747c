import copy
import pickle

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCN, GIN, GINEConv, GPSConv, GraphSAGE

from coset.graphs import NormSlot, attach_edges, graph_context, make_norm, mean_over_draws
from coset.nn.norms import NORMS as REGISTERED

D = torch.float64
NORMS = tuple(REGISTERED)
PAPER = {"init": "paper"}


def graph(n=5, seed=0, columns=6):
    generator = torch.Generator().manual_seed(seed)
    ring = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
    x = torch.randn(n, columns, generator=generator, dtype=D)
    return Data(x=x, edge_index=torch.cat([ring, ring.flip(0)], dim=1))


def slot(name, channels=8, **options):
    return NormSlot(name, channels, **({"init": "paper"} | options if "granola" in name or "rnf" in name else {}))


def built(kind, norm, **options):
    torch.manual_seed(0)
    return attach_edges(kind(6, 8, num_layers=3, out_channels=2, norm=norm, **options)).double()


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("kind", [GIN, GCN, GraphSAGE])
def test_every_norm_works_in_the_slots_of_basic_models(kind, name):
    model = built(kind, slot(name))
    batch = Batch.from_data_list([graph(5), graph(4, 1)])
    out = model(batch.x, batch.edge_index, batch=batch.batch)
    assert out.shape == (9, 2)
    out.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    parts = [part for part in model.modules() if isinstance(part, NormSlot)]
    assert len({id(part) for part in parts}) == len(parts) >= 2
    if name != "batch":  # of several graphs in evaluation mode each gets what it gets alone
        model.eval()
        together = model(batch.x, batch.edge_index, batch=batch.batch)
        alone = torch.cat([model(g.x, g.edge_index) for g in (graph(5), graph(4, 1))])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NORMS)
def test_the_three_slots_of_a_gps_layer_are_parted(name):
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    layer = attach_edges(GPSConv(8, GINEConv(mlp, edge_dim=3), heads=2, norm=slot(name))).double()
    norms = [layer.norm1, layer.norm2, layer.norm3]
    assert len({id(norm) for norm in norms}) == 3
    data = graph(columns=8)
    out = layer(data.x, data.edge_index, edge_attr=torch.randn(10, 3, dtype=D))
    assert out.shape == (5, 8)
    out.sum().backward()
    layer.reset_parameters()


def test_a_slot_does_what_the_norm_does():
    torch.manual_seed(0)
    norm = slot("granola", 6, edge_channels=3).double().eval()
    data, edge_attr = graph(), torch.randn(10, 3, dtype=D)
    with graph_context(data.edge_index, edge_attr):
        out = norm(data.x)
    bare = make_norm("granola", 6, 3, init="paper").double()
    bare.load_state_dict(norm.norm.state_dict())
    from coset.graphs.models.granola import settled_noise
    from coset.relations import IndexSet

    noise = settled_noise(IndexSet(torch.tensor([5])), 6, 0, 0, 0)
    torch.testing.assert_close(out, bare(data.x, data.edge_index, None, edge_attr=edge_attr, noise=noise))


def test_noise_is_fresh_in_training_settled_in_evaluation_and_another_in_every_slot():
    model = built(GCN, slot("granola"))
    data = graph()
    assert not torch.equal(model(data.x, data.edge_index), model(data.x, data.edge_index))
    model.eval()
    assert torch.equal(model(data.x, data.edge_index), model(data.x, data.edge_index))
    same = [norm.norm for norm in model.norms if isinstance(norm, NormSlot)][:2]
    same[1].load_state_dict(same[0].state_dict())
    x = torch.randn(5, 8, dtype=D)
    with graph_context(data.edge_index):
        first, second = (norm(x) for norm in [part for part in model.norms if isinstance(part, NormSlot)][:2])
    assert not torch.equal(first, second)


def test_means_over_draws_are_reproducible_and_settle():
    model = built(GCN, slot("granola")).eval()
    data = graph()
    with torch.no_grad():
        mean = mean_over_draws(model, data.x, data.edge_index, draws=4, seed=3)
        assert torch.equal(mean, mean_over_draws(model, data.x, data.edge_index, draws=4, seed=3))
        assert not torch.equal(mean, mean_over_draws(model, data.x, data.edge_index, draws=4, seed=4))
        few, many = (
            torch.stack([mean_over_draws(model, data.x, data.edge_index, draws=n, seed=s) for s in range(40)]).var(0)
            for n in (1, 8)
        )
    assert 3 < float((few / many).mean()) < 20  # falls as 1 / draws
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        mean_over_draws(model.train(), data.x, data.edge_index)


def test_models_with_slots_can_be_copied_and_pickled():
    model = built(GCN, slot("granola")).eval()
    data = graph()
    expected = model(data.x, data.edge_index)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(data.x, data.edge_index), expected)


def test_models_that_take_data_are_served():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 8), NormSlot("granola", 8)

        def forward(self, data):
            return self.norm(self.linear(data.x))

    model = attach_edges(Net()).double()
    batch = Batch.from_data_list([graph(5), graph(4, 1)])
    assert model(batch).shape == (9, 8)


def test_mistakes_are_explained():
    data = graph()
    with pytest.raises(RuntimeError, match="call attach_edges"):
        GIN(6, 8, num_layers=2, norm=slot("granola")).double()(data.x, data.edge_index)
    with pytest.raises(ValueError, match="has no NormSlot"):
        attach_edges(GIN(6, 8, num_layers=2, norm="batch_norm"))
    with pytest.raises(ValueError, match="batch must be sorted"):
        built(GIN, slot("granola"))(data.x, data.edge_index, batch=torch.tensor([1, 0, 0, 1, 1]))
    with pytest.raises(TypeError, match=r"edge_index as a \[2, edges\] tensor"):
        built(GIN, slot("granola"))(data.x, data.edge_index.float().to_sparse())
    with pytest.raises(TypeError, match="was given no edge_index"):
        attach_edges(nn.Sequential(slot("granola", 6))).double()(data.x)
    model = built(GIN, slot("granola"))
    with pytest.raises(TypeError):
        model(data.x, data.edge_index.float().to_sparse())
    assert model(data.x, data.edge_index).shape == (5, 2)  # a failed pass leaves nothing behind
