"""Liftings of molecules against TopoNetX, and what the time per molecule is made of.

    python benchmarks/liftings.py [molecules] [repeats]

Both start from the same PyG graphs and end with the complex and its incidence matrices; TopoNetX goes through networkx,
as its own transforms and the benchmarks built on it do. The cells are compared one by one. CPU seconds, best of the
repeats; nothing is remembered between them.
"""

import sys
import time

import networkx as nx
import torch
from torch_geometric.utils import to_networkx

from coset.graphs.data.zinc import zinc12k
from coset.topology import CliqueLift, RingLift, to_data


def rings_of_toponetx(graph, longest: int, induced: bool):
    """networkx finds the cycles, ``CellComplex`` takes them."""
    import toponetx as tnx

    bare = to_networkx(graph, to_undirected=True)
    find = nx.chordless_cycles if induced else nx.simple_cycles
    complex_ = tnx.CellComplex(bare)
    distinct: dict[frozenset, list] = {}
    for cycle in find(bare, length_bound=longest):
        distinct.setdefault(frozenset(cycle), cycle)
    complex_.add_cells_from(list(distinct.values()), rank=2)
    return complex_


def cliques_of_toponetx(graph):
    import toponetx as tnx

    return tnx.transform.graph_to_clique_complex(to_networkx(graph, to_undirected=True), max_rank=2)


def cell_sets(complex_) -> set[frozenset]:
    import toponetx as tnx

    if isinstance(complex_, tnx.CellComplex):
        return {frozenset(cell.elements) for cell in complex_.cells}
    return {frozenset(s) for s in complex_.skeleton(2)} if complex_.dim >= 2 else set()


def incidences(complex_) -> None:
    for rank in range(1, complex_.dim + 1):
        complex_.incidence_matrix(rank)


def best(function, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def main(molecules: int = 1000, repeats: int = 2) -> None:
    torch.set_num_threads(1)
    graphs = zinc12k(None).subset("val")[:molecules]
    bare = [type(graph)(edge_index=graph.edge_index, num_nodes=graph.num_nodes) for graph in graphs]
    kinds = {
        "rings <= 18, simple": (lambda: RingLift(18), lambda g: rings_of_toponetx(g, 18, False)),
        "rings <= 6, induced": (lambda: RingLift(6, "induced"), lambda g: rings_of_toponetx(g, 6, True)),
        "triangles": (CliqueLift, cliques_of_toponetx),
    }
    for make, _ in kinds.values():
        make()(bare[0])  # compile
    print(f"{len(bare)} molecules; CPU seconds: cells alone | with incidence (a PyG data object, sparse matrices)")
    for name, (make, theirs) in kinds.items():
        compare(name, make, theirs, bare, repeats)


def compare(name: str, make, theirs, graphs, repeats: int) -> None:
    cells = [make().complex(graph) for graph in graphs]
    equal = sum({frozenset(c) for c in a.cells[2]} == cell_sets(theirs(g)) for a, g in zip(cells, graphs))

    def lift() -> None:
        new = make()
        for graph in graphs:
            new.complex(graph)

    def lift_whole() -> None:
        new = make()
        for graph in graphs:
            to_data(new.complex(graph), ranks=3)

    ours, whole = best(lift, repeats), best(lift_whole, repeats)
    peer = best(lambda: [theirs(g) for g in graphs], 1)
    peer_whole = best(lambda: [incidences(theirs(g)) for g in graphs], 1)
    known = make()
    again = best(lambda: [known.complex(g) for g in graphs], 2)
    print(
        f"{name:22s} {sum(len(c.cells[2]) for c in cells):6d} cells of rank 2, equal in {equal} of {len(graphs)}: "
        f"{ours:.3f} against {peer:.2f} ({peer / ours:.0f}x) | {whole:.3f} against {peer_whole:.2f} "
        f"({peer_whole / whole:.0f}x); seen before {again:.4f}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
