"""EPNN and GRIT from a CSV to a trained run with a certificate, and what their recipes refuse."""

import json

import pytest
import torch

from coset import CosetError
from coset.graphs.experiments import load_task
from coset.runs.recipes import load


@pytest.mark.parametrize(
    ("recipe", "options"),
    [("epnn/freesolv", ["model.matrix=laplacian"]), ("grit/freesolv", ["model.heads=2", "model.encoder=product"])],
)
def test_a_run_from_a_csv(small_csv, tmp_path, recipe, options):
    data = ["data={name: csv, fractions: [0.5, 0.25, 0.25]}", f"data.path={small_csv}", "data.target=carbons"]
    recipe = load(recipe, [*data, *options, "model.width=8", "model.layers=2", "training.epochs=2"])
    metrics = recipe.run(tmp_path / "run", quiet=True)
    assert metrics["test"]["mae"] >= 0
    certificate = json.loads((tmp_path / "run" / "certificate.json").read_text())
    assert [claim["group"] for claim in certificate] == ["S_n on nodes", "bases of eigenspaces"]
    assert all(claim["passed"] for claim in certificate)
    assert recipe.report(tmp_path / "run").exists()
    again, task, _ = load_task(tmp_path / "run")
    graphs = again.encode(recipe.load().graphs)
    assert torch.equal(again.predictions(task, graphs), recipe.predictions(task, graphs))


@pytest.mark.parametrize("dataset", ["freesolv", "esol", "zinc12k"])
def test_shipped_recipes_are_valid(dataset):
    assert load(f"epnn/{dataset}").model.name == "epnn"
    assert load(f"grit/{dataset}").model.name == "grit"


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ("grit/freesolv", "model.matrix=laplacian", "random walks need normalized"),
        ("grit/freesolv", "model.heads=7", "multiple of heads"),
        ("epnn/freesolv", "model.heads=4", "unknown key model.heads"),
        ("epnn/freesolv", "model.root_fraction=0.5", "root_fraction"),
        ("epnn/freesolv", "model.matrix=signless", "model.matrix='signless'"),
    ],
)
def test_mistakes_are_explained(recipe, override, message):
    with pytest.raises(CosetError, match=message):
        load(recipe, [override])
