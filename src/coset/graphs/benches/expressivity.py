"""Expressive power on BREC: which of its 400 pairs can be told apart, exactly by colour refinement and by networks.

Three tables. The first is exact: a refinement bounds every network that aggregates along its relations, whatever its
weights (:mod:`~coset.graphs.wl.colour_refinement`). The second asks whether the networks of this package reach their
bound: random weights, no training, float64, and two graphs count as separated if their outputs differ by more than
1e-9 of their size. Renumbered copies of the graphs go through the same network; a copy that seems different is a false
separation, and there must be none. The third has a line for every model: its bound, what it separates untrained, and
what it separated after training on each pair (:mod:`coset.graphs.benches.brec_protocol`), if the file of its verdicts
is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.transforms import BaseTransform

from coset.core.errors import CosetError
from coset.graphs.benches.brec_protocol import PairVerdict, read_verdicts
from coset.graphs.benches.networks import BenchNetwork, bench_networks, named_networks
from coset.graphs.data.collections import BREC_CATEGORIES, GraphPair, read_brec
from coset.graphs.encodings.coarsening import edges
from coset.graphs.transforms import precompute
from coset.graphs.wl.colour_refinement import FolkloreRefinement, NodeRefinement, PairRefinement, Refinement, compare
from coset.graphs.wl.distance_refinement import DistanceRefinement
from coset.graphs.wl.set_refinement import SetRefinement
from coset.runs.terminal import Console, Table, bars, dense_table
from coset.symmetry import NodePermutation

REFINEMENTS: dict[str, Refinement] = {
    "1-WL": NodeRefinement(),
    "SPD-WL": DistanceRefinement("shortest-path"),
    "RD-WL": DistanceRefinement("resistance"),
    "EPWL-A": DistanceRefinement("adjacency"),
    "EPWL-L": DistanceRefinement("laplacian"),
    "EPWL-N": DistanceRefinement("normalized"),
    "unmarked uL,vL,vv": PairRefinement(("uL", "vL", "vv"), marking="none"),
    "uL": PairRefinement(("uL",)),
    "uL,vv": PairRefinement(("uL", "vv")),
    "uL,vG": PairRefinement(("uL", "vG")),
    "uL,vL": PairRefinement(("uL", "vL")),
    "uL,vL,vv": PairRefinement(("uL", "vL", "vv")),
    "proportions uL,vL,vv": PairRefinement(("uL", "vL", "vv"), proportions=True),
    "2-FWL": FolkloreRefinement(),
}
"""Rows of the exact table; pairs (s, v) are marked with the distance of v from the root s unless the name says
otherwise."""

FOR_NETWORKS: dict[str, Refinement] = {"sets: edges": SetRefinement(edges, label="sets: edges")}
"""Bounds that take minutes on all of BREC, and are computed if a network they belong to is tried."""

OUTPUTS, WIDTH, LAYERS = 16, 32, 8


THRESHOLD = 1e-9  # relative difference of outputs that counts as one
CONSTANT = 1e-12  # relative deviation of a channel below which it is rounding
BATCH_ROWS = 100_000  # pairs (root, node) that go through a network together


@dataclass(frozen=True)
class Score:
    """One line of a table.

    Attributes:
        name: The refinement or the network.
        separated: Pairs told apart, by category.
        total: The sum of these.
        rounds: Most rounds that a separated pair took, by category (refinements only).
        seed: Seed of the weights (networks only).
        false_separations: Graphs taken for different from their own renumbered copy (networks only).
        seconds: Time it took.
    """

    name: str
    separated: dict[str, int]
    total: int
    seconds: float
    rounds: dict[str, int] | None = None
    seed: int | None = None
    false_separations: int | None = None


def score_refinement(
    name: str, refinement: Refinement, pairs: Sequence[GraphPair], advance: Callable[[int], None] = lambda done: None
) -> Score:
    """Count the pairs that a refinement separates. ``advance`` is called with the number of pairs just finished."""
    began = time.perf_counter()
    rounds: dict[str, list[int]] = {pair.category: [] for pair in pairs}
    for pair in pairs:
        found = compare(pair.first, pair.second, refinement)
        if found.separated:
            rounds[pair.category].append(found.rounds)
        advance(1)
    separated = {category: len(each) for category, each in rounds.items()}
    most = {category: max(each) for category, each in rounds.items() if each}
    return Score(name, separated, sum(separated.values()), time.perf_counter() - began, rounds=most)


@torch.no_grad()
def score_network(
    name: str,
    network: BenchNetwork,
    pairs: Sequence[GraphPair],
    seed: int = 0,
    advance: Callable[[int], None] = lambda done: None,
) -> Score:
    """Count the pairs that an untrained network in float64 separates, and its false separations.

    Args:
        name: Name of the score.
        network: What is tried, at width :data:`WIDTH` with :data:`LAYERS` layers.
        pairs: Pairs of graphs.
        seed: Seed of the weights and of the renumbered copies.
        advance: Called with the number of pairs just finished.
    """
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = network.build(OUTPUTS, WIDTH, LAYERS).double().eval()
    transform = network.transform()
    generator = torch.Generator().manual_seed(seed)
    separated = {pair.category: 0 for pair in pairs}
    mistaken = 0
    for some in _batches(pairs):
        set_norm_statistics(built, _batch(some, transform))
        first, second, copy = built(_batch(some, transform, generator)).unflatten(0, (-1, 3)).unbind(1)
        for pair, gap in zip(some, relative_gap(first, second).tolist()):
            separated[pair.category] += gap > THRESHOLD
        mistaken += int((relative_gap(second, copy) > THRESHOLD).sum())
        advance(len(some))
    seconds = time.perf_counter() - began
    return Score(name, separated, sum(separated.values()), seconds, seed=seed, false_separations=mistaken)


def relative_gap(first: Float[Tensor, "pairs k"], second: Float[Tensor, "pairs k"]) -> Float[Tensor, " pairs"]:
    """Largest difference of two rows, relative to their largest entry."""
    size = torch.maximum(first.abs().amax(-1), second.abs().amax(-1))
    return (first - second).abs().amax(-1) / size.clamp(min=torch.finfo(size.dtype).tiny)


def set_norm_statistics(network: nn.Module, batch: Batch | Tensor) -> None:
    """Give every batch norm the statistics of this batch, to be kept in evaluation.

    Without them the activations of an untrained network hardly vary and deep layers lose what shallow ones saw.
    Statistics are fixed numbers once set, so the two graphs of a pair are normalised alike. If a channel is constant
    but for rounding (regular graphs without marking, say), norms are left at mean 0 and variance 1 instead: centred,
    only rounding would remain of that channel, and grow into differences layer by layer.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    network(batch)
    constant = any(_has_constant_channel(norm) for norm in norms)
    for norm, momentum in zip(norms, momenta):
        norm.eval()
        norm.momentum = momentum
        if constant:
            norm.reset_running_stats()


def _has_constant_channel(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return bool((norm.running_var <= CONSTANT**2 * norm.running_mean.square().max()).any())


def _batches(pairs: Sequence[GraphPair]) -> Iterator[list[GraphPair]]:
    """Pairs of similar size together, each batch with a bounded number of pairs (root, node)."""
    batch: list[GraphPair] = []
    rows = 0
    for pair in sorted(pairs, key=lambda pair: pair.first.num_nodes):
        more = 3 * pair.first.num_nodes**2
        if batch and rows + more > BATCH_ROWS:
            yield batch
            batch, rows = [], 0
        batch.append(pair)
        rows += more
    if batch:
        yield batch


def _batch(pairs: Sequence[GraphPair], transform: BaseTransform, generator: torch.Generator | None = None) -> Batch:
    """Both graphs of every pair in turn; with a generator, a renumbered copy of the second one after them."""
    action = NodePermutation()
    graphs = []
    for pair in pairs:
        graphs += [pair.first, pair.second]
        if generator is not None:
            graphs.append(action.apply(action.sample(pair.second, generator), pair.second))
    return Batch.from_data_list(precompute(graphs, transform))


def score_table(scores: Sequence[Score], pairs: Sequence[GraphPair]) -> Table:
    """Categories as columns, with what the kind of score has besides: rounds, or seeds and false separations."""
    exact = any(score.rounds is not None for score in scores)
    table = dense_table()
    table.add_column("relations" if exact else "network", no_wrap=True)
    if not exact:
        table.add_column("seed", justify="right")
    for category in _categories(pairs):
        table.add_column(f"{category}\n/{sum(pair.category == category for pair in pairs)}", justify="right")
    table.add_column(f"total\n/{len(pairs)}", justify="right", style="bold")
    table.add_column("rounds" if exact else "false", justify="right")
    table.add_column("s", justify="right")
    for score in scores:
        counts = [str(score.separated[category]) for category in _categories(pairs)]
        seed = [] if exact else [str(score.seed)]
        last = str(max((score.rounds or {}).values(), default="-")) if exact else str(score.false_separations)
        table.add_row(score.name, *seed, *counts, str(score.total), last, f"{score.seconds:.0f}")
    return table


def model_table(
    exact: Sequence[Score],
    tried: Sequence[Score],
    trained: Mapping[str, Sequence[PairVerdict]],
    pairs: Sequence[GraphPair],
) -> Table:
    """A line a model. Cells read "bound/untrained/trained": the fewest of the seeds untrained, and trained "k of n"
    if only n pairs of the category were trained on."""
    bounds = {score.name: score for score in exact}
    categories = _categories(pairs)
    table = dense_table()
    table.add_column("model", no_wrap=True)
    table.add_column("bounded by", no_wrap=True)
    for category in categories:
        table.add_column(f"{category}\n/{sum(pair.category == category for pair in pairs)}", justify="right")
    table.add_column("unreliable", justify="right")
    for model, network in bench_networks().items():
        name = network.bound
        bound = bounds.get(name or "")
        runs = [score for score in tried if score.name == model]
        verdicts = trained.get(model, ())
        cells = []
        for category in categories:
            size = sum(pair.category == category for pair in pairs)
            fewest = min((score.separated[category] for score in runs), default=None)
            counts = ["-" if bound is None else str(bound.separated[category]), "-" if fewest is None else str(fewest)]
            cells.append("/".join([*counts, _trained([v for v in verdicts if v.category == category], size)]))
        failures = str(sum(not verdict.reliable for verdict in verdicts)) if verdicts else "-"
        table.add_row(model, name or "nothing", *cells, failures)
    return table


def _trained(verdicts: Sequence[PairVerdict], size: int) -> str:
    if not verdicts:
        return "-"
    count = sum(verdict.separated for verdict in verdicts)
    return str(count) if len(verdicts) == size else f"{count} of {len(verdicts)}"


def main(
    json: bool = False,
    category: str | None = None,
    data: str | None = None,
    networks: str = "subgraphormer",
    seeds: int = 3,
    trained: str | None = None,
) -> None:
    """Print the tables.

    Args:
        json: Print JSON on standard output instead.
        category: Only this part of BREC (comma-separated for several).
        data: Data directory, or the folder of BREC's files.
        networks: Which networks to try: names of
            :func:`~coset.graphs.benches.networks.bench_networks` (comma-separated), ``all`` or ``none``.
        seeds: How often to draw the weights of each network.
        trained: File of verdicts written by ``coset bench brec out=FILE``.

    Raises:
        CosetError: The data is missing, a category or a network does not exist, or ``trained`` is no such file.
    """
    verdicts = _read_trained(trained)
    chosen = _chosen_networks(networks)
    if seeds < 1:
        raise CosetError(f"seeds={seeds}: at least 1 (networks=none leaves the networks out)")
    pairs = read_brec(data, None if category is None else [name.strip() for name in category.split(",")])
    exact, tried = _run(pairs, chosen, seeds)
    if json:
        sizes = {name: sum(pair.category == name for pair in pairs) for name in _categories(pairs)}
        settings = {"layers": LAYERS, "width": WIDTH, "dtype": "float64", "threshold": THRESHOLD}
        parts = {"refinements": exact, "networks": tried}
        scores: dict[str, Any] = {part: [_without_none(asdict(s)) for s in each] for part, each in parts.items()}
        bounds = {name: network.bound for name, network in bench_networks().items()}
        scores |= {"bounds": bounds, "trained": {name: [asdict(v) for v in each] for name, each in verdicts.items()}}
        print(dumps({"collection": "BREC", "pairs": sizes, "network_settings": settings, **scores}, indent=2))
        return
    console = Console()
    console.width = max(console.width, 80)  # narrower, the counts would be cut off
    console.print("BREC pairs separated by colour refinement (exact)")
    console.print(score_table(exact, pairs))
    if tried:
        console.print(f"BREC pairs separated by untrained networks ({LAYERS} layers, width {WIDTH}, float64)")
        console.print(score_table(tried, pairs))
    console.print("Every model: pairs that its bound / the untrained network (worst seed) / the trained one separates")
    console.width = max(console.width, 132)  # a line of cells of three numbers each
    console.print(model_table(exact, tried, verdicts, pairs))


def _read_trained(path: str | None) -> dict[str, list[PairVerdict]]:
    """Verdicts by network, the last one on each pair."""
    found: dict[str, dict[int, PairVerdict]] = {}
    for row, verdict in read_verdicts(Path(path)) if path is not None else ():
        found.setdefault(row["network"], {})[verdict.index] = verdict
    return {name: list(verdicts.values()) for name, verdicts in found.items()}


def _run(
    pairs: Sequence[GraphPair], networks: Mapping[str, BenchNetwork], seeds: int
) -> tuple[list[Score], list[Score]]:
    exact, tried = [], []
    with bars(counted=True) as progress:

        def bar(label: str) -> Callable[[int], None]:
            for task in progress.task_ids:
                progress.remove_task(task)
            return partial(progress.advance, progress.add_task(label, total=len(pairs)))

        wanted = {network.bound for network in networks.values()}
        refinements = REFINEMENTS | {name: test for name, test in FOR_NETWORKS.items() if name in wanted}
        for name, refinement in refinements.items():
            exact.append(score_refinement(name, refinement, pairs, bar(name)))
        for name, network in networks.items():
            for seed in range(seeds):
                tried.append(score_network(name, network, pairs, seed, bar(f"{name}, seed {seed}")))
    return exact, tried


def _chosen_networks(networks: str) -> dict[str, BenchNetwork]:
    known = bench_networks()
    names = [] if networks == "none" else named_networks(networks, known, (n for n in known if known[n].bound))
    return {name: known[name] for name in names}


def _categories(pairs: Sequence[GraphPair]) -> list[str]:
    present = {pair.category for pair in pairs}
    return [category for category in BREC_CATEGORIES if category in present]


def _without_none(record: dict) -> dict:
    return {key: value for key, value in record.items() if value is not None}
