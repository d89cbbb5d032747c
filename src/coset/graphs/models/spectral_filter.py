r"""The implicit spectral filter: a learnt function of a graph's matrix, for every pair of nodes, without eigenspaces.

    E(u, v) = sum_lambda phi(lambda) P_lambda(u, v) = sum_k V(u, k) phi(lambda_k) V(v, k)  in R^c

Equal eigenvalues get equal phi, so no grouping is needed and the result does not depend on the basis V. A filter is one
product of matrices a graph, [n, n] x [n, n c]. Features of pairs are rows of a ragged product (:mod:`coset.relations`),
so graphs of different sizes cost no padding. :func:`filtered_messages` gathers sum_v ReLU(h(v) + E(u, v)) without
keeping E: the backward pass computes it again, graph by graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.data import Batch, Data

from coset.graphs.models.product import node_counts
from coset.relations import IndexSet, Product
from coset.relations.structure import KEY, Structure


@dataclass(frozen=True, eq=False)
class SpectralBatch(Structure):
    """The eigenpairs of a batch of graphs, as :class:`coset.graphs.transforms.Eigenspaces` stored them.

    Attributes:
        nodes: Nodes of each graph.
        pairs: Pairs (u, v) of nodes of one graph.
        values: Eigenvalues, one a row of ``nodes``, in the precision in which they were stored.
        vectors: V of each graph, in the precision of the features.
        edge_order: The edges sorted by their row among the pairs.
        edge_rows: That row within its graph, of every edge (v -> u: row of (u, v)) in ``edge_order``, by graph.
    """

    nodes: IndexSet
    pairs: Product
    values: Float[Tensor, " nodes"]
    vectors: tuple[Float[Tensor, "_n _n"], ...]
    edge_order: Int[Tensor, " edges"]
    edge_rows: tuple[Int[Tensor, " _edges"], ...]

    @classmethod
    def of(cls, data: Batch | Data, dtype: torch.dtype) -> SpectralBatch:
        """What the loader has settled of a PyG batch (or of one graph), or what is read from it now.

        Raises:
            ValueError: The data carries no eigenpairs, or others than its nodes suggest.
        """
        if KEY in data:
            return data[KEY]
        if "pair_eigenvectors" not in data or "eigenvalues" not in data:
            raise ValueError("pair_eigenvectors is missing: apply coset.graphs.transforms.Eigenspaces first")
        nodes = IndexSet(node_counts(data))
        pairs = nodes * nodes
        flat = data.pair_eigenvectors
        if flat.numel() != pairs.total or data.eigenvalues.numel() != nodes.total:
            raise ValueError(
                f"{flat.numel()} entries of eigenvectors and {data.eigenvalues.numel()} eigenvalues do not fit "
                f"{nodes.total} nodes and {pairs.total} pairs: apply Eigenspaces after the nodes are final"
            )
        sizes = nodes.sizes.tolist()
        blocks = flat.to(dtype).split([n * n for n in sizes])
        source, target = data.edge_index
        rows, order = pairs.rows(target, source).sort()
        bounds = torch.searchsorted(rows, pairs.ptr).diff().tolist()
        starts = pairs.ptr.tolist()
        edge_rows = tuple(part - start for part, start in zip(rows.split(bounds), starts))
        vectors = tuple(block.view(n, n) for block, n in zip(blocks, sizes))
        return cls(nodes, pairs, data.eigenvalues, vectors, order, edge_rows)

    def settle(self) -> SpectralBatch:
        """Work out what layers ask of it (:mod:`coset.relations.structure`)."""
        self.pairs.settle()
        return self


def spectral_filter(phi: Float[Tensor, "nodes c"], batch: SpectralBatch) -> Float[Tensor, "pairs c"]:
    """E(u, v) = sum_k V(u, k) phi(k) V(v, k) for all pairs of every graph.

    Args:
        phi: Values of c functions at the eigenvalues ``batch.values``.
        batch: The eigenpairs; gradients flow to ``phi`` only.
    """
    return _SpectralFilter.apply(phi, batch)


def filtered_messages(
    h: Float[Tensor, "nodes c"],
    phi: Float[Tensor, "nodes c"],
    batch: SpectralBatch,
    edge: Float[Tensor, "edges c"] | None = None,
) -> Float[Tensor, "nodes c"]:
    """f(u) = sum over all v of ReLU(h(v) + E(u, v) + edge(u, v)), E the filter of ``phi``.

    The sum runs over every node of the graph, u itself included; ``edge`` (one row an edge, in the order of the data)
    enters where v -> u is an edge. Memory beyond inputs and outputs: n x n x c for the largest graph.
    """
    return _FilteredMessages.apply(h, phi, None if edge is None else edge[batch.edge_order], batch)


def filtered_pairs(
    phi: Float[Tensor, "nodes c"], batch: SpectralBatch, ends: Int[Tensor, "2 rows"]
) -> Float[Tensor, "rows c"]:
    """E(u, v) = sum_k V(u, k) phi(k) V(v, k) for some pairs of nodes alone, in any order; E(u, v) = E(v, u).

    Args:
        phi: Values of c functions at the eigenvalues ``batch.values``.
        batch: The eigenpairs.
        ends: Both nodes of each pair, of one graph, numbered in the batch.
    """
    starts, sizes = batch.nodes.ptr[:-1].tolist(), batch.nodes.sizes.tolist()
    graph = batch.nodes.batch[ends[0]]
    out = phi.new_zeros(ends.size(1), phi.size(1))
    for at in graph.unique().tolist():
        rows = (graph == at).nonzero().squeeze(1)
        u, v = ends[:, rows] - starts[at]
        vectors = batch.vectors[at]
        out = out.index_copy(0, rows, (vectors[u] * vectors[v]) @ phi[starts[at] : starts[at] + sizes[at]])
    return out


def _block(vectors: Tensor, phi: Tensor) -> Tensor:
    """[n, n * c]: row u holds E(u, v) for all v."""
    n = len(vectors)
    weighted = vectors.mT.unsqueeze(2) * phi.unsqueeze(1)
    return vectors @ weighted.reshape(n, -1)


def _block_gradient(vectors: Tensor, gradient: Tensor, channels: int) -> Tensor:
    """d phi(k) = sum_uv V(u, k) V(v, k) dE(u, v), from dE [n, n * c]."""
    n = len(vectors)
    inner = (vectors.mT @ gradient).view(n, n, channels)
    return torch.bmm(vectors.mT.unsqueeze(1), inner).squeeze(1)


class _SpectralFilter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, phi: Float[Tensor, "nodes c"], batch: SpectralBatch) -> Float[Tensor, "rows c"]:
        ctx.batch, ctx.channels = batch, phi.size(1)
        out = phi.new_empty(batch.pairs.total, phi.size(1))
        sizes = [len(vectors) for vectors in batch.vectors]
        for vectors, own, rows in zip(batch.vectors, phi.split(sizes), out.split([n * n for n in sizes])):
            rows.view(len(vectors), -1).copy_(_block(vectors, own))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "rows c"]) -> tuple[Tensor | None, ...]:
        batch = ctx.batch
        parts = gradient.contiguous().split([len(vectors) ** 2 for vectors in batch.vectors])
        found = [
            _block_gradient(vectors, part.view(len(vectors), -1), ctx.channels)
            for vectors, part in zip(batch.vectors, parts)
        ]
        return torch.cat(found), None


class _FilteredMessages(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Float[Tensor, "nodes c"],
        phi: Float[Tensor, "nodes c"],
        edge: Float[Tensor, "edges c"] | None,
        batch: SpectralBatch,
    ) -> Float[Tensor, "rows c"]:
        ctx.save_for_backward(h, phi, edge)
        ctx.batch = batch
        out = torch.empty_like(h)
        for rows, messages in _messages(h, phi, edge, batch):
            torch.sum(messages, dim=1, out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "rows c"]) -> tuple[Tensor | None, ...]:
        h, phi, edge = ctx.saved_tensors
        batch, channels = ctx.batch, h.size(1)
        d_h, d_phi, d_edge = torch.empty_like(h), torch.empty_like(phi), []
        for graph, (rows, messages) in enumerate(_messages(h, phi, edge, batch)):
            d_messages = (messages > 0) * gradient[rows].unsqueeze(1)
            d_h[rows] = d_messages.sum(0)
            d_phi[rows] = _block_gradient(batch.vectors[graph], d_messages.view(len(messages), -1), channels)
            if edge is not None:
                d_edge.append(d_messages.view(-1, channels)[batch.edge_rows[graph]])
        return d_h, d_phi, torch.cat(d_edge) if edge is not None else None, None


def _messages(
    h: Float[Tensor, "nodes c"],
    phi: Float[Tensor, "nodes c"],
    edge: Float[Tensor, "edges c"] | None,
    batch: SpectralBatch,
) -> Iterator[tuple[slice, Float[Tensor, "n n c"]]]:
    """For each graph its rows, and ReLU(h(v) + E(u, v) + edge(u, v)) as [n, n, c]."""
    start, at = 0, 0
    for vectors, edge_rows in zip(batch.vectors, batch.edge_rows):
        n, channels = len(vectors), h.size(1)
        rows = slice(start, start + n)
        messages = _block(vectors, phi[rows]).view(n, n, channels)
        messages += h[rows]
        if edge is not None:
            messages.view(n * n, channels).index_add_(0, edge_rows, edge[at : at + len(edge_rows)])
        yield rows, messages.relu_()
        start, at = start + n, at + len(edge_rows)
