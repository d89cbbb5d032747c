"""Time of a training step with fixed entries or fixed gates, as a multiple of the standard network's.

Run: python benchmarks/asymmetric_layers.py. Process time of forward, backward and AdamW, one thread, networks taking
turns; medians and least of the ratios of neighbouring steps.
"""

import statistics
import time

import torch
from torch import nn

from coset.weights.asymmetric.asymmetrize import asymmetrize
from coset.weights.asymmetric.networks import mlp

WIDTHS = {"784-512-512-512-10": (784, 512, 512, 512, 10), "64-128-128-128-10": (64, 128, 128, 128, 10)}
BATCH, STEPS = 128, 60


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    started = time.process_time()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    return time.process_time() - started


def main() -> None:
    torch.set_num_threads(1)
    for name, widths in WIDTHS.items():
        torch.manual_seed(0)
        models = {
            "standard": mlp(widths),
            "W": asymmetrize(mlp(widths), method="w", n_fix=8, kappa=1.0, seed=0),
            "sigma": asymmetrize(mlp(widths), method="sigma", seed=0, example=(torch.randn(2, widths[0]),)),
        }
        optimizers = {kind: torch.optim.AdamW(model.parameters()) for kind, model in models.items()}
        x, y = torch.randn(BATCH, widths[0]), torch.randint(10, (BATCH,))
        rows = [{kind: step(models[kind], optimizers[kind], x, y) for kind in models} for _ in range(STEPS + 5)][5:]
        print(f"{name}: standard {1e3 * statistics.median(row['standard'] for row in rows):.2f} ms a step of {BATCH}")
        for kind in ("W", "sigma"):
            ratios = [row[kind] / row["standard"] for row in rows]
            least = min(row[kind] for row in rows) / min(row["standard"] for row in rows)
            print(f"  {kind}: median {statistics.median(ratios):.2f}x, least over least {least:.2f}x")


if __name__ == "__main__":
    main()
