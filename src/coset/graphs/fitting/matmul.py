"""How exactly PyTorch multiplies float32 matrices while a network is trained, and what that costs in accuracy."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from coset.graphs.fitting.trainer import MatmulPrecision


@contextmanager
def matmul_precision(precision: MatmulPrecision) -> Iterator[None]:
    """As :func:`torch.set_float32_matmul_precision` says, inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_error(precision: MatmulPrecision, device: torch.device | str = "cpu") -> float:
    """Error of a product of two random float32 matrices of 256 rows and columns over its size, on this machine."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    with matmul_precision(precision):
        found = (a.to(device) @ b.to(device)).cpu().double()
    return float((found - exact).norm() / exact.norm())


def told(precision: MatmulPrecision, device: torch.device | str = "cpu") -> str:
    """What ``trainer.matmul_precision`` does to products on this machine, in a line."""
    error, usual = product_error(precision, device), product_error("highest", device)
    if error < 2 * usual:
        return f"trainer.matmul_precision={precision} changes nothing on this processor"
    size = f"{error:.1e} of their size ({usual:.1e} without)"
    return f"trainer.matmul_precision={precision}: products of matrices are off by {size}"
