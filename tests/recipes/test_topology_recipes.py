"""Molecules with rings, from a CSV to a trained run; and topological properties as targets."""

import json

import pytest

from coset import CosetError
from coset.graphs.datasets import csv
from coset.recipes import load
from coset.recipes.topological_targets import ring_property


@pytest.mark.parametrize("model", ["homp", "smcn"])
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
