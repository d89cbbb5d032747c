"""Liftings: graphs to complexes, as PyG transforms. Edges become cells of rank 1; rings, cliques, ... of rank 2.

Every lifting here commutes with renumbering the nodes. (A cycle basis would not, and is not offered.) Points without
edges are triangulated in :mod:`coset.topology.data.meshes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from coset.core.errors import CosetError, check_choice
from coset.core.registry import Registry
from coset.topology import kernels
from coset.topology.data.batches import ComplexData, to_data
from coset.topology.data.cells import Array, Cells, number_rows
from coset.topology.data.complexes import Complex, Kind, from_faces

REMEMBERED = 4096
"""Complexes that a lifting keeps, so that a graph seen again is not searched again."""


class Graph(NamedTuple):
    """An undirected graph without loops: edges u < v in the order given, and the same as CSR with sorted rows."""

    edges: Int[Array, "edges 2"]
    indptr: Int[Array, " nodes_and_one"]
    indices: Int[Array, " entries"]

    @property
    def nodes(self) -> int:
        return len(self.indptr) - 1

    @property
    def adjacency(self) -> csr_matrix:
        return csr_matrix((np.ones(len(self.indices)), self.indices, self.indptr), shape=(self.nodes, self.nodes))


LIFTINGS: Registry[type[Lifting]] = Registry("lifting")


class LiftingOptions(NamedTuple):
    """What may be said of a lifting that is asked for by name.

    Attributes:
        longest: Nodes of the longest ring that becomes a cell.
        rings: ``simple`` or ``induced``.
    """

    longest: int = 18
    rings: Literal["simple", "induced"] = "simple"


@LIFTINGS.register("none")
class Lifting(BaseTransform):
    """A graph as a :class:`ComplexData`: its features ``x`` at rank 0, ``edge_attr`` as ``x_1``, other attributes kept.

    A subclass says which cells the graph has in :meth:`cells`.

    Args:
        boundary: Incidence of edges and 2-cells by boundary instead of inclusion.
    """

    kind: Kind = "combinatorial"
    top = 2

    def __init__(self, boundary: bool = False):
        self.boundary = boundary
        self._known: OrderedDict[tuple[int, bytes], Complex] = OrderedDict()

    @classmethod
    def of(cls, options: LiftingOptions) -> Lifting:
        """The lifting that a recipe or a command asks for by name; it takes of the options what it knows."""
        return cls()

    def cells(self, graph: Graph) -> Mapping[int, Cells]:
        """Cells of rank 2 and above, different ones and right for the kind of complex; none by default."""
        return {}

    def complex(self, data: Data) -> Complex:
        """The lifted complex itself.

        Raises:
            CosetError: An edge is listed twice or in one direction only, or joins a node to itself, or the lifting is
                too large.
        """
        nodes = int(data.num_nodes or 0)
        index = np.zeros((2, 0), np.int64) if data.edge_index is None else data.edge_index.cpu().numpy()
        return self._lift(nodes, index)

    def forward(self, data: Data) -> ComplexData:
        lifted = to_data(self.complex(data), boundary=self.boundary, ranks=3)
        for key, value in data.to_dict().items():
            if key not in ("edge_index", "edge_attr", "num_nodes"):
                lifted[key] = value
        if data.edge_attr is not None:
            lifted.x_1 = data.edge_attr[data.edge_index[0] < data.edge_index[1]]
        return lifted

    def _lift(self, nodes: int, index: Int[Array, "2 directed"]) -> Complex:
        key = (nodes, index.tobytes())
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        if nodes < 1:
            raise CosetError("a graph without nodes is no complex")
        edges, *csr, wrong, where = kernels.undirected_edges(np.ascontiguousarray(index), nodes)
        if wrong:
            _refuse(wrong, index[:, where], nodes)
        cells = {1: Cells.rows(edges), **self.cells(Graph(edges, *csr))}
        self._known[key] = lifted = Complex.known(nodes, cells, self.kind)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return lifted

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_known": OrderedDict()}

    def __repr__(self) -> str:
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


@LIFTINGS.register("ring")
class RingLift(Lifting):
    """Cycles of 3 to ``longest`` nodes as cells of rank 2.

    Args:
        longest: Nodes of the longest cycle.
        rings: ``simple`` for all cycles, ``induced`` for those without chords (as in CIN).
        distinct: ``vertices`` keeps one cycle of every set of nodes, ``cycles`` all.
        boundary: Incidence of edges and rings by boundary instead of inclusion. With simple rings by ``vertices`` it is
            refused: which of the cycles of a set of nodes is kept, and so which edges bound it, would follow the
            numbers of the nodes.
        most: Refuse a graph with more cycles.

    Raises:
        CosetError: The options do not go together.
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
        if boundary and (rings, distinct) == ("simple", "vertices"):
            raise CosetError("boundaries of simple rings depend on how nodes are numbered: give distinct='cycles' too")
        super().__init__(boundary)
        self.longest, self.rings, self.distinct, self.most = longest, rings, distinct, most

    @classmethod
    def of(cls, options: LiftingOptions) -> RingLift:
        return cls(options.longest, options.rings)

    def cells(self, graph: Graph) -> Mapping[int, Cells]:
        induced, by_vertices = self.rings == "induced", self.distinct == "vertices"
        members, ptr, too_many = kernels.rings(
            graph.indptr, graph.indices, self.longest, induced, by_vertices, self.most
        )
        if too_many:
            raise CosetError(
                f"more than {self.most} rings of up to {self.longest} nodes: "
                "lower longest, use rings='induced', or raise most"
            )
        return {2: Cells(members, ptr)}


@LIFTINGS.register("clique")
class CliqueLift(Lifting):
    """Cliques of r + 1 nodes as cells of rank r, up to rank 2: the clique complex's triangles, also those of larger
    cliques."""

    kind: Kind = "simplicial"

    def cells(self, graph: Graph) -> Mapping[int, Cells]:
        return {2: Cells.rows(kernels.triangles(graph.indptr, graph.indices))}


@LIFTINGS.register("ball")
class BallLift(Lifting):
    """The closed k-hop balls of all nodes as cells of rank 2, equal ones once, those of one or two nodes left out."""

    def __init__(self, hops: int = 1):
        super().__init__()
        self.hops = hops

    def cells(self, graph: Graph) -> Mapping[int, Cells]:
        return {2: _distinct_sets(Cells(*kernels.balls(graph.indptr, graph.indices, self.hops)))}


Filter = Callable[[Graph], Float[Array, " nodes"]]


def eccentricities(graph: Graph) -> Float[Array, " nodes"]:
    """Hops from each node to the farthest one of its component."""
    return kernels.eccentricities(graph.indptr, graph.indices).astype(float)


def degrees(graph: Graph) -> Float[Array, " nodes"]:
    """Number of neighbours."""
    return np.diff(graph.indptr).astype(float)


@LIFTINGS.register("mapper")
class MapperLift(Lifting):
    """Clusters of Mapper as cells of rank 2: components of the preimages of overlapping intervals under a filter.

    The range of the filter over the nodes is covered by ``intervals`` intervals of equal length, each of which overlaps
    the next by the share ``overlap`` (Singh, Memoli, Carlsson, "Topological Methods for the Analysis of High
    Dimensional Data Sets and 3D Object Recognition", 2007). The nodes whose values lie in an interval, and the edges
    between them, fall into connected components; those of three nodes and more are the cells, equal ones once.

    Args:
        filter: ``eccentricity``, ``degree``, or a function of a :class:`Graph` that does not depend on the numbering.
        intervals: Number of intervals.
        overlap: Share of an interval that lies in the next one, below 1.
    """

    def __init__(self, filter: str | Filter = "eccentricity", intervals: int = 4, overlap: float = 0.25):
        super().__init__()
        if isinstance(filter, str):
            check_choice("filter", filter, tuple(_FILTERS))
        if intervals < 1 or not 0 <= overlap < 1:
            raise CosetError(f"intervals={intervals}, overlap={overlap}: at least 1, and from 0 to below 1")
        self.filter, self.intervals, self.overlap = filter, intervals, overlap

    def cells(self, graph: Graph) -> Mapping[int, Cells]:
        function = _FILTERS[self.filter] if isinstance(self.filter, str) else self.filter
        values = np.asarray(function(graph), dtype=float)
        low, span = values.min(), np.ptp(values)
        length = span / (1 + (self.intervals - 1) * (1 - self.overlap))
        sets = []
        for i in range(self.intervals if span else 1):
            begin = low + i * length * (1 - self.overlap)
            slack = 1e-9 * span  # a value on the border belongs to both sides, whatever the rounding
            inside = np.flatnonzero((values >= begin - slack) & (values <= begin + length + slack))
            sets.append(_component_sets(graph, inside))
        return {2: _distinct_sets(_joined(sets))}


class ClusterLift(Lifting):
    """Pooling as a lifting: the clusters of a coarsening are cells of rank 2, equal ones once, small ones left out.

    Args:
        key: Attribute of the graph with the clusters: an integer a node (negative for none), or a boolean matrix
            [nodes, clusters] where clusters overlap.
        least: Nodes of the smallest cluster that becomes a cell. With 2, a cluster that is an edge stays that only.
    """

    def __init__(self, key: str = "cluster", least: int = 3):
        super().__init__()
        if least < 2:
            raise CosetError(f"least={least}: single nodes are cells of rank 0 already")
        self.key, self.least = key, least

    def complex(self, data: Data) -> Complex:
        bare = super().complex(data)
        if self.key not in data:
            raise CosetError(f"the graph has no attribute {self.key!r} with the cluster of each node")
        clusters = self._clusters(data)
        if self.least == 2:  # a cell has one rank
            edges = {tuple(sorted(edge)) for edge in bare.cells[1]}
            clusters = Cells.of([cell for cell in clusters if cell not in edges])
        return Complex.known(len(bare.cells[0]), {1: bare.cells[1], 2: clusters}, self.kind)

    def _clusters(self, data: Data) -> Cells:
        given = np.asarray(data[self.key])
        if len(given) != data.num_nodes or given.ndim > 2:
            raise CosetError(f"{self.key} has shape {list(given.shape)}; expected {data.num_nodes} rows, one a node")
        if given.ndim == 1:
            node, cluster = np.flatnonzero(given >= 0), given[given >= 0]
        else:
            cluster, node = np.nonzero(given.T)
        order = np.lexsort((node, cluster))
        sizes = np.unique(cluster, return_counts=True)[1]
        return _distinct_sets(Cells(node[order].astype(np.int64), np.cumsum(np.r_[0, sizes])), self.least)


class FaceLift(BaseTransform):
    """A PyG mesh, ``face`` [3, faces], as a complex with its triangles as cells of rank 2; all attributes are kept."""

    def forward(self, data: Data) -> ComplexData:
        if data.face is None:
            raise CosetError("the data has no face [3, faces]: it is no mesh")
        lifted = to_data(self.complex(data), ranks=3)
        for key, value in data.to_dict().items():
            if key not in ("face", "edge_index", "num_nodes"):
                lifted[key] = value
        return lifted

    def complex(self, data: Data) -> Complex:
        """The lifted complex itself; edges come from the triangles."""
        polygons = from_faces(data.face.t().cpu().numpy(), data.num_nodes)
        return Complex(len(polygons.cells[0]), {1: polygons.cells[1], 2: polygons.cells[2]}, "simplicial")

    def __repr__(self) -> str:
        return "FaceLift()"


_FILTERS: dict[str, Filter] = {"eccentricity": eccentricities, "degree": degrees}


def ring_complex(graph: nx.Graph, longest: int, rings: Literal["simple", "induced"] = "simple") -> Complex:
    """The ring complex of a networkx graph; its vertices are numbered by :func:`from_networkx`."""
    return RingLift(longest, rings).complex(from_networkx(graph))


def from_networkx(graph: nx.Graph) -> Data:
    """A networkx graph as a bare PyG graph.

    Nodes 0 to n - 1 keep their numbers; with any other labels (strings, tuples, ...) node i is the i-th of
    ``graph.nodes``. Directed graphs must have both directions of every edge.

    Raises:
        CosetError: A multigraph with parallel edges.
    """
    n = graph.number_of_nodes()
    number = {node: node if set(graph) == set(range(n)) else i for i, node in enumerate(graph)}
    ends = [(number[u], number[v]) for u, v in graph.edges()]
    if graph.is_multigraph() and len(set(ends)) < len(ends):
        u, v, _ = next(edge for edge in graph.edges(keys=True) if graph.number_of_edges(*edge[:2]) > 1)
        raise CosetError(f"edge {u!r} - {v!r} is there {graph.number_of_edges(u, v)} times: nx.Graph(graph) keeps one")
    edges = torch.tensor(sorted(ends if graph.is_directed() else map(sorted, ends)), dtype=torch.long)
    edges = edges.reshape(-1, 2).t()
    return Data(edge_index=edges if graph.is_directed() else torch.cat([edges, edges.flip(0)], 1), num_nodes=n)


def _refuse(wrong: int, edge: Int[Array, " 2"], nodes: int) -> None:
    u, v = edge.tolist()
    if wrong == kernels.OUTSIDE:
        raise CosetError(f"edge {u} -> {v} leaves the nodes 0 to {nodes - 1}")
    if wrong == kernels.LOOP:
        raise CosetError(f"edge {u} -> {v} is a self-loop; remove it (torch_geometric.transforms.RemoveSelfLoops)")
    if wrong == kernels.TWICE:
        raise CosetError(f"edge {u} -> {v} is listed twice; keep one of them (torch_geometric.utils.coalesce)")
    raise CosetError(
        f"edge {u} -> {v} has no reverse: list every edge in both directions (torch_geometric.transforms.ToUndirected)"
    )


def _component_sets(graph: Graph, nodes: Int[Array, " chosen"]) -> Cells:
    """Connected components of the graph on some of its nodes, as sets."""
    label = connected_components(graph.adjacency[nodes][:, nodes], directed=False)[1]
    order = np.argsort(label, kind="stable")
    return Cells(nodes[order].astype(np.int64), np.cumsum(np.r_[0, np.bincount(label)]))


def _joined(parts: list[Cells]) -> Cells:
    sizes = np.concatenate([part.sizes for part in parts])
    return Cells(np.concatenate([part.members for part in parts]), np.cumsum(np.r_[0, sizes]))


def _distinct_sets(sets: Cells, least: int = 3) -> Cells:
    """Sorted sets of at least so many members, the first of equal ones, in their order."""
    chosen = []
    for size in np.unique(sets.sizes):
        number, rows = sets.of_size(size)
        if size >= least:
            chosen.append(number[np.unique(number_rows(rows), return_index=True)[1]])
    kept = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    members = [sets.members[a:b] for a, b in zip(sets.ptr[kept], sets.ptr[kept + 1])]
    return Cells(np.concatenate([np.zeros(0, np.int64), *members]), np.cumsum(np.r_[0, sets.sizes[kept]]))
