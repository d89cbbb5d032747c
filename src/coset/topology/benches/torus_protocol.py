r"""The trained protocol of the torus benchmark, many pairs at a time.

Per pair a fresh network: 20 steps of Adam on the cosine embedding loss (label -1, margin 0) between 32 renumbered
copies of each of the two complexes; then in evaluation mode, on 32 fresh copies,

    D_i = f(P_i X) - f(Q_i X'),   T^2 = mean(D)^T (Cov(D) + 1e-7 I)^+ mean(D) > 72.34,

and the same with X against itself must stay below (Wang and Zhang, "An Empirical Study of Realized GNN Expressiveness",
ICML 2024; Eitan et al., ICLR 2025).

:func:`scores_one_by_one` does just that. :func:`scores_together` computes the same faster: the networks do not see how
cells are numbered, so the loss of 32 copies is that of one, and one is trained on; and pairs of equally many cells
train side by side. Copies that are judged on are 32 as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch

from coset.core.errors import CosetError
from coset.core.files import write_text
from coset.core.outside import read_numbers
from coset.runs.fit import descend
from coset.topology.benches.side_by_side import side_by_side
from coset.topology.data.batches import CellBatch, ComplexData, disjoint_copies
from coset.topology.data.permutations import CellPermutation

COPIES, STEPS, RATE, THRESHOLD = 32, 20, 5e-4, 72.34
AT_ONCE = 32  # pairs that train side by side
PART = 4  # copies that are judged at once
KEY = ["network", "seed", "pair"]
COLUMNS = [*KEY, "T2", "reliability", "cpu_seconds"]

Make = Callable[[], nn.Module]
Pair = tuple[ComplexData, ComplexData]


class Scores(NamedTuple):
    """T^2 of a pair after training on it, and of its first complex against itself."""

    apart: float
    same: float


def hotelling(difference: Float[Tensor, "copies outputs"]) -> float:
    """T^2 = mean(D)^T (Cov(D) + 1e-7 I)^+ mean(D), in float64."""
    difference = difference.double()
    mean = difference.mean(0)
    covariance = torch.cov(difference.T).reshape(mean.numel(), mean.numel())
    regular = covariance + 1e-7 * torch.eye(mean.numel(), dtype=torch.float64)
    return float(mean @ torch.linalg.pinv(regular) @ mean)


def scores_one_by_one(make: Make, pair: Pair, seed: int, copies: int = COPIES, steps: int = STEPS) -> Scores:
    """The protocol to the letter, on one pair."""
    first, second = pair
    generator = torch.Generator().manual_seed(seed)
    model = fresh(make, seed)
    _train(model, renumbered((first, second), copies, generator), (2, copies), steps)
    with torch.no_grad():
        out = model.eval()(renumbered((first, second, first), copies, generator))
    one, other, same = out.split(copies)
    return Scores(hotelling(one - other), hotelling(one - same))


def scores_together(
    make: Make, pairs: Sequence[Pair], seed: int, copies: int = COPIES, steps: int = STEPS
) -> list[Scores]:
    """The protocol on pairs of equally many cells of each rank, a network each."""
    generator = torch.Generator().manual_seed(seed)
    model = side_by_side(fresh(make, seed), len(pairs))
    _train(model, renumbered([data for pair in pairs for data in pair], 1, generator), (len(pairs), 2, 1), steps)
    judged = [data for first, second in pairs for data in (first, second, first)]
    with torch.no_grad():
        parts = [
            model.eval()(renumbered(judged, PART, generator)).unflatten(0, (len(pairs), 3, PART))
            for _ in range(0, copies, PART)
        ]
    one, other, same = torch.cat(parts, dim=2).unbind(1)
    return [Scores(hotelling(a), hotelling(b)) for a, b in zip(one - other, one - same)]


def fresh(make: Make, seed: int) -> nn.Module:
    """A network whose weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def renumbered(complexes: Sequence[ComplexData], copies: int, generator: torch.Generator) -> CellBatch:
    """Every complex several times in a row, each time with the cells of each rank renumbered."""
    batch = Batch.from_data_list([disjoint_copies(data, copies) for data in complexes])
    action = CellPermutation()
    return CellBatch(action.apply(action.sample(batch, generator), batch))


def _train(model: nn.Module, cells: CellBatch, shape: tuple[int, ...], steps: int) -> None:
    """Push the outputs of the two complexes of each pair apart; ``shape`` is ([pairs,] 2, copies)."""
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    model.train()

    def loss(_: int) -> Tensor:
        first, second = model(cells).unflatten(0, shape).unbind(-3)
        first, second = first.flatten(0, -2), second.flatten(0, -2)
        # A mean over the copies of a pair, a sum over pairs: networks share no weights, so each has its own gradient.
        total = F.cosine_embedding_loss(first, second, first.new_full((len(first),), -1.0), reduction="sum")
        return total / shape[-1]

    descend(optimiser, loss, range(steps))


def trained(
    kinds: dict[str, Make],
    data: Sequence[ComplexData],
    pairs: Sequence[tuple[int, int, int]],
    seeds: Sequence[int],
    file: Path | None = None,
) -> Iterator[pd.DataFrame]:
    """Scores of all kinds of networks, seeds and pairs: all that is known so far, again and again as more is.

    Args:
        kinds: Networks, by name.
        data: The complexes, with what networks read of them.
        pairs: Number of the pair, and of its two complexes.
        seeds: Of weights and numberings.
        file: CSV that is read first and written as pairs end; what is there is not done again.

    Raises:
        CosetError: The file is not one of these.
    """
    table = pd.DataFrame(columns=COLUMNS) if file is None or not file.is_file() else _read(file)
    done = set(table[KEY].itertuples(index=False, name=None))
    yield table
    for name, make in kinds.items():
        for seed in seeds:
            left = [pair for pair in pairs if (name, seed, pair[0]) not in done]
            for group in _equal_sizes(left, data):
                began = time.process_time()
                found = scores_together(make, [(data[a], data[b]) for _, a, b in group], seed)
                seconds = (time.process_time() - began) / len(group)
                rows = [(name, seed, pair[0], *scores, seconds) for pair, scores in zip(group, found)]
                new = pd.DataFrame(rows, columns=COLUMNS)
                table = pd.concat([table, new], ignore_index=True) if len(table) else new
                if file is not None:
                    write_text(file, table.to_csv(index=False))
                yield table


def summarise(table: pd.DataFrame, kinds: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row a network and seed: pairs that pass T^2, pairs that fail reliability."""
    rows = []
    for name in kinds:
        for seed in seeds:
            scores = table[(table["network"] == name) & (table["seed"] == seed)]
            row = {
                "network": name, "seed": seed, "pairs": len(scores),
                "apart": int((scores["T2"] > THRESHOLD).sum()), "smallest_T2": float(scores["T2"].min()),
                "largest_T2": float(scores["T2"].max()), "unreliable": int((scores["reliability"] > THRESHOLD).sum()),
                "largest_reliability": float(scores["reliability"].max()),
                "cpu_seconds": round(float(scores["cpu_seconds"].sum()), 1),
            }  # fmt: skip
            rows.append(row)
    return rows


def _read(file: Path) -> pd.DataFrame:
    table = read_numbers(file)
    if list(table.columns) != COLUMNS:
        raise CosetError(f"{file} is no table of torus scores: it needs the columns {', '.join(COLUMNS)}")
    return table


def _equal_sizes(
    pairs: Sequence[tuple[int, int, int]], data: Sequence[ComplexData]
) -> Iterator[list[tuple[int, int, int]]]:
    """Pairs that can train together: equally many cells of each rank, not too many pairs at once."""
    groups: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}
    for pair in pairs:
        groups.setdefault(tuple(data[pair[1]].num_cells.flatten().tolist()), []).append(pair)
    for group in groups.values():
        for start in range(0, len(group), AT_ONCE):
            yield group[start : start + AT_ONCE]
