"""Writing node sets onto graphs: by a coarsening, or a family of one's own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from coset.core.errors import CosetError
from coset.graphs.encodings.coarsening import COARSENINGS, Family, Settings, coarsen
from coset.graphs.transforms.equal_sizes import GraphStack


class Coarsen(BaseTransform):
    """Adds node sets: ``set_sizes`` long [T], ``set_member_index`` long [sum of sizes] set by set, ``num_sets`` = T.

    Args:
        method: A key of :data:`coset.graphs.encodings.coarsening.COARSENINGS`.
        size: Number T of sets, for the methods that take one; graphs with fewer nodes get their singletons.
        seed: Of random draws; the sets of a graph depend on it and the graph only.
        dimensions: Laplacian eigenvectors of ``spectral``.
        radius: Of ``balls``.
        restarts: Of k-means.
    """

    def __init__(
        self,
        method: str = "spectral",
        size: int | None = None,
        *,
        seed: int = 0,
        dimensions: int = 2,
        radius: int = 1,
        restarts: int = 10,
    ):
        if method not in COARSENINGS:
            raise ValueError(f"coarsening={method!r}: choose {', '.join(COARSENINGS)}")
        if COARSENINGS[method].sized != (size is not None):
            need = "needs the number of sets, size=" if size is None else "makes as many sets as it finds: no size="
            raise ValueError(f"coarsening {method!r} {need}")
        self.method, self.size = method, size
        self.settings = Settings(1 if size is None else size, dimensions, radius, restarts, seed)
        coarsen(np.zeros((1, 1), dtype=bool), method, self.settings)  # says what is out of range

    @property
    def invariant(self) -> bool:
        """Whether renumbering a graph gives the same sets, renumbered."""
        return COARSENINGS[self.method].invariant

    def forward(self, data: Data) -> Data:
        if not data.num_nodes:
            raise CosetError("a graph needs at least one node to be coarsened")
        return _store(data, coarsen(GraphStack([data]).adjacency[0].numpy(), self.method, self.settings))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.method!r}{'' if self.size is None else f', size={self.size}'})"


def set_nodes(data: Data, family: Iterable[Sequence[int]]) -> Data:
    """The graph with sets of one's own, e.g. fragments of a molecule; ``data`` itself is changed.

    Sets may overlap, and need not cover the graph.

    Args:
        data: One graph.
        family: Node numbers of each set.

    Raises:
        CosetError: A set is empty, names a node twice, or one that does not exist.
    """
    nodes = int(data.num_nodes or 0)
    listed = [list(members) for members in family]
    mask = np.zeros((len(listed), nodes), dtype=bool)
    for row, members in enumerate(listed):
        if not members:
            raise CosetError(f"set {row} is empty")
        wrong = [node for node in members if not 0 <= node < nodes]
        if wrong:
            raise CosetError(f"set {row} names node {wrong[0]}, but nodes are 0 to {nodes - 1}")
        if len(set(members)) < len(members):
            raise CosetError(f"set {row} names a node twice: {members}")
        mask[row, members] = True
    return _store(data, mask)


def set_clusters(data: Data, labels: Sequence[Hashable]) -> Data:
    """The graph with a partition of one's own: the cluster of every node, by any numbers."""
    nodes = int(data.num_nodes or 0)
    given = np.asarray(labels)
    if given.shape != (nodes,):
        raise CosetError(f"{given.size} cluster labels for {nodes} nodes")
    _, first = np.unique(given, return_index=True)
    return _store(data, given[np.sort(first)][:, None] == given[None])


def _store(data: Data, family: Family) -> Data:
    data.set_sizes = torch.from_numpy(family.sum(1))
    data.set_member_index = torch.from_numpy(np.nonzero(family)[1])
    data.num_sets = len(family)
    return data
