"""Run a kernel over ranges of independent items, on several threads.

Kernels are serial machine code that releases the GIL. Splitting them over Python threads, instead of Numba's
own parallel loops, keeps a second OpenMP runtime out of the process: forked DataLoader workers stay safe (PyTorch
gives them one thread, so nothing is split there), and thread counts follow ``torch.set_num_threads``.

No number depends on how many threads there are: where a kernel adds up over its items, each part of them keeps sums of
its own, and into how many parts work falls follows from its size (:func:`summed_parts`). PyTorch's own reductions and
matrix products share their sums among its threads; :func:`pytorch_threads` gives it one and leaves ours as many as
there were.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch

MOST_PARTS = 8
LEAST_SUMMED = 1 << 16
"""Numbers that a part with sums of its own should have at least."""

_pool: ThreadPoolExecutor | None = None
_kernel_threads: int | None = None  # while PyTorch has fewer


def _forget_pool() -> None:
    """A forked child has none of its parent's threads, and PyTorch's number of them."""
    global _pool, _kernel_threads
    _pool = _kernel_threads = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _workers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="coset-kernel")
    return _pool


def thread_count() -> int:
    """Of kernels."""
    return _kernel_threads or torch.get_num_threads()


@contextmanager
def pytorch_threads(number: int = 1) -> Iterator[None]:
    """PyTorch's own operations on so many threads; kernels on as many as there were."""
    global _kernel_threads
    before, kernels = torch.get_num_threads(), _kernel_threads
    _kernel_threads = thread_count()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _kernel_threads = kernels


def run(kernel: Callable[..., None], bounds: Sequence[int] | np.ndarray, *arguments: object) -> None:
    """Call ``kernel(first, last, part, *arguments)`` for neighbouring bounds; return when all are done."""
    parts = [(int(a), int(b), i) for i, (a, b) in enumerate(pairwise(bounds)) if a < b]
    queue = iter(parts)  # shared: whoever is done takes the next

    def work() -> None:
        for part in queue:
            kernel(*part, *arguments)

    futures = [_workers().submit(work) for _ in range(min(thread_count(), len(parts)) - 1)]
    work()
    wait(futures)
    for future in futures:
        future.result()


def summed_parts(size: int) -> int:
    """Into how many parts work on so many numbers falls, each with sums of its own: whatever the threads are."""
    return max(1, min(MOST_PARTS, size // LEAST_SUMMED))


def even(items: int, parts: int | None = None) -> np.ndarray:
    """Bounds that split equal items evenly; among the threads by default."""
    parts = parts or thread_count()
    return np.array([0, items]) if parts == 1 else np.linspace(0, items, parts + 1).astype(np.int64)


def balanced(offsets: np.ndarray, cost: np.ndarray, parts: int | None = None) -> np.ndarray:
    """Bounds that split items evenly by cost, among the threads by default; items ``offsets[g]`` to ``offsets[g + 1]``
    cost ``cost[g]`` each."""
    parts = parts or thread_count()
    if parts == 1:
        return np.array([0, offsets[-1]])
    total = np.concatenate([[0.0], np.cumsum(np.diff(offsets) * cost)])
    goals = np.linspace(0, total[-1], parts + 1)[1:-1]
    bounds = np.interp(goals, total, offsets).round().astype(np.int64) if len(goals) else np.empty(0, np.int64)
    return np.concatenate([[0], bounds, [offsets[-1]]])
