"""Recipes by name: the YAML files of all domains, found and described without reading their schemas."""

import re
from functools import cache
from pathlib import Path

from coset.core.domains import domains, merged
from coset.core.errors import CosetError
from coset.core.outside import read_text
from coset.core.registry import nearest


@cache
def files() -> dict[str, Path]:
    """All recipes of all domains, by name: their files."""
    tables = [{name: str(file) for name, file in domain.recipes().items()} for domain in domains()]
    return {name: Path(file) for name, file in sorted(merged("recipe", tables).items())}


def names() -> dict[str, str]:
    """All recipes with their descriptions."""
    return {name: _description(file) for name, file in files().items()}


@cache
def system_of(name: str) -> str:
    """The system that a recipe belongs to, or the domain where none claims it."""
    for domain in domains():
        for system in domain.systems:
            if system.recipes and name.startswith(system.recipes):
                return system.name
    owner = next((domain.name for domain in domains() if name in domain.recipes()), "")
    return f"{owner.capitalize()}: your own data, and networks to compare with"


def path_of(name: str) -> Path:
    """The file of a recipe: a name, or a YAML file of the user's.

    Raises:
        CosetError: There is no such recipe; the message names the nearest one.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise CosetError(f"recipe file {name} does not exist")
    if name in files():
        return files()[name]
    near = nearest(name, files())
    raise CosetError(f"no recipe {name!r}" + (f"; did you mean {near!r}?" if near else "") + " (coset list)")


def show(name: str) -> str:
    """The text of a recipe."""
    return read_text(path_of(name))


def _description(file: Path) -> str:
    """The value of the key ``description``; YAML's own reader takes a hundred times as long for a hundred files."""
    found = re.search(r"^description:[ \t]*(.*(?:\n[ \t]+.*)*)", read_text(file), re.MULTILINE)
    return " ".join(found[1].split()).strip("\"'") if found else ""
