"""Edges and links as what is to be learned: who sees which edge, and what is told when a table is wrong."""

import networkx as nx
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data

from coset import CosetError
from coset.graphs.data.links import edges_once, hidden_in, open_pairs, pairs_without_edge, with_links
from coset.graphs.data.own_graphs import GraphFiles
from coset.graphs.data.splits import random_split
from coset.graphs.fitting.links import LinkView, judged, training_graphs
from coset.runs.metrics import metrics_of, ranking
from coset.runs.recipes import load

WHOLE = (1.0, 0.0, 0.0)


@pytest.fixture
def friends(tmp_path):
    """Two circles of friends in tables: how long two have known each other, and how."""
    folder, edges = tmp_path / "friends", ["graph,source,target,years,how"]
    folder.mkdir()
    for name, graph in (("a", nx.karate_club_graph()), ("b", nx.circulant_graph(12, [1, 2]))):
        edges += [f"{name},p{u},p{v},{u + v},{('work', 'sport')[u % 2]}" for u, v in graph.edges]
    (folder / "edges.csv").write_text("\n".join([*edges, "a,p1,p0,1,work", "b,p3,p3,7,work"]) + "\n")
    return folder


def link_table(friends, **options):
    return GraphFiles(path=str(friends), level="link", ignore="years,how", **options).load(0, False)


def pairs(ends):
    return set(map(tuple, ends.t().tolist()))


def test_edges_by_hand(tmp_path):
    (tmp_path / "edges.csv").write_text("source,target,w,kind\nb,a,3,x\na,b,3,x\nc,b,5,y\nc,c,9,y\n")
    (tmp_path / "nodes.csv").write_text("node\na\nb\nc\n")
    table = GraphFiles(path=str(tmp_path), target="w", fractions=WHOLE).load(0, False)
    (graph,) = table.graphs
    assert table.level == "edge"
    assert graph.edge_label_index.tolist() == [[0, 1], [1, 2]]
    assert graph.y.tolist() == [[3.0], [5.0]]
    assert graph.edge_label_attr.tolist() == [[0], [1]]
    (tmp_path / "edges.csv").write_text("source,target,w\nb,a,3\na,b,4\n")
    with pytest.raises(CosetError, match=r"edges.csv, row 3: the edge is there twice, 'w' differs"):
        GraphFiles(path=str(tmp_path), target="w", fractions=WHOLE).load(0, False)


def test_edges_of_one_graph_are_split_and_of_several_whole_graphs(friends):
    table = GraphFiles(path=str(friends), target="years", fractions=(0.5, 0.5, 0.0)).load(0, False)
    assert {len(rows) for rows in table.splits.values() if len(rows)} == {78, 24}  # circles whole
    text = (friends / "edges.csv").read_text().splitlines()
    (friends / "edges.csv").write_text("\n".join(line for line in text if not line.startswith("b,")) + "\n")
    table = GraphFiles(path=str(friends), target="years").load(0, False)
    assert {name: len(rows) for name, rows in table.splits.items()} == {"train": 62, "val": 8, "test": 8}
    (seen,) = table.subset("train")
    assert int((~seen.y.isnan()).sum()) == 62


def test_edge_targets_of_pyg_graphs(tmp_path):
    index = torch.tensor([[2, 1, 0, 1], [1, 2, 1, 0]])
    torch.save([Data(edge_index=index, num_nodes=4, edge_y=torch.tensor([7.0, 7.0, 5.0, 5.0]))], tmp_path / "g.pt")
    table = GraphFiles(path=str(tmp_path / "g.pt"), fractions=WHOLE).load(0, False)
    assert (table.level, table.target_names) == ("edge", ("edge_y",))
    assert table.graphs[0].edge_label_index.tolist() == [[0, 1], [1, 2]]
    assert table.targets.tolist() == [[5.0], [7.0]]
    torch.save([Data(edge_index=index, num_nodes=4, edge_y=torch.tensor([7.0, 8.0, 5.0, 5.0]))], tmp_path / "g.pt")
    with pytest.raises(CosetError, match=r"g.pt, graph 0: edge_y of 1 -> 2 and 2 -> 1 differ"):
        GraphFiles(path=str(tmp_path / "g.pt"), fractions=WHOLE).load(0, False)


def test_links_are_hidden_from_those_who_are_asked(friends):
    table = link_table(friends, fractions=(0.6, 0.2, 0.2), negatives=2)
    counts = {name: (int(table.targets[rows].sum()), len(rows)) for name, rows in table.splits.items()}
    assert counts == {"train": (62, 124), "val": (20, 60), "test": (20, 60)}
    for number, graph in enumerate(table.graphs):
        edges, others = (pairs(graph.edge_label_index[:, graph.y[:, 0] == label]) for label in (1, 0))
        assert edges == pairs(edges_once(graph))
        assert not edges & others
        assert len(others) == int((graph.y == 0).sum())  # none is there twice
        seen = {name: pairs(table.subset(name)[number].edge_index) for name in table.splits}
        held = {name: pairs(graph.edge_label_index[:, graph.edge_label_part == part])
                for part, name in enumerate(table.splits)}  # fmt: skip
        assert seen["train"] == seen["val"]
        assert not seen["val"] & (held["val"] | held["test"])
        assert not seen["test"] & held["test"]
        assert held["val"] & edges <= seen["test"]
    assert link_table(friends).identity() == link_table(friends).identity()
    assert link_table(friends).identity() != link_table(friends, split_seed=5).identity()


def test_an_epoch_hides_what_it_asks_for_and_draws_pairs_anew(friends):
    table = link_table(friends, fractions=(0.6, 0.2, 0.2))
    view, graph = LinkView(list), training_graphs(table)[0]
    first, again, other = view(graph, 1), view(graph, 1), view(graph, 2)
    assert pairs(first.edge_label_index) == pairs(again.edge_label_index) != pairs(other.edge_label_index)
    known = pairs(edges_once(graph))
    for drawn in (first, other):
        asked, others = (pairs(drawn.edge_label_index[:, drawn.y[:, 0] == label]) for label in (1, 0))
        assert asked <= known
        assert pairs(edges_once(drawn)) == known - asked
        assert len(asked) == len(others) == -(-len(known) // 5)
        assert not others & known
    val = table.subset("val")[0]
    assert view(val, 3) is val


def test_every_pair_is_judged_once_and_never_while_it_is_seen(friends):
    table, rows = link_table(friends, fractions=(0.6, 0.2, 0.2)), []
    for graphs, own in judged(table):
        rows += own.tolist()
        assert sum(len(graph.y) for graph in graphs) == len(own)
        assert torch.equal(torch.cat([graph.y for graph in graphs]), table.targets[own])
        for graph in graphs:
            assert not pairs(graph.edge_label_index) & pairs(graph.edge_index)
    assert sorted(rows) == list(range(len(table.targets)))


def test_pairs_without_edge_of_large_and_of_full_graphs():
    ends = torch.stack([torch.arange(9999), torch.arange(1, 10000)])
    drawn = pairs_without_edge(10000, ends, 5000, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 5000)
    assert len(pairs(drawn)) == 5000
    assert bool((drawn[0] < drawn[1]).all())
    assert not pairs(drawn) & pairs(ends)
    full = torch.triu_indices(5, 5, 1)
    assert pairs_without_edge(5, full, 4, torch.Generator()).shape == (2, 0)
    graph = Data(edge_index=torch.cat([full, full.flip(0)], 1), num_nodes=5, id="k5")
    (made,), splits = with_links([graph], random_split(10), 1, 0)
    assert made.y.tolist() == [[1.0]] * 10
    assert sum(map(len, splits.values())) == 10
    assert not bool(hidden_in(made, "test").all())
    with pytest.raises(CosetError, match="graph k5 has 10 pairs of nodes, more than 9; name those that are asked for"):
        open_pairs(graph, 9)


def test_ranks_by_hand():
    truth = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    assert ranking(torch.tensor([0.9, 0.4, 0.5, 0.4, 0.1]), truth) == {"mrr": pytest.approx((1 + 1 / 2.5) / 2)}
    many = torch.cat([torch.tensor([0.95, 0.85, 0.05]), torch.arange(10) / 10])
    found = metrics_of("link", many[:, None], torch.cat([torch.ones(3), torch.zeros(10)])[:, None])
    assert found["hits@10"] == pytest.approx(1.0)  # all three above the least
    assert "hits@50" not in found
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 10) / 3)


def test_a_run_on_links_predicts_for_open_or_named_pairs(friends, tmp_path):
    quick = ["model.layers=1", "model.width=8", "training.epochs=1", f"data.path={friends}", "data.ignore=years"]
    recipe = load("graphs", ["training.task=link", *quick])
    assert recipe.data.level == "link"
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert set(metrics["test"]) == {"auroc", "ap", "mrr", "hits@10"}
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(frame) == ["id", "graph", "u", "v", "split", "target_link", "prediction_link"]
    assert frame["prediction_link"].notna().all()
    count, _ = recipe.predict(recipe.folder(tmp_path / "run"), friends, tmp_path / "open.csv", quiet=True)
    assert count == 34 * 33 // 2 - 78 + 12 * 11 // 2 - 24
    (friends / "pairs.csv").write_text("graph,source,target\nb,p0,p6\na,p33,p1\nb,p0,p5\n")
    recipe.predict(recipe.folder(tmp_path / "run"), friends, tmp_path / "named.csv", quiet=True)
    named = pd.read_csv(tmp_path / "named.csv")
    assert named["id"].tolist() == ["a/p33-p1", "b/p0-p6", "b/p0-p5"]
    both = named.merge(pd.read_csv(tmp_path / "open.csv"), on="id")
    assert len(both) == 2
    assert both["prediction_link_x"].to_numpy() == pytest.approx(both["prediction_link_y"].to_numpy(), abs=1e-6)
    (friends / "pairs.csv").write_text("graph,source,target\nb,p0,p60\n")
    with pytest.raises(CosetError, match=r"pairs, row 2: .*edges.csv has no node 'p60' of graph 'b'"):
        recipe.predict(recipe.folder(tmp_path / "run"), friends, tmp_path / "wrong.csv", quiet=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.level=link", "training.task=regression"], "training.task=regression does not fit data.level=link"),
        (["data.level=node", "training.task=link"], "training.task=link does not fit data.level=node"),
        (["training.task=link", "data.target=years"], "leave out data.target=years"),
        (["training.task=link", "model.name=subgraphormer", "model.root_fraction=0.5"], "need all roots"),
        (["training.task=link", "data.split=stratified"], r"choose data\.split=random"),
    ],
)
def test_what_links_cannot_be_is_told(friends, tmp_path, options, message):
    with pytest.raises(CosetError, match=message):
        load("graphs", [f"data.path={friends}", *options]).run(tmp_path / "run", quiet=True)
