"""One test a file: everything that the official code computed must be what we compute, to 1e-9 in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .differences import Differences
from .reading import VARIABLE, ParityFile, parity_folder

TOLERANCE = 1e-9


def cases() -> list:
    """A parameter a file; one that is skipped where there are none."""
    folder = parity_folder()
    paths = sorted(folder.glob("*.npz")) if folder else []
    if not paths:
        where = folder or "../shared/parity"
        return [pytest.param(None, marks=pytest.mark.skip(f"no official outputs in {where}: set {VARIABLE}"))]
    return [pytest.param(path, id=path.stem) for path in paths]


def runner_of(family: str) -> Callable[[ParityFile, Differences], None]:
    """What compares a family's files, imported only where its optional dependencies are needed."""
    if family in ("scl", "cin"):
        from .topology import FAMILIES
    elif family == "motion":
        from .motion import FAMILIES
    elif family == "graph":
        pytest.importorskip("rdkit")
        from .graphs import FAMILIES
    else:
        pytest.importorskip("transformers")
        from .weights import FAMILIES
    return FAMILIES[family]


@pytest.mark.parametrize("path", cases())
def test_we_compute_what_the_official_code_computes(path):
    file = ParityFile(path)
    found = Differences(file)
    runner_of(file.options["family"])(file, found)
    print(f"{file.name}: {found}")
    assert not found.beyond(TOLERANCE)
    assert not file.unread(), "official numbers that nothing was compared with"
