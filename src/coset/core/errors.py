"""Errors meant for people: one line that says what is wrong, where, and what would be right."""

import importlib
import importlib.util
import unicodedata
from collections.abc import Sequence
from types import ModuleType


class CosetError(Exception):
    """A mistake in the input or set-up that the user can mend; the command line prints it without a traceback.

    Its text is one line that a terminal can be given, whatever names of files or columns it quotes (:func:`printable`).
    """

    def __str__(self) -> str:
        return printable(" ".join(line.strip() for line in super().__str__().splitlines()))


def printable(text: str) -> str:
    """A text with escapes such as ``\\x1b`` for what a terminal obeys or cannot show.

    Those are control characters, marks that change the direction of writing, and halves of characters, as names of
    files may hold them; line breaks, tabs and other spaces stay.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" or unicodedata.category(each) == "Zs"
        else each.encode("unicode_escape").decode()
        for each in text
    )  # fmt: skip


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
        raise not_installed(module, extra) from error


EXTRAS: dict[str, tuple[str, ...]] = {
    "molecules": ("rdkit",),
    "weights": ("transformers", "peft", "safetensors", "sklearn", "diffusers"),
    "motion": ("cv2", "safetensors"),
    "topology": ("toponetx", "gudhi", "trimesh"),
    "shards": ("pyarrow",),
    "gpu": ("triton",),
    "ray": ("ray",),
    "search": ("optuna",),
    "hub": ("huggingface_hub", "safetensors"),
}
"""Modules that each extra of the package installs."""


def not_installed(module: str, extra: str | None = None) -> CosetError:
    """What to say of a module that is missing: with all others of its extra that are missing too, and how to get them.

    Args:
        module: That could not be imported.
        extra: Which installs it; looked for if ``None``.
    """
    extra = extra or next((name for name, modules in EXTRAS.items() if module.partition(".")[0] in modules), None)
    if extra is None:
        return CosetError(f"{module} is not installed: pip install {module}")
    others = [name for name in EXTRAS.get(extra, ()) if name != module.partition(".")[0] and not _is_there(name)]
    names, verb = ", ".join([module, *others]), "are" if others else "is"
    return CosetError(f'{names} {verb} not installed: pip install "coset[{extra}]"')


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it is being imported, or was put there by hand
        return True


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ValueError that lists the choices unless ``value`` is one of them."""
    if value not in choices:
        *others, last = choices
        raise ValueError(f"{name}={value!r}: choose {', '.join(others)}{' or ' if others else ''}{last}")
