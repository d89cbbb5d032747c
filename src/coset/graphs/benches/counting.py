"""``coset bench counting``: which networks learn to count cycles through a node, trained alike on random graphs.

The experiment of Zhang et al. (ICLR 2024, section 6) at a scale of minutes: counts of one substructure at every node,
standardised; the error is the mean absolute one on test graphs, in deviations of the test targets. Message passing
(``gin``) cannot count cycles, ``uL`` counts them up to length 4 at a node, ``uL+vL`` up to 6, and EPNN up to 7.
"""

from __future__ import annotations

import json as json_module
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from coset.core.errors import CosetError
from coset.graphs.benches.networks import BenchNetwork, bench_networks, named_networks
from coset.graphs.benches.substructures import counting_graphs
from coset.graphs.transforms import precompute
from coset.runs.fit import descend
from coset.runs.terminal import Console, Table, bars

WIDTH, LAYERS, BATCH, LEARNING_RATE = 32, 4, 32, 2e-3
USUAL = ("gin", "epnn", "uL", "uL+vL", "subgraphormer")
"""Those whose power to count is known; compared unless others are named."""

SETTINGS: dict[str, dict[str, Any]] = {"epnn": {"norm": False, "matrix": "adjacency"}, "subgraphormer": {"heads": 2}}
"""What networks have here besides width and depth."""


def counters() -> dict[str, BenchNetwork]:
    """All networks that have outputs of nodes, by name."""
    return {
        name: network.with_settings(**SETTINGS.get(name, {}))
        for name, network in bench_networks().items()
        if "node" in network.model.levels
    }


@dataclass(frozen=True)
class CountingScore:
    """Test errors of one network.

    Attributes:
        network: Its name.
        errors: Mean absolute error in deviations of the test targets, one a seed.
    """

    network: str
    errors: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.errors)

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.errors) if len(self.errors) > 1 else float("nan")


def trained_error(
    network: nn.Module,
    train: Sequence[Data],
    test: Sequence[Data],
    epochs: int,
    seed: int,
    advance: Callable[[], object] = lambda: None,
) -> float:
    """Train with Adam and a cosine schedule on the mean absolute error; the error on the test graphs after that.

    Args:
        network: Predicts one number a node.
        train: Graphs with ``y`` [nodes, 1].
        test: The same.
        epochs: Passes over the training graphs.
        seed: Of the order of the graphs.
        advance: Called after every epoch.
    """
    targets = torch.cat([graph.y for graph in train])
    mean, scale = targets.mean(), targets.std().clamp(min=1e-6)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    def loss(rows: Tensor) -> Tensor:
        batch = Batch.from_data_list([train[int(row)] for row in rows])
        return (network(batch) - (batch.y - mean) / scale).abs().mean()

    for _ in range(epochs):
        network.train()
        descend(optimizer, loss, torch.randperm(len(train), generator=generator).split(BATCH), clip=1.0)
        schedule.step()
        advance()
    predicted, true = _predictions(network, test)
    return float((predicted * scale + mean - true).abs().mean() / true.std())


@torch.no_grad()
def _predictions(network: nn.Module, graphs: Sequence[Data]) -> tuple[Tensor, Tensor]:
    network.eval()
    batches = [Batch.from_data_list(list(graphs[first : first + 64])) for first in range(0, len(graphs), 64)]
    return torch.cat([network(batch) for batch in batches]), torch.cat([batch.y for batch in batches])


def main(
    json: bool = False,
    target: str = "cycle5",
    networks: str = "usual",
    seeds: int = 1,
    epochs: int = 80,
    graphs: int = 600,
) -> None:
    """Print the table of errors.

    Args:
        json: Print JSON instead.
        target: ``cycle3``, ``cycle4``, ``cycle5``, ``cycle6`` or ``chordal4``.
        networks: Of ``coset bench expressivity`` that have outputs of nodes, comma-separated; ``usual``: those whose
            power to count is known.
        seeds: Weights, order and graphs are drawn anew for each.
        epochs: Passes over the training graphs.
        graphs: To train on; as many again, halved, to test on.

    Raises:
        CosetError: A name or a number makes no sense.
    """
    known = counters()
    chosen = list(USUAL) if networks == "usual" else named_networks(networks, known)
    for name, value, least in (("seeds", seeds, 1), ("epochs", epochs, 1), ("graphs", graphs, 4)):
        if value < least:
            raise CosetError(f"{name}={value}: at least {least}")
    errors: dict[str, list[float]] = {name: [] for name in chosen}
    with bars() as progress:
        for seed in range(seeds):
            drawn = counting_graphs(graphs + graphs // 2, (target,), seed)
            for name in chosen:
                data = precompute(drawn, known[name].transform())
                bar = progress.add_task(f"{name}, seed {seed}", total=epochs)
                torch.manual_seed(seed)
                error = trained_error(
                    known[name].build(1, WIDTH, LAYERS, "node"), data[:graphs], data[graphs:], epochs, seed,
                    partial(progress.advance, bar),
                )  # fmt: skip
                errors[name].append(error)
                progress.remove_task(bar)
    scores = [CountingScore(name, values) for name, values in errors.items()]
    settings = {"target": target, "epochs": epochs, "graphs": graphs, "width": WIDTH, "layers": LAYERS}
    if json:
        found = [asdict(score) | {"mean": score.mean} for score in scores]
        print(json_module.dumps(settings | {"networks": found}, indent=2))
        return
    table = Table("network", "error", "deviation over seeds", box=None, title=f"{target} at every node, {seeds} seeds")
    for score in scores:
        table.add_row(score.network, f"{score.mean:.4f}", f"{score.deviation:.4f}" if seeds > 1 else "–")
    Console().print(table)
