"""``coset bench norms``: what a normalisation lets through, without any training.

Two tables, from the theory of GRANOLA (Eliasof et al., NeurIPS 2024):

- *degree*: constant features, one sum over the neighbours, the normalisation. On regular graphs of degrees 2 and 5, is
  the degree still there? Statistics over a graph turn every regular graph into the same features.
- *triangles*: random 3-regular graphs on 12 nodes, constant features, one random GIN layer with the normalisation;
  features averaged over many draws of the noise; share of the variance of triangles at a node that ridge regression
  explains on unseen graphs. No deterministic normalisation can get above 0.
"""

from __future__ import annotations

import json as json_module
import sys
from functools import cache
from typing import Any, get_args

import networkx
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch_geometric.data import Batch

from coset.errors import CosetError
from coset.graphs.collections import graph_from_adjacency
from coset.graphs.counting import node_counts
from coset.graphs.norms import NormName, make_norm
from coset.nn import MLP
from coset.relations import IndexSet, Relation, propagate

GRAPHS, TRAIN, NODES, WIDTH, RIDGE = 150, 100, 12, 32, 1e-3


def degree_survives(name: str) -> bool:
    """Whether constant features, summed over neighbours and normalised, tell a 6-cycle from the complete graph on 6.

    GRANOLA runs without noise and with gamma read off the features, as a trained one may choose.
    """
    outputs = []
    for graph in (networkx.cycle_graph(6), networkx.complete_graph(6)):
        data = graph_from_adjacency(networkx.to_numpy_array(graph) > 0)
        nodes = IndexSet(torch.tensor([6]))
        relation = Relation(nodes, nodes, data.edge_index)
        weights = torch.tensor([[1.0, 2.0, 3.0, 6.0]], dtype=torch.float64)  # rank one, positive, without bias
        x = propagate(weights.expand(6, 4).contiguous(), relation)
        torch.manual_seed(0)
        norm = make_norm("granola-no-rnf" if name == "granola" else name, 4, **_paper(name)).double().eval()
        with torch.no_grad():
            outputs.append(norm(x, relation, nodes.batch))
    return bool((outputs[0] - outputs[1]).abs().max() > 1e-3)


def _paper(name: str) -> dict[str, Any]:
    return {"init": "paper"} if name.startswith("granola") else {}


def explained_triangles(name: str, draws: int = 512, depth: int = 2, seed: int = 0) -> float:
    """Share of the variance of triangle counts at nodes of unseen graphs (R squared) that the features explain.

    Args:
        name: The normalisation.
        draws: Passes with other noise that the features are the mean of.
        depth: Layers of GRANOLA's inner network.
        seed: Of weights and noise.
    """
    batch, targets = _regular_graphs()
    features = random_features(name, batch, draws, depth, seed)
    features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    train = slice(0, TRAIN * NODES)
    test = slice(TRAIN * NODES, None)
    a, b = features[train], targets[train]
    weight = torch.linalg.solve(a.t() @ a + RIDGE * torch.eye(a.size(1), dtype=a.dtype), a.t() @ b)
    error = (features[test] @ weight - targets[test]).square().sum()
    return float(1 - error / (targets[test] - targets[test].mean()).square().sum())


@torch.no_grad()
def random_features(name: str, batch: Batch, draws: int, depth: int, seed: int) -> Float[Tensor, "nodes width"]:
    """One random GIN layer on constant features, the normalisation, ReLU; the mean over draws, standardised."""
    torch.manual_seed(seed)
    nodes = IndexSet(batch.ptr.diff())
    relation = Relation(nodes, nodes, batch.edge_index)
    x = torch.ones(nodes.total, WIDTH, dtype=torch.float64)
    mlp = MLP(WIDTH, WIDTH, norm=nn.Identity).double()
    options: dict[str, Any] = (
        {"depth": depth, "eval_seed": None, "init": "paper"} if name == "granola" else _paper(name)
    )
    norm = make_norm(name, WIDTH, **options).double().eval()
    x = mlp(x + propagate(x, relation))
    total = torch.zeros_like(x)
    draws = draws if name == "granola" else 1
    for _ in range(draws):
        total += norm(x, relation, nodes.batch).relu()
    total /= draws
    return (total - total.mean(0)) / (total.std(0) + 1e-9)


@cache
def _regular_graphs() -> tuple[Batch, Float[Tensor, " nodes"]]:
    """The graphs, and the triangles at each of their nodes."""
    made = (networkx.random_regular_graph(3, NODES, seed=seed) for seed in range(GRAPHS))
    graphs = [graph_from_adjacency(networkx.to_numpy_array(g, nodelist=range(NODES)) > 0) for g in made]
    return Batch.from_data_list(graphs), torch.cat([node_counts(graph, "cycle3") for graph in graphs]).double()


def main(json: bool = False, norms: str = "all", draws: int = 512, depth: int = 2) -> None:
    """Print both tables.

    Args:
        json: Print JSON instead.
        norms: Names (comma-separated), or ``all``.
        draws: Passes that GRANOLA's features are the mean of.
        depth: Layers of GRANOLA's inner network.

    Raises:
        CosetError: A name is unknown, or a number below 1.
    """
    known = get_args(NormName)
    chosen = list(known) if norms == "all" else [name.strip() for name in norms.split(",")]
    for name in chosen:
        if name not in known:
            raise CosetError(f"no norm {name!r}: choose from {', '.join(known)}, or all")
    if draws < 1 or depth < 1:
        raise CosetError(f"draws={draws}, depth={depth}: at least 1 each")
    rows = [
        {"norm": name, "degree": degree_survives(name), "triangles": round(explained_triangles(name, draws, depth), 3)}
        for name in track(chosen, "norms", console=Console(file=sys.stderr), transient=True)
    ]
    if json:
        print(json_module.dumps({"draws": draws, "depth": depth, "norms": rows}, indent=2))
        return
    table = Table("norm", "degree of regular graphs", "triangles explained", box=None)
    for row in rows:
        table.add_row(str(row["norm"]), "kept" if row["degree"] else "erased", f"{row['triangles']:.3f}")
    Console().print(table)
