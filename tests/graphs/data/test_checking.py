import json
import zipfile

import networkx as nx
import pytest
from typer.testing import CliRunner

from coset import CosetError
from coset.cli import app
from coset.graphs.data.checking import described_file
from coset.runs.recipes import load


def test_molecules_with_copies_and_a_constant_target(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("smiles,a,b\nCCO,1,x\nOCC,1,y\nCC,1,x\nC,1,z\nCCC,1,y\nnonsense,1,x\n")
    facts, warnings = described_file(file, "a")
    assert facts["molecules"] == 5
    assert facts["nodes"] == "1 to 3, 12 in all"
    assert warnings[0] == "skipped 1 unparsable row: 7"
    assert "target a is the same everywhere (1): there is nothing to learn" in warnings
    assert any(text.startswith("1 graph is an exact copy of another") for text in warnings)
    facts, _ = described_file(file, "b")
    assert facts["target b (of graphs)"] == "classes: x 2, y 2, z 1 (training.task=multiclass)"


def test_pairs_in_another_order_are_no_copies_and_packed_tables_are_read(tmp_path):
    text = "solvent,solute,y\nO,CCO,1\nCCO,O,2\nCCO,CC,3\nOCC,CC,4\n"
    with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
        archive.writestr("pairs.csv", text)
    facts, warnings = described_file(tmp_path / "pairs.zip", "y", "solvent,solute")
    assert facts["molecules"] == 4
    assert next(text for text in warnings if "exact cop" in text).startswith("1 graph is an exact copy of another")


def test_a_target_without_any_value_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_text("smiles,a,b\nC,1,\nCC,,\nCCC,3,\nCCCC,4,\n")
    with pytest.raises(CosetError, match="column 'b' is empty in all rows; leave that target out"):
        described_file(tmp_path / "mine.csv", "a,b")
    (tmp_path / "edges.csv").write_text("source,target\na,b\nb,c\nc,d\n")
    (tmp_path / "nodes.csv").write_text("node,y,z\na,1,\nb,2,\nc,3,\nd,4,\n")
    with pytest.raises(CosetError, match="column 'z' is empty in all rows"):
        described_file(tmp_path, "y,z")


def test_tables_without_a_target_are_told_of_with_what_it_may_be(tmp_path):
    (tmp_path / "edges.csv").write_text("source,target,w\na,b,1\nb,c,2\n")
    facts, _ = described_file(tmp_path)
    assert facts["edges"] == "2 to 2, 2 in all"
    assert facts["what --target may name"] == "columns of graphs: none; columns of nodes: none; columns of edges: w"


def test_a_value_far_from_all_others(tmp_path):
    file = tmp_path / "mine.csv"
    rows = "".join(f"{'C' * (k + 1)},{k % 5}\n" for k in range(99))
    file.write_text("smiles,a\n" + rows + "CO,9000\n")
    _, warnings = described_file(file, "a")
    assert warnings == ("target a: 1 values lie more than 8 deviations from the median, up to 8998 away",)


def test_tables_by_the_command(tmp_path):
    (tmp_path / "edges.csv").write_text("source,target\n" + "".join(f"{k},{k + 1}\n" for k in range(11)))
    rows = "".join(f"{k},{k % 2},{'ab'[k % 2]},{k / 7}\n" for k in range(12))
    (tmp_path / "nodes.csv").write_text("node,y,kind,weight\n" + rows)
    out = CliRunner().invoke(app, ["data", "check", str(tmp_path), "--target", "y", "--json"])
    assert out.exit_code == 0, out.output
    facts = json.loads(out.output)["facts"]
    assert facts["features of nodes"] == "kind (2 words), weight (number)"
    assert facts["target y (of nodes)"] == "labels 0 and 1: 6 and 6 (classification)"
    assert CliRunner().invoke(app, ["data", "check", str(tmp_path), "--target", "y"]).exit_code == 0
    with pytest.raises(CosetError, match="no such file or folder"):
        described_file(tmp_path / "other")


def test_embeddings_by_the_command(tmp_path):
    graphs = [nx.cycle_graph(4 + k % 3) if k % 2 else nx.path_graph(4 + k % 3) for k in range(12)]
    (tmp_path / "all.g6").write_bytes(b"".join(nx.to_graph6_bytes(graph, header=False) for graph in graphs))
    (tmp_path / "all.csv").write_text("edges\n" + "".join(f"{g.number_of_edges()}\n" for g in graphs))
    changes = [f"data.path={tmp_path / 'all.g6'}", "data.target=edges", "model.width=8", "model.layers=1"]
    load("graphs", [*changes, "data.fractions=[0.5,0.25,0.25]", "training.epochs=1"]).run(tmp_path / "run", quiet=True)
    arguments = ["embed", str(tmp_path / "run"), str(tmp_path / "all.g6"), "--output", str(tmp_path / "e.csv")]
    out = CliRunner().invoke(app, arguments)
    assert out.exit_code == 0, out.output
    lines = (tmp_path / "e.csv").read_text().splitlines()
    assert len(lines) == 13
    assert lines[0].startswith("id,e0,e1,")
