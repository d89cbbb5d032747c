"""What a domain tells the core about itself: light, without what it computes with.

A folder of this package with a module ``domain.py`` that holds a :class:`Domain` called ``DOMAIN`` is a domain. Another
distribution adds one, or only a model or a norm, by an entry point::

    [project.entry-points."coset.domains"]
    points = "coset_points.domain:DOMAIN"     # a domain: this module is imported at every start, so keep it light
    gatedgcn = "coset_gatedgcn"               # a module that registers things; imported when they are looked for

Recipes are the YAML files in the folder ``recipes/`` of the domain's package.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import coset
from coset.core.errors import CosetError

ENTRY_POINTS = "coset.domains"
ANY = "*"
"""In :attr:`Domain.adds`: modules that may add to any registry."""


@dataclass(frozen=True)
class System:
    """A published system: from its name to its equations, its recipes and its page.

    Attributes:
        name: As in its paper.
        paper: Authors, where it was published, arXiv number.
        module: That holds its equations.
        page: Of the documentation, a file name without ``.md``.
        recipes: Beginning of the names of its recipes.
        words: Further words by which people look for it.
    """

    name: str
    paper: str
    module: str
    page: str
    recipes: str = ""
    words: str = ""


@dataclass(frozen=True)
class Domain:
    """What a domain adds.

    Attributes:
        name: Of the domain.
        package: Of it; its folder ``recipes/`` holds its recipes.
        kinds: Kinds of run, each with the place of its schema, ``module:Class``.
        commands: Light modules that register commands of the command line.
        benches: Benches, each with the place of its function.
        adds: To each registry, by its name: modules and packages that register things there when they are imported.
        systems: Published systems that live in it.
        needs: Place of a light function that names the data sets of a recipe of its kinds: values of the recipe ->
            names of :data:`coset.core.data_sets.DATA_SETS`.
    """

    name: str
    package: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    benches: Mapping[str, str] = field(default_factory=dict)
    adds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    systems: tuple[System, ...] = ()
    needs: str = ""

    def recipes(self) -> dict[str, Path]:
        """Recipes by name: their files, without importing the package.

        Raises:
            CosetError: The package is not there.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None:
            raise CosetError(f"domain {self.name}: package {self.package} is not installed")
        folders = [Path(place) / "recipes" for place in spec.submodule_search_locations or ()]
        return {
            file.relative_to(folder).with_suffix("").as_posix(): file
            for folder in folders
            for file in sorted(folder.rglob("*.yaml"))
        }


@cache
def domains() -> tuple[Domain, ...]:
    """All domains: those of this package, then those of entry points, by name.

    Raises:
        CosetError: A domain of another distribution cannot be imported, or two have one name.
    """
    own = [importlib.import_module(name).DOMAIN for name in sorted(_own_modules())]
    others = [_loaded(point.name, point.value) for point in sorted(entry_points(group=ENTRY_POINTS))]
    found: dict[str, Domain] = {}
    for domain in [*own, *others]:
        if domain.name in found:
            raise CosetError(f"two domains are called {domain.name!r}: {found[domain.name].package}, {domain.package}")
        found[domain.name] = domain
    return tuple(found.values())


def has_guests() -> bool:
    """Whether another distribution adds something."""
    return bool(entry_points(group=ENTRY_POINTS))


def modules_for(registry: str) -> Iterator[str]:
    """Modules that add to a registry when they are imported; of packages, all modules directly in them too."""
    for domain in domains():
        for name in (*domain.adds.get(registry, ()), *domain.adds.get(ANY, ())):
            yield name
            spec = importlib.util.find_spec(name)
            folders = spec.submodule_search_locations if spec else None
            for place in pkgutil.iter_modules(folders or ()):
                yield f"{name}.{place.name}"


def merged(what: str, tables: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """One table of several.

    Raises:
        CosetError: They name one thing twice.
    """
    result: dict[str, str] = {}
    for table in tables:
        twice = sorted(result.keys() & table.keys())
        if twice:
            raise CosetError(f"two domains have a {what} called {twice[0]!r}")
        result |= table
    return result


def _own_modules() -> Iterator[str]:
    """``domain.py`` of the folders of this package, and one folder deeper."""
    root = Path(coset.__path__[0])
    for file in (*root.glob("*/domain.py"), *root.glob("*/*/domain.py")):
        yield ".".join(("coset", *file.relative_to(root).with_suffix("").parts))


def _loaded(name: str, place: str) -> Domain:
    module, _, attribute = place.partition(":")
    if not attribute:
        return Domain(name, module, adds={ANY: (module,)})
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CosetError(f"the domain {name} at {place} cannot be imported: {error}") from error
    if not isinstance(found, Domain):
        raise CosetError(
            f"{place}, the entry point of {name}, is a {type(found).__name__}, not a coset.core.domains.Domain"
        )
    return found
