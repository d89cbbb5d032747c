"""Graph classification of the TU collection (Morris et al. 2020), in the text form of "How powerful are GNNs?".

A file starts with the number of graphs; a graph is a line ``nodes label`` and a line ``tag degree neighbours...`` for
each of its nodes. Node features are the tags; where all tags are equal (social networks) the degree, as in that paper.

Sets are small, so figures come from cross-validation: the rows are dealt out into folds with equal shares of each
class; fold k is tested on, fold k + 1 chooses the epoch, the rest is trained on.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch_geometric.data import Data

from coset.core.data_files import data_file
from coset.core.errors import CosetError, check_choice
from coset.core.outside import lines_of
from coset.graphs.data.graph_table import GraphTable, counted
from coset.graphs.data.splits import fold_split
from coset.graphs.data.validation import validate_graph

FILES = {
    "mutag": "MUTAG", "ptc": "PTC", "nci1": "NCI1", "proteins": "PROTEINS", "imdb-b": "IMDBBINARY",
    "enzymes": "ENZYMES", "imdb-m": "IMDBMULTI",
}  # fmt: skip
"""Data sets and their files; the last two have six and three classes (``training.task=multiclass``)."""


def tu_dataset(
    name: str, path: str | Path | None = None, folds: int = 10, fold: int = 0, split_seed: int = 0
) -> GraphTable:
    """A data set, split for one round of cross-validation; with more than two classes these have names.

    Args:
        name: One of :data:`FILES`.
        path: The file, or the folder that holds it.
        folds: Number of folds.
        fold: The one to test on.
        split_seed: Of the shuffle before the rows are dealt out; one seed means the same folds in every round.

    Raises:
        CosetError: The file is missing or malformed; the message names the line.
        ValueError: There is no such data set or fold.
    """
    check_choice("name", name, tuple(FILES))
    graphs, tags = read_tu(data_file(f"graphs/{FILES[name]}.txt.gz", path))
    if tags == 1:
        for graph in graphs:
            graph.x = torch.bincount(graph.edge_index[1], minlength=graph.num_nodes).unsqueeze(1)
    sizes = [1 + max(int(graph.x.max()) for graph in graphs)]
    labels = [int(graph.y) for graph in graphs]
    note = f"fold {fold} of {folds} is tested on, fold {(fold + 1) % folds} chooses the epoch"
    splits = fold_split(labels, folds, fold, split_seed)
    classes = tuple(str(k) for k in range(max(labels) + 1)) if max(labels) > 1 else ()
    return GraphTable(graphs, ("label",), splits, FILES[name], sizes, None, (note,), classes)


def read_tu(file: Path) -> tuple[list[Data], int]:
    """Graphs with ``x`` long [n, 1] and ``y`` float [1, 1], tags and classes numbered from 0 in the order of their
    values; and how many different tags there are.

    Raises:
        CosetError: The file is malformed or has a single class.
    """
    rows = [line.split() for line in lines_of(file, encoding="ascii")]
    at, graphs, tags = 1, [], []
    try:
        for number in range(int(rows[0][0])):
            nodes, label = map(int, rows[at])
            if nodes < 1 or abs(label) > 1 << 31:
                raise ValueError(f"it has {nodes} nodes and class {label}")
            found, edges = _nodes(rows, at + 1, nodes)
            tags.append(found)
            graph = Data(edge_index=edges, y=torch.tensor([[float(label)]]), num_nodes=nodes, id=str(number))
            graphs.append(validate_graph(graph))
            at += 1 + nodes
    except (ValueError, IndexError, OverflowError) as error:
        raise CosetError(f"{file}, line {at + 1}: not a graph of this format ({error})") from None
    values, inverse = torch.cat(tags).unique(return_inverse=True) if tags else (torch.empty(0), torch.empty(0))
    for graph, x in zip(graphs, inverse.split([graph.num_nodes for graph in graphs])):
        graph.x = x.unsqueeze(1)
    classes = sorted({int(graph.y) for graph in graphs})
    if len(classes) < 2:
        raise CosetError(f"{file} has {counted(len(classes), 'class', 'classes')}: at least two can be learnt")
    for graph in graphs:
        graph.y = torch.tensor([[float(classes.index(int(graph.y)))]])
    return graphs, len(values)


def _nodes(rows: list[list[str]], at: int, nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    tags, sources, targets = [], [], []
    for node in range(nodes):
        tag, degree, *rest = map(int, rows[at + node])
        if max(map(abs, (tag, degree, *rest))) > 1 << 31:
            raise ValueError(f"node {node} has a number beyond 2^31")
        if len(rest) < degree:
            raise ValueError(f"node {node} has {len(rest)} of {degree} neighbours")
        tags.append(tag)
        sources += rest[:degree]
        targets += [node] * degree
    return torch.tensor(tags, dtype=torch.long), torch.tensor([sources, targets], dtype=torch.long)
