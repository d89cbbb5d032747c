"""Registries: named things of one sort, each registered where it is written.

>>> NORMS = Registry("norm of an example")
>>> @NORMS.register("batch")
... class BatchNorm: ...
>>> NORMS.names(), NORMS["batch"].__name__
(['batch'], 'BatchNorm')
>>> NORMS["bach"]
Traceback (most recent call last):
coset.core.errors.CosetError: no norm of an example 'bach'; did you mean 'batch'? choose from batch
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from coset.core import domains
from coset.core.errors import CosetError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one sort by name.

    Domains say which of their modules register such things (:attr:`coset.core.domains.Domain.adds`); these modules
    are imported when somebody first asks.

    Args:
        what: What one of them is called in messages, e.g. ``graph model``; by it domains refer to this registry.
        modules: Gives the modules that register such things; by default those that domains name for it.
    """

    def __init__(self, what: str, modules: Callable[[], Iterable[str]] | None = None):
        self.what = what
        self._modules = modules or (lambda: domains.modules_for(what))
        self.version = 0
        """Grows with each thing registered: what was derived from a registry is made again when it has."""
        self._things: dict[str, T] = {}
        self._complete = False

    def register(self, *names: str) -> Callable[[T], T]:
        """A decorator that registers something under one name or several.

        Raises:
            ValueError: Something else has the name.
        """

        def add(thing: T) -> T:
            for name in names:
                if name in self._things and not _same(self._things[name], thing):
                    raise ValueError(f"two things are registered as {self.what} {name!r}")
                self._things[name] = thing
                self.version += 1
            return thing

        return add

    def names(self) -> list[str]:
        """All names, in the order of their registration."""
        return list(self._all())

    def items(self) -> Iterator[tuple[str, T]]:
        """All names with what they stand for."""
        yield from self._all().items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __getitem__(self, name: str) -> T:
        """What is registered under a name.

        Raises:
            CosetError: Nothing is; the message names the nearest and all others.
        """
        found = self._things.get(name) if name in self._things else self._all().get(name)
        if found is None:
            near = nearest(name, self._things)
            hint = f"; did you mean {near!r}? choose" if near else "; choose"
            raise CosetError(f"no {self.what} {name!r}{hint} from {', '.join(self._things)}")
        return found

    def _all(self) -> dict[str, T]:
        if not self._complete:
            self._complete = True  # the modules ask for this registry, too, while they are imported
            for module in self._modules():
                importlib.import_module(module)
        return self._things


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like this one, small letters or capitals, if one is like it."""
    folded = {each.lower(): each for each in sorted(known, reverse=True)}
    near = difflib.get_close_matches(word.lower(), sorted(folded), n=1, cutoff=0.5)
    return folded[near[0]] if near else None


def _same(one: object, other: object) -> bool:
    """The same place in the code: a module that is imported again registers its things again."""
    places = [(getattr(each, "__module__", None), getattr(each, "__qualname__", None)) for each in (one, other)]
    return one is other or (places[0] == places[1] and None not in places[0])
