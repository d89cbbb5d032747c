"""Hashes of the content of files, by which collections and merges know whether these are as they were."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from coset.core.errors import CosetError
from coset.core.outside import check_regular


def checksum(path: Path) -> str:
    """SHA-256 of a file, read in pieces.

    Raises:
        CosetError: It is no regular file, or cannot be read.
    """
    digest = hashlib.sha256()
    check_regular(path)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise CosetError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    return digest.hexdigest()
