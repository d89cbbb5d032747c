r"""``coset bench brec``: BREC's own protocol, a network trained anew to tell each pair of graphs apart.

Wang, Zhang, "An Empirical Study of Realized GNN Expressiveness", ICML 2024 (reliable paired comparisons). Both graphs
of a pair are renumbered q = 32 times; a fresh network is trained to make the outputs of the two point in opposite
directions; then Hotelling's statistic over the q differences d of outputs decides,

    T^2 = mean(d)^T cov(d)^+ mean(d) > 72.34,

and a second one over renumberings of a single graph, which must stay below (else the verdict is unreliable).

Adam 1e-4, weight decay 1e-4, 20 epochs of batches of 16, the cosine loss with margin 0 and its early stop at 0.2 are
the benchmark's. Networks are as small as :data:`WIDTH` and :data:`LAYERS` say.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from json import JSONDecodeError, dumps, loads
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from coset.core.errors import CosetError
from coset.core.files import reason, write_text
from coset.core.outside import read_text
from coset.graphs.benches.networks import BenchNetwork, bench_networks, named_networks
from coset.graphs.data.collections import GraphPair, read_brec
from coset.graphs.transforms import precompute
from coset.runs.fit import descend
from coset.runs.terminal import Console, Table, bars
from coset.symmetry import NodePermutation

COPIES, OUTPUTS, THRESHOLD = 32, 16, 72.34
EPOCHS, BATCH, RATE, DECAY, ENOUGH = 20, 16, 1e-4, 1e-4, 0.2
WIDTH, LAYERS = 32, 5


@dataclass(frozen=True)
class PairVerdict:
    """What the protocol found on one pair.

    Attributes:
        category, index: Of the pair.
        statistic: T^2 between the graphs.
        reliability: T^2 between renumberings of one graph.
        seconds: CPU time it took.
    """

    category: str
    index: int
    statistic: float
    reliability: float
    seconds: float = 0.0

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


def train_on_pair(network: BenchNetwork, pair: GraphPair, seed: int = 0) -> PairVerdict:
    """Train a network, its weights drawn from ``seed``, on one pair and compute both statistics."""
    began = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built, transform = network.build(OUTPUTS, WIDTH, LAYERS), network.transform()
        generator = torch.Generator().manual_seed(seed)
        copies = _copies(pair.first, pair.second, transform, generator)
        _train(built, copies)
        built.eval()
        with torch.no_grad():
            statistic = hotelling(_differences(built(Batch.from_data_list(copies))))
            same = _copies(pair.first, pair.first, transform, generator)
            reliability = hotelling(_differences(built(Batch.from_data_list(same))))
    return PairVerdict(pair.category, pair.index, statistic, reliability, time.process_time() - began)


def _copies(first: Data, second: Data, transform: BaseTransform, generator: torch.Generator) -> list[Data]:
    """Renumberings of both graphs in turn, with what networks read."""
    action = NodePermutation()
    graphs = [action.apply(action.sample(g, generator), g) for _ in range(COPIES) for g in (first, second)]
    return precompute(graphs, transform)


def _differences(outputs: Float[Tensor, "rows k"]) -> Float[Tensor, "rows//2 k"]:
    return outputs[0::2] - outputs[1::2]


def _train(network: nn.Module, graphs: Sequence[Data]) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    apart = nn.CosineEmbeddingLoss(margin=0.0)
    batches = [Batch.from_data_list(list(graphs[i : i + BATCH])) for i in range(0, len(graphs), BATCH)]
    network.train()

    def loss(batch: Batch) -> Tensor:
        outputs = network(batch)
        return apart(outputs[0::2], outputs[1::2], -torch.ones(len(outputs) // 2))

    for _ in range(EPOCHS):
        total = sum(value / len(batches) for value in descend(optimizer, loss, batches))
        if total < ENOUGH:
            return
        schedule.step(total)


def read_verdicts(path: Path) -> list[tuple[dict[str, Any], PairVerdict]]:
    """What a file of verdicts holds: network, width, layers and seed of each, and the verdict.

    A last line that was cut off is taken out of the file.

    Raises:
        CosetError: The file cannot be read, or one of its lines is something else.
    """
    try:
        text = read_text(path)
        if text and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            write_text(path, text)
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "not text"
        raise CosetError(f"cannot read {path}: {why}") from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = loads(line)
            verdict = PairVerdict(**{key: row[key] for key in PairVerdict.__dataclass_fields__})
            found.append(({key: row[key] for key in ("network", "width", "layers", "seed")}, verdict))
        except (JSONDecodeError, KeyError, TypeError):
            raise CosetError(f"{path}, line {number}: not a verdict of coset bench brec") from None
    return found


class Verdicts:
    """Verdicts kept in a file of one JSON object a line, so that a bench that was cut off goes on where it stopped.

    A verdict counts for the network, its size and the seed it was found with.

    Args:
        path: The file; ``None`` keeps nothing.
        seed: Of weights and renumberings.

    Raises:
        CosetError: The file cannot be read or written, or one of its lines is something else.
    """

    def __init__(self, path: Path | None, seed: int):
        self.path = path
        self.settings = {"width": WIDTH, "layers": LAYERS, "seed": seed}
        self.known: dict[tuple[str, int], PairVerdict] = {}
        for row, verdict in read_verdicts(path) if path is not None and path.exists() else ():
            if all(row[key] == value for key, value in self.settings.items()):
                self.known[row["network"], verdict.index] = verdict

    def find(self, network: str, pair: GraphPair) -> PairVerdict:
        """The verdict on a pair: the one in the file, else by training, which then is in the file."""
        if (network, pair.index) not in self.known:
            verdict = train_on_pair(bench_networks()[network], pair, self.settings["seed"])
            self.known[network, pair.index] = verdict
            if self.path is not None:
                line = dumps({"network": network, **self.settings, **asdict(verdict)}) + "\n"
                try:
                    with self.path.open("a") as file:
                        file.write(line)
                except OSError as error:
                    raise CosetError(f"cannot write {self.path}: {reason(error)}") from None
        return self.known[network, pair.index]


def main(
    json: bool = False,
    category: str = "basic,extension",
    data: str | None = None,
    networks: str = "epnn",
    seed: int = 100,
    every: int = 1,
    out: str | None = None,
) -> None:
    """Print how many pairs each network learns to tell apart.

    Args:
        json: Print JSON with both statistics of every pair instead.
        category: Parts of BREC (comma-separated).
        data: Data directory, or the folder of BREC's files.
        networks: Names of :func:`~coset.graphs.benches.networks.bench_networks` (comma-separated), or ``all``.
        seed: Of weights and renumberings.
        every: Only every n-th pair of each part.
        out: File to which verdicts are added one by one; those in it already are not computed again.

    Raises:
        CosetError: The data is missing, or a category or a network does not exist, or the file is not one of verdicts.
    """
    names = named_networks(networks, bench_networks())
    if every < 1:
        raise CosetError(f"every={every}: at least 1")
    verdicts = Verdicts(None if out is None else Path(out), seed)
    parts = [read_brec(data, [part.strip()])[::every] for part in category.split(",")]
    pairs = [pair for part in parts for pair in part]
    found: dict[str, list[PairVerdict]] = {}
    with bars() as progress:
        for name in names:
            bar = progress.track(pairs, description=name)
            found[name] = [verdicts.find(name, pair) for pair in bar]
    if json:
        print(dumps({name: [asdict(verdict) for verdict in each] for name, each in found.items()}, indent=2))
        return
    Console().print(_table(parts, found))


def _table(parts: Sequence[Sequence[GraphPair]], found: dict[str, list[PairVerdict]]) -> Table:
    columns = [f"{part[0].category} /{len(part)}" for part in parts]
    title = "BREC pairs separated after training on each"
    table = Table("network", *columns, "unreliable", "CPU s", box=None, title=title)
    for name, verdicts in found.items():
        counts = [str(sum(v.separated for v in verdicts if v.category == part[0].category)) for part in parts]
        failures = str(sum(not v.reliable for v in verdicts))
        table.add_row(name, *counts, failures, f"{sum(v.seconds for v in verdicts):.0f}")
    return table
