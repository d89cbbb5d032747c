r"""Eigenvectors of the graph Laplacian L = D - A, the positional encoding of one graph.

L u_i = lambda_i u_i with lambda_0 = 0 <= lambda_1 <= ... and orthonormal u_i. A graph with c components has c zero
eigenvalues; their eigenspace is spanned by the indicators of the components. LAPACK returns any basis of it, ours is
chosen: the trivial vector first (constant over the graph), then c - 1 vectors orthogonal to it that tell components
apart. Only the trivial vector carries no information, so it alone is left out by ``include_constant=False``.

What remains ambiguous is what the mathematics leaves open: one sign per vector (we make the entry of largest
magnitude positive, the first of them if several are as large), and a rotation within every eigenspace of a repeated
eigenvalue.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from coset.graphs.transforms.equal_sizes import EqualSizeTransform, GraphStack

NORMALIZATIONS = (None, "sym", "rw")
_TIE = 1e-6  # entries this close in magnitude count as equally large when a sign is chosen


class LaplacianEigenvectors(EqualSizeTransform):
    """Adds ``laplacian_eigenvectors`` float32 [n, k] and ``laplacian_eigenvalues`` float32 [1, k], smallest
    eigenvalues first.

    Graphs with fewer than k eigenvectors get zero columns, and NaN for their eigenvalues.

    Args:
        k: Number of eigenvectors.
        include_constant: Keep the trivial vector (eigenvalue 0, constant) as column 0. Without it, graphs with c
            components still have c - 1 vectors of eigenvalue 0.
        normalization: ``None`` for D - A, ``"sym"`` for I - D^(-1/2) A D^(-1/2), ``"rw"`` for I - D^(-1) A (columns
            of unit length, not orthogonal).
    """

    def __init__(self, k: int, include_constant: bool = False, normalization: str | None = None):
        check_spectrum_arguments(k, normalization)
        self.k, self.include_constant, self.normalization = k, include_constant, normalization

    def forward_stack(self, stack: GraphStack) -> None:
        first = 0 if self.include_constant else 1
        values, vectors = laplacian_spectrum(stack, self.normalization, first + self.k)
        store_spectrum(stack.graphs, values[:, first:], vectors[..., first:], self.k)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(k={self.k}, include_constant={self.include_constant}, "
            f"normalization={self.normalization!r})"
        )


def laplacian_spectrum(
    stack: GraphStack, normalization: str | None = None, columns: int | None = None
) -> tuple[Float[Tensor, "graphs m"], Float[Tensor, "graphs n m"]]:
    """Eigenvalues, ascending, and eigenvectors as columns, in float64; the trivial vector is column 0.

    With ``"sym"`` the trivial vector is proportional to the square root of degrees (1 for isolated nodes), with
    ``"rw"`` and without normalisation it is constant.

    Args:
        stack: Graphs of one size n.
        normalization: ``None``, ``"sym"`` or ``"rw"``.
        columns: How many to return, at most n; all of them otherwise.
    """
    values, vectors = torch.linalg.eigh(laplacian(stack.adjacency, normalization))
    weight = _trivial_weight(stack.adjacency, normalization)
    values[:, 0], vectors[..., 0] = 0, weight / weight.norm(dim=-1, keepdim=True)
    labels = stack.components
    for graph in (labels != labels[:, :1]).any(dim=1).nonzero().flatten().tolist():
        null = _component_basis(labels[graph], weight[graph])
        values[graph, : null.size(1)], vectors[graph, :, : null.size(1)] = 0, null
    values, vectors = values[:, :columns], vectors[..., :columns]
    if normalization == "rw":
        vectors = vectors / weight.unsqueeze(-1)
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return values, with_canonical_signs(vectors)


def laplacian(adjacency: Bool[Tensor, "graphs n n"], normalization: str | None = None) -> Float[Tensor, "graphs n n"]:
    """D - A, or its symmetric normalisation (for ``"rw"`` too: same eigenvalues); zero rows for isolated nodes."""
    edges = adjacency.double()
    degree = edges.sum(-1)
    if normalization is None:
        return torch.diag_embed(degree) - edges
    scale = degree.clamp(min=1).rsqrt()
    return torch.diag_embed((degree > 0).double()) - scale.unsqueeze(-1) * edges * scale.unsqueeze(-2)


def with_canonical_signs(vectors: Float[Tensor, "graphs n k"]) -> Float[Tensor, "graphs n k"]:
    """Columns with the first of their largest entries (by magnitude) positive."""
    size = vectors.abs()
    largest = (size >= size.amax(dim=1, keepdim=True) - _TIE).to(torch.uint8).argmax(dim=1, keepdim=True)
    return vectors * torch.where(vectors.gather(1, largest) < 0, -1.0, 1.0)


def store_spectrum(
    graphs: Sequence[Data], values: Float[Tensor, "graphs m"], vectors: Float[Tensor, "graphs n m"], k: int
) -> None:
    """Write k columns into every graph, padded with zeros (and NaN for eigenvalues) where there are fewer."""
    missing = max(0, k - vectors.size(2))
    tables = F.pad(vectors[..., :k].float(), (0, missing))
    padded = F.pad(values[:, :k].float(), (0, missing), value=torch.nan).unsqueeze(1)
    for data, table, row in zip(graphs, tables.unbind(), padded.unbind()):
        attributes = data.stores[0]
        attributes["laplacian_eigenvectors"], attributes["laplacian_eigenvalues"] = table.clone(), row.clone()


def check_spectrum_arguments(k: int, normalization: str | None) -> None:
    if k < 1:
        raise ValueError(f"k={k}: ask for at least one eigenvector")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization={normalization!r}: choose None, 'sym' or 'rw'")


def _trivial_weight(adjacency: Tensor, normalization: str | None) -> Float[Tensor, "graphs n"]:
    degree = adjacency.sum(-1).double()
    return torch.ones_like(degree) if normalization is None else degree.clamp(min=1).sqrt()


def _component_basis(labels: Int[Tensor, " n"], weight: Float[Tensor, " n"]) -> Float[Tensor, "n c"]:
    """Orthonormal basis of the null space: the trivial vector, then components against the rest, largest first."""
    names, sizes = labels.unique(return_counts=True)
    names = names[torch.argsort(sizes, descending=True, stable=True)]
    indicators = labels.unsqueeze(1) == names[:-1]
    columns = torch.cat([torch.ones(len(labels), 1), indicators], dim=1) * weight.unsqueeze(1)
    return torch.linalg.qr(columns).Q
