"""A training step of Subgraphormer at ZINC scale: Coset against PyG's GATConv on materialised product edges.

    python benchmarks/subgraphormer.py [--pairs 7] [--threads 2] [--graphs 128]

Both sides are the same function: 128 molecules, 6 layers, width 96, 4 heads, bond features, 8 product eigenvectors,
mean absolute error, Adam. The peer is written the way PyG users would write it: the edges of the product graph and
their features are laid out in memory once (not timed), and every layer runs two ``GATConv`` on them.

What is run, each part in processes of its own:

    equal    float64, weights copied, every parameter perturbed: largest relative difference of outputs and gradients
    errors   against float64, every parameter perturbed: float32, rows of pairs in bfloat16, PyTorch's autocast, and
             float64 with weights rounded to bfloat16 once
    step     both sides in one process, taking turns: seconds a step, and the ratio of each pair
    memory   one process a side: peak resident memory, and what of it was there after imports and before the first step
    floor    the matrix products of a step alone (forward, and both gradients), on the same shapes
    growth   a step at a constant number of pairs, in few large graphs or many small ones
    sums     GNN-SSWL+, which sums instead, in float32 and in bfloat16 (not among those that are run by default)

Where the CPU has bfloat16, a third column ``bf16`` is ours with rows of pairs in it (``trainer.precision=bf16``).
Molecules are the first of ZINC-12k if the data is found, else random graphs of the same sizes.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for both sides, as the command line of Coset does

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATConv
from torch_geometric.utils import scatter

from coset import CosetError
from coset.graphs import GNNSSWLPlus, Subgraphormer
from coset.graphs.data.zinc import zinc12k
from coset.graphs.models.product import PairGraph, product_encoding
from coset.graphs.transforms import ProductPositionalEncoding, ShortestPathDistances, precompute
from coset.relations.kernels.simd import has_bfloat16
from preprocessing import molecule_like

WIDTH, LAYERS, HEADS, K = 96, 6, 4, 8


class PeerLayer(nn.Module):
    """A layer of Subgraphormer on explicit product edges, sharing the parameters of ours."""

    def __init__(self, block: nn.Module):
        super().__init__()
        internal, external, point = (block.gather[name] for name in ("uL", "vL", "vv"))
        self.edge_encoders = nn.ModuleList([internal.edge_encoder, external.edge_encoder])
        self.convs = nn.ModuleList(self._conv(attention) for attention in (internal, external))
        self.eps = point.eps
        self.psi = nn.Sequential(point.mlp.first, point.mlp.norm, nn.ReLU(), point.mlp.second)
        self.rho = nn.Sequential(block.mlp.first, block.mlp.norm, nn.ReLU(), block.mlp.second)
        self.norm = block.norm

    @staticmethod
    def _conv(attention: nn.Module) -> GATConv:
        outputs, width = attention.value.weight.shape
        conv = GATConv(width, outputs // HEADS, HEADS, edge_dim=width, fill_value="mean")
        conv.lin.weight, conv.lin_edge.weight = attention.value.weight, attention.edge.weight
        for name, key in (("att_src", "source"), ("att_dst", "target"), ("att_edge", "edge")):
            # A view would be no leaf: the peer trains parameters of its own, with the same values.
            setattr(conv, name, nn.Parameter(attention.vectors[key].detach().unsqueeze(0).clone()))
        conv.bias = attention.bias
        return conv

    def forward(self, x: Tensor, edges: list[tuple[Tensor, Tensor]], own: Tensor) -> Tensor:
        parts = [
            conv(x, index, encoder(attr).relu())
            for conv, encoder, (index, attr) in zip(self.convs, self.edge_encoders, edges, strict=True)
        ]
        parts.append(self.psi((1 + self.eps) * x + x[own]))
        return self.norm(self.rho(torch.cat(parts, dim=1))).relu()


class Peer(nn.Module):
    """The same model on explicit product edges."""

    def __init__(self, model: Subgraphormer):
        super().__init__()
        self.nodes, self.distances = model.encoder.nodes, model.encoder.distances
        self.layers = nn.ModuleList(PeerLayer(block) for block in model.layers)
        self.head = model.head

    def forward(self, product: dict[str, Any]) -> Tensor:
        x = self.nodes(product["x"])[product["node"]] + self.distances(product["distance"])
        x = torch.cat([x, product["encoding"].to(x.dtype)], dim=1)
        for layer in self.layers:
            x = layer(x, product["edges"], product["own"])
        copies = scatter(x, product["root"], dim=0, reduce="sum")
        return self.head(scatter(copies, product["graph"], dim=0, reduce="mean"))


def materialise(batch: Batch) -> dict[str, Any]:
    """Product edges with features, encodings and indices: what the peer reads."""
    graph = PairGraph.from_batch(batch)
    root, node = graph.pairs.coordinates
    edges = []
    for axis in (1, 0):
        source, target, edge = graph.internal.expand(graph.pairs, axis)
        edges.append((torch.stack([source, target]), batch.edge_attr[edge]))
    return {
        "x": batch.x,
        "node": node,
        "root": root,
        "graph": graph.nodes.batch,
        "distance": batch.pair_distance.long(),
        "encoding": product_encoding(batch, graph, K),
        "edges": edges,
        "own": graph.diagonal[node],
        "y": batch.y,
    }


def molecules(count: int, seed: int) -> tuple[str, list[Data]]:
    try:
        table = zinc12k()
        return f"first {count} of zinc12k_train.csv", encoded(table.subset("train")[:count])
    except CosetError:
        graphs = molecule_like(count, seed)
    return f"{count} random graphs of molecular sizes", dressed(graphs, seed)


def dressed(graphs: list[Data], seed: int) -> list[Data]:
    """Random atom and bond types and targets for bare graphs; bond types agree in both directions."""
    generator = torch.Generator().manual_seed(seed)
    for data in graphs:
        half = torch.randint(2, (data.num_edges // 2, 3), generator=generator)
        data.edge_attr = torch.cat([half, half])
        data.x = torch.randint(2, (data.num_nodes, 9), generator=generator)
        data.y = torch.randn(1, 1, generator=generator)
    return encoded(graphs)


def encoded(graphs: list[Data]) -> list[Data]:
    return precompute(graphs, ShortestPathDistances(), ProductPositionalEncoding(K))


def subgraphormer(seed: int = 0) -> Subgraphormer:
    torch.manual_seed(seed)
    atoms, bonds = [119, 5, 12, 12, 10, 6, 6, 2, 2], [5, 6, 2]
    return Subgraphormer(1, atoms, bonds, width=WIDTH, layers=LAYERS, heads=HEADS, positional_encoding=K)


def sums(seed: int = 0) -> GNNSSWLPlus:
    torch.manual_seed(seed)
    return GNNSSWLPlus(1, [119, 5, 12, 12, 10, 6, 6, 2, 2], [5, 6, 2], width=WIDTH, layers=LAYERS)


Stored = TypeVar("Stored", Subgraphormer, GNNSSWLPlus)


def stored(model: Stored) -> Stored:
    """The same with rows of pairs in bfloat16."""
    model.store_in_bfloat16()
    return model


def training_step(model: nn.Module, read: Any, y: Tensor) -> Callable[[], float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = (model(read) - y).abs().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def resident() -> float:
    """Peak resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def run_equal(options: argparse.Namespace) -> dict[str, float]:
    _, graphs = molecules(min(options.graphs, 16), options.seed)
    batch = Batch.from_data_list(graphs)
    model = subgraphormer()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model = model.double()
    peer = Peer(model)
    batch.laplacian_eigenvectors = batch.laplacian_eigenvectors.double()
    model(batch).abs().sum().backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    expected = peer(materialise(batch))
    expected.abs().sum().backward()
    worst = 0.0
    for block, layer in zip(model.layers, peer.layers, strict=True):
        for relation, conv in zip(("uL", "vL"), layer.convs, strict=True):
            for name, key in (("att_src", "source"), ("att_dst", "target"), ("att_edge", "edge")):
                block.gather[relation].vectors[key].grad = getattr(conv, name).grad[0]
    for name, parameter in model.named_parameters():
        if name in ours and ours[name].norm() > 1e-6:  # biases ahead of batch statistics have no gradient
            worst = max(worst, float((ours[name] - parameter.grad).norm() / ours[name].norm()))
    model.load_state_dict(state, strict=False)
    model.eval()
    peer.eval()
    with torch.no_grad():
        evaluated = float((model(batch) - peer(materialise(batch))).abs().max() / expected.abs().max())
        model.train()
        peer.train()
        trained = float((model(batch) - peer(materialise(batch))).abs().max() / expected.abs().max())
    return {"output_train": trained, "output_eval": evaluated, "gradient": worst}


def run_errors(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Relative error of the output, of all gradients taken together, and of the median parameter's gradient."""
    batch = Batch.from_data_list(molecules(min(options.graphs, 32), options.seed)[1])
    wide = copy.copy(batch)
    wide.laplacian_eigenvectors, wide.y = batch.laplacian_eigenvectors.double(), batch.y.double()
    model = subgraphormer()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    exact, d_exact = gradients(copy.deepcopy(model).double(), wide)
    largest = max(float(gradient.norm()) for gradient in d_exact.values())
    names = [name for name, gradient in d_exact.items() if gradient.norm() > 1e-7 * largest]
    cases = {"float32": (copy.deepcopy(model), batch), "bf16": (stored(copy.deepcopy(model)), batch)}
    cases |= {"autocast": (model, batch), "float64_rounded_weights": (rounded.double(), wide)}
    result = {}
    for case, given in cases.items():
        out, found = gradients(*given, autocast=case == "autocast")
        every = torch.cat([found[name].flatten() for name in names]), torch.cat([d_exact[n].flatten() for n in names])
        result[case] = {
            "output": relative(out, exact),
            "gradient": relative(*every),
            "cosine": round(float(torch.cosine_similarity(*every, dim=0)), 4),
            "median_parameter": statistics.median(relative(found[name], d_exact[name]) for name in names),
        }
    return result


def gradients(model: nn.Module, batch: Batch, autocast: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model(batch)
    out = out.to(batch.y.dtype)
    (out - batch.y).abs().mean().backward()
    return out.detach().double(), {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}


def relative(found: Tensor, wanted: Tensor) -> float:
    return float(f"{float((found - wanted).norm() / wanted.norm()):.2e}")


def run_step(options: argparse.Namespace) -> dict[str, Any]:
    name, graphs = molecules(options.graphs, options.seed)
    batch = Batch.from_data_list(graphs)
    graph = PairGraph.from_batch(batch)
    size = {"data": name, "nodes": graph.nodes.total, "edges": graph.internal.edges, "pairs": graph.pairs.total}
    return size | alternate(batch, options.pairs, clock_of(options))


def clock_of(options: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if options.cpu_seconds else time.perf_counter


def run_sums(options: argparse.Namespace) -> dict[str, Any]:
    batch = Batch.from_data_list(molecules(options.graphs, options.seed)[1])
    steps = {"float32": training_step(sums(), batch, batch.y), "bf16": training_step(stored(sums()), batch, batch.y)}
    seconds = taken_in_turns(steps, options.pairs, clock_of(options))
    ratio = round(min(seconds["float32"]) / min(seconds["bf16"]), 2)
    return {f"{name}_seconds": spread(each) for name, each in seconds.items()} | {"times_faster": ratio}


def taken_in_turns(
    steps: dict[str, Callable[[], float]], turns: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each step in each turn."""
    for _ in range(2):  # compile, allocate
        for step in steps.values():
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    return seconds


def alternate(batch: Batch, pairs: int, clock: Callable[[], float]) -> dict[str, Any]:
    steps = {"peer": training_step(Peer(subgraphormer()), materialise(batch), batch.y)}
    steps["coset"] = training_step(subgraphormer(), batch, batch.y)
    if has_bfloat16():
        steps["bf16"] = training_step(stored(subgraphormer()), batch, batch.y)
    seconds = taken_in_turns(steps, pairs, clock)
    result: dict[str, Any] = {f"{name}_seconds": spread(each) for name, each in seconds.items()}
    for name in list(seconds)[1:]:
        ratios = [p / c for p, c in zip(seconds["peer"], seconds[name], strict=True)]
        least = round(min(seconds["peer"]) / min(seconds[name]), 2)
        result["times_faster" if name == "coset" else f"{name}_times_faster"] = {
            "min_over_min": least,
            **spread(ratios),
        }
    return result


def spread(values: list[float]) -> dict[str, float]:
    return {key: round(f(values), 4) for key, f in (("min", min), ("median", statistics.median), ("max", max))}


def run_memory(options: argparse.Namespace) -> dict[str, float]:
    imports = resident()
    batch = torch.load(options.batch, weights_only=False)  # written a moment ago by this script
    if options.side != "peer":
        model, read = subgraphormer() if options.side == "coset" else stored(subgraphormer()), batch
    else:
        model, read = Peer(subgraphormer()), materialise(batch)
    step, before, seconds = training_step(model, read, batch.y), resident(), []
    for _ in range(6):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = {"peak_gb": resident(), "before_gb": before, "imports_gb": imports, "seconds_alone": min(seconds)}
    return {name: round(value, 3) for name, value in peak.items()}


def run_floor(options: argparse.Namespace) -> dict[str, Any]:
    """Matrix products of a layer on rows of pairs: [uL, vL, point, logits], psi's second, rho's two; three times each.

    Logits are folded into the first product (2 axes x 2 sides x 4 heads = 16 columns); products over nodes or edges
    of the base graph are left out, they are 25 times smaller.
    """
    _, graphs = molecules(options.graphs, options.seed)
    rows = PairGraph.from_batch(Batch.from_data_list(graphs)).pairs.total
    share = WIDTH // 3
    shapes = [(WIDTH, 2 * share + WIDTH + 4 * HEADS), (WIDTH, share), (3 * share, WIDTH), (WIDTH, WIDTH)]
    buffers = [(torch.randn(rows, i), torch.empty(rows, i), torch.empty(rows, o), torch.randn(o, i)) for i, o in shapes]
    flops = sum(6 * rows * i * o for i, o in shapes) * LAYERS
    seconds = []
    for _ in range(options.pairs + 2):
        start = time.perf_counter()
        for x, d_x, y, weight in buffers:
            for _ in range(LAYERS):
                torch.mm(x, weight.t(), out=y)
                torch.mm(y, weight, out=d_x)
                y.t() @ x
        seconds.append(time.perf_counter() - start)
    return {"gflop": round(flops / 1e9, 1), "seconds": spread(seconds[2:])}


def run_growth(options: argparse.Namespace) -> dict[str, Any]:
    result = {}
    for nodes, count in ((20, 64), (40, 16), (80, 4), (160, 1)):
        graphs = dressed([chain(nodes, seed) for seed in range(count)], options.seed)
        result[f"{count} graphs of {nodes}"] = alternate(
            Batch.from_data_list(graphs), max(3, options.pairs // 2), clock_of(options)
        )
    return result


def chain(nodes: int, seed: int) -> Data:
    """A path with a chord for every eight nodes: as sparse as a molecule, of any size."""
    generator = torch.Generator().manual_seed(seed)
    edges = {(i, i + 1) for i in range(nodes - 1)}
    while len(edges) < nodes - 1 + nodes // 8:
        a, b = sorted(torch.randint(nodes, (2,), generator=generator).tolist())
        if b - a > 1:
            edges.add((a, b))
    forward = torch.tensor(sorted(edges)).t()
    return Data(edge_index=torch.cat([forward, forward.flip(0)], dim=1), num_nodes=nodes)


def write_batch(options: argparse.Namespace) -> None:
    torch.save(Batch.from_data_list(molecules(options.graphs, options.seed)[1]), options.batch)


PARTS = {
    "batch": write_batch,
    "equal": run_equal,
    "errors": run_errors,
    "step": run_step,
    "memory": run_memory,
    "floor": run_floor,
    "growth": run_growth,
    "sums": run_sums,
}


def in_own_process(part: str, options: argparse.Namespace, *more: str) -> dict[str, Any]:
    shared = [f"--{name}={getattr(options, name)}" for name in ("pairs", "threads", "graphs", "seed")]
    shared += ["--cpu-seconds"] * options.cpu_seconds
    command = [sys.executable, __file__, f"--part={part}", *shared, *more]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="alternations of the two sides")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--graphs", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-seconds", action="store_true", help="of the process, for a machine that others use, too")
    parser.add_argument("--part", choices=PARTS, help="run one part in this process")
    parser.add_argument("--batch", help="file of the batch, for --part memory")
    parser.add_argument("--side", choices=("coset", "bf16", "peer"), default="coset", help="for --part memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.part:
        print(json.dumps(PARTS[options.part](options), indent=1))
        return
    result: dict[str, Any] = {"threads": options.threads, "graphs": options.graphs}
    result["equal"] = in_own_process("equal", options)
    result["errors"] = in_own_process("errors", options)
    result["floor"] = in_own_process("floor", options)
    result["step"] = in_own_process("step", options)
    with tempfile.TemporaryDirectory() as folder:  # reading molecules would count into the peak
        in_own_process("batch", options, f"--batch={folder}/batch.pt")
        result["memory"] = {
            side: in_own_process("memory", options, f"--side={side}", f"--batch={folder}/batch.pt")
            for side in ("coset", *["bf16"] * has_bfloat16(), "peer")
        }
    peaks = {side: part["peak_gb"] for side, part in result["memory"].items()}
    above = {side: part["peak_gb"] - part["imports_gb"] for side, part in result["memory"].items()}
    for side in peaks.keys() - {"peer"}:
        name = "times_less" if side == "coset" else f"{side}_times_less"
        result["memory"][name] = round(peaks["peer"] / peaks[side], 2)
        result["memory"][f"{name}_above_imports"] = round(above["peer"] / above[side], 2)
    best = min(result["step"]["coset_seconds"]["min"], result["memory"]["coset"]["seconds_alone"])
    result["times_floor"] = round(best / result["floor"]["seconds"]["min"], 2)
    result["growth"] = in_own_process("growth", options)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
