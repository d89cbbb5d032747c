"""What tests of graphs share."""

from pathlib import Path

import pytest

from coset.core.data_files import data_file
from coset.core.errors import CosetError


@pytest.fixture(scope="session")
def expressivity_data() -> Path:
    """The folder that holds ``expressivity/``; without it the test is skipped."""
    try:
        return data_file("expressivity/sr25.g6").resolve().parents[1]
    except CosetError:
        pytest.skip("no expressivity data: set COSET_DATA")
