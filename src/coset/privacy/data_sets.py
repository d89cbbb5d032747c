"""Data sets of audits: most are made where they are used. Light: nothing heavy is imported."""

from collections.abc import Mapping
from typing import Any

from coset.core.data_sets import DataSet, register

register(DataSet("point-clouds", "points on circles and on lines", "none needed", generated=True))
ELSEWHERE = {"cifar10-vehicles-animals": "cifar10-small"}
"""Data of audits that are cut out of a data set of another name."""


def needed(recipe: Mapping[str, Any]) -> list[str]:
    """Names of the data sets of a recipe of kind ``reconstruction``."""
    name = str((recipe.get("data") or {}).get("name"))
    return [ELSEWHERE.get(name, name)]
