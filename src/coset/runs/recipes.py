"""Find recipes by name, apply ``key=value`` overrides, and check them before anything starts."""

import difflib
import importlib
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from coset.core.errors import CosetError
from coset.runs.recipe import Recipe

if TYPE_CHECKING:  # listing recipes should not import PyTorch
    from coset.symmetry import EquivarianceReport

KINDS = {
    "graphs": "coset.graphs.experiments:GraphRecipe",
    "lora": "coset.weights.lora.experiments:LoraRecipe",
    "lora-zoo": "coset.weights.lora.zoo_experiment:LoraZooRecipe",
    "motion": "coset.motion.experiments:MotionRecipe",
    "sweep": "coset.runs.sweep.studies:SweepRecipe",
    "reconstruction": "coset.privacy.experiments:ReconstructionRecipe",
    "mode-connectivity": "coset.weights.asymmetric.experiments:ConnectivityRecipe",
    "bayesian-depth": "coset.weights.asymmetric.bayesian_experiment:BayesianDepthRecipe",
    "metanet": "coset.weights.asymmetric.metanet_experiment:MetanetRecipe",
    "merging": "coset.weights.merging.experiments:MergingRecipe",
}
"""Schema of each kind of recipe; its ``run(folder, resume=, quiet=)`` runs it. Imported when first needed."""


def names() -> dict[str, str]:
    """All recipes of the package with their descriptions."""
    return {
        name: str(OmegaConf.select(OmegaConf.load(file), "description", default="")) for name, file in _files().items()
    }


def path_of(name: str) -> Path:
    """The file of a recipe: a name of the package, or a YAML file of the user's.

    Raises:
        CosetError: There is no such recipe; the message names the nearest one.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise CosetError(f"recipe file {name} does not exist")
    known = _files()
    if name in known:
        return known[name]
    near = _nearest(name, known)
    raise CosetError(f"no recipe {name!r}" + (f"; did you mean {near!r}?" if near else "") + " (coset list)")


def show(name: str) -> str:
    """The text of a recipe."""
    return path_of(name).read_text(encoding="utf-8")


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe with overrides applied.

    Args:
        name: A recipe of the package, or the path of a YAML file.
        overrides: Dotted assignments such as ``model.width=64``.

    Raises:
        CosetError: Unknown recipe or key, wrong type, impossible value: one line.
    """
    file = path_of(name)
    for override in overrides:
        if not re.match(r"[^=\s]+=", override):
            raise CosetError(f"override {override!r} must read key=value, e.g. training.epochs=20")
    try:
        read = OmegaConf.load(file)
        if not isinstance(read, DictConfig):
            raise CosetError(f"recipe {name} must hold keys and values")
        values = OmegaConf.to_container(OmegaConf.merge(read, OmegaConf.from_dotlist(list(overrides))), resolve=True)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, ValueError) as error:
        raise CosetError(f"recipe {name} cannot be read: {' '.join(str(error).split())}") from error
    assert isinstance(values, dict)
    return check(values, name)


def load_run(folder: Path) -> Recipe:
    """The recipe that a run's folder was made with.

    Raises:
        CosetError: The folder holds no run.
    """
    if not (folder / "recipe.yaml").is_file():
        raise CosetError(f"{folder} holds no run: recipe.yaml is missing")
    return load(str(folder / "recipe.yaml"))


def verify(target: str, progress: bool = False) -> "list[EquivarianceReport]":
    """Measure what the model of a recipe (untrained) or of a run's folder (trained) claims."""
    folder = Path(target)
    if folder.is_dir():
        return load_run(folder).verify(folder, progress)
    return load(target).verify(None, progress)


def check(values: dict[Any, Any], name: str) -> Recipe:
    """Validate the values of a recipe against the schema of its ``kind``.

    Raises:
        CosetError: A key or value is wrong; one clause for each.
    """
    kind = values.get("kind")
    if kind not in KINDS:
        raise CosetError(f"recipe {name}: kind={kind!r} is unknown; choose from {', '.join(KINDS)}")
    module, attribute = KINDS[kind].split(":")
    schema: type[Recipe] = getattr(importlib.import_module(module), attribute)
    try:
        return schema.model_validate({**values, "name": values.get("name") or name.removesuffix(".yaml")})
    except ValidationError as error:
        clauses = dict.fromkeys(_explain(e, values, schema) for e in error.errors())
        raise CosetError(f"recipe {name}: {'; '.join(clauses)}") from error


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
        near = _nearest(key, _keys(schema, values))
        return f"unknown key {key}={value!r}" + (f"; did you mean {near}?" if near else "")
    if error["type"] == "missing":
        what = _description(schema, values, key)
        return f"{key} is missing" + (f": {what}, e.g. {key}=..." if what else "")
    if error["type"].startswith("union_tag"):
        key, value = f"{key}.name", context.get("tag", (value or {}).get("name") if isinstance(value, dict) else value)
        message = f"choose from {context.get('expected_tags', 'the names in coset show csv')}"
    if isinstance(value, dict | BaseModel):
        return message if not key or message.startswith(("training.", "model.", "data.")) else f"{key}: {message}"
    near = _nearest(str(value), re.findall(r"'([^']+)'", context.get("expected", context.get("expected_tags", ""))))
    return f"{key}={value!r}: {message}" + (f"; did you mean {near!r}?" if near else "")


def _keys(schema: type[BaseModel], values: Any, prefix: str = "") -> dict[str, str]:
    """All dotted keys of a schema with their descriptions; of several schemas for one key, those of the name given."""
    keys: dict[str, str] = {}
    for name, field in schema.model_fields.items():
        keys[prefix + name] = field.description or ""
        given = values.get(name) if isinstance(values, dict) else None
        options = _models(field.annotation)
        chosen = [model for model in options if isinstance(given, dict) and _is_called(model, given.get("name"))]
        for model in chosen or options:
            keys |= _keys(model, given, f"{prefix}{name}.")
    return keys


def _description(schema: type[BaseModel], values: Any, key: str) -> str:
    return _keys(schema, values).get(key, "")


def _is_called(model: type[BaseModel], name: Any) -> bool:
    field = model.model_fields.get("name")
    return field is not None and name in getattr(field.annotation, "__args__", ())


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def _nearest(word: str, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return near[0] if near else None


def _files() -> dict[str, Path]:
    folders = sorted(Path(str(resources.files("coset"))).glob("**/recipes"))
    files = {file.relative_to(f).with_suffix("").as_posix(): file for f in folders for file in f.rglob("*.yaml")}
    return dict(sorted(files.items()))
