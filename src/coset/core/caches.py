"""Where compiled kernels are kept when neither the package's folder nor the user's can be written."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def provide_cache(package: Path) -> None:
    """Give Numba a folder if it would find none: without one it refuses to compile at all.

    In containers and on nodes of clusters the package and the home may both be read-only. Then kernels are kept in a
    temporary folder of this process, and are compiled again by the next; a line on standard error says so.

    Args:
        package: Folder in which Numba looks first.
    """
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "numba"
    if VARIABLE in os.environ or _writable(package) or _writable(user):
        return
    try:
        folder = tempfile.mkdtemp(prefix="coset-kernels-")
    except OSError:
        return
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[VARIABLE] = folder
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder
    print(
        f"note: neither {package} nor {user} can be written: compiled kernels are not kept ({VARIABLE}=FOLDER keeps "
        "them)",
        file=sys.stderr,
    )


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    return os.access(next(place for place in (folder, *folder.parents) if place.exists()), os.W_OK)
