"""Old import paths still work."""

import importlib
import sys
import warnings

import pytest

from coset.core.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_gives_the_module_of_the_new_one_and_says_so(old):
    now = importlib.import_module(MOVED[old])  # with what it imports, which may have warnings of its own
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to"):
        found = _fresh(old)
    assert found is now
    assert found.__spec__.name == found.__name__ == MOVED[old]


def test_new_paths_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.import_module("coset.core.errors")


def _fresh(name):
    """Import a module by a path that this process may have imported before."""
    sys.modules.pop(name, None)
    return importlib.import_module(name)
