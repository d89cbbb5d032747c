"""Exact colour refinement on pairs (S, v) of a node set and a node: what CS-GNN can tell apart with given sets.

    chi_{t+1}(S, v) = number of ( chi_t(S, v), {{ chi_t(S, v') : v' ~ v }}, {{ chi_t(S', v) : S' ~ S }},
                                  {{ chi_t(S', v) : v in S' }} )

with S' ~ S if some edge of the graph joins a node of S to one of S', S and S' different. Compared to that of
:mod:`coset.graphs.wl.colour_refinement` the first index runs over a family of sets; with the singletons it is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch_geometric.data import Data

from coset.graphs.encodings.coarsening import Adjacency, Family, Settings, coarsen
from coset.graphs.wl.colour_refinement import Colours, Neighbourhoods, Rows

NONE = -1
MARKS = ("simple", "size", "minimum", "learned")


@dataclass(frozen=True)
class SetRefinement:
    """Refinement on pairs of a set and a node.

    Args:
        family: The sets of a graph, from its adjacency; see :data:`FAMILIES`.
        marking: What the first colour of (S, v) says besides the type of v: whether v is in S (``simple``), that and
            |S| (``size``), the smallest distance of v from S (``minimum``), all its distances (``learned``).
        relations: Any of ``internal``, ``external``, ``point``.
        label: Name of the row it makes in a table.
    """

    family: Callable[[Adjacency], Family]
    marking: str = "simple"
    relations: tuple[str, ...] = ("internal", "external", "point")
    label: str = "sets"

    def __post_init__(self) -> None:
        if self.marking not in MARKS:
            raise ValueError(f"marking={self.marking!r}: choose {', '.join(MARKS)}")
        unknown = [relation for relation in self.relations if relation not in ("internal", "external", "point")]
        if unknown:
            raise ValueError(f"relation {unknown[0]!r}: choose from internal, external, point")

    @property
    def name(self) -> str:
        return self.label

    def start(self, graph: Neighbourhoods) -> Rows:
        sets = self._sets(graph)
        distance = np.where(graph.distances == NONE, graph.nodes, graph.distances)
        if self.marking == "minimum":
            mark = np.stack([distance[members].min(axis=0) for members in sets])[:, :, None]
        elif self.marking == "learned":
            mark = np.full((*sets.shape, int(sets.sum(axis=1).max())), NONE)
            for row, members in enumerate(sets):
                mark[row, :, mark.shape[2] - members.sum() :] = np.sort(distance[members].T, axis=1)
        else:
            mark = sets.astype(np.int64)[:, :, None]
        if self.marking == "size":
            size = np.broadcast_to(sets.sum(axis=1)[:, None, None], (*sets.shape, 1))
            mark = np.concatenate([mark, size], axis=-1)
        # Types come first: what is filled up in front of shorter rows then never stands where a mark stands.
        types = np.broadcast_to(graph.types[None], (*sets.shape, graph.types.shape[1]))
        return np.concatenate([mark, types], axis=-1)

    def gather(self, graph: Neighbourhoods, colours: Colours, count: int) -> list[Rows]:
        sets = self._sets(graph)
        gathered = []
        if "internal" in self.relations:
            gathered.append(_sorted_at(colours, graph.neighbours))
        if "external" in self.relations:
            coarse = Neighbourhoods(coarse_adjacency(graph.adjacency, sets), np.zeros((len(sets), 0), dtype=np.int64))
            gathered.append(_sorted_at(colours.T, coarse.neighbours).transpose(1, 0, 2))
        if "point" in self.relations:
            gathered.append(np.sort(np.where(sets, colours, NONE).T, axis=-1)[None])
        return gathered

    def _sets(self, graph: Neighbourhoods) -> Family:
        sets = _family(self.family, graph.nodes, graph.adjacency.tobytes())
        if not len(sets):
            raise ValueError(f"a graph of {graph.nodes} nodes has no sets in the family {self.name!r}")
        return sets


@lru_cache(maxsize=64)
def _family(build: Callable[[Adjacency], Family], nodes: int, adjacency: bytes) -> Family:
    return build(np.frombuffer(adjacency, dtype=bool).reshape(nodes, nodes))


def coarse_adjacency(adjacency: Adjacency, sets: Family) -> Bool[np.ndarray, "sets sets"]:
    """Which sets are joined by an edge of the graph; no set with itself."""
    members = sets.astype(np.int64)
    joined = members @ adjacency.astype(np.int64) @ members.T > 0
    np.fill_diagonal(joined, False)
    return joined


def sum_graph(graph: Data, family: Callable[[Adjacency], Family]) -> Data:
    """The graph and its coarsened graph side by side, every set joined to its members; sets have a type of their own.

    Message passing on it is what the paper compares CS-GNN with.
    """
    view = Neighbourhoods.of(graph)
    sets = family(view.adjacency)
    coarse = coarse_adjacency(view.adjacency, sets)
    joined = np.block([[view.adjacency, sets.T], [sets, coarse]])
    types = torch.cat([torch.zeros(view.nodes, dtype=torch.long), torch.ones(len(sets), dtype=torch.long)])
    return Data(edge_index=torch.from_numpy(np.stack(np.nonzero(joined))), x=types.unsqueeze(1), num_nodes=len(types))


def open_neighbourhoods(adjacency: Adjacency) -> Family:
    """The neighbours of every node that has some."""
    return _unique(adjacency[adjacency.any(axis=1)])


def spheres(adjacency: Adjacency) -> Family:
    """The nodes at distance two from every node that has some."""
    two = (adjacency.astype(np.int64) @ adjacency > 0) & ~adjacency & ~np.eye(len(adjacency), dtype=bool)
    return _unique(two[two.any(axis=1)])


def complements(adjacency: Adjacency) -> Family:
    """All nodes but one."""
    return ~np.eye(len(adjacency), dtype=bool) if len(adjacency) > 1 else np.eye(1, dtype=bool)


def degree_classes(adjacency: Adjacency) -> Family:
    """Nodes of equal degree together."""
    degree = adjacency.sum(axis=1)
    return np.unique(degree)[:, None] == degree[None]


def _named(method: str, settings: Settings | None = None) -> Callable[[Adjacency], Family]:
    def family(adjacency: Adjacency) -> Family:
        return coarsen(adjacency, method, settings)

    return family


FAMILIES: dict[str, Callable[[Adjacency], Family]] = {
    "whole": _named("whole"),
    "degree classes": degree_classes,
    "singletons": _named("singletons"),
    "closed neighbourhoods": _named("balls"),
    "open neighbourhoods": open_neighbourhoods,
    "spheres": spheres,
    "complements": complements,
    "edges": _named("edges"),
    "pairs": _named("pairs"),
}
"""Families that are functions of the graph alone, by name."""


def _unique(sets: Family) -> Bool[np.ndarray, "different n"]:
    return np.unique(sets, axis=0) if len(sets) else sets


def _sorted_at(colours: Int[np.ndarray, "m n"], neighbours: Int[np.ndarray, "n most"]) -> Int[np.ndarray, "m n most"]:
    filled = np.concatenate([colours, np.full((len(colours), 1), NONE, dtype=colours.dtype)], axis=1)
    return np.sort(filled[:, neighbours], axis=-1)
