"""Graphs, what is to be predicted of them, and which are for what: the table that every source gives and runs read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.core.identity import digest
from coset.graphs.data.columns import Columns
from coset.graphs.data.links import asked_of, hidden_in
from coset.graphs.data.splits import NAMES, Splits

Level = Literal["graph", "node", "edge", "link", "cell0", "cell1", "cell2"]
"""Of what rows of targets are; ``cell1``: cells of rank 1 of a complex."""
NO_EDGES = "no graph has an edge"


@dataclass
class GraphTable:
    """Graphs, what is to be predicted of them, and which are for what.

    Attributes:
        graphs: One ``Data`` a graph, each with ``id`` and, if there are targets, ``y`` float [1, T] (NaN where
            missing; float64 where float32 cannot tell targets apart).
        target_names: The T names.
        splits: Rows of ``train``, ``val``, ``test``; a split may be absent, and is empty without training (prediction).
        name: What the data set is called.
        node_features: Table sizes of categorical node columns, number of real ones, or ``None`` for bare graphs.
        edge_features: The same for edges; ``None`` if there are no edge features.
        face_features: The same for cells of rank 2 of complexes.
        notes: What a reader of the results should know: rows skipped, files used.
        classes: Names of the classes, where the one target is the number of a class.
        level: Of what targets are: ``graph``, with y [1, T]; ``node``, with y [n, T]; ``edge``, with a row of y for
            each column of ``edge_label_index`` [2, rows]; ``link``, as ``edge``, of pairs of nodes that are joined or
            not (:mod:`coset.graphs.data.links`); ``cell1``, with a row of y for each cell of rank 1. Splits are of
            rows, of all graphs, numbered in their order.
        columns: What is known of feature columns of tables of ``nodes`` and ``edges``, by which new ones are read.
    """

    graphs: list[Data]
    target_names: tuple[str, ...] = ()
    splits: Splits = field(default_factory=dict)
    name: str = "graphs"
    node_features: list[int] | int | None = None
    edge_features: list[int] | int | None = None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    level: Level = "graph"
    columns: dict[str, Columns] = field(default_factory=dict)
    face_features: list[int] | int | None = None

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, row: int) -> Data:
        return self.graphs[row]

    def __iter__(self) -> Iterator[Data]:
        return iter(self.graphs)

    def __repr__(self) -> str:
        parts = "".join(f", {name}={len(rows)}" for name, rows in self.splits.items())
        return f"GraphTable({self.name}: {len(self)} graphs, {len(self.target_names)} targets{parts})"

    @property
    def ids(self) -> list[str]:
        return [data.id for data in self.graphs]

    @property
    def smiles(self) -> list[str]:
        """SMILES of each graph; empty strings where graphs are no molecules."""
        return [data.smiles if "smiles" in data else "" for data in self.graphs]

    @property
    def targets(self) -> Float[Tensor, "rows targets"]:
        """A row a graph, a node, or a pair of nodes."""
        if not self.target_names:
            return torch.empty(sum(self.rows_of_graphs), 0)
        return torch.cat([data.y for data in self.graphs]) if self.graphs else torch.empty(0, len(self.target_names))

    def subset(self, split: str) -> list[Data]:
        """The graphs of one split.

        Raises:
            CosetError: There is no such split.
        """
        if split not in self.splits:
            raise CosetError(f"{self.name} has no split {split!r}: it has {', '.join(self.splits) or 'none'}")
        if self.level == "graph":
            return [self.graphs[row] for row in self.splits[split].tolist()]
        if self.level == "link":
            chosen = [(graph, graph.edge_label_part == NAMES.index(split)) for graph in self.graphs]
            return [asked_of(graph, rows, hidden_in(graph, split)) for graph, rows in chosen if bool(rows.any())]
        wanted = torch.zeros(sum(self.rows_of_graphs), dtype=torch.bool)
        wanted[self.splits[split]] = True
        parts = zip(self.graphs, wanted.split(self.rows_of_graphs), strict=True)
        return [_with_targets_of(graph, rows) for graph, rows in parts if bool(rows.any())]

    @property
    def rows_of_graphs(self) -> list[int]:
        """How many rows of targets each graph has."""
        if self.level == "graph":
            return [1] * len(self)
        if self.level == "node":
            return [int(graph.num_nodes or 0) for graph in self.graphs]
        if self.level.startswith("cell"):
            return [int(graph.num_cells[:, int(self.level[-1])].sum()) for graph in self.graphs]
        return [graph.edge_label_index.size(1) for graph in self.graphs]

    @property
    def graph_of_rows(self) -> Int[Tensor, " rows"]:
        """Number of the graph that each row of targets is of."""
        return torch.arange(len(self)).repeat_interleave(torch.tensor(self.rows_of_graphs, dtype=torch.long))

    @property
    def outputs(self) -> int:
        """Columns that a network gives: one a target, or one a class."""
        return len(self.classes) or len(self.target_names)

    def with_classes(self) -> GraphTable:
        """The same, with the values of its one target as classes, in their order; as it is if it has classes already.

        Raises:
            CosetError: There are several targets.
        """
        if self.classes:
            return self
        if len(self.target_names) != 1:
            raise CosetError(f"{self.name} has {len(self.target_names)} targets; classes are values of one")
        known = torch.cat([graph.y[~graph.y.isnan()] for graph in self.graphs])
        values = known.unique()
        graphs = []
        for graph in self.graphs:
            graph = graph.clone()
            codes = torch.searchsorted(values, graph.y).to(graph.y)
            graph.y = torch.where(graph.y.isnan(), graph.y, codes)
            graphs.append(graph)
        return replace(self, graphs=graphs, classes=tuple(class_name(str(value)) for value in values.numpy()))

    def split_of(self) -> list[str]:
        """Name of the split of every row of targets; empty for those in none."""
        names = [""] * sum(self.rows_of_graphs)
        for name, rows in self.splits.items():
            for row in rows.tolist():
                names[row] = name
        return names

    def identity(self) -> str:
        """A hash of all that is learned from: graphs, targets, splits."""
        stored = getattr(self.graphs, "identity", None)
        graphs = [_content(data) for data in self.graphs] if stored is None else stored()
        classes = (self.classes, self.level) if self.classes or self.level != "graph" else ()
        return digest(graphs, self.target_names, dict(self.splits), *classes)

    def map(self, transform: Callable[[list[Data]], Any]) -> GraphTable:
        """The same table with other graphs, row by row: ``table.map(lambda graphs: precompute(graphs, transform))``."""
        graphs = transform(self.graphs)
        if len(graphs) != len(self):
            raise ValueError(f"the transform returned {len(graphs)} graphs for {len(self)}")
        return replace(self, graphs=graphs)


def class_name(cell: str) -> str:
    """What a class is called: a number by its shortest digits, all of them, anything else by its own text.

    Numbers that begin with zeros (007) are names, which would be others without.

    >>> [class_name(cell) for cell in ("1.0", "10000001", "2.50", "1e3", "007", "2D")]
    ['1', '10000001', '2.5', '1000', '007', '2D']
    """
    text = cell.strip()
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", text, re.IGNORECASE | re.ASCII):
        return text
    if re.match(r"[+-]?0\d", text):
        return text
    exact = Decimal(text)
    return str(int(exact)) if exact == exact.to_integral_value() else repr(float(exact))


def plural(level: str) -> str:
    """A level in a sentence: ``nodes``, ``cells of rank 1``."""
    return f"cells of rank {level[-1]}" if level.startswith("cell") else f"{level}s"


def counted(count: int, name: str, several: str | None = None) -> str:
    """So many of something, in a sentence: ``1 graph``, ``2 classes``."""
    return f"{count:,} {name if count == 1 else several or f'{name}s'}"


def not_used(names: Sequence[str], most: int = 5) -> str:
    """Columns or attributes that are read and not looked at, in a note."""
    return "not used: " + ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def node_names(graph: Data) -> list[str]:
    """Names of the nodes: those of the file they came from, else their numbers."""
    return list(graph.node_id) if "node_id" in graph else [str(node) for node in range(graph.num_nodes or 0)]


def _with_targets_of(graph: Data, rows: Tensor) -> Data:
    """The graph with the targets of some of its nodes or edges alone."""
    graph = graph.clone()
    graph.y = torch.where(rows.unsqueeze(1), graph.y, torch.nan)
    return graph


def _content(data: Data) -> dict[str, Any]:
    kept = (Tensor, str, int, float, bool)
    return {key: value for key, value in data.to_dict().items() if isinstance(value, kept)}
