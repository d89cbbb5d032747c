import json
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data, HeteroData, InMemoryDataset

from coset import CosetError
from coset.graphs.data.columns import encoded, features, learned_columns
from coset.graphs.data.own_graphs import GraphFiles, graphs_of
from coset.graphs.data.pyg_files import table_of_graphs
from coset.graphs.data.splits import stratified_split
from coset.runs.recipes import load

QUICK = ["model.layers=1", "model.width=16", "training.epochs=2", "training.batch_size=4"]


@pytest.fixture
def shapes(tmp_path):
    """Twelve rings, chains and stars in three tables; features of nodes are a word and a number, of edges a word."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    nodes, edges, graphs = ["graph,node,kind,weight"], ["graph,source,target,bond"], ["graph,shape,size"]
    made = {"ring": nx.cycle_graph, "chain": nx.path_graph, "star": lambda n: nx.star_graph(n - 1)}
    for number in range(12):
        shape = list(made)[number % 3]
        graph = made[shape](4 + number % 2)
        nodes += [f"g{number},n{v},{'AB'[v % 2]},{v * 1000}" for v in graph]
        edges += [f"g{number},n{u},n{v},{'xy'[u % 2]}" for u, v in graph.edges]
        graphs.append(f"g{number},{shape},{len(graph)}")
    for name, rows in (("nodes", nodes), ("edges", edges), ("graphs", graphs)):
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def club(tmp_path):
    """One graph whose nodes are to be told apart."""
    folder, graph = tmp_path / "club", nx.karate_club_graph()
    folder.mkdir()
    rows = [f"{v},{graph.nodes[v]['club']},{graph.degree[v]}" for v in graph]
    (folder / "nodes.csv").write_text("\n".join(["node,club,friends", *rows]) + "\n")
    (folder / "edges.csv").write_text("\n".join(["source,target", *(f"{u},{v}" for u, v in graph.edges)]) + "\n")
    return folder


def rewrite(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(("column", "stems"), [("name", "ab cd ef"), ("Molecule", "ab cd ef"), ("id", "0 1 2")])
def test_labels_in_another_order_are_of_the_graphs_that_they_name(tmp_path, column, stems):
    stems = stems.split()
    for stem in stems:
        nx.write_graphml(nx.path_graph(3), tmp_path / f"{stem}.graphml")
    rows = "".join(f"{stem}.graphml,{at}\n" for at, stem in reversed(list(enumerate(stems))))
    (tmp_path / "labels.csv").write_text(f"{column},y\n{rows}")
    table = GraphFiles(path=str(tmp_path), target="y", fractions=(1.0, 0.0, 0.0)).load(0, False)
    assert (table.ids, table.targets.flatten().tolist()) == (stems, [0.0, 1.0, 2.0])
    (tmp_path / "labels.csv").write_text("y\n2\n1\n0\n")  # numbers that are no names of graphs: row by row
    table = GraphFiles(path=str(tmp_path), target="y", fractions=(1.0, 0.0, 0.0)).load(0, False)
    assert table.targets.flatten().tolist() == [2.0, 1.0, 0.0]


def test_a_table_of_labels_that_says_something_else_than_the_graphs_is_refused(tmp_path):
    graphs = [nx.path_graph(3) for _ in range(3)]
    for y, graph in enumerate(graphs):
        graph.graph.update(y=y, kind="path")
    file = tmp_path / "all.json"
    file.write_text(json.dumps([nx.node_link_data(graph, edges="edges") for graph in graphs]))
    (tmp_path / "labels.csv").write_text("y,z\n0.0,5\n1,6\n\n9,7\n")
    with pytest.raises(CosetError, match=r"labels\.csv, row 5: y is 9, but graph 'all-2' carries y=2"):
        GraphFiles(path=str(file), target="z").load(0, False)
    rewrite(tmp_path / "labels.csv", "9,7", "2,7")
    table = GraphFiles(path=str(file), target="z", fractions=(1.0, 0.0, 0.0)).load(0, False)
    assert table.targets.flatten().tolist() == [5.0, 6.0, 7.0]


def test_rows_of_labels_are_counted_as_in_the_file_and_those_of_no_graph_are_told(tmp_path):
    for at in range(3):
        nx.write_graphml(nx.path_graph(3), tmp_path / f"g{at}.graphml")
    (tmp_path / "labels.csv").write_text("graph,y\ng0,30\n\ng9,1\ng1,bad\ng2,5\n")
    files = GraphFiles(path=str(tmp_path), target="y", fractions=(1.0, 0.0, 0.0))
    with pytest.raises(CosetError, match=r"labels\.csv, row 5"):
        files.load(0, False)
    rewrite(tmp_path / "labels.csv", "bad", "20")
    assert "labels.csv: left out 1 row of graphs that are not there: g9" in files.load(0, False).notes
    rewrite(tmp_path / "labels.csv", "g9", "")
    assert "labels.csv: left out 1 row of graphs that are not there: (no name)" in files.load(0, False).notes


def test_new_graphs_may_lie_beside_the_labels_of_others(tmp_path):
    (tmp_path / "train.g6").write_text("Bw\nBg\nB?\n")
    (tmp_path / "new.g6").write_text("Bw\nBg\n")
    (tmp_path / "labels.csv").write_text("y\n1\n2\n3\n")
    files = GraphFiles(path=str(tmp_path / "train.g6"), target="y", fractions=(1.0, 0.0, 0.0))
    assert files.to_predict(tmp_path / "new.g6", files.load(0, False)).ids == ["0", "1"]


def test_an_empty_graph_among_lines_of_graph6_is_refused(tmp_path):
    (tmp_path / "all.g6").write_text("Bw\n?\nBg\n")
    with pytest.raises(CosetError, match=r"all\.g6, line 2: the graph has no nodes"):
        GraphFiles(path=str(tmp_path / "all.g6"), target="y").load(0, False)


def test_attributes_called_as_ends_or_nodes_rewire_no_graph(tmp_path):
    graph = nx.path_graph(4)
    for node in graph:
        graph.nodes[node].update(node=3 - node, y=node)
    nx.set_edge_attributes(graph, "books", "source")
    nx.write_graphml(graph, tmp_path / "a.graphml")
    read = GraphFiles(path=str(tmp_path / "a.graphml"), target="y", fractions=(0.5, 0.25, 0.25)).load(0, False)
    assert read.graphs[0].node_id == ["0", "1", "2", "3"]
    assert read.graphs[0].edge_index.tolist() == [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]
    assert list(read.columns["nodes"]) == ["attribute_node"]
    assert list(read.columns["edges"]) == ["attribute_source"]
    assert read.notes == ("attributes that are called as nodes, ends or graphs are: attribute_node, attribute_source",)


def test_names_that_programs_give_to_edges_are_no_features_and_defaults_are_values(tmp_path):
    keys = '<key id="w" for="edge" attr.name="weight" attr.type="double"><default>2</default></key>'
    keys += '<key id="y" for="node" attr.name="y" attr.type="double"/>'
    nodes = "".join(f'<node id="n{k}"><data key="y">{k}</data></node>' for k in range(4))
    edges = '<edge id="e0" source="n0" target="n1"/><edge id="e1" source="n1" target="n2"><data key="w">4</data></edge>'
    text = f'<graph edgedefault="undirected">{nodes}{edges}</graph></graphml>'
    file = tmp_path / "gephi.graphml"
    file.write_text(f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{keys}{text}')
    read = GraphFiles(path=str(file), target="y", fractions=(1.0, 0.0, 0.0)).load(0, False)
    assert read.columns["edges"] == {"weight": {"mean": 3.0, "scale": 1.0}}


def test_graphs_of_pyg_with_other_features_are_refused_by_name(tmp_path):
    def saved(**changes):
        edge = torch.tensor([[0, 1], [1, 0]])
        own = {"x": torch.tensor([[0], [1]]), "edge_index": edge, "edge_attr": torch.ones(2, 1), "y": torch.ones(1)}
        kept = {key: value for key, value in (own | changes).items() if value is not None}
        torch.save([Data(**kept)] * 3, tmp_path / "g.pt")
        return tmp_path / "g.pt"

    files = GraphFiles(path=str(saved()))
    described = files.load(0, False)
    assert len(files.to_predict(saved(y=None), described)) == 3
    for changes, message in (
        ({"edge_attr": None}, "g.pt, graph 0: there is no edge_attr; training had 1"),
        ({"x": torch.ones(2, 1)}, "g.pt, graph 0: x holds real numbers; training had numbers of categories"),
        ({"x": torch.tensor([[0], [7]])}, r"g.pt, graph 0: x\[1, 0\] = 7, but column 0 has ids 0 to 1"),
    ):
        with pytest.raises(CosetError, match=message):
            files.to_predict(saved(**changes), described)


def test_tables_by_hand(tmp_path):
    (tmp_path / "edges.csv").write_text("graph_id,from,to,w\nb,y,x,1\nb,z,y,3\na,p,q,2\n")
    (tmp_path / "nodes.csv").write_text("graph,id,colour\na,p,red\nb,x,red\nb,y,blue\na,q,blue\nb,z,red\n")
    (tmp_path / "graphs.csv").write_text("graph,t\nb,5\na,7\n")
    table = GraphFiles(path=str(tmp_path), target="t", fractions=(1.0, 0.0, 0.0)).load(0, False)
    b, a = table.graphs
    assert (b.id, a.id) == ("b", "a")
    assert b.node_id == ["x", "y", "z"]
    assert b.x.tolist() == [[1], [0], [1]]  # blue 0, red 1
    assert table.node_features == [2]
    assert b.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    deviation = np.std([1, 3, 2])
    assert b.edge_attr[:, 0].tolist() == pytest.approx([-1 / deviation, -1 / deviation, 1 / deviation, 1 / deviation])
    assert table.targets.tolist() == [[5.0], [7.0]]


def test_a_column_called_file_is_one_of_names_only_where_it_names_graphs(tmp_path):
    (tmp_path / "edges.csv").write_text("source,target\na,b\nb,c\n")
    (tmp_path / "nodes.csv").write_text("node,file,y\na,main,1\nb,main,2\nc,test,3\n")
    table = GraphFiles(path=str(tmp_path), target="y", fractions=(0.4, 0.3, 0.3)).load(0, False)
    assert len(table) == 1
    assert table.graphs[0].x.tolist() == [[0], [0], [1]]
    lines = [nx.to_graph6_bytes(graph, header=False).decode() for graph in (nx.path_graph(3), nx.cycle_graph(4))]
    (tmp_path / "two.g6").write_text("".join(lines))
    for rows, expected in (("file,y\nold,5\nnew,7\n", [5.0, 7.0]), ("file,y\n1.g6,5\n0.g6,7\n", [7.0, 5.0])):
        (tmp_path / "two.csv").write_text(rows)
        table = GraphFiles(path=str(tmp_path / "two.g6"), target="y", fractions=(1.0, 0.0, 0.0)).load(0, False)
        assert table.targets[:, 0].tolist() == expected


def test_lists_at_nodes_are_left_out_and_told(tmp_path):
    graph = nx.karate_club_graph()
    nx.set_node_attributes(graph, {node: [0.5, 1.0] for node in graph}, "pos")
    (tmp_path / "club.json").write_text(json.dumps(nx.node_link_data(graph, edges="edges")))
    table = GraphFiles(path=str(tmp_path / "club.json"), target="club").load(0, False)
    assert table.notes == ("left out attributes that are lists or the like, no single values: pos",)


def test_complex_features_are_told(tmp_path):
    edge = torch.tensor([[0, 1], [1, 0]])
    torch.save([Data(x=torch.ones(2, 1, dtype=torch.complex64), edge_index=edge, y=torch.ones(1))], tmp_path / "c.pt")
    with pytest.raises(CosetError, match=r"c.pt, graph 0: x has complex numbers; give real and imaginary parts col"):
        GraphFiles(path=str(tmp_path / "c.pt")).load(0, False)


def test_node_link_files_as_drawing_libraries_write_them(tmp_path):
    """Without saying whether there may be parallel edges, ends by number, and edges in both directions."""
    links = [{"source": k, "target": (k + 1) % 5, "w": k} for k in range(5)]
    links.append({"source": 1, "target": 0, "w": 0})
    value = {"nodes": [{"name": f"n{k}", "y": k % 2} for k in range(5)], "links": links}
    (tmp_path / "g.json").write_text(json.dumps(value))
    table = GraphFiles(path=str(tmp_path / "g.json"), target="y", fractions=(0.4, 0.3, 0.3)).load(0, False)
    assert table.graphs[0].edge_index.size(1) == 10
    links[-1]["w"] = 7
    (tmp_path / "g.json").write_text(json.dumps(value))
    with pytest.raises(CosetError, match="graph g has parallel edges from 0 to 1 that differ; merge them first"):
        GraphFiles(path=str(tmp_path / "g.json"), target="y").load(0, False)


def test_tables_as_data_frames_leave_them(tmp_path):
    """Row numbers without a name, and whole numbers that became floats."""
    (tmp_path / "edges.csv").write_text(",source,target\n0,1.0,2.0\n1,2.0,3.0\n")
    (tmp_path / "nodes.csv").write_text(",node,y\n0,1,5\n1,2,6\n2,3,7\n")
    table = GraphFiles(path=str(tmp_path), target="y", fractions=(0.4, 0.3, 0.3)).load(0, False)
    assert table.graphs[0].edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert table.node_features is None
    assert table.notes == tuple(f"{name}.csv: left out 1 column without a name" for name in ("edges", "nodes"))


def test_an_edge_in_both_directions_is_one_edge_and_loops_are_left_out(tmp_path):
    (tmp_path / "edges.csv").write_text("source,target,w\na,b,1\nb,a,1\nb,c,2\nc,c,9\n")
    (tmp_path / "nodes.csv").write_text("node,y\na,1\nb,2\nc,3\n")
    table = GraphFiles(path=str(tmp_path), target="y", fractions=(0.4, 0.3, 0.3)).load(0, False)
    assert table.graphs[0].edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert table.notes == ("left out 1 edge from a node to itself",)
    rewrite(tmp_path / "edges.csv", "b,a,1", "b,a,4")
    with pytest.raises(CosetError, match=r"edges.csv, row 3: the edge is there twice, with different features"):
        GraphFiles(path=str(tmp_path), target="y", fractions=(0.4, 0.3, 0.3)).load(0, False)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("edges", "g0,n0,n1", "g0,n0,n9", r"edges.csv, row 2: .*nodes.csv has no node 'n9' of graph 'g0'"),
        ("edges", "g0,n0,n1", "h,n0,n1", r"edges.csv, row 2: .*nodes.csv has no node 'n0' of graph 'h'"),
        ("nodes", "g0,n1,B", "g0,n0,B", r"nodes.csv, row 3: node 'n0' is there twice"),
        ("nodes", "g0,n1,B", "h,n1,B", r"nodes.csv, row 3: there is no graph 'h'"),
        ("nodes", "n1,B,1000", "n1,,1000", r"nodes.csv, row 3, column 'kind': the cell is empty"),
        ("nodes", "n1,B,1000", "n1,B,many", r"nodes.csv, row 3, column 'weight': 'many' is no finite number"),
        ("nodes", "n1,B,1000", "n1,B,inf", r"nodes.csv, row 3, column 'weight': 'inf' is no finite number"),
        ("graphs", "g1,chain", "g0,chain", r"graphs.csv, row 3: graph 'g0' is there twice"),
        ("graphs", "g1,chain,5", "g1,,5", r"graphs.csv, row 3: the target is missing"),
        ("graphs", "shape", "form", r"has no column 'shape' to learn; columns of graphs: form, size; columns of nodes"),
        ("edges", "source", "begin", r"edges.csv has no column 'source': its columns are 'graph', 'begin'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(shapes, file, old, new, message):
    rewrite(shapes / f"{file}.csv", old, new)
    with pytest.raises(CosetError, match=message):
        GraphFiles(path=str(shapes), target="shape").load(0, False)


def test_a_column_of_lists_is_told_or_left_out(club):
    pytest.importorskip("pyarrow")
    nodes = pd.read_csv(club / "nodes.csv")
    (club / "nodes.csv").unlink()
    nodes.assign(vector=[[0.5, 1.0]] * len(nodes)).to_parquet(club / "nodes.parquet")
    with pytest.raises(
        CosetError, match=r"nodes.parquet, row 2, column 'vector': '\[0.5, 1.0\]' is a list; .*ignore=vec"
    ):
        GraphFiles(path=str(club), target="club").load(0, False)
    assert GraphFiles(path=str(club), target="club", ignore="vector").load(0, False).node_features == 1


def test_names_are_no_features(tmp_path):
    (tmp_path / "edges.csv").write_text("source,target\n" + "".join(f"{k},{k + 1}\n" for k in range(1100)))
    (tmp_path / "nodes.csv").write_text("node,y,name\n" + "".join(f"{k},{k % 7},person{k}\n" for k in range(1101)))
    with pytest.raises(CosetError, match=r"'name' has 1101 different words.*data.ignore=\[name\]"):
        GraphFiles(path=str(tmp_path), target="y").load(0, False)
    assert GraphFiles(path=str(tmp_path), target="y", ignore="name").load(0, False).node_features is None


def test_classes_of_graphs_from_tables_to_predictions(shapes, tmp_path):
    changes = [f"data.path={shapes}", "data.target=shape", "training.task=multiclass", "data.split=stratified"]
    recipe = load("graphs", [*changes, "data.ignore=size", "data.fractions=[0.5,0.25,0.25]", *QUICK])
    metrics = recipe.run(tmp_path / "run", quiet=True)
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert frame.groupby(["split", "target_shape"]).size().to_dict() == {
        (split, shape): count for split, count in (("train", 2), ("val", 1), ("test", 1)) for shape in
        ("chain", "ring", "star")
    }  # fmt: skip
    assert metrics["baseline"]["test"]["accuracy"] == pytest.approx(1 / 3)
    assert all(report.passed for report in recipe.verify(tmp_path / "run"))
    output = tmp_path / "new.csv"
    recipe.predict(recipe.folder(tmp_path / "run"), shapes, output, quiet=True)
    assert list(pd.read_csv(output)) == [
        "id",
        "prediction_shape",
        *(f"probability_{c}" for c in ("chain", "ring", "star")),
    ]
    assert (pd.read_csv(output)["prediction_shape"] == frame["prediction_shape"]).all()
    rewrite(shapes / "nodes.csv", ",A,", ",C,")
    with pytest.raises(CosetError, match=r"column 'kind': 'C' is none of the values of training \('A', 'B'\)"):
        recipe.predict(recipe.folder(tmp_path / "run"), shapes, output, quiet=True)
    with pytest.raises(CosetError, match=r"run: its data have changed since training, node features from 3 to 4"):
        recipe.verify(tmp_path / "run")


@pytest.mark.parametrize("model", ["gin", "epnn", "csgnn", "subgraphormer", "gnn-sswl-plus"])
def test_nodes_of_one_graph_by_every_model_that_can(club, tmp_path, model):
    changes = [f"data.path={club}", "data.target=club", "training.task=multiclass", f"model.name={model}"]
    recipe = load("graphs", [*changes, "data.fractions=[0.4,0.3,0.3]", *QUICK])
    metrics = recipe.run(tmp_path / "run", quiet=True)
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(frame)[:4] == ["id", "graph", "node", "split"]
    assert frame["split"].value_counts().to_dict() == {"train": 14, "val": 10, "test": 10}
    for split in ("train", "test"):
        rows = frame[frame["split"] == split]
        assert metrics[split]["accuracy"] == pytest.approx((rows["target_club"] == rows["prediction_club"]).mean())
    reports = recipe.verify(tmp_path / "run")
    assert all(report.passed for report in reports)
    assert "node rows" in str(reports[0])
    recipe.predict(recipe.folder(tmp_path / "run"), club, tmp_path / "new.csv", quiet=True)
    assert (pd.read_csv(tmp_path / "new.csv")["prediction_club"] == frame["prediction_club"]).all()


def test_models_without_outputs_of_nodes_say_so(club, tmp_path):
    recipe = load("graphs", [f"data.path={club}", "data.target=friends", "model.name=smcn", *QUICK])
    with pytest.raises(
        CosetError, match=r"model.name=smcn: it has outputs of graphs, cells of rank 0, .*none of nodes"
    ):
        recipe.run(tmp_path / "run", quiet=True)


def test_training_sees_no_target_of_other_nodes(club):
    table = GraphFiles(path=str(club), target="friends", fractions=(0.4, 0.3, 0.3)).load(0, False)
    (seen,) = table.subset("train")
    known = ~seen.y.isnan().squeeze(1)
    assert known.nonzero().squeeze(1).tolist() == table.splits["train"].tolist()
    assert not table.graphs[0].y.isnan().any()


def test_nodes_of_several_graphs_are_split_by_graph(shapes):
    table = GraphFiles(path=str(shapes), target="weight", fractions=(0.5, 0.25, 0.25)).load(0, False)
    assert table.level == "node"
    owner = np.repeat(np.arange(12), table.rows_of_graphs)
    parts = [set(owner[rows.numpy()]) for rows in table.splits.values()]
    assert [len(part) for part in parts] == [6, 3, 3]
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_numbers_are_standardised_by_what_is_seen_in_training():
    table = pd.DataFrame({"w": ["1", "3", "100"], "k": ["a", "b", "a"]})
    columns = learned_columns(table, ["w", "k"], np.array([True, True, False]), "t.csv")
    assert columns == {"w": {"mean": 2.0, "scale": 1.0}, "k": {"values": ["a", "b"]}}
    assert features(columns) == 3
    assert encoded(table, columns, "t.csv").tolist() == [[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [98.0, 1.0, 0.0]]


@pytest.mark.parametrize("form", ["graphml", "json", "one json", "g6"])
def test_other_forms_give_the_same_graphs(tmp_path, form):
    given = [nx.cycle_graph(5), nx.path_graph(4), nx.star_graph(3), nx.complete_graph(4)]
    labels = "".join(f"{k},{graph.number_of_edges()}\n" for k, graph in enumerate(given))
    if form == "g6":
        path = tmp_path / "all.g6"
        path.write_bytes(b"".join(nx.to_graph6_bytes(graph, header=False) for graph in given))
        (tmp_path / "all.csv").write_text("edges\n" + "".join(f"{line.split(',')[1]}\n" for line in labels.split()))
    elif form == "one json":
        path = tmp_path / "all.json"
        path.write_text(json.dumps([nx.node_link_data(graph, edges="links") for graph in given]))
        (tmp_path / "labels.csv").write_text("graph,edges\n" + "".join(f"all-{line}\n" for line in labels.split()))
    else:
        path = tmp_path
        for k, graph in enumerate(given):
            if form == "graphml":
                nx.write_graphml(graph, tmp_path / f"{k}.graphml")
            else:
                (tmp_path / f"{k}.json").write_text(json.dumps(nx.node_link_data(graph, edges="edges")))
        (tmp_path / "labels.csv").write_text("graph,edges\n" + labels)
    table = GraphFiles(path=str(path), target="edges", fractions=(0.5, 0.25, 0.25)).load(0, False)
    assert table.targets.squeeze(1).tolist() == [5.0, 3.0, 3.0, 6.0]
    for data, graph in zip(table.graphs, given, strict=True):
        assert {tuple(pair) for pair in data.edge_index.t().tolist()} == set(graph.to_directed().edges)


def pyg(number, nodes=5):
    ring = torch.tensor([[k, (k + 1) % nodes] for k in range(nodes)]).t()
    return Data(x=torch.randn(nodes, 3), edge_index=torch.cat([ring, ring.flip(0)], 1), y=torch.tensor([number % 2]))


class Stored(InMemoryDataset):
    def __init__(self, graphs):
        super().__init__()
        self.data, self.slices = self.collate(graphs)


@pytest.mark.parametrize("form", ["list", "dataset"])
def test_pyg_graphs_from_a_file(tmp_path, form):
    graphs, file = [pyg(k, 5 + k % 3) for k in range(16)], tmp_path / "mine.pt"
    if form == "list":
        torch.save(graphs, file)
    else:
        Stored(graphs).save(graphs, file)
    recipe = load("graphs", [f"data.path={file}", "training.task=classification", "data.split=stratified", *QUICK])
    recipe.run(tmp_path / "run", quiet=True)
    frame = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert frame["target_y"].tolist() == [k % 2 for k in range(16)]
    recipe.predict(recipe.folder(tmp_path / "run"), file, tmp_path / "new.csv", quiet=True)
    assert pd.read_csv(tmp_path / "new.csv")["prediction_y"].to_numpy() == pytest.approx(
        frame["prediction_y"].to_numpy()
    )
    torch.save([Data(x=torch.randn(3, 4), edge_index=torch.tensor([[0, 1], [1, 0]]))], tmp_path / "other.pt")
    with pytest.raises(CosetError, match=r"x has 4 columns; training had 3"):
        recipe.predict(recipe.folder(tmp_path / "run"), tmp_path / "other.pt", tmp_path / "new.csv", quiet=True)


def test_a_table_of_edges_may_be_a_header_alone_if_there_are_nodes(tmp_path):
    (tmp_path / "edges.csv").write_text("graph,source,target\n")
    with pytest.raises(CosetError, match=r"edges.csv has no rows below its header \(graph, source, target\)"):
        GraphFiles(path=str(tmp_path), target="y").load(0, False)
    (tmp_path / "nodes.csv").write_text("graph,node,kind\n" + "".join(f"{k},a,u\n{k},b,v\n" for k in range(4)))
    (tmp_path / "graphs.csv").write_text("graph,y\n" + "".join(f"{k},{k}\n" for k in range(4)))
    table = GraphFiles(path=str(tmp_path), target="y", fractions=(0.5, 0.25, 0.25)).load(0, False)
    assert [(graph.num_nodes, graph.edge_index.size(1)) for graph in table] == [(2, 0)] * 4
    assert "no graph has an edge" in table.notes


def test_columns_without_any_value_are_left_out_and_others_refused_with_the_way_out(tmp_path):
    keys = "".join(
        f'<key id="{name}" for="node" attr.name="{name}" attr.type="string"/>' for name in ("url", "kind", "y")
    )
    nodes = "".join(f'<node id="n{k}"><data key="y">{k}</data><data key="kind">a</data>'
                    f'<data key="url"></data></node>' for k in range(4))  # fmt: skip
    text = f'<graph edgedefault="undirected">{nodes}<edge source="n0" target="n1"/></graph></graphml>'
    file = tmp_path / "yed.graphml"
    file.write_text(f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{keys}{text}')
    read = GraphFiles(path=str(file), target="y", fractions=(1.0, 0.0, 0.0)).load(0, False)
    assert list(read.columns["nodes"]) == ["kind"]
    assert read.notes == ("left out 1 column of nodes without any value: url",)
    rewrite(file, '<data key="y">2</data><data key="kind">a</data>', '<data key="y">2</data>')
    with pytest.raises(CosetError, match=r"yed.graphml, node 'n2', column 'kind': the cell is empty; fill it in, or lea"
                                         "ve the column out: data.ignore=kind"):  # fmt: skip
        GraphFiles(path=str(file), target="y").load(0, False)
    assert len(GraphFiles(path=str(file), target="y", ignore="kind").load(0, False).targets) == 4


def test_what_is_no_feature_is_told(tmp_path):
    (tmp_path / "edges.csv").write_text("graph,source,target\na,0,1\nb,0,1\nc,0,1\n")
    (tmp_path / "graphs.csv").write_text("graph,y,temperature,unit,part\na,1,10,K,train\nb,2,20,K,test\nc,3,30,K,val\n")
    files = GraphFiles(path=str(tmp_path), target="y", split="column", split_column="part")
    told = "graphs.csv: not used: temperature; features are columns of nodes and edges"
    assert files.load(0, False).notes == (told,)
    assert GraphFiles(**files.model_dump() | {"ignore": "temperature"}).load(0, False).notes == ()
    ends = torch.tensor([[0, 1], [1, 0]])
    graph = Data(
        edge_index=ends, y=torch.ones(1), num_nodes=2, pos=torch.zeros(2, 3), edge_weight=torch.ones(2), id="a"
    )
    torch.save([graph] * 3, tmp_path / "g.pt")
    told = "not used: edge_weight, pos; features are x and edge_attr"
    assert GraphFiles(path=str(tmp_path / "g.pt")).load(0, False).notes == (told,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge_index": None}, r"graph 0: edge_index must be \[2, edges\]"),
        ({"edge_index": None, "y": None, "edge_y": torch.ones(2)}, r"graph 0: edge_index must be \[2, edges\]"),
        ({"edge_index": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}, "graph 0: edge_index holds float32, not numbers"),
        ({"x": torch.tensor([[1], [-1]])}, "graph 0: x holds -1; integers are numbers of categories"),
        ({"edge_attr": torch.tensor([-2, -2])}, "graph 0: edge_attr holds -2; integers are numbers of categories"),
    ],
)
def test_pyg_graphs_that_cannot_be_read_are_named(tmp_path, changes, message):
    whole = {"edge_index": torch.tensor([[0, 1], [1, 0]]), "y": torch.ones(1), "num_nodes": 2}
    torch.save([Data(**whole | changes)] * 3, tmp_path / "g.pt")
    with pytest.raises(CosetError, match=message):
        GraphFiles(path=str(tmp_path / "g.pt")).load(0, False)
    torch.save([Data(**whole | {"edge_index": whole["edge_index"].int()})] * 3, tmp_path / "g.pt")
    assert torch.equal(GraphFiles(path=str(tmp_path / "g.pt")).load(0, False).graphs[0].edge_index, whole["edge_index"])


@pytest.mark.filterwarnings("error")
def test_edges_of_pyg_may_stand_once_and_loops_are_noted(tmp_path):
    file, names = tmp_path / "g.pt", {"y": torch.ones(1), "num_nodes": 3}

    def read(ends, values, **more):
        ends = torch.tensor(ends).t()
        torch.save([Data(edge_index=ends, edge_attr=torch.tensor(values), **names | more)] * 3, file)
        return GraphFiles(path=str(file)).load(0, False)

    both = [[0, 1], [1, 0], [1, 2], [2, 1]]
    once, twice = read([[0, 1], [2, 1]], [5.0, 7.0]), read(both, [5.0, 5.0, 7.0, 7.0])
    assert torch.equal(once.graphs[0].edge_index, twice.graphs[0].edge_index)
    assert once.graphs[0].edge_attr.tolist() == twice.graphs[0].edge_attr.tolist() == [[5.0], [5.0], [7.0], [7.0]]
    assert once.notes == ("3 graphs list edges in one direction only; every edge is taken in both",)
    mixed = read([[0, 1], [1, 0], [1, 1], [1, 2], [1, 2]], [5.0, 5.0, 9.0, 7.0, 7.0])
    assert mixed.graphs[0].edge_attr.tolist() == [[5.0], [5.0], [7.0], [7.0]]
    assert mixed.notes[:2] == ("left out 3 edges from a node to itself", "left out 3 edges listed more than once")
    assert read(both, [5.0, 6.0, 7.0, 8.0]).graphs[0].edge_attr.flatten().tolist() == [5.0, 6.0, 7.0, 8.0]
    of_edges = read([[1, 0], [2, 1]], [5.0, 7.0], y=None, edge_y=torch.tensor([1.0, 2.0]))
    assert of_edges.graphs[0].y.tolist() == [[1.0], [2.0]]
    assert of_edges.graphs[0].edge_label_attr.tolist() == [[5.0], [7.0]]
    with pytest.raises(CosetError, match=r"edge_attr of 0 -> 1 and 1 -> 0 differ, and other edges are listed in one"):
        read(both[:3], [5.0, 6.0, 7.0])
    with pytest.raises(CosetError, match=r"g.pt, graph 0: edge 0 -> 1 is there twice, with different edge_attr"):
        read([[0, 1], [0, 1]], [5.0, 6.0])


def test_targets_of_edges_keep_digits_that_tell_them_apart():
    ends = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    y = torch.tensor([1000000.123, 1000000.123, 1000000.124, 1000000.124], dtype=torch.float64)
    table = table_of_graphs([Data(x=torch.ones(3, 1), edge_index=ends, edge_y=y)], "two edges")
    assert table.targets.flatten().tolist() == [1000000.123, 1000000.124]


def test_integers_that_are_no_categories_are_refused():
    graph = Data(x=torch.tensor([[0, 3], [1, 10**9]]), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.ones(1))
    with pytest.raises(CosetError, match=r"x, column 1, goes up to 1,000,000,000; .* make measures real numbers"):
        table_of_graphs([graph], "big")


def test_masks_of_nodes_are_the_split(tmp_path):
    data = pyg(0, 9)
    data.y = torch.arange(9) % 3
    for at, split in enumerate(("train", "val", "test")):
        data[f"{split}_mask"] = torch.arange(9) // 3 == at
    torch.save(data, tmp_path / "one.pt")
    table = GraphFiles(path=str(tmp_path / "one.pt")).load(0, False)
    assert table.level == "node"
    assert {name: rows.tolist() for name, rows in table.splits.items()} == {
        "train": [0, 1, 2], "val": [3, 4, 5], "test": [6, 7, 8]
    }  # fmt: skip


class Evil:
    def __reduce__(self):
        return print, ("this must not be printed",)


def test_some_masks_are_a_split_without_the_others_and_masks_that_overlap_are_refused(tmp_path):
    train = torch.arange(6) < 4
    known = {"edge_index": torch.tensor([[0, 1], [1, 0]]), "y": torch.arange(6.0), "num_nodes": 6}

    def read(**masks):
        torch.save([Data(**known, **masks)], tmp_path / "g.pt")
        return GraphFiles(path=str(tmp_path / "g.pt")).load(0, False).splits

    splits = read(train_mask=train, test_mask=~train)
    assert {name: rows.tolist() for name, rows in splits.items()} == {"train": [0, 1, 2, 3], "test": [4, 5]}
    for masks, message in (
        ({"test_mask": train}, "there is a test_mask, but no train_mask"),
        ({"train_mask": train, "val_mask": train}, "node 0 is in two masks; parts of a split share no node"),
        ({"train_mask": train[:3]}, "masks must have a cell for each of 6 nodes"),
    ):
        with pytest.raises(CosetError, match=message):
            read(**masks)
    torch.save([Data(**known, train_mask=train)] * 3, tmp_path / "g.pt")
    several = GraphFiles(path=str(tmp_path / "g.pt")).load(0, False)
    assert "left out masks of 3 graphs" in several.notes[0]
    assert all("train_mask" not in graph for graph in several.graphs)


def test_pickles_of_anything_else_are_refused(tmp_path, capsys):
    torch.save([Evil()], tmp_path / "evil.pt")
    with pytest.raises(CosetError, match=r"evil.pt cannot be read: it is damaged, or holds more"):
        GraphFiles(path=str(tmp_path / "evil.pt")).load(0, False)
    torch.save([HeteroData()], tmp_path / "kinds.pt")
    with pytest.raises(CosetError, match=r"kinds.pt cannot be read: .* texts, Data: it holds torch_geometric\.data\."):
        GraphFiles(path=str(tmp_path / "kinds.pt")).load(0, False)
    assert "must not" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "a", "is no file of graphs that can be read"),
        ("x.json", "[1]", "no node-link JSON"),
        ("x.json", "{", "x.json.*JSON"),
        ("x.graphml", "<a>", "no GraphML that can be read"),
        ("x.g6", "\x01", "line 1, is no graph6 that can be read"),
        ("x.pt", "abc", "cannot be read: it is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(CosetError, match=message):
        GraphFiles(path=str(tmp_path / name), target=[] if name.endswith("pt") else "y").load(0, False)


def test_stratified_parts_have_equal_shares_of_labels():
    labels = [0.0] * 40 + [1.0] * 20 + [2.0] * 10
    parts = stratified_split(labels, (0.7, 0.2, 0.1), seed=3)
    counts = {name: np.bincount(np.array(labels, dtype=int)[rows.numpy()]).tolist() for name, rows in parts.items()}
    assert [sum(count) for count in counts.values()] == [49, 14, 7]
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        assert all(abs(count - share * whole) <= 1 for count, whole in zip(counts[name], (40, 20, 10), strict=True))
    assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(70))


def test_graphs_of_needs_targets_where_they_are():
    from coset.graphs.data.graph_files import GraphTables

    nodes = pd.DataFrame({"graph": ["0"], "node": ["a"]})
    tables = GraphTables(nodes, pd.DataFrame(columns=["graph", "source", "target"]), pd.DataFrame({"graph": ["0"]}),
                         Path("here"), ("nodes", "edges", "graphs"))  # fmt: skip
    assert graphs_of(tables, ()).graphs[0].num_nodes == 1
