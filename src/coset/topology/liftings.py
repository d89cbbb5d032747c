"""Liftings: graphs to complexes, as PyG transforms. Edges become cells of rank 1; rings, cliques or balls of rank 2.

Every lifting here commutes with renumbering the nodes. (A cycle basis would not, and is not offered.)
"""

from __future__ import annotations

from typing import Literal

import networkx as nx
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from coset.errors import CosetError
from coset.topology.batches import ComplexData, to_data
from coset.topology.complexes import Cell, Complex, Kind


class Lifting(BaseTransform):
    """A graph as a :class:`ComplexData`: its features ``x`` at rank 0, ``edge_attr`` as ``x_1``, other attributes kept.

    A subclass says which cells the graph has in :meth:`cells`.

    Args:
        boundary: Incidence of edges and 2-cells by boundary instead of inclusion.
    """

    kind: Kind = "combinatorial"

    def __init__(self, boundary: bool = False):
        self.boundary = boundary

    def cells(self, graph: nx.Graph) -> dict[int, list[Cell]]:
        """Cells of rank 2 and above."""
        raise NotImplementedError

    def complex(self, data: Data) -> Complex:
        """The lifted complex itself.

        Raises:
            CosetError: An edge is listed in one direction only, or joins a node to itself, or the lifting is too large.
        """
        edges = _undirected(data)
        graph = nx.Graph()
        graph.add_nodes_from(range(int(data.num_nodes or 0)))
        graph.add_edges_from(edges)
        return Complex(graph.number_of_nodes(), {1: edges, **self.cells(graph)}, self.kind)

    def forward(self, data: Data) -> ComplexData:
        lifted = to_data(self.complex(data), boundary=self.boundary, ranks=3)
        for key, value in data.to_dict().items():
            if key not in ("edge_index", "edge_attr", "num_nodes"):
                lifted[key] = value
        if data.edge_attr is not None:
            lifted.x_1 = data.edge_attr[data.edge_index[0] < data.edge_index[1]]
        return lifted

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class RingLift(Lifting):
    """Cycles of 3 to ``longest`` nodes as cells of rank 2.

    Args:
        longest: Nodes of the longest cycle.
        rings: ``simple`` for all cycles, ``induced`` for those without chords (as in CIN).
        distinct: ``vertices`` keeps one cycle of every set of nodes, ``cycles`` all.
        boundary: Incidence of edges and rings by boundary instead of inclusion.
        most: Refuse a graph with more cycles.
    """

    kind: Kind = "cell"

    def __init__(
        self,
        longest: int = 18,
        rings: Literal["simple", "induced"] = "simple",
        distinct: Literal["vertices", "cycles"] = "vertices",
        boundary: bool = False,
        most: int = 10_000,
    ):
        if longest < 3:
            raise CosetError(f"longest={longest}: a ring has at least 3 nodes")
        if rings not in ("simple", "induced"):
            raise CosetError(f"rings={rings!r}: choose simple or induced")
        if distinct not in ("vertices", "cycles"):
            raise CosetError(f"distinct={distinct!r}: choose vertices or cycles")
        super().__init__(boundary)
        self.longest, self.rings, self.distinct, self.most = longest, rings, distinct, most

    def cells(self, graph: nx.Graph) -> dict[int, list[Cell]]:
        # Only the 2-core holds cycles; trees would be searched in vain.
        core = nx.k_core(graph, 2)
        find = nx.simple_cycles if self.rings == "simple" else nx.chordless_cycles
        found: dict[object, Cell] = {}
        for number, cycle in enumerate(find(core, length_bound=self.longest)):
            if number >= self.most:
                raise CosetError(
                    f"more than {self.most} rings of up to {self.longest} nodes: "
                    "lower longest, use rings='induced', or raise most"
                )
            found.setdefault(frozenset(cycle) if self.distinct == "vertices" else number, tuple(cycle))
        return {2: list(found.values())}


class CliqueLift(Lifting):
    """Cliques of r + 1 nodes as cells of rank r, up to rank 2: the clique complex's triangles, also those of larger
    cliques."""

    kind: Kind = "simplicial"

    def cells(self, graph: nx.Graph) -> dict[int, list[Cell]]:
        return {2: [tuple(clique) for clique in nx.enumerate_all_cliques(graph) if len(clique) == 3]}


class BallLift(Lifting):
    """The closed k-hop balls of all nodes as cells of rank 2, equal ones once, those of one or two nodes left out."""

    def __init__(self, hops: int = 1):
        super().__init__()
        self.hops = hops

    def cells(self, graph: nx.Graph) -> dict[int, list[Cell]]:
        balls = (frozenset(nx.single_source_shortest_path_length(graph, v, self.hops)) for v in graph)
        return {2: [tuple(sorted(ball)) for ball in dict.fromkeys(balls) if len(ball) > 2]}


def _undirected(data: Data) -> list[Cell]:
    """Edges (u, v) with u < v, in the order of ``edge_index``."""
    if data.edge_index is None:
        return []
    pairs = data.edge_index.t().tolist()
    there = set(map(tuple, pairs))
    for u, v in pairs:
        if u == v:
            raise CosetError(f"edge {u} -> {v} is a self-loop; remove it (torch_geometric.transforms.RemoveSelfLoops)")
        if (v, u) not in there:
            raise CosetError(
                f"edge {u} -> {v} has no reverse: list every edge in both directions "
                "(torch_geometric.transforms.ToUndirected)"
            )
    return [(u, v) for u, v in pairs if u < v]


def ring_complex(graph: nx.Graph, longest: int, rings: Literal["simple", "induced"] = "simple") -> Complex:
    """The ring complex of a networkx graph with nodes 0 to n - 1."""
    edges = [(min(e), max(e)) for e in graph.edges]
    cells = RingLift(longest, rings).cells(graph)
    return Complex(graph.number_of_nodes(), {1: edges, **cells}, "cell")


def as_graph(complex_: Complex) -> Data:
    """Vertices and edges of a complex as a PyG graph."""
    pairs = torch.tensor(complex_.cells.get(1, []), dtype=torch.long).reshape(-1, 2).t()
    return Data(edge_index=torch.cat([pairs, pairs.flip(0)], 1), num_nodes=len(complex_.cells[0]))
