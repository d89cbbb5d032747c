"""Find recipes by name, apply ``key=value`` overrides, and check them before anything starts."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from coset.errors import CosetError


def _folder() -> Path:
    return Path(str(resources.files("coset.recipes")))


def names() -> dict[str, str]:
    """All recipes of the package with their descriptions."""
    found = {}
    for file in sorted(_folder().rglob("*.yaml")):
        found[file.relative_to(_folder()).with_suffix("").as_posix()] = str(
            OmegaConf.select(OmegaConf.load(file), "description", default="")
        )
    return found


def path_of(name: str) -> Path:
    """The file of a recipe: a name of the package, or a YAML file of the user's.

    Raises:
        CosetError: There is no such recipe; the message names the nearest one.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise CosetError(f"recipe file {name} does not exist")
    file = _folder() / f"{name}.yaml"
    if file.is_file():
        return file
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
    raise CosetError(f"no recipe {name!r}" + (f"; did you mean {near[0]!r}?" if near else "") + " (coset list)")


def show(name: str) -> str:
    """The text of a recipe."""
    return path_of(name).read_text(encoding="utf-8")


def load(name: str, overrides: Sequence[str] = ()) -> Any:
    """A checked recipe with overrides applied.

    Args:
        name: A recipe of the package, or the path of a YAML file.
        overrides: Dotted assignments such as ``model.width=64``.

    Raises:
        CosetError: Unknown recipe or key, wrong type, impossible value: one line.
    """
    for override in overrides:
        if "=" not in override:
            raise CosetError(f"override {override!r} must read key=value, e.g. training.epochs=20")
    try:
        merged = OmegaConf.merge(OmegaConf.load(path_of(name)), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise CosetError(f"recipe {name} cannot be read: {str(error).splitlines()[0]}") from error
    return check(values, name)


def check(values: Any, name: str) -> Any:
    """Validate the values of a recipe against the schema of its ``kind``."""
    from coset.recipes.graphs import GraphRecipe

    kinds: dict[str, type[BaseModel]] = {"graphs": GraphRecipe}
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in kinds:
        raise CosetError(f"recipe {name}: kind={kind!r}; choose from {', '.join(kinds)}")
    try:
        return kinds[kind].model_validate({**values, "name": values.get("name") or name})
    except ValidationError as error:
        raise CosetError(f"recipe {name}: " + "; ".join(_explain(e, kinds[kind]) for e in error.errors())) from error


def _explain(error: Any, schema: type[BaseModel]) -> str:
    """One clause: the key, its value, and what would be right."""
    model_names = {"subgraphormer", "gnn-sswl-plus", "gin"}
    location = [str(part) for part in error["loc"] if str(part) not in model_names]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, sorted(_keys(schema)), n=1, cutoff=0.3)
        return f"unknown key {key}={error['input']!r}" + (f"; did you mean {near[0]}?" if near else "")
    return f"{key}={error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


def _keys(schema: type[BaseModel], prefix: str = "") -> set[str]:
    """All dotted keys of a schema."""
    keys: set[str] = set()
    for name, field in schema.model_fields.items():
        keys.add(prefix + name)
        for model in _models(field.annotation):
            keys |= _keys(model, f"{prefix}{name}.")
    return keys


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]
