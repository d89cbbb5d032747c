"""Settings of a merge file by tensor: numbers, gradients over layers, and values for tensors whose names hold a word.

As mergekit has them: ``t: 0.5``; ``t: [0, 0.5, 1]``, spread over the layers of a slice and interpolated; ``t:
[{filter: mlp, value: 0.3}, {value: 0.7}]``, the first whose filter is in the tensor's name. A model's own settings
come before those of its slice, and these before those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coset.core.errors import CosetError
from coset.core.options import Options
from coset.weights.merging.mixing import Values

Number = float | list[float]


class Filtered(Options):
    """A value for tensors whose names hold a text; without one, for all."""

    value: Number
    filter: str | None = None


Setting = float | list[float] | Filtered | list[Filtered]
PER_MODEL = ("weight", "density", "gamma", "epsilon", "scale")
SHARED = ("t", "lambda", "select_topk", "max_iter", "tol")


class Slice(Options):
    """Layers ``first`` to ``last`` (not included) of all models, with settings of their own."""

    first: int
    last: int
    models: list[dict[str, Setting]]
    parameters: dict[str, Setting] = {}


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
        shared: Of the file; ``normalize`` and ``rescale`` are yes or no.
        slices: Settings by layers; none for the same in all.
        layers: How many there are.
    """
    plain = {key: shared[key] for key in ("normalize", "rescale") if shared.get(key) is not None}

    def values(name: str) -> Values:
        number = _layer(name)
        found = next((s for s in slices if number is not None and s.first <= number < s.last), None)
        if found is None and slices:
            found = slices[-1] if number is None and name.startswith(("lm_head", "model.norm")) else slices[0]
        first, last = (0, layers) if found is None else (found.first, found.last)
        place = 0.0 if number is None else (number - first) / (last - first - 1) if last - first > 1 else 1.0

        def scopes(model: int | None) -> list[Mapping[str, Setting]]:
            own = [] if model is None else [models[model]] if found is None else [found.models[model], models[model]]
            return [*own, *([] if found is None else [found.parameters]), shared]

        def one(key: str, model: int | None = None) -> float | None:
            for scope in scopes(model):
                if scope.get(key) is not None and (value := evaluated(scope[key], name, place)) is not None:
                    return value
            return None

        given: dict[str, Any] = dict(plain)
        for key in SHARED:
            value = one(key)
            if value is not None:
                given["lam" if key == "lambda" else key] = int(value) if key == "max_iter" else value
        defaults = Values.of(len(models))
        for key in PER_MODEL:
            default = getattr(defaults, key)
            found_values = [one(key, i) for i in range(len(models))]
            given[key] = [d if value is None else value for d, value in zip(default, found_values, strict=True)]
        return Values.of(len(models), **given)

    return values


def _layer(name: str) -> int | None:
    """The number of the layer that a tensor belongs to."""
    match = re.search(r"\.(\d+)\.", name)
    return None if match is None else int(match.group(1))


def _sources(one: Any) -> list[dict[str, Any]]:
    """The sources of a slice, each an object with whole numbers for its layers."""
    sources = one.get("sources") if isinstance(one, dict) else None
    for source in sources if isinstance(sources, list) else [None]:
        layers = source.get("layer_range", []) if isinstance(source, dict) else None
        if not isinstance(layers, list) or not all(isinstance(layer, int) for layer in layers):
            raise CosetError(
                f"slices: {str(one)[:60]!r}: sources with model and layer_range, e.g. [0, 12], were expected"
            )
    return sources or []


def from_slices(values: dict[str, Any]) -> dict[str, Any]:
    """A file with ``slices`` as one with ``models``: the same layers of all of them, one slice after the other.

    Raises:
        CosetError: Slices repeat, drop or shift layers, or name other models.
    """
    slices = values.pop("slices")
    if "models" in values:
        raise CosetError("give models or slices, not both")
    names: list[str] = []
    made, expected = [], 0
    for one in slices if isinstance(slices, list) else []:
        sources = _sources(one)
        own = [str(s.get("model")) for s in sources]
        names = names or own
        ranges = {tuple(s.get("layer_range") or ()) for s in sources}
        if own != names or len(ranges) != 1:
            raise CosetError("slices: each needs the same models in the same order, and the same layer_range of all")
        (found,) = ranges
        if len(found) != 2 or found[0] != expected:
            raise CosetError(
                f"slices: layer_range {list(found)} does not begin at {expected}: layers that are repeated, dropped or "
                "moved change the depth, which is not done here"
            )
        expected = found[1]
        parameters = one.get("parameters") or {}
        models = [s.get("parameters") or {} for s in sources]
        made.append({"first": found[0], "last": found[1], "models": models, "parameters": parameters})
    if not names:
        raise CosetError("slices holds no sources")
    return values | {"models": [{"model": name} for name in names], "layers": made}
