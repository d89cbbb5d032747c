"""Where the rows that one row exchanges messages with lie: what all kernels of this package begin with.

Kernels go over the rows of one side (``OWN``) and read those of the other (``FROM``): targets read sources in the
forward pass, sources read targets in the backward pass. Sides are numbered as in :meth:`Relation.layout`: 1 the
sources, 2 the targets. ``across`` is the length of a line of the layout, one more than there are graphs.
"""

import triton
import triton.language as tl

SIZES = ["rows", "edges", "across"]
"""Arguments that change with every batch: kernels are not compiled anew for those that 16 divides."""


@triton.jit
def places(
    row, present, graph_of, layout, across, ptr, AXIS: tl.constexpr, OWN: tl.constexpr, FROM: tl.constexpr
):  # fmt: skip
    """First and last entry of each row in the compressed rows, the row of the other side's element 0, and the step."""
    graph = tl.load(graph_of + row, mask=present, other=0)
    first_own = tl.load(layout + OWN * across + graph, mask=present, other=0)
    local = (row - tl.load(layout + (OWN + 2) * across + graph, mask=present, other=0)).to(tl.int32)
    base = tl.load(layout + (FROM + 2) * across + graph, mask=present, other=0)
    if AXIS == 1:
        last_own = tl.load(layout + OWN * across + graph + 1, mask=present, other=1)
        count = tl.maximum((last_own - first_own).to(tl.int32), 1)
        other = local // count
        member = local - other * count
        last_from = tl.load(layout + FROM * across + graph + 1, mask=present, other=0)
        base += other * (last_from - tl.load(layout + FROM * across + graph, mask=present, other=0))
        step = tl.full(row.shape, 1, tl.int64)
    else:
        last = tl.load(layout + graph + 1, mask=present, other=1)
        step = tl.maximum(last - tl.load(layout + graph, mask=present, other=0), 1)
        member = local // step.to(tl.int32)
        base += local - member * step
    first = tl.load(ptr + first_own + member, mask=present, other=0)
    last = tl.load(ptr + first_own + member + 1, mask=present, other=0)
    return first, (last - first).to(tl.int32), base, step


@triton.jit
def copies_of_edge(edge, index, edges, graph_of_edge, layout, across, AXIS: tl.constexpr):
    """How many copies an edge has on the product, and their input and output rows: first ones, and steps."""
    graph = tl.load(graph_of_edge + edge)
    first_source, first_target = tl.load(layout + across + graph), tl.load(layout + 2 * across + graph)
    source, target = tl.load(index + edge) - first_source, tl.load(index + edges + edge) - first_target
    copies = tl.load(layout + graph + 1) - tl.load(layout + graph)
    row_in, row_out = tl.load(layout + 3 * across + graph), tl.load(layout + 4 * across + graph)
    if AXIS == 1:
        step_in = tl.load(layout + across + graph + 1) - first_source
        step_out = tl.load(layout + 2 * across + graph + 1) - first_target
        row_in += source
        row_out += target
    else:
        step_in = tl.full((), 1, tl.int64)
        step_out = tl.full((), 1, tl.int64)
        row_in += source * copies
        row_out += target * copies
    return copies.to(tl.int32), row_in, step_in, row_out, step_out
