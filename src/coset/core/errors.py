"""Errors meant for people: one line that says what is wrong, where, and what would be right."""

import importlib
from collections.abc import Sequence
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


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ValueError that lists the choices unless ``value`` is one of them."""
    if value not in choices:
        *others, last = choices
        raise ValueError(f"{name}={value!r}: choose {', '.join(others)}{' or ' if others else ''}{last}")
