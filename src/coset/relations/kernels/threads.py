"""Run a kernel over ranges of independent items, on as many threads as PyTorch uses.

Kernels are serial machine code that releases the GIL. Splitting them over Python threads, instead of Numba's
own parallel
loops, keeps a second OpenMP runtime out of the process: forked DataLoader workers stay safe (PyTorch gives them one
thread, so nothing is split there), and thread counts follow ``torch.set_num_threads``.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import numpy as np
import torch

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _workers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="coset-kernel")
    return _pool


def thread_count() -> int:
    return torch.get_num_threads()


def run(kernel: Callable[..., None], bounds: Sequence[int] | np.ndarray, *arguments: object) -> None:
    """Call ``kernel(first, last, part, *arguments)`` for neighbouring bounds; return when all are done."""
    parts = [(int(a), int(b), i) for i, (a, b) in enumerate(pairwise(bounds)) if a < b]
    if not parts:
        return
    futures = [_workers().submit(kernel, *part, *arguments) for part in parts[1:]]
    kernel(*parts[0], *arguments)
    wait(futures)
    for future in futures:
        future.result()


def even(items: int, parts: int | None = None) -> np.ndarray:
    """Bounds that split equal items evenly."""
    return np.linspace(0, items, (parts or thread_count()) + 1).astype(np.int64)


def balanced(offsets: np.ndarray, cost: np.ndarray, parts: int | None = None) -> np.ndarray:
    """Bounds that split items evenly by cost; items ``offsets[g]`` to ``offsets[g + 1]`` cost ``cost[g]`` each."""
    parts = parts or thread_count()
    total = np.concatenate([[0.0], np.cumsum(np.diff(offsets) * cost)])
    goals = np.linspace(0, total[-1], parts + 1)[1:-1]
    bounds = np.interp(goals, total, offsets).round().astype(np.int64) if len(goals) else np.empty(0, np.int64)
    return np.concatenate([[0], bounds, [offsets[-1]]])
