"""What this machine has."""

from pathlib import Path

FACTS = Path("/proc/meminfo")


def memory_installed() -> int:
    """Bytes of memory; 0 where the system does not tell, as on Windows."""
    return _told("MemTotal")


def memory_free() -> int:
    """Bytes that a process can still have; 0 where the system does not tell."""
    return _told("MemAvailable")


def _told(what: str) -> int:
    lines = FACTS.read_text().splitlines() if FACTS.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:")), 0)
