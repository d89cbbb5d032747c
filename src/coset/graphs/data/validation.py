"""Checks of one graph before a model sees it: edges both ways, ids inside their ranges, no loops, no doubles."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch_geometric.data import Data

from coset.core.errors import CosetError


def validate_graph(
    data: Data,
    node_sizes: Sequence[int] | None = None,
    edge_sizes: Sequence[int] | None = None,
    name: str | None = None,
) -> Data:
    """The graph with its edges sorted, and without self-loops and duplicate edges, which are counted in a warning.

    Of duplicate edges the first one's features are kept.

    Args:
        data: One graph; ``x`` [n, f], ``edge_index`` [2, m] and ``edge_attr`` [m, g] are looked at.
        node_sizes: Number of values of each categorical column of ``x``.
        edge_sizes: The same for ``edge_attr``.
        name: What to call the graph in errors; its ``id`` otherwise.

    Raises:
        CosetError: No nodes, a node id out of range, a directed edge, rows that do not match, or an id outside its
            table.
    """
    name = name or str(data.id if "id" in data else "graph")
    nodes = int(data.num_nodes or 0)
    if nodes == 0:
        raise CosetError(f"{name}: a graph needs at least one node")
    edge_index = data.edge_index
    if edge_index is None or edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise CosetError(f"{name}: edge_index must be [2, edges]")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < nodes:
        outside = edge_index[(edge_index < 0) | (edge_index >= nodes)][0]
        raise CosetError(f"{name}: edge_index names node {int(outside)}, but nodes are 0 to {nodes - 1}")
    if "edge_attr" in data and data.edge_attr.size(0) != edge_index.size(1):
        raise CosetError(f"{name}: edge_attr has {data.edge_attr.size(0)} rows for {edge_index.size(1)} edges")
    _check_categories(data, "x", node_sizes, name)
    _check_categories(data, "edge_attr", edge_sizes, name)
    data = _simplified(data, nodes, name)
    source, target = data.edge_index
    codes, reverse = source * nodes + target, target * nodes + source
    lonely = ~torch.isin(codes, reverse)
    if lonely.any():
        first = int(lonely.nonzero()[0])
        raise CosetError(
            f"{name}: edge {int(source[first])} -> {int(target[first])} has no reverse: graphs are undirected, "
            "list every edge in both directions (torch_geometric.transforms.ToUndirected)"
        )
    return data


def _simplified(data: Data, nodes: int, name: str) -> Data:
    """Without self-loops and duplicates, edges sorted by source, then target."""
    source, target = data.edge_index
    proper = (source != target).nonzero().squeeze(1)
    codes = source[proper] * nodes + target[proper]
    order = torch.argsort(codes, stable=True)
    ranked = codes[order]
    fresh = torch.ones_like(ranked, dtype=torch.bool)
    fresh[1:] = ranked[1:] != ranked[:-1]
    kept = proper[order[fresh]]
    loops, doubles = source.numel() - proper.numel(), int((~fresh).sum())
    if loops or doubles:
        warnings.warn(f"{name}: dropped {loops} self-loops and {doubles} duplicate edges", stacklevel=3)
    if kept.numel() == source.numel() and bool((kept == torch.arange(kept.numel())).all()):
        return data
    data = data.clone()
    data.edge_index = data.edge_index[:, kept]
    if "edge_attr" in data:
        data.edge_attr = data.edge_attr[kept]
    return data


def _check_categories(data: Data, key: str, sizes: Sequence[int] | None, name: str) -> None:
    if sizes is None or key not in data or data[key].numel() == 0:
        return
    values = data[key]
    if values.dim() != 2 or values.size(1) != len(sizes):
        raise CosetError(f"{name}: {key} is {list(values.shape)}; {len(sizes)} columns are expected")
    wrong = (values < 0) | (values >= torch.tensor(list(sizes)))
    if wrong.any():
        row, column = (int(index) for index in wrong.nonzero()[0])
        raise CosetError(
            f"{name}: {key}[{row}, {column}] = {int(values[row, column])}, "
            f"but column {column} has ids 0 to {sizes[column] - 1}"
        )
