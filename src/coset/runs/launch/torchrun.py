"""One large model on many processes of this machine, started by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from coset.core.errors import CosetError
from coset.runs.launch.processes import LAUNCHER, MISTAKE, raise_mistake

# torchrun's store of addresses outlives a restart, so that a process started again can read where a dead one listened
# and connect to nobody (pytorch/pytorch issue 135712); with this variable every start has a store of its own.
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


def launch(arguments: Sequence[str], workers: int, retries: int = 2) -> None:
    """Run a command of ours under torchrun on this machine.

    Args:
        arguments: Of the command.
        workers: Processes.
        retries: How often all are started again after one has died or failed.

    Raises:
        CosetError: One of the processes raised it; or they failed otherwise, and what they printed says why.
    """
    if workers < 1:
        raise CosetError(f"workers={workers} must be at least 1")
    threads = max(1, (os.cpu_count() or 1) // workers)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    command += [f"--max-restarts={retries}", "--monitor-interval=0.5"]
    with TemporaryDirectory() as notes:
        mistake = Path(notes) / "mistake.txt"
        ours = {LAUNCHER: str(os.getpid()), MISTAKE: str(mistake), OWN_STORE: "1"}
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **ours}
        code = subprocess.run([*command, "-m", "coset", *arguments], env=environment, check=False).returncode
        raise_mistake(mistake)
    if code:
        raise CosetError(f"training under torchrun failed with exit code {code}: see above")
