"""Exact colour refinement: which graphs a class of networks can tell apart at all, whatever its weights.

    chi_0     = the input (node types, marking)
    chi_{t+1} = number of ( chi_t, {{ chi_t of the neighbours along each relation }} )

A network whose layers sum over those relations gives equal outputs to two graphs that end with equal colours, and with
enough layers and injective updates it tells all others apart. Three families: 1-WL on nodes (message passing);
refinements on pairs (s, v) of a marked root and a node, along any of the relations of Zhang et al. (ICML 2023), which
bound the subgraph networks of :mod:`coset.graphs.models.subgraphormer`; and 2-FWL, also on pairs, which bounds them
all.

Two graphs are separated as soon as their invariants differ: for colours on pairs the multiset, over roots s, of the
multisets of row s. Graphs are refined together and share their colours. Nothing here is decided by a hash: equal
colours mean equal signatures, compared entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int
from numba import njit
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path
from torch_geometric.data import Data

from coset.core.errors import check_choice

Colours = Int[np.ndarray, "..."]
"""Colours of the nodes [n] or of the pairs [n, n] of one graph."""

Rows = Int[np.ndarray, "... _width"]
"""What decides a colour: integers, multisets sorted and filled up with -1 in front."""

NONE = -1


class Refinement(Protocol):
    """A rule by which colours are refined."""

    @property
    def name(self) -> str: ...

    def start(self, graph: Neighbourhoods) -> Rows:
        """What the first colours are made of."""
        ...

    def gather(self, graph: Neighbourhoods, colours: Colours, count: int) -> list[Rows]:
        """What each relation brings to every colour: blocks of rows whose leading axes broadcast to the colours."""
        ...


class NodeRefinement:
    """1-WL: a node sees its own colour and the multiset of its neighbours' colours."""

    name = "1-WL"

    def start(self, graph: Neighbourhoods) -> Rows:
        return graph.types

    def gather(self, graph: Neighbourhoods, colours: Colours, count: int) -> list[Rows]:
        return [_along_edges(colours[None], graph.neighbours)[0]]


@dataclass(frozen=True)
class PairRefinement:
    """Refinement on pairs (s, v): root s, node v of the copy in which s is marked.

    Args:
        relations: Any of ``uL`` (neighbours v' of v in the same copy), ``vL`` (the same node v in the copies of the
            neighbours of s), ``vv`` (v in its own copy), ``uu`` (the root of the same copy), ``vu`` (s in the copy of
            v), ``uG`` (the whole copy), ``vG`` (v in all copies).
        marking: What the first colour of (s, v) says besides the type of v: the ``distance`` from s, whether v is the
            ``root``, or ``none``.
        max_distance: Longer distances are marked alike; ``None`` tells all of them apart.
        proportions: Multisets of neighbours are seen up to scaling, the element itself counted among them: what
            attention, whose weights sum to one, can see of them.
    """

    relations: tuple[str, ...] = ("uL",)
    marking: str = "distance"
    max_distance: int | None = None
    proportions: bool = False

    def __post_init__(self) -> None:
        unknown = [relation for relation in self.relations if relation not in _GATHER]
        if unknown:
            raise ValueError(f"relation {unknown[0]!r}: choose from {', '.join(_GATHER)}")
        check_choice("marking", self.marking, ("distance", "root", "none"))

    @property
    def name(self) -> str:
        return ", ".join(self.relations) + (" (proportions)" if self.proportions else "")

    def start(self, graph: Neighbourhoods) -> Rows:
        if self.marking == "distance":
            mark = graph.distances if self.max_distance is None else np.minimum(graph.distances, self.max_distance)
        else:
            mark = np.eye(graph.nodes, dtype=np.int64) * (self.marking == "root")
        return np.concatenate([mark[:, :, None], graph.over_pairs(graph.types[None])], axis=-1)

    def gather(self, graph: Neighbourhoods, colours: Colours, count: int) -> list[Rows]:
        neighbours = graph.closed_neighbours if self.proportions else graph.neighbours
        gathered = [_GATHER[relation](colours, neighbours) for relation in self.relations]
        return [_reduce(rows) for rows in gathered] if self.proportions else gathered


class FolkloreRefinement:
    """2-FWL (as strong as 3-WL): a pair (u, v) sees, for every node w, the colours of (u, w) and (w, v) together."""

    name = "2-FWL"

    def start(self, graph: Neighbourhoods) -> Rows:
        relation = graph.adjacency + 2 * np.eye(graph.nodes, dtype=np.int64)
        ends = graph.over_pairs(graph.types[:, None]), graph.over_pairs(graph.types[None])
        return np.concatenate([relation[:, :, None], *ends], axis=-1)

    def gather(self, graph: Neighbourhoods, colours: Colours, count: int) -> list[Rows]:
        # Narrow integers sort several times faster; they still hold every pair of colours and the filling -1.
        kind = np.int16 if count <= 181 else np.int32 if count <= 46340 else np.int64
        colours = colours.astype(kind)
        through = colours[:, None, :] * kind(count) + colours.T[None, :, :]
        through.sort(axis=-1)
        return [through]


@dataclass(frozen=True)
class Comparison:
    """How two graphs fared under a refinement.

    Attributes:
        separated: Their invariants differ.
        rounds: Rounds after which they did, or after which the colours were stable.
    """

    separated: bool
    rounds: int

    def __bool__(self) -> bool:
        return self.separated


def compare(first: Data, second: Data, refinement: Refinement, max_rounds: int | None = None) -> Comparison:
    """Refine two graphs together until they are separated or nothing changes any more.

    Args:
        first, second: Graphs with ``edge_index`` (directions, self-loops and repetitions are ignored) and, if nodes
            have types, integer ``x``.
        refinement: The rule.
        max_rounds: Give up after so many rounds (as a network with so many layers would).
    """
    rounds = -1
    for rounds, (_, classes) in enumerate(refine([first, second], refinement, max_rounds)):
        if classes[0] != classes[1]:
            return Comparison(True, rounds)
    return Comparison(False, rounds)


def classify(
    graphs: Sequence[Data], refinement: Refinement, max_rounds: int | None = None
) -> Int[np.ndarray, " graphs"]:
    """Number the classes of graphs that the refinement cannot tell apart, in order of appearance."""
    *_, (_, classes) = refine(graphs, refinement, max_rounds)
    return classes


def refine(
    graphs: Sequence[Data], refinement: Refinement, max_rounds: int | None = None
) -> Iterator[tuple[list[Colours], Int[np.ndarray, " graphs"]]]:
    """Colours of all graphs after 0, 1, 2, ... rounds, and the class of each graph by its invariant, until nothing
    changes.

    Colours are comparable between the graphs of one call and one round.
    """
    views = [Neighbourhoods.of(graph) for graph in graphs]
    columns = {view.types.shape[1] for view in views}
    if len(columns) > 1:
        raise ValueError(f"graphs have {sorted(columns)} columns of node types in x: compare like with like")
    colours, count = _number_jointly([refinement.start(view) for view in views])
    done = 0
    while True:
        yield colours, _invariants(colours)
        if done == max_rounds:
            return
        gathered = [refinement.gather(view, own, count) for view, own in zip(views, colours)]
        blocks = [_number_jointly([rows[k] for rows in gathered])[0] for k in range(len(gathered[0]))] if graphs else []
        signatures = [
            np.stack(np.broadcast_arrays(own, *(block[g] for block in blocks)), axis=-1)
            for g, own in enumerate(colours)
        ]
        colours, refined = _number_jointly(signatures)
        if refined == count:
            return
        count, done = refined, done + 1


@dataclass(frozen=True)
class Neighbourhoods:
    """A graph as refinements read it: simple, undirected, with integer node types."""

    adjacency: Bool[np.ndarray, "n n"]
    types: Int[np.ndarray, "n columns"]
    memory: dict[str, Any] = field(default_factory=dict)  # what a refinement computes once a graph

    @classmethod
    def of(cls, graph: Data) -> Neighbourhoods:
        nodes = int(graph.num_nodes or 0)
        adjacency = np.zeros((nodes, nodes), dtype=bool)
        if graph.edge_index is not None:
            source, target = graph.edge_index.cpu().numpy()
            adjacency[source, target] = adjacency[target, source] = True
        np.fill_diagonal(adjacency, False)
        return cls(adjacency, _node_types(graph, nodes))

    @property
    def nodes(self) -> int:
        return len(self.adjacency)

    def over_pairs(self, rows: Rows) -> Rows:
        """The same rows for every root [1, n, columns] or for every node [n, 1, columns], as [n, n, columns]."""
        return np.broadcast_to(rows, (self.nodes, self.nodes, rows.shape[-1]))

    @cached_property
    def neighbours(self) -> Int[np.ndarray, "n most"]:
        """Neighbours of each node, filled up with n."""
        return _lists(self.adjacency)

    @cached_property
    def closed_neighbours(self) -> Int[np.ndarray, "n most"]:
        """The same with the node itself among them."""
        return _lists(self.adjacency | np.eye(self.nodes, dtype=bool))

    @cached_property
    def distances(self) -> Int[np.ndarray, "n n"]:
        """Lengths of shortest paths; -1 where there is none."""
        if self.nodes == 0:
            return np.zeros((0, 0), dtype=np.int64)
        lengths = shortest_path(csr_matrix(self.adjacency), unweighted=True, directed=False)
        return np.where(np.isinf(lengths), NONE, lengths).astype(np.int64)


def _node_types(graph: Data, nodes: int) -> Int[np.ndarray, "n columns"]:
    if graph.x is None:
        return np.zeros((nodes, 0), dtype=np.int64)
    x = graph.x.cpu().numpy()
    if x.dtype.kind not in "iub":
        raise ValueError(f"node features of type {x.dtype}: colour refinement needs integer node types in x")
    return x.reshape(nodes, -1 if nodes else int(np.prod(x.shape[1:]))).astype(np.int64)


def _lists(adjacency: Bool[np.ndarray, "n n"]) -> Int[np.ndarray, "n most"]:
    nodes = len(adjacency)
    most = int(adjacency.sum(axis=1).max(initial=0))
    # Sorting the complement brings the neighbours, in order, to the front.
    front = np.argsort(~adjacency, axis=1, kind="stable")[:, :most]
    return np.where(np.take_along_axis(adjacency, front, axis=1), front, nodes)


def _along_edges(colours: Int[np.ndarray, "m n"], neighbours: Int[np.ndarray, "n most"]) -> Int[np.ndarray, "m n most"]:
    """In each row of colours, the sorted colours of every node's neighbours."""
    filled = np.concatenate([colours, np.full((len(colours), 1), NONE, dtype=colours.dtype)], axis=1)
    return np.sort(filled[:, neighbours], axis=-1)


def _across_copies(colours: Colours, neighbours: Int[np.ndarray, "n most"]) -> Rows:
    return _along_edges(colours.T, neighbours).transpose(1, 0, 2)


_GATHER: dict[str, Callable[[Colours, Int[np.ndarray, "n most"]], Rows]] = {
    "uL": _along_edges,
    "vL": _across_copies,
    "vv": lambda colours, _: np.diagonal(colours)[None, :, None],
    "uu": lambda colours, _: np.diagonal(colours)[:, None, None],
    "vu": lambda colours, _: colours.T[:, :, None],
    "uG": lambda colours, _: np.sort(colours, axis=1)[:, None, :],
    "vG": lambda colours, _: np.sort(colours.T, axis=1)[None, :, :],
}


def _reduce(rows: Rows) -> Rows:
    """Multisets up to scaling: all multiplicities divided by their greatest common divisor."""
    flat = np.ascontiguousarray(rows).reshape(int(np.prod(rows.shape[:-1])), rows.shape[-1])
    return _reduce_rows(flat).reshape(rows.shape)


def _invariants(colours: Sequence[Colours]) -> Int[np.ndarray, " graphs"]:
    """Number the graphs by the multiset of their colours, for pairs by the multiset of the multisets of their rows."""
    colours = list(colours)
    while colours and colours[0].ndim > 0:
        colours = multiset_colours(colours)
    return np.array(colours, dtype=np.int64)


def multiset_colours(colours: Sequence[Colours]) -> list[Colours]:
    """Number the multisets along the last axis: of pairs, a colour for each row."""
    return _number_jointly([np.sort(own, axis=-1) for own in colours])[0]


def _number_jointly(blocks: Sequence[Rows]) -> tuple[list[Colours], int]:
    """Number equal rows alike over all blocks, from 0 in order of appearance; also how many different ones there are.

    Rows of different blocks may differ in length: the shorter ones count as filled up with -1 in front.
    """
    bounds = np.cumsum([0] + [int(np.prod(block.shape[:-1])) for block in blocks])
    width = max((block.shape[-1] for block in blocks), default=0)
    rows = np.full((bounds[-1], width), NONE, dtype=np.result_type(np.int16, *blocks))
    for block, first, last in zip(blocks, bounds[:-1], bounds[1:]):
        rows[first:last, width - block.shape[-1] :] = block.reshape(last - first, block.shape[-1])
    numbers, count = _number_rows(rows)
    parts = zip(blocks, bounds[:-1], bounds[1:])
    return [numbers[first:last].reshape(block.shape[:-1]) for block, first, last in parts], count


@njit(cache=True, nogil=True)
def _number_rows(rows: Int[np.ndarray, "rows width"]) -> tuple[Int[np.ndarray, " rows"], int]:
    """A hash table that proposes, and a comparison of whole rows that decides."""
    total, width = rows.shape
    size = 16
    while size < 2 * total:
        size *= 2
    slots = np.full(size, NONE, dtype=np.int64)
    example = np.empty(total, dtype=np.int64)  # a row of each number
    numbers = np.empty(total, dtype=np.int64)
    count = 0
    for i in range(total):
        code = np.uint64(width)
        for j in range(width):
            code = (code ^ np.uint64(rows[i, j])) * np.uint64(0x9E3779B97F4A7C15)
            code ^= code >> np.uint64(29)
        slot = np.int64(code & np.uint64(size - 1))
        while slots[slot] >= 0 and not _equal(rows[example[slots[slot]]], rows[i]):
            slot = (slot + 1) % size
        if slots[slot] < 0:
            slots[slot] = count
            example[count] = i
            count += 1
        numbers[i] = slots[slot]
    return numbers, count


@njit(cache=True, nogil=True)
def _equal(first: Int[np.ndarray, " width"], second: Int[np.ndarray, " width"]) -> bool:
    for j in range(first.size):  # noqa: SIM110 (a generator would not compile)
        if first[j] != second[j]:
            return False
    return True


@njit(cache=True, nogil=True)
def _reduce_rows(rows: Int[np.ndarray, "rows width"]) -> Int[np.ndarray, "rows width"]:
    """In each sorted row, divide the multiplicities by their greatest common divisor; what remains stays at the end."""
    total, width = rows.shape
    reduced = np.full_like(rows, NONE)
    for i in range(total):
        divisor, run = 0, 0
        for j in range(width):
            if rows[i, j] == NONE:
                continue
            run += 1
            if j + 1 == width or rows[i, j + 1] != rows[i, j]:
                divisor, run = _common_divisor(divisor, run), 0
        kept, seen = width, 0
        for j in range(width - 1, -1, -1):
            if rows[i, j] == NONE:
                break
            seen += 1
            if seen == divisor:
                kept, seen = kept - 1, 0
                reduced[i, kept] = rows[i, j]
    return reduced


@njit(cache=True, nogil=True)
def _common_divisor(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a
