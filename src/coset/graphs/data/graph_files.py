"""One's own graphs, as people hold them: tables of nodes, edges and graphs; graph6; GraphML and node-link JSON; PyG.

Every form but PyG's becomes three tables of text first, a row a node, an edge, a graph, and is checked and encoded from
there. Rows in errors are counted as a spreadsheet counts them: the header is row 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Int

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.outside import check_column, lines_of, read_table, read_text, read_tree, refusing, row_named
from coset.graphs.data.graph_table import counted

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
NETWORKS = (".graphml", ".json")
GRAPH6 = (".g6", ".graph6", ".g6.gz", ".graph6.gz")
LABELS, PAIRS = "labels", "pairs"
GRAPH, NODE, SOURCE, TARGET = "graph", "node", "source", "target"
SPELLINGS = {
    GRAPH: ("graph", "graph_id", "graph_name"),
    NODE: ("node", "node_id", "id"),
    SOURCE: ("source", "src", "from", "u"),
    TARGET: ("target", "dst", "to", "v"),
}
"""What the columns that say which node or graph a row is of may be called, in any case."""
OF_FILES = (*SPELLINGS[GRAPH], "complex", "mesh", "file")
"""What the column may be called in a table beside files of a graph each; the last three only where they name them."""
OFTEN_NAMES = ("name", "id", "index", "filename", "file_name", "path", "unnamed: 0")
"""What a column of numbers must be called to be taken for numbers of graphs."""

ATTRIBUTE = "attribute_"
"""Before the names of attributes that are called as a column of names is: an edge's ``source`` of its own."""
_ONLY = "0"  # name of the one graph of a table that names none


@dataclass(frozen=True)
class GraphTables:
    """Graphs as three tables of text; the index holds row numbers, or names of what stands in no table.

    Attributes:
        nodes: Columns ``graph``, ``node``, then features and targets.
        edges: Columns ``graph``, ``source``, ``target``, then features; an edge may stand once or in both directions.
        graphs: Column ``graph``, then targets and the like; the graphs in their order.
        place: Where they come from, for messages.
        names: What the three tables are called in messages.
        notes: What a reader of the results should know.
        pairs: Columns ``graph``, ``source``, ``target``: pairs of nodes to predict links for, if a table names some.
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame
    graphs: pd.DataFrame
    place: Path
    names: tuple[str, str, str]
    notes: tuple[str, ...] = ()
    pairs: pd.DataFrame | None = None


@takes_paths
def read_graph_tables(path: Path, labels: Path | None = None, asked: bool = False) -> GraphTables:
    """The graphs of a file or a folder.

    Args:
        path: A folder of ``nodes``, ``edges`` and ``graphs`` (.csv, .tsv, .parquet; edges are needed, the others are
            optional), a folder of GraphML or node-link JSON files, one such file, or a file of graph6 lines.
        labels: Table with a row a graph and a column ``graph``; by default ``labels.csv`` beside the graphs, if there.
        asked: Graphs to predict for: no table beside them is looked for, which may be that of other graphs.

    Raises:
        CosetError: There is nothing of the kind, or it is malformed; the message names file and row.
    """
    if not path.exists():
        raise CosetError(f"{path}: no such file or folder")
    if path.is_dir():
        if (edges := table_in(path, "edges")) is not None:
            return _from_tables(path, edges, labels)
        files = sorted(file for file in path.iterdir() if file.suffix in NETWORKS)
        if not files:
            raise CosetError(
                f"{path} holds no graphs: a table edges.csv, or files of GraphML (.graphml) or node-link JSON (.json)"
            )
        labels = labels if asked else labels or table_in(path, LABELS)
        return _from_networks(path, ((file.stem, file) for file in files), labels)
    if path.name.endswith(GRAPH6):
        return _from_graph6(path, labels if asked else labels or table_beside(path))
    if path.suffix in NETWORKS:
        return _from_networks(path, [(path.stem, path)], labels if asked else labels or table_beside(path))
    raise CosetError(
        f"{path} is no file of graphs that can be read: a folder with edges.csv, a file of graph6 (.g6), GraphML "
        "(.graphml), node-link JSON (.json), or a list of PyG graphs (.pt)"
    )


def table_in(folder: Path, stem: str) -> Path | None:
    """The table of this name in a folder, whatever its ending."""
    return next((folder / f"{stem}{ending}" for ending in TABLES if (folder / f"{stem}{ending}").is_file()), None)


def table_beside(file: Path) -> Path | None:
    """``labels.csv`` in the same folder, or a table of the same name."""
    stem = file.name.partition(".")[0]
    return table_in(file.parent, stem) or table_in(file.parent, LABELS)


def _from_tables(folder: Path, edges_file: Path, labels: Path | None) -> GraphTables:
    nodes_file, graphs_file = table_in(folder, "nodes"), labels or table_in(folder, "graphs")
    edges, notes = _without_numbers(read_table(edges_file, bare=nodes_file is not None), edges_file)
    edges = _named(edges, (SOURCE, TARGET), edges_file)
    nodes = None
    if nodes_file is not None:
        nodes, more = _without_numbers(read_table(nodes_file), nodes_file)
        nodes, notes = _named(nodes, (NODE,), nodes_file), notes + more
    graphs = None if graphs_file is None else _named(read_table(graphs_file), (GRAPH,), graphs_file)
    if nodes is None:
        ends = [edges[[GRAPH, end]].set_axis([GRAPH, NODE], axis=1) for end in (SOURCE, TARGET)]
        nodes = pd.concat(ends, ignore_index=True).drop_duplicates(ignore_index=True)
    if graphs is None:
        graphs = pd.DataFrame({GRAPH: pd.concat([nodes[GRAPH], edges[GRAPH]]).drop_duplicates().to_list()})
    pairs_file = table_in(folder, PAIRS)
    pairs = None if pairs_file is None else _named(read_table(pairs_file), (SOURCE, TARGET), pairs_file)
    files = (nodes_file or edges_file, edges_file, graphs_file or nodes_file or edges_file)
    return GraphTables(nodes, edges, graphs, folder, (str(files[0]), str(files[1]), str(files[2])), notes, pairs)


def _without_numbers(frame: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table without columns that have no name: most often row numbers that were saved with it, and no feature."""
    unnamed = [column for column in frame.columns if str(column).startswith("Unnamed: ")]
    if not unnamed:
        return frame, ()
    count = f"{len(unnamed)} column{'s' * (len(unnamed) > 1)} without a name"
    return frame.drop(columns=unnamed), (f"{file.name}: left out {count}",)


def _named(frame: pd.DataFrame, needed: Sequence[str], file: Path) -> pd.DataFrame:
    """The frame with its columns of names called as here; without a column of graphs all rows are of one."""
    folded = {str(column).lower(): str(column) for column in frame.columns}
    renamed = {}
    for name in dict.fromkeys((GRAPH, *needed)):
        spelling = next((folded[s] for s in SPELLINGS[name] if s in folded), None)
        if spelling is not None:
            renamed[spelling] = name
        elif name in needed:
            check_column(list(frame.columns), name, file)
    frame = frame.rename(columns=renamed)
    if GRAPH not in frame:
        frame.insert(0, GRAPH, _ONLY)
    for name in (GRAPH, *needed):
        if frame[name].isna().any():
            row = frame.index[int(frame[name].isna().to_numpy().argmax())]
            raise CosetError(f"{file}, row {row}, column {name!r}: the cell is empty")
        frame[name] = _whole(frame[name].astype(str).str.strip())
    return frame


def _whole(names: pd.Series) -> pd.Series:
    """Names without the ``.0`` that whole numbers get where a column of theirs had gaps once."""
    return names.str.removesuffix(".0") if names.str.fullmatch(r"-?\d+\.0").all() else names


def _from_networks(place: Path, files: Iterable[tuple[str, Path]], labels: Path | None) -> GraphTables:
    networks: list[tuple[str, nx.Graph]] = []
    for name, file in files:
        found = list(_networks(file))
        names = [name if len(found) == 1 else f"{name}-{at}" for at in range(len(found))]
        networks += [(name, _simple(network, f"{place}: graph {name}")) for name, network in zip(names, found)]
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    for name, network in networks:
        nodes += [_row({GRAPH: name, NODE: str(node)}, data) for node, data in network.nodes(data=True)]
        edges += [_row({GRAPH: name, SOURCE: str(u), TARGET: str(v)}, data) for u, v, data in network.edges(data=True)]
    own = pd.DataFrame([_row({GRAPH: name}, network.graph) for name, network in networks])
    own.index = pd.Index([f"graph {name!r}" for name in own[GRAPH]])
    graphs, notes = (own, ()) if labels is None else labelled(own, labels)
    empty = {"nodes": [GRAPH, NODE], "edges": [GRAPH, SOURCE, TARGET]}
    tables = [pd.DataFrame(rows) if rows else pd.DataFrame(columns=empty[key])
              for key, rows in (("nodes", nodes), ("edges", edges))]  # fmt: skip
    for table, ends in zip(tables, ([NODE], [SOURCE, TARGET]), strict=True):
        table.index = pd.Index(_places_of(table, ends, len(networks) > 1), dtype=object)
    where = str(labels or place)
    directed = sum(network.is_directed() for _, network in networks)
    if directed:
        verb = "is" if directed == 1 else "are"
        notes += (f"{counted(directed, 'graph')} {verb} directed; every edge is taken in both directions",)
    if composed := sorted({str(key) for _, network in networks for key in _composed(network)}):
        notes += (f"left out attributes that are lists or the like, no single values: {', '.join(composed[:5])}",)
    if renamed := sorted({column for row in (*nodes, *edges) for column in row if column.startswith(ATTRIBUTE)}):
        notes += (f"attributes that are called as nodes, ends or graphs are: {', '.join(renamed)}",)
    return GraphTables(tables[0], tables[1], graphs, place, (f"nodes of {place}", f"edges of {place}", where), notes)


def _places_of(table: pd.DataFrame, ends: Sequence[str], several: bool) -> list[str]:
    """What rows of nodes or edges are called in messages."""
    what = "node" if len(ends) == 1 else "edge"
    names = zip(table[GRAPH], *(table[end] for end in ends), strict=True)
    return [f"{what} {' - '.join(map(repr, own))}{f' of graph {graph!r}' if several else ''}" for graph, *own in names]


def _networks(file: Path) -> Iterable[nx.Graph]:
    if file.suffix == ".graphml":
        text = read_text(file)
        if "<!ENTITY" in text or "<!DOCTYPE" in text:
            raise CosetError(f"{file}: GraphML with a DOCTYPE or entities is not read")
        with refusing(file, "GraphML"):
            yield _with_defaults(nx.parse_graphml(text), named=re.search(r"<edge\s[^>]*?\bid\s*=", text) is not None)
        return
    value = read_tree(file)
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict) or "nodes" not in entry:
            raise CosetError(f"{file}: no node-link JSON: an object with 'nodes' and 'edges' (or 'links')")
        if not isinstance(entry.get("graph", {}), dict):
            raise CosetError(f"{file}: no node-link JSON: 'graph' holds {str(entry['graph'])[:60]!r}, not an object")
        with refusing(file, "node-link JSON"):
            yield nx.node_link_graph(entry, edges="links" if "links" in entry else "edges")


def _with_defaults(network: nx.Graph, named: bool) -> nx.Graph:
    """What NetworkX read of GraphML, with the defaults of attributes of edges, and without the names that programs
    such as Gephi and yEd give to edges: it makes an attribute of them, which would be learned from.
    """
    for *_, data in network.edges(data=True):
        if named:
            data.pop("id", None)
        for key, value in network.graph.get("edge_default", {}).items():
            data.setdefault(key, value)
    return network


def _simple(network: nx.Graph, what: str) -> nx.Graph:
    """The graph with one edge where there are several alike; files often do not say whether there may be more.

    Raises:
        CosetError: Parallel edges differ.
    """
    if not network.is_multigraph():
        return network
    simple: nx.Graph = nx.DiGraph() if network.is_directed() else nx.Graph()
    simple.graph.update(network.graph)
    simple.add_nodes_from(network.nodes(data=True))
    for u, v, data in network.edges(data=True):
        if simple.has_edge(u, v) and _texts(simple.edges[u, v]) != _texts(data):
            raise CosetError(f"{what} has parallel edges from {u} to {v} that differ; merge them first")
        simple.add_edge(u, v, **data)
    return simple


def _row(names: dict[str, str], attributes: dict[Any, Any]) -> dict[str, str]:
    """A row of a table: what it is of, then its attributes, of which none may take the place of a name."""
    own = _texts(attributes)
    return {**names, **{f"{ATTRIBUTE}{key}" if key in names else key: value for key, value in own.items()}}


def _texts(values: dict[Any, Any]) -> dict[str, str]:
    """Attributes that are single values."""
    return {str(key): str(value) for key, value in values.items() if isinstance(value, str | int | float | bool)}


def _composed(network: nx.Graph) -> set[Any]:
    """Attributes of nodes, edges and the graph that are no single values, such as places of a drawing."""
    own = {key: value for key, value in network.graph.items() if key not in ("node_default", "edge_default")}
    every = [own, *(data for _, data in network.nodes(data=True)), *(data for *_, data in network.edges(data=True))]
    return {key for data in every for key, value in data.items() if isinstance(value, list | tuple | dict)}


def _from_graph6(file: Path, labels: Path | None) -> GraphTables:
    edges: list[tuple[str, str, str]] = []
    nodes: list[tuple[str, str]] = []
    for number, line in enumerate(lines_of(file, encoding="ascii")):
        with refusing(f"{file}, line {number + 1},", "graph6"):
            network = nx.from_graph6_bytes(line.strip().removeprefix(">>graph6<<").encode("ascii"))
        if not len(network):
            raise CosetError(f"{file}, line {number + 1}: the graph has no nodes")
        name = str(number)
        nodes += [(name, str(node)) for node in network]
        edges += [(name, str(u), str(v)) for u, v in network.edges]
    own = pd.DataFrame({GRAPH: list(dict.fromkeys(name for name, _ in nodes))})
    graphs, notes = (own, ()) if labels is None else labelled(own, labels)
    node_table = pd.DataFrame(nodes, columns=[GRAPH, NODE])
    edge_table = pd.DataFrame(edges, columns=[GRAPH, SOURCE, TARGET])
    return GraphTables(node_table, edge_table, graphs, file, (str(file), str(file), str(labels or file)), notes)


def labelled(own: pd.DataFrame, labels: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The graphs with the columns of a table of labels, by its column of graphs, or row by row without one; and notes.

    Raises:
        CosetError: The table has other graphs, or one of them twice, or other values than graphs carry themselves.
    """
    table = read_table(labels)
    spelling = _names_of_graphs(table, set(own[GRAPH]))
    if spelling is None:
        if len(table) != len(own):
            raise CosetError(
                f"{labels} has {counted(len(table), 'row')} for {counted(len(own), 'graph')}, and no column 'graph' to "
                "tell them"
            )
        table[GRAPH] = own[GRAPH].to_list()
    else:
        table = table.rename(columns={spelling: GRAPH})
        table[GRAPH] = table[GRAPH].fillna("").astype(str).str.strip()
        if not set(table[GRAPH]) & set(own[GRAPH]):  # names of files, with their endings
            table[GRAPH] = table[GRAPH].map(lambda name: Path(name).stem)
    if (double := table[GRAPH].duplicated()).any():
        row = table.index[int(double.to_numpy().argmax())]
        raise CosetError(f"{labels}, row {row}: graph {table[GRAPH][row]!r} is there twice")
    known, told = set(own[GRAPH]), set(table[GRAPH])
    missing = [name for name in own[GRAPH] if name not in told]
    if missing:
        raise CosetError(f"{labels} has no row for graph {missing[0]!r} ({len(missing)} are missing)")
    kept = own[[GRAPH, *(column for column in own.columns if column not in table)]]
    merged = kept.merge(table, on=GRAPH, how="left")
    merged.index = table.index[pd.Index(table[GRAPH]).get_indexer(pd.Index(own[GRAPH]))]
    _check_agree(own, merged, labels)
    surplus = [name for name in table[GRAPH] if name not in known]
    what = f"{labels.name}: left out {counted(len(surplus), 'row')} of graphs that are not there: "
    return merged, (what + ", ".join(name or "(no name)" for name in surplus[:5]),) if surplus else ()


def _check_agree(own: pd.DataFrame, merged: pd.DataFrame, labels: Path) -> None:
    """Raise a CosetError where a table says something else of a graph than the graph does: one of them is out of date.

    Args:
        own: What graphs carry.
        merged: The same rows, with the columns of the table instead of theirs.
        labels: The table.
    """
    for column in (column for column in own.columns if column != GRAPH and column in merged):
        for row, graph, carried, cell in zip(merged.index, own[GRAPH], own[column], merged[column], strict=True):
            if not (pd.isna(carried) or pd.isna(cell) or _same_value(str(carried), str(cell))):
                raise CosetError(
                    f"{labels}, row {row}: {column} is {cell}, but graph {graph!r} carries {column}={carried}; "
                    "take it out of one of them, or give the column another name"
                )


def _same_value(a: str, b: str) -> bool:
    """Whether two cells are the same word or number, however it is written."""
    try:
        return a.strip() == b.strip() or float(a) == float(b)
    except ValueError:
        return False


def _names_of_graphs(table: pd.DataFrame, known: set[str]) -> str | None:
    """The column of a table of labels that says which graph a row is of; ``file`` and the like may also be features.

    Whatever a column is called, its cells tell that it names graphs: taken row by row, its table would give graphs the
    targets of others. Numbers may be targets, though, and count only under a usual name and where all are there.
    """
    folded = {str(column).lower(): str(column) for column in table.columns}
    for spelling in OF_FILES:
        if spelling not in folded:
            continue
        words = set(table[folded[spelling]].astype(str).str.strip())
        if spelling in SPELLINGS[GRAPH] or known & (words | {Path(word).stem for word in words}):
            return folded[spelling]
    counted = all(name.isdigit() for name in known)
    for column in table.columns:
        words = set(table[column].dropna().astype(str).str.strip())
        shared = len(known & (words | {Path(word).stem for word in words}))
        usual = str(column).lower() in OFTEN_NAMES
        if shared == len(known) and usual if counted else 2 * shared > len(known):
            return str(column)
    return None


def numbered(tables: GraphTables) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the graphs of all nodes, and of the nodes at both ends of all edges [2, edges].

    Raises:
        CosetError: A graph or a node is named that is not there, or is there twice.
    """
    nodes, edges, graphs = tables.nodes, tables.edges, tables.graphs
    place = pd.Series(np.arange(len(graphs)), index=graphs[GRAPH])
    if not place.index.is_unique:
        at = int(place.index.duplicated().argmax())
        raise CosetError(f"{tables.names[2]}, {row_named(graphs.index[at])}: graph {place.index[at]!r} is there twice")
    of_nodes = _places(nodes[GRAPH], place, nodes.index, tables.names[0], "graph")
    keys = pd.MultiIndex.from_arrays([nodes[GRAPH], nodes[NODE]])
    if not keys.is_unique:
        at = int(keys.duplicated().argmax())
        raise CosetError(
            f"{tables.names[0]}, {row_named(nodes.index[at])}: node {nodes[NODE].iloc[at]!r} is there twice"
        )
    return of_nodes, _ends(tables, edges, tables.names[1])


def named_pairs(tables: GraphTables, pairs: pd.DataFrame) -> list[Int[np.ndarray, "2 _pairs"]]:
    """Both nodes of each pair of a table, graph by graph, counted within the graph.

    Raises:
        CosetError: A node is named that is not there.
    """
    ends = _ends(tables, pairs, str(tables.place / PAIRS))
    place = pd.Index(tables.graphs[GRAPH])
    of_nodes = place.get_indexer(pd.Index(tables.nodes[GRAPH]))
    starts = np.searchsorted(of_nodes, np.arange(len(place)))  # nodes of a graph lie together
    of_pairs = of_nodes[ends[0]]
    return [ends[:, of_pairs == number] - starts[number] for number in range(len(place))]


def _ends(tables: GraphTables, rows: pd.DataFrame, what: str) -> np.ndarray:
    """Numbers of the nodes at both ends of rows with ``graph``, ``source``, ``target``."""
    nodes = pd.MultiIndex.from_arrays([tables.nodes[GRAPH], tables.nodes[NODE]])
    ends = []
    for end in (SOURCE, TARGET):
        wanted = pd.MultiIndex.from_arrays([rows[GRAPH], rows[end]])
        found = nodes.get_indexer(wanted) if len(rows) else np.empty(0, dtype=np.int64)
        if (found < 0).any():
            at = int((found < 0).argmax())
            which = f"node {rows[end].iloc[at]!r}"
            which += f" of graph {rows[GRAPH].iloc[at]!r}" if len(tables.graphs) > 1 else ""
            raise CosetError(f"{what}, {row_named(rows.index[at])}: {tables.names[0]} has no {which}")
        ends.append(found)
    return np.stack(ends)


def _places(names: pd.Series, place: pd.Series, rows: pd.Index, what: str, kind: str) -> np.ndarray:
    found = place.index.get_indexer(pd.Index(names))
    if (found < 0).any():
        at = int((found < 0).argmax())
        raise CosetError(f"{what}, row {rows[at]}: there is no {kind} {names.iloc[at]!r}")
    return found
