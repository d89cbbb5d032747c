"""The keys of a recipe, as JSON Schema has them: what is known of a key, and what of given values cannot be."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import coset
from coset.core.domains import has_guests
from coset.core.outside import read_text
from coset.core.registry import nearest

Values = Mapping[str, Any]


MISSING = object()
"""In place of the value of a key that must be given."""


def missing(key: str, what: str | None) -> str:
    """The clause for a key that must be given, and is described by ``what``."""
    return f"{key} is missing" + (f": {what}, e.g. {key}=..." if what else "")


def meant(key: str, near: str | None) -> str:
    """What may have been meant by a key that is unknown; several seeds are a sweep."""
    if key == "seeds":
        return "; runs of several seeds are a sweep, and an ensemble to predict with: coset sweep RECIPE --seeds 5"
    return f"; did you mean {near}?" if near else ""


class Schema:
    """A JSON Schema of a recipe, walked along values: where one of several objects can be, ``name`` chooses."""

    def __init__(self, root: dict[str, Any]):
        self.root = root

    def kept(self, read: Values, given: Values, node: Values | None = None) -> dict[str, Any]:
        """What stays of values when others are put over them: all but what another choice, by ``name``, has not."""
        name = given.get("name", read.get("name"))
        possible, names = self._possible(self.root if node is None else node, name)
        known = possible[0]["properties"] if len(possible) == 1 else {}
        another = names and known and name != read.get("name")
        stays = {key: value for key, value in read.items() if key in known} if another else read
        return {
            key: self.kept(value, given[key], known.get(key, {})) if _both_inner(value, given.get(key)) else value
            for key, value in stays.items()
        }

    def problems(self, values: Values) -> Iterator[str]:
        """A clause for each key or name that cannot be, in the order and the words of the classes."""
        known = None
        for key, value, names in self._wrong(self.root, values):
            if value is MISSING:
                yield missing(key, self.keys(values).get(key))
                continue
            if names:
                near = nearest(str(value), names)
                told = f"{key}={value!r}: choose from {', '.join(map(repr, names))}"
            else:
                known = known or self.keys(values)
                near = nearest(key, known)
                told = f"unknown key {key}={value!r}"
            yield told + (f"; did you mean {near!r}?" if near and names else meant(key, near))

    def objects(self, node: Values, values: Any) -> Iterator[tuple[Values, Values]]:
        """All objects whose class is settled: their properties and values."""
        possible, _ = self._possible(node, values.get("name") if isinstance(values, Mapping) else None)
        if isinstance(values, Mapping) and len(possible) == 1:
            yield possible[0]["properties"], values
            for key, inner in possible[0]["properties"].items():
                yield from self.objects(inner, values.get(key))

    def _wrong(self, node: Values, values: Any, prefix: str = "") -> Iterator[tuple[str, Any, list[str]]]:
        """Keys that are unknown, with their values, or :data:`MISSING`, and those of names that are none, with
        the names there are."""
        if not isinstance(values, Mapping):
            return
        possible, names = self._possible(node, values.get("name"))
        if names and values.get("name") not in names:
            if "name" in values and not has_guests():  # else somebody else may have added it
                yield f"{prefix}name", values["name"], names
        elif len(possible) == 1:
            known, closed = possible[0]["properties"], possible[0].get("additionalProperties") is False
            for key in known:
                if key in possible[0].get("required", ()) and key not in values and prefix + key != "name":
                    yield prefix + key, MISSING, []
                yield from self._wrong(known[key], values.get(key), f"{prefix}{key}.")
            for key, value in values.items():
                if key not in known and closed and not _declared(key, possible[0].get("classes", ())):
                    yield prefix + str(key), value, []

    def keys(self, values: Values) -> dict[str, str]:
        """All dotted keys with their descriptions; of several objects for one key, those of the name given."""
        return dict(self._keys(self.root, values))

    def _keys(self, node: Values, values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
        values = values if isinstance(values, Mapping) else {}
        for one in self._inside(node, values.get("name")):
            for key, inner in one["properties"].items():
                yield prefix + key, inner.get("description", "")
                yield from self._keys(inner, values.get(key), f"{prefix}{key}.")

    def _inside(self, node: Values, name: Any) -> list[Values]:
        """The objects that a node may be, or else those that a list or a table of it may hold."""
        held = (node.get("items"), node.get("additionalProperties"), *node.get("anyOf", ()))
        inner = [one for part in held if isinstance(part, Mapping) for one in self._inside(part, name)]
        return self._possible(node, name)[0] or inner

    def _possible(self, node: Values, name: Any) -> tuple[list[Values], list[str]]:
        """The objects that a node may be, given the value of ``name``, and the names that choose, if they do."""
        if "$ref" in node:
            return self._possible(self.root["$defs"][node["$ref"].rpartition("/")[2]], name)
        if "discriminator" in node:
            mapping = node["discriminator"]["mapping"]
            refs = [mapping[name]] if name in mapping else dict.fromkeys(mapping.values())
            return [one for ref in refs for one in self._possible({"$ref": ref}, None)[0]], list(mapping)
        if "properties" in node:
            return [node], []
        return [one for part in node.get("anyOf", ()) for one in self._possible(part, name)[0]], []


def put_over(read: Values, given: Values) -> dict[str, Any]:
    """Values with others over them, table by table."""
    inner = {k: put_over(read[k], v) if _both_inner(read.get(k), v) else v for k, v in given.items()}
    return {**read, **inner}


def _both_inner(old: Any, new: Any) -> bool:
    return isinstance(old, Mapping) and isinstance(new, Mapping)


def _declared(key: str, classes: Iterable[str]) -> bool:
    """Whether one of these classes has such a field although the shipped schema has none: it has been added since."""
    for place in classes:
        module, _, name = place.partition(":")
        file = Path(coset.__path__[0]).parent.joinpath(*module.split(".")).with_suffix(".py")
        found = re.search(rf"^class {name}\b.*?(?=^\S|\Z)", read_text(file), re.MULTILINE | re.DOTALL)
        if found and re.search(rf"^    {re.escape(str(key))}\s*:", found[0], re.MULTILINE):
            return True
    return False
