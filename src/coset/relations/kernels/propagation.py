"""Neighbourhood sums, means and maxima on one axis of a product, forward and backward.

Items and layout as in :mod:`.attention`. ``edge`` numbers the edge of each entry of the compressed rows; a
term of width 0 means none. Sums of rows that fill short vectors have kernels of their own, several times faster; there
``lanes`` is a tuple whose length divides the number of columns (see :mod:`.simd`), and rows of pairs may be stored in
bfloat16, while ``term`` and all that is added up are in the precision of arithmetic.
"""

import numpy as np
from numba import njit

from coset.relations.kernels.arguments import Lanes, Layout, Numbers, PerThread, Whole
from coset.relations.kernels.attention import OPTIONS, item_rows
from coset.relations.kernels.simd import add, load, maximum, multiply, scale, store, where_positive, zeros

SUM, MEAN, MAX = 0, 1, 2


@njit(**OPTIONS)
def forward(
    begin: int, end: int, part: int, along: int, layout: Layout, ptr: Whole, column: Whole, edge: Whole, width: int,
    x: Numbers, ld_x: int, term: Numbers, has_term: bool, relu: bool, reduce: int, out: Numbers, winner: Whole,
) -> None:  # fmt: skip
    """``winner`` (only for MAX) remembers the entry that gave each maximum; -1 without entries."""
    graph = np.searchsorted(layout[0], begin, side="right") - 1
    for item in range(begin, end):
        while item >= layout[0, graph + 1]:
            graph += 1
        base_in, step_in, base_out, step_out = item_rows(item, graph, along, layout)
        offset = layout[2, graph]
        for i in range(layout[2, graph + 1] - offset):
            to = (base_out + i * step_out) * width
            first, last = ptr[offset + i], ptr[offset + i + 1]
            row = out[to : to + width]
            row[:] = 0
            if reduce == MAX:
                winner[to : to + width] = -1
            for e in range(first, last):
                from_ = (base_in + column[e] * step_in) * ld_x
                message = x[from_ : from_ + width]
                extra = term[edge[e] * width : (edge[e] + 1) * width] if has_term else message
                for c in range(width):
                    m = message[c] + extra[c] if has_term else message[c]
                    if relu and m < 0:
                        m = m * 0
                    if reduce == MAX:
                        if winner[to + c] < 0 or m > row[c]:
                            row[c] = m
                            winner[to + c] = e
                    else:
                        row[c] += m
            if reduce == MEAN and last > first:
                for c in range(width):
                    row[c] /= last - first


@njit(**OPTIONS)
def backward(
    begin: int, end: int, part: int, along: int, layout: Layout, ptr: Whole, column: Whole, edge: Whole, width: int,
    x: Numbers, ld_x: int, term: Numbers, has_term: bool, relu: bool, reduce: int, grad: Numbers, winner: Whole,
    d_x: Numbers, d_term: PerThread,
) -> None:  # fmt: skip
    """Gradients; ``d_x`` comes zeroed, ``d_term[part]`` is this thread's own."""
    d_own = d_term[part]
    graph = np.searchsorted(layout[0], begin, side="right") - 1
    for item in range(begin, end):
        while item >= layout[0, graph + 1]:
            graph += 1
        base_in, step_in, base_out, step_out = item_rows(item, graph, along, layout)
        offset = layout[2, graph]
        for i in range(layout[2, graph + 1] - offset):
            to = (base_out + i * step_out) * width
            first, last = ptr[offset + i], ptr[offset + i + 1]
            for e in range(first, last):
                source = base_in + column[e] * step_in
                for c in range(width):
                    g = grad[to + c]
                    if reduce == MAX and winner[to + c] != e:
                        continue
                    if reduce == MEAN:
                        g = g / (last - first)
                    if relu:
                        m = x[source * ld_x + c]
                        if has_term:
                            m += term[edge[e] * width + c]
                        if m <= 0:
                            continue
                    d_x[source * width + c] += g
                    if has_term:
                        d_own[edge[e] * width + c] += g


@njit(**OPTIONS)
def sum_forward(
    begin: int, end: int, part: int, along: int, layout: Layout, ptr: Whole, column: Whole, edge: Whole, columns: int,
    lanes: Lanes, x: Numbers, ld_x: int, term: Numbers, has_term: bool, relu: bool, own: float, has_own: bool,
    out: Numbers, ld_out: int,
) -> None:  # fmt: skip
    """out[i] = own x[i] + sum over entries of x[k] + term, or of its positive part; ``has_own`` only where inputs and
    outputs are the same set."""
    width = len(lanes)
    nothing = zeros(x, lanes)
    graph = np.searchsorted(layout[0], begin, side="right") - 1
    for item in range(begin, end):
        while item >= layout[0, graph + 1]:
            graph += 1
        base_in, step_in, base_out, step_out = item_rows(item, graph, along, layout)
        offset = layout[2, graph]
        for i in range(layout[2, graph + 1] - offset):
            to = (base_out + i * step_out) * ld_out
            self_ = (base_in + i * step_in) * ld_x
            for c in range(0, columns, width):
                total = scale(load(x, self_ + c, lanes), own) if has_own else nothing
                for e in range(ptr[offset + i], ptr[offset + i + 1]):
                    message = load(x, (base_in + column[e] * step_in) * ld_x + c, lanes)
                    if has_term:
                        message = add(message, load(term, edge[e] * columns + c, lanes))
                    if relu:
                        message = maximum(nothing, message)
                    total = add(total, message)
                store(out, to + c, total)


@njit(**OPTIONS)
def sum_backward(
    begin: int, end: int, part: int, along: int, layout: Layout, ptr: Whole, column: Whole, edge: Whole, columns: int,
    lanes: Lanes, x: Numbers, ld_x: int, term: Numbers, has_term: bool, relu: bool, own: float, has_own: bool,
    grad: Numbers, ld_grad: int, d_x: Numbers, ld_dx: int, d_term: PerThread, d_own: PerThread,
) -> None:  # fmt: skip
    """Gradients, added to ``d_x``, which is in the precision of arithmetic; ``d_term[part]`` and ``d_own[part]`` are
    this thread's own. The latter is a row of terms of the gradient of ``own``."""
    width = len(lanes)
    nothing = zeros(x, lanes)
    d_edge = d_term[part]
    products = np.zeros(columns, term.dtype)
    graph = np.searchsorted(layout[0], begin, side="right") - 1
    for item in range(begin, end):
        while item >= layout[0, graph + 1]:
            graph += 1
        base_in, step_in, base_out, step_out = item_rows(item, graph, along, layout)
        offset = layout[2, graph]
        for i in range(layout[2, graph + 1] - offset):
            to = (base_out + i * step_out) * ld_grad
            self_ = base_in + i * step_in
            for c in range(0, columns, width):
                g = load(grad, to + c, lanes)
                if has_own:
                    at = self_ * ld_dx + c
                    store(d_x, at, add(load(d_x, at, lanes), scale(g, own)))
                    product = multiply(g, load(x, self_ * ld_x + c, lanes))
                    store(products, c, add(load(products, c, lanes), product))
                for e in range(ptr[offset + i], ptr[offset + i + 1]):
                    source = base_in + column[e] * step_in
                    passed = g
                    if relu:
                        message = load(x, source * ld_x + c, lanes)
                        if has_term:
                            message = add(message, load(term, edge[e] * columns + c, lanes))
                        passed = where_positive(message, g, nothing)
                    at = source * ld_dx + c
                    store(d_x, at, add(load(d_x, at, lanes), passed))
                    if has_term:
                        at = edge[e] * columns + c
                        store(d_edge, at, add(load(d_edge, at, lanes), passed))
        if has_own:
            for c in range(columns):
                d_own[part, c] += products[c]
                products[c] = 0
