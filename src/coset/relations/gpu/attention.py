"""Softmax attention along one axis of a product, for the three kinds of logit: forward, and all gradients.

All heads of a row together: blocks of ``ROWS`` rows, ``H`` heads and ``C`` channels, the last two being ``HEADS`` and
``CHANNELS`` rounded up to powers of two. The forward pass goes over a row's edges once, with all it has so far scaled
to the largest logit (Milakov, Gimelshein 2018), and keeps the largest logit and the sum of a row; the backward pass
works weights p out again. With D = sum of p (g . message) over a row's edges, the gradient of a logit is
p (g . message - D); what a target row gets of it is A - D B, both summed in one pass over its edges.
"""

import triton
import triton.language as tl

from coset.relations.gpu.places import SIZES, copies_of_edge, places

LOWEST = tl.constexpr(-3.0e38)


@triton.jit
def read(
    matrix, ld, row, here, SINGLE: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr, ACC: tl.constexpr,
    H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Rows of a matrix: [rows, H] if there is a ``SINGLE`` number a head, else [rows, H, C]."""
    h = tl.arange(0, H)
    if SINGLE:
        mask = here[:, None] & (h < HEADS)[None, :]
        values = tl.load(matrix + row[:, None] * ld + h[None, :], mask=mask, other=0)
    else:
        c = tl.arange(0, C)
        mask = here[:, None, None] & ((h < HEADS)[:, None] & (c < CHANNELS)[None, :])[None, :, :]
        place = h[:, None] * CHANNELS + c[None, :]
        values = tl.load(matrix + row[:, None, None] * ld + place[None, :, :], mask=mask, other=0)
    return values.to(ACC)


@triton.jit
def write(
    matrix, values, row, here, SINGLE: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr, H: tl.constexpr,
    C: tl.constexpr,
):  # fmt: skip
    """Rows of a matrix without gaps: the contrary of :func:`read`."""
    h = tl.arange(0, H)
    values = values.to(matrix.dtype.element_ty)
    if SINGLE:
        mask = here[:, None] & (h < HEADS)[None, :]
        tl.store(matrix + row[:, None] * HEADS + h[None, :], values, mask=mask)
    else:
        c = tl.arange(0, C)
        mask = here[:, None, None] & ((h < HEADS)[:, None] & (c < CHANNELS)[None, :])[None, :, :]
        place = h[:, None] * CHANNELS + c[None, :]
        tl.store(matrix + row[:, None, None] * (HEADS * CHANNELS) + place[None, :, :], values, mask=mask)


@triton.jit
def read_vector(
    vector, HEADS: tl.constexpr, CHANNELS: tl.constexpr, ACC: tl.constexpr, H: tl.constexpr, C: tl.constexpr
):
    """The weight vector of ``gatv2``, [1, H, C]."""
    h, c = tl.arange(0, H), tl.arange(0, C)
    mask = (h < HEADS)[:, None] & (c < CHANNELS)[None, :]
    return tl.load(vector + h[:, None] * CHANNELS + c[None, :], mask=mask, other=0).to(ACC)[None, :, :]


@triton.jit
def logits(source, target, term, vector, KIND: tl.constexpr, SLOPE: tl.constexpr, SCALE: tl.constexpr):
    """Logits [rows, H]; and what is rectified, for ``transformer`` the keys."""
    if KIND == "transformer":
        z = source + term
        logit = tl.sum(target * z, 2) * SCALE
    else:
        z = source + target + term
        logit = tl.where(z > 0, z, z * SLOPE)
        if KIND == "gatv2":
            logit = tl.sum(logit * vector, 2)
    return logit, z


@triton.jit
def arriving(
    value, ld_v, source, ld_s, term, base, step, column, edge, entry, here, KIND: tl.constexpr, HAS_TERM: tl.constexpr,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, ACC: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """What comes to a target row along an entry of its compressed row: key, message, and the edge's term (or 0)."""
    SINGLE: tl.constexpr = KIND == "gat"
    ld_e: tl.constexpr = HEADS if SINGLE else HEADS * CHANNELS
    at = base + tl.load(column + entry, mask=here, other=0) * step
    key = read(source, ld_s, at, here, SINGLE, HEADS, CHANNELS, ACC, H, C)
    message = read(value, ld_v, at, here, False, HEADS, CHANNELS, ACC, H, C)
    shift = 0.0
    if HAS_TERM:
        number = tl.load(edge + entry, mask=here, other=0)
        shift = read(term, ld_e, number, here, SINGLE, HEADS, CHANNELS, ACC, H, C)
        if KIND == "transformer":
            message += shift
    return key, message, shift


@triton.jit
def softmax(logit, largest, summed, here):
    """Weights from the largest logit and the sum of their rows; 0 where there is no edge."""
    return tl.exp(tl.where(here[:, None], logit - largest, LOWEST)) / tl.where(summed > 0, summed, 1.0)


@triton.jit
def steepness(z, SLOPE: tl.constexpr):
    """The derivative of the leaky ReLU."""
    return tl.where(z > 0, tl.full(z.shape, 1.0, z.dtype), tl.full(z.shape, SLOPE, z.dtype))


@triton.jit(do_not_specialize=SIZES)
def forward(
    value, ld_v, source, ld_s, target, ld_t, term, vector, out, top, total, layout, across, graph_of, ptr, column, edge,
    rows, KIND: tl.constexpr, HAS_TERM: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr, SLOPE: tl.constexpr,
    SCALE: tl.constexpr, AXIS: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    SINGLE: tl.constexpr = KIND == "gat"
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    present = row < rows
    first, degree, base, step = places(row, present, graph_of, layout, across, ptr, AXIS, 2, 1)
    own = read(target, ld_t, row, present, SINGLE, HEADS, CHANNELS, ACC, H, C)
    direction = read_vector(vector, HEADS, CHANNELS, ACC, H, C) if KIND == "gatv2" else 0.0
    largest = tl.full((ROWS, H), LOWEST, ACC)
    summed = tl.zeros((ROWS, H), ACC)
    mixed = tl.zeros((ROWS, H, C), ACC)
    for j in range(0, tl.max(degree, 0)):
        here = j < degree
        key, message, shift = arriving(
            value, ld_v, source, ld_s, term, base, step, column, edge, first + j, here, KIND, HAS_TERM, HEADS, CHANNELS,
            ACC, H, C,
        )  # fmt: skip
        logit, _ = logits(key, own, shift, direction, KIND, SLOPE, SCALE)
        logit = tl.where(here[:, None], logit, LOWEST)
        higher = tl.maximum(largest, logit)
        p = tl.where(here[:, None], tl.exp(logit - higher), 0.0)
        fade = tl.exp(largest - higher)
        summed = summed * fade + p
        mixed = mixed * fade[:, :, None] + p[:, :, None] * message
        largest = higher
    summed = tl.where(degree[:, None] > 0, summed, 1.0)
    write(out, mixed / summed[:, :, None], row, present, False, HEADS, CHANNELS, H, C)
    write(top, largest, row, present, True, HEADS, CHANNELS, H, C)
    write(total, summed, row, present, True, HEADS, CHANNELS, H, C)


@triton.jit(do_not_specialize=SIZES)
def target_gradient(
    grad, ld_g, value, ld_v, source, ld_s, target, ld_t, term, vector, top, total, d_target, inner, d_vector, layout,
    across, graph_of, ptr, column, edge, rows, KIND: tl.constexpr, HAS_TERM: tl.constexpr, HEADS: tl.constexpr,
    CHANNELS: tl.constexpr, SLOPE: tl.constexpr, SCALE: tl.constexpr, AXIS: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Over output rows; writes D to ``inner``, and each program what its rows add to the gradient of ``vector``."""
    SINGLE: tl.constexpr = KIND == "gat"
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    present = row < rows
    first, degree, base, step = places(row, present, graph_of, layout, across, ptr, AXIS, 2, 1)
    own = read(target, ld_t, row, present, SINGLE, HEADS, CHANNELS, ACC, H, C)
    g = read(grad, ld_g, row, present, False, HEADS, CHANNELS, ACC, H, C)
    largest = read(top, HEADS, row, present, True, HEADS, CHANNELS, ACC, H, C)
    summed = read(total, HEADS, row, present, True, HEADS, CHANNELS, ACC, H, C)
    direction = read_vector(vector, HEADS, CHANNELS, ACC, H, C) if KIND == "gatv2" else 0.0
    mean = tl.zeros((ROWS, H), ACC)
    a = tl.zeros((ROWS, H) if SINGLE else (ROWS, H, C), ACC)
    b = tl.zeros((ROWS, H) if SINGLE else (ROWS, H, C), ACC)
    if KIND == "gatv2":
        a_vector, b_vector = tl.zeros((ROWS, H, C), ACC), tl.zeros((ROWS, H, C), ACC)
    for j in range(0, tl.max(degree, 0)):
        here = j < degree
        key, message, shift = arriving(
            value, ld_v, source, ld_s, term, base, step, column, edge, first + j, here, KIND, HAS_TERM, HEADS, CHANNELS,
            ACC, H, C,
        )  # fmt: skip
        logit, z = logits(key, own, shift, direction, KIND, SLOPE, SCALE)
        p = softmax(logit, largest, summed, here)
        dot = p * tl.sum(g * message, 2)
        mean += dot
        if KIND == "gat":
            steep = steepness(z, SLOPE)
            a += dot * steep
            b += p * steep
        else:
            steep = z if KIND == "transformer" else steepness(z, SLOPE)
            a += dot[:, :, None] * steep
            b += p[:, :, None] * steep
        if KIND == "gatv2":
            a_vector += dot[:, :, None] * steep * z
            b_vector += p[:, :, None] * steep * z
    if KIND == "gat":
        d = a - mean * b
    elif KIND == "gatv2":
        d = (a - mean[:, :, None] * b) * direction
        one = tl.program_id(0) + tl.zeros((1,), tl.int64)
        d_direction = tl.sum(a_vector - mean[:, :, None] * b_vector, 0)[None, :, :]
        write(d_vector, d_direction, one, one >= 0, False, HEADS, CHANNELS, H, C)
    else:
        d = (a - mean[:, :, None] * b) * SCALE
    write(d_target, d, row, present, SINGLE, HEADS, CHANNELS, H, C)
    write(inner, mean, row, present, True, HEADS, CHANNELS, H, C)


@triton.jit(do_not_specialize=SIZES)
def source_gradient(
    grad, ld_g, value, ld_v, source, ld_s, target, ld_t, term, vector, top, total, inner, d_value, d_source, layout,
    across, graph_of, ptr, column, edge, rows, KIND: tl.constexpr, HAS_TERM: tl.constexpr, HEADS: tl.constexpr,
    CHANNELS: tl.constexpr, SLOPE: tl.constexpr, SCALE: tl.constexpr, AXIS: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Over input rows; ``ptr``, ``column`` and ``edge`` are those of the transposed relation."""
    SINGLE: tl.constexpr = KIND == "gat"
    ld_e: tl.constexpr = HEADS if SINGLE else HEADS * CHANNELS
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    present = row < rows
    first, degree, base, step = places(row, present, graph_of, layout, across, ptr, AXIS, 1, 2)
    key = read(source, ld_s, row, present, SINGLE, HEADS, CHANNELS, ACC, H, C)
    own = read(value, ld_v, row, present, False, HEADS, CHANNELS, ACC, H, C)
    direction = read_vector(vector, HEADS, CHANNELS, ACC, H, C) if KIND == "gatv2" else 0.0
    d_own = tl.zeros((ROWS, H, C), ACC)
    d_key = tl.zeros((ROWS, H) if SINGLE else (ROWS, H, C), ACC)
    for j in range(0, tl.max(degree, 0)):
        here = j < degree
        at = base + tl.load(column + first + j, mask=here, other=0) * step
        other = read(target, ld_t, at, here, SINGLE, HEADS, CHANNELS, ACC, H, C)
        g = read(grad, ld_g, at, here, False, HEADS, CHANNELS, ACC, H, C)
        largest = read(top, HEADS, at, here, True, HEADS, CHANNELS, ACC, H, C)
        summed = read(total, HEADS, at, here, True, HEADS, CHANNELS, ACC, H, C)
        mean = read(inner, HEADS, at, here, True, HEADS, CHANNELS, ACC, H, C)
        shift = 0.0
        message = own
        if HAS_TERM:
            number = tl.load(edge + first + j, mask=here, other=0)
            shift = read(term, ld_e, number, here, SINGLE, HEADS, CHANNELS, ACC, H, C)
            if KIND == "transformer":
                message = own + shift
        logit, z = logits(key, other, shift, direction, KIND, SLOPE, SCALE)
        p = softmax(logit, largest, summed, here)
        d = p * (tl.sum(g * message, 2) - mean)
        d_own += p[:, :, None] * g
        if KIND == "gat":
            d_key += d * steepness(z, SLOPE)
        elif KIND == "gatv2":
            d_key += d[:, :, None] * steepness(z, SLOPE)
        else:
            d_key += d[:, :, None] * other
    if KIND == "gatv2":
        d_key = d_key * direction
    elif KIND == "transformer":
        d_key = d_key * SCALE
    write(d_value, d_own, row, present, False, HEADS, CHANNELS, H, C)
    write(d_source, d_key, row, present, SINGLE, HEADS, CHANNELS, H, C)


@triton.jit(do_not_specialize=SIZES)
def edge_gradient(
    grad, ld_g, value, ld_v, source, ld_s, target, ld_t, term, vector, top, total, inner, d_term, layout, across, index,
    graph_of_edge, edges, KIND: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr, SLOPE: tl.constexpr,
    SCALE: tl.constexpr, AXIS: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """One program an edge; ``ROWS`` of its copies at a time."""
    SINGLE: tl.constexpr = KIND == "gat"
    ld_e: tl.constexpr = HEADS if SINGLE else HEADS * CHANNELS
    number = tl.program_id(0).to(tl.int64)
    copies, row_in, step_in, row_out, step_out = copies_of_edge(
        number, index, edges, graph_of_edge, layout, across, AXIS
    )
    one = number + tl.zeros((1,), tl.int64)
    shift = read(term, ld_e, one, one >= 0, SINGLE, HEADS, CHANNELS, ACC, H, C)
    direction = read_vector(vector, HEADS, CHANNELS, ACC, H, C) if KIND == "gatv2" else 0.0
    collected = tl.zeros((ROWS, H) if SINGLE else (ROWS, H, C), ACC)
    for start in range(0, copies, ROWS):
        copy = start + tl.arange(0, ROWS)
        here = copy < copies
        at, to = row_in + copy * step_in, row_out + copy * step_out
        key = read(source, ld_s, at, here, SINGLE, HEADS, CHANNELS, ACC, H, C)
        message = read(value, ld_v, at, here, False, HEADS, CHANNELS, ACC, H, C)
        other = read(target, ld_t, to, here, SINGLE, HEADS, CHANNELS, ACC, H, C)
        g = read(grad, ld_g, to, here, False, HEADS, CHANNELS, ACC, H, C)
        largest = read(top, HEADS, to, here, True, HEADS, CHANNELS, ACC, H, C)
        summed = read(total, HEADS, to, here, True, HEADS, CHANNELS, ACC, H, C)
        mean = read(inner, HEADS, to, here, True, HEADS, CHANNELS, ACC, H, C)
        if KIND == "transformer":
            message += shift
        logit, z = logits(key, other, shift, direction, KIND, SLOPE, SCALE)
        p = softmax(logit, largest, summed, here)
        d = p * (tl.sum(g * message, 2) - mean)
        if KIND == "gat":
            collected += d * steepness(z, SLOPE)
        elif KIND == "gatv2":
            collected += d[:, :, None] * steepness(z, SLOPE)
        else:
            collected += d[:, :, None] * other * SCALE + p[:, :, None] * g
    d_shift = tl.sum(collected, 0)[None]
    if KIND == "gatv2":
        d_shift = d_shift * direction
    write(d_term, d_shift, one, one >= 0, SINGLE, HEADS, CHANNELS, H, C)
