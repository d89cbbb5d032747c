"""The implicit spectral filter against the grouped product encoder: time, peak memory, invariance in float32.

Run: python benchmarks/epnn_encoders.py [folder of BREC]. 32 random graphs with 37 nodes, 64 channels, one thread.
Times are process times; the peak memory of each encoder is measured in a process of its own, above what that process
held before the first encoding. Invariance: strongly regular graphs of BREC, renumbered; largest change of a pair
feature, relative to the largest feature.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import networkx
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from coset.graphs.data.collections import graph_from_adjacency, read_brec
from coset.graphs.encodings.spectra import eigenspace_sizes
from coset.graphs.models.spectral_encoders import ImplicitEncoder, ProductEncoder
from coset.graphs.models.spectral_filter import SpectralBatch
from coset.graphs.transforms import Eigenspaces

GRAPHS, NODES, CHANNELS, HIDDEN = 32, 37, 64, 128


class PublishedEncoder(ProductEncoder):
    """The product encoder on the whole batch at once, eigenspaces padded to the most of any graph: as published."""

    def forward(self, batch: SpectralBatch) -> Tensor:
        n = batch.vectors[0].size(0)
        spaces = [eigenspace_sizes(values) for values in batch.values.split(n)]
        most = max(map(len, spaces))
        values, entries = torch.zeros(len(spaces), most, 1), torch.zeros(len(spaces), most, n, n, 1)
        for g, (sizes, own, vectors) in enumerate(zip(spaces, batch.values.split(n), batch.vectors)):
            for m, (part, basis) in enumerate(zip(own.split(sizes), vectors.split(sizes, dim=1))):
                values[g, m], entries[g, m, ..., 0] = part.mean(), basis @ basis.mT
        there = torch.arange(most) < torch.tensor([[len(sizes)] for sizes in spaces])
        weights = (self.of_value_linear(values) + self.of_value(values).exp()) * there.unsqueeze(-1)
        return torch.einsum("bmc,bmuvc->buvc", weights, self._entries(entries)).flatten(0, 2)


ENCODERS: dict[str, Callable[[], torch.nn.Module]] = {
    "implicit": lambda: ImplicitEncoder(CHANNELS, HIDDEN),
    "product, as published": lambda: PublishedEncoder(CHANNELS, HIDDEN),
    "product, graph by graph": lambda: ProductEncoder(CHANNELS, HIDDEN, checkpointed=False),
    "product, checkpointed": lambda: ProductEncoder(CHANNELS, HIDDEN),
}


def batch() -> SpectralBatch:
    """Random trees with four more edges: as sparse as molecules."""
    graphs = []
    for seed in range(GRAPHS):
        graph = networkx.random_labeled_tree(NODES, seed=seed)
        graph.add_edges_from(list(networkx.non_edges(graph))[seed :: len(graph) * 5][:4])
        graphs.append(Eigenspaces()(graph_from_adjacency(networkx.to_numpy_array(graph) > 0)))
    return SpectralBatch.of(Batch.from_data_list(graphs), torch.float32)


def measure(name: str) -> None:
    """Print peak memory in MB (forward, and with the backward pass), then seconds of both."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, encoder = batch(), ENCODERS[name]()
    ENCODERS[name]()(_small()).sum().backward()  # libraries load before the baseline is taken
    before = _peak()
    with torch.no_grad():
        encoder(data)
    forward_memory = _peak() - before
    encoder(data).square().mean().backward()
    memory = _peak() - before

    def forward() -> None:
        with torch.no_grad():
            encoder(data)

    def both() -> None:
        encoder.zero_grad()
        encoder(data).square().mean().backward()

    print(forward_memory, memory, median(forward), median(both))


def check() -> None:
    """The three forms of the product encoder are one function."""
    torch.manual_seed(0)
    data, plain = batch(), ProductEncoder(CHANNELS, HIDDEN, checkpointed=False)
    published, light = PublishedEncoder(CHANNELS, HIDDEN), ProductEncoder(CHANNELS, HIDDEN)
    with torch.no_grad():
        expected = plain(data)
        for other in (published, light):
            other.load_state_dict(plain.state_dict())
            torch.testing.assert_close(other(data), expected, rtol=1e-4, atol=1e-6)


def median(function: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return sorted(times)[len(times) // 2]


def invariance(folder: str | None) -> dict[str, tuple[float, int]]:
    """Largest relative change under renumbering over strongly regular graphs, and how many change by over 1e-3."""
    graphs = [graph for pair in read_brec(folder, ["str"]) for graph in (pair.first, pair.second)]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    implicit, product = ImplicitEncoder(CHANNELS, HIDDEN, norm=torch.nn.Identity), ProductEncoder(CHANNELS, HIDDEN)
    found: dict[str, list[float]] = {"implicit": [], "product, grouped in float64": [], "product, float32 at 1e-6": []}
    for graph in graphs:
        order = torch.randperm(graph.num_nodes, generator=generator)
        moved = Data(edge_index=order[graph.edge_index], num_nodes=graph.num_nodes)
        spectra = [_float32_spectrum(g) for g in (graph, moved)]
        wide = [SpectralBatch.of(Eigenspaces()(g.clone()), torch.float32) for g in (graph, moved)]
        with torch.no_grad():
            found["implicit"].append(_change([implicit(_as_batch(*s)) for s in spectra], order))
            found["product, grouped in float64"].append(_change([product(b) for b in wide], order))
            grouped = [_grouped_in_float32(product, *s) for s in spectra]
            found["product, float32 at 1e-6"].append(_change(grouped, order))
    return {name: (max(values), sum(value > 1e-3 for value in values)) for name, values in found.items()}


def _float32_spectrum(graph: Data) -> tuple[Tensor, Tensor]:
    adjacency = torch.zeros(graph.num_nodes, graph.num_nodes)
    adjacency[graph.edge_index[0], graph.edge_index[1]] = 1
    scale = adjacency.sum(1).rsqrt()
    return torch.linalg.eigh(torch.eye(len(scale)) - scale.unsqueeze(1) * adjacency * scale)


def _as_batch(values: Tensor, vectors: Tensor) -> SpectralBatch:
    n, none = len(values), torch.empty(2, 0, dtype=torch.long)
    data = Data(edge_index=none, num_nodes=n, eigenvalues=values, pair_eigenvectors=vectors.flatten())
    return SpectralBatch.of(data, torch.float32)


def _grouped_in_float32(encoder: ProductEncoder, values: Tensor, vectors: Tensor) -> Tensor:
    """The published grouping: a new group where an eigenvalue is 1e-6 or more from the first of the group."""
    starts = [0]
    for i, value in enumerate(values.tolist()):
        if value - float(values[starts[-1]]) >= 1e-6:
            starts.append(i)
    ends = [*starts[1:], len(values)]
    distinct = values[starts].unsqueeze(1)
    weights = encoder.of_value_linear(distinct) + encoder.of_value(distinct).exp()
    spaces = [vectors[:, a:b] @ vectors[:, a:b].mT for a, b in zip(starts, ends)]
    return torch.einsum("mc,muvc->uvc", weights, encoder._entries(torch.stack(spaces).unsqueeze(-1))).flatten(0, 1)


def _change(features: list[Tensor], order: Tensor) -> float:
    n = len(order)
    first, moved = (rows.view(n, n, -1) for rows in features)
    return float((moved[order][:, order] - first).abs().max() / first.abs().max())


def _small() -> SpectralBatch:
    return SpectralBatch.of(
        Eigenspaces()(graph_from_adjacency(networkx.to_numpy_array(networkx.path_graph(3)) > 0)), torch.float32
    )


def _peak() -> float:
    """High-water mark of this process in MB (Linux); unlike ru_maxrss it does not start at the parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        measure(sys.argv[2])
        return
    torch.set_num_threads(1)
    check()
    print(f"{GRAPHS} graphs, {NODES} nodes, {CHANNELS} channels, float32, one thread")
    rows = {}
    for name in ENCODERS:
        run = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, check=True)
        rows[name] = [float(part) for part in run.stdout.split()]
        forward_memory, memory, forward, both = rows[name]
        print(
            f"{name}: forward {forward * 1e3:.1f} ms, {forward_memory:.0f} MB; "
            f"with backward {both * 1e3:.1f} ms, {memory:.0f} MB"
        )
    for name in list(ENCODERS)[1:]:
        a, b = rows[name], rows["implicit"]
        print(
            f"{name} / implicit: time {a[2] / b[2]:.1f} x forward, {a[3] / b[3]:.1f} x with backward; "
            f"memory {a[0] / b[0]:.1f} x forward, {a[1] / b[1]:.1f} x with backward"
        )
    for name, (largest, many) in invariance(sys.argv[1] if len(sys.argv) > 1 else None).items():
        print(f"{name}: largest relative change {largest:.1e}, over 1e-3 for {many} of 100 graphs")


if __name__ == "__main__":
    main()
