"""Links: which pairs of nodes are joined, learned from some of a graph's edges and tried on others.

As the field does it (Kipf and Welling 2016; Hu et al., "Open Graph Benchmark", NeurIPS 2020; PyG's
``RandomLinkSplit``): edges of validation and test are not in the graph that messages run on (those of validation are,
when the test is judged), and each part has pairs without an edge, which stay the same; training draws its own anew.

A graph of links has ``edge_label_index`` [2, rows], edges first (each once, u < v), then pairs without one; ``y``
[rows, 1] of 1 and 0; and ``edge_label_part`` [rows]: 0 for training, 1 for validation, 2 for the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.graphs.data.splits import NAMES
from coset.runs.seeds import derived_seed

FEW = 1 << 16  # pairs of a graph, up to which all of them are looked at


def edges_once(graph: Data) -> Int[Tensor, "2 edges"]:
    """The edges with u < v, sorted."""
    ends = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]]
    return ends[:, torch.argsort(ends[0] * int(graph.num_nodes or 0) + ends[1])]


def open_pairs(graph: Data, most: int) -> Int[Tensor, "2 pairs"]:
    """All pairs u < v without an edge.

    Raises:
        CosetError: There are more than ``most`` pairs.
    """
    nodes = int(graph.num_nodes or 0)
    if nodes * (nodes - 1) // 2 > most:
        raise CosetError(
            f"graph {graph.id} has {nodes * (nodes - 1) // 2:,} pairs of nodes, more than {most:,}; name those "
            "that are asked for: pairs.csv with columns source and target beside edges.csv, or edge_label_index of PyG"
        )
    pairs = torch.triu_indices(nodes, nodes, 1)
    return pairs[:, ~torch.isin(_codes(pairs, nodes), _codes(edges_once(graph), nodes))]


def pairs_without_edge(
    nodes: int, edges: Int[Tensor, "2 edges"], count: int, generator: torch.Generator
) -> Int[Tensor, "2 pairs"]:
    """So many different pairs u < v that are none of the edges (u < v), at random; fewer if there are no more.

    Args:
        nodes: Of the graph.
        edges: Pairs that are not to be drawn.
        count: How many.
        generator: Of the choice.
    """
    known, total = _codes(edges, nodes), nodes * (nodes - 1) // 2
    if total <= max(FEW, 4 * count):
        pairs = torch.triu_indices(nodes, nodes, 1)
        pairs = pairs[:, ~torch.isin(_codes(pairs, nodes), known)]
        return pairs[:, torch.randperm(pairs.size(1), generator=generator)[:count]]
    found = known.new_zeros(0)
    while len(found) < count:  # at least half of the pairs are free, or the graph would be dense
        ends = torch.randint(nodes, (2, 2 * count), generator=generator)
        drawn = _codes(ends.sort(0).values, nodes)[ends[0] != ends[1]]
        drawn = torch.cat([found, drawn[~torch.isin(drawn, known)]])
        values, first = drawn.unique(return_inverse=True)
        order = torch.full_like(values, len(drawn)).scatter_reduce(0, first, torch.arange(len(drawn)), "amin")
        found = drawn[order.sort().values]  # each once, in the order of their draws
    return torch.stack([found[:count] // nodes, found[:count] % nodes])


def with_links(
    graphs: Sequence[Data], parts: Mapping[str, Tensor], negatives: int, seed: int
) -> tuple[list[Data], dict[str, Tensor]]:
    """Graphs of links, and splits of their rows.

    Args:
        graphs: With their edges.
        parts: Edges (each once, graph by graph, as :func:`edges_once` lists them) of train, val and test.
        negatives: Pairs without an edge for each edge of validation and test; training has as many as edges.
        seed: Of these pairs.
    """
    made: list[Data] = []
    rows: dict[str, list[Tensor]] = {name: [] for name in NAMES if name in parts}
    edges_before = rows_before = 0
    for number, graph in enumerate(graphs):
        ends = edges_once(graph)
        generator = torch.Generator().manual_seed(derived_seed(seed, number))
        owned = {name: own[(own >= edges_before) & (own < edges_before + ends.size(1))] - edges_before
                 for name, own in parts.items()}  # fmt: skip
        wanted = {name: len(own) * (1 if name == "train" else negatives) for name, own in owned.items()}
        drawn = pairs_without_edge(int(graph.num_nodes or 0), ends, sum(wanted.values()), generator)
        shares = _shares(list(wanted.values()), drawn.size(1))
        edge_part = torch.full((ends.size(1),), -1)
        for name, own in owned.items():
            edge_part[own] = NAMES.index(name)
        drawn_part = torch.repeat_interleave(torch.tensor([NAMES.index(name) for name in wanted]), torch.tensor(shares))
        graph = graph.clone()
        graph.edge_label_index = torch.cat([ends, drawn], dim=1)
        graph.edge_label_part = torch.cat([edge_part, drawn_part])
        graph.y = torch.cat([torch.ones(ends.size(1), 1), torch.zeros(drawn.size(1), 1)])
        for name, kept in rows.items():
            kept.append(rows_before + (graph.edge_label_part == NAMES.index(name)).nonzero().squeeze(1))
        made.append(graph)
        edges_before, rows_before = edges_before + ends.size(1), rows_before + len(graph.y)
    return made, {name: torch.cat(kept) for name, kept in rows.items()}


def asked_of(graph: Data, rows: Bool[Tensor, " rows"], hidden: Bool[Tensor, " rows"]) -> Data:
    """The graph with some rows of its pairs, and without the edges among its pairs that are hidden."""
    asked = without_edges(graph, graph.edge_label_index[:, hidden & (graph.y[:, 0] == 1)])
    asked.edge_label_index, asked.y = graph.edge_label_index[:, rows], graph.y[rows]
    del asked.edge_label_part
    return asked


def hidden_in(graph: Data, split: str) -> Bool[Tensor, " rows"]:
    """Pairs whose edges messages must not run on when a split is judged: those of training see training's alone."""
    return graph.edge_label_part > (1 if split == "test" else 0)


def without_edges(graph: Data, ends: Int[Tensor, "2 edges"]) -> Data:
    """A copy without some edges, in both directions."""
    graph, nodes = graph.clone(), int(graph.num_nodes or 0)
    kept = ~torch.isin(_codes(graph.edge_index.sort(0).values, nodes), _codes(ends.sort(0).values, nodes))
    graph.edge_index = graph.edge_index[:, kept]
    if "edge_attr" in graph:
        graph.edge_attr = graph.edge_attr[kept]
    graph.num_nodes = nodes
    return graph


def _codes(ends: Int[Tensor, "2 pairs"], nodes: int) -> Int[Tensor, " pairs"]:
    return ends[0] * nodes + ends[1]


def _shares(wanted: list[int], there: int) -> list[int]:
    """As wanted if so many are there, else in proportion."""
    total = sum(wanted)
    if there >= total:
        return wanted
    bounds = [there * sum(wanted[:at]) // total for at in range(len(wanted) + 1)]
    return [high - low for low, high in pairwise(bounds)]
