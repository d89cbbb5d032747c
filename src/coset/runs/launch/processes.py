"""Processes that train one model together, whoever started them: what each needs to know of the others.

Every process runs the same code. Process 0 alone writes the run's folder, tests and reports; the others train. If one
of them dies, whoever started them starts all again, and they go on from the last checkpoint of this launch.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.core.outside import read_text

ON_RAY = "COSET_ON_RAY"
"""Environment variable: set in the processes that Ray Train started."""

LAUNCHER = "COSET_LAUNCHER"
"""Environment variable: number of the process on this machine that launched the others and waits for them."""

MISTAKE = "COSET_MISTAKE"
"""Environment variable: the file in which a mistake is noted. It is an answer: started again, nobody makes it again."""


class World(NamedTuple):
    """The processes that train together.

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
    """The processes that train together; ``None`` if neither torchrun nor Ray Train started this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ and not on_ray():
        return None
    rank, size, here = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return World(rank, size, here, size // here)


def on_ray() -> bool:
    """Whether Ray Train started this process."""
    return ON_RAY in os.environ


def is_first() -> bool:
    """Whether this process writes files and prints."""
    return (found := world()) is None or found.rank == 0


def note_mistake(text: str) -> bool:
    """Note what was wrong for the one who launched these processes; whether there is one who reads it."""
    if MISTAKE not in os.environ:
        return False
    write_text(Path(os.environ[MISTAKE]), text)
    return True


def mistake_was_made() -> bool:
    """Whether one of the processes has noted a mistake before all were started again."""
    return MISTAKE in os.environ and Path(os.environ[MISTAKE]).is_file()


def raise_mistake(file: Path) -> None:
    """Raise what one of the processes has noted, if one has."""
    if file.is_file():
        raise CosetError(read_text(file))


def follow_launcher(every: float = 1.0) -> None:
    """End this process when the one that launched it is killed, or the agent between them.

    Otherwise it would go on beside those that a new launch starts in the same folder.
    """
    if LAUNCHER not in os.environ:
        return
    launcher, agent = int(os.environ[LAUNCHER]), os.getppid()

    def watch() -> None:
        while os.getppid() == agent and _alive(launcher):
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there, but another user's
        return True
    return True
