"""What a file of graphs is taken for, before anything is learned of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from coset.core.identity import digest
from coset.graphs.data import datasets
from coset.graphs.data.graph_files import read_graph_tables
from coset.graphs.data.graph_table import NO_EDGES, GraphTable, plural
from coset.graphs.data.molecule_files import is_table_of_molecules
from coset.graphs.data.molecules import ATOM_SIZES, canonical_smiles, parse_smiles
from coset.graphs.data.own_graphs import GraphFiles, columns_of, graphs_of
from coset.graphs.data.sources import GRAPH_DATA, GraphData

MANY = 5  # examples of a kind in a warning
FEW = 10  # different whole numbers that look like classes


def described_file(
    path: Path, target: str | None = None, smiles: str = "smiles"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Facts about a file of graphs, and what looks wrong with it.

    Args:
        path: A CSV of SMILES, what :class:`~coset.graphs.data.own_graphs.GraphFiles` reads, or a folder that another
            source knows.
        target: Column to learn, or several.
        smiles: Column of SMILES.

    Raises:
        CosetError: The file cannot be read at all; the message names the row.
    """
    columns = ""
    if path.is_file() and is_table_of_molecules(path):
        table = datasets.csv(path, smiles, target or (), skip_bad_rows=True, drop_missing=True)
        form = "molecules"
    elif (other := _of_other_sources(path, target)) is not None:
        table, form = other, "complexes"
    elif not target and not path.name.endswith(".pt"):
        tables = read_graph_tables(path)
        table, form, columns = graphs_of(tables, (), "graph"), "graphs", columns_of(tables)
    else:
        given: dict[str, Any] = {"name": "files", "path": str(path), "target": target or []}
        table, form = GraphFiles.model_validate(given).load(0, False), "graphs"
    facts = _facts(table, form) | ({"what --target may name": columns} if columns else {})
    return facts, table.notes + tuple(_warnings(table))


def _facts(table: GraphTable, form: str) -> dict[str, Any]:
    nodes = [int(graph.num_nodes or 0) for graph in table.graphs]
    if form == "complexes":
        cells = torch.cat([graph.num_cells for graph in table.graphs])
        named = zip(("vertices", "edges", "faces"), cells.t().tolist(), strict=True)
        facts: dict[str, Any] = {form: len(table), **{name: _sizes(counts) for name, counts in named}}
    else:
        edges = [graph.edge_index.size(1) // 2 for graph in table.graphs]
        facts = {
            form: len(table),
            "nodes": _sizes(nodes),
            "edges": _sizes(edges),
            "features of nodes": _features(table.node_features, table.columns.get("nodes")),
            "features of edges": _features(table.edge_features, table.columns.get("edges")),
        }
    for column, name in enumerate(table.target_names):
        facts[f"target {name} (of {plural(table.level)})"] = _target(table, column)
    if table.target_names:
        shares = {name: len(rows) for name, rows in table.splits.items()}
        facts["a split"] = ", ".join(f"{count} {name}" for name, count in shares.items())
    return facts


def _sizes(counts: Sequence[int]) -> str:
    return f"{min(counts)} to {max(counts)}, {sum(counts):,} in all"


def _of_other_sources(path: Path, target: str | None) -> GraphTable | None:
    """What a source that knows the form of a file or folder reads of it."""
    kinds = (kind for _, kind in GRAPH_DATA.items() if issubclass(kind, GraphData))
    found = (kind.described(path, target) for kind in kinds)
    return next((table for table in found if table is not None), None)


def _features(features: list[int] | int | None, columns: dict[str, Any] | None) -> str:
    if columns:
        kinds = [f"{name} ({len(known['values'])} words)" if "values" in known else f"{name} (number)"
                 for name, known in columns.items()]  # fmt: skip
        return ", ".join(kinds)
    if features is None:
        return "none"
    return f"{features} numbers" if isinstance(features, int) else f"{len(features)} categories"


def _target(table: GraphTable, column: int) -> str:
    values = table.targets[:, column]
    known = values[~values.isnan()]
    missing = f", {len(values) - len(known)} missing" if len(known) < len(values) else ""
    if table.classes:
        counts = torch.bincount(known.long(), minlength=len(table.classes)).tolist()
        classes = ", ".join(f"{name} {count}" for name, count in zip(table.classes, counts, strict=True))
        return f"classes: {classes}{missing} (training.task=multiclass)"
    distinct = known.unique().tolist()
    if set(distinct) <= {0.0, 1.0}:
        return f"labels 0 and 1: {int((known == 0).sum())} and {int((known == 1).sum())}{missing} (classification)"
    hint = "; training.task=multiclass if these are classes" if len(distinct) <= FEW and _whole(distinct) else ""
    return f"{float(known.min()):.4g} to {float(known.max()):.4g}, mean {float(known.mean()):.4g}{missing}{hint}"


def _whole(values: Sequence[float]) -> bool:
    return all(value == int(value) for value in values)


def _warnings(table: GraphTable) -> list[str]:
    found = []
    for column, name in enumerate(table.target_names):
        values = table.targets[:, column]
        known = values[~values.isnan()].double()
        if len(known) and float(known.max()) == float(known.min()):
            found.append(f"target {name} is the same everywhere ({float(known[0]):g}): there is nothing to learn")
        elif not table.classes and len(known) > 8:
            deviation = (known - known.median()).abs() / (known.std() + 1e-30)
            far = int((deviation > 8).sum())
            if far:
                rows = values.nan_to_num().double().sub(known.median()).abs().topk(min(far, MANY)).values
                found.append(f"target {name}: {far} values lie more than 8 deviations from the median, up to "
                             f"{float(rows[0]):.4g} away")  # fmt: skip
    contents = [_content(graph) for graph in table.graphs]
    repeated = len(contents) - len(set(contents))
    if repeated:
        copies = "1 graph is an exact copy of another"
        copies = copies if repeated == 1 else f"{repeated} graphs are exact copies of others"
        found.append(copies + _across(table, contents))
    edges = [graph.edge_index.size(1) for graph in table.graphs if graph.edge_index is not None]
    if edges and not any(edges) and NO_EDGES not in table.notes:
        found.append(NO_EDGES)
    return found


def _content(graph: Data) -> str:
    """What a copy of a graph shares with it: its SMILES in a molecule, else all features and edges, not the target."""
    if graph.get("smiles"):
        mol = parse_smiles(graph.smiles)
        if graph.x.size(1) > len(ATOM_SIZES):  # of several columns, whose order matters: atoms are marked by theirs
            for atom, column in zip(mol.GetAtoms(), graph.x[:, -1].tolist(), strict=True):
                atom.SetAtomMapNum(column + 1)
        return canonical_smiles(mol)
    keys = ("x", "x_1", "x_2", "edge_index", "edge_attr", "incidence_0_1", "incidence_0_2")
    parts = [graph[key] for key in keys if key in graph and graph[key] is not None]
    return digest([int(graph.num_nodes or 0), *parts])


def _across(table: GraphTable, contents: Sequence[str]) -> str:
    """How many graphs of other splits are copies of one to train on."""
    if table.level != "graph" or "train" not in table.splits:
        return ""
    rows = list(zip(contents, table.split_of(), strict=True))
    seen = {content for content, name in rows if name == "train"}
    held = sum(content in seen for content, name in rows if name in ("val", "test"))
    verb = "is a copy" if held == 1 else "are copies"
    return f"; in a random split {held} of val and test {verb} of graphs in train" if held else ""
