"""Which rank pair sees what two complexes differ in: ``coset wl --complex A B``.

Colour refinement bounds every network of a kind, so a "no" is final: no HOMP, or no subcomplex network with these ranks
and marks, of any depth and width, tells the two complexes apart. A "yes" says that some network can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from coset.core.errors import CosetError
from coset.runs.terminal import track
from coset.topology.data.batches import to_data
from coset.topology.data.complexes import Complex
from coset.topology.invariants import (
    betti_numbers,
    components,
    cross_diameter,
    diameter,
    euler_characteristic,
    is_orientable,
)
from coset.topology.invariants.subcomplex_refinement import (
    StableColours,
    SubcomplexRefinement,
    renaming,
    subcomplex_classes,
)
from coset.topology.surfaces import classify_surfaces

LARGEST = 5_000_000
"""Pairs of cells that are still refined; with more, a rank pair is left out."""


@dataclass(frozen=True)
class Verdict:
    """What one kind of network can make of two complexes.

    Attributes:
        network: ``HOMP`` or ``SMCN(r1, r2)``.
        separates: Whether it can tell them apart; ``None`` if there were too many pairs to find out.
        layers: Subcomplex layers that it needs for that.
        pairs: Rows of features on pairs of cells, of the larger complex: what it costs.
    """

    network: str
    separates: bool | None
    layers: int | None
    pairs: int


@dataclass(frozen=True)
class Comparison:
    """Two complexes side by side.

    Attributes:
        invariants: Name, value of the first, value of the second; ``None`` where it is not defined.
        verdicts: HOMP first, then rank pairs by cost.
        equal: Whether one becomes the other by renaming vertices; ``None`` if no renaming was found.
    """

    invariants: list[tuple[str, Any, Any]]
    verdicts: list[Verdict]
    equal: bool | None = None

    @property
    def differences(self) -> list[str]:
        """Names of the invariants that differ."""
        return [name for name, a, b in self.invariants if a != b]

    @property
    def advice(self) -> str:
        """What to use, in one sentence."""
        if self.equal:
            return "they are one complex, with vertices in another order: no network tells them apart"
        able = [verdict for verdict in self.verdicts if verdict.separates]
        if not able:
            left_out = [v.network for v in self.verdicts if v.separates is None]
            more = f" ({', '.join(left_out)} not tried: too many pairs)" if left_out else ""
            return f"no network here tells them apart{more}"
        best = able[0]
        if best.network == "HOMP":
            return "HOMP tells them apart: message passing on cells is enough"
        blind = [v.network for v in self.verdicts[1:] if v.separates is False]
        but = f"; {', '.join(blind)} would not see it" if blind else ""
        layers = f"{best.layers} subcomplex layer{'s' * (best.layers != 1)}"
        return f"use {best.network}: the fewest pairs ({best.pairs:,}) that see it, with {layers}{but}"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "invariants": [{"name": n, "first": a, "second": b} for n, a, b in self.invariants],
            "networks": [asdict(verdict) for verdict in self.verdicts],
            "equal": self.equal,
            "advice": self.advice,
        }


def compare_complexes(first: Complex, second: Complex, marking: str = "distance", *, quiet: bool = True) -> Comparison:
    """Invariants of two complexes, and which networks can tell them apart.

    Args:
        first: A complex.
        second: Another.
        marking: ``distance`` or ``binary``, of the subcomplex networks.
        quiet: No progress bar.
    """
    values = [invariants(c) for c in (first, second)]
    names = {name: None for found in values for name in found}
    rows = [(name, values[0].get(name), values[1].get(name)) for name in names]
    return Comparison(rows, *_verdicts(first, second, marking, all(a == b for _, a, b in rows), quiet))


def invariants(complex_: Complex) -> dict[str, Any]:
    """All invariants of a complex by name; ``None`` where one is not defined."""
    measures: dict[str, Callable[[Complex], Any]] = {
        "cells by rank": lambda c: list(c.counts),
        "Euler characteristic": euler_characteristic,
        "Betti numbers": lambda c: list(betti_numbers(c)),
        "Betti numbers modulo 2": lambda c: list(betti_numbers(c, 2)),
        "components": components,
        "orientable": lambda c: is_orientable(c) if c.top >= 2 else None,
        "surface": lambda c: " + ".join(sorted(map(str, classify_surfaces(c)))),
        "diameter": diameter,
        "cross-diameter": cross_diameter,
    }
    found: dict[str, Any] = {}
    for name, measure in measures.items():
        try:
            found[name] = measure(complex_)
        except CosetError:  # no boundary, or no surface
            found[name] = None
    return found


def _verdicts(
    first: Complex, second: Complex, marking: str, may_be_equal: bool, quiet: bool
) -> tuple[list[Verdict], bool | None]:
    top = max(first.top, second.top)
    data = [to_data(c, ranks=top + 1) for c in (first, second)]
    stable = StableColours.of(data)
    homp, found = bool(stable.classes[0] != stable.classes[1]), []
    equal = not homp and may_be_equal and renaming(*data) is not None
    sizes = {
        (low, high): max(int(d.num_cells[0, low] * d.num_cells[0, high]) for d in data)
        for low in range(min(top, 2))
        for high in range(top + 1)
    }
    by_cost = sorted((ranks for ranks, pairs in sizes.items() if pairs), key=lambda ranks: sizes[ranks])
    for ranks in track(by_cost, "rank pairs", quiet=quiet or homp or equal):
        name, pairs = f"SMCN({ranks[0]}, {ranks[1]})", sizes[ranks]
        if homp or equal:  # their colours begin with those of HOMP; what is equal none tells apart
            found.append(Verdict(name, homp, 0 if homp else None, pairs))
        elif pairs > LARGEST:
            found.append(Verdict(name, None, None, pairs))
        else:  # once apart they stay apart
            rule = SubcomplexRefinement(ranks, marking)
            apart = (layers for layers, c in enumerate(subcomplex_classes(stable, rule)) if c[0] != c[1])
            layers = next(apart, None)
            found.append(Verdict(name, layers is not None, layers, pairs))
    verdicts = [Verdict("HOMP", homp, None, 0), *found]
    return verdicts, False if any(verdict.separates for verdict in verdicts) else equal or None
