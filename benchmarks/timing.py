"""Process times, for the benchmarks beside this file."""

import time
from collections.abc import Callable


def median_ms(function: Callable[[], object], repeats: int = 9) -> float:
    """Median of process times in milliseconds, the first call left out."""
    function()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return sorted(times)[len(times) // 2] * 1e3
