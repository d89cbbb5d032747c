"""One subcomplex layer with the edges of the bag written out, against the same layer on the product of the cells.

    python benchmarks/subcomplex_layer.py [molecules] [width]

Both compute low + inc terms of SCL(0,1) from the same weights, forward and backward; CPU seconds of one core in turn,
the best of seven. The floor is what the products of matrices of the layer take alone. Peak memory is that of a process
each, above what it has before its first step.
"""

import subprocess
import sys
import time

import torch
from torch_geometric.data import Batch

from coset.core.data_files import data_file
from coset.graphs.data import datasets
from coset.topology import SCL, CellBatch, RingLift
from coset.topology.liftings.marking import MarkPairs

RANKS = (0, 1)


def written_out(layer: SCL, x: torch.Tensor, h: list[torch.Tensor], low, inc, rows: int) -> torch.Tensor:
    """The layer on explicit edges between pairs: [source, target, bridge cell] and [source, target]."""
    linear, bridge = layer.messages["low"], layer.bridges["low"]
    weight = torch.cat([linear.weight, bridge.weight], dim=1)
    source, target, between = low
    message = (torch.cat([x[source], h[1][between]], dim=1) @ weight.T + bridge.bias).relu()
    a = x.new_zeros(rows, x.size(1)).index_add(0, target, message)
    p = x.new_zeros(rows, x.size(1)).index_add(0, inc[1], x[inc[0]])
    brought = [layer.mlps["low"](layer.own["low"](x) + a), layer.mlps["inc"](layer.own["inc"](x) + p)]
    return layer.head(torch.cat(brought, dim=1))


def bag_edges(cells: CellBatch):
    """Edges of all copies, and for the point term an edge from (x, t) to every (x, s)."""
    product = cells.pairs(*RANKS)
    relation, bridge = cells.neighbours(0, 1)
    source, target, edge = relation.expand(product, 0)
    x, t = cells.incidence(*RANKS).index
    copies = cells.cells[1].sizes[cells.cells[0].batch[x]]
    entry = torch.repeat_interleave(torch.arange(x.numel()), copies)
    within = torch.arange(entry.numel()) - (copies.cumsum(0) - copies)[entry]
    s = cells.cells[1].ptr[cells.cells[0].batch[x]][entry] + within
    return (source, target, bridge[edge]), (product.rows(x, t)[entry], product.rows(x[entry], s))


def best(functions: dict, repeats: int = 7) -> dict[str, float]:
    """Least CPU seconds of each, taken in turn."""
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.process_time()
            function()
            times[name].append(time.process_time() - started)
    return {name: min(taken) for name, taken in times.items()}


def products(rows: int, width: int):
    """The products of matrices of one layer, forward, and forward and backward."""
    x, wide = torch.randn(rows, width), torch.randn(rows, 2 * width)
    square, flat = torch.randn(width, width), torch.randn(2 * width, width)

    def forward() -> None:
        x @ flat.t(), x @ square, x @ square, x @ square, wide @ flat

    def both() -> None:
        forward()
        x.t() @ wide, x @ flat.t()  # head
        for _ in range(3):  # the three square maps
            x.t() @ x, x @ square
        wide.t() @ x, wide @ flat  # the first map of both terms

    return forward, both


class Setting:
    """A batch of molecules, a layer, features."""

    def __init__(self, molecules: int, width: int):
        torch.manual_seed(0)
        table = datasets.csv(data_file("molecules/zinc12k_val.csv"), "smiles", "penalized_logp", split=None)
        data = [MarkPairs(RANKS)(RingLift(18)(graph)) for graph in table.graphs[:molecules]]
        self.cells = CellBatch(Batch.from_data_list(data))
        self.product = self.cells.pairs(*RANKS)
        self.low, self.inc = bag_edges(self.cells)
        self.layer = SCL(width, RANKS)
        self.h = [torch.randn(index.total, width) for index in self.cells.cells]
        self.x = torch.randn(self.product.total, width, requires_grad=True)
        self.grad = torch.randn(self.product.total, width)

    def written_out(self) -> torch.Tensor:
        return written_out(self.layer, self.x, self.h, self.low, self.inc, self.product.total)

    def ours(self) -> torch.Tensor:
        return self.layer(self.x, self.h, self.cells)


def peak(key: str) -> int:
    """MiB, of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) // 1024


def memory(form: str, molecules: int, width: int) -> None:
    setting = Setting(molecules, width)
    before = peak("VmRSS")
    getattr(setting, form)().backward(setting.grad)
    print(peak("VmHWM") - before)


def main(molecules: int = 128, width: int = 70) -> None:
    setting = Setting(molecules, width)
    rows, grad = setting.product.total, setting.grad
    forms = {"written_out": setting.written_out, "ours": setting.ours}
    difference = (setting.written_out() - setting.ours()).detach().abs().max()
    print(
        f"{molecules} molecules, {rows:,} pairs, width {width}; largest difference {float(difference):.1e}", flush=True
    )
    floor, floor_both = products(rows, width)
    for function in forms.values():
        function().backward(grad)  # kernels are compiled, memory is at hand
    with torch.no_grad():
        forward = best({**forms, "products": floor})
    both = best({name: lambda f=f: f().backward(grad) for name, f in forms.items()} | {"products": floor_both})
    for name in forward:
        print(
            f"{name:12s} forward {forward[name]:.3f} s ({forward['written_out'] / forward[name]:.2f}x), "
            f"with backward {both[name]:.3f} s ({both['written_out'] / both[name]:.2f}x)",
            flush=True,
        )
    explicit = sum(t.numel() * 8 for t in (*setting.low, *setting.inc))
    relation, bridge = setting.cells.neighbours(0, 1)
    ours = sum(t.numel() * 8 for t in (relation.index, bridge, setting.cells.incidence(*RANKS).index))
    print(f"index bytes a molecule: written out {explicit / molecules:,.0f}, ours {ours / molecules:,.0f}", flush=True)
    for form in forms:
        command = [sys.executable, __file__, "memory", form, str(molecules), str(width)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(f"{form:12s} peak memory of forward and backward {found} MiB", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["memory"]:
        memory(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main(*map(int, sys.argv[1:]))
