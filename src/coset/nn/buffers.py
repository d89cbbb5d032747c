"""Memory for large intermediate results, used again and again.

A training step on pairs allocates and frees hundreds of matrices of the same few sizes. The system's allocator returns
such blocks to the kernel and asks for them again (a page fault for every 4 KiB), or keeps them in pieces that fit
nothing. Here a block goes back to a list when the last tensor on it is gone, whoever held that tensor.
"""

import bisect
import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64  # bytes
SMALLEST = 1 << 20  # bytes; below it the ordinary allocator is as good


class Buffers:
    """A list of free blocks of memory, by size."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int, np.ndarray]] = []  # (bytes, number, block), sorted
        self._number = 0
        self._lock = threading.Lock()

    def empty(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """An uninitialised matrix in the precision of ``like``, contiguous."""
        size = rows * columns * like.element_size()
        if size < SMALLEST or like.device.type != "cpu":
            return like.new_empty(rows, columns)
        block = self._take(size)
        lease = block[:size]  # an array object of its own: when it dies, so has every tensor on it
        weakref.finalize(lease, self._give_back, block).atexit = False
        return torch.from_numpy(lease).view(like.dtype).view(rows, columns)

    @property
    def free_bytes(self) -> int:
        """Bytes of the blocks that wait to be used."""
        with self._lock:
            return sum(size for size, _, _ in self._free)

    def clear(self) -> None:
        """Hand all free blocks back to the system."""
        with self._lock:
            self._free.clear()

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            at = bisect.bisect_left(self._free, (size, -1))
            if at < len(self._free) and self._free[at][0] <= 1.25 * size:
                return self._free.pop(at)[2]
            dropped = 0
            while self._free and dropped < size:  # the sizes have changed: make room for the new one
                dropped += self._free.pop()[0]
        step = 1 << max(12, math.floor(math.log2(size)) - 3)  # near sizes can share a block
        return _aligned(-(-size // step) * step)

    def _give_back(self, block: np.ndarray) -> None:
        with self._lock:
            self._number += 1
            bisect.insort(self._free, (block.nbytes, self._number, block))


def _aligned(size: int) -> np.ndarray:
    """Memory that starts at a cache line, so that no vector register is filled from two."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


buffers = Buffers()
"""The blocks of this process."""
