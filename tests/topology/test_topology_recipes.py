"""Molecules with rings, from a CSV to a trained run; and topological properties as targets."""

import json

import pytest
import torch

from coset import CosetError
from coset.graphs.data.datasets import csv
from coset.runs.recipes import check, load
from coset.topology import classify_surfaces
from coset.topology.data.meshes import CGAL, Mesh, cgal_meshes
from coset.topology.targets import grid_surfaces, random_surfaces, real_surfaces, ring_property


@pytest.mark.parametrize("model", ["homp", "mcn", "smcn"])
def test_a_run_from_a_csv(small_csv, tmp_path, model):
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"kind: graphs\ndata: {{name: csv, path: {small_csv}, target: carbons}}\n"
        f"model: {{name: {model}, width: 8, layers: 1}}\ntraining: {{epochs: 2, batch_size: 4}}\n"
    )
    recipe = load(str(file))
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert metrics["test"]["mae"] >= 0
    certificate = json.loads((tmp_path / "run" / "certificate.json").read_text())
    assert certificate
    assert all(claim["passed"] for claim in certificate)
    assert recipe.report(tmp_path / "run").exists()


def test_the_published_network_for_zinc_from_end_to_end(tmp_path):
    """Its recipe, but for its data and its sizes. Batch norms of rings need two rings a batch."""
    smiles = [f"{tail}{ring}" for tail in ("C", "CC", "CO", "CN") for ring in ("c1ccccc1", "C1CC1", "C1CCC2CC2C1")]
    file = tmp_path / "rings.csv"
    file.write_text("smiles,carbons\n" + "".join(f"{s},{s.upper().count('C')}\n" for s in smiles))
    values = load("smcn/zinc-paper", ["model.width=8", "model.pair_width=6", "model.layers=2", "training.epochs=2"])
    values = values.model_dump(mode="json") | {"data": {"name": "csv", "path": str(file), "target": "carbons"}}
    values["training"]["batch_size"] = 4
    recipe = check(values, "tiny")
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert metrics["epochs"] == 2
    assert metrics["test"]["mae"] >= 0
    assert all(claim["passed"] for claim in json.loads((tmp_path / "run" / "certificate.json").read_text()))


def test_topological_targets(small_csv):
    table = csv(small_csv, "smiles", ["carbons"], split="random", seed=0)
    rings = ring_property(table, "cross_diameter", 18)
    assert len(rings) == 2
    assert {(graph.smiles, float(graph.y)) for graph in rings} == {("c1ccccc1", 0.0), ("C1CC1", 0.0)}
    assert rings.node_features is None
    assert sum(len(rows) for rows in rings.splits.values()) == 2


def test_impossible_recipes_are_refused():
    with pytest.raises(CosetError, match="root_fraction"):
        load("smcn/freesolv", ["model.root_fraction=0.5"])
    with pytest.raises(CosetError, match="ranks"):
        load("smcn/freesolv", ["model.ranks=[0,3]"])


TINY = ["data.count=16", "data.sizes=[15,17]", "data.test_sizes=[18,19]", "data.flips=10", "training.epochs=1",
        "model.width=4", "model.layers=1"]  # fmt: skip


@pytest.mark.parametrize("model", ["homp", "mcn", "smcn"])
def test_surfaces_from_recipe_to_picture(tmp_path, model):
    recipe = load(f"{model}/surfaces", TINY)
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert metrics["test"]["mae"] >= 0
    cells = json.loads((tmp_path / "run" / "cells.json").read_text())
    assert len(cells) == 8  # all that are tested
    assert bool(cells[0]["weights"]) is (model == "smcn")
    assert recipe.report(tmp_path / "run").exists()


def test_surfaces_are_labelled_by_what_they_are():
    table = random_surfaces("euler", 16, (15, 18), (20, 20), 10, False, seed=0)
    assert {name: len(rows) for name, rows in table.splits.items()} == {"train": 16, "val": 4, "test": 8}
    for graph in table:
        n, m, f = graph.num_cells[0].tolist()
        assert n - m + f == float(graph.y)
    assert {int(graph.num_cells[0, 0]) for graph in table.subset("test")} == {20}
    assert {float(graph.y) for graph in table} == {2, 1, 0, -1, -2, -4}
    again = random_surfaces("euler", 16, (15, 18), (20, 20), 10, False, seed=0)
    assert all(torch.equal(a.incidence_0_2, b.incidence_0_2) for a, b in zip(table, again))


@pytest.mark.parametrize("family", ["random", "grids"])
def test_orientable_or_not_come_in_pairs_of_equal_counts(family):
    if family == "grids":
        table = grid_surfaces((3, 4), (4, 5), seed=0)
        assert {name: len(rows) for name, rows in table.splits.items()} == {"train": 6, "val": 2, "test": 6}
    else:
        table = random_surfaces("orientable", 16, (15, 18), (20, 20), 10, False, seed=0)
    for one, other in zip(table.graphs[::2], table.graphs[1::2]):
        assert torch.equal(one.num_cells, other.num_cells)
        assert [float(g.y) for g in (one, other)] == [1, 0]


@pytest.mark.skipif(not CGAL.is_file(), reason="libcgal-demo is not installed")
def test_real_meshes_are_simplified_to_the_same_surface(monkeypatch):
    wanted = {"eight", "knot2", "cube_quad", "hedra_open", "blobby_3cc"}
    read = list(cgal_meshes(wanted))
    monkeypatch.setattr("coset.topology.targets.cgal_meshes", lambda: read)
    whole = {name: classify_surfaces(mesh.complex) for name, mesh in read if isinstance(mesh, Mesh)}
    found = {name: (classify_surfaces(complex_), pos) for name, complex_, pos in real_surfaces()}
    assert {"eight", "cube_quad"} <= set(found)
    assert "hedra_open" not in found  # it has a boundary
    for name, (surface, pos) in found.items():
        assert surface == whole[name]
        assert len(pos) <= 50


def test_surfaces_that_cannot_be_are_refused():
    with pytest.raises(CosetError, match=r"data.sizes=\[5, 40\]: from at least 15"):
        load("smcn/surfaces", ["data.sizes=[5,40]"])
    with pytest.raises(CosetError, match=r"data\.property=orientable"):
        load("smcn/orientability", ["data.property=euler"])
    with pytest.raises(CosetError, match="no side is above 8"):
        load("smcn/orientability", ["data.test_sizes=[3,8]"]).load()
