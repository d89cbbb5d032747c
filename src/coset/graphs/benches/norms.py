"""``coset bench norms``: what a normalisation lets through, and what a network with it can learn.

Studies, from the theory of GRANOLA (Eliasof et al., NeurIPS 2024); ``study=untrained`` unless told otherwise:

- *untrained*, degree: constant features, one sum over the neighbours, the normalisation. On regular graphs of degrees 2
  and 5, is the degree still there? And in one batch of a path and a complete graph (degrees 1, 2 and 5) in training
  mode, after ReLU? Statistics over a graph turn every regular graph into the same features.
- *untrained*, triangles: random 3-regular graphs on 12 nodes, constant features, one random GIN layer with the
  normalisation; features averaged over many draws of the noise; share of the variance of triangles at a node that
  ridge regression explains on unseen graphs. No deterministic normalisation can get above 0.
- *separation* and *depth*: :mod:`coset.graphs.benches.norm_studies`.
- *counting* and *shift*: trained, :mod:`coset.graphs.benches.norm_training`; with ``scores=FILE.csv`` a row is written
  as each network is done, and rows that are there are not computed again.

Each study ends with the statements that theory or the paper make about it, and whether they held.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import networkx
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.core.outside import read_numbers
from coset.graphs.benches.norm_studies import depth_profile, pairs, separation
from coset.graphs.benches.norm_training import INPUT_NOISE, STUDIES, relative_error
from coset.graphs.benches.substructures import node_counts
from coset.graphs.data.collections import graph_from_adjacency
from coset.graphs.models.norms import make_norm
from coset.nn import MLP
from coset.nn.norms import NORMS
from coset.relations import IndexSet, Relation, propagate
from coset.runs.terminal import Console, Table, track

Rows = list[dict[str, Any]]
Statements = dict[str, bool]
ERASING = ("instance", "layer-node", "layer-graph", "graph", "mean", "pair")
NOISY = ("granola", "rnf-norm")
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


def degrees_stay_apart(name: str) -> bool:
    """Whether degrees 1, 2 and 5 of one batch, a path on 3 and the complete graph on 6 nodes, differ after norm and
    ReLU in training mode; GRANOLA as in :func:`degree_survives`."""
    graphs = [networkx.path_graph(3), networkx.complete_graph(6)]
    batch = Batch.from_data_list([graph_from_adjacency(networkx.to_numpy_array(graph) > 0) for graph in graphs])
    nodes = IndexSet(batch.ptr.diff())
    relation = Relation(nodes, nodes, batch.edge_index)
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0]], dtype=torch.float64).expand(9, 4).contiguous()
    torch.manual_seed(0)
    norm = make_norm("granola-no-rnf" if name == "granola" else name, 4, **_paper(name)).double().train()
    with torch.no_grad():
        out = norm(propagate(x, relation), relation, nodes.batch).relu()
    return bool(torch.pdist(out[[0, 1, 3]]).min() > 1e-3)


def _paper(name: str) -> dict[str, Any]:
    return {"init": "paper"} if name in (*NOISY, "granola-no-rnf") else {}


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
    options: dict[str, Any] = {"depth": depth, "eval_seed": None, "init": "paper"} if name in NOISY else _paper(name)
    norm = make_norm(name, WIDTH, **options).double().eval()
    x = mlp(x + propagate(x, relation))
    total = torch.zeros_like(x)
    draws = draws if name in NOISY else 1
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


def untrained(norms: list[str], draws: int, depth: int) -> tuple[Rows, Statements]:
    """Degrees and triangles; GRANOLA with fewer draws and other depths beside."""
    rows: Rows = []
    for name in _tracked(norms):
        erased = {"regular graphs": degree_survives(name), "one batch": degrees_stay_apart(name)}
        settings = [(depth, draws)]
        if name == "granola":
            settings = [(1, draws), *((2, n) for n in (16, 128, 512) if n <= draws), (depth, draws)]
        for inner, n in dict.fromkeys(settings):
            noisy = {"depth": inner, "draws": n} if name in NOISY else {}
            found = round(explained_triangles(name, n, inner), 3)
            rows.append({"norm": name, **noisy, **erased, "triangles": found})
    return rows, _said_of_untrained(rows)


def _said_of_untrained(rows: Rows) -> Statements:
    said: Statements = {}
    names = {row["norm"] for row in rows}
    if names >= set(ERASING):
        lost = {row["norm"] for row in rows if not row["regular graphs"]}
        said["regular graphs: erased by exactly " + ", ".join(ERASING)] = lost == set(ERASING)
    if "batch" in names:
        kept = any(row["one batch"] for row in rows if row["norm"] == "batch")
        said["one batch: batch statistics and ReLU merge degrees"] = not kept
    blind = [row["triangles"] for row in rows if row["norm"] not in NOISY or row["norm"] == "rnf-norm"]
    if blind:
        said["triangles: below 0.02 without noise or without message passing"] = max(blind) < 0.02
    by_depth = {d: [r["triangles"] for r in rows if r["norm"] == "granola" and r["depth"] == d] for d in (1, 2)}
    if by_depth[1]:
        said["triangles: below 0.02 at depth 1"] = max(by_depth[1]) < 0.02
    if len(by_depth[2]) > 2:
        rising = by_depth[2] == sorted(by_depth[2])
        said["triangles: above 0.6 at depth 2 and 512 draws, more with more draws"] = rising and by_depth[2][-1] > 0.6
    return said


def separation_study(norms: list[str], draws: int, depth: int) -> tuple[Rows, Statements]:
    """Pairs told apart by the law of the noise."""
    rows: Rows = []
    for label, (first, second) in pairs().items():
        for noise, inner in ((False, 2), (True, 1), (True, 2), (True, 3)):
            z = separation(first, second, noise, inner, draws)
            null = separation(first, first, noise, inner, draws)
            rows.append(
                {"pair": label, "noise": noise, "depth": inner, "z": round(z, 1), "z of one graph": round(null, 1)}
            )
    deep = [row["z"] for row in rows if row["noise"] and row["depth"] > 1]
    rest = [row["z of one graph"] for row in rows] + [row["z"] for row in rows if not row["noise"]]
    return rows, {
        "z above 6 with noise and depth of at least 2": min(deep) > 6,
        "below 4 by chance and without noise": max(rest) < 4,
    }


def depth_study(norms: list[str], draws: int, depth: int) -> tuple[Rows, Statements]:
    """Features of a random GIN, layer by layer."""
    rows = [row for name in _tracked(norms) for row in depth_profile(name)]
    by_norm = {name: [{**row, "norm": ""} for row in rows if row["norm"] == name] for name in norms}
    said = {}
    if {"granola", "layer-node"} <= set(norms):
        said["untrained GRANOLA equals layer-node"] = by_norm["granola"] == by_norm["layer-node"]
    return [{key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for row in rows], said


def trained_study(
    study: str, norms: list[str], seeds: int, epochs: int | None, scores: Path | None
) -> tuple[Rows, Statements]:
    """Errors of trained networks, a row a normalisation and seed, taken from ``scores`` where they are there."""
    there = scores is not None and scores.is_file()
    rows: Rows = [dict(row) for row in read_numbers(scores).to_dict("records")] if there else []  # type: ignore[arg-type]
    chosen: Rows = []
    for seed in range(seeds):
        for name in _tracked(norms):
            key = {"study": study, "norm": name, "seed": seed, "epochs": epochs or STUDIES[study].epochs}
            row = next((row for row in rows if key.items() <= row.items()), None)
            if row is None:
                train, test = relative_error(STUDIES[study], name, seed, epochs)
                row = key | {"train": round(train, 4), "test": round(test, 4)}
                rows.append(row)
                if scores is not None:
                    write_text(scores, pd.DataFrame(rows).to_csv(index=False))
            chosen.append(row)
    return chosen, _said_of(study, chosen)


def _said_of(study: str, rows: Rows) -> Statements:
    errors: dict[str, list[float]] = {}
    for row in rows:
        errors.setdefault(row["norm"], []).append(row["test"])
    said = {}
    if study == "counting":
        for name, found in errors.items():
            if name in (*NOISY, INPUT_NOISE):
                said[f"{name}: error at least 30 % below the variance"] = max(found) < 0.7
            else:
                said[f"{name}: error at the variance"] = all(abs(error - 1) < 0.05 for error in found)
    for name, found in errors.items() if study == "shift" else ():
        if name in ("identity", "granola"):
            said[f"{name}: error below 5 % of the variance"] = max(found) < 0.05
        elif name in ("instance", "graph", "mean", "pair"):
            said[f"{name}: error at the variance or above"] = min(found) > 0.95
    return said


def main(
    json: bool = False,
    study: str = "untrained",
    norms: str = "all",
    draws: int = 512,
    depth: int = 2,
    seeds: int = 1,
    epochs: int | None = None,
    scores: str | None = None,
) -> None:
    """Print a study.

    Args:
        json: Print JSON instead.
        study: ``untrained``, ``separation``, ``depth``, ``counting`` or ``shift``.
        norms: Names (comma-separated), or ``all``; ``rnf-pe`` (noise at the input, no normalisation) too where
            networks are trained.
        draws: Passes that GRANOLA's features are the mean of (untrained), or that are compared (separation).
        depth: Layers of GRANOLA's inner network (untrained).
        seeds: Networks and graphs of each norm (trained).
        epochs: Passes over the training graphs (trained).
        scores: CSV that rows are written to as they are done, and read from (trained).

    Raises:
        CosetError: A name is unknown, or a number below 1.
    """
    known = [*NORMS, *([INPUT_NOISE] if study in STUDIES else [])]
    chosen = known if norms == "all" else [name.strip() for name in norms.split(",")]
    for name in chosen:
        if name not in known:
            raise CosetError(f"no norm {name!r}: choose from {', '.join(known)}, or all")
    if min(draws, depth, seeds, 1 if epochs is None else epochs) < 1:
        raise CosetError(f"draws={draws}, depth={depth}, seeds={seeds}, epochs={epochs}: at least 1 each")
    random = {"untrained": untrained, "separation": separation_study, "depth": depth_study}
    if study in random:
        rows, said = random[study](chosen, draws, depth)
    elif study in STUDIES:
        rows, said = trained_study(study, chosen, seeds, epochs, None if scores is None else Path(scores))
    else:
        raise CosetError(f"no study {study!r}: choose from {', '.join([*random, *STUDIES])}")
    if json:
        print(json_module.dumps({"study": study, "draws": draws, "rows": rows, "statements": said}, indent=2))
        return
    _print(rows, said)


def _print(rows: Rows, said: Statements) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    console = Console()
    console.print(table)
    for statement, holds in said.items():
        console.print(f"{'holds ' if holds else 'FAILS '} {statement}", highlight=False)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _tracked(norms: list[str]) -> Iterable[str]:
    return track(norms, "norms")
