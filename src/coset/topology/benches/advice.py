"""Which rank pair sees what two complexes differ in: ``coset wl --complex A B``.

Colour refinement bounds every network of a kind, so a "no" is final: no HOMP, or no subcomplex network with these ranks
and marks, of any depth and width, tells the two complexes apart. A "yes" says that some network can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from coset.core.errors import CosetError
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
from coset.topology.invariants.subcomplex_refinement import SubcomplexRefinement, homp_classes, subcomplex_classes
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
    """

    invariants: list[tuple[str, Any, Any]]
    verdicts: list[Verdict]

    @property
    def differences(self) -> list[str]:
        """Names of the invariants that differ."""
        return [name for name, a, b in self.invariants if a != b]

    @property
    def advice(self) -> str:
        """What to use, in one sentence."""
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
            "advice": self.advice,
        }


def compare_complexes(first: Complex, second: Complex, marking: str = "distance") -> Comparison:
    """Invariants of two complexes, and which networks can tell them apart.

    Args:
        first: A complex.
        second: Another.
        marking: ``distance`` or ``binary``, of the subcomplex networks.
    """
    names = {name: None for c in (first, second) for name in invariants(c)}
    values = [invariants(c) for c in (first, second)]
    rows = [(name, values[0].get(name), values[1].get(name)) for name in names]
    return Comparison(rows, _verdicts(first, second, marking))


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


def _verdicts(first: Complex, second: Complex, marking: str) -> list[Verdict]:
    top = max(first.top, second.top)
    data = [to_data(c, ranks=top + 1) for c in (first, second)]
    classes = homp_classes(data)
    found = []
    for low in range(min(top, 2)):
        for high in range(top + 1):
            pairs = max(int(d.num_cells[0, low] * d.num_cells[0, high]) for d in data)
            if not pairs:
                continue
            rule = SubcomplexRefinement((low, high), marking)
            name = f"SMCN({low}, {high})"
            if pairs > LARGEST:
                found.append(Verdict(name, None, None, pairs))
                continue
            apart = [bool(c[0] != c[1]) for c in subcomplex_classes(data, rule)]
            found.append(Verdict(name, apart[-1], apart.index(True) if apart[-1] else None, pairs))
    homp = Verdict("HOMP", bool(classes[0] != classes[1]), None, 0)
    return [homp, *sorted(found, key=lambda verdict: verdict.pairs)]
