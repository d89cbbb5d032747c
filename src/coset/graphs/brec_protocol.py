r"""``coset bench brec``: BREC's own protocol, a network trained anew to tell each pair of graphs apart.

Wang, Zhang, "An Empirical Study of Realized GNN Expressiveness", ICML 2024 (reliable paired comparisons). Both graphs
of a pair are renumbered q = 32 times; a fresh network is trained to make the outputs of the two point in opposite
directions; then Hotelling's statistic over the q differences d of outputs decides,

    T^2 = mean(d)^T cov(d)^+ mean(d) > 72.34,

and a second one over renumberings of a single graph, which must stay below (else the verdict is unreliable).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from json import dumps

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose

from coset.errors import CosetError
from coset.graphs.collections import GraphPair, read_brec
from coset.graphs.epnn import EPNN
from coset.graphs.gin import GIN
from coset.graphs.subgraphormer import GNNSSWLPlus, Subgraphormer
from coset.graphs.transforms import Eigenspaces, ShortestPathDistances, precompute
from coset.symmetry import NodePermutation

COPIES, OUTPUTS, THRESHOLD = 32, 16, 72.34
EPOCHS, BATCH, RATE, DECAY, ENOUGH = 20, 16, 1e-4, 1e-4, 0.2
WIDTH, LAYERS = 32, 5

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "gin": lambda: GIN(OUTPUTS, width=WIDTH, layers=LAYERS),
    "epnn": lambda: EPNN(OUTPUTS, width=WIDTH, layers=LAYERS),
    "subgraphormer": lambda: Subgraphormer(OUTPUTS, width=WIDTH, layers=LAYERS),
    "gnn-sswl+": lambda: GNNSSWLPlus(OUTPUTS, width=WIDTH, layers=LAYERS),
}


@dataclass(frozen=True)
class PairVerdict:
    """What the protocol found on one pair.

    Attributes:
        category, index: Of the pair.
        statistic: T^2 between the graphs.
        reliability: T^2 between renumberings of one graph.
    """

    category: str
    index: int
    statistic: float
    reliability: float

    @property
    def reliable(self) -> bool:
        return self.reliability < THRESHOLD

    @property
    def separated(self) -> bool:
        return self.statistic > THRESHOLD and abs(self.statistic - self.reliability) > 1e-6


def hotelling(differences: Float[Tensor, "q k"]) -> float:
    """mean^T cov^+ mean, without the usual factor q, as in BREC's code."""
    mean = differences.mean(0)
    return float(mean @ torch.linalg.pinv(torch.cov(differences.T)) @ mean)


def train_on_pair(build: Callable[[], nn.Module], pair: GraphPair, seed: int = 0) -> PairVerdict:
    """Train a network, drawn from ``seed``, on one pair and compute both statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        generator = torch.Generator().manual_seed(seed)
        copies = _copies(pair.first, pair.second, generator)
        _train(network, copies)
    with torch.no_grad():
        network.eval()
        statistic = hotelling(_differences(network(Batch.from_data_list(copies))))
        same = _copies(pair.first, pair.first, generator)
        reliability = hotelling(_differences(network(Batch.from_data_list(same))))
    return PairVerdict(pair.category, pair.index, statistic, reliability)


def _copies(first: Data, second: Data, generator: torch.Generator) -> list[Data]:
    """Renumberings of both graphs in turn, with what networks read."""
    action = NodePermutation()
    graphs = [action.apply(action.sample(g, generator), g) for _ in range(COPIES) for g in (first, second)]
    return precompute(graphs, Compose([ShortestPathDistances(), Eigenspaces()]))


def _differences(outputs: Float[Tensor, "2q k"]) -> Float[Tensor, "q k"]:
    return outputs[0::2] - outputs[1::2]


def _train(network: nn.Module, graphs: Sequence[Data]) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    loss = nn.CosineEmbeddingLoss(margin=0.0)
    batches = [Batch.from_data_list(list(graphs[i : i + BATCH])) for i in range(0, len(graphs), BATCH)]
    network.train()
    for _ in range(EPOCHS):
        total = 0.0
        for batch in batches:
            optimizer.zero_grad()
            outputs = network(batch)
            value = loss(outputs[0::2], outputs[1::2], -torch.ones(len(outputs) // 2))
            value.backward()
            optimizer.step()
            total += value.item() / len(batches)
        if total < ENOUGH:
            return
        schedule.step(total)


def main(
    json: bool = False,
    category: str = "basic,extension",
    data: str | None = None,
    networks: str = "epnn",
    seed: int = 100,
    every: int = 1,
) -> None:
    """Print how many pairs each network learns to tell apart.

    Args:
        json: Print JSON with both statistics of every pair instead.
        category: Parts of BREC (comma-separated).
        data: Data directory, or the folder of BREC's files.
        networks: Names from :data:`NETWORKS` (comma-separated).
        seed: Of weights and renumberings.
        every: Only every n-th pair of each part.

    Raises:
        CosetError: The data is missing, or a category or a network does not exist.
    """
    names = [name.strip() for name in networks.split(",")]
    for name in names:
        if name not in NETWORKS:
            raise CosetError(f"no network {name!r}: choose from {', '.join(NETWORKS)}")
    if every < 1:
        raise CosetError(f"every={every}: at least 1")
    parts = [read_brec(data, [part.strip()])[::every] for part in category.split(",")]
    found: dict[str, list[PairVerdict]] = {}
    seconds: dict[str, float] = {}
    with Progress(console=Console(file=sys.stderr), transient=True) as progress:
        for name in names:
            began = time.perf_counter()
            bar = progress.add_task(name, total=sum(map(len, parts)))
            found[name] = []
            for pair in (pair for part in parts for pair in part):
                found[name].append(train_on_pair(NETWORKS[name], pair, seed))
                progress.advance(bar)
            seconds[name] = time.perf_counter() - began
    if json:
        print(dumps({name: [asdict(verdict) for verdict in verdicts] for name, verdicts in found.items()}, indent=2))
        return
    columns = [f"{part[0].category} /{len(part)}" for part in parts]
    table = Table("network", *columns, "unreliable", "s", box=None, title="BREC pairs separated after training on each")
    for name, verdicts in found.items():
        counts = [str(sum(v.separated for v in verdicts if v.category == part[0].category)) for part in parts]
        failures = str(sum(not v.reliable for v in verdicts))
        table.add_row(name, *counts, failures, f"{seconds[name]:.0f}")
    Console().print(table)
