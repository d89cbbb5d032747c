"""Which test tells two graphs apart, after how many rounds, and by what: the hierarchy of refinements on one pair.

=========  =====================================================================================================
1-WL       message passing
SPD-WL     all pairs with shortest-path distances; RD-WL with resistance distances (:mod:`.distance_refinement`)
EPWL-A     all pairs with their entries in every eigenspace projection of A; EPWL-L of D - A; EPWL-N of the
           normalised D^(-1/2) A D^(-1/2)
SWL        message passing in copies of the graph with one marked node; PSWL also sees every node's view of itself,
           GSWL all copies, SSWL the copies of neighbours. Copies are pooled over nodes first; ``-SV`` over copies first
2-FWL      pairs through all third nodes: as strong as 3-WL
=========  =====================================================================================================

Known order: 1-WL, SPD-WL < EPWL < PSWL-SV < GSWL < SSWL < 2-FWL, and SWL < PSWL < PSWL-SV; EPWL and SWL are
incomparable (Zhang et al., ICML 2023, ICML 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torch_geometric.data import Data

from coset.core.errors import CosetError
from coset.graphs.data.collections import graph_from_adjacency, parse_graph6, read_graph6
from coset.graphs.wl.colour_refinement import (
    Colours,
    FolkloreRefinement,
    NodeRefinement,
    PairRefinement,
    Refinement,
    multiset_colours,
    refine,
)
from coset.graphs.wl.distance_refinement import DistanceRefinement

TESTS: dict[str, Refinement] = {
    "1-WL": NodeRefinement(),
    "SPD-WL": DistanceRefinement("shortest-path"),
    "RD-WL": DistanceRefinement("resistance"),
    "EPWL-A": DistanceRefinement("adjacency"),
    "EPWL-L": DistanceRefinement("laplacian"),
    "EPWL-N": DistanceRefinement("normalized"),
    "SWL": PairRefinement(("uL",), marking="root"),
    "SWL-SV": PairRefinement(("vL",), marking="root"),  # the axes exchanged: rows are nodes, pooled over copies first
    "PSWL": PairRefinement(("uL", "vv"), marking="root"),
    "PSWL-SV": PairRefinement(("vL", "uu"), marking="root"),
    "GSWL": PairRefinement(("uL", "vv", "vG"), marking="root"),
    "SSWL": PairRefinement(("uL", "vv", "vL"), marking="root"),
    "2-FWL": FolkloreRefinement(),
}


@dataclass(frozen=True)
class Witness:
    """A colour that the two graphs have unequally often: nodes that hold it in the first and in the second."""

    first: tuple[int, ...]
    second: tuple[int, ...]

    def __str__(self) -> str:
        return f"{_listed(self.first)} against {_listed(self.second)}"


@dataclass(frozen=True)
class Verdict:
    """What one test said of two graphs.

    Attributes:
        test: Its name in :data:`TESTS`.
        separated: It tells them apart.
        rounds: Rounds after which it did, or after which the colours were stable.
        witness: Nodes that differ, if it did. Refinements of pairs colour a node by the row of pairs it roots.
    """

    test: str
    separated: bool
    rounds: int
    witness: Witness | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def wl_compare(first: Any, second: Any, tests: Sequence[str] | None = None) -> list[Verdict]:
    """Ask each test whether it tells two graphs apart.

    Args:
        first: PyG data, a NetworkX graph, an adjacency matrix, or a graph6 string. Directions, weights, self-loops
            and repeated edges are ignored; integer ``x`` of PyG data are node types.
        second: The other graph.
        tests: Names from :data:`TESTS`; all of them by default.

    Raises:
        CosetError: A test does not exist, or a graph cannot be read.
    """
    chosen = list(TESTS if tests is None else tests)
    for name in chosen:
        if name not in TESTS:
            raise CosetError(f"no test {name!r}: choose from {', '.join(TESTS)}")
    graphs = as_data(first), as_data(second)
    return [_verdict(name, *graphs) for name in chosen]


def wl_colours(graph: Any, test: str = "EPWL-N", rounds: int | None = None) -> Int[np.ndarray, "*shape"]:
    """Colours of the nodes [n], or of pairs [n, n], after some rounds of a test; once they are stable by default."""
    if test not in TESTS:
        raise CosetError(f"no test {test!r}: choose from {', '.join(TESTS)}")
    *_, (colours, _) = refine([as_data(graph)], TESTS[test], rounds)
    return colours[0]


def as_data(graph: Any) -> Data:
    """A graph in any of the forms that :func:`wl_compare` takes, as PyG data.

    Raises:
        CosetError: It is none of them, or malformed.
    """
    if isinstance(graph, Data):
        return graph
    if isinstance(graph, str):
        try:
            return parse_graph6(graph)
        except ValueError as error:
            raise CosetError(f"{graph!r} is no graph6 string: {error}") from None
    if hasattr(graph, "adjacency") and hasattr(graph, "nodes"):
        import networkx

        graph = networkx.to_numpy_array(graph, weight=None)
    matrix = graph.detach().cpu().numpy() if isinstance(graph, Tensor) else np.asarray(graph)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise CosetError(f"an adjacency matrix is square; got shape {tuple(matrix.shape)}")
    return graph_from_adjacency((matrix != 0) | (matrix.T != 0))


def read_one_graph(source: str | Path) -> Data:
    """The graph of a graph6 file with one line, or of a graph6 string.

    Raises:
        CosetError: The file holds no graph or several, or there is no such file and the text is no graph6.
    """
    if _is_file(source):
        graphs = read_graph6(source)
        if len(graphs) != 1:
            raise CosetError(f"{source} holds {len(graphs)} graphs: give a file with one graph6 line")
        return graphs[0]
    if Path(source).suffix:
        raise CosetError(f"{source} does not exist: give a graph6 file, or a graph6 string")
    return as_data(str(source))


def _is_file(source: str | Path) -> bool:
    """graph6 strings may be longer than any name of a file."""
    try:
        return Path(source).is_file()
    except OSError:
        return False


def _verdict(name: str, first: Data, second: Data) -> Verdict:
    rounds = -1
    for rounds, (colours, classes) in enumerate(refine([first, second], TESTS[name])):
        if classes[0] != classes[1]:
            return Verdict(name, True, rounds, _witness(colours))
    return Verdict(name, False, rounds)


def _witness(colours: Sequence[Colours]) -> Witness:
    """The rarest colour of nodes that occurs unequally often."""
    while colours[0].ndim > 1:
        colours = multiset_colours(colours)
    most = 1 + max(int(own.max(initial=-1)) for own in colours)
    counts = [np.bincount(own, minlength=most) for own in colours]
    total = np.where(counts[0] != counts[1], counts[0] + counts[1], np.iinfo(np.int64).max)
    colour = int(total.argmin())
    first, second = (tuple(np.flatnonzero(own == colour).tolist()) for own in colours)
    return Witness(first, second)


def _listed(nodes: tuple[int, ...], most: int = 6) -> str:
    if not nodes:
        return "none"
    shown = " ".join(map(str, nodes[:most]))
    return f"nodes {shown}{' ...' if len(nodes) > most else ''} ({len(nodes)})" if len(nodes) > 1 else f"node {shown}"
