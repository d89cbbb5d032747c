"""What CONTRIBUTING says is added by registering it: norms, coarsenings, liftings, data, models, methods, kinds of run.

Each is added in a process of its own, so that nothing of it is left for other tests, and runs.
"""

import subprocess
import sys
from textwrap import dedent

import pytest

HEAD = """
import sys
from pathlib import Path
from typing import Annotated, Any, Literal
import numpy as np
import torch
from coset.runs.recipes import check
from coset.runs.run import execute

TRAINING = {"epochs": 1, "batch_size": 16}

def run(**values):
    recipe = check({"kind": "graphs", "data": {"name": "freesolv"}, "training": TRAINING, **values}, "mine")
    metrics = execute(recipe, Path(sys.argv[1]), quiet=True)
    print("ran", sorted(metrics["test"]))
"""

NORM = """
from coset.nn.norms import register_norm

class Unit(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return torch.nn.functional.normalize(x, dim=-1)

register_norm("unit", Unit)
run(model={"name": "gin", "norm": "unit", "width": 8, "layers": 2})
for name in ("smcn", "epnn"):
    model = {"name": name, "norm": "unit", "width": 8, "layers": 1}
    check({"kind": "graphs", "data": {"name": "freesolv"}, "model": model}, "mine").model.build(1, None, None)
"""

COARSENING = """
from coset.graphs.encodings.coarsening import coarsening

@coarsening("stars", sized=False, partition=False, invariant=True)
def stars(adjacency, settings=None):
    return adjacency | np.eye(len(adjacency), dtype=bool)

run(model={"name": "csgnn", "coarsening": "stars", "width": 8, "layers": 1})
"""

LIFTING = """
from coset.topology.data.cells import Cells
from coset.topology.liftings import LIFTINGS, Lifting

@LIFTINGS.register("whole")
class WholeLift(Lifting):
    def cells(self, graph):
        nodes = len(graph.indptr) - 1
        return {2: Cells.rows(np.arange(nodes)[None])} if nodes > 2 else {}

run(model={"name": "homp", "lift": "whole", "width": 8, "layers": 1})
"""

SOURCE = """
from torch_geometric.data import Data
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.data.sources import GRAPH_DATA, GraphData

@GRAPH_DATA.add
class Rings(GraphData):
    name: Literal["rings"] = "rings"
    count: int = 30

    def load(self, seed, progress):
        graphs = []
        for i in range(self.count):
            n = 3 + i % 5
            index = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
            y = torch.tensor([[float(n)]])
            graphs.append(Data(edge_index=torch.cat([index, index.flip(0)], 1), num_nodes=n, y=y, id=str(i)))
        rows = torch.arange(self.count)
        return GraphTable(graphs, ("size",), {"train": rows[:20], "val": rows[20:25], "test": rows[25:]}, name="rings")

run(data={"name": "rings"}, model={"name": "gin", "width": 8, "layers": 2})
"""

KIND = """
from coset.core import domains
from coset.core.domains import Domain
from coset.runs.recipe import Recipe

class CountRecipe(Recipe):
    kind: Literal["count"] = "count"
    numbers: list[int]

    def prepare(self, run):
        return self.numbers

    def work(self, run, prepared):
        return {"test": {"sum": float(sum(run.part(f"number {i}", lambda i=i: i) for i in prepared))}}

    def page(self, folder, metrics):
        folder.write_text("report.html", "<p>counted</p>")
        return folder / "report.html"

    def summary(self, metrics):
        return ["sum"], [[str(metrics["test"]["sum"])]]

sys.modules["counting"] = sys.modules["__main__"]
found = (*domains.domains(), Domain("counting", "coset.runs", kinds={"count": "counting:CountRecipe"}))
import coset.runs.recipes
coset.runs.recipes.domains = lambda: found
metrics = execute(check({"kind": "count", "numbers": [1, 2, 3]}, "mine"), Path(sys.argv[1]), quiet=True)
assert metrics["test"]["sum"] == 6
print("ran", sorted(metrics["test"]))
"""

LORA_MODEL = """
from coset.weights.lora.models.base import LolModel, invariance
from coset.weights.lora.models.registry import lora_model

class Norms(LolModel):
    def __init__(self, layers, outputs):
        super().__init__()
        self.head = torch.nn.Linear(layers, outputs)

    def precompute(self, factors):
        return torch.cat([(u @ v.mT).square().sum((-2, -1)) for u, v in factors], 1)

    def predict(self, prepared):
        return self.head(prepared)

    def symmetry(self):
        return invariance(10.0)

@lora_model("norms", any_rank=True)
def norms(setting):
    return Norms(len(setting.layout.names), setting.outputs)

data = {"name": "digits", "adapters": 40}
training = {"task": "classification", "targets": ["trained_on_*"], "epochs": 1}
recipe = check({"kind": "lora", "data": data, "training": training, "models": ["norms", "svd"]}, "mine")
reports = recipe.verify()
assert len(reports) >= 2
assert all(report.passed for report in reports)
metrics = execute(recipe, Path(sys.argv[1]), quiet=True)
assert metrics["models"]["norms"]["change under GL(r)"] < 1e-4
assert "norms" in Path(recipe.report(Path(sys.argv[1]))).read_text()
print("ran", sorted(metrics["models"]))
"""

MERGE_METHOD = """
import json
from safetensors.torch import load_file, save_file
from coset.weights.merging import merge_file
from coset.weights.merging.merge_options import load
from coset.weights.merging.methods import merge_method
from coset.weights.merging.teachers import Merged, Teacher, in_same_basis

def line_mix(models, t=0.5):
    return lambda name: (1 - t) * models[0][name].float() + t * models[1][name].float()

@merge_method("line", models=2, mix=line_mix, t=(0.0, 1.0))
def line(teachers: list[Teacher], t: float = 0.5) -> Merged:
    return in_same_basis(teachers, lambda _, states: {n: (1 - t) * p + t * states[1][n] for n, p in states[0].items()})

tasks = [{"data": "digits", "classes": [0, 1]}, {"data": "digits", "classes": [2, 3]}]
values = {"tasks": tasks, "network": {"name": "mlp", "sizes": [8]}, "teachers": {"steps": 20, "cache": None}}
values |= {"samples": [10], "held_out": 10, "seeds": 1, "methods": ["originals", "line"]}
metrics = execute(check({"kind": "merging", **values}, "mine"), Path(sys.argv[1]), quiet=True)
assert metrics["methods"]["line"]["10"]["per_task"] > 0

folder = Path(sys.argv[1]).parent
for number in range(2):
    (folder / f"m{number}").mkdir()
    (folder / f"m{number}" / "config.json").write_text(json.dumps({"model_type": "mlp", "hidden_act": "relu"}))
    layers = {f"{i}.{part}": torch.full(shape, 4.0 * number) for i in (0, 2) for part, shape in
              (("weight", (2, 2)), ("bias", (2,)))}
    save_file(layers, folder / f"m{number}" / "model.safetensors")
file = folder / "merge.yaml"
file.write_text("{merge_method: line, models: [{model: m0}, {model: m1}], parameters: {t: 0.25}, output: out}")
merge_file.run(load(file))
assert load_file(folder / "out" / "model.safetensors")["0.weight"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
print("ran", sorted(metrics["methods"]))
"""


@pytest.mark.parametrize(
    "added",
    [NORM, COARSENING, LIFTING, SOURCE, LORA_MODEL, MERGE_METHOD, KIND],
    ids=["norm", "coarsening", "lifting", "source of graphs", "LoRA model", "merge method", "kind of run"],
)
def test_what_is_registered_runs(added, tmp_path):
    (tmp_path / "mine.py").write_text(dedent(HEAD + added))
    command = [sys.executable, tmp_path / "mine.py", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ran [")
