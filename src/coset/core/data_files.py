"""Where data files are looked for. Nothing is ever downloaded."""

import os
from pathlib import Path

from coset.core.errors import CosetError


def data_file(name: str, path: str | Path | None = None) -> Path:
    """Where a data file is: ``path`` if given (a file, or the folder that holds it), else the first folder that has it.

    The folders are ``$COSET_DATA``, ``./data`` and ``../shared/data``; the file is looked for under its full name and
    its last part.

    Raises:
        CosetError: It is in none of them; the message lists the places.
    """
    if path is not None:
        given = Path(path)
        places = [given / name, given / Path(name).name] if given.is_dir() else [given]
    else:
        folders = [Path(os.environ["COSET_DATA"])] if os.environ.get("COSET_DATA") else []
        folders += [Path("data"), Path("../shared/data")]
        places = [folder / part for folder in folders for part in (name, Path(name).name)]
    for place in places:
        if place.is_file():
            return place
    raise CosetError(
        f"{Path(name).name} is not found at {', '.join(map(str, places))}; "
        "give its path, or set COSET_DATA to the folder that holds it"
    )
