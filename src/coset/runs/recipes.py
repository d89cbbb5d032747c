"""Find recipes by name, apply ``key=value`` overrides, and check them before anything starts."""

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from coset.core.choices import Choice
from coset.core.domains import domains, merged
from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.outside import parse_tree, read_settings, read_tree
from coset.core.registry import nearest
from coset.runs.early import refuse_early
from coset.runs.folder import CONFIG, RECIPE, RunFolder
from coset.runs.keys import Schema, meant, missing
from coset.runs.listing import names, path_of, show
from coset.runs.recipe import Recipe
from coset.runs.run import execute

if TYPE_CHECKING:  # listing recipes should not import PyTorch
    from coset.symmetry import EquivarianceReport

__all__ = [
    "Recipe",
    "check",
    "execute_part",
    "json_schema",
    "kinds",
    "load",
    "load_run",
    "names",
    "path_of",
    "refuse",
    "show",
    "verify",
]


def kinds() -> dict[str, str]:
    """Kinds of run of all domains, each with the place of its schema."""
    return merged("kind of run", (domain.kinds for domain in domains()))


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe with overrides applied.

    Args:
        name: A recipe of the package, or the path of a YAML file.
        overrides: Dotted assignments such as ``model.width=64``.

    Raises:
        CosetError: Unknown recipe or key, wrong type, impossible value: one line.
    """
    return check(_read(name, overrides), name)


def refuse(name: str, overrides: Sequence[str]) -> None:
    """Refuse what :func:`load` would, as far as that is known before PyTorch is imported.

    Raises:
        CosetError: Unknown recipe, an unknown or missing key, name, path or column: one line.
    """
    _read(name, overrides)


def _read(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The values of a recipe, changed."""
    file = path_of(name)
    for override in overrides:
        if not re.match(r"[^=\s]+=", override):
            raise CosetError(f"override {override!r} must read key=value, e.g. training.epochs=20")
    return read_settings(file, overrides, partial(_kept, name))


def _kept(name: str, read: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without options that another choice does not have: of its model where ``model.name`` is another, ..."""
    place = kinds().get(str(read.get("kind")))
    if place is None:
        return read
    if place.partition(":")[0] not in sys.modules:  # which takes seconds to import
        refuse_early(read, given, name)
    if not any(_names_another(read.get(key), value) for key, value in given.items()):
        return read
    return Schema(json_schema(str(read["kind"]))).kept(read, given)


def _names_another(old: Any, new: Any) -> bool:
    return isinstance(old, dict) and isinstance(new, dict) and new.get("name", old.get("name")) != old.get("name")


def json_schema(kind: str) -> dict[str, Any]:
    """Keys of the recipes of a kind, as JSON Schema: what an editor needs to complete and to check them.

    Raises:
        CosetError: There is no such kind.
    """
    if kind not in kinds():
        raise CosetError(f"no kind of run {kind!r}; choose from {', '.join(kinds())}")
    return _schema(kinds()[kind]).model_json_schema()


@takes_paths
def load_run(folder: Path) -> Recipe:
    """The recipe that a run's folder was made with, or the network of an exported one.

    Raises:
        CosetError: The folder holds neither.
    """
    folder = Path(folder)
    if (folder / CONFIG).is_file() and not RunFolder(folder).holds_run():
        config: Any = read_tree(folder / CONFIG)
        values = config.get("recipe") if isinstance(config, dict) else None
        if not isinstance(values, dict):
            raise CosetError(f"{folder / CONFIG} is not one of coset export: it has no recipe")
        return check(values, str(folder / CONFIG))
    return load(str(RunFolder(folder).check_holds_run() / RECIPE))


def verify(target: str, progress: bool = False) -> "Sequence[EquivarianceReport]":
    """Measure what the model of a recipe (untrained) or of a run's folder (trained) claims."""
    folder = Path(target)
    if folder.is_dir():
        return load_run(folder).verify(folder, progress)
    return load(target).verify(None, progress)


def execute_part(recipe: str, name: str, folder: str) -> None:
    """The part of one process in a run of several, which Ray Train calls in each.

    Args:
        recipe: The resolved recipe, as YAML.
        name: Of the recipe.
        folder: Of the run.
    """
    values = parse_tree(recipe, name, dict[str, Any], "YAML")
    execute(check(values, name), Path(folder), quiet=True)


def check(values: dict[Any, Any], name: str) -> Recipe:
    """Validate the values of a recipe against the schema of its ``kind``.

    Raises:
        CosetError: A key or value is wrong; one clause for each.
    """
    kind = values.get("kind")
    known = kinds()
    if kind not in known:
        raise CosetError(f"recipe {name}: kind={kind!r} is unknown; choose from {', '.join(known)}")
    schema = _schema(known[kind])
    try:
        return schema.model_validate({**values, "name": values.get("name") or name.removesuffix(".yaml")})
    except ValidationError as error:
        clauses = dict.fromkeys(_explain(e, values, schema) for e in error.errors())
        raise CosetError(f"recipe {name}: {'; '.join(clauses)}") from error


def _schema(place: str) -> type[Recipe]:
    """The class at ``module:Class``, with all options that have been registered since it was made."""
    module, attribute = place.split(":")
    schema: type[Recipe] = getattr(importlib.import_module(module), attribute)
    choices = [part for field in schema.model_fields.values() for part in field.metadata if isinstance(part, Choice)]
    version = sum(choice.registry.version for choice in choices)
    if choices and _BUILT.get(place) != version:
        schema.model_rebuild(force=True)
        _BUILT[place] = version
    return schema


_BUILT: dict[str, int] = {}
"""Of each schema, how much was registered when it was last built."""


def _explain(error: Any, values: dict[Any, Any], schema: type[BaseModel]) -> str:
    """One clause: the key, its value, and what would be right."""
    # Where one of several schemas was chosen by its name, the location carries that name after the key: left out.
    parts: list[str] = []
    inside: Any = values
    for part in error["loc"]:
        if isinstance(inside, dict) and part not in inside and inside.get("name") == part:
            continue
        parts.append(str(part))
        inside = inside.get(part) if isinstance(inside, dict) else None
    key, value, context = ".".join(parts), error["input"], error.get("ctx", {})
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = nearest(key, Schema(schema.model_json_schema()).keys(values))
        return f"unknown key {key}={value!r}{meant(key, near)}"
    if error["type"] == "missing":
        return missing(key, Schema(schema.model_json_schema()).keys(values).get(key))
    if error["type"].startswith("union_tag"):
        key, value = f"{key}.name", context.get("tag", (value or {}).get("name") if isinstance(value, dict) else value)
        message = f"choose from {context.get('expected_tags', 'the names in coset show csv')}"
    if isinstance(value, dict | BaseModel):
        return message if not key or message.startswith(("training.", "model.", "data.")) else f"{key}: {message}"
    near = nearest(str(value), re.findall(r"'([^']+)'", context.get("expected", context.get("expected_tags", ""))))
    return f"{key}={value!r}: {message}" + (f"; did you mean {near!r}?" if near else "")
