r"""What message passing on cells cannot see, and subcomplex layers can: ``coset bench torus|blindspots``.

Exact: colour refinement, an upper bound for all networks of a kind. Untrained: networks with random weights in float64;
a pair counts as told apart if some output differs by more than 1e-12 (rounding leaves 1e-14). Trained:
:mod:`coset.topology.benches.torus_protocol`.
"""

from __future__ import annotations

import copy
import json as json_module
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import nn
from torch_geometric.data import Batch

from coset.core.errors import CosetError
from coset.runs.terminal import Console, Table, bars, track
from coset.topology.benches import torus_protocol
from coset.topology.data.batches import ComplexData, to_data
from coset.topology.data.complexes import Complex, disjoint_union
from coset.topology.data.permutations import CellPermutation
from coset.topology.data.torus import klein_bottle, strip, tori, torus, torus_pairs
from coset.topology.invariants.subcomplex_refinement import (
    SubcomplexRefinement,
    homp_classes,
    separates,
    subcomplex_classes,
)
from coset.topology.liftings import ring_complex
from coset.topology.liftings.marking import MarkPairs
from coset.topology.models.homp import HOMP
from coset.topology.models.smcn import SMCN, Marking

APART = 1e-12
LAYERS = 4
OUTPUTS = 16


def main(json: bool = False, networks: str = "untrained", seeds: int = 3, pairs: int = 0, out: str = "") -> None:
    """``coset bench torus``.

    Args:
        json: Print JSON instead of tables.
        networks: ``none`` (colour refinement only), ``untrained`` or ``trained`` as well.
        seeds: Seeds 0, 1, ... of the networks.
        pairs: Train on this many pairs only, spread evenly; 0 for all 223.
        out: CSV to write the scores of every trained pair to, and to go on from if it exists.
    """
    if networks not in ("none", "untrained", "trained"):
        raise CosetError(f"networks={networks!r}: choose none, untrained or trained")
    bench = TorusBench()
    result: dict[str, Any] = {"pairs": len(bench.pairs), "complexes": len(bench.data), "exact": bench.exact()}
    if networks != "none":
        result["untrained"] = bench.untrained(range(seeds), progress=not json)
    if networks == "trained":
        result["trained"] = bench.trained(range(seeds), pairs, out, progress=not json)
    if json:
        print(json_module.dumps(result, indent=2))
        return
    console = Console()
    console.print(f"{result['pairs']} pairs of {result['complexes']} complexes", highlight=False)
    for name in ("exact", "untrained", "trained"):
        if name in result:
            _print(console, name, result[name])


def gallery(json: bool = False) -> None:
    """``coset bench blindspots``: which rank pair tells apart what, by exact colour refinement."""
    rows = [
        {"pair": name, "HOMP": separates(a, b)}
        | {
            f"SCL({r1},{r2})": separates(a, b, SubcomplexRefinement((r1, r2)))
            for r1, r2 in ((0, 0), (0, 1), (0, 2), (1, 2))
        }
        for name, a, b in blind_pairs()
    ]
    if json:
        print(json_module.dumps(rows, indent=2))
    else:
        _print(Console(), "told apart", rows)


def blind_pairs() -> Iterator[tuple[str, Complex, Complex]]:
    """Pairs of complexes that agree in much: names and the two."""
    yield "diameter: T(3,12), T(6,6)", torus(3, 12), torus(6, 6)
    yield "components: T(3,6), 2 T(3,3)", torus(3, 6), tori(((3, 3), (3, 3)))
    for r, R in ((4, 4), (5, 5), (6, 6), (4, 6)):
        yield f"orientability: torus, Klein bottle {r}x{R}", torus(r, R), klein_bottle(r, R)
    for p in (3, 4, 5, 6, 8):
        yield f"twist: cylinder, Möbius strip of {p}", strip(p), strip(p, twisted=True)
    for k in (7, 8, 5, 6):
        half = _rings(nx.circular_ladder_graph(k))
        yield f"rings <= 6: CL_{2 * k}, 2 CL_{k}", _rings(nx.circular_ladder_graph(2 * k)), disjoint_union(half, half)
    for k in (7, 8):
        moebius = nx.circulant_graph(2 * k, [1, k])
        yield f"rings <= 6: CL_{k}, Möbius ladder {k}", _rings(nx.circular_ladder_graph(k)), _rings(moebius)
    half = _rings(nx.cycle_graph(4), 0)
    yield "no 2-cells: C_8, 2 C_4", _rings(nx.cycle_graph(8), 0), disjoint_union(half, half)
    for longest in (3, 6):
        yield (
            f"rings <= {longest}: decalin, bicyclopentyl",
            _rings(decalin(), longest),
            _rings(bicyclopentyl(), longest),
        )
    rook = nx.convert_node_labels_to_integers(nx.line_graph(nx.complete_bipartite_graph(4, 4)))
    for longest in (0, 3):
        cells = f"rings <= {longest}" if longest else "no 2-cells"
        yield f"{cells}: rook 4x4, Shrikhande", _rings(rook, longest), _rings(shrikhande(), longest)


def decalin() -> nx.Graph:
    """Two rings of six that share an edge."""
    graph = nx.cycle_graph(10)
    graph.add_edge(0, 5)
    return graph


def bicyclopentyl() -> nx.Graph:
    """Two rings of five, joined by an edge."""
    graph = nx.disjoint_union(nx.cycle_graph(5), nx.cycle_graph(5))
    graph.add_edge(0, 5)
    return graph


def shrikhande() -> nx.Graph:
    """The Shrikhande graph: vertices of Z_4 x Z_4, joined by +-(1, 0), +-(0, 1), +-(1, 1)."""
    steps = ((1, 0), (0, 1), (1, 1))
    places = [(a, b) for a in range(4) for b in range(4)]
    edges = [(4 * a + b, 4 * ((a + i) % 4) + (b + j) % 4) for a, b in places for i, j in steps]
    graph = nx.Graph()
    graph.add_nodes_from(range(16))
    graph.add_edges_from(edges)
    return graph


def _rings(graph: nx.Graph, longest: int = 6) -> Complex:
    if longest:
        return ring_complex(graph, longest)
    edges = [(min(e), max(e)) for e in graph.edges]
    return Complex(graph.number_of_nodes(), {1: edges, 2: []}, "cell")


class TorusBench:
    """The 75 complexes of the torus benchmark and its 223 pairs, by number."""

    def __init__(self) -> None:
        configurations = torus_pairs()
        distinct = list(dict.fromkeys(c for pair in configurations for c in pair))
        number = {configuration: i for i, configuration in enumerate(distinct)}
        self.pairs = [(number[a], number[b]) for a, b in configurations]
        self.data: list[ComplexData] = [to_data(tori(configuration)) for configuration in distinct]
        for ranks in ((0, 1), (0, 2)):
            self.data = [MarkPairs(ranks)(data) for data in self.data]

    def exact(self) -> list[dict[str, Any]]:
        """Pairs that colour refinement tells apart: HOMP, and subcomplex layers one by one."""
        rows: list[dict[str, Any]] = []
        started = time.process_time()
        rows.append({"network": "HOMP", "stable": self.apart(homp_classes(self.data))})
        rows[-1]["cpu_seconds"] = round(time.process_time() - started, 2)
        rules = [SubcomplexRefinement((0, s), marking) for s in (1, 2) for marking in ("distance", "binary")]
        rules += [
            SubcomplexRefinement((0, 1), "binary", terms) for terms in (("low",), ("incidence",), ("incidence", "high"))
        ]
        for rule in rules:
            started = time.process_time()
            counts = [self.apart(classes) for classes in subcomplex_classes(self.data, rule)]
            name = rule.name + ("" if len(rule.terms) == 2 and "low" in rule.terms else f" {'+'.join(rule.terms)}")
            row = {"network": name, "stable": counts[-1]}
            row |= {f"layers_{i}": counts[min(i, len(counts) - 1)] for i in range(LAYERS)}
            rows.append({**row, "cpu_seconds": round(time.process_time() - started, 2)})
        return rows

    def apart(self, classes: Int[np.ndarray, " complexes"]) -> int:
        """How many of the pairs have different classes."""
        return sum(int(classes[a] != classes[b]) for a, b in self.pairs)

    def untrained(self, seeds: Sequence[int], progress: bool = False) -> list[dict[str, Any]]:
        """Networks with random weights: pairs told apart, smallest gap among those, largest among the others."""
        kinds: dict[str, Callable[[], nn.Module]] = {
            f"HOMP, {layers} layers": partial(HOMP, OUTPUTS, width=16, layers=layers) for layers in (2, 4, 8)
        }
        markings: tuple[tuple[Marking, int], ...] = (
            ("distance", 1), ("distance", 2), ("binary", 2), ("binary", 3), ("binary", 4),
        )  # fmt: skip
        for second, (marking, layers) in product((1, 2), markings):
            kinds[f"SMCN(0,{second}) {marking}, {layers} layers"] = partial(_smcn, second, marking, layers)
        batch = Batch.from_data_list(self.data)
        return [
            {"network": name, **self._untrained(make, seeds, batch)}
            for name, make in track(kinds.items(), "untrained", quiet=not progress)
        ]

    def _untrained(self, make: Callable[[], nn.Module], seeds: Sequence[int], batch: Batch) -> dict[str, Any]:
        apart, gap_apart, gap_alike, error = [], [], [0.0], 0.0
        for seed in seeds:
            torch.manual_seed(seed)
            model = make().double().eval()
            action = CellPermutation()
            moved = action.apply(action.sample(batch, torch.Generator().manual_seed(seed)), batch)
            with torch.no_grad():
                out, again = model(batch), model(moved)
            gaps = [float((out[a] - out[b]).abs().max()) for a, b in self.pairs]
            apart.append(sum(gap > APART for gap in gaps))
            gap_apart += [gap for gap in gaps if gap > APART]
            gap_alike += [gap for gap in gaps if gap <= APART]
            error = max(error, float((out - again).abs().max()))
        return {
            "apart": apart,
            "smallest_gap_apart": min(gap_apart, default=None),
            "largest_gap_alike": max(gap_alike),
            "relabelling_error": error,
        }

    def trained(
        self, seeds: Sequence[int], pairs: int = 0, out: str = "", progress: bool = False
    ) -> list[dict[str, Any]]:
        """The trained protocol, one fresh network a pair: how many pass T^2, and how many fail reliability."""
        numbered = [(i, a, b) for i, (a, b) in enumerate(self.pairs)]
        chosen = numbered if not pairs else numbered[:: max(1, len(numbered) // pairs)][:pairs]
        kinds: dict[str, Callable[[], nn.Module]] = {
            "HOMP, 3 layers": partial(HOMP, OUTPUTS, width=16, layers=3),
            "SMCN(0,2) distance, 1 layer": partial(_smcn, 2, "distance", 1, width=8),
        }
        data = [copy.copy(complex_) for complex_ in self.data]
        for complex_ in data:
            del complex_["distance_0_1"]
        file = Path(out) if out else None
        table = pd.DataFrame()
        with bars(quiet=not progress) as bar:
            task = bar.add_task("trained", total=len(kinds) * len(seeds) * len(chosen))
            for table in torus_protocol.trained(kinds, data, chosen, seeds, file):
                bar.update(task, completed=len(table))
        wanted = table[table["pair"].isin([i for i, _, _ in chosen])]
        return torus_protocol.summarise(wanted, list(kinds), seeds)


def _smcn(second: int, marking: Marking, layers: int, width: int = 16) -> SMCN:
    return SMCN(OUTPUTS, ranks=(0, second), width=width, layers=layers, marking=marking, reduce="mean", readout="mean")


def _print(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns, title=title, box=None)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1e}" if isinstance(value, float) and (value < 0.01 or value > 1e4) else str(value)
