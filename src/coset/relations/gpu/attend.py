"""The verb ``attend`` by Triton, as operators of PyTorch: see :mod:`coset.relations.gpu.propagate`.

``terms`` are value, source, target, edge and vector, the last two perhaps ``None``; ``top`` and ``total`` are the
largest logit of every output row and the sum of its exponentials, [rows, heads].
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from coset.relations.gpu import attention
from coset.relations.gpu.gathering import Gathering
from coset.relations.gpu.launch import accumulator, head_tile, matrix


def _options(terms: Sequence[Tensor | None], along: int, heads: int, score: str, slope: float) -> dict[str, Any]:
    """What kernels are compiled for."""
    assert terms[0] is not None
    channels = terms[0].size(1) // heads
    return {
        "KIND": score, "HEADS": heads, "CHANNELS": channels, "SLOPE": slope, "SCALE": channels**-0.5, "AXIS": along,
        "ACC": accumulator(*terms), **head_tile(heads, channels),
    }  # fmt: skip


def _arguments(
    value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, vector: Tensor | None
) -> tuple[Any, ...]:
    matrices = *matrix(value), *matrix(source), *matrix(target)
    return (*matrices, value if edge is None else edge.contiguous(), value if vector is None else vector.contiguous())


def _wide(value: Tensor) -> torch.dtype:
    """Of what is kept between kernels: float32, or float64 for float64."""
    return torch.promote_types(value.dtype, torch.float32)


@torch.library.custom_op("coset::attend", mutates_args=())
def attend_op(
    value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, vector: Tensor | None,
    structure: Sequence[Tensor], along: int, heads: int, score: str, slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The result, and ``top`` and ``total``."""
    rows = target.size(0)
    out, top = value.new_empty(rows, value.size(1)), value.new_empty(rows, heads, dtype=_wide(value))
    total = torch.empty_like(top)
    if out.numel() == 0:
        return out, top, total
    parts, options = Gathering(*structure), _options((value, source, target, edge, vector), along, heads, score, slope)
    with torch.cuda.device_of(value):
        attention.forward[(triton.cdiv(rows, options["ROWS"]),)](
            *_arguments(value, source, target, edge, vector), out, top, total, parts.layout,
            parts.layout.size(1), *parts.into_targets, rows, HAS_TERM=edge is not None, **options,
        )  # fmt: skip
    return out, top, total


@attend_op.register_fake
def _(
    value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, vector: Tensor | None,
    structure: Sequence[Tensor], along: int, heads: int, score: str, slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    top = value.new_empty(target.size(0), heads, dtype=_wide(value))
    return value.new_empty(target.size(0), value.size(1)), top, torch.empty_like(top)


@torch.library.custom_op("coset::attend_target_gradient", mutates_args=())
def target_gradient(
    grad: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, vector: Tensor | None,
    top: Tensor, total: Tensor, structure: Sequence[Tensor], along: int, heads: int, score: str, slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of target and vector, and what the other two gradients need: the mean of g . message of every row."""
    rows = target.size(0)
    d_target, inner = target.new_empty(target.shape), torch.empty_like(top)
    options = _options((value, source, target, edge, vector), along, heads, score, slope)
    programs = triton.cdiv(rows, options["ROWS"])
    d_vector = value.new_empty(programs, 0 if vector is None else vector.numel(), dtype=top.dtype)
    if grad.numel():
        parts = Gathering(*structure)
        with torch.cuda.device_of(grad):
            attention.target_gradient[(programs,)](
                *matrix(grad), *_arguments(value, source, target, edge, vector), top, total, d_target, inner,
                d_vector, parts.layout, parts.layout.size(1), *parts.into_targets, rows, HAS_TERM=edge is not None,
                **options,
            )  # fmt: skip
    d_vector = d_vector.sum(0)
    return d_target, d_vector if vector is None else d_vector.view(vector.shape).to(vector.dtype), inner


@target_gradient.register_fake
def _(
    grad: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, vector: Tensor | None,
    top: Tensor, total: Tensor, structure: Sequence[Tensor], along: int, heads: int, score: str, slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    d_vector = top.new_empty(0) if vector is None else vector.new_empty(vector.shape)
    return target.new_empty(target.shape), d_vector, torch.empty_like(top)


@torch.library.custom_op("coset::attend_source_gradient", mutates_args=())
def source_gradient(
    grad: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, vector: Tensor | None,
    top: Tensor, total: Tensor, inner: Tensor, structure: Sequence[Tensor], along: int, heads: int, score: str,
    slope: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    d_value, d_source = value.new_empty(value.shape), source.new_empty(source.shape)
    if value.numel() == 0:
        return d_value, d_source
    parts, options = Gathering(*structure), _options((value, source, target, edge, vector), along, heads, score, slope)
    with torch.cuda.device_of(grad):
        attention.source_gradient[(triton.cdiv(value.size(0), options["ROWS"]),)](
            *matrix(grad), *_arguments(value, source, target, edge, vector), top, total, inner, d_value,
            d_source, parts.layout, parts.layout.size(1), *parts.into_sources, value.size(0),
            HAS_TERM=edge is not None, **options,
        )  # fmt: skip
    return d_value, d_source


@source_gradient.register_fake
def _(
    grad: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor | None, vector: Tensor | None,
    top: Tensor, total: Tensor, inner: Tensor, structure: Sequence[Tensor], along: int, heads: int, score: str,
    slope: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return value.new_empty(value.shape), source.new_empty(source.shape)


@torch.library.custom_op("coset::attend_edge_gradient", mutates_args=())
def edge_gradient(
    grad: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor, vector: Tensor | None, top: Tensor,
    total: Tensor, inner: Tensor, structure: Sequence[Tensor], along: int, heads: int, score: str, slope: float,
) -> Tensor:  # fmt: skip
    d_edge = edge.new_empty(edge.shape)
    if edge.numel() == 0:
        return d_edge
    parts, options = Gathering(*structure), _options((value, source, target, edge, vector), along, heads, score, slope)
    with torch.cuda.device_of(grad):
        attention.edge_gradient[(edge.size(0),)](
            *matrix(grad), *_arguments(value, source, target, edge, vector), top, total, inner, d_edge,
            parts.layout, parts.layout.size(1), parts.ends, parts.graph_of_edge, edge.size(0), **options,
        )  # fmt: skip
    return d_edge


@edge_gradient.register_fake
def _(
    grad: Tensor, value: Tensor, source: Tensor, target: Tensor, edge: Tensor, vector: Tensor | None, top: Tensor,
    total: Tensor, inner: Tensor, structure: Sequence[Tensor], along: int, heads: int, score: str, slope: float,
) -> Tensor:  # fmt: skip
    return edge.new_empty(edge.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *terms, structure, along, heads, score, slope = inputs
    ctx.save_for_backward(*terms, output[1], output[2], *structure)
    ctx.options = along, heads, score, slope


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    *terms, top, total = ctx.saved_tensors[:7]
    structure = list(ctx.saved_tensors[7:])
    d_target, d_vector, inner = target_gradient(grad, *terms, top, total, structure, *ctx.options)
    d_value = d_source = d_edge = None
    if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
        d_value, d_source = source_gradient(grad, *terms, top, total, inner, structure, *ctx.options)
    if terms[3] is not None and ctx.needs_input_grad[3]:
        d_edge = edge_gradient(grad, *terms, top, total, inner, structure, *ctx.options)
    gradients = d_value, d_source, d_target, d_edge, None if terms[4] is None else d_vector
    return *gradients, [None] * len(structure), None, None, None, None


attend_op.register_autograd(_backward, setup_context=_save)


def attend(
    terms: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], structure: Gathering, along: int, heads: int,
    score: str, slope: float,
) -> Tensor:  # fmt: skip
    """:func:`coset.relations.attend` by Triton."""
    return attend_op(*terms, list(structure), along, heads, score, slope)[0]
