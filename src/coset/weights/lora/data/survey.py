"""A first look at many adapters: which cannot be read, which belong to another base model, what the others share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coset.core.errors import CosetError
from coset.weights.checksums import checksum
from coset.weights.lora.data.adapters import LoraAdapter
from coset.weights.lora.data.factors import Layout
from coset.weights.lora.data.magnitudes import groups_of
from coset.weights.lora.data.naming import canonical
from coset.weights.lora.data.reading import CONFIG, FILES, load_lora, natural_key

Progress = Callable[[Iterable[Any], str], Iterable[Any]]
DIFFERENT = "layers differ"
SHOWN = 50
"""Obstacles that one message tells."""


@dataclass(frozen=True)
class Facts:
    """Of an adapter that can be read.

    Attributes:
        layers: (n, m, r) by name.
        magnitudes: Sizes of DoRA's magnitudes by name of layer.
        base_model: What its configuration says.
        content: Hash of its files.
        obstacles: What of them is not in its layers, or is not known.
        largest: Number of its factors, in size.
        beside: What it holds beside its factors and magnitudes.
    """

    layers: Mapping[str, tuple[int, int, int]]
    magnitudes: Mapping[str, int]
    base_model: str | None = None
    content: str = ""
    obstacles: tuple[str, ...] = ()
    largest: float = 0.0
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, adapter: LoraAdapter, content: str) -> Facts:
        layers = {name: (*pair.shape, pair.rank) for name, pair in adapter.layers.items()}
        sizes = {name: p.magnitude.numel() for name, p in adapter.layers.items() if p.magnitude is not None}
        largest = max(float(side.abs().max()) for pair in adapter.layers.values() for side in pair.factors())
        biases = any(pair.bias is not None for pair in adapter.layers.values())
        beside = {"differences of biases": biases, "whole parameters": adapter.dense or adapter.saved}
        held = tuple(what for what, there in beside.items() if there)
        return cls(layers, sizes, adapter.base_model, content, adapter.obstacles, largest, held)

    @property
    def rank(self) -> int:
        """The largest of its layers."""
        return max(r for _, _, r in self.layers.values())


@dataclass
class Survey:
    """What many adapters are.

    Attributes:
        found: Facts of every adapter that fits the others.
        bad: Name and reason of those that do not.
        renamed: Whether layers go by the names of their modules, since several tools wrote the adapters.
    """

    found: dict[Path, Facts] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    renamed: bool = False


def survey(
    sources: Sequence[Path], called: Mapping[Path, str], progress: Progress, *, lossy: bool = False,
    dtype: str = "float32",
) -> Survey:  # fmt: skip
    """Read all adapters once.

    Args:
        sources: Files or folders.
        called: Their names.
        progress: Wraps what is gone through.
        lossy: Whether those will do of whose files more is needed than their factors.
        dtype: That has to hold their factors.
    """
    made, tools = Survey(), set[str]()
    modules: dict[Path, Facts | str] = {}
    for path in progress(sources, "checking adapters"):
        try:
            adapter = load_lora(path)
        except CosetError as error:
            made.bad.append((called[path], _without_path(error, path)))
            continue
        facts = Facts.of(adapter, content_of(path))
        if facts.obstacles and not lossy:
            made.bad.append((called[path], f"{'; '.join(facts.obstacles)} (--lossy goes on without)"))
            continue
        if not facts.largest <= float(np.finfo(dtype).max):
            made.bad.append((called[path], f"its factors go up to {facts.largest:.3g}, which is no {dtype}"))
            continue
        made.found[path] = facts
        tools.add(adapter.source_format)
        try:
            modules[path] = Facts.of(canonical(adapter), facts.content)
        except CosetError as error:
            modules[path] = _without_path(error, path)
    if len(tools) > 1 and len({frozenset(facts.layers) for facts in made.found.values()}) > 1:
        _rename(made, modules, called)
    _set_strangers_apart(made, called)
    return made


def named(adapter: LoraAdapter, renamed: bool) -> LoraAdapter:
    """An adapter as the collection names its layers."""
    return canonical(adapter) if renamed else adapter


def content_of(path: Path) -> str:
    """Hash of the files that an adapter is read from."""
    files = [path / name for name in (*FILES, CONFIG)] if path.is_dir() else [path]
    return " ".join(checksum(file)[:16] for file in files if file.is_file())


def _without_path(error: CosetError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _rename(made: Survey, modules: Mapping[Path, Facts | str], called: Mapping[Path, str]) -> None:
    made.renamed = True
    for path in list(made.found):
        facts = modules[path]
        if isinstance(facts, Facts):
            made.found[path] = facts
        else:
            made.bad.append((called[path], facts))
            del made.found[path]


def _set_strangers_apart(made: Survey, called: Mapping[Path, str]) -> None:
    """Adapters with a layer of another shape than most have."""
    usual = _usual_shapes(made.found.values())
    for path, facts in list(made.found.items()):
        stranger = next((name for name, (n, m, _) in facts.layers.items() if (n, m) != usual[name]), None)
        if stranger is not None:
            base = f" ({facts.base_model})" if facts.base_model else ""
            shape = facts.layers[stranger][:2]
            reason = f"{stranger} is {shape}, in most adapters {usual[stranger]}: another base model{base}"
            made.bad.append((called[path], reason))
            del made.found[path]


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
        what = _differences(sets)
        if layers == "same":
            raise CosetError(
                f"the adapters have different layers ({what}): keep common ones with --layers intersection, "
                "or fill with zero updates with --layers union"
            )
        notes.append(f"{DIFFERENT} ({what}): {layers} taken, {len(common)} of {len(union)} are in all")
    kept = union if layers == "union" else common
    if not kept:
        raise CosetError("the adapters have no layer in common")
    first = {name: shape for facts in found.values() for name, shape in facts.layers.items()}
    return Layout.of((name, first[name][:2]) for name in sorted(kept, key=natural_key)), notes


def _differences(sets: Mapping[str, frozenset[str]]) -> str:
    """Every adapter whose layers are not those that most have."""
    ((usual, _),) = Counter(sets.values()).most_common(1)
    said = []
    for name, own in sets.items():
        for verb, more in (("lacks", usual - own), ("alone has", own - usual)):
            if more:
                first = min(more, key=natural_key)
                said.append(f"{name} {verb} {first}" + (f" and {len(more) - 1} more" if len(more) > 1 else ""))
    return "; ".join(said[:SHOWN]) + (f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else "")


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


def beside_factors(found: Mapping[str, Facts]) -> list[str]:
    """Notes on what adapters hold and a collection has no place for."""
    counted = Counter(what for facts in found.values() for what in facts.beside)
    return [
        f"{number} of {len(found)} adapters hold {what}, too: they are left out" for what, number in counted.items()
    ]


def copies(found: Mapping[str, Facts]) -> list[str]:
    """A note on adapters whose files are the same: one could be trained on and the other tested on."""
    names: dict[str, list[str]] = {}
    for name, facts in found.items():
        names.setdefault(facts.content, []).append(name)
    said = [" and ".join(same) for same in names.values() if len(same) > 1]
    more = f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    return [f"copies of one adapter, each counted: {'; '.join(said[:SHOWN])}{more}"] if said else []
