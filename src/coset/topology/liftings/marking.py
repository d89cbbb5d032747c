r"""Marks of pairs (x, s): how far x is from the marked cell s.

d(x, s) = min over u of rank r1 inside s of the hops from u to x along A_{r1,b}. Entries 0 to ``FARTHEST`` are hops
(more count as ``FARTHEST``), ``FARTHEST + 1`` says unreachable: a table of 12. The binary mark 1[x < s] is d = 0.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from scipy.sparse import csr_matrix
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from coset.topology.data.batches import CellBatch
from coset.topology.kernels import hops_to_sets

FARTHEST = 10
ENTRIES = FARTHEST + 2


class MarkPairs(BaseTransform):
    """Add ``distance_{r1}_{r2}`` (uint8, a row a pair (x, s)) to a complex.

    Args:
        ranks: (r1, r2).
        bridge: Rank of the cells that hops go through; r1 + 1 by default.
    """

    def __init__(self, ranks: tuple[int, int], bridge: int | None = None):
        self.ranks, self.bridge = ranks, bridge

    def forward(self, data: Data) -> Data:
        first, second = self.ranks
        data[f"distance_{first}_{second}"] = pair_distances(CellBatch(data), first, second, self.bridge)
        return data


def pair_distances(batch: CellBatch, first: int, second: int, bridge: int | None = None) -> UInt8[Tensor, " pairs"]:
    """Marks d(x, s) of all pairs of a batch, as uint8."""
    between = first + 1 if bridge is None else bridge
    index = batch.neighbours(first, between).relation.index.cpu().numpy()
    members, marked = batch.incidence(first, second).index.cpu().numpy()
    rank, ptr = batch.cells[first], batch.cells[first].ptr.tolist()
    end = batch.cells[second].ptr.tolist()
    owner, holder = rank.batch.cpu().numpy()[index[0]], batch.cells[second].batch.cpu().numpy()[marked]
    parts = []
    for graph in range(rank.graphs):
        n, m = ptr[graph + 1] - ptr[graph], end[graph + 1] - end[graph]
        edges, inside = index[:, owner == graph] - ptr[graph], holder == graph
        graph_of = csr_matrix((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(n, n))
        held, holders = members[inside] - ptr[graph], marked[inside] - end[graph]
        begin = np.concatenate([[0], np.bincount(holders, minlength=m).cumsum()])
        marks = hops_to_sets(
            graph_of.indptr.astype(np.int64), graph_of.indices.astype(np.int64),
            held[np.argsort(holders, kind="stable")], begin, FARTHEST,
        )  # fmt: skip
        parts.append(torch.from_numpy(marks.T.reshape(-1)))
    return torch.cat(parts).to(batch.data.num_cells.device)
