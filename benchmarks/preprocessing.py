"""Pre-processing of a data set of molecule-like graphs: in stacks of equal size, against one graph after another.

    python benchmarks/preprocessing.py [--graphs 2000] [--repeats 5] [--threads 1] [--csv molecules.csv]

All sides end with the same attributes on every graph: distances clipped at 5 with "unreachable" told apart, and the 8
smoothest Laplacian eigenvectors. Sides take turns; minima and medians are in microseconds a graph.

    stacked       coset.graphs.transforms.precompute
    one_by_one    the same transforms, called on each graph
    loop          each graph: Floyd-Warshall (a loop over nodes, vectorised over pairs), a symmetric dense eigensolver
    loop_general  the same with the general eigensolver, as research code for this model does it
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from copy import copy

import torch
from torch_geometric.data import Data

from coset.graphs.transforms import LaplacianEigenvectors, ShortestPathDistances, precompute

DISTANCE, K = 5, 8


def molecule_like(count: int, seed: int) -> list[Data]:
    """Random trees with up to three chords: 9 to 37 nodes, 23 on average, about 50 directed edges."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.normal(23.0, 4.5, (count,), generator=generator).round().clamp(9, 37).long().tolist()
    return [_molecule_like(n, generator) for n in sizes]


def _molecule_like(n: int, generator: torch.Generator) -> Data:
    degree, edges = [0] * n, set()

    def any_of(nodes: list[int]) -> int:
        return nodes[int(torch.randint(len(nodes), (1,), generator=generator))]

    def join(first: int, second: int) -> None:
        edges.add((min(first, second), max(first, second)))
        degree[first] += 1
        degree[second] += 1

    for node in range(1, n):
        join(node, any_of([other for other in range(node) if degree[other] < 4]))
    for _ in range(3):
        first = any_of([node for node in range(n) if degree[node] < 4])
        join(first, any_of([node for node in range(n) if node != first]))
    forward = torch.tensor(sorted(edges)).t()
    return Data(x=torch.zeros(n, 1, dtype=torch.long), edge_index=torch.cat([forward, forward.flip(0)], dim=1))


def loop(data: Data, general: bool = False) -> Data:
    data = copy(data)
    n = data.num_nodes
    adjacency = torch.zeros(n, n, dtype=torch.float64)
    adjacency[data.edge_index[0], data.edge_index[1]] = 1
    distances = torch.where(adjacency > 0, 1.0, torch.inf).fill_diagonal_(0)
    for middle in range(n):
        distances = torch.minimum(distances, distances[:, middle, None] + distances[middle])
    clipped = torch.where(distances.isinf(), DISTANCE + 1, distances.clamp(max=DISTANCE))
    data.pair_distance = clipped.to(torch.uint8).flatten()
    matrix = torch.diag(adjacency.sum(1)) - adjacency
    if general:
        values, vectors = (part.real for part in torch.linalg.eig(matrix))
        order = values.argsort()
        values, vectors = values[order], vectors[:, order]
    else:
        values, vectors = torch.linalg.eigh(matrix)
    data.laplacian_eigenvalues = values[None, 1 : K + 1].float()
    data.laplacian_eigenvectors = vectors[:, 1 : K + 1].float()
    return data


def check(left: list[Data], right: list[Data]) -> None:
    for first, second in zip(left, right):
        assert torch.equal(first.pair_distance, second.pair_distance)
        have = second.laplacian_eigenvalues.size(1)
        torch.testing.assert_close(
            first.laplacian_eigenvalues[:, :have], second.laplacian_eigenvalues, rtol=0, atol=1e-5, equal_nan=True
        )


def measure(sides: dict[str, Callable[[], list[Data]]], repeats: int, graphs: int) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "min": round(min(runs) / graphs * 1e6, 1),
            "median": round(statistics.median(runs) / graphs * 1e6, 1),
            "max": round(max(runs) / graphs * 1e6, 1),
        }
        for name, runs in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", help="molecules to use instead of random graphs: a CSV with a column smiles")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.csv:
        from coset.graphs.data import datasets

        graphs = datasets.csv(options.csv, split=None).graphs[: options.graphs]
    else:
        graphs = molecule_like(options.graphs, options.seed)
    transforms = ShortestPathDistances(DISTANCE), LaplacianEigenvectors(K)
    sides: dict[str, Callable[[], list[Data]]] = {
        "stacked": lambda: precompute(graphs, *transforms),
        "one_by_one": lambda: [transforms[1](transforms[0](data)) for data in graphs],
        "loop": lambda: [loop(data) for data in graphs],
        "loop_general": lambda: [loop(data, general=True) for data in graphs],
    }
    results = {name: side() for name, side in sides.items()}  # also warms up
    for name in sides:
        check(results["stacked"], results[name])
    del results
    times = measure(sides, options.repeats, len(graphs))
    print(
        json.dumps(
            {
                "graphs": len(graphs),
                "mean_nodes": round(sum(data.num_nodes for data in graphs) / len(graphs), 1),
                "mean_edges": round(sum(data.num_edges for data in graphs) / len(graphs), 1),
                "threads": options.threads,
                "seed": None if options.csv else options.seed,
                "microseconds_per_graph": times,
                "times_faster": {
                    name: {key: round(times[name][key] / times["stacked"][key], 2) for key in ("min", "median")}
                    for name in times
                    if name != "stacked"
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
