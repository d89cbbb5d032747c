"""Edge-softmax attention on one axis of a product, forward and backward, for the three kinds of logit.

Work is split by item: one element of the *other* axis. An item owns the rows of its copy of the graph (``along=1``:
contiguous; ``along=0``: a column), so every scatter of the backward pass is free of races. Nothing of the softmax is
saved: the backward pass computes it again.

Arrays are flat; a matrix comes with its leading dimension ``ld_*``, so a slice of columns needs no copy. ``H`` and
``W`` are tuples whose lengths are the number of heads and of columns (heads times channels): see :mod:`.simd`. Rows of
pairs may be stored in bfloat16 (there, too); ``term`` and all that is added up are in the precision of arithmetic.
"""

from typing import Any

import numpy as np
from numba import njit

from coset.relations.kernels.arguments import Lanes, Layout, Numbers, PerThread, Whole
from coset.relations.kernels.simd import (
    add,
    divide,
    exp,
    expand,
    fold,
    load,
    lowest,
    maximum,
    multiply,
    multiply_add,
    scale,
    store,
    subtract,
    where_positive,
    zeros,
)

OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**OPTIONS)
def item_rows(item: int, graph: int, along: int, layout: Layout) -> tuple[int, int, int, int]:
    """First input row of an item, the step between its input rows, first output row, the step between those."""
    other = item - layout[0, graph]
    copies = layout[0, graph + 1] - layout[0, graph]
    if along == 1:
        sources = layout[1, graph + 1] - layout[1, graph]
        targets = layout[2, graph + 1] - layout[2, graph]
        return layout[3, graph] + other * sources, 1, layout[4, graph] + other * targets, 1
    return layout[3, graph] + other, copies, layout[4, graph] + other, copies


@njit(inline="always")
def _leaky(t: Any, slope: float) -> Any:
    return where_positive(t, t, scale(t, slope))


@njit(**OPTIONS)
def gat_forward(
    begin: int, end: int, part: int, along: int, layout: Layout, ptr: Whole, column: Whole, edge: Whole, longest: int,
    H: Lanes, W: Lanes, value: Numbers, ld_v: int, source: Numbers, ld_s: int, target: Numbers, ld_t: int,
    term: Numbers, has_term: bool, slope: float, out: Numbers, ld_o: int,
) -> None:  # fmt: skip
    heads = len(H)
    logit = np.empty((longest + 1) * heads, term.dtype)
    graph = np.searchsorted(layout[0], begin, side="right") - 1
    for item in range(begin, end):
        while item >= layout[0, graph + 1]:
            graph += 1
        base_in, step_in, base_out, step_out = item_rows(item, graph, along, layout)
        offset = layout[2, graph]
        for i in range(layout[2, graph + 1] - offset):
            row_out = base_out + i * step_out
            first, last = ptr[offset + i], ptr[offset + i + 1]
            if first == last:
                store(out, row_out * ld_o, zeros(value, W))
                continue
            own = load(target, row_out * ld_t, H)
            top = lowest(value, H)
            for e in range(first, last):
                t = add(load(source, (base_in + column[e] * step_in) * ld_s, H), own)
                if has_term:
                    t = add(t, load(term, edge[e] * heads, H))
                t = _leaky(t, slope)
                store(logit, (e - first) * heads, t)
                top = maximum(top, t)
            total = zeros(value, H)
            mixed = zeros(value, W)
            for e in range(first, last):
                p = exp(subtract(load(logit, (e - first) * heads, H), top))
                total = add(total, p)
                mixed = multiply_add(expand(p, W), load(value, (base_in + column[e] * step_in) * ld_v, W), mixed)
            store(out, row_out * ld_o, divide(mixed, expand(total, W)))


@njit(**OPTIONS)
def gat_backward(
    begin: int, end: int, part: int, along: int, layout: Layout, ptr: Whole, column: Whole, edge: Whole, longest: int,
    H: Lanes, W: Lanes, value: Numbers, ld_v: int, source: Numbers, ld_s: int, target: Numbers, ld_t: int,
    term: Numbers, has_term: bool, slope: float, grad: Numbers, ld_g: int, d_value: Numbers, ld_dv: int,
    d_source: Numbers, ld_ds: int, d_target: Numbers, ld_dt: int, d_term: PerThread,
) -> None:  # fmt: skip
    """Gradients, of every row; ``d_term[part]`` comes zeroed and is this thread's own."""
    heads, columns = len(H), len(W)
    logit = np.empty((longest + 1) * heads, term.dtype)
    weight = np.empty((longest + 1) * heads, term.dtype)
    inner = np.empty((longest + 1) * heads, term.dtype)
    most = np.diff(layout[1]).max()
    sent, asked = np.empty(most * columns, term.dtype), np.empty(most * heads, term.dtype)
    d_own = d_term[part]
    graph = np.searchsorted(layout[0], begin, side="right") - 1
    for item in range(begin, end):
        while item >= layout[0, graph + 1]:
            graph += 1
        base_in, step_in, base_out, step_out = item_rows(item, graph, along, layout)
        count = layout[1, graph + 1] - layout[1, graph]
        sent[: count * columns] = 0
        asked[: count * heads] = 0
        offset = layout[2, graph]
        for i in range(layout[2, graph + 1] - offset):
            row_out = base_out + i * step_out
            first, last = ptr[offset + i], ptr[offset + i + 1]
            if first == last:
                store(d_target, row_out * ld_dt, zeros(value, H))
                continue
            own = load(target, row_out * ld_t, H)
            top = lowest(value, H)
            for e in range(first, last):
                t = add(load(source, (base_in + column[e] * step_in) * ld_s, H), own)
                if has_term:
                    t = add(t, load(term, edge[e] * heads, H))
                t = _leaky(t, slope)
                store(logit, (e - first) * heads, t)
                top = maximum(top, t)
            total = zeros(value, H)
            for e in range(last - first):
                p = exp(subtract(load(logit, e * heads, H), top))
                total = add(total, p)
                store(weight, e * heads, p)
            g = load(grad, row_out * ld_g, W)
            mean = zeros(value, H)
            for e in range(first, last):
                k = column[e]
                w = divide(load(weight, (e - first) * heads, H), total)
                dot = fold(multiply(g, load(value, (base_in + k * step_in) * ld_v, W)), H)
                store(sent, k * columns, multiply_add(expand(w, W), g, load(sent, k * columns, W)))
                store(weight, (e - first) * heads, w)
                store(inner, (e - first) * heads, dot)
                mean = multiply_add(w, dot, mean)
            received = zeros(value, H)
            for e in range(first, last):
                k, at = column[e], (e - first) * heads
                d = multiply(load(weight, at, H), subtract(load(inner, at, H), mean))
                d = where_positive(load(logit, at, H), d, scale(d, slope))
                received = add(received, d)
                store(asked, k * heads, add(load(asked, k * heads, H), d))
                if has_term:
                    store(d_own, edge[e] * heads, add(load(d_own, edge[e] * heads, H), d))
            store(d_target, row_out * ld_dt, received)
        for k in range(count):
            store(d_value, (base_in + k * step_in) * ld_dv, load(sent, k * columns, W))
            store(d_source, (base_in + k * step_in) * ld_ds, load(asked, k * heads, H))
