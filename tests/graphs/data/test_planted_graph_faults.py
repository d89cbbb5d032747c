"""Faults planted in one's own graphs and complexes, in weights and in folders of runs: each is told, and says where.

Those of tables of molecules are in ``test_planted_faults.py``.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch_geometric.data import Data

from coset import CosetError
from coset.core.outside import read_arrays, read_saved, read_tensors
from coset.graphs.data.own_graphs import GraphFiles
from coset.topology.own_complexes import ComplexFiles
from coset.weights.lora import load_lora

EDGES = "graph,source,target,length\na,0,1,1.5\na,1,2,1.5\nb,0,1,1\nc,0,1,2\nd,0,1,1\nd,1,2,1\n"
NODES = "graph,node,charge,kind\na,0,0.5,C\na,1,1,N\na,2,0,C\nb,0,1,C\nb,1,2,N\nc,0,0,C\nc,1,1,C\n"
NODES += "d,0,1,N\nd,1,1,C\nd,2,3,C\n"
GRAPHS = "graph,y,split\na,1,train\nb,2,train\nc,3,val\nd,4,test\n"
WHOLE = {"edges.csv": EDGES, "nodes.csv": NODES, "graphs.csv": GRAPHS}


def changed(file, old, new):
    assert old in WHOLE[file]
    return {file: WHOLE[file].replace(old, new, 1)}


TABLES = {
    # nodes, edges and graphs that do not belong together
    "a graph without a label": (changed("graphs.csv", "b,2,train\n", ""), r"graph 'b'"),
    "a label for no graph": ({"graphs.csv": GRAPHS + "z,5,train\n"}, r"'z'"),
    "a label twice": ({"graphs.csv": GRAPHS + "a,5,train\n"}, r"graphs\.csv, row 6.*'a'"),
    "an edge to a node that is not there": (changed("edges.csv", "a,1,2,", "a,1,7,"), r"edges\.csv, row 3.*'7'"),
    "an edge of an unknown graph": (changed("edges.csv", "b,0,1,1\n", "x,0,1,1\n"), r"edges\.csv, row 4.*'x'"),
    "a node of an unknown graph": ({"nodes.csv": NODES + "x,0,1,C\n"}, r"nodes\.csv, row 12.*'x'"),
    "a node twice": ({"nodes.csv": NODES + "a,0,1,C\n"}, r"nodes\.csv, row 12.*'0'"),
    "an edge twice with other features": ({"edges.csv": EDGES + "a,1,0,9\n"}, r"edges\.csv, row"),
    "an empty name of a node": (changed("nodes.csv", "a,1,1,N", "a,,1,N"), r"nodes\.csv, row 3, column 'node'.*empty"),
    "an empty end of an edge": (changed("edges.csv", "a,1,2,1.5", "a,1,,1.5"), r"edges\.csv, row 3.*'target'.*empty"),
    "an empty name of a graph": (changed("graphs.csv", "b,2", ",2"), r"graphs\.csv, row 3.*'graph'.*empty"),
    "names with spaces inside": (changed("edges.csv", "a,1,2,", "a,1,2 2,"), r"edges\.csv, row 3.*'2 2'"),
    "numbers of nodes from 1": (changed("edges.csv", "b,0,1,1", "b,1,2,1"), r"edges\.csv, row 4.*'2'"),
    # columns
    "no column of sources": (changed("edges.csv", "source", "begin"), r"edges\.csv.*no column 'source'"),
    "no column of targets": (changed("edges.csv", "target", "end"), r"edges\.csv.*no column 'target'"),
    "no column of nodes": (changed("nodes.csv", "node,", "atom,"), r"nodes\.csv.*no column 'node'"),
    "no column of graphs in labels": (changed("graphs.csv", "graph,", "molecule,"), r"graphs\.csv.*no column 'graph'"),
    "two columns of one name": (changed("nodes.csv", "charge,kind", "charge,charge"), r"two columns are called"),
    "the target is nowhere": (changed("graphs.csv", ",y,", ",energy,"), r"'y'"),
    # cells
    "a feature that is half numbers": (changed("nodes.csv", "a,1,1,N", "a,1,,N"), r"nodes\.csv|nodes.*'charge'"),
    "an infinite feature": (changed("nodes.csv", "a,1,1,N", "a,1,inf,N"), r"'charge'.*'inf'"),
    "an infinite feature of an edge": (changed("edges.csv", "a,0,1,1.5", "a,0,1,1e999"), r"'length'.*'1e999'"),
    "a target that is a word": (changed("graphs.csv", "a,1,", "a,much,"), r"graphs\.csv.*row 2.*'much'"),
    "a target that is infinite": (changed("graphs.csv", "a,1,", "a,inf,"), r"graphs\.csv.*'inf'"),
    "a target with a decimal comma": (changed("graphs.csv", "a,1,", 'a,"1,5",'), r"graphs\.csv.*1\.5 for 1,5"),
    "a cell too many": (changed("nodes.csv", "a,1,1,N", "a,1,1,N,9"), r"nodes\.csv, row 3 has 5 cells, the header 4"),
    "a cell too few": (changed("edges.csv", "a,1,2,1.5", "a,1"), r"edges\.csv, row 3 has 2 cells, the header 4"),
    # files
    "UTF-16": ({"nodes.csv": NODES.encode("utf-16")}, r"nodes\.csv.*UTF-16"),
    "Latin-1": ({"nodes.csv": NODES.replace("N", "é").encode("latin-1")}, r"nodes\.csv.*0xe9"),
    "zero bytes": ({"edges.csv": b"graph,source,target\na,\0,1\n"}, r"edges\.csv.*zero bytes"),
    "an empty file": ({"edges.csv": ""}, r"edges\.csv.*empty"),
    "semicolons": ({"edges.csv": EDGES.replace(",", ";")}, r"edges\.csv has semicolons between"),
    "Parquet that is none": ({"edges.csv": None, "edges.parquet": EDGES}, r"edges\.parquet"),
    "no edges file": ({"edges.csv": None}, r"holds no graphs"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    def write(files):
        for name, content in files.items():
            if content is not None:
                (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def refused(said, read, *given, **options):
    """In one line."""
    with pytest.raises(CosetError, match=said) as error:
        read(*given, **options)
    assert "\n" not in str(error.value)


def own(path, **options):
    return GraphFiles(**{"path": str(path), "target": ["y"], "split": "column", **options}).load(0, False)


@pytest.mark.parametrize("fault", TABLES)
def test_faults_of_tables_of_graphs_are_told(folder, fault):
    files, said = TABLES[fault]
    refused(said, own, folder(WHOLE | files))


def test_sound_tables_in_any_order_are_the_same(folder):
    """Rows of nodes and edges need no order; graphs come as their labels do."""
    sound = own(folder(WHOLE))
    head, *rows = NODES.splitlines()
    first, *lines = EDGES.splitlines()
    mixed = own(
        folder(WHOLE | {"nodes.csv": "\n".join([head, *rows[::-1]]), "edges.csv": "\n".join([first, *lines[::-1]])})
    )
    assert sound.notes == mixed.notes
    assert [graph.num_nodes for graph in sound.graphs] == [graph.num_nodes for graph in mixed.graphs] == [3, 2, 2, 3]
    assert [graph.num_edges for graph in sound.graphs] == [graph.num_edges for graph in mixed.graphs]


LINKS = {
    "nodes": [{"id": n, "y": n / 2} for n in range(4)],
    "edges": [{"source": n, "target": n + 1} for n in range(3)],
}
TWICE = {**LINKS, "multigraph": True, "edges": [{"source": 0, "target": 1, "bond": bond} for bond in (1, 2)]}
GRAPHML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="undirected">'
FILES = {
    "JSON of something else": ("a.json", '{"a": 1}', r"a\.json: no node-link JSON"),
    "JSON cut off": ("a.json", json.dumps(LINKS)[:40], r"a\.json"),
    "a graph's attributes in a list": ("a.json", json.dumps({**LINKS, "graph": [1]}), r"'graph' holds '\[1\]'"),
    "an edge without its end": ("a.json", json.dumps({**LINKS, "edges": [{"source": 0}]}), r"a\.json"),
    "parallel edges": ("a.json", json.dumps(TWICE), r"parallel edges from 0 to 1 that differ"),
    "GraphML cut off": ("a.graphml", GRAPHML, r"a\.graphml is no GraphML"),
    "GraphML with entities": ("a.graphml", '<!DOCTYPE x [<!ENTITY a "b">]>' + GRAPHML, r"DOCTYPE or entities"),
    "a letter that is none of graph6": ("a.g6", "D~{\n\x7f\n", r"a\.g6, line 2"),
    "a line of graph6 cut off": ("a.g6", "D~{\nD~\n", r"a\.g6, line 2"),
    "a file that is no graph": ("a.xyz", "3\n\nO 0 0 0\n", r"a\.xyz is no file of graphs"),
    "a path that is not there": ("", "", r"no such file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FILES)
def test_faults_of_files_of_graphs_are_told(tmp_path, fault):
    name, content, said = FILES[fault]
    if name:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    refused(said, own, tmp_path / (name or "nothing.json"), split="random", level="auto")


EDGE = torch.tensor([[0, 1], [1, 0]])


def graph(x=None, edge_index=EDGE, y=1.0):
    return Data(x=torch.ones(2, 1) if x is None else x, edge_index=edge_index, y=torch.tensor([y]))


PYG = {
    "an edge out of range": ([graph(edge_index=EDGE + 1)], r"graph .?0"),
    "a negative end": ([graph(edge_index=EDGE - 1)], r"graph .?0"),
    "features of other widths": ([graph(torch.ones(2, n)) for n in (1, 2)], r"x differs between graphs"),
    "a feature that is no number": ([graph(torch.full((2, 1), torch.nan))], r"graph 0: x .*no finite"),
    "a feature beyond float32": ([graph(torch.full((2, 1), 1e39, dtype=torch.float64))], r"0: x .*beyond float32"),
    "a target that is infinite": ([graph(y=2.0 * n if n else torch.inf) for n in range(4)], r"graph 0: y .*finite"),
    "a target on one graph alone": ([graph(), Data(x=torch.ones(2, 1), edge_index=EDGE)], r"numbers of targets"),
    "no graphs": ([], r"graphs"),
    "no targets": ([Data(x=torch.ones(2, 1), edge_index=EDGE)] * 3, r"no y"),
    "something else": ({"a": torch.ones(3)}, r"graphs"),
}  # fmt: skip


def test_targets_of_pyg_graphs_keep_what_tells_them_apart(tmp_path):
    energies = [-1000000.123, -1000000.124, -1000000.5, -1000000.6]
    graphs = [Data(x=torch.ones(2, 1), edge_index=EDGE, y=torch.tensor([e], dtype=torch.float64)) for e in energies]
    torch.save(graphs, tmp_path / "a.pt")
    targets = own(tmp_path / "a.pt", target=[], split="random", fractions=(0.5, 0.25, 0.25)).targets
    assert targets.flatten().tolist() == energies


@pytest.mark.parametrize("fault", PYG)
def test_faults_of_pyg_graphs_are_told(tmp_path, fault):
    value, said = PYG[fault]
    torch.save(value, tmp_path / "a.pt")
    refused(said, own, tmp_path / "a.pt", target=[], split="random")


def cells(**more):
    return {"c.json": json.dumps({**CELLS, **more})}


CELLS = {"kind": "cell", "vertices": 3, "cells": {"1": [[0, 1], [1, 2], [0, 2]], "2": [[0, 1, 2]]}}
COMPLEXES = {
    "a complex without a label": ({"labels.csv": "graph,y,split\na,1,train\nb,2,val\n"}, r"no row for graph 'c'"),
    "no labels": ({"labels.csv": None}, r"has no labels\.csv"),
    "a cell of a vertex that is not there": (cells(cells={"1": [[0, 9]]}), r"c\.json"),
    "a face without its edges": (cells(cells={"2": [[0, 1, 2]]}), r"c\.json"),
    "features for fewer vertices": (cells(features={"0": [[1]]}), r"c\.json|complexes differ"),
    "features of some complexes alone": (cells(features={"0": [[1], [2], [3]]}), r"differ in x"),
    "features that are words": (cells(features={"0": [["a"]] * 3}), r"c\.json: features of rank 0"),
    "features of volumes": (cells(features={"3": [[1]]}), r"features of rank 3"),
    "a complex cut off": ({"c.json": json.dumps(CELLS)[:30]}, r"c\.json"),
    "two complexes of one name": ({"c.off": "OFF\n"}, r"two complexes of the name 'c'"),
    "a target that is missing": ({"labels.csv": "graph,y,split\na,1,train\nb,,val\nc,3,test\n"}, r"labels\.csv, row 3"),
}  # fmt: skip


@pytest.mark.parametrize("fault", COMPLEXES)
def test_faults_of_complexes_are_told(folder, fault):
    files, said = COMPLEXES[fault]
    whole = {f"{name}.json": json.dumps(CELLS) for name in "abc"} | {
        "labels.csv": "graph,y,split\na,1,train\nb,2,val\nc,3,test\n"
    }
    read = ComplexFiles(path=str(folder(whole | files)), target=["y"], split="column").load
    refused(said, read, 0, False)


PAIR = {f"base_model.model.x.q.lora_{side}.weight": torch.ones(shape) for side, shape in (("A", (2, 5)), ("B", (4, 2)))}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}


def spoilt(which, value):
    name = next(name for name in PAIR if f"lora_{which}" in name)
    return PAIR | {name: value}


ADAPTERS = {
    "a weight that is no number": (spoilt("A", torch.full((2, 5), torch.nan)), CONFIG, r"finite"),
    "an infinite weight": (spoilt("B", torch.full((4, 2), torch.inf)), CONFIG, r"finite"),
    "factors of two ranks": (spoilt("A", torch.ones(3, 5)), CONFIG, r"rank|shape"),
    "one factor alone": (dict([next(iter(PAIR.items()))]), CONFIG, r"lora_B|B"),
    "whole numbers": (spoilt("A", torch.ones(2, 5, dtype=torch.int64)), CONFIG, r"int64|float|type"),
    "nothing in it": ({}, CONFIG, r"no"),
    "a rank of zero": (PAIR, CONFIG | {"r": 0}, r"r"),
    "another method": (PAIR, CONFIG | {"peft_type": "IA3"}, r"IA3"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ADAPTERS)
def test_faults_of_adapters_are_told(tmp_path, fault):
    tensors, config, said = ADAPTERS[fault]
    save_file({name: value.clone() for name, value in tensors.items()}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    refused(said, load_lora, tmp_path)


def test_files_cut_off_are_told(tmp_path):
    """Half of each form of arrays and weights."""
    np.savez(tmp_path / "a.npz", x=np.arange(1000))
    np.save(tmp_path / "a.npy", np.arange(1000))
    save_file({"x": torch.ones(1000)}, tmp_path / "a.safetensors")
    torch.save({"x": torch.ones(1000)}, tmp_path / "a.pt")
    for name, read in {
        "a.npz": read_arrays,
        "a.npy": read_arrays,
        "a.safetensors": read_tensors,
        "a.pt": read_saved,
    }.items():
        content = (tmp_path / name).read_bytes()
        read(tmp_path / name)
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        refused(rf"{name}", read, tmp_path / name)


WRONG_FOLDERS = {
    "predict": ("predict", "EMPTY", "IN/new.csv", "--output", "OUT"),
    "embed": ("embed", "EMPTY", "IN/new.csv", "--output", "OUT"),
    "report": ("report", "EMPTY"),
    "verify": ("verify", "EMPTY"),
    "resume": ("run", "--resume", "EMPTY"),
    "collect": ("lora", "collect", "EMPTY", "OUT"),
    "inspect": ("lora", "inspect", "EMPTY"),
    "search": ("lora", "search", "EMPTY", "EMPTY"),
}


@pytest.mark.parametrize("verb", WRONG_FOLDERS)
def test_folders_of_something_else_are_told(coset, tmp_path, verb):
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "OUT": tmp_path / "out", "IN/new.csv": tmp_path / "new.csv"}
    (tmp_path / "new.csv").write_text("smiles\nC\n")
    code, _, problems = coset(*(places.get(word, word) for word in WRONG_FOLDERS[verb]))
    assert code == 1
    assert len(problems.strip().splitlines()) == 1
    assert "empty" in problems
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "empty")
