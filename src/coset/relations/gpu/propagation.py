"""Messages along one axis of a product, summed, averaged or compared: forward, and both gradients, without atomics.

One program a block of ``ROWS`` rows and ``WIDE`` columns of what it writes. Gradients of features are gathered over the
reversed edges; that of an edge's term over the copies of the edge. Sums are in ``ACC``, whatever is stored.
"""

import triton
import triton.language as tl

from coset.relations.gpu.places import SIZES, copies_of_edge, places


@triton.jit(do_not_specialize=SIZES)
def forward(
    x, ld_x, term, out, winner, layout, across, graph_of, ptr, column, edge, rows, columns,
    AXIS: tl.constexpr, HAS_TERM: tl.constexpr, RELU: tl.constexpr, REDUCE: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    present, within = row < rows, c < columns
    first, degree, base, step = places(row, present, graph_of, layout, across, ptr, AXIS, 2, 1)
    total = tl.full((ROWS, WIDE), float("-inf") if REDUCE == "max" else 0.0, ACC)
    best = tl.full((ROWS, WIDE), -1, tl.int32)
    for j in range(0, tl.max(degree, 0)):
        here = j < degree
        mask = here[:, None] & within[None, :]
        source = base + tl.load(column + first + j, mask=here, other=0) * step
        message = tl.load(x + source[:, None] * ld_x + c[None, :], mask=mask, other=0).to(ACC)
        number = tl.load(edge + first + j, mask=here, other=0)
        if HAS_TERM:
            message += tl.load(term + number[:, None] * columns + c[None, :], mask=mask, other=0).to(ACC)
        if RELU:
            message = tl.where(message < 0, 0.0, message)  # NaN stays
        if REDUCE == "max":
            better = mask & ((message > total) | (message != message))
            total = tl.where(better, message, total)
            best = tl.where(better, number[:, None].to(tl.int32), best)
        else:
            total += message
    to = row[:, None] * columns + c[None, :]
    mask = present[:, None] & within[None, :]
    if REDUCE == "mean":
        total = total / tl.maximum(degree, 1)[:, None].to(ACC)
    if REDUCE == "max":
        total = tl.where(best < 0, 0.0, total)
        if RELU:
            best = tl.where(total > 0, best, -1)  # a message that ReLU stops brings no gradient
        tl.store(winner + to, best, mask=mask)
    tl.store(out + to, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def input_gradient(
    grad, ld_grad, x, ld_x, term, winner, d_x, layout, across, graph_of, ptr, column, edge, ptr_forward, rows, columns,
    AXIS: tl.constexpr, HAS_TERM: tl.constexpr, RELU: tl.constexpr, REDUCE: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Over input rows; ``ptr``, ``column`` and ``edge`` are those of the transposed relation."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    present, within = row < rows, c < columns
    first, degree, base, step = places(row, present, graph_of, layout, across, ptr, AXIS, 1, 2)
    stored = present[:, None] & within[None, :]
    if RELU and REDUCE != "max":
        own = tl.load(x + row[:, None] * ld_x + c[None, :], mask=stored, other=0).to(ACC)
    if REDUCE == "mean":
        graph = tl.load(graph_of + row, mask=present, other=0)
        ends = ptr_forward + tl.load(layout + 2 * across + graph, mask=present, other=0)
    total = tl.zeros((ROWS, WIDE), ACC)
    for j in range(0, tl.max(degree, 0)):
        here = j < degree
        mask = here[:, None] & within[None, :]
        member = tl.load(column + first + j, mask=here, other=0)
        at = base + member * step
        number = tl.load(edge + first + j, mask=here, other=0)
        g = tl.load(grad + at[:, None] * ld_grad + c[None, :], mask=mask, other=0).to(ACC)
        if REDUCE == "max":
            g = tl.where(
                tl.load(winner + at[:, None] * columns + c[None, :], mask=mask, other=-1) == number[:, None], g, 0
            )
        elif RELU:
            message = own
            if HAS_TERM:
                message += tl.load(term + number[:, None] * columns + c[None, :], mask=mask, other=0).to(ACC)
            g = tl.where(message > 0, g, 0.0)
        if REDUCE == "mean":
            arrived = tl.load(ends + member + 1, mask=here, other=1) - tl.load(ends + member, mask=here, other=0)
            g = g / arrived[:, None].to(ACC)
        total += g
    tl.store(d_x + row[:, None] * columns + c[None, :], total.to(d_x.dtype.element_ty), mask=stored)


@triton.jit(do_not_specialize=SIZES)
def edge_gradient(
    grad, ld_grad, x, ld_x, term, winner, d_term, layout, across, index, graph_of_edge, ptr, edges, columns,
    AXIS: tl.constexpr, RELU: tl.constexpr, REDUCE: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """One program an edge; ``ROWS`` of its copies at a time."""
    edge = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    within = c < columns
    copies, row_in, step_in, row_out, step_out = copies_of_edge(edge, index, edges, graph_of_edge, layout, across, AXIS)
    shift = tl.load(term + edge * columns + c, mask=within, other=0).to(ACC)
    total = tl.zeros((ROWS, WIDE), ACC)
    for start in range(0, copies, ROWS):
        copy = start + tl.arange(0, ROWS)
        mask = (copy < copies)[:, None] & within[None, :]
        to = row_out + copy * step_out
        g = tl.load(grad + to[:, None] * ld_grad + c[None, :], mask=mask, other=0).to(ACC)
        if REDUCE == "max":
            came_by = tl.load(winner + to[:, None] * columns + c[None, :], mask=mask, other=-1)
            g = tl.where(came_by == edge, g, 0.0)
        elif RELU:
            at = row_in + copy * step_in
            message = tl.load(x + at[:, None] * ld_x + c[None, :], mask=mask, other=0).to(ACC) + shift[None, :]
            g = tl.where(message > 0, g, 0.0)
        total += g
    d = tl.sum(total, 0)
    if REDUCE == "mean":
        target = tl.load(index + edges + edge)
        d = d / (tl.load(ptr + target + 1) - tl.load(ptr + target)).to(ACC)
    tl.store(d_term + edge * columns + c, d.to(d_term.dtype.element_ty), mask=within)
