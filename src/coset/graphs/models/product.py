"""The product of a batch of graphs with itself: what the subgraph networks of this package run on.

Pairs (s, v) of a marked root s and a node v of the same graph carry the features. The Cartesian product graph G [] G
joins (s, v) to (s, v') along the edges of G ("internal", inside the copy rooted at s) and to (s', v) ("external",
between copies whose roots are neighbours). Neither is written down: both are the relation of G, taken along axis 1
or axis 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import one_hot
from torch_geometric.data import Batch, Data

from coset.core.errors import check_choice
from coset.graphs.models.readouts import encode_nodes, node_encoder
from coset.nn.buffers import buffers
from coset.nn.norm_relu import add_repeated, covers, sum_repeated
from coset.relations import IndexSet, Product, Relation, broadcast
from coset.relations.structure import KEY, Structure
from coset.relations.verbs import kernels_apply

CHUNK = 1 << 14  # rows of pairs that are marked at a time


@dataclass
class PairGraph(Structure):
    """A batch of graphs seen as pairs (root, node).

    Attributes:
        roots: Marked roots of each graph; all its nodes unless some were sampled.
        nodes: Nodes of each graph.
        root_index: Global node number of every root.
        internal: Edges of the graphs.
        external: Edges between kept roots.
        edge_features: Features of the edges of ``internal``, if any.
        external_edges: Which of those edges remain in ``external``; ``None`` for all.
    """

    roots: IndexSet
    nodes: IndexSet
    root_index: Int[Tensor, " roots"]
    internal: Relation
    external: Relation
    edge_features: Num[Tensor, "edges k"] | None
    external_edges: Int[Tensor, " kept"] | None

    @classmethod
    def from_batch(cls, data: Batch | Data) -> PairGraph:
        """Read a PyG batch (or one graph).

        Attributes used: ``edge_index`` (both directions of every edge), ``edge_attr``, and ``root_index`` with
        ``num_roots`` if roots were sampled (:class:`coset.graphs.transforms.SampleRoots`).

        Raises:
            ValueError: The graph has directed edges, or no nodes at all.
        """
        nodes = IndexSet(node_counts(data))
        internal = Relation(nodes, nodes, data.edge_index)
        features = data.edge_attr if "edge_attr" in data else None
        if "root_index" not in data:
            everything = torch.arange(nodes.total, device=data.edge_index.device)
            return cls(nodes, nodes, everything, internal, internal, features, None)
        counts = torch.as_tensor(data.num_roots, device=data.edge_index.device).reshape(-1)
        roots = IndexSet(counts)
        external, kept = internal.restrict(data.root_index, roots)
        return cls(roots, nodes, data.root_index, internal, external, features, kept)

    @classmethod
    def of(cls, data: Batch | Data) -> PairGraph:
        """What the loader has settled of a batch, or what is read from it now."""
        return data[KEY] if KEY in data else cls.from_batch(data)

    @cached_property
    def pairs(self) -> Product:
        return Product(self.roots, self.nodes)

    @cached_property
    def diagonal(self) -> Int[Tensor, " roots"]:
        """Row of the pair (s, s) for every root s."""
        return self.pairs.rows(torch.arange(self.roots.total, device=self.root_index.device), self.root_index)

    def at_own_root(self, x: Float[Tensor, "pairs channels"]) -> Float[Tensor, "nodes channels"]:
        """X(v, v) for every node v; 0 where v is not among the roots."""
        own = x.index_select(0, self.diagonal)
        if self.roots is self.nodes:
            return own
        return own.new_zeros(self.nodes.total, own.size(1)).index_copy(0, self.root_index, own)


def node_counts(data: Batch | Data) -> Int[Tensor, " graphs"]:
    """Number of nodes of each graph of a batch."""
    if "ptr" in data:
        return data.ptr.diff()
    return torch.tensor([data.num_nodes], device=data.edge_index.device)


class PairEncoder(nn.Module):
    """X(s, v) = encode(f_v) + marking[d(s, v)], with product positional encodings side by side if asked for.

    The marking is a table of shortest-path distances: entry 0 says "this node is the root", one entry each for 1 to
    ``max_distance`` (longer distances are clipped), one for "unreachable". (Subgraphormer, section on node marking.)

    Args:
        node_features: Table sizes of categorical node features, number of real ones, or ``None`` for bare graphs.
        width: Columns out, positional encodings included.
        max_distance: Largest distance told apart.
        positional_encoding: Number k of product eigenvectors PE_c(s, v) = u_i(s) u_j(v) to append.
        marking: ``"distance"``, ``"root"`` (only whether v = s), or ``"none"``.
        scale_encoding: Multiply product eigenvectors by the number of nodes. As unit vectors on n^2 pairs they have
            root mean square 1 / n beside marks of deviation 1; this makes it 1.
        flip_signs: Draw the signs of a graph's eigenvectors anew at every pass in training, for they are arbitrary; a
            product u_i u_i keeps its sign.
        unreachable: Give unreachable pairs an entry of their own; otherwise they share the last distance.
    """

    def __init__(
        self,
        node_features: list[int] | int | None,
        width: int,
        *,
        max_distance: int = 5,
        positional_encoding: int = 0,
        marking: str = "distance",
        scale_encoding: bool = False,
        flip_signs: bool = False,
        unreachable: bool = True,
    ):
        super().__init__()
        check_choice("marking", marking, ("distance", "root", "none"))
        if not 0 <= positional_encoding < width:
            raise ValueError(
                f"positional_encoding={positional_encoding} must be at least 0 and below the width {width}"
            )
        inner = width - positional_encoding
        self.max_distance, self.k, self.marking = max_distance, positional_encoding, marking
        self.scale_encoding, self.flip_signs = scale_encoding, flip_signs
        self.nodes = node_encoder(node_features, inner)
        self.last = {"distance": max_distance + unreachable, "root": 1, "none": 0}[marking]
        self.distances = nn.Embedding(self.last + 1, inner)

    def settle(self, graph: PairGraph) -> None:
        """Work out what it asks of the pairs (:mod:`coset.relations.structure`)."""
        graph.pairs.settle()
        _ = graph.diagonal

    def forward(
        self, data: Batch | Data, graph: PairGraph, stored: torch.dtype | None = None
    ) -> Float[Tensor, "pairs width"]:
        """X(s, v), stored as ``stored``; in the precision of the weights by default."""
        node = encode_nodes(self.nodes, data, graph.nodes.total)
        encoding = self._encoding(data, graph).to(node.dtype) if self.k else None
        stored = stored or node.dtype
        if self.marking == "none":
            parts = [broadcast(node, graph.pairs, along=0)]
        elif kernels_apply(node) and covers(node.size(1)) and node.dtype == self.distances.weight.dtype:
            marks = self._marks(data, graph)
            return _MarkedPairs.apply(node, self.distances.weight, marks, encoding, graph.pairs, stored)
        else:
            parts = [broadcast(node, graph.pairs, along=0) + self.distances(self._marks(data, graph))]
        return torch.cat(parts + ([] if encoding is None else [encoding]), dim=1).to(stored)

    def _encoding(self, data: Batch | Data, graph: PairGraph) -> Float[Tensor, "pairs k"]:
        if "laplacian_eigenvectors" not in data or not (self.scale_encoding or (self.flip_signs and self.training)):
            return product_encoding(data, graph, self.k)
        vectors = data.laplacian_eigenvectors
        factors = torch.ones(graph.nodes.graphs, vectors.size(1), dtype=vectors.dtype, device=vectors.device)
        if self.scale_encoding:
            factors = factors * graph.nodes.sizes.to(vectors.dtype).sqrt().unsqueeze(1)
        if self.flip_signs and self.training:
            factors = factors * (2 * torch.randint_like(factors, 2) - 1)
        return product_encoding(data, graph, self.k, factors)

    def _marks(self, data: Batch | Data, graph: PairGraph) -> Int[Tensor, " pairs"]:
        if self.marking == "root":
            marks = torch.ones(graph.pairs.total, dtype=torch.long, device=data.edge_index.device)
            return marks.index_fill(0, graph.diagonal, 0)
        if "pair_distance" not in data:
            raise ValueError("pair_distance is missing: apply coset.graphs.transforms.ShortestPathDistances first")
        if data.pair_distance.numel() != graph.pairs.total:
            raise ValueError(
                f"pair_distance has {data.pair_distance.numel()} entries, but the graphs have {graph.pairs.total} pairs"
            )
        return data.pair_distance.long().clamp(max=self.last)


class _MarkedPairs(torch.autograd.Function):
    """[node[v] + table[mark] | encoding] for every pair, without intermediate results of that size."""

    @staticmethod
    def forward(
        ctx: Any,
        node: Float[Tensor, "nodes inner"],
        table: Float[Tensor, "entries inner"],
        marks: Int[Tensor, " pairs"],
        encoding: Float[Tensor, "pairs k"] | None,
        pairs: Product,
        stored: torch.dtype,
    ) -> Float[Tensor, "pairs width"]:
        inner = node.size(1)
        like = node.new_empty(0, dtype=stored)
        out = buffers.empty(pairs.total, inner + (0 if encoding is None else encoding.size(1)), like)
        for rows in _chunks(pairs.total):
            out[rows, :inner] = table.index_select(0, marks[rows])
        if encoding is not None:
            out[:, inner:] = encoding
        add_repeated(out[:, :inner], node, pairs)
        ctx.settled = marks, pairs, inner, table.size(0)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "pairs width"]) -> tuple[Tensor | None, ...]:
        marks, pairs, inner, entries = ctx.settled
        grad = grad[:, :inner]
        d_node = sum_repeated(grad, pairs)
        d_table = d_node.new_zeros(entries, inner)
        for rows in _chunks(pairs.total):  # a product with indicators: sums of few groups of many rows
            d_table.addmm_(one_hot(marks[rows], entries).to(d_table.dtype).t(), grad[rows].to(d_table.dtype))
        return d_node, d_table, None, None, None, None


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(first, min(first + CHUNK, rows)) for first in range(0, rows, CHUNK))


def product_encoding(
    data: Batch | Data, graph: PairGraph, k: int, factors: Float[Tensor, "graphs columns"] | None = None
) -> Float[Tensor, "pairs k"]:
    """The first k eigenvectors of the Laplacian of G [] G, from those of G: PE_c(s, v) = u_{i_c}(s) u_{j_c}(v).

    With ``factors``, each u_i of a graph is multiplied by its entry. Reads ``laplacian_eigenvectors`` and
    ``product_frequencies`` (:class:`coset.graphs.transforms.ProductPositionalEncoding`).
    """
    if "product_frequencies" not in data:
        raise ValueError(
            "product_frequencies is missing: apply coset.graphs.transforms.ProductPositionalEncoding first"
        )
    if data.product_frequencies.size(1) < k:
        raise ValueError(
            f"the data carries {data.product_frequencies.size(1)} product eigenvectors; this model needs {k}"
        )
    frequencies = data.product_frequencies[:, :k][graph.nodes.batch]  # [nodes, k, 2], -1 where a graph has fewer
    vectors = data.laplacian_eigenvectors
    vectors = vectors if factors is None else vectors * factors[graph.nodes.batch]
    first, second = (
        torch.where(frequencies[..., axis] >= 0, vectors.gather(1, frequencies[..., axis].clamp(min=0)), 0)
        for axis in (0, 1)
    )
    return broadcast(first[graph.root_index], graph.pairs, along=1) * broadcast(second, graph.pairs, along=0)
