"""Which data sets a recipe needs, and what of them is missing on this machine; answers without PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from coset.core.data_files import need
from coset.core.data_sets import DATA_SETS, READY, Need
from coset.core.domains import domains
from coset.core.outside import read_text
from coset.runs.listing import files

ORDER = ("own", "make", "install", "get", "ready")
"""Of several needs, the one told first is what no command of ours mends."""


def data_sets_of(name: str) -> list[str]:
    """Names of the data sets that a recipe needs.

    Args:
        name: Of a recipe of the package or of another distribution.
    """
    return named_by(_values(name))


def named_by(recipe: Mapping[str, Any]) -> list[str]:
    """Names of the data sets that the values of a recipe name; none where its domain does not say."""
    kind = recipe.get("kind")
    place = next((domain.needs for domain in domains() if kind in domain.kinds), "")
    if not place:
        return []
    module, _, function = place.partition(":")
    found: list[str] = getattr(importlib.import_module(module), function)(recipe)
    return list(dict.fromkeys(found))


def needs_of(name: str) -> list[Need]:
    """What a recipe lacks on this machine, without repeats; :data:`READY` alone if it can run."""
    found = dict.fromkeys(need(DATA_SETS[each]) for each in data_sets_of(name) if each in DATA_SETS)
    missing = [each for each in found if each != READY]
    return sorted(missing, key=lambda each: ORDER.index(each.kind)) or [READY]


def in_words(needs: Sequence[Need]) -> str:
    """``ready``, or all that must be done: one ``coset data get`` for all sets."""
    names = [each.remedy.removeprefix("coset data get ") for each in needs if each.kind == "get"]
    words = [str(each) for each in needs if each.kind != "get"]
    return "; ".join([*words, *([f"coset data get {' '.join(names)}"] if names else [])])


def of_sweep(recipe: Mapping[str, Any]) -> list[str]:
    """Of a sweep: what the recipes need that it runs, with its changes."""
    series = [curve.get("changes", ()) for curve in (recipe.get("series") or {"": {}}).values()]
    changes = [change for each in (recipe.get("overrides") or (), *series) for change in each]
    names = [recipe.get("base"), *(recipe.get("references") or {}).values(), *(recipe.get("recipes") or ())]
    found = [each for name in names if name in files() for each in named_by(_changed(_values(name), changes))]
    return list(dict.fromkeys(found))


def _changed(values: Mapping[str, Any], changes: Sequence[str]) -> Mapping[str, Any]:
    """Values of a recipe with changes to its data."""
    data = dict(values.get("data") or {})
    for change in changes:
        key, _, value = change.partition("=")
        if key.startswith("data."):
            data[key.removeprefix("data.")] = value
    return {**values, "data": data}


@cache
def _values(name: str) -> dict[str, Any]:
    # Recipes of packages, which no stranger wrote; libyaml reads a hundred in a hundredth of what PyYAML's own takes.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(read_text(files()[name]), Loader=loader)
    return found
