r"""Orthogonal Procrustes for thousands of small matrices at once: the polar factor of X^T T.

For X and a template T the Q in O(r) that makes ||X Q - T||_F smallest is A B^T, where X^T T = A S B^T: the orthogonal
factor of the polar decomposition. The iteration Q <- Q (3 - Q^T Q) / 2 (Newton and Schulz; Higham, Functions of
Matrices, 8.3) finds it by products alone, so that many matrices go side by side through a processor's vectors. What it
does not find, singular or nearly so, is left to the SVD.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from numba import njit
from torch import Tensor

ITERATIONS = 48
"""Small singular values grow by half in each: enough for condition numbers up to a million."""
LARGEST = 12
"""Beyond this rank LAPACK's SVD is as fast."""
LANES = 64
"""Matrices side by side: enough to pay for a loop, few enough for the cache; the worst of them says when to stop."""


def polar(matrices: Float[Tensor, "... r r"]) -> Float[Tensor, "... r r"]:
    """The nearest orthogonal matrix of each; where it is not unique, the one that an SVD gives.

    Differentiable, by way of the SVD, where a gradient is asked for.
    """
    rank = matrices.size(-1)
    if matrices.device.type != "cpu" or rank > LARGEST or (matrices.requires_grad and torch.is_grad_enabled()):
        return _by_svd(matrices)
    flat = matrices.detach().reshape(-1, rank, rank).double().contiguous()
    result = torch.empty_like(flat)
    solved = torch.from_numpy(_iterate(flat.numpy(), result.numpy()))
    if not bool(solved.all()):
        result[~solved] = _by_svd(flat[~solved])
    return result.to(matrices.dtype).reshape(matrices.shape)


def _by_svd(matrices: Tensor) -> Tensor:
    a, _, b = torch.linalg.svd(matrices)
    return a @ b


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _load(
    matrices: Float[np.ndarray, "count rank rank"], start: int, lanes: int, q: Float[np.ndarray, "rank rank lanes"]
) -> None:
    """Some of the matrices side by side, each divided by its norm."""
    rank = len(q)
    q[:] = 0.0
    for c in range(lanes):
        size = 0.0
        for i in range(rank):
            for j in range(rank):
                q[i, j, c] = matrices[start + c, i, j]
                size += q[i, j, c] ** 2
        scale = size**-0.5 if 0.0 < size < np.inf else 0.0
        for i in range(rank):
            for j in range(rank):
                q[i, j, c] *= scale


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _step(
    q: Float[np.ndarray, "rank rank lanes"], gram: Float[np.ndarray, "rank rank lanes"],
    product: Float[np.ndarray, "rank rank lanes"], far: Float[np.ndarray, " lanes"],
) -> None:  # fmt: skip
    """Q <- Q (3 - Q^T Q) / 2 in every lane, and how far Q was from orthogonal before."""
    rank = len(q)
    far[:] = 0.0
    gram[:] = 0.0
    product[:] = 0.0
    for k in range(rank):
        for i in range(rank):
            for j in range(rank):
                for c in range(LANES):
                    gram[i, j, c] += q[k, i, c] * q[k, j, c]
    for i in range(rank):
        for j in range(rank):
            one = 1.0 if i == j else 0.0
            for c in range(LANES):
                far[c] += (gram[i, j, c] - one) ** 2
                gram[i, j, c] = 1.5 * one - 0.5 * gram[i, j, c]
    for k in range(rank):
        for i in range(rank):
            for j in range(rank):
                for c in range(LANES):
                    product[i, j, c] += q[i, k, c] * gram[k, j, c]
    for i in range(rank):  # q[:] = product takes six seconds more to compile, for its message about shapes
        for j in range(rank):
            for c in range(LANES):
                q[i, j, c] = product[i, j, c]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _iterate(
    matrices: Float[np.ndarray, "count rank rank"], result: Float[np.ndarray, "count rank rank"]
) -> Bool[np.ndarray, " count"]:
    """Polar factors into ``result``; returns where the iteration converged."""
    count, rank, _ = matrices.shape
    solved = np.zeros(count, np.bool_)
    q, gram, product = np.empty((3, rank, rank, LANES))
    far = np.empty(LANES)
    for start in range(0, count, LANES):
        lanes = min(LANES, count - start)
        _load(matrices, start, lanes, q)
        for _ in range(ITERATIONS):
            _step(q, gram, product, far)
            # The iteration squares its error: what was 1e-8 before it is 1e-16 after it.
            if not (far[:lanes] >= 1e-16).any():
                break
        for c in range(lanes):
            solved[start + c] = far[c] < 1e-16
            for i in range(rank):
                for j in range(rank):
                    result[start + c, i, j] = q[i, j, c]
    return solved
