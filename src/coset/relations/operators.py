"""The fused kernels as PyTorch operators, registered with ``torch.library``: so autograd knows them."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from coset.relations.index_sets import Product
from coset.relations.kernels import attention as kernels
from coset.relations.kernels import propagation, threads
from coset.relations.relation import Relation

Structure = tuple[Int[Tensor, "5 _offsets"], Int[Tensor, " _rows"], Int[Tensor, " edges"], Int[Tensor, " edges"]]
"""Where rows lie (:meth:`Relation.layout`), and the compressed rows of a relation: pointers, sources, edges."""


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """What kernels compute in on matrices that are stored as ``dtype``."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def flat(x: Tensor) -> tuple[np.ndarray, int]:
    """The memory of a matrix as a flat array, and its leading dimension; a slice of columns is not copied.

    NumPy has no bfloat16: that comes as 16-bit integers, as the kernels take it.
    """
    x = x.detach()
    x = x.view(torch.int16) if x.dtype == torch.bfloat16 else x
    if x.numel() == 0:
        return np.empty(0, x.numpy().dtype), max(x.size(-1), 1)
    if (x.stride(-1) != 1 and x.size(-1) > 1) or x.stride(0) < x.size(1):
        x = x.contiguous()
    ld = x.stride(0) if x.size(0) > 1 else x.size(1)
    return x.as_strided(((x.size(0) - 1) * ld + x.size(1),), (1,)).numpy(), ld


def item_bounds(layout: Tensor, ptr: Tensor, summed: int | None = None) -> np.ndarray:
    """Ranges of items, balanced by the edges and rows that an item walks.

    Args:
        layout, ptr: Where rows lie, and the compressed rows of a relation.
        summed: Columns, where each range keeps sums of its own; by default there is a range for each thread.
    """
    layout_, ptr_ = layout.numpy(), ptr.numpy()
    if summed is None and threads.thread_count() == 1:
        return np.array([0, layout_[0, -1]])
    cost = np.diff(ptr_[layout_[2]]) + np.diff(layout_[2]) + 1
    parts = None if summed is None else threads.summed_parts(int(np.diff(layout_[0]) @ cost) * summed)
    return threads.balanced(layout_[0], cost, parts)


def _arguments(
    value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, layout: Tensor, ptr: Tensor,
    column: Tensor, order: Tensor, along: int, longest: int, heads: int, slope: float,
) -> tuple[object, ...]:  # fmt: skip
    terms, has_edge = [*flat(value), *flat(source), *flat(target)], edge is not None
    edge = torch.empty(0, dtype=arithmetic(value.dtype)) if edge is None else edge.detach().contiguous().view(-1)
    edge_term = edge.numpy()
    return (
        along, layout.numpy(), ptr.numpy(), column.numpy(), order.numpy(), longest, (0,) * heads, (0,) * value.size(1),
        *terms, edge_term, has_edge, edge_term.dtype.type(slope),
    )  # fmt: skip


def gat_into(
    out: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, structure: Structure, along: int,
    longest: int, heads: int, slope: float,
) -> None:  # fmt: skip
    """Write the result of ``gat`` attention to ``out``; all matrices may be slices of columns of larger ones."""
    layout, ptr, column, order = structure
    arguments = _arguments(value, source, target, edge, layout, ptr, column, order, along, longest, heads, slope)
    threads.run(kernels.gat_forward, item_bounds(layout, ptr), *arguments, *flat(out))


def gat_backward_into(
    out: tuple[Tensor, Tensor, Tensor], grad: Tensor, value: Tensor, source: Tensor, target: Tensor,
    edge: Tensor | None, structure: Structure, along: int, longest: int, heads: int, slope: float,
) -> Tensor:  # fmt: skip
    """Write the gradients of value, source and target to the matrices ``out``; that of edge is returned."""
    layout, ptr, column, order = structure
    bounds = item_bounds(layout, ptr, summed=value.size(1))
    d_edge = torch.zeros(len(bounds) - 1, 0 if edge is None else edge.numel(), dtype=arithmetic(value.dtype))
    arguments = _arguments(value, source, target, edge, layout, ptr, column, order, along, longest, heads, slope)
    outputs = [part for matrix in out for part in flat(matrix)]
    threads.run(kernels.gat_backward, bounds, *arguments, *flat(grad), *outputs, d_edge.numpy())
    return d_edge.sum(0).view(-1, heads)


@torch.library.custom_op("coset::gat", mutates_args=())
def gat(
    value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, layout: Tensor, ptr: Tensor, column: Tensor,
    order: Tensor, along: int, longest: int, rows: int, heads: int, slope: float,
) -> Tensor:  # fmt: skip
    out = value.new_empty(rows, value.size(1))
    gat_into(out, value, source, target, edge, (layout, ptr, column, order), along, longest, heads, slope)
    return out


@gat.register_fake
def _(
    value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, layout: Tensor, ptr: Tensor, column: Tensor,
    order: Tensor, along: int, longest: int, rows: int, heads: int, slope: float,
) -> Tensor:  # fmt: skip
    return value.new_empty(rows, value.size(1))


@torch.library.custom_op("coset::gat_backward", mutates_args=())
def gat_backward(
    grad: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, layout: Tensor, ptr: Tensor,
    column: Tensor, order: Tensor, along: int, longest: int, heads: int, slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_value, d_source, d_target = (value.new_empty(term.shape) for term in (value, source, target))
    d_edge = gat_backward_into(
        (d_value, d_source, d_target), grad, value, source, target, edge, (layout, ptr, column, order), along, longest,
        heads, slope,
    )  # fmt: skip
    return d_value, d_source, d_target, d_edge


@gat_backward.register_fake
def _(
    grad: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, layout: Tensor, ptr: Tensor,
    column: Tensor, order: Tensor, along: int, longest: int, heads: int, slope: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    d_edge = value.new_empty(0 if edge is None else edge.size(0), heads)
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (value, source, target)) + (
        d_edge,
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    value, source, target, edge, layout, ptr, column, order, along, longest, _, heads, slope = inputs
    ctx.save_for_backward(value, source, target, edge, layout, ptr, column, order)
    ctx.options = (along, longest, heads, slope)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, source, target, edge, *structure = ctx.saved_tensors
    d_value, d_source, d_target, d_edge = gat_backward(grad, value, source, target, edge, *structure, *ctx.options)
    return d_value, d_source, d_target, None if edge is None else d_edge, *[None] * 9


gat.register_autograd(_backward, setup_context=_save)


def covers(score: str, columns: int) -> bool:
    """Whether a fused kernel exists: additive logits, and rows that fit the machine's registers a few times over."""
    return score == "gat" and columns <= 256


def attend(
    terms: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    relation: Relation,
    product: Product | None,
    along: int,
    rows: int,
    heads: int,
    score: str,
    slope: float,
) -> Tensor:
    """Fused :func:`coset.relations.attend`."""
    value, source, target, edge, _ = terms
    table, layout = relation.rows, relation.layout(product, along)
    structure = (layout, table.ptr, table.source, table.edge)
    return gat(value, source, target, edge, *structure, along, table.longest, rows, heads, slope)


def lanes(columns: int) -> tuple[int, ...]:
    """The vectors that rows of so many columns fill: 16 numbers each, or 8; none if neither divides them."""
    return (0,) * next((length for length in (16, 8) if columns % length == 0), 0)


def sum_into(
    out: Tensor, x: Tensor, term: Tensor | None, structure: Structure, along: int, relu: bool, own: float | None = None
) -> None:
    """Write ``own x[i] + sum over neighbours of (ReLU of) x[k] + term`` to ``out``, for rows that fill vectors.

    Args:
        out, x: Matrices, or slices of columns of larger ones; they may be stored in bfloat16.
        term: One row an edge, in the precision of arithmetic, or ``None``.
        structure: Layout and compressed rows of the relation.
        along: Axis of the product.
        relu: Whether messages are rectified.
        own: Factor of a row's own features, for a relation of a set with itself; ``None`` leaves them out.
    """
    arguments = _sum_arguments(x, term, structure, along, relu, own)
    threads.run(propagation.sum_forward, item_bounds(structure[0], structure[1]), *arguments, *flat(out))


def sum_backward_into(
    d_x: Tensor, grad: Tensor, x: Tensor, term: Tensor | None, structure: Structure, along: int, relu: bool,
    own: float | None = None,
) -> tuple[Tensor | None, Tensor]:  # fmt: skip
    """Add the gradient of x to ``d_x``; those of ``term`` and of ``own`` are returned.

    All three are in the precision of arithmetic; ``grad`` and ``x`` may be stored in bfloat16.
    """
    bounds = item_bounds(structure[0], structure[1], summed=x.size(1))
    parts = len(bounds) - 1
    d_term = torch.zeros(parts, 0 if term is None else term.numel(), dtype=arithmetic(x.dtype))
    d_own = torch.zeros(parts, x.size(1), dtype=torch.float64)
    arguments = _sum_arguments(x, term, structure, along, relu, own)
    threads.run(
        propagation.sum_backward, bounds, *arguments, *flat(grad), *flat(d_x), d_term.numpy(), d_own.numpy()
    )  # fmt: skip
    return None if term is None else d_term.sum(0).view(-1, x.size(1)), d_own.sum().to(d_term.dtype)


def _sum_arguments(
    x: Tensor, term: Tensor | None, structure: Structure, along: int, relu: bool, own: float | None
) -> tuple[object, ...]:
    layout, ptr, column, order = structure
    has_term = term is not None
    term = torch.empty(0, dtype=arithmetic(x.dtype)) if term is None else term.detach().contiguous().view(-1)
    term_ = term.numpy()
    return (
        along, layout.numpy(), ptr.numpy(), column.numpy(), order.numpy(), x.size(1), lanes(x.size(1)),
        *flat(x), term_, has_term, relu, term_.dtype.type(own or 0), own is not None,
    )  # fmt: skip


_REDUCE = {"sum": propagation.SUM, "mean": propagation.MEAN, "max": propagation.MAX}


def _propagation_arguments(
    x: Tensor, term: Tensor | None, layout: Tensor, ptr: Tensor, column: Tensor, order: Tensor, along: int, relu: bool,
    reduce: int,
) -> tuple[object, ...]:  # fmt: skip
    term_ = x.new_empty(0).numpy() if term is None else term.detach().contiguous().view(-1).numpy()
    structure = (along, layout.numpy(), ptr.numpy(), column.numpy(), order.numpy(), x.size(1))
    return (*structure, *flat(x), term_, term is not None, relu, reduce)


@torch.library.custom_op("coset::propagate", mutates_args=())
def propagate_op(
    x: Tensor, term: Tensor | None, layout: Tensor, ptr: Tensor, column: Tensor, order: Tensor, along: int, rows: int,
    relu: bool, reduce: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out = x.new_empty(rows, x.size(1))
    if reduce == propagation.SUM and lanes(x.size(1)):
        sum_into(out, x, term, (layout, ptr, column, order), along, relu)
        return out, torch.empty(0, x.size(1), dtype=torch.int64)
    winner = torch.empty(out.shape if reduce == propagation.MAX else (0, x.size(1)), dtype=torch.int64)
    arguments = _propagation_arguments(x, term, layout, ptr, column, order, along, relu, reduce)
    threads.run(
        propagation.forward, item_bounds(layout, ptr), *arguments, out.view(-1).numpy(), winner.view(-1).numpy()
    )
    return out, winner


@propagate_op.register_fake
def _(
    x: Tensor, term: Tensor | None, layout: Tensor, ptr: Tensor, column: Tensor, order: Tensor, along: int, rows: int,
    relu: bool, reduce: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    shape = (rows, x.size(1)) if reduce == propagation.MAX else (0, x.size(1))
    return x.new_empty(rows, x.size(1)), x.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("coset::propagate_backward", mutates_args=())
def propagate_backward(
    grad: Tensor, winner: Tensor, x: Tensor, term: Tensor | None, layout: Tensor, ptr: Tensor, column:
    Tensor, order: Tensor,
    along: int, relu: bool, reduce: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    d_x = x.new_zeros(x.shape)
    if reduce == propagation.SUM and lanes(x.size(1)):
        structure = (layout, ptr, column, order)
        d_edge, _ = sum_backward_into(d_x, grad.contiguous(), x, term, structure, along, relu)
        return d_x, x.new_zeros(0, x.size(1)) if d_edge is None else d_edge
    bounds = item_bounds(layout, ptr, summed=x.size(1))
    d_term = x.new_zeros(len(bounds) - 1, 0 if term is None else term.numel())
    arguments = _propagation_arguments(x, term, layout, ptr, column, order, along, relu, reduce)
    threads.run(
        propagation.backward, bounds, *arguments, grad.contiguous().view(-1).numpy(), winner.view(-1).numpy(),
        d_x.view(-1).numpy(), d_term.numpy(),
    )  # fmt: skip
    return d_x, d_term.sum(0).view(-1, x.size(1))


@propagate_backward.register_fake
def _(
    grad: Tensor, winner: Tensor, x: Tensor, term: Tensor | None, layout: Tensor, ptr: Tensor, column: Tensor,
    order: Tensor, along: int, relu: bool, reduce: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), x.new_empty(0 if term is None else term.size(0), x.size(1))


def _save_propagate(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, term, layout, ptr, column, order, along, _, relu, reduce = inputs
    ctx.save_for_backward(output[1], x, term, layout, ptr, column, order)
    ctx.options = (along, relu, reduce)


def _backward_propagate(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    winner, x, term, *structure = ctx.saved_tensors
    d_x, d_term = propagate_backward(grad, winner, x, term, *structure, *ctx.options)
    return d_x, None if term is None else d_term, *[None] * 8


propagate_op.register_autograd(_backward_propagate, setup_context=_save_propagate)


def propagate(
    x: Float[Tensor, "inputs channels"], edge: Float[Tensor, "edges channels"] | None, relation: Relation,
    product: Product | None, along: int, rows: int, relu: bool, reduce: str,
) -> Float[Tensor, "outputs channels"]:  # fmt: skip
    """Fused :func:`coset.relations.propagate`."""
    table, layout = relation.rows, relation.layout(product, along)
    return propagate_op(x, edge, layout, table.ptr, table.source, table.edge, along, rows, relu, _REDUCE[reduce])[0]
