"""A training step of HOMP against message passing by sparse incidence matrices, and its growth with the cells.

    python benchmarks/homp_step.py [molecules] [width]

The peer follows TopoModelX: a sparse matrix a neighbourhood, multiplied onto the features by its ``Conv`` (that of the
installed ``topomodelx`` if there is one, else the same ``torch.mm``). Weights and mathematics are equal: CIN without
bridge features, 3 layers, layer norms. TopoModelX has no batches, so the peer takes complexes one at a time;
block-diagonal matrices, put together for every step, are the stronger peer. CPU seconds of one core, best of several.
"""

import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from coset.core.data_files import data_file
from coset.graphs.data import datasets
from coset.topology import CIN, CellBatch, ComplexData, HOMPLayer, RingLift, to_data
from coset.topology.data.torus import torus
from coset.topology.models.homp import CellReadout

try:
    from topomodelx.base.conv import Conv

    PEER, multiply = "TopoModelX", Conv(1, 1, with_linear_transform=False)
except ImportError:
    PEER, multiply = "torch.mm", lambda x, matrix: torch.mm(matrix, x)

LAYERS = 3
RANKS = range(3)
Matrices = list[Tensor]


class Network(nn.Module):
    """Layers and readout that both forms share."""

    def __init__(self, width: int):
        super().__init__()
        self.start = nn.ParameterList(torch.randn(1, width) for _ in RANKS)
        self.layers = nn.ModuleList(HOMPLayer(width, CIN, use_bridge=False) for _ in range(LAYERS))
        self.readout = CellReadout(width, 1, RANKS)

    def features(self, counts: Sequence[int]) -> list[Tensor]:
        return [row.expand(count, -1) for row, count in zip(self.start, counts)]

    def forward(self, cells: CellBatch) -> Tensor:
        h = self.features([index.total for index in cells.cells])
        for layer in self.layers:
            h = layer(h, cells)
        return self.readout(h, cells)

    def by_matrices(self, cells: CellBatch, matrices: Matrices) -> Tensor:
        """The same with one matrix a neighbourhood; ``cells`` only tells the readout which cells belong together."""
        h = self.features([index.total for index in cells.cells])
        for layer in self.layers:
            h, which = list(h), iter(matrices)
            for rank, convs, head in zip(layer.targets, layer.convs, layer.heads):
                brought = []
                for conv in convs:
                    total = multiply(h[conv.neighbourhood.source], next(which))
                    brought.append(conv.mlp(conv.own(h[rank]) + total))
                h[rank] = head(torch.cat(brought, dim=1))
        return self.readout(h, cells)


def matrices_of(cells: CellBatch) -> Matrices:
    """[target cells, source cells] of every neighbourhood, coalesced; cells that meet twice have a 2."""
    found = []
    for target, source, bridge in CIN:
        if bridge is None:
            relation = cells.incident(source=source, target=target).relation
        else:
            relation = cells.neighbours(target, bridge).relation
        size = (relation.target.total, relation.source.total)
        found.append(torch.sparse_coo_tensor(relation.index.flip(0), torch.ones(relation.edges), size).coalesce())
    return found


def block_diagonal(matrices: Sequence[Tensor]) -> Tensor:
    rows = torch.tensor([0, *(m.size(0) for m in matrices)]).cumsum(0)
    columns = torch.tensor([0, *(m.size(1) for m in matrices)]).cumsum(0)
    index = torch.cat([m.indices() + torch.stack([r, c])[:, None] for m, r, c in zip(matrices, rows, columns)], dim=1)
    values = torch.cat([m.values() for m in matrices])
    return torch.sparse_coo_tensor(index, values, (int(rows[-1]), int(columns[-1])), is_coalesced=True)


def best(function: Callable[[], object], seconds: float = 3.0) -> float:
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 10):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def step(network: Network, outputs: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        network.zero_grad()
        outputs().sum().backward()

    return run


def molecules(count: int, width: int) -> None:
    graphs = datasets.csv(data_file("molecules/zinc12k_val.csv"), "smiles", "penalized_logp", split=None).graphs[:count]
    data: list[ComplexData] = [RingLift(18)(graph) for graph in graphs]
    for complex_ in data:  # structure alone
        for key in set(complex_.to_dict()) - {"num_cells", "num_nodes"}:
            if "incidence" not in key:
                del complex_[key]
    network = Network(width)
    single = [CellBatch(complex_) for complex_ in data]
    stored = [matrices_of(cells) for cells in single]

    def ours() -> Tensor:
        return network(CellBatch(Batch.from_data_list(data)))

    def blocks() -> Tensor:
        joined = [block_diagonal(group) for group in zip(*stored)]
        return network.by_matrices(CellBatch(Batch.from_data_list(data)), joined)

    def one_by_one() -> Tensor:
        return torch.cat([network.by_matrices(cells, group) for cells, group in zip(single, stored)])

    expected = ours().detach()
    for form in (blocks, one_by_one):
        error = float((form().detach() - expected).abs().max() / expected.abs().max())
        print(f"{form.__name__}: relative difference {error:.1e}", flush=True)
    ours_s, blocks_s, single_s = (best(step(network, form)) for form in (ours, blocks, one_by_one))
    print(
        f"{count} molecules, width {width}, a step (batch, forward, backward): ours {ours_s:.3f} s; {PEER}, "
        f"one complex at a time {single_s:.3f} s ({single_s / ours_s:.1f}x); "
        f"block-diagonal matrices {blocks_s:.3f} s ({blocks_s / ours_s:.1f}x)",
        flush=True,
    )


def growth(width: int) -> None:
    for side in (16, 50, 158):
        data = to_data(torus(side, side))
        network, cells = Network(width), CellBatch(data)
        stored = matrices_of(cells)
        ours = best(step(network, lambda data=data, network=network: network(CellBatch(data))))
        peer = best(step(network, lambda c=cells, m=stored, network=network: network.by_matrices(c, m)))
        count = 4 * side * side
        print(
            f"one torus of {count:,} cells, width {width}: ours {ours:.3f} s, {ours / count * 1e6:.2f} us a cell; "
            f"matrices (ready made) {peer:.3f} s, {peer / count * 1e6:.2f} us a cell ({peer / ours:.1f}x)",
            flush=True,
        )


def main(count: int = 128, width: int = 64) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    molecules(count, width)
    growth(width)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
