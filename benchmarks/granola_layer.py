"""A training step of the GRANOLA layer against the same mathematics in the ordinary way, and against batch norm.

Run: python benchmarks/granola_layer.py. 3,000 nodes in graphs of 24, 6,500 edges, 64 channels, inner depth 2, one
thread; CPU seconds of a forward and backward pass, the forms in turn in one process (median of 25), peak memory in
processes of their own. *naive* is written from PyG's parts: features and noise concatenated, ``GINConv``, two heads,
statistics by hand; with the same weights it gives the same outputs but for rounding, which is checked first.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINConv

from coset.graphs import GranolaNorm
from coset.relations import IndexSet, Relation

NODES, SIZE, EDGES, CHANNELS, DEPTH, REPEATS = 3000, 24, 6500, 64, 2, 25


class Naive(nn.Module):
    """GRANOLA as its equations are written."""

    def __init__(self, channels: int, depth: int):
        super().__init__()
        widths = [2 * channels] + [channels] * (depth - 1)
        self.convs = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(w, channels), nn.ReLU(), nn.Linear(channels, channels)), train_eps=True)
            for w in widths
        )
        self.f1, self.f2 = (
            nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels)) for _ in range(2)
        )

    def forward(self, x: Tensor, edge_index: Tensor, noise: Tensor | None = None) -> Tensor:
        noise = torch.randn_like(x) if noise is None else noise
        z = torch.cat([x, noise], dim=1)
        for number, conv in enumerate(self.convs):
            z = conv(z, edge_index)
            z = z.relu() if number + 1 < len(self.convs) else z
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).square().mean(1, keepdim=True)
        return self.f1(z) * (x - mean) / (variance + 1e-5).sqrt() + self.f2(z)

    @torch.no_grad()
    def like(self, norm: GranolaNorm) -> "Naive":
        """The weights of our layer."""
        assert norm.noise is not None
        for number, conv in enumerate(self.convs):
            first = norm.first[number].weight
            conv.nn[0].weight.copy_(torch.cat([first, norm.noise.weight], 1) if number == 0 else first)
            conv.nn[0].bias.copy_(norm.first[number].bias)
            conv.nn[2].load_state_dict(norm.second[number].state_dict())
        for part, head, rows in (
            (self.f1, norm.scale, slice(0, CHANNELS)),
            (self.f2, norm.shift, slice(CHANNELS, None)),
        ):
            part[0].weight.copy_(norm.hidden.weight[rows])
            part[0].bias.copy_(norm.hidden.bias[rows])
            part[2].load_state_dict(head.state_dict())
        return self


def setup(count: int = NODES) -> tuple[Tensor, Tensor, Relation]:
    """Features, edges, and these as a relation, of about ``count`` nodes."""
    torch.manual_seed(0)
    nodes = IndexSet(torch.full((count // SIZE,), SIZE))
    number = count * EDGES // NODES
    target = torch.randint(0, nodes.total, (number,))
    edges = torch.stack([target // SIZE * SIZE + torch.randint(0, SIZE, (number,)), target])
    return torch.randn(nodes.total, CHANNELS), edges, Relation(nodes, nodes, edges)


def forms() -> dict[str, tuple[nn.Module, tuple]]:
    _, edges, relation = setup()
    ours = GranolaNorm(CHANNELS, depth=DEPTH, init="paper")
    return {
        "ours": (ours, (relation,)),
        "ours, no noise": (GranolaNorm(CHANNELS, depth=DEPTH, init="paper", noise_channels=0), (relation,)),
        "ours, 8 columns of noise": (GranolaNorm(CHANNELS, depth=DEPTH, init="paper", noise_channels=8), (relation,)),
        "naive": (Naive(CHANNELS, DEPTH).like(ours), (edges,)),
        "batch norm": (nn.BatchNorm1d(CHANNELS), ()),
    }


def step(module: nn.Module, x: Tensor, arguments: tuple) -> None:
    module(x, *arguments).square().mean().backward()


def seconds() -> dict[str, float]:
    """CPU seconds of a step of each form, taken in turn: what slows the machine down slows all."""
    torch.set_num_threads(1)
    x, made = setup()[0].requires_grad_(), forms()
    times: dict[str, list[float]] = {name: [] for name in made}
    for repeat in range(3 + REPEATS):  # the first ones load libraries and compile kernels
        for name, (module, arguments) in made.items():
            started = time.process_time()
            step(module, x, arguments)
            if repeat >= 3:
                times[name].append(time.process_time() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def memory(name: str) -> float:
    """MB that a step takes at its peak."""
    torch.set_num_threads(1)
    module, arguments = forms()[name]
    x = setup()[0].requires_grad_()
    step(module, x[:48], tuple(_first(a) for a in arguments))
    before = _peak()
    for _ in range(3):
        step(module, x, arguments)
    return _peak() - before


def _first(edges: Tensor | Relation) -> Tensor | Relation:
    """The edges among the first 48 nodes."""
    index = edges if isinstance(edges, Tensor) else edges.index
    index = index[:, index.amax(0) < 48]
    nodes = IndexSet(torch.tensor([24, 24]))
    return index if isinstance(edges, Tensor) else Relation(nodes, nodes, index)


def _peak() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def check() -> None:
    """Both forms agree in float64."""
    x, edges, relation = setup()
    module, _ = forms()["ours"]
    noise = torch.randn(len(x), CHANNELS, dtype=torch.float64)
    plain = Naive(CHANNELS, DEPTH).double().like(module.double())
    ours = module(x.double(), relation, noise=noise)
    torch.testing.assert_close(ours, plain(x.double(), edges, noise), rtol=0, atol=1e-10)


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--memory":
        print(memory(sys.argv[2]))
        return
    check()
    time_of, memory_of = seconds(), {}
    for name in time_of:
        run = subprocess.run([sys.executable, __file__, "--memory", name], capture_output=True, text=True, check=True)
        memory_of[name] = float(run.stdout)
        print(f"{name}: {time_of[name] * 1e3:.2f} ms, {memory_of[name]:.1f} MB", flush=True)
    for other in ("naive", "batch norm"):
        ratios = [found[other] / found["ours"] for found in (time_of, memory_of)]
        print(f"{other} / ours: time {ratios[0]:.2f}, memory {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
