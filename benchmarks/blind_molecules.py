"""Real molecules that higher-order message passing cannot tell apart, and whether subcomplex layers can.

    python benchmarks/blind_molecules.py count=20000 longest=6 features=bare

The first so many molecules of ZINC-250k (`zinc250k_rest.txt.gz`; `zinc12k_*.csv` where that is not there), lifted with
their rings of up to ``longest`` atoms as cells (coset.topology.RingLift), bare or with the atom and bond types of the
ZINC benchmark (``features=types``). Exact colour refinement puts those that HOMP cannot tell apart into one class;
of the molecules of a class that are not isomorphic (checked one by one), SMCN's pairs of ranks are asked. Counts, CPU
seconds, and the first pairs as SMILES.
"""

import itertools
import json
import sys
import time
from collections import defaultdict
from operator import eq
from typing import Any

import networkx as nx
from torch_geometric.data import Data
from torch_geometric.utils import to_networkx

from coset.core.data_files import data_file
from coset.core.errors import CosetError
from coset.core.outside import lines_of
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.data.zinc import with_types
from coset.topology import RingLift
from coset.topology.invariants.subcomplex_refinement import SubcomplexRefinement, homp_classes, subcomplex_classes

RANKS = ((0, 0), (0, 1), (0, 2), (1, 2))


def smiles_of(count: int) -> list[str]:
    try:
        return [line.strip() for line in lines_of(data_file("molecules/zinc250k_rest.txt.gz"))[:count]]
    except CosetError:
        parts = (lines_of(data_file(f"molecules/zinc12k_{part}.csv"))[1:] for part in ("train", "val", "test"))
        return [line.split(",")[0] for part in parts for line in part][:count]


def read(smiles: list[str], features: str) -> list[Data]:
    graphs = [smiles_to_data(text) for text in smiles]
    table = GraphTable(graphs, node_features=list(ATOM_SIZES), edge_features=list(BOND_SIZES))
    if features == "types":
        return with_types(table).graphs
    return [Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes) for graph in graphs]


def as_networkx(graph: Data) -> nx.Graph:
    kept = {"node_attrs": ["x"], "edge_attrs": ["edge_attr"]} if "x" in graph else {}
    return to_networkx(graph, to_undirected=True, **kept)


def alike(first: nx.Graph, second: nx.Graph) -> bool:
    return nx.is_isomorphic(first, second, node_match=eq, edge_match=eq)


def main(count: int = 20_000, longest: int = 6, features: str = "bare", show: int = 6) -> None:
    started = time.process_time()
    smiles = smiles_of(count)
    graphs = read(smiles, features)
    lift = RingLift(longest)
    complexes = [lift(graph) for graph in graphs]
    classes = homp_classes(complexes)
    members: dict[int, list[int]] = defaultdict(list)
    for number, of in enumerate(classes.tolist()):
        members[of].append(number)
    distinct, blind = 0, list[list[int]]()
    for found in members.values():
        kinds: list[tuple[int, nx.Graph]] = []
        for number in found:
            graph = as_networkx(graphs[number]) if len(found) > 1 else nx.Graph()
            if not any(alike(graph, other) for _, other in kinds):
                kinds.append((number, graph))
        distinct += len(kinds)
        if len(kinds) > 1:
            blind.append([number for number, _ in kinds])
    pairs = [pair for found in blind for pair in itertools.combinations(found, 2)]
    row: dict[str, Any] = {"molecules": len(smiles), "longest": longest, "features": features, "distinct": distinct}
    row |= {"homp_classes": len(members), "pairs": len(pairs), "smcn": {}}
    if pairs:
        used = sorted({number for pair in pairs for number in pair})
        place = {number: at for at, number in enumerate(used)}
        for ranks in RANKS:
            *_, told = subcomplex_classes([complexes[number] for number in used], SubcomplexRefinement(ranks))
            apart = sum(int(told[place[a]] != told[place[b]]) for a, b in pairs)
            row["smcn"][f"({ranks[0]}, {ranks[1]})"] = apart
    row["cpu_seconds"] = round(time.process_time() - started, 1)
    row["examples"] = [[smiles[number] for number in pair] for pair in pairs[:show]]
    print(json.dumps(row))


if __name__ == "__main__":
    given = dict(part.split("=") for part in sys.argv[1:])
    main(**{key: value if key == "features" else int(value) for key, value in given.items()})
