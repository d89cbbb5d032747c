"""What every registered graph model promises; a model enters by being registered.

Its claims of symmetry in float64 and float32, a batch equal to its graphs one by one, finite gradients, a state that
gives the same function again, and a schema that says what is wrong.
"""

import pickle

import pytest
import torch
from torch_geometric.data import Batch

from coset import CosetError
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.models.options import GRAPH_MODELS, SpectralModel
from coset.graphs.transforms import precompute
from coset.relations.verbs import use_kernels
from coset.runs.recipes import check
from coset.symmetry import verify_claims

SMILES = ["CC(=O)Oc1ccccc1", "C1CC1CO", "CCN(C)C", "c1ccc2ccccc2c1"]
NAMES = {options: name for name, options in reversed(list(GRAPH_MODELS.items()))}
"""One name of each class of options."""


@pytest.fixture(params=list(NAMES.values()))
def options(request):
    """Small options of every model."""
    return GRAPH_MODELS[request.param].model_validate({"name": request.param, "width": 16, "layers": 2})


def network(options):
    torch.manual_seed(0)
    return options.build(2, list(ATOM_SIZES), list(BOND_SIZES))


def graphs(options):
    return precompute([smiles_to_data(s) for s in SMILES], options.transform())


def test_claims_hold(options, precision):
    model = network(options)
    batch = options.settled(model, Batch.from_data_list(graphs(options)))
    if precision["dtype"] == torch.float32 and isinstance(options, SpectralModel):
        with pytest.raises(CosetError, match="eigenvalues in float32 cannot be grouped"):
            verify_claims(model, batch, **precision)
        return
    reports = verify_claims(model, batch, **precision)
    assert reports
    assert all(report.passed for report in reports), [str(report) for report in reports]


@pytest.mark.parametrize("level", ["node", "edge", "link"])
def test_claims_of_nodes_edges_and_links_hold(options, level):
    if level not in options.levels:
        with pytest.raises(ValueError, match=f"it has outputs of .*, none of {level}s"):
            options.network(2, list(ATOM_SIZES), list(BOND_SIZES), level)
        return
    torch.manual_seed(1)  # with 0 most of the four units that GRIT's head ends in are dead
    model = options.network(2, list(ATOM_SIZES), list(BOND_SIZES), level).double().eval()
    batch = options.settled(model, Batch.from_data_list([with_pairs(graph) for graph in graphs(options)]))
    assert all(report.passed for report in verify_claims(model, batch))
    rows = model(batch)
    assert rows.shape == (batch.num_nodes if level == "node" else batch.edge_label_index.size(1), 2)
    assert len(rows.round(decimals=9).unique(dim=0)) > 10  # pairs are told apart, by more than rounding
    if level != "node":
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
        batch.edge_label_index = batch.edge_label_index.flip(0)[:, order]
        batch.edge_label_attr = batch.edge_label_attr[order]
        torch.testing.assert_close(model(batch), rows[order])


def with_pairs(graph):
    """The graph with its edges as what is predicted for."""
    once = graph.edge_index[0] < graph.edge_index[1]
    graph = graph.clone()
    graph.edge_label_index, graph.edge_label_attr = graph.edge_index[:, once], graph.edge_attr[once]
    return graph


def test_a_batch_equals_its_graphs_one_by_one(options):
    model, single = network(options).double().eval(), graphs(options)
    together = model(Batch.from_data_list(single))
    alone = torch.cat([model(Batch.from_data_list([graph])) for graph in single])
    assert together.shape == (len(SMILES), 2)
    torch.testing.assert_close(together, alone)


def test_gradients_are_finite_and_reach_the_weights(options):
    model = network(options).train()
    model(Batch.from_data_list(graphs(options))).square().mean().backward()
    reached = [p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters()]
    assert sum(reached) > 0.8 * len(reached)
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("fused", [True, False])
def test_what_it_makes_lives_where_its_input_lives(options, fused):
    """As on a GPU: with another default device, a tensor that is made without a device would not fit the others."""
    model = network(options).train()
    batch = Batch.from_data_list(graphs(options))
    with use_kernels(fused), torch.device("meta"):
        output = model(batch)
        output.square().mean().backward()
    assert output.device.type == "cpu"
    assert all(p.grad is None or p.grad.device.type == "cpu" for p in model.parameters())


OTHERS = [
    {"name": "csgnn", "updates": "full"},
    {"name": "csgnn", "marking": "minimum", "bag": 2},
    {"name": "csgnn", "marking": "size", "attention": "gat", "updates": "none"},
    {"name": "csgnn", "crossing": "once", "coarsening": "edges"},
    *({"name": "gin", "norm": norm} for norm in ("granola", "pair", "graph", "instance", "layer")),
    {"name": "gin", "walks": 8, "feed_forward": True, "residual": True, "dropout": 0.1},
    {"name": "subgraphormer", "attention": "transformer"},
    {"name": "subgraphormer", "attention": "gatv2", "relations": ["uL", "vL", "uG", "vG"]},
    {"name": "subgraphormer", "linear": True, "positional_encoding": 4},
    {"name": "smcn", "terms": ["low", "inc", "high", "row", "column", "total"], "marking": "binary"},
    {"name": "smcn", "before": 0, "after": 1, "use_bridge": False},
]


@pytest.mark.parametrize(
    "given",
    [*({"name": name} for name in NAMES.values()), *OTHERS],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_settled_where_it_is_loaded_it_asks_nothing_of_a_batch(given):
    """On a GPU each question whose answer depends on data would wait; on the device of shapes alone it is an error."""
    options = GRAPH_MODELS[given["name"]].model_validate({"width": 16, "layers": 2, **given})
    model = network(options).train()
    batch = Batch.from_data_list(graphs(options))
    batch.structure = model.structure(batch)
    output = model.to("meta")(batch.to("meta"))
    output.square().mean().backward()
    assert output.shape == (len(SMILES), 2)
    assert output.device.type == "meta"


def test_settled_or_not_it_is_the_same_function(options):
    model = network(options).double().eval()
    batch = Batch.from_data_list(graphs(options))
    expected = model(batch)
    settled = batch.clone()
    settled.structure = pickle.loads(pickle.dumps(model.structure(batch)))  # as from a process that loads
    for fused in (True, False):
        with use_kernels(fused):
            torch.testing.assert_close(model(settled.to("cpu")), expected)


def test_a_state_gives_the_same_function_again(options, tmp_path):
    model = network(options).eval()
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other = options.build(2, list(ATOM_SIZES), list(BOND_SIZES)).eval()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    batch = Batch.from_data_list(graphs(options))
    assert torch.equal(model(batch), other(batch))


def test_a_recipe_can_name_it_and_a_mistake_is_told(options, tmp_path):
    values = {"kind": "graphs", "data": {"name": "freesolv"}, "model": {"name": options.name}}
    assert check(values, "mine").model.name == options.name
    with pytest.raises(CosetError, match=r"unknown key model.widht=3; did you mean model.width\?"):
        check({**values, "model": {"name": options.name, "widht": 3}}, "mine")
