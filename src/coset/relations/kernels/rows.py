"""Kernels on the rows of tall matrices: batch statistics, ReLU(BatchNorm(x)) and its gradient, a term repeated over the
roots of a product and its adjoint.

Arrays are flat; a matrix comes with its leading dimension ``ld``. ``lanes`` is a tuple whose length, which divides the
number of columns, is that of the vectors: see :mod:`.simd`. Tall matrices may be stored in bfloat16 (there, too);
vectors of one number a column and what is summed are in the precision of arithmetic.
"""

from typing import Any

import numpy as np
from numba import njit

from coset.relations.kernels.arguments import Lanes, Numbers, PerThread, Whole
from coset.relations.kernels.simd import add, load, multiply, multiply_add, store, subtract, where_positive, zeros

ROWS = 64  # summed in the precision of arithmetic before they are added to totals in float64
OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**OPTIONS)
def moments(
    begin: int, end: int, part: int, x: Numbers, ld: int, columns: int, lanes: Lanes, about: Numbers, sums: PerThread,
) -> None:  # fmt: skip
    """Add up x - about and its square, by column: ``sums[part]`` is ``[2, columns]``."""
    width = len(lanes)
    total, square = np.empty(columns, about.dtype), np.empty(columns, about.dtype)
    for first in range(begin, end, ROWS):
        total[:], square[:] = 0, 0
        for row in range(first, min(first + ROWS, end)):
            for c in range(0, columns, width):
                d = subtract(load(x, row * ld + c, lanes), load(about, c, lanes))
                store(total, c, add(load(total, c, lanes), d))
                store(square, c, multiply_add(d, d, load(square, c, lanes)))
        for c in range(columns):
            sums[part, 0, c] += total[c]
            sums[part, 1, c] += square[c]


@njit(**OPTIONS)
def norm_relu(
    begin: int, end: int, part: int, x: Numbers, ld: int, columns: int, lanes: Lanes, scale: Numbers, shift: Numbers,
    out: Numbers, ld_out: int,
) -> None:  # fmt: skip
    width = len(lanes)
    nothing = zeros(x, lanes)
    for row in range(begin, end):
        for c in range(0, columns, width):
            y = multiply_add(load(x, row * ld + c, lanes), load(scale, c, lanes), load(shift, c, lanes))
            store(out, row * ld_out + c, where_positive(y, y, nothing))


@njit(**OPTIONS)
def gradient_sums(
    begin: int, end: int, part: int, x: Numbers, ld: int, grad: Numbers, ld_grad: int, columns: int, lanes: Lanes,
    scale: Numbers, shift: Numbers, mean: Numbers, sums: PerThread,
) -> None:  # fmt: skip
    """Add up g' and g' (x - mean), by column."""
    width = len(lanes)
    total, moved = np.empty(columns, mean.dtype), np.empty(columns, mean.dtype)
    nothing = zeros(x, lanes)
    for first in range(begin, end, ROWS):
        total[:], moved[:] = 0, 0
        for row in range(first, min(first + ROWS, end)):
            for c in range(0, columns, width):
                value = load(x, row * ld + c, lanes)
                y = multiply_add(value, load(scale, c, lanes), load(shift, c, lanes))
                g = where_positive(y, load(grad, row * ld_grad + c, lanes), nothing)
                store(total, c, add(load(total, c, lanes), g))
                store(moved, c, multiply_add(g, subtract(value, load(mean, c, lanes)), load(moved, c, lanes)))
        for c in range(columns):
            sums[part, 0, c] += total[c]
            sums[part, 1, c] += moved[c]


@njit(**OPTIONS)
def gradient(
    begin: int, end: int, part: int, x: Numbers, ld: int, grad: Numbers, ld_grad: int, columns: int, lanes: Lanes,
    scale: Numbers, shift: Numbers, slope: Numbers, constant: Numbers, out: Numbers, ld_out: int,
) -> None:  # fmt: skip
    """scale g' + slope x + constant; ``out`` may be ``grad``."""
    width = len(lanes)
    nothing = zeros(x, lanes)
    for row in range(begin, end):
        for c in range(0, columns, width):
            value, factor = load(x, row * ld + c, lanes), load(scale, c, lanes)
            y = multiply_add(value, factor, load(shift, c, lanes))
            g = where_positive(y, load(grad, row * ld_grad + c, lanes), nothing)
            rest = multiply_add(value, load(slope, c, lanes), load(constant, c, lanes))
            store(out, row * ld_out + c, add(multiply(g, factor), rest))


@njit(**OPTIONS)
def add_repeated(
    begin: int, end: int, part: int, x: Numbers, ld: int, columns: int, lanes: Lanes, roots: Whole, nodes: Whole,
    pairs: Whole, term: Numbers,
) -> None:  # fmt: skip
    """x[s, v] += term[v] for graphs begin to end."""
    width = len(lanes)
    for graph in range(begin, end):
        count, first = nodes[graph + 1] - nodes[graph], nodes[graph]
        for s in range(roots[graph + 1] - roots[graph]):
            for v in range(count):
                row = pairs[graph] + s * count + v
                for c in range(0, columns, width):
                    at = row * ld + c
                    store(x, at, add(load(x, at, lanes), load(term, (first + v) * columns + c, lanes)))


@njit(**OPTIONS)
def sum_repeated(
    begin: int, end: int, part: int, x: Numbers, ld: int, columns: int, lanes: Lanes, roots: Whole, nodes: Whole,
    pairs: Whole, out: Numbers,
) -> None:  # fmt: skip
    """out[v] = sum over s of x[s, v] for graphs begin to end; ``out`` comes zeroed."""
    width = len(lanes)
    for graph in range(begin, end):
        count, first = nodes[graph + 1] - nodes[graph], nodes[graph]
        for s in range(roots[graph + 1] - roots[graph]):
            for v in range(count):
                row = pairs[graph] + s * count + v
                for c in range(0, columns, width):
                    at = (first + v) * columns + c
                    store(out, at, add(load(out, at, lanes), load(x, row * ld + c, lanes)))
