import os
import sys
from pathlib import Path

import pytest

from coset.core import domains
from coset.runs import listing

TOYS = str(Path(__file__).parent / "toys")


@pytest.fixture(autouse=True, scope="module")
def _toys_are_installed():
    """Kinds ``descent`` and ``score``, here and in the processes that are started from here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setenv("PYTHONPATH", os.pathsep.join([TOYS, *filter(None, sys.path)]))
        domains.domains.cache_clear()
        listing.files.cache_clear()
        yield
    domains.domains.cache_clear()
    listing.files.cache_clear()


@pytest.fixture
def toy(tmp_path):
    """Write a recipe of one of these kinds; gives its name."""

    def write(kind="descent", **values):
        file = tmp_path / f"{kind}.yaml"
        file.write_text("\n".join([f"kind: {kind}", *(f"{key}: {value}" for key, value in values.items())]))
        return str(file)

    return write
