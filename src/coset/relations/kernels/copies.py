"""Messages inside the copies of a bag, and the point term, on rows (x, s) of a product.

A cell x of the left set owns the rows ``rows[x]`` to ``rows[x + 1]``, one a marked cell s of its complex, so a message
from x' to x goes from one run of rows to another. Arrays are flat; ``ptr`` and ``sender`` are the compressed rows of
the relation, with global numbers, and ``bridge`` numbers the row of ``term`` that goes with each entry.
"""

from numba import njit

from coset.relations.kernels.arguments import Numbers, PerThread, Whole
from coset.relations.kernels.layer_norm import OPTIONS


@njit(**OPTIONS)
def forward(
    begin: int, end: int, part: int, rows: Whole, ptr: Whole, sender: Whole, bridge: Whole, mean: bool, columns: int,
    x: Numbers, ld: int, own: float, p: Numbers, ld_p: int, term: Numbers, out: Numbers, ld_out: int,
) -> None:  # fmt: skip
    """out(x, s) = own x(x, s) + sum or mean over (x', z) of ReLU(p(x', s) + term(z))."""
    zero = own * 0
    for cell in range(begin, end):
        first, count = rows[cell], rows[cell + 1] - rows[cell]
        share = zero + 1
        if mean:
            share /= max(ptr[cell + 1] - ptr[cell], 1)
        for s in range(first, first + count):
            to, here = out[s * ld_out : s * ld_out + columns], x[s * ld : s * ld + columns]
            for c in range(columns):
                to[c] = own * here[c]
        for e in range(ptr[cell], ptr[cell + 1]):
            start, shift = rows[sender[e]], term[bridge[e] * columns : (bridge[e] + 1) * columns]
            for s in range(count):
                to = out[(first + s) * ld_out : (first + s) * ld_out + columns]
                sent = p[(start + s) * ld_p : (start + s) * ld_p + columns]
                for c in range(columns):
                    message = sent[c] + shift[c]
                    to[c] += share * (message if message > zero else zero)


@njit(**OPTIONS)
def backward(
    begin: int, end: int, part: int, rows: Whole, ptr: Whole, sender: Whole, bridge: Whole, mean: bool, columns: int,
    p: Numbers, ld_p: int, term: Numbers, grad: Numbers, ld_grad: int, d_p: Numbers, ld_out: int, d_term: PerThread,
    zero: float,
) -> None:  # fmt: skip
    """Gradients of p and of term (``d_term[part]``, zeroed); ``zero`` has their precision.

    Neighbourhoods are symmetric, bridges included, so x' collects from the same cells that it hears.
    """
    for cell in range(begin, end):
        first, count = rows[cell], rows[cell + 1] - rows[cell]
        for s in range(first, first + count):
            d_p[s * ld_out : s * ld_out + columns] = zero
        for e in range(ptr[cell], ptr[cell + 1]):
            heard, z = sender[e], bridge[e] * columns
            share = zero + 1
            if mean:
                share /= ptr[heard + 1] - ptr[heard]
            shift, total = term[z : z + columns], d_term[part, z : z + columns]
            for s in range(count):
                own, there = (first + s) * ld_p, (rows[heard] + s) * ld_grad
                sent, given = p[own : own + columns], grad[there : there + columns]
                to = d_p[(first + s) * ld_out : (first + s) * ld_out + columns]
                for c in range(columns):
                    g = share * given[c] if sent[c] + shift[c] > zero else zero
                    to[c] += g
                    total[c] += g
