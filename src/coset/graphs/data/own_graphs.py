"""``data.name=files``: one's own graphs with what is to be learned of them, a row a graph, a node or an edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.options import listed_names
from coset.core.outside import check_column, row_named
from coset.graphs.data.columns import Columns, blank_columns, check_words, encoded, features, learned_columns
from coset.graphs.data.graph_files import (
    GRAPH,
    NODE,
    SOURCE,
    TARGET,
    GraphTables,
    labelled,
    named_pairs,
    numbered,
    read_graph_tables,
    table_beside,
)
from coset.graphs.data.graph_table import NO_EDGES, GraphTable, Level, counted, not_used
from coset.graphs.data.links import edges_once, open_pairs, with_links
from coset.graphs.data.pyg_files import read_pyg_file
from coset.graphs.data.sources import GRAPH_DATA, THERE
from coset.graphs.data.split_files import Split, SplitFiles, column_values, split_rows
from coset.graphs.data.splits import Splits
from coset.graphs.data.targets import as_targets, target_columns
from coset.graphs.data.validation import validate_graph

MOST_WORDS = 1000  # of a column of features


@GRAPH_DATA.add
class GraphFiles(SplitFiles):
    """One's own graphs: tables, graph6, GraphML, node-link JSON, or a list of PyG graphs."""

    name: Literal["files"] = "files"
    path: str = Field(
        description="folder with edges.csv (nodes.csv, graphs.csv), or a file: .g6, .graphml, .json, .pt",
        json_schema_extra=THERE,
    )
    target: list[str] = Field([], description="column to predict, of graphs, nodes or edges, or several: a,b")
    level: Literal["auto", "graph", "node", "edge", "link"] = Field(
        "auto", description="of what targets are; auto: where the column is; link: which nodes are joined, no column"
    )
    negatives: int = Field(1, ge=1, description="level=link: pairs without an edge for each edge held out")
    ignore: list[str] = Field([], description="columns that are no features")

    _ignored = field_validator("ignore", mode="before")(listed_names)

    def load(self, seed: int, progress: bool) -> GraphTable:
        split = self.split_for(seed)
        if self.level == "link" and self.target:
            raise CosetError(f"data.level=link learns which nodes are joined; leave out data.target={self.target[0]}")
        if self.path.endswith(".pt"):
            return self._from_pyg(split)
        tables = read_graph_tables(Path(self.path), None if self.labels is None else Path(self.labels))
        if not self.target and self.level != "link":
            raise CosetError(f"{self.path}: say what to learn, data.target=COLUMN; {columns_of(tables)}")
        return graphs_of(
            tables, self.target, self.level, self.ignore, split, negatives=self.negatives, words=self._words
        )

    def to_predict(self, path: Path, described: GraphTable) -> GraphTable:
        """Graphs of another file of the same form, without targets."""
        if path.suffix == ".pt":
            table = read_pyg_file(path, described.level, asked=True)
            table = replace(table, target_names=(), splits={}, graphs=pairs_to_predict(table.graphs, described.level))
            return _like(table, described, path)
        return graphs_of(read_graph_tables(path, asked=True), (), described.level, self.ignore, None, described.columns)

    def _from_pyg(self, split: Split) -> GraphTable:
        table = read_pyg_file(Path(self.path), self.level)
        if self.target:
            labels = None if self.labels is None else Path(self.labels)
            table = with_labels(table, Path(self.path), labels, self.target, self._words)
        if not table.target_names and table.level != "link":
            raise CosetError(f"{self.path}: its graphs have no y to learn")
        if table.splits:
            return table
        if table.level == "link":
            return _links_of(table, split, self.negatives, self.path)
        if table.level in ("node", "edge") and len(table) > 1:
            parts = split_rows(len(table), None, split, None, self.path)
            return replace(table, splits=_rows_of(parts, table.graph_of_rows))
        values = table.targets.numpy()
        known = np.flatnonzero(~np.isnan(values).all(1))
        rows = split_rows(len(known), None, split, values[known, 0], self.path)
        return replace(table, splits={name: torch.from_numpy(known)[part] for name, part in rows.items()})


def with_labels(
    table: GraphTable, path: Path, labels: Path | None, targets: Sequence[str], words: bool = False
) -> GraphTable:
    """The graphs with targets of a table beside them, a row a graph, instead of their own.

    Raises:
        CosetError: There is no such table, or it does not fit.
    """
    file = labels or table_beside(path)
    if file is None:
        raise CosetError(f"data.target={','.join(targets)}: there is no table labels.csv beside {path}; name one by "
                         "data.labels, or leave the target out: graphs of a .pt file have theirs in y")  # fmt: skip
    rows, notes = labelled(pd.DataFrame({GRAPH: table.ids}), file)
    targets = target_columns(list(targets), list(rows.columns))
    for target in targets:
        check_column([str(c) for c in rows.columns], target, file)
    values, classes = column_values(rows, targets, str(file), words)
    graphs = [graph.clone() for graph in table.graphs]
    for graph, y in zip(graphs, as_targets(values), strict=True):
        graph.y = y.unsqueeze(0)
    return replace(
        table, graphs=graphs, target_names=tuple(targets), classes=classes, level="graph", splits={},
        notes=table.notes + notes,
    )  # fmt: skip


@dataclass(frozen=True)
class _Numbered:
    """Tables with nodes of a graph together, and everything counted.

    Attributes:
        tables: The same, nodes in the new order.
        of_nodes: Number of the graph of each node.
        ends: Nodes at both ends of each row of edges [2, rows], the lower number first.
        counts: Nodes of each graph.
        kept: Rows of edges, each edge once, by graph and nodes.
        same: For each row of edges the row in ``kept`` that is the same edge; -1 for loops.
    """

    tables: GraphTables
    of_nodes: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    kept: np.ndarray
    same: np.ndarray

    @property
    def of_edges(self) -> np.ndarray:
        """Number of the graph of each edge that is kept."""
        return self.of_nodes[self.ends[0, self.kept]]

    @property
    def loops(self) -> int:
        return int((self.same < 0).sum())

    def targets_of(self, level: str) -> tuple[pd.DataFrame, str, np.ndarray]:
        """The table that has rows of a level, what it is called, and the graph of each row."""
        tables = self.tables
        if level == "graph":
            return tables.graphs, tables.names[2], np.arange(len(tables.graphs))
        if level == "node":
            return tables.nodes, tables.names[0], self.of_nodes
        return tables.edges.iloc[self.kept], tables.names[1], self.of_edges


def graphs_of(
    tables: GraphTables,
    targets: Sequence[str],
    level: str = "auto",
    ignore: Sequence[str] = (),
    split: Split | None = None,
    columns: dict[str, Columns] | None = None,
    negatives: int = 1,
    words: bool = False,
) -> GraphTable:
    """Graphs of three tables, checked and encoded.

    Args:
        tables: As they were read.
        targets: Columns to predict; none for prediction, and for links.
        level: ``graph``, ``node``, ``edge``, ``link``, or ``auto``: of the table that has the columns.
        ignore: Columns that are no features.
        split: How rows are split; not at all with ``None``.
        columns: What is known of feature columns from training; learned from these rows if ``None``.
        negatives: Of links, pairs without an edge for each edge that is held out.
        words: As of :func:`coset.graphs.data.targets.target_values`.

    Raises:
        CosetError: The tables do not fit together, or a cell is wrong; the message names file, row and column.
    """
    targets = target_columns(list(targets), [*tables.graphs, *tables.nodes, *tables.edges])
    found, kind = _numbered(tables), _level(tables, targets, level)
    tables = found.tables
    values, classes = _targets(found, kind, targets, words)
    splits = {} if split is None else _splits(found, kind, values, split)
    notes = tables.notes + ((f"left out {counted(found.loops, 'edge')} from a node to itself",) if found.loops else ())
    if columns is None:
        notes += () if len(tables.edges) else (NO_EDGES,)  # a table of edges that was cut off looks like that, too
        skipped = {*targets, *ignore}
        if split is not None and split.kind in ("column", "time"):
            skipped.add(split.column)
        columns, more = _learned(found, skipped, *_seen_in_training(splits, kind, found))
        notes += more + _of_no_use(tables, skipped)
    graphs = _graphs(found, *(encoded(*part) for part in _feature_tables(tables, columns)))
    if kind == "edge":
        graphs = [_with_edges_asked(graph) for graph in graphs]
    if targets:
        counts = np.bincount(found.targets_of(kind)[2], minlength=len(graphs)).tolist()
        for graph, y in zip(graphs, as_targets(values).split(counts), strict=True):
            graph.y = y.clone()
    names: tuple[str, ...] = tuple(targets)
    if kind == "link" and split is not None:
        (graphs, splits), names = with_links(graphs, splits, negatives, split.seed), (LINK,)
    elif kind == "link":
        graphs = pairs_to_predict(graphs, kind, tables)
    node_features, edge_features = (features(columns[key]) for key in ("nodes", "edges"))
    return GraphTable(
        graphs, names, splits, tables.place.name, node_features, edge_features, notes, classes, kind, columns
    )


def _numbered(tables: GraphTables) -> _Numbered:
    of_nodes, ends = numbered(tables)
    order = np.argsort(of_nodes, kind="stable")
    new = np.empty_like(order)
    new[order] = np.arange(len(order))
    counts = np.bincount(of_nodes, minlength=len(tables.graphs))
    if (counts == 0).any():
        graph = tables.graphs[GRAPH].iloc[int((counts == 0).argmax())]
        raise CosetError(f"{tables.names[2]}: graph {graph!r} has no node in {tables.names[0]}")
    ends = np.sort(new[ends], axis=0)
    kept, same = _simple_edges(ends, len(of_nodes))
    return _Numbered(replace(tables, nodes=tables.nodes.iloc[order]), of_nodes[order], ends, counts, kept, same)


def columns_of(tables: GraphTables) -> str:
    """Columns of the three tables, in a sentence."""
    of = {"graphs": tables.graphs, "nodes": tables.nodes, "edges": tables.edges}
    keys = (GRAPH, NODE, SOURCE, TARGET)
    listed = {key: [str(c) for c in frame.columns if c not in keys] for key, frame in of.items()}
    return "; ".join(f"columns of {key}: {', '.join(names) or 'none'}" for key, names in listed.items())


def _level(tables: GraphTables, targets: Sequence[str], level: str) -> Level:
    """The level that was asked for, or that of the table that has the targets."""
    held: dict[Level, tuple[pd.DataFrame, str]] = {
        "graph": (tables.graphs, tables.names[2]),
        "node": (tables.nodes, tables.names[0]),
        "edge": (tables.edges, tables.names[1]),
    }
    if level == "link":
        return "link"
    chosen = next((key for key, (frame, _) in held.items() if all(t in frame for t in targets)), None)
    chosen = next((key for key in held if key == level), chosen)
    if chosen is None:
        missing = next((t for t in targets if t not in tables.graphs), targets[0])
        raise CosetError(f"{tables.place} has no column {missing!r} to learn; {columns_of(tables)}")
    frame, name = held[chosen]
    for target in targets:
        check_column([str(c) for c in frame.columns], target, Path(name))
    return chosen


def _targets(found: _Numbered, level: Level, targets: Sequence[str], words: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    rows, name, _ = found.targets_of(level)
    if level == "link":
        return np.ones((len(rows), 1)), ()
    if not targets:
        return np.empty((len(rows), 0)), ()
    if level == "edge":
        for target in targets:
            _check_doubles(found, found.tables.edges[target].fillna("").to_numpy()[:, None], f"{target!r} differs")
    return column_values(rows, targets, name, words)


def _splits(found: _Numbered, level: Level, values: np.ndarray, split: Split) -> Splits:
    """Rows of targets by split: of one graph its nodes or edges, of several graphs whole graphs; of links edges."""
    (rows, name, of_rows), graphs = found.targets_of(level), found.tables.graphs
    by_row = (split.kind in ("column", "time") and split.column in rows) or level in ("graph", "link")
    if len(graphs) > 1 and not by_row:
        parts = split_rows(len(graphs), graphs, split, None, found.tables.names[2])
        return _rows_of(parts, torch.from_numpy(of_rows))
    unknown = np.isnan(values).all(1)
    if level == "graph" and unknown.any():
        place = row_named(rows.index[int(unknown.argmax())])
        raise CosetError(f"{name}, {place}: the target is missing; leave out such graphs")
    known = np.flatnonzero(~unknown)
    labels = None if level == "link" else values[known, 0]
    parts = split_rows(len(known), rows.iloc[known], split, labels, name)
    return {key: torch.from_numpy(known)[part] for key, part in parts.items()}


def _rows_of(parts: dict[str, Tensor], graph_of: Tensor) -> dict[str, Tensor]:
    """Rows of splits that hold whole graphs, given the graph of each row."""
    return {name: torch.isin(graph_of, part).nonzero().squeeze(1) for name, part in parts.items()}


def _seen_in_training(splits: Splits, level: Level, found: _Numbered) -> tuple[np.ndarray, np.ndarray]:
    """Which nodes and which rows of edges are: all of a graph that is learned from; of links the edges themselves."""
    if not splits:
        return np.ones(len(found.of_nodes), dtype=bool), np.ones(found.ends.shape[1], dtype=bool)
    rows = splits["train"].numpy()
    nodes = np.isin(found.of_nodes, found.targets_of(level)[2][rows])
    edges = np.isin(found.same, rows) if level == "link" else nodes[found.ends].all(0)
    return nodes, edges


def _learned(
    found: _Numbered, skipped: set[str], nodes: np.ndarray, edges: np.ndarray
) -> tuple[dict[str, Columns], tuple[str, ...]]:
    """What is known of the feature columns: all that say neither what a row is of nor what is to be learned; and notes
    on those without any value, which are left out."""
    tables = found.tables
    keys = {"nodes": (GRAPH, NODE), "edges": (GRAPH, SOURCE, TARGET)}
    rows = {"nodes": nodes, "edges": edges}
    columns, notes = dict[str, Columns](), list[str]()
    for key, table, name in (("nodes", tables.nodes, tables.names[0]), ("edges", tables.edges, tables.names[1])):
        chosen = [str(column) for column in table.columns if column not in keys[key] and column not in skipped]
        if blank := blank_columns(table, chosen):
            notes.append(f"left out {counted(len(blank), 'column')} of {key} without any value: {', '.join(blank)}")
        learned = [column for column in chosen if column not in blank]
        columns[key] = learned_columns(table, learned, rows[key], name)
        check_words(columns[key], MOST_WORDS, name)
    return columns, tuple(notes)


def _of_no_use(tables: GraphTables, skipped: set[str]) -> tuple[str, ...]:
    """A note on columns of graphs that look like features: only those of nodes and edges are."""
    unread = [
        str(name)
        for name, cells in tables.graphs.items()
        if name != GRAPH and name not in skipped and cells.nunique(dropna=False) > 1
    ]
    file = Path(tables.names[2]).name
    return (f"{file}: {not_used(unread)}; features are columns of nodes and edges",) if unread else ()


def _feature_tables(
    tables: GraphTables, columns: dict[str, Columns]
) -> tuple[tuple[pd.DataFrame, Columns, str], tuple[pd.DataFrame, Columns, str]]:
    return (tables.nodes, columns["nodes"], tables.names[0]), (tables.edges, columns["edges"], tables.names[1])


def _graphs(found: _Numbered, x: Tensor | None, attributes: Tensor | None) -> list[Data]:
    """One ``Data`` a graph, every edge in both directions, once.

    Raises:
        CosetError: An edge is there twice with different features.
    """
    tables, counts, kept = found.tables, found.counts, found.kept
    if attributes is not None:
        _check_doubles(found, attributes.numpy(), "with different features")
    low, high = found.ends[:, kept]
    starts = np.concatenate([[0], np.cumsum(counts)])
    edge_starts = np.concatenate([[0], np.cumsum(np.bincount(found.of_edges, minlength=len(counts)))])
    graphs, names = [], tables.nodes[NODE].to_numpy()
    for at, name in enumerate(tables.graphs[GRAPH]):
        part = slice(int(edge_starts[at]), int(edge_starts[at + 1]))
        of_graph = slice(int(starts[at]), int(starts[at + 1]))
        pair = torch.from_numpy(np.stack([low[part], high[part]]) - starts[at])
        data = Data(edge_index=torch.cat([pair, pair.flip(0)], 1), num_nodes=int(counts[at]), id=str(name))
        data.node_id = names[of_graph].tolist()
        if x is not None:
            data.x = x[of_graph]
        if attributes is not None:
            data.edge_attr = attributes[torch.from_numpy(kept[part])].repeat(2, 1)
        graphs.append(validate_graph(data))
    return graphs


def _simple_edges(ends: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of edges, each edge once, by graph and nodes; and which of these each row is, -1 for loops.

    Args:
        ends: Both nodes of each row, the lower first.
        nodes: How many there are.
    """
    rows = np.flatnonzero(ends[0] != ends[1])
    codes = ends[0, rows] * nodes + ends[1, rows]
    order = np.argsort(codes, kind="stable")
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = codes[order][1:] != codes[order][:-1]
    same = np.full(ends.shape[1], -1)
    same[rows[order]] = np.cumsum(fresh) - 1
    return rows[order[fresh]], same


def _check_doubles(found: _Numbered, values: np.ndarray, what: str) -> None:
    """Raise a CosetError if an edge is there twice with different rows of values."""
    proper = found.same >= 0
    wrong = np.zeros(len(proper), dtype=bool)
    wrong[proper] = (values[proper] != values[found.kept[found.same[proper]]]).any(1)
    if wrong.any():
        place = row_named(found.tables.edges.index[int(wrong.argmax())])
        raise CosetError(f"{found.tables.names[1]}, {place}: the edge is there twice, {what}")


LINK = "link"
"""What the target of links is called: whether two nodes are joined."""
MOST_PAIRS = 250_000  # of a graph, that are predicted for when no pairs are named


def _with_edges_asked(graph: Data) -> Data:
    """The graph with each of its edges once as what is predicted for."""
    graph = graph.clone()
    graph.edge_label_index = edges_once(graph)
    if "edge_attr" in graph:  # sorted by the two nodes, as edges are in a graph that was checked
        graph.edge_label_attr = graph.edge_attr[graph.edge_index[0] < graph.edge_index[1]]
    return graph


def _links_of(table: GraphTable, split: Split, negatives: int, what: str) -> GraphTable:
    edges = sum(graph.edge_index.size(1) // 2 for graph in table.graphs)
    graphs, splits = with_links(table.graphs, split_rows(edges, None, split, None, what), negatives, split.seed)
    return replace(table, graphs=graphs, splits=splits, target_names=(LINK,))


def pairs_to_predict(graphs: Sequence[Data], level: str, tables: GraphTables | None = None) -> list[Data]:
    """Graphs with what is asked of them: of links the pairs of a table, or those that a graph names, or all without an
    edge; of other levels as they are.

    Raises:
        CosetError: The table names a node that is not there, or there are too many pairs without an edge.
    """
    if level != "link":
        return list(graphs)
    named = None if tables is None or tables.pairs is None else named_pairs(tables, tables.pairs)
    asked = []
    for number, graph in enumerate(graphs):
        graph = graph.clone()
        if named is not None:
            graph.edge_label_index = torch.from_numpy(named[number])
        elif "edge_label_index" not in graph:
            graph.edge_label_index = open_pairs(graph, MOST_PAIRS)
        asked.append(graph)
    return asked


def _columns_in(key: str, width: int | None) -> str:
    return f"there is no {key}" if width is None else f"{key} has {width} columns"


def _like(table: GraphTable, described: GraphTable, path: Path) -> GraphTable:
    """The table, if its graphs have the features of training.

    Raises:
        CosetError: They have others.
    """
    for key, known in (("x", described.node_features), ("edge_attr", described.edge_features)):
        sizes = known if isinstance(known, list) else None
        for graph in table.graphs:
            width = graph[key].size(1) if key in graph else None
            wanted = known if sizes is None else len(sizes)
            what = f"{path}, graph {graph.id}"
            if width != wanted:
                raise CosetError(f"{what}: {_columns_in(key, width)}; training had {wanted or 'none'}")
            if width and graph[key].is_floating_point() != (sizes is None):
                kinds = ("numbers of categories (integers)", "real numbers")
                raise CosetError(f"{what}: {key} holds {kinds[sizes is not None]}; training had {kinds[sizes is None]}")
            if sizes is not None:
                node_sizes, edge_sizes = (sizes, None) if key == "x" else (None, sizes)
                validate_graph(graph, node_sizes, edge_sizes, name=what)
    return table
