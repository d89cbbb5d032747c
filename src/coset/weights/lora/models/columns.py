"""Batch and rank as the columns of one matrix: the memory order in which a GL-net reads factors.

A layer of a GL-net takes ``[batch, layers, n, r]`` to weight[l] @ factor[b, l], one matrix product a layer once batch
and rank stand side by side in memory. As with ``channels_last`` for images, the order of axes stays what it is and only
strides differ: :func:`gather` picks adapters and puts them into this order in one pass, and nothing is copied again.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit
from torch import Tensor

from coset.weights.lora.data.factors import Factors


def rows(
    weight: Float[Tensor, "layers k n"], factor: Float[Tensor, "batch layers n r"]
) -> Float[Tensor, "batch layers k r"]:
    """weight[l] @ factor[b, l], in the memory order of :func:`gather`."""
    batch, layers, _, rank = factor.shape
    return (weight @ columns(factor)).reshape(layers, -1, batch, rank).permute(2, 0, 1, 3)


def columns(factor: Float[Tensor, "batch layers n r"]) -> Float[Tensor, "layers n batch*r"]:
    """Batch and rank together as columns; a view if the factor is in this order already."""
    batch, layers, n, rank = factor.shape
    if not _movable(factor) or factor.permute(1, 2, 0, 3).is_contiguous():
        return factor.permute(1, 2, 0, 3).reshape(layers, n, batch * rank)
    return _moved(factor, torch.arange(batch)).view(layers, n, batch * rank)


def gather(factors: Factors, chosen: Int[Tensor, " adapters"]) -> Factors:
    """Some of the adapters, like :func:`~coset.weights.lora.data.factors.select`, in the memory order of GL-nets.

    Raises:
        IndexError: There is no such row.
    """
    for u, _ in factors[:1]:
        if len(chosen) and not (int(chosen.min()) >= 0 and int(chosen.max()) < u.size(0)):
            raise IndexError(f"rows {int(chosen.min())} to {int(chosen.max())} of {u.size(0)} adapters")
    return tuple((_gathered(u, chosen), _gathered(v, chosen)) for u, v in factors)


def _gathered(factor: Tensor, chosen: Tensor) -> Tensor:
    return _moved(factor, chosen).permute(2, 0, 1, 3) if _movable(factor) else factor[chosen]


def _movable(factor: Tensor) -> bool:
    return factor.device.type == "cpu" and factor.is_contiguous() and not factor.requires_grad


def _moved(factor: Tensor, chosen: Tensor) -> Float[Tensor, "layers n adapters r"]:
    """One pass over memory in words as long as a row of r numbers allows: three times as fast as PyTorch's copy."""
    batch, layers, n, rank = factor.shape
    bytes_ = rank * factor.element_size()
    words = next((kind for kind in (torch.complex128, torch.float64) if bytes_ % kind.itemsize == 0), factor.dtype)
    if words.itemsize == 2:  # bits are moved, not numbers; Numba has no floats of this size
        words = torch.int16
    out = torch.empty(layers * n * len(chosen) * rank, dtype=factor.dtype)
    # Flat first: a contiguous tensor may have odd strides on axes of length 1, through which nothing can be viewed.
    source = factor.detach().reshape(-1).view(words).view(batch, layers, n, -1).numpy() if factor.numel() else None
    if source is not None and len(chosen):
        _move(source, chosen.numpy(), out.view(words).view(layers, n, len(chosen), -1).numpy())
    return out.view(layers, n, len(chosen), rank)


@njit(cache=True)
def _move(source: np.ndarray, chosen: np.ndarray, out: np.ndarray) -> None:
    layers, n, count, words = out.shape
    for layer in range(layers):
        for i in range(n):
            for b in range(count):
                for w in range(words):
                    out[layer, i, b, w] = source[chosen[b], layer, i, w]
