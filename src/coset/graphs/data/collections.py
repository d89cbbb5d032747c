"""Collections of graphs on which expressive power is measured, read into PyG ``Data``.

graph6 text (McKay's format), the 400 pairs of BREC (Wang, Zhang 2024), EXP (Abboud et al. 2021), the strongly regular
graphs sr25, the graphs of the counting benchmark, and the atlas of graphs with up to seven nodes. Files come from
elsewhere, so nothing in them is ever unpickled: BREC's arrays hold plain strings and are loaded with
``allow_pickle=False``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch_geometric.data import Data

from coset.core.data_files import data_file
from coset.core.errors import CosetError
from coset.core.outside import lines_of, read_arrays

BREC_CATEGORIES = {
    "basic": range(0, 60),
    "regular": range(60, 110),
    "str": range(110, 160),
    "extension": range(160, 260),
    "cfi": range(260, 360),
    "4vtx": range(360, 380),
    "dr": range(380, 400),
}
"""Categories of BREC in official order, with the numbers of their pairs. ``str``: strongly regular; ``dr``:
distance-regular."""


@dataclass(frozen=True)
class GraphPair:
    """Two graphs that are not isomorphic and hard to tell apart.

    Attributes:
        category: Part of the collection the pair belongs to.
        index: Number of the pair in the whole collection.
        first, second: The graphs.
    """

    category: str
    index: int
    first: Data
    second: Data


def parse_graph6(text: str | bytes) -> Data:
    """One graph from its graph6 line (with or without the header ``>>graph6<<``).

    Raises:
        ValueError: The line is not graph6; the message says what is wrong with it.
    """
    line = text.encode("ascii", errors="replace") if isinstance(text, str) else bytes(text)
    line = line.strip().removeprefix(b">>graph6<<")
    codes = np.frombuffer(line, dtype=np.uint8)
    if codes.size == 0:
        raise ValueError("empty graph6 line")
    if codes.min() < 63 or codes.max() > 126:
        wrong = chr(next(code for code in codes if not 63 <= code <= 126))
        raise ValueError(f"graph6 uses the characters '?' to '~' only, found {wrong!r} in {_shorten(line)}")
    nodes, start = _graph6_size(codes - 63)
    bits = np.unpackbits((codes[start:] - 63)[:, None], axis=1)[:, 2:].reshape(-1)
    needed = nodes * (nodes - 1) // 2
    if bits.size != -(-needed // 6) * 6:
        found = f"found {bits.size // 6} in {_shorten(line)}"
        raise ValueError(f"graph6 with {nodes} nodes needs {-(-needed // 6)} characters after the size, {found}")
    # The bits run down the columns of the upper triangle: (0,1), (0,2), (1,2), (0,3), ...
    adjacency = np.zeros((nodes, nodes), dtype=bool)
    column, row = np.tril_indices(nodes, -1)
    adjacency[row, column] = bits[:needed]
    return graph_from_adjacency(adjacency | adjacency.T)


def graph_from_adjacency(adjacency: Bool[np.ndarray, "n n"]) -> Data:
    """A graph with the edges at the true entries, sorted by source and target."""
    return Data(edge_index=torch.from_numpy(np.stack(np.nonzero(adjacency))), num_nodes=len(adjacency))


def read_graph6(path: str | Path) -> list[Data]:
    """All graphs of a file with one graph6 line a graph, plain or gzipped.

    Raises:
        CosetError: A line is not graph6; the message names the file and the line.
    """
    return [_parse_at(line, f"{path}, line {number}") for number, line in _lines(path)]


def read_brec(path: str | Path | None = None, categories: Iterable[str] | None = None) -> list[GraphPair]:
    """The pairs of BREC, by official number.

    Args:
        path: Folder with ``basic.npy``, ``regular.npy`` and so on, or the data directory that holds it as
            ``expressivity/brec``; by default looked for as in :func:`coset.core.data_files.data_file`.
        categories: Which parts to read, by default all of :data:`BREC_CATEGORIES`.

    Raises:
        CosetError: The folder or one of its files is missing or damaged, or a category does not exist.
    """
    chosen = list(BREC_CATEGORIES if categories is None else categories)
    for category in chosen:
        if category not in BREC_CATEGORIES:
            raise CosetError(f"BREC has no category {category!r}: choose from {', '.join(BREC_CATEGORIES)}")
    return [pair for category in BREC_CATEGORIES if category in chosen for pair in _brec_category(path, category)]


def read_sr25(path: str | Path | None = None) -> list[Data]:
    """The 15 strongly regular graphs with parameters (25, 12, 5, 6)."""
    return read_graph6(data_file("expressivity/sr25.g6", path))


def read_exp(path: str | Path | None = None) -> list[GraphPair]:
    """The 600 pairs of EXP: 1-WL cannot tell the two graphs of a pair apart, yet only the second one is satisfiable.

    Graphs carry ``x`` long [n, 1] (two node types) and ``y`` long [1].
    """
    file = data_file("expressivity/exp.g6.tsv.gz", path)
    graphs = [
        _exp_graph(line, f"{file}, line {number}") for number, line in _lines(file) if not line.startswith("label")
    ]
    return [GraphPair("exp", k, *graphs[2 * k : 2 * k + 2]) for k in range(len(graphs) // 2)]


def read_counting(split: str, path: str | Path | None = None) -> list[Data]:
    """Random graphs of the substructure-counting benchmark: ``split`` is ``train`` or ``val``."""
    if split not in ("train", "val"):
        raise CosetError(f"the counting graphs have no split {split!r}: choose train or val")
    return read_graph6(data_file(f"expressivity/counting_{split}.g6.gz", path))


def graph_atlas(connected: bool = False) -> list[Data]:
    """All graphs with one to seven nodes up to isomorphism, ordered by size: 1,252, of which 996 are connected."""
    import networkx

    graphs = (graph for graph in networkx.graph_atlas_g() if len(graph) > 0)
    return [
        graph_from_adjacency(networkx.to_numpy_array(graph, dtype=bool))
        for graph in graphs
        if not connected or networkx.is_connected(graph)
    ]


def _graph6_size(values: UInt8[np.ndarray, " length"]) -> tuple[int, int]:
    """Number of nodes, and where the edges begin: one character, or ~ and three, or ~~ and six."""
    width = 1 if values[0] < 63 else 3 if len(values) > 1 and values[1] < 63 else 6
    skip = {1: 0, 3: 1, 6: 2}[width]
    digits = values[skip : skip + width]
    if len(digits) < width:
        raise ValueError("graph6 line ends within its number of nodes")
    nodes = 0
    for digit in digits:
        nodes = nodes * 64 + int(digit)
    return nodes, skip + width


def _brec_category(path: str | Path | None, category: str) -> list[GraphPair]:
    """Pairs are items 2k and 2k + 1 of the flat files, row k of the two-column ones: the same once flattened."""
    file = data_file(f"expressivity/brec/{category}.npy", path)
    found = read_arrays(file)
    if list(found) != [""]:
        raise CosetError(f"{file} holds several arrays; one of graph6 strings was expected")
    stored = found[""].reshape(-1)
    numbers = BREC_CATEGORIES[category]
    if stored.dtype.kind not in "SU" or stored.size != 2 * len(numbers):
        expected = f"expected {2 * len(numbers)} graph6 strings"
        raise CosetError(f"{file} holds {stored.size} items of type {stored.dtype}, {expected}")
    graphs = [_parse_at(item, f"{file}, item {k}") for k, item in enumerate(stored)]
    return [GraphPair(category, number, *graphs[2 * k : 2 * k + 2]) for k, number in enumerate(numbers)]


def _exp_graph(line: str, where: str) -> Data:
    """A line of EXP: label, one digit a node for its type, graph6."""
    fields = line.rstrip("\n").split("\t")
    if len(fields) != 3:
        raise CosetError(f"{where}: {len(fields)} columns, expected label, node types and graph6")
    label, types, graph6 = fields
    graph = _parse_at(graph6, where)
    if len(types) != graph.num_nodes or set(types) - {"0", "1"} or label not in ("0", "1"):
        raise CosetError(f"{where}: expected a label 0 or 1 and {graph.num_nodes} node types 0 or 1")
    graph.x = torch.tensor([[int(kind)] for kind in types])
    graph.y = torch.tensor([int(label)])
    return graph


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Non-empty lines of a text file, plain or gzipped, numbered from 1."""
    for number, line in enumerate(lines_of(path, encoding="ascii"), start=1):
        if line.strip():
            yield number, line


def _parse_at(line: str | bytes, where: str) -> Data:
    try:
        return parse_graph6(line)
    except ValueError as error:
        raise CosetError(f"{where}: {error}") from None


def _shorten(line: bytes, most: int = 40) -> str:
    text = line.decode("ascii", errors="replace")
    return repr(text if len(text) <= most else f"{text[:most]}...")
