"""How kernels are called: what a matrix is to them, in which precision they add up, and what a program works on."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Numbers that a program holds of each matrix."""


def matrix(x: Tensor) -> tuple[Tensor, int]:
    """A matrix whose rows have no gaps, and the step between them; a slice of columns is not copied."""
    if x.stride(1) != 1 and x.size(1) > 1:
        x = x.contiguous()
    return x, x.stride(0)


def accumulator(*tensors: Tensor | None) -> Any:
    """Triton's float64 if any tensor is, else its float32."""
    return tl.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else tl.float32


def flat_tile(columns: int) -> dict[str, int]:
    """Rows and columns of a block: columns in shares of up to 128, as few of them idle as possible."""
    wide = max((w for w in (128, 64, 32) if columns % w == 0), default=min(triton.next_power_of_2(columns), 128))
    return {"ROWS": min(64, BLOCK // wide), "WIDE": wide}


def head_tile(heads: int, channels: int) -> dict[str, int]:
    """Rows, heads and channels of a block: all heads of a row together."""
    h, c = triton.next_power_of_2(heads), triton.next_power_of_2(channels)
    return {"ROWS": max(1, min(64, BLOCK // (h * c))), "H": h, "C": c}
