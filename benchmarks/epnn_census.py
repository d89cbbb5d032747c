"""How many classes of small graphs each exact test tells apart, and how it fares on the Fürer pairs.

Run: python benchmarks/epnn_census.py [8]. Graphs with 5 to 7 nodes are those of the NetworkX atlas; with the argument 8
also all 12,346 with eight nodes, made from those with seven by one more node, one of each class of 2-FWL (which tells
all graphs of that size apart). Spectra are compared by their characteristic polynomials, in integers.
"""

import itertools
import sys
import time
from collections.abc import Sequence

import networkx
import numpy as np
from torch_geometric.data import Data

from coset.graphs.data.collections import graph_atlas, graph_from_adjacency
from coset.graphs.wl import TESTS, wl_compare
from coset.graphs.wl.colour_refinement import Neighbourhoods, classify, compare

COLUMNS = ("1-WL", "SPD-WL", "RD-WL", "EPWL-A", "EPWL-L", "EPWL-N")


def characteristic_polynomials(matrices: np.ndarray) -> np.ndarray:
    """Coefficients of det(x - M) for integer matrices [k, n, n], by Faddeev and LeVerrier: exact for small n."""
    n = matrices.shape[-1]
    power, coefficients = np.zeros_like(matrices), [np.ones(len(matrices), dtype=np.int64)]
    for k in range(1, n + 1):
        power = matrices @ power + coefficients[-1][:, None, None] * np.eye(n, dtype=np.int64)
        coefficients.append(-np.trace(matrices @ power, axis1=1, axis2=2) // k)
    return np.stack(coefficients, axis=1)


def spectra(graphs: Sequence[Data]) -> tuple[int, int]:
    """Numbers of different spectra of A and of L."""
    adjacency = np.stack([Neighbourhoods.of(graph).adjacency for graph in graphs]).astype(np.int64)
    laplacian = adjacency.sum(2)[:, :, None] * np.eye(adjacency.shape[1], dtype=np.int64) - adjacency
    return tuple(len(np.unique(characteristic_polynomials(m), axis=0)) for m in (adjacency, laplacian))


def one_node_more(graphs: Sequence[Data]) -> list[Data]:
    """All graphs with one more node, up to isomorphism: one of each class of 2-FWL.

    Classes are sought among graphs with equal degrees, degrees of neighbours and characteristic polynomials first.
    """
    groups: dict[bytes, list[Data]] = {}
    for graph in graphs:
        old = Neighbourhoods.of(graph).adjacency
        n = len(old)
        subsets = np.array(list(itertools.product((0, 1), repeat=n)), dtype=np.int64)
        grown = np.zeros((len(subsets), n + 1, n + 1), dtype=np.int64)
        grown[:, :n, :n], grown[:, n, :n], grown[:, :n, n] = old, subsets, subsets
        rows = np.concatenate([np.sort(_local(grown), axis=1), characteristic_polynomials(grown)], axis=1)
        for row, matrix in zip(rows, grown):
            groups.setdefault(row.tobytes(), []).append(matrix.astype(bool))
    found = []
    for group in groups.values():
        unique = [graph_from_adjacency(m) for m in {m.tobytes(): m for m in group}.values()]
        found += [unique[i] for i in np.unique(classify(unique, TESTS["2-FWL"]), return_index=True)[1]]
    return found


def _local(matrices: np.ndarray) -> np.ndarray:
    """A number a node, from its degree, those of its neighbours, and its triangles."""
    degree = matrices.sum(2)
    square = matrices @ matrices
    around = (matrices * (degree[:, None, :] ** 3)).sum(2)
    triangles = (square * matrices).sum(2)
    return (degree * 1009 + around) * 1009 + triangles


def classes(graphs: Sequence[Data], name: str, rounds: int | None = None) -> int:
    return len(set(classify(graphs, TESTS[name], rounds).tolist()))


def census(graphs: Sequence[Data], label: str) -> None:
    started = time.process_time()
    first = " ".join(f"{name} d=1 {classes(graphs, name, 1)}" for name in ("EPWL-A", "EPWL-L"))
    counts = " ".join(f"{name} {classes(graphs, name)}" for name in COLUMNS)
    by_spectrum = spectra(graphs)
    seconds = time.process_time() - started
    print(f"{label}: graphs {len(graphs)} spec(A) {by_spectrum[0]} spec(L) {by_spectrum[1]} {counts} {first} "
          f"[{seconds:.1f} s]", flush=True)  # fmt: skip


def furer(base: networkx.Graph) -> tuple[Data, Data]:
    """Nodes (x, S) for even subsets S of x's neighbours; (x, S) ~ (y, T) iff y in S equals x in T; one edge twisted."""
    nodes = [
        (x, chosen)
        for x in base
        for size in range(0, base.degree(x) + 1, 2)
        for chosen in map(frozenset, itertools.combinations(sorted(base[x]), size))
    ]
    pair = []
    for twisted in (None, next(iter(base.edges))):
        adjacency = np.zeros((len(nodes), len(nodes)), dtype=bool)
        for (i, (x, s)), (j, (y, t)) in itertools.product(enumerate(nodes), repeat=2):
            if base.has_edge(x, y):
                adjacency[i, j] = ((y in s) == (x in t)) != (twisted is not None and {x, y} == set(twisted))
        pair.append(graph_from_adjacency(adjacency))
    return pair[0], pair[1]


def bases() -> dict[str, networkx.Graph]:
    triangle = networkx.cycle_graph(3)
    net = triangle.copy()
    net.add_edges_from([(0, 3), (1, 4), (2, 5)])
    dumbbell = networkx.disjoint_union(triangle, triangle)
    dumbbell.add_edge(2, 3)
    bowtie = networkx.Graph([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)])
    square = networkx.path_graph(5)
    square.add_edges_from((i, i + 2) for i in range(3))
    sides = triangle.copy()
    for k, (u, v) in enumerate(triangle.edges):
        sides.add_edges_from([(u, 3 + k), (v, 3 + k)])
    return {
        "K4": networkx.complete_graph(4), "net": net, "dumbbell": dumbbell, "bowtie": bowtie,
        "3 triangles in a chain": _chain(3), "5 triangles in a chain": _chain(5), "square of P5": square,
        "triangle on every side": sides, "wheel W5": networkx.wheel_graph(5),
        "prism": networkx.circular_ladder_graph(3),
    }  # fmt: skip


def _chain(count: int) -> networkx.Graph:
    graph = networkx.path_graph(count + 1)
    for i in range(count):
        graph.add_edges_from([(i, count + 1 + i), (count + 1 + i, i + 1)])
    return graph


def main() -> None:
    for label, base in bases().items():
        pair = furer(base)
        depths = "/".join(str(int(compare(*pair, TESTS["EPWL-A"], d).separated)) for d in (1, 2, 3, None))
        rest = " ".join(f"{v.test} {int(v.separated)}" for v in wl_compare(*pair))
        print(f"Fürer pair of {label}: n {pair[0].num_nodes} EPWL-A d=1/2/3/stable {depths}; {rest}", flush=True)
    sized = {n: [graph for graph in graph_atlas() if graph.num_nodes == n] for n in (5, 6, 7)}
    if "8" in sys.argv[1:]:
        started = time.process_time()
        sized[8] = one_node_more(sized[7])
        print(f"graphs with 8 nodes: {len(sized[8])} [{time.process_time() - started:.1f} s]", flush=True)
    for n, graphs in sized.items():
        census(graphs, f"n={n}")
    if 8 in sized:
        census([graph for graph in sized[8] if _connected(graph)], "n=8, connected")


def _connected(graph: Data) -> bool:
    return bool((Neighbourhoods.of(graph).distances >= 0).all())


if __name__ == "__main__":
    main()
