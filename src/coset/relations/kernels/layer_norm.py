"""ReLU(LayerNorm(x + t)) of the rows of a tall matrix, and its gradient; t is one row a block of rows.

Arrays are flat; a matrix comes with its leading dimension ``ld``. Block i holds rows ``ptr[i]`` to ``ptr[i + 1]`` and
its term is row ``i * step`` of ``term``: ``step`` 0 for a bias that all rows share. Nothing but x is kept for the
backward pass: mean and deviation of a row are computed again while it lies in the cache.
"""

from typing import Any

import numpy as np
from numba import njit

from coset.relations.kernels.arguments import Numbers, Whole

OPTIONS: dict[str, Any] = {
    "nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}  # fmt: skip


@njit(inline="always")
def _standardise(x: Numbers, t: Numbers, eps: float, row: Numbers) -> float:
    """(x + t - mean) / deviation into ``row``; returns 1 / deviation."""
    columns = len(row)
    total = eps * 0  # of the precision of x
    for c in range(columns):
        value = x[c] + t[c]
        row[c] = value
        total += value
    mean = total / columns
    square = eps * 0
    for c in range(columns):
        moved = row[c] - mean
        row[c] = moved
        square += moved * moved
    inverse = 1 / np.sqrt(square / columns + eps)
    for c in range(columns):
        row[c] *= inverse
    return inverse


@njit(**OPTIONS)
def forward(
    begin: int, end: int, part: int, ptr: Whole, x: Numbers, ld: int, columns: int, term: Numbers, step: int,
    gamma: Numbers, beta: Numbers, eps: float, out: Numbers, ld_out: int,
) -> None:  # fmt: skip
    own, zero = np.empty(columns, x.dtype), eps * 0
    for block in range(begin, end):
        shift = term[block * step * columns : block * step * columns + columns]
        for i in range(ptr[block], ptr[block + 1]):
            _standardise(x[i * ld : i * ld + columns], shift, eps, own)
            to = out[i * ld_out : i * ld_out + columns]
            for c in range(columns):
                y = own[c] * gamma[c] + beta[c]
                to[c] = y if y > zero else zero


@njit(**OPTIONS)
def backward(
    begin: int, end: int, part: int, ptr: Whole, x: Numbers, ld: int, columns: int, term: Numbers, step: int,
    gamma: Numbers, beta: Numbers, eps: float, grad: Numbers, ld_grad: int, out: Numbers, ld_out: int, d_term: Numbers,
    d_gamma: Numbers, d_beta: Numbers,
) -> None:  # fmt: skip
    """``out`` may be ``grad``. Gradients of term, gamma and beta come one row a block."""
    own, moved = np.empty(columns, x.dtype), np.empty(columns, x.dtype)
    t, g, b = np.empty(columns, x.dtype), np.empty(columns, x.dtype), np.empty(columns, x.dtype)
    zero = eps * 0
    for block in range(begin, end):
        shift = term[block * step * columns : block * step * columns + columns]
        t[:], g[:], b[:] = 0, 0, 0
        for i in range(ptr[block], ptr[block + 1]):
            inverse = _standardise(x[i * ld : i * ld + columns], shift, eps, own)
            given, to = grad[i * ld_grad : i * ld_grad + columns], out[i * ld_out : i * ld_out + columns]
            mean, along = zero, zero
            # Short loops over few arrays each: LLVM gives up on vectors where too many might overlap.
            for c in range(columns):
                y, d = own[c] * gamma[c] + beta[c], given[c]
                moved[c] = d if y > zero else zero
            for c in range(columns):
                b[c] += moved[c]
                g[c] += moved[c] * own[c]
            for c in range(columns):
                d = moved[c] * gamma[c]
                moved[c] = d
                mean += d
                along += d * own[c]
            mean /= columns
            along /= columns
            for c in range(columns):
                d = (moved[c] - mean - own[c] * along) * inverse
                to[c] = d
                moved[c] = d
            for c in range(columns):
                t[c] += moved[c]
        first = block * columns
        d_term[first : first + columns], d_gamma[first : first + columns], d_beta[first : first + columns] = t, g, b
