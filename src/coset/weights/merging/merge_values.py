"""Settings of a merge file by tensor: numbers, gradients over layers, and values for tensors whose names hold a word.

As mergekit has them: ``t: 0.5``; ``t: [0, 0.5, 1]``, spread over the layers of a slice and interpolated; ``t:
[{filter: mlp, value: 0.3}, {value: 0.7}]``, the first whose filter is in the tensor's name. A model's own settings
come before those of its slice, and these before those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from coset.core.errors import CosetError
from coset.core.options import Options, no_answer
from coset.core.registry import nearest
from coset.weights.merging.mixing import Values

Finite = Annotated[float, BeforeValidator(no_answer), Field(allow_inf_nan=False)]
Gradient = Annotated[list[Finite], Field(min_length=1)]
Number = Finite | Gradient


class Filtered(Options):
    """A value for tensors whose names hold a text; without one, for all."""

    value: Number
    filter: str | None = None


Setting = Finite | Gradient | Filtered | Annotated[list[Filtered], Field(min_length=1)]
PER_MODEL = ("weight", "density", "gamma", "epsilon", "scale")
YES_OR_NO = ("normalize", "rescale", "flatten", "row_wise", "filter_wise")
SHARED = ("t", "lambda", "select_topk", "max_iter", "tol")
LIMITS: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "density": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "gamma": (lambda x: 0 <= x <= 1, "from 0 to 1"),
    "epsilon": (lambda x: 0 <= x <= 1, "from 0 to 1"),
    "select_topk": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "max_iter": (lambda x: x >= 1 and x == int(x), "whole and at least 1"),
    "tol": (lambda x: x > 0, "above 0"),
}
"""What settings may be that may not be any number."""


def numbers_of(setting: Setting) -> Iterator[float]:
    """All numbers in a setting."""
    if isinstance(setting, Filtered):
        setting = setting.value
    if isinstance(setting, list):
        for one in setting:
            yield from numbers_of(one)
    else:
        yield setting


def within_limits(key: str, setting: Setting) -> None:
    """Raise a ValueError for a number that a setting cannot be."""
    fits, said = LIMITS.get(key, (lambda _: True, ""))
    wrong = next((number for number in numbers_of(setting) if not fits(number)), None)
    if wrong is not None:
        raise ValueError(f"{key}={wrong:g} has to be {said}")


def checked(settings: dict[str, Setting], known: Sequence[str]) -> dict[str, Setting]:
    """The same settings, if they are known and within limits; else a ValueError."""
    for key, setting in settings.items():
        if key not in known:
            near = nearest(key, known)
            raise ValueError(
                f"unknown key {key}{f', did you mean {near}?' if near else ''} (known here: {', '.join(known)})"
            )
        within_limits(key, setting)
    return settings


class Source(Options):
    """Layers of one model, from ``first`` on; ``model`` is its number in the file."""

    model: int
    first: int
    parameters: dict[str, Setting] = {}

    @field_validator("parameters")
    @classmethod
    def _known(cls, value: dict[str, Setting]) -> dict[str, Setting]:
        return checked(value, PER_MODEL)


class Slice(Options):
    """Layers ``first`` to ``last`` (not included) of the result: of as many layers of each source."""

    first: int
    last: int
    sources: list[Source]
    parameters: dict[str, Setting] = {}

    @field_validator("parameters")
    @classmethod
    def _known(cls, value: dict[str, Setting]) -> dict[str, Setting]:
        return checked(value, PER_MODEL + SHARED)

    def moves(self, models: int) -> bool:
        """Whether they are others than these layers of all models."""
        return [(s.model, s.first) for s in self.sources] != [(n, self.first) for n in range(models)]


def evaluated(setting: Setting, name: str, place: float) -> float | None:
    """A setting for one tensor.

    Args:
        setting: As in the file.
        name: Of the tensor.
        place: Of its layer, from 0 for the first of a slice to 1 for the last.

    Returns:
        None if no filter is in the name.
    """
    if isinstance(setting, Filtered):
        setting = [setting]
    if not isinstance(setting, list):
        return float(setting)
    if setting and isinstance(setting[0], Filtered):
        for one in setting:
            assert isinstance(one, Filtered)
            if one.filter in (None, "*") or (one.filter is not None and one.filter in name):
                return evaluated(one.value, name, place)
        return None
    numbers = [float(x) for x in setting if not isinstance(x, Filtered)]
    at = place * (len(numbers) - 1)
    low = int(at)
    high = min(low + 1, len(numbers) - 1)
    return numbers[low] + (at - low) * (numbers[high] - numbers[low])


def values_by_name(
    models: Sequence[Mapping[str, Setting]], shared: Mapping[str, Any], slices: Sequence[Slice], layers: int
) -> Callable[[str], Values]:
    """Settings of a tensor by its name.

    Args:
        models: Each model's own.
        shared: Of the file; :data:`YES_OR_NO` among them have no gradients.
        slices: Settings by layers; none for the same in all.
        layers: How many there are.
    """
    plain = {key: shared[key] for key in YES_OR_NO if shared.get(key) is not None}

    def values(name: str) -> Values:
        number, found = layer_of(name), slice_of(name, slices) if slices else None
        first, last = (0, layers) if found is None else (found.first, found.last)
        place = 0.0 if number is None else (number - first) / (last - first - 1) if last - first > 1 else 1.0
        own = [[m] for m in models]
        if found is not None:
            own = [[s.parameters, models[s.model]] for s in found.sources]

        def scopes(source: int | None) -> list[Mapping[str, Setting]]:
            of_source = [] if source is None else own[source]
            return [*of_source, *([] if found is None else [found.parameters]), shared]

        def one(key: str, source: int | None = None) -> float | None:
            for scope in scopes(source):
                if scope.get(key) is not None and (value := evaluated(scope[key], name, place)) is not None:
                    return value
            return None

        given: dict[str, Any] = dict(plain)
        for key in SHARED:
            value = one(key)
            if value is not None:
                given["lam" if key == "lambda" else key] = int(value) if key == "max_iter" else value
        defaults = Values.of(len(own))
        for key in PER_MODEL:
            default = getattr(defaults, key)
            found_values = [one(key, i) for i in range(len(own))]
            given[key] = [d if value is None else value for d, value in zip(default, found_values, strict=True)]
        return Values.of(len(own), **given)

    return values


LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
LAST = re.compile(r"(^|\.)(lm_head|norm|ln_f|final_layer_?norm|final_norm|embed_out|score|classifier|pooler|cls)(\.|$)")


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to."""
    match = LAYER.search(name)
    return None if match is None else int(match.group())


def slice_of(name: str, slices: Sequence[Slice]) -> Slice:
    """The slice that a tensor of the result belongs to; what comes before all layers is of the first, what after of
    the last."""
    number = layer_of(name)
    if number is None:
        return slices[-1] if LAST.search(name) and "embeddings" not in name else slices[0]
    return next((s for s in slices if s.first <= number < s.last), slices[-1])


def _sources(one: Any) -> list[dict[str, Any]]:
    """The sources of a slice, each an object with whole numbers for its layers."""
    sources = one.get("sources") if isinstance(one, dict) else None
    for source in sources if isinstance(sources, list) else [None]:
        layers = source.get("layer_range", []) if isinstance(source, dict) else None
        if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
            raise CosetError(
                f"slices: {str(one)[:60]!r}: sources with model and layer_range, e.g. [0, 12], were expected"
            )
    return sources or []


def from_slices(values: dict[str, Any]) -> dict[str, Any]:
    """A file with ``slices`` as one with ``models``, and which of their layers lie one above the other.

    Raises:
        CosetError: A slice names no layers, or other numbers of layers of its sources.
    """
    slices = values.pop("slices")
    if "models" in values:
        raise CosetError("give models or slices, not both")
    names: list[str] = []
    made, first = [], 0
    for one in slices if isinstance(slices, list) else []:
        sources = []
        for source in _sources(one):
            name, layers = str(source.get("model")), list[int](source.get("layer_range") or [])
            names += [] if name in names else [name]
            if len(layers) != 2 or not 0 <= layers[0] < layers[1]:
                raise CosetError(f"slices: {name}: layer_range {layers}: two numbers, e.g. [0, 12], were expected")
            own = {"model": names.index(name), "first": layers[0], "parameters": source.get("parameters") or {}}
            sources.append((own, layers[1] - layers[0]))
        if len({count for _, count in sources}) != 1:
            raise CosetError("slices: layer_range of all sources of a slice has to be of equally many layers")
        last = first + sources[0][1]
        parameters = one.get("parameters") or {}
        made.append({"first": first, "last": last, "sources": [own for own, _ in sources], "parameters": parameters})
        first = last
    if not names:
        raise CosetError("slices holds no sources")
    return values | {"models": [{"model": name} for name in names], "layers": made}
