"""Files of PyG graphs: a list of ``Data`` that ``torch.save`` wrote, or what an ``InMemoryDataset`` keeps.

They are pickles. Only tensors, containers and PyG's own classes of data are built from them; anything else is refused.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.separate import separate
from torch_geometric.data.storage import EdgeStorage, GlobalStorage, NodeStorage

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.outside import read_saved, refusing
from coset.graphs.data.datasets import graph_features
from coset.graphs.data.graph_table import GraphTable, Level, counted, not_used
from coset.graphs.data.splits import NAMES, Splits
from coset.graphs.data.targets import LARGEST, settle_precision
from coset.graphs.data.validation import validate_graph

EDGE_TARGETS = "edge_y"
MOST_VALUES = 100_000
"""Of a column of integers, each of which has a row in a table of the network."""
MASKS = [f"{part}_mask" for part in NAMES]
USED = {"x", "edge_index", "edge_attr", "y", EDGE_TARGETS, "edge_label_index", "id", "num_nodes", *MASKS}
"""Attributes of a graph that are read."""
LEVELS: tuple[Level, ...] = ("graph", "node", "edge", "link")
ALLOWED: list[Any] = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage, NodeStorage, EdgeStorage]


@takes_paths
def read_pyg_file(path: Path, level: str = "auto", asked: bool = False) -> GraphTable:
    """Graphs of a ``.pt`` file, with splits only where one graph has masks of its nodes.

    Args:
        path: The file.
        level: ``graph``, ``node``, ``edge``, ``link``, or ``auto``: of nodes if every ``y`` has a row a node (and some
            graph has several), of edges if there is ``edge_y`` [edges] and no ``y``.
        asked: Graphs to predict for, which may have no targets.

    Raises:
        CosetError: It holds something else, or a graph is malformed.
    """
    with refusing(path, "list of PyG graphs"):  # objects of other versions of PyG lack what theirs should have
        return table_of_graphs(_load(path), str(path), level, asked)


def table_of_graphs(given: list[Data], name: str, level: str = "auto", asked: bool = False) -> GraphTable:
    """A table of PyG graphs, whose ``y`` are targets of graphs or of nodes, or whose ``edge_y`` are targets of edges.

    Args:
        given: The graphs; they stay as they are.
        name: What they are called in messages; the table has its last part.
        level: As of :func:`read_pyg_file`.
        asked: Likewise.

    Raises:
        CosetError: A graph is malformed, or graphs differ in their features or targets.
    """
    if not given:
        raise CosetError(f"{name} has no graphs")
    of_edges = all(data.get(EDGE_TARGETS) is not None for data in given)
    if level == "auto" and of_edges and not any("y" in data and data.y is not None for data in given):
        level = "edge"
    if level == "edge" and not of_edges and not asked:
        raise CosetError(f"{name}: data.level=edge, but not all graphs have {EDGE_TARGETS}, a row an edge")
    given = [_with_ends(data, f"{name}, graph {row}") for row, data in enumerate(given)]
    given = [_of_pairs(data, level, f"{name}, graph {row}") for row, data in enumerate(given)]
    unread = sorted({key for data in given for key in data.keys()} - USED)  # noqa: SIM118  (no mapping)
    found = Counter[str]()
    graphs = [_simple(data, str(row), name, found) for row, data in enumerate(given)]
    of_nodes = all(_rows(data) == data.num_nodes for data in graphs) and any((g.num_nodes or 0) > 1 for g in graphs)
    if level == "auto":
        level = "node" if of_nodes else "graph"
    if level == "node" and not of_nodes and any(_rows(data) is not None for data in graphs):
        raise CosetError(f"{name}: data.level=node, but y has not a row a node")
    for data in graphs:
        _shape_targets(data, level, name)
        if level == "edge" and "edge_attr" in data:
            data.edge_label_attr = data.edge_attr[data.edge_index[0] < data.edge_index[1]]
    width = _same_columns(graphs, name)
    settle_precision(graphs)
    y = "y" if level != "edge" else EDGE_TARGETS
    targets = () if not width else (y,) if width == 1 else tuple(f"{y}{column}" for column in range(width))
    splits = _masks(graphs[0], name) if level == "node" and len(graphs) == 1 else {}
    for data in graphs:
        masks = [mask for mask in MASKS if mask in data]
        found["masked"] += bool(masks) and not splits
        for mask in masks:
            del data[mask]
    node_features, edge_features = (_features(graphs, key, name) for key in ("x", "edge_attr"))
    return GraphTable(
        graphs, targets, splits, Path(name).name, node_features, edge_features, _notes(found, unread),
        level=next((own for own in LEVELS if own == level), "graph"),
    )  # fmt: skip


def _load(path: Path) -> list[Data]:
    value = read_saved(path, ALLOWED)
    if isinstance(value, Data):
        return [value]
    if isinstance(value, list | tuple) and value and all(isinstance(entry, Data) for entry in value):
        return list(value)
    if isinstance(value, tuple) and len(value) >= 2 and isinstance(value[0], dict | Data):
        return _separated(value[0], value[1], path)
    raise CosetError(f"{path} holds {type(value).__name__}, not a list of torch_geometric.data.Data")


def _separated(stored: dict[str, Any] | Data, slices: Any, path: Path) -> list[Data]:
    """The graphs of an ``InMemoryDataset``, which keeps them concatenated."""
    whole = Data.from_dict(stored) if isinstance(stored, dict) else stored
    if slices is None:
        return [whole]
    try:
        count = max(len(part) - 1 for part in slices.values())
        return [separate(cls=Data, batch=whole, idx=row, slice_dict=slices, decrement=False) for row in range(count)]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CosetError(f"{path}: its slices do not fit its graphs ({type(error).__name__}: {error})") from None


def _with_ends(data: Data, what: str) -> Data:
    """The graph with int64 numbers of nodes in ``edge_index``.

    Raises:
        CosetError: There is none, or it holds no whole numbers.
    """
    ends = data.edge_index
    if not isinstance(ends, Tensor) or ends.dim() != 2 or ends.size(0) != 2:
        raise CosetError(f"{what}: edge_index must be [2, edges]")
    if ends.is_floating_point() or ends.is_complex() or ends.dtype == torch.bool:
        raise CosetError(f"{what}: edge_index holds {str(ends.dtype).removeprefix('torch.')}, not numbers of nodes")
    if ends.dtype == torch.long:
        return data
    data = data.clone()
    data.edge_index = ends.long()
    return data


def _simple(data: Data, number: str, name: str, found: Counter[str]) -> Data:
    """A copy with columns for features and an id, edges sorted and simple, each in both directions."""
    data, what = data.clone(), f"{name}, graph {number}"
    for key in ("x", "edge_attr"):
        if key not in data:
            continue
        if data[key] is None:
            del data[key]
            continue
        if not isinstance(data[key], Tensor) or data[key].dim() not in (1, 2):
            raise CosetError(f"{what}: {key} must be a tensor of rows and columns")
        if data[key].is_complex():
            raise CosetError(f"{what}: {key} has complex numbers; give real and imaginary parts columns of their own")
        value = data[key].unsqueeze(1) if data[key].dim() == 1 else data[key]
        data[key] = value.float() if value.is_floating_point() else value.long()
        if not torch.isfinite(data[key]).all():
            raise CosetError(f"{what}: {key} has cells that are no finite numbers, or beyond float32")
        if not value.is_floating_point() and value.numel() and int(value.min()) < 0:
            raise CosetError(f"{what}: {key} holds {int(value.min())}; integers are numbers of categories, from 0 on: "
                             f"make measures real numbers, {key}.float()")  # fmt: skip
    if "id" not in data or not isinstance(data.id, str):
        data.id = number
    if "x" not in data:
        data.num_nodes = data.num_nodes  # otherwise guessed from edges, which miss isolated nodes at the end
    return validate_graph(_both_ways(data, what, found), name=what)


def _both_ways(data: Data, what: str, found: Counter[str]) -> Data:
    """The graph without loops, each edge once in each direction; ``found`` counts what was not so.

    Raises:
        CosetError: An edge stands twice with other features; or features differ by direction, and those of a direction
            that is not listed are not known.
    """
    nodes, ends = int(data.num_nodes or 0), data.edge_index
    if not _well_formed(data, nodes):
        return data  # which is told by validate_graph
    kept = (ends[0] != ends[1]).nonzero().squeeze(1)
    codes, place = (ends[0, kept] * nodes + ends[1, kept]).unique(return_inverse=True)
    first = torch.full_like(codes, len(kept)).scatter_reduce(0, place, torch.arange(len(kept)), "amin")
    known = data.edge_attr[kept] if "edge_attr" in data else torch.empty(len(kept), 0)
    if (wrong := (known != known[first[place]]).any(1)).any():
        u, v = ends[:, kept[int(wrong.int().argmax())]].tolist()
        raise CosetError(f"{what}: edge {u} -> {v} is there twice, with different edge_attr")
    reverse = codes % nodes * nodes + codes // nodes
    lonely = ~torch.isin(codes, reverse)
    found["loops"] += ends.size(1) - len(kept)
    found["doubles"] += len(kept) - len(codes)
    found["one way"] += bool(lonely.any())
    if len(codes) == ends.size(1) and not lonely.any():
        return data
    ends, known = ends[:, kept[first]], known[first]
    if lonely.any():
        back = torch.searchsorted(codes, reverse[~lonely])
        if (wrong := (known[~lonely] != known[back]).any(1)).any():
            u, v = ends[:, ~lonely][:, int(wrong.int().argmax())].tolist()
            raise CosetError(f"{what}: edge_attr of {u} -> {v} and {v} -> {u} differ, and other edges are listed in "
                             "one direction only: list all in both, or each once")  # fmt: skip
        ends, known = torch.cat([ends, ends[:, lonely].flip(0)], 1), torch.cat([known, known[lonely]])
    data.edge_index = ends
    if "edge_attr" in data:
        data.edge_attr = known
    return data


def _well_formed(data: Data, nodes: int) -> bool:
    """Whether edges are pairs of nodes, with a row of features each if there are any."""
    ends = data.edge_index
    if not isinstance(ends, Tensor) or ends.dim() != 2 or ends.size(0) != 2:
        return False
    inside = not ends.numel() or 0 <= int(ends.min()) <= int(ends.max()) < nodes
    return inside and ("edge_attr" not in data or data.edge_attr.size(0) == ends.size(1))


def _notes(found: Counter[str], unread: list[str]) -> tuple[str, ...]:
    loops, doubles, one_way = (found[key] for key in ("loops", "doubles", "one way"))
    notes = [f"left out {counted(loops, 'edge')} from a node to itself"] if loops else []
    notes += [f"left out {counted(doubles, 'edge')} listed more than once"] if doubles else []
    if one_way:
        graphs, verb = counted(one_way, "graph"), "lists" if one_way == 1 else "list"
        notes.append(f"{graphs} {verb} edges in one direction only; every edge is taken in both")
    if masked := found["masked"]:
        notes.append(f"left out masks of {counted(masked, 'graph')}: they split nodes where a file has one graph")
    if unread:
        notes.append(f"{not_used(unread)}; features are x and edge_attr")
    return tuple(notes)


def _of_pairs(data: Data, level: str, name: str) -> Data:
    """The graph with targets of the level alone: of edges each once as ``edge_label_index``, of links none."""
    if level not in ("edge", "link"):
        return data
    data = data.clone()
    for key in ("y", EDGE_TARGETS):
        if key in data and (level == "link" or key == "y"):
            del data[key]
    if level == "link":
        return data
    target = data.get(EDGE_TARGETS)
    ends = torch.as_tensor(data.edge_index)
    proper = ends[:, ends[0] != ends[1]]
    nodes = int(data.num_nodes or 0)
    codes = (proper.min(0).values * nodes + proper.max(0).values).unique()
    data.edge_label_index = torch.stack([codes // nodes, codes % nodes])
    if target is None:
        return data
    target = torch.as_tensor(target).double().reshape(len(target), -1)
    if len(target) != ends.size(1):
        raise CosetError(f"{name}: {EDGE_TARGETS} has {len(target)} rows for {ends.size(1)} columns of edge_index")
    own, target = target[ends[0] != ends[1]], target.new_empty(len(codes), target.size(1))
    place = torch.searchsorted(codes, proper.min(0).values * nodes + proper.max(0).values)
    target[place] = own
    wrong = ((target[place] != own) & ~(target[place].isnan() & own.isnan())).any(1)
    if wrong.any():
        u, v = sorted(proper[:, int(wrong.int().argmax())].tolist())
        raise CosetError(f"{name}: {EDGE_TARGETS} of {u} -> {v} and {v} -> {u} differ; edges have no direction")
    data.y = target
    del data[EDGE_TARGETS]
    return data


def _rows(data: Data) -> int | None:
    y = data.y if "y" in data else None
    return y.size(0) if isinstance(y, Tensor) and y.dim() else None


def _shape_targets(data: Data, level: str, name: str) -> None:
    """``y`` becomes float64, [1, T], [nodes, T] or [pairs, T]; NaN is a target that is missing."""
    if "y" in data and data.y is not None:
        y = torch.as_tensor(data.y).double()
        if (y.abs() > LARGEST).any():
            raise CosetError(f"{name}, graph {data.id}: y holds a number that is not finite, or beyond {LARGEST:g}")
        rows = {"node": data.num_nodes, "edge": data.edge_label_index.size(1) if level == "edge" else 0}.get(level, 1)
        data.y = y.reshape(rows, -1)


def _same_columns(graphs: list[Data], name: str) -> int:
    """How many targets all graphs have."""
    widths = {data.y.size(1) if "y" in data and data.y is not None else 0 for data in graphs}
    if len(widths) > 1:
        raise CosetError(f"{name}: graphs have different numbers of targets: {', '.join(map(str, sorted(widths)))}")
    for key in ("x", "edge_attr"):
        forms = {(data[key].size(1), data[key].is_floating_point()) if key in data else None for data in graphs}
        if len(forms) > 1:
            raise CosetError(f"{name}: {key} differs between graphs in width or kind; all must have the same columns")
    return widths.pop()


def _features(graphs: list[Data], key: str, name: str) -> list[int] | int | None:
    """As of :func:`coset.graphs.data.datasets.graph_features`.

    Raises:
        CosetError: A column of integers goes so high that they are measures rather than numbers of categories.
    """
    found = graph_features(graphs, key)
    if isinstance(found, list) and found and max(found) > MOST_VALUES:
        column = found.index(max(found))
        raise CosetError(f"{name}: {key}, column {column}, goes up to {found[column] - 1:,}; integers are numbers of "
                         f"categories, below {MOST_VALUES:,}: make measures real numbers, {key}.float()")  # fmt: skip
    return found


def _masks(data: Data, name: str) -> Splits:
    masks = {split: data[f"{split}_mask"] for split in NAMES if f"{split}_mask" in data}
    if not masks:
        return {}
    if any(mask.dim() != 1 for mask in masks.values()):
        raise CosetError(f"{name}: masks of several splits [nodes, splits]; keep one column of each")
    if "train" not in masks:
        raise CosetError(f"{name}: there is a {next(iter(masks))}_mask, but no train_mask")
    if any(len(mask) != data.num_nodes for mask in masks.values()):
        raise CosetError(f"{name}: masks must have a cell for each of {data.num_nodes} nodes")
    if (twice := torch.stack(list(masks.values())).bool().sum(0) > 1).any():
        raise CosetError(f"{name}: node {int(twice.int().argmax())} is in two masks; parts of a split share no node")
    return {split: mask.nonzero().squeeze(1) for split, mask in masks.items()}
