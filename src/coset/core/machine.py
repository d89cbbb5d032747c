"""What this machine has, and how its memory is used."""

import os
from pathlib import Path

FACTS = Path("/proc/meminfo")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt, from malloc.h
KEPT_BELOW = 2**30  # bytes


def memory_installed() -> int:
    """Bytes of memory; 0 where the system does not tell, as on Windows."""
    return _told("MemTotal")


def memory_free() -> int:
    """Bytes that a process can still have; 0 where the system does not tell."""
    return _told("MemAvailable")


def _told(what: str) -> int:
    lines = FACTS.read_text().splitlines() if FACTS.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:")), 0)


def keep_freed_memory() -> bool:
    """Let the C library keep tensors of up to 1 GiB that are freed, for those that are made next; whether it will.

    The GNU C library gives what exceeds 32 MB back to the system, which hands it out again page by page, cleared: a
    training step on such tensors spends a quarter to half of its time on that. It takes a tenth to a fifth more memory
    at the peak. For a process that trains, not for a library that is imported: the setting holds for the whole process.
    Left alone where the environment has settings of its own.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library; TypeError: Windows has no such handle
        return False
    return bool(mallopt(MMAP_THRESHOLD, KEPT_BELOW) and mallopt(TRIM_THRESHOLD, KEPT_BELOW))
