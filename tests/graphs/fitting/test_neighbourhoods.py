"""Large graphs by neighbourhoods: the sampler against a readable one, and predictions against those of whole graphs."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import from_networkx

from coset import CosetError
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.experiments import check_squares, load_task
from coset.graphs.fitting.neighbourhoods import IncomingEdges, NodeBatches
from coset.graphs.models.options import GRAPH_MODELS
from coset.runs.recipes import load


@pytest.fixture(scope="module")
def web():
    """A graph with hubs, 60 nodes."""
    graph = from_networkx(nx.barabasi_albert_graph(60, 3, seed=0))
    graph.x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    graph.y = graph.x.sum(1, keepdim=True)
    return graph


def readable(edge_index, nodes, seeds, limits, rng):
    """What :meth:`IncomingEdges.around` does, node by node: places of nodes, kept edges, scales."""
    into = [[edge for edge in range(edge_index.shape[1]) if edge_index[1, edge] == node] for node in range(nodes)]
    found, kept, scale, frontier = list(seeds), [], {}, list(seeds)
    for limit in limits:
        keys = iter(rng.random(sum(len(into[v]) for v in frontier))
                    if limit is not None and max(len(into[v]) for v in frontier) > limit else [])  # fmt: skip
        reached = set()
        for node in frontier:
            drawn = into[node]
            if limit is not None:
                drawn = [edge for _, edge in sorted((next(keys, 0), edge) for edge in drawn)][:limit]
            scale[node] = len(into[node]) / len(drawn)
            kept += sorted(drawn)
            reached |= {int(edge_index[0, edge]) for edge in drawn}
        frontier = sorted(reached - set(found))
        found += frontier
    return found, kept, [scale.get(node, 1.0) for node in found]


@pytest.mark.parametrize("limits", [(2, 3), (None, 2), (None, None, None), (1,)])
def test_the_sampler_is_the_readable_one(web, limits):
    edges, seeds = web.edge_index.numpy(), np.array([7, 0, 31])
    incoming = IncomingEdges(edges, 60)
    for seed in range(3):
        fast = incoming.around(seeds, limits, np.random.default_rng(seed))
        nodes, kept, scale = readable(edges, 60, seeds.tolist(), limits, np.random.default_rng(seed))
        assert fast.nodes.tolist() == nodes
        assert fast.edges.tolist() == kept
        assert fast.scale.tolist() == pytest.approx(scale)
        assert (fast.nodes[fast.ends] == edges[:, fast.edges]).all()


def test_a_node_by_itself_has_a_neighbourhood():
    alone = IncomingEdges(np.zeros((2, 0), dtype=int), 3).around(np.array([2]), (4, 4), np.random.default_rng(0))
    assert (alone.nodes.tolist(), alone.edges.tolist(), alone.scale.tolist()) == ([2], [], [1.0])


def test_sums_over_drawn_neighbours_are_right_on_average(web):
    incoming, degree = IncomingEdges(web.edge_index.numpy(), 60), np.bincount(web.edge_index[1].numpy())
    hub, total, draws = int(degree.argmax()), 0.0, 4000
    for draw in range(draws):
        around = incoming.around(np.array([hub]), (3,), np.random.default_rng(draw))
        assert len(around.edges) == 3
        total += around.scale[0] * float(web.x[around.nodes[around.ends[0]], 0].sum())
    every = web.x[web.edge_index[0, web.edge_index[1] == hub], 0]
    assert total / draws == pytest.approx(float(every.sum()), abs=4 * len(every) / (3 * draws) ** 0.5)


def test_whole_neighbourhoods_give_the_predictions_of_the_whole_graph(web):
    options = GRAPH_MODELS["gin"].model_validate({"name": "gin", "width": 8, "layers": 3})
    torch.manual_seed(0)
    model = options.network(1, 2, None, "node").double().eval()
    whole = model(Batch.from_data_list([web.clone().apply(lambda t: t.double() if t.is_floating_point() else t)]))
    rows = torch.tensor([5, 59, 5, 20])
    (part,) = NodeBatches(web, rows, [None] * 3)[[(row, 0) for row in range(4)]]
    part = part.apply(lambda t: t.double() if t.is_floating_point() else t)
    torch.testing.assert_close(model(Batch.from_data_list([part]))[part.seed_index], whole[rows], rtol=1e-6, atol=1e-6)
    assert torch.equal(part.y, web.y[rows].double())


def test_one_graph_is_learned_by_neighbourhoods_and_goes_on_after_a_stop(web, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    rows = [f"{v},{float(web.x[v, 0])},{'ab'[int(web.y[v] > 0)]}" for v in range(60)]
    (folder / "nodes.csv").write_text("\n".join(["node,size,kind", *rows]) + "\n")
    once = web.edge_index[:, web.edge_index[0] < web.edge_index[1]].t().tolist()
    (folder / "edges.csv").write_text("\n".join(["source,target", *(f"{u},{v}" for u, v in once)]) + "\n")
    given = [f"data.path={folder}", "data.target=kind", "training.task=multiclass", "data.split=stratified"]
    given += ["training.neighbours=[3,2]", "training.batch_size=16", "model.layers=2", "model.width=8"]
    recipe = load("graphs", [*given, "training.epochs=2"])
    metrics = recipe.run(tmp_path / "run", quiet=True)
    first = load("graphs", [*given, "training.epochs=2", "training.schedule=constant"])
    whole = first.run(tmp_path / "one", quiet=True)
    assert set(metrics["test"]) == set(whole["test"])
    assert all(report.passed for report in recipe.verify(tmp_path / "run"))
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert frame["split"].value_counts().to_dict() == {"train": 48, "val": 6, "test": 6}
    recipe.predict(recipe.folder(tmp_path / "run"), folder, tmp_path / "new.csv", quiet=True)
    assert pd.read_csv(tmp_path / "new.csv")["probability_a"].to_numpy() == pytest.approx(frame["probability_a"])
    _, task, _ = load_task(tmp_path / "run")
    assert not task.training or task.model is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.name=subgraphormer"], "learns from whole graphs alone, for it has features of every pair of nodes"),
        (["model.name=epnn"], "for it reads the eigenvectors of the whole graph"),
        (["model.norm=granola"], "for norm=granola reads all nodes of a graph"),
        (["model.layers=3"], r"model.layers=3, give a number a layer"),
    ],
)
def test_who_cannot_learn_by_neighbourhoods_says_so(options, message):
    with pytest.raises(CosetError, match=message):
        load("graphs", ["data.path=x", "data.target=y", "model.layers=2", "training.neighbours=[3,2]", *options])


def test_pairs_of_a_graph_that_fit_nowhere_are_refused():
    graph = Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=2_000_000)
    model = GRAPH_MODELS["subgraphormer"].model_validate({"name": "subgraphormer"})
    with pytest.raises(CosetError, match=r"2,000,000 nodes are 4,000,000,000,000 pairs, 1,536,000 GB a layer"):
        check_squares(model, GraphTable([graph]))
