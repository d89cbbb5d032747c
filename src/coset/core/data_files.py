"""Where data files are looked for. Nothing is downloaded here (:mod:`coset.core.downloads` does, when asked)."""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from coset.core.data_sets import READY, DataSet, Need, with_file
from coset.core.errors import CosetError, not_installed


def data_file(name: str, path: str | Path | None = None) -> Path:
    """Where a data file is: ``path`` if given (a file, or the folder that holds it), else the first folder that has it.

    The folders are those of :func:`data_folders`; the file is looked for under its full name and its last part.

    Raises:
        CosetError: It is in none of them; the message lists the places, and the command that downloads it.
    """
    if path is not None:
        given = Path(path)
        places = [given / name, given / Path(name).name] if given.is_dir() else [given]
    else:
        places = _places(name)
    for place in places:
        if place.is_file():
            return place
    known = with_file(name) if path is None else None
    get = f"coset data get {known.name} downloads it; or " if known and known.downloads else ""
    raise CosetError(
        f"{Path(name).name} is not found at {', '.join(map(str, places))}; "
        f"{get}give its path, or set COSET_DATA to the folder that holds it"
    )


def data_folders() -> list[Path]:
    """Where data files are looked for: ``$COSET_DATA``, ``./data``, ``../shared/data``, the user's own folder."""
    chosen = [Path(os.environ["COSET_DATA"])] if os.environ.get("COSET_DATA") else []
    return [*chosen, Path("data"), Path("../shared/data"), user_folder()]


def download_folder() -> Path:
    """Where downloads go: ``$COSET_DATA`` if it is set, else the user's own folder."""
    return Path(os.environ["COSET_DATA"]) if os.environ.get("COSET_DATA") else user_folder()


def user_folder() -> Path:
    """Of the user's data: ``$XDG_DATA_HOME/coset`` (``~/.local/share/coset``), on Windows ``%LOCALAPPDATA%/coset``."""
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "coset"
    return Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()) / "coset"


def need(wanted: DataSet) -> Need:
    """What a data set still lacks on this machine; nothing heavy is imported."""
    missing = [module for module in wanted.modules if importlib.util.find_spec(module) is None]
    if missing:
        return Need("install", str(not_installed(missing[0])).partition(": ")[2])
    if wanted.distribution and not _installed(wanted.distribution):
        return Need("install", f"pip install --no-deps {wanted.distribution}")
    if wanted.folder and not Path(wanted.folder).is_dir():
        return Need("get" if wanted.fetch else "make", wanted.how)
    if any(not _is_there(name) for name in wanted.files) and not (wanted.system and Path(wanted.system).is_dir()):
        return Need("get" if wanted.downloads else "own", wanted.how)
    given = wanted.otherwise and not (wanted.files or wanted.folder or wanted.distribution or wanted.generated)
    return Need("own", wanted.otherwise) if given else READY


def _places(name: str) -> list[Path]:
    return [folder / part for folder in data_folders() for part in dict.fromkeys((name, Path(name).name))]


def _is_there(name: str) -> bool:
    return any(place.is_file() for place in _places(name))


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
