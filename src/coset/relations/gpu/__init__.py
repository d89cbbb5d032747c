"""Triton kernels behind the verbs on GPUs: products stay implicit, and no sum needs atomics.

Everything is worked out by going over the rows that are written, in a fixed order, so that the same input gives the
same numbers. Memory is that of the rows; products of edges and rows are never written down.
"""

import importlib.util

import torch
from torch import Tensor

from coset.core.errors import CosetError, require

_AVAILABLE = bool(torch.version.cuda or torch.version.hip) and importlib.util.find_spec("triton") is not None


def available() -> bool:
    """Whether verbs run by these kernels on a GPU: Triton is installed, and PyTorch made for GPUs that it knows."""
    return _AVAILABLE


def check_runs(x: Tensor) -> None:
    """Raise a CosetError unless Triton can work on ``x``: on a GPU, or through its interpreter."""
    triton = require("triton", "gpu")
    from coset.relations.gpu import propagation

    if x.device.type == "cpu" and isinstance(propagation.forward, triton.JITFunction):
        raise CosetError("Triton reaches tensors on a CPU through its interpreter only: set TRITON_INTERPRET=1 first")
