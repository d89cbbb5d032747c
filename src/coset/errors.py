"""Errors meant for people: one line that says what is wrong, where, and what would be right."""

import importlib
from types import ModuleType


class CosetError(Exception):
    """A mistake in the input or set-up that the user can mend; the command line prints it without a traceback."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Name of the module, e.g. ``"rdkit"``.
        extra: The extra of this package that installs it, e.g. ``"molecules"``.

    Raises:
        CosetError: The module is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CosetError(f'{module} is not installed: pip install "coset[{extra}]"') from error
