"""JSON and YAML: bounded in size and depth before any parser sees them, checked against a schema after."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from coset.core.errors import CosetError
from coset.core.outside.files import read_text, refusing

T = TypeVar("T")
MOST_BYTES = 1 << 26
"""Of a JSON file."""
MOST_YAML = 1 << 20
"""Of a YAML file: its parser takes a hundred times as long."""
DEPTH = 64
"""Of lists and mappings in one another."""
MOST_ENTRIES = 200_000
"""Of YAML once its aliases are written out."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?+', re.DOTALL)
_LEADING = re.compile(r"^[ \t]*((?:[-?:][ \t]+)+)", re.MULTILINE)


@overload
def read_tree(path: Path | str, schema: type[T], most: int = ...) -> T: ...
@overload
def read_tree(path: Path | str, schema: Any = ..., most: int = ...) -> Any: ...
def read_tree(path: Path | str, schema: Any = Any, most: int = MOST_BYTES) -> Any:
    """A JSON file, or YAML if its name ends with .yaml or .yml, as values of the schema.

    Args:
        path: Of the file.
        schema: A type that pydantic knows: a model, ``dict[str, int]``, ``list[list[int]]``.
        most: Bytes that are read.

    Raises:
        CosetError: The file cannot be read, is nested too deep, or does not follow the schema; file and place
            are named.
    """
    yaml_file = Path(str(path)).suffix.lower() in (".yaml", ".yml")
    text = read_text(path, min(most, MOST_YAML) if yaml_file else most)
    return parse_tree(text, path, schema, "YAML" if yaml_file else "JSON")


@overload
def parse_tree(text: str, where: Path | str, schema: type[T], form: str = ...) -> T: ...
@overload
def parse_tree(text: str, where: Path | str, schema: Any = ..., form: str = ...) -> Any: ...
def parse_tree(text: str, where: Path | str, schema: Any = Any, form: str = "JSON") -> Any:
    """The same of a text.

    Args:
        text: JSON or YAML.
        where: It comes from, for messages.
        schema: As of :func:`read_tree`.
        form: ``JSON`` or ``YAML``.
    """
    value = _yaml(text, where) if form == "YAML" else _json(text, where)
    if schema is Any:
        return value
    try:
        return _adapter(schema).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        given = repr(first["input"])
        raise CosetError(
            f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}, not "
            f"{given if len(given) < 80 else given[:80] + '...'}"
        ) from error


def read_settings(
    path: Path | str,
    changes: Sequence[str] = (),
    kept: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """A YAML file of keys and values with ``key=value`` put over them, and ``${key}`` replaced by other values of it.

    No resolver is called: ``${oc.env:HOME}`` would write what a stranger asks for into results.

    Args:
        path: Of the file.
        changes: Dotted assignments such as ``model.width=64``; values are YAML.
        kept: What of the file's values stays, given these and the changes; all by default.

    Raises:
        CosetError: Something cannot be read, or calls a resolver; file and place are named.
    """
    read = parse_tree(read_text(path, MOST_YAML), path, Any, "YAML")
    if not isinstance(read, dict):
        raise CosetError(f"{path} must hold keys and values")
    for change in changes:
        _check_change(change)
    with refusing(path, "YAML of keys and values"):
        over = OmegaConf.from_dotlist(list(changes))
        given = OmegaConf.to_container(over)
        assert isinstance(given, dict)
        for origin, told in ((path, read), ("key=value", given)):
            _check_no_resolver(told, origin)
        stays = read if kept is None else kept(read, {str(key): value for key, value in given.items()})
        merged = OmegaConf.merge(OmegaConf.create(stays), over)
        assert isinstance(merged, DictConfig)
        values = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _check_change(change: str) -> None:
    key, _, value = change.partition("=")
    if key.count(".") + key.count("[") > DEPTH:
        raise CosetError(f"override {change[:40]!r}...: its key has more than {DEPTH} parts")
    if len(value) > MOST_YAML:
        raise CosetError(f"override {change[:40]!r}...: its value has {len(value):,} characters")
    _check_yaml(value, f"override {change[:40]!r}")


def _check_no_resolver(value: Any, where: Path | str, place: str = "") -> None:
    """Interpolations may name other keys, and nothing else."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_no_resolver(entry, where, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            _check_no_resolver(entry, where, f"{place}.{number}")
    elif isinstance(value, str) and "${" in value and ":" in value[value.index("${") :]:
        raise CosetError(
            f"{where}: {place}={value!r} would look something up outside of the file: write the value itself, or "
            "${key} for another key"
        )


def _json(text: str, where: Path | str) -> Any:
    check_json_depth(text.encode("utf-8", "surrogatepass"), where)
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice)
    except json.JSONDecodeError as error:
        raise CosetError(f"{where} is not valid JSON: line {error.lineno}, {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a key twice, or an integer of thousands of digits
        raise CosetError(f"{where} is not valid JSON: {' '.join(str(error).split())}") from error


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def check_json_depth(content: bytes, where: Path | str) -> None:
    """Raise a CosetError if JSON is nested deeper than :data:`DEPTH`."""
    if _brackets(content) > DEPTH and _brackets(_STRING.sub(b"", content)) > DEPTH:
        raise CosetError(f"{where} is nested deeper than {DEPTH} levels")


def _brackets(content: bytes) -> int:
    """The most brackets that are open at once, those within strings counted as well."""
    import numpy as np  # recipes are listed without it

    codes = np.frombuffer(content, dtype=np.uint8)
    steps = ((codes == 91) | (codes == 123)).astype(np.int8) - ((codes == 93) | (codes == 125)).astype(np.int8)
    steps = steps[steps != 0]
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0))


def _yaml(text: str, where: Path | str) -> Any:
    if not text.strip():
        raise CosetError(f"{where} is empty")
    _check_yaml(text, where)
    with refusing(where, "YAML"):
        made = OmegaConf.create(text)  # its reader takes 1e-3 for a number and refuses a key that is there twice
        return OmegaConf.to_container(made)


def _check_yaml(text: str, where: Path | str) -> None:
    """Depth and size of YAML: by its characters first, since the parser itself fails on many brackets."""
    deepest = max((len(match[1].split()) for match in _LEADING.finditer(text)), default=0)
    if max(deepest, _brackets(text.encode("utf-8", "surrogatepass"))) > DEPTH:
        raise CosetError(f"{where} is nested deeper than {DEPTH} levels")
    with refusing(where, "YAML"):
        _check_events(text, where)


def _check_events(text: str, where: Path | str) -> None:
    """Depth, and entries once aliases are written out, from the parser's events: nothing is built yet."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise CosetError(f"{where}: the alias *{event.anchor} stands within what it names, or before it")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            open_.append((event.anchor, total))
            if event.anchor:
                sizes.pop(event.anchor, None)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = total - before + 1
        if len(open_) > DEPTH:
            raise CosetError(f"{where} is nested deeper than {DEPTH} levels")
        if total > MOST_ENTRIES:
            raise CosetError(f"{where} has more than {MOST_ENTRIES:,} entries with its aliases written out")


@cache
def _adapter(schema: Any) -> Any:
    return TypeAdapter(schema)
