"""What CONTRIBUTING says is added by registering it: a norm, a coarsening, a lifting, a data source, a kind of run.

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
from coset.graphs.data.datasets import GraphTable
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


@pytest.mark.parametrize(
    "added",
    [NORM, COARSENING, LIFTING, SOURCE, KIND],
    ids=["norm", "coarsening", "lifting", "source of graphs", "kind of run"],
)
def test_what_is_registered_runs(added, tmp_path):
    (tmp_path / "mine.py").write_text(dedent(HEAD + added))
    command = [sys.executable, tmp_path / "mine.py", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ran [")
