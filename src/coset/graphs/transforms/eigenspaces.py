r"""The whole spectrum of a graph's matrix as PyG attributes: n + n x n numbers a graph, and no grouping of eigenvalues.

What is read from them, V diag(phi(lambda)) V^T, does not depend on signs or bases of V, nor on the order of the
eigenpairs (:mod:`coset.graphs.encodings.spectra`).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from coset.graphs.encodings.spectra import MATRICES, eigenspace_sizes, graph_matrix
from coset.graphs.transforms.equal_sizes import EqualSizeTransform, GraphStack
from coset.symmetry import Action
from coset.symmetry.linear_groups import random_orthogonal
from coset.symmetry.node_permutations import node_counts


class Eigenspaces(EqualSizeTransform):
    """Adds ``eigenvalues`` [n] and ``pair_eigenvectors`` [n * n]: entry u * n + k is V(u, k), column k belongs to
    eigenvalue k.

    Concatenated in a batch, they stay readable by the sizes of its graphs. Both follow a renumbering of nodes as rows
    of nodes and of pairs do: eigenpairs are then renumbered too, which changes nothing.

    Args:
        matrix: ``adjacency`` A, ``laplacian`` D - A, or ``normalized`` D^(-1/2) A D^(-1/2) (zero rows for isolated
            nodes).
        dtype: Of what is stored; the decomposition is made in float64.
    """

    def __init__(self, matrix: str = "normalized", dtype: torch.dtype = torch.float64):
        if matrix not in MATRICES:
            raise ValueError(f"matrix={matrix!r}: choose {', '.join(MATRICES)}")
        self.matrix, self.dtype = matrix, dtype

    def forward_stack(self, stack: GraphStack) -> None:
        values, vectors = torch.linalg.eigh(graph_matrix(stack.adjacency.double(), self.matrix))
        for data, own, basis in zip(stack.graphs, values.to(self.dtype), vectors.to(self.dtype)):
            data.eigenvalues, data.pair_eigenvectors = own.clone(), basis.flatten().clone()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.matrix!r})"


class EigenspaceBases(Action):
    """O(m_1) x O(m_2) x ... for each graph of PyG data: V -> V Q, with Q orthogonal within every eigenspace.

    Acts on ``pair_eigenvectors``; reads ``eigenvalues``, float64, in any order.
    """

    name = "bases of eigenspaces"

    def sample(self, value: Data, generator: torch.Generator) -> list[Tensor]:
        return [self._rotation(own, generator) for own in value.eigenvalues.split(node_counts(value).tolist())]

    def _rotation(self, values: Tensor, generator: torch.Generator) -> Tensor:
        ordered, order = values.cpu().sort()
        blocks = [random_orthogonal(size, generator) for size in eigenspace_sizes(ordered)]
        rotation = torch.empty(len(values), len(values), dtype=torch.float64)
        rotation[order.unsqueeze(1), order] = torch.block_diag(*blocks) if blocks else rotation
        return rotation

    def apply(self, element: list[Tensor], value: Data) -> Data:
        moved: Any = copy.copy(value)
        flat = value.pair_eigenvectors
        parts = flat.split([len(rotation) ** 2 for rotation in element])
        turned = [
            part.view(rotation.shape) @ rotation.to(part.device, part.dtype) for part, rotation in zip(parts, element)
        ]
        moved.pair_eigenvectors = torch.cat([part.flatten() for part in turned])
        return moved

    def compose(self, g: list[Tensor], h: list[Tensor]) -> list[Tensor]:
        return [second @ first for first, second in zip(g, h, strict=True)]

    def inverse(self, g: list[Tensor]) -> list[Tensor]:
        return [rotation.mT for rotation in g]
