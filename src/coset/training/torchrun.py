"""One large model on many processes: what torchrun says of them, and starting it.

Every process runs the same command. Process 0 alone writes the run's folder, tests and reports; the others train.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from coset.errors import CosetError


class World(NamedTuple):
    """The processes that torchrun started.

    Attributes:
        rank: Of this process among all.
        size: Processes in all.
        on_this_machine: Processes here.
        machines: Machines, with equally many processes each.
    """

    rank: int
    size: int
    on_this_machine: int
    machines: int


def world() -> World | None:
    """The processes that train together; ``None`` if torchrun did not start this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    rank, size, here = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return World(rank, size, here, size // here)


def is_first() -> bool:
    """Whether this process writes files and prints."""
    return (found := world()) is None or found.rank == 0


def launch(arguments: Sequence[str], workers: int) -> None:
    """Run a command of ours under torchrun on this machine.

    Raises:
        CosetError: It failed; what it printed says why.
    """
    if workers < 1:
        raise CosetError(f"workers={workers} must be at least 1")
    threads = max(1, (os.cpu_count() or 1) // workers)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    code = subprocess.run(
        [*command, "-m", "coset", *arguments], env={"OMP_NUM_THREADS": str(threads), **os.environ}, check=False
    ).returncode
    if code:
        raise CosetError(f"training under torchrun failed with exit code {code}: see above")
