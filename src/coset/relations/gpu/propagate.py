"""The verb ``propagate`` by Triton, as operators of PyTorch: autograd and ``torch.compile`` know them.

``torch.compile`` calls them as they are (``custom_op``; ``triton_op`` would show it what is inside, but does not take
kernels that run in Triton's interpreter).
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from coset.relations.gpu import propagation
from coset.relations.gpu.gathering import Gathering
from coset.relations.gpu.launch import accumulator, flat_tile, matrix


@torch.library.custom_op("coset::gather", mutates_args=())
def gather(
    x: Tensor, term: Tensor | None, structure: Sequence[Tensor], along: int, rows: int, relu: bool, reduce: str
) -> tuple[Tensor, Tensor]:
    """Messages reduced at the targets; and, for ``max``, the edge that each number came by (-1 for none)."""
    out = x.new_empty(rows, x.size(1))
    winner = x.new_empty(out.shape if reduce == "max" else (0, x.size(1)), dtype=torch.int32)
    if out.numel() == 0:
        return out, winner
    parts, tile = Gathering(*structure), flat_tile(x.size(1))
    grid = (triton.cdiv(rows, tile["ROWS"]), triton.cdiv(x.size(1), tile["WIDE"]))
    with torch.cuda.device_of(x):
        propagation.forward[grid](
            *matrix(x), x if term is None else term.contiguous(), out, winner, parts.layout, parts.layout.size(1),
            *parts.into_targets, rows, x.size(1),
            AXIS=along, HAS_TERM=term is not None, RELU=relu, REDUCE=reduce, ACC=accumulator(x, term), **tile,
        )  # fmt: skip
    return out, winner


@gather.register_fake
def _(
    x: Tensor, term: Tensor | None, structure: Sequence[Tensor], along: int, rows: int, relu: bool, reduce: str
) -> tuple[Tensor, Tensor]:
    shape = (rows if reduce == "max" else 0, x.size(1))
    return x.new_empty(rows, x.size(1)), x.new_empty(shape, dtype=torch.int32)


@torch.library.custom_op("coset::gather_input_gradient", mutates_args=())
def gather_input_gradient(
    grad: Tensor, x: Tensor | None, term: Tensor | None, winner: Tensor, structure: Sequence[Tensor], along: int,
    rows: int, relu: bool, reduce: str,
) -> Tensor:  # fmt: skip
    d_x = grad.new_empty(rows, grad.size(1))
    if d_x.numel() == 0:
        return d_x
    parts, tile = Gathering(*structure), flat_tile(grad.size(1))
    grid = (triton.cdiv(rows, tile["ROWS"]), triton.cdiv(grad.size(1), tile["WIDE"]))
    with torch.cuda.device_of(grad):
        propagation.input_gradient[grid](
            *matrix(grad), *matrix(grad if x is None else x), grad if term is None else term.contiguous(), winner,
            d_x, parts.layout, parts.layout.size(1), *parts.into_sources, parts.ptr, rows, grad.size(1),
            AXIS=along, HAS_TERM=term is not None, RELU=relu, REDUCE=reduce, ACC=accumulator(grad, term), **tile,
        )  # fmt: skip
    return d_x


@gather_input_gradient.register_fake
def _(
    grad: Tensor, x: Tensor | None, term: Tensor | None, winner: Tensor, structure: Sequence[Tensor], along: int,
    rows: int, relu: bool, reduce: str,
) -> Tensor:  # fmt: skip
    return grad.new_empty(rows, grad.size(1))


@torch.library.custom_op("coset::gather_edge_gradient", mutates_args=())
def gather_edge_gradient(
    grad: Tensor, x: Tensor | None, term: Tensor, winner: Tensor, structure: Sequence[Tensor], along: int, relu: bool,
    reduce: str,
) -> Tensor:  # fmt: skip
    d_term = torch.empty_like(term, memory_format=torch.contiguous_format)
    if d_term.numel() == 0:
        return d_term
    parts, tile = Gathering(*structure), flat_tile(term.size(1))
    grid = (term.size(0), triton.cdiv(term.size(1), tile["WIDE"]))
    with torch.cuda.device_of(grad):
        propagation.edge_gradient[grid](
            *matrix(grad), *matrix(grad if x is None else x), term.contiguous(), winner, d_term, parts.layout,
            parts.layout.size(1), parts.ends, parts.graph_of_edge, parts.ptr, term.size(0), term.size(1),
            AXIS=along, RELU=relu, REDUCE=reduce, ACC=accumulator(grad, term), **tile,
        )  # fmt: skip
    return d_term


@gather_edge_gradient.register_fake
def _(
    grad: Tensor, x: Tensor | None, term: Tensor, winner: Tensor, structure: Sequence[Tensor], along: int, relu: bool,
    reduce: str,
) -> Tensor:  # fmt: skip
    return torch.empty_like(term, memory_format=torch.contiguous_format)


def _save_gather(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, term, structure, along, _, relu, reduce = inputs
    asks = relu and reduce != "max"  # whether a message was positive; of the largest, the edge is known
    ctx.save_for_backward(x if asks else None, term, output[1], *structure)
    ctx.options = along, x.size(0), relu, reduce


def _gather_backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    x, term, winner, *structure = ctx.saved_tensors
    along, rows, relu, reduce = ctx.options
    d_x = d_term = None
    if ctx.needs_input_grad[0]:
        d_x = gather_input_gradient(grad, x, term, winner, structure, along, rows, relu, reduce)
    if term is not None and ctx.needs_input_grad[1]:
        d_term = gather_edge_gradient(grad, x, term, winner, structure, along, relu, reduce)
    return d_x, d_term, [None] * len(structure), None, None, None, None


gather.register_autograd(_gather_backward, setup_context=_save_gather)


def propagate(
    x: Float[Tensor, "inputs channels"], edge: Float[Tensor, "edges channels"] | None, structure: Gathering,
    along: int, rows: int, relu: bool, reduce: str,
) -> Float[Tensor, "outputs channels"]:  # fmt: skip
    """:func:`coset.relations.propagate` by Triton."""
    return gather(x, edge, list(structure), along, rows, relu, reduce)[0]
