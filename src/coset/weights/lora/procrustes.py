r"""Orthogonal Procrustes for thousands of small matrices at once: the polar factor of X^T T.

For X and a template T the Q in O(r) that makes ||X Q - T||_F smallest is A B^T, where X^T T = A S B^T: the orthogonal
factor of the polar decomposition. Newton's iteration Q <- (g Q + (g Q)^-T) / 2 (Higham 1986), scaled by
g = |det Q|^(-1/r), finds it without an SVD; what it cannot find, singular or nearly so, is left to the SVD.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from torch import Tensor

ITERATIONS, LARGEST = 20, 16
"""Beyond this rank LAPACK's SVD is as fast."""


def polar(matrices: Float[Tensor, "... r r"]) -> Float[Tensor, "... r r"]:
    """The nearest orthogonal matrix of each; where it is not unique, the one that an SVD gives.

    Differentiable, by way of the SVD, where a gradient is asked for.
    """
    rank = matrices.size(-1)
    if matrices.device.type != "cpu" or rank > LARGEST or (matrices.requires_grad and torch.is_grad_enabled()):
        return _by_svd(matrices)
    flat = matrices.detach().reshape(-1, rank, rank).double().contiguous()
    result = torch.empty_like(flat)
    solved = torch.from_numpy(_newton(flat.numpy(), result.numpy()))
    if not bool(solved.all()):
        result[~solved] = _by_svd(flat[~solved])
    return result.to(matrices.dtype).reshape(matrices.shape)


def _by_svd(matrices: Tensor) -> Tensor:
    a, _, b = torch.linalg.svd(matrices)
    return a @ b


@njit(cache=True, error_model="numpy")
def _newton(matrices, result):
    """Polar factors into ``result``; returns where the iteration converged."""
    count, rank, _ = matrices.shape
    solved = np.zeros(count, np.bool_)
    inverse = np.empty((rank, rank))
    work = np.empty((rank, rank))
    for c in range(count):
        q = result[c]
        size = 0.0
        for i in range(rank):
            for j in range(rank):
                size += matrices[c, i, j] ** 2
        if not (size > 0.0 and size < np.inf):
            continue
        scale = (rank / size) ** 0.5
        for i in range(rank):
            for j in range(rank):
                q[i, j] = matrices[c, i, j] * scale
        for _ in range(ITERATIONS):
            determinant = _invert(q, work, inverse)
            if not determinant > 1e-12:
                break
            g = determinant ** (-1.0 / rank)
            change = 0.0
            for i in range(rank):
                for j in range(rank):
                    new = 0.5 * (g * q[i, j] + inverse[j, i] / g)
                    change += (new - q[i, j]) ** 2
                    q[i, j] = new
            # Near its end the iteration squares its error: a step of 1e-8 leaves 1e-16.
            if change < 1e-17 * rank:
                solved[c] = True
                break
    return solved


@njit(cache=True, error_model="numpy")
def _invert(matrix, work, inverse):
    """Gauss-Jordan with row pivots; returns |det|, 0 where a pivot vanishes."""
    rank = matrix.shape[0]
    determinant = 1.0
    for i in range(rank):
        for j in range(rank):
            work[i, j] = matrix[i, j]
            inverse[i, j] = 1.0 if i == j else 0.0
    for k in range(rank):
        best = k
        for i in range(k + 1, rank):
            if abs(work[i, k]) > abs(work[best, k]):
                best = i
        pivot = work[best, k]
        determinant *= abs(pivot)
        if determinant < 1e-12:
            return 0.0
        if best != k:
            for j in range(rank):
                work[k, j], work[best, j] = work[best, j], work[k, j]
                inverse[k, j], inverse[best, j] = inverse[best, j], inverse[k, j]
        for j in range(rank):
            work[k, j] /= pivot
            inverse[k, j] /= pivot
        for i in range(rank):
            if i != k:
                factor = work[i, k]
                for j in range(rank):
                    work[i, j] -= factor * work[k, j]
                    inverse[i, j] -= factor * inverse[k, j]
    return determinant
