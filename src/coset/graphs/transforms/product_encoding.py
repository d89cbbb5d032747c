r"""Positional encodings of the product graph G [] G, from the spectrum of G alone.

Bar-Shalom, Bevilacqua, Maron, "Subgraphormer", ICML 2024. The Laplacian of the Cartesian product is L (x) I + I (x)
L, so products of eigenvectors are eigenvectors and eigenvalues add:

    (L (x) I + I (x) L)(u_i (x) u_j) = (lambda_i + lambda_j) (u_i (x) u_j),        PE_c(s, v) = u_{i_c}(s) u_{j_c}(v)

with (i_c, j_c) the pairs of smallest sum. One n x n eigenproblem instead of one of size n^2; the [n^2, k] table is
never stored, only its factors and the list of pairs. Flipping the sign of u_i leaves (i, i) as it is.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Data

from coset.graphs.transforms.equal_sizes import EqualSizeTransform, GraphStack
from coset.graphs.transforms.spectra import check_spectrum_arguments, laplacian_spectrum, store_spectrum

_DIGITS = 8  # sums equal to this many decimals are ties: they are equal in exact arithmetic far more often than not


class ProductPositionalEncoding(EqualSizeTransform):
    """Adds what the k smoothest eigenvectors of the product graph are made of.

    ``laplacian_eigenvectors`` float32 [n, k + 1] and ``laplacian_eigenvalues`` [1, k + 1] of G itself, the trivial
    vector in column 0 (k columns with ``include_constant``; either way no other column can be needed), and
    ``product_frequencies`` long [1, k, 2]: the columns (i, j) of each product eigenvector, by increasing lambda_i +
    lambda_j, ties by (i, j), -1 where a graph has fewer than k.

    Args:
        k: Number of product eigenvectors.
        include_constant: Keep the product of the trivial vector with itself, which is constant over all pairs.
        one_axis: Keep products of the trivial vector with others, which vary along one axis only: on a molecule four or
            five of eight. Without them every column tells something of root and node together.
        normalization: As for :class:`LaplacianEigenvectors`; the product identity holds for each.
    """

    def __init__(self, k: int, include_constant: bool = False, normalization: str | None = None, one_axis: bool = True):
        check_spectrum_arguments(k, normalization)
        if include_constant and not one_axis:
            raise ValueError("include_constant=True keeps the trivial vector, one_axis=False leaves it out: choose one")
        self.k, self.include_constant, self.normalization = k, include_constant, normalization
        self.one_axis = one_axis

    def forward_stack(self, stack: GraphStack) -> None:
        columns = self.k if self.include_constant else self.k + 1
        values, vectors = laplacian_spectrum(stack, self.normalization, columns)
        store_spectrum(stack.graphs, values, vectors, columns)
        frequencies = product_frequencies(values, self.k, self.include_constant, self.one_axis).unsqueeze(1)
        for data, pairs in zip(stack.graphs, frequencies.unbind()):
            data.product_frequencies = pairs.clone()

    def __repr__(self) -> str:
        axes = "" if self.one_axis else ", one_axis=False"
        return (
            f"{type(self).__name__}(k={self.k}, include_constant={self.include_constant}, "
            f"normalization={self.normalization!r}{axes})"
        )


def product_frequencies(
    values: Float[Tensor, "graphs n"], k: int, include_constant: bool = False, one_axis: bool = True
) -> Int[Tensor, "graphs k 2"]:
    """Pairs (i, j) with the k smallest lambda_i + lambda_j, in order, ties by (i, j); -1 where there are fewer than k.

    Of the n^2 pairs only those with (i + 1)(j + 1) <= k (k + 1 if the constant pair (0, 0) is left out, i j <= k if all
    with 0 are) can be among them: every (i', j') with i' <= i and j' <= j comes before (i, j). These O(k log k)
    candidates are sorted.

    Args:
        values: Eigenvalues, ascending, the trivial one first.
        k: Number of pairs.
        include_constant: Keep the pair (0, 0).
        one_axis: Keep the pairs (0, j) and (i, 0).
    """
    graphs, n = values.shape
    if one_axis:
        skipped = 0 if include_constant else 1
        most = k + skipped
        candidates = [(i, j) for i in range(min(n, most)) for j in range(min(n, most // (i + 1)))][skipped:]
    else:
        candidates = [(i, j) for i in range(1, min(n, k + 1)) for j in range(1, min(n, k // i + 1))]
    chosen = torch.full((graphs, k, 2), -1, dtype=torch.long)
    if not candidates:
        return chosen
    pairs = torch.tensor(candidates)
    sums = (values[:, pairs[:, 0]] + values[:, pairs[:, 1]]).round(decimals=_DIGITS)
    order = sums.sort(dim=1, stable=True).indices[:, :k]
    chosen[:, : order.size(1)] = pairs[order]
    return chosen


def product_eigenvectors(data: Data) -> Float[Tensor, "pairs k"]:
    """The table PE_c(s, v) itself, rows s * n + v, zero columns where a graph has fewer; no network needs it."""
    first, second = data.product_frequencies[0].t()
    vectors = data.laplacian_eigenvectors
    table = torch.einsum("sc,vc->svc", vectors[:, first.clamp(min=0)], vectors[:, second.clamp(min=0)])
    return (table * (first >= 0)).flatten(0, 1)
