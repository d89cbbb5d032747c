"""A first look at many adapters: which cannot be read, which belong to another base model, what the others share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coset.core.errors import CosetError
from coset.weights.lora.data.factors import Layout
from coset.weights.lora.data.magnitudes import groups_of
from coset.weights.lora.data.reading import load_lora, natural_key

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Facts:
    """Of an adapter that can be read.

    Attributes:
        layers: (n, m, r) by name.
        magnitudes: Sizes of DoRA's magnitudes by name of layer.
        base_model: What its configuration says.
    """

    layers: Mapping[str, tuple[int, int, int]]
    magnitudes: Mapping[str, int]
    base_model: str | None = None

    @property
    def rank(self) -> int:
        """The largest of its layers."""
        return max(r for _, _, r in self.layers.values())


def survey(sources: Sequence[Path], called: Mapping[Path, str], progress: Progress) -> tuple[dict[Path, Facts], list]:
    """Facts of every adapter that fits the others, and (name, reason) of those that do not."""
    found: dict[Path, Facts] = {}
    bad: list[tuple[str, str]] = []
    for path in progress(sources, "checking adapters"):
        try:
            adapter = load_lora(path)
        except CosetError as error:
            bad.append((called[path], str(error).removeprefix(f"{path}: ")))
            continue
        layers = {name: (*pair.shape, pair.rank) for name, pair in adapter.layers.items()}
        sizes = {name: p.magnitude.numel() for name, p in adapter.layers.items() if p.magnitude is not None}
        found[path] = Facts(layers, sizes, adapter.base_model)
    usual = _usual_shapes(found.values())
    for path, facts in list(found.items()):
        stranger = next((name for name, (n, m, _) in facts.layers.items() if (n, m) != usual[name]), None)
        if stranger is not None:
            base = f" ({facts.base_model})" if facts.base_model else ""
            shape = facts.layers[stranger][:2]
            reason = f"{stranger} is {shape}, in most adapters {usual[stranger]}: another base model{base}"
            bad.append((called[path], reason))
            del found[path]
    return found, bad


def _usual_shapes(found: Iterable[Facts]) -> dict[str, tuple[int, int]]:
    votes: dict[str, dict[tuple[int, int], int]] = {}
    for facts in found:
        for name, (n, m, _) in facts.layers.items():
            counted = votes.setdefault(name, {})
            counted[(n, m)] = counted.get((n, m), 0) + 1
    return {name: max(counted, key=lambda s: counted[s]) for name, counted in votes.items()}


def common_layout(found: Mapping[str, Facts], layers: str) -> tuple[Layout, list[str]]:
    """Layers that a collection keeps, and what should be known about them.

    Raises:
        CosetError: Layers differ and ``layers`` is "same", or none is left.
    """
    if layers not in ("same", "intersection", "union"):
        raise CosetError(f"layers={layers!r}: choose same, intersection or union")
    sets = {name: frozenset(facts.layers) for name, facts in found.items()}
    union = frozenset().union(*sets.values())
    common = union.intersection(*sets.values())
    notes = []
    if union != common:
        example, present = next((name, present) for name, present in sets.items() if present != union)
        missing = sorted(union - present, key=natural_key)
        what = f"{example} lacks {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        if layers == "same":
            raise CosetError(
                f"the adapters have different layers ({what}): keep common ones with --layers intersection, "
                "or fill with zero updates with --layers union"
            )
        notes.append(f"layers differ ({what}): {layers} taken, {len(common)} of {len(union)} are in all")
    kept = union if layers == "union" else common
    if not kept:
        raise CosetError("the adapters have no layer in common")
    first = {name: shape for facts in found.values() for name, shape in facts.layers.items()}
    return Layout.of((name, first[name][:2]) for name in sorted(kept, key=natural_key)), notes


def common_magnitudes(
    found: Mapping[str, Facts], layout: Layout
) -> tuple[tuple[tuple[int, tuple[str, ...]], ...], list[str]]:
    """DoRA's magnitudes that all adapters have, in groups of equal size; a note if only some have them."""
    sets = [frozenset(facts.magnitudes) for facts in found.values()]
    common = frozenset(layout.names).intersection(*sets)
    having = sum(map(bool, sets))
    notes = (
        [f"{having} of {len(sets)} adapters have DoRA magnitudes: they are left out"] if having and not common else []
    )
    sizes = next(iter(found.values())).magnitudes
    return groups_of({name: sizes[name] for name in layout.names if name in common}), notes
