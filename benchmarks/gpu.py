"""Training steps on a GPU: Coset's Triton kernels against its plain path, and against PyG with products written down.

    python benchmarks/gpu.py [--graphs 128] [--seconds 6] [--json gpu.json]
    python benchmarks/gpu.py --interpret                  # the first part alone, on a CPU, through Triton's interpreter

Without a GPU it says so and measures nothing. With one, in under eight minutes:

1. equality: outputs and gradients of all parameters, by Triton and by plain PyTorch on the GPU, in float64 and float32,
   against the reference in float64 on the CPU. It ends with 1 if float64 differs by more than 1e-9.
2. steps (forward, backward, Adam) of Subgraphormer, GNN-SSWL+, CS-GNN (a set a node) and SMCN(0, 1), float32, 6 layers
   of width 96: seconds, peak memory above what was held before the step, bytes of it a pair, operations of PyTorch (as
   a dispatch mode counts them) and synchronisations (as ``torch.cuda.set_sync_debug_mode`` warns of them) a step.

``triton`` is what runs by default, ``plain`` the same without kernels (the product's edges as indices), ``pyg`` GATConv
and GINEConv on explicit product edges with their features (those of subgraphormer.py, csgnn_step.py and
subcomplex_layer.py). The structure of the batch was worked out before on all sides. Molecules are the first of ZINC-12k
if the data is found, else random graphs of the same sizes.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__" and "--interpret" in sys.argv:  # settled when kernels are imported
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch, Data

import csgnn_step
import subcomplex_layer
import subgraphormer
from coset.graphs import CSGNN, GNNSSWLPlus, Subgraphormer
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES
from coset.relations import use_kernels
from coset.relations.structure import KEY
from coset.topology import SMCN, CellBatch, RingLift
from coset.topology.liftings.marking import MarkPairs

RANKS = (0, 1)
NETWORKS = ("Subgraphormer", "GNN-SSWL+", "CS-GNN", "SMCN")
WAYS = {"triton": True, "plain": False, "pyg": False}
BOUND = 1e-9  # of relative differences in float64


def network(name: str, width: int, layers: int) -> nn.Module:
    torch.manual_seed(0)
    if name == "SMCN":  # of the structure alone
        return SMCN(1, (None, None, None), ranks=RANKS, width=width, layers=layers)
    if name == "Subgraphormer":
        return Subgraphormer(1, ATOM_SIZES, BOND_SIZES, width=width, layers=layers, positional_encoding=8)
    return {"GNN-SSWL+": GNNSSWLPlus, "CS-GNN": CSGNN}[name](1, ATOM_SIZES, BOND_SIZES, width=width, layers=layers)


def batch_for(name: str, graphs: list[Data]) -> Batch:
    if name == "SMCN":
        graphs = [MarkPairs(RANKS)(RingLift(18)(graph)) for graph in graphs]
    return Batch.from_data_list(graphs)


def pairs_of(name: str, batch: Batch) -> int:
    if name == "SMCN":
        return CellBatch(batch).pairs(*RANKS).total
    return int(batch.ptr.diff().square().sum())  # CS-GNN, too: every node is a set


class WrittenOut(nn.Module):
    """A layer of SMCN on the edges of the bag."""

    def __init__(self, layer: nn.Module, edges: tuple[tuple[Tensor, ...], ...]):
        super().__init__()
        self.layer, self.edges = layer, edges

    def forward(self, x: Tensor, h: list[Tensor], cells: CellBatch) -> Tensor:
        return subcomplex_layer.written_out(self.layer, x, h, *self.edges, x.size(0))


def peer(name: str, model: nn.Module, batch: Batch, device: str) -> tuple[nn.Module, Any]:
    """The network on products written down, and what it reads."""
    if name == "Subgraphormer":
        product = subgraphormer.materialise(batch)
        edges = [tuple(part.to(device) for part in each) for each in product.pop("edges")]
        return subgraphormer.Peer(model).to(device), {k: v.to(device) for k, v in product.items()} | {"edges": edges}
    if name != "SMCN":
        return csgnn_step.Peer(model.to(device), batch.to(device)), batch.to(device)
    edges = tuple(tuple(part.to(device) for part in each) for each in subcomplex_layer.bag_edges(CellBatch(batch)))
    model = copy.deepcopy(model).to(device)
    model.layers = nn.ModuleList(WrittenOut(layer, edges) for layer in model.layers)
    return model, batch.to(device)


def result(model: nn.Module, batch: Batch, kernels: Any) -> list[Tensor]:
    """Outputs, and gradients of the sum of their squares by every parameter that has one, as float64 on the CPU."""
    with use_kernels(kernels):
        out = model(batch)
        gradients = torch.autograd.grad(out.square().sum(), [*model.parameters()], allow_unused=True)
    return [part.detach().double().cpu() for part in (out, *gradients) if part is not None]


def difference(found: list[Tensor], wanted: list[Tensor]) -> tuple[float, float]:
    """Relative, of the outputs; and of all gradients together."""
    apart = [(a - b).norm() for a, b in zip(found, wanted, strict=True)]
    sizes = [b.norm() for b in wanted]
    return float(apart[0] / sizes[0]), float(torch.stack(apart[1:]).norm() / torch.stack(sizes[1:]).norm())


def equality(
    names: tuple[str, ...], graphs: list[Data], device: str, ways: dict[str, Any], width: int, layers: int,
    precisions: tuple[torch.dtype, ...] = (torch.float64, torch.float32),
) -> dict[str, Any]:  # fmt: skip
    """Differences from the reference in float64 on the CPU, by network, way and precision: of outputs, of gradients."""
    found: dict[str, Any] = {}
    for name in names:
        batch = _in(batch_for(name, graphs), torch.float64)
        exact = network(name, width, layers).double()
        wanted = result(exact, batch, False)
        for way, kernels in ways.items():
            for dtype in precisions:
                model = copy.deepcopy(exact).to(device, dtype)
                own = result(model, _in(batch, dtype).to(device), kernels)
                found[f"{name} {way} {dtype}".replace("torch.", "")] = difference(own, wanted)
    return found


def _in(batch: Batch, dtype: torch.dtype) -> Batch:
    batch = batch.clone()
    return batch.apply(lambda part: part.to(dtype) if part.is_floating_point() else part)


class Count(TorchDispatchMode):
    """Operations of PyTorch, as they reach the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def step_of(model: nn.Module, read: Any, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (model(read) - y).abs().mean().backward()
        optimizer.step()

    return step


@contextmanager
def _warnings_of_synchronisations() -> Iterator[list[Any]]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode(before)


def measure(step: Callable[[], None], pairs: int, seconds: float) -> dict[str, float]:
    for _ in range(3):  # compiles, allocates
        step()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < until and len(times) < 50):
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() - held
    with Count() as count:
        step()
    with _warnings_of_synchronisations() as caught:
        step()
    return {
        "ms_min": 1e3 * min(times),
        "ms_median": 1e3 * statistics.median(times),
        "peak_mb": peak / 1e6,
        "bytes_a_pair": peak / pairs,
        "operations": count.operations,
        "synchronisations": sum("synchroniz" in str(each.message) for each in caught),
    }


def steps(graphs: list[Data], seconds: float, width: int = 96, layers: int = 6) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in NETWORKS:
        batch = batch_for(name, graphs)
        pairs = pairs_of(name, batch)
        for way, kernels in WAYS.items():
            model, read = network(name, width, layers), batch.clone()
            if way == "pyg":
                model, read = peer(name, model, read, "cuda")
            else:
                read[KEY] = model.structure(read)  # as the loader does
                model, read = model.to("cuda"), read.to("cuda")
            step = step_of(model, read, batch.y.to("cuda"))
            try:
                with use_kernels(kernels):
                    found[f"{name} {way}"] = {"pairs": pairs, **measure(step, pairs, seconds)}
            except torch.cuda.OutOfMemoryError:
                found[f"{name} {way}"] = {"pairs": pairs, "out_of_memory": True}
            print(row(f"{name} {way}", found[f"{name} {way}"]), flush=True)
            del model, read, step
            torch.cuda.empty_cache()
    return found


COLUMNS = ("pairs", "ms_min", "ms_median", "peak_mb", "bytes_a_pair", "operations", "synchronisations")


def row(name: str, values: dict[str, float]) -> str:
    cells = (f"{values[key]:,.1f}" if key in values else "out of memory" for key in COLUMNS)
    return f"| {name} | " + " | ".join(cells) + " |"


def report_equality(found: dict[str, Any]) -> bool:
    """Print differences; whether those of float64 are within bounds."""
    print("| against the reference in float64 | outputs differ by | gradients by |\n| --- | --- | --- |")
    for name, (outputs, gradients) in found.items():
        print(f"| {name} | {outputs:.1e} | {gradients:.1e} |", flush=True)
    return all(max(pair) < BOUND for name, pair in found.items() if name.endswith("float64"))


def interpreted(names: tuple[str, ...] = NETWORKS, nodes: int = 4) -> dict[str, Any]:
    """The equality part on a CPU: two small rings, one layer, through Triton's interpreter."""
    graphs = subgraphormer.dressed([subgraphormer.chain(n, n) for n in (nodes, nodes - 1)], 0)
    return equality(names, graphs, "cpu", {"triton": "triton"}, 12, 1, (torch.float64,))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=128, help="molecules of a batch")
    parser.add_argument("--seconds", type=float, default=6, help="to time each step for")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="file of the results")
    parser.add_argument("--interpret", action="store_true", help="equality alone, on a CPU")
    options = parser.parse_args(arguments)
    if options.interpret:
        return 0 if report_equality(interpreted()) else 1
    if not torch.cuda.is_available():
        print("not measured: no GPU")
        return 0
    torch.backends.cuda.matmul.allow_tf32 = False
    source, graphs = subgraphormer.molecules(options.graphs, 0)
    differences = equality(NETWORKS, graphs[:6], "cuda", {"triton": True, "plain": False}, 24, 2)
    equal = report_equality(differences)
    print("\n| step | " + " | ".join(COLUMNS) + " |\n" + "| --- " * (len(COLUMNS) + 1) + "|")
    found = steps(graphs, options.seconds)
    name = torch.cuda.get_device_name()
    print(f"\n{source}; {name}; PyTorch {torch.__version__}; equal in float64: {'yes' if equal else 'NO'}")
    options.json.write_text(
        json.dumps({"device": name, "data": source, "equality": differences, "steps": found}, indent=1)
    )
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
